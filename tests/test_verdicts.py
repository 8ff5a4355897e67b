"""Sentences of the notebooks: one wording for each outcome, and never one that its own numbers contradict."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lib.display import verdicts
from entropy_lib.display.numbers import decimals, interval, listed, percent, side

number = st.floats(-3, 3)
reach = st.floats(1e-4, 2)


def limits_shown(text: str) -> tuple[float, float]:
    low, high = re.search(r"\[([^,]+), ([^\]]+)\]", text).groups()
    return float(low), float(high)


@given(number, reach, number)
def test_a_side_is_what_the_printed_limits_say(value, half, of):
    low, high = limits_shown(interval(value, value - half, value + half))
    shown = round(of, decimals(value - half, value + half))
    expected = "above" if low > shown else "below" if high < shown else "holds"
    assert side(value - half, value + half, of) == expected


@given(number, reach)
def test_an_interval_is_shown_with_two_figures_of_its_half_width(value, half):
    low, high = limits_shown(interval(value, value - half, value + half))
    assert abs((high - low) / 2 - half) <= 0.11 * half + 1e-12


def test_an_interval_that_nearly_touches_is_not_said_to_exclude_what_it_prints():
    assert interval(1.003, 1.0003, 1.0057) == "1.0030 [1.0003, 1.0057]"
    assert side(1.0003, 1.0057, 1.0) == "above"
    assert side(1.00001, 1.0057, 1.0) == "holds"
    assert side(math.nan, math.nan, 1.0) == side(0.9, 1.1, math.nan) == ""


def test_numbers_without_an_interval_and_lists_of_one():
    assert interval(0.5, math.nan, math.nan) == "0.500"
    assert interval(0.5, 0.5, 0.5) == "0.500 [0.500, 0.500]"
    assert percent(0.5) == "50 %"
    assert listed(["a"]) == "a"


def summary(entropies: dict[tuple[str, str], float]) -> pd.DataFrame:
    return pd.DataFrame([{"size": size, "rule": rule, "entropy": value} for (size, rule), value in entropies.items()])


@pytest.mark.parametrize(
    ("ruled", "words"),
    [
        (2.1, "20 % of the way back at 32x32"),
        (1.9, "away at 32x32"),
        (3.1, "back and past it at 32x32"),
        (2.001, "by less than 0.005 nats at 32x32"),
    ],
)
def test_the_quickstart_says_where_a_rule_moves_entropy(ruled, words):
    table = summary({("32x32", "unscaled"): 2.0, ("32x32", "paper"): ruled, ("64x64", "unscaled"): 2.5, ("64x64", "paper"): 2.5})
    text = verdicts.quickstart(table, "64x64")
    assert text.endswith(f"{words}.")
    assert f"is 2.00 and 2.50 nats without a rule and {ruled:.2f} and 2.50 with `paper`" in text


def test_the_quickstart_groups_sizes_and_needs_native_size_and_a_rule():
    values = {("32x32", "unscaled"): 2.0, ("32x32", "paper"): 1.5, ("64x64", "unscaled"): 3.0, ("64x64", "paper"): 3.0}
    values |= {("96x96", "unscaled"): 4.0, ("96x96", "paper"): 5.0}
    assert verdicts.quickstart(summary(values), "64x64").endswith("the rule moves entropy away at 32x32 and 96x96.")
    assert "takes native size" in verdicts.quickstart(summary(values), "128x128")
    assert "no rule was tried" in verdicts.quickstart(summary({("32x32", "unscaled"): 2.0}), "64x64")


@given(st.floats(0.1, 4), st.floats(0.1, 4), st.floats(0.1, 4))
def test_the_quickstart_never_calls_away_what_is_nearer(native, unscaled, ruled):
    table = summary({("a", "unscaled"): unscaled, ("a", "paper"): ruled, ("n", "unscaled"): native, ("n", "paper"): native})
    text = verdicts.quickstart(table, "n")
    if "away" in text:
        assert abs(ruled - native) > abs(unscaled - native) - 2 * verdicts.SMALLEST
    if "of the way back" in text:
        assert abs(ruled - native) <= abs(unscaled - native)


def test_the_theory_counts_layers_and_names_every_rule():
    limits = pd.DataFrame({"tokens": [4, 4096], "of_freezing": [0.3, 0.6]})
    removed = pd.DataFrame({"rule": ["unscaled", "paper", "power(1)"], "share": [0, 0.06, 0.12]})
    text = verdicts.theory(limits, 9, 10, removed, 0.05)
    assert "up to b = 0.30 to 0.60 b_c" in text
    assert "9 of the 10 layers" in text
    assert text.endswith("`paper` removes 6 % and `power(1)` removes 12 %.")
    assert "none of the 10 layers" in verdicts.theory(limits, 0, 10, removed, 0.05)
    assert "all of the 10 layers" in verdicts.theory(limits.head(1), 10, 10, removed.head(1), 0.05)


def layer_table(errors, cause="non_gaussian") -> pd.DataFrame:
    table = pd.DataFrame({"error": errors, "absolute_error": np.abs(errors), "logit_std": 1.0, "response_ratio": 0.5})
    parts = {"finite_tokens": 0.0, "row_spread": 0.0, "non_gaussian": 0.0} | {cause: np.array(errors)}
    return table.assign(**parts)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([0.01, 0.02], "in all of 2 layers. To a change"),
        ([0.01, 0.2], "in 1 of 2 layers. In the other 1 entropy is 0.20 nats higher than it says"),
        ([-0.1, -0.2], "in none of 2 layers. There entropy is 0.10 to 0.20 nats lower than it says"),
        ([0.1, -0.2, 0.0], "in 1 of 3 layers. In the other 2 entropy is 0.10 to 0.20 nats off, either way"),
    ],
)
def test_the_gaussian_check_tells_every_outcome(errors, words):
    assert words in verdicts.gaussian_check(layer_table(errors), "64x64", 0.05)


def test_the_gaussian_check_names_the_largest_cause():
    assert "because of this: too few tokens" in verdicts.gaussian_check(layer_table([0.2], "finite_tokens"), "64x64", 0.05)


def slope_table(first, ruled, change) -> pd.DataFrame:
    rows = [
        {"rule": "unscaled", "slope": sum(first) / 2, "low": first[0], "high": first[1], "predicted": 1.0, "clusters": 8},
        {"rule": "paper", "slope": sum(ruled) / 2, "low": ruled[0], "high": ruled[1], "predicted": 0.944, "clusters": 8},
    ]
    changes = pd.DataFrame([{}, {"change": sum(change) / 2, "change_low": change[0], "change_high": change[1]}])
    return pd.concat([pd.DataFrame(rows), changes], axis=1)


@pytest.mark.parametrize(
    ("ruled", "change", "words"),
    [
        ((0.976, 0.982), (-0.03, -0.02), ["more than the 0.9440", "`paper` lowers the slope", "predicted -0.056)", "still grows"]),
        ((0.90, 0.92), (-0.03, 0.01), ["less than the 0.944", "is not shown to change"]),
        ((0.93, 0.96), (0.01, 0.03), ["consistent with the 0.944", "raises the slope"]),
        ((-0.1, 0.1), (-1.1, -0.9), ["less than", "no growth of entropy is shown"]),
        ((-0.2, -0.1), (-1.2, -1.0), ["entropy falls with size"]),
    ],
)
def test_slopes_are_set_beside_their_prediction_and_beside_each_other(ruled, change, words):
    text = verdicts.slopes(slope_table((0.99, 1.01), ruled, change))
    assert all(word in text for word in words), text
    assert "consistent with the 1.000" in text
    assert text.endswith("Intervals: 95 %, over 8 prompts.")


def test_a_slope_without_a_prediction_is_given_without_one():
    table = slope_table((0.99, 1.01), (0.9, 0.92), (-0.1, -0.08)).assign(predicted=math.nan)
    assert "0.910 [0.900, 0.920] under `paper`." in verdicts.slopes(table)
    assert "predicted" not in verdicts.slopes(table)


@given(number, reach)
def test_slopes_never_contradict_their_intervals(value, half):
    text = verdicts.slopes(slope_table((0.99, 1.01), (0.9, 0.92), (value - half, value + half)))
    low, high = limits_shown(re.search(r"paired difference ([^)]*\])", text)[1])
    assert ("lowers" in text) == (high < 0)
    assert ("raises" in text) == (low > 0)
    assert ("not shown" in text) == (low <= 0 <= high)


def share_table(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["size", "rule", "share", "low", "high", "clusters"])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.1, 0.2, "no effect shown"),
        (-0.2, -0.1, "away from its native value"),
        (0.02, 0.03, "most of it stays"),
        (0.4, 0.6, "about half of it"),
        (0.7, 0.9, "most of it goes"),
        (0.9, 1.2, "most of it goes"),
        (1.1, 1.2, "more than all of it"),
        (math.nan, math.nan, "no interval"),
    ],
)
def test_shares_tell_every_outcome(low, high, words):
    assert words in verdicts.shares(share_table(("32x32", "paper", 0.5, low, high, 8)))


@given(number, reach)
def test_shares_never_contradict_their_intervals(value, half):
    text = verdicts.shares(share_table(("32x32", "paper", value, value - half, value + half, 8)))
    low, high = limits_shown(text)
    assert ("no effect shown" in text) == (low <= 0 <= high)
    assert ("away" in text) == (high < 0)
    assert ("more than all" in text) == (low > 100)


def test_shares_of_one_prompt_claim_no_interval_and_an_empty_table_is_said():
    text = verdicts.shares(share_table(("32x32", "paper", 0.5, math.nan, math.nan, 1)))
    assert "One prompt" in text
    assert "[" not in text
    assert "No rule was compared" in verdicts.shares(share_table())


def test_pictures_are_said_to_differ_or_not_and_never_to_be_better():
    rows = [("32x32", "paper", "unscaled", 0.02, 0.04, 8), ("64x64", "paper", "unscaled", 0.0, 0.0, 8)]
    table = pd.DataFrame(rows, columns=["size", "rule", "against", "mean_change", "largest_change", "prompts"])
    text = verdicts.pictures(table)
    assert "differ by 2.0 % of the grey range at 32x32 (means over prompts) and do not differ at 64x64." in text
    assert "better" not in text
    assert "do not differ at 64x64" in verdicts.pictures(table.tail(1))
    assert "nothing to compare" in verdicts.pictures(table.head(0))


def metric_rows(estimate, low, high, p_holm, metric="KID") -> tuple[pd.DataFrame, pd.DataFrame]:
    row = {
        "size": "96x96",
        "rule": "paper",
        "against": "unscaled",
        "metric": metric,
        "estimate": estimate,
        "low": low,
        "high": high,
    }
    levels = [
        {"size": "96x96", "method": "unscaled", "metric": metric, "reference": "real", "estimate": 0.252, "low": 0.2, "high": 0.3}
    ]
    return pd.DataFrame([row | {"p_holm": p_holm}]), pd.DataFrame(levels)


@pytest.mark.parametrize(
    ("estimate", "p_holm", "metric", "word"),
    [
        (0.01, 0.01, "KID", "worse"), (-0.01, 0.01, "KID", "better"), (0.01, 0.2, "KID", "no difference shown"),
        (0.01, 0.01, "CLIP score", "better"), (-0.01, 0.01, "CLIP score", "worse"), (0.01, math.nan, "KID", "no difference shown"),
    ],
)  # fmt: skip
def test_metric_tables_know_which_way_is_better(estimate, p_holm, metric, word):
    text = verdicts.metric_tables(*metric_rows(estimate, estimate - 0.005, estimate + 0.005, p_holm, metric))
    assert f"against `unscaled`: {word} at 96x96" in text


def test_metric_tables_show_published_units_and_what_the_difference_is_on():
    text = verdicts.metric_tables(*metric_rows(0.0115, 0.0086, 0.0144, 1e-6))
    assert "By KID x 1000, `paper` against `unscaled`: worse at 96x96 (11.5 [8.6, 14.4] on 252, p < 0.001)." in text
    assert verdicts.metric_tables(pd.DataFrame(columns=["metric", "rule", "against"]), pd.DataFrame()) == (
        "No rule was compared with another."
    )


def test_layout_metrics_tell_the_pattern_and_what_the_rule_does():
    rows = [
        (size, method, "Excess", value) for method in ("unscaled", "paper") for size, value in (("64x64", 0.1), ("128x128", 0.8))
    ]
    levels = pd.DataFrame(rows, columns=["size", "method", "metric", "estimate"]).assign(low=lambda t: t.estimate - 0.05)
    levels = levels.assign(high=levels.estimate + 0.05)
    differences = pd.DataFrame(
        [
            ("128x128", "paper", "unscaled", "Excess", -0.2, 0.001),
            ("128x128", "native, resized", "unscaled", "Excess", -0.7, 0.001),
        ],
        columns=["size", "rule", "against", "metric", "estimate", "p_holm"],
    )
    assert verdicts.layout_metrics(levels, differences, "64x64") == (
        "Excess (things too many, a picture) under `unscaled` is 0.100 [0.050, 0.150] at 64x64, 0.800 [0.750, 0.850] at 128x128; "
        "`paper`: better at 128x128. 95 % intervals; better and worse are said after Holm's correction over sizes."
    )


def test_each_pattern_is_told_on_its_side_of_the_native_size():
    sizes, metrics = ("32x32", "64x64", "64x96"), ("Excess", "Missing", "Completeness", "Illegible", "Repetition")
    levels = pd.DataFrame(
        [(size, "unscaled", metric) for metric in metrics for size in sizes], columns=["size", "method", "metric"]
    )
    levels = levels.assign(estimate=0.5, low=0.4, high=0.6)
    none = pd.DataFrame(columns=["size", "rule", "against", "metric", "estimate", "p_holm"]).astype({"rule": str})
    *parts, _ = verdicts.layout_metrics(levels, none, "64x64").split(". ")
    assert {part.split()[0]: set(re.findall(r"\d+x\d+", part)) for part in parts} == {
        "Excess": {"64x64", "64x96"},
        "Missing": {"64x64", "32x32"},
        "Completeness": {"64x64", "32x32"},
    }
    index = verdicts.layout_metrics(levels[levels.metric == "Repetition"], none, "64x64")
    assert index.startswith("Repetition"), "where nothing was counted"
    unnamed = levels[(levels.metric != "Completeness") | (levels["size"] != "32x32")]
    assert "Completeness" not in verdicts.layout_metrics(unnamed, none, "64x64"), "nothing at that size could be named"
    assert "Nothing was judged" in verdicts.layout_metrics(levels[levels["size"] == "64x64"], none, "64x64")


def differing(p_holm, metric="Excess"):
    """A difference whose own interval leaves zero out."""
    row = {
        "size": "96x96",
        "metric": metric,
        "rule": "paper",
        "against": "unscaled",
        "estimate": -0.052,
        "low": -0.099,
        "high": -0.004,
    }
    return pd.DataFrame([row | {"p_holm": p_holm}])


SAID = {
    "tables": lambda row: verdicts.metric_tables(row.assign(metric="KID"), row[:0].assign(method="")),
    "dose": lambda row: verdicts.causes(row[:0], row),
    "choices": lambda row: verdicts.causes(row, row),
    "methods": lambda row: verdicts.baselines(row, row[:0]),
    "story": lambda row: verdicts.story(SHARES, EXCESS, row.assign(size="128x128"), row[:0], "64x64"),
}


@pytest.mark.parametrize("p_holm", [0.0713, 0.05004, 0.0496, 1e-9])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_a_word_that_was_corrected_stands_beside_what_it_goes_by(said, p_holm):
    """The interval alone would show a difference that the word, corrected for many, does not."""
    text = said(differing(p_holm))
    shown = {float(found) for found in re.findall(r"\], (?:on [\d.]+, )?p [=<] ([\d.]+)", text)}
    assert shown == {max(float(f"{p_holm:.3g}"), 0.001)}, text
    assert ("not shown" in text or "no difference shown" in text) == (shown.pop() > 0.05)
    assert "Holm's correction" in text
    assert "each by itself" in text or said is SAID["story"]


def test_what_has_no_better_side_is_more_or_less():
    assert verdicts.metric_word(0.1, 0.001, "Covered", 0.95) == "more"
    assert verdicts.metric_word(-0.1, 0.001, "Covered", 0.95) == "less"
    assert verdicts.metric_word(-0.1, 0.2, "Covered", 0.95) == "no difference shown"


CHANGES = pd.DataFrame(
    [("unscaled", 0.01, -0.02, 0.04, 0.6), ("resized", 0.4, 0.3, 0.5, 0.001), ("multidiffusion", -0.3, -0.4, -0.2, 0.001)],
    columns=["rule", "estimate", "low", "high", "p_holm"],
).assign(size="64x96", metric="Exact")
COSTS = pd.DataFrame(
    [("paper", 0.5, 900.0), ("resized", 0.25, 900.0), ("multidiffusion", 2.0, 990.0)], columns=["method", "seconds", "megabytes"]
).assign(size="64x96")


def test_other_ways_are_told_by_what_they_are_worth_and_what_they_take():
    text = verdicts.baselines(CHANGES, COSTS)
    assert "at 64x96 `paper` is beaten by `resized` (0.40 [0.30, 0.50], p = 0.001), beats `multidiffusion`" in text
    assert "is not shown to differ from `unscaled`" in text
    assert "takes `paper` 0.5 s and 900 MB at the peak; times that: `resized` 0.5 and `multidiffusion` 4; of the memory" in text
    assert "of the memory `multidiffusion` 1.1." in text
    alike = verdicts.baselines(CHANGES, pd.concat([COSTS.assign(megabytes=900.0), COSTS.assign(size="48x48", seconds=9.0)]))
    assert "A picture of 64x96 takes `paper` 0.5 s" in alike, "the largest size alone"
    assert "memory within 5 %." in alike
    assert "MB" not in verdicts.baselines(CHANGES, COSTS[:0])
    assert verdicts.baselines(CHANGES[:0], COSTS).startswith("Nothing was compared")
    fewer_is_better = CHANGES.assign(metric="Excess")
    assert "`paper` is beaten by `multidiffusion`" in verdicts.baselines(fewer_is_better, COSTS)


def answers(estimate, half, p_value, nothing=0.0, raters=15):
    row = {"size": "all sizes", "first": "unscaled", "second": "paper", "raters": raters, "pairs": 50, "nothing": nothing}
    return pd.DataFrame([row | {"estimate": estimate, "low": estimate - half, "high": estimate + half, "p_value": p_value}])


@pytest.mark.parametrize(
    ("found", "protocol", "truth", "words"),
    [
        (answers(0.5, 0.2, 0.01), "rating", None, ["15 raters on 50 pairs", "scores 0.50 [0.30, 0.70] points more", "(better)"]),
        (answers(-0.5, 0.2, 0.01), "rating", None, ["-0.50 [-0.70, -0.30]", "(worse)"]),
        (answers(0.1, 0.2, 0.3), "rating", None, ["(no difference shown)"]),
        (answers(0.4, 0.05, 0.01, 0.5), "choice", None, ["is chosen over `unscaled` by 40.0 % [35.0, 45.0] (worse)"]),
        (
            answers(0.5, 0.2, 0.01),
            "rating",
            0.6,
            ["Nobody has been asked", "15 simulated raters", "0.60, lies in the interval."],
        ),
        (answers(0.5, 0.2, 0.01), "rating", 0.8, ["0.80, lies outside the interval."]),
        (answers(0.5, 0.2, math.nan, raters=1), "rating", None, ["1 rater on", "(no difference shown)", "of that one alone"]),
    ],
)
def test_raters_are_told_from_simulated_ones(found, protocol, truth, words):
    text = verdicts.user_study(found, found[:0].assign(rater=""), protocol, truth)
    assert all(each in text for each in words), text
    assert ("better" in text or "worse" in text or "no difference" in text) == (truth is None), "a simulation judges no picture"
    assert "place" not in text
    counted = verdicts.user_study(found, answers(0.42, 0.1, 0.2, 0.5).assign(rater="CLIP score (automatic)"), protocol, truth)
    assert "numbers would choose: CLIP score (automatic) 42 % [32, 52] for `paper`" in counted


SHARES = pd.DataFrame([("128x128", "paper", 0.085, 0.08, 0.09)], columns=["size", "rule", "share", "low", "high"])
EXCESS = pd.DataFrame([("64x64", 0.1, 0.09, 0.11), ("128x128", 2.8, 2.6, 3.0)], columns=["size", "estimate", "low", "high"])
EXCESS = EXCESS.assign(metric="Excess", method="unscaled")
CHANGED = pd.DataFrame([("128x128", 0.004, -0.03, 0.04, 1.0)], columns=["size", "estimate", "low", "high", "p_holm"])
CHANGED = CHANGED.assign(metric="Excess", rule="paper")


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ((-0.26, -0.12), "adds 19.0 % [12.0, 26.0] to the damage there."),
        ((0.1, 0.3), "removes 20 % [10, 30] of the damage there."),
        ((-0.1, 0.1), "removes 0 % [-10, 10] of the damage there, which shows nothing."),
    ],
)
def test_the_story_ends_with_the_arm_that_restores_most(limits, word):
    share = sum(limits) / 2
    rows = [
        ("64x96", "power(4)", 0.8, 0.5, 0.4, 0.6),
        ("128x64", "paper", 0.1, 0.5, 0.4, 0.6),
        ("128x64", "equal-entropy(heads)", 1.03),
    ]
    rows[-1] += (share, *limits)
    arms = pd.DataFrame(rows, columns=["size", "rule", "entropy", "share", "low", "high"]).assign(metric="Excess")
    text = verdicts.story(SHARES, EXCESS, CHANGED, arms, "64x64")
    assert text.startswith("Asked for 128x128 instead of 64x64, the embedded model draws 2.80 [2.60, 3.00] things too many")
    assert "takes back 8.50 % [8.00, 9.00] of the change of entropy" in text
    assert "by 0.004 [-0.030, 0.040], p = 1 (no difference shown)" in text
    assert "`equal-entropy(heads)`, which takes back 103 % of it at 128x64" in text
    assert f"{word} Intervals" in text
    assert verdicts.story(SHARES, EXCESS, CHANGED, arms[:0], "64x64").endswith(
        "(no difference shown). Intervals: 95 %; p after Holm's correction over sizes."
    )
