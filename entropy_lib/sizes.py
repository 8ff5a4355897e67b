"""Image sizes: height before width, in pixels, written "64x96"."""

import re
from typing import Any

from entropy_lib.errors import InvalidInputError

SIZE_MULTIPLE = 8  # StableDiffusionPipeline refuses anything else; SD3, FLUX and PixArt need 16
LARGEST_SIDE = 8192  # pixels; four times what any model of the catalogue was made for, and beyond any memory


def check_size(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> None:
    """InvalidInputError unless both sides are positive multiples of `multiple` pixels, and at most 8192.

    Example:
        >>> check_size(64, 100)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        entropy_lib.errors.InvalidInputError: width is 100; it must be a positive multiple of 8 pixels, ...: 96 or 104
    """
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value <= 0:
            raise InvalidInputError(f"{name} is {value!r}; it must be a positive multiple of {multiple} pixels, for example 64")
        if value > LARGEST_SIDE:
            raise InvalidInputError(f"{name} is {value}; it may be at most {LARGEST_SIDE} pixels")
        if value % multiple:
            below = value // multiple * multiple
            near = f"{below} or {below + multiple}" if below else str(multiple)
            raise InvalidInputError(
                f"{name} is {value}; it must be a positive multiple of {multiple} pixels, as the model's latents need: {near}"
            )


def parse_size(text: Any) -> tuple[int, int]:
    """Height and width in pixels from "64x96".

    Raises:
        InvalidInputError: when the text is something else, or a side is no positive multiple of 8.

    Example:
        >>> parse_size("64x96")
        (64, 96)
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", str(text).strip())
    if not match:
        raise InvalidInputError(f"size {text!r} is not written as height x width in pixels, for example '64x96'")
    height, width = int(match[1]), int(match[2])
    check_size(height, width)
    return height, width


def size_name(height: int, width: int) -> str:
    """The label of a size: "64x96"."""
    return f"{height}x{width}"


def pixel_count(text: str) -> int:
    """How many pixels a size has, to sort sizes by.

    Example:
        >>> max(["96x96", "128x64"], key=pixel_count)
        '96x96'
    """
    height, width = parse_size(text)
    return height * width
