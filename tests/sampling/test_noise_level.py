"""Which noise level a network is told at another size."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.sampling import noise_level


def test_noise_levels_find_the_level_that_was_hidden():
    """A network that is right only when told another level is found out: the loss is lowest at the offset."""
    losses = [(offset - 0.3) ** 2 for offset in noise_level.OFFSETS]
    assert noise_level._lowest(losses) == pytest.approx(0.3)
    assert noise_level._lowest(sorted(losses)) == noise_level.OFFSETS[0]


def test_a_told_level_is_the_true_one_where_the_offset_is_nought_and_more_noise_where_it_falls():
    scheduler, timestep = DDIMScheduler(), torch.tensor([10.0, 500.0, 900.0])
    assert torch.allclose(
        noise_level.told_offset(scheduler, timestep, [(0, 0.0), (999, 0.0)]), timestep, atol=0.01
    )
    assert (noise_level.told_offset(scheduler, timestep, [(0, -0.5), (999, -0.5)]) > timestep).all()


def test_noise_levels_are_of_a_model_and_a_size(pipe, tmp_path):
    levels = noise_level.NoiseLevels.read(noise_level.SHIPPED / "mini.json")
    assert levels.fit(pipe)
    assert noise_level.NoiseLevels.read(levels.write(tmp_path / "x.json")).offsets == levels.offsets
    assert noise_level.noise_level_of(pipe, "96x96") == levels.offsets["96x96"]
    with pytest.raises(InvalidInputError, match="at 80x80 has not been measured, only for 32x32"):
        noise_level.noise_level_of(pipe, "80x80")
    (tmp_path / "y.json").write_text(json.dumps([1]))
    with pytest.raises(InvalidInputError, match=r"y\.json holds no noise levels"):
        noise_level.NoiseLevels.read(tmp_path / "y.json")


def test_noise_levels_refuse_pictures_of_another_size_and_flows(pipe):
    with pytest.raises(InvalidInputError, match="one for each of the captions"):
        noise_level.calibrate_noise_level(pipe, {(32, 32): np.zeros((2, 64, 64, 3), np.uint8)}, ["a", "b"])
    with pytest.raises(UnsupportedModelError, match="no schedule of variances"):
        noise_level.log_snr(object())
