import warnings
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from plain_attention import ScalePassed
from torch.nn import functional

import entropy_lib as el
from entropy_lib.errors import AttentionNotSeenError, EntropyLibError, InvalidInputError, ScaleNotAppliedError

COLUMNS = [
    "layer", "attends", "height", "width", "tokens", "training_tokens", "step", "timestep", "branch", "head",
    "rows", "entropy", "entropy_std", "entropy_ratio", "logit_std", "gaussian_entropy", "beyond_freezing",
    "factor",
]  # fmt: skip
PROBES = [el.EntropyProbe, el.LogitProbe]


def paper_factors(table):
    counts = zip(table.tokens, table.training_tokens, strict=True)
    return [el.rule("paper").factor(*count) for count in counts]


class FormsTheMap(AttnProcessor):
    """The plain attention of diffusers, keeping every map that it forms: an oracle that shares nothing with
    the probe.
    """

    def __init__(self):
        super().__init__()
        self.maps = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        if encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
        plain = attn.get_attention_scores

        def keeping(*arguments):
            weights = plain(*arguments)
            # logits, but for a constant of each row
            self.maps.append(weights.double().log().unflatten(0, (-1, attn.heads)))
            return weights

        attn.get_attention_scores = keeping
        output = super().__call__(attn, hidden_states, **kwargs)
        del attn.get_attention_scores
        return output


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_table_agrees_with_the_formed_maps(network, call, size):
    with el.scaled(network, "paper"):
        with el.EntropyProbe(network) as probe:
            call(network, *size)
        oracle = FormsTheMap()
        network.set_attn_processor(oracle)
        call(network, *size)
    table = probe.table()
    assert table.layer.nunique() == len(oracle.maps)
    for (_, part), logits in zip(table.groupby("layer", sort=False), oracle.maps, strict=True):
        log_weight = logits.log_softmax(-1)
        entropy = -(log_weight.exp() * log_weight).sum(-1)  # [batch, heads, rows]
        heads = entropy.transpose(0, 1).flatten(1)
        assert np.allclose(part.entropy, heads.mean(1), atol=1e-5)
        assert np.allclose(part.entropy_std, heads.std(1, correction=0), atol=1e-4)
        variance = logits.var(-1, correction=0).transpose(0, 1).flatten(1).mean(1)
        assert np.allclose(part.logit_std, variance.sqrt(), rtol=1e-3)
        assert (part["rows"] == heads.shape[1]).all()
        assert (part.height * part.width == part.tokens).all()


def test_columns_and_relations(network, call):
    with el.EntropyProbe(network) as probe:
        call(network, 24, 24)
    table = probe.table()
    assert list(table.columns) == COLUMNS
    assert np.allclose(table.entropy_ratio, table.entropy / np.log(table.tokens))
    assert np.allclose(table.gaussian_entropy, np.log(table.tokens) - table.logit_std**2 / 2)
    assert (table.branch == "all").all()
    assert table.factor.to_numpy() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("first", ["patch", "probe"])
def test_patch_and_probe_have_one_source_of_training_tokens(network, call, first):
    with ExitStack() as stack:
        if first == "patch":
            stack.enter_context(el.scaled(network, "paper", latent_size=(25, 25)))
        probe = stack.enter_context(el.EntropyProbe(network))
        if first == "probe":
            stack.enter_context(el.scaled(network, "paper", latent_size=(25, 25)))
        call(network, 32, 24)
        report = el.scale_report(network).set_index("layer").training_tokens
    table = probe.table()
    assert set(table.training_tokens) == {625, 169}
    assert (table.training_tokens == table.layer.map(report)).all()
    assert table.factor.to_numpy() == pytest.approx(paper_factors(table), rel=1e-5)


def test_the_training_size_goes_with_the_patch(network):
    native = el.training_tokens(network)
    with el.scaled(network, "paper", latent_size=(25, 25)):
        given = el.training_tokens(network)
        with el.scaled(network, "power(2)"):
            assert el.training_tokens(network) == given, (
                "another rule does not change what the model was trained on"
            )
        assert el.training_tokens(network) == given
    assert el.training_tokens(network) == native != given


@pytest.mark.parametrize("order", ["patch first", "probe first"])
def test_a_patch_and_a_probe_that_disagree_on_the_training_size_are_refused(network, call, order):
    """The probe would have gone by the patch's size, whatever it was given."""
    second = el.EntropyProbe(network, latent_size=(8, 8))
    with ExitStack() as stack:
        blocks = [el.scaled(network, "paper", latent_size=(25, 25)), second]
        for each in blocks if order == "patch first" else blocks[::-1]:
            stack.enter_context(each)
        with pytest.raises(InvalidInputError, match=r"latent_size is \(8, 8\).*patch.* \(25, 25\)"):
            call(network, 32, 32)
    with el.scaled(network, "paper", latent_size=(8, 8)), second:
        call(network, 32, 32)
    assert set(second.table().training_tokens) == {64, 16}


