"""The tables: one function each, a DataFrame in, a formatted DataFrame out.

Show one with `styled`, which adds the provenance under it; `.to_markdown()` and `.to_latex()` of the result
give the other forms.
"""

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import extra
from entropy_lib.metrics.registry import METRICS, PRIMARY, UNCOUNTED
from entropy_lib.plots.labels import COUNTS, HEADINGS, PERCENT, short_layer
from entropy_lib.plots.numbers import chance, decimals, interval, percent, side, significant
from entropy_lib.plots.sentences import sentence as sentence

with extra("notebooks"):
    from pandas.io.formats.style import Styler

CAPTION_WIDTH = 130  # letters a line: a longer one would push columns off the page
CAPTION = "caption-side: bottom; font-size: 0.8em; color: #666; text-align: left; white-space: pre; padding-top: 4px"
CELLS = "text-align: left; padding: 3px 14px 3px 0"


def styled(table: pd.DataFrame, provenance: str) -> Styler:
    """A table for a page: columns and layers in words, text to the left, no index, and underneath where its
    numbers come from.

    Names of files and columns are shown as they are: no HTML in cells, headings or caption has any effect.

    Example:
        >>> "&lt;b&gt;" in styled(pd.DataFrame({"rule": ["<b>"]}), "model mini").to_html()
        True
    """
    numbers = set(table.select_dtypes("number"))
    forms = dict.fromkeys(COUNTS & numbers, "{:,.0f}") | dict.fromkeys(
        PERCENT & numbers, lambda share: f"{100 * share:.1f} %"
    )
    if "layer" in table:
        table = table.assign(layer=table.layer.map(short_layer))
    return (
        table.rename(columns=HEADINGS)
        .style.hide(axis="index")
        .format(
            {HEADINGS.get(name, name): form for name, form in forms.items()},
            precision=3,
            thousands=",",
            escape="html",
            na_rep="–",
        )
        .format_index(escape="html", axis="columns")
        .set_caption(html.escape("\n".join(textwrap.wrap(provenance, CAPTION_WIDTH))))
        .set_table_styles([{"selector": "caption", "props": CAPTION}, {"selector": "th, td", "props": CELLS}])
    )


def entropies(measured: Mapping[tuple[str, str], pd.DataFrame], native: str) -> pd.DataFrame:
    """Mean entropy over all layers, heads, steps and branches of each probe table, by (size, rule).

    Args:
        native: the label of the native size.

    Returns:
        columns `size, rule, tokens` (of the top level), `entropy, entropy_ratio, logit_std`, and the `share`
        of the change from native to this size that the rule removes; NaN without a rule, and where there is
        no such change.
    """
    rows = []
    for (size, name), table in measured.items():
        means = {"entropy": table.entropy.mean(), "entropy_ratio": table.entropy_ratio.mean()}
        spread = (table.logit_std**2).mean() ** 0.5
        rows.append({"size": size, "rule": name, "tokens": table.tokens.max(), **means, "logit_std": spread})
    table = pd.DataFrame(rows)
    plain = table[table.rule == "unscaled"].set_index("size").entropy
    change = table["size"].map(plain) - plain.get(native, np.nan)
    removed = (table["size"].map(plain) - table.entropy) / change.where(change != 0)
    return table.assign(share=removed.where(table.rule != "unscaled"))


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Slope of entropy on ln N under each rule beside what Gaussian logits would give.

    Args:
        table: columns `rule, slope, low, high, predicted, clusters`; `predicted` is NaN where nothing is
            predicted.
    """
    found = {"above": "lies above it", "below": "lies below it", "holds": "holds it", "": "–"}
    bounds = [(row.low, row.high) for row in table.itertuples()]
    said = [found[side(*pair, expected)] for pair, expected in zip(bounds, table.predicted, strict=True)]
    expected = [f"{value:.{decimals(*pair)}f}" for value, pair in zip(table.predicted, bounds, strict=True)]
    shown = table[["rule"]].assign(
        slope=[interval(value, *pair) for value, pair in zip(table.slope, bounds, strict=True)]
    )
    shown["predicted"] = pd.Series(expected, table.index).where(table.predicted.notna(), "–")
    return shown.assign(**{"the interval": said}, prompts=table.clusters)


def means(table: pd.DataFrame, rows: str, columns: str, write: Callable[..., str] = interval) -> pd.DataFrame:
    """Means with intervals, laid out as `rows` by `columns`, both in order of appearance.

    Args:
        table: columns `estimate, low, high` (of `statistics.cluster_mean`) and those named.
        write: how a number is written: `numbers.interval` or `numbers.percent`.
    """
    text = [write(*values) for values in table[["estimate", "low", "high"]].itertuples(index=False)]
    wide = table.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return (
        wide.reindex(index=table[rows].unique(), columns=table[columns].unique())
        .rename_axis(columns=None)
        .reset_index()
    )


def preferences(table: pd.DataFrame) -> pd.DataFrame:
    """How much better the second method is (from `study.compare`), with the tests of three kinds beside it."""
    shown = [interval(*values) for values in table[["estimate", "low", "high"]].itertuples(index=False)]
    tests = {"p": "p_value", "p of the sign test": "sign_p", "p of Wilcoxon's test": "wilcoxon_p"}
    written = {heading: table[name].map("{:.3f}".format) for heading, name in tests.items()}
    return table[["size", "second", "first", "raters", "pairs"]].assign(
        **{"second less first": shown}, **written
    )


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The fraction of the entropy change that each rule removes, in per cent (from
    `statistics.fraction_removed`).
    """
    shown = [percent(*values) for values in table[["share", "low", "high"]].itertuples(index=False)]
    return table[["size", "rule"]].assign(share=shown, prompts=table.clusters)


