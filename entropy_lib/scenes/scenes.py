"""Scenes: images whose contents are known exactly, at any size.

One thing of 50 to 80 % of the shorter side, or two of the same kind of 34 to 46 %, whole, anywhere in the
frame, mirrored or not, on a background of one of eight colours with a gradient or waves. The caption tells
kind, number, design and colour; it does not tell the place, the mirroring (which a pair shares), the exact
hue or the course of the background, and yet all parts of an image must agree on them: that is what
self-attention is for.

A scene is made of shares of the frame and not of pixels, so that the same scene can be drawn at every size;
what is in it, is its truth. It depends on (split, number) alone.

Example:
    >>> one = scene(7)
    >>> one == scene(7), one == scene(7, split="test")
    (True, False)
    >>> draw(one, 64, 96).shape
    (64, 96, 3)
"""

import colorsys
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.scenes import sprites

SIZE = 64  # pixels a side at which the embedded models are trained
COLOURS = {  # hue, degrees
    "red": 355, "orange": 27, "yellow": 50, "green": 105,
    "teal": 170, "blue": 215, "purple": 270, "pink": 320,
}  # fmt: skip
HUE_SPREAD = 7.0  # degrees to either side of the named hue
SINGLE, PAIR = (0.50, 0.80), (0.34, 0.46)  # longer side of a thing, of the frame's shorter side
PAIR_SHARE = 0.35
COUNTS = (1, 2)
# name, count, colour and design; None for what a caption leaves open
Facts = tuple[str, int, str | None, str | None]
MARGIN = 0.02  # of the shorter side, between a thing and the border, and between two things
SPLITS = ("train", "test", "detector")  # a number in another split is another scene
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
PLURALS = {
    "strawberry": "strawberries", "butterfly": "butterflies", "bus": "buses", "fox": "foxes",
    "octopus": "octopuses", "cactus": "cacti", "snowman": "snowmen",
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """What scenes are made of."""

    name: str  # for files
    names: tuple[str, ...]  # of the sprites
    designs: tuple[str, ...]  # likewise
    colour_stated: float  # shares of captions that tell the ground's colour and the sprite's design
    design_stated: float  # likewise


FULL = World("full", sprites.NAMES, sprites.DESIGNS, colour_stated=0.8, design_stated=0.75)
# fewer things, drawn well: what `mini-dit` knows
NAMEABLE = tuple(name for name in sprites.NAMES if name not in sprites.HARD_TO_NAME)
SIMPLE = World("simple", NAMEABLE, ("twemoji",), colour_stated=0.9, design_stated=0.0)


@dataclass(frozen=True)
class Thing:
    """One thing of a scene."""

    name: str  # which sprite
    design: str  # likewise
    side: float  # longer side of the thing, as a share of the frame's shorter side
    down: float  # where it stands in the room that it leaves: 0 at the top or left margin, 1 at the other
    right: float  # likewise
    mirrored: bool = False  # whether the sprite is mirrored

    def extent(self, shorter: float) -> tuple[float, float]:
        """Height and width in the unit of `shorter`, the frame's shorter side."""
        picture = sprite(self.name, self.design)
        scale = self.side * shorter / max(picture.size)
        return picture.height * scale, picture.width * scale

    def box(self, height: float, width: float) -> tuple[float, float, float, float]:
        """Top, left, bottom and right in a frame of this height and width."""
        shorter = min(height, width)
        high, wide = self.extent(shorter)
        top = MARGIN * shorter + self.down * (height - high - 2 * MARGIN * shorter)
        left = MARGIN * shorter + self.right * (width - wide - 2 * MARGIN * shorter)
        return top, left, top + high, left + wide


@dataclass(frozen=True)
class Background:
    """A two-coloured ground."""

    colour: str  # its name, one of `COLOURS`
    first: tuple[float, float, float]  # two colours of that name, red, green and blue in [0, 1]
    second: tuple[float, float, float]  # likewise
    angle: float  # direction in which it changes, radians
    waves: float = 0.0  # 0 for a gradient from one border to the other, else waves per shorter side
    phase: float = 0.0  # of the waves, radians


@dataclass(frozen=True)
class Scene:
    """A caption and what must be seen for it to be true."""

    caption: str
    things: tuple[Thing, ...]
    background: Background


def caption(name: str, count: int = 1, colour: str | None = None, design: str | None = None) -> str:
    """A caption as people write it; what is None is left out.

    >>> caption("owl", colour="blue"), caption("owl", 2, design="fluent")
    ('an owl on a blue background', 'two owls, fluent style')
    """
    things = f"{_article(name)} {name}" if count == 1 else f"{NUMBERS[count]} {PLURALS.get(name, name + 's')}"
    ground = f" on {_article(colour)} {colour} background" if colour else ""
    return things + ground + (f", {design} style" if design else "")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def scene(number: int, split: str = "train", world: World = FULL) -> Scene:
    """The scene of this number.

    Args:
        number: from 0 on, any.
        split: "train", "test" or "detector"; each has its own scenes.
        world: what it is made of.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if number < 0:
        raise InvalidInputError(f"number is {number}; scenes are numbered from 0 on")
    random = np.random.default_rng([SPLITS.index(split), number])
    name, design = str(random.choice(world.names)), str(random.choice(world.designs))
    things = _pair(name, design, random) if random.random() < PAIR_SHARE else (_single(name, design, random),)
    ground = background(str(random.choice(list(COLOURS))), random)
    stated = random.random(2)
    colour = ground.colour if stated[0] < world.colour_stated else None
    text = caption(name, len(things), colour, design if stated[1] < world.design_stated else None)
    return Scene(text, things, ground)


@functools.cache
def captions(world: World = FULL) -> dict[str, Facts]:
    """Every caption that a scene of this world can have, with what it tells.

    Example:
        >>> captions()["two owls on a red background"]
        ('owl', 2, 'red', None)
    """
    designs = (None, *world.designs) if world.design_stated else (None,)
    kinds = product(world.names, COUNTS, (None, *COLOURS), designs)
    return {caption(*kind): kind for kind in kinds}


def _single(name: str, design: str, random: np.random.Generator) -> Thing:
    side_and_place = _rounded(random.uniform(*SINGLE), *random.random(2))
    return Thing(name, design, *side_and_place, mirrored=bool(random.random() < 0.5))


def _pair(name: str, design: str, random: np.random.Generator) -> tuple[Thing, Thing]:
    """Two things of one kind, mirrored alike, that do not overlap."""
    mirrored = bool(random.random() < 0.5)
    while True:
        sides, places = random.uniform(*PAIR, 2), random.random((2, 2))
        both = tuple(
            Thing(name, design, *_rounded(side, *place), mirrored)
            for side, place in zip(sides, places, strict=True)
        )
        if apart(*(thing.box(1.0, 1.0) for thing in both)):
            return both


def apart(one: Sequence[float], other: Sequence[float], margin: float = MARGIN) -> bool:
    """Whether two boxes (top, left, bottom, right) are separated by a margin."""
    return any(
        one[axis] - other[axis + 2] >= margin or other[axis] - one[axis + 2] >= margin for axis in (0, 1)
    )


def background(colour: str, random: np.random.Generator) -> Background:
    """A ground of the named colour with a hue, a gradient or waves of its own."""
    hue = COLOURS[colour] + random.uniform(-HUE_SPREAD, HUE_SPREAD)
    saturation, value = random.uniform(0.45, 0.75), random.uniform(0.70, 0.95)
    change = random.uniform(0.08, 0.22)
    colours = [
        colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value + sign * change / 2) for sign in (-1, 1)
    ]
    first, second = (_rounded(*np.clip(rgb, 0, 1)) for rgb in colours)
    waves = random.uniform(1.5, 3.5) if random.random() < 0.4 else 0.0
    return Background(
        colour, first, second, *_rounded(random.uniform(0, 2 * np.pi), waves, random.uniform(0, 2 * np.pi))
    )


def draw(one: Scene, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The image of a scene."""
    boxes = [thing.box(height, width) for thing in one.things]
    for thing, (top, left, bottom, right) in zip(one.things, boxes, strict=True):
        if top < 0 or left < 0 or bottom > height or right > width:
            raise InvalidInputError(
                f"a {thing.name} of {thing.side:g} of the shorter side does not fit into {height}x{width} "
                "px; make it smaller"
            )
    if not all(apart(*two, 0.0) for two in combinations(boxes, 2)):
        raise InvalidInputError(
            f"{len(boxes)} things do not fit beside each other into {height}x{width} px; give fewer or "
            "smaller ones"
        )
    canvas = ground_pixels(one.background, height, width)
    for thing, box in zip(one.things, boxes, strict=True):
        canvas = with_thing(canvas, thing, box)
    return canvas


def inside(one: Scene, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Which pixels of a scene's image belong to its things."""
    return (draw(one, height, width) != ground_pixels(one.background, height, width)).any(-1)


def ground_pixels(ground: Background, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The background alone."""
    shorter = min(height, width)
    rows, columns = ((np.arange(side) + 0.5 - side / 2) / shorter for side in (height, width))
    along = rows[:, None] * np.sin(ground.angle) + columns * np.cos(ground.angle)
    if ground.waves:
        share = 0.5 + 0.5 * np.sin(2 * np.pi * ground.waves * along + ground.phase)
    else:
        share = (along - along.min()) / (along.max() - along.min())
    first, second = np.asarray(ground.first), np.asarray(ground.second)
    return (255 * (first + share[..., None] * (second - first)) + 0.5).astype(np.uint8)


def with_thing(
    canvas: UInt8[np.ndarray, "height width 3"], thing: Thing, box: Sequence[float]
) -> UInt8[np.ndarray, "height width 3"]:
    """An image with a thing drawn into a box (top, left, bottom, right), cut off at the border."""
    top, left, bottom, right = (round(value) for value in box)
    picture = sprite(thing.name, thing.design)
    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if thing.mirrored else picture
    picture = picture.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.LANCZOS)
    result = Image.fromarray(canvas)
    result.paste(picture, (left, top), picture)
    return np.asarray(result)


def sprite(name: str, design: str) -> Image.Image:
    """The RGBA image of a thing; InvalidInputError where there is none."""
    known = sprites.pictures()
    if (name, design) not in known:
        raise UnknownNameError("sprite", f"{name}, {design}", [f"{thing}, {style}" for thing, style in known])
    return known[name, design]


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
