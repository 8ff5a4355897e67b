"""The autoencoder of the embedded models: 64 x 64 x 3 pixels to 16 x 16 x 4 latents and back.

It has no attention of its own, so everything that the project measures happens in the denoiser.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from entropy_lib.scenes import scenes
from entropy_lib.scenes.detection import pixels
from training import pictures
from training.loop import descend, epoch_batch, loop, step_generator
from training.muon import muon_and_adamw
from training.precision import mixed

BATCH = 8
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-3
COLOUR_WEIGHT = 2.0
EDGE_WEIGHT = 0.5
KL_WEIGHT = 1e-4  # small: the latents should be smooth, not Gaussian


def build() -> AutoencoderKL:
    """An untrained autoencoder, factor 4, 0.65 M parameters; few channels at full resolution, where they
    cost most.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=scenes.SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    ).to(memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pixels, of their differences to the neighbours (edges), and of 4 x 4
    averages (colours).

    Without the last term the four channels go to brightness and greens come out grey.
    """
    edges = sum((output.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    colours = (functional.avg_pool2d(output, 4) - functional.avg_pool2d(target, 4)).abs().mean()
    return (output - target).abs().mean() + EDGE_WEIGHT * edges + COLOUR_WEIGHT * colours


def train(path: Path, steps: int) -> AutoencoderKL:
    """Train to `steps`, resuming from `path`; returns the trained model."""
    torch.manual_seed(0)
    model, images = build(), pictures.drawn(pictures.TRAIN_COUNT)
    optimizers = muon_and_adamw(model, LEARNING_RATE, WEIGHT_DECAY, convolutions=True)

    def update(step: int) -> dict[str, float]:
        generator = step_generator(step)
        target = pixels(images[epoch_batch(step, BATCH, len(images)).numpy()])
        with mixed():
            posterior = model.encode(target).latent_dist
            output = model.decode(posterior.sample(generator=generator)).sample.float()
        reconstruction = reconstruction_loss(output, target)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        descend(reconstruction + KL_WEIGHT * kl, model, optimizers)
        error = (output.detach() - target).abs().mean().item() / 2
        return {"reconstruction": reconstruction.item(), "error": error, "kl": kl.item()}

    loop(path, {"model": model}, optimizers, steps, update)
    return model.eval()


@torch.no_grad()
def encode(
    model: AutoencoderKL, images: UInt8[np.ndarray, "n height width 3"], batch: int = 64
) -> Float[Tensor, "n channel height width"]:
    """Latents of uint8 images `[n, height, width, 3]`: the posterior's mode."""
    with mixed():
        parts = [
            model.encode(pixels(images[start : start + batch])).latent_dist.mode().float()
            for start in range(0, len(images), batch)
        ]
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_error(
    model: AutoencoderKL, images: UInt8[np.ndarray, "n height width 3"], batch: int = 50
) -> float:
    """Mean absolute error of reconstructions, as a share of the range of grey values."""
    total = 0.0
    for start in range(0, len(images), batch):
        target = pixels(images[start : start + batch])
        output = model.decode(model.encode(target).latent_dist.mode()).sample.clamp(-1, 1)
        total += (output - target).abs().mean((1, 2, 3)).sum().item() / 2
    return total / len(images)


def fold_normalisation(model: AutoencoderKL, latents: Float[Tensor, "n channel height width"]) -> None:
    """Make every latent channel zero-mean and unit-variance over `latents`, inside the quantisation
    convolutions.

    Stable Diffusion has a single scaling factor; folding the statistics into the weights keeps that interface
    exact.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    with torch.no_grad():
        model.post_quant_conv.bias += (model.post_quant_conv.weight * mean.view(1, -1, 1, 1)).sum((1, 2, 3))
        model.post_quant_conv.weight *= std.view(1, -1, 1, 1)
        model.quant_conv.weight[:channels] /= std.view(-1, 1, 1, 1)
        model.quant_conv.bias[:channels] = (model.quant_conv.bias[:channels] - mean) / std
        model.quant_conv.bias[channels:] -= 2 * std.log()  # the second half predicts the log-variance
