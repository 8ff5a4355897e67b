"""Images for the detector to learn from: any number of things, whole or damaged, with what is left of each.

Nought to six things of any kinds, anywhere, cut off by the border, covering each other, repeated at a fixed
distance, half faded, blurred or torn to pieces, at any size from 24 px on. Of every thing the truth tells
which share of it can be seen and whether a person could name it.

Example:
    >>> image, seen = damaged(3, 64, 96)
    >>> image.shape, all(0 < one.visible <= 1 for one in seen)
    ((64, 96, 3), True)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from entropy_lib.scenes import scenes, sprites

SMALLEST = 9  # pixels of a thing's longer side, the least that is drawn
NAMEABLE = 10.0, 0.25  # pixels of the longer side and visible share from which on a person can name a thing
SEEN = 0.12  # visible share from which on a thing counts as there
MOST = 6
KINDS = ("apart", "anywhere", "repeated")


@dataclass(frozen=True)
class Seen:
    """One thing of an image as it can be seen.

    Attributes:
        name, design: which sprite.
        box: top, left, bottom, right of the visible part, in pixels.
        visible: share of the whole thing that can be seen.
        legible: whether a person could name it.
    """

    name: str
    design: str
    box: tuple[float, float, float, float]
    visible: float
    legible: bool


@dataclass
class Layer:
    """One thing on its way into an image: colours and opacity on the canvas; sum of its whole opacity,
    longer side in pixels.
    """

    name: str
    design: str
    colours: Float[np.ndarray, "height width 3"]
    opacity: Float[np.ndarray, "height width"]
    whole: float
    side: float
    legible: bool = True


def damaged(number: int, height: int, width: int) -> tuple[UInt8[np.ndarray, "height width 3"], list[Seen]]:
    """The image of this number at this size, and what can be seen in it."""
    random = np.random.default_rng([scenes.SPLITS.index("detector"), number, height, width])
    ground = scenes.background(str(random.choice(list(scenes.COLOURS))), random)
    canvas = scenes.ground_pixels(ground, height, width).astype(np.float32)
    layers = [harmed(one, random) for one in placed(height, width, random)]
    visible = [layer.opacity for layer in layers]
    for index, layer in enumerate(layers):
        canvas += layer.opacity[..., None] * (layer.colours - canvas)
        visible[:index] = [earlier * (1 - layer.opacity) for earlier in visible[:index]]
    seen = [seen_part(layer, left) for layer, left in zip(layers, visible, strict=True)]
    return worn(canvas, random), [one for one in seen if one is not None]


def placed(height: int, width: int, random: np.random.Generator) -> list[Layer]:
    """Layers of nought to six things: apart from each other, anywhere, or one thing again and again at one
    distance.
    """
    kind = random.choice(KINDS, p=(0.55, 0.3, 0.15))
    count = int(random.choice(MOST + 1, p=(0.04, 0.30, 0.28, 0.16, 0.10, 0.07, 0.05)))
    if kind == "repeated":
        return repeated(max(2, count), height, width, random)
    layers, boxes = [], []
    for _ in range(count):
        for _ in range(20):
            thing, box = thrown(height, width, random, cut=kind == "anywhere")
            if kind == "anywhere" or all(scenes.apart(box, other, 0.0) for other in boxes):
                boxes.append(box)
                layers.append(laid(thing, box, height, width))
                break
    return layers


def thrown(
    height: int, width: int, random: np.random.Generator, cut: bool
) -> tuple[scenes.Thing, tuple[float, ...]]:
    """A thing of any kind and its box; with `cut` the box may leave the frame by up to two thirds."""
    shorter = min(height, width)
    side = np.exp(random.uniform(np.log(max(SMALLEST, 0.14 * shorter)), np.log(0.85 * shorter)))
    kind = str(random.choice(sprites.NAMES)), str(random.choice(sprites.DESIGNS))
    thing = scenes.Thing(*kind, side / shorter, 0.0, 0.0, bool(random.random() < 0.5))
    high, wide = thing.extent(shorter)
    beyond = 0.67 if cut and random.random() < 0.6 else 0.0
    top = random.uniform(-beyond * high, height - high + beyond * high)
    left = random.uniform(-beyond * wide, width - wide + beyond * wide)
    return thing, (top, left, top + high, left + wide)


def repeated(count: int, height: int, width: int, random: np.random.Generator) -> list[Layer]:
    """One thing `count` times at a common displacement: what a model draws that repeats itself."""
    thing, (top, left, bottom, right) = thrown(height, width, random, cut=False)
    high, wide = bottom - top, right - left
    angle, distance = random.uniform(0, 2 * np.pi), random.uniform(0.6, 1.3)
    down, across = distance * high * np.sin(angle), distance * wide * np.cos(angle)
    boxes = [(top + k * down, left + k * across, bottom + k * down, right + k * across) for k in range(count)]
    return [laid(thing, box, height, width) for box in boxes if inside(box, height, width)]


def inside(box: tuple[float, ...], height: int, width: int) -> bool:
    """Whether at least a third of a box in each direction lies in the frame."""
    top, left, bottom, right = box
    return (
        min(bottom, height) - max(top, 0) > (bottom - top) / 3
        and min(right, width) - max(left, 0) > (right - left) / 3
    )


def laid(thing: scenes.Thing, box: tuple[float, ...], height: int, width: int) -> Layer:
    """A thing drawn on an empty canvas."""
    top, left, bottom, right = (round(value) for value in box)
    size = (max(1, right - left), max(1, bottom - top))
    canvas = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    picture = scenes.sprite(thing.name, thing.design).resize(size, Image.Resampling.LANCZOS)
    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if thing.mirrored else picture
    canvas.paste(picture, (left, top))
    pixels = np.asarray(canvas, dtype=np.float32)
    whole = float(np.asarray(picture.getchannel("A"), dtype=np.float32).sum() / 255)
    return Layer(
        thing.name, thing.design, pixels[..., :3], pixels[..., 3] / 255, max(whole, 1.0), float(max(size))
    )


def harmed(layer: Layer, random: np.random.Generator) -> Layer:
    """Most things stay as they are; some fade on one side, some are torn to pieces."""
    fate = random.random()
    if fate < 0.12:
        layer.opacity = layer.opacity * faded(layer.opacity, random)
    elif fate < 0.20:
        return torn(layer, random)
    return layer


def faded(
    opacity: Float[np.ndarray, "height width"], random: np.random.Generator
) -> Float[np.ndarray, "height width"]:
    """A factor that falls from 1 to 0 across a thing, along a random direction."""
    rows, columns = np.nonzero(opacity > 0.5)
    if len(rows) == 0:
        return np.ones_like(opacity)
    angle, share = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.75)
    grid = np.add.outer(
        np.sin(angle) * np.arange(opacity.shape[0]), np.cos(angle) * np.arange(opacity.shape[1])
    )
    inside = grid[rows, columns]
    edge, soft = np.quantile(inside, share), 0.04 * (np.ptp(inside) + 1)
    return (1 / (1 + np.exp(np.clip((grid - edge) / soft, -50, 50)))).astype(np.float32)


def torn(layer: Layer, random: np.random.Generator) -> Layer:
    """A thing whose pieces have changed places: something is there, and nobody can say what."""
    rows, columns = np.nonzero(layer.opacity > 0.1)
    if len(rows) < 36:
        return layer
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    pieces = int(random.integers(4, 7))
    stack = np.dstack([layer.colours, layer.opacity])[top:bottom, left:right]
    high, wide = stack.shape[0] // pieces, stack.shape[1] // pieces
    if min(high, wide) < 1:
        return layer
    blocks = [
        stack[r * high : (r + 1) * high, c * wide : (c + 1) * wide]
        for r in range(pieces)
        for c in range(pieces)
    ]
    order = random.permutation(len(blocks))
    mixed = np.zeros_like(stack)
    for place, block in enumerate(order):
        row, column = divmod(place, pieces)
        piece = blocks[block]
        mixed[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = (
            piece[::-1] if random.random() < 0.5 else piece
        )
    soft = gaussian_filter(mixed, (0.25 * high, 0.25 * wide, 0))
    colours, opacity = layer.colours.copy(), np.zeros_like(layer.opacity)
    colours[top:bottom, left:right], opacity[top:bottom, left:right] = soft[..., :3], soft[..., 3]
    return Layer(
        layer.name, layer.design, colours, opacity, max(float(opacity.sum()), 1.0), layer.side, legible=False
    )


def seen_part(layer: Layer, left: Float[np.ndarray, "height width"]) -> Seen | None:
    """What can be seen of a layer; None where too little is left to count."""
    visible = float(left.sum() / layer.whole)
    rows, columns = np.nonzero(left > 0.3)
    if visible < SEEN or len(rows) < 12:
        return None
    box = float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1)
    pixels, share = NAMEABLE
    return Seen(
        layer.name,
        layer.design,
        box,
        min(visible, 1.0),
        layer.legible and layer.side >= pixels and visible >= share,
    )


def worn(
    canvas: Float[np.ndarray, "height width 3"], random: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """An image as it comes: often a little blurred, sometimes noisy or off colour."""
    if random.random() < 0.5:
        canvas = canvas * random.uniform(0.92, 1.08, 3) + random.uniform(-8, 8)
    if random.random() < 0.3:
        canvas = canvas + random.normal(0, random.uniform(1, 7), canvas.shape)
    picture = Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))
    if random.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.9)))
    return np.asarray(picture)
