"""MultiDiffusion: the images of diffusers' own pipeline; all is covered; one window is plain sampling."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPanoramaPipeline,
    UniPCMultistepScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.architectures import build
from entropy_lib.sampling.multidiffusion import cover, starts, windowed

PROMPTS, SEEDS = ["a zebra on a blue background", "two owls"], [0, 1]
FEW = {"steps": 3, "guidance": 3.0}


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 40), st.integers(0, 60), st.floats(0.01, 0.99))
def test_every_place_is_seen_and_no_window_leaves_the_image(tall, more_rows, wide, more_columns, overlap):
    size = tall + more_rows, wide + more_columns
    seen = np.zeros(size, int)
    for top, left in cover(size, (tall, wide), overlap):
        part = seen[top : top + tall, left : left + wide]
        assert part.shape == (tall, wide)
        part += 1
    assert seen.min() >= 1


@given(st.integers(1, 64), st.integers(0, 100), st.integers(1, 64))
def test_neighbours_are_no_farther_apart_than_the_stride(window, more, stride):
    places = starts(window + more, window, stride)
    assert all(0 < after - before <= stride for before, after in pairwise(places))
    assert places[0] == 0


def test_the_views_are_those_of_diffusers_where_these_cover_the_image():
    views = StableDiffusionPanoramaPipeline.get_views(None, 512, 2048, window_size=64, stride=8)
    assert [(top, left) for top, _, left, _ in views] == cover((64, 256), (64, 64), 0.875)


@pytest.mark.parametrize("overlap", [0, 1, -0.5, 1.5, float("nan"), "0.5", None, True])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(InvalidInputError, match=r"overlap is .*above 0 and below 1"):
        cover((16, 16), (16, 16), overlap)


SCHEDULERS = [None, DPMSolverMultistepScheduler, UniPCMultistepScheduler, PNDMScheduler]


def with_scheduler(pipe, scheduler, monkeypatch):
    if scheduler:
        options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
        plain = dict(pipe.scheduler.config)
        plain.pop("rescale_betas_zero_snr")
        monkeypatch.setattr(pipe, "scheduler", scheduler.from_config(plain, **options))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS[:2])
def test_images_are_those_of_the_panorama_pipeline_of_diffusers(pipe, scheduler, monkeypatch):
    """Which keeps a state of the sampler for each window: one that looks back finds the same in the one
    state here.
    """
    with_scheduler(pipe, scheduler, monkeypatch)

    class SameViews(StableDiffusionPanoramaPipeline):
        def get_views(self, *_, **__):  # its own are of 64 latent pixels, whatever the model
            return [(top, top + 16, left, left + 16) for top, left in cover((16, 24), (16, 16), 0.5)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panorama = SameViews(**pipe.components, requires_safety_checker=False)
    panorama.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}
    expected = panorama(PROMPTS[0], 64, 96, generator=torch.manual_seed(0), **options).images
    got = el.generate(pipe, PROMPTS[:1], [0], "64x96", "multidiffusion(0.5)", **FEW)
    assert np.abs(got / 255 - expected).max() < 1.5 / 255, "rounding, and sums in another order"


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_window_as_large_as_the_image_is_plain_sampling_bit_for_bit(pipe, scheduler, monkeypatch):
    with_scheduler(pipe, scheduler, monkeypatch)
    expected = el.generate(pipe, PROMPTS, SEEDS, "64x96", **FEW)
    with windowed(pipe.unet, (16, 24)):
        assert np.array_equal(el.generate(pipe, PROMPTS, SEEDS, "64x96", **FEW), expected)


@pytest.mark.slow
def test_the_rule_has_a_factor_of_one_in_native_windows(pipe):
    with windowed(pipe.unet, (16, 16)), el.scaled(pipe, "paper"):
        pipe("an owl", num_inference_steps=1, output_type="latent", height=64, width=128)
        report = el.scale_report(pipe)
    assert (report.factor == 1.0).all()
    assert (report.tokens == report.training_tokens).all()
    plain = el.generate(pipe, PROMPTS, SEEDS, "64x96", "multidiffusion", **FEW)
    assert np.array_equal(el.generate(pipe, PROMPTS, SEEDS, "64x96", "multidiffusion + paper", **FEW), plain)
    assert not np.array_equal(el.generate(pipe, PROMPTS, SEEDS, "64x96", **FEW), plain)


@pytest.mark.slow
def test_a_probe_sees_the_windows(pipe):
    with el.EntropyProbe(pipe) as probe:
        el.generate(pipe, PROMPTS[:1], [0], "64x96", "multidiffusion(0.5)", **FEW)
    table = probe.table()
    assert (table.tokens == table.training_tokens).all()
    assert (table.rows == 2 * table.tokens).all(), "two windows a call"
    assert sorted(table.step.unique()) == [0, 1, 2]
    assert (table[["height", "width"]] == 0).all(axis=None), "a window is no grid of the image"


def test_the_network_is_as_it_was_on_any_exit(pipe):
    before = vars(pipe.unet).get("forward"), pipe.unet.forward
    with pytest.raises(KeyboardInterrupt), windowed(pipe.unet, (16, 16)):
        raise KeyboardInterrupt
    assert (vars(pipe.unet).get("forward"), pipe.unet.forward) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "ldm-256"])
def test_networks_that_take_latents_as_they_are_can_see_through_windows(name):
    network = el.models.layers.denoiser(build(name, tiny=True))
    known = el.models.networks.family(network)
    inputs = known.inputs(network.config, 16, 24, 4)
    window = known.native_size(network.config)
    assert window[0] <= 16, "the tiny networks are smaller"
    with torch.no_grad(), windowed(network, (8, 8), 0.5):
        first = network(**inputs, return_dict=False)[0]
        assert torch.equal(network(**inputs).sample, first)
    assert first.shape[-2:] == (16, 24)


@pytest.mark.parametrize(
    ("size", "method", "message"),
    [("64x96", "multidiffusion(1)", "overlap is 1.0"), ("32x96", "multidiffusion", "no room for one")],
)
def test_bad_input_is_refused_before_anything_is_generated(pipe, size, method, message, monkeypatch):
    monkeypatch.setattr("entropy_lib.sampling.generation.one_batch", None)
    with pytest.raises(InvalidInputError, match=message):
        el.generate(pipe, PROMPTS, SEEDS, size, method)


def test_a_sampler_that_clips_is_refused(pipe, monkeypatch):
    clipping = type(pipe.scheduler).from_config(pipe.scheduler.config, clip_sample=True)
    monkeypatch.setattr(pipe, "scheduler", clipping)
    with pytest.raises(InvalidInputError, match="DDIMScheduler has clip_sample=True"):
        el.generate(pipe, PROMPTS, SEEDS, "64x96", "multidiffusion")


def test_packed_latents_are_refused():
    network = build("flux", device="meta").transformer
    with pytest.raises(UnsupportedModelError, match=r"Flux.* packs its latents"), windowed(network, (8, 8)):
        pass
