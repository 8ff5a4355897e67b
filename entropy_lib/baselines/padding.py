"""The rival explanation that damage comes from the code of position that zero padding gives: change it while drawing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from diffusers import DiffusionPipeline
from jaxtyping import UInt8
from torch import nn

from entropy_lib.baselines.options import PADDING
from entropy_lib.errors import UnknownNameError
from entropy_lib.experiments.generation import generate
from entropy_lib.models.layers import denoiser
from entropy_lib.models.padding import PADDINGS, padding_of, restore_padding, set_padding


def padding(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    mode: str = PADDING,
    **options: object,
) -> UInt8[np.ndarray, "image height width 3"]:
    """Draw while all convolutions of the denoiser pad in another way than they were trained with.

    Args:
        pipe, prompts, seeds, height, width, options: as for `generate`, a rule among them.
        mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        UnknownNameError: for another mode.
        InvalidInputError: as `generate`.

    Example:
        >>> import entropy_lib as el
        >>> padding(el.load("mini"), ["a penguin"], [0], 64, 96, mode="circular", steps=2).shape
        (1, 64, 96, 3)
    """
    if mode not in PADDINGS:
        raise UnknownNameError("padding", mode, PADDINGS)
    with padded(denoiser(pipe), mode):
        return generate(pipe, prompts, seeds, height, width, **options)


@contextmanager
def padded(network: nn.Module, mode: str) -> Iterator[None]:
    """Another padding while the block runs; every convolution is as it was on any exit."""
    before = padding_of(network)
    set_padding(network, mode)
    try:
        yield
    finally:
        restore_padding(network, before)
