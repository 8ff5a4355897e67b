"""The things that scenes are made of: emoji with transparency, cropped, in two designs.

Two designs with permissive licences (`data/README.md` has the attribution): Fluent 3D and Twemoji. A thing
belongs here when a person can name it at 24 px and when it differs at a glance from every other. The table is
made by `training/sprite_table.py`.
"""

import functools
import io
from pathlib import Path

import pandas as pd
from PIL import Image

from entropy_lib.files import DATA

PARQUET = DATA / "sprites" / "sprites.parquet"
LONGEST = 160  # pixels of the longer side of a cropped sprite
NAMES = (
    "apple", "banana", "strawberry", "pineapple", "carrot", "mushroom", "sunflower", "cactus", "doughnut",
    "hamburger", "pizza", "cupcake", "penguin", "owl", "frog", "butterfly", "octopus", "turtle", "whale",
    "fox", "panda", "chick", "bus", "car", "rocket", "sailboat", "guitar", "robot", "football", "balloon",
    "crown", "snowman",
)  # fmt: skip
DESIGNS = ("fluent", "twemoji")
# what people often cannot name in the small images that a model makes
HARD_TO_NAME = ("banana", "butterfly", "cactus", "guitar", "rocket", "sailboat", "turtle", "whale")


def load(path: Path = PARQUET) -> pd.DataFrame:
    """The committed table, one row a sprite: name, design, codepoint, licence, image (encoded, RGBA)."""
    return pd.read_parquet(path)


@functools.cache
def pictures() -> dict[tuple[str, str], Image.Image]:
    """The sprites as RGBA images by (name, design), cropped to what is visible, longer side 160 px."""
    table = load()
    keys = zip(table.name, table.design, strict=True)
    return {
        key: Image.open(io.BytesIO(data)).convert("RGBA") for key, data in zip(keys, table.image, strict=True)
    }
