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
from entropy_lib.plots.sentences import three_means as three_means

with extra("notebooks"):
    from pandas.io.formats.style import Styler

CAPTION_WIDTH = 130  # letters a line: a longer one would push columns off the page
LEFT = "text-align: left; "
CAPTION = f"{LEFT}caption-side: bottom; font-size: 0.8em; color: #666; white-space: pre; padding-top: 4px"
CELLS = f"{LEFT}padding: 3px 14px 3px 0"


def styled(table: pd.DataFrame, provenance: str) -> Styler:
    """A table for a page: columns and layers in words, and underneath where its numbers come from.

    Names of files and columns are shown as they are: no HTML in cells, headings or caption has any effect.

    Example:
        >>> "&lt;b&gt;" in styled(pd.DataFrame({"rule": ["<b>"]}), "model mini").to_html()
        True
    """
    numbers = set(table.select_dtypes("number"))
    forms = dict.fromkeys(COUNTS & numbers, "{:,.0f}")
    forms |= dict.fromkeys(PERCENT & numbers, lambda share: f"{100 * share:.1f} %")
    forms = {HEADINGS.get(name, name): form for name, form in forms.items()}
    if "layer" in table:
        table = table.assign(layer=table.layer.map(short_layer))
    shown = table.rename(columns=HEADINGS).style.hide(axis="index")
    shown = shown.format(forms, precision=3, thousands=",", escape="html", na_rep="–")
    shown = shown.format_index(escape="html", axis="columns")
    shown = shown.set_caption(html.escape("\n".join(textwrap.wrap(provenance, CAPTION_WIDTH))))
    looks = {"caption": CAPTION, "th, td": CELLS}
    return shown.set_table_styles([{"selector": tag, "props": look} for tag, look in looks.items()])


def _written(
    table: pd.DataFrame, value: str = "estimate", write: Callable[..., str] = interval, times: float = 1
) -> list[str]:
    """A column with its interval, `low` to `high`, row by row; a dash where there is no value."""
    numbers = (table[[value, "low", "high"]] * times).itertuples(index=False, name=None)
    return ["–" if pd.isna(row[0]) else write(*row) for row in numbers]


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
    rows = list(table[["low", "high", "predicted"]].itertuples(index=False, name=None))
    expected = ["–" if pd.isna(row[2]) else f"{row[2]:.{decimals(*row[:2])}f}" for row in rows]
    shown = table[["rule"]].assign(slope=_written(table, "slope"), predicted=expected)
    return shown.assign(**{"the interval": [found[side(*row)] for row in rows]}, prompts=table.clusters)


def means(table: pd.DataFrame, rows: str, columns: str, write: Callable[..., str] = interval) -> pd.DataFrame:
    """Means with intervals, laid out as `rows` by `columns`, both in order of appearance.

    Args:
        table: columns `estimate, low, high` (of `statistics.cluster_mean`) and those named.
        write: how a number is written: `numbers.interval` or `numbers.percent`.
    """
    return _wide(table.assign(text=_written(table, write=write)), [rows], columns, table[columns].unique())


def _wide(table: pd.DataFrame, rows: list[str], columns: str, order: Sequence[str]) -> pd.DataFrame:
    """The column `text`, laid out; rows in order of appearance."""
    wide = table.pivot(index=rows, columns=columns, values="text")
    names = table[rows].drop_duplicates()
    index = pd.MultiIndex.from_frame(names) if len(rows) > 1 else pd.Index(names[rows[0]])
    return wide.reindex(index=index, columns=order).rename_axis(columns=None).reset_index()


