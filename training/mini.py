"""Train the scene model and its controls, and write them as diffusers pipelines.

    python -m training.mini --parts              # autoencoder and text encoder, into data/mini
    python -m training.mini                      # the denoiser of `mini`, on top of them
    python -m training.mini --recipe mini-weak   # a control: another denoiser, in data/mini-weak
    python -m training.mini --export             # write the last checkpoint without training on

Autoencoder and text encoder are trained once and common to all. Checkpoints and loss curves go to
`build/mini/`; every training resumes where it stopped. Give more steps to continue a finished run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from entropy_lib.files import DATA, replacing, sha256
from entropy_lib.models.checksums import verify, write_checksums
from entropy_lib.scenes import scenes
from training import autoencoder, pictures, text_encoder, unet
from training.loop import averaged
from training.tokenizer import round_trip, tokenizer_of
from training.unet import build_scheduler

RUNS = pictures.RUNS
MODEL = DATA / "mini"
AUTOENCODER_STEPS = 7500
TEXT_STEPS = 1500
DENOISER_STEPS = 5500
ENCODED = 2000  # scenes over which latents are normalised


def train_parts(
    autoencoder_steps: int = AUTOENCODER_STEPS, text_steps: int = TEXT_STEPS
) -> tuple[AutoencoderKL, CLIPTextModel]:
    """The autoencoder with unit-variance latents, and the text encoder, from nothing or from their
    checkpoints.
    """
    vae = autoencoder.train(RUNS / "autoencoder.safetensors", autoencoder_steps)
    autoencoder.fold_normalisation(
        vae, autoencoder.encode(vae, pictures.drawn(pictures.TRAIN_COUNT)[:ENCODED])
    )
    return vae, text_encoder.train(RUNS / "text.safetensors", text_steps)


def save_parts(vae: AutoencoderKL, encoder: CLIPTextModel, folder: Path = MODEL) -> None:
    """Write both and the tokenizer where a pipeline keeps them, in half precision, with their loss curves."""
    vae.half().save_pretrained(folder / "vae", safe_serialization=True)
    encoder.half().save_pretrained(folder / "text_encoder", safe_serialization=True)
    round_trip(tokenizer_of(scenes.captions())).save_pretrained(folder / "tokenizer")
    save_curves(("autoencoder", "text"), folder)
    write_checksums(folder)


def load_autoencoder(folder: Path = MODEL) -> AutoencoderKL:
    """The shipped autoencoder, in float32.

    Raises:
        WeightsError: when a file is missing or damaged.
    """
    verify(folder)
    return (
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        .to(memory_format=torch.channels_last)
        .eval()
    )


def load_encoder(folder: Path = MODEL) -> CLIPTextModel:
    """The shipped text encoder, in float32."""
    verify(folder)
    return CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()


def export(unet: UNet2DConditionModel, recipe: str, data: Path = DATA) -> None:
    """Write a denoiser in half precision with its loss curve and checksums; `mini` as a whole pipeline in
    diffusers layout.

    A control has the other parts of `mini`, so its folder holds the denoiser alone.
    """
    folder = data / recipe
    if recipe == MODEL.name:
        whole_pipeline(load_autoencoder(), unet, load_encoder()).to(torch.float16).save_pretrained(
            folder, safe_serialization=True
        )
    else:
        unet.half().save_pretrained(folder / "unet", safe_serialization=True)
    save_curves((recipe,), folder)
    write_checksums(folder)


def whole_pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, encoder: CLIPTextModel
) -> StableDiffusionPipeline:
    """All parts with the tokenizer and the scheduler."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=round_trip(tokenizer_of(scenes.captions())),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_curves(stages: Sequence[str], folder: Path) -> None:
    """Copy loss curves beside the weights, without their times."""
    for stage in stages:
        with replacing(folder / f"training_{stage}.csv") as temporary:
            pd.read_csv(RUNS / f"{stage}.csv").drop(columns="seconds").to_csv(temporary, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", action="store_true", help="train autoencoder and text encoder, and nothing else"
    )
    parser.add_argument("--recipe", choices=list(unet.RECIPES), default=MODEL.name)
    parser.add_argument("--steps", type=int, default=DENOISER_STEPS)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint without training on")
    parser.add_argument("--output", type=Path, default=DATA, help="folder that holds one folder a model")
    arguments = parser.parse_args()
    if arguments.parts:
        return save_parts(*train_parts(), arguments.output / MODEL.name)
    recipe, path = unet.RECIPES[arguments.recipe], RUNS / f"{arguments.recipe}.safetensors"
    denoiser = (
        averaged(path, unet.build(recipe)) if arguments.export else trained(path, recipe, arguments.steps)
    )
    return export(denoiser, arguments.recipe, arguments.output)


def trained(path: Path, recipe: unet.Recipe, steps: int) -> UNet2DConditionModel:
    """The denoiser, trained on the latents of all training scenes."""
    return unet.train(path, recipe, encoded(), load_encoder(), steps)


def encoded() -> Float[Tensor, "scene 4 16 16"]:
    """The latents of all training scenes; computed on the first call and kept for the other recipes."""
    key = sha256(MODEL / "vae" / "diffusion_pytorch_model.safetensors")[:8]
    path = RUNS / f"latents_{pictures.TRAIN_COUNT}_{key}.safetensors"
    if not path.exists():
        latents = autoencoder.encode(load_autoencoder(), pictures.drawn(pictures.TRAIN_COUNT))
        with replacing(path) as temporary:
            save_file({"latents": latents.contiguous()}, temporary)
    return load_file(path)["latents"]


if __name__ == "__main__":
    main()
