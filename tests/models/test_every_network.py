"""Every network class that can be built tiny: patch and probe against a witness at the kernel."""

import diffusers
import pytest
import torch
from tiny_networks import OWN, classes, tiny
from torch.utils._pytree import tree_map
from witness import self_attention, witness

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, ScaleNotAppliedError, UnsupportedModelError
from entropy_lib.files import ROOT
from entropy_lib.models.layers import layers_at
from entropy_lib.models.networks import family
from entropy_lib.models.recording import recording

pytestmark = pytest.mark.slow
NATIVE, WIDE, RULE = (8, 8), (8, 16), "power(3)"
SQUARE = ("DiTTransformer2DModel",)  # takes no other shape


def arguments(network, size, frames=1):
    known = family(network)
    inputs = known.inputs(dict(network.config), *size, known.text_tokens and 24, frames=frames)
    generator = torch.Generator().manual_seed(1)

    def drawn(value):
        if isinstance(value, torch.Tensor) and value.dtype == torch.long and value.ndim == 3:
            return torch.randint(16, value.shape, generator=generator)  # codes in place of latents
        noise = (
            isinstance(value, torch.Tensor)
            and value.is_floating_point()
            and value.ndim > 1
            and value.shape[-1] > 4
        )
        return torch.randn(value.shape, generator=generator) if noise else value

    kept = ("_ids", "mask", "mask_t5", "rope_pos")
    return {name: value if name.endswith(kept) else tree_map(drawn, value) for name, value in inputs.items()}


def run(network, size):
    with torch.no_grad(), witness(network) as seen:
        output = network(
            **arguments(network, size), **({} if "UVit" in type(network).__name__ else {"return_dict": False})
        )
    while isinstance(output, list | tuple):
        output = output[0]
    return output, seen


@pytest.mark.parametrize("name", OWN)
def test_patch_and_probe_agree_with_a_witness_at_the_kernel(name):
    network = tiny(name)
    wide = (16, 16) if name in SQUARE else WIDE
    _, narrow_calls = run(network, NATIVE)
    plain, wide_calls = run(network, wide)
    expected = self_attention(narrow_calls, wide_calls)
    assert expected, "a network without self-attention proves nothing"
    assert set(layers_at(network, *NATIVE)) == set(expected)
    with el.scaled(network, RULE, latent_size=NATIVE), el.EntropyProbe(network, latent_size=NATIVE) as probe:
        output, calls = run(network, wide)
        report = el.scale_report(network).set_index("layer")
    table = probe.table()
    assert not torch.equal(output, plain)
    assert set(report.index) == set(table.layer) == set(expected)
    for layer, keys in expected.items():
        row, part = report.loc[layer], table[table.layer == layer]
        assert set(part.tokens) == keys == {row.tokens}
        factor = el.rule(RULE).factor(row.tokens, row.training_tokens)
        assert row.factor == factor
        assert part.factor.to_numpy() == pytest.approx(factor, rel=1e-6)
    module, keys = next(iter(expected.items()))
    first, before = (
        next(each for each in made if each.module == module and set(each.keys) == keys)
        for made in (calls, wide_calls)
    )
    assert first.scale / before.scale == pytest.approx(report.loc[first.module].factor, rel=1e-5), (
        "before any layer has changed"
    )
    native, _ = run(network, NATIVE)
    with el.scaled(network, RULE, latent_size=NATIVE):
        assert torch.equal(run(network, NATIVE)[0], native)
    assert torch.equal(run(network, wide)[0], plain), "restored"


FRAMEPACK = {
    "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "num_attention_heads": 2,
    "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "text_embed_dim": 32,
    "pooled_projection_dim": 16, "guidance_embeds": False, "rope_axes_dim": (4, 6, 6), "has_image_proj": True,
    "image_proj_dim": 16, "has_clean_x_embedder": True,
}  # fmt: skip


