"""MultiDiffusion (Bar-Tal et al., ICML 2023): the mean over windows of native size.

The paper averages what the sampler makes of each window's prediction. Samplers of diffusion models are linear
in it, those that look back included, so averaging the predictions first gives the same, with one state of the
sampler for the whole image and one sample of its noise. (A sampler that clips its estimate of the image is
not linear; `check_scheduler` refuses it.)

Example:
    >>> cover((16, 24), (16, 16), overlap=0.5)
    [(0, 0), (0, 8)]
    >>> starts(27, 16, 8)
    [0, 8, 11]
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from numbers import Real

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.kernels import announce
from entropy_lib.models.layers import denoiser, native_latent_size, pixels_per_latent
from entropy_lib.models.networks import family
from entropy_lib.sampling.generation import directly
from entropy_lib.sampling.methods import OVERLAP, Images
from entropy_lib.sampling.request import Request
from entropy_lib.sizes import Size

CLIPS = ("clip_sample", "thresholding", "clip_denoised")  # what makes a sampler clip, by its configuration


def multidiffusion(pipe: DiffusionPipeline, asked: Request, rule: str, overlap: float) -> Images:
    """Generate through windows of native size that overlap by a share of a window.

    In such a window every layer has its training tokens, so a scale rule has a factor of exactly 1 there and
    changes nothing (`gamma` does). A probe sees the windows: their tokens, and no place in the image.

    Raises:
        InvalidInputError: for a whole window of overlap, a size smaller than a window, and a scheduler that
        clips.
        UnsupportedModelError: for a network that packs its latents.
    """
    check_scheduler(pipe.scheduler)
    window = native_latent_size(pipe)
    latents = tuple(side // pixels_per_latent(pipe) for side in asked.size)
    cover(latents, window, overlap)  # fails before anything is generated
    with windowed(denoiser(pipe), window, overlap):
        return directly(pipe, asked, rule)


def check_scheduler(scheduler: object) -> None:
    """InvalidInputError for a sampler that is not linear in the prediction."""
    config = getattr(scheduler, "config", None)
    if clips := [name for name in CLIPS if getattr(config, name, False)]:
        raise InvalidInputError(
            f"{type(scheduler).__name__} has {clips[0]}=True, and windows cannot be averaged before a "
            f"sampler that clips; take one with {clips[0]}=False"
        )


def cover(size: tuple[int, int], window: tuple[int, int], overlap: float) -> list[tuple[int, int]]:
    """Top and left of windows that cover every row and column.

    Args:
        size: height and width of the whole.
        window: height and width of a window, in the same unit.
        overlap: of neighbours, as a share of the window; the last one of a row or column may overlap more.
    """
    if isinstance(overlap, bool) or not isinstance(overlap, Real) or not 0 < overlap < 1:
        raise InvalidInputError(
            f"overlap is {overlap!r}; it must be a share of the window, above 0 and below 1: windows that "
            "do not overlap leave seams, and a whole window of overlap never ends"
        )
    if size[0] < window[0] or size[1] < window[1]:
        raise InvalidInputError(
            f"the image is {Size(*size)} and a window {Size(*window)} (latent pixels): there is no room for "
            "one; ask for a size that is smaller than the native one on neither side, or generate it directly"
        )
    strides = [max(1, round(side * (1 - overlap))) for side in window]
    return list(product(*(starts(*sides) for sides in zip(size, window, strides, strict=True))))


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows of one length start to cover another; the last one ends where the whole does."""
    places = list(range(0, length - window + 1, stride))
    return places if places[-1] + window == length else [*places, length - window]


@contextmanager
def windowed(network: nn.Module, window: tuple[int, int], overlap: float = OVERLAP) -> Iterator[None]:
    """Let a network predict through windows while the block runs; it is as it was on any exit."""
    if family(network).packed:
        raise UnsupportedModelError(
            f"{type(network).__name__} packs its latents and cannot see through windows; networks that take "
            "them as [batch, channel, height, width] can"
        )
    own = network.forward

    def seen(*args: object, **kwargs: object) -> object:
        announce(network, args, kwargs)
        return own(*args, **kwargs)

    with forward_replaced(network, lambda *args, **kwargs: averaged(seen, args, kwargs, window, overlap)):
        yield


@contextmanager
def forward_replaced(network: nn.Module, forward: Callable) -> Iterator[None]:
    """Let another function run in place of a network's `forward`, which stands again on any exit."""
    before = vars(network).get("forward")
    network.forward = forward
    try:
        yield
    finally:
        del network.forward
        if before is not None:
            network.forward = before


def averaged(forward: Callable, args: tuple, kwargs: dict, window: tuple[int, int], overlap: float) -> object:
    """What `forward` returns, its prediction being the mean over all windows that see a place."""
    if kwargs.get("down_block_additional_residuals") is not None:
        raise UnsupportedModelError(
            "a ControlNet's residuals belong to the whole image and cannot be cut into windows"
        )
    name = None if args else next(key for key in ("sample", "hidden_states") if key in kwargs)
    whole = args[0] if args else kwargs[name]
    total, seen, outputs = None, whole.new_zeros(whole.shape[-2:]), None
    for top, left in cover(tuple(whole.shape[-2:]), window, overlap):
        place = (..., slice(top, top + window[0]), slice(left, left + window[1]))
        outputs = (
            forward(whole[place], *args[1:], **kwargs) if args else forward(**kwargs | {name: whole[place]})
        )
        prediction: Float[Tensor, "batch channel row column"] = outputs[0]
        total = prediction.new_zeros(*prediction.shape[:2], *whole.shape[-2:]) if total is None else total
        total[place] += prediction
        seen[place] += 1
    mean = total / seen
    return (mean, *outputs[1:]) if isinstance(outputs, tuple) else type(outputs)(mean)
