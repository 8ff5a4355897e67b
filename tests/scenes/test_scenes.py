"""Scenes, their sprites, and the damaged images that the detector learns from: what the truth says is what
is drawn.
"""

import itertools

import numpy as np
import pytest
from PIL import Image

from entropy_lib.errors import InvalidInputError
from entropy_lib.scenes import scenes, sprites
from training import damaged, sprite_table

NUMBERS = range(60)


def test_the_table_of_sprites_holds_what_its_card_says():
    table = sprites.load()
    assert list(table.columns) == ["name", "design", "codepoint", "licence", "image"]
    assert 32 <= table.name.nunique() <= 64
    assert set(zip(table.name, table.design, strict=True)) == set(
        itertools.product(sprites.NAMES, sprites.DESIGNS)
    )
    licences = {design: source.licence for design, source in sprite_table.SOURCES.items()}
    assert (table.licence == table.design.map(licences)).all()
    for picture in sprites.pictures().values():
        assert picture.mode == "RGBA"
        assert max(picture.size) == sprites.LONGEST >= 128
        assert picture.getchannel("A").getextrema() == (0, 255)
    assert sprite_table.same(table, table)
    assert not sprite_table.same(table, table.iloc[::-1].reset_index(drop=True))


def test_cropping_keeps_the_visible_part_and_its_proportions():
    picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    picture.paste((200, 10, 10, 255), (40, 100, 200, 180))
    encoded = sprite_table.cropped(picture)
    assert sprite_table.decoded("x.webp", encoded).size == (sprites.LONGEST, sprites.LONGEST // 2)


def test_no_two_scenes_are_alike_and_test_scenes_are_not_those_of_training():
    pictures = [
        scenes.draw(scenes.scene(number, split), 64, 64).tobytes()
        for split in scenes.SPLITS
        for number in NUMBERS
    ]
    assert len(set(pictures)) == len(pictures)


def test_scenes_are_what_they_are_said_to_be():
    drawn = [scenes.scene(number) for number in range(1000)]
    single = [scene.things[0].side for scene in drawn if len(scene.things) == 1]
    pairs = [scene.things for scene in drawn if len(scene.things) == 2]
    assert len(single) + len(pairs) == len(drawn)
    assert len(pairs) / len(drawn) == pytest.approx(scenes.PAIR_SHARE, abs=0.05)
    assert scenes.SINGLE[0] <= min(single) <= max(single) <= scenes.SINGLE[1]
    for one, other in pairs:
        assert (one.name, one.design, one.mirrored) == (other.name, other.design, other.mirrored)
        assert scenes.apart(one.box(1, 1), other.box(1, 1))
    named = np.mean([scene.background.colour in scene.caption for scene in drawn])
    styled = np.mean(["style" in scene.caption for scene in drawn])
    assert (named, styled) == (pytest.approx(0.8, abs=0.05), pytest.approx(0.75, abs=0.05))
    assert {scene.background.colour for scene in drawn} == set(scenes.COLOURS)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 64), (192, 192)])
def test_things_stand_where_the_truth_says_at_every_size(size):
    for number in NUMBERS:
        scene = scenes.scene(number)
        with_things = scenes.draw(scene, *size).astype(int)
        rows, columns = np.nonzero(
            np.abs(with_things - scenes.ground_pixels(scene.background, *size)).max(-1) > 12
        )
        assert scenes.inside(scene, *size)[rows, columns].all()
        boxes = [thing.box(*size) for thing in scene.things]
        top, left = (min(box[axis] for box in boxes) for axis in (0, 1))
        bottom, right = (max(box[axis] for box in boxes) for axis in (2, 3))
        assert (rows.min() >= top - 1.5) & (columns.min() >= left - 1.5)
        assert (rows.max() <= bottom + 1.5) & (columns.max() <= right + 1.5)
        assert (rows.max() - rows.min()) > 0.6 * (bottom - top), "and fill most of it"


