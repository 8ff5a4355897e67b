"""How far the detector can be trusted: on scenes it has not seen, on damaged ones, and on damage planted step
by step.

python -m training.acceptance     # measure data/detector, write its quality.json
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from entropy_lib.errors import extra
from entropy_lib.metrics.layout import LEGIBLE, Detection
from entropy_lib.scenes import detection, scenes
from training import damaged, labels
from training.card import share, shown, write_measured
from training.quality import layout

with extra("metrics"):
    from torchvision.ops import box_iou

Harm = Callable[[scenes.Scene, float], np.ndarray]  # a scene and how much of it: the image
COUNT = 500
SIDES = (32, 48, 64, 96, 128, 192)
FIRST_DAMAGED = 10_000_000  # training never comes so far
MATCHED = 0.5  # intersection over union of a found and a true box that are one thing
VISIBLE_WITHIN = 0.1


def whole_scenes(model: detection.DetectorNetwork, count: int = COUNT) -> pd.DataFrame:
    """One row a test scene, sizes in turn: were count, names and (all whole here) visible shares right?"""
    rows = []
    for number in range(count):
        side = SIDES[number % len(SIDES)]
        scene = scenes.scene(number, "test")
        [found] = detection.find(model, scenes.draw(scene, side, side)[None])
        values = layout(found, scene.things[0].name, len(scene.things), side, side)
        counted = float(values["things"] == len(scene.things) and values["illegible"] == 0)
        whole = all(one.visible >= 1 - VISIBLE_WITHIN for one in found)
        named = float(values["misnamed"] == 0 and values["things"] > 0)
        rows.append({"side": side, "count": counted, "name": named, "visible": float(whole)})
    return pd.DataFrame(rows)


def pairs(found: Sequence[Detection], seen: Sequence[damaged.Seen]) -> list[tuple[Detection, damaged.Seen]]:
    """Found and true things that are one, by their boxes; each at most once, the best overlap first."""
    if not found or not seen:
        return []
    overlap = box_iou(
        torch.tensor([one.box for one in found]), torch.tensor([one.box for one in seen])
    ).numpy()
    matched = []
    while overlap.max() >= MATCHED:
        one, other = np.unravel_index(overlap.argmax(), overlap.shape)
        matched.append((found[one], seen[other]))
        overlap[one], overlap[:, other] = -1, -1
    return matched


def damaged_scenes(model: detection.DetectorNetwork, count: int = COUNT) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row an image (things found, true) and one row a matched thing (name, visible share and legibility
    right?).
    """
    pictures, things = [], []
    for number in range(FIRST_DAMAGED, FIRST_DAMAGED + count):
        side = SIDES[number % len(SIDES)]
        image, seen = damaged.damaged(number, side, side)
        [found] = detection.find(model, image[None])
        matched = pairs(found, seen)
        pictures.append({"side": side, "found": len(found), "true": len(seen), "matched": len(matched)})
        for one, truth in matched:
            right = float(one.name == truth.name) if truth.legible else np.nan
            within = float(abs(one.visible - truth.visible) <= VISIBLE_WITHIN)
            things.append(
                {
                    "name": right,
                    "visible": within,
                    "legible": float((one.legible >= LEGIBLE) == truth.legible),
                }
            )
    return pd.DataFrame(pictures), pd.DataFrame(things)


def planted(
    model: detection.DetectorNetwork,
    harm: Callable[[scenes.Scene, float], np.ndarray],
    amounts: Sequence[float],
    count: int = 60,
) -> pd.DataFrame:
    """Mean findings on scenes of one thing that are harmed more and more."""
    chosen = [
        one for one in (scenes.scene(number, "test") for number in range(4 * count)) if len(one.things) == 1
    ][:count]
    rows = []
    for amount in amounts:
        found = detection.find(model, np.stack([harm(one, amount) for one in chosen]))
        values = [
            layout(things, one.things[0].name, 1, 64, 64) for things, one in zip(found, chosen, strict=True)
        ]
        rows.append({"amount": amount} | pd.DataFrame(values).mean().to_dict())
    return pd.DataFrame(rows)


