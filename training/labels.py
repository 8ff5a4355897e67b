"""Images that the embedded model drew, labelled by looking at them, and how far the detector agrees.

    python -m training.labels --draw           # draw them, write sheets to look at into build/labels
    python -m training.labels --read FILE      # put labels beside the images (number, pass, things …)

Things that a person can name are counted, and apart from them what is there and cannot be named; twice, the
second time in another order and without the first labels. `acceptance` compares them with the detector's.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.metrics.layout import Detector
from entropy_lib.metrics.picture_files import read_picture
from entropy_lib.models.catalogue import load, sampling_defaults
from entropy_lib.sampling.generation import generate
from entropy_lib.scenes import scenes
from entropy_lib.statistics.interval import Interval
from training.card import share

PARQUET = DATA / "detector" / "labelled.parquet"
SHEETS = ROOT / "build" / "labels"
SIDES = (32, 48, 64, 96, 128)
EACH = 42  # images of a size
FIRST = 5_000  # of the test scenes whose captions are drawn: no metric table takes these
COLUMNS, TILE = 7, 140  # of a sheet: images beside each other, pixels of each
LABELS = ("things", "illegible")
PASSES = (1, 2)


def draw() -> pd.DataFrame:
    """The images: columns `number, prompt, seed, side, image` (lossless WebP)."""
    pipe, rows = load("mini"), []
    steps, guidance = sampling_defaults(pipe)
    for place, side in enumerate(SIDES):
        numbers = range(FIRST + place * EACH, FIRST + (place + 1) * EACH)
        prompts = [scenes.scene(number, "test").caption for number in numbers]
        images = generate(
            pipe,
            prompts,
            list(numbers),
            (side, side),
            steps=steps,
            guidance=guidance,
            batch=14,
            progress=True,
        )
        for number, prompt, image in zip(numbers, prompts, images, strict=True):
            rows.append(
                {"number": number, "prompt": prompt, "seed": number, "side": side, "image": encoded(image)}
            )
    return pd.DataFrame(rows)


def encoded(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """An image as a file, without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="WEBP", lossless=True)
    return file.getvalue()


def decoded(table: pd.DataFrame) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The images of a table."""
    return [read_picture(image) for image in table.image]


def sheet(images: Sequence[np.ndarray], names: Sequence[str]) -> Image.Image:
    """Numbered images in rows, all enlarged to one side."""
    rows = -(-len(images) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * (TILE + 6), rows * (TILE + 20)), "white")
    pen = ImageDraw.Draw(whole)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        row, column = divmod(index, COLUMNS)
        left, top = column * (TILE + 6), row * (TILE + 20)
        pen.text((left + 2, top + 3), name, fill="black")
        whole.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, top + 16))
    return whole


def write_sheets(table: pd.DataFrame, folder: Path = SHEETS) -> None:
    """Sheets of one size each for the first pass, of all sizes mixed for the second."""
    folder.mkdir(parents=True, exist_ok=True)
    mixed = table.sample(frac=1, random_state=2).reset_index(drop=True)
    for number, order in zip(PASSES, (table, mixed), strict=True):
        for start in range(0, len(order), EACH):
            part = order.iloc[start : start + EACH]
            sheet(decoded(part), [str(one) for one in part.number]).save(
                folder / f"pass{number}_{start // EACH}.png"
            )


def with_labels(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The images with their labels in columns `things_1, illegible_1, things_2, illegible_2`.

    Args:
        table: of `draw`.
        labels: columns `number, pass, things, illegible`.
    """
    wide = labels.pivot(index="number", columns="pass", values=list(LABELS))
    wide.columns = [f"{name}_{number}" for name, number in wide.columns]
    return table.drop(columns=[name for name in wide if name in table]).merge(
        wide, on="number", validate="one_to_one"
    )


def agreement(detector: Detector, table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How often both passes agree with each other, and the detector with the first.

    Returns:
        {what: share, low, high, count}: on nameable things, on all things (nameable or not), and on nameable
        things in images in which every thing could be named; `mean difference`: the detector's count of all
        things less the label's.
    """
    summaries = [detector.pictures(image[None])[0].tolist() for image in decoded(table)]
    named = np.array([sum(row[: len(detector.names)]) for row in summaries])
    found = named + np.array([row[len(detector.names)] for row in summaries])
    things = {number: table[f"things_{number}"].to_numpy() for number in PASSES}
    every = {number: things[number] + table[f"illegible_{number}"].to_numpy() for number in PASSES}
    clear = (table[[f"illegible_{number}" for number in PASSES]] == 0).all(axis=1).to_numpy()
    difference = found - every[1]
    within = Interval.around(
        difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5, 0.95, len(difference)
    )
    return {
        "both passes, nameable things": share(things[1] == things[2]),
        "both passes, all things": share(every[1] == every[2]),
        "detector, nameable things": share(named == things[1]),
        "detector, all things": share(found == every[1]),
        "detector, all things, within one": share(np.abs(difference) <= 1),
        "detector, nameable things, where all could be named": share((named == things[1])[clear]),
        "mean difference": within.columns() | {"count": len(table)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw the images anew and write sheets")
    parser.add_argument("--read", type=Path, help="labels, as CSV")
    arguments = parser.parse_args()
    table = draw() if arguments.draw else pd.read_parquet(PARQUET)
    if arguments.read:
        table = with_labels(table, pd.read_csv(arguments.read))
    with replacing(PARQUET) as temporary:
        table.to_parquet(temporary, compression="zstd")
    write_sheets(table)


if __name__ == "__main__":
    main()
