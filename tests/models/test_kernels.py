"""The one place where attention is met: what stands there while a network runs, and that nothing stands
there at other times.
"""

import copy
import threading

import diffusers
import numpy as np
import pytest
import torch
import torch._dynamo
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.attention_processor import Attention
from tiny_networks import DOWN_UP, UNET, tiny
from torch.nn import functional

import entropy_lib as el
from entropy_lib.errors import AttentionNotSeenError, InvalidInputError, ScaleNotAppliedError
from entropy_lib.models.architectures import build
from entropy_lib.models.kernels import STATION
from entropy_lib.models.layers import layers_at
from entropy_lib.models.networks import family
from entropy_lib.scaling.patch import applied_rule

RULE = "power(3)"


def places():
    return (
        functional.scaled_dot_product_attention,
        Attention.get_attention_scores,
        *_AttentionBackendRegistry._backends.values(),
    )


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, None], ids=str)
def test_nothing_stays_behind_on_any_exit(network, call, failure):
    """Ctrl-C too, of which torch tells no hook."""
    before, plain = places(), call(network)
    during = []

    def look(*_):
        during.append(places())
        if failure is not None:
            raise failure

    layer = network.get_submodule(list(el.training_tokens(network))[2]).to_out[0]
    with el.scaled(network, RULE), el.EntropyProbe(network):
        handle = layer.register_forward_hook(look)
        try:
            call(network)
        except (KeyboardInterrupt, RuntimeError):
            assert failure is not None
        handle.remove()
    assert during
    assert during[0][0] is not before[0]
    assert places() == before
    assert torch.equal(call(network), plain)


@pytest.mark.parametrize("put", ["patch", "probe"])
def test_an_interruption_while_it_is_put_in_leaves_the_model_as_it_was(network, call, put, monkeypatch):
    """Compiled graphs are forgotten then, which takes a while."""

    def interrupt():
        monkeypatch.undo()
        raise KeyboardInterrupt

    el.apply_scale(network, "paper")
    expected, state = call(network, 32, 32), (applied_rule(network), len(getattr(network, STATION).listeners))
    block = el.scaled(network, RULE) if put == "patch" else el.EntropyProbe(network)
    monkeypatch.setitem(torch._dynamo.utils.counters["frames"], "total", 1)
    monkeypatch.setattr(torch.compiler, "reset", interrupt)
    with pytest.raises(KeyboardInterrupt), block:
        pass
    assert (applied_rule(network), len(getattr(network, STATION).listeners)) == state
    assert torch.equal(call(network, 32, 32), expected)


def test_after_ctrl_c_other_attention_is_let_pass_and_the_next_call_is_right(network, call):
    """A patch that stays: the text encoder of the next run must not be taken for the layer that was
    interrupted.
    """
    with el.scaled(network, RULE):
        expected = call(network, 32, 32)

    def interrupt(*_):
        raise KeyboardInterrupt

    el.apply_scale(network, RULE)
    layer = network.get_submodule(next(iter(el.training_tokens(network)))).to_out[0]
    handle = layer.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(network)
    handle.remove()
    query = torch.randn(1, 1, 3, 8)
    plain = (query @ query.mT * 8**-0.5).softmax(-1) @ query
    assert torch.allclose(functional.scaled_dot_product_attention(query, query, query), plain, atol=1e-6)
    assert torch.equal(call(network, 32, 32), expected)
    el.remove_scale(network)


