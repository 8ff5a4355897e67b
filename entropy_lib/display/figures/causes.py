"""Figures of interventions: doses, arms, and repair beside entropy (notebooks 07 and 10)."""

import numpy as np
import pandas as pd

from entropy_lib.display.figures.panels import RULE_COLOURS, change_lines, grid_of, markers_of, panels_of
from entropy_lib.errors import extra

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def arms(changes: pd.DataFrame, figure: Figure | None = None, against: str = "no rule") -> Figure:
    """What every arm changes, one panel for each size and outcome, one line an arm; the better side is tinted.

    Args:
        changes: of `statistics.paired_changes`: columns `size, metric, rule, estimate, low, high`.
        against: what they are compared with, in words.
    """
    lines = list(dict.fromkeys(changes.rule))
    cells = list(changes.groupby(["size", "metric"], sort=False).groups)
    columns, rows = grid_of(len(cells))
    figure = figure or plt.figure(figsize=(2.9 * columns + 2, rows * (0.27 * len(lines) + 0.9) + 0.3), layout="constrained")
    for ax, (size, metric) in zip(panels_of(figure, len(cells), sharey=True), cells, strict=True):
        part = changes[(changes["size"] == size) & (changes.metric == metric)].set_index("rule").reindex(lines)
        change_lines(ax, part, metric, [RULE_COLOURS[0]] * len(lines))
        ax.set_title(f"{metric} at {size}")
    for ax in figure.axes:
        ax.set_yticks(range(len(lines)), lines, fontsize="small")
    figure.supxlabel(f"change against {against}, same prompts and noise", fontsize="medium")
    return figure


def dose_response(levels: pd.DataFrame, native: pd.DataFrame, figure: Figure | None = None) -> Figure:
    """Outcomes against the exponent of the rule, a panel for each size and outcome; what native size has as a band.

    Args:
        levels: columns `size, metric, exponent, estimate, low, high`, and `profile` for several models in their colours.
        native: columns `metric, estimate, low, high`, and `profile` where `levels` has it.
    """
    cells = list(levels.groupby(["size", "metric"], sort=False).groups)
    columns, rows = grid_of(len(cells))
    figure = figure or plt.figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    for ax, (size, metric) in zip(panels_of(figure, len(cells)), cells, strict=True):
        part = levels[(levels["size"] == size) & (levels.metric == metric)].sort_values("exponent")
        _doses(ax, part, native[native.metric == metric])
        for exponent, style in ((0, ":"), (0.5, "--")):
            ax.axvline(exponent, color="0.3", ls=style, lw=1.2, label="paper" if exponent else "unscaled")
        ax.set(title=f"{metric} at {size}", xlabel="exponent p")
    figure.axes[0].legend(fontsize="x-small", frameon=True)
    return figure


def _doses(ax: Axes, levels: pd.DataFrame, native: pd.DataFrame) -> None:
    """One outcome at one size: a line for each model, and its native size as a band of the same colour."""
    several = "profile" in levels
    for index, name in enumerate(levels.profile.drop_duplicates() if several else [None]):
        part, known = (table[table.profile == name] if several else table for table in (levels, native))
        error, colour = np.abs(part[["low", "high"]].to_numpy().T - part.estimate.to_numpy()), RULE_COLOURS[index]
        ax.errorbar(part.exponent, part.estimate, yerr=error, fmt="o-", ms=4, capsize=2, color=colour, label=name)
        for row in known.itertuples():
            ax.axhspan(row.low, row.high, color=colour if several else "0.6", alpha=0.2 if several else 0.4, lw=0)
            ax.axhline(row.estimate, color=colour if several else "0.4", lw=1, alpha=0.6)


def repair_against_entropy(shares: pd.DataFrame, figure: Figure | None = None) -> Figure:
    """Which share of the damage an arm removes, against which share of the change of entropy; were entropy the cause, a line.

    Args:
        shares: columns `size, metric, rule, share, low, high, entropy`; the first four of the damage, `entropy` the share of its
            change. All as numbers, 1 for all of it; beyond -2 and 2 the vertical axis is cut.
    """
    cells = list(shares.groupby(["size", "metric"], sort=False).groups)
    columns, rows = grid_of(len(cells), most=3)
    figure = figure or plt.figure(figsize=(4.2 * columns + 2, 3.8 * rows), layout="constrained")
    looks = markers_of(list(dict.fromkeys(shares.rule)))
    for ax, (size, metric) in zip(panels_of(figure, len(cells)), cells, strict=True):
        part = shares[(shares["size"] == size) & (shares.metric == metric)]
        for row in part.to_dict("records"):
            marker, colour = looks[row["rule"]]
            error = [[row["share"] - row["low"]], [row["high"] - row["share"]]]
            style = {"fmt": marker, "ms": 7, "capsize": 2, "elinewidth": 1, "color": colour, "label": row["rule"]}
            ax.errorbar([row["entropy"]], [row["share"]], yerr=error, **style)
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, -2), min(high, 2))
        ax.axline((0, 0), slope=1, color="0.5", ls="--", lw=1)
        ax.axhline(0, color="0.7", lw=1)
        ax.set(title=f"{metric} at {size}")
    figure.supxlabel("share of the change of entropy removed", fontsize="medium")
    figure.supylabel("share of the damage removed", fontsize="medium")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure
