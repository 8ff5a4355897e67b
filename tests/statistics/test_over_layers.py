"""Means over layers in three ways, and what each layer is like, against plain loops and closed forms."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics import (
    layer_table,
    means_over_layers,
    slopes_by_layer,
    three_means,
    with_importance,
)


@pytest.fixture
def rows():
    """Three layers of two steps, two prompts, two sizes; the dead one follows ln N, the others do not."""
    table = pd.DataFrame(product("ab", (64, 256), ("dead", "alive", "lively"), (0, 1)))
    table.columns = ["prompt", "tokens", "layer", "step"]
    own = table.layer.map({"dead": 1.0, "alive": 0.25, "lively": 0.0})
    measured = pd.DataFrame(
        {"layer": ["dead", "alive", "lively"] * 2, "change": [0.0, 0.5, 1.0, 0.0, 0.7, 1.4]}
    ).assign(intervention="uniform")
    table["entropy"] = own * np.log(table.tokens) + (table.prompt == "b") + 0.1 * table.step
    return with_importance(table, measured)


def test_three_means_against_a_plain_loop(rows):
    found = means_over_layers(rows, ["prompt", "tokens"])
    assert len(found) == 3 * 2 * 2
    for (prompt, tokens), part in rows.groupby(["prompt", "tokens"]):
        own = {layer: (each.entropy.mean(), each.importance.iloc[0]) for layer, each in part.groupby("layer")}
        expected = {
            "all": np.mean([entropy for entropy, _ in own.values()]),
            "by importance": sum(entropy * weight for entropy, weight in own.values())
            / sum(weight for _, weight in own.values()),
            "without dead": np.mean([entropy for entropy, weight in own.values() if weight > 0]),
        }
        here = found[(found.prompt == prompt) & (found.tokens == tokens)]
        assert dict(zip(here.layers, here.entropy, strict=True)) == pytest.approx(expected)


def test_means_that_cannot_be_had_are_refused(rows):
    with pytest.raises(InvalidInputError, match="no column 'importance'"):
        means_over_layers(rows.drop(columns="importance"))
    for importance_of in (rows.importance - 1, rows.importance.where(rows.step == 0)):
        with pytest.raises(InvalidInputError, match="importance be a number from 0"):
            means_over_layers(rows.assign(importance=importance_of))
    heads = pd.DataFrame({"layer": ["x"], "head": [0], "intervention": "uniform", "change": 1.0})
    with pytest.raises(InvalidInputError, match="measured by layer"):
        with_importance(rows, heads)
    with pytest.raises(InvalidInputError, match="'lively' was not measured"):
        with_importance(
            rows, pd.DataFrame({"layer": ["dead", "alive"], "intervention": "uniform", "change": 1.0})
        )


def test_values_that_are_missing_have_no_vote_and_each_group_has_a_live_layer():
    table = pd.DataFrame(
        {"prompt": "a", "layer": ["x", "y", "z"], "importance": 1.0, "entropy": [np.nan, 2, 4]}
    )
    assert means_over_layers(table).entropy.tolist() == [3.0, 3.0, 3.0]
    dead = pd.concat([table, table.assign(prompt="b", importance=0.001)])
    with pytest.raises(InvalidInputError, match=r"no layer of b has an importance of 0\.01"):
        means_over_layers(dead)
    with pytest.raises(InvalidInputError, match="by must name a column"):
        means_over_layers(table, by=[])


def slope(rows):
    return np.polyfit(np.log(rows.tokens), rows.entropy, 1)[0]


def test_three_numbers_have_paired_differences(rows):
    """Prompts differ in their slope alike in every layer: slopes are uncertain, differences are not."""
    rows["entropy"] += 0.2 * (rows.prompt == "b") * np.log(rows.tokens)
    found = three_means(rows, slope, by=["tokens"]).set_index("layers")
    own = {"all": 1.25 / 3, "by importance": 0.25 * 0.6 / 1.8, "without dead": 0.125}
    assert found.estimate.to_dict() == pytest.approx({name: each + 0.1 for name, each in own.items()})
    assert (found.high - found.low).min() > 0.1
    apart = {name: each - own["all"] for name, each in own.items() if name != "all"}
    for bound in ("change", "change_low", "change_high"):
        assert found[bound].dropna().to_dict() == pytest.approx(apart)


def test_one_prompt_has_numbers_without_limits(rows):
    found = three_means(rows[rows.prompt == "a"], slope, by=["tokens"])
    assert found.estimate.notna().all()
    assert found[["low", "high", "change_low", "change_high"]].isna().all(axis=None)


@pytest.fixture
def measured():
    """A layer that follows ln N and one that follows the width alone, at three sizes of two shapes."""
    rows = pd.DataFrame(product("ab", [(8, 8), (8, 16), (16, 16)], ("area", "width")))
    rows.columns = ["prompt", "sides", "layer"]
    rows["height"], rows["width"] = zip(*rows.pop("sides"), strict=True)
    rows["tokens"] = rows.height * rows.width
    rows["size"] = rows.height.astype(str) + "x" + rows.width.astype(str)
    followed = np.where(rows.layer == "area", np.log(rows.tokens), np.log(rows.width))
    rows["entropy"] = followed - 0.5 + 0.1 * (rows.prompt == "b")
    rows["entropy_ratio"] = rows.entropy / np.log(rows.tokens)
    rows["logit_std"], rows["beyond_freezing"] = 1.0, 0.0
    rows["gaussian_entropy"] = np.log(rows.tokens) - 0.5
    change = pd.DataFrame({"layer": ["area", "width"] * 2, "image": [0, 0, 1, 1], "change": [0, 0.4, 0, 0.6]})
    return rows, change


def test_a_layer_is_what_its_rows_say(measured):
    found = layer_table(*measured, "8x8").set_index(["layer", "size", "quantity"]).estimate
    assert found["area", "16x16", "entropy"] == pytest.approx(np.log(256) - 0.45)
    assert found["area", "8x8", "of_freezing"] == pytest.approx(1 / np.sqrt(2 * np.log(64)))
    assert found["width", "8x8", "gaussian_error"] == pytest.approx(np.log(8) - 0.05)
    assert found["area", "16x16", "same_keys_error"] == pytest.approx(0)
    assert found["width", "16x16", "same_keys_error"] == pytest.approx(-np.log(2))
    assert found["area", "all", "slope"] == pytest.approx(1)
    assert found["width", "8x8", "importance"] == pytest.approx(0.5)
    with pytest.raises(InvalidInputError, match="no rows of native size 9x9"):
        layer_table(*measured, "9x9")


def test_area_and_width_are_told_apart(measured):
    found = slopes_by_layer(measured[0]).set_index(["layer", "quantity"]).estimate
    expected = {("area", "height"): 1, ("area", "width"): 1, ("width", "height"): 0, ("width", "width"): 1}
    assert found[list(expected)].to_dict() == pytest.approx(expected, abs=1e-9)
