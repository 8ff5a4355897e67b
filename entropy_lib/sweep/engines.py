"""Who generates a plan's images, and what it costs. To add an engine, give it a line in `ENGINES`.

This process and the workers of a Ray cluster take the same groups, commit to the same store, and may be
stopped and started again at any time. Jobs without Ray divide the work by shards: `--shard i/n`, or SLURM's
and torchrun's own variables.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from entropy_lib.errors import InvalidInputError, WeightsError, extra
from entropy_lib.sweep.plan import Plan, Unit
from entropy_lib.sweep.store import Store

Groups = Sequence[Sequence[Unit]]
PNG_BYTES = 1.6  # a pixel, where no image is there yet: photographs as PNG
SHARDS = (  # variables with a process's number, the number of processes, and the first number
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("RANK", "WORLD_SIZE", ""),
    ("SLURM_PROCID", "SLURM_NTASKS", ""),
)


def pending(groups: Groups, store: Store) -> list[Sequence[Unit]]:
    """The groups of which anything is still to be generated."""
    done = store.committed()
    return [group for group in groups if any(unit.key not in done for unit in group)]


def local(
    groups: Groups, store: Store, *, device: str = "auto", workers: int = 1, progress: bool = True
) -> int:
    """Generate in this process, one group after the other; returns how many images that were.

    Raises:
        InvalidInputError: for more than one worker: start several processes with `--shard`, or use the engine
            `ray`; for rules that the network cannot take.
    """
    from entropy_lib.sweep.sample import Sampler  # loads diffusers

    if workers != 1:
        one = "the local engine is one process. Use --engine ray, or several with --shard"
        raise InvalidInputError(f"workers is {workers}; {one}")
    groups = pending(groups, store)
    if not groups:
        return 0
    sampler = Sampler(groups[0][0].model, groups[0][0].dtype, device)
    sampler.check_rules((unit for group in groups for unit in group), store)
    return sum(sampler.generate_group(group, store) for group in _shown(groups, len(groups), progress))


def ray(
    groups: Groups, store: Store, *, device: str = "auto", workers: int = 1, progress: bool = True
) -> int:
    """Generate with `workers` actors of a Ray cluster: the one at RAY_ADDRESS, or one of this machine's.

    Each actor loads the model once and has one GPU, or on machines without an equal share of the cores. Only
    units and counts travel: images go straight to the store, which must be a folder that all nodes see. An
    actor that dies is started again and its group generated anew.
    """
    with extra("ray"):
        import ray as cluster
        from ray.util import ActorPool

    groups = pending(groups, store)
    if not groups:
        return 0
    started = not cluster.is_initialized()
    if started:
        cluster.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        share = _share(cluster.nodes(), workers, device)
        # a machine of a cluster may be taken away at any time: its actor starts again elsewhere
        actor = cluster.remote(**share, max_restarts=-1, max_task_retries=-1)(_Worker)
        threads = None if share["num_gpus"] else share["num_cpus"]
        asked = (groups[0][0].model, groups[0][0].dtype, device, store.folder.resolve(), threads)
        pool = ActorPool([actor.remote(*asked) for _ in range(min(workers, len(groups)))])
        counts = pool.map_unordered(lambda actor, group: actor.generate_group.remote(group), groups)
        return sum(_shown(counts, len(groups), progress))
    finally:
        if started:
            cluster.shutdown()


def _shown(batches: Iterable, count: int, progress: bool) -> tqdm:
    """With a bar of progress, but for where nobody watches: `disable=None` is where there is no terminal."""
    return tqdm(batches, total=count, disable=not progress or None, desc="generating", unit="batch")


def _share(nodes: Sequence[Mapping], workers: int, device: str) -> dict[str, int]:
    """What each worker gets: a GPU, or so many cores that all workers find room on the nodes."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus, cores = (sum(int(node.get(kind, 0)) for node in alive) for kind in ("GPU", "CPU"))
    kind, available = ("GPUs", gpus) if gpus and device != "cpu" else ("cores", cores)
    if not 1 <= workers <= available:
        there = f"the Ray cluster has {available} {kind}: take 1 to {available}"
        raise InvalidInputError(f"workers is {workers}; {there}")
    if kind == "GPUs":
        return {"num_gpus": 1, "num_cpus": 1}
    room = {n: sum(int(node.get("CPU", 0)) // n for node in alive) for n in range(1, cores // workers + 1)}
    return {"num_gpus": 0, "num_cpus": max(n for n, places in room.items() if places >= workers)}


class _Worker:
    def __init__(self, model: str, dtype: str, device: str, folder: Path, threads: int | None):
        from entropy_lib.sweep.sample import Sampler

        if threads is not None:
            torch.set_num_threads(threads)
        self.sampler, self.store = Sampler(model, dtype, device), Store(folder)

    def generate_group(self, group: Sequence[Unit]) -> int:
        return self.sampler.generate_group(group, self.store)


ENGINES: dict[str, Callable[..., int]] = {"local": local, "ray": ray}


def shard_of_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which shard this process is, by the variables of SLURM or torchrun; (0, 1) without them.

    Processes of processes, as tasks of the jobs of an array, divide their job's shard among them.
    """
    shard, shards = 0, 1
    for index, count, first in SHARDS:
        if not {index, count} <= set(environment) or (index == "SLURM_PROCID" and "RANK" in environment):
            continue
        given = f"{index} is {environment[index]} and {count} is {environment[count]}"
        try:
            place, among = int(environment[index]) - int(environment.get(first, 0)), int(environment[count])
        except ValueError:
            raise InvalidInputError(f"{given}: not whole numbers; say which part with --shard i/n") from None
        if not 0 <= place < among:
            raise InvalidInputError(f"{given}: an array with gaps; say which part with --shard i/n")
        shard, shards = shard * among + place, shards * among
    return shard, shards


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) from "i/n".

    Example:
        >>> parse_shard("0/4")
        (0, 4)
    """
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InvalidInputError(f"shard {text!r} is not written as i/n, i from 0 to n - 1; for example '0/4'")
    return int(index), int(count)


def estimate(
    plan: Plan, store: Store, *, batch: int, device: str = "auto", measure: bool = True
) -> pd.DataFrame:
    """What a plan costs, one row a size and the sum; hours only by a rate that was measured here.

    Args:
        batch, device: as the images will be generated.
        measure: generate one batch of each size where none is there yet; those images are part of the plan
            and are kept. Half precision is not measured without a GPU.

    Returns:
        columns `size, images, seconds, hours, megabytes`, as text; a dash where nothing has been measured.
    """
    if measure and (torch.cuda.is_available() or plan.settings.dtype == "float32"):
        first = {group[0].size: group for group in reversed(plan.groups(batch))}
        with suppress(WeightsError):  # planned here, generated elsewhere
            local(list(first.values()), store, device=device)
    rows = [_cost([unit for unit in plan.units if unit.size == size], store) for size in plan.sizes]
    table = pd.DataFrame(rows, columns=["images", "seconds", "hours", "megabytes"])
    table.loc[len(table)] = table.sum(skipna=False).where(table.columns != "seconds")
    forms = {"images": "{:,.0f}", "seconds": "{:.2f}", "hours": "{:.2f}", "megabytes": "{:,.1f}"}
    for name, form in forms.items():
        table[name] = [form.format(value) if value == value else "–" for value in table[name]]
    return table.assign(size=[*plan.sizes, "all"])[["size", *forms]]


def _cost(units: Sequence[Unit], store: Store) -> tuple[int, float, float, float]:
    """Images, seconds an image (of the batches that are there), hours, megabytes."""
    records = store.records(units).values()
    seconds = pd.Series([record.get("seconds") for record in records], dtype=float).median()
    written = [record["bytes"] for record in records if "bytes" in record]
    each = sum(written) / len(written) if written else PNG_BYTES * units[0].height * units[0].width
    return len(units), seconds, seconds * len(units) / 3600, each * len(units) / 1e6
