"""Means over raters and prompts: right where a closed form is known, of the level that they claim, and power
as simulated.
"""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, special, stats

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics import Components, Interval, mixed_model, power, two_way_mean


def panel(seed, raters=15, prompts=30, rater=0.3, prompt=0.5, residual=1.0, effect=0.0):
    random = np.random.default_rng(seed)
    own, shared = random.normal(0, rater, (raters, 1)), random.normal(0, prompt, (1, prompts))
    return effect + own + shared + random.normal(0, residual, (raters, prompts))


def clustered(values, axis):
    """Variance of the mean, clustered along one axis, from the definition."""
    sums = np.nansum(values - np.nanmean(values), axis=1 - axis)
    groups = len(sums)
    count = (~np.isnan(values)).sum()
    return (sums**2).sum() / count**2 * groups / (groups - 1) * (count - 1) / (count - 1)


def test_the_variance_is_that_of_raters_and_prompts_less_what_both_count():
    values = panel(0)
    values[2, 3] = values[5, 7] = np.nan
    away = (values - np.nanmean(values))[~np.isnan(values)]
    both = (away**2).sum() / len(away) ** 2 * len(away) / (len(away) - 1)
    expected = clustered(values, 0) + clustered(values, 1) - both
    found = two_way_mean(values)
    assert found.estimate == pytest.approx(np.nanmean(values))
    assert found.standard_error == pytest.approx(np.sqrt(expected), rel=1e-6)
    assert found.blocks == 15


