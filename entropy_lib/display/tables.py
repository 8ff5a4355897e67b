"""The tables: one function each, a DataFrame in, a formatted DataFrame out.

Show one with `styled`, which adds the provenance under it; `.to_markdown()` and `.to_latex()` of the result give the
other forms.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from entropy_lib.display.labels import HIGHER_IS_BETTER, SHOWN_TIMES, short_layer
from entropy_lib.statistics.fits import SlopeFit

CAPTION_WIDTH = 130  # letters a line: a longer one would push columns off the page
CAPTION = "caption-side: bottom; font-size: 0.8em; color: #666; text-align: left; white-space: pre; padding-top: 4px"
CELLS = "text-align: left; padding: 3px 14px 3px 0"


def styled(table: pd.DataFrame, provenance: str) -> Styler:
    """A table for a page: left-aligned text, no index, and where its numbers come from underneath."""
    return (
        table.style.hide(axis="index")
        .format(precision=3)
        .set_caption("\n".join(textwrap.wrap(provenance, CAPTION_WIDTH)))
        .set_table_styles([{"selector": "caption", "props": CAPTION}, {"selector": "th, td", "props": CELLS}])
    )


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A value with its interval: "0.95 [0.93, 0.97]"; without limits, the value alone.

    Example:
        >>> interval(0.951, 0.93, 0.972, 2)
        '0.95 [0.93, 0.97]'
    """
    text = f"{value:.{digits}f}"
    return text if pd.isna(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def entropies(measured: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Mean entropy over all layers, heads, steps and branches of each probe table, by (size, rule)."""
    rows = [
        {
            "size": size,
            "rule": name,
            "tokens at the top level": table.tokens.max(),
            "entropy H": table.entropy.mean(),
            "H / ln N": table.entropy_ratio.mean(),
            "logit_std b": (table.logit_std**2).mean() ** 0.5,
        }
        for (size, name), table in measured.items()
    ]
    return pd.DataFrame(rows)


def slopes(fits: Mapping[str, SlopeFit], predicted: Mapping[str, float]) -> pd.DataFrame:
    """Slope of entropy on ln N for each rule beside what Eq. 5 predicts for it, and whether the interval holds 1."""
    rows = [
        {
            "rule": name,
            "slope": interval(fit.slope, fit.low, fit.high),
            "predicted": f"{predicted[name]:.3f}" if name in predicted else "–",
            "interval holds 1": "yes" if fit.low <= 1 <= fit.high else "no",
            "prompts": fit.clusters,
        }
        for name, fit in fits.items()
    ]
    return pd.DataFrame(rows)


def means(table: pd.DataFrame, rows: str, columns: str, digits: int = 2) -> pd.DataFrame:
    """Means with intervals, laid out as `rows` by `columns`, both in order of appearance.

    Args:
        table: columns `mean, low, high` (of `statistics.cluster_mean`) and those named.
    """
    text = [interval(*values, digits) for values in table[["mean", "low", "high"]].itertuples(index=False)]
    wide = table.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return wide.reindex(index=table[rows].unique(), columns=table[columns].unique()).rename_axis(columns=None).reset_index()


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The share of the entropy change that each rule removes, in percent (from `statistics.share_removed`)."""
    percent = [f"{interval(*(100 * pd.Series(values)), 1)} %" for values in table[["share", "low", "high"]].itertuples(index=False)]
    return table[["size", "rule"]].assign(**{"share of the change removed": percent, "prompts": table.clusters})


def factors(report: pd.DataFrame) -> pd.DataFrame:
    """What the patch did, one row for each number of training tokens (from `scale_report`)."""
    grouped = report.groupby(["training_tokens", "tokens", "factor"], sort=False).agg(layers=("layer", "size")).reset_index()
    return grouped.assign(factor=grouped.factor.map("{:.4f}".format)).sort_values("training_tokens", ascending=False)


def metric_levels(levels: pd.DataFrame, metric: str, reference: str = "real", digits: int = 2) -> pd.DataFrame:
    """One metric of all methods, sizes as rows, methods as columns, each with its interval (the paper's Tables 1 and 2).

    Args:
        levels: of `sweep.reduce.Tables`.
        metric: "FD", "KID", "CMMD" or "CLIP score"; KID and CMMD are shown times 1000.
        reference: "real", "native", or "prompts" for the CLIP score.
    """
    part = levels[(levels.metric == metric) & (levels.reference == reference)]
    times = SHOWN_TIMES.get(metric, 1)
    shown = part.assign(**{name: part[own] * times for name, own in (("mean", "estimate"), ("low", "low"), ("high", "high"))})
    return means(shown, "size", "method", digits).fillna("–")


def metric_differences(differences: pd.DataFrame, metric: str, digits: int = 2) -> pd.DataFrame:
    """One metric's paired differences: with interval, Holm-corrected p-value and, for scores, effect and share improved.

    Args:
        differences: of `sweep.reduce.Tables`.
        metric: as for `metric_levels`.
    """
    part, times = differences[differences.metric == metric], SHOWN_TIMES.get(metric, 1)
    numbers = part[["estimate", "low", "high"]] * times
    table = part[["size", "rule"]].assign(difference=[interval(*row, digits) for row in numbers.itertuples(index=False)])
    table["p (Holm)"] = part.p_holm.map("{:.2g}".format)
    if part.get("effect") is not None and part.effect.notna().any():
        table["in standard deviations"] = part.effect.map("{:+.2f}".format)
        shares = part[["share_improved", "share_low", "share_high"]] * 100
        table["prompts improved, %"] = [interval(*row, 0) for row in shares.itertuples(index=False)]
    return table.assign(pairs=part.pairs)


def metric_verdicts(differences: pd.DataFrame, metrics: Sequence[str], level: float) -> pd.DataFrame:
    """In a word, what each rule does at each size: better, worse, or no difference shown, after Holm's correction.

    Args:
        differences: of `sweep.reduce.Tables`.
        metrics: columns, in this order.
        level: one minus the largest p-value that counts.
    """
    chosen = differences[differences.metric.isin(metrics)]
    up = chosen.metric.map(HIGHER_IS_BETTER)
    word = pd.Series("no difference shown", chosen.index).where(
        chosen.p_holm > 1 - level, np.where((chosen.estimate > 0) == up, "better", "worse")
    )
    wide = chosen.assign(word=word).pivot(index=["size", "rule"], columns="metric", values="word")
    order = list(dict.fromkeys(zip(chosen["size"], chosen.rule, strict=True)))
    return wide.reindex(index=order, columns=[m for m in metrics if m in wide]).rename_axis(columns=None).reset_index()


def verdicts(layers: pd.DataFrame) -> pd.DataFrame:
    """How Eq. 5 does in each layer (from `attention.by_layer`), in nats."""
    table = layers.reset_index()
    return pd.DataFrame(
        {
            "layer": table.layer.map(short_layer),
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
