"""Tomorrow's networks: called in a way that no table knows, and learnt from their pipeline."""

import diffusers
import numpy as np
import pytest
import torch

import entropy_lib as el
from entropy_lib.errors import AttentionNotSeenError, UnsupportedModelError
from entropy_lib.models.architectures import build
from entropy_lib.models.layers import denoiser, forget_traces
from entropy_lib.models.networks import RECORDED
from entropy_lib.models.recording import recording


class TomorrowsUNet(diffusers.UNet2DConditionModel):
    """Wants what the library never gives."""

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond, **kwargs):
        return super().forward(sample, timestep, encoder_hidden_states, **kwargs)


class TomorrowsTransformer(diffusers.FluxTransformer2DModel):
    def forward(
        self, hidden_states, joint_attention_kwargs, encoder_hidden_states=None, pooled_projections=None,
        timestep=None, img_ids=None, txt_ids=None, guidance=None, return_dict=True,
    ):  # fmt: skip
        states = encoder_hidden_states, pooled_projections, timestep, img_ids, txt_ids, guidance
        return super().forward(hidden_states, *states, return_dict=return_dict)


@pytest.fixture(autouse=True)
def _nothing_learnt():
    yield
    RECORDED.clear()
    forget_traces()


@pytest.fixture(params=["sd21-base", "flux"])
def pipes(request):
    """A pipeline, and the same with a network of an unknown class."""
    known, unknown = build(request.param, tiny=True), build(request.param, tiny=True)
    name, kind = ("transformer", TomorrowsTransformer) if request.param == "flux" else ("unet", TomorrowsUNet)
    network = kind.from_config(denoiser(known).config).eval()
    network.load_state_dict(denoiser(known).state_dict())
    unknown.register_modules(**{name: network})
    return known, unknown


def draw(pipe):
    options = {"num_inference_steps": 2, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
    with el.scaled(pipe, "power(3)"), el.EntropyProbe(pipe, rows=4) as probe:
        images = pipe("a zebra", height=64, width=96, **options).images
    return images, probe.table()


def test_a_network_of_an_unknown_class_is_learnt_from_its_pipeline(pipes):
    known, unknown = pipes
    before = dict(unknown.__dict__), torch.get_rng_state(), dict(unknown.scheduler.__dict__)
    tokens = el.training_tokens(unknown)
    assert tokens == el.training_tokens(known)
    assert before[0] == unknown.__dict__
    assert torch.equal(before[1], torch.get_rng_state())
    assert all(unknown.scheduler.__dict__[name] is value for name, value in before[2].items())
    (expected, first), (images, second) = draw(known), draw(unknown)
    assert np.array_equal(images, expected)
    assert first.equals(second)


def test_by_itself_it_is_refused_by_what_to_give(pipes):
    with pytest.raises(UnsupportedModelError, match=r"missing 1 required.*so its attention is not known"):
        el.apply_scale(denoiser(pipes[1]), "paper")


def test_a_pipeline_that_needs_more_than_a_prompt_is_shown_once():
    parts = build("sd21-base", tiny=True).components
    parts["unet"] = TomorrowsUNet.from_config(parts["unet"].config).eval()
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(UnsupportedModelError, match=r"recording\(.*Img2ImgPipeline .* for a prompt alone"):
        el.EntropyProbe(pipe)
    with recording(pipe.unet):
        pipe("a zebra", torch.rand(1, 3, 64, 64), num_inference_steps=2, output_type="latent")
    with el.EntropyProbe(pipe, rows=4) as probe:
        pipe("a zebra", torch.rand(1, 3, 64, 64), num_inference_steps=2, output_type="latent")
    assert set(probe.table().layer) == set(el.training_tokens(pipe))


def test_a_block_without_a_call_has_taught_nothing(network):
    with pytest.raises(AttentionNotSeenError, match="was not called inside the block"), recording(network):
        pass


def test_a_call_with_both_branches_of_guidance_is_learnt_for_each(pipe):
    with recording(pipe.unet):
        pipe("an owl", num_inference_steps=1)  # two rows: without and with the prompt
    with el.EntropyProbe(pipe, rows=4) as probe:
        pipe("an owl", num_inference_steps=1)
    assert set(probe.table().branch) == {"uncond", "cond"}