def test_one_rater_leaves_the_prompts_alone():
    values = panel(1, raters=1)
    found, plain = two_way_mean(values), stats.ttest_1samp(values[0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert np.isnan(two_way_mean(np.array([[0.5]])).low)


@pytest.mark.parametrize(
    "spread", [{}, {"rater": 0.0}, {"prompt": 0.0}, {"rater": 1.0, "prompt": 0.1}], ids=str
)
def test_intervals_cover_the_truth_as_often_as_they_claim(spread):
    found = [two_way_mean(panel(seed, effect=0.3, **spread)) for seed in range(300)]
    covered = np.mean([each.low <= 0.3 <= each.high for each in found])
    assert 0.90 <= covered <= 0.985


def analysis_of_variance(values):
    """Expected mean squares of the crossed design, which restricted maximum likelihood equals where nothing
    is missing.
    """
    raters, prompts = values.shape
    mean, own, shared = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = ((values - own - shared + mean) ** 2).sum() / ((raters - 1) * (prompts - 1))
    by_rater = prompts * ((own - mean) ** 2).sum() / (raters - 1)
    by_prompt = raters * ((shared - mean) ** 2).sum() / (prompts - 1)
    parts = max(by_rater - rest, 0) / prompts, max(by_prompt - rest, 0) / raters, rest
    return np.sqrt([*parts, (by_rater + by_prompt - rest) / values.size])


@pytest.mark.parametrize("seed", range(3))
def test_the_mixed_model_agrees_with_the_analysis_of_variance(seed):
    """Also where a variance is small, where optimisers that follow the gradient stop early and say so."""
    values = 10 * panel(seed, 15, 50, rater=0.1, prompt=0.2, residual=1.0)
    found, (rater, prompt, residual, error) = mixed_model(values), analysis_of_variance(values)
    if min(rater, prompt) > 0:
        assert (found.rater, found.prompt, found.residual) == pytest.approx(
            (rater, prompt, residual), rel=0.01, abs=0.05
        )
        assert found.mean.standard_error == pytest.approx(error, rel=0.01)
    else:
        assert min(found.rater, found.prompt) == pytest.approx(0, abs=0.05)


def test_power_is_what_simulated_studies_have():
    raters, prompts, effect = 12, 30, 0.3
    found = [two_way_mean(panel(seed, raters, prompts, effect=effect)) for seed in range(400)]
    detected = np.mean([not each.low <= 0 <= each.high for each in found])
    assumed = Components(Interval.around(0, 1), 0.3, 0.5, 1.0)
    assert power(effect, assumed, raters, prompts) == pytest.approx(detected, abs=0.08)


def shares_of(share, raters, prompts, random, spread=1.0):
    """Choices of raters and prompts that differ in logits, and the share that they are drawn from: one
    rater's own where alone.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logistic = special.expit
    both = np.hypot(spread, spread)

    def beyond(at):
        return weights @ logistic(at + both * nodes) / weights.sum() - share

    middle = optimize.brentq(beyond, -20, 20) if share < 1 else 50
    own, shared = random.normal(0, spread, (raters, 1)), random.normal(0, spread, (1, prompts))
    true = weights @ logistic(middle + own[0, 0] + spread * nodes) / weights.sum() if raters == 1 else share
    return (random.random((raters, prompts)) < logistic(middle + own + shared)).astype(float), float(true)


def coverage(share, raters, panels):
    random, hits = np.random.default_rng(0), 0
    for _ in range(panels):
        values, true = shares_of(share, raters, 24, random)
        found = two_way_mean(values, bounds=(0, 1))
        assert 0 <= found.low <= found.estimate <= found.high <= 1
        hits += found.low <= true + 1e-9 and true - 1e-9 <= found.high
    return hits / panels


COVERED = [
    [float(cell) for cell in line.split()]
    for line in two_way_mean.__doc__.splitlines()
    if re.fullmatch(r"\s*\d+ ( +\d\.\d\d){4}", line)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raters", "column"), [(int(row[0]), column) for row in COVERED for column in range(4)]
)
def test_intervals_of_shares_cover_the_truth_as_the_docstring_says(raters, column):
    said = next(row for row in COVERED if row[0] == raters)[1 + column]
    found = coverage((0.5, 0.8, 0.95, 1.0)[column], raters, 400)
    assert found >= 0.925
    assert found == pytest.approx(said, abs=0.03)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("raters", "prompts"), [(1, 6), (2, 6), (6, 1), (10, 50)])
def test_equal_answers_are_no_certainty(value, raters, prompts):
    values = np.full((raters, prompts), value)
    found, tested = two_way_mean(values, bounds=(0, 1)), two_way_mean(values - 0.5, bounds=(-0.5, 0.5))
    few = min(size for size in (raters, prompts) if size > 1)
    assert found.low < value or value == 0
    assert found.high > value or value == 1
    assert 0 <= found.low <= value <= found.high <= 1
    assert found.high - found.low > 1 / (few + 2), "no narrower than so many independent answers allow"
    assert tested.p_value >= (stats.binomtest(few, few).pvalue if value != 0.5 else 1)


@pytest.mark.parametrize(
    "values", [[[1.0, 0.5], [0.5, 1.0]], [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]
)
def test_answers_that_balance_are_no_certainty(values):
    """Every rater and every prompt has the same mean, so that neither shows any spread."""
    away = np.array(values) - 0.5
    for found in (two_way_mean(away), two_way_mean(away, bounds=(-0.5, 0.5))):
        assert found.low < found.estimate < found.high
        assert found.p_value > 0


@given(
    st.integers(1, 6)
    .flatmap(lambda raters: st.integers(1, 8).map(lambda prompts: (raters, prompts)))
    .flatmap(lambda shape: arrays(float, shape, elements=st.sampled_from([0.0, 0.5, 1.0, np.nan]))),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_limits_of_shares_are_shares_and_agree_with_the_test(values, level):
    assume(not np.isnan(values).all())
    found = two_way_mean(values, level, bounds=(0, 1))
    tested = two_way_mean(values - 0.5, level, bounds=(-0.5, 0.5))
    assert (found.low, found.high) == pytest.approx((tested.low + 0.5, tested.high + 0.5), nan_ok=True)
    if np.isnan(found.low):
        assert (~np.isnan(values)).sum() == 1, "one answer alone has no limits"
        assert np.isnan(tested.p_value) or tested.estimate == 0
        return
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert 0 < tested.p_value <= 1
    if abs(tested.p_value - (1 - level)) > 1e-6:
        assert (tested.p_value < 1 - level) == (tested.low > 0 or tested.high < 0)


def test_scores_stay_within_their_scale():
    values = np.array([[10, 10, 9, 10], [10, 10, 10, 1]], float)
    found = two_way_mean(values, bounds=(1, 10))
    assert two_way_mean(values).high > 10, "which t limits do not know"
    assert 1 <= found.low < found.estimate < found.high <= 10
    assert np.isnan(found.p_value), "0 is no score"
    with pytest.raises(InvalidInputError, match="answers go from 1 to 10; these bounds allow 1 to 9"):
        two_way_mean(values, bounds=(1, 9))


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(InvalidInputError, match="there are no answers"):
        two_way_mean(np.full((2, 2), np.nan))
    with pytest.raises(InvalidInputError, match="two raters and two prompts"):
        mixed_model(panel(0, raters=1))
    with pytest.raises(InvalidInputError, match="all answers are the same"):
        mixed_model(np.ones((3, 3)))
    with pytest.raises(InvalidInputError, match="1 raters and 9 prompts"):
        power(1.0, Components(Interval.around(0, 1), 1, 1, 1), 1, 9)
    with pytest.raises(InvalidInputError, match="level"):
        two_way_mean(panel(0), level=95)