def test_factor_sees_a_scale_that_the_patch_knows_nothing_of(network, call):
    layer = next(iter(el.training_tokens(network)))
    network.get_submodule(layer).set_processor(ScalePassed(2))
    with el.EntropyProbe(network, layers=layer) as probe:
        call(network)
    assert probe.table().factor.to_numpy() == pytest.approx(2, rel=1e-6)
    with pytest.raises(ScaleNotAppliedError, match="rescaled already"), el.scaled(network, "paper"):
        call(network, 24, 24)


def test_images_are_the_same_bit_for_bit_with_the_probe(pipe):
    def generate():
        return el.generate(pipe, ["a penguin, fluent style"], [0], (32, 48), method="paper", steps=3)

    plain = generate()
    with el.EntropyProbe(pipe):
        assert np.array_equal(generate(), plain)
    with el.EntropyProbe(pipe, rows=4, per_image=True):
        assert np.array_equal(generate(), plain)


def test_branches_steps_and_layers_of_a_guided_run(pipe):
    with el.EntropyProbe(pipe) as probe:
        el.generate(pipe, ["a penguin", "an owl"], [0, 1], (32, 32), steps=3)
    table = probe.table()
    assert set(table.branch) == {"cond", "uncond"}
    assert sorted(table.step.unique()) == [0, 1, 2]
    assert table.timestep.is_monotonic_decreasing
    assert len(table) == 3 * 2 * sum(pipe.unet.get_submodule(name).heads for name in el.training_tokens(pipe))
    assert not table.duplicated(["layer", "step", "branch", "head"]).any()
    assert (table["rows"] == 2 * table.tokens).all()


def test_the_conditional_half_is_the_second_one(pipe):
    with el.EntropyProbe(pipe) as guided:
        el.generate(pipe, ["a penguin"], [0], (32, 32), steps=1, guidance=2.0)
    with el.EntropyProbe(pipe) as alone:
        el.generate(pipe, ["a penguin"], [0], (32, 32), steps=1, guidance=0.0)
    assert set(alone.table().branch) == {"all"}
    conditional = guided.table().query("branch == 'cond'").entropy.to_numpy()
    unconditional = guided.table().query("branch == 'uncond'").entropy.to_numpy()
    assert np.allclose(conditional, alone.table().entropy, atol=1e-4)
    assert not np.allclose(unconditional, alone.table().entropy, atol=1e-4)


def test_images_of_a_batch_are_told_apart(pipe):
    prompts, seeds = ["a penguin", "an owl", "a rocket"], [0, 1, 2]
    with el.EntropyProbe(pipe, per_image=True) as probe:
        el.generate(pipe, prompts, seeds, (32, 32), steps=2, batch=2)
    together = probe.table()
    assert sorted(together.image.unique()) == [0, 1, 2]
    with el.EntropyProbe(pipe) as probe:
        el.generate(pipe, prompts[2:], seeds[2:], (32, 32), steps=2)
    assert np.allclose(together[together.image == 2].entropy, probe.table().entropy, atol=1e-4)
    with el.EntropyProbe(pipe) as probe:
        el.generate(pipe, prompts, seeds, (32, 32), steps=2)
    mean = together.groupby(["step", "layer", "branch", "head"]).entropy.mean()
    assert np.allclose(
        probe.table().set_index(["step", "layer", "branch", "head"]).entropy.reindex(mean.index),
        mean,
        atol=1e-4,
    )


def test_rows_sample_the_same_mean(pipe):
    def mean(rows):
        with el.EntropyProbe(pipe, rows=rows) as probe:
            el.generate(pipe, ["a penguin"], [0], (64, 64), steps=2)
        return probe.table()

    every, some = mean(None), mean(32)
    assert (some["rows"] == some.tokens.clip(upper=32)).all()
    assert some.entropy.mean() == pytest.approx(every.entropy.mean(), abs=0.1)


def test_layers_are_selected_and_rows_that_cannot_be_refused(network, call):
    with el.EntropyProbe(network, layers="mid_block.*") as probe:
        call(network)
    assert probe.table().layer.str.startswith("mid_block").all()
    with pytest.raises(ValueError, match="rows"):
        el.EntropyProbe(network, rows=0)


class ByHand(AttnProcessor2_0):
    """Forms the softmax itself, without any kernel."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        weights = (attn.to_q(hidden_states) @ attn.to_k(source).mT).softmax(-1)
        return attn.to_out[0](weights @ attn.to_v(source))


def test_attention_that_cannot_be_seen_is_an_error_and_the_model_is_restored(network, call):
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    network.set_attn_processor(ByHand())
    with pytest.raises(AttentionNotSeenError, match="AttnProcessor2_0"), el.EntropyProbe(network):
        call(network)
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()] == before


class Masked(AttnProcessor2_0):
    """Attends with a mask: zeros, but for the last quarter of the keys."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs):
        if encoder_hidden_states is None:
            attention_mask = torch.zeros(len(hidden_states), 1, hidden_states.shape[1])
            attention_mask[..., -hidden_states.shape[1] // 4 :] = self.last
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)


