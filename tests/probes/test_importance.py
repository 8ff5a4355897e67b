"""Disabled attention, against processors of diffusers that never look at a query."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from plain_attention import projected

import entropy_lib as el
from entropy_lib.errors import AttentionNotSeenError, InvalidInputError, NotFiniteError, UnknownNameError
from entropy_lib.models.catalogue import load
from entropy_lib.models.kernels import Change, Listener, listening
from entropy_lib.probes.importance import ablated, branch_over_stream, first_order, importance
from entropy_lib.statistics import cluster_mean
from training.transformer import PlainProcessor


class WithoutQueries:
    """Gives every query the mean of the values, or zeros, in some heads or in all."""

    def __init__(self, share, heads):
        self.share, self.heads = share, heads

    def __call__(self, attention, hidden, encoder_hidden_states=None, attention_mask=None, **_):
        query, key, value = projected(attention, hidden)
        answer = (query @ key.mT * attention.scale).softmax(-1) @ value
        answer[:, self.heads] = self.share * value.mean(2, keepdim=True).expand_as(value)[:, self.heads]
        return attention.to_out[0](answer.transpose(1, 2).flatten(2))


class Weighted(Listener):
    """Multiplies what the attention of a layer gives."""

    def __init__(self, layer, weight):
        self.layers, self.weight = [layer], weight

    def change(self, run, layer, call):
        return Change(kept=self.weight if call.queries == call.keys else 1.0)


def called_in_double(network):
    generator, wide = torch.Generator().manual_seed(1), torch.float64
    sample, text = (
        torch.randn(*shape, generator=generator, dtype=wide) for shape in ((2, 4, 16, 16), (2, 7, 24))
    )
    with torch.no_grad():
        return network(sample, torch.tensor(500), text).sample


@pytest.mark.parametrize(
    ("intervention", "share"), [("uniform", 1.0), ("mean key", 1.0), ("removed", 0.0)], ids=str
)
@pytest.mark.parametrize("heads", [None, [1]], ids=["all heads", "one head"])
@pytest.mark.parametrize("old", [False, True], ids=["fused", "written out"])
def test_it_is_what_a_plain_processor_does(network, intervention, share, heads, old):
    """In double precision: the order of sums alone makes 1e-6 of difference in single."""
    call, network = called_in_double, network.double()
    layers, before = list(el.training_tokens(network))[:3], call(network)
    for layer in layers:
        if old:
            network.set_attn_processor(AttnProcessor())
        with ablated(network, intervention, layer, heads):
            found = call(network)
        module = network.get_submodule(layer)
        processor = module.processor
        module.set_processor(WithoutQueries(share, slice(None) if heads is None else heads))
        expected = call(network)
        module.set_processor(processor)
        assert found == pytest.approx(expected, abs=1e-6)
        assert not torch.equal(found, before)


def test_joint_text_keeps_its_keys_under_the_mean_key():
    """The processor with which twins of `mini-dit` are trained."""
    pipe = load("mini-dit")
    network, layers = pipe.transformer, list(el.training_tokens(pipe))[2:4]

    def latents():
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "output_type": "latent", "use_resolution_binning": False}
        return pipe("a lemon", generator=generator, **options).images

    with ablated(pipe, "mean key", layers):
        found = latents()
    for layer in layers:
        network.get_submodule(layer).set_processor(PlainProcessor(uniform=True))
    assert found == pytest.approx(latents(), abs=1e-4)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_on_any_exit_the_model_is_as_before(network, call, failure):
    before = call(network)
    with pytest.raises(failure), ablated(network, "removed"):
        call(network)
        raise failure
    assert torch.equal(call(network), before)


def test_it_stands_beside_a_rule_and_a_probe(network, call):
    with el.scaled(network, "power(3)"), ablated(network), el.EntropyProbe(network) as probe:
        call(network, 32, 32)
    assert probe.table().entropy_ratio.to_numpy() == pytest.approx(1)
    assert probe.table().logit_std.to_numpy() == pytest.approx(0)


@pytest.mark.parametrize("by", ["layer", "level", "head"])
def test_importance_has_a_row_for_each_part_and_picture(network, call, by):
    table = importance(network, lambda: call(network), by=by)
    layers = el.training_tokens(network)
    parts = {"layer": len(layers), "level": len(set(layers.values())), "head": 2 * len(layers)}[by]
    keys = ["layer", "head"] if by == "head" else [by]
    assert len(table) == 2 * parts
    means = cluster_mean(table, "change", keys, "image")
    assert (means.estimate > 0).all()
    assert (means.low <= means.estimate).all()
    if by == "layer":
        plain = call(network).flatten(1)
        with ablated(network, "uniform", means.layer[0]):
            apart = call(network).flatten(1) - plain
        expected = apart.square().mean(1).sqrt() / plain.std(1, correction=0)
        assert table.change[:2].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_cheap_estimate_is_the_norm_of_what_is_added(network, call):
    layer = next(iter(el.training_tokens(network)))
    seen = {}
    block = network.get_submodule(layer.rpartition(".")[0])
    block.register_forward_pre_hook(lambda _, args: seen.update(stream=args[0]))
    network.get_submodule(layer).register_forward_hook(lambda *each: seen.update(branch=each[2]))
    found = branch_over_stream(network, lambda: call(network), layer)
    expected = (seen["branch"].flatten(1).norm(dim=1) / seen["stream"].flatten(1).norm(dim=1)).mean()
    assert found[layer] == pytest.approx(float(expected), rel=1e-5)
    assert len(branch_over_stream(network, lambda: call(network))) == len(el.training_tokens(network))


@pytest.mark.parametrize("arguments", [{"intervention": "none"}, {"layers": "nowhere.*"}], ids=str)
def test_unknown_names_are_named(network, arguments):
    with pytest.raises(UnknownNameError, match="unknown"), ablated(network, **arguments):
        pass


def test_what_cannot_be_measured_is_said_before_or_at_once(network, call):
    def drawn():
        raise AssertionError("nothing may be generated")

    with pytest.raises(UnknownNameError, match="unknown part 'step'"):
        importance(network, drawn, by="step")
    with pytest.raises(InvalidInputError, match="has heads 0 to 1"), ablated(network, heads=[2]):
        pass
    with pytest.raises(InvalidInputError, match="fix prompts, seeds and noise"):
        importance(network, lambda: torch.randn(2, 4, 4))
    with pytest.raises(NotFiniteError):
        importance(network, lambda: torch.full((2, 4), torch.nan))
    with pytest.raises(InvalidInputError, match="one flat colour"):
        importance(network, lambda: torch.ones(2, 4))


def test_heads_within_heads_are_both_changed(network):
    name = next(iter(el.training_tokens(network)))
    network = network.double()
    with ablated(network, "mean key", name, heads=[0, 1]):
        both = called_in_double(network)
    with ablated(network, "mean key", name, heads=[0]), ablated(network, "mean key", name, heads=[1]):
        assert torch.allclose(called_in_double(network), both)


@pytest.mark.parametrize("estimate", [branch_over_stream, first_order])
def test_what_did_not_run_has_no_estimate(network, estimate):
    with pytest.raises(AttentionNotSeenError, match="did not run"):
        estimate(network, lambda: None)


def test_the_gradient_is_that_of_a_weight_on_what_attention_gives(network, call):
    """Against central differences of the whole output, whose size the random weights estimate."""
    network, layer = network.double(), next(iter(el.training_tokens(network)))
    plain, change = called_in_double(network), []
    for weight in (1 + 1e-4, 1 - 1e-4):
        with listening(network, Weighted(layer, weight)):
            change.append(called_in_double(network))
    slope = (change[0] - change[1]) / 2e-4
    expected = (slope.flatten(1).square().mean(1) / plain.flatten(1).var(1, correction=0)).mean().sqrt()
    seeds = range(200)
    found = [first_order(network, lambda: called_in_double(network), layer, seed)[layer] for seed in seeds]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(float(expected), rel=0.2)
    assert not called_in_double(network).requires_grad
