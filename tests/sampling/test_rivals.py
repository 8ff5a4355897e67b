"""What one would change if attention were not the cause: the noise level of the size, and positions."""

import json
import math
from itertools import chain

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tiny_networks import tiny

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.layers import denoiser
from entropy_lib.models.networks import family
from entropy_lib.models.padding import padding_of
from entropy_lib.sampling.methods import METHODS, method
from entropy_lib.sampling.noise_level import SHIPPED, NoiseLevels, log_snr, moved, noise_level_of
from entropy_lib.sampling.rivals import padded, positioned, rotary_embedding, shifted, timestep_replaced
from training import noise_levels

PROMPTS, SEEDS, FEW = ["a zebra on a blue background", "two owls"], [0, 1], {"steps": 3}
RIVALS = ["schedule-shift", "noise-told", "padding(circular)"]


def state(pipe):
    """All that an intervention could leave behind."""
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipe.unet.modules())
    return padding_of(pipe.unet), "forward" in vars(pipe.unet), id(pipe.scheduler), hooks


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_changes_images_goes_with_a_rule_and_leaves_nothing_behind(pipe, rival):
    before, plain = state(pipe), el.generate(pipe, PROMPTS, SEEDS, "96x96", **FEW)
    alone = el.generate(pipe, PROMPTS, SEEDS, "96x96", rival, **FEW)
    ruled = el.generate(pipe, PROMPTS, SEEDS, "96x96", f"{rival} + power(3)", **FEW)
    assert not np.array_equal(alone, plain)
    assert not np.array_equal(alone, ruled)
    assert state(pipe) == before
    assert np.array_equal(plain, el.generate(pipe, PROMPTS, SEEDS, "96x96", **FEW))


@pytest.mark.parametrize("rival", [name for name in RIVALS if METHODS[method(name).kind].identity])
def test_a_rival_is_nothing_at_native_size(pipe, rival):
    native = el.native_size(pipe)
    made = el.generate(pipe, PROMPTS, SEEDS, native, f"{rival} + paper", **FEW)
    assert np.array_equal(made, el.generate(pipe, PROMPTS, SEEDS, native, **FEW))


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_that_fails_leaves_nothing_behind(pipe, rival, monkeypatch):
    before = state(pipe)

    def fail(*_, **__):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(type(pipe.vae), "decode", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            el.generate(pipe, PROMPTS, SEEDS, "96x96", rival, **FEW)
    assert state(pipe) == before


def test_a_shifted_schedule_has_its_signal_to_noise_ratio_divided():
    own = DDIMScheduler()
    there = shifted(own, 4.0)
    inner = slice(1, 990)  # the very ends are clipped
    difference = log_snr(own).values[inner] - log_snr(there).values[inner]
    assert np.allclose(difference, np.log(4), atol=0.02)


def test_a_scheduler_without_variances_has_no_levels():
    with pytest.raises(UnsupportedModelError, match="no schedule of variances"):
        log_snr(FlowMatchEulerDiscreteScheduler())


def test_a_flow_is_shifted_by_its_own_shift():
    assert shifted(FlowMatchEulerDiscreteScheduler(shift=3.0), 4.0).config.shift == pytest.approx(6.0)
    with pytest.raises(UnsupportedModelError, match="shifts its schedule by the size itself"):
        shifted(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 4.0)


def test_a_network_is_given_other_timesteps_however_it_is_called(network, call):
    expected = call(network)  # at 500
    generator = torch.Generator().manual_seed(1)
    sample, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 24, generator=generator)
    with torch.no_grad(), timestep_replaced(network, lambda timestep: timestep + 400):
        assert torch.equal(network(sample, torch.tensor(100), text).sample, expected)
        assert torch.equal(network(sample, timestep=100, encoder_hidden_states=text).sample, expected)


def test_paddings_nest(network):
    before = padding_of(network)
    with padded(network, "reflect"):
        with padded(network, "circular"):
            assert set(padding_of(network).values()) == {"circular"}
        assert set(padding_of(network).values()) == {"reflect"}
    assert padding_of(network) == before


@pytest.fixture(scope="module")
def dit():
    """The embedded transformer; its positions are rotary, on the grid of its tokens."""
    return el.load("mini-dit", device="cpu", dtype="float32")


