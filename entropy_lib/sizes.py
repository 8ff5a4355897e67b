"""Image sizes: height before width, in pixels, written "64x96"."""

import re
from typing import Any, NamedTuple, TypeAlias

from entropy_lib.errors import InvalidInputError

SIZE_MULTIPLE = 8  # StableDiffusionPipeline refuses anything else; SD3, FLUX and PixArt need 16
LARGEST_SIDE = 8192  # pixels; four times what any model of the catalogue was made for, and beyond any memory


def check_size(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> None:
    """InvalidInputError unless both sides are positive multiples of `multiple` pixels, and at most 8192."""
    wanted = f"it must be a positive multiple of {multiple} pixels"
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value <= 0:
            raise InvalidInputError(f"{name} is {value!r}; {wanted}, for example 64")
        if value > LARGEST_SIDE:
            raise InvalidInputError(f"{name} is {value}; it may be at most {LARGEST_SIDE} pixels")
        if value % multiple:
            below = value // multiple * multiple
            near = f"{below} or {below + multiple}" if below else str(multiple)
            raise InvalidInputError(f"{name} is {value}; {wanted}, as the model's latents need: {near}")


class Size(NamedTuple):
    """Height and width of an image in pixels: equal to the pair of numbers, written "64x96".

    Example:
        >>> size = Size.of("64x96")
        >>> size == (64, 96), str(size), size.pixels
        (True, '64x96', 6144)
    """

    height: int
    width: int

    @classmethod
    def parse(cls, text: Any) -> "Size":
        """The size that "64x96" says.

        Raises:
            InvalidInputError: when the text is something else, or a side is no positive multiple of 8.
        """
        match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", str(text).strip())
        if not match:
            written = "height x width in pixels, for example '64x96'"
            raise InvalidInputError(f"size {text!r} is not written as {written}")
        return cls.of((int(match[1]), int(match[2])))

    @classmethod
    def of(cls, given: "SizeLike", multiple: int = SIZE_MULTIPLE) -> "Size":
        """The size that is given as "64x96", as (64, 96) or as a `Size`.

        Raises:
            InvalidInputError: when it is something else, or a side is no positive multiple of `multiple`.
        """
        if isinstance(given, str) or not hasattr(given, "__len__") or len(given) != 2:
            given = cls.parse(given)
        height, width = given
        check_size(height, width, multiple)
        return cls(int(height), int(width))

    @property
    def pixels(self) -> int:
        """How many it has, to sort sizes by."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


SizeLike: TypeAlias = str | tuple[int, int] | Size


def pixel_count(text: str) -> int:
    """How many pixels a size has.

    Example:
        >>> max(["64x96", "128x64", "64x64"], key=pixel_count)
        '128x64'
    """
    return Size.parse(text).pixels
