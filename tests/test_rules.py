import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import entropy_lib as el
from entropy_lib.errors import UnknownNameError
from entropy_lib.scaling.rules import FORMULAS

COUNTS = st.integers(1, 10**6)


@pytest.mark.parametrize(
    ("tokens", "training_tokens", "factor"),
    [(1024, 4096, 0.9129), (64, 256, 0.8660), (16, 64, 0.8165), (9216, 4096, 1.0476), (144, 64, 1.0932), (65536, 4096, 1.1547)],
)
def test_paper_factors_of_stable_diffusion(tokens, training_tokens, factor):
    assert el.rule("paper").factor(tokens, training_tokens) == pytest.approx(factor, abs=5e-5)


@given(tokens=COUNTS)
def test_identity_at_training_size_is_exact(tokens):
    for name in ("unscaled", "paper", "power(0.75)", "power(3)"):
        assert el.rule(name).factor(tokens, tokens) == 1.0


def test_gamma_is_no_identity():
    assert el.rule("gamma(1.4)").factor(4096, 4096) == pytest.approx(math.sqrt(1.4))
    assert not FORMULAS["gamma"].identity


def test_equal_entropy_keeps_the_entropy_of_gaussian_logits():
    rule = el.rule("equal-entropy(1.2)")
    assert el.rule("equal-entropy").name == "equal-entropy(1)"
    assert rule.factor(256, 256) == 1.0
    entropy = el.theory.exact_entropy(1024, 1.2 * rule.factor(1024, 256))
    assert entropy == pytest.approx(el.theory.exact_entropy(256, 1.2), abs=1e-6)
    with pytest.raises(ValueError, match=r"only ln 64 = 4\.16 nats"):
        rule.factor(64, 256)


@given(tokens=COUNTS, training_tokens=COUNTS)
def test_factor_is_on_the_side_of_the_size_and_guarded(tokens, training_tokens):
    factor = el.rule("paper").factor(tokens, training_tokens)
    if 1 in (tokens, training_tokens):
        assert factor == 1.0
    else:
        assert math.isfinite(factor)
        assert (factor > 1) == (tokens > training_tokens)
        assert el.rule("power(1)").factor(tokens, training_tokens) == pytest.approx(factor**2)


@pytest.mark.parametrize("text", ["paper", "unscaled", "power(0.75)", "gamma(1.4)", "equal-entropy(1.2)"])
def test_names_survive_a_round_trip(text):
    assert str(el.rule(el.rule(text))) == text


def test_an_unknown_rule_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        el.rule("papper")


@pytest.mark.parametrize("text", ["power", "power()", "power(x)", "power(-1)", "power(0)", "power(inf)", "gamma(nan)", "paper(2)"])
def test_bad_parameters_say_what_to_write(text):
    with pytest.raises(ValueError, match="write"):
        el.rule(text)


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (-1, 5)])
def test_token_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="at least 1"):
        el.rule("paper").factor(*counts)
