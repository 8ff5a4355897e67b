import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lib.metrics.manifold import density_coverage, precision_recall


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def radius(points, index, neighbours):
    others = [math.dist(points[index], point) for j, point in enumerate(points) if j != index]
    return sorted(others)[neighbours - 1]


def by_loops(drawn, real, neighbours):
    """Precision, recall, density and coverage as the papers define them."""
    real_reach = [radius(real, i, neighbours) for i in range(len(real))]
    drawn_reach = [radius(drawn, i, neighbours) for i in range(len(drawn))]
    around = [sum(math.dist(x, r) <= reach for r, reach in zip(real, real_reach, strict=True)) for x in drawn]
    recalled = [any(math.dist(x, r) <= reach for x, reach in zip(drawn, drawn_reach, strict=True)) for r in real]
    covered = [min(math.dist(x, r) for x in drawn) <= reach for r, reach in zip(real, real_reach, strict=True)]
    return np.mean([count > 0 for count in around]), np.mean(recalled), np.mean(around) / neighbours, np.mean(covered)


def all_four(drawn, real, neighbours):
    return (*precision_recall(drawn, real, neighbours), *density_coverage(drawn, real, neighbours))


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_all_four_are_those_of_the_papers(neighbours):
    drawn, real = normal(40, 3) * 0.7 + 0.3, normal(30, 3, seed=1)
    assert all_four(drawn, real, neighbours) == pytest.approx(by_loops(drawn, real, neighbours), abs=1e-12)


points = st.integers(5, 9).flatmap(
    lambda count: st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=count, max_size=count)
)


@settings(max_examples=100, deadline=None)
@given(points, points, st.integers(1, 4))
def test_repeated_images_and_ties_are_inside_closed_balls(drawn, real, neighbours):
    drawn, real = np.array(drawn, float), np.array(real, float)
    assert all_four(drawn, real, neighbours) == pytest.approx(by_loops(drawn, real, neighbours), abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_set_against_itself_has_every_neighbour_on_the_border(offset):
    same = torch.from_numpy(normal(300, 64) + offset).float()
    assert precision_recall(same, same) == (1.0, 1.0)
    assert density_coverage(same, same, 5) == (pytest.approx(6 / 5), 1.0)


def test_images_in_both_sets_stay_on_the_border_whatever_the_rounding():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        real = torch.randn(60, 301, generator=generator)
        some = torch.randperm(60, generator=generator)[:11]
        reach = torch.cdist(real.double(), real.double(), compute_mode="donot_use_mm_for_euclid_dist")
        inside = reach <= reach.kthvalue(6).values
        assert density_coverage(real[some], real, 5).density == pytest.approx(float(inside[some].double().sum(1).mean() / 5))


def test_more_images_than_a_block_holds():
    drawn, real = torch.from_numpy(normal(2300, 2)), torch.from_numpy(normal(2100, 2, seed=1) + 0.5)
    across, drawn_reach = torch.cdist(drawn, real), torch.cdist(drawn, drawn).kthvalue(6).values
    inside = across <= torch.cdist(real, real).kthvalue(6).values
    recalled = (across <= drawn_reach[:, None]).any(0)
    expected = [inside.any(1), recalled, inside.sum(1) / 5, inside.any(0)]
    assert all_four(drawn, real, 5) == pytest.approx([float(value.double().mean()) for value in expected])


def test_expected_density_and_coverage_of_equal_laws_are_the_closed_forms():
    n, m, k = 40, 60, 5
    values = np.array([density_coverage(normal(n, 3, seed=2 * i), normal(m, 3, seed=2 * i + 1), k) for i in range(400)])
    error = values.std(axis=0, ddof=1) / 20
    expected = np.array([1, 1 - math.comb(m - 1, k) / math.comb(n + m - 1, k)])
    assert np.all(np.abs(values.mean(axis=0) - expected) < 4 * error)
    assert np.all(error < 0.01)


def test_copies_of_one_image_are_precise_without_recall_and_far_ones_are_neither():
    real = normal(100, 4)
    copies = np.repeat(real[:1], 20, axis=0)
    precision, recall = precision_recall(copies, real)
    assert (precision, recall) == (1.0, 0.01)
    assert all_four(real + 100, real, 3) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("drawn", "neighbours", "message"),
    [
        (normal(3, 4), 3, "features hold 3 images; this needs at least 4"),
        (normal(9, 5), 3, "features have 5 columns and the reference 4"),
        (normal(9, 4), 0, "neighbours is 0; it must be 1 or more"),
        (np.full((9, 4), np.nan), 3, "NaN or infinity in 9 of 9 rows"),
    ],
)
def test_what_cannot_be_measured_is_refused(drawn, neighbours, message):
    for metric in (precision_recall, density_coverage):
        with pytest.raises(ValueError, match=message):
            metric(drawn, normal(20, 4), neighbours)
