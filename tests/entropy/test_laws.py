import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_lib import entropy as laws


def simulated_entropy(logits):
    """Mean entropy of softmax rows of given logits, float64."""
    log_weight = torch.from_numpy(logits).log_softmax(-1)
    return -(log_weight.exp() * log_weight).sum(-1).mean().item()


@pytest.mark.parametrize("logit_std", [0.0, 0.5, 1.0, 1.5])
def test_gaussian_law_holds_far_from_freezing(logit_std):
    logits = logit_std * np.random.default_rng(0).standard_normal((400, 4096))
    assert laws.gaussian_entropy(4096, logit_std) == pytest.approx(simulated_entropy(logits), abs=0.02)


def test_cumulants_explain_what_the_gaussian_law_misses():
    shape = 20.0  # gamma logits: cumulants shape · (n-1)! in units of 1/sqrt(shape)
    logits = np.random.default_rng(0).gamma(shape, size=(400, 20000)) / math.sqrt(shape)
    simulated = simulated_entropy(logits)
    cumulants = [math.factorial(n - 1) * shape ** (1 - n / 2) for n in range(2, 8)]
    errors = [abs(laws.cumulant_entropy(20000, cumulants[:count]) - simulated) for count in (1, 3, 6)]
    assert errors[0] > 0.1
    assert errors[0] > 3 * errors[1] > 3 * errors[2]


@given(tokens=st.integers(2, 10**6), logit_std=st.floats(0, 3))
def test_numbers_arrays_and_tensors_agree(tokens, logit_std):
    number = laws.gaussian_entropy(tokens, logit_std)
    assert laws.gaussian_entropy(np.array([tokens]), np.array([logit_std]))[0] == pytest.approx(number)
    tensor = torch.tensor([logit_std], dtype=torch.float64)  # a float32 would be another number
    assert laws.gaussian_entropy(torch.tensor([tokens]), tensor).item() == pytest.approx(number)


@pytest.mark.filterwarnings("ignore::entropy_lib.entropy.laws.BeyondLawWarning")
@given(training=st.integers(2, 10**5), ratio=st.floats(1.1, 8), logit_std=st.floats(0, 2))
def test_paper_slope_is_the_slope_of_the_gaussian_law_under_the_rule(training, ratio, logit_std):
    tokens = training * ratio
    scaled_std = logit_std * math.sqrt(math.log(tokens) / math.log(training))
    change = laws.gaussian_entropy(tokens, scaled_std) - laws.gaussian_entropy(training, logit_std)
    assert change / math.log(ratio) == pytest.approx(laws.paper_slope(training, logit_std), abs=1e-6)


def warned(law, *arguments):
    """What a law returns, and whether it says that it does not hold."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = law(*arguments)
    assert all(one.filename == __file__ and one.category is laws.BeyondLawWarning for one in caught)
    return value, bool(caught)


@given(tokens=st.integers(1, 10**6), logit_std=st.floats(0, 26), third=st.floats(-5, 5))
def test_a_law_says_where_it_gives_no_entropy(tokens, logit_std, third):
    """Whatever it is given, and in whatever form: below 0 or above ln N there is none."""
    for law, second in ((laws.gaussian_entropy, logit_std), (laws.cumulant_entropy, [logit_std**2, third])):
        value, said = warned(law, tokens, second)
        assert said == (not -1e-6 <= value <= math.log(tokens) + 1e-6)
    several = torch.tensor([tokens, tokens]), torch.tensor([0.0, logit_std]).double()
    said = warned(laws.gaussian_entropy, tokens, logit_std)[1]
    assert warned(laws.gaussian_entropy, *several)[1] == said


@given(training=st.integers(2, 10**6), logit_std=st.floats(0, 100))
def test_the_slope_of_the_rule_says_that_it_is_beyond_freezing(training, logit_std):
    slope, said = warned(laws.paper_slope, training, logit_std)
    assert said == (slope < -1e-6)


def test_what_is_missing_is_no_reason_to_warn():
    assert not warned(laws.gaussian_entropy, np.array([64.0, np.nan]), np.array([1.0, np.nan]))[1]
