import copy

import pytest
import torch
from peft import LoraConfig
from plain_attention import ScalePassed
from torch.nn import functional

import entropy_lib as el
from entropy_lib.errors import (
    InvalidInputError,
    ScaleNotAppliedError,
    UnknownNameError,
    UnsupportedModelError,
)
from entropy_lib.scaling.patch import applied_rule


@pytest.mark.parametrize("size", [(8, 8), (24, 24), (25, 13), (32, 16)])
@pytest.mark.parametrize("name", ["paper", "power(2)", "gamma(1.4)"])
def test_patched_output_is_that_of_another_softmax_scale(network, call, size, name):
    unscaled, training = call(network, *size), el.training_tokens(network)
    expected_network = copy.deepcopy(network)
    with el.scaled(network, name):
        patched = call(network, *size)
        report = el.scale_report(network).set_index("layer")
    assert (report.calls == 1).all()
    for layer, row in report.iterrows():
        factor = el.rule(name).factor(int(row.tokens), training[layer])
        assert row.factor == factor
        expected_network.get_submodule(layer).set_processor(ScalePassed(factor))
    assert torch.allclose(patched, call(expected_network, *size), atol=1e-5)
    assert not torch.allclose(patched, unscaled, atol=1e-6), "a rule that changes nothing proves nothing"


def test_applying_returns_the_model(pipe, network):
    for model in (pipe, network):
        assert el.apply_scale(model, "paper") is model
        el.remove_scale(model)
        with el.scaled(model, "paper") as given:
            assert given is model


@pytest.mark.parametrize(
    "size", [(0, 5), (-1, 5), (5,), (5, 5, 5, 5), 25, "25", (2.5, 5), ("a", "b"), [None, 5]], ids=str
)
def test_a_latent_size_that_is_none_is_refused_before_anything_changes(network, size):
    before = hooks(network)
    for ask, given in ((el.apply_scale, ["paper"]), (el.training_tokens, [])):
        with pytest.raises(InvalidInputError, match=r"latent_size is .*height and width in latent pixels"):
            ask(network, *given, latent_size=size)
    assert hooks(network) == before


@pytest.mark.parametrize("model", [None, "mini", 3, object()], ids=lambda model: type(model).__name__)
def test_what_is_no_model_is_refused(model):
    apply = lambda model: el.apply_scale(model, "paper")  # noqa: E731
    for function in (el.remove_scale, el.scale_report, el.training_tokens, apply):
        with pytest.raises(UnsupportedModelError, match="expected a diffusers pipeline"):
            function(model)


def test_identity_at_training_size_is_bit_for_bit(network, call):
    unscaled = call(network)
    with el.scaled(network, "paper"):
        assert torch.equal(call(network), unscaled)


def test_only_self_attention_is_scaled(network, call):
    with el.scaled(network, "power(3)"):
        patched = call(network, 32, 32)
        assert all(layer.endswith("attn1") for layer in el.scale_report(network).layer)
    scales = {}
    plain = functional.scaled_dot_product_attention

    def keeping(query, key, value, *args, scale=None, **kwargs):
        scales.setdefault(key.shape[-2] == query.shape[-2], set()).add(scale)
        return plain(query, key, value, *args, scale=scale, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", keeping)
        with el.scaled(network, "power(3)"):
            assert torch.equal(call(network, 32, 32), patched)
    assert scales[False] == {None}
    assert None not in scales[True]


def test_applying_twice_is_applying_once(network, call):
    el.apply_scale(network, "paper")
    once = call(network, 32, 32)
    el.apply_scale(network, "paper")
    assert torch.equal(call(network, 32, 32), once)


def hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_everything_is_restored(network, call):
    unscaled, before = call(network, 32, 32), hooks(network)
    el.apply_scale(network, "paper")
    call(network, 32, 32)
    el.remove_scale(network)
    el.remove_scale(network)  # a second removal does nothing
    assert hooks(network) == before
    assert torch.equal(call(network, 32, 32), unscaled)
    assert el.scale_report(network).empty


def test_restored_when_the_block_or_the_model_fails(network, call):
    unscaled, before = call(network, 32, 32), hooks(network)
    with pytest.raises(KeyError), el.scaled(network, "paper"):
        call(network, 32, 32)
        raise KeyError
    with pytest.raises(RuntimeError), el.scaled(network, "paper"):
        network(torch.zeros(1, 3, 8, 8), 0, torch.zeros(1, 7, 24))
    assert hooks(network) == before
    assert torch.equal(call(network, 32, 32), unscaled)


def test_a_block_restores_the_patch_it_found(network, call):
    el.apply_scale(network, "paper", "down_blocks.*")
    outer = call(network, 32, 32)
    with el.scaled(network, "power(2)"):
        assert not torch.equal(call(network, 32, 32), outer)
    assert torch.equal(call(network, 32, 32), outer)
    assert all(layer.startswith("down") for layer in el.scale_report(network).layer)


def test_models_side_by_side_do_not_mix(network, call):
    other = copy.deepcopy(network)
    unscaled = call(network, 32, 32)
    with el.scaled(network, "paper"):
        scaled = call(network, 32, 32)
        assert torch.equal(call(other, 32, 32), unscaled)
        with el.scaled(other, "power(2)"):
            assert torch.equal(call(network, 32, 32), scaled)
    assert el.scale_report(other).empty


def test_a_lora_that_comes_after_the_patch_is_scaled_too(network, call):
    el.apply_scale(network, "power(2)")
    call(network, 32, 32)  # the hook now sits on the layer that LoRA is about to wrap
    torch.manual_seed(3)
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    with el.EntropyProbe(network) as probe:
        call(network, 32, 32)
    table = probe.table()
    counts = zip(table.tokens, table.training_tokens, strict=True)
    expected = [el.rule("power(2)").factor(*count) for count in counts]
    assert table.factor.to_numpy() == pytest.approx(expected, rel=1e-4)


def test_a_processor_without_a_softmax_kernel_is_refused(network, call):
    class Bypass(ScalePassed):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
            query = functional.linear(hidden_states, attn.to_q.weight)
            return attn.to_out[0](query)

    network.mid_block.attentions[0].transformer_blocks[0].attn1.set_processor(Bypass(1))
    with pytest.raises(ScaleNotAppliedError, match="processor Bypass"), el.scaled(network, "paper"):
        call(network, 32, 32)


def test_one_token_is_left_alone(network, call):
    with el.scaled(network, "paper"):
        output = call(network, 1, 1)
        assert (el.scale_report(network).factor == 1).all()
    assert output.isfinite().all()


def test_unknown_names_are_refused_before_anything_changes(network):
    before = hooks(network)
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        el.apply_scale(network, "papper")
    with pytest.raises(UnknownNameError, match="unknown layer"):
        el.apply_scale(network, "paper", "down_block.*")
    assert hooks(network) == before


def test_a_rule_for_none_of_the_layers_is_refused_and_an_earlier_one_stays(network, call):
    el.apply_scale(network, "paper")
    with pytest.raises(InvalidInputError, match="for none of the chosen layers: layers is 'mid_block"):
        el.apply_scale(network, "power(2)[0]", layers="mid_block*")
    assert applied_rule(network).name == "paper"
