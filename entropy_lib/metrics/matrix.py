"""Feature matrices: what is accepted, and how they are read in blocks."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from entropy_lib.errors import InvalidInputError

# The number of images is left open: two sets need not have as many.
FeatureRows = Float[Tensor, "_ dim"] | Float[np.ndarray, "_ dim"]

ROWS = 2048  # of a block: a tile of two blocks has 32 MiB in float64


def feature_matrix(values: FeatureRows, name: str = "features", least: int = 1) -> Float[Tensor, "image dim"]:
    """`values` as a tensor, not copied where that can be helped, after checking them.

    Args:
        values: `[n, d]`, torch or numpy.
        name: what to call them in an error.
        least: number of images that are needed.

    Raises:
        InvalidInputError: if they are not a matrix, hold fewer than `least` images, or hold NaN or infinity.

    Example:
        >>> feature_matrix(np.zeros(3))
        Traceback (most recent call last):
            ...
        entropy_lib.errors.InvalidInputError: features have shape (3,); they must be [images, features]
    """
    if not isinstance(values, Tensor):
        if np.asarray(values).dtype.kind not in "fiu":
            raise InvalidInputError(f"{name} are {type(values).__name__}; they must be a matrix of numbers, torch or numpy")
        # torch warns of memory that it may not write to (memory maps, frozen arrays): such arrays are copied.
        values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if values.ndim != 2 or not values.shape[1]:
        raise InvalidInputError(f"{name} have shape {tuple(values.shape)}; they must be [images, features]")
    if len(values) < least:
        raise InvalidInputError(f"{name} hold {len(values)} images; this needs at least {least}")
    broken = sum(int((~block.isfinite()).any(1).sum()) for block in values.split(ROWS))
    if broken:
        raise InvalidInputError(f"{name} hold NaN or infinity in {broken} of {len(values)} rows; leave those images out")
    # Apple's GPUs have no float64.
    return values.detach().cpu() if values.device.type == "mps" else values.detach()


def same_width(first: Tensor, second: Tensor, names: tuple[str, str] = ("features", "the reference")) -> None:
    """Raise InvalidInputError unless both have the same number of columns."""
    if first.shape[-1] != second.shape[-1]:
        raise InvalidInputError(
            f"{names[0]} have {first.shape[-1]} columns and {names[1]} {second.shape[-1]}; both must come from the same extractor"
        )


def blocks_of_rows(values: Float[Tensor, "image dim"], rows: int = ROWS) -> Iterator[tuple[slice, Float64[Tensor, "row dim"]]]:
    """The matrix in blocks of rows: which rows, and those rows in float64."""
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        yield slice(start, start + len(block)), block.double()