def shares_by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """As `shares`, one row a layer and rule, each size beside what is predicted for it.

    Args:
        table: columns `layer, size, rule, share, low, high, predicted`; fractions, not per cent.
    """
    measured = table.assign(
        text=[percent(*row) for row in table[["share", "low", "high"]].itertuples(index=False)]
    )
    expected = table.assign(text=["–" if pd.isna(value) else percent(value) for value in table.predicted])
    both = pd.concat([measured, expected.assign(size=expected["size"] + ", predicted")])
    order = [f"{size}{part}" for size in table["size"].unique() for part in ("", ", predicted")]
    wide = both.pivot(index=["layer", "rule"], columns="size", values="text")
    rows = table[["layer", "rule"]].drop_duplicates().itertuples(index=False, name=None)
    return wide.reindex(index=list(rows), columns=order).rename_axis(columns=None).reset_index()


def factors(report: pd.DataFrame) -> pd.DataFrame:
    """What the patch did, one row for each number of training tokens (from `scale_report`)."""
    grouped = (
        report.groupby(["training_tokens", "tokens", "factor"], sort=False)
        .agg(layers=("layer", "size"))
        .reset_index()
    )
    return grouped.assign(factor=grouped.factor.map("{:.4f}".format)).sort_values(
        "training_tokens", ascending=False
    )


def accepted(report: Mapping[str, Mapping[str, Mapping[str, float]]]) -> pd.DataFrame:
    """How far a detector can be trusted: a row a fraction, with its interval.

    Args:
        report: {on what: {what was right: share, low, high, count}}; other entries are passed over.
    """
    every = [(where, what, value) for where, values in report.items() for what, value in values.items()]
    found = [row for row in every if isinstance(row[2], Mapping) and "share" in row[2]]
    right = [percent(value["share"], value["low"], value["high"]) for _, _, value in found]
    table = pd.DataFrame(found, columns=["on", "what", "of"]).assign(right=right)
    return table.assign(of=[int(value["count"]) for value in table.of])[["on", "what", "right", "of"]]


def metric_levels(levels: pd.DataFrame, metric: str, reference: str = "real") -> pd.DataFrame:
    """One metric of all methods, sizes as rows, methods as columns, each with its interval (the paper's
    Tables 1 and 2).

    Args:
        levels: of `sweep.reduce.Tables`.
        metric: a name of `metrics.registry.METRICS`, which says how it is shown.
        reference: "real", "native", or "prompts" for scores.
    """
    part = levels[(levels.metric == metric) & (levels.reference == reference)]
    times = METRICS[metric].times
    shown = part.assign(**{name: part[name] * times for name in ("estimate", "low", "high")})
    return means(shown, "size", "method").fillna("–")


def result(estimate: float, p_holm: float, metric: str, level: float = 0.95) -> str:
    """What a difference shows after Holm's correction: "better", "worse" or "n.s."; "more" or "less" where
    neither is better.

    Example:
        >>> result(-0.01, 0.001, "KID"), result(-0.01, 0.06, "KID")
        ('better', 'n.s.')
    """
    if not significant(p_holm, level):
        return "n.s."
    if not METRICS[metric].directed:
        return "more" if estimate > 0 else "less"
    return "better" if (estimate > 0) == METRICS[metric].higher_is_better else "worse"