def preferences(table: pd.DataFrame) -> pd.DataFrame:
    """How much better the second method is (from `study.compare`), with tests of three kinds beside it."""
    shown = table[["size", "second", "first", "raters", "pairs"]].copy()
    shown["second less first"] = _written(table)
    tests = {"p": "p_value", "p of the sign test": "sign_p", "p of Wilcoxon's test": "wilcoxon_p"}
    return shown.assign(**{heading: table[name].map("{:.3f}".format) for heading, name in tests.items()})


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The fraction of the entropy change that each rule removes, of `statistics.fraction_removed`."""
    return table[["size", "rule"]].assign(share=_written(table, "share", percent), prompts=table.clusters)


def shares_by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """As `shares`, one row a layer and rule, each size beside what is predicted for it.

    Args:
        table: columns `layer, size, rule, share, low, high, predicted`; fractions, not per cent.
    """
    measured = table.assign(text=_written(table, "share", percent))
    expected = table.assign(text=["–" if pd.isna(value) else percent(value) for value in table.predicted])
    both = pd.concat([measured, expected.assign(size=expected["size"] + ", predicted")])
    order = [f"{size}{part}" for size in table["size"].unique() for part in ("", ", predicted")]
    return _wide(both, ["layer", "rule"], "size", order)


def factors(report: pd.DataFrame) -> pd.DataFrame:
    """What the patch did, one row for each number of training tokens (from `scale_report`)."""
    grouped = report.groupby(["training_tokens", "tokens", "factor"], sort=False)
    table = grouped.agg(layers=("layer", "size")).reset_index()
    table = table.assign(factor=table.factor.map("{:.4f}".format))
    return table.sort_values("training_tokens", ascending=False)


def accepted(report: Mapping[str, Mapping[str, Mapping[str, float]]]) -> pd.DataFrame:
    """How far a detector can be trusted: a row a fraction, with its interval.

    Args:
        report: {on what: {what was right: share, low, high, count}}; other entries are passed over.
    """
    found = [
        (where, what, percent(value["share"], value["low"], value["high"]), int(value["count"]))
        for where, values in report.items()
        for what, value in values.items()
        if isinstance(value, Mapping) and "share" in value
    ]
    return pd.DataFrame(found, columns=["on", "what", "right", "of"])


def metric_levels(levels: pd.DataFrame, metric: str, reference: str = "real") -> pd.DataFrame:
    """One metric, sizes as rows, methods as columns, each with its interval (the paper's Tables 1, 2).

    Args:
        levels: of `sweep.reduce.Tables`.
        metric: a name of `metrics.registry.METRICS`, which says how it is shown.
        reference: "real", "native", or "prompts" for scores.
    """
    part = levels[(levels.metric == metric) & (levels.reference == reference)]
    shown = part.assign(text=_written(part, times=METRICS[metric].times))
    return _wide(shown, ["size"], "method", shown.method.unique()).fillna("–")


def result(estimate: float, p_holm: float, metric: str, level: float = 0.95) -> str:
    """What a difference shows after Holm's correction: better, worse, n.s.; or more, less, if undirected.

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
    """What differences show, a line for each metric, size and method: better, worse, or n.s.

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
    table = differences[differences.metric.isin(order)]
    table = table.sort_values("metric", key=lambda names: names.map(order.index), kind="stable")
    times = np.array([METRICS[name].times for name in table.metric], dtype=float)
    shown = table[[name for name in ("size", "method", "against") if name in table]].copy()
    shown.insert(0, "metric", [METRICS[name].label for name in table.metric])
    numbers = table[["estimate", "low", "high"]].mul(times, axis="index")
    shown[f"difference [{level:.0%}, unadjusted]"] = _written(numbers)
    shown["p (unadjusted)"], shown["p (Holm)"] = table.p_value.map(chance), table.p_holm.map(chance)
    tested = table[["estimate", "p_holm", "metric"]].itertuples(index=False)
    shown["result (Holm)"] = [result(*row, level) for row in tested]
    if "effect" in table:
        shown["in standard deviations"] = table.effect.map("{:+.2f}".format).where(table.effect.notna(), "–")
        named = {"share_improved": "share", "share_low": "low", "share_high": "high"}
        improved = table[list(named)].rename(columns=named)
        shown["prompts improved"] = _written(improved, "share", percent)
    return shown.reset_index(drop=True)


def preregistration() -> str:
    """The outcomes that tell of degradation above and below native size, decided before any image was.

    Example:
        >>> "above the native size" in preregistration()
        True
    """
    parts = []
    for side_of, primary in PRIMARY.items():
        counted, uncounted = (
            " and ".join(f"{name} ({METRICS[name].unit})" for name in names)
            for names in (primary, UNCOUNTED[side_of])
        )
        otherwise = f", or {uncounted} where nothing counts things" if uncounted else ""
        parts.append(f"{side_of} the native size: {counted}{otherwise}")
    return f"Primary outcomes {'; '.join(parts)}."


def methods(levels: pd.DataFrame, costs: pd.DataFrame, size: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Every method for one size on a line: metrics of its images, cost of one (Supplement Tables 1, 2).

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
        own = own[own.reference == own.reference.iloc[0]]
        table[METRICS[name].label] = pd.Series(_written(own, times=METRICS[name].times), own.method)
    own = costs[costs["size"] == size].set_index("method")
    times = [
        f"{row.seconds:.3g} ({row.fastest:.3g} to {row.slowest:.3g})" for row in own.itertuples(index=False)
    ]
    table["seconds an image"] = pd.Series(times, own.index, dtype=object)
    table["MB at the peak"] = own.megabytes.map("{:,.0f}".format)
    return table.fillna("–").reset_index()


def image_changes(images: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """How far images by each method are from those by the first, as fractions of the grey range.

    Args:
        images: {(size, method): uint8 `[prompt, height, width, 3]`}; sizes of one method are left out.

    Returns:
        columns `size, method, against, mean_change, largest_change` (over prompts), `prompts`.
    """
    first, rows = {}, []
    for (size, name), shown in images.items():
        against, known = first.setdefault(size, (name, shown))
        if name != against:
            change = np.abs(shown.astype(float) - known).mean((1, 2, 3)) / 255
            numbers = {"mean_change": change.mean(), "largest_change": change.max(), "prompts": len(change)}
            rows.append({"size": size, "method": name, "against": against, **numbers})
    return pd.DataFrame(
        rows, columns=["size", "method", "against", "mean_change", "largest_change", "prompts"]
    )