@pytest.mark.parametrize("probe", PROBES)
def test_a_mask_that_hides_keys_is_refused(network, call, probe):
    """N differs from row to row: Eq. 5, H / ln N and the variance over all keys would speak of other keys
    than the entropy.
    """
    network.set_attn_processor(Masked(-torch.inf))
    with pytest.raises(EntropyLibError, match=r"'down_blocks\.0.* was called with a mask"), probe(network):
        call(network)


@pytest.mark.parametrize("probe", PROBES)
def test_a_mask_that_hides_nothing_changes_nothing(network, call, probe):
    with probe(network) as plain:
        call(network)
    network.set_attn_processor(Masked(0.0))
    with probe(network) as masked:
        call(network)
    pd.testing.assert_frame_equal(masked.table(), plain.table(), rtol=1e-4)


@pytest.mark.parametrize("probe", PROBES)
def test_all_probes_lay_out_their_tables_alike(pipe, probe):
    """The same places in the same order; images in a column of their own where they are kept apart, and
    nowhere else.
    """
    with probe(pipe, rows=2) as together, probe(pipe, rows=2, per_image=True) as apart:
        el.generate(pipe, ["a penguin", "an owl", "a rocket"], [0, 1, 2], (32, 32), steps=2, batch=2)
    place = COLUMNS[:11]
    assert list(together.table().columns[:11]) == place
    assert list(apart.table().columns[:12]) == [*place[:9], "image", *place[9:]]
    table = apart.table()
    assert table.image.is_monotonic_increasing
    assert table[table.image == 2].step.is_monotonic_increasing
    assert list(table.layer.unique()) == together.layers


@pytest.mark.parametrize("probe", [*PROBES, el.probes.MassProbe])
def test_a_model_that_was_called_elsewhere_is_an_error(pipe, probe):
    with probe(pipe) as left_alone:
        pass
    el.generate(pipe, ["a penguin"], [0], (32, 32), steps=2)
    for table in (left_alone.table, *([left_alone.quantiles] if hasattr(left_alone, "quantiles") else [])):
        with pytest.raises(AttentionNotSeenError, match="was not called inside its `with` block"):
            table()


def test_images_are_counted_through_batches_of_one_step_and_further_blocks(pipe):
    probe = el.EntropyProbe(pipe, rows=2, per_image=True)
    for seed in (0, 2):
        with probe:
            el.generate(pipe, ["a penguin", "an owl"], [seed, seed + 1], (32, 32), steps=1, batch=1)
    assert sorted(probe.table().image.unique()) == [0, 1, 2, 3]


def test_probes_nest(network, call):
    with el.EntropyProbe(network) as outer, el.EntropyProbe(network, layers="mid_block.*") as inner:
        call(network)
    expected = outer.table().query("layer.str.startswith('mid_block')").entropy
    # to rounding: layers are measured together, and here with others than there
    assert inner.table().entropy.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-6)


def test_a_run_that_failed_leaves_nothing_behind_for_the_next(pipe):
    def fail(*_):
        raise InterruptedError

    layer, kernel = (
        pipe.unet.get_submodule(next(iter(el.training_tokens(pipe)))),
        functional.scaled_dot_product_attention,
    )
    with el.EntropyProbe(pipe) as probe:
        hook = layer.to_out[0].register_forward_hook(fail)
        with pytest.raises(InterruptedError):
            el.generate(pipe, ["a penguin"], [0], (32, 32), steps=1)
        hook.remove()
        assert functional.scaled_dot_product_attention is kernel, (
            "the text encoder's would be taken for a layer's"
        )
        el.generate(pipe, ["a penguin"], [0], (32, 32), steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a call that failed is no step that layers were left out of
        assert set(probe.table().tokens) == {64, 16, 4}


UNCONDITIONAL = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
    "block_out_channels": (16, 32), "attention_head_dim": 8, "norm_num_groups": 8,
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
}  # fmt: skip
CLASSES = {
    "no class": ({}, None),
    "a class": ({"num_class_embeds": 10}, torch.tensor([3, 4])),
    "an embedding": ({"class_embed_type": "identity"}, torch.zeros(2, 64)),
    "a time": ({"class_embed_type": "timestep"}, torch.tensor([3, 4])),
}


@pytest.mark.parametrize(("config", "labels"), CLASSES.values(), ids=CLASSES)
def test_a_network_without_text_is_measured_and_scaled(config, labels):
    """Its attention is over images of four axes."""
    torch.manual_seed(0)
    network = UNet2DModel(**UNCONDITIONAL, **config).eval()
    options = {} if labels is None else {"class_labels": labels}
    assert set(el.training_tokens(network).values()) == {256, 64}
    with torch.no_grad(), el.scaled(network, "paper"), el.EntropyProbe(network) as probe:
        network(torch.randn(2, 4, 16, 24), torch.tensor(500), **options)
    table = probe.table()
    assert table.factor.to_numpy() == pytest.approx(paper_factors(table), rel=1e-5)
    with torch.no_grad(), el.EntropyProbe(network) as native:
        network(torch.randn(2, 4, 16, 16), torch.tensor(500), **options)
    layers = el.sampling.native_layers(native.table().assign(size="64x64", rule="unscaled"))
    assert (layers.logit_std > 0).all()
