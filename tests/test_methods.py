"""Methods by name, and those that start from a picture of native size."""

import numpy as np
import pytest
from PIL import Image

import entropy_lib as el
from entropy_lib.baselines.from_native import resized, two_stage
from entropy_lib.baselines.methods import METHODS, draw_by, method
from entropy_lib.baselines.options import FILTERS
from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.metrics.views import resize_pictures

PROMPTS, SEEDS, FEW = ["a zebra on a blue background", "two owls"], [0, 1], {"steps": 3}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("direct", "unscaled"),
        ("direct + unscaled", "unscaled"),
        ("direct+paper", "paper"),
        (" direct + power( -0.5 ) ", "power(-0.5)"),
        ("paper[1]@0.5-1", "paper[1]@0.5-1"),
        ("padding( circular ) + paper", "padding(circular) + paper"),
        ("schedule-shift", "schedule-shift"),
        ("resized(bicubic)", "resized"),
        ("resized( lanczos )", "resized(lanczos)"),
        ("multidiffusion(0.75)", "multidiffusion"),
        ("multidiffusion(0.50) + paper", "multidiffusion(0.5) + paper"),
        ("two-stage(1)", "two-stage(1)"),
    ],
)
def test_a_method_has_one_name_and_its_name_means_it(text, name):
    assert method(text).name == name
    assert method(name) == method(text)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", InvalidInputError, "method is ''"),
        (None, InvalidInputError, "method is None"),
        ("direct paper", InvalidInputError, "write for example"),
        ("direct(2)", InvalidInputError, "no option"),
        ("multidifusion", UnknownNameError, "did you mean 'multidiffusion'"),
        ("direct + papper", UnknownNameError, "did you mean 'paper'"),
        ("resized(lancsos)", UnknownNameError, "did you mean 'lanczos'"),
        ("resized + paper", InvalidInputError, "rules go with direct, multidiffusion, two-stage"),
        ("multidiffusion(0)", InvalidInputError, "overlap is '0'"),
        ("multidiffusion(x)", InvalidInputError, "overlap is 'x'"),
        ("two-stage(1.5)", InvalidInputError, "strength is '1.5'"),
        ("two-stage(nan)", InvalidInputError, "strength is 'nan'"),
    ],
)
def test_a_method_that_cannot_be_is_one_clear_error(text, error, message):
    with pytest.raises(error, match=message):
        method(text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
def test_every_kind_draws(pipe, kind):
    images = draw_by(kind, pipe, PROMPTS, SEEDS, 64, 96, **FEW)
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == np.uint8
    assert images.std() > 10, "pictures"


@pytest.mark.slow
def test_direct_is_what_generate_draws(pipe):
    expected = el.generate(pipe, PROMPTS, SEEDS, 32, 48, scale_rule="paper", **FEW)
    assert np.array_equal(draw_by("direct + paper", pipe, PROMPTS, SEEDS, 32, 48, **FEW), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["direct", "two-stage"])
def test_a_method_without_a_rule_leaves_an_outer_patch_as_it_is(pipe, kind):
    expected = draw_by(f"{kind} + power(3)", pipe, PROMPTS[:1], [0], 96, 96, **FEW)
    with el.scaled(pipe, "power(3)"):
        assert np.array_equal(draw_by(kind, pipe, PROMPTS[:1], [0], 96, 96, **FEW), expected)
    assert not np.array_equal(draw_by(kind, pipe, PROMPTS[:1], [0], 96, 96, **FEW), expected)


@pytest.mark.slow
def test_resized_pictures_are_native_ones(pipe):
    native = el.generate(pipe, PROMPTS, SEEDS, 64, 64, **FEW)
    assert np.array_equal(resized(pipe, PROMPTS, SEEDS, 64, 64, **FEW), native)
    half = resized(pipe, PROMPTS, SEEDS, 32, 32, **FEW)
    assert np.abs(half.astype(float) - resize_pictures(native, 32, 32)).mean() < 1, "torch's antialiased bicubic is Pillow's"


@pytest.mark.slow
def test_of_another_shape_the_middle_is_kept_and_nothing_is_stretched(pipe):
    native = el.generate(pipe, PROMPTS, SEEDS, 64, 64, **FEW)
    wide = resized(pipe, PROMPTS, SEEDS, 32, 64, filter="nearest", **FEW)
    assert np.array_equal(wide, native[:, 16:48])


@pytest.mark.slow
def test_the_filter_is_the_one_that_was_named(pipe):
    native = el.generate(pipe, PROMPTS[:1], [0], 64, 64, **FEW)[0]
    for name, filter in FILTERS.items():
        got = resized(pipe, PROMPTS[:1], [0], 96, 96, filter=name, **FEW)[0]
        assert np.array_equal(got, np.asarray(Image.fromarray(native).resize((96, 96), filter))), name


@pytest.mark.slow
def test_two_stages_keep_the_layout_of_the_first(pipe):
    first = resized(pipe, PROMPTS, SEEDS, 96, 96, steps=6).astype(float)
    apart = [
        np.abs(two_stage(pipe, PROMPTS, SEEDS, 96, 96, steps=6, strength=strength) - first).mean() for strength in (0.2, 0.6, 1.0)
    ]
    assert apart == sorted(apart), "the more noise, the less is left"
    assert apart[0] < 0.5 * apart[-1]


@pytest.mark.slow
def test_the_rule_is_that_of_the_second_stage_and_is_taken_out_again(pipe):
    plain = two_stage(pipe, PROMPTS[:1], [0], 96, 96, **FEW)
    assert not np.array_equal(two_stage(pipe, PROMPTS[:1], [0], 96, 96, scale_rule="power(3)", **FEW), plain)
    assert np.array_equal(two_stage(pipe, PROMPTS[:1], [0], 96, 96, **FEW), plain)
    native = two_stage(pipe, PROMPTS[:1], [0], 64, 64, **FEW)
    assert np.array_equal(two_stage(pipe, PROMPTS[:1], [0], 64, 64, scale_rule="paper", **FEW), native)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0}, "strength is 0"),
        ({"strength": 1.1}, "strength is 1.1"),
        ({"strength": "x"}, "strength is 'x'"),
        ({"strength": 0.1, "steps": 3}, "leaves no step"),
        ({"width": 70}, "70"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(pipe, options, message, monkeypatch):
    monkeypatch.setattr("entropy_lib.experiments.generation.draw", None)
    with pytest.raises(InvalidInputError, match=message):
        two_stage(**{"pipe": pipe, "prompts": PROMPTS, "seeds": SEEDS, "height": 64, "width": 96} | options)


def test_an_unknown_filter_is_refused(pipe):
    with pytest.raises(UnknownNameError, match="did you mean 'bicubic'"):
        resized(pipe, PROMPTS, SEEDS, 64, 64, filter="bicubik")


def test_a_pipeline_that_cannot_start_from_a_picture_says_which_can():
    ldm = el.load("ldm-256", random_weights=True, device="meta")
    with pytest.raises(UnsupportedModelError, match=r"LDMTextToImagePipeline.*Stable Diffusion"):
        two_stage(ldm, PROMPTS, SEEDS, 512, 512, steps=2, guidance=1.0)
