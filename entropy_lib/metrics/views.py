"""From images of any size to the square that a feature network reads: one resize, and four views.

    center   the short side to the square's, then its middle, as CLIP does: half of a 1:2 image is unseen
    pad      the long side to the square's, border pixels repeated to fill it: all is seen, smaller
    squash   both sides to the square's: all is seen, out of proportion; what Inception's users do
    tiles    square cuts along the long side, features averaged: all is seen, whole objects may be cut

For square images all four are the same. Filters change a Fréchet distance by more than methods do, so there
is one, and its name is part of every extractor's label.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, UnknownNameError

RESIZE = "bicubic, antialiased, not rounded"
VIEWS = ("center", "pad", "squash", "tiles")

Pictures = UInt8[np.ndarray, "image height width 3"]


def check_pictures(pictures: Pictures) -> None:
    """Refuse anything but uint8 `[n, height, width, 3]`: a float image may be in [0, 1] or [-1, 1]."""
    array = isinstance(pictures, np.ndarray)
    images = array and pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[-1] == 3
    if not images or not pictures.size:
        given = f"{pictures.dtype} {pictures.shape}" if array else type(pictures).__name__
        raise InvalidInputError(
            f"images are {given}; they must be uint8 images, an array [image, height, width, 3]"
        )


def as_float(pictures: Pictures) -> Float[Tensor, "image 3 height width"]:
    """Grey levels 0 to 255 as 0 to 1, channels first."""
    check_pictures(pictures)
    return torch.from_numpy(np.require(pictures, requirements=["C", "W"])).permute(0, 3, 1, 2).float() / 255


def resize(
    pictures: Float[Tensor, "image 3 height width"], height: int, width: int
) -> Float[Tensor, "image 3 new_height new_width"]:
    """The one resize: bicubic, antialiased, clamped to [0, 1], not rounded to grey levels."""
    if pictures.shape[-2:] == (height, width):
        return pictures
    changed = functional.interpolate(
        pictures, (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return changed.clamp(0, 1)


def resize_pictures(pictures: Pictures, height: int, width: int) -> Pictures:
    """Images at another size, as someone would save them, their middle where the shape differs."""
    if min(height, width) < 1:
        raise InvalidInputError(f"size is {height} x {width}; both sides must be 1 pixel or more")
    floats = as_float(pictures)
    share = min(floats.shape[-2] / height, floats.shape[-1] / width)
    cut = _middle(floats, round(share * height), round(share * width))
    return (resize(cut, height, width) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def squares(pictures: Pictures, side: int, view: str) -> Float[Tensor, "image tile 3 side side"]:
    """What a feature network sees of images of one size.

    Args:
        images: uint8, all of one size.
        side: of the square, in pixels.
        view: "center", "pad", "squash" or "tiles"; all but "tiles" give one tile.

    Raises:
        InvalidInputError: for images that are not uint8.
        UnknownNameError: for another view.
    """
    if view not in VIEWS:
        raise UnknownNameError("view", view, VIEWS)
    floats = as_float(pictures)
    height, width = floats.shape[-2:]
    short, long = min(height, width), max(height, width)
    if view == "squash" or height == width:
        return resize(floats, side, side)[:, None]
    if view == "center":
        return resize(_middle(floats, short, short), side, side)[:, None]
    if view == "pad":
        return _padded(floats, side)[:, None]
    starts = np.linspace(0, long - short, math.ceil(long / short)).round().astype(int)
    tall = height > width
    cuts = [floats.narrow(-2 if tall else -1, int(start), short) for start in starts]
    return torch.stack([resize(cut, side, side) for cut in cuts], 1)


def _middle(pictures: Tensor, height: int, width: int) -> Tensor:
    top, left = (pictures.shape[-2] - height) // 2, (pictures.shape[-1] - width) // 2
    return pictures[..., top : top + height, left : left + width]


def _padded(pictures: Tensor, side: int) -> Tensor:
    height, width = pictures.shape[-2:]
    share = side / max(height, width)
    inside = resize(pictures, max(1, round(share * height)), max(1, round(share * width)))
    down, across = side - inside.shape[-2], side - inside.shape[-1]
    return functional.pad(
        inside, (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate"
    )
