"""What rules do to the entropy of a layer, by the exact law."""

import pytest

import entropy_lib as el
from entropy_lib.scaling.predictions import under_rules


def test_equal_entropy_removes_the_whole_change_and_unscaled_nothing_of_it():
    table = under_rules(["unscaled", "paper", "equal-entropy(1)"], [9216], 4096, 1.0).set_index("rule")
    assert table.share["unscaled"] == pytest.approx(0, abs=1e-9)
    assert table.share["equal-entropy(1)"] == pytest.approx(1, abs=1e-6)
    assert 0 < table.share["paper"] < 1
    assert table.factor["paper"] == el.rule("paper").factor(9216, 4096)


def test_sizes_at_which_a_rule_has_no_factor_are_left_out():
    table = under_rules(["unscaled", "equal-entropy(1)"], [784, 9216], 4096, 1.0)
    assert table.groupby("rule").tokens.apply(list).to_dict() == {"unscaled": [784, 9216], "equal-entropy(1)": [9216]}
