import numpy as np
import pytest

import entropy_lib as el
from entropy_lib.sizes import check_size, parse_size, size_name

PROMPTS, SEEDS = ["a zebra, noto style", "a crab", "a rocket, twemoji style"], [3, 4, 5]


def test_an_image_does_not_depend_on_its_batch(pipe):
    together = el.generate(pipe, PROMPTS, SEEDS, 32, 48, scale_rule="paper", steps=4)
    assert together.shape == (3, 32, 48, 3)
    for batch in (1, 2):
        apart = el.generate(pipe, PROMPTS, SEEDS, 32, 48, scale_rule="paper", steps=4, batch=batch)
        assert np.abs(together.astype(int) - apart).max() <= 1, "one grey level, from the order of sums"


def test_prompt_seed_and_rule_matter(pipe):
    base = el.generate(pipe, PROMPTS[:1], SEEDS[:1], 96, 96, steps=3)
    assert not np.array_equal(base, el.generate(pipe, PROMPTS[:1], [9], 96, 96, steps=3))
    assert not np.array_equal(base, el.generate(pipe, PROMPTS[1:2], SEEDS[:1], 96, 96, steps=3))
    assert not np.array_equal(base, el.generate(pipe, PROMPTS[:1], SEEDS[:1], 96, 96, steps=3, scale_rule="power(2)"))
    assert np.array_equal(base, el.generate(pipe, PROMPTS[:1], SEEDS[:1], 96, 96, steps=3))


def test_unknown_words_do_not_break_it(pipe):
    images = el.generate(pipe, ["zyxgl 猫 ☃!? " * 9, ""], [0, 1], 32, 32, steps=2)
    assert images.std() > 0


def test_the_model_is_restored(pipe):
    el.generate(pipe, PROMPTS[:1], SEEDS[:1], 32, 32, scale_rule="paper", steps=1)
    assert el.scale_report(pipe).empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 100}, "height is 100.*multiple of 8 pixels.*96 or 104"),
        ({"width": -8}, "width is -8"),
        ({"height": 0}, "height is 0"),
        ({"width": 64.0}, "width is 64.0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"seeds": [1]}, "3 prompts and 1 seeds"),
        ({"prompts": [], "seeds": []}, "at least one"),
        ({"scale_rule": "papper"}, "did you mean 'paper'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_is_refused_before_anything_is_drawn(pipe, monkeypatch, changes, message):
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran"))
    arguments = {"prompts": PROMPTS, "seeds": SEEDS, "height": 64, "width": 64} | changes
    with pytest.raises(ValueError, match=message):
        el.generate(pipe, **arguments)


def test_sizes_are_written_height_first():
    assert parse_size(" 64x96") == (64, 96)
    assert size_name(64, 96) == "64x96"
    check_size(np.int64(64), 8)
    for text in ("64", "64X96", "64x", "-64x64", "64 x 96", 64, None):
        with pytest.raises(ValueError, match="height x width"):
            parse_size(text)