def comparisons(
    differences: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS), level: float = 0.95
) -> pd.DataFrame:
    """What differences show, a line for each metric, size and method: better, worse, or no significant
    difference (n.s.).

    Interval and `p` are each by itself, without a correction; `p (Holm)`, by which the last column goes, is
    corrected for all differences that were tested together.

    Args:
        differences: columns `metric, size, estimate, low, high, p_value, p_holm`, and `method, against` where
            there are several: of `sweep.reduce.Tables`, `statistics.paired_changes`, `best_on_tuning` or
            slopes on a dose.
        metrics: which ones, as far as they are there.
        level: of the intervals.
    """
    order = [name for name in METRICS if name in metrics]
    table = differences[differences.metric.isin(order)].sort_values(
        "metric", key=lambda names: names.map(order.index), kind="stable"
    )
    times = np.array([METRICS[name].times for name in table.metric], dtype=float)
    numbers = table[["estimate", "low", "high"]].mul(times, axis="index").itertuples(index=False)
    shown = table[[name for name in ("size", "method", "against") if name in table]].copy()
    shown.insert(0, "metric", [METRICS[name].label for name in table.metric])
    shown[f"difference [{level:.0%}, unadjusted]"] = [interval(*row) for row in numbers]
    shown["p (unadjusted)"], shown["p (Holm)"] = table.p_value.map(chance), table.p_holm.map(chance)
    tested = table[["estimate", "p_holm", "metric"]].itertuples(index=False)
    shown["result (Holm)"] = [result(*row, level) for row in tested]
    if "effect" in table:
        shown["in standard deviations"] = table.effect.map("{:+.2f}".format).where(table.effect.notna(), "–")
        improved = table[["share_improved", "share_low", "share_high"]].itertuples(index=False)
        shown["prompts improved"] = ["–" if pd.isna(row[0]) else percent(*row) for row in improved]
    return shown.reset_index(drop=True)


def preregistration() -> str:
    """What was decided before anything was generated: the outcomes that tell of degradation above and below
    the native size.

    Example:
        >>> "above the native size" in preregistration()
        True
    """
    parts = []
    for side_of, names in PRIMARY.items():
        listed = [
            " and ".join(f"{name} ({METRICS[name].unit})" for name in group)
            for group in (names, UNCOUNTED[side_of])
            if group
        ]
        otherwise = f", or {listed[1]} where nothing counts things" if len(listed) > 1 else ""
        parts.append(f"{side_of} the native size: {listed[0]}{otherwise}")
    return f"Primary outcomes {'; '.join(parts)}."


def methods(levels: pd.DataFrame, costs: pd.DataFrame, size: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Every method for one size on a line: the metrics of its images, and the cost of one (Supplement Tables
    1 and 2).

    Args:
        levels: of `sweep.reduce.Tables`; where a metric has several references, the first of them that is
        there.
        costs: columns `size, method, seconds, fastest, slowest, megabytes`; a dash where a method was not
        measured.
        size: which.
        metrics: names of `metrics.registry.METRICS`, as far as they are there.
    """
    part = levels[levels["size"] == size]
    table = pd.DataFrame({"method": part.method.drop_duplicates()}).set_index("method")
    for name in (each for each in metrics if each in set(part.metric)):
        own = part[part.metric == name]
        own = own[own.reference == own.reference.iloc[0]].set_index("method")
        numbers = (own[["estimate", "low", "high"]] * METRICS[name].times).itertuples()
        table[METRICS[name].label] = pd.Series(
            {row.Index: interval(row.estimate, row.low, row.high) for row in numbers}
        )
    own = costs[costs["size"] == size].set_index("method")
    table["seconds an image"] = own.apply(
        lambda row: f"{row.seconds:.3g} ({row.fastest:.3g} to {row.slowest:.3g})", axis=1
    )
    table["MB at the peak"] = own.megabytes.map("{:,.0f}".format)
    return table.fillna("–").reset_index()


def picture_changes(images: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """How far images under each rule are from those under the first, same prompts and seeds, as fractions of
    the grey range.

    Args:
        images: {(size, rule): uint8 `[prompt, height, width, 3]`}; sizes that only one rule has are left out.

    Returns:
        columns `size, rule, against, mean_change, largest_change` (over prompts), `prompts`.
    """
    first, rows = {}, []
    for (size, name), pictures in images.items():
        against, known = first.setdefault(size, (name, pictures))
        if name != against:
            change = np.abs(pictures.astype(float) - known).mean((1, 2, 3)) / 255
            numbers = {"mean_change": change.mean(), "largest_change": change.max(), "prompts": len(change)}
            rows.append({"size": size, "rule": name, "against": against, **numbers})
    return pd.DataFrame(rows, columns=["size", "rule", "against", "mean_change", "largest_change", "prompts"])
