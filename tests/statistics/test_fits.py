import numpy as np
import pandas as pd
import pytest
import scipy.stats

from entropy_lib.statistics.fits import cluster_mean, fraction_removed, slope_on_log_tokens, slopes_by_rule

TOKENS = np.array([64, 144, 256, 384, 576, 1024])


def simulated(clusters, slope, generator, spread=0.3, noise=0.05):
    """Entropy with an offset and a slope of its own for each prompt."""
    offset, own = spread * generator.standard_normal((2, clusters, 1))
    values = offset + (slope + 0.3 * own) * np.log(TOKENS)
    values += noise * generator.standard_normal((clusters, len(TOKENS)))
    prompts, tokens = np.repeat(np.arange(clusters), len(TOKENS)), np.tile(TOKENS, clusters)
    return pd.DataFrame({"prompt": prompts, "tokens": tokens, "entropy": values.ravel()})


def test_slope_is_that_of_scipy_and_the_interval_that_of_the_sandwich_formula():
    table = simulated(7, 0.9, np.random.default_rng(0))
    fit = slope_on_log_tokens(table)
    x, y = np.log(table.tokens), table.entropy
    reference = scipy.stats.linregress(x, y)
    assert (fit.slope.estimate, fit.intercept) == pytest.approx((reference.slope, reference.intercept))
    design = np.column_stack([np.ones(len(x)), x])
    residual = y - design @ [reference.intercept, reference.slope]
    scores = np.array([design[part].T @ residual[part] for part in table.groupby("prompt").indices.values()])
    bread = np.linalg.inv(design.T @ design)
    groups, rows = len(scores), len(x)
    covariance = bread @ (scores.T @ scores) @ bread * groups / (groups - 1) * (rows - 1) / (rows - 2)
    reach = scipy.stats.t.ppf(0.975, groups - 1) * np.sqrt(covariance[1, 1])
    assert (fit.slope.low, fit.slope.high) == pytest.approx(
        (reference.slope - reach, reference.slope + reach)
    )


def test_what_cannot_be_fitted_is_refused():
    table = simulated(3, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="1 clusters"):
        slope_on_log_tokens(table[table.prompt == 0])
    with pytest.raises(ValueError, match="1 rows have missing values"):
        slope_on_log_tokens(table.assign(entropy=table.entropy.where(table.index != 3)))


def test_cluster_means_are_t_intervals_over_prompts():
    table = simulated(6, 1.0, np.random.default_rng(2))
    repeated = pd.concat([table, table])  # pseudo-replicates must not narrow the interval
    row = cluster_mean(repeated, "entropy", "tokens").set_index("tokens").loc[256]
    values = table[table.tokens == 256].entropy
    expected = scipy.stats.t.interval(0.95, 5, values.mean(), values.sem())
    assert (row.estimate, row.low, row.high, row.clusters) == pytest.approx((values.mean(), *expected, 6))


def test_limits_of_a_mean_of_shares_are_shares():
    table = pd.DataFrame({"size": "64x96", "prompt": range(8), "exact": [0.0] * 7 + [1.0]})
    plain = cluster_mean(table, "exact", "size").iloc[0]
    row = cluster_mean(table, "exact", "size", bounds=(0, 1)).iloc[0]
    assert plain.low < 0 < row.low < row.estimate < row.high < 1


def shares(removed, clusters=6, noise=0.1):
    generator = np.random.default_rng(3)
    rows = []
    for prompt in range(clusters):
        native = 3 + generator.standard_normal()
        change = 1 + noise * generator.standard_normal()
        for size, rule, entropy in (
            ("native", "unscaled", native),
            ("large", "unscaled", native + change),
            ("large", "paper", native + change * (1 - removed)),
        ):
            rows.append({"prompt": prompt, "size": size, "rule": rule, "entropy": entropy})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("removed", [0.0, 0.12, 1.0, -0.2])
def test_share_removed_is_recovered_whatever_the_prompts_differ_by(removed):
    row = fraction_removed(shares(removed)).iloc[0]
    assert (row["share"], row.low, row.high) == pytest.approx((removed, removed, removed), abs=1e-9)
    assert row.clusters == 6


def test_share_of_one_prompt_has_no_interval():
    assert fraction_removed(shares(0.5, clusters=1))[["low", "high"]].isna().all(axis=None)


def test_a_change_that_cannot_be_distinguished_from_0_leaves_nothing_to_remove():
    row = fraction_removed(shares(0.5, noise=20.0)).iloc[0]
    assert row[["share", "low", "high"]].isna().all()
    assert row.note == "no change to remove"
    assert fraction_removed(shares(0.5)).note.tolist() == [""]


def test_shares_by_layer_are_those_of_each_layer_alone():
    table = pd.concat([shares(removed).assign(layer=name) for name, removed in (("down", 0.1), ("up", 0.6))])
    result = fraction_removed(table, by="layer")
    assert list(result.layer) == ["down", "up"]
    assert list(result["share"]) == pytest.approx([0.1, 0.6])


def test_the_change_of_slope_is_fitted_in_pairs_and_known_better_than_either_slope():
    generator = np.random.default_rng(3)
    plain = simulated(8, 1.0, generator, spread=0.5).assign(rule="unscaled")
    ruled = plain.assign(
        rule="paper",
        entropy=plain.entropy - 0.05 * np.log(plain.tokens) + 1e-3 * generator.standard_normal(len(plain)),
    )
    first, second = slopes_by_rule(pd.concat([plain, ruled]), ["unscaled", "paper"]).to_dict("records")
    assert np.isnan(first["change"])
    assert second["change"] == pytest.approx(second["slope"] - first["slope"])
    assert second["change_low"] < -0.05 < second["change_high"] < 0
    assert second["change_high"] - second["change_low"] < 0.1 * (second["high"] - second["low"])
