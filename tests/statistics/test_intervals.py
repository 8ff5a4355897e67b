import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor

from entropy_lib import metrics
from entropy_lib.metrics.samples import PART, ROWS
from entropy_lib.statistics.interval import Interval, wilson
from entropy_lib.statistics.resampling import deal_blocks, from_deletions, jackknife, jackknife_difference


def mean(rows):
    return float(rows.mean())


def test_leaving_out_one_at_a_time_is_the_t_interval_of_a_mean():
    values = np.random.default_rng(0).exponential(size=30)
    interval = jackknife(mean, values, np.arange(30))
    assert (interval.estimate, interval.standard_error) == pytest.approx(
        (values.mean(), scipy.stats.sem(values))
    )
    assert (interval.low, interval.high) == pytest.approx(
        scipy.stats.t.interval(0.95, 29, values.mean(), scipy.stats.sem(values))
    )
    assert interval.blocks == 30
    assert jackknife(mean, torch.from_numpy(values), np.arange(30)).low == pytest.approx(interval.low)
    shifted = jackknife(mean, values - 0.8, np.arange(30))
    assert shifted.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0.8).pvalue)


def test_blocks_of_unequal_size_weigh_as_busing_and_others_say():
    values, sizes = np.random.default_rng(0).standard_normal(20), [1, 4, 7, 8]
    labels = np.repeat(range(4), sizes)
    interval = jackknife(mean, values, labels)
    # For a mean the pseudo-values are the means of the blocks.
    squares = [
        (values[labels == block].mean() - values.mean()) ** 2 / (20 / size - 1)
        for block, size in enumerate(sizes)
    ]
    assert (interval.estimate, interval.standard_error) == pytest.approx(
        (values.mean(), np.mean(squares) ** 0.5)
    )


def test_equal_blocks_give_the_familiar_formula():
    without = np.random.default_rng(0).standard_normal(20)
    interval = from_deletions(0.3, without, [5] * 20)
    assert interval.estimate == pytest.approx(20 * 0.3 - 19 * without.mean())
    assert interval.standard_error == pytest.approx(
        (19 / 20 * np.sum((without - without.mean()) ** 2)) ** 0.5
    )
    plain = from_deletions(0.3, without, [5] * 20, correct_bias=False)
    assert (plain.estimate, plain.standard_error) == (0.3, interval.standard_error)


def test_a_bias_of_one_in_n_is_taken_off_exactly():
    rows = np.random.default_rng(0).standard_normal((60, 2))
    interval = jackknife(lambda rows: 5 + 3 / len(rows), rows, deal_blocks(range(60)))
    assert (interval.estimate, interval.standard_error) == pytest.approx((5, 0), abs=1e-9)


def test_the_same_blocks_are_deleted_from_both_of_a_pair():
    first = np.random.default_rng(0).standard_normal(100)
    noise = 0.01 * np.random.default_rng(1).standard_normal(100)
    difference = jackknife_difference(mean, first + noise, first, deal_blocks(range(100)))
    alone = jackknife(mean, noise, deal_blocks(range(100)))
    assert (difference.low, difference.high) == pytest.approx((alone.low, alone.high))


def test_images_of_a_prompt_are_one_observation():
    """Six images of each of 40 prompts, half of whose variance they share: only blocks of whole prompts
    cover the mean.
    """
    generator = np.random.default_rng(0)
    values = generator.standard_normal((400, 40, 1)) + generator.standard_normal((400, 40, 6))
    coverage = {}
    for name, prompts in (("prompt", np.repeat(range(40), 6)), ("image", range(240))):
        intervals = [jackknife(mean, rows.ravel(), deal_blocks(prompts)) for rows in values]
        coverage[name] = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    print(f"mean of clusters: coverage {coverage}")
    assert 0.93 <= coverage["prompt"] <= 0.97
    assert coverage["image"] < 0.75


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(0.01, 5), st.floats(0.5, 0.999), st.one_of(st.none(), st.integers(2, 50)))
def test_a_value_is_rejected_where_the_interval_leaves_zero_out(estimate, error, level, blocks):
    interval = Interval.around(estimate, error, level, blocks)
    if min(abs(interval.low), abs(interval.high)) > 1e-6:
        assert (interval.p_value < 1 - level) == (interval.low > 0 or interval.high < 0)
    assert interval.low + interval.high == pytest.approx(2 * estimate, abs=1e-9)


def test_limits_without_blocks_are_normal():
    interval = Interval.around(1.0, 1.0)
    assert (interval.high, interval.p_value) == pytest.approx((2.959964, 0.317311), abs=1e-6)
    assert (Interval.around(0.0, 0.0).p_value, Interval.around(1.0, 0.0).p_value) == (1, 0)


