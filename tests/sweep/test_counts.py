"""Counting things: each image under its own prompt, images of native size once."""

import numpy as np
import pytest

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.layout import Detection, Detector
from entropy_lib.metrics.registry import FINDINGS
from entropy_lib.sweep.comparison import Comparison
from entropy_lib.sweep.reduce import things_found
from entropy_lib.sweep.plan import Plan, Settings
from entropy_lib.sweep.store import Store

SETTINGS = Settings("mini", "1234", "own", 2, 2.0, "float32", (64, 64))
PROMPTS = ["an owl", "two owls", "a bus"]


@pytest.fixture
def comparison(tmp_path):
    """Images of one grey level each, which says how many things the detector finds, and whether they can be
    named.
    """
    plan, store = (
        Plan.of(SETTINGS, PROMPTS, [0, 1], [(32, 32), (64, 64)], ["unscaled", "paper"]),
        Store(tmp_path),
    )
    for number, unit in enumerate(plan.units):
        store.commit(unit, np.full((unit.height, unit.width, 3), number, np.uint8))

    def find(images):
        return [
            [Detection("owl", (0, 0, 8, 8), 1, 0.9 - 0.8 * (index == 4), 1) for index in range(p.max())]
            for p in images
        ]

    detector = Detector("levels", ["owl", "bus"], find, lambda prompt: ("owl", 2 if "two" in prompt else 1))
    return Comparison(plan, store, {FINDINGS: FeatureCache(tmp_path / "features", detector)})


def test_things_are_counted_image_by_image(comparison):
    table = things_found(comparison)
    assert list(table.columns) == ["size", "method", "prompt", "seed", "asked", "things"]
    units = comparison.plan.units
    assert list(zip(table["size"], table.method, table.prompt, table.seed, strict=True)) == [
        (unit.size, unit.method, unit.prompt, unit.seed) for unit in units
    ]
    assert list(table.things) == [number if number < 5 else number - 1 for number in range(len(units))], (
        "the fifth is illegible"
    )
    assert list(table.asked) == [2 if unit.prompt == "two owls" else 1 for unit in units]
    assert set(table.method[table["size"] == "64x64"]) == {"unscaled"}


def test_an_image_that_was_excluded_is_left_out(comparison):
    gone = comparison.plan.units[3]
    comparison.store.exclude(gone, "not finite")
    assert len(things_found(comparison)) == len(comparison.plan.units) - 1


def test_without_a_detector_there_is_one_clear_error(comparison):
    with pytest.raises(InvalidInputError, match="no detector looks at this comparison"):
        things_found(Comparison(comparison.plan, comparison.store, {}))