def framepack(height, width):
    """A call of it: beside the frame, those that went before, at three scales."""
    frames = {"latents_clean": 1, "latents_history_2x": 2, "latents_history_4x": 4}
    return {
        "hidden_states": torch.randn(1, 4, 1, height, width), "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 7, 32), "encoder_attention_mask": torch.ones(1, 7).bool(),
        "pooled_projections": torch.randn(1, 16), "image_embeds": torch.randn(1, 3, 16),
        "indices_latents": torch.arange(1),
        **{name: torch.randn(1, 4, count, height, width) for name, count in frames.items()},
        **{f"indices_{name}": torch.arange(count) for name, count in frames.items()},
    }  # fmt: skip


def test_what_a_signature_does_not_say_is_learnt_from_one_call():
    torch.manual_seed(0)
    network = diffusers.HunyuanVideoFramepackTransformer3DModel(**FRAMEPACK).eval()
    with pytest.raises(UnsupportedModelError, match=r"recording\(pipe.transformer\)"):
        el.apply_scale(network, RULE, latent_size=NATIVE)
    with torch.no_grad(), recording(network):
        network(**framepack(*NATIVE))
    calls = {}
    for size in (NATIVE, WIDE):
        with torch.no_grad(), witness(network) as calls[size]:
            network(**framepack(*size))
    expected = self_attention(calls[NATIVE], calls[WIDE])
    with (
        torch.no_grad(),
        el.scaled(network, RULE, latent_size=NATIVE),
        el.EntropyProbe(network, latent_size=NATIVE) as probe,
    ):
        network(**framepack(*WIDE))
    table = probe.table()
    assert set(table.layer) == set(expected)
    factors = [el.rule(RULE).factor(n, t) for n, t in zip(table.tokens, table.training_tokens, strict=True)]
    assert table.factor.to_numpy() == pytest.approx(factors, rel=1e-6)
    assert all(set(part.tokens) == expected[layer] for layer, part in table.groupby("layer"))
    assert (table.tokens > table.training_tokens).all()