def test_the_same_scene_at_twice_the_size_is_the_same_picture():
    for number in NUMBERS:
        scene = scenes.scene(number)
        small, large = scenes.draw(scene, 64, 64), scenes.draw(scene, 128, 128)
        reduced = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX))
        assert np.abs(reduced.astype(int) - small).mean() < 8, (
            "things stand on whole pixels, so edges may differ by half of one"
        )


def test_captions_are_as_people_write():
    assert scenes.caption("octopus", 2, "orange") == "two octopuses on an orange background"
    assert scenes.caption("snowman", design="twemoji") == "a snowman, twemoji style"
    assert scenes.caption("apple") == "an apple"


def test_bad_scenes_are_refused():
    ground = scenes.scene(0).background
    wide = scenes.Scene("", (scenes.Thing("bus", "fluent", 1.2, 0.5, 0.5),), ground)
    with pytest.raises(InvalidInputError, match="does not fit into 64x64"):
        scenes.draw(wide, 64, 64)
    crowd = scenes.Scene(
        "", tuple(scenes.Thing("owl", "fluent", 0.6, 0.5, place) for place in (0.2, 0.8)), ground
    )
    with pytest.raises(InvalidInputError, match="2 things do not fit"):
        scenes.draw(crowd, 64, 64)
    with pytest.raises(InvalidInputError, match="numbered from 0"):
        scenes.scene(-1)
    with pytest.raises(InvalidInputError, match="unknown split 'tset'; did you mean 'test'"):
        scenes.scene(0, "tset")
    with pytest.raises(InvalidInputError, match="unknown sprite"):
        scenes.Thing("dragon", "fluent", 0.5, 0, 0).box(64, 64)


def test_damaged_pictures_say_how_much_is_left():
    seen = [one for number in range(300) for one in damaged.damaged(number, 64, 96)[1]]
    assert all(damaged.SEEN <= one.visible <= 1 for one in seen)
    assert all(
        0 <= top < bottom <= 64 and 0 <= left < right <= 96
        for top, left, bottom, right in (one.box for one in seen)
    )
    assert 0.03 < np.mean([not one.legible for one in seen]) < 0.4
    assert 0.1 < np.mean([one.visible < 0.9 for one in seen]) < 0.6
    counts = [len(damaged.damaged(number, 96, 96)[1]) for number in range(300)]
    assert min(counts) == 0
    assert 5 <= max(counts) <= damaged.MOST


def test_a_thing_half_outside_or_half_covered_is_half_visible():
    thing = scenes.Thing("football", "twemoji", 0.5, 0.0, 0.0)
    outside = damaged.laid(thing, (16.0, -16.0, 48.0, 16.0), 64, 64)
    assert damaged.seen_part(outside, outside.opacity).visible == pytest.approx(0.5, abs=0.03)
    whole = damaged.laid(thing, (16.0, 16.0, 48.0, 48.0), 64, 64)
    covered = whole.opacity.copy()
    covered[:, :32] = 0
    part = damaged.seen_part(whole, covered)
    assert part.visible == pytest.approx(0.5, abs=0.03)
    assert part.box == (
        pytest.approx(16, abs=1.5),
        32.0,
        pytest.approx(48, abs=1.5),
        pytest.approx(48, abs=1.5),
    )


def test_fading_leaves_the_share_that_was_asked_for():
    whole = damaged.laid(scenes.Thing("football", "twemoji", 0.5, 0.0, 0.0), (8.0, 8.0, 56.0, 56.0), 64, 64)
    shares = [
        float((whole.opacity * damaged.faded(whole.opacity, np.random.default_rng(seed))).sum() / whole.whole)
        for seed in range(40)
    ]
    assert min(shares) > 0.2
    assert max(shares) < 0.8


def test_torn_things_are_not_legible_and_stay_where_they_are():
    whole = damaged.laid(scenes.Thing("owl", "fluent", 0.6, 0.0, 0.0), (10.0, 12.0, 50.0, 44.0), 64, 64)
    torn = damaged.torn(whole, np.random.default_rng(0))
    assert not torn.legible
    rows, columns = np.nonzero(torn.opacity > 0.3)
    assert rows.min() >= 9
    assert columns.max() <= 45
    assert np.abs(torn.colours - whole.colours).mean() > 1
