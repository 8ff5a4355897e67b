"""Does a change of a mediator tell that of an outcome, and is the best method still the best?"""

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics.interval import Interval, check_level


def paired_change(table: pd.DataFrame, method: str, against: str, level: float = 0.95) -> Interval:
    """Mean difference of an outcome under two rules, the same prompts and seeds; prompts are the samples.

    Args:
        table: columns `prompt, seed, method, value`, of one size and metric. Pairs of which one is NaN are
        left out.
        method, against: which two.
        level: of the t interval.

    Example:
        >>> changes = {"unscaled": 0, "paper": -1}
        >>> rows = [(p, 0, method, p + change) for p in range(4) for method, change in changes.items()]
        >>> table = pd.DataFrame(rows, columns=["prompt", "seed", "method", "value"])
        >>> print(paired_change(table, "paper", "unscaled"))
        -1 [-1, -1]
    """
    check_level(level)
    wide = table.pivot_table(index=["prompt", "seed"], columns="method", values="value", sort=False)
    if missing := [name for name in (method, against) if name not in wide]:
        raise InvalidInputError(f"the table has no method {missing[0]!r}; it has {', '.join(map(str, wide))}")
    change = (wide[method] - wide[against]).dropna().groupby(level="prompt").mean()
    return Interval.around(change.mean(), change.sem(), level, len(change))


def paired_changes(table: pd.DataFrame, against: str = "unscaled", level: float = 0.95) -> pd.DataFrame:
    """`paired_change` of every method against one, by size and metric, corrected by Holm over all.

    Args:
        table: columns `size, metric, prompt, seed, method, value`.
        against: the method to compare with, present at every size.
        level: of the t intervals.

    Returns:
        one row for each size, metric and method, with its names, `estimate, low, high, p_value, p_holm`.
    """
    rows = []
    for (size, metric), part in table.groupby(["size", "metric"], sort=False):
        for name in part.method.drop_duplicates():
            if name != against:
                change = paired_change(part, name, against, level)
                rows.append((size, metric, name, *change.columns().values(), change.p_value))
    names = ["size", "metric", "method", "estimate", "low", "high", "p_value"]
    return holm(pd.DataFrame(rows, columns=names))


def best_on_tuning(
    table: pd.DataFrame,
    tuning: list[str],
    higher_is_better: bool,
    level: float = 0.95,
    against: tuple[str, ...] = ("unscaled",),
) -> pd.DataFrame:
    """Choose the best method by its mean on some prompts, and compare it on the others.

    Args:
        table: columns `prompt, seed, method, value`, of one size and metric.
        tuning: prompts to choose by; the rest is held out.
        higher_is_better: of the outcome.
        level: of the intervals.
        against: methods to compare with; where the choice is that method itself there is no row.

    Returns:
        one row for each of `against`: `method, against, tuned, estimate, low, high, p_value, prompts`;
        `tuned` is the difference on the tuning prompts, which is too good to be true.
    """
    chosen_by = table["prompt"].isin(tuning)
    if chosen_by.all() or not chosen_by.any():
        raise InvalidInputError(
            f"{len(set(tuning))} tuning prompts leave none to choose by, or none to hold out"
        )
    means = table[chosen_by].groupby("method", sort=False).value.mean()
    best = means.idxmax() if higher_is_better else means.idxmin()
    rows = []
    for other in (each for each in against if each != best):
        tuned, held_out = (paired_change(table[part], best, other, level) for part in (chosen_by, ~chosen_by))
        rows.append(
            (best, other, tuned.estimate, *held_out.columns().values(), held_out.p_value, held_out.blocks)
        )
    return pd.DataFrame(
        rows, columns=["method", "against", "tuned", "estimate", "low", "high", "p_value", "prompts"]
    )


def dose_slope(table: pd.DataFrame, level: float = 0.95) -> Interval:
    """The change of an outcome for one unit of dose: a mean over prompts of least-squares slopes.

    Args:
        table: columns `prompt, dose, value`, every dose for each prompt. NaN are left out.
        level: of the t interval over prompts.

    Example:
        >>> rows = [(p, dose, 10 * p - 2 * dose) for p in range(4) for dose in (-1, 0, 1)]
        >>> print(dose_slope(pd.DataFrame(rows, columns=["prompt", "dose", "value"])))
        -2 [-2, -2]
    """
    means = table.dropna(subset=["value"]).groupby(["prompt", "dose"]).value.mean().unstack().dropna()
    doses = means.columns.to_numpy(dtype=float)
    if len(doses) < 2:
        raise InvalidInputError(
            f"a slope needs two doses at least; the table has {len(doses)} that every prompt was given"
        )
    away = doses - doses.mean()
    slopes = pd.Series(means.to_numpy() @ away / (away @ away))
    return Interval.around(slopes.mean(), slopes.sem(), level, len(slopes))


def dose_slopes(table: pd.DataFrame, by: list[str], level: float = 0.95) -> pd.DataFrame:
    """`dose_slope` in each group of `by`; a correction over all of them.

    Args:
        table: as for `dose_slope`, with the columns of `by`.

    Returns:
        columns of `by`, then `estimate, low, high, p_value, p_holm`.
    """
    rows = []
    for key, part in table.groupby(by, sort=False):
        slope = dose_slope(part, level)
        rows.append(dict(zip(by, key, strict=True)) | slope.columns() | {"p_value": slope.p_value})
    return holm(pd.DataFrame(rows))


def holm(table: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """A table with p-values corrected for how many there are, in `p_holm` (Holm 1979).

    Args:
        table: with a column `p_value`; it may be empty.
        by: columns whose values are corrected apart; None corrects over the whole table.

    Example:
        >>> holm(pd.DataFrame({"p_value": [0.01, 0.04]})).p_holm.round(3).tolist()
        [0.02, 0.04]
    """
    if table.empty:
        return table.assign(p_holm=pd.Series(dtype=float))
    groups = [0] * len(table) if by is None else [table[name] for name in by]
    return table.assign(p_holm=table.p_value.groupby(groups, sort=False).transform(_corrected))


def _corrected(values: pd.Series) -> pd.Series:
    """By Holm; statsmodels' `multipletests` does the same and collects garbage each time, for a second."""
    ordered = values.sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)[values.index]


def rank_correlation(first: pd.Series, second: pd.Series) -> tuple[float, float]:
    """Spearman's correlation of two shares, and its two-sided p-value, exact for few; NaN below 4.

    Example:
        >>> rank_correlation(pd.Series([1, 2, 3, 4]), pd.Series([10, 20, 30, 40]))[0]
        1.0
    """
    from scipy import stats

    whole = pd.DataFrame({"first": first.to_numpy(), "second": second.to_numpy()}).dropna()
    if len(whole) < 4 or min(whole.nunique()) < 2:
        return np.nan, np.nan

    def statistic(values: np.ndarray) -> float:
        return stats.spearmanr(values, whole.second).statistic

    orders = np.inf if len(whole) <= 8 else 9999
    values = whole["first"].to_numpy()
    tested = stats.permutation_test(
        (values,), statistic, permutation_type="pairings", n_resamples=orders, rng=0
    )
    return float(tested.statistic), float(tested.pvalue)