def copied(one: scenes.Scene, amount: float) -> np.ndarray:
    """The thing pasted again, smaller, `amount` times, where there is room."""
    thing = one.things[0]
    places = [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)][: int(amount)]
    small = [scenes.Thing(thing.name, thing.design, 0.28, *place, thing.mirrored) for place in places]
    alone = scenes.Thing(thing.name, thing.design, 0.36, 0.5, 0.5, thing.mirrored)
    canvas = scenes.Scene(one.caption, (alone, *small), one.background)
    return scenes.draw(canvas, 96, 96)


def tiled(one: scenes.Scene, amount: float) -> np.ndarray:
    """The image repeated `amount` times in both directions."""
    times = int(amount)
    return np.tile(scenes.draw(one, 96 // times, 96 // times), (times, times, 1))


def cut(one: scenes.Scene, amount: float) -> np.ndarray:
    """The thing moved out of the frame to the left until `amount` of its width is outside."""
    thing = one.things[0]
    canvas = scenes.draw(scenes.Scene("", (), one.background), 64, 64)
    top, left, bottom, right = thing.box(64, 64)
    return scenes.with_thing(
        canvas, thing, (top, -amount * (right - left), bottom, (1 - amount) * (right - left))
    )


def dissolved(one: scenes.Scene, amount: float) -> np.ndarray:
    """The thing blended into the background by `amount`."""
    whole, bare = scenes.draw(one, 64, 64), scenes.draw(scenes.Scene("", (), one.background), 64, 64)
    return (whole + amount * (bare.astype(float) - whole) + 0.5).astype(np.uint8)


PLANTED = {
    "copies pasted": (copied, (0, 1, 2, 4)),
    "tiled": (tiled, (1, 2, 3)),
    "cut off": (cut, (0.0, 0.2, 0.4, 0.6)),
    "dissolved": (dissolved, (0.0, 0.5, 0.8, 0.95)),
}


def measure(model: detection.DetectorNetwork, count: int = COUNT) -> dict:
    """Everything, as a dictionary of shares with intervals and tables of planted damage."""
    whole, (pictures, things) = whole_scenes(model, count), damaged_scenes(model, count)
    return labelled() | {
        "scenes": {name: share(whole[name]) for name in ("count", "name", "visible")},
        "damaged": {
            "count": share(pictures.found == pictures.true),
            "found again": share(
                np.repeat([1.0, 0.0], [pictures.matched.sum(), (pictures.true - pictures.matched).sum()])
            ),
            **{name: share(things[name].dropna()) for name in ("name", "visible", "legible")},
        },
        "planted": {name: planted(model, *how).round(3).to_dict("records") for name, how in PLANTED.items()},
    }


def labelled() -> dict:
    """How far the shipped detector agrees with labels of generated images, where there are labels."""
    table = pd.read_parquet(labels.PARQUET) if labels.PARQUET.exists() else pd.DataFrame()
    return {"drawn by mini": labels.agreement(detection.detector(), table)} if "things_2" in table else {}


def card_tables(report: dict) -> str:
    """The measured part of the card, in Markdown."""
    rows = [
        {"on": where, "right": what, "share": shown(value, 1), "of": int(value["count"])}
        for where, values in report.items()
        for what, value in values.items()
        if "share" in value
    ]
    parts = [pd.DataFrame(rows).to_markdown(index=False)]
    if "drawn by mini" in report:
        less = report["drawn by mini"]["mean difference"]
        interval = f"{less['estimate']:+.3f} [{less['low']:.3f}, {less['high']:.3f}]"
        parts.append(
            "In images that `mini` generated, all things that the detector finds less those of the label: "
            f"{interval}."
        )
    for name, found in report["planted"].items():
        parts.append(f"Planted: {name}, by amount.\n\n{pd.DataFrame(found).to_markdown(index=False)}")
    return "95 % Wilson intervals.\n\n" + "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    report = measure(detection.load(), parser.parse_args().count)
    write_measured(detection.MODEL, report, card_tables(report))
    print(card_tables(report))


if __name__ == "__main__":
    main()
