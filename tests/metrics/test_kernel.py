import functools
import math

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from entropy_lib.metrics.clip import clip_scores
from entropy_lib.metrics.kernel import (
    gaussian_kernel,
    kernel_difference,
    kernel_interval,
    kid,
    polynomial_kernel,
    squared_mmd,
)
from entropy_lib.statistics.resampling import deal_blocks, deal_together, from_deletions, jackknife


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cubic(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def wide_gaussian(x, y):
    x, y = ([value / math.hypot(*row) for value in row] for row in (x, y))
    return math.exp(-(math.dist(x, y) ** 2) / (2 * 10**2))


cmmd = functools.partial(squared_mmd, kernel=gaussian_kernel)


def by_loops(first, second, kernel):
    """The U-statistic, one pair at a time."""
    among = [
        [kernel(x, y) for i, x in enumerate(values) for j, y in enumerate(values) if i != j]
        for values in (first, second)
    ]
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
    among = [
        (polynomial_kernel(x, x).sum() - polynomial_kernel(x, x).trace()) / len(x) / (len(x) - 1)
        for x in (first, second)
    ]
    expected = sum(among) - 2 * polynomial_kernel(first, second).mean()
    assert kid(first, second) == pytest.approx(expected.item(), rel=1e-9)
    labels, other_labels = deal_blocks(range(2100)), deal_blocks(range(2300), seed=1)
    interval = kernel_interval(first, second, labels, reference_labels=other_labels)
    assert interval.estimate == pytest.approx(
        between_blocks(first, second, labels, other_labels, polynomial_kernel), rel=1e-9
    )


def between_blocks(first, second, labels, other_labels, kernel):
    """The U-statistic over pairs of images in different blocks, from whole kernel matrices."""
    sides = {"first": (first, torch.from_numpy(labels)), "second": (second, torch.from_numpy(other_labels))}

    def mean(one, other):
        (x, a), (y, b) = sides[one], sides[other]
        return kernel(x, y)[a[:, None] != b].mean()

    return float(mean("first", "first") + mean("second", "second") - 2 * mean("first", "second"))


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
    own = [polynomial_kernel(x, x) for x in first]
    self_pairs = np.mean([(each.diagonal().mean() - each.mean()) / 8 for each in own])
    assert self_pairs > 8 * error  # so that the bias of the V-statistic would be seen


def test_cmmd_looks_at_directions_only_and_is_the_closed_form():
    first, second = normal(60, 5) + 1, normal(50, 5, seed=1)
    assert cmmd(first * 7, second / 3) == pytest.approx(cmmd(first, second), rel=1e-9)
    # One feature: unit rows are +1 or -1. All +1 against half and half, and all against all -1, with k(+1,
    # -1) = exp(-0.02)
    assert cmmd(torch.ones(9, 1), -torch.ones(7, 1)) == pytest.approx(2 * (1 - math.exp(-0.02)))
    narrow = functools.partial(gaussian_kernel, width=1.0)
    assert squared_mmd(torch.ones(9, 1), -torch.ones(7, 1), narrow) == pytest.approx(2 * (1 - math.exp(-2)))


@pytest.mark.parametrize("kernel", [polynomial_kernel, gaussian_kernel])
def test_deleting_blocks_from_sums_is_deleting_images_from_both(kernel):
    first, second, real = normal(60, 4) + 0.5, normal(60, 4, seed=1), normal(50, 4, seed=2)
    # unequal blocks of whole prompts
    labels, real_labels = deal_together(np.arange(60) // 3, np.arange(50) // 3 + 9, blocks=7)
    options = {"reference_labels": real_labels}

    def distance(drawn, block):
        kept, real_kept = labels != block, real_labels != block
        return between_blocks(drawn[kept], real[real_kept], labels[kept], real_labels[real_kept], kernel)

    def deletions(drawn):
        return np.array([distance(drawn, block) for block in range(-1, 7)])

    shares = np.bincount(labels) / 60 + np.bincount(real_labels) / 50
    level = kernel_interval(first, real, labels, kernel, **options)
    difference = kernel_difference(first, second, real, labels, kernel, **options)
    one, other = deletions(first), deletions(second)
    for mine, values in ((level, one), (difference, one - other)):
        expected = from_deletions(values[0], values[1:], shares, correct_bias=False)
        for name in ("estimate", "standard_error", "low", "high", "blocks"):
            assert getattr(mine, name) == pytest.approx(getattr(expected, name), rel=1e-6)


def test_a_reference_without_labels_is_dealt_at_random():
    first, real, labels = normal(60, 4) + 0.5, normal(50, 4, seed=2), deal_blocks(range(60))
    dealt = deal_blocks(range(50), 20)
    expected = kernel_interval(first, real, labels, reference_labels=dealt)
    assert kernel_interval(first, real, labels) == expected


def test_the_error_of_the_reference_is_part_of_the_interval():
    """Every image a block of its own: the squares of both errors add up."""
    first, second, real, each = (
        normal(200, 3) + 0.5,
        normal(200, 3, seed=1) - 0.4,
        normal(200, 3, seed=2),
        np.arange(200),
    )
    for measure, distance in (
        (functools.partial(kernel_interval, first), lambda rows, drawn, _: kid(drawn, rows)),
        (
            functools.partial(kernel_difference, first, second),
            lambda rows, one, other: kid(one, rows) - kid(other, rows),
        ),
    ):
        both = measure(real, each, reference_labels=np.random.default_rng(0).permutation(200)).standard_error
        pairs = torch.cat([first, second], 1)
        generated = jackknife(
            lambda rows, d=distance: d(real, rows[:, :3], rows[:, 3:]), pairs, each
        ).standard_error
        reference = jackknife(lambda rows, d=distance: d(rows, first, second), real, each).standard_error
        assert both == pytest.approx(math.hypot(generated, reference), rel=0.1)
        assert reference > 0.3 * both, "or its absence would not be seen"


def test_equally_far_methods_differ_in_one_test_of_twenty():
    """Two methods off in different directions by as much, with most of their content in common."""
    own, other, common, real = normal(4, 500, 300, 4)
    shift, other_shift = 0.6 * torch.eye(4, dtype=torch.float64)[:2]
    first, second = (0.3**0.5 * noise + 0.7**0.5 * common for noise in (own, other))
    samples = list(zip(first + shift, second + other_shift, real, strict=True))
    labels = deal_blocks(range(300))
    rejected = np.mean([kernel_difference(*three, labels).p_value < 0.05 for three in samples])
    print(f"kernel_difference: {rejected:.3f} rejected")
    assert 0.02 <= rejected <= 0.08
    assert np.mean([kernel_difference(x + 0.4, y, real, labels).low > 0 for x, y, real in samples[:40]]) > 0.9


def test_intervals_of_kid_cover_it():
    mean, labels = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64), deal_blocks(range(300))
    intervals = [kernel_interval(x + mean, y, labels) for x, y in zip(*normal(2, 400, 300, 4), strict=True)]
    coverage = np.mean([interval.low <= exact_kid(mean) <= interval.high for interval in intervals])
    print(f"kernel_interval: coverage {coverage:.3f}")
    assert 0.90 <= coverage <= 0.99


def of_the_same_prompts(repetitions, prompts, shared, shift):
    """Two images of each of some prompts, and two reference images of each: they have the content of the
    prompt in common.
    """
    common = normal(repetitions, prompts, 1, 4)
    own, other = ((1 - shared) ** 0.5 * noise for noise in normal(2, repetitions, prompts, 2, 4, seed=1))
    images, real = ((shared**0.5 * common + noise).flatten(1, 2) for noise in (own, other))
    return list(zip(images + shift, real, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_intervals_cover_where_the_reference_shows_the_very_prompts(shift):
    """As for the model's own native images: both samples are small, share their prompts, and have several
    images of each.
    """
    mean = torch.tensor([shift, shift, 0.0, 0.0], dtype=torch.float64)
    labels, real_labels = deal_together(np.arange(140) // 2, np.arange(140) // 2)
    samples = of_the_same_prompts(400, 70, 0.7, mean)
    intervals = [kernel_interval(x, y, labels, reference_labels=real_labels) for x, y in samples]
    estimates = np.array([interval.estimate for interval in intervals])
    coverage = np.mean([interval.low <= exact_kid(mean) <= interval.high for interval in intervals])
    print(f"shift {shift}: coverage {coverage:.3f}")
    assert 0.92 <= coverage <= (1.0 if shift == 0 else 0.98)
    assert abs(estimates.mean() - exact_kid(mean)) < 4 * estimates.std() / 20
    errors = np.array([interval.standard_error for interval in intervals])
    assert errors.mean() == pytest.approx(estimates.std(), rel=0.15) or shift == 0


def test_a_method_does_not_differ_from_itself():
    first, real = normal(50, 4), normal(50, 4, seed=1)
    same = kernel_difference(first, first, real, deal_blocks(range(50)))
    assert (same.estimate, same.standard_error, same.p_value) == (0, 0, 1)


def test_clip_score_of_each_image_is_100_cosines():
    images, texts = normal(6, 5), normal(6, 5, seed=1).float()
    expected = 100 * torch.nn.functional.cosine_similarity(images, texts.double())
    assert clip_scores(images, texts).tolist() == pytest.approx(expected.tolist())
    assert min(expected) < 0  # not clipped
    with pytest.raises(ValueError, match="images have 5 columns and texts 4"):
        clip_scores(images, texts[:, :4])
