"""Figures of entropy: against tokens, by layer, the laws, and how far Gaussian logits go (notebooks 01 to 04)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.attention.logit_shape import CAUSES
from entropy_lib.display.figures.panels import RULE_COLOURS, colours
from entropy_lib.display.labels import short_layer
from entropy_lib.display.numbers import interval
from entropy_lib.errors import extra
from entropy_lib.statistics.fits import SlopeFit
from entropy_lib.theory import exact_entropy, freezing_std

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure


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
