"""Figures of metrics and of what raters prefer: against size and time, differences, doses, recovery."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import extra
from entropy_lib.metrics.registry import METRICS
from entropy_lib.plots.figures.panels import (
    PALETTE,
    colours,
    difference_lines,
    errors_of,
    interval_line,
    label_points,
    looks_of,
    panels_of,
)

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

POINT = {"ms": 6, "capsize": 2, "elinewidth": 1}


def forest(
    differences: pd.DataFrame,
    metrics: Sequence[str] = tuple(METRICS),
    against: str = "",
    panels: Sequence[str] = ("metric",),
) -> Figure:
    """Paired differences, their intervals unadjusted, a line a size and method; the better side is tinted.

    Args:
        differences: columns `size, method, metric, estimate, low, high`, and `against` unless that is given:
            of `sweep.reduce.Tables` or `statistics.paired_changes`.
        metrics: which ones, as far as they are there.
        against: what methods are compared with, in words.
        panels: "metric", or "metric" and "size" for many methods: the columns that have a panel for each of
            their values.
    """
    table = differences[differences.metric.isin(metrics)]
    palette, names = colours(table.method), table.method.to_list()
    if "size" not in panels:
        names = list(table["size"] if len(palette) == 1 else table["size"] + " " + table.method)
    table = table.assign(line=names)
    lines = table.drop_duplicates("line").set_index("line").method.map(palette)
    cells = sorted(table.groupby(list(panels), sort=False), key=lambda cell: list(metrics).index(cell[0][0]))
    figure, axes = panels_of(len(cells), 3.3, 0.3 * len(lines) + 1.2, sharey=True)
    for ax, (key, part) in zip(axes, cells, strict=True):
        difference_lines(ax, part.set_index("line").reindex(lines.index), key[0], list(lines))
        ax.set_title(" at ".join(key) if len(key) > 1 else METRICS[key[0]].title)
        ax.set_yticks(range(len(lines)), lines.index, fontsize="small")
    first = next(iter(palette)) if len(palette) == 1 else "each method"
    other = against or table.against.iloc[0]
    figure.supxlabel(f"{first} less {other}, same prompts and noise", fontsize="medium")
    return figure


def metrics_by_size(levels: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS)) -> Figure:
    """All methods at all sizes, with intervals, a panel for each metric.

    Args:
        levels: of `sweep.reduce.Tables`, of one reference: columns `size, method, metric, estimate, low,
        high`.
        metrics: names of `metrics.registry.METRICS`, as far as they are there.
    """
    metrics = [name for name in metrics if (levels.metric == name).any()]
    figure, axes = panels_of(len(metrics), 4.4, 3.4)
    looks = looks_of(levels[levels.metric.isin(metrics)].method)
    for ax, metric in zip(axes, metrics, strict=True):
        part, times = levels[levels.metric == metric], METRICS[metric].times
        sizes = list(dict.fromkeys(part["size"]))
        for offset, (name, look) in enumerate(looks.items()):
            own = part[part.method == name].set_index("size").reindex(sizes)
            place = np.arange(len(sizes)) + 0.12 * (offset - (len(looks) - 1) / 2)
            style = {"ms": 6, "capsize": 3, "label": name, **look}
            ax.errorbar(place, times * own.estimate, yerr=errors_of(own, times), **style)
        ax.set_xticks(range(len(sizes)), sizes, fontsize="small")
        ax.set(title=METRICS[metric].title, ylabel=textwrap.fill(METRICS[metric].unit, 24))
    _legend_above(figure, columns=int(figure.get_figwidth() / 1.6))
    return figure


def _legend_above(figure: Figure, columns: int) -> None:
    shown, place = figure.axes[0].get_legend_handles_labels(), "outside upper center"
    figure.legend(*shown, loc=place, ncols=columns, fontsize="small")


def quality_against_time(levels: pd.DataFrame, costs: pd.DataFrame, metric: str) -> Figure:
    """A metric of each method against the time of one image, a panel for each size that was measured.

    Args:
        levels: columns `size, method, metric, estimate, low, high`, one reference alone.
        costs: columns `size, method, seconds, fastest, slowest`; a method without a level at its size has no
        point.
        metric: a name of `metrics.registry.METRICS`, its better end above.
    """
    sizes = list(dict.fromkeys(costs["size"]))
    figure, axes = panels_of(len(sizes), 4.8, 3.6, most=3)
    looks, times = looks_of(costs.method), METRICS[metric].times
    judged = costs.merge(levels[levels.metric == metric], on=["size", "method"])
    for ax, size in zip(axes, sizes, strict=True):
        part = judged[judged["size"] == size]
        low, high = part.fastest.min() / 1.3, part.slowest.max() * 1.9  # room for the names
        ax.set(title=size, xlabel="seconds an image", ylabel=METRICS[metric].label)
        ax.set(xscale="log", xlim=(low, max(high, 4 * low)))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        if not METRICS[metric].higher_is_better:
            ax.invert_yaxis()
        for row, above in zip(part.itertuples(), errors_of(part, times).T, strict=True):
            across = [[row.seconds - row.fastest], [row.slowest - row.seconds]]
            look = {"yerr": above[:, None], "xerr": across, **POINT, **looks[row.method]}
            ax.errorbar(row.seconds, times * row.estimate, **look)
        label_points(ax, part.method, part.seconds, times * part.estimate, colours(costs.method))
    return figure


def dose_response(levels: pd.DataFrame, native: pd.DataFrame) -> Figure:
    """Outcomes against the exponent of the rule, a panel a size and outcome; that of native size as a band.

    Args:
        levels: columns `size, metric, exponent, estimate, low, high` and `line`, which the legend names where
            there are several.
        native: columns `metric, estimate, low, high`, and `line` where each line has a band of its own.
    """
    cells, several = list(levels.groupby(["size", "metric"], sort=False)), levels.line.nunique() > 1
    figure, axes = panels_of(len(cells), 3.6, 2.9)
    palette = colours(levels.line) if several else dict.fromkeys(levels.line, PALETTE[0])
    bands = native if "line" in native else native.assign(line="")
    for ax, ((size, metric), part) in zip(axes, cells, strict=True):
        for name, colour in palette.items():
            own, style = part[part.line == name].sort_values("exponent"), {"fmt": "o-", "ms": 4, "capsize": 2}
            ax.errorbar(own.exponent, own.estimate, errors_of(own), color=colour, label=name, **style)
        for row in bands[bands.metric == metric].itertuples():
            ax.axhspan(row.low, row.high, color=palette.get(row.line, "0.6"), alpha=0.2, lw=0)
        for exponent, name, where in ((0, "unscaled", "right"), (0.5, "paper", "left")):
            ax.axvline(exponent, color="0.5", lw=1.2, zorder=0)
            beside = {"xycoords": ("data", "axes fraction"), "ha": where, "fontsize": "x-small"}
            ax.annotate(f" {name} ", (exponent, 0.02), color="0.4", **beside)
        ax.set(title=f"{metric} at {size}", xlabel="exponent p")
    if several:
        axes[0].legend(fontsize="x-small", frameon=True)
    return figure


def recovery_against_entropy(shares: pd.DataFrame) -> Figure:
    """The fraction of the degradation removed against that of entropy: a line, if entropy is the cause.

    Args:
        shares: columns `size, metric, method, share, low, high, entropy`; the first four of the degradation,
            `entropy` the fraction of its change. 1 is all of it; beyond -2 and 2 the vertical axis is cut.
            Where there is nothing to remove (NaN), no point stands.
    """
    shares = shares.rename(columns={"share": "estimate"}).dropna(subset=["estimate", "entropy"])
    cells, looks = list(shares.groupby(["size", "metric"], sort=False)), looks_of(shares.method)
    figure, axes = panels_of(max(len(cells), 1), 4.6, 3.8, most=3)
    if not cells:
        axes[0].text(0.5, 0.5, "no degradation to remove", ha="center")
    for ax, ((size, metric), part) in zip(axes, cells, strict=False):
        low, high = part[["low", "estimate"]].min().min(), part[["high", "estimate"]].max().max()
        ends = part.entropy.min(), part.entropy.max()
        room = 0.05 * (high - low), 0.1 + 0.1 * (ends[1] - ends[0])
        ax.set_ylim(max(low - room[0], -2), min(high + room[0], 2))
        ax.set_xlim(ends[0] - room[1], ends[1] + room[1])
        ax.axline((0, 0), slope=1, color="0.5", ls="--", lw=1)
        ax.axhline(0, color="0.7", lw=1)
        ax.set(title=f"{metric} at {size}")
        for row, above in zip(part.itertuples(), errors_of(part).T, strict=True):
            look = {"label": row.method, **POINT, **looks[row.method]}
            ax.errorbar(row.entropy, row.estimate, above[:, None], **look)
    figure.supxlabel("fraction of the change of entropy removed", fontsize="medium")
    figure.supylabel("fraction of the degradation removed", fontsize="medium")
    _legend_above(figure, columns=5)
    return figure


def preferences(table: pd.DataFrame, labels: str = "size", ax: Axes | None = None) -> Axes:
    """How much better the second method is, one line an interval, those of several raters beside each other.

    Args:
        table: of `study.compare`, of one pair of methods: columns `estimate, low, high, first, second,
            nothing` and that of the labels; with a column `rater` the lines of each rater have a colour.
        labels: the column that names the lines; "" for many lines that need no names.
    """
    raters = list(dict.fromkeys(table.rater)) if "rater" in table else [""]
    names = list(dict.fromkeys(table[labels])) if labels else list(range(len(table)))
    inches = (0.22 * len(raters) + 0.25 if labels else 0.14) * len(names) + 1
    ax = ax or plt.subplots(figsize=(6.5, inches), layout="constrained")[1]
    palette = colours(raters) if "rater" in table else {"": PALETTE[0]}
    for line, row in enumerate(table.to_dict("records")):
        rater = row.get("rater", "")
        aside = 0.6 * ((raters.index(rater) + 0.5) / len(raters) - 0.5)
        place = (names.index(row[labels]) if labels else line) + aside
        label = rater if labels and row[labels] == names[0] else None
        interval_line(ax, place, row["estimate"], row["low"], row["high"], palette[rater], label)
    second, first, nothing = table[["second", "first", "nothing"]].iloc[0]
    ax.axvline(nothing, color="k", lw=1)
    question = f"points that {second} scores more than {first}"
    if nothing:
        question = f"fraction of choices of {second} over {first}"
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel=question)
    ax.set_yticks(range(len(names)) if labels else [], names if labels else [])
    ax.grid(visible=False, axis="y")
    if len(raters) > 1:
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax
