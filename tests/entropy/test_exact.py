"""The exact entropy of Gaussian logits, against simulation, closed limits, its derivative and published
values.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import entr, expit
from scipy.stats import norm

from entropy_lib import entropy as laws
from entropy_lib.entropy.laws import exact_entropy

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)  # of the freezing transition


def simulated(tokens, logit_std, normal):
    """Entropy and the variance of g under p, for each simulated row."""
    logits = logit_std * normal
    log_sum = torch.logsumexp(logits, -1, keepdim=True)
    weight = (logits - log_sum).exp()
    mean_g = (weight * normal).sum(-1)
    entropy = log_sum[:, 0] - logit_std * mean_g
    return entropy, (weight * normal.square()).sum(-1) - mean_g**2


@pytest.mark.parametrize("tokens", [2, 4, 16, 64, 256, 1024, 4096, 16384])
def test_exact_entropy_and_its_derivative_agree_with_simulation_on_both_sides_of_freezing(tokens):
    """48 points; four standard errors each."""
    generator = torch.Generator().manual_seed(tokens)
    normal = torch.randn(max(300, 2_000_000 // tokens), tokens, generator=generator).double()
    for share in SHARES:
        logit_std = share * laws.freezing_std(tokens)
        entropy, variance = simulated(tokens, logit_std, normal)
        error = len(normal) ** -0.5
        assert abs(exact_entropy(tokens, logit_std) - entropy.mean()) < 4 * error * entropy.std()
        above, below = (exact_entropy(tokens, logit_std + step) for step in (1e-4, -1e-4))
        derivative = (above - below) / 2e-4
        assert abs(derivative + logit_std * variance.mean()) < 4 * error * logit_std * variance.std() + 1e-6


def two_token_entropy(logit_std):
    def integrand(x):
        p = expit(math.sqrt(2) * logit_std * x)
        return (entr(p) + entr(1 - p)) * norm.pdf(x)

    return 2 * quad(integrand, 0, 9, limit=500)[0]


@pytest.mark.parametrize("logit_std", [0.01, 0.3, 1.0, 3.0, 8.0])
def test_one_and_two_tokens_in_closed_form(logit_std):
    assert exact_entropy(1, logit_std) == pytest.approx(0, abs=1e-12)
    assert exact_entropy(2, logit_std) == pytest.approx(two_token_entropy(logit_std), abs=1e-8)


@given(tokens=st.integers(2, 10**6))
@settings(max_examples=15, deadline=None)
def test_small_spread_and_equal_logits(tokens):
    assert exact_entropy(tokens, 0.0) == pytest.approx(math.log(tokens), abs=1e-12)
    assert exact_entropy(tokens, 0.01) == pytest.approx(
        math.log(tokens) - 0.5e-4 * (1 - 1 / tokens), abs=1e-7
    )


@given(tokens=st.floats(1, 10**6), logit_std=st.floats(0, 15))
@settings(max_examples=30, deadline=None)
def test_entropy_stays_between_zero_and_log_tokens_and_falls_with_spread(tokens, logit_std):
    entropy = exact_entropy(tokens, logit_std)
    assert -1e-9 <= entropy <= math.log(tokens) + 1e-9
    assert exact_entropy(tokens, logit_std + 0.1) <= entropy + 1e-9
    assert exact_entropy(1.5 * tokens, logit_std) >= entropy - 1e-9


FREEZING = laws.freezing_std(4096)


# Reference values for N = 4096, computed beforehand by another discretisation (1,200 x 4,001 points, central
# difference in b)
@pytest.mark.parametrize(
    ("logit_std", "exact", "gaussian"),
    [(0.5, 8.193, 8.193), (1, 7.818, 7.818), (2, 6.351, 6.318), (3, 4.421, 3.818), (FREEZING, 2.889, 0)],
)
def test_reference_values_at_4096_tokens(logit_std, exact, gaussian):
    assert exact_entropy(4096, logit_std) == pytest.approx(exact, abs=6e-4)
    assert laws.gaussian_entropy(4096, logit_std) == pytest.approx(gaussian, abs=6e-4)
    assert exact_entropy(4096, 1.5 * FREEZING) == pytest.approx(1.558, abs=6e-4)


@pytest.mark.parametrize(
    ("logit_std", "unscaled", "scaled", "predicted", "equal"),
    [(1, 0.999, 0.940, 0.940, 1.62), (2, 0.966, 0.747, 0.760, 1.19), (3, 0.749, 0.441, 0.459, 1.11)],
)
def test_reference_slopes_and_factors(logit_std, unscaled, scaled, predicted, equal):
    sizes = np.geomspace(784, 16384, 9)
    factors = np.sqrt(np.log(sizes) / np.log(4096))
    for value, spread in ((unscaled, logit_std), (scaled, logit_std * factors)):
        assert np.polyfit(np.log(sizes), exact_entropy(sizes, spread), 1)[0] == pytest.approx(value, abs=4e-3)
    assert laws.paper_slope(4096, logit_std) == pytest.approx(predicted, abs=6e-4)
    assert laws.equal_entropy_factor(9216, 4096, logit_std) == pytest.approx(equal, abs=6e-3)


@given(training=st.integers(8, 10**4), ratio=st.floats(1.1, 8), logit_std=st.floats(0.3, 3))
@settings(max_examples=10, deadline=None)
def test_solvers_reach_what_they_promise(training, ratio, logit_std):
    tokens, target = training * ratio, exact_entropy(training, logit_std)
    equal = laws.equal_entropy_factor(tokens, training, logit_std)
    assert exact_entropy(tokens, equal * logit_std) == pytest.approx(target, abs=1e-7)
    assert equal > 1
    assert laws.fraction_of_change_removed(tokens, training, logit_std, equal) == pytest.approx(1, abs=1e-6)
    assert laws.fraction_of_change_removed(tokens, training, logit_std, 1.0) == pytest.approx(0, abs=1e-9)


def test_equal_entropy_does_not_exist_where_even_equal_weights_have_less():
    assert math.log(784) < exact_entropy(4096, 1.0)
    assert math.isnan(laws.equal_entropy_factor(784, 4096, 1.0))
    assert laws.equal_entropy_factor(784, 4096, 2.0) < 1
    for nearly in (4096, 4096 * (1 + 1e-15)):
        assert math.isnan(laws.fraction_of_change_removed(nearly, 4096, 1.0, 1.2))


def test_scalars_arrays_and_tensors():
    number = exact_entropy(64, 1.0)
    assert isinstance(number, float)
    array = exact_entropy(np.array([64, 256])[:, None], np.array([0.5, 1.0, 2.0]))
    assert array.shape == (2, 3)
    assert array[0, 1] == number
    tensor = exact_entropy(torch.tensor([64, 256]), 1.0)
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == [number, array[1, 1]]
