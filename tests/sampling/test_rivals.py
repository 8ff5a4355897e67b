"""What one would change if attention were not the cause: the schedule, the level that is told, the
positional information.
"""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.padding import padding_of
from entropy_lib.sampling.methods import METHODS, method
from entropy_lib.sampling.noise_level import log_snr
from entropy_lib.sampling.rivals import padded, retold, shifted

PROMPTS, SEEDS, FEW = ["a zebra on a blue background", "two owls"], [0, 1], {"steps": 3}
ARMS = ["schedule-shift", "noise-told", "padding(circular)"]


def state(pipe):
    """All that an intervention could leave behind."""
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipe.unet.modules())
    return padding_of(pipe.unet), "forward" in vars(pipe.unet), id(pipe.scheduler), hooks


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_changes_pictures_goes_with_a_rule_and_leaves_nothing_behind(pipe, arm):
    before, plain = state(pipe), el.generate(pipe, PROMPTS, SEEDS, "96x96", **FEW)
    alone = el.generate(pipe, PROMPTS, SEEDS, "96x96", arm, **FEW)
    ruled = el.generate(pipe, PROMPTS, SEEDS, "96x96", f"{arm} + power(3)", **FEW)
    assert not np.array_equal(alone, plain)
    assert not np.array_equal(alone, ruled)
    assert state(pipe) == before
    assert np.array_equal(plain, el.generate(pipe, PROMPTS, SEEDS, "96x96", **FEW))


@pytest.mark.parametrize("arm", [name for name in ARMS if METHODS[method(name).kind].identity])
def test_an_arm_is_nothing_at_native_size(pipe, arm):
    native = el.native_size(pipe)
    made = el.generate(pipe, PROMPTS, SEEDS, native, f"{arm} + paper", **FEW)
    assert np.array_equal(made, el.generate(pipe, PROMPTS, SEEDS, native, **FEW))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_that_fails_leaves_nothing_behind(pipe, arm, monkeypatch):
    before = state(pipe)

    def fail(*_, **__):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(type(pipe.vae), "decode", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            el.generate(pipe, PROMPTS, SEEDS, "96x96", arm, **FEW)
    assert state(pipe) == before


def test_a_shifted_schedule_has_its_signal_to_noise_ratio_divided():
    own = DDIMScheduler()
    there = shifted(own, 4.0)
    inner = slice(1, 990)  # the very ends are clipped
    difference = log_snr(own).values[inner] - log_snr(there).values[inner]
    assert np.allclose(difference, np.log(4), atol=0.02)


def test_a_flow_is_shifted_by_its_own_shift():
    assert shifted(FlowMatchEulerDiscreteScheduler(shift=3.0), 4.0).config.shift == pytest.approx(6.0)
    with pytest.raises(UnsupportedModelError, match="shifts its schedule by the size itself"):
        shifted(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 4.0)


def test_a_network_is_told_what_retell_says_however_it_is_called(network, call):
    expected = call(network)  # at 500
    generator = torch.Generator().manual_seed(1)
    sample, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 24, generator=generator)
    with torch.no_grad(), retold(network, lambda timestep: timestep + 400):
        assert torch.equal(network(sample, torch.tensor(100), text).sample, expected)
        assert torch.equal(network(sample, timestep=100, encoder_hidden_states=text).sample, expected)


def test_paddings_nest(network):
    before = padding_of(network)
    with padded(network, "reflect"):
        with padded(network, "circular"):
            assert set(padding_of(network).values()) == {"circular"}
        assert set(padding_of(network).values()) == {"reflect"}
    assert padding_of(network) == before


def test_a_size_that_was_not_measured_is_one_clear_error(pipe):
    with pytest.raises(InvalidInputError, match="at 80x80 has not been measured"):
        el.generate(pipe, PROMPTS, SEEDS, "80x80", "noise-told", **FEW)
