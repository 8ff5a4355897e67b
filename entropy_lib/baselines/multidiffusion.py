"""MultiDiffusion (Bar-Tal et al., ICML 2023): the denoiser sees windows of its native size; where they overlap, the mean counts.

The paper averages what the sampler makes of each window's prediction. Samplers of diffusion models are linear in it, those that
look back included, so averaging the predictions first gives the same, with one state of the sampler for the whole picture and
one draw of its noise. (A sampler that clips its estimate of the picture is not linear; `check_scheduler` refuses it.)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from diffusers import DiffusionPipeline
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from entropy_lib.baselines.options import OVERLAP
from entropy_lib.baselines.windows import Size, cover
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.experiments.generation import generate
from entropy_lib.experiments.request import check_pipeline, check_sizes
from entropy_lib.models.kernels import announce
from entropy_lib.models.layers import check_latent_size, denoiser, native_latent_size
from entropy_lib.models.networks import family
from entropy_lib.scaling.rules import Rule


def multidiffusion(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    overlap: float = OVERLAP,
    window: Size | None = None,
    scale_rule: str | Rule | None = None,
    **sampling: object,
) -> UInt8[np.ndarray, "image height width 3"]:
    """Draw one image for each (prompt, seed) pair through windows.

    In a window of native size every layer has its training tokens, so a scale rule has a factor of exactly 1 there and changes
    nothing; it may in windows of another size. A probe sees the windows: their tokens, and no place in the picture.

    Args:
        pipe, prompts, seeds, height, width, scale_rule: as for `generate`; neither side smaller than a window.
        overlap: of neighbouring windows, as a share of a window.
        window: height and width in latent pixels; None for the native size.
        sampling: `steps, guidance, batch, progress`, as for `generate`.

    Returns:
        uint8 `[n, height, width, 3]`.

    Raises:
        InvalidInputError: for an overlap that is not between 0 and 1, a size smaller than a window, a scheduler that clips, and
            as `generate`.
        UnsupportedModelError: for a network that packs its latents.

    Example:
        >>> import entropy_lib as el
        >>> multidiffusion(el.load("mini"), ["a penguin"], [0], 64, 96, steps=2).shape
        (1, 64, 96, 3)
    """
    check_pipeline(pipe)
    check_scheduler(pipe.scheduler)
    network = denoiser(pipe)
    check_sizes(pipe, [(height, width)], 1)
    window = native_latent_size(pipe) if window is None else check_latent_size(window)
    cover((height // pipe.vae_scale_factor, width // pipe.vae_scale_factor), window, overlap)  # fails before anything is drawn
    with windowed(network, window, overlap):
        return generate(pipe, prompts, seeds, height, width, scale_rule=scale_rule, **sampling)


def check_scheduler(scheduler: object) -> None:
    """InvalidInputError for a sampler that is not linear in the prediction."""
    clips = [name for name in ("clip_sample", "thresholding") if getattr(getattr(scheduler, "config", None), name, False)]
    if clips:
        raise InvalidInputError(
            f"{type(scheduler).__name__} has {clips[0]}=True, and windows cannot be averaged before a sampler that clips; take one "
            f"with {clips[0]}=False"
        )


@contextmanager
def windowed(network: nn.Module, window: Size, overlap: float = OVERLAP) -> Iterator[None]:
    """Let a network predict through windows while the block runs; it is as it was on any exit.

    Args:
        network: of a family that takes latents `[batch, channel, height, width]`.
        window: height and width in latent pixels.
        overlap: of neighbouring windows, as a share of a window.

    Raises:
        UnsupportedModelError: for another network.
    """
    if family(network).packed:
        raise UnsupportedModelError(
            f"{type(network).__name__} packs its latents and cannot see through windows; networks that take them as "
            "[batch, channel, height, width] can"
        )
    own, before = network.forward, vars(network).get("forward")

    def seen(*args: object, **kwargs: object) -> object:
        announce(network, args, kwargs)
        return own(*args, **kwargs)

    network.forward = lambda *args, **kwargs: averaged(seen, args, kwargs, window, overlap)
    try:
        yield
    finally:
        del network.forward
        if before is not None:
            network.forward = before


def averaged(forward: object, args: tuple, kwargs: dict, window: Size, overlap: float) -> object:
    """What `forward` returns, its prediction being the mean over all windows that see a place."""
    if kwargs.get("down_block_additional_residuals") is not None:
        raise UnsupportedModelError("a ControlNet's residuals belong to the whole picture and cannot be cut into windows")
    name = None if args else next(key for key in ("sample", "hidden_states") if key in kwargs)
    whole = args[0] if args else kwargs[name]
    total, seen, outputs = None, whole.new_zeros(whole.shape[-2:]), None
    for top, left in cover(tuple(whole.shape[-2:]), window, overlap):
        place = (..., slice(top, top + window[0]), slice(left, left + window[1]))
        outputs = forward(whole[place], *args[1:], **kwargs) if args else forward(**kwargs | {name: whole[place]})
        prediction: Float[Tensor, "batch channel row column"] = outputs[0]
        total = prediction.new_zeros(*prediction.shape[:2], *whole.shape[-2:]) if total is None else total
        total[place] += prediction
        seen[place] += 1
    mean = total / seen
    return (mean, *outputs[1:]) if isinstance(outputs, tuple) else type(outputs)(mean)
