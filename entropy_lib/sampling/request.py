"""What is asked of a pipeline, checked once and whole before anything is generated.

Example:
    >>> check_list("seeds", [3, -1], "whole numbers from 0", lambda seed: seed >= 0)
    Traceback (most recent call last):
    ...
    entropy_lib.errors.InvalidInputError: seeds[1] is -1; seeds are whole numbers from 0
"""

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import psutil
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.catalogue import sampling_defaults
from entropy_lib.models.layers import (
    SCALE_FACTORS,
    denoiser,
    native_latent_size,
    pixels_per_latent,
    tokens_at,
    training_tokens,
)
from entropy_lib.models.networks import family
from entropy_lib.models.unconditional import UNPROMPTED, class_labels
from entropy_lib.scaling.calibration import calibration_of
from entropy_lib.scaling.rules import Rule, distinct_rules, rule_list
from entropy_lib.sizes import SIZE_MULTIPLE, Size, SizeLike

SEEDS = 2**32  # torch's generator on the CPU uses 32 bits of a seed: those beyond would repeat images


@dataclass(frozen=True)
class Request:
    """Images of one size, one for each (prompt, seed) pair. Made by `check_requests`."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    size: Size
    steps: int
    guidance: float
    batch: int
    progress: bool = False
    output: str = "uint8"


def check_requests(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[SizeLike],
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int,
    progress: bool = False,
    output: str = "uint8",
) -> list[Request]:
    """One request for each size; arguments as for `generate`."""
    check_pipeline(pipe)
    steps, guidance = check_sampler(pipe, steps, guidance)
    if not _whole(batch) or batch < 1:
        raise InvalidInputError(f"batch is {batch!r}; it must be a whole number of images, at least 1")
    check_samples(prompts, seeds)
    if type(pipe) in UNPROMPTED:
        class_labels(pipe, prompts)
    checked = check_sizes(pipe, sizes)
    for size in checked:
        check_memory(pipe, size, batch)
    check_noise(pipe.scheduler)
    return [Request(prompts, seeds, size, steps, guidance, int(batch), progress, output) for size in checked]


def check_sampler(pipe: DiffusionPipeline, steps: int | None, guidance: float | None) -> tuple[int, float]:
    """Steps and guidance; what was not given is the model's own (`catalogue.sampling_defaults`)."""
    own = sampling_defaults(pipe) if steps is None or guidance is None else ()
    steps, guidance = own[0] if steps is None else steps, own[1] if guidance is None else guidance
    most = getattr(getattr(pipe.scheduler, "config", None), "num_train_timesteps", None) or math.inf
    if not _whole(steps) or not 1 <= steps <= most:
        raise InvalidInputError(
            f"steps is {steps!r}; it must be a whole number from 1 to {most}, or None for the model's own"
        )
    if isinstance(guidance, bool) or not isinstance(guidance, Real) or not 0 <= guidance < math.inf:
        raise InvalidInputError(
            f"guidance is {guidance!r}; it must be a number from 0, or None for the model's own"
        )
    if type(pipe) in UNPROMPTED and guidance != 1:
        raise InvalidInputError(f"guidance is {guidance}; {type(pipe).__name__} has none; give 1, or None")
    return int(steps), float(guidance)


def check_pipeline(pipe: DiffusionPipeline) -> None:
    """UnsupportedModelError unless this is a pipeline of diffusers around a network that is known here."""
    network = denoiser(pipe)
    family(network)
    scaled = type(pipe) in UNPROMPTED or any(hasattr(pipe, name) for name in SCALE_FACTORS)
    if network is pipe or not hasattr(pipe, "scheduler") or not scaled:
        others = ", ".join(kind.__name__ for kind in UNPROMPTED)
        raise UnsupportedModelError(
            f"expected a text-to-image pipeline of diffusers, as el.load gives, or one of {others}; got "
            f"{type(pipe).__name__}"
        )


