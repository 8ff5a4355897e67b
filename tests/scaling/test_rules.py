import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT
from entropy_lib.sampling.methods import DIRECT, METHODS, method
from entropy_lib.scaling import distinct_rules
from entropy_lib.scaling.rules import FORMULAS, Formula, rule_list

COUNTS = st.integers(1, 10**6)


@pytest.mark.parametrize(
    ("tokens", "training_tokens", "factor"),
    [
        (1024, 4096, 0.9129),
        (64, 256, 0.8660),
        (16, 64, 0.8165),
        (9216, 4096, 1.0476),
        (144, 64, 1.0932),
        (65536, 4096, 1.1547),
    ],
)
def test_paper_factors_of_stable_diffusion(tokens, training_tokens, factor):
    assert el.rule("paper").factor(tokens, training_tokens) == pytest.approx(factor, abs=5e-5)


EXAMPLES = [
    name if formula.example is None else f"{name}({formula.example:g})" for name, formula in FORMULAS.items()
]


BY_FORMULA = [text for text in EXAMPLES if not el.rule(text).calibrated]


@pytest.mark.parametrize("text", BY_FORMULA)
@pytest.mark.parametrize("tokens", [2, 16, 1024, 65536])
def test_every_rule_is_one_at_the_training_size_by_its_formula_and_exactly_so_where_it_says_so(text, tokens):
    rule = el.rule(text)
    by_formula = rule.formula.factor(tokens, tokens, rule.parameter)
    assert (by_formula == pytest.approx(1, abs=1e-6)) == rule.formula.identity, "or write identity=False"
    assert rule.factor(tokens, tokens) == (1.0 if rule.formula.identity else by_formula)


@pytest.mark.parametrize("name", [*FORMULAS, *(each for each in METHODS if each != DIRECT)])
def test_every_rule_and_method_has_its_row(name):
    assert re.search(rf"^\| `{name}[`(]", (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), re.M)


def test_a_name_may_hold_digits(monkeypatch):
    monkeypatch.setitem(FORMULAS, "ratio2", Formula(lambda n, t, p: (n / t) ** p, "(N/T)^p", example=0.1))
    assert el.rule("ratio2(0.5)").factor(64, 16) == 2
    assert method("ratio2( 0.5 )").name == method("direct + ratio2(0.5)").name == "ratio2(0.5)"


def test_equal_entropy_keeps_the_entropy_of_gaussian_logits():
    rule = el.rule("equal-entropy(1.2)")
    assert el.rule("equal-entropy").name == "equal-entropy(1)"
    assert rule.factor(256, 256) == 1.0
    entropy = el.entropy.exact_entropy(1024, 1.2 * rule.factor(1024, 256))
    assert entropy == pytest.approx(el.entropy.exact_entropy(256, 1.2), abs=1e-6)
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


def test_an_unknown_rule_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        el.rule("papper")


def test_names_of_different_rules_differ():
    near = ["power(0.1234567)", "power(0.1234568)", *EXAMPLES]
    assert [str(el.rule(el.rule(text))) for text in near] == near
    assert str(el.rule("power( .50 )")) == "power(0.5)"


BAD_RULES = [
    "power", "power()", "power(x)", "power(-101)", "power(101)", "gamma(0)", "gamma(nan)", "paper(2)",
    "gamma(1e-400)", "equal-entropy(21)", "power(1_0)", "power(\u0663)", "power(1,5)", "power(..)",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RULES)
def test_bad_parameters_say_what_to_write(text):
    with pytest.raises(InvalidInputError, match="write"):
        el.rule(text)


@pytest.mark.parametrize("text", ["", "PAPER", "paper paper", "power(1))", None, ["paper"], b"paper"])
def test_what_is_no_rule_lists_those_there_are(text):
    with pytest.raises(UnknownNameError, match=r"Allowed: .*paper.*unscaled"):
        el.rule(text)


@pytest.mark.parametrize(
    "rules", [[], "paper", el.rule("paper"), None, {"paper"}, ["power(.5)", "power(0.50)"], ["a", "paper"]]
)
def test_bad_lists_of_rules(rules):
    with pytest.raises(InvalidInputError, match="rule"):
        rule_list(rules)


BAD_COUNTS = [0, 0.5, math.nan, math.inf, "16", None, True, [16], 16 + 0j]


@pytest.mark.parametrize("count", BAD_COUNTS, ids=str)
def test_what_is_no_count_of_tokens_is_refused(count):
    for counts, name in (((count, 16), "tokens is"), ((16, count), "training_tokens is")):
        with pytest.raises(InvalidInputError, match=f"^{name}.*at least 1"):
            el.rule("paper").factor(*counts)


def test_a_factor_too_large_for_a_number_is_refused():
    with pytest.raises(InvalidInputError, match=r"power\(100\): the factor .* take a smaller parameter"):
        el.rule("power(100)").factor(10**600, 2)


def test_rules_coincide_where_their_factors_do():
    layers, native = [1024, 256, 64], [256, 64, 16]
    rules = ["paper", "unscaled", "power(0.5)", "gamma(1.4)", "gamma(1)", "equal-entropy(1)"]
    assert distinct_rules(rules, layers, native) == {
        "paper": ["paper", "power(0.5)", "gamma(1)"],
        "unscaled": ["unscaled"],
        "gamma(1.4)": ["gamma(1.4)"],
        "equal-entropy(1)": ["equal-entropy(1)"],
    }
    assert distinct_rules(rules, native, native) == {
        "paper": ["paper", "unscaled", "power(0.5)", "gamma(1)", "equal-entropy(1)"],
        "gamma(1.4)": ["gamma(1.4)"],
    }
    by_name = {"a": 64, "b": 16}
    assert distinct_rules(["gamma(2)", "paper"], by_name, dict(reversed(by_name.items()))) == {
        "gamma(2)": ["gamma(2)"],
        "paper": ["paper"],
    }


@pytest.mark.parametrize(
    ("tokens", "training"),
    [([], []), ([4], [4, 4]), ({"a": 4}, [4]), ({"a": 4}, {"b": 4}), ([4], {"a": 4}), ([0], [4])],
)
def test_layers_that_do_not_match_are_refused(tokens, training):
    with pytest.raises(InvalidInputError, match="tokens"):
        distinct_rules(["paper"], tokens, training)


def test_a_rule_without_a_factor_is_refused_where_rules_are_compared():
    with pytest.raises(InvalidInputError, match=r"equal-entropy\(1\): 16 tokens cannot have the entropy"):
        distinct_rules(["paper", "equal-entropy(1)"], [16], [64])
