"""Means over layers, and what each layer is like: tables that know which layers matter.

A mean over layers is a vote in which a layer that changes nothing has a seat like any other. So a mean is
taken in three ways: one vote each, votes by importance, and no votes for the dead.

Example:
    >>> rows = [(p, layer, size, p + share * np.log(size)) for p in range(3) for size in (64, 256)
    ...     for layer, share in (("dead", 1.0), ("alive", 0.25))]
    >>> table = pd.DataFrame(rows, columns=["prompt", "layer", "tokens", "entropy"])
    >>> table["importance"] = table.layer.map({"dead": 0.0, "alive": 0.5})
    >>> slope = lambda part: np.polyfit(np.log(part.tokens), part.entropy, 1)[0]
    >>> three_means(table, slope, by=["tokens"]).estimate.round(3).tolist()
    [0.625, 0.25, 0.25]
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics.fits import cluster_mean, left_out, slope_on_log_tokens, slopes_on_sides

QUANTITIES = (
    "tokens", "entropy", "entropy_ratio", "logit_std", "of_freezing", "beyond_freezing", "gaussian_error",
    "same_keys_error",
)  # fmt: skip
DEAD = 0.01  # importance below which a layer does nothing that could be seen


def with_importance(table: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """A table of a probe with a column `importance`: the mean change of its layer.

    Args:
        table: with a column `layer`.
        measured: of `importance`, by layer.

    Raises:
        InvalidInputError: where a layer of the table was not measured; for heads, or several interventions.
    """
    if "head" in measured or measured.intervention.nunique() > 1:
        raise InvalidInputError("give one intervention, measured by layer: importance(…, by='layer')")
    means = measured.groupby("layer", sort=False).change.mean()
    if missing := sorted(set(table.layer) - set(means.index)):
        raise InvalidInputError(f"the importance of {missing[0]!r} was not measured; measure it by layer")
    return table.assign(importance=table.layer.map(means))


def means_over_layers(
    table: pd.DataFrame, by: Sequence[str] = ("prompt",), value: str = "entropy", dead: float = DEAD
) -> pd.DataFrame:
    """A mean over layers in three ways: one vote each, votes by importance, and no votes for the dead.

    Where they differ, a statement about "the attention" of a network is one about layers that do nothing.

    Args:
        table: columns `layer, importance`, `value` and those of `by`. Every row has a vote, so that heads
            count alike, as in a plain mean.
        by: columns whose values stay apart.
        value: the column to average.
        dead: importance below which a layer is dead, by default a hundredth of an image's standard deviation.

    Returns:
        columns of `by`, `layers` ("all", "by importance", "without dead") and `value`.

    Raises:
        InvalidInputError: for missing columns, an importance that is negative or NaN, and where no layer is
            alive in one of the groups. Rows without a value have no vote.

    Example:
        >>> rows = [("a", "dead", 0.0, 6.0), ("a", "alive", 0.5, 2.0), ("a", "lively", 1.5, 3.0)]
        >>> table = pd.DataFrame(rows, columns=["prompt", "layer", "importance", "entropy"])
        >>> means_over_layers(table).entropy.round(3).tolist()
        [3.667, 2.75, 2.5]
    """
    keys = list(by)
    if missing := [name for name in ("layer", "importance", value, *keys) if name not in table]:
        raise InvalidInputError(f"the table has no column {missing[0]!r}; see with_importance")
    if not keys or not (table.importance >= 0).all():
        raise InvalidInputError("by must name a column, and importance be a number from 0 for every layer")
    rows = table.dropna(subset=[value])
    strongest = rows.groupby(keys, sort=False, observed=True).importance.max()
    if strongest.min() < dead:
        raise InvalidInputError(
            f"no layer of {strongest.idxmin()} has an importance of {dead:g}; measure it with more images"
        )
    votes = {"all": 1.0, "by importance": rows.importance, "without dead": rows.importance >= dead}
    means = []
    for name, vote in votes.items():
        weighed = rows[keys].assign(weight=vote).astype({"weight": float})
        weighed["sum"] = rows[value] * weighed.weight
        sums = weighed.groupby(keys, sort=False, observed=True).sum()
        means.append((sums["sum"] / sums.weight).rename(value).reset_index().assign(layers=name))
    return pd.concat(means, ignore_index=True)[[*keys, "layers", value]]


def three_means(
    table: pd.DataFrame,
    statistic: Callable[[pd.DataFrame], float],
    by: Sequence[str] = (),
    value: str = "entropy",
    level: float = 0.95,
    cluster: str = "prompt",
) -> pd.DataFrame:
    """A number from each of the three means over layers, and its paired difference from that of all layers.

    Args:
        table: as for `means_over_layers`, with a column `cluster`.
        statistic: the number, from columns of `cluster, by` and `value`; smooth, for the jackknife.
        by: columns beside `cluster` whose values stay apart.
        value: the column to average over layers.
        level: of the delete-one-cluster jackknife intervals.
        cluster: the column of what is independent.

    Returns:
        one row a way: `layers, estimate, low, high, change, change_low, change_high`; the change is NaN for
            all layers.

    Raises:
        InvalidInputError: as `means_over_layers`.
    """
    ways = means_over_layers(table, [cluster, *by], value)

    def numbers(rows: pd.DataFrame) -> np.ndarray:
        found = [statistic(part) for _, part in rows.groupby("layers", sort=False)]
        return np.concatenate([found, np.subtract(found, found[0])])

    whole, clusters = numbers(ways), ways[cluster].unique()
    alone = len(clusters) < 2  # then there is nothing to leave out
    without = [whole if alone else numbers(ways[ways[cluster] != each]) for each in clusters]
    around = [
        left_out(each, others, level).columns().values()
        for each, others in zip(whole, np.transpose(without), strict=True)
    ]
    names = ways.layers.unique()
    changes = [[np.nan] * 3, *around[len(names) + 1 :]]  # of all layers there is none
    rows = [[name, *own, *change] for name, own, change in zip(names, around, changes, strict=False)]
    named = ["layers", "estimate", "low", "high", "change", "change_low", "change_high"]
    return pd.DataFrame(rows, columns=named)


def layer_table(
    table: pd.DataFrame, measured: pd.DataFrame, native: str, level: float = 0.95
) -> pd.DataFrame:
    """What each layer is like at each size, how it follows ln N, and whether it matters.

    Args:
        table: of `sampling.entropy_by_size`, of one rule, native size among them.
        measured: of `probes.importance`, by layer.
        native: the label of the native size.
        level: of the intervals, clustered by prompt (importance: by image).

    Returns:
        columns `layer, size, quantity, estimate, low, high, clusters`. Quantities at each size: `tokens`,
            `entropy` H, `entropy_ratio` H / ln N, `logit_std` b, `of_freezing` b / b_c, `beyond_freezing`,
            `gaussian_error`, Eq. 5 less H, and `same_keys_error`, H less the native entropy and ln(N / T),
            which is what `equal-entropy` counts on. At native size `importance`; of all sizes, `size` "all",
            the `slope` of H on ln N, where there are several.

    Raises:
        InvalidInputError: where the native size or a column is not in the table.
    """
    if native not in set(table["size"]):
        raise InvalidInputError(f"the table has no rows of native size {native}; measure it too")
    keys = ["layer", "prompt"]
    own = (
        table[table["size"] == native]
        .groupby(keys)
        .agg(own=("entropy", "mean"), own_tokens=("tokens", "first"))
    )
    table = table.join(own, on=keys)
    table = table.assign(
        of_freezing=table.logit_std / np.sqrt(2 * np.log(table.tokens)),  # b_c, as `entropy.freezing_std`
        gaussian_error=table.gaussian_entropy - table.entropy,
        same_keys_error=table.entropy - table.own - np.log(table.tokens / table.own_tokens),
    )
    parts = [
        cluster_mean(table, name, ["layer", "size"], level=level).assign(quantity=name) for name in QUANTITIES
    ]
    change = cluster_mean(measured, "change", "layer", "image", level)
    parts.append(change.assign(size=native, quantity="importance"))
    if table["size"].nunique() > 1:
        parts.append(slopes_by_layer(table, level, sides=False).assign(size="all"))
    columns = ["layer", "size", "quantity", "estimate", "low", "high", "clusters"]
    return pd.concat(parts, ignore_index=True)[columns]


def slopes_by_layer(table: pd.DataFrame, level: float = 0.95, sides: bool = True) -> pd.DataFrame:
    """Slopes of each layer's entropy on ln N and, by themselves, on ln height and ln width.

    Entropy that follows the number of tokens has three slopes of 1; entropy that follows the length of a
    border follows one side.

    Args:
        table: columns `layer, prompt, height, width, tokens, entropy`; sizes of several shapes.
        level: of the intervals, clustered by prompt.
        sides: whether to fit height and width too.

    Returns:
        columns `layer, quantity ("slope", "height" or "width"), estimate, low, high, clusters`.

    Raises:
        InvalidInputError: as `slope_on_log_tokens` and `slopes_on_sides`.
    """
    keys, rows = ["layer", "prompt", "height", "width", "tokens"], []
    means = table.groupby(keys, sort=False).entropy.mean().reset_index()
    for layer, part in means.groupby("layer", sort=False):
        fits = {"slope": slope_on_log_tokens(part, level=level).slope}
        fits |= slopes_on_sides(part, level=level) if sides else {}
        rows += [
            {"layer": layer, "quantity": name, **fit.columns(), "clusters": fit.blocks}
            for name, fit in fits.items()
        ]
    return pd.DataFrame(rows)
