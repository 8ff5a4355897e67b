import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_lib import theory


def simulated_entropy(logits):
    """Mean entropy of softmax rows of given logits, float64."""
    log_weight = torch.from_numpy(logits).log_softmax(-1)
    return -(log_weight.exp() * log_weight).sum(-1).mean().item()


@pytest.mark.parametrize("logit_std", [0.0, 0.5, 1.0, 1.5])
def test_gaussian_law_holds_far_from_freezing(logit_std):
    logits = logit_std * np.random.default_rng(0).standard_normal((400, 4096))
    assert theory.gaussian_entropy(4096, logit_std) == pytest.approx(simulated_entropy(logits), abs=0.02)


def test_cumulants_explain_what_the_gaussian_law_misses():
    shape = 20.0  # gamma logits: cumulants shape · (n-1)! in units of 1/sqrt(shape)
    logits = np.random.default_rng(0).gamma(shape, size=(400, 20000)) / math.sqrt(shape)
    simulated = simulated_entropy(logits)
    cumulants = [math.factorial(n - 1) * shape ** (1 - n / 2) for n in range(2, 8)]
    errors = [abs(theory.cumulant_entropy(20000, cumulants[:count]) - simulated) for count in (1, 3, 6)]
    assert errors[0] > 0.1
    assert errors[0] > 3 * errors[1] > 3 * errors[2]


@given(tokens=st.integers(2, 10**6), logit_std=st.floats(0, 3))
def test_numbers_arrays_and_tensors_agree(tokens, logit_std):
    number = theory.gaussian_entropy(tokens, logit_std)
    assert theory.gaussian_entropy(np.array([tokens]), np.array([logit_std]))[0] == pytest.approx(number)
    tensor = torch.tensor([logit_std], dtype=torch.float64)  # a float32 would be another number
    assert theory.gaussian_entropy(torch.tensor([tokens]), tensor).item() == pytest.approx(number)


@given(training=st.integers(2, 10**5), ratio=st.floats(1.1, 8), logit_std=st.floats(0, 2))
def test_paper_slope_is_the_slope_of_the_gaussian_law_under_the_rule(training, ratio, logit_std):
    tokens = training * ratio
    scaled_std = logit_std * math.sqrt(math.log(tokens) / math.log(training))
    change = theory.gaussian_entropy(tokens, scaled_std) - theory.gaussian_entropy(training, logit_std)
    assert change / math.log(ratio) == pytest.approx(theory.paper_slope(training, logit_std), abs=1e-6)


def test_freezing_point():
    assert theory.freezing_std(4096) == pytest.approx(math.sqrt(2 * math.log(4096)))
    assert theory.gaussian_entropy(4096, theory.freezing_std(4096)) == pytest.approx(0, abs=1e-12)
