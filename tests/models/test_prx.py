"""A network whose queries are the image's and whose keys are text's, too, some of them masked; its config
knows no native size.
"""

import numpy as np
import pytest
import torch
from tiny_prx import prx
from torch.nn import functional

import entropy_lib as el
from entropy_lib.errors import InvalidInputError

PROMPTS = ["a zebra", "a cup of tea and a much longer caption"]


@pytest.fixture(scope="module")
def pipe():
    return prx()


def draw(pipe, size="64x64", rule=None, **options):
    height, width = map(int, size.split("x"))
    return el.generate(
        pipe, PROMPTS, [0, 1], (height, width), rule, batch=1, **{"steps": 2, "guidance": 3.0} | options
    )


def test_the_native_size_is_that_of_the_pipeline(pipe):
    assert el.native_size(pipe) == (64, 64)
    assert set(el.training_tokens(pipe, text_tokens=24).values()) == {16 + 24}


def test_a_bare_network_asks_for_the_size_by_the_name_of_the_parameter(pipe):
    for ask in (lambda: el.EntropyProbe(pipe.transformer), lambda: el.apply_scale(pipe.transformer, "paper")):
        with pytest.raises(InvalidInputError, match="`latent_size`, height and width in latent pixels"):
            ask()
    assert el.EntropyProbe(pipe.transformer, latent_size=(8, 8)).layers == list(el.training_tokens(pipe))


def test_native_size_is_the_identity_bit_for_bit(pipe):
    plain = draw(pipe)
    with el.EntropyProbe(pipe) as probe:
        assert np.array_equal(draw(pipe, rule="paper"), plain)
    table = probe.table()
    assert (table.factor == 1).all()
    assert (table.tokens == table.training_tokens).all()
    assert set(table.attends) == {"image+text"}
    assert set(zip(table.height, table.width, strict=True)) == {(4, 4)}
    assert np.array_equal(draw(pipe), plain)


def test_masked_text_counts_neither_in_n_nor_in_t(pipe):
    with el.scaled(pipe, "power(2)"), el.EntropyProbe(pipe, per_image=True) as probe:
        draw(pipe, "64x96")
    table = probe.table()
    seen = pipe.tokenizer(
        ["", *PROMPTS], padding="max_length", max_length=24, truncation=True, return_attention_mask=True
    )
    text = {("uncond", 0): 0, ("uncond", 1): 0, ("cond", 0): 1, ("cond", 1): 2}
    for (branch, image), which in text.items():
        part = table[(table.branch == branch) & (table.image == image)]
        unmasked = sum(seen["attention_mask"][which])
        assert set(part.tokens) == {24 + unmasked}, (branch, image)
        assert set(part.training_tokens) == {16 + unmasked}
        assert part.factor.to_numpy() == pytest.approx(
            el.rule("power(2)").factor(24 + unmasked, 16 + unmasked), rel=1e-6
        )


def test_rows_of_one_batch_may_differ(pipe):
    """What reaches the kernel, and the entropy over the keys that the mask leaves, by hand."""
    network, calls, plain = pipe.transformer, [], functional.scaled_dot_product_attention
    torch.manual_seed(1)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 3:] = False
    inputs = {
        "hidden_states": torch.randn(2, 4, 12, 8),
        "timestep": torch.full((2,), 0.5),
        "attention_mask": mask,
    }
    inputs["encoder_hidden_states"] = torch.randn(2, 7, 32)

    def keeping(query, key, value, attn_mask=None, scale=None, **kwargs):
        if not query.is_meta:
            weights = query.double() @ key.double().mT * (scale or query.shape[-1] ** -0.5)
            weights = weights.masked_fill(~attn_mask, -torch.inf).softmax(-1)
            calls.append(torch.special.entr(weights).sum(-1).mean(-1))
        return plain(query, key, value, attn_mask=attn_mask, scale=scale, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(functional, "scaled_dot_product_attention", keeping)
        with (
            el.scaled(network, "power(3)", latent_size=(8, 8)),
            el.EntropyProbe(network, per_image=True) as probe,
        ):
            network(**inputs)
    table = probe.table()
    for layer, entropy in zip(probe.layers, calls, strict=True):
        for image, text in ((0, 7), (1, 3)):
            part = table[(table.layer == layer) & (table.image == image)].sort_values("head")
            assert set(part.tokens) == {24 + text}
            assert part.entropy.to_numpy() == pytest.approx(entropy[image].numpy(), abs=1e-5)
            assert part.factor.to_numpy() == pytest.approx(
                el.rule("power(3)").factor(24 + text, 16 + text), rel=1e-6
            )


def test_all_probes_and_rules_go_with_it(pipe):
    found = el.sampling.calibration_run.calibrate(pipe, PROMPTS[:1], [0], steps=2, guidance=3.0, rows=None)
    assert set(found.layers) == set(el.training_tokens(pipe))
    for rule in ("power(30)[0]", "power(30)@0-0.5", "power(30)"):
        assert not np.array_equal(draw(pipe, "64x96", rule), draw(pipe, "64x96")), rule
    with el.LogitProbe(pipe, rows=4) as shape, el.probes.MapProbe(pipe) as maps:
        draw(pipe, "64x96")
    assert shape.table().entropy.notna().all()
    assert {each.entropy.shape for each in maps.maps} == {(4, 6)}
    assert all(0 < each.weights.sum() < 1 for each in maps.maps), "text has its share"


def test_maps_are_those_of_the_picture(pipe):
    """The image's keys come after the text's: a key made to be looked at is found where it stands."""
    network = pipe.transformer
    torch.manual_seed(2)
    text = torch.randn(1, 5, 32)
    states = torch.zeros(1, 4, 8, 8)
    states[..., 2:4, 4:6] = 3.0  # token (1, 2) of 4 x 4
    kept, plain = [], functional.scaled_dot_product_attention

    def keeping(query, key, *args, **kwargs):
        if not query.is_meta:
            kept.append((query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)[0].mean(0)[:, 5:])
        return plain(query, key, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(functional, "scaled_dot_product_attention", keeping)
        with el.probes.MapProbe(network, place=(0.3, 0.6), latent_size=(8, 8)) as probe:
            network(hidden_states=states, timestep=torch.tensor([0.5]), encoder_hidden_states=text)
    for shown, weights in zip(probe.maps, kept, strict=True):
        assert shown.query == (1, 2)
        assert np.allclose(shown.weights, weights[6].reshape(4, 4), atol=1e-6)
