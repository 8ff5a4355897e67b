"""What is in an image, against what was asked for: counts of things, from any detector's findings.

A thing that nobody could name is counted apart (`illegible`) and never as one of those asked for: only what
can be counted is counted. All values are of one image, so means and their intervals over images are those of
any other column.

An image's findings are summed up in a row of numbers (`summary`) that does not depend on what was asked for,
so that it can be kept like features; `layout_values` reads the values from such rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

LEGIBLE = 0.5  # probability from which on a thing counts as nameable
EDGES = ("top", "left", "bottom", "right")
REST = 3  # numbers of a summary after those of the names


@dataclass(frozen=True)
class Detection:
    """One thing found in an image."""

    name: str  # the likeliest
    box: tuple[float, float, float, float]  # top, left, bottom, right of what is visible, in pixels
    visible: float  # share of the whole thing that is seen, 0 to 1
    legible: float  # probability that a person could name it
    score: float  # how sure the detector is that something is there, 0 to 1


@dataclass(frozen=True, eq=False)
class Detector:
    """What finds things, and knows what a prompt asks for."""

    name: ClassVar[str] = "findings"
    label: str  # all that decides its findings, its weights included
    names: Sequence[str]  # that it can give
    # things in each of some uint8 images of one size
    find: Callable[[UInt8[np.ndarray, "image height width 3"]], Sequence[Sequence[Detection]]]
    # name and count that a prompt asks for; None for a prompt that it does not understand
    asked: Callable[[str], tuple[str, int] | None]
    smallest: int = 1  # pixels a side of the smallest image that it can look at

    def pictures(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image value"]:
        """The findings in each image, see `summary`."""
        size = pictures.shape[1:3]
        return torch.stack([summary(found, self.names, *size) for found in self.find(pictures)])

    def table(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> pd.DataFrame:
        """One row a thing: `picture` (its number), `name`, `EDGES`, `visible, legible, score`."""
        rows = [
            {"picture": number, "name": one.name, **dict(zip(EDGES, one.box, strict=True))}
            | {"visible": one.visible, "legible": one.legible, "score": one.score}
            for number, found in enumerate(self.find(pictures))
            for one in found
        ]
        return pd.DataFrame(rows, columns=["picture", "name", *EDGES, "visible", "legible", "score"])

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "caption 2"]:
        """Of each caption the name's number in `names` and the count; nan where not understood."""
        known = [self.asked(caption) for caption in captions]
        rows = [(self.names.index(one[0]), one[1]) if one else (torch.nan, torch.nan) for one in known]
        return torch.tensor(rows, dtype=torch.float32).view(-1, 2)


def summary(
    found: Sequence[Detection], names: Sequence[str], height: int, width: int
) -> Float[Tensor, " value"]:
    """Nameable things of each name, illegible ones, the sum of visible shares, the covered share."""
    nameable = [one for one in found if one.legible >= LEGIBLE]
    counts = [sum(one.name == name for one in nameable) for name in names]
    visible = sum(one.visible for one in nameable)
    return torch.tensor(
        [*counts, len(found) - len(nameable), visible, covered(found, height, width)], dtype=torch.float32
    )


def layout_values(
    rows: Float[Tensor, "image value"], asked: Float[Tensor, "image 2"]
) -> dict[str, Float[Tensor, " image"]]:
    """What was found in each image against what was asked for; nan for a prompt that was not understood."""
    name, count = asked[:, :1].nan_to_num().long(), asked[:, 1]
    # nameable; those of them of the asked name
    things, right = rows[:, :-REST].sum(1), rows.gather(1, name)[:, 0]
    exact = ((things == count) & (right == count)).float()
    return {
        "things": things,
        "over_count": (things - count).clamp(min=0),  # beyond the count that was asked for
        "under_count": (count - right).clamp(min=0),
        "misnamed": torch.where(count.isnan(), torch.nan, things - right),
        "illegible": rows[:, -3],
        "completeness": rows[:, -2] / things,  # mean visible share; nan where nothing is nameable
        "covered": rows[:, -1],  # share of the image inside the boxes of all things
        "exact": torch.where(count.isnan(), torch.nan, exact),  # just what was asked for, and nothing else
    }


def covered(found: Sequence[Detection], height: int, width: int) -> float:
    """Share of the pixels of an image that lie in any box."""
    inside = np.zeros((height, width), dtype=bool)
    for one in found:
        top, left, bottom, right = (max(0, round(value)) for value in one.box)
        inside[top:bottom, left:right] = True
    return float(inside.mean())
