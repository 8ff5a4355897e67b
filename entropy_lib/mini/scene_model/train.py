"""Train the scene model and its controls, and write them as diffusers pipelines.

    python -m entropy_lib.mini.scene_model.train --parts              # autoencoder and text encoder into data/scene-model
    python -m entropy_lib.mini.scene_model.train                      # the denoiser of `mini`, export
    python -m entropy_lib.mini.scene_model.train --recipe mini-weak   # a control: the same parts, another denoiser
    python -m entropy_lib.mini.scene_model.train --export             # write the last checkpoint without training on

Autoencoder and text encoder are trained once and common to all. Checkpoints and loss curves go to `build/scene_model/`; every
training resumes where it stopped. Give more steps to continue a finished run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from entropy_lib.files import DATA, replacing
from entropy_lib.mini.denoiser import build_scheduler
from entropy_lib.mini.scene_model import autoencoder, denoiser, pictures, text
from entropy_lib.mini.text import round_trip, tokenizer_of
from entropy_lib.models.checksums import verify, write_checksums

RUNS = pictures.RUNS
MODEL = DATA / "scene-model"
AUTOENCODER_STEPS = 7500
TEXT_STEPS = 1500
DENOISER_STEPS = 6500
ENCODED = 2000  # scenes over which latents are normalised


def train_parts(autoencoder_steps: int = AUTOENCODER_STEPS, text_steps: int = TEXT_STEPS) -> tuple[AutoencoderKL, CLIPTextModel]:
    """The autoencoder with unit-variance latents, and the text encoder, from nothing or from their checkpoints."""
    vae = autoencoder.train(RUNS / "autoencoder.safetensors", autoencoder_steps)
    autoencoder.fold_normalisation(vae, autoencoder.encode(vae, pictures.drawn(pictures.TRAIN_COUNT)[:ENCODED]))
    return vae, text.train(RUNS / "text.safetensors", text_steps)


def save_parts(vae: AutoencoderKL, encoder: CLIPTextModel, folder: Path = MODEL) -> None:
    """Write both and the tokenizer where a pipeline keeps them, in half precision, with their loss curves."""
    vae.half().save_pretrained(folder / "vae", safe_serialization=True)
    encoder.half().save_pretrained(folder / "text_encoder", safe_serialization=True)
    round_trip(tokenizer_of(text.captions())).save_pretrained(folder / "tokenizer")
    save_curves(("autoencoder", "text"), folder)
    write_checksums(folder)


def load_autoencoder(folder: Path = MODEL) -> AutoencoderKL:
    """The shipped autoencoder, in float32.

    Raises:
        WeightsError: when a file is missing or damaged.
    """
    verify(folder)
    return AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(memory_format=torch.channels_last).eval()


def load_encoder(folder: Path = MODEL) -> CLIPTextModel:
    """The shipped text encoder, in float32."""
    verify(folder)
    return CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()


def export(vae: AutoencoderKL, unet: UNet2DConditionModel, encoder: CLIPTextModel, folder: Path, recipe: str) -> None:
    """Write the pipeline in diffusers layout: half-precision safetensors, checksums, loss curves."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=round_trip(tokenizer_of(text.captions())),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    save_curves((recipe,), folder)
    write_checksums(folder)


def save_curves(stages: Sequence[str], folder: Path) -> None:
    """Copy loss curves beside the weights, without their times."""
    for stage in stages:
        with replacing(folder / f"training_{stage}.csv") as temporary:
            pd.read_csv(RUNS / f"{stage}.csv").drop(columns="seconds").to_csv(temporary, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", action="store_true", help="train autoencoder and text encoder, and nothing else")
    parser.add_argument("--recipe", choices=list(denoiser.RECIPES), default="mini")
    parser.add_argument("--steps", type=int, default=DENOISER_STEPS)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint without training on")
    parser.add_argument("--output", type=Path, default=MODEL)
    arguments = parser.parse_args()
    if arguments.parts:
        return save_parts(*train_parts(), arguments.output)
    vae, encoder = load_autoencoder(), load_encoder()
    latents = autoencoder.encode(vae, pictures.drawn(pictures.TRAIN_COUNT))
    steps, path = 0 if arguments.export else arguments.steps, RUNS / f"{arguments.recipe}.safetensors"
    unet = denoiser.train(path, denoiser.RECIPES[arguments.recipe], latents, encoder, steps)
    return export(vae, unet, encoder, arguments.output, arguments.recipe)


if __name__ == "__main__":
    main()
