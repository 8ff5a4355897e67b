"""Entropy against ln N: the slope, and an interval that knows which measurements are independent.

Rows, heads, layers and steps of one image are not independent samples. The images of one prompt are a
cluster; the interval is cluster-robust (CR1) with the t distribution of G - 1 degrees of freedom, G being the
number of clusters.

Example:
    >>> import pandas as pd
    >>> table = pd.DataFrame({"tokens": [64, 256] * 3, "entropy": [4.0, 5.3, 4.1, 5.6, 3.9, 5.2]})
    >>> table = table.assign(prompt=list("aabbcc"))
    >>> round(slope_on_log_tokens(table).slope.estimate, 3)
    0.986
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError, UnknownNameError, extra
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import from_deletions


@dataclass(frozen=True)
class SlopeFit:
    """Ordinary least squares of a value on ln N.

    Attributes:
        slope: with its interval, which rests on the clusters.
        intercept: value at ln N = 0.
    """

    slope: Interval
    intercept: float

    def predict(self, tokens: float | np.ndarray | pd.Series) -> float | np.ndarray | pd.Series:
        """The fitted value at N = `tokens`."""
        return self.intercept + self.slope.estimate * np.log(tokens)

    def __str__(self) -> str:
        return f"{self.slope.estimate:.3f} [{self.slope.low:.3f}, {self.slope.high:.3f}]"


def slope_on_log_tokens(
    table: pd.DataFrame,
    value: str = "entropy",
    tokens: str = "tokens",
    cluster: str = "prompt",
    level: float = 0.95,
) -> SlopeFit:
    """Fit `value` = intercept + slope · ln `tokens` with a cluster-robust interval.

    Args:
        table: one row a measurement, already averaged over what is not a sample (rows, heads, layers, steps).
        value, tokens, cluster: column names.
        level: of the interval.
    """
    check_level(level)
    data = _whole_columns(table, value, [tokens], cluster)
    sizes, clusters = data[tokens].nunique(), data[cluster].nunique()
    if sizes < 2 or clusters < 2:
        raise InvalidInputError(
            f"{sizes} token counts and {clusters} clusters of {cluster!r}; "
            "a slope with an interval needs two of each"
        )
    fitted, errors = _clustered_slopes(data)
    return SlopeFit(Interval.around(fitted[1], errors[1], level, clusters), float(fitted[0]))


def slopes_on_sides(
    table: pd.DataFrame, value: str = "entropy", cluster: str = "prompt", level: float = 0.95
) -> dict[str, Interval]:
    """Fit `value` = a + b ln `height` + c ln `width` with cluster-robust intervals.

    Args:
        table: one row a measurement, with columns `height, width`; sizes of several shapes.
        value, cluster: column names.
        level: of the intervals.

    Returns:
        {"height": b, "width": c}.

    Raises:
        InvalidInputError: for missing values, one cluster, and where height and width do not vary apart.

    Example:
        >>> sizes = [(8, 8), (8, 16), (16, 8), (16, 16)]
        >>> rows = [(p, h, w, p + 0.5 * np.log(h)) for p in range(3) for h, w in sizes]
        >>> fit = slopes_on_sides(pd.DataFrame(rows, columns=["prompt", "height", "width", "entropy"]))
        >>> round(fit["height"].estimate, 3), abs(round(fit["width"].estimate, 3))
        (0.5, 0.0)
    """
    check_level(level)
    names = ["height", "width"]
    data = _whole_columns(table, value, names, cluster)
    clusters, sides = data[cluster].nunique(), data[names].drop_duplicates()
    if np.linalg.matrix_rank(np.log(sides).assign(constant=1.0)) < 3 or clusters < 2:
        sizes = sorted(f"{height}x{width}" for height, width in sides.itertuples(index=False))
        raise InvalidInputError(
            f"{clusters} clusters of {cluster!r} and sizes {', '.join(sizes)}; slopes apart need two "
            "clusters, and sizes of several shapes, as 64x64, 64x128 and 128x64"
        )
    named = zip(names, *(found[1:] for found in _clustered_slopes(data)), strict=True)
    return {name: Interval.around(slope, error, level, clusters) for name, slope, error in named}


def _whole_columns(table: pd.DataFrame, value: str, sides: list[str], cluster: str) -> pd.DataFrame:
    """The value, what it is fitted to, and the cluster, if nothing is missing and sides have a logarithm."""
    data = _columns(table, [value, *sides, cluster])
    if missing := int(data.isna().any(axis=1).sum()):
        raise InvalidInputError(f"{missing} rows have missing values in {', '.join(data)}; drop them first")
    for name in sides:
        if not (data[name] > 0).all():
            raise InvalidInputError(f"{name} goes down to {data[name].min():g}; it must be above 0")
    return data


def _clustered_slopes(data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Constant and slopes of the first column on logarithms of the others, the last being the cluster, by
    least squares, and their cluster-robust standard errors.
    """
    with extra("metrics"):
        import statsmodels.api as sm

    values, *sides, clusters = (column.to_numpy() for _, column in data.items())
    groups = {"groups": pd.factorize(clusters)[0]}
    design = sm.add_constant(np.log(np.column_stack(sides).astype(float)), has_constant="add")
    fit = sm.OLS(values.astype(float), design).fit(cov_type="cluster", cov_kwds=groups, use_t=True)
    return fit.params, fit.bse


def slopes_by_rule(
    table: pd.DataFrame, rules: Sequence[str], level: float = 0.95, compared: str = "rule"
) -> pd.DataFrame:
    """The slope of entropy on ln N under each rule, and its paired difference to that of the first.

    Args:
        table: columns `prompt, tokens, rule, entropy`; several rows of one kind are averaged.
        rules: which ones, the one that others are compared with first.
        level: of the intervals.
        compared: the column of what is compared, if it is not rules; it stands in the result too.

    Returns:
        one row a rule: `rule, slope, low, high, clusters, change, change_low, change_high`; the change is NaN
            for the first.

    Example:
        >>> a = pd.DataFrame({"tokens": [64, 256] * 2, "entropy": [4.0, 5.3, 4.1, 5.6], "rule": "unscaled"})
        >>> a["prompt"] = list("aabb")
        >>> b = a.assign(rule="paper", entropy=a.entropy - 0.1 * np.log(a.tokens))
        >>> slopes_by_rule(pd.concat([a, b]), ["unscaled", "paper"]).change.round(3).tolist()
        [nan, -0.1]
    """
    needed = _columns(table, ["prompt", "tokens", compared, "entropy"])
    wide, rows = needed.pivot_table(index=["prompt", "tokens"], columns=compared, values="entropy"), []

    def slope(values: pd.Series) -> Interval:
        return slope_on_log_tokens(values.rename("entropy").reset_index(), level=level).slope

    for name in rules:
        _check_found(compared, name, wide)
    for name in rules:
        own = slope(wide[name])
        paired = slope(wide[name] - wide[rules[0]]).columns().values() if name != rules[0] else [np.nan] * 3
        rows.append((name, *own.columns().values(), own.blocks, *paired))
    return pd.DataFrame(
        rows, columns=[compared, "slope", "low", "high", "clusters", "change", "change_low", "change_high"]
    )


def cluster_mean(
    table: pd.DataFrame,
    value: str,
    by: str | list[str],
    cluster: str = "prompt",
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """Mean of `value` in each group of `by` with a t interval over cluster means.

    Args:
        bounds: what the values lie between, as shares and counts do: then the limits do too, see
            `Interval.within`.

    Returns:
        columns of `by`, then `estimate, low, high, clusters`. With one cluster the limits are NaN.
    """
    check_level(level)
    keys = [by] if isinstance(by, str) else list(by)
    groups = _columns(table, [*keys, cluster, value]).groupby([*keys, cluster], sort=False, observed=True)
    per_cluster = groups[value].mean()
    grouped = per_cluster.groupby(level=keys, sort=False, observed=True).agg(["mean", "sem", "count"])
    means = [Interval.around(*row[:2], level, int(row[2])) for row in grouped.itertuples(index=False)]
    means = [mean.within(*bounds) for mean in means] if bounds else means
    rows = pd.DataFrame(
        [mean.columns() for mean in means], index=grouped.index, columns=["estimate", "low", "high"]
    )
    return rows.assign(clusters=grouped["count"]).reset_index()


def check_shares(rules: Sequence[str], native: str, sizes: Sequence[str]) -> None:
    """Whether `fraction_removed` will have what it compares with.

    Raises:
        InvalidInputError: where "unscaled" is not among the rules, or sizes are not different from each other
            and the native one.
    """
    if "unscaled" not in rules:
        raise InvalidInputError(
            f"rules are {list(rules)}; 'unscaled' must be among them, for the others are compared with it"
        )
    labels = [native, *sizes]
    if repeated := [size for index, size in enumerate(labels) if size in labels[:index]]:
        raise InvalidInputError(
            f"{repeated[0]!r} occurs twice among the native size {native} and {list(sizes)}; name another"
        )


def fraction_removed(
    table: pd.DataFrame,
    native: str = "native",
    level: float = 0.95,
    by: str | None = None,
    value: str = "entropy",
    compared: str = "rule",
) -> pd.DataFrame:
    """By how much a rule shrinks the change of entropy, or of another number, from native size.

    Share = 1 - (H_rule - H_native) / (H_unscaled - H_native): 1 where the rule brings entropy back to its
    native value, 0 where it changes nothing. A ratio of means, with a delete-one-prompt jackknife interval.
    Where the change without a rule cannot be told from 0 at this level there is no share: it is NaN, and the
    `note` says "no change to remove".

    Args:
        table: columns `prompt, size, rule, entropy`; the rows of size `native` hold the native entropy (its
            unscaled rows where there are any). Several rows of one kind are averaged.
        native: the label of the native size.
        level: of the interval.
        by: a column whose values are treated apart, e.g. "layer".
        value: the column of the number, if it is not entropy.
        compared: the column of what is compared, `rule` or `method`; it stands in the result too.

    Returns:
        one row for each (size, rule) other than native and unscaled: `size, rule, share, low, high, clusters,
        note`, after `by`.
    """
    check_level(level)
    _columns(table, ["prompt", "size", compared, value, *([by] if by else [])])
    _check_found("size", native, set(table["size"]))
    if by is not None:
        parts = {
            name: fraction_removed(part, native, level, value=value, compared=compared)
            for name, part in table.groupby(by, sort=False)
        }
        return pd.concat(parts, names=[by]).reset_index(level=0).reset_index(drop=True)
    wide = table.pivot_table(index="prompt", columns=["size", compared], values=value, sort=False)
    known = wide[native]
    reference = known["unscaled"] if "unscaled" in known else known.mean(axis=1)
    rows = []
    for size, name in wide.columns:
        if size != native and name != "unscaled" and (size, "unscaled") in wide.columns:
            changes = {"change": wide[size, "unscaled"] - reference, "left": wide[size, name] - reference}
            share = _share(pd.DataFrame(changes).dropna(), level)
            note = "no change to remove" if share.blocks and np.isnan(share.estimate) else ""
            rows.append((size, name, *share.columns().values(), share.blocks, note))
    return pd.DataFrame(rows, columns=["size", compared, "share", "low", "high", "clusters", "note"])


def _share(pair: pd.DataFrame, level: float) -> Interval:
    """One minus the ratio of the sums of two columns, leaving out one prompt at a time.

    NaN where the first cannot be told from 0; without limits where there is but one prompt.
    """
    total, change = pair.sum(), Interval.around(pair.change.mean(), pair.change.sem(), level, len(pair))
    with np.errstate(divide="ignore", invalid="ignore"):  # a share of no change is NaN, and so are its limits
        none = total.change == 0 or change.low <= 0 <= change.high
        share = np.nan if none else 1 - total.left / total.change
        without = 1 - (total.left - pair.left) / (total.change - pair.change)
    return left_out(share, np.asarray(without), level)


def left_out(whole: float, without: np.ndarray, level: float) -> Interval:
    """The jackknife interval of a number from what it is without each cluster; no limits for one."""
    if len(without) < 2 or not np.isfinite([whole, *without]).all():
        return Interval.around(whole, np.nan, level, len(without))
    return from_deletions(whole, without, np.ones(len(without)), level, correct_bias=False)


def _columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    missing = [name for name in names if name not in table]
    if missing:
        raise InvalidInputError(
            f"the table has no column {', '.join(map(repr, missing))}; it has {', '.join(map(str, table))}"
        )
    return table[list(dict.fromkeys(names))]


def _check_found(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)