def check_samples(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    """One seed for each prompt, at least one of both; an empty prompt is one."""
    check_list("prompts", prompts, "strings", lambda prompt: isinstance(prompt, str))
    check_list(
        "seeds", seeds, "whole numbers from 0 to 2^32 - 1", lambda seed: _whole(seed) and 0 <= seed < SEEDS
    )
    if len(prompts) != len(seeds):
        raise InvalidInputError(
            f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt"
        )


def check_list(name: str, values: Sequence, kind: str, fits: Callable[[object], bool]) -> None:
    """InvalidInputError unless `values` is a list, or the like, of at least one, all of which fit."""
    listed = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    if not listed or isinstance(values, str | bytes | Mapping):
        raise InvalidInputError(f"{name} is {values!r}; it must be a list of {kind}")
    if not len(values):
        raise InvalidInputError(f"{name} is empty; give at least one")
    for index, value in enumerate(values):
        if not fits(value):
            raise InvalidInputError(f"{name}[{index}] is {value!r}; {name} are {kind}")


def check_sizes(pipe: DiffusionPipeline, sizes: Sequence[SizeLike]) -> list[Size]:
    """Sizes that the model can make, each of which occurs once."""
    kind = "heights and widths in pixels, for example '64x96' or (64, 96)"
    check_list(
        "sizes",
        sizes,
        kind,
        lambda size: isinstance(size, str) or (hasattr(size, "__len__") and len(size) == 2),
    )
    checked = [Size.of(size, size_multiple(pipe)) for size in sizes]
    for size in checked:
        if checked.count(size) > 1:
            raise InvalidInputError(f"sizes repeat {size}; each may occur once")
    return checked


def check_noise(scheduler: object) -> None:
    """Refuse a scheduler with noise from elsewhere than its generator, tried on copies in a step each."""
    try:
        one, other = (_first_step(copy.deepcopy(scheduler)) for _ in range(2))
    # a scheduler that cannot be tried by itself; what it does to torch's own numbers is seen as it runs
    except Exception:
        return
    if not torch.equal(one, other):
        raise InvalidInputError(unseeded(scheduler))


def _first_step(scheduler: Any) -> Tensor:
    asked = inspect.signature(scheduler.set_timesteps).parameters
    scheduler.set_timesteps(4, **({"mu": 1.0} if "mu" in asked else {}))
    accepted, given = inspect.signature(scheduler.step).parameters, torch.Generator("cpu").manual_seed(0)
    sample = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
    with torch.random.fork_rng(devices=[]):
        torch.seed()  # as different as the numbers of any two runs
        options = {"generator": given} if "generator" in accepted else {}
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, scheduler.timesteps[0])  # without it, some complain
        return scheduler.step(sample, scheduler.timesteps[0], sample, **options).prev_sample


def unseeded(scheduler: object) -> str:
    """What to say of a scheduler whose noise no seed fixes."""
    return (
        f"{type(scheduler).__name__} takes noise from a source of its own, so that no seed fixes an image "
        "and differences between methods would be noise. Take a deterministic scheduler, as "
        "DPMSolverMultistepScheduler, or one whose step takes a generator."
    )


def distinct_rules_at(
    pipe: DiffusionPipeline, rules: Sequence[str | Rule], size: SizeLike
) -> dict[str, list[str]]:
    """Which rules do the same to a pipeline at one size, see `scaling.distinct_rules`.

    Raises:
        InvalidInputError: for a rule that has no factor there, needs a calibration and has none, or aims at
            what is out of reach in every layer.

    Example:
        >>> import entropy_lib as el
        >>> distinct_rules_at(el.load("mini"), ["unscaled", "paper", "gamma(1.4)"], "64x64")
        {'unscaled': ['unscaled', 'paper'], 'gamma(1.4)': ['gamma(1.4)']}
    """
    parsed = rule_list(rules)
    names = [each.name for each in parsed]
    if names == ["unscaled"]:
        return {"unscaled": names}  # what needs no tokens is not asked for them
    tokens = tokens_at(pipe, *(side // pixels_per_latent(pipe) for side in Size.of(size)))
    for each in parsed:
        if each.calibrated:
            calibration_of(denoiser(pipe), each.name).check_within_reach(each, tokens)
    return distinct_rules(names, tokens, training_tokens(pipe))


def check_memory(pipe: DiffusionPipeline, size: Size, batch: int) -> None:
    """Refuse a size whose images and decoder's last layer exceed all the memory of the device.

    A bound from below, so that nothing is refused that could be made; most of what it lets pass needs far
    more.
    """
    decoder = getattr(pipe, "vae", None) or getattr(pipe, "vqvae", None)
    if decoder is None or getattr(decoder, "use_tiling", False):
        return
    first = decoder.config.get("block_out_channels") or [decoder.config.get("base_dim", 0)]
    numbers = 3 * batch + first[0]  # for each pixel
    needed = size.pixels * numbers * torch.finfo(decoder.dtype).bits // 8
    there = device_memory(decoder.device)
    if needed > there:
        raise InvalidInputError(
            f"{size} in batches of {batch} needs at least {needed / 1e9:,.0f} GB, and {decoder.device.type} "
            f"has {there / 1e9:,.0f} GB; take a smaller size or batch"
        )


def device_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def native_size(pipe: DiffusionPipeline) -> Size:
    """Height and width in pixels at which the pipeline's denoiser was trained."""
    return Size(*(side * pixels_per_latent(pipe) for side in native_latent_size(pipe)))


def size_multiple(pipe: DiffusionPipeline) -> int:
    """Height and width of an image must be multiples of this many pixels."""
    return max(SIZE_MULTIPLE, family(denoiser(pipe)).latent_multiple * pixels_per_latent(pipe))


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
