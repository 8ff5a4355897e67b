"""The measured part of a model's card: numbers in `quality.json`, the same in words between two marks of its
README.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from entropy_lib.files import replacing
from entropy_lib.models.checksums import MEASURED
from entropy_lib.statistics.interval import wilson

MARKS = ("<!-- measured -->", "<!-- end of measured -->")


def share(hits: Sequence[float]) -> dict[str, float]:
    """Share of hits with its 95 % Wilson interval."""
    return {**wilson(int(sum(hits)), len(hits)).columns("share"), "count": len(hits)}


def shown(value: dict[str, float], digits: int = 0) -> str:
    """A share in words.

    Example:
        >>> shown({"share": 0.5, "low": 0.4, "high": 0.6})
        '50 % [40, 60]'
    """
    low, high = (f"{100 * value[name]:.{digits}f}" for name in ("low", "high"))
    return f"{100 * value['share']:.{digits}f} % [{low}, {high}]"


def write_measured(folder: Path, report: dict, tables: str) -> None:
    """Write what was measured beside a model, and its tables (Markdown) into the card."""
    with replacing(folder / MEASURED) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    card = folder / "README.md"
    before, _, rest = card.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    with replacing(card) as temporary:
        temporary.write_text(f"{before}{MARKS[0]}\n\n{tables}\n{MARKS[1]}{after}", encoding="utf-8")
