"""Noise levels as logarithms of the signal-to-noise ratio, and which of them a network should be told at
another size.

A network that is told a noise level judges by it how much of what it sees is noise. At a size that it does
not know the level at which it denoises best may be another than the true one (NoiseShift, 2510.02307).
`calibrate_noise_level` finds it on real images, by the network's own training loss.

Example:
    >>> from diffusers import DDIMScheduler
    >>> curve = log_snr(DDIMScheduler())
    >>> round(float(curve.timestep(curve.at(torch.tensor(300.0)))), 3)
    300.0
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float, UInt8
from torch import Tensor

from entropy_lib.errors import InvalidInputError, MissingFileError, UnsupportedModelError
from entropy_lib.files import DATA, replacing
from entropy_lib.models.layers import denoiser, training_tokens
from entropy_lib.sampling.request import check_list, check_pipeline, check_sizes
from entropy_lib.scaling.calibration import SAME, lengths
from entropy_lib.sizes import Size, SizeLike

SHIPPED = DATA / "calibrations" / "noise"
ATTRIBUTE = "_entropy_lib_noise_levels"  # where a network keeps those that it was given
# timesteps at which the loss is looked at
LEVELS = tuple(np.linspace(60, 960, 10).round().astype(int).tolist())
OFFSETS = tuple(np.linspace(-2, 2, 17).tolist())  # of the level told, in nats of the signal-to-noise ratio
LARGEST = 30.0  # beyond, a level is called pure noise or pure image


@dataclass(frozen=True)
class LogSnr:
    """ln of the signal-to-noise ratio at each timestep of a schedule, falling."""

    values: Float[np.ndarray, " timestep"]

    def at(self, timestep: Tensor) -> Tensor:
        """At timesteps, which may lie between two."""
        found = np.interp(timestep.double().cpu().numpy(), np.arange(len(self.values)), self.values)
        return torch.as_tensor(found, dtype=torch.float32, device=timestep.device)

    def timestep(self, level: Tensor) -> Tensor:
        """The timestep of a level; the first or the last for one beyond."""
        found = np.interp(-level.double().cpu().numpy(), -self.values, np.arange(len(self.values)))
        return torch.as_tensor(found, dtype=torch.float32, device=level.device)


def log_snr(scheduler: SchedulerMixin) -> LogSnr:
    """The levels of a scheduler with a schedule of variances.

    Raises:
        UnsupportedModelError: for another.
    """
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
    """What a network should be told, by size.

    Attributes:
        lengths: {layer: length of its query projection}, by which the network is recognised.
        offsets: {"96x96": [(timestep, what to add to the logarithm of its signal-to-noise ratio), ...]}.
        losses: {"96x96": [[loss of each offset of `OFFSETS`] of each timestep]}.
    """

    lengths: Mapping[str, float]
    offsets: Mapping[str, Sequence[tuple[float, float]]]
    losses: Mapping[str, Sequence[Sequence[float]]]

    def write(self, path: Path | str) -> Path:
        """Keep them as JSON, whole or not at all."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def read(cls, path: Path | str) -> "NoiseLevels":
        """Those that were written.

        Raises:
            MissingFileError: if they are not there.
            InvalidInputError: if they cannot be read.
        """
        if not Path(path).is_file():
            raise MissingFileError(f"no noise levels at {path}; measure them with `calibrate_noise_level`")
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"{path} holds no noise levels that can be read ({error}); measure them again"
            ) from None

    def fit(self, pipe: DiffusionPipeline) -> bool:
        """Whether they were measured on these weights."""
        own = lengths(denoiser(pipe), self.lengths)
        return own is not None and all(
            math.isclose(own[name], self.lengths[name], rel_tol=SAME) for name in own
        )


def noise_level_of(pipe: DiffusionPipeline, size: SizeLike) -> Sequence[tuple[float, float]]:
    """The offsets of a pipeline at a size: those that it was given, or else those that are shipped with its
    weights.

    Raises:
        InvalidInputError: where this size was not measured.
    """
    given = getattr(denoiser(pipe), ATTRIBUTE, None)
    shipped = (NoiseLevels.read(path) for path in sorted(SHIPPED.glob("*.json")))
    found = given if given is not None else next((levels for levels in shipped if levels.fit(pipe)), None)
    size = str(Size.of(size))
    if found is None or size not in found.offsets:
        raise InvalidInputError(
            f"what the network should be told at {size} has not been measured"
            + (f", only for {', '.join(found.offsets)}" if found else "")
            + "; `calibrate_noise_level` measures it on images"
        )
    return found.offsets[size]


