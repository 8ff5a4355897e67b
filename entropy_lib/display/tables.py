"""The tables: one function each, a DataFrame in, a formatted DataFrame out.

Show one with `styled`, which adds the provenance under it; `.to_markdown()` and `.to_latex()` of the result give the
other forms.
"""

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.display.labels import COUNTS, HEADINGS, PERCENT, short_layer
from entropy_lib.display.numbers import decimals, interval, percent, side
from entropy_lib.display.verdicts import metric_word
from entropy_lib.errors import extra
from entropy_lib.metrics.catalogue import METRICS

with extra("notebooks"):
    from pandas.io.formats.style import Styler

CAPTION_WIDTH = 130  # letters a line: a longer one would push columns off the page
CAPTION = "caption-side: bottom; font-size: 0.8em; color: #666; text-align: left; white-space: pre; padding-top: 4px"
CELLS = "text-align: left; padding: 3px 14px 3px 0"


def styled(table: pd.DataFrame, provenance: str) -> Styler:
    """A table for a page: columns and layers in words, text to the left, no index, and underneath where its numbers come from.

    Names of files and columns are shown as they are: no HTML in cells, headings or caption has any effect.

    Example:
        >>> "&lt;b&gt;" in styled(pd.DataFrame({"rule": ["<b>"]}), "model mini").to_html()
        True
    """
    numbers = set(table.select_dtypes("number"))
    forms = dict.fromkeys(COUNTS & numbers, "{:,.0f}") | dict.fromkeys(PERCENT & numbers, lambda share: f"{100 * share:.1f} %")
    if "layer" in table:
        table = table.assign(layer=table.layer.map(short_layer))
    return (
        table.rename(columns=HEADINGS)
        .style.hide(axis="index")
        .format({HEADINGS.get(name, name): form for name, form in forms.items()}, precision=3, thousands=",", escape="html")
        .format_index(escape="html", axis="columns")
        .set_caption(html.escape("\n".join(textwrap.wrap(provenance, CAPTION_WIDTH))))
        .set_table_styles([{"selector": "caption", "props": CAPTION}, {"selector": "th, td", "props": CELLS}])
    )


