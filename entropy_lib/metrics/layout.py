"""What is in a picture, against what was asked for: counts of things, from any detector's findings.

A thing that nobody could name is counted apart (`illegible`) and never as one of those asked for: only what can be counted is
counted. All values are of one picture, so means and their intervals over pictures are those of any other column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropy_lib.errors import InvalidInputError

LEGIBLE = 0.5  # probability from which on a thing counts as nameable


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


def layout(found: Sequence[Detection], name: str, count: int, height: int, width: int) -> dict[str, float]:
    """Compare what was found in one picture with what was asked for.

    Args:
        found: the things in the picture.
        name: what was asked for.
        count: how many of it, at least 1.
        height, width: of the picture, in pixels.

    Returns:
        things: nameable things of any name; excess: things beyond `count`; missing: things of the asked name that are not there;
        misnamed: nameable things of another name; illegible: things that nobody could name; completeness: mean visible share of
        nameable things (nan where there is none); covered: share of the picture inside the boxes of all things; exact: 1.0 where
        the nameable things are just those that were asked for, else 0.0.

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
    nameable = [one for one in found if one.legible >= LEGIBLE]
    right = sum(one.name == name for one in nameable)
    return {
        "things": float(len(nameable)),
        "excess": float(max(len(nameable) - count, 0)),
        "missing": float(max(count - right, 0)),
        "misnamed": float(len(nameable) - right),
        "illegible": float(len(found) - len(nameable)),
        "completeness": float(np.mean([one.visible for one in nameable])) if nameable else float("nan"),
        "covered": covered(found, height, width),
        "exact": float(len(nameable) == right == count),
    }


def covered(found: Sequence[Detection], height: int, width: int) -> float:
    """Share of the pixels of a picture that lie in any box."""
    inside = np.zeros((height, width), dtype=bool)
    for one in found:
        top, left, bottom, right = (max(0, round(value)) for value in one.box)
        inside[top:bottom, left:right] = True
    return float(inside.mean())
