import functools
import math

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from entropy_lib.metrics.clip import clip_scores
from entropy_lib.metrics.kernel import (
    cmmd,
    gaussian_kernel,
    kernel_difference,
    kernel_interval,
    kid,
    polynomial_kernel,
    relative_test,
    squared_mmd,
)
from entropy_lib.statistics.intervals import deal_blocks, jackknife, jackknife_difference


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cubic(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def wide_gaussian(x, y):
    x, y = ([value / math.hypot(*row) for value in row] for row in (x, y))
    return math.exp(-(math.dist(x, y) ** 2) / (2 * 10**2))


def by_loops(first, second, kernel):
    """The U-statistic, one pair at a time."""
    among = [[kernel(x, y) for i, x in enumerate(values) for j, y in enumerate(values) if i != j] for values in (first, second)]
    return np.mean(among[0]) + np.mean(among[1]) - 2 * np.mean([kernel(x, y) for x in first for y in second])


@pytest.mark.parametrize(("metric", "kernel"), [(kid, cubic), (cmmd, wide_gaussian)])
@pytest.mark.parametrize(("count", "other"), [(7, 5), (2, 9)])
def test_distances_are_means_over_all_pairs(metric, kernel, count, other):
    first, second = normal(count, 4) + 0.5, normal(other, 4, seed=1)
    expected = by_loops(first.tolist(), second.tolist(), kernel)
    assert metric(first, second) == pytest.approx(expected, rel=1e-9)
    assert metric(first.numpy(), second.float()) == pytest.approx(expected, rel=1e-5)


def test_kid_of_all_images_is_that_of_torchmetrics_for_one_subset_of_all():
    first, second = normal(300, 32) + 0.3, normal(300, 32, seed=1)
    assert kid(first, second) == pytest.approx(poly_mmd(second, first).item(), rel=1e-9)


def test_more_images_than_a_tile_holds():
    first, second = normal(2100, 3) + 0.2, normal(2300, 3, seed=1)
    among = [(polynomial_kernel(x, x).sum() - polynomial_kernel(x, x).trace()) / len(x) / (len(x) - 1) for x in (first, second)]
    expected = sum(among) - 2 * polynomial_kernel(first, second).mean()
    assert kid(first, second) == pytest.approx(expected.item(), rel=1e-9)
    labels = deal_blocks(range(2100))
    half = squared_mmd(first[labels != 3], second)
    interval = kernel_interval(first, second, labels)
    assert interval.estimate == pytest.approx(expected.item(), rel=1e-9)
    assert interval.low < half < interval.high
    fixed = kernel_interval(first, second, labels, fixed_reference=True)
    matrix = polynomial_kernel(second, second)
    influence = (matrix.sum(1) - matrix.diagonal()) / 2299 - polynomial_kernel(first, second).mean(0)
    assert interval.standard_error**2 - fixed.standard_error**2 == pytest.approx(4 * influence.var().item() / 2300, rel=1e-9)


def cubic_moment(a, b):
    """E (x·y/d + 1)³ for independent x ~ N(a, I) and y ~ N(b, I), from the first three moments of x·y."""
    width, product, lengths = len(a), float(a @ b), float(a @ a + b @ b)
    second = width + lengths + product**2
    third = product**3 + 3 * product * (lengths + width + 2)
    return third / width**3 + 3 * second / width**2 + 3 * product / width + 1


def exact_kid(mean):
    """Of N(mean, I) against N(0, I)."""
    return cubic_moment(mean, mean) + cubic_moment(0 * mean, 0 * mean) - 2 * cubic_moment(mean, 0 * mean)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_kid_has_no_bias_even_for_eight_images(shift):
    mean = shift * torch.ones(4, dtype=torch.float64)
    first, second = normal(3000, 8, 4) + mean, normal(3000, 6, 4, seed=1)
    values = np.array([kid(x, y) for x, y in zip(first, second, strict=True)])
    error = values.std(ddof=1) / 3000**0.5
    print(f"KID: mean {values.mean():.4f}, exact {exact_kid(mean):.4f}, s.e. {error:.4f}")
    assert abs(values.mean() - exact_kid(mean)) < 4 * error
    self_pairs = np.mean([(polynomial_kernel(x, x).diagonal().mean() - polynomial_kernel(x, x).mean()) / 8 for x in first])
    assert self_pairs > 8 * error  # so that the bias of the V-statistic would be seen


def test_cmmd_looks_at_directions_only_and_is_the_closed_form():
    first, second = normal(60, 5) + 1, normal(50, 5, seed=1)
    assert cmmd(first * 7, second / 3) == pytest.approx(cmmd(first, second), rel=1e-9)
    # One feature: unit rows are +1 or -1. All +1 against half and half, and all against all -1, with k(+1, -1) = exp(-0.02)
    assert cmmd(torch.ones(9, 1), -torch.ones(7, 1)) == pytest.approx(2 * (1 - math.exp(-0.02)))
    narrow = functools.partial(gaussian_kernel, width=1.0)
    assert squared_mmd(torch.ones(9, 1), -torch.ones(7, 1), narrow) == pytest.approx(2 * (1 - math.exp(-2)))


@pytest.mark.parametrize("kernel", [polynomial_kernel, gaussian_kernel])
def test_deleting_blocks_from_sums_is_deleting_images(kernel):
    first, second, real = normal(60, 4) + 0.5, normal(60, 4, seed=1), normal(50, 4, seed=2)
    labels = deal_blocks(np.arange(60) // 3, blocks=7)  # unequal blocks of whole prompts

    def distance(rows):
        return squared_mmd(rows, real, kernel)

    level = jackknife(distance, first, labels, correct_bias=False)
    difference = jackknife_difference(distance, first, second, labels, correct_bias=False)
    fast = kernel_interval(first, real, labels, kernel, fixed_reference=True)
    fast_difference = kernel_difference(first, second, real, labels, kernel, fixed_reference=True)
    for mine, expected in ((fast, level), (fast_difference, difference)):
        for name in ("estimate", "standard_error", "low", "high", "blocks"):
            assert getattr(mine, name) == pytest.approx(getattr(expected, name), rel=1e-6)


def test_the_reference_adds_the_error_of_being_drawn():
    first, second, real = normal(150, 3) + 0.5, normal(150, 3, seed=1) - 0.4, normal(120, 3, seed=2)
    labels, each = deal_blocks(range(150)), np.arange(120)
    for measure, distance in (
        (functools.partial(kernel_interval, first), lambda rows: kid(first, rows)),
        (functools.partial(kernel_difference, first, second), lambda rows: kid(first, rows) - kid(second, rows)),
    ):
        drawn, fixed = measure(real, labels), measure(real, labels, fixed_reference=True)
        added = math.sqrt(drawn.standard_error**2 - fixed.standard_error**2)
        assert added == pytest.approx(jackknife(distance, real, each).standard_error, rel=0.03)
        assert drawn.estimate == fixed.estimate


def variance_of_bounliphone(reference, first, second):
    """Of MMD²(first) - MMD²(second), three samples of equal size m: their Eqs. for zeta_1, one covariance at a time."""
    m = len(reference)
    one, other = (polynomial_kernel(x, x).fill_diagonal_(0) for x in (first, second))
    across, other_across = (polynomial_kernel(reference, x) for x in (first, second))
    u, v = one.sum() / (m * (m - 1)), other.sum() / (m * (m - 1))
    a, b = across.mean(), other_across.mean()
    parts = [
        (one @ one).sum() / m**3 - u**2,
        (across.T @ across).sum() / m**3 - a**2,
        (across @ across.T).sum() / m**3 - a**2,
        (other @ other).sum() / m**3 - v**2,
        (other_across.T @ other_across).sum() / m**3 - b**2,
        (other_across @ other_across.T).sum() / m**3 - b**2,
        -2 * ((one @ across.T).sum() / m**3 - u * a),
        -2 * ((across.T @ other_across).sum() / m**3 - a * b),
        -2 * ((other @ other_across.T).sum() / m**3 - v * b),
    ]
    return 4 * (m - 2) / (m * (m - 1)) * sum(parts).item()


def test_relative_test_has_the_variance_of_bounliphone_and_others():
    first, second, real = normal(400, 3) + 0.5, 1.2 * normal(400, 3, seed=1), normal(400, 3, seed=2)
    test = relative_test(first, second, real)
    assert test.estimate == pytest.approx(kid(first, real) - kid(second, real))
    assert test.standard_error**2 == pytest.approx(variance_of_bounliphone(real, first, second), rel=0.02)
    assert test.blocks is None


def equal_methods(repetitions, count, shared):
    """Two methods off in different directions by as much, their content in common as far as `shared`; and a reference."""
    own, other, common, real = normal(4, repetitions, count, 4)
    shift, other_shift = 0.6 * torch.eye(4, dtype=torch.float64)[:2]
    first, second = ((1 - shared) ** 0.5 * noise + shared**0.5 * common for noise in (own, other))
    return list(zip(first + shift, second + other_shift, real, strict=True))


def paired(first, second, real):
    return kernel_difference(first, second, real, deal_blocks(range(len(first))))


@pytest.mark.parametrize(("compare", "shared"), [(relative_test, 0.0), (paired, 0.7)])
def test_equally_far_methods_differ_in_one_test_of_twenty(compare, shared):
    rejected = np.mean([compare(*samples).p_value < 0.05 for samples in equal_methods(500, 300, shared)])
    print(f"{compare.__name__}: {rejected:.3f} rejected")
    assert 0.02 <= rejected <= 0.08
    worse = [compare(x + 0.4, y, real) for x, y, real in equal_methods(40, 300, shared)]
    assert np.mean([test.low > 0 for test in worse]) > 0.9


def test_pairs_are_sharper_than_the_same_images_taken_for_independent():
    common, own, other, real = normal(4, 300, 4)
    first, second = common + 0.2 * own + 0.5, common + 0.2 * other + 0.4
    assert paired(first, second, real).standard_error < 0.5 * relative_test(first, second, real).standard_error


def test_intervals_of_kid_cover_it():
    mean, labels = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64), deal_blocks(range(300))
    intervals = [kernel_interval(x + mean, y, labels) for x, y in zip(*normal(2, 400, 300, 4), strict=True)]
    coverage = np.mean([interval.low <= exact_kid(mean) <= interval.high for interval in intervals])
    print(f"kernel_interval: coverage {coverage:.3f}")
    assert 0.90 <= coverage <= 0.99


def test_a_method_does_not_differ_from_itself():
    first, real = normal(50, 4), normal(50, 4, seed=1)
    same = kernel_difference(first, first, real, deal_blocks(range(50)))
    assert (same.estimate, same.standard_error, same.p_value) == (0, 0, 1)


@pytest.mark.parametrize("metric", [kid, cmmd])
def test_bad_features_are_refused(metric):
    with pytest.raises(ValueError, match="features hold 1 images; this needs at least 2"):
        metric(normal(1, 4), normal(5, 4))
    with pytest.raises(ValueError, match="features have 3 columns and the reference 4; both must come from the same extractor"):
        metric(normal(5, 3), normal(5, 4))
    with pytest.raises(ValueError, match="the reference hold NaN or infinity in 1 of 5 rows"):
        metric(normal(5, 4), normal(5, 4).index_fill(0, torch.tensor([2]), math.nan))


def test_comparisons_that_make_no_sense_are_refused():
    first, real, labels = normal(40, 4), normal(30, 4), deal_blocks(range(40))
    with pytest.raises(ValueError, match="40 and 39 images; a paired difference"):
        kernel_difference(first, first[1:], real, labels)
    with pytest.raises(ValueError, match=r"\(40,\) block labels for 39 images"):
        kernel_interval(first[1:], real, labels)
    with pytest.raises(ValueError, match="1 embeddings are all zeros"):
        cmmd(first.index_fill(0, torch.tensor([2]), 0.0), real)


def test_clip_score_of_each_image_is_100_cosines():
    images, texts = normal(6, 5), normal(6, 5, seed=1).float()
    expected = [
        100 * np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(images.numpy(), texts.numpy(), strict=True)
    ]
    scores = clip_scores(images, texts)
    assert scores.tolist() == pytest.approx(expected)
    assert min(expected) < 0  # not clipped
    with pytest.raises(ValueError, match="6 images and 5 texts"):
        clip_scores(images, texts[:5])
    with pytest.raises(ValueError, match="images have 5 columns and texts 4"):
        clip_scores(images, texts[:, :4])
