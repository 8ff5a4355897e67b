"""Methods by name, and those that start from an image of native size."""

import numpy as np
import pytest
from PIL import Image

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.sampling.from_native import back_projected
from entropy_lib.sampling.methods import FILTERS, METHODS, method

PROMPTS, SEEDS, FEW = ["a zebra on a blue background", "two owls"], [0, 1], {"steps": 3}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("direct", "unscaled"),
        ("direct+paper", "paper"),
        (" direct + power( -0.5 ) ", "power(-0.5)"),
        ("paper[1]@0.5-1", "paper[1]@0.5-1"),
        ("padding( circular ) + paper", "padding(circular) + paper"),
        ("resized(bicubic)", "resized"),
        ("resized( lanczos )", "resized(lanczos)"),
        ("multidiffusion(0.75)", "multidiffusion"),
        ("multidiffusion(0.50) + paper", "multidiffusion(0.5) + paper"),
        ("two-stage(1)", "two-stage(1)"),
        ("positions( interpolated )+paper", "positions(interpolated) + paper"),
        ("positions(1.0)", "positions(interpolated)"),
        ("positions(.5)", "positions(0.5)"),
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
        ("super-resolved(x4)", InvalidInputError, "no option"),
        ("multidifusion", UnknownNameError, "did you mean 'multidiffusion'"),
        ("direct + papper", UnknownNameError, "did you mean 'paper'"),
        ("resized(lancsos)", UnknownNameError, "did you mean 'lanczos'"),
        ("padding(mirror)", UnknownNameError, "mode"),
        ("resized + paper", InvalidInputError, "rules go with direct, multidiffusion, two-stage"),
        ("multidiffusion(0)", InvalidInputError, "overlap is '0'"),
        ("multidiffusion(x)", InvalidInputError, "overlap is 'x'"),
        ("two-stage(1.5)", InvalidInputError, "strength is '1.5'"),
        ("two-stage(nan)", InvalidInputError, "strength is 'nan'"),
        ("schedule-shift(0)", InvalidInputError, "strength"),
        ("positions", InvalidInputError, "share is ''; it must be 'interpolated' or a number above 0"),
        ("positions(0)", InvalidInputError, "share is '0'"),
        ("positions(extrapolated)", InvalidInputError, "'interpolated' or a number above 0 and at most 1"),
    ],
)
def test_a_method_that_cannot_be_is_one_clear_error(text, error, message):
    with pytest.raises(error, match=message):
        method(text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind != "positions"])
def test_every_kind_generates(pipe, kind):
    images = el.generate(pipe, PROMPTS, SEEDS, "64x96", kind, **FEW)
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == np.uint8
    assert images.std() > 10


@pytest.fixture(scope="module")
def native(pipe):
    return el.generate(pipe, PROMPTS, SEEDS, "64x64", **FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resized", "super-resolved"])
def test_images_from_native_ones_are_those_at_native_size(pipe, native, kind):
    assert np.array_equal(el.generate(pipe, PROMPTS, SEEDS, "64x64", kind, **FEW), native)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resized(nearest)", "super-resolved"])
def test_of_another_shape_the_middle_is_kept_and_nothing_is_stretched(pipe, native, kind):
    assert np.array_equal(el.generate(pipe, PROMPTS, SEEDS, "32x64", kind, **FEW), native[:, 16:48])


@pytest.mark.slow
def test_the_filter_is_the_one_that_was_named(pipe, native):
    for name, filter in FILTERS.items():
        [got] = el.generate(pipe, PROMPTS[:1], [0], "96x96", f"resized({name})", **FEW)
        expected = np.asarray(Image.fromarray(native[0]).resize((96, 96), filter)).astype(int)
        assert np.abs(got - expected).max() <= 2, f"{name}; alone and in a batch differ by a grey level"


def made_small(large):
    return np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX)).astype(float)


def test_a_back_projected_image_made_small_is_the_one_it_was_made_of():
    """And a bicubic one is not."""
    image = np.random.default_rng(0).integers(40, 216, (64, 64, 3), dtype=np.uint8)
    bicubic = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.BICUBIC))
    apart = np.abs(made_small(back_projected(image, el.Size(160, 160))) - image).mean()
    assert apart < 0.2 * np.abs(made_small(bicubic) - image).mean()


@pytest.mark.slow
def test_two_stages_keep_the_layout_of_the_first(pipe):
    def made(method):
        return el.generate(pipe, PROMPTS, SEEDS, "96x96", method, steps=6).astype(float)

    first = made("resized")
    apart = [np.abs(made(f"two-stage({strength})") - first).mean() for strength in (0.2, 0.6, 1.0)]
    assert apart == sorted(apart), "the more noise, the less is left"
    assert apart[0] < 0.5 * apart[-1]


@pytest.mark.slow
def test_the_rule_is_that_of_the_second_stage(pipe):
    def made(size, method):
        return el.generate(pipe, PROMPTS[:1], [0], size, method, **FEW)

    assert not np.array_equal(made("96x96", "two-stage + power(3)"), made("96x96", "two-stage"))
    assert np.array_equal(made("64x64", "two-stage + paper"), made("64x64", "two-stage"))
    assert not np.array_equal(made("64x64", "two-stage + gamma(3)"), made("64x64", "two-stage"))


def test_a_strength_that_leaves_no_step_is_refused_before_anything_is_generated(pipe, monkeypatch):
    monkeypatch.setattr("entropy_lib.sampling.generation.one_batch", None)
    with pytest.raises(InvalidInputError, match="leaves no step"):
        el.generate(pipe, PROMPTS, SEEDS, "64x96", "two-stage(0.1)", steps=3)


def test_a_pipeline_that_cannot_start_from_an_image_says_which_can():
    ldm = el.load("ldm-256", random_weights=True, device="meta")
    with pytest.raises(UnsupportedModelError, match=r"LDMTextToImagePipeline.*Stable Diffusion"):
        el.generate(ldm, PROMPTS, SEEDS, "512x512", "two-stage", steps=2, guidance=1.0)
