"""The shape of logits, on logits of known law."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from entropy_lib.entropy import exact_entropy
from entropy_lib.entropy.logit_shape import (
    exact_for_rows,
    expected_maximum,
    row_statistics,
    standardised,
    variance_inflation,
)


def logits(law, rows=2000, tokens=256, seed=0):
    generator = np.random.default_rng(seed)
    normal, gamma = generator.standard_normal, generator.gamma
    drawn = normal((rows, tokens)) if law == "normal" else gamma(20, size=(rows, tokens)) / math.sqrt(20)
    return torch.from_numpy(drawn)


def test_cumulants_agree_with_scipy():
    values = logits("gamma", rows=5)
    measured = row_statistics(values, (16, 16))
    assert torch.allclose(measured["skewness"], torch.from_numpy(stats.skew(values, axis=1)))
    assert torch.allclose(measured["excess_kurtosis"], torch.from_numpy(stats.kurtosis(values, axis=1)))
    expected = torch.from_numpy(stats.entropy(values.softmax(-1).numpy(), axis=1))
    assert torch.allclose(measured["entropy"], expected)
    third, fourth = (torch.from_numpy(stats.kstat(values.numpy(), order, axis=1)) for order in (3, 4))
    assert torch.allclose(measured["cumulants"], -third / 3 - fourth / 8, atol=0.02)


def test_gaussian_logits_have_nothing_left_to_explain():
    for std in (0.5, 1.0, 2.0):
        measured = row_statistics(std * logits("normal"), (16, 16))
        rest = measured["entropy"] - measured["exact_per_row"]
        assert abs(rest.mean()) < 4 * rest.std() / len(rest) ** 0.5 + 0.006, std


def test_logits_of_another_law_cost_what_their_cumulants_say():
    measured = row_statistics(logits("gamma", tokens=4096, rows=300), (64, 64))
    rest = (measured["entropy"] - measured["exact_per_row"]).mean().item()
    assert rest < -0.1
    assert rest == pytest.approx(measured["cumulants"].mean().item(), rel=0.15)


def test_the_spline_is_the_exact_law():
    variance = torch.linspace(0, 9, 40).double()
    drawn_std = (variance * 64 / 63).sqrt()
    assert torch.allclose(exact_for_rows(64, variance), exact_entropy(64, drawn_std), atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 2, 16, 1000])
def test_expected_maximum_agrees_with_simulation(tokens):
    simulated = torch.randn(4000, tokens, generator=torch.Generator().manual_seed(0)).amax(-1)
    assert abs(expected_maximum(tokens) - simulated.mean()) < 4 * simulated.std() / 4000**0.5


def test_maximum_of_large_rows_follows_extreme_value_theory():
    root = math.sqrt(2 * math.log(1e6))
    asymptotic = root - (math.log(math.log(1e6)) + math.log(4 * math.pi)) / (2 * root) + 0.577 / root
    assert expected_maximum(10**6) == pytest.approx(asymptotic, abs=0.02)


def test_neighbours_that_are_alike_count_as_fewer_keys():
    independent = logits("normal", rows=400)
    inflation = variance_inflation(independent, (16, 16))
    assert abs(inflation.mean() - 1) < 4 * inflation.std() / 20
    quarter = independent.unflatten(-1, (16, 16))[:, :8, :8]
    alike = quarter.repeat_interleave(2, -1).repeat_interleave(2, -2).flatten(-2)
    assert variance_inflation(alike, (16, 16)).mean() == pytest.approx(4, rel=0.05)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    shuffled = variance_inflation(alike[:, order], (16, 16)).mean()
    assert shuffled == pytest.approx(1, abs=0.1), "shuffling takes the likeness away"
    assert variance_inflation(independent[:, :6], (2, 3)).isnan().all()
    assert variance_inflation(independent[:, :35], (5, 7)).isfinite().all()


def test_rows_are_standardised_one_by_one():
    values = standardised(logits("gamma", rows=3) * torch.tensor([[1.0], [5.0], [0.0]]))
    assert torch.allclose(values[:2].std(-1, correction=0), torch.ones(2).double())
    assert (values[2] == 0).all()
