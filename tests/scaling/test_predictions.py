"""What rules do to the entropy of a layer, by the exact law."""

import numpy as np
import pytest

import entropy_lib as el
from entropy_lib.scaling import predicted_share, predicted_slope
from entropy_lib.scaling.predictions import under_rules


def test_a_table_of_rules_has_their_shares_and_leaves_out_sizes_at_which_a_rule_has_no_factor():
    table = under_rules(["paper", "equal-entropy(1)"], [784, 9216], 4096, 1.0)
    assert list(zip(table.rule, table.tokens, strict=True)) == [
        ("paper", 784), ("paper", 9216), ("equal-entropy(1)", 9216),
    ]  # fmt: skip
    for row in table.itertuples():
        assert row.factor == el.rule(row.rule).factor(row.tokens, 4096)
        assert row.share == predicted_share(row.rule, row.tokens, 4096, 1.0)


def test_every_rule_predicts_its_own_share():
    shares = {
        name: predicted_share(name, 9216, 4096, 1.2)
        for name in ("unscaled", "paper", "power(1)", "equal-entropy(1.2)")
    }
    assert shares["unscaled"] == pytest.approx(0, abs=1e-9)
    assert shares["paper"] == pytest.approx(1.2**2 / (2 * np.log(4096)), rel=0.02)
    assert shares["power(1)"] == pytest.approx(2 * shares["paper"], rel=0.1)
    assert shares["equal-entropy(1.2)"] == pytest.approx(1, abs=1e-6)
    factor = el.rule("gamma(1.4)").factor(9216, 4096)
    assert predicted_share("gamma(1.4)", 9216, 4096, 1.2) == el.entropy.fraction_of_change_removed(
        9216, 4096, 1.2, factor
    )


def test_every_rule_predicts_its_own_slope():
    at_training = {
        name: predicted_slope(name, 4096, 4096, 1.2) for name in ("unscaled", "paper", "equal-entropy(1.2)")
    }
    assert at_training["unscaled"] == pytest.approx(1, abs=0.01)
    assert at_training["paper"] == pytest.approx(el.entropy.paper_slope(4096, 1.2), abs=0.01)
    assert at_training["equal-entropy(1.2)"] == pytest.approx(0, abs=1e-4)
    assert predicted_slope("gamma(1.4)", 9216, 4096, 1.2) == pytest.approx(
        el.entropy.paper_slope(4096, 1.2 * 1.4**0.5), abs=0.01
    )


def test_predictions_take_arrays_and_are_nan_where_there_is_nothing_to_predict():
    shares = predicted_share("equal-entropy(1)", np.array([784, 4096, 9216]), 4096, np.ones(3))
    assert np.isnan(shares).tolist() == [True, True, False]
    assert np.isnan(predicted_slope("equal-entropy(1)", 784, 4096, 1.0))
    with pytest.raises(ValueError, match="tokens is 0"):
        predicted_share("equal-entropy(1)", 0.0, 4096, 1.0)
