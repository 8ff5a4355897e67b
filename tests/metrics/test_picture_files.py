"""The pixels of an image file are those that a viewer shows, or it is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.picture_files import read_picture

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
LEVELS = np.array([[0, 32639, 65535], [257, 12850, 40000]], np.uint16)  # 32,639 is 127 of 255
SHOWN = np.array([[0, 127, 255], [1, 50, 156]], np.uint8)


def encoded(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, kind, row, transparent=None, width=2):
    """One row of pixels as a PNG of any depth; Pillow writes few of them."""
    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    hidden = b"" if transparent is None else chunk(b"tRNS", transparent)
    parts = chunk(b"IHDR", header), hidden, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_keeps_its_brightness(form):
    found = read_picture(encoded(Image.fromarray(LEVELS), form))
    assert np.array_equal(found, SHOWN[..., None].repeat(3, 2))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_tag_turns_the_picture(form, orientation):
    """The tag is written beside the pixels turned back, so that every file shows the same image."""
    shown = np.zeros((16, 24, 3), np.uint8)
    shown[:8, :8], shown[8:, 16:] = (255, 0, 0), (0, 0, 255)
    lying, back = Image.fromarray(shown), [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]
    lying = lying if back is None else lying.transpose(Image.Transpose(back))
    tag = Image.Exif()
    tag[274] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    found = read_picture(encoded(lying, form, exif=tag, **options))
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).max() <= (40 if form == "JPEG" else 0)


def test_a_tag_turns_16_bit_grey_too():
    tag = Image.Exif()
    tag[274] = 3
    found = read_picture(encoded(Image.fromarray(LEVELS), exif=tag))
    assert np.array_equal(found[..., 0], SHOWN[::-1, ::-1])


def test_transparency_is_put_on_white_however_it_is_told():
    half, clear = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 128, np.uint8)]), COLOURS.copy()
    half[0, :, 3], clear[0] = 0, 255
    blended = read_picture(encoded(Image.fromarray(half)))
    assert (blended[0] == 255).all()
    assert np.abs(blended[1:].astype(int) - (128 * COLOURS[1:].astype(int) + 127 * 255) / 255).max() <= 1
    grey = Image.fromarray(half).convert("LA")
    assert (read_picture(encoded(grey))[0] == 255).all()
    palette = Image.fromarray(half).quantize(16)
    assert (read_picture(encoded(palette, "PNG"))[0] == 255).all()
    assert (read_picture(encoded(Image.new("P", (2, 2), 0), "GIF", transparency=0)) == 255).all()
    assert read_picture(png(8, 0, bytes([9, 200]), struct.pack(">H", 9)))[0, :, 0].tolist() == [255, 200]
    assert read_picture(png(8, 2, bytes([9, 8, 7, 1, 2, 3]), struct.pack(">HHH", 9, 8, 7)))[0].tolist() == [
        [255] * 3,
        [1, 2, 3],
    ]
    assert read_picture(png(1, 0, b"\x40", struct.pack(">H", 0)))[0, :, 0].tolist() == [255, 255]


TWO_LEVELS = Image.fromarray(COLOURS[..., 0] > 99)
BLACK_OR_WHITE = (255 * (COLOURS[..., :1] > 99)).astype(np.uint8).repeat(3, 2)
KINDS = {  # None: as Pillow itself has it
    "PNG": (encoded(Image.fromarray(COLOURS)), COLOURS),
    "BMP": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS),
    "grey": (encoded(Image.fromarray(COLOURS[..., 0])), COLOURS[..., :1].repeat(3, 2)),
    "two levels": (encoded(TWO_LEVELS), BLACK_OR_WHITE),
    "two levels TIFF": (encoded(TWO_LEVELS, "TIFF"), BLACK_OR_WHITE),
    "palette": (encoded(Image.fromarray(COLOURS[..., 0]).quantize(256)), None),
    "CMYK": (encoded(Image.fromarray(255 - COLOURS).convert("CMYK"), "TIFF"), 255 - COLOURS),
    "2 bits": (png(2, 0, b"\x30"), [[[0] * 3, [255] * 3]]),
    "RGB of 16 bits": (png(16, 2, bytes([200, 0, 100, 0, 50, *[0] * 7])), [[[200, 100, 50], [0] * 3]]),
    "LA of 16 bits": (png(16, 4, bytes([200, 0, 255, 255, 9, 0, 0, 0])), [[[200] * 3, [255] * 3]]),
}


@pytest.mark.parametrize(("content", "shown"), KINDS.values(), ids=KINDS)
def test_kinds_of_pixels(content, shown):
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) if shown is None else shown
    found = read_picture(content)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_a_cmyk_jpeg_has_the_colours_of_its_rgb_twin():
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    assert np.abs(read_picture(encoded(red.convert("CMYK"), "JPEG")).astype(int) - (200, 30, 30)).max() <= 6


def test_colours_of_a_profile_are_shown_in_srgb():
    """A wider profile, made by swapping the primaries' roles: green of it is not green of sRGB."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(COLOURS)
    assert np.array_equal(read_picture(encoded(picture, icc_profile=srgb)), COLOURS)
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    found = read_picture(encoded(picture, icc_profile=swapped)).astype(int)
    assert np.abs(found - COLOURS[..., [1, 0, 2]]).max() <= 2
    alpha = Image.fromarray(np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)]))
    assert np.abs(read_picture(encoded(alpha, icc_profile=swapped)).astype(int) - found).max() <= 1


