"""The figures: one function each, a table in, axes out.

Every function takes `ax=None` (or `figure=None` for grids), draws with the theme of `theme()`, and never shows or saves.
"""

import itertools
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.attention.logit_shape import CAUSES
from entropy_lib.attention.maps import AttentionMap
from entropy_lib.display.labels import short_layer
from entropy_lib.display.numbers import interval
from entropy_lib.errors import extra
from entropy_lib.metrics.catalogue import METRICS
from entropy_lib.metrics.layout import LEGIBLE
from entropy_lib.statistics.fits import SlopeFit
from entropy_lib.theory import exact_entropy, freezing_std

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

RULE_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


def theme() -> None:
    """Fonts and grid of all figures of the project; call it once in a notebook, whose figures it makes sharp on any screen."""
    sns.set_theme(context="notebook", style="whitegrid", palette=RULE_COLOURS, rc={"figure.dpi": 110, "axes.titlesize": "medium"})
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        with extra("notebooks"):
            from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("retina")  # twice the pixels at the same size


def colours(rules: Sequence[str]) -> dict[str, str]:
    """A colour for each rule, the same in every figure of a notebook."""
    return {name: RULE_COLOURS[index % len(RULE_COLOURS)] for index, name in enumerate(rules)}


def entropy_vs_tokens(
    table: pd.DataFrame,
    fits: Mapping[str, SlopeFit],
    predicted: Mapping[str, float],
    training_tokens: int,
    figure: Figure | None = None,
) -> Figure:
    """Mean entropy against the number of tokens (the paper's Figure 5), and less ln N beside it, where slope 1 is level.

    Args:
        table: columns `tokens, rule, estimate, low, high`, as `statistics.cluster_mean` gives them.
        fits: the fitted line of each rule.
        predicted: slopes, as of `scaling.predicted_slope`; drawn dotted through the rule's fit at T.
        training_tokens: T, marked by a vertical line; the line of slope 1 passes through the first rule's value there.
    """
    figure = figure or plt.figure(figsize=(10, 4.2), layout="constrained")
    first, palette = next(iter(fits.values())), colours(list(fits))
    for ax, less, label in zip(figure.subplots(1, 2), (np.zeros_like, np.log), ("mean entropy H", "H - ln N"), strict=True):
        grid = np.geomspace(table.tokens.min(), table.tokens.max(), 50)
        for index, (name, fit) in enumerate(fits.items()):
            part, aside = table[table.rule == name].sort_values("tokens"), 1.03 ** (index - (len(fits) - 1) / 2)
            _points_and_fit(ax, part, fit, less, aside, palette[name], name)
            if name in predicted:
                line = fit.predict(training_tokens) + predicted[name] * np.log(grid / training_tokens)
                ax.plot(grid, line - less(grid), ":", color=palette[name], lw=1.2, label=f"{name}: predicted {predicted[name]:.3f}")
        ax.plot(grid, first.predict(training_tokens) + np.log(grid / training_tokens) - less(grid), "k--", lw=1, label="slope 1")
        ax.axvline(training_tokens, color="0.6", lw=1, zorder=0)
        place = {"xycoords": ("data", "axes fraction"), "xytext": (3, -12), "textcoords": "offset points"}
        ax.annotate("T", (training_tokens, 1), color="0.4", **place)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set(xlabel="tokens N at the top level (log scale)", ylabel=f"{label} (nats)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(fits), fontsize="small")
    return figure


def _points_and_fit(ax: Axes, part: pd.DataFrame, fit: SlopeFit, less: Callable, aside: float, colour: str, name: str) -> None:
    """One rule: means with their intervals, moved a little aside, and the fitted line, all less a function of N."""
    error = np.abs(part[["low", "high"]].to_numpy().T - part.estimate.to_numpy())
    label = f"{name}: slope {interval(fit.slope.estimate, fit.slope.low, fit.slope.high)}"
    ax.errorbar(part.tokens * aside, part.estimate - less(part.tokens), yerr=error, fmt="o", color=colour, capsize=3, label=label)
    ax.plot(part.tokens, fit.predict(part.tokens) - less(part.tokens), color=colour, lw=1)


def entropy_per_layer(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean entropy of each layer by size and rule (the paper's Figure 6).

    Args:
        table: columns `layer, size, rule, estimate, low, high`; layers in order of execution, the first rule unscaled.
    """
    ax = ax or plt.subplots(figsize=(8, 4.4), layout="constrained")[1]
    layers, sizes, rules = (list(dict.fromkeys(table[name])) for name in ("layer", "size", "rule"))
    palette, styles, position = (
        colours(rules),
        dict(zip(sizes, ("o", "s", "^", "D", "v", "P"), strict=False)),
        np.arange(len(layers)),
    )
    for size in sizes:
        for offset, name in enumerate(rules):
            part = table[(table["size"] == size) & (table.rule == name)].set_index("layer").reindex(layers)
            error = np.abs(part[["low", "high"]].to_numpy().T - part.estimate.to_numpy())
            ax.errorbar(
                position + 0.1 * (offset - (len(rules) - 1) / 2), part.estimate, yerr=error, color=palette[name], capsize=2,
                marker=styles[size], markersize=5, lw=1, label=f"{size} {name}",
            )  # fmt: skip
    ax.set_xticks(position, [short_layer(layer) for layer in layers])
    ax.set(xlabel="self-attention layer, in order of execution", ylabel="mean entropy (nats)")
    ax.legend(frameon=True, fontsize="small", ncols=len(sizes), loc="upper center", bbox_to_anchor=(0.5, 1.22))
    return ax


def entropy_laws(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Entropy, in units of ln N, against b / b_c: simulation as points, the exact law as lines, Eq. 5 dashed.

    Args:
        table: of `theory.simulation.compare`.
    """
    ax = ax or plt.subplots(figsize=(7, 4.6), layout="constrained")[1]
    counts = list(dict.fromkeys(table.tokens))
    shares = np.linspace(0, table.of_freezing.max() * 1.05, 40)
    for count, colour in zip(counts, sns.color_palette("viridis", len(counts)), strict=True):
        part, log_tokens = table[table.tokens == count], np.log(count)
        ax.plot(shares, exact_entropy(count, shares * freezing_std(count)) / log_tokens, color=colour, lw=1.2)
        ax.errorbar(
            part.of_freezing, part.simulated / log_tokens, yerr=4 * part.standard_error / log_tokens, fmt="o", ms=4.5, color=colour,
            label=f"{count:,}",
        )  # fmt: skip
    ax.plot(shares, np.clip(1 - shares**2, 0, None), "k--", lw=1.2, label="Eq. 5")
    ax.set(xlabel="$b\\,/\\,b_c$, logit_std in units of the freezing point", ylabel="entropy / ln N", ylim=(0, 1.05))
    ax.legend(title="tokens N", frameon=True, fontsize="small", ncols=2)
    return ax


def validity_map(
    tokens: np.ndarray, logit_std: np.ndarray, error: np.ndarray, layers: pd.DataFrame, tolerance: float, ax: Axes | None = None
) -> Axes:
    """Where Eq. 5 can be used: its error over N and b, the line of the tolerance, the freezing point, and real layers.

    Args:
        tokens, logit_std, error: of `theory.simulation.gaussian_error_map`.
        layers: columns `tokens, logit_std`; drawn as points, moved a little sideways where they coincide.
    """
    ax = ax or plt.subplots(figsize=(7, 4.6), layout="constrained")[1]
    levels = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    filled = ax.contourf(
        tokens, logit_std, np.abs(error).T, levels, cmap="Blues", extend="max", norm=BoundaryNorm(levels, 256, extend="max")
    )
    ax.contour(tokens, logit_std, np.abs(error).T, [tolerance], colors="k", linewidths=1.5)
    ax.plot(tokens, freezing_std(tokens), "w-", lw=1.5)
    middle = tokens[len(tokens) // 2]
    ax.annotate(
        "frozen: a few keys have it all",
        (middle, freezing_std(middle)),
        xytext=(-8, 6),
        textcoords="offset points",
        ha="right",
        color="w",
    )
    spread = 1.12 ** (layers.groupby("tokens").cumcount() - (layers.groupby("tokens").tokens.transform("size") - 1) / 2)
    ax.plot(
        layers.tokens * spread, layers.logit_std, "o", color=RULE_COLOURS[1], ms=6, mec="w", label="self-attention layers of mini"
    )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set(xlabel="tokens N (log scale)", ylabel="logit_std b", ylim=(logit_std[0], logit_std[-1]))
    ax.figure.colorbar(filled, ax=ax, label=f"error of Eq. 5 (nats); black: {tolerance:g}")
    ax.legend(frameon=True, fontsize="small", loc="upper left")
    return ax


def under_rules(table: pd.DataFrame, training_tokens: int, figure: Figure | None = None) -> Figure:
    """Entropy, and entropy over ln N, against N for each rule: what each keeps constant.

    Args:
        table: of `scaling.predictions.under_rules`.
    """
    figure = figure or plt.figure(figsize=(9.5, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    palette = colours(list(dict.fromkeys(table.rule)))
    for ax, value, label in zip(axes, ("entropy", "entropy_ratio"), ("entropy H (nats)", "H / ln N"), strict=True):
        for name, part in table.groupby("rule", sort=False):
            ax.plot(part.tokens, part[value], color=palette[name], label=name, lw=2)
        ax.axvline(training_tokens, color="0.6", lw=1, zorder=0)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.set(xlabel="tokens N (log scale)", ylabel=label)
    axes[0].annotate(
        "T", (training_tokens, 1), xycoords=("data", "axes fraction"), xytext=(3, -12), textcoords="offset points", color="0.4"
    )
    axes[0].legend(frameon=True, fontsize="small")
    return figure


def predicted_and_measured(table: pd.DataFrame, tolerance: float, figure: Figure | None = None) -> Figure:
    """Measured entropy against Eq. 5, one panel a size, one point a layer x timestep x head (means over prompts).

    Args:
        table: columns `size, training_tokens, layer, step, branch, head, entropy, gaussian_entropy`.
        tolerance: nats; a band around the line of identity.
    """
    sizes = list(dict.fromkeys(table["size"]))
    figure = figure or plt.figure(figsize=(3.4 * len(sizes) + 0.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(sizes), squeeze=False)[0]
    cells = table.groupby(["size", "training_tokens", "layer", "step", "branch", "head"], sort=False)
    points = cells[["entropy", "gaussian_entropy"]].mean().reset_index()
    levels = sorted(points.training_tokens.unique())
    for ax, size in zip(axes, sizes, strict=True):
        part = points[points["size"] == size]
        for level, colour in zip(levels, RULE_COLOURS, strict=False):
            chosen = part[part.training_tokens == level]
            ax.plot(chosen.gaussian_entropy, chosen.entropy, ".", ms=3, alpha=0.5, color=colour, label=f"T = {level}")
        limits = np.array([part[["entropy", "gaussian_entropy"]].min().min(), part[["entropy", "gaussian_entropy"]].max().max()])
        ax.plot(limits, limits, "k-", lw=1)
        ax.fill_between(limits, limits - tolerance, limits + tolerance, color="0.8", zorder=0)
        ax.set(title=size, xlabel="Eq. 5: ln N - b²/2 (nats)")
    axes[0].set_ylabel("measured entropy (nats)")
    axes[0].legend(frameon=True, fontsize="small", markerscale=3)
    return figure


def error_parts(layers: pd.DataFrame, tolerance: float, ax: Axes | None = None) -> Axes:
    """The error of Eq. 5 in each layer as a stack of its causes, the whole as a black mark.

    Args:
        layers: of `attention.by_layer`, indexed by layer.
    """
    ax = ax or plt.subplots(figsize=(8.4, 4.2), layout="constrained")[1]
    position = np.arange(len(layers))
    above, below = np.zeros(len(layers)), np.zeros(len(layers))
    for (name, label), colour in zip(CAUSES.items(), RULE_COLOURS, strict=False):
        value = layers[name].to_numpy()
        ax.bar(position, value, 0.6, bottom=np.where(value >= 0, above, below), color=colour, label=label)
        above, below = above + value.clip(min=0), below + value.clip(max=0)
    ax.plot(position, layers.error, "k_", ms=22, mew=2, label="whole error")
    ax.axhspan(-tolerance, tolerance, color="0.85", zorder=0)
    ax.set_xticks(position, [short_layer(layer) for layer in layers.index], rotation=20)
    ax.set(ylabel="measured minus Eq. 5 (nats)", xlabel="self-attention layer, in order of execution")
    ax.legend(frameon=True, fontsize="small")
    return ax


def quantile_plot(quantiles: pd.DataFrame, layers: Sequence[str], figure: Figure | None = None) -> Figure:
    """Mean quantiles of rows of logits against normal quantiles, one panel a layer; the upper tail decides the entropy.

    Args:
        quantiles: of `probes.LogitProbe.quantiles()`, one size and one rule.
        layers: which ones to draw.
    """
    figure = figure or plt.figure(figsize=(3.6 * len(layers), 3.6), layout="constrained")
    for ax, layer in zip(figure.subplots(1, len(layers), squeeze=False, sharey=True)[0], layers, strict=True):
        part = quantiles[quantiles.layer == layer]
        ax.plot(part.normal, part.measured, ".-", ms=5, lw=1)
        ends = np.array([part.normal.min(), part.normal.max()])
        ax.plot(ends, ends, "k--", lw=1)
        ax.set(title=f"{short_layer(layer)}, N = {part.tokens.iloc[0]}", xlabel="normal quantile")
    figure.axes[0].set_ylabel("logit, in its row's standard deviations")
    return figure


def forest(differences: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS), figure: Figure | None = None) -> Figure:
    """Paired differences with their intervals, one panel a metric, one line a size and rule; the better side is tinted.

    Args:
        differences: of `sweep.reduce.Tables`: columns `size, rule, against, metric, estimate, low, high`.
        metrics: names of `metrics.catalogue.METRICS`, one panel each, as far as they are there.
    """
    lines = list(dict.fromkeys(zip(differences["size"], differences.rule, strict=True)))
    metrics = [name for name in metrics if (differences.metric == name).any()]
    columns, rows = _grid(len(metrics))
    figure = figure or plt.figure(figsize=(3.1 * columns + 1.4, rows * (0.42 * len(lines) + 1.2) + 0.3), layout="constrained")
    palette = colours(list(dict.fromkeys(differences.rule)))
    for ax, metric in zip(_panels(figure, len(metrics), sharey=True), metrics, strict=True):
        part = differences[differences.metric == metric].set_index(["size", "rule"]).reindex(lines)
        _change_lines(ax, part, metric, [palette[rule] for _, rule in lines])
        ax.set_title(METRICS[metric].title)
    several = len(palette) > 1
    figure.axes[0].set_yticks(range(len(lines)), [f"{size} {rule}" if several else size for size, rule in lines])
    figure.supxlabel(f"{' and '.join(palette)} less {differences.against.iloc[0]}, same prompts and noise", fontsize="medium")
    return figure


def _change_lines(ax: Axes, changes: pd.DataFrame, metric: str, palette: Sequence[str]) -> None:
    """Changes of a metric with their intervals below each other, one row of the table a line; the better side is tinted."""
    times = METRICS[metric].times
    for position, (row, colour) in enumerate(zip(changes.itertuples(), palette, strict=True)):
        ax.plot([times * row.low, times * row.high], [position] * 2, color=colour, lw=2, solid_capstyle="butt")
        ax.plot(times * row.estimate, position, "o", ms=5, color=colour)
    reach = 1.15 * times * np.nanmax(np.abs(changes[["low", "high"]].to_numpy())) or 1.0  # of nothing but zeros
    if METRICS[metric].directed:
        ax.axvspan(*((0, reach) if METRICS[metric].higher_is_better else (-reach, 0)), color="#55a868", alpha=0.08, lw=0)
    ax.axvline(0, color="k", lw=1)
    ax.set(xlim=(-reach, reach), ylim=(len(palette) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=5)


def arms(changes: pd.DataFrame, figure: Figure | None = None, against: str = "no rule") -> Figure:
    """What every arm changes, one panel for each size and outcome, one line an arm; the better side is tinted.

    Args:
        changes: of `statistics.paired_changes`: columns `size, metric, rule, estimate, low, high`.
        against: what they are compared with, in words.
    """
    lines = list(dict.fromkeys(changes.rule))
    cells = list(changes.groupby(["size", "metric"], sort=False).groups)
    columns, rows = _grid(len(cells))
    figure = figure or plt.figure(figsize=(2.9 * columns + 2, rows * (0.27 * len(lines) + 0.9) + 0.3), layout="constrained")
    for ax, (size, metric) in zip(_panels(figure, len(cells), sharey=True), cells, strict=True):
        part = changes[(changes["size"] == size) & (changes.metric == metric)].set_index("rule").reindex(lines)
        _change_lines(ax, part, metric, [RULE_COLOURS[0]] * len(lines))
        ax.set_title(f"{metric} at {size}")
    for ax in figure.axes:
        ax.set_yticks(range(len(lines)), lines, fontsize="small")
    figure.supxlabel(f"change against {against}, same prompts and noise", fontsize="medium")
    return figure


def _grid(panels: int, most: int = 4) -> tuple[int, int]:
    """Columns and rows of some panels, at most four beside each other, the rows as full as can be."""
    rows = math.ceil(panels / most)
    return math.ceil(panels / rows), rows


def _panels(figure: Figure, count: int, sharey: bool = False) -> list[Axes]:
    """That many panels in rows; places that are left over stay empty."""
    columns, rows = _grid(count)
    every = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for empty in every[count:]:
        empty.remove()
    return list(every[:count])


def metrics_by_size(levels: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS), figure: Figure | None = None) -> Figure:
    """`metric_by_size` for several metrics, a panel each, under one legend.

    Args:
        levels: as there.
        metrics: names of `metrics.catalogue.METRICS`, as far as they are there.
    """
    metrics = [name for name in metrics if (levels.metric == name).any()]
    columns, rows = _grid(len(metrics))
    figure = figure or plt.figure(figsize=(4.2 * columns, 3.2 * rows + 0.4), layout="constrained")
    for ax, metric in zip(_panels(figure, len(metrics)), metrics, strict=True):
        metric_by_size(levels, metric, ax)
        ax.set(title=METRICS[metric].title, ylabel=textwrap.fill(METRICS[metric].unit, 24), xlabel="")
        ax.tick_params("x", rotation=30)
        ax.get_legend().remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize="small")
    return figure


def dose_response(levels: pd.DataFrame, native: pd.DataFrame, figure: Figure | None = None) -> Figure:
    """Outcomes against the exponent of the rule, a panel for each size and outcome; what native size has as a band.

    Args:
        levels: columns `size, metric, exponent, estimate, low, high`, and `profile` for several models in their colours.
        native: columns `metric, estimate, low, high`, and `profile` where `levels` has it.
    """
    cells = list(levels.groupby(["size", "metric"], sort=False).groups)
    columns, rows = _grid(len(cells))
    figure = figure or plt.figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    for ax, (size, metric) in zip(_panels(figure, len(cells)), cells, strict=True):
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
    columns, rows = _grid(len(cells), most=3)
    figure = figure or plt.figure(figsize=(4.2 * columns + 2, 3.8 * rows), layout="constrained")
    looks = _looks(list(dict.fromkeys(shares.rule)))
    for ax, (size, metric) in zip(_panels(figure, len(cells)), cells, strict=True):
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


def quality_against_time(levels: pd.DataFrame, costs: pd.DataFrame, metric: str, figure: Figure | None = None) -> Figure:
    """What pictures are worth against what one of them takes, a panel for each size that was measured.

    Args:
        levels: columns `size, method, metric, estimate, low, high`, one reference alone.
        costs: columns `size, method, seconds, fastest, slowest`.
        metric: a name of `metrics.catalogue.METRICS`, its better end above.
    """
    sizes, names = list(dict.fromkeys(costs["size"])), list(dict.fromkeys(costs.method))
    columns, rows = _grid(len(sizes), most=3)
    figure = figure or plt.figure(figsize=(4.2 * columns + 2, 3.6 * rows), layout="constrained")
    looks, times = _looks(names), METRICS[metric].times
    known = levels[levels.metric == metric].set_index(["size", "method"])
    for ax, size in zip(_panels(figure, len(sizes)), sizes, strict=True):
        part = costs[costs["size"] == size]
        for row in part.to_dict("records"):
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
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A marker and a colour for each of many names; no pair twice."""
    return dict(zip(names, zip(itertools.cycle("osD^vPX"), itertools.cycle(RULE_COLOURS), strict=False), strict=False))


def attention_of_a_query(
    maps: Mapping[str, AttentionMap], pictures: Mapping[str, np.ndarray], figure: Figure | None = None
) -> Figure:
    """Where one query looks, at each size: the picture with its place, its weights, and the entropy of all queries.

    Args:
        maps: {size: map of one layer at one step}.
        pictures: {size: the picture that was drawn, uint8 `[height, width, 3]`}.
    """
    figure = figure or plt.figure(figsize=(8.4, 2.5 * len(maps) + 0.4), layout="constrained")
    axes = figure.subplots(len(maps), 3, squeeze=False)
    for (size, found), row in zip(maps.items(), axes, strict=True):
        height, width = pictures[size].shape[:2]
        frame = (0, width, height, 0)  # maps are laid over the picture, in its pixels
        centre = [
            (place + 0.5) * side / count
            for place, side, count in zip(found.query, (height, width), found.weights.shape, strict=True)
        ]
        row[0].imshow(pictures[size], interpolation="nearest")
        row[1].imshow(found.weights, cmap="magma", extent=frame, interpolation="nearest", vmin=0)
        shown = row[2].imshow(
            found.entropy / math.log(found.tokens), cmap="viridis", extent=frame, interpolation="nearest", vmin=0, vmax=1
        )
        for ax in row[:2]:
            ax.plot(centre[1], centre[0], "o", ms=9, mfc="none", mec="white", mew=3)
            ax.plot(centre[1], centre[0], "o", ms=9, mfc="none", mec="black", mew=1)
        row[0].set_ylabel(size, rotation=0, ha="right", va="center")
        row[1].set_title(f"$e^H$ = {found.spread:,.0f} of {found.tokens:,} tokens", fontsize="medium")
        figure.colorbar(shown, ax=row[2], shrink=0.8, label="H / ln N")
    axes[0, 0].set_title("the picture, and one query", fontsize="medium")
    axes[0, 2].set_title("entropy of every query", fontsize="medium")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure


def entropy_maps(maps: Mapping[str, Sequence[AttentionMap]], figure: Figure | None = None) -> Figure:
    """Entropy of every query over the picture, in units of ln N: layers as rows, sizes as columns.

    Args:
        maps: {size: one map a layer}, the same layers at each size.
    """
    layers = [found.layer for found in next(iter(maps.values()))]
    figure = figure or plt.figure(figsize=(1.9 * len(maps) + 2.6, 1.25 * len(layers) + 0.6), layout="constrained")
    axes = figure.subplots(len(layers), len(maps), squeeze=False)
    for column, (size, found) in zip(axes.T, maps.items(), strict=True):
        column[0].set_title(size, fontsize="medium")
        for ax, one in zip(column, found, strict=True):
            shown = ax.imshow(one.entropy / math.log(one.tokens), cmap="viridis", interpolation="nearest", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[:, 0], layers, strict=True):
        ax.set_ylabel(short_layer(name), rotation=0, ha="right", va="center", fontsize="small")
    figure.colorbar(shown, ax=axes, shrink=0.5, label="H / ln N")
    return figure


def found_things(images: Sequence[np.ndarray], found: pd.DataFrame, columns: Sequence[str], zoom: float = 1.5) -> Figure:
    """Pictures with a box around each thing that was found in them: named, or dashed where nobody could name it.

    Args:
        images: uint8 `[height, width, 3]`, one a column.
        found: columns `picture` (which image), `name, legible, top, left, bottom, right` (pixels).
        columns: text above each picture.
        zoom: screen pixels for each image pixel.
    """
    figure = image_grid({"": images}, columns, zoom)
    for ax in figure.axes:
        ax.set_anchor("S")  # what room is left belongs to the text above
    for row in found.itertuples():
        ax, named = figure.axes[row.picture], row.legible >= LEGIBLE
        size = row.right - row.left, row.bottom - row.top
        box = plt.Rectangle((row.left - 0.5, row.top - 0.5), *size, fill=False, ls="-" if named else ":", ec="w", lw=1.5)
        ax.add_patch(box).set_in_layout(False)
        name = ax.text(row.left, max(row.top, 0), row.name if named else "?", color="w", fontsize="x-small", va="top", clip_on=True)
        name.set_in_layout(False)
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


def image_grid(
    images: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], zoom: float = 1.0, figure: Figure | None = None
) -> Figure:
    """Rows of images at their true relative size: one row a key, one column a prompt.

    Args:
        images: {row label: one uint8 `[height, width, 3]` image a column}; sizes may differ between rows.
        columns: text above each column; shown as it is, wrapped, and cut off with an ellipsis where it is long.
        zoom: screen pixels for each image pixel.
    """
    heights = [max(image.shape[0] for image in row) for row in images.values()]
    words = round(110 / zoom)  # pixels that the text above a column takes
    widths = [max(words, *(row[index].shape[1] for row in images.values())) for index in range(len(columns))]
    titles, scale = [_wrapped(text) for text in columns], zoom / 100
    room = 0.3 + 0.2 * max(title.count("\n") + 1 for title in titles)
    beside = 1.8 if any(images) else 0.1  # inches for the labels of rows
    figure = figure or plt.figure(figsize=(sum(widths) * scale + beside, sum(heights) * scale + room), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights, "width_ratios": widths})
    for row, (label, pictures) in zip(axes, images.items(), strict=True):
        for ax, picture, width in zip(row, pictures, widths, strict=True):
            _picture(ax, picture, width)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small", parse_math=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize="small", parse_math=False)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    return figure


def _picture(ax: Axes, picture: np.ndarray, width: int) -> None:
    """Draw a picture in the middle of its column, at the scale of the widest one."""
    ax.imshow(picture, interpolation="nearest")
    left = (width - picture.shape[1]) / 2
    ax.set(xlim=(-left - 0.5, picture.shape[1] + left - 0.5), xticks=[], yticks=[])
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)


def _wrapped(text: str, width: int = 14, lines: int = 6) -> str:
    return "\n".join(textwrap.wrap(text[: width * lines * 2], width, max_lines=lines, placeholder=" …"))
