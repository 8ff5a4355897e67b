"""Entropy against ln N: the slope, and an interval that knows which measurements are independent.

Rows, heads, layers and steps of one image are not independent samples. The images of one prompt are a cluster; the
interval is cluster-robust (CR1) with the t distribution of G - 1 degrees of freedom, G being the number of clusters.

Example:
    >>> import pandas as pd
    >>> table = pd.DataFrame({"tokens": [64, 256] * 3, "entropy": [4.0, 5.3, 4.1, 5.6, 3.9, 5.2], "prompt": list("aabbcc")})
    >>> slope_on_log_tokens(table).slope.round(3)
    np.float64(0.986)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from entropy_lib.errors import extra


@dataclass(frozen=True)
class SlopeFit:
    """Ordinary least squares of a value on ln N.

    Attributes:
        slope, low, high: estimate and confidence limits.
        intercept: value at ln N = 0.
        level: of the interval.
        clusters, observations: how many of each.
    """

    slope: float
    low: float
    high: float
    intercept: float
    level: float
    clusters: int
    observations: int

    def predict(self, tokens):
        """The fitted value at N = `tokens`."""
        return self.intercept + self.slope * np.log(tokens)

    def __str__(self) -> str:
        return f"{self.slope:.3f} [{self.low:.3f}, {self.high:.3f}]"


def slope_on_log_tokens(
    table: pd.DataFrame, value: str = "entropy", tokens: str = "tokens", cluster: str = "prompt", level: float = 0.95
) -> SlopeFit:
    """Fit `value` = intercept + slope · ln `tokens` with a cluster-robust interval.

    Args:
        table: one row a measurement, already averaged over what is not a sample (rows, heads, layers, steps).
        value, tokens, cluster: column names.
        level: of the interval.

    Raises:
        ValueError: with fewer than two token counts, fewer than two clusters, or missing values.
    """
    with extra("metrics"):
        import statsmodels.api as sm

    data = table[[value, tokens, cluster]]
    if data.isna().any(axis=None):
        raise ValueError(
            f"{int(data.isna().any(axis=1).sum())} rows have missing values in {value}, {tokens} or {cluster}; drop them first"
        )
    sizes, clusters = data[tokens].nunique(), data[cluster].nunique()
    if sizes < 2 or clusters < 2:
        raise ValueError(f"{sizes} token counts and {clusters} clusters of {cluster!r}; a slope with an interval needs two of each")
    design = sm.add_constant(np.log(data[tokens].to_numpy(float)))
    groups = pd.factorize(data[cluster])[0]
    result = sm.OLS(data[value].to_numpy(float), design).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    low, high = result.conf_int(alpha=1 - level)[1]
    return SlopeFit(result.params[1], low, high, result.params[0], level, clusters, len(data))


def slopes_by_rule(table: pd.DataFrame, rules: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """The slope of entropy on ln N under each rule, and of its paired difference to the first rule, which is known far better.

    Args:
        table: columns `prompt, tokens, rule, entropy`; several rows of one kind are averaged.
        rules: which ones, the one that others are compared with first.
        level: of the intervals.

    Returns:
        one row a rule: `rule, slope, low, high, clusters, change, change_low, change_high`; the change is NaN for the first.

    Raises:
        ValueError: as `slope_on_log_tokens`.

    Example:
        >>> a = pd.DataFrame({"tokens": [64, 256] * 2, "entropy": [4.0, 5.3, 4.1, 5.6], "prompt": list("aabb"), "rule": "unscaled"})
        >>> b = a.assign(rule="paper", entropy=a.entropy - 0.1 * np.log(a.tokens))
        >>> slopes_by_rule(pd.concat([a, b]), ["unscaled", "paper"]).change.round(3).tolist()
        [nan, -0.1]
    """
    wide, rows = table.pivot_table(index=["prompt", "tokens"], columns="rule", values="entropy"), []
    for name in rules:
        fit = slope_on_log_tokens(wide[name].rename("entropy").reset_index(), level=level)
        row = {"rule": name, "slope": fit.slope, "low": fit.low, "high": fit.high, "clusters": fit.clusters}
        if name != rules[0]:
            paired = slope_on_log_tokens((wide[name] - wide[rules[0]]).rename("entropy").reset_index(), level=level)
            row |= {"change": paired.slope, "change_low": paired.low, "change_high": paired.high}
        rows.append(row)
    return pd.DataFrame(rows, columns=["rule", "slope", "low", "high", "clusters", "change", "change_low", "change_high"])


def cluster_mean(
    table: pd.DataFrame, value: str, by: str | list[str], cluster: str = "prompt", level: float = 0.95
) -> pd.DataFrame:
    """Mean of `value` in each group of `by` with a t interval over cluster means.

    Returns:
        columns of `by`, then `mean, low, high, clusters`. With one cluster the limits are NaN.
    """
    from scipy import stats

    keys = [by] if isinstance(by, str) else list(by)
    per_cluster = table.groupby([*keys, cluster], sort=False, observed=True)[value].mean()
    grouped = per_cluster.groupby(level=keys, sort=False, observed=True).agg(["mean", "sem", "count"]).reset_index()
    reach = stats.t.ppf((1 + level) / 2, (grouped["count"] - 1).clip(lower=1)) * grouped.pop("sem")
    return grouped.assign(low=grouped["mean"] - reach, high=grouped["mean"] + reach).rename(columns={"count": "clusters"})[
        [*keys, "mean", "low", "high", "clusters"]
    ]


def share_removed(table: pd.DataFrame, native: str = "native", level: float = 0.95, by: str | None = None) -> pd.DataFrame:
    """By how much a rule shrinks the change of entropy between native size and another size.

    Share = 1 - (H_rule - H_native) / (H_unscaled - H_native): 1 where the rule brings entropy back to its native value, 0
    where it changes nothing. A ratio of means, with a delete-one-prompt jackknife interval.

    Args:
        table: columns `prompt, size, rule, entropy`; the rows of size `native` hold the native entropy (its unscaled rows
            where there are any). Several rows of one kind are averaged.
        native: the label of the native size.
        level: of the interval.
        by: a column whose values are treated apart, e.g. "layer".

    Returns:
        one row for each (size, rule) other than native and unscaled: `size, rule, share, low, high, clusters`, after `by`.
    """
    if by is not None:
        parts = {value: share_removed(part, native, level) for value, part in table.groupby(by, sort=False)}
        return pd.concat(parts, names=[by]).reset_index(level=0).reset_index(drop=True)
    wide = table.pivot_table(index="prompt", columns=["size", "rule"], values="entropy", sort=False)
    known = wide[native]
    reference = known["unscaled"] if "unscaled" in known else known.mean(axis=1)
    rows = []
    for size, scale_rule in wide.columns:
        if size != native and scale_rule != "unscaled" and (size, "unscaled") in wide.columns:
            pair = pd.DataFrame({"change": wide[size, "unscaled"] - reference, "left": wide[size, scale_rule] - reference}).dropna()
            rows.append({"size": size, "rule": scale_rule} | _jackknife_share(pair, level))
    return pd.DataFrame(rows, columns=["size", "rule", "share", "low", "high", "clusters"])


def _jackknife_share(pair: pd.DataFrame, level: float) -> dict[str, float]:
    from scipy import stats

    count, total = len(pair), pair.sum()
    share = 1 - total.left / total.change
    if count < 2:
        return {"share": share, "low": np.nan, "high": np.nan, "clusters": count}
    without = 1 - (total.left - pair.left) / (total.change - pair.change)
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    reach = stats.t.ppf((1 + level) / 2, count - 1) * error
    return {"share": share, "low": share - reach, "high": share + reach, "clusters": count}
