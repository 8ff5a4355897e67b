"""The autoencoder of the embedded model: 64 x 64 x 3 pixels to 16 x 16 x 4 latents and back.

It has no attention of its own, so everything that the project measures happens in the denoiser.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from entropy_lib.mini import dataset
from entropy_lib.mini.training import epoch_batch, loop, step_generator

BATCH = 8
LEARNING_RATE = 2e-3
COLOUR_WEIGHT = 3.0
KL_WEIGHT = 3e-4  # small: the latents should be smooth, not Gaussian


def build() -> AutoencoderKL:
    """An untrained autoencoder, factor 4, 1.4 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=dataset.SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    ).to(memory_format=torch.channels_last)


def augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the pictures and move each batch by up to 7 pixels, white beyond the edge."""
    mirrored = torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5
    pictures = torch.where(mirrored, pictures.flip(-1), pictures)
    down, right = torch.randint(0, 15, (2,), generator=generator).tolist()
    padded = functional.pad(pictures, (7, 7, 7, 7), value=1.0)
    return padded[:, :, down : down + dataset.SIZE, right : right + dataset.SIZE].contiguous(memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pixels, of their differences to the neighbours (edges), and of 4 x 4 averages (colours).

    Without the last term the four channels go to brightness and greens come out grey.
    """
    edges = sum((output.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    colours = (functional.avg_pool2d(output, 4) - functional.avg_pool2d(target, 4)).abs().mean()
    return (output - target).abs().mean() + edges + COLOUR_WEIGHT * colours


def train(path: Path, steps: int) -> AutoencoderKL:
    """Train to `steps`, resuming from `path`; returns the trained model."""
    torch.manual_seed(0)
    model = build()
    images = dataset.pixels(dataset.load().image)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)

    def update(step: int) -> dict[str, float]:
        generator = step_generator(step)
        target = augmented(images[epoch_batch(step, BATCH, len(images))], generator)
        posterior = model.encode(target).latent_dist
        output = model.decode(posterior.sample(generator=generator)).sample
        reconstruction = reconstruction_loss(output, target)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        (reconstruction + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"reconstruction": reconstruction.item(), "kl": kl.item()}

    loop(path, {"model": model}, {"adamw": optimizer}, steps, update)
    return model.eval()


@torch.no_grad()
def fold_normalisation(model: AutoencoderKL, images: Tensor) -> None:
    """Make every latent channel zero-mean and unit-variance over `images`, inside the quantisation convolutions.

    Stable Diffusion has a single scaling factor; folding the statistics into the weights keeps that interface exact.
    """
    latents = torch.cat([model.encode(batch).latent_dist.mode() for batch in images.split(64)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    model.post_quant_conv.bias += (model.post_quant_conv.weight * mean.view(1, -1, 1, 1)).sum((1, 2, 3))
    model.post_quant_conv.weight *= std.view(1, -1, 1, 1)
    model.quant_conv.weight[:channels] /= std.view(-1, 1, 1, 1)
    model.quant_conv.bias[:channels] = (model.quant_conv.bias[:channels] - mean) / std
    model.quant_conv.bias[channels:] -= 2 * std.log()  # the second half predicts the log-variance