def entropies(measured: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Mean entropy over all layers, heads, steps and branches of each probe table, by (size, rule).

    Returns:
        columns `size, rule, tokens` (of the top level), `entropy, entropy_ratio, logit_std`.
    """
    rows = [
        {
            "size": size,
            "rule": name,
            "tokens": table.tokens.max(),
            "entropy": table.entropy.mean(),
            "entropy_ratio": table.entropy_ratio.mean(),
            "logit_std": (table.logit_std**2).mean() ** 0.5,
        }
        for (size, name), table in measured.items()
    ]
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Slope of entropy on ln N under each rule beside what Gaussian logits would give.

    Args:
        table: columns `rule, slope, low, high, predicted, clusters`; `predicted` is NaN where nothing is predicted.
    """
    found = {"above": "lies above it", "below": "lies below it", "holds": "holds it", "": "–"}
    rows = [
        {
            "rule": row.rule,
            "slope": interval(row.slope, row.low, row.high),
            "predicted": "–" if pd.isna(row.predicted) else f"{row.predicted:.{decimals(row.low, row.high)}f}",
            "the interval": found[side(row.low, row.high, row.predicted)],
            "prompts": row.clusters,
        }
        for row in table.itertuples()
    ]
    return pd.DataFrame(rows)


def means(table: pd.DataFrame, rows: str, columns: str, write: Callable[..., str] = interval) -> pd.DataFrame:
    """Means with intervals, laid out as `rows` by `columns`, both in order of appearance.

    Args:
        table: columns `estimate, low, high` (of `statistics.cluster_mean`) and those named.
        write: how a number is written: `numbers.interval` or `numbers.percent`.
    """
    text = [write(*values) for values in table[["estimate", "low", "high"]].itertuples(index=False)]
    wide = table.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return wide.reindex(index=table[rows].unique(), columns=table[columns].unique()).rename_axis(columns=None).reset_index()


def preferences(table: pd.DataFrame) -> pd.DataFrame:
    """How much better the second method is (from `study.compare`), with the tests of three kinds beside it."""
    shown = [interval(*values) for values in table[["estimate", "low", "high"]].itertuples(index=False)]
    tests = {"p": "p_value", "p of the sign test": "sign_p", "p of Wilcoxon's test": "wilcoxon_p"}
    written = {heading: table[name].map("{:.3f}".format) for heading, name in tests.items()}
    return table[["size", "second", "first", "raters", "pairs"]].assign(**{"second less first": shown}, **written)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The share of the entropy change that each rule removes, in per cent (from `statistics.share_removed`)."""
    shown = [percent(*values) for values in table[["share", "low", "high"]].itertuples(index=False)]
    return table[["size", "rule"]].assign(share=shown, prompts=table.clusters)


def shares_by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """As `shares`, one row a layer and rule, each size beside what is predicted for it.

    Args:
        table: columns `layer, size, rule, share, low, high, predicted`; shares, not per cent.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.itertuples():
        cells = rows.setdefault((row.layer, row.rule), {"layer": row.layer, "rule": row.rule})
        cells[row.size] = percent(row.share, row.low, row.high)
        cells[f"{row.size}, predicted"] = "–" if pd.isna(row.predicted) else percent(row.predicted)
    return pd.DataFrame(rows.values())


def factors(report: pd.DataFrame) -> pd.DataFrame:
    """What the patch did, one row for each number of training tokens (from `scale_report`)."""
    grouped = report.groupby(["training_tokens", "tokens", "factor"], sort=False).agg(layers=("layer", "size")).reset_index()
    return grouped.assign(factor=grouped.factor.map("{:.4f}".format)).sort_values("training_tokens", ascending=False)


def accepted(report: Mapping[str, Mapping[str, Mapping[str, float]]]) -> pd.DataFrame:
    """How far a detector can be trusted: one row a share, with its interval.

    Args:
        report: {on what: {what was right: share, low, high, count}}, as `mini.acceptance` writes it.
    """
    rows = [
        {"on": where, "what": what, "right": percent(value["share"], value["low"], value["high"]), "of": int(value["count"])}
        for where, values in report.items()
        for what, value in values.items()
        if isinstance(value, Mapping) and "share" in value
    ]
    return pd.DataFrame(rows)


def metric_levels(levels: pd.DataFrame, metric: str, reference: str = "real") -> pd.DataFrame:
    """One metric of all methods, sizes as rows, methods as columns, each with its interval (the paper's Tables 1 and 2).

    Args:
        levels: of `sweep.reduce.Tables`.
        metric: a name of `metrics.catalogue.METRICS`, which says how it is shown.
        reference: "real", "native", or "prompts" for scores.
    """
    part = levels[(levels.metric == metric) & (levels.reference == reference)]
    times = METRICS[metric].times
    shown = part.assign(**{name: part[name] * times for name in ("estimate", "low", "high")})
    return means(shown, "size", "method").fillna("–")


def metric_differences(differences: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric's paired differences: with interval, Holm-corrected p-value and, for scores, effect and share improved.

    Args:
        differences: of `sweep.reduce.Tables`.
        metric: as for `metric_levels`.
    """
    part, times = differences[differences.metric == metric], METRICS[metric].times
    numbers = part[["estimate", "low", "high"]] * times
    heading = "difference" if times == 1 else f"difference x {times}"
    table = part[["size", "rule"]].assign(**{heading: [interval(*row) for row in numbers.itertuples(index=False)]})
    table["p (Holm)"] = part.p_holm.map("{:.2g}".format)
    if part.get("effect") is not None and part.effect.notna().any():
        table["in standard deviations"] = part.effect.map("{:+.2f}".format)
        shares = part[["share_improved", "share_low", "share_high"]]
        table["prompts improved"] = [percent(*row) for row in shares.itertuples(index=False)]
    return table.assign(pairs=part.pairs)


def metric_verdicts(differences: pd.DataFrame, level: float) -> pd.DataFrame:
    """In a word, what each rule does at each size: better, worse, or no difference shown, after Holm's correction.

    Args:
        differences: of `sweep.reduce.Tables`.
        level: one minus the largest p-value that counts.
    """
    chosen = differences[differences.metric.isin(METRICS)]
    columns = chosen[["estimate", "p_holm", "metric"]]
    word = [metric_word(*row, level) for row in columns.itertuples(index=False)]
    wide = chosen.assign(word=word).pivot(index=["size", "rule"], columns="metric", values="word")
    order = list(dict.fromkeys(zip(chosen["size"], chosen.rule, strict=True)))
    return wide.reindex(index=order, columns=[name for name in METRICS if name in wide]).rename_axis(columns=None).reset_index()


def methods(levels: pd.DataFrame, costs: pd.DataFrame, size: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Every way to one size on a line: what its pictures are worth, and what one of them costs (Supplement Tables 1 and 2).

    Args:
        levels: of `sweep.reduce.Tables`; where a metric has several references, the first of them that is there.
        costs: columns `size, method, seconds, fastest, slowest, megabytes`; a dash where a method was not measured.
        size: which.
        metrics: names of `metrics.catalogue.METRICS`, as far as they are there.
    """
    part = levels[levels["size"] == size]
    table = pd.DataFrame({"method": part.method.drop_duplicates()}).set_index("method")
    for name in (each for each in metrics if each in set(part.metric)):
        own = part[part.metric == name]
        own = own[own.reference == own.reference.iloc[0]].set_index("method")
        numbers = (own[["estimate", "low", "high"]] * METRICS[name].times).itertuples()
        table[METRICS[name].label] = pd.Series({row.Index: interval(row.estimate, row.low, row.high) for row in numbers})
    own = costs[costs["size"] == size].set_index("method")
    table["seconds a picture"] = own.apply(lambda row: f"{row.seconds:.3g} ({row.fastest:.3g} to {row.slowest:.3g})", axis=1)
    table["MB at the peak"] = own.megabytes.map("{:,.0f}".format)
    return table.fillna("–").reset_index()


def eq5_by_layer(layers: pd.DataFrame) -> pd.DataFrame:
    """How Eq. 5 does in each layer (from `attention.by_layer`), in nats."""
    table = layers.reset_index()
    return pd.DataFrame(
        {
            "layer": table.layer,
            "N": table.tokens.astype(int),
            "b": table.logit_std.map("{:.2f}".format),
            "mean abs. error": table.absolute_error.map("{:.3f}".format),
            "too few tokens": table.finite_tokens.map("{:+.3f}".format),
            "rows differ": table.row_spread.map("{:+.3f}".format),
            "not Gaussian": table.non_gaussian.map("{:+.3f}".format),
            "-κ3/3 - κ4/8": table.cumulants.map("{:+.3f}".format),
            "unexplained": table.unexplained.map("{:.3f}".format),
            "b > b_c/2": table.beyond_half_freezing.map("{:.0%}".format),
            "Eq. 5 within the tolerance": table.verdict,
        }
    )


def picture_changes(images: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """How far pictures under each rule are from those under the first one, same prompts and seeds, as shares of the grey range.

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
