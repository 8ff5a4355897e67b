"""Pipelines of diffusers that take no prompt and know one size."""

import numpy as np
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    UNet2DModel,
)

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.layers import tokens_at
from entropy_lib.models.outline import outline_size
from entropy_lib.models.unconditional import with_prompts

TINY = {
    "sample_size": 16, "layers_per_block": 1, "block_out_channels": (16, 16, 32), "norm_num_groups": 8,
    "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}  # fmt: skip


def made(kind, scheduler, **config):
    torch.manual_seed(0)
    pipe = kind(UNet2DModel(**TINY | config).eval(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES = {
    "DDPM": lambda: made(DDPMPipeline, DDPMScheduler()),
    "DDIM": lambda: made(DDIMPipeline, DDIMScheduler()),
    "consistency": lambda: made(
        ConsistencyModelPipeline, CMStochasticIterativeScheduler(), num_class_embeds=5
    ),
}


@pytest.fixture(scope="module", params=PIPELINES)
def unprompted(request):
    """A pipeline, two prompts that it takes, and what its own call is given in place of them."""
    classes = request.param == "consistency"
    own = {"class_labels": [1, 4]} if classes else {}
    return PIPELINES[request.param](), ["1", "4"] if classes else ["", ""], own


def test_at_native_size_its_images_are_those_of_its_own_call(unprompted):
    pipe, prompts, own = unprompted
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (0, 1)]
    steps = {"num_inference_steps": 3, "output_type": "np"}
    expected = pipe(batch_size=2, generator=generators, **own, **steps).images
    found = el.generate(pipe, prompts, [0, 1], (16, 16), steps=3, output="float32")
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    levels = el.generate(pipe, prompts, [0, 1], (16, 16), steps=3)
    assert np.array_equal(levels, (found * 255).round().astype(np.uint8))


def test_it_is_measured_and_scaled_at_other_sizes(unprompted):
    pipe, prompts, _ = unprompted
    assert el.native_size(pipe) == (16, 16)
    table = el.entropy_by_size(pipe, prompts, [0, 1], [(16, 16), (16, 32)], ["unscaled", "paper"], steps=2)
    assert set(table.training_tokens) == {16}
    assert set(table[table["size"] == "16x32"].tokens) == {32}
    scaled = table[(table["size"] == "16x32") & (table.rule == "paper")]
    assert scaled.factor.to_numpy() == pytest.approx((5 / 4) ** 0.5, rel=1e-5)


def test_a_window_holds_in_its_share_of_the_run(unprompted):
    """Timesteps of consistency models are 250 ln σ, some below 0: the share is that of the schedule."""
    pipe, prompts, _ = unprompted
    with el.scaled(pipe, "paper@0-0.5"), el.EntropyProbe(pipe) as probe:
        el.generate(pipe, prompts, [0, 1], (16, 32), steps=4)
    factors = probe.table().groupby("step").factor.mean()
    assert (factors > 1.01).tolist() == [True, True, False, False]


def test_grey_images_have_three_equal_channels():
    pipe = made(DDIMPipeline, DDIMScheduler(), in_channels=1, out_channels=1)
    images = el.generate(pipe, [""], [0], (16, 24), steps=2)
    assert images.shape == (1, 16, 24, 3)
    assert (images == images[..., :1]).all()


BAD = {
    "DDPM": [
        ({"prompts": ["a zebra", ""]}, r"prompts\[0\] is 'a zebra'; DDPMPipeline takes no prompt.*give ''"),
        ({"guidance": 3.0}, "guidance is 3.0; DDPMPipeline has none; give 1"),
        ({"output": "uint16"}, "unknown output 'uint16'"),
        ({"output": "float32", "method": "resized"}, "'resized' .* grey levels.*output='uint8'"),
    ],
    "consistency": [
        *[({"prompts": ["0", bad]}, r"prompts\[1\] is .*whole numbers from 0 to 4")
          for bad in ("5", "-1", "1.5", "easy", "")],
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "message"), [(name, *case) for name, cases in BAD.items() for case in cases], ids=str
)
def test_what_it_cannot_generate_is_refused_before_it_runs(monkeypatch, name, changes, message):
    pipe = PIPELINES[name]()
    monkeypatch.setattr(pipe.unet, "forward", lambda *_, **__: pytest.fail("the network ran"))
    good = {"prompts": ["", ""], "seeds": [0, 1], "size": (16, 16), "steps": 2}
    with pytest.raises(InvalidInputError, match=message):
        el.generate(pipe, **good | changes)


def test_sizes_are_multiples_of_what_its_levels_halve():
    deep = dict.fromkeys(("block_out_channels", "down_block_types", "up_block_types"))
    deep = {name: TINY[name][:1] * 2 + TINY[name] for name in deep if name != "up_block_types"}
    deep["up_block_types"] = TINY["up_block_types"] + TINY["up_block_types"][-1:] * 2
    pipe = made(DDIMPipeline, DDIMScheduler(), **deep)
    with pytest.raises(InvalidInputError, match=r"width is 24; it must be a positive multiple of 16 pixels"):
        el.generate(pipe, [""], [0], (16, 24), steps=1)


@pytest.mark.parametrize("size", [(17, 16), (16, 18)])
def test_a_size_that_does_not_halve_is_said_before_the_network_fails(size):
    network = UNet2DModel(**TINY)
    with pytest.raises(InvalidInputError, match=r"latent_size is \(1., 1.\).*multiples of 4"):
        tokens_at(network, *size)
    for watched in (lambda: el.scaled(network, "paper"), lambda: el.EntropyProbe(network)):
        with pytest.raises(InvalidInputError, match="multiples of 4"), watched():
            network(torch.zeros(1, 3, *size), 5)


def test_a_folder_is_loaded_as_it_is_and_says_its_size(tmp_path):
    pipe = PIPELINES["DDIM"]()
    pipe.save_pretrained(tmp_path)
    assert outline_size(str(tmp_path)) == el.native_size(pipe) == (16, 16)
    loaded = el.load(str(tmp_path), device="cpu")
    assert type(loaded) is DDIMPipeline
    assert np.array_equal(*(el.generate(each, [""], [0], (16, 16), steps=1) for each in (pipe, loaded)))


def test_steps_are_those_that_its_own_call_declares():
    names = {name: el.models.sampling_defaults(make()) for name, make in PIPELINES.items()}
    assert names == {"DDPM": (1000, 1.0), "DDIM": (50, 1.0), "consistency": (1, 1.0)}


def test_a_pipeline_with_prompts_is_left_as_it_is_and_others_are_refused(pipe):
    assert with_prompts(pipe) is pipe
    other = DiTPipeline(**dict.fromkeys(("transformer", "vae", "scheduler")))
    other.unet = UNet2DModel(**TINY)
    with pytest.raises(UnsupportedModelError, match=r"expected a text-to-image pipeline.*or one of DDPM"):
        el.generate(other, ["1"], [0], (16, 16), steps=1, guidance=1)
