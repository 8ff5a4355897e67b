"""What is in a picture, against what was asked for: counts of things, from any detector's findings.

A thing that nobody could name is counted apart (`illegible`) and never as one of those asked for: only what can be counted is
counted. All values are of one picture, so means and their intervals over pictures are those of any other column.

A picture's findings are summed up in a row of numbers (`summary`) that does not depend on what was asked for, so that it can be
kept like features; `LAYOUT` reads the values from such rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from entropy_lib.errors import InvalidInputError

LEGIBLE = 0.5  # probability from which on a thing counts as nameable
EDGES = ("top", "left", "bottom", "right")
REST = 3  # numbers of a summary after those of the names


@dataclass(frozen=True)
class Detection:
    """One thing found in a picture.

    Attributes:
        name: the likeliest.
        box: top, left, bottom, right of what is visible, in pixels.
        visible: share of the whole thing that is seen, 0 to 1.
        legible: probability that a person could name it.
        score: how sure the detector is that something is there, 0 to 1.
    """

    name: str
    box: tuple[float, float, float, float]
    visible: float
    legible: float
    score: float


@dataclass(frozen=True, eq=False)
class Detector:
    """What finds things, and knows what a prompt asks for.

    Attributes:
        label: all that decides its findings, its weights included.
        names: that it can give.
        find: things in each of some uint8 pictures of one size.
        asked: name and count that a prompt asks for; None for a prompt that it does not understand.
        smallest: pixels a side of the smallest picture that it can look at.
    """

    label: str
    names: Sequence[str]
    find: Callable[[UInt8[np.ndarray, "image height width 3"]], Sequence[Sequence[Detection]]]
    asked: Callable[[str], tuple[str, int] | None]
    smallest: int = 1

    def summaries(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image value"]:
        """The findings in each picture, see `summary`."""
        size = pictures.shape[1:3]
        return torch.stack([summary(found, self.names, *size) for found in self.find(pictures)])

    def table(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> pd.DataFrame:
        """One row a thing: columns `picture` (its number), `name, top, left, bottom, right, visible, legible, score`."""
        rows = [
            {"picture": number, "name": one.name, **dict(zip(EDGES, one.box, strict=True))}
            | {"visible": one.visible, "legible": one.legible, "score": one.score}
            for number, found in enumerate(self.find(pictures))
            for one in found
        ]
        return pd.DataFrame(rows, columns=["picture", "name", *EDGES, "visible", "legible", "score"])

    def asked_for(self, prompts: Sequence[str]) -> Float[Tensor, "prompt 2"]:
        """Of each prompt the number of the name in `names` and the count; nan for one that is not understood."""
        known = [self.asked(prompt) for prompt in prompts]
        rows = [(self.names.index(one[0]), one[1]) if one else (torch.nan, torch.nan) for one in known]
        return torch.tensor(rows, dtype=torch.float32).view(-1, 2)


def summary(found: Sequence[Detection], names: Sequence[str], height: int, width: int) -> Float[Tensor, " value"]:
    """Nameable things of each name, illegible things, the sum of the nameable things' visible shares, and the covered share.

    Args:
        found: the things in one picture.
        names: that they can have.
        height, width: of the picture, in pixels.
    """
    nameable = [one for one in found if one.legible >= LEGIBLE]
    counts = [sum(one.name == name for one in nameable) for name in names]
    visible = sum(one.visible for one in nameable)
    return torch.tensor([*counts, len(found) - len(nameable), visible, covered(found, height, width)], dtype=torch.float32)


Rows = Float[Tensor, "image value"]
Asked = Float[Tensor, "image 2"]
Values = Float[Tensor, " image"]


def things(rows: Rows, asked: Asked) -> Values:
    """Nameable things of any name."""
    return rows[:, :-REST].sum(1)


def right(rows: Rows, asked: Asked) -> Values:
    """Things of the name that was asked for."""
    return rows.gather(1, asked[:, :1].nan_to_num().long())[:, 0]


def excess(rows: Rows, asked: Asked) -> Values:
    """Things beyond the count that was asked for."""
    return (things(rows, asked) - asked[:, 1]).clamp(min=0)


def missing(rows: Rows, asked: Asked) -> Values:
    """Things of the asked name that are not there."""
    return (asked[:, 1] - right(rows, asked)).clamp(min=0)


def misnamed(rows: Rows, asked: Asked) -> Values:
    """Nameable things of another name."""
    return understood(things(rows, asked) - right(rows, asked), asked)


def illegible(rows: Rows, asked: Asked) -> Values:
    """Things that nobody could name."""
    return rows[:, -3]


def completeness(rows: Rows, asked: Asked) -> Values:
    """Mean visible share of nameable things; nan where there is none."""
    return rows[:, -2] / things(rows, asked)


def covered_share(rows: Rows, asked: Asked) -> Values:
    """Share of the picture inside the boxes of all things."""
    return rows[:, -1]


def exact(rows: Rows, asked: Asked) -> Values:
    """1 where the nameable things are just those that were asked for, else 0."""
    return understood(((things(rows, asked) == asked[:, 1]) & (right(rows, asked) == asked[:, 1])).float(), asked)


def understood(values: Values, asked: Asked) -> Values:
    """The values, nan where the prompt was not understood."""
    return torch.where(asked[:, 1].isnan(), torch.nan, values)


LAYOUT: dict[str, Callable[[Rows, Asked], Values]] = {
    "things": things,
    "excess": excess,
    "missing": missing,
    "misnamed": misnamed,
    "illegible": illegible,
    "completeness": completeness,
    "covered": covered_share,
    "exact": exact,
}


def layout(found: Sequence[Detection], name: str, count: int, height: int, width: int) -> dict[str, float]:
    """Compare what was found in one picture with what was asked for.

    Args:
        found: the things in the picture.
        name: what was asked for.
        count: how many of it, at least 1.
        height, width: of the picture, in pixels.

    Returns:
        The values of `LAYOUT`, by name.

    Raises:
        InvalidInputError: for a count below 1 or a size that is not positive.

    Example:
        >>> owl = Detection("owl", (0, 0, 32, 32), visible=1.0, legible=0.9, score=0.8)
        >>> bus = Detection("bus", (32, 32, 64, 64), visible=0.5, legible=0.8, score=0.7)
        >>> values = layout([owl, bus], "owl", 1, 64, 64)
        >>> values["excess"], values["missing"], values["misnamed"], values["completeness"], values["covered"]
        (1.0, 0.0, 1.0, 0.75, 0.5)
    """
    if count < 1 or min(height, width) < 1:
        raise InvalidInputError(
            f"count is {count} and the size {height}x{width}; a prompt asks for at least 1 thing, of 1 px or more"
        )
    names = list(dict.fromkeys([name, *(one.name for one in found)]))
    rows, asked = summary(found, names, height, width)[None], torch.tensor([[0.0, count]])
    return {value: function(rows, asked).item() for value, function in LAYOUT.items()}


def covered(found: Sequence[Detection], height: int, width: int) -> float:
    """Share of the pixels of a picture that lie in any box."""
    inside = np.zeros((height, width), dtype=bool)
    for one in found:
        top, left, bottom, right = (max(0, round(value)) for value in one.box)
        inside[top:bottom, left:right] = True
    return float(inside.mean())
