"""Sentences of a summary: filled in from a row of a table, and printed only where it bears them out."""

import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lib.errors import InvalidInputError
from entropy_lib.plots.numbers import decimals, interval, side
from entropy_lib.plots.sentences import sentence

number, half_width = st.floats(-3, 3), st.floats(1e-4, 2)
SLOPE = {"method": "paper", "estimate": -0.052, "low": -0.099, "high": -0.004}


def bounds_shown(text: str) -> tuple[float, float]:
    low, high = re.search(r"\[([^,]+), ([^\]]+)\]", text).groups()
    return float(low), float(high)


@given(number, half_width, number)
def test_a_side_is_what_the_printed_bounds_say(value, half, of):
    low, high = bounds_shown(interval(value, value - half, value + half))
    shown = round(of, decimals(value - half, value + half))
    expected = "above" if low > shown else "below" if high < shown else "holds"
    assert side(value - half, value + half, of) == expected
    assert abs((high - low) / 2 - half) <= 0.11 * half + 1e-12, "two figures of the half-width"


def test_what_has_no_interval_is_on_no_side():
    assert side(math.nan, math.nan, 1.0) == side(0.9, 1.1, math.nan) == ""
    assert interval(0.5, math.nan, math.nan) == "0.500"
    assert interval(0.5, 0.5, 0.5) == "0.500 [0.500, 0.500]"


@given(number, half_width, st.sampled_from("<>="))
def test_a_sentence_is_printed_exactly_where_its_interval_bears_it_out(value, half, relation):
    row = {"estimate": value, "low": value - half, "high": value + half}
    text = sentence("It is {estimate}.", f"estimate {relation} 0", row)
    low, high = bounds_shown(text)
    assert text.startswith("It is ") == {"<": high < 0, ">": low > 0, "=": low <= 0 <= high}[relation]


@pytest.mark.parametrize(
    ("p_holm", "expectation", "said"),
    [
        (0.388, "estimate = 0", r"paper: -0.052 \[-0.099, -0.004\], p = 0.388."),
        (0.388, "estimate < 0", "does not show its summary.*is -0.052.*p = 0.388 after Holm's correction"),
        (0.0004, "estimate < 0", "paper: -0.052 .*p < 0.001."),
        (0.0004, "estimate > 0", "contradicts its summary"),
        (0.0004, "estimate = 0", "contradicts its summary"),
        (0.05004, "estimate < 0", "paper: "),
        (math.nan, "estimate = 0", "cannot test its summary"),
    ],
)
def test_where_there_is_a_corrected_p_value_the_sentence_goes_by_it(p_holm, expectation, said):
    """Also where the interval beside it, each by itself, would say otherwise."""
    text = sentence("{method}: {estimate}, {p_holm}.", expectation, SLOPE | {"p_holm": p_holm})
    assert re.search(said, text), text


def test_claims_are_about_other_columns_other_intervals_and_exact_numbers_too():
    row = {"slope": 1.0, "low": 0.98, "high": 1.02, "predicted": 0.92, "held": 4, "layers": 10, "p_holm": 0.9}
    row |= {"change": -0.08, "change_low": -0.09, "change_high": -0.07}
    claims = "slope > predicted and change < 0 and held < layers"
    text = sentence("{slope} > {predicted:.2f}, {change}, {held} of {layers}.", claims, row)
    assert text == "1.000 [0.980, 1.020] > 0.92, -0.080 [-0.090, -0.070], 4 of 10."
    text = sentence("{slope}", "slope < predicted", row)
    said = "contradicts its summary**, which expects slope < predicted (0.92): slope is 1.000 [0.980, 1.020]"
    assert said in text
    assert "cannot test" in sentence("{share:%}", "share > 0", {"share": math.nan})
    share = {"share": 0.123, "low": 0.1, "high": 0.146}
    assert sentence("{share:%}", "share > 0", share) == "12.3 % [10.0, 14.6]"


def test_a_metric_is_shown_as_its_table_shows_it():
    row = {"metric": "KID", "estimate": 0.0115, "low": 0.0086, "high": 0.0144}
    assert sentence("{metric}: {estimate}", "estimate > 0", row) == "KID x 1000: 11.5 [8.6, 14.4]"


def test_a_table_has_one_row_or_nothing_was_compared():
    table = pd.DataFrame([SLOPE, SLOPE])
    assert sentence("{estimate}", "estimate < 0", table.head(1)).startswith("-0.052")
    assert "Nothing was compared" in sentence("{estimate}", "estimate < 0", table.head(0))
    with pytest.raises(InvalidInputError, match="there are 2"):
        sentence("{estimate}", "estimate < 0", table)


@pytest.mark.parametrize(
    ("template", "expectation", "said"),
    [
        ("{estimate}", "it gets better", "cannot be tested; write claims as"),
        ("{estimate}", "", "cannot be tested"),
        ("{estimate}", "estimate < 0 or so", "cannot be tested"),
        ("{estimate}", "slope < 0", "no column 'slope'; it has method, estimate"),
        ("{estimate}", "estimate < predicted", "no column 'predicted'"),
        ("{estimate} {size}", "estimate < 0", "no column 'size'"),
        ("It gets better.", "estimate < 0", "does not show 'estimate'"),
    ],
)
def test_what_cannot_be_tested_is_refused(template, expectation, said):
    with pytest.raises(InvalidInputError, match=said):
        sentence(template, expectation, SLOPE)
