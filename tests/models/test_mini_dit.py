"""The transformer that is nothing but attention: its parts are diffusers' own, and its gate asks for a
function.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DiffusionPipeline
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.models.prx import mend_batches
from entropy_lib.scenes import scenes
from training import gate, loop, masked_text_encoder, mini_dit, naming, pictures, transformer


@pytest.fixture(scope="module")
def tokenizer():
    return masked_text_encoder.build_tokenizer()


@pytest.fixture
def network():
    """A denoiser in which every weight matters: what starts at zero is drawn at random."""
    torch.manual_seed(0)
    model = transformer.build().eval()
    for parameter in model.parameters():
        if parameter.count_nonzero() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def call():
    random = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 32, dtype=torch.bool)
    mask[0, 20:] = False
    latents, text = torch.randn(2, 4, 16, 12, generator=random), torch.randn(2, 32, 192, generator=random)
    return latents, torch.tensor([0.3, 0.8]), text, mask


def test_the_simple_world_is_a_part_of_the_full_one():
    assert len(scenes.SIMPLE.names) == 24
    assert set(scenes.captions(scenes.SIMPLE)) < set(scenes.captions())
    drawn = [scenes.scene(number, "test", scenes.SIMPLE) for number in range(200)]
    assert {one.caption for one in drawn} <= set(scenes.captions(scenes.SIMPLE))
    assert {thing.design for one in drawn for thing in one.things} == {"twemoji"}


def test_every_prompt_ends_with_the_portrait(tokenizer):
    long = "two owls on an orange background " * 9
    ids, mask = masked_text_encoder.encode(tokenizer, ["", "an owl", "zebra?", long])
    portrait = tokenizer.convert_tokens_to_ids(masked_text_encoder.PORTRAIT)
    for row, keep in zip(ids, mask, strict=True):
        assert row[keep][-16:].tolist() == portrait
        assert row[keep][0] == tokenizer.bos_token_id
    assert mask.sum(1).tolist() == [18, 20, 24, 32]


def test_training_sees_the_attention_that_the_pipeline_computes(network, call):
    with torch.no_grad():
        theirs = network(*call).sample
        network.set_attn_processor(transformer.PlainProcessor())
        ours = network(*call).sample
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert theirs.std() > 0.1


def test_uniform_attention_gives_every_image_token_the_same_weight(network):
    attention = network.blocks[0].attention
    torch.manual_seed(2)
    hidden, text = torch.randn(1, 12, 192), torch.randn(1, 5, 192)
    places = network.pe_embedder(torch.stack([torch.arange(12.0) // 4, torch.arange(12.0) % 4], -1)[None])
    attention.set_processor(transformer.PlainProcessor(uniform=True))
    with torch.no_grad():
        given = attention(hidden, encoder_hidden_states=text, image_rotary_emb=places)
        query, key, value = attention.img_qkv_proj(hidden)[0].unflatten(-1, (3, 6, 32)).unbind(1)
        text_key, text_value = attention.txt_kv_proj(text)[0].unflatten(-1, (2, 6, 32)).unbind(1)
        query, key = attention.norm_q(query), attention.norm_k(key)
        expected = torch.empty(12, 6, 32)
        for head in range(6):
            turned = [
                transformer.apply_rope(part[:, head][None, None], places)[0, 0] for part in (query, key)
            ]
            logits = (
                turned[0] @ attention.norm_added_k(text_key[:, head]).T,
                (turned[0] @ turned[1].mean(0))[:, None].expand(12, 12),
            )
            weights = functional.softmax(torch.cat(logits, -1) / 32**0.5, -1)
            assert torch.allclose(weights[:, 5:], weights[:, 5:6].expand(12, 12))
            expected[:, head] = weights @ torch.cat([text_value[:, head], value[:, head]])
        expected = attention.to_out[0](expected.flatten(1))
    assert torch.allclose(given[0], expected, atol=1e-5)


def test_it_trains_and_resumes(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(transformer, "BATCH", 4)
    encoder = masked_text_encoder.build_encoder(tokenizer).eval()
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    recipe = transformer.Recipe()
    transformer.train(tmp_path / "a.safetensors", recipe, latents, encoder, 2)
    trained = transformer.train(tmp_path / "a.safetensors", recipe, latents, encoder, 3)
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    exported = loop.averaged(tmp_path / "a.safetensors", transformer.build()).state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in trained.state_dict().items())
    with pytest.raises(WeightsError, match="train first"):
        loop.averaged(tmp_path / "nothing.safetensors", transformer.build())


def test_a_pipeline_of_its_parts_is_diffusers_own(tmp_path, tokenizer, network, monkeypatch):
    monkeypatch.setattr(mini_dit, "encoder", lambda: masked_text_encoder.build_encoder(tokenizer).eval())
    mini_dit.pipeline(network).save_pretrained(tmp_path, safe_serialization=True)
    pipe = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    mend_batches(pipe).set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 2, "output_type": "np", "use_resolution_binning": False}
    for height, width in ((64, 64), (32, 96)):
        images = pipe(["an owl", "words it never saw"], height=height, width=width, **arguments).images
        assert images.shape == (2, height, width, 3)
        assert np.isfinite(images).all()
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = pipe(["an owl", "two owls"], height=64, width=64, generator=seeds, **arguments).images
    # as diffusers has it, one prompt at a time
    alone = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    alone = alone(
        "two owls", height=64, width=64, generator=torch.Generator().manual_seed(1), **arguments
    ).images
    assert np.abs(both[1] - alone[0]).max() < 1e-4
    assert not list(tmp_path.rglob("*.bin"))
    with pytest.raises(ValueError, match="divisible by 8"):
        pipe("an owl", height=60, width=64, **arguments)


def test_the_gate_asks_for_a_function():
    def report(one, native, ablated, twin, seen):
        exact = {
            "as it is": native,
            "its attention made uniform": ablated,
            "twin trained with uniform attention": twin,
        }
        quality = {"one thing, exactly": one, "two things, exactly": 0.9, "colour of the ground": 1.0}
        named = {"named without the prompt": {"share": seen}}
        return named | {
            kind: {k: {"share": v} for k, v in d.items()}
            for kind, d in (("quality", quality), ("exact", exact))
        }

    assert all(gate.gate(report(0.96, 0.94, 0.1, 0.4, 0.9)).values())
    found = gate.gate(report(0.94, 0.94, 0.48, 0.8, 0.89))
    assert list(found.values()) == [False, True, True, False, False, False]


def test_without_a_twin_the_gate_does_not_say_that_attention_is_needed():
    shares = {"as it is": {"share": 0.9}, "its attention made uniform": {"share": 0.1}}
    quality = {name: {"share": 1.0} for name in gate.BARS}
    found = gate.gate({"exact": shares, "quality": quality, "named without the prompt": {"share": 1.0}})
    assert [value for name, value in found.items() if "twin" in name] == [None]


def test_the_card_is_what_was_measured():
    report = json.loads((mini_dit.MODEL / "quality.json").read_text(encoding="utf-8"))
    assert report["gate"] == gate.gate(report)
    assert gate.card_tables(report) in (mini_dit.MODEL / "README.md").read_text(encoding="utf-8")
    assert report["named without the prompt"] == gate.named()
    named = pd.read_csv(gate.NAMED)
    pd.testing.assert_frame_equal(named, naming.with_labels(named))


@pytest.mark.parametrize("seen", ["rocket", None])
def test_labels_that_are_no_names_are_refused(seen):
    labels = pd.read_csv(gate.NAMED).assign(seen=lambda table: table.seen.where(table.number != 7, seen))
    with pytest.raises(InvalidInputError, match=r"labels hold .* give one of apple"):
        naming.with_labels(labels)


def test_made_uniform_and_back(network, call):
    pipe = type("Pipe", (), {"transformer": network})
    with torch.no_grad():
        before = network(*call).sample
        with gate.uniform(pipe, [3]):
            one = network(*call).sample
        with gate.uniform(pipe):
            every = network(*call).sample
        assert torch.equal(network(*call).sample, before)
    assert 0 < (one - before).abs().mean() < (every - before).abs().mean()


def test_scenes_of_the_simple_world_are_drawn_apart(tmp_path):
    simple, full = (pictures.drawn(3, folder=tmp_path, world=world) for world in (scenes.SIMPLE, scenes.FULL))
    assert not np.array_equal(simple, full)
    assert np.array_equal(simple[2], scenes.draw(scenes.scene(2, world=scenes.SIMPLE), 64, 64))
