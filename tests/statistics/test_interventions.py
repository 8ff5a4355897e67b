"""Choice and verdict apart, doses, corrected p-values, and what each image has."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import entropy_lib as el
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import ROOT
from entropy_lib.metrics.registry import PRIMARY, UNCOUNTED
from entropy_lib.plots import figures, tables
from entropy_lib.scenes import scenes
from entropy_lib.statistics import (
    best_on_tuning,
    dose_slope,
    dose_slopes,
    fraction_removed,
    holm,
    paired_change,
    paired_changes,
    rank_correlation,
)


def outcomes(rng, prompts=40, effects=(("unscaled", 0.0), ("paper", -0.2), ("power(2)", -0.6)), noise=0.3):
    """Outcomes with an effect of each rule, paired by prompt and seed."""
    rows = []
    for prompt in range(prompts):
        own = rng.normal(2, 1)
        rows += [(prompt, 0, rule, own + effect + rng.normal(0, noise)) for rule, effect in effects]
    return pd.DataFrame(rows, columns=["prompt", "seed", "method", "value"])


def test_a_paired_change_is_scipy_s_paired_t_test():
    table = outcomes(np.random.default_rng(0))
    wide = table.pivot(index="prompt", columns="method", values="value")
    expected = stats.ttest_rel(wide["paper"], wide["unscaled"])
    found = paired_change(table, "paper", "unscaled")
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_a_choice_is_judged_on_prompts_that_took_no_part_in_it():
    """Of many interventions that do nothing the best looks good where it was chosen, and only there."""
    rng, tuned, held_out = np.random.default_rng(0), [], []
    effects = [("unscaled", 0.0), *((f"power({p})", 0.0) for p in range(1, 12))]
    for _ in range(60):
        found = best_on_tuning(outcomes(rng, 20, effects), list(range(10)), higher_is_better=False)
        tuned += found.tuned.tolist()
        held_out += found.estimate.tolist()
    assert np.mean(tuned) < -0.1
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / np.sqrt(len(held_out))


def test_the_best_is_found_whichever_way_is_better():
    table = outcomes(np.random.default_rng(1))
    tuning = list(range(0, 40, 2))
    lower = best_on_tuning(table, tuning, higher_is_better=False, against=("unscaled", "paper"))
    assert lower.method.tolist() == ["power(2)", "power(2)"]
    assert (lower.high < 0).all()
    assert best_on_tuning(table, tuning, higher_is_better=True).empty, (
        "no rule is best, and is not compared with itself"
    )


@pytest.mark.parametrize("tuning", [[], list(range(40)), ["other"]], ids=["none", "all", "unknown"])
def test_prompts_to_choose_by_and_prompts_held_out_are_both_needed(tuning):
    with pytest.raises(InvalidInputError, match="tuning prompts"):
        best_on_tuning(outcomes(np.random.default_rng(0)), tuning, higher_is_better=False)


def test_a_rule_that_is_not_there_is_named():
    with pytest.raises(InvalidInputError, match="no method 'gamma'"):
        paired_change(outcomes(np.random.default_rng(0)), "gamma", "unscaled")


def test_the_slope_on_a_dose_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    doses = [-2.0, 0.0, 0.5, 4.0]
    table = pd.DataFrame(
        [(p, d, 3 * d + rng.normal()) for p in range(12) for d in doses], columns=["prompt", "dose", "value"]
    )
    each = [stats.linregress(part.dose, part.value).slope for _, part in table.groupby("prompt")]
    found = dose_slope(table)
    (row,) = dose_slopes(table.assign(size="64x96"), ["size"]).itertuples()
    assert (row.size, row.estimate, row.p_value) == ("64x96", found.estimate, found.p_value)
    assert found.estimate == pytest.approx(np.mean(each))
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 11, np.mean(each), stats.sem(each))
    )
    with pytest.raises(InvalidInputError, match="two doses"):
        dose_slope(table[table.dose == 0.5])


def test_holm_is_that_of_its_definition():
    table = pd.DataFrame({"p_value": [0.04, 0.01, 0.03, 0.5], "metric": ["a", "a", "b", "b"]})
    assert holm(table).p_holm.tolist() == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm(table, by=["metric"]).p_holm.tolist() == pytest.approx([0.04, 0.02, 0.06, 0.5])
    assert "p_holm" in holm(table.iloc[:0])


def test_a_rank_correlation_is_scipy_s_with_an_exact_chance():
    first, second = pd.Series([0.1, 0.4, 0.2, 0.9, 0.7]), pd.Series([1.0, 3.0, 2.0, 4.0, 5.0])
    correlation, chance = rank_correlation(first, second)
    assert correlation == pytest.approx(stats.spearmanr(first, second).statistic)
    assert chance == pytest.approx(2 * 5 / 120), "5 of 120 orders are as high"
    assert all(np.isnan(rank_correlation(first[:3], second[:3])))


def test_a_share_of_no_change_is_no_number():
    rows = product(range(4), ("native", "other"), ("unscaled", "paper"), [1.0])
    table = pd.DataFrame(rows, columns=["prompt", "size", "method", "value"])
    assert fraction_removed(table, value="value", compared="method").share.isna().all()


def test_every_picture_has_its_numbers(pipe, tmp_path):
    prompts = [scenes.scene(number, "test").caption for number in range(3)]
    plan = el.sweep.make_plan(
        "mini", prompts, [0], ["64x64", "64x96"], ["unscaled", "padding(circular)"],
        steps=2, guidance=3.0, dtype="float32", device="cpu",
    )  # fmt: skip
    comparison = el.sweep.open_comparison(
        plan, tmp_path, metrics=["Over-count", "Under-count", "Repetition"], device="cpu"
    )
    el.sweep.engines.local(plan.groups(4), comparison.store, device="cpu", progress=False)
    table = el.sweep.image_outcomes(comparison)
    assert set(table.metric) == {"Over-count", "Under-count", "Repetition"}
    assert len(table) == 3 * len(plan.units)
    assert el.sweep.primary_outcomes(comparison) == {"64x96": ["Over-count"]}
    means = el.sweep.evaluate(comparison).levels.set_index(["size", "method", "metric"]).estimate
    alone = el.sweep.outcome_means(table, ["size", "method"]).set_index(["size", "method", "metric"])
    assert (alone.low >= 0).all()
    assert set(alone.index) == set(zip(table["size"], table.method, table.metric, strict=True))
    expected = means["64x96", "padding(circular)", "Repetition"]
    assert alone.estimate["64x96", "padding(circular)", "Repetition"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["09_layout_metrics", "10_dose_response", "11_rival_explanations"])
def test_what_is_decided_beforehand_stands_in_one_place(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    assert "el.tables.preregistration()" in code
    (decided,) = (line for cell in cells for line in cell["source"] if line.startswith("**Primary"))
    primary = {outcome for outcomes in (*PRIMARY.values(), *UNCOUNTED.values()) for outcome in outcomes}
    assert not [
        outcome for outcome in primary if outcome.lower() in decided.partition("Search space")[0].lower()
    ]
    assert all(outcome in tables.preregistration() for outcome in primary)


def test_changes_of_all_rules_are_corrected_together():
    rng, sizes = np.random.default_rng(1), ("32x32", "96x96")
    table = pd.concat(outcomes(rng).assign(size=size, metric="Over-count") for size in sizes)
    found = paired_changes(table)
    pairs = zip(found["size"], found.method, strict=True)
    assert list(pairs) == list(product(sizes, ("paper", "power(2)")))
    alone = paired_change(table[table["size"] == "96x96"], "power(2)", "unscaled")
    assert (found.estimate[3], found.p_value[3]) == pytest.approx((alone.estimate, alone.p_value))
    assert found.p_holm.to_numpy() == pytest.approx(holm(found[["p_value"]]).p_holm)
    assert paired_changes(table[table.method == "unscaled"]).empty


def test_figures_of_interventions_have_a_panel_for_each_outcome():
    rows = [("96x96", "Over-count", e, 1.0 - e / 10, 0.8, 1.2) for e in (-2, 0, 0.5, 4)]
    levels = pd.DataFrame(rows, columns=["size", "metric", "exponent", "estimate", "low", "high"])
    native = pd.DataFrame([("Over-count", 0.1, 0.05, 0.15)], columns=["metric", "estimate", "low", "high"])
    levels = levels.assign(line="unscaled")
    figure = figures.dose_response(pd.concat([levels, levels.assign(size="128x128")]), native)
    assert [ax.get_title() for ax in figure.axes] == ["Over-count at 96x96", "Over-count at 128x128"]
    models = pd.concat([levels.assign(line=name) for name in ("mini", "mini-dit")])
    (ax,) = figures.dose_response(models, native.assign(line="mini")).axes
    assert {"mini", "mini-dit"} <= set(ax.get_legend_handles_labels()[1])
    names = ["paper", "power(4)", "padding(circular)"]
    cell = pd.DataFrame({"size": "96x96", "metric": "Over-count", "method": names})
    changes = cell.assign(estimate=-0.1, low=-0.3, high=0.1)
    (ax,) = figures.forest(changes, against="no rule", panels=("metric", "size")).axes
    assert ax.get_title() == "Over-count at 96x96"
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    shares = cell.assign(share=[0, 0.5, 9], low=-1.0, high=10.0, entropy=[0.1, 0.6, 0.0])
    figure = figures.recovery_against_entropy(shares)
    assert figure.axes[0].get_ylim()[1] == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
