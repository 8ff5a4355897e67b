from types import SimpleNamespace

import numpy as np
import pytest

import entropy_lib as el
from entropy_lib.errors import NotFiniteError
from entropy_lib.models.catalogue import entry
from entropy_lib.sizes import check_size, parse_size, size_name

PROMPTS, SEEDS = ["a penguin, fluent style", "an owl", "a rocket, twemoji style"], [3, 4, 5]


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


def test_an_outer_patch_is_left_as_it_is(pipe):
    expected = el.generate(pipe, PROMPTS[:1], SEEDS[:1], 32, 32, scale_rule="power(3)", steps=2)
    with el.scaled(pipe, "power(3)"):
        assert np.array_equal(el.generate(pipe, PROMPTS[:1], SEEDS[:1], 32, 32, steps=2), expected)
        assert (el.scale_report(pipe).calls > 0).all()
        unscaled = el.generate(pipe, PROMPTS[:1], SEEDS[:1], 32, 32, scale_rule="unscaled", steps=2)
    assert not np.array_equal(unscaled, expected), "a rule that is named replaces the outer one"


def test_the_measurement_leaves_an_outer_patch_as_it_is(pipe):
    with el.scaled(pipe, "power(3)"):
        table = el.entropy_by_size(pipe, PROMPTS[:1], SEEDS[:1], [(32, 32)], rows=4, steps=1)
    assert set(table.rule) == {"power(3)"}
    assert table.factor.to_numpy() == pytest.approx([el.rule("power(3)").factor(n, 4 * n) for n in table.tokens], rel=1e-4)
    assert set(el.entropy_by_size(pipe, PROMPTS[:1], SEEDS[:1], [(32, 32)], rows=4, steps=1).rule) == {"unscaled"}


def test_gamma_is_drawn_and_measured_at_native_size(pipe):
    table = el.entropy_by_size(pipe, PROMPTS[:1], SEEDS[:1], [(64, 64)], ["unscaled", "gamma(1.4)", "paper"], rows=4, steps=1)
    factors = table.groupby("rule").factor.mean()
    assert factors.to_dict() == pytest.approx({"unscaled": 1.0, "gamma(1.4)": 1.4**0.5, "paper": 1.0}, rel=1e-4)


@pytest.fixture
def asked(pipe, monkeypatch):
    """What the pipeline is called with, in place of drawing."""
    calls = []

    def call(self, prompts, **options):
        calls.append(options)
        return SimpleNamespace(images=np.zeros((len(prompts), options["height"], options["width"], 3)))

    monkeypatch.setattr(type(pipe), "__call__", call)
    return calls


def test_steps_and_guidance_are_the_models_own_unless_given(pipe, asked):
    own = entry("mini")
    el.generate(pipe, ["a"], [0], 32, 32)
    assert (asked[0]["num_inference_steps"], asked[0]["guidance_scale"]) == (own.steps, own.guidance)
    el.generate(pipe, ["a"], [0], 32, 32, steps=3, guidance=0)
    assert (asked[1]["num_inference_steps"], asked[1]["guidance_scale"]) == (3, 0)


def test_a_picture_that_is_not_finite_is_refused(pipe, asked, monkeypatch):
    broken = np.full((1, 32, 32, 3), np.nan)
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: SimpleNamespace(images=broken))
    with pytest.raises(NotFiniteError, match="1 of 1 images are not finite"):
        el.generate(pipe, ["a"], [0], 32, 32)


def test_the_model_is_restored(pipe):
    el.generate(pipe, PROMPTS[:1], SEEDS[:1], 32, 32, scale_rule="paper", steps=1)
    assert el.scale_report(pipe).empty


def test_sizes_are_written_height_first():
    assert parse_size(" 64x96") == (64, 96)
    assert size_name(64, 96) == "64x96"
    check_size(np.int64(64), 8)
    for text in ("64", "64X96", "64x", "-64x64", "64 x 96", 64, None, "\u0666\u0664x\u0666\u0664", "64x" + "9" * 10):
        with pytest.raises(ValueError, match="height x width"):
            parse_size(text)
