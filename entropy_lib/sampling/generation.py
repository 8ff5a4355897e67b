"""Generating images, each by its prompt, seed, size, method, model and sampler, and nothing else.

Every image has its own random generator, so the batch it is generated in does not matter: images differ
between batch sizes by at most one grey level, from the order of floating-point sums.
"""

import pkgutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from tqdm.auto import tqdm

from entropy_lib.errors import InvalidInputError, NotFiniteError, UnknownNameError
from entropy_lib.models.prx import mend_batches
from entropy_lib.models.runs import call_options, returned_images
from entropy_lib.models.unconditional import with_prompts
from entropy_lib.sampling.methods import METHODS, UNSCALED, Images, Method
from entropy_lib.sampling.methods import method as parsed
from entropy_lib.sampling.request import Request, check_requests, distinct_rules_at, unseeded
from entropy_lib.scaling.patch import applied_rule, scaled
from entropy_lib.scaling.rules import Rule
from entropy_lib.sizes import Size, SizeLike

OUTPUTS = ("uint8", "float32")


def generate(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: SizeLike,
    method: str | Rule | Method | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 10,
    progress: bool = False,
    output: str = "uint8",
) -> Images | Float[np.ndarray, "image height width 3"]:
    """Generate one image for each (prompt, seed) pair.

    Args:
        pipe: a text-to-image pipeline of diffusers, or one of those without text that
            `models.unconditional` names.
        prompts, seeds: of equal length; seeds from 0 to 2^32 - 1. In place of a prompt, a model of classes
            takes the number of one ("60", a difficulty of `terrain`), a model of neither "".
        size: "64x96", or (height, width) in pixels; multiples of `size_multiple(pipe)`.
        method: a scale rule ("paper", "unscaled", "power(0.75)"; see `entropy_lib.rule`), a baseline
            ("resized(lanczos)", "multidiffusion"; see `sampling.methods`), or both ("two-stage + paper"). It
            replaces whatever patch the model carries while the images are generated. None leaves the model as
            it is, patched or not.
        steps, guidance: of the sampler; None takes the model's own, those of `entropy_lib.catalogue()` for a
            model that is recognised there by its configuration, else those that the pipeline's `__call__`
            declares.
        batch: images generated together; changes speed and memory only.
        progress: show a progress bar.
        output: "uint8", grey levels 0 to 255; "float32", values from 0 to 1 as the model makes them, which
            height maps need. Methods that begin with an image of native size work on grey levels alone.

    Returns:
        `[n, height, width, 3]` of that type; grey images have three equal channels.

    Raises:
        InvalidInputError: for prompts, seeds, sizes, steps, guidance or a batch that cannot be, a size that
            cannot fit into memory, a method that cannot be used or has no factor at this size, and a
            scheduler whose noise no seed fixes; before anything is generated.
        UnknownNameError: for an unknown method or output.
        UnsupportedModelError: when `pipe` is no pipeline, one around an unknown network, or one that the
        method cannot use.
        NotFiniteError: when the model makes NaN.

    Example:
        >>> import entropy_lib as el
        >>> generate(el.load("mini"), ["a penguin"], [0], "32x64", "paper", steps=2).shape
        (1, 32, 64, 3)
    """
    options = {"steps": steps, "guidance": guidance, "batch": batch, "progress": progress}
    chosen = None if method is None else parsed(method)
    check_output(output, chosen)
    [asked] = check_requests(pipe, prompts, seeds, [size], **options, output=output)
    if chosen is not None:
        distinct_rules_at(pipe, [chosen.rule], asked.size)  # fails here where the rule has no factor
    return images_of(pipe, asked, chosen)


def check_output(output: str, chosen: Method | None) -> None:
    """Whether a method can give its images as this type; see `generate`."""
    if output not in OUTPUTS:
        raise UnknownNameError("output", output, OUTPUTS)
    if output != "uint8" and chosen is not None and METHODS[chosen.kind].from_native:
        raise InvalidInputError(
            f"method {chosen.kind!r} resizes grey levels, so it has no {output}; take output='uint8'"
        )


def images_of(pipe: DiffusionPipeline, asked: Request, chosen: Method | None) -> Images:
    """The images of a request, by a method or by the model as it is."""
    if chosen is None:
        return directly(pipe, asked, None)
    kind = METHODS[chosen.kind]
    function = pkgutil.resolve_name(f"entropy_lib.{kind.function}")
    return function(pipe, asked, chosen.rule, *([chosen.value] if kind.option else []))


def directly(pipe: DiffusionPipeline, asked: Request, rule: str | None) -> Images:
    """The images of a request at its own size, under a scale rule; None leaves the model as it is."""
    images = []
    with under_rule(pipe, rule):
        starts = range(0, len(asked.prompts), asked.batch)
        for start in tqdm(starts, disable=not asked.progress, desc=f"{asked.size} {applied_rule(pipe)}"):
            part = slice(start, start + asked.batch)
            options = {"steps": asked.steps, "guidance": asked.guidance}
            made = one_batch(pipe, asked.prompts[part], asked.seeds[part], asked.size, **options)
            images.append(as_output(made, asked.output))
    return np.concatenate(images)


def under_rule(pipe: DiffusionPipeline, rule: str | None) -> AbstractContextManager:
    """The model under a scale rule alone; unscaled, only one that carries a rule needs a patch."""
    if rule is None or rule == applied_rule(pipe).name == UNSCALED:
        return nullcontext()
    return scaled(pipe, rule)


def one_batch(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: Size,
    *,
    steps: int,
    guidance: float,
) -> Float[np.ndarray, "image height width 3"]:
    """One batch of images in [0, 1], each from its own generator, under whatever rule the model carries."""
    pipe, before = with_prompts(mend_batches(pipe)), torch.get_rng_state()
    with call_options(pipe, guidance, len(prompts)) as options:
        options |= {"prompt": list(prompts), "height": size.height, "width": size.width, "output_type": "np"}
        output = pipe(num_inference_steps=steps, generator=generators(seeds), **options)
    if not torch.equal(torch.get_rng_state(), before):
        raise InvalidInputError(unseeded(pipe.scheduler))
    images = returned_images(output)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One for each image, on the CPU: the same noise on every device."""
    return [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]


def as_output(images: Float[np.ndarray, "image height width 3"], output: str) -> np.ndarray:
    """Values from 0 to 1 as they are, or as grey levels 0 to 255, rounded; see `generate`."""
    if not (whole := np.isfinite(images).all((1, 2, 3))).all():
        raise NotFiniteError(
            f"{int((~whole).sum())} of {len(images)} images are not finite: the model overflowed its dtype. "
            "Load it in float32 or bfloat16"
        )
    if output == "float32":
        return images.astype(np.float32)
    return (images.clip(0, 1) * 255).round().astype(np.uint8)
