"""Train `mini-dit` and its twin, and write them as diffusers pipelines.

    python -m training.mini_dit --parts                     # the text encoder; `mini` has the autoencoder
    python -m training.mini_dit                             # the denoiser of `mini-dit`
    python -m training.mini_dit --recipe mini-dit-uniform   # the twin whose attention cannot choose
    python -m training.mini_dit --export                    # write the last checkpoint without training on

Checkpoints and loss curves go to `build/mini/`; every training resumes where it stopped.
"""

import argparse
from pathlib import Path

import torch
from diffusers import PRXPipeline, PRXTransformer2DModel
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from entropy_lib.files import DATA, replacing, sha256
from entropy_lib.models.checksums import write_checksums
from entropy_lib.scenes import scenes
from training import autoencoder, masked_text_encoder, mini, pictures, transformer
from training.loop import averaged

MODEL = DATA / "mini-dit"
TWINS = pictures.RUNS / "twins"  # what a gate needs and nobody else
TEXT_STEPS = 1500
STEPS = 8000


def encoder() -> CLIPTextModel:
    """The text encoder, from nothing or from its checkpoint."""
    return masked_text_encoder.train(pictures.RUNS / "mini-dit_text.safetensors", TEXT_STEPS)


def encoded() -> Float[Tensor, "scene 4 16 16"]:
    """The latents of all training scenes; computed on the first call and kept for the twin."""
    key = sha256(mini.MODEL / "vae" / "diffusion_pytorch_model.safetensors")[:8]
    path = pictures.RUNS / f"latents_simple_{pictures.TRAIN_COUNT}_{key}.safetensors"
    if not path.exists():
        drawn = pictures.drawn(pictures.TRAIN_COUNT, world=scenes.SIMPLE)
        latents = autoencoder.encode(mini.load_autoencoder(), drawn)
        with replacing(path) as temporary:
            save_file({"latents": latents.contiguous()}, temporary)
    return load_file(path)["latents"]


def pipeline(denoiser: PRXTransformer2DModel) -> PRXPipeline:
    """All parts as diffusers loads them."""
    vae = mini.load_autoencoder()
    vae.register_to_config(shift_factor=0.0)  # PRX's pipeline adds it without asking whether there is one
    return PRXPipeline(
        transformer=denoiser,
        scheduler=transformer.build_scheduler(),
        text_encoder=encoder(),
        tokenizer=masked_text_encoder.build_tokenizer(),
        vae=vae,
        default_sample_size=scenes.SIZE,
    )


def export(denoiser: PRXTransformer2DModel, recipe: str) -> Path:
    """Write a pipeline in half precision with its loss curves and checksums; the twin where no wheel takes
    it from.
    """
    folder = MODEL if recipe == MODEL.name else TWINS / recipe
    pipeline(denoiser).to(torch.float16).save_pretrained(folder, safe_serialization=True)
    mini.save_curves((recipe,), folder)
    write_checksums(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", action="store_true", help="train the text encoder and encode the scenes, nothing else"
    )
    parser.add_argument("--recipe", choices=list(transformer.RECIPES), default=MODEL.name)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint without training on")
    arguments = parser.parse_args()
    if arguments.parts:
        return print(encoder().num_parameters(), len(encoded()))
    path = pictures.RUNS / f"{arguments.recipe}.safetensors"
    if arguments.export:
        denoiser = averaged(path, transformer.build())
    else:
        denoiser = transformer.train(
            path, transformer.RECIPES[arguments.recipe], encoded(), encoder(), arguments.steps
        )
    return print(export(denoiser, arguments.recipe))


if __name__ == "__main__":
    main()
