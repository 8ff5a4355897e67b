"""From the file of an image to its pixels, as a viewer shows them; what cannot be shown so is refused.

Left to itself, Pillow makes 16-bit grey white, leaves lying what an EXIF tag turns, takes the colours of any
profile for sRGB and shows the first image of several.
"""

import io
from contextlib import suppress

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps

from entropy_lib.errors import InvalidInputError

SHOWN = {
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L",
    "I;16N",
}  # fmt: skip
WHITE_IS_ZERO, PHOTOMETRIC = 0, 262  # of TIFF
ADVICE = "save it anew as PNG with 8 bits a channel, or leave it out"


def read_picture(encoded: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of an image: turned as EXIF says, 16-bit grey in 8, in sRGB, transparency on white.

    Args:
        encoded: the content of the file.

    Raises:
        InvalidInputError: for an animation or several pages, and for numbers of which no viewer knows which
        is white.
        Exception: of many kinds, whatever Pillow says of a file that is damaged or no image.
    """
    with Image.open(io.BytesIO(encoded)) as file:
        if problem := _problem(file):
            raise InvalidInputError(f"{problem}; {ADVICE}")
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16-bit grey
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        image = _in_srgb(image, file.info.get("icc_profile"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _problem(file: Image.Image) -> str | None:
    """Why Pillow would not show an image as other viewers do, if so; asked before it is decoded."""
    packed = str(file.tile)  # names the bits of a channel; empty once the image is decoded
    # a camera's previews follow the image there
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
        return f"it holds {file.n_frames} images, an animation or several pages"
    if not (file.mode in SHOWN or (file.mode, file.format) == ("I", "PPM")) or "I;12" in packed:
        return f"its numbers, of Pillow's mode {file.mode!r}, do not say which of them is white"
    if getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO and file.mode.startswith("I"):
        return "its 16-bit numbers count from white"
    if "transparency" in file.info and any(bits in packed for bits in ("L;2", "L;4", ";16")):
        return "one of its grey levels or colours, not of 8 bits, is transparent"
    return None


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours of the profile that came with them, if it is for this kind of image."""
    if not profile:
        return image
    if image.has_transparency_data or image.mode in ("P", "1"):
        image = image.convert("RGBA")
    with suppress(ImageCms.PyCMSError, OSError):
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=mode)
    return image
