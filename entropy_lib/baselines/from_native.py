"""From a picture of native size to one of another size: made larger as it is, or drawn over at the new size."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.baselines.options import FILTER, FILTERS, STRENGTH
from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.experiments.generation import generate, to_uint8
from entropy_lib.experiments.request import check_sampler, check_sizes, distinct_rules_at, native_size
from entropy_lib.scaling.patch import scaled
from entropy_lib.scaling.rules import Rule

Pictures = UInt8[np.ndarray, "image height width 3"]


def resized(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    filter: str = FILTER,
    **sampling: object,
) -> Pictures:
    """Draw at native size and resize. Of another shape than the native one, the middle is kept, and nothing is stretched.

    Args:
        pipe, prompts, seeds, height, width: as for `generate`.
        filter: of Pillow: "nearest", "bilinear", "bicubic" or "lanczos".
        sampling: `steps, guidance, batch, progress`, as for `generate`.

    Raises:
        UnknownNameError: for another filter.
        InvalidInputError: as `generate`.

    Example:
        >>> import entropy_lib as el
        >>> resized(el.load("mini"), ["a penguin"], [0], 64, 96, steps=2).shape
        (1, 64, 96, 3)
    """
    if filter not in FILTERS:
        raise UnknownNameError("filter", filter, FILTERS)
    check_sizes(pipe, [(height, width)], 1)
    images = generate(pipe, prompts, seeds, *native_size(pipe), **sampling)
    return np.stack([_resized(image, height, width, FILTERS[filter]) for image in images])


def _resized(image: UInt8[np.ndarray, "height width 3"], height: int, width: int, filter: Image.Resampling) -> np.ndarray:
    """The middle of a picture, in the wanted shape, at the wanted size."""
    rows, columns = image.shape[:2]
    share = min(rows / height, columns / width)
    down, across = (rows - share * height) / 2, (columns - share * width) / 2
    box = (across, down, columns - across, rows - down)
    return np.asarray(Image.fromarray(image).resize((width, height), filter, box=box))


def middle(image: UInt8[np.ndarray, "rows columns 3"], height: int, width: int) -> UInt8[np.ndarray, "kept_rows kept_columns 3"]:
    """The middle of a picture, of the shape of another size, in whole pixels.

    Example:
        >>> middle(np.zeros((64, 64, 3), np.uint8), 32, 64).shape
        (32, 64, 3)
    """
    rows, columns = image.shape[:2]
    share = min(rows / height, columns / width)
    kept_rows, kept_columns = round(share * height), round(share * width)
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return image[top : top + kept_rows, left : left + kept_columns]


def two_stage(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    strength: float = STRENGTH,
    scale_rule: str | Rule | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 10,
    progress: bool = False,
) -> Pictures:
    """Draw at native size, resize, put noise back and draw over at the new size: the layout is of the first stage.

    Args:
        pipe, prompts, seeds, height, width, steps, guidance, batch, progress: as for `generate`.
        strength: the share of the sampler's steps that the second stage takes, above 0 and up to 1.
        scale_rule: of the second stage; at native size it changes nothing.

    Raises:
        InvalidInputError: for another strength, one that leaves no step, and as `generate`.
        UnsupportedModelError: for a pipeline that diffusers cannot start from a picture.

    Example:
        >>> import entropy_lib as el
        >>> two_stage(el.load("mini"), ["a penguin"], [0], 64, 96, steps=2).shape
        (1, 64, 96, 3)
    """
    sampler = check_sampler(pipe, steps, guidance, batch)
    second = check_two_stage(pipe, strength, sampler.steps)
    if scale_rule is not None:
        distinct_rules_at(pipe, [scale_rule], height, width)  # fails here where the rule has no factor
    options = {"steps": sampler.steps, "guidance": sampler.guidance, "batch": batch, "progress": progress}
    first, images = resized(pipe, prompts, seeds, height, width, **options), []
    over = partial(second, strength=strength, num_inference_steps=sampler.steps, guidance_scale=sampler.guidance, output_type="np")
    with nullcontext() if scale_rule is None else scaled(pipe, scale_rule):
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds[part]]
            pictures = [Image.fromarray(image) for image in first[part]]
            images.append(to_uint8(over(list(prompts[part]), image=pictures, generator=generators).images))
    return np.concatenate(images)


def check_two_stage(pipe: DiffusionPipeline, strength: float, steps: int) -> DiffusionPipeline:
    """The pipeline of diffusers that draws over pictures with the same networks.

    Raises:
        InvalidInputError: for a strength out of (0, 1], or one that leaves no step.
        UnsupportedModelError: where diffusers has none.
    """
    if isinstance(strength, bool) or not isinstance(strength, float | int) or not 0 < strength <= 1:
        raise InvalidInputError(f"strength is {strength!r}; it must be above 0 and at most 1")
    if int(steps * strength) < 1:
        raise InvalidInputError(f"strength {strength:g} of {steps} steps leaves no step to draw over; give more of either")
    try:
        second = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError:
        raise UnsupportedModelError(
            f"diffusers cannot start {type(pipe).__name__} from a picture; pipelines of Stable Diffusion 1 to 3, SDXL, "
            "PixArt-Sigma and FLUX can; 'resized' and 'multidiffusion' need no such pipeline"
        ) from None
    second.set_progress_bar_config(disable=True)
    return second
