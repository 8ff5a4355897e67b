"""Which windows cover a picture.

Example:
    >>> cover((16, 24), (16, 16), overlap=0.5)
    [(0, 0), (0, 8)]
    >>> starts(27, 16, 8)
    [0, 8, 11]
"""

from itertools import product
from numbers import Real

from entropy_lib.errors import InvalidInputError
from entropy_lib.sizes import size_name

Size = tuple[int, int]


def cover(size: Size, window: Size, overlap: float) -> list[Size]:
    """Top and left of windows that cover every row and column.

    Args:
        size: height and width of the whole.
        window: height and width of a window, in the same unit.
        overlap: of neighbours, as a share of the window; the last one of a row or column may overlap more.

    Raises:
        InvalidInputError: for an overlap that is not between 0 and 1, or a whole that is smaller than a window.
    """
    if isinstance(overlap, bool) or not isinstance(overlap, Real) or not 0 < overlap < 1:
        raise InvalidInputError(
            f"overlap is {overlap!r}; it must be a share of the window, above 0 and below 1: windows that do not overlap leave "
            "seams, and a whole window of overlap never ends"
        )
    if size[0] < window[0] or size[1] < window[1]:
        raise InvalidInputError(
            f"the picture is {size_name(*size)} and a window {size_name(*window)} (latent pixels): there is no room for one; ask "
            "for a size that is no smaller than the native one on either side, or draw it directly"
        )
    strides = [max(1, round(side * (1 - overlap))) for side in window]
    return list(product(*(starts(*sides) for sides in zip(size, window, strides, strict=True))))


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows of one length start so that they cover another; the last one ends where the whole does."""
    places = list(range(0, length - window + 1, stride))
    return places if places[-1] + window == length else [*places, length - window]
