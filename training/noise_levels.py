"""At which noise level a network denoises images of a size best, by its own training loss on real images.

The loss has one noise for all levels that are tried; the best offset is the lowest point of the parabola
through the lowest loss and its neighbours.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float, UInt8
from torch import Tensor

from entropy_lib.files import replacing
from entropy_lib.models.layers import denoiser, training_tokens
from entropy_lib.sampling.noise_level import NoiseLevels, moved
from entropy_lib.scaling.calibration import lengths
from entropy_lib.sizes import Size

LEVELS = tuple(np.linspace(60, 960, 10).round().astype(int).tolist())  # timesteps
OFFSETS = tuple(np.linspace(-2, 2, 17).tolist())  # of the level, in nats of the signal-to-noise ratio
BATCH, SEED = 16, 0


@torch.no_grad()
def measure(
    pipe: DiffusionPipeline,
    images: Mapping[tuple[int, int], UInt8[np.ndarray, "image height width 3"]],
    captions: Sequence[str],
) -> NoiseLevels:
    """The best offsets at each size, of images of that size, one for each caption."""
    text = pipe.encode_prompt(list(captions), pipe.device, 1, False)[0]
    losses = {str(Size.of(size)): _losses(pipe, given, text) for size, given in images.items()}
    offsets = {
        size: [(level, lowest(row)) for level, row in zip(LEVELS, rows, strict=True)]
        for size, rows in losses.items()
    }
    return NoiseLevels(lengths(denoiser(pipe), list(training_tokens(pipe))) or {}, offsets, losses)


def write(levels: NoiseLevels, path: Path) -> Path:
    """Keep them as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(levels)) + "\n", encoding="utf-8")
    return path


def _losses(pipe: DiffusionPipeline, images: np.ndarray, text: Tensor) -> list[list[float]]:
    """Mean loss at each level under each offset."""
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).to(pipe.device, pipe.vae.dtype) / 127.5 - 1
    latents = torch.cat([pipe.vae.encode(part).latent_dist.mean for part in pixels.split(BATCH)])
    latents = latents * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents)
    return [[_loss(pipe, latents, noise, text, level, offset) for offset in OFFSETS] for level in LEVELS]


def _loss(
    pipe: DiffusionPipeline,
    latents: Float[Tensor, "image channel row column"],
    noise: Float[Tensor, "image channel row column"],
    text: Tensor,
    level: int,
    offset: float,
) -> float:
    """Mean squared error of the prediction at one level when the network is given another."""
    timestep = torch.tensor([level], device=latents.device)
    given, squares = moved(pipe.scheduler, timestep, [(0, offset), (1000, offset)]), []
    for latent, error, words in zip(*(each.split(BATCH) for each in (latents, noise, text)), strict=True):
        noisy = pipe.scheduler.add_noise(latent, error, timestep)
        predicted = denoiser(pipe)(noisy, given.expand(len(latent)), encoder_hidden_states=words).sample
        target = _target(pipe.scheduler, latent, error, timestep)
        squares.append((predicted.float() - target.float()).square().mean((1, 2, 3)))
    return float(torch.cat(squares).mean())


def _target(scheduler: SchedulerMixin, latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network was trained to predict."""
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return scheduler.get_velocity(latent, noise, timestep)
    return noise if kind == "epsilon" else latent


def lowest(losses: Sequence[float]) -> float:
    """The offset of the lowest loss, between the grid's points."""
    values, best = np.asarray(losses), int(np.argmin(losses))
    if best in (0, len(values) - 1):
        return float(OFFSETS[best])
    left, middle, right = values[best - 1 : best + 2]
    step = OFFSETS[1] - OFFSETS[0]
    return float(OFFSETS[best] + step * (left - right) / (2 * (left - 2 * middle + right)))