@pytest.mark.parametrize(
    "profile",
    [b"nonsense", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
    ids=["broken", "of colours"],
)
def test_a_profile_that_does_not_fit_is_left_aside(profile):
    found = read_picture(encoded(Image.fromarray(COLOURS[..., 0]), icc_profile=profile))
    assert np.array_equal(found, COLOURS[..., :1].repeat(3, 2))


def test_of_a_cameras_file_with_previews_the_picture_is_taken():
    first, second = Image.fromarray(COLOURS).resize((32, 32)), Image.new("RGB", (32, 32))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.array_equal(read_picture(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def several(form, **options):
    mirrored = ImageOps.mirror(Image.fromarray(COLOURS))
    return encoded(Image.fromarray(COLOURS), form, save_all=True, append_images=[mirrored], **options)


def counted_from_white():
    content = encoded(Image.fromarray(LEVELS), "TIFF")
    kind = struct.pack("<HHI", 262, 3, 1)
    assert content.count(kind + struct.pack("<H", 1)) == 1
    return content.replace(kind + struct.pack("<H", 1), kind + struct.pack("<H", 0))


REFUSED = {
    "APNG": (several("PNG"), "2 images"),
    "GIF": (several("GIF"), "2 images"),
    "WEBP": (several("WEBP", lossless=True), "2 images"),
    "pages": (several("TIFF"), "2 images"),
    "float": (encoded(Image.fromarray(COLOURS[..., 0] / np.float32(255)), "TIFF"), "mode 'F'"),
    "32 bits": (encoded(Image.fromarray(COLOURS[..., 0].astype(np.int32)), "TIFF"), "mode 'I'"),
    "LAB": (encoded(Image.new("LAB", (4, 4)), "TIFF"), "mode 'LAB'"),
    "from white": (counted_from_white(), "count from white"),
    "4-bit key": (png(4, 0, b"\xf0", struct.pack(">H", 15)), "transparent"),
    "16-bit key": (png(16, 0, b"\xff\xff\0\0", struct.pack(">H", 65535)), "transparent"),
    "16-bit colour key": (png(16, 2, b"\xff" * 6 + bytes(6), b"\xff" * 6), "transparent"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_shown_as_a_viewer_does_is_refused(content, reason):
    advice = "save it anew as PNG with 8 bits a channel, or leave it out"
    with pytest.raises(InvalidInputError, match=f"{reason}.*; {advice}"):
        read_picture(content)
