"""Methods by name, and those that start from a picture of native size."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import entropy_lib as el
from entropy_lib.baselines import super_resolution
from entropy_lib.baselines.from_native import resized, two_stage
from entropy_lib.baselines.methods import METHODS, draw_by, method
from entropy_lib.baselines.options import FILTERS
from entropy_lib.baselines.super_resolution import back_projected, super_resolved
from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError, WeightsError
from entropy_lib.metrics.views import resize_pictures
from entropy_lib.models.architectures import build

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


def made_small(large):
    return np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX)).astype(float)


def test_a_back_projected_picture_made_small_is_the_one_it_was_made_of():
    """And a bicubic one is not."""
    picture = np.random.default_rng(0).integers(40, 216, (64, 64, 3), dtype=np.uint8)
    bicubic = np.asarray(Image.fromarray(picture).resize((160, 160), Image.Resampling.BICUBIC))
    apart = np.abs(made_small(back_projected(picture, 160, 160)) - picture).mean()
    assert apart < 0.2 * np.abs(made_small(bicubic) - picture).mean()


@pytest.mark.slow
def test_super_resolution_starts_from_the_native_picture(pipe):
    native = el.generate(pipe, PROMPTS, SEEDS, 64, 64, **FEW)
    large = super_resolved(pipe, PROMPTS, SEEDS, 128, 128, **FEW)
    assert np.abs(np.stack([made_small(one) for one in large]) - native).mean() < 1
    assert np.array_equal(super_resolved(pipe, PROMPTS, SEEDS, 64, 64, **FEW), native)
    assert np.array_equal(super_resolved(pipe, PROMPTS, SEEDS, 32, 64, **FEW), native[:, 16:48])


def tiny_upscaler(monkeypatch):
    """The pipeline of `latent` with untrained parts of a few thousand parameters."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionLatentUpscalePipeline, UNet2DConditionModel

    parts = build("sd21-base", tiny=True).components
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(dict(parts["vae"].config))
    channels = vae.config.latent_channels
    conditioned = {"in_channels": 2 * channels, "out_channels": channels + 1, "time_cond_proj_dim": 128 + 32}
    unet = UNet2DConditionModel.from_config(dict(parts["unet"].config), **conditioned)
    model = StableDiffusionLatentUpscalePipeline(
        vae=vae, text_encoder=parts["text_encoder"], tokenizer=parts["tokenizer"], unet=unet, scheduler=EulerDiscreteScheduler()
    )
    monkeypatch.setattr(super_resolution, "_load", lambda *_: model)
    return model


def test_upscalers_that_reach_too_little_or_are_not_here_are_refused_before_anything_is_drawn(pipe, monkeypatch):
    monkeypatch.setattr("entropy_lib.experiments.generation.draw", None)
    with pytest.raises(InvalidInputError, match=r"super-resolved\(latent\) at 64x160: from 64x64 it reaches 128x128"):
        super_resolved(pipe, PROMPTS, SEEDS, 64, 160, upscaler="latent")
    with pytest.raises(UnknownNameError, match="did you mean 'latent'"):
        super_resolved(pipe, PROMPTS, SEEDS, 64, 96, upscaler="latnt")
    with pytest.raises(UnknownNameError, match="Allowed: back-projection, latent, x4"):
        method("super-resolved(x8)")
    monkeypatch.setattr(super_resolution, "hub_answers", lambda: False)
    with pytest.raises(WeightsError, match="hf download stabilityai/stable-diffusion-x4-upscaler"):
        super_resolved(pipe, PROMPTS, SEEDS, 96, 96, upscaler="x4")


@pytest.mark.slow
def test_a_diffusion_model_gives_the_pixels_and_lanczos_the_size(pipe, monkeypatch):
    model, asked = tiny_upscaler(monkeypatch), []
    monkeypatch.setattr(
        type(model), "__call__",
        lambda self, prompt, image, generator, **options: (
            asked.append((prompt, image.size, options)) or SimpleNamespace(images=np.asarray(image.resize((128, 128)))[None] / 255)
        ),
    )  # fmt: skip
    got = super_resolved(pipe, PROMPTS, SEEDS, 96, 128, upscaler="latent", **FEW)
    assert got.shape == (2, 96, 128, 3)
    assert [prompt for prompt, _, _ in asked] == PROMPTS
    assert asked[0][1] == (64, 64)
    assert asked[0][2]["num_inference_steps"] == 20
    monkeypatch.undo()
    picture, options = Image.fromarray(got[0][:64, :64]), {"num_inference_steps": 1, "guidance_scale": 0, "output_type": "np"}
    large = model(PROMPTS[0], image=picture, **options).images
    assert large.shape == (1, 128, 128, 3), "the true pipeline takes the same call and gives twice the side"


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
