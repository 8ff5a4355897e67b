"""Noise levels as logarithms of the signal-to-noise ratio, and which a network is given at a size.

A network takes from its timestep how much of what it sees is noise. At a size that it does not know, the
level at which it denoises best may be another than the true one (NoiseShift, 2510.02307);
`training/noise_levels.py` finds it on real images, by the network's own training loss.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.files import DATA
from entropy_lib.models.layers import denoiser
from entropy_lib.scaling.calibration import lengths, same_lengths
from entropy_lib.sizes import Size, SizeLike

SHIPPED = DATA / "calibrations" / "noise"
LARGEST = 30.0  # beyond, a level is called pure noise or pure image
Offsets = Sequence[tuple[float, float]]  # timestep, and what to add to the logarithm of its ratio


@dataclass(frozen=True)
class LogSnr:
    """ln of the signal-to-noise ratio at each timestep of a schedule, falling."""

    values: Float[np.ndarray, " timestep"]

    def at(self, timestep: Tensor) -> Tensor:
        """At timesteps, which may lie between two."""
        return interpolated(timestep, range(len(self.values)), self.values)

    def timestep(self, level: Tensor) -> Tensor:
        """The timestep of a level; the first or the last for one beyond."""
        return interpolated(-level, -self.values, range(len(self.values)))


def interpolated(where: Tensor, x: Sequence[float], y: Sequence[float]) -> Tensor:
    """Linear between points; float32, on the device of `where`."""
    found = np.interp(where.double().cpu().numpy(), x, y)
    return torch.as_tensor(found, dtype=torch.float32, device=where.device)


def log_snr(scheduler: SchedulerMixin) -> LogSnr:
    """The levels of a scheduler with a schedule of variances."""
    signal = getattr(scheduler, "alphas_cumprod", None)
    if signal is None:
        raise UnsupportedModelError(
            f"{type(scheduler).__name__} has no schedule of variances (alphas_cumprod)"
        )
    signal = signal.double().numpy()
    with np.errstate(divide="ignore"):
        return LogSnr(np.clip(np.log(signal) - np.log1p(-signal), -LARGEST, LARGEST))


@dataclass(frozen=True)
class NoiseLevels:
    """At which levels a network denoises best, by size."""

    # {layer: length of its query projection}, by which the network is recognised
    lengths: Mapping[str, float]
    offsets: Mapping[str, Offsets]  # {"96x96": `Offsets`}
    # {"96x96": [[loss of each offset that was tried] of each timestep]}
    losses: Mapping[str, Sequence[Sequence[float]]]

    @classmethod
    def read(cls, path: Path) -> "NoiseLevels":
        """Those that were measured; InvalidInputError for a file that holds something else."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"{path} holds no noise levels that can be read ({error}); restore it, or measure them again"
            ) from None

    def fit(self, pipe: DiffusionPipeline) -> bool:
        """Whether they were measured on these weights."""
        own = lengths(denoiser(pipe), self.lengths)
        return own is not None and same_lengths(own, self.lengths)


def noise_level_of(pipe: DiffusionPipeline, size: SizeLike) -> Offsets:
    """The offsets of a pipeline at a size, of those that are shipped."""
    shipped = (NoiseLevels.read(path) for path in sorted(SHIPPED.glob("*.json")))
    found, size = next((levels for levels in shipped if levels.fit(pipe)), None), str(Size.of(size))
    if found is None or size not in found.offsets:
        sizes = f", only for {', '.join(found.offsets)}" if found else ""
        raise InvalidInputError(
            f"the noise level at which this model denoises {size} best has not been measured{sizes}; "
            "`python -m training.calibrations` measures it on images"
        )
    return found.offsets[size]


def moved(scheduler: SchedulerMixin, timestep: Tensor, offsets: Offsets) -> Tensor:
    """The timestep to give a network in place of the true one."""
    curve = log_snr(scheduler)
    return curve.timestep(curve.at(timestep) + interpolated(timestep, *zip(*offsets, strict=True)))
