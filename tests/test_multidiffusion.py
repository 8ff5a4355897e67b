"""MultiDiffusion: what diffusers' own pipeline draws, everywhere covered, plain sampling where one window is the picture."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler, UniPCMultistepScheduler

import entropy_lib as el
from entropy_lib.baselines.multidiffusion import multidiffusion, windowed
from entropy_lib.baselines.windows import cover
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.architectures import build

PROMPTS, SEEDS = ["a zebra on a blue background", "two owls"], [0, 1]
FEW = {"steps": 3, "guidance": 3.0}

pytestmark = pytest.mark.slow


SCHEDULERS = [None, DPMSolverMultistepScheduler, UniPCMultistepScheduler, PNDMScheduler]


def with_scheduler(pipe, scheduler, monkeypatch):
    if scheduler:
        options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
        plain = {key: value for key, value in pipe.scheduler.config.items() if key != "rescale_betas_zero_snr"}
        monkeypatch.setattr(pipe, "scheduler", scheduler.from_config(plain, **options))


@pytest.mark.parametrize("scheduler", SCHEDULERS[:2])
def test_it_draws_what_the_panorama_pipeline_of_diffusers_draws(pipe, scheduler, monkeypatch):
    """Which keeps a state of the sampler for each window: one that looks back finds the same in the one state here."""
    with_scheduler(pipe, scheduler, monkeypatch)
    from diffusers import StableDiffusionPanoramaPipeline

    class SameViews(StableDiffusionPanoramaPipeline):
        def get_views(self, *_, **__):  # its own are of 64 latent pixels, whatever the model
            return [(top, top + 16, left, left + 16) for top, left in cover((16, 24), (16, 16), 0.5)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panorama = SameViews(**pipe.components, requires_safety_checker=False)
    panorama.set_progress_bar_config(disable=True)
    expected = panorama(
        PROMPTS[0], 64, 96, num_inference_steps=3, guidance_scale=3.0, generator=torch.manual_seed(0), output_type="np"
    ).images
    got = multidiffusion(pipe, PROMPTS[:1], [0], 64, 96, overlap=0.5, **FEW)
    assert np.abs(got / 255 - expected).max() < 1.5 / 255, "half a grey level of rounding, and sums in another order"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_window_as_large_as_the_picture_is_plain_sampling_bit_for_bit(pipe, scheduler, monkeypatch):
    with_scheduler(pipe, scheduler, monkeypatch)
    expected = el.generate(pipe, PROMPTS, SEEDS, 64, 96, **FEW)
    assert np.array_equal(multidiffusion(pipe, PROMPTS, SEEDS, 64, 96, window=(16, 24), **FEW), expected)


def test_the_rule_has_a_factor_of_one_in_native_windows(pipe):
    reports = []
    with windowed(pipe.unet, (16, 16)), el.scaled(pipe, "paper"):
        plain_call = {"num_inference_steps": 1, "output_type": "latent", "height": 64, "width": 128}
        pipe("an owl", **plain_call)
        reports.append(el.scale_report(pipe))
    assert (reports[0].factor == 1.0).all()
    assert (reports[0].tokens == reports[0].training_tokens).all()
    plain = multidiffusion(pipe, PROMPTS, SEEDS, 64, 96, **FEW)
    assert np.array_equal(multidiffusion(pipe, PROMPTS, SEEDS, 64, 96, scale_rule="paper", **FEW), plain)


def test_a_probe_sees_the_windows(pipe):
    with el.EntropyProbe(pipe) as probe:
        multidiffusion(pipe, PROMPTS[:1], [0], 64, 96, overlap=0.5, **FEW)
    table = probe.table()
    assert (table.tokens == table.training_tokens).all()
    assert (table.rows == 2 * table.tokens).all(), "two windows a call"
    assert sorted(table.step.unique()) == [0, 1, 2]
    assert (table[["height", "width"]] == 0).all(axis=None), "a window is no grid of the picture"


def test_in_windows_of_another_size_the_rule_does_something(pipe):
    windows = {"window": (24, 24), "overlap": 0.5, **FEW}
    plain = multidiffusion(pipe, PROMPTS[:1], [0], 96, 128, **windows)
    assert not np.array_equal(multidiffusion(pipe, PROMPTS[:1], [0], 96, 128, scale_rule="power(3)", **windows), plain)


def test_it_is_not_plain_sampling(pipe):
    direct = el.generate(pipe, PROMPTS, SEEDS, 64, 96, **FEW)
    assert not np.array_equal(multidiffusion(pipe, PROMPTS, SEEDS, 64, 96, **FEW), direct)


def test_the_network_is_as_it_was_on_any_exit(pipe):
    before = vars(pipe.unet).get("forward"), pipe.unet.forward
    with pytest.raises(KeyboardInterrupt), windowed(pipe.unet, (16, 16)):
        raise KeyboardInterrupt
    assert (vars(pipe.unet).get("forward"), pipe.unet.forward) == before


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
    ("changes", "message"),
    [
        ({"overlap": 0}, "overlap is 0"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"height": 32}, "no room for one"),
        ({"width": 100}, "100"),
        ({"steps": 0}, "steps is 0"),
        ({"height": "64"}, "64"),
        ({"window": (0, 16)}, "latent_size"),
        ({"window": 16}, "latent_size"),
        ({"seeds": [0]}, "one seed for each prompt"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(pipe, changes, message, monkeypatch):
    monkeypatch.setattr("entropy_lib.experiments.generation.draw", None)
    with pytest.raises(InvalidInputError, match=message):
        multidiffusion(**{"pipe": pipe, "prompts": PROMPTS, "seeds": SEEDS, "height": 64, "width": 96} | changes)


def test_a_sampler_that_clips_is_refused(pipe, monkeypatch):
    clipping = type(pipe.scheduler).from_config(pipe.scheduler.config, clip_sample=True)
    monkeypatch.setattr(pipe, "scheduler", clipping)
    with pytest.raises(InvalidInputError, match="DDIMScheduler has clip_sample=True"):
        multidiffusion(pipe, PROMPTS, SEEDS, 64, 96)


def test_packed_latents_are_refused():
    network = build("flux", device="meta").transformer
    with (
        pytest.raises(UnsupportedModelError, match=r"FluxTransformer2DModel packs its latents and cannot see through windows"),
        windowed(network, (8, 8)),
    ):
        pass
