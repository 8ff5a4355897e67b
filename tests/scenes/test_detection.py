"""The detector: it learns, finds what its targets say, refuses what it cannot see; the damage that it is
accepted by is real.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.metrics.layout import Detection, Detector
from entropy_lib.scenes import detection, scenes, sprites
from entropy_lib.sweep.comparison import open_comparison
from entropy_lib.sweep.plan import Plan, Settings
from training import acceptance, damaged, labels
from training import detection as detection_training

pytestmark = pytest.mark.slow


def test_targets_put_one_peak_on_each_thing():
    _, seen = damaged.damaged(0, 64, 64)
    wanted = detection_training.targets([seen, []], 16, 16)
    assert (wanted["heat"] == 1).sum() == len({tuple(place) for place in wanted["where"].tolist()})
    for (_, row, column), one in zip(wanted["where"].tolist(), seen, strict=True):
        top, left, bottom, right = one.box
        assert top <= detection.STRIDE * (row + 0.5) <= bottom
        assert left <= detection.STRIDE * (column + 0.5) <= right
    assert wanted["heat"][1].max() == 0


def test_a_detector_that_gives_the_targets_finds_the_truth():
    thing = damaged.Seen("owl", "fluent", (8.0, 12.0, 40.0, 36.0), 0.75, True)
    wanted = detection_training.targets([[thing]], 16, 16)
    output = {name: torch.full((size, 16, 16), -6.0) for name, size in detection.OUTPUTS.items()}
    [[_, row, column]] = wanted["where"].tolist()
    output["centre"][0] = torch.logit(wanted["heat"][0].clamp(1e-4, 1 - 1e-4))
    output["box"][:, row, column] = wanted["box"][0]
    output["visible"][0, row, column] = torch.logit(torch.tensor(0.75))
    output["legible"][0, row, column] = 5.0
    output["name"][sprites.NAMES.index("owl"), row, column] = 5.0
    [found] = detection.in_image(output)
    assert found.name == "owl"
    assert found.box == pytest.approx(thing.box, abs=0.01)
    assert found.visible == pytest.approx(0.75, abs=1e-4)


def test_focal_loss_is_least_where_the_centres_are_right():
    heat = detection_training.targets(
        [[damaged.Seen("owl", "fluent", (8.0, 8.0, 40.0, 40.0), 1.0, True)]], 16, 16
    )["heat"]
    right = detection_training.focal_loss(torch.where(heat == 1, 8.0, -8.0), heat)
    assert right < 0.01 < detection_training.focal_loss(torch.full_like(heat, -8.0), heat)
    assert right < detection_training.focal_loss(torch.where(heat == 1, 8.0, 8.0), heat)


def test_the_detector_learns(losses, monkeypatch):
    monkeypatch.setattr(detection_training, "PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(
        detection_training, "batch", lambda step, original=detection_training.batch: original(4)
    )
    _, curve = losses(detection_training, 4, 20, None)
    assert curve.centre[-5:].mean() < 0.8 * curve.centre[:5].mean()
    assert curve.name[-5:].mean() < curve.name[:5].mean()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 64, 3), np.uint8), "needs 24 px a side"),
        (np.zeros((64, 64, 3), np.uint8), "must be uint8 images"),
        (np.zeros((1, 64, 64, 3), np.float32), "float32"),
        ([1, 2], "list"),
    ],
)
def test_the_detector_refuses_what_it_cannot_see(images, message):
    with pytest.raises(InvalidInputError, match=message):
        detection.find(detection.DetectorNetwork().eval(), images)


def test_a_detector_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match=r"no detector in .*training\.detection"):
        detection.load(tmp_path)


def test_found_and_true_things_are_paired_once():
    found = [Detection("owl", (0, 0, 10, 10), 1, 1, 1), Detection("owl", (1, 1, 10, 10), 1, 1, 1)]
    seen = [damaged.Seen("owl", "fluent", (0, 0, 10, 10), 1, True)]
    assert acceptance.pairs(found, seen) == [(found[0], seen[0])]
    assert acceptance.pairs([], seen) == []


@pytest.mark.parametrize(("harm", "amounts"), acceptance.PLANTED.values(), ids=acceptance.PLANTED)
def test_damage_is_planted(harm, amounts):
    scene = next(one for one in (scenes.scene(number, "test") for number in range(9)) if len(one.things) == 1)
    assert np.abs(harm(scene, amounts[0]).astype(int) - harm(scene, amounts[-1])).mean() > 2


def labelled(things):
    """Three images with labels of two passes."""
    table = pd.DataFrame(
        {
            "number": [7, 8, 9],
            "image": [labels.encoded(np.full((32, 32, 3), grey, np.uint8)) for grey in (0, 90, 200)],
        }
    )
    rows = [
        (number, which, count, 0)
        for which in (1, 2)
        for number, count in zip(table.number, things[which - 1], strict=True)
    ]
    return labels.with_labels(table, pd.DataFrame(rows, columns=["number", "pass", "things", "illegible"]))


def test_labels_are_put_beside_their_pictures_and_replace_older_ones():
    table = labelled([[1, 0, 2], [1, 1, 2]])
    assert list(table.things_1) == [1, 0, 2]
    assert list(table.things_2) == [1, 1, 2]
    again = labels.with_labels(
        table, pd.DataFrame({"number": [7, 8, 9], "pass": 1, "things": 5, "illegible": 0})
    )
    assert list(again.things_1) == [5, 5, 5]
    assert [picture[0, 0, 0] for picture in labels.decoded(table)] == [0, 90, 200], "without loss"


def test_agreement_is_on_counts_also_of_things_that_a_person_cannot_name():
    def find(pictures):  # one thing in what is not black, two in what is bright
        return [[Detection("owl", (0, 0, 9, 9), 1, 1, 1)] * int(picture.mean() // 80) for picture in pictures]

    detector = Detector("bright", ["owl"], find, lambda prompt: ("owl", 1))
    found = labels.agreement(detector, labelled([[0, 0, 2], [0, 1, 2]]))
    shares = {what: value["share"] for what, value in found.items() if "share" in value}
    assert shares.pop("detector, all things, within one") == 1
    assert list(shares.values()) == pytest.approx([2 / 3] * len(shares))
    assert found["mean difference"]["estimate"] == pytest.approx(1 / 3)
    unnamed = labelled([[0, 0, 0], [0, 0, 0]]).assign(illegible_1=[0, 1, 2], illegible_2=[0, 1, 2])
    found = labels.agreement(detector, unnamed)
    assert found["detector, nameable things"]["share"] == pytest.approx(1 / 3)
    assert found["detector, all things"]["share"] == 1
    assert found["detector, nameable things, where all could be named"]["count"] == 1


def test_sheets_hold_every_picture_twice(tmp_path):
    table = labelled([[1, 1, 1], [1, 1, 1]])
    labels.write_sheets(table, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pass1_0.png", "pass2_0.png"]
    first, second = (np.asarray(Image.open(tmp_path / f"pass{number}_0.png")) for number in (1, 2))
    assert first.shape == second.shape
    assert (first != second).any(), "in another order"


@pytest.mark.parametrize(
    ("prompts", "size", "detected"),
    [
        (["an owl", "a bus", "two frogs"], (32, 32), True),
        (["an owl", "a bus", "a dream"], (32, 32), False),
        (["an owl", "a bus", "a car"], (16, 32), False),
    ],
)
def test_the_detector_is_asked_where_it_understands_every_prompt_and_sees_every_size(
    prompts, size, detected, tmp_path
):
    plan = Plan.of(
        Settings("mini", "1", "own", 2, 2.0, "float32", (64, 64)), prompts, [0], [size], ["unscaled"]
    )
    assert ("findings" in open_comparison(plan, tmp_path, metrics=["Over-count"]).caches) == detected
