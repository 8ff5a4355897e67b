"""What can be measured of one height map: spread, roughness, spectrum, border, repetition.

All are numbers of one map, so that maps of any two methods can be compared in pairs by prompt and seed.

Example:
    >>> slope = np.tile(np.linspace(0.0, 1.0, 32), (1, 32, 1))
    >>> found = height_metrics(slope)
    >>> round(float(found.spread[0]), 3), round(float(found.roughness[0]), 3)
    (0.298, 0.077)
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from entropy_lib.errors import InvalidInputError

LEAST = 16  # sides in pixels, below which there is no spectrum to speak of
FINE = 0.25  # cycles a pixel, from which power is called fine
BORDER = 1 / 16  # of the shorter side
NEAR = 1 / 8  # of each side: a map is like itself at shifts that are shorter


def height_metrics(maps: Float[np.ndarray, "map height width"]) -> pd.DataFrame:
    """Six numbers of each map.

    Args:
        maps: heights in any unit.

    Returns:
        one row a map: `spread`, standard deviation of heights; `roughness`, root mean square step from pixel
            to pixel over `spread`; `spectral_slope` of ln power on ln frequency, means over rings;
            `fine_power`, share of the power at 0.25 cycles a pixel and above; `border`, standard deviation of
            the outer sixteenth over that of the rest; `repetition`, the largest correlation of a map with
            itself shifted by an eighth of its side or more (circular).

    Raises:
        InvalidInputError: for other shapes, sides below 16 pixels, and maps that are flat or not finite.
    """
    maps = np.asarray(maps, float)
    if maps.ndim != 3 or min(maps.shape[1:]) < LEAST:
        raise InvalidInputError(
            f"maps are {list(maps.shape)}; give [map, height, width], sides of {LEAST} at least"
        )
    if not np.isfinite(maps).all() or not maps.std((1, 2)).all():
        raise InvalidInputError("a map is flat or not finite, so that it has no spectrum")
    return pd.DataFrame([_of_one(each) for each in maps])


def _of_one(heights: np.ndarray) -> dict[str, float]:
    centred = heights - heights.mean()
    power = np.abs(np.fft.fft2(centred)) ** 2
    down, across = map(np.fft.fftfreq, heights.shape)
    frequency = np.hypot(down[:, None], across)  # cycles a pixel
    steps = np.concatenate([np.diff(heights, axis=axis).ravel() for axis in (0, 1)])
    edge = max(1, round(min(heights.shape) * BORDER))
    inner = np.zeros(heights.shape, bool)
    inner[edge:-edge, edge:-edge] = True
    return {
        "spread": heights.std(),
        "roughness": np.sqrt(np.square(steps).mean()) / heights.std(),
        "spectral_slope": _slope(power, frequency),
        "fine_power": power[frequency >= FINE].sum() / power.sum(),
        "border": heights[~inner].std() / heights[inner].std(),
        "repetition": _repetition(power),
    }


def _slope(power: np.ndarray, frequency: np.ndarray) -> float:
    """Of the mean power of rings, up to half a cycle a pixel."""
    count = min(power.shape) // 2
    ring = np.rint(frequency * min(power.shape)).astype(int)
    means = [power[ring == number].mean() for number in range(1, count)]
    floor = np.finfo(float).tiny
    return float(np.polyfit(np.log(np.arange(1, count)), np.log(np.maximum(means, floor)), 1)[0])


def _repetition(power: np.ndarray) -> float:
    """By the theorem of Wiener and Khinchin; the centre, where a map is like itself, is left out."""
    like = np.fft.ifft2(power).real
    like /= like[0, 0]
    far = [np.minimum(np.arange(side), side - np.arange(side)) >= side * NEAR for side in power.shape]
    return float(like[far[0][:, None] | far[1][None]].max())
