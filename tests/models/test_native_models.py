"""Pipelines newer than FLUX.1, tiny: `generate` calls each as it wants to be called, and patch and probe act
there.

Text encoders are left out; the embeddings of a prompt are made from its letters.
"""

import diffusers
import numpy as np
import pytest
import torch
from tiny_networks import tiny

import entropy_lib as el
from entropy_lib.models.runs import call_options

pytestmark = pytest.mark.slow
FLOW = diffusers.FlowMatchEulerDiscreteScheduler
TEXT, WIDTH = 7, 32
FOUR = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
PLAIN = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


def states(prompt):
    """Embeddings `[text, width]` that any other prompt has not."""
    seed = sum(prompt.encode()) + len(prompt)
    return torch.randn(TEXT, WIDTH, generator=torch.Generator().manual_seed(seed))


def stacked(prompt):
    prompts = [prompt] if isinstance(prompt, str) else prompt
    return torch.stack([states(each or "") for each in prompts])


def qwen():
    decoder = diffusers.AutoencoderKLQwenImage(
        **FOUR | {"z_dim": 2}, latents_mean=[0.0] * 2, latents_std=[1.0] * 2
    )
    network = tiny("QwenImageTransformer2DModel", out_channels=2)
    pipe = diffusers.QwenImagePipeline(FLOW(), decoder, None, None, network)
    pipe.encode_prompt = lambda prompt, **_: (stacked(prompt), torch.ones(len(prompt), TEXT).long())
    return pipe


def z_image():
    network = tiny(
        "ZImageTransformer2DModel", in_channels=4, dim=32, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[256, 64, 64],
    )  # fmt: skip
    decoder = diffusers.AutoencoderKL(latent_channels=4, shift_factor=0.0, **PLAIN, **BLOCKS)
    pipe = diffusers.ZImagePipeline(FLOW(), decoder, None, None, network)
    pipe.encode_prompt = lambda prompt, **_: ([*map(states, prompt)], [states("")] * len(prompt))
    return pipe


def flux2():
    decoder = diffusers.AutoencoderKLFlux2(latent_channels=2, **PLAIN)
    network = tiny("Flux2Transformer2DModel", guidance_embeds=True)
    pipe = diffusers.Flux2Pipeline(FLOW(), decoder, None, None, network)
    ids = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(TEXT))
    pipe.encode_prompt = lambda prompt, **_: (stacked(prompt), ids.expand(len(prompt), -1, -1))
    return pipe