def test_the_page_is_of_the_installed_diffusers_and_leaves_none_out():
    """Written by `python -m benchmarks.networks`."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"# Networks of diffusers {diffusers.__version__}" in page
    cells = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    rows = {cell[1].strip(): cell[2].strip() for cell in cells}
    assert set(classes()) <= set(rows)
    assert {name for name, state in rows.items() if state == "works ✓"} == set(OWN)
    assert sum(state.startswith("works") for state in rows.values()) >= 60


VIDEOS = {  # keys of a frame at native size, tokens of text among them
    f"{name}Transformer3DModel": keys
    for names, keys in {
        ("Wan", "Kandinsky5", "Kandinsky6", "AnyFlow", "Helios"): (16, 0),
        ("HunyuanVideo", "CogVideoX", "Mochi", "EasyAnimate"): (16, 24),
        ("LTXVideo", "LTX2Video"): (64, 0),
    }.items()
    for name in names
}


@pytest.mark.parametrize("native_frames", [None, 5], ids=["of the call", "given"])
@pytest.mark.parametrize("name", VIDEOS)
def test_frames_of_a_video_count_in_n_and_in_t(name, native_frames):
    network, frames, (place, text) = tiny(name), 3, VIDEOS[name]
    native = NATIVE if native_frames is None else (native_frames, *NATIVE)
    for rows, columns in (NATIVE, WIDE):
        inputs = arguments(network, (rows, columns), frames=frames)
        with torch.no_grad():
            plain = network(**inputs, return_dict=False)[0]
            with (
                el.scaled(network, "paper", latent_size=native),
                el.EntropyProbe(network, latent_size=native) as probe,
            ):
                patched = network(**inputs, return_dict=False)[0]
        table = probe.table()
        assert set(table.training_tokens) == {(native_frames or frames) * place + text}
        assert set(table.tokens) == {frames * place * (rows * columns) // 64 + text}
        assert torch.equal(patched, plain) == (native_frames is None and (rows, columns) == NATIVE)


def test_attention_over_frames_is_rescaled_where_that_is_asked_for():
    network, frames = tiny("UNet3DConditionModel"), 3
    inputs = arguments(network, NATIVE, frames=frames)
    with torch.no_grad(), witness(network) as plain:
        network(**inputs)
    for attends in ("frames", ["image", "frames"]):
        with torch.no_grad(), el.scaled(network, RULE, attends=attends, latent_size=(2, *NATIVE)):
            with witness(network, plain) as seen:
                network(**inputs)
            report = el.scale_report(network).set_index("layer")
        over = report[report.attends == "frames"]
        assert set(report.attends) == {attends} if isinstance(attends, str) else set(attends)
        assert set(zip(over.tokens, over.training_tokens, strict=True)) == {(3, 2)}
        assert (report[report.attends == "image"].factor == 1).all(), "one frame at a time, at native size"
        ratios = {}
        for before, after in zip(plain, seen, strict=True):
            ratios.setdefault(before.module, set()).add(round(after.scale / before.scale, 5))
        factor = round(el.rule(RULE).factor(3, 2), 5)
        assert {name for name, found in ratios.items() if found != {1.0}} == set(over.index)
        assert set().union(*(ratios[name] for name in over.index)) <= {factor, 1.0}
    with pytest.raises(InvalidInputError, match=r"attends is 'frames'.*give latent_size with them"):
        el.apply_scale(network, RULE, attends="frames", latent_size=NATIVE)


def test_frames_of_a_network_of_images_are_refused():
    with pytest.raises(InvalidInputError, match=r"latent_size has 5 frames.*give height and width alone"):
        el.apply_scale(tiny("UNet2DConditionModel"), "paper", latent_size=(5, 8, 8))


def lumina():
    """A tiny pipeline, which applies the paper's rule by itself, and a call of it in one step."""
    pipe = diffusers.LuminaPipeline(
        tiny("LuminaNextDiT2DModel"),
        diffusers.FlowMatchEulerDiscreteScheduler(),
        diffusers.AutoencoderKL(),
        None,
        None,
    )
    pipe.vae_scale_factor, pipe.default_sample_size, pipe.default_image_size = 8, 8, 64
    pipe.set_progress_bar_config(disable=True)
    text = {f"{sign}prompt_embeds": torch.randn(1, 7, 32) for sign in ("", "negative_")}
    text |= {f"{sign}prompt_attention_mask": torch.ones(1, 7) for sign in ("", "negative_")}

    def run(height, width, **options):
        torch.manual_seed(0)
        options = (
            text
            | options
            | {"height": 8 * height, "width": 8 * width, "num_inference_steps": 1, "output_type": "latent"}
        )
        with witness(pipe.transformer) as seen:
            pipe(**options)
        return next(call for call in seen if call.module.endswith("attn1"))

    return pipe, run


@pytest.mark.parametrize("size", [(4, 8), (8, 16), (16, 16)])
def test_the_paper_s_rule_is_what_lumina_does_by_itself(size):
    """Lumina's own factor is an independent reference for ours: sqrt(ln N / ln T)."""
    pipe, run = lumina()
    plain, own = run(*size, proportional_attn=False), run(*size)
    with el.scaled(pipe, "paper"):
        ours = run(*size, proportional_attn=False)
    assert ours.scale / plain.scale == pytest.approx(own.scale / plain.scale, rel=1e-6)
    assert ours.scale != pytest.approx(plain.scale, rel=1e-3)


def test_two_rules_at_once_are_refused():
    pipe, run = lumina()
    with el.scaled(pipe, "paper"), pytest.raises(ScaleNotAppliedError, match=r"proportional_attn.*act twice"):
        run(8, 16)


def test_a_pipeline_that_puts_the_prompt_before_its_negative_has_its_branches_right():
    pipe, run = lumina()
    with el.EntropyProbe(pipe) as guided:
        run(8, 16, proportional_attn=False)
    with el.EntropyProbe(pipe) as alone:
        run(8, 16, proportional_attn=False, guidance_scale=1.0)
    branches = guided.table().pivot(index=["layer", "head"], columns="branch", values="entropy")
    expected = alone.table().set_index(["layer", "head"]).entropy
    assert set(branches) == {"cond", "uncond"}
    assert branches.cond.to_numpy() == pytest.approx(expected.reindex(branches.index).to_numpy(), abs=1e-6)
    assert branches.uncond.to_numpy() != pytest.approx(expected.reindex(branches.index).to_numpy(), abs=1e-6)
