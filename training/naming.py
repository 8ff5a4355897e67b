"""Can what `mini-dit` makes be named? Sixty images, labelled by looking at them without their prompts.

    python -m training.naming --draw          # numbered sheets to look at, in build/naming
    python -m training.naming --read FILE     # labels (number, seen) beside what was asked for, in named.csv

The labels are names of `scenes.SIMPLE`, or "?" where nothing can be named.
"""

import argparse
from pathlib import Path

import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import ROOT, replacing
from entropy_lib.models.catalogue import load
from entropy_lib.scenes import scenes
from training.card import shown
from training.gate import NAMED, generated, named
from training.labels import sheet
from training.mini_dit import MODEL

FIRST, COUNT = 5_000, 60  # of the test scenes: no metric table takes these
EACH = 30  # images of a sheet
SHEETS = ROOT / "build" / "naming"


def asked() -> pd.DataFrame:
    """What is drawn: columns `number, prompt, name`."""
    known = scenes.captions(scenes.SIMPLE)
    prompts = [scenes.scene(number, "test", scenes.SIMPLE).caption for number in range(FIRST, FIRST + COUNT)]
    return pd.DataFrame(
        {"number": range(COUNT), "prompt": prompts, "name": [known[prompt][0] for prompt in prompts]}
    )


def draw() -> None:
    """Write the sheets."""
    images = generated(load(str(MODEL)), asked().prompt.tolist())
    SHEETS.mkdir(parents=True, exist_ok=True)
    for start in range(0, COUNT, EACH):
        numbers = range(start, start + EACH)
        sheet(images[start : start + EACH], [str(number) for number in numbers]).save(
            SHEETS / f"{start // EACH}.png"
        )


def with_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """What was asked for beside what was seen.

    Raises:
        InvalidInputError: unless every image has one label, which is a name or "?".
    """
    table = asked().merge(labels[["number", "seen"]], on="number", how="left", validate="one_to_one")
    unknown = set(table.seen.unique()) - {*scenes.SIMPLE.names, "?"}
    if unknown:
        allowed = f"one of {', '.join(scenes.SIMPLE.names)} or ?"
        raise InvalidInputError(f"labels hold {unknown}; give {allowed} for each of the {COUNT} images")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="write the sheets")
    parser.add_argument("--read", type=Path, help="labels, as CSV")
    arguments = parser.parse_args()
    if arguments.draw:
        return draw()
    with replacing(NAMED) as temporary:
        with_labels(pd.read_csv(arguments.read)).to_csv(temporary, index=False)
    return print(shown(named()))


if __name__ == "__main__":
    main()
