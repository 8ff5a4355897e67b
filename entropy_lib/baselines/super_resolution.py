"""From a picture of native size to a larger one by super-resolution: finer pixels, the same things.

    back-projection   offline, no weights: enlarged so that, made small again, it is the native picture (Irani & Peleg 1991)
    x4                stabilityai/stable-diffusion-x4-upscaler, four times the side (CreativeML Open RAIL++-M)
    latent            stabilityai/sd-x2-latent-upscaler, twice the side (CreativeML Open RAIL++-M)

The last two are diffusion models of their own, drawn with the steps and the guidance that their authors gave. What is larger than
asked for is made smaller by Lanczos.

To add one, give it a line in `UPSCALERS`, whose name `baselines.options` knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.baselines.from_native import Pictures, middle
from entropy_lib.baselines.options import FILTERS, UPSCALER
from entropy_lib.errors import InvalidInputError, UnknownNameError, WeightsError
from entropy_lib.experiments.generation import generate, to_uint8
from entropy_lib.experiments.request import check_sizes, native_size
from entropy_lib.models.hub import hub_answers
from entropy_lib.sizes import size_name

ROUNDS = 10  # of back-projection; what is left to correct is then below a grey level


@dataclass(frozen=True)
class Upscaler:
    """One way to more pixels.

    Attributes:
        source: of its weights on the Hub; empty for none.
        factor: by which it multiplies sides; 0 for any.
        pipeline: its class in diffusers.
        options: of its call.
    """

    source: str = ""
    factor: int = 0
    pipeline: str = ""
    options: dict = field(default_factory=dict)


UPSCALERS = {
    "back-projection": Upscaler(),
    "x4": Upscaler("stabilityai/stable-diffusion-x4-upscaler", 4, "StableDiffusionUpscalePipeline"),
    "latent": Upscaler(
        "stabilityai/sd-x2-latent-upscaler", 2, "StableDiffusionLatentUpscalePipeline",
        {"num_inference_steps": 20, "guidance_scale": 0},
    ),
}  # fmt: skip


def super_resolved(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    upscaler: str = UPSCALER,
    **sampling: object,
) -> Pictures:
    """Draw at native size and give it more pixels. Of another shape than the native one, the middle is kept.

    Args:
        pipe, prompts, seeds, height, width: as for `generate`.
        upscaler: "back-projection", "x4" or "latent".
        sampling: `steps, guidance, batch, progress`, as for `generate`, of the native picture.

    Raises:
        UnknownNameError: for another upscaler.
        InvalidInputError: for a size that it does not reach, and as `generate`.
        WeightsError: for one whose weights are not here and cannot be fetched.

    Example:
        >>> import entropy_lib as el
        >>> super_resolved(el.load("mini"), ["a penguin"], [0], 96, 128, steps=2).shape
        (1, 96, 128, 3)
    """
    if upscaler not in UPSCALERS:
        raise UnknownNameError("upscaler", upscaler, UPSCALERS)
    chosen, native = UPSCALERS[upscaler], native_size(pipe)
    check_sizes(pipe, [(height, width)], 1)
    _check_reach(upscaler, native, height, width)
    model = _load(upscaler, str(pipe.device), pipe.dtype) if chosen.source else None
    images = generate(pipe, prompts, seeds, *native, **sampling)
    if model is None:
        return np.stack([back_projected(middle(image, height, width), height, width) for image in images])
    return np.stack([_by_model(model, chosen, *each, height, width) for each in zip(images, prompts, seeds, strict=True)])


def back_projected(image: UInt8[np.ndarray, "rows columns 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """A larger picture which, made small by averaging, is the given one: what it lacks is enlarged and added, ten times.

    Not larger than the picture, it is made smaller by averaging.

    Example:
        >>> small = np.random.default_rng(0).integers(64, 192, (8, 8, 3), dtype=np.uint8)
        >>> large = Image.fromarray(back_projected(small, 16, 16))
        >>> bool(np.abs(np.asarray(large.resize((8, 8), Image.Resampling.BOX)).astype(int) - small).max() <= 3)
        True
    """
    rows, columns = image.shape[:2]
    if height <= rows and width <= columns:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    wanted = image.astype(np.float32)
    large = _resize(wanted, height, width, Image.Resampling.BICUBIC)
    for _ in range(ROUNDS):
        lacking = wanted - _resize(large, rows, columns, Image.Resampling.BOX)
        large = (large + _resize(lacking, height, width, Image.Resampling.BICUBIC)).clip(0, 255)
    return large.round().astype(np.uint8)


def _resize(image: np.ndarray, height: int, width: int, filter: Image.Resampling) -> np.ndarray:
    """In floating point, which Pillow does one channel at a time."""
    channels = [Image.fromarray(channel).resize((width, height), filter) for channel in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _check_reach(name: str, native: tuple[int, int], height: int, width: int) -> None:
    factor = UPSCALERS[name].factor
    if factor and max(height / native[0], width / native[1]) > factor:
        largest = size_name(factor * native[0], factor * native[1])
        raise InvalidInputError(
            f"super-resolved({name}) at {size_name(height, width)}: from {size_name(*native)} it reaches {largest}; take a smaller "
            "size, or 'super-resolved(back-projection)'"
        )


@lru_cache(maxsize=1)
def _load(name: str, device: str, dtype: torch.dtype) -> DiffusionPipeline:
    known = UPSCALERS[name]
    try:
        options = {"dtype": dtype, "use_safetensors": True, "local_files_only": not hub_answers()}
        model = getattr(diffusers, known.pipeline).from_pretrained(known.source, **options)
    except OSError:
        raise WeightsError(
            f"the weights of super-resolved({name}) are not here, and the Hugging Face Hub does not answer; get them where there "
            f"is a network: `hf download {known.source}`"
        ) from None
    model.set_progress_bar_config(disable=True)
    return model.to(device)


def _by_model(
    model: DiffusionPipeline, chosen: Upscaler, image: np.ndarray, prompt: str, seed: int, height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """By a diffusion model, one picture at a time: at four times the side, a batch of them fits nowhere."""
    generator = torch.Generator("cpu").manual_seed(int(seed))
    large = model(prompt, image=Image.fromarray(image), generator=generator, output_type="np", **chosen.options).images
    kept = middle(to_uint8(large)[0], height, width)
    return np.asarray(Image.fromarray(kept).resize((width, height), FILTERS["lanczos"]))
