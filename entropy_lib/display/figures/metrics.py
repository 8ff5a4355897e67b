"""Figures of metrics: against size, against time, and paired differences (notebooks 06, 07 and 09)."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_lib.display.figures.panels import change_lines, colours, grid_of, markers_of, panels_of
from entropy_lib.errors import extra
from entropy_lib.metrics.catalogue import METRICS

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter


def forest(differences: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS), figure: Figure | None = None) -> Figure:
    """Paired differences with their intervals, one panel a metric, one line a size and rule; the better side is tinted.

    Args:
        differences: of `sweep.reduce.Tables`: columns `size, rule, against, metric, estimate, low, high`.
        metrics: names of `metrics.catalogue.METRICS`, one panel each, as far as they are there.
    """
    lines = list(dict.fromkeys(zip(differences["size"], differences.rule, strict=True)))
    metrics = [name for name in metrics if (differences.metric == name).any()]
    columns, rows = grid_of(len(metrics))
    figure = figure or plt.figure(figsize=(3.1 * columns + 1.4, rows * (0.42 * len(lines) + 1.2) + 0.3), layout="constrained")
    palette = colours(list(dict.fromkeys(differences.rule)))
    for ax, metric in zip(panels_of(figure, len(metrics), sharey=True), metrics, strict=True):
        part = differences[differences.metric == metric].set_index(["size", "rule"]).reindex(lines)
        change_lines(ax, part, metric, [palette[rule] for _, rule in lines])
        ax.set_title(METRICS[metric].title)
    several = len(palette) > 1
    figure.axes[0].set_yticks(range(len(lines)), [f"{size} {rule}" if several else size for size, rule in lines])
    figure.supxlabel(f"{' and '.join(palette)} less {differences.against.iloc[0]}, same prompts and noise", fontsize="medium")
    return figure


def metrics_by_size(levels: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS), figure: Figure | None = None) -> Figure:
    """`metric_by_size` for several metrics, a panel each, under one legend.

    Args:
        levels: as there.
        metrics: names of `metrics.catalogue.METRICS`, as far as they are there.
    """
    metrics = [name for name in metrics if (levels.metric == name).any()]
    columns, rows = grid_of(len(metrics))
    figure = figure or plt.figure(figsize=(4.2 * columns, 3.2 * rows + 0.4), layout="constrained")
    for ax, metric in zip(panels_of(figure, len(metrics)), metrics, strict=True):
        metric_by_size(levels, metric, ax)
        ax.set(title=METRICS[metric].title, ylabel=textwrap.fill(METRICS[metric].unit, 24), xlabel="")
        ax.tick_params("x", rotation=30)
        ax.get_legend().remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize="small")
    return figure


def metric_by_size(levels: pd.DataFrame, metric: str, ax: Axes | None = None) -> Axes:
    """One metric of all methods at all sizes, with intervals.

    Args:
        levels: of `sweep.reduce.Tables`, of one reference: columns `size, method, metric, estimate, low, high`.
        metric: a name of `metrics.catalogue.METRICS`.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2), layout="constrained")[1]
    part, times = levels[levels.metric == metric], METRICS[metric].times
    sizes, methods = (list(dict.fromkeys(part[name])) for name in ("size", "method"))
    palette = colours(methods)
    for offset, (name, marker) in enumerate(zip(methods, itertools.cycle("osD^vP"), strict=False)):
        own = part[part.method == name].set_index("size").reindex(sizes)
        place = np.arange(len(sizes)) + 0.12 * (offset - (len(methods) - 1) / 2)
        error = times * np.abs(own[["low", "high"]].to_numpy().T - own.estimate.to_numpy())
        ax.errorbar(place, times * own.estimate, yerr=error, fmt=marker, ms=6, capsize=3, color=palette[name], label=name)
    ax.set_xticks(range(len(sizes)), sizes)
    ax.set(xlabel="size", ylabel=METRICS[metric].title)
    ax.legend(frameon=True, fontsize="small")
    return ax


def quality_against_time(levels: pd.DataFrame, costs: pd.DataFrame, metric: str, figure: Figure | None = None) -> Figure:
    """What pictures are worth against what one of them takes, a panel for each size that was measured.

    Args:
        levels: columns `size, method, metric, estimate, low, high`, one reference alone.
        costs: columns `size, method, seconds, fastest, slowest`; without a level at its size (at native size methods that coincide
            are judged once) a method has no point.
        metric: a name of `metrics.catalogue.METRICS`, its better end above.
    """
    sizes, names = list(dict.fromkeys(costs["size"])), list(dict.fromkeys(costs.method))
    columns, rows = grid_of(len(sizes), most=3)
    figure = figure or plt.figure(figsize=(4.2 * columns + 2, 3.6 * rows), layout="constrained")
    looks, times = markers_of(names), METRICS[metric].times
    known = levels[levels.metric == metric].set_index(["size", "method"])
    for ax, size in zip(panels_of(figure, len(sizes)), sizes, strict=True):
        part = costs[costs["size"] == size]
        for row in part.to_dict("records"):
            if (size, row["method"]) not in known.index:
                continue
            marker, colour = looks[row["method"]]
            estimate, low, high = times * known.loc[(size, row["method"]), ["estimate", "low", "high"]].to_numpy(dtype=float)
            across = [[row["seconds"] - row["fastest"]], [row["slowest"] - row["seconds"]]]
            style = {"fmt": marker, "ms": 7, "capsize": 2, "elinewidth": 1, "color": colour, "label": row["method"]}
            ax.errorbar([row["seconds"]], [estimate], xerr=across, yerr=[[estimate - low], [high - estimate]], **style)
        low, high = part.fastest.min() / 1.3, part.slowest.max() * 1.3
        ax.set(title=size, xscale="log", xlim=(low, max(high, 4 * low)), xlabel="seconds a picture", ylabel=METRICS[metric].label)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        if not METRICS[metric].higher_is_better:
            ax.invert_yaxis()
    shown = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside right center", fontsize="small")
    return figure