def test_threads_do_not_see_each_other(network, call):
    other = copy.deepcopy(network)
    plain, results, ready = call(other, 24, 24), [], threading.Barrier(2)
    with el.scaled(network, RULE):
        expected = call(network, 24, 24)

        def repeated(which):
            ready.wait()
            results.extend((which is network, call(which, 24, 24)) for _ in range(6))

        threads = [threading.Thread(target=repeated, args=(which,)) for which in (network, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 12
    assert all(torch.equal(found, expected if patched else plain) for patched, found in results)


def test_one_network_may_run_in_several_threads(network, call):
    sizes = [(16, 16), (24, 24), (32, 16), (9, 14)]
    with el.scaled(network, RULE):
        expected = {size: call(network, *size) for size in sizes}
        results = []

        def repeated(size):
            results.extend((size, call(network, *size)) for _ in range(5))

        threads = [threading.Thread(target=repeated, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 20
    assert all(torch.allclose(found, expected[size], atol=1e-5) for size, found in results)


def test_a_network_within_the_run_of_another_is_let_alone(network, call):
    """As a ControlNet that a hook calls."""
    other = copy.deepcopy(network)
    plain, found = call(other, 24, 24), []
    handle = network.conv_in.register_forward_hook(lambda *_: found.append(call(other, 24, 24)) and None)
    with el.scaled(network, RULE), el.EntropyProbe(network) as probe:
        call(network, 32, 32)
    handle.remove()
    assert torch.equal(found[0], plain)
    assert set(probe.table().tokens) == {1024, 256}


def test_gradient_checkpointing_is_refused(network):
    """Blocks run again in the backward pass, outside the network's call: they would be unscaled there."""
    network.enable_gradient_checkpointing()
    network.train()
    with (
        el.scaled(network, RULE),
        pytest.raises(AttentionNotSeenError, match="disable_gradient_checkpointing"),
    ):
        network(
            torch.randn(1, 4, 32, 32, requires_grad=True), 0, torch.randn(1, 7, 24)
        ).sample.sum().backward()
    network.disable_gradient_checkpointing()
    network.eval()


def test_layers_exchanged_after_the_first_image_are_noticed(network, call):
    block = network.mid_block.attentions[0].transformer_blocks[0]
    others = [copy.deepcopy(block.attn1) for _ in range(2)]
    el.apply_scale(network, RULE)
    call(network, 32, 32)
    block.attn1 = others[0]
    with pytest.raises(ScaleNotAppliedError, match=r"1 of .* did not run, the first being 'mid_block"):
        call(network, 32, 32)
    el.remove_scale(network)
    with el.EntropyProbe(network) as probe, pytest.raises(AttentionNotSeenError, match="did not run"):
        call(network, 32, 32)
        block.attn1 = others[1]
        call(network, 32, 32)
    assert set(probe.table().layer) == set(el.training_tokens(network))


def test_added_keys_count_in_n_and_in_t():
    """DeepFloyd IF, Kandinsky 2: text is projected beside the keys of self-attention."""
    crosses = {
        "down_block_types": ("SimpleCrossAttnDownBlock2D",) * 2,
        "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 2,
    }
    config = {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "attention_head_dim": 8}
    network = diffusers.UNet2DConditionModel(**(UNET | crosses | config)).eval()
    inputs = {
        "sample": torch.randn(2, 4, 12, 8),
        "timestep": torch.tensor(5),
        "encoder_hidden_states": torch.randn(2, 7, 32),
    }
    layers = layers_at(network, 8, 8, 7)
    assert layers
    assert {layer.attends for layer in layers.values()} == {"image+text"}
    with torch.no_grad(), el.scaled(network, RULE), el.EntropyProbe(network) as probe:
        network(**inputs)
    table = probe.table()
    assert set(table.layer) == set(layers)
    assert (table.tokens - table.height * table.width == 7).all()
    assert set(table.training_tokens) <= {64 + 7, 16 + 7}
    factors = [el.rule(RULE).factor(n, t) for n, t in zip(table.tokens, table.training_tokens, strict=True)]
    assert table.factor.to_numpy() == pytest.approx(factors, rel=1e-6)


def test_an_image_prompt_of_the_same_query_is_left_alone():
    """IP-Adapter on joint attention: a further softmax over the prompt's keys, asked by the same query."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

    class WithPrompt(FluxAttnProcessor):
        def __call__(self, attn, hidden_states, *args, **kwargs):
            outputs = super().__call__(attn, hidden_states, *args, **kwargs)
            query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            functional.scaled_dot_product_attention(query, query[:, :, :5], query[:, :, :5])
            return outputs

    pipe, scales = build("flux", tiny=True), []
    pipe.transformer.set_attn_processor(WithPrompt())
    plain = functional.scaled_dot_product_attention

    def keeping(query, key, value, *args, scale=None, **kwargs):
        scales.append((key.shape[-2], scale))
        return plain(query, key, value, *args, scale=scale, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", keeping)
        with el.scaled(pipe, RULE), el.EntropyProbe(pipe, rows=4) as probe:
            pipe("a zebra", height=64, width=96, num_inference_steps=1, output_type="latent")
    assert {scale for keys, scale in scales if keys == 5} == {None}
    assert set(probe.table().tokens) == {512 + 24}


def test_a_reference_image_counts_in_n_and_in_t():
    """FLUX Kontext at native size: 1 exactly, whatever stands beside the image."""
    pipe = build("flux", tiny=True)
    network, picture = pipe.transformer, torch.zeros(4096, 3)
    picture[:, 1], picture[:, 2] = torch.arange(64).repeat_interleave(64), torch.arange(64).repeat(64)
    reference = torch.zeros(24, 3)
    reference[:, 0], reference[:, 1], reference[:, 2] = (
        1,
        torch.arange(4).repeat_interleave(6),
        torch.arange(6).repeat(4),
    )
    inputs = {
        "hidden_states": torch.randn(1, 4096 + 24, 64), "encoder_hidden_states": torch.randn(1, 9, 64),
        "img_ids": torch.cat([picture, reference]), "txt_ids": torch.zeros(9, 3), "guidance": torch.ones(1),
        "pooled_projections": torch.randn(1, 32), "timestep": torch.ones(1),
    }  # fmt: skip
    with torch.no_grad():
        plain = network(**inputs).sample
        with el.scaled(network, "paper"), el.EntropyProbe(network, rows=4) as probe:
            assert torch.equal(network(**inputs).sample, plain)
            report = el.scale_report(network)
    assert (report.factor == 1).all()
    table = probe.table()
    assert set(table.tokens) == set(table.training_tokens) == {9 + 4096 + 24}
    assert set(zip(table.height, table.width, strict=True)) == {(64, 64)}


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_a_window_is_a_share_of_the_run_for_every_scheduler(name):
    pipe = build("sd21-base", tiny=True)
    kind = getattr(diffusers, name)
    pipe.scheduler = kind() if name.startswith("EDM") else kind.from_config(pipe.scheduler.config)
    with el.scaled(pipe, f"{RULE}@0-0.5"), el.EntropyProbe(pipe, rows=4) as probe:
        pipe("a zebra", height=64, width=96, num_inference_steps=4, output_type="latent")
    factors = probe.table().groupby("step").factor.max()
    assert (factors > 1).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["Lumina2Transformer2DModel", "FluxTransformer2DModel"])
def test_a_window_is_refused_where_time_may_run_either_way(name):
    """Lumina 2 and Z-Image give their network 1 at the image, FLUX gives 0; no network says which."""
    network = tiny(name)
    inputs = family(network).inputs(dict(network.config), 8, 16, 7) | {"timestep": torch.tensor([0.9])}
    with (
        torch.no_grad(),
        el.scaled(network, f"{RULE}@0-0.5", latent_size=(8, 8)),
        pytest.raises(InvalidInputError, match="from a pipeline"),
    ):
        network(**inputs)


class OwnNoise(diffusers.EulerDiscreteScheduler):
    """Adds noise from a source of its own, as DPM++ SDE does by torchsde."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True, **kwargs):
        noise = torch.from_numpy(np.random.default_rng().standard_normal(sample.shape)).to(sample)
        return super().step(model_output, timestep, sample + noise, return_dict=return_dict, **kwargs)


class GlobalNoise(diffusers.EulerDiscreteScheduler):
    """Adds noise of torch's own numbers, whatever generator it is given."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True, **kwargs):
        return super().step(
            model_output, timestep, sample + torch.randn_like(sample), return_dict=return_dict, **kwargs
        )


@pytest.mark.parametrize("kind", [OwnNoise, GlobalNoise])
def test_a_scheduler_whose_noise_no_seed_fixes_is_refused_before_drawing(kind, monkeypatch):
    pipe = build("sd21-base", tiny=True)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    monkeypatch.setattr("entropy_lib.sampling.generation.one_batch", None)
    with pytest.raises(InvalidInputError, match=rf"{kind.__name__} takes noise from a source of its own"):
        el.generate(pipe, ["a zebra"], [0], (64, 64), steps=2)


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "LCMScheduler", "DDPMScheduler"])
def test_a_scheduler_that_takes_the_generator_draws_the_same_image_twice(name):
    pipe = build("sd21-base", tiny=True)
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    first, second = (el.generate(pipe, ["a zebra"], [0], (64, 64), steps=3) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_native_size_that_no_config_says_is_asked_for_by_the_parameter():
    network = diffusers.UNet2DConditionModel(**(UNET | DOWN_UP | {"sample_size": None})).eval()
    for ask in (el.training_tokens, el.EntropyProbe, lambda model: el.apply_scale(model, "paper")):
        with pytest.raises(InvalidInputError, match=r"sample_size .* is None.*give `latent_size`"):
            ask(network)
    assert set(el.training_tokens(network, (8, 8)).values()) == {64, 16}
    el.apply_scale(network, "paper", latent_size=(8, 8))


@pytest.mark.parametrize(
    "config",
    [
        {"num_class_embeds": 10},
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16},
        {"encoder_hid_dim": 16},
        {"addition_embed_type": "text", "attention_head_dim": 8, "addition_embed_type_num_heads": 2},
    ],
    ids=str,
)
def test_networks_that_are_told_more_than_text_are_traced(config):
    """Class-conditional ones, StableUnCLIP, Kolors, DeepFloyd IF: once torch's own errors."""
    network = diffusers.UNet2DConditionModel(**(UNET | DOWN_UP | config))
    assert set(el.training_tokens(network).values()) == {64, 16}
