"""`el.generate`: an image depends on its prompt, seed, size, method and model, and on nothing else."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import entropy_lib as el
from entropy_lib.errors import NotFiniteError
from entropy_lib.models.catalogue import entry
from entropy_lib.sizes import check_size

PROMPTS, SEEDS = ["a penguin, fluent style", "an owl", "a rocket, twemoji style"], [3, 4, 5]


def test_an_image_does_not_depend_on_its_batch(pipe):
    together = el.generate(pipe, PROMPTS, SEEDS, "32x48", "paper", steps=4)
    assert together.shape == (3, 32, 48, 3)
    for batch in (1, 2):
        apart = el.generate(pipe, PROMPTS, SEEDS, "32x48", "paper", steps=4, batch=batch)
        assert np.abs(together.astype(int) - apart).max() <= 1, "one grey level, from the order of sums"


def test_prompt_seed_and_method_matter(pipe):
    def made(prompt=PROMPTS[0], seed=3, size=(96, 96), method=None):
        return el.generate(pipe, [prompt], [seed], size, method, steps=3)

    base = made()
    for other in ({"prompt": PROMPTS[1]}, {"seed": 9}, {"method": "power(2)"}):
        assert not np.array_equal(base, made(**other))
    assert np.array_equal(base, made(size=el.Size(96, 96)))


def test_unknown_words_do_not_break_it(pipe):
    images = el.generate(pipe, ["zyxgl 猫 ☃!? " * 9, ""], [0, 1], "32x32", steps=2)
    assert images.std() > 0


@pytest.mark.parametrize("baseline", ["", "two-stage + "])
def test_without_a_method_an_outer_patch_stays_and_a_method_replaces_it(pipe, baseline):
    made = partial(el.generate, pipe, PROMPTS[:1], SEEDS[:1], "32x32", steps=2)
    ruled, unscaled = made(f"{baseline}power(3)"), made(f"{baseline}unscaled")
    with el.scaled(pipe, "gamma(3)"):
        outer = made()
        assert (el.scale_report(pipe).calls > 0).all()
        assert np.array_equal(made(f"{baseline}power(3)"), ruled)
        assert np.array_equal(made(f"{baseline}unscaled"), unscaled)
    assert el.scale_report(pipe).empty
    assert not np.array_equal(outer, unscaled)


def test_the_measurement_leaves_an_outer_patch_as_it_is(pipe):
    with el.scaled(pipe, "power(3)"):
        table = el.entropy_by_size(pipe, PROMPTS[:1], SEEDS[:1], ["32x32"], rows=4, steps=1)
    assert set(table.rule) == {"power(3)"}
    assert table.factor.to_numpy() == pytest.approx(
        [el.rule("power(3)").factor(n, 4 * n) for n in table.tokens], rel=1e-4
    )


def test_gamma_and_baselines_are_measured_at_native_size(pipe):
    methods = ["unscaled", "gamma(1.4)", "paper", "resized"]
    table = el.entropy_by_size(pipe, PROMPTS[:1], SEEDS[:1], ["64x64"], methods, rows=4, steps=1)
    factors = table.groupby("rule").factor.mean()
    assert factors.to_dict() == pytest.approx(
        {"unscaled": 1, "gamma(1.4)": 1.4**0.5, "paper": 1, "resized": 1}, rel=1e-4
    )


@pytest.fixture
def asked(pipe, monkeypatch):
    """What the pipeline is called with, in place of generating."""
    calls = []

    def call(self, prompt, **options):
        calls.append(options)
        return SimpleNamespace(images=np.zeros((len(prompt), options["height"], options["width"], 3)))

    monkeypatch.setattr(type(pipe), "__call__", call)
    return calls


def test_steps_and_guidance_are_the_models_own_unless_given(pipe, asked):
    own = entry("mini")
    el.generate(pipe, ["a"], [0], "32x32")
    assert (asked[0]["num_inference_steps"], asked[0]["guidance_scale"]) == (own.steps, own.guidance)
    el.generate(pipe, ["a"], [0], "32x32", steps=3, guidance=0)
    assert (asked[1]["num_inference_steps"], asked[1]["guidance_scale"]) == (3, 0)


def test_an_image_that_is_not_finite_is_refused(pipe, asked, monkeypatch):
    broken = np.full((1, 32, 32, 3), np.nan)
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: SimpleNamespace(images=broken))
    with pytest.raises(NotFiniteError, match="1 of 1 images are not finite"):
        el.generate(pipe, ["a"], [0], "32x32")


def test_sizes_are_written_height_first():
    size = el.Size.of(" 64x96")
    assert size == (64, 96) == el.Size.of((64, 96)) == el.Size.of(size)
    assert f"{size}" == "64x96"
    check_size(np.int64(64), 8)
    arabic, long = "\u0666\u0664x\u0666\u0664", "64x" + "9" * 10
    for text in ("64", "64X96", "64x", "-64x64", "64 x 96", 64, None, arabic, long, (64,)):
        with pytest.raises(ValueError, match="height x width"):
            el.Size.of(text)
