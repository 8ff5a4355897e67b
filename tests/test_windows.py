"""Windows cover every place, wherever the sides may end."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lib.baselines.windows import cover, starts
from entropy_lib.errors import InvalidInputError


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 40), st.integers(0, 60), st.floats(0.01, 0.99))
def test_every_place_is_seen_and_no_window_leaves_the_picture(tall, more_rows, wide, more_columns, overlap):
    size = tall + more_rows, wide + more_columns
    seen = np.zeros(size, int)
    for top, left in cover(size, (tall, wide), overlap):
        part = seen[top : top + tall, left : left + wide]
        assert part.shape == (tall, wide)
        part += 1
    assert seen.min() >= 1


@given(st.integers(1, 64), st.integers(0, 100), st.integers(1, 64))
def test_neighbours_are_no_farther_apart_than_the_stride(window, more, stride):
    places = starts(window + more, window, stride)
    assert all(0 < after - before <= stride for before, after in pairwise(places))
    assert places[0] == 0


def test_the_views_are_those_of_diffusers_where_these_cover_the_picture():
    from diffusers import StableDiffusionPanoramaPipeline

    views = StableDiffusionPanoramaPipeline.get_views(None, 512, 2048, window_size=64, stride=8)
    assert [(top, left) for top, _, left, _ in views] == cover((64, 256), (64, 64), 0.875)


def test_columns_that_diffusers_leaves_out_are_covered():
    from diffusers import StableDiffusionPanoramaPipeline

    views = StableDiffusionPanoramaPipeline.get_views(None, 512, 1056, window_size=64, stride=8)  # 132 latent columns
    assert max(right for *_, right in views) == 128
    assert max(left + 64 for _, left in cover((64, 132), (64, 64), 0.875)) == 132


@pytest.mark.parametrize("overlap", [0, 1, -0.5, 1.5, float("nan"), "0.5", None, True])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(InvalidInputError, match=r"overlap is .*above 0 and below 1"):
        cover((16, 16), (16, 16), overlap)


@pytest.mark.parametrize("size", [(15, 32), (32, 15), (8, 8)])
def test_a_picture_smaller_than_a_window_is_refused(size):
    with pytest.raises(InvalidInputError, match="no room for one"):
        cover(size, (16, 16), 0.5)
