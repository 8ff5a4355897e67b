"""Train the embedded model from the committed pictures and write it to `data/mini/` (`make mini`).

    python -m entropy_lib.mini.train             # autoencoder, text encoder, denoiser, export; resumes where it stopped
    python -m entropy_lib.mini.train --export    # write the last checkpoint as a diffusers pipeline

Checkpoints and loss curves go to `build/mini/`. Give more steps to continue a finished run.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.mini import autoencoder, dataset, denoiser, text
from entropy_lib.models.checksums import write_checksums

RUNS = ROOT / "build" / "mini"
MODEL = DATA / "mini"
AUTOENCODER_STEPS = 4000
TEXT_STEPS = 2000
DENOISER_STEPS = 5500


def trained_autoencoder(steps: int) -> AutoencoderKL:
    """The autoencoder with unit-variance latents, trained if need be."""
    vae = autoencoder.train(RUNS / "autoencoder.safetensors", steps)
    autoencoder.fold_normalisation(vae, dataset.pixels(dataset.load().image))
    return vae


@torch.no_grad()
def data_latents(vae: AutoencoderKL) -> torch.Tensor:
    """Latents of all pictures, `[n, 4, 16, 16]`, in the order of the table."""
    return torch.cat([vae.encode(batch).latent_dist.mode() for batch in dataset.pixels(dataset.load().image).split(64)])


def export(vae: AutoencoderKL, unet: UNet2DConditionModel, encoder: CLIPTextModel, folder: Path) -> None:
    """Write the pipeline in diffusers layout: half-precision safetensors, checksums, loss curves."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=text.round_trip(text.build_tokenizer(dataset.load())),
        unet=unet,
        scheduler=denoiser.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for stage in ("autoencoder", "text", "denoiser"):
        curve = RUNS / f"{stage}.csv"
        if curve.exists():
            with replacing(folder / f"training_{stage}.csv") as temporary:
                pd.read_csv(curve).drop(columns="seconds").to_csv(temporary, index=False)
    write_checksums(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--text-steps", type=int, default=TEXT_STEPS)
    parser.add_argument("--denoiser-steps", type=int, default=DENOISER_STEPS)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint without training on")
    parser.add_argument("--output", type=Path, default=MODEL)
    arguments = parser.parse_args()
    vae = trained_autoencoder(arguments.autoencoder_steps)
    latents = data_latents(vae)
    encoder = text.train(RUNS / "text.safetensors", latents, arguments.text_steps)
    steps = 0 if arguments.export else arguments.denoiser_steps
    unet = denoiser.train(RUNS / "denoiser.safetensors", latents, encoder, steps)
    export(vae, unet, encoder, arguments.output)


if __name__ == "__main__":
    main()
