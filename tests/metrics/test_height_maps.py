"""Metrics of height maps, on maps whose numbers are known."""

import numpy as np
import pytest

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.height_maps import height_metrics


def noise(exponent, side=64, count=8):
    """Maps whose power falls as frequency^exponent."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = np.inf
    white = np.fft.fft2(generator.normal(size=(count, side, side)))
    return np.fft.ifft2(white * frequency ** (exponent / 2)).real


@pytest.mark.parametrize("exponent", [-3, -2, 0])
def test_the_slope_of_the_spectrum_is_found(exponent):
    assert height_metrics(noise(exponent)).spectral_slope.mean() == pytest.approx(exponent, abs=0.15)


def test_units_of_height_change_the_spread_alone():
    maps = noise(-2, count=2)
    one, other = height_metrics(maps), height_metrics(5 + 3 * maps)
    assert (other.spread / one.spread).to_numpy() == pytest.approx(3)
    names = [name for name in one if name != "spread"]
    assert other[names].to_numpy() == pytest.approx(one[names].to_numpy())


def test_white_noise_has_its_power_and_roughness():
    found = height_metrics(noise(0, count=16)).mean()
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    assert found.fine_power == pytest.approx((frequency >= 0.25).mean(), abs=0.02)
    assert found.roughness == pytest.approx(np.sqrt(2), abs=0.02)
    assert found.border == pytest.approx(1, abs=0.05)


def test_what_repeats_is_told_from_what_does_not():
    plain = noise(-1, count=1)
    tiled = np.tile(noise(-1, side=32, count=1), (1, 2, 2))
    assert height_metrics(tiled).repetition[0] == pytest.approx(1)
    assert height_metrics(plain).repetition[0] < 0.5


@pytest.mark.parametrize(
    "maps", [np.zeros((32, 32)), np.zeros((1, 8, 32)), np.zeros((1, 32, 32)), np.full((1, 32, 32), np.nan)]
)
def test_what_is_no_map_is_refused(maps):
    with pytest.raises(InvalidInputError, match="map"):
        height_metrics(maps)
