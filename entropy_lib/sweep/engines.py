"""Who draws a plan: this process, or the workers of a Ray cluster. To add an engine, give it a line in `ENGINES`.

Both take the same groups, commit to the same store, and may be stopped and started again at any time. Jobs without Ray
divide the work by shards: `--shard i/n`, or SLURM's and torchrun's own variables (`shard_of_environment`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from entropy_lib.sweep.store import Store
from entropy_lib.sweep.units import Unit

Groups = Sequence[Sequence[Unit]]
SHARDS = (  # variables with a process's number, the number of processes, and the first number
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("RANK", "WORLD_SIZE", ""),
)


def pending(groups: Groups, store: Store) -> list[Sequence[Unit]]:
    """The groups of which anything is still to be drawn."""
    done = store.committed()
    return [group for group in groups if any(unit.key not in done for unit in group)]


def local(groups: Groups, store: Store, *, device: str = "auto", workers: int = 1, progress: bool = True) -> int:
    """Draw in this process, one group after the other; returns how many images were drawn.

    Raises:
        ValueError: for more than one worker: start several processes with `--shard`, or use the engine `ray`.
    """
    from entropy_lib.sweep.sample import Sampler  # loads diffusers

    if workers != 1:
        raise ValueError(f"workers is {workers}; the local engine is one process. Use --engine ray, or --shard i/n in several")
    groups = pending(groups, store)
    if not groups:
        return 0
    with Sampler(groups[0][0].model, groups[0][0].dtype, device) as sampler:
        bar = tqdm(groups, disable=not progress, desc="drawing", unit="batch")
        return sum(sampler.draw_group(group, store) for group in bar)


def ray(groups: Groups, store: Store, *, device: str = "auto", workers: int = 1, progress: bool = True) -> int:
    """Draw with `workers` actors of a Ray cluster: the one at RAY_ADDRESS, or one of this machine's.

    Each actor loads the model once and has one GPU, or on a machine without an equal share of the cores. Only keys and
    counts travel: images go straight to the store, which must be a folder that all nodes see. An actor that dies is started
    again and its group drawn anew.

    Raises:
        ImportError: without the package `ray`.
    """
    try:
        import ray as cluster
    except ImportError:
        raise ImportError("the engine 'ray' needs the package ray: pip install 'entropy_lib[ray]'") from None

    groups = pending(groups, store)
    if not groups:
        return 0
    started = not cluster.is_initialized()
    if started:
        cluster.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        actors = [_actor(cluster, groups[0][0], store, device, workers) for _ in range(min(workers, len(groups)))]
        results = _spread(cluster, actors, groups)
        return sum(tqdm(results, total=len(groups), disable=not progress, desc=f"drawing with {workers} workers", unit="batch"))
    finally:
        if started:
            cluster.shutdown()


def _actor(cluster, unit: Unit, store: Store, device: str, workers: int):
    """One worker. It is restarted without end: a machine of a cluster may be taken away at any time."""
    resources = cluster.cluster_resources()
    gpus = 1 if resources.get("GPU") and device != "cpu" else 0
    cores = max(1, int(resources["CPU"]) // workers)
    options = {"num_gpus": gpus, "num_cpus": 1 if gpus else cores, "max_restarts": -1, "max_task_retries": -1}
    remote = cluster.remote(**options)(_Worker)
    return remote.remote(unit.model, unit.dtype, device, store.folder.resolve(), None if gpus else cores)


class _Worker:
    """What runs inside a Ray actor."""

    def __init__(self, model: str, dtype: str, device: str, folder: Path, threads: int | None):
        import torch

        from entropy_lib.sweep.sample import Sampler

        if threads is not None:
            torch.set_num_threads(threads)
        self.sampler, self.store = Sampler(model, dtype, device), Store(folder)

    def draw_group(self, group: Sequence[Unit]) -> int:
        return self.sampler.draw_group(group, self.store)


def _spread(cluster, actors: list, groups: Groups):
    """Give each actor its next group when it is done with one; yield the counts as they come."""
    waiting, running = list(reversed(groups)), {}
    while waiting or running:
        free = [actor for actor in actors if actor not in running.values()]
        for actor in free[: len(waiting)]:
            running[actor.draw_group.remote(waiting.pop())] = actor
        done, _ = cluster.wait(list(running), num_returns=1)
        for task in done:
            running.pop(task)
            yield cluster.get(task)


ENGINES: dict[str, Callable[..., int]] = {"local": local, "ray": ray}


def shard_of_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which shard this process is, by the variables of a SLURM array job or of torchrun; (0, 1) without them.

    Example:
        >>> shard_of_environment({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"})
        (4, 8)
    """
    for index, count, first in SHARDS:
        if index in environment and count in environment:
            return int(environment[index]) - int(environment.get(first, 0)), int(environment[count])
    return 0, 1


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) from "i/n".

    Raises:
        ValueError: when it is written otherwise, or i is not one of 0 to n - 1.

    Example:
        >>> parse_shard("0/4")
        (0, 4)
    """
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"shard {text!r} is not written as i/n with i from 0 to n - 1, for example '0/4'")
    return int(index), int(count)
