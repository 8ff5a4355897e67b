"""What is asked of a pipeline, checked whole before anything is drawn.

Example:
    >>> check_list("seeds", [3, -1], "whole numbers from 0", lambda seed: seed >= 0)
    Traceback (most recent call last):
    ...
    entropy_lib.errors.InvalidInputError: seeds[1] is -1; seeds are whole numbers from 0
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import psutil
import torch
from diffusers import DiffusionPipeline

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.catalogue import sampling_defaults
from entropy_lib.models.layers import denoiser, native_latent_size, tokens_at, training_tokens
from entropy_lib.models.networks import family
from entropy_lib.scaling.calibration import calibration_of
from entropy_lib.scaling.rules import Rule, distinct_rules, rule_list
from entropy_lib.sizes import SIZE_MULTIPLE, check_size, size_name

Size = tuple[int, int]
SEEDS = 2**32  # torch's generator on the CPU uses 32 bits of a seed: those beyond would repeat pictures


@dataclass(frozen=True)
class SamplerOptions:
    """How pictures are drawn; what was not given is the model's own (`catalogue.sampling_defaults`)."""

    steps: int
    guidance: float
    batch: int


def check_sampler(pipe: DiffusionPipeline, steps: int | None, guidance: float | None, batch: int) -> SamplerOptions:
    """The settings of the sampler.

    Raises:
        InvalidInputError: for steps that are no number from 1 to those the model was trained with, guidance that is not finite
            or below 0, a batch below 1.
        UnsupportedModelError: when `pipe` is no pipeline.
    """
    check_pipeline(pipe)
    own_steps, own_guidance = sampling_defaults(pipe) if steps is None or guidance is None else (steps, guidance)
    steps, guidance = own_steps if steps is None else steps, own_guidance if guidance is None else guidance
    most = getattr(getattr(pipe.scheduler, "config", None), "num_train_timesteps", None) or math.inf
    if not _whole(steps) or not 1 <= steps <= most:
        raise InvalidInputError(f"steps is {steps!r}; it must be a whole number from 1 to {most}, or None for the model's own")
    if isinstance(guidance, bool) or not isinstance(guidance, Real) or not 0 <= guidance < math.inf:
        raise InvalidInputError(f"guidance is {guidance!r}; it must be a number from 0, or None for the model's own")
    if not _whole(batch) or batch < 1:
        raise InvalidInputError(f"batch is {batch!r}; it must be a whole number of images, at least 1")
    return SamplerOptions(int(steps), float(guidance), int(batch))


def check_pipeline(pipe: DiffusionPipeline) -> None:
    """UnsupportedModelError unless this is a pipeline of diffusers around a network that is known here."""
    network = denoiser(pipe)
    family(network)
    if network is pipe or not hasattr(pipe, "scheduler") or not hasattr(pipe, "vae_scale_factor"):
        raise UnsupportedModelError(f"expected a text-to-image pipeline of diffusers, as el.load gives; got {type(pipe).__name__}")


def check_samples(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    """One seed for each prompt, at least one of both; an empty prompt is one.

    Raises:
        InvalidInputError: otherwise, and for a seed that is no whole number from 0 to 2^32 - 1.
    """
    check_list("prompts", prompts, "strings", lambda prompt: isinstance(prompt, str))
    check_list("seeds", seeds, "whole numbers from 0 to 2^32 - 1", lambda seed: _whole(seed) and 0 <= seed < SEEDS)
    if len(prompts) != len(seeds):
        raise InvalidInputError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt")


def check_list(name: str, values: Sequence, kind: str, fits: Callable[[object], bool]) -> None:
    """InvalidInputError unless `values` is a list, or the like, of at least one, all of which fit."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise InvalidInputError(f"{name} is {values!r}; it must be a list of {kind}")
    if not len(values):
        raise InvalidInputError(f"{name} is empty; give at least one")
    for index, value in enumerate(values):
        if not fits(value):
            raise InvalidInputError(f"{name}[{index}] is {value!r}; {name} are {kind}")


def check_sizes(pipe: DiffusionPipeline, sizes: Sequence[Size], batch: int) -> list[Size]:
    """Heights and widths in pixels, each of which occurs once.

    Raises:
        InvalidInputError: for a size that the model cannot draw, that cannot fit into memory, or that is repeated.
    """
    pairs = "(height, width) in pixels, for example (64, 96); `parse_size` reads '64x96'"
    check_list("sizes", sizes, pairs, lambda size: not isinstance(size, str) and hasattr(size, "__len__") and len(size) == 2)
    checked = []
    for height, width in sizes:
        check_size(height, width, size_multiple(pipe))
        check_memory(pipe, height, width, batch)
        if (int(height), int(width)) in checked:
            raise InvalidInputError(f"sizes repeat {size_name(height, width)}; each may occur once")
        checked.append((int(height), int(width)))
    return checked


def distinct_rules_at(pipe: DiffusionPipeline, rules: Sequence[str | Rule], height: int, width: int) -> dict[str, list[str]]:
    """Which rules do the same to a pipeline at one size in pixels, see `scaling.distinct_rules`.

    Raises:
        InvalidInputError: for a rule that has no factor there, needs a calibration and has none, or aims at what is out of reach
            in every layer.

    Example:
        >>> import entropy_lib as el
        >>> distinct_rules_at(el.load("mini"), ["unscaled", "paper", "gamma(1.4)"], 64, 64)
        {'unscaled': ['unscaled', 'paper'], 'gamma(1.4)': ['gamma(1.4)']}
    """
    names = [each.name for each in rule_list(rules)]
    if names == ["unscaled"]:
        return {"unscaled": names}  # what needs no tokens is not asked for them
    tokens = tokens_at(pipe, height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
    for each in rule_list(rules):
        if each.calibrated:
            calibration_of(denoiser(pipe), each.name).check_within_reach(each, tokens)
    return distinct_rules(names, tokens, training_tokens(pipe))


def check_memory(pipe: DiffusionPipeline, height: int, width: int, batch: int) -> None:
    """Refuse a size whose pictures, and the decoder's last layer for one of them, exceed all the memory of the device.

    A bound from below, so that nothing is refused that could be drawn; most of what it lets pass needs far more.

    Raises:
        InvalidInputError: with the estimate.
    """
    decoder = getattr(pipe, "vae", None) or getattr(pipe, "vqvae", None)
    if decoder is None or getattr(decoder, "use_tiling", False):
        return
    numbers = 3 * batch + decoder.config.block_out_channels[0]  # for each pixel
    needed = int(height) * int(width) * numbers * torch.finfo(decoder.dtype).bits // 8
    there = device_memory(decoder.device)
    if needed > there:
        raise InvalidInputError(
            f"{size_name(height, width)} in batches of {batch} needs at least {needed / 1e9:,.0f} GB, and "
            f"{decoder.device.type} has {there / 1e9:,.0f} GB; take a smaller size or batch"
        )


def device_memory(device: torch.device) -> int:
    """All the memory of a device in bytes, in use or not."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else psutil.virtual_memory().total


def native_size(pipe: DiffusionPipeline) -> Size:
    """Height and width in pixels at which the pipeline's denoiser was trained."""
    height, width = native_latent_size(pipe)
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


def size_multiple(pipe: DiffusionPipeline) -> int:
    """Height and width of an image must be multiples of this many pixels."""
    return max(SIZE_MULTIPLE, family(denoiser(pipe)).latent_multiple * pipe.vae_scale_factor)


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
