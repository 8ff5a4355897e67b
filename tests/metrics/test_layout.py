"""Counts of things against what was asked for, and the repetition index: by hand, and monotone in planted
damage.
"""

import numpy as np
import pytest
import torch

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.layout import Detection, Detector, layout_values
from entropy_lib.metrics.registry import FINDINGS, METRICS
from entropy_lib.metrics.repetition import repetition_index
from entropy_lib.scenes import scenes
from training.quality import layout


def found(name="owl", box=(0.0, 0.0, 32.0, 32.0), visible=1.0, legible=1.0):
    return Detection(name, box, visible, legible, 0.9)


@pytest.mark.parametrize(
    ("things", "count", "expected"),
    [
        ([], 1, {"over_count": 0, "under_count": 1, "misnamed": 0, "illegible": 0, "covered": 0, "exact": 0}),
        ([found()], 1, {"over_count": 0, "under_count": 0, "completeness": 1, "covered": 0.25, "exact": 1}),
        ([found()] * 2, 1, {"things": 2, "over_count": 1, "under_count": 0, "covered": 0.25, "exact": 0}),
        ([found()] * 2, 2, {"over_count": 0, "under_count": 0, "exact": 1}),
        ([found("bus")], 1, {"over_count": 0, "under_count": 1, "misnamed": 1, "exact": 0}),
        ([found(), found(legible=0.2)], 1, {"things": 1, "over_count": 0, "illegible": 1, "exact": 1}),
        ([found(visible=0.4), found(visible=0.8)], 2, {"completeness": 0.6}),
        ([found(box=(-8.0, 48.0, 16.0, 80.0))], 1, {"covered": 16 * 16 / 64**2}),
    ],
)
def test_an_image_by_hand(things, count, expected):
    values = layout(things, "owl", count, 64, 64)
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_nothing_nameable_has_no_completeness():
    assert np.isnan(layout([found(legible=0.0)], "owl", 1, 64, 64)["completeness"])


def detector(findings):
    """Finds the same things in every image."""
    asked = {"an owl": ("owl", 1), "two buses": ("bus", 2)}
    return Detector("fixed", ["bus", "owl"], lambda pictures: [findings] * len(pictures), asked.get)


def test_rows_of_many_pictures_tell_what_each_picture_does():
    findings = [found(), found("bus", (32.0, 0.0, 64.0, 32.0), visible=0.5), found(legible=0.1)]
    own, pictures = detector(findings), np.zeros((2, 64, 64, 3), np.uint8)
    rows, asked = own.pictures(pictures), own.captions(["an owl", "two buses"])
    found_values = layout_values(rows, asked)
    for number, (name, count) in enumerate([("owl", 1), ("bus", 2)]):
        row = {value: numbers[number].item() for value, numbers in found_values.items()}
        assert row == pytest.approx(layout(findings, name, count, 64, 64))
    for name in ("over_count", "under_count", "completeness"):
        metric = METRICS[name.capitalize().replace("_", "-")]
        assert metric.features == FINDINGS
        assert torch.equal(metric.values(rows, ["an owl", "two buses"], own.captions), found_values[name])


def test_what_a_prompt_that_is_not_understood_asks_for_is_not_guessed():
    own = detector([found()])
    rows, asked = own.pictures(np.zeros((1, 64, 64, 3), np.uint8)), own.captions(["a cup of tea"])
    unknown = {name for name, values in layout_values(rows, asked).items() if values.isnan().all()}
    assert unknown == {"over_count", "under_count", "misnamed", "exact"}


def test_a_table_of_findings_has_a_row_a_thing():
    table = detector([found(), found("bus", visible=0.5)]).table(np.zeros((2, 64, 64, 3), np.uint8))
    assert list(table.picture) == [0, 0, 1, 1]
    assert list(table.name) == ["owl", "bus"] * 2
    assert list(table.loc[1, ["top", "left", "bottom", "right", "visible"]]) == [0, 0, 32, 32, 0.5]


def test_a_picture_without_likenesses_repeats_nothing():
    assert repetition_index(np.full((64, 64, 3), 99, np.uint8)) == 0


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8)), np.zeros((8, 8, 3)), np.zeros((2, 8, 8, 3), np.uint8), None]
)
def test_repetition_takes_pictures_only(image):
    with pytest.raises(InvalidInputError, match="uint8 image"):
        repetition_index(image)


def tiled(number: int, times: int) -> np.ndarray:
    scene = scenes.scene(number, "test")
    return np.tile(scenes.draw(scene, 96 // times, 96 // times), (times, times, 1))


def test_repetition_grows_with_tiling_and_tells_pairs_from_single_things():
    once, twice, thrice = (
        np.mean([repetition_index(tiled(number, times)) for number in range(12)]) for times in (1, 2, 3)
    )
    assert once < twice - 0.1
    assert once < thrice - 0.1
    kinds = {1: [], 2: []}
    for number in range(100, 140):
        scene = scenes.scene(number, "test")
        kinds[len(scene.things)].append(repetition_index(scenes.draw(scene, 64, 64)))
    wins = np.mean([one < two for one in kinds[1] for two in kinds[2]])
    assert wins > 0.8, "area under the curve, on scenes that the thresholds were not chosen on"


def test_repetition_does_not_depend_on_the_picture_size():
    scene = scenes.scene(4, "test")
    values = [repetition_index(scenes.draw(scene, side, side)) for side in (96, 128, 192)]
    assert np.ptp(values) < 0.15
