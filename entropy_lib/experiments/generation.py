"""Drawing images so that each depends on its prompt, seed, size, rule, model and sampler, and on nothing else.

Every image has its own random generator, so the batch it is drawn in does not matter: images differ between batch sizes
by at most one grey level, from the order of floating-point sums.
"""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from tqdm.auto import tqdm

from entropy_lib.models.layers import denoiser, native_latent_size
from entropy_lib.models.networks import family
from entropy_lib.scaling.patch import scaled
from entropy_lib.scaling.rules import Rule, rule
from entropy_lib.sizes import SIZE_MULTIPLE, check_size


def check_positive(**values: float) -> None:
    """ValueError unless all named values are positive."""
    for name, value in values.items():
        if isinstance(value, bool) or value <= 0:
            raise ValueError(f"{name} is {value!r}; it must be positive")


def generate(
    pipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    scale_rule: str | Rule = "unscaled",
    steps: int = 25,
    guidance: float = 2.0,
    batch: int = 10,
    progress: bool = False,
) -> np.ndarray:
    """Draw one image for each (prompt, seed) pair.

    Args:
        pipe: a text-to-image pipeline of diffusers.
        prompts, seeds: of equal length.
        height, width: in pixels, multiples of `size_multiple(pipe)`.
        scale_rule: see `entropy_lib.rule`; the model is restored afterwards.
        steps, guidance: of the sampler.
        batch: images drawn together; changes speed and memory only.
        progress: show a progress bar.

    Returns:
        uint8 `[n, height, width, 3]`.

    Raises:
        ValueError: for bad sizes, steps, batch, or lists of unequal length, before anything is drawn.
        UnknownNameError: for an unknown rule.
        FloatingPointError: when the model draws NaN.

    Example:
        >>> import entropy_lib as el
        >>> generate(el.load("mini"), ["a zebra"], [0], 32, 64, steps=2).shape
        (1, 32, 64, 3)
    """
    check_size(height, width, size_multiple(pipe))
    check_positive(steps=steps, batch=batch)
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt, at least one")
    chosen, images = rule(scale_rule), []
    with scaled(pipe, chosen):
        for start in tqdm(range(0, len(prompts), batch), disable=not progress, desc=f"{height} x {width} {chosen}"):
            part = slice(start, start + batch)
            images.append(draw(pipe, prompts[part], seeds[part], height, width, steps=steps, guidance=guidance))
    return to_uint8(np.concatenate(images))


def draw(
    pipe, prompts: Sequence[str], seeds: Sequence[int], height: int, width: int, *, steps: int, guidance: float
) -> Float[np.ndarray, "image height width 3"]:
    """One batch of images, each from its own generator on the CPU, with whatever rule the model carries; values in [0, 1]."""
    return pipe(
        list(prompts),
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds],
        output_type="np",
        **own_options(pipe),
    ).images


def finite(images: Float[np.ndarray, "image height width 3"]) -> Bool[np.ndarray, " image"]:
    """Which images hold numbers only. A latent that overflowed becomes NaN here and would be black as uint8."""
    return np.isfinite(images).all((1, 2, 3))


def to_uint8(images: Float[np.ndarray, "image height width 3"]) -> UInt8[np.ndarray, "image height width 3"]:
    """Grey levels 0 to 255, rounded.

    Raises:
        FloatingPointError: if an image holds NaN or infinity.
    """
    if not (whole := finite(images)).all():
        raise FloatingPointError(
            f"{int((~whole).sum())} of {len(images)} images are not finite: the model overflowed its dtype. Load it in float32 "
            "or bfloat16"
        )
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def native_size(pipe) -> tuple[int, int]:
    """Height and width in pixels at which the pipeline's denoiser was trained."""
    height, width = native_latent_size(pipe)
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


def size_multiple(pipe) -> int:
    """Height and width of an image must be multiples of this many pixels."""
    return max(SIZE_MULTIPLE, family(denoiser(pipe)).latent_multiple * pipe.vae_scale_factor)


def own_options(pipe) -> dict:
    """Arguments that keep a pipeline from changing what it was asked for: PixArt else draws at the nearest of its own sizes."""
    wanted = {"use_resolution_binning": False, "clean_caption": False}
    accepted = inspect.signature(pipe.__call__).parameters
    return {name: value for name, value in wanted.items() if name in accepted}