def wan():
    decoder = diffusers.AutoencoderKLWan(**FOUR, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    pipe = diffusers.WanPipeline(None, None, decoder, FLOW(), tiny("WanTransformer3DModel"))
    pipe.encode_prompt = lambda prompt, **_: (stacked(prompt), stacked([""] * len(prompt)))
    return pipe


def hunyuan_image():
    decoder = diffusers.AutoencoderKLHunyuanImage(
        3, 3, 4, (32, 32, 32, 32), 1, spatial_compression_ratio=8, sample_size=64, scaling_factor=1.0
    )
    network = tiny("HunyuanImageTransformer2DModel")
    guider = diffusers.AdaptiveProjectedMixGuidance()
    pipe = diffusers.HunyuanImagePipeline(FLOW(), decoder, None, None, None, None, network, guider=guider)

    def encode(prompt, batch_size, **_):
        mask = torch.ones(batch_size, TEXT).long()
        text = stacked(prompt or [""] * batch_size)
        return text, mask, torch.zeros(batch_size, 1, 16), mask[:, :1] * 0

    pipe.encode_prompt = encode
    return pipe


PIPELINES = {  # keys beside the image's (of Z-Image: text is padded to 32), and a side in pixels
    "Qwen-Image": (qwen, TEXT, 64), "Z-Image": (z_image, 32, 128), "FLUX.2": (flux2, TEXT, 64),
    "Wan": (wan, 0, 64), "HunyuanImage": (hunyuan_image, TEXT, 64),
}  # fmt: skip


@pytest.fixture(scope="module", params=PIPELINES)
def made(request):
    make, text, side = PIPELINES[request.param]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    return pipe, text, side


def draw(pipe, height, width, guidance=3.0):
    prompts = ["a zebra", "a cup of tea"]
    return el.generate(pipe, prompts, [0, 1], (height, width), steps=2, guidance=guidance, batch=2)


def test_generate_guides_patches_and_measures(made):
    pipe, text, side = made
    image, latent_size = (side // 16) ** 2, (side // 8, side // 8)
    native, wide = draw(pipe, side, side), draw(pipe, side, 2 * side)
    assert wide.shape == (2, side, 2 * side, 3)
    assert not np.array_equal(wide, draw(pipe, side, 2 * side, guidance=1.0)), "guidance arrives"
    with (
        el.scaled(pipe, "power(3)", latent_size=latent_size),
        el.EntropyProbe(pipe, latent_size=latent_size) as probe,
    ):
        assert not np.array_equal(draw(pipe, side, 2 * side), wide)
        report = el.scale_report(pipe)
    table = probe.table()
    assert set(report.layer) == set(table.layer)
    kinds = {"image+text" if text else "image"}
    # Z-Image first refines its image without text
    assert set(table.attends) == kinds | ({"image"} if side == 128 else set())
    joint = table[table.attends.isin(kinds)]
    assert set(joint.tokens) == {2 * image + text}
    assert set(joint.training_tokens) == {image + text}
    assert set(zip(table.height, table.width, strict=True)) == {(side // 16, side // 8)}
    counts = zip(table.tokens, table.training_tokens, strict=True)
    factors = [el.rule("power(3)").factor(*count) for count in counts]
    assert table.factor.to_numpy() == pytest.approx(factors, rel=1e-6)
    with el.scaled(pipe, "paper", latent_size=latent_size):
        assert np.array_equal(draw(pipe, side, side), native)


def test_branches_are_those_of_the_prompts(made):
    """Z-Image puts its prompts before the negative ones, and is guided from 0 on, not from 1; others call
    their network twice; FLUX.2 gets a number.
    """
    pipe, _, side = made
    tables = []
    for guidance in (3.0, 0.0 if isinstance(pipe, diffusers.ZImagePipeline) else 1.0):
        with el.EntropyProbe(pipe, latent_size=(side // 8, side // 8), per_image=True) as probe:
            draw(pipe, side, side, guidance)
        table = probe.table()
        assert set(table.image) == {0, 1}
        tables.append(table[table.step == 0].set_index(["layer", "head", "image"]))
    guided, alone = tables
    if set(guided.branch) == {"cond", "uncond"}:
        found = guided[guided.branch == "cond"].entropy
        assert found.to_numpy() == pytest.approx(alone.entropy.reindex(found.index).to_numpy(), abs=1e-5)
    else:
        assert set(guided.branch) <= {"all", "extra"}


def test_guidance_has_the_word_that_the_pipeline_has_for_it():
    for guidance, expected in (
        (4.0, {"true_cfg_scale": 4.0, "negative_prompt": [" ", " "]}),
        (1.0, {"true_cfg_scale": 1.0}),
    ):
        with call_options(qwen(), guidance, 2) as options:
            assert options == expected
    with call_options(wan(), 5.0, 1) as options:
        assert options == {"num_frames": 1, "guidance_scale": 5.0}


def test_a_guider_is_as_it_was_on_any_exit():
    pipe = hunyuan_image()
    own = pipe.guider
    with pytest.raises(KeyError), call_options(pipe, 2.5, 1) as options:
        assert "guidance_scale" not in options
        assert pipe.guider.guidance_scale == 2.5
        raise KeyError
    assert pipe.guider is own


def test_the_default_size_of_a_pipeline_is_read_in_latent_pixels_unless_it_registers_it():
    """PRX says it in pixels (`test_prx.py`); Qwen-Image as 128, which is 1024 px, and not 128."""
    assert el.native_size(qwen()) == (1024, 1024)
