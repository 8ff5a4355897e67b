"""Maps of attention, against a plain softmax of the layer's own projections."""

import numpy as np
import pytest
import torch
from plain_attention import projected

import entropy_lib as el
from entropy_lib.errors import InvalidInputError
from entropy_lib.models.architectures import build
from entropy_lib.plots import figures
from entropy_lib.probes import MapProbe


def plain(pipe, layer, seen):
    """Weights of the layer for the conditional image, `[head, query, key]`, in float64."""
    module = pipe.unet.get_submodule(layer)
    query, key, _ = projected(module.double(), seen[-1:].double())
    module.float()
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[0].detach()


def test_maps_are_those_of_a_plain_softmax():
    pipe = build("sd21-base", tiny=True)
    layer, seen = next(iter(el.training_tokens(pipe))), []
    hook = pipe.unet.get_submodule(layer).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True
    )
    with MapProbe(pipe, (0.9, 0.1), layers=layer, steps=[1]) as probe:
        pipe("a zebra", height=64, width=96, num_inference_steps=2, guidance_scale=3.0, output_type="latent")
    hook.remove()
    (found,) = probe.maps
    weights = plain(pipe, layer, seen[-1])
    height, width = found.entropy.shape
    entropy = -(weights * weights.log()).sum(-1).mean(0).reshape(height, width)
    assert (found.step, found.tokens, found.query) == (
        1,
        height * width,
        (int(0.9 * height), int(0.1 * width)),
    )
    assert found.entropy == pytest.approx(entropy.numpy(), abs=1e-5)
    index = found.query[0] * width + found.query[1]
    assert found.weights == pytest.approx(weights[:, index].mean(0).reshape(height, width).numpy(), abs=1e-6)
    assert found.weights.sum() == pytest.approx(1, abs=1e-5)
    assert found.spread == pytest.approx(np.exp(entropy[found.query].item()), rel=1e-4)


def test_without_a_place_it_is_the_query_of_least_entropy(pipe):
    with MapProbe(pipe) as probe:
        pipe("an owl", height=64, width=96, num_inference_steps=2, output_type="latent")
    assert {found.layer for found in probe.maps} == set(el.training_tokens(pipe))
    assert {found.step for found in probe.maps} == {0, 1}
    for found in probe.maps:
        assert found.entropy[found.query] == found.entropy.min()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_joint_text_takes_its_share_of_the_weights(name):
    pipe = build(name, tiny=True)
    size = el.native_size(pipe) if name == "sd3" else (64, 64)
    with torch.no_grad(), MapProbe(pipe, (0.5, 0.5), steps=[0]) as probe:
        pipe("a zebra", height=size[0], width=size[1], num_inference_steps=1, output_type="latent")
    assert probe.maps
    for found in probe.maps:
        assert found.entropy.size < found.tokens
        assert 0 < found.weights.sum() < 1


@pytest.mark.parametrize("place", [(0.5,), (0.5, 1.1), (-0.1, 0.5)])
def test_a_place_outside_the_picture_is_named(pipe, place):
    with pytest.raises(InvalidInputError, match="give two shares of height and width"):
        MapProbe(pipe, place)


def test_figures_of_maps_have_a_row_a_size_and_a_row_a_layer(pipe):
    with MapProbe(pipe, steps=[0]) as probe:
        pipe("an owl", height=64, width=96, num_inference_steps=1, output_type="latent")
    picture = np.zeros((64, 96, 3), np.uint8)
    figure = figures.attention_of_a_query({"64x96": probe.maps[0]}, {"64x96": picture})
    assert f"{probe.maps[0].spread:,.0f} of 384 tokens" in figure.axes[1].get_title()
    figure = figures.entropy_maps({"64x96": probe.maps, "again": probe.maps})
    assert len(figure.axes) == 2 * len(probe.maps) + 1, "and the colour bar"
