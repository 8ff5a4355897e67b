"""Drawing images so that each depends on its prompt, seed, size, rule, model and sampler, and on nothing else.

Every image has its own random generator, so the batch it is drawn in does not matter: images differ between batch sizes
by at most one grey level, from the order of floating-point sums.
"""

import copy
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from entropy_lib.errors import InvalidInputError, NotFiniteError
from entropy_lib.experiments.request import check_sampler, check_samples, check_sizes, distinct_rules_at
from entropy_lib.models.prx import mend_batches
from entropy_lib.scaling.patch import applied_rule, scaled
from entropy_lib.scaling.rules import Rule


def generate(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    scale_rule: str | Rule | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 10,
    progress: bool = False,
) -> UInt8[np.ndarray, "image height width 3"]:
    """Draw one image for each (prompt, seed) pair.

    Args:
        pipe: a text-to-image pipeline of diffusers.
        prompts, seeds: of equal length; seeds from 0 to 2^32 - 1.
        height, width: in pixels, multiples of `size_multiple(pipe)`.
        scale_rule: see `entropy_lib.rule`. It replaces whatever patch the model carries while the images are drawn. None leaves
            the model as it is, patched or not.
        steps, guidance: of the sampler; None takes the model's own, those of `entropy_lib.catalogue()` for a model that is
            recognised there by its configuration, else those that the pipeline's `__call__` declares.
        batch: images drawn together; changes speed and memory only.
        progress: show a progress bar.

    Returns:
        uint8 `[n, height, width, 3]`.

    Raises:
        InvalidInputError: for prompts, seeds, sizes, steps, guidance or a batch that cannot be, a size that cannot fit into
            memory, a rule that has no factor at this size, and a scheduler whose noise no seed fixes; before anything is drawn.
        UnknownNameError: for an unknown rule.
        UnsupportedModelError: when `pipe` is no pipeline, or one around an unknown network.
        NotFiniteError: when the model draws NaN.

    Example:
        >>> import entropy_lib as el
        >>> generate(el.load("mini"), ["a penguin"], [0], 32, 64, steps=2).shape
        (1, 32, 64, 3)
    """
    sampler = check_sampler(pipe, steps, guidance, batch)
    check_samples(prompts, seeds)
    check_sizes(pipe, [(height, width)], batch)
    check_noise(pipe.scheduler)
    if scale_rule is not None:
        distinct_rules_at(pipe, [scale_rule], height, width)  # fails here where the rule has no factor
    images = []
    with nullcontext() if scale_rule is None else scaled(pipe, scale_rule):
        name = f"{height} x {width} {applied_rule(pipe)}"
        for start in tqdm(range(0, len(prompts), batch), disable=not progress, desc=name):
            part, options = slice(start, start + batch), {"steps": sampler.steps, "guidance": sampler.guidance}
            images.append(to_uint8(draw(pipe, prompts[part], seeds[part], height, width, **options)))
    return np.concatenate(images)


def check_noise(scheduler: object) -> None:
    """Refuse a scheduler that takes noise from elsewhere than the generator that it is given: tried on copies, in a step each.

    Raises:
        InvalidInputError: as DPM++ SDE does by torchsde: then no seed fixes a picture, and paired differences are noise.
    """
    try:
        one, other = (_first_step(copy.deepcopy(scheduler)) for _ in range(2))
    except Exception:  # a scheduler that cannot be tried by itself; what it does to torch's own numbers is seen in `draw`
        return
    if not torch.equal(one, other):
        raise InvalidInputError(_unseeded(scheduler))


def _first_step(scheduler: Any) -> Tensor:
    asked = inspect.signature(scheduler.set_timesteps).parameters
    scheduler.set_timesteps(4, **({"mu": 1.0} if "mu" in asked else {}))
    accepted, given = inspect.signature(scheduler.step).parameters, torch.Generator("cpu").manual_seed(0)
    sample = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
    with torch.random.fork_rng(devices=[]):
        torch.seed()  # as different as the numbers of any two runs
        options = {"generator": given} if "generator" in accepted else {}
        return scheduler.step(sample, scheduler.timesteps[0], sample, **options).prev_sample


def _unseeded(scheduler: object) -> str:
    return (
        f"{type(scheduler).__name__} takes noise from a source of its own, so that no seed fixes a picture and differences between "
        "rules would be noise. Take a deterministic scheduler, as DPMSolverMultistepScheduler, or one whose step takes a generator."
    )


def draw(
    pipe: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], height: int, width: int, *, steps: int, guidance: float
) -> Float[np.ndarray, "image height width 3"]:
    """One batch of images, each from its own generator on the CPU, with whatever rule the model carries; values in [0, 1].

    Raises:
        InvalidInputError: when the pipeline took random numbers that no seed fixes.
    """
    before = torch.get_rng_state()
    images = mend_batches(pipe)(
        list(prompts),
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds],
        output_type="np",
        **own_options(pipe),
    ).images
    if not torch.equal(torch.get_rng_state(), before):
        raise InvalidInputError(_unseeded(pipe.scheduler))
    return images


def finite(images: Float[np.ndarray, "image height width 3"]) -> Bool[np.ndarray, " image"]:
    """Which images hold numbers only. A latent that overflowed becomes NaN here and would be black as uint8."""
    return np.isfinite(images).all((1, 2, 3))


def to_uint8(images: Float[np.ndarray, "image height width 3"]) -> UInt8[np.ndarray, "image height width 3"]:
    """Grey levels 0 to 255, rounded.

    Raises:
        NotFiniteError: if an image holds NaN or infinity.
    """
    if not (whole := finite(images)).all():
        raise NotFiniteError(
            f"{int((~whole).sum())} of {len(images)} images are not finite: the model overflowed its dtype. Load it in float32 "
            "or bfloat16"
        )
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def own_options(pipe: DiffusionPipeline) -> dict[str, bool]:
    """Arguments that keep a pipeline from changing what it was asked for: PixArt else draws at the nearest of its own sizes."""
    wanted = {"use_resolution_binning": False, "clean_caption": False}
    accepted = inspect.signature(pipe.__call__).parameters
    return {name: value for name, value in wanted.items() if name in accepted}