def rotary_factors(positions, dimensions, theta):
    """Cosine of every angle of one coordinate, by a plain loop."""
    return [
        [math.cos(position / theta ** (2 * index / dimensions)) for index in range(dimensions // 2)]
        for position in positions
    ]


@pytest.mark.parametrize(("share", "height", "width"), [(1.0, 0.5, 1.0), (0.5, 0.5**0.5, 1.0)])
def test_rotary_factors_are_those_of_multiplied_coordinates(dit, share, height, width):
    """Of rows and columns apart, at twice the native height: by hand."""
    seen = []
    hook = dit.transformer.pe_embedder.register_forward_hook(lambda _, inputs, factors: seen.append(factors))
    with hook:
        el.generate(dit, PROMPTS[:1], [0], "128x64", f"positions({share})", steps=1)
    cosines = seen[0][0, 0, :, :, 0, 0].reshape(16, 8, 16)
    rows = torch.tensor(rotary_factors([height * row for row in range(16)], 16, 100))
    columns = torch.tensor(rotary_factors([width * column for column in range(8)], 16, 100))
    torch.testing.assert_close(cosines[:, 3, :8], rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(cosines[5, :, 8:], columns, atol=1e-6, rtol=0)


def test_positions_are_nothing_at_native_size_and_something_above_and_below(dit):
    def made(size, method):
        return el.generate(dit, PROMPTS, SEEDS, size, method, **FEW)

    assert np.array_equal(made("64x64", "positions(interpolated)"), made("64x64", "unscaled"))
    for size in ("32x64", "96x96"):
        assert not np.array_equal(made(size, "positions(interpolated)"), made(size, "unscaled"))
    with pytest.raises(KeyboardInterrupt), positioned(dit.transformer, 0.5, 0.5):
        raise KeyboardInterrupt
    assert not dit.transformer.pe_embedder._forward_pre_hooks


def test_positions_leave_the_factor_to_the_rule(dit):
    with el.EntropyProbe(dit) as probe:
        el.generate(dit, PROMPTS, SEEDS, "128x128", "positions(interpolated) + power(2)", steps=1)
    with el.scaled(dit, "power(2)"):
        dit(PROMPTS, height=128, width=128, num_inference_steps=1, use_resolution_binning=False)
        expected = el.scale_report(dit).set_index("layer").factor
    assert probe.table().groupby("layer").factor.first().to_dict() == pytest.approx(expected.to_dict())


def test_flux_has_positions_of_three_axes_the_first_of_which_stays():
    flux = FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, in_channels=4, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    places = torch.tensor([[3.0, 4.0, 10.0]])
    with positioned(flux, 0.5, 0.1):
        cosines, _ = flux.pos_embed(places)
    expected = [rotary_factors([at], size, 10000)[0] for at, size in ((3, 4), (2, 6), (1, 6))]
    assert cosines[0, ::2].tolist() == pytest.approx([*chain(*expected)], abs=1e-6)


def test_positions_of_text_stay_where_they_share_the_axes_of_the_image():
    """Ovis and LongCat count their words along rows and columns."""
    ovis, seen = tiny("OvisImageTransformer2DModel"), []
    ovis.pos_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    words = torch.tensor([[0.0, place, place] for place in range(7)])
    with positioned(ovis, 0.5, 0.25), torch.no_grad():
        hook = ovis.pos_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        inputs = family(ovis).inputs(dict(ovis.config), 8, 16, 7)
        ovis(**inputs | {"txt_ids": words})
        hook.remove()
    plain, multiplied = seen
    assert torch.equal(multiplied[:7], words)
    assert torch.equal(multiplied[7:], plain[7:] * torch.tensor([1, 0.5, 0.25]))


@pytest.mark.parametrize("model", ["sd15", "pixart", "sd3"])
def test_positions_of_another_kind_are_refused_before_anything_is_generated(model):
    network = denoiser(el.load(model, random_weights=True, device="meta"))
    with pytest.raises(UnsupportedModelError, match="hands no coordinates to a rotary embedding"):
        rotary_embedding(network)


def test_a_size_that_was_not_measured_is_one_clear_error(pipe):
    with pytest.raises(InvalidInputError, match="denoises 80x80 best has not been measured, only for 32x32"):
        el.generate(pipe, PROMPTS, SEEDS, "80x80", "noise-told", **FEW)


def test_noise_levels_find_the_level_that_was_hidden():
    """Between the points of the grid, and at its end where the loss falls to there."""
    losses = [(offset - 0.3) ** 2 for offset in noise_levels.OFFSETS]
    assert noise_levels.lowest(losses) == pytest.approx(0.3)
    assert noise_levels.lowest(sorted(losses)) == noise_levels.OFFSETS[0]


def test_a_level_is_the_true_one_where_the_offset_is_nought_and_more_noise_where_it_falls():
    scheduler, timestep = DDIMScheduler(), torch.tensor([10.0, 500.0, 900.0])
    assert torch.allclose(moved(scheduler, timestep, [(0, 0.0), (999, 0.0)]), timestep, atol=0.01)
    assert (moved(scheduler, timestep, [(0, -0.5), (999, -0.5)]) > timestep).all()


def test_noise_levels_are_of_a_model_and_a_size(pipe, tmp_path):
    levels = NoiseLevels.read(SHIPPED / "mini.json")
    assert levels.fit(pipe)
    assert NoiseLevels.read(noise_levels.write(levels, tmp_path / "x.json")).offsets == levels.offsets
    assert noise_level_of(pipe, "96x96") == levels.offsets["96x96"]
    (tmp_path / "y.json").write_text(json.dumps([1]))
    with pytest.raises(InvalidInputError, match=r"y\.json holds no noise levels"):
        NoiseLevels.read(tmp_path / "y.json")


def test_a_padding_that_no_convolution_has_is_refused(dit):
    with pytest.raises(UnsupportedModelError, match="no convolution that sees a border"):
        el.generate(dit, ["an owl"], [0], "64x64", "padding(circular)", steps=1)