def told_offset(
    scheduler: SchedulerMixin, timestep: Tensor, offsets: Sequence[tuple[float, float]]
) -> Tensor:
    """The timestep to tell in place of the true one."""
    curve = log_snr(scheduler)
    added = np.interp(timestep.double().cpu().numpy(), *np.array(offsets).T)
    return curve.timestep(
        curve.at(timestep) + torch.as_tensor(added, dtype=torch.float32, device=timestep.device)
    )


@torch.no_grad()
def calibrate_noise_level(
    pipe: DiffusionPipeline,
    pictures: Mapping[SizeLike, UInt8[np.ndarray, "image height width 3"]],
    captions: Sequence[str],
    *,
    batch: int = 16,
    seed: int = 0,
) -> NoiseLevels:
    """Find, at each size and noise level, which level a network should be told, and let the pipeline go by
    it.

    The loss is that of training, with one noise for all levels told; the best offset is the lowest point of
    the parabola through the lowest loss and its neighbours.

    Args:
        pipe: with a schedule of variances.
        images: {size: real images of that size}, one for each caption.
        captions: of the images.
        batch: images denoised together.
        seed: of the noise.

    Raises:
        InvalidInputError: for images that are not of their size or not as many as captions.
        UnsupportedModelError: for another kind of scheduler.
    """
    check_pipeline(pipe)
    log_snr(pipe.scheduler)
    check_list("captions", captions, "texts", lambda caption: isinstance(caption, str))
    by_size = dict(zip(check_sizes(pipe, list(pictures)), pictures.values(), strict=True))
    for size, images in by_size.items():
        if images.shape != (len(captions), *size, 3):
            raise InvalidInputError(
                f"images of {size} are {images.shape}; there must be one for each of the captions"
            )
    text = pipe.encode_prompt(list(captions), pipe.device, 1, False)[0]
    losses = {str(size): _losses(pipe, images, text, batch, seed) for size, images in by_size.items()}
    offsets = {
        size: [(level, _lowest(row)) for level, row in zip(LEVELS, rows, strict=True)]
        for size, rows in losses.items()
    }
    found = NoiseLevels(lengths(denoiser(pipe), list(training_tokens(pipe))) or {}, offsets, losses)
    setattr(denoiser(pipe), ATTRIBUTE, found)
    return found


def _losses(
    pipe: DiffusionPipeline, images: np.ndarray, text: Tensor, batch: int, seed: int
) -> list[list[float]]:
    """Mean loss at each level under each offset."""
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).to(pipe.device, pipe.vae.dtype) / 127.5 - 1
    latents = (
        torch.cat([pipe.vae.encode(part).latent_dist.mean for part in pixels.split(batch)])
        * pipe.vae.config.scaling_factor
    )
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    return [
        [_loss(pipe, latents, noise, text, level, offset, batch) for offset in OFFSETS] for level in LEVELS
    ]


def _loss(
    pipe: DiffusionPipeline,
    latents: Tensor,
    noise: Tensor,
    text: Tensor,
    level: int,
    offset: float,
    batch: int,
) -> float:
    """Mean squared error of the prediction at one level when another is told."""
    timestep = torch.tensor([level], device=latents.device)
    told, squares = told_offset(pipe.scheduler, timestep, [(0, offset), (1000, offset)]), []
    for latent, error, words in zip(latents.split(batch), noise.split(batch), text.split(batch), strict=True):
        noisy = pipe.scheduler.add_noise(latent, error, timestep)
        target = _target(pipe.scheduler, latent, error, timestep)
        predicted = denoiser(pipe)(noisy, told.expand(len(latent)), encoder_hidden_states=words).sample
        squares.append((predicted.float() - target.float()).square().mean((1, 2, 3)))
    return float(torch.cat(squares).mean())


def _target(scheduler: SchedulerMixin, latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network was trained to predict."""
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return scheduler.get_velocity(latent, noise, timestep)
    return noise if kind == "epsilon" else latent


def _lowest(losses: Sequence[float]) -> float:
    """The offset of the lowest loss, between the grid's points."""
    values, best = np.asarray(losses), int(np.argmin(losses))
    if best in (0, len(values) - 1):
        return float(OFFSETS[best])
    left, middle, right = values[best - 1 : best + 2]
    step = OFFSETS[1] - OFFSETS[0]
    return float(OFFSETS[best] + step * (left - right) / (2 * (left - 2 * middle + right)))