@pytest.mark.parametrize("blocks", [3, 6, 30])
@pytest.mark.parametrize("value", [-1.0, 0.1 + 0.2])
def test_equal_blocks_are_as_sure_as_their_signs(blocks, value):
    """Of few that agree nothing is certain; rounding, which leaves a spread of 1e-17, changes nothing."""
    interval = jackknife(mean, np.full(blocks, value), np.arange(blocks))
    assert interval.p_value == pytest.approx(scipy.stats.binomtest(blocks, blocks).pvalue)
    assert str(Interval.around(1.23456, 0.1)) == "1.23 [1.04, 1.43]"


def test_prompts_are_dealt_whole_evenly_and_always_the_same_way():
    prompts = [f"prompt {number % 50}" for number in range(230)]
    labels = deal_blocks(prompts, blocks=7)
    assert all(len({labels[i] for i in range(230) if prompts[i] == prompt}) == 1 for prompt in prompts)
    prompts_in = np.bincount(labels[:50])
    assert prompts_in.max() - prompts_in.min() <= 1
    order = np.random.default_rng(0).permutation(230)
    assert np.array_equal(deal_blocks([prompts[i] for i in order], blocks=7), labels[order])
    assert not np.array_equal(deal_blocks(prompts, blocks=7, seed=1), labels)
    assert not np.array_equal(deal_blocks(range(70), blocks=7), np.arange(70) % 7)  # dealt, not in turn


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="one block leaves 1 of 10 images"):
        jackknife(mean, np.zeros(10), np.array([0] * 9 + [1]))
    with pytest.raises(ValueError, match="blocks is 5; it must be a whole number from 2 to 4"):
        deal_blocks(list("abcd"), 5)
    for hits, count in ((-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="hits must be 0 to count"):
            wilson(hits, count)


@pytest.mark.parametrize(("hits", "count"), [(1, 12), (7, 9), (150, 300)])
def test_limits_within_bounds_are_wilsons_for_a_share_of_independent_answers(hits, count):
    share = hits / count
    found = Interval.around(share, (share * (1 - share) / count) ** 0.5).within(0, 1)
    known = wilson(hits, count)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-9)
    scaled = Interval.around(1 + 4 * share, 4 * (share * (1 - share) / count) ** 0.5).within(1, 5)
    assert (scaled.low, scaled.high) == pytest.approx((1 + 4 * known.low, 1 + 4 * known.high), rel=1e-9)


def test_limits_of_counts_are_those_of_the_score_test_of_poisson():
    """Both limits solve (mean - limit)² = z² limit / images."""
    found = Interval.around(0.06, (0.06 / 50) ** 0.5).within(0)
    limits = np.array([found.low, found.high])
    assert (0.06 - limits) ** 2 == pytest.approx(scipy.stats.norm.ppf(0.975) ** 2 * limits / 50, rel=1e-9)


@pytest.mark.parametrize(("value", "bounds"), [(1.0, (0, 1)), (0.0, (0, 1)), (0.0, (0, np.inf))])
def test_answers_that_are_all_the_same_are_no_certainty(value, bounds):
    mean = jackknife(np.mean, np.full(100, value), deal_blocks(range(100)))
    found = mean.within(*bounds, answers=100)
    assert bounds[0] <= found.low <= value <= found.high <= bounds[1]
    assert 0.03 < found.high - found.low < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.03, 0.5, 2.0])
def test_limits_of_counts_cover_the_truth(mean):
    """Counts of 64 prompts, 20 blocks, nominal 95 %; the t interval of the smallest mean has limits below
    nothing.
    """
    covered = 0
    for seed in range(400):
        counts = np.random.default_rng(seed).poisson(mean, 64)
        found = jackknife(np.mean, counts, deal_blocks(range(64))).within(0, answers=64)
        assert found.low >= 0
        covered += found.low <= mean <= found.high
    assert covered >= 0.92 * 400


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (7, 20), (20, 20), (1, 1)])
def test_wilson_limits_are_those_of_scipy(hits, count):
    expected = scipy.stats.binomtest(hits, count).proportion_ci(0.9, method="wilson")
    share = wilson(hits, count, level=0.9)
    assert (share.estimate, share.low, share.high) == pytest.approx(
        (hits / count, expected.low, expected.high), abs=1e-12
    )


@pytest.mark.parametrize(
    ("reduce", "width"),
    [
        (lambda x, labels: metrics.FeatureState.of(x), 64),
        (lambda x, labels: metrics.frechet_distance(x, x + 1), 64),
        (lambda x, labels: metrics.frechet_interval(x, x + 1, labels), 64),
        (lambda x, labels: metrics.kid(x, x + 1), 2),
        (lambda x, labels: metrics.kernel_interval(x, x + 1, labels), 2),
    ],
)
def test_nothing_but_the_features_grows_with_the_number_of_images(reduce, width):
    """Neither a float64 copy of the features nor a matrix of all pairs is made: a block of rows, or a tile,
    is the largest.
    """
    count = 3 * ROWS // 2
    features = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    with LargestTensor(lambda tensor: tensor.dtype == torch.float64) as largest:
        reduce(features, deal_blocks(range(count)))
    assert largest.elements <= (PART * 64 if width == 64 else ROWS * (ROWS + 5))
