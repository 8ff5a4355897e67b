"""Reading places from features: against a plain least-squares fit, on features whose answer is known, and on
a real model.
"""

import numpy as np
import pytest
import torch
from torch import nn

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.sampling import position


def features(count=2, channels=5, rows=6, columns=8, seed=0):
    return torch.randn(count, channels, rows, columns, generator=torch.Generator().manual_seed(seed))


def read(train, other):
    """The error of the map that is fitted on some features, on others."""
    return position.unexplained(position.fitted(position.gram(train)), position.gram(other))


def test_the_error_is_that_of_a_plain_least_squares_fit():
    train, other = features(seed=1), features(seed=2)
    place = position.places(6, 8).reshape(-1, 2).numpy()
    design = [np.c_[f.movedim(1, -1).reshape(-1, 5).numpy(), np.ones(96)] for f in (train, other)]
    weights = np.linalg.lstsq(design[0], np.tile(place, (2, 1)), rcond=None)[0]
    expected = np.mean((design[1] @ weights - np.tile(place, (2, 1))) ** 2)
    assert read(train, other) == pytest.approx(expected, rel=1e-3)


def test_places_in_the_features_are_read_and_noise_is_not():
    known = torch.cat([features(), position.places(6, 8).movedim(-1, 0).expand(2, -1, -1, -1)], 1)
    assert read(known, known) < 1e-6
    chance = position.places(6, 8).square().mean().item()
    assert read(features(40, seed=3), features(40, seed=4)) == pytest.approx(chance, rel=0.05)


def convolved(padding, seed):
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, padding=1, padding_mode=padding) for _ in range(4)]
    with torch.no_grad():
        return nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))(
            1 + 0.1 * features(60, 8, 8, 8, seed)
        )


def test_padding_with_zeros_is_a_code_of_position_and_padding_in_circles_is_none():
    zeros, circular = (read(convolved(kind, 1), convolved(kind, 2)) for kind in ("zeros", "circular"))
    assert zeros < 0.06 < 0.08 < circular


@pytest.mark.slow
def test_each_prompt_is_read_by_a_map_that_has_not_seen_it_and_nothing_is_left_in_the_model(pipe):
    before = len(pipe.unet.conv_norm_out._forward_pre_hooks)
    table = position.position_error(
        pipe, ["an owl", "a bus", "two frogs"], [0, 1, 2], [(64, 64), (32, 48)], steps=1
    )
    assert list(table["size"]) == ["64x64"] * 3 + ["32x48"] * 3
    assert (table.error > 0).all()
    assert table.chance.iloc[0] == pytest.approx((1 - 1 / 16**2) / 12)
    assert len(pipe.unet.conv_norm_out._forward_pre_hooks) == before


def test_what_cannot_be_read_is_said(pipe):
    with (
        pytest.raises(UnsupportedModelError, match="Linear has no layer conv_norm_out"),
        position.last_features(nn.Linear(2, 2)),
    ):
        pass
    with pytest.raises(InvalidInputError, match="give at least 2"):
        position.position_error(pipe, ["an owl"], [0], [(32, 32)])
    with pytest.raises(InvalidInputError, match="seed"):
        el.sampling.position_error(pipe, ["an owl", "a bus"], [0], [(32, 32)])
