"""From an image of native size to another: enlarged, given finer pixels, or generated over.

Of another shape than the native one, the middle is kept, and nothing is stretched.
"""

from dataclasses import replace

import numpy as np
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.sampling.generation import as_output, directly, generators, under_rule
from entropy_lib.sampling.methods import FILTER, FILTERS, UNSCALED, Images
from entropy_lib.sampling.request import Request, native_size
from entropy_lib.sizes import Size

ROUNDS = 10  # of back-projection; what is left to correct is then below a grey level


def resized(pipe: DiffusionPipeline, asked: Request, rule: str, filter: str = FILTER) -> Images:
    """Generate at native size and resize by a filter of Pillow."""
    side = asked.size.width, asked.size.height
    native = map(Image.fromarray, _native(pipe, asked))
    return np.stack([np.asarray(ImageOps.fit(image, side, FILTERS[filter])) for image in native])


def _native(pipe: DiffusionPipeline, asked: Request) -> Images:
    return directly(pipe, replace(asked, size=native_size(pipe)), UNSCALED)


def super_resolved(pipe: DiffusionPipeline, asked: Request, rule: str) -> Images:
    """Generate at native size and give it finer pixels by back-projection (Irani & Peleg 1991)."""
    return np.stack([back_projected(middle(image, asked.size), asked.size) for image in _native(pipe, asked)])


def middle(
    image: UInt8[np.ndarray, "rows columns 3"], size: Size
) -> UInt8[np.ndarray, "kept_rows kept_columns 3"]:
    """The middle of an image, of the shape of another size, in whole pixels.

    Example:
        >>> middle(np.zeros((64, 64, 3), np.uint8), Size(32, 64)).shape
        (32, 64, 3)
    """
    rows, columns = image.shape[:2]
    share = min(rows / size.height, columns / size.width)
    kept_rows, kept_columns = round(share * size.height), round(share * size.width)
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return image[top : top + kept_rows, left : left + kept_columns]


def back_projected(
    image: UInt8[np.ndarray, "rows columns 3"], size: Size
) -> UInt8[np.ndarray, "height width 3"]:
    """A larger image which, averaged, is the given one: what it lacks is enlarged and added, ten times.

    Not larger than the image, it is made smaller by averaging.
    """
    native = Size(*image.shape[:2])
    if size.height <= native.height and size.width <= native.width:
        return np.asarray(Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BOX))
    wanted = image.astype(np.float32)
    large = _resized_floats(wanted, size, Image.Resampling.BICUBIC)
    for _ in range(ROUNDS):
        lacking = wanted - _resized_floats(large, native, Image.Resampling.BOX)
        large = (large + _resized_floats(lacking, size, Image.Resampling.BICUBIC)).clip(0, 255)
    return large.round().astype(np.uint8)


def _resized_floats(
    image: Float[np.ndarray, "rows columns 3"], size: Size, filter: Image.Resampling
) -> Float[np.ndarray, "height width 3"]:
    """Pillow resizes floating-point numbers one channel at a time."""
    channels, side = map(Image.fromarray, np.moveaxis(image, -1, 0)), (size.width, size.height)
    return np.stack([np.asarray(channel.resize(side, filter)) for channel in channels], -1)


def two_stage(pipe: DiffusionPipeline, asked: Request, rule: str, strength: float) -> Images:
    """Generate at native size, resize, put noise back and generate over it at the new size."""
    if int(asked.steps * strength) < 1:
        raise InvalidInputError(
            f"strength {strength:g} of {asked.steps} steps leaves no step to generate over; give more of "
            "either"
        )
    second = _from_image(pipe)
    first, images = resized(pipe, asked, UNSCALED), []
    options = {"num_inference_steps": asked.steps, "guidance_scale": asked.guidance, "output_type": "np"}
    with under_rule(pipe, rule):
        for start in range(0, len(first), asked.batch):
            part = slice(start, start + asked.batch)
            begun = {"image": list(map(Image.fromarray, first[part])), "strength": strength}
            noise = generators(asked.seeds[part])
            made = second(list(asked.prompts[part]), generator=noise, **begun, **options).images
            images.append(as_output(made, asked.output))
    return np.concatenate(images)


def _from_image(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline of diffusers that generates over images with the same networks."""
    try:
        second = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError:
        raise UnsupportedModelError(
            f"diffusers cannot start {type(pipe).__name__} from an image; pipelines of Stable Diffusion 1 "
            "to 3, SDXL, PixArt-Sigma and FLUX can; 'resized' and 'multidiffusion' need no such pipeline"
        ) from None
    second.set_progress_bar_config(disable=True)
    return second
