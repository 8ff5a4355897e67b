"""What both trainings share: a resumable loop whose batches depend on (seed, step) alone, a log and safe
checkpoints.
"""

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from entropy_lib.errors import WeightsError
from entropy_lib.files import replacing

SEED = 2306


def step_generator(step: int) -> torch.Generator:
    """Randomness of one step. It depends on the step alone, so a resumed run sees what an undisturbed one
    would.
    """
    return torch.Generator().manual_seed(SEED * 1_000_003 + step)


def epoch_batch(step: int, batch: int, pictures: int) -> torch.Tensor:
    """Indices of one batch: every image once an epoch, in an order that depends on the epoch alone."""
    position = torch.arange(step * batch, (step + 1) * batch)
    epochs = position // pictures
    order = {int(e): torch.randperm(pictures, generator=step_generator(-1 - int(e))) for e in epochs.unique()}
    return torch.stack([order[int(e)][int(p) % pictures] for e, p in zip(epochs, position, strict=True)])


def warmup_stable_decay(step: int, steps: int, warmup: int = 200, decay: float = 0.3) -> float:
    """Learning-rate factor: up linearly, flat, then linearly to zero over the last `decay` of the run.

    Unlike a cosine it lets a finished run be continued: only the last part has to be trained again.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


Modules = dict[str, torch.nn.Module]
Optimizers = dict[str, torch.optim.Optimizer]


def _flat_state(modules: Modules, optimizers: Optimizers) -> Iterator[tuple[str, torch.Tensor]]:
    for name, module in modules.items():
        yield from ((f"{name}|{key}", value.contiguous()) for key, value in module.state_dict().items())
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            yield from (
                (f"optimizer|{name}|{index}|{key}", value.contiguous()) for key, value in state.items()
            )


def save(path: Path, modules: Modules, optimizers: Optimizers, step: int) -> None:
    """Write everything that a resumed run needs, as safetensors (no pickle)."""
    with replacing(path) as temporary:
        save_file(dict(_flat_state(modules, optimizers)), temporary, metadata={"step": str(step)})


def resume(path: Path, modules: Modules, optimizers: Optimizers) -> int:
    """Load what `save` wrote and return the step to go on from; 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        step = int(file.metadata()["step"])
    for name, module in modules.items():
        prefix = f"{name}|"
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )
    states: dict[str, dict[int, dict[str, torch.Tensor]]] = {name: {} for name in optimizers}
    for key, value in tensors.items():
        if key.startswith("optimizer|"):
            _, name, index, field = key.split("|")
            states[name].setdefault(int(index), {})[field] = value
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(
            {"state": states[name], "param_groups": optimizer.state_dict()["param_groups"]}
        )
    return step


def descend(
    loss: torch.Tensor, model: torch.nn.Module, optimizers: Optimizers, longest: float = 1.0
) -> float:
    """One step of all optimisers down the gradient of a loss, which is cut to `longest`; returns how long it
    was.
    """
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), longest)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    return norm.item()


def follow(average: torch.nn.Module, model: torch.nn.Module, step: int, decay: float) -> None:
    """Move the average of the weights towards a model's, faster at first."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), share)


Model = TypeVar("Model", bound=torch.nn.Module)


def averaged(path: Path, model: Model) -> Model:
    """A model with the averaged weights of the last checkpoint.

    Raises:
        WeightsError: when there is none.
    """
    if not path.exists():
        raise WeightsError(f"{path} is not there; train first")
    with safe_open(path, framework="pt") as file:
        named = ((key, key.removeprefix("average|")) for key in file.keys() if key.startswith("average|"))  # noqa: SIM118
        model.load_state_dict({name: file.get_tensor(key) for key, name in named})
    return model.eval()


class Log:
    """A CSV file of averages, one row every `every` steps, and the same line on the terminal."""

    def __init__(self, path: Path, every: int = 50):
        self.path, self.every, self.sums, self.count, self.start = path, every, {}, 0, time.monotonic()

    def add(self, step: int, **values: float) -> None:
        self.count += 1
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        if (step + 1) % self.every == 0:
            self._write(
                {"step": step + 1} | {key: round(total / self.count, 5) for key, total in self.sums.items()}
            )

    def _write(self, row: dict[str, float]) -> None:
        row["seconds"] = round(time.monotonic() - self.start, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        self.sums, self.count = {}, 0


def loop(
    path: Path,
    modules: Modules,
    optimizers: Optimizers,
    steps: int,
    update: Callable[[int], dict[str, float]],
    checkpoint_every: int = 250,
) -> None:
    """Run `update(step)` from the last checkpoint to `steps`, logging beside `path` and saving to it."""
    log, first = Log(path.with_suffix(".csv")), resume(path, modules, optimizers)
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    base_rates = [group["lr"] for group in groups]
    for step in range(first, steps):
        for group, rate in zip(groups, base_rates, strict=True):
            group["lr"] = rate * warmup_stable_decay(step, steps)
        log.add(step, **update(step))
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            save(path, modules, optimizers, step + 1)
