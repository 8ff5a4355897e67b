import diffusers
import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from tiny_networks import tiny

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.models import trace
from entropy_lib.models.layers import _layers, grid, select_layers, tokens_at
from entropy_lib.probes.importance import ablated


def test_training_tokens_of_the_embedded_model(pipe):
    counts = el.training_tokens(pipe)
    assert len(counts) == 10
    assert sorted(counts.values()) == [16] * 4 + [64] * 3 + [256] * 3
    assert all(name.endswith("attn1") for name in counts)


@pytest.mark.parametrize("size", [(16, 16), (25, 25), (9, 14), (1, 3)])
def test_traced_counts_are_those_of_a_real_run(network, call, size):
    seen = {}
    for name, module in network.named_modules():
        if hasattr(module, "to_k"):
            module.to_k.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.shape[1]}))
    call(network, *size)
    expected = {name: keys for name, keys in seen.items() if name.endswith("attn1")}
    assert tokens_at(network, *size) == expected


def test_cross_attention_is_told_from_self_attention_by_its_keys():
    from diffusers import UNet2DConditionModel

    options = {
        "sample_size": 8, "block_out_channels": (16,), "layers_per_block": 1, "attention_head_dim": 2,
        "cross_attention_dim": 24,
        "down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",),
        "norm_num_groups": 8,
    }  # fmt: skip
    only_cross = UNet2DConditionModel(**options, only_cross_attention=True)
    assert all(name.startswith("mid_block") for name in el.training_tokens(only_cross)), (
        "attn1 is cross-attention in the other blocks"
    )


def test_a_model_without_self_attention_is_refused():
    network = UNet2DModel(sample_size=8, block_out_channels=(8,), down_block_types=("DownBlock2D",),
                          up_block_types=("UpBlock2D",),
                          norm_num_groups=4, add_attention=False, layers_per_block=1)  # fmt: skip
    for ask in (lambda: el.EntropyProbe(network), lambda: ablated(network).__enter__()):
        with pytest.raises(InvalidInputError, match="no self-attention"):
            ask()


@given(height=st.integers(1, 200), width=st.integers(1, 200), level=st.integers(0, 4))
def test_grid_finds_the_level(height, width, level):
    rows, columns = height, width
    for _ in range(level):
        rows, columns = -(-rows // 2), -(-columns // 2)
    assert grid(rows * columns, height, width) == (rows, columns)


@pytest.mark.parametrize("name", ["DiTTransformer2DModel", "SD3Transformer2DModel"])
def test_a_size_that_a_network_does_not_take_is_refused_by_its_parameter(name):
    """One takes squares alone, the other has an end to its positions; both raise errors of their own."""
    with pytest.raises(InvalidInputError, match=r"cannot be run at latent_size \(8, 96\).*give a size"):
        el.training_tokens(tiny(name), (8, 96))


@pytest.mark.parametrize(
    "wanted", [[], (), 3, [None], [["mid_block.*"]], {"mid_block.*"}, b"mid_block.*", ""], ids=str
)
def test_what_names_no_layers_is_refused(network, wanted):
    with pytest.raises(UnknownNameError, match="unknown layer"):
        select_layers(list(el.training_tokens(network)), wanted)


def test_layers_are_selected_by_pattern(network):
    names = list(el.training_tokens(network))
    assert select_layers(names, None) == names
    assert all(name.startswith("up") for name in select_layers(names, "up_blocks.*"))
    with pytest.raises(UnknownNameError, match="unknown layer 'upp_blocks'"):
        select_layers(names, "upp_blocks")


def test_layers_are_selected_by_what_they_attend_to():
    network = tiny("Lumina2Transformer2DModel")  # refines the image by itself before text joins
    for kind, other in (("image", "image+text"), ("image+text", "image")):
        with el.scaled(network, "power(3)", attends=kind):
            assert set(el.scale_report(network).attends) == {kind}
        with el.scaled(network, "power(3)", attends=[kind, other]):
            assert set(el.scale_report(network).attends) == {kind, other}
    for wrong in ("frames", [], ["image", "text"]):
        with pytest.raises(UnknownNameError, match="unknown kind of attention"):
            el.apply_scale(network, "paper", attends=wrong)


def two_networks():
    """Wan 2.2: one network for much noise, another for little."""
    decoder = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                                         latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip
    networks = [tiny("WanTransformer3DModel") for _ in range(2)]
    return diffusers.WanPipeline(None, None, decoder, None, *networks, boundary_ratio=0.5)


def test_of_two_networks_none_is_left_out_in_silence():
    pipe = two_networks()
    for act in (
        lambda: el.apply_scale(pipe, "paper", latent_size=(8, 8)),
        lambda: el.EntropyProbe(pipe, latent_size=(8, 8)),
    ):
        with pytest.raises(
            UnsupportedModelError, match=r"transformer and transformer_2.*pipe\.transformer_2"
        ):
            act()
    for network in (pipe.transformer, pipe.transformer_2):
        el.apply_scale(network, "paper", latent_size=(8, 8))
        assert len(el.scale_report(network)) == 2


def test_networks_of_other_names_are_named():
    class Cascade(diffusers.DiffusionPipeline):
        def __init__(self, prior, decoder):
            super().__init__()
            self.register_modules(prior=prior, decoder=decoder)

    with pytest.raises(
        UnsupportedModelError, match=r"got Cascade; hand over one of its networks.*prior, decoder"
    ):
        el.apply_scale(Cascade(*(tiny("WanTransformer3DModel") for _ in range(2))), "paper")


def is_off_meta(tensor):
    return not tensor.is_meta


def test_tracing_takes_no_memory(network):
    """Neither for weights nor for the 262,144 tokens of this size."""
    for cached in (_layers, trace.trace_at, trace.structure, trace._twin):
        cached.cache_clear()
    with LargestTensor(is_off_meta) as made:
        tokens_at(network, 512, 512)
    assert made.elements <= 100, "places and masks, which networks count by"
    with LargestTensor(is_off_meta) as made:
        network.conv_in(torch.zeros(1, 4, 8, 8))
    assert made.elements > 1, "a real run is noticed"
    assert torch.is_grad_enabled()
