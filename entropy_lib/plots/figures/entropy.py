"""Figures of entropy: against tokens, by layer, the laws, how far Gaussian logits go (notebooks 01 to 04)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.entropy.laws import exact_entropy, freezing_std
from entropy_lib.entropy.logit_shape import CAUSES
from entropy_lib.errors import extra
from entropy_lib.plots.figures.panels import PALETTE, colours, errors_of, label_points
from entropy_lib.plots.labels import short_layer, short_layers
from entropy_lib.plots.numbers import interval
from entropy_lib.statistics.fits import SlopeFit
from entropy_lib.statistics.over_layers import DEAD

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

ORDER = "self-attention layer, in order of execution"


def entropy_vs_tokens(
    table: pd.DataFrame, fits: Mapping[str, SlopeFit], predicted: Mapping[str, float], training_tokens: int
) -> Figure:
    """Mean entropy against tokens (the paper's Figure 5), and less ln N beside it, where slope 1 is level.

    Args:
        table: columns `tokens, rule, estimate, low, high`, as `statistics.cluster_mean` gives them.
        fits: the fitted line of each rule.
        predicted: slopes, as of `scaling.predicted_slope`; drawn dotted through the rule's fit at T.
        training_tokens: T, marked by a vertical line; the line of slope 1 passes through the first rule's
            value there.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    grid, palette = np.geomspace(table.tokens.min(), table.tokens.max(), 50), colours(fits)
    unit = next(iter(fits.values())).predict(training_tokens) + np.log(grid / training_tokens)
    for ax, less, label in zip(axes, (np.zeros_like, np.log), ("mean entropy H", "H - ln N"), strict=True):
        for index, (name, fit) in enumerate(fits.items()):
            part, style = table[table.rule == name].sort_values("tokens"), {"color": palette[name]}
            aside = part.tokens * 1.03 ** (index - (len(fits) - 1) / 2)  # so that no bar hides another
            slope = f"{name}: slope {interval(fit.slope.estimate, fit.slope.low, fit.slope.high)}"
            value = part.estimate - less(part.tokens)
            ax.errorbar(aside, value, yerr=errors_of(part), fmt="o", capsize=3, label=slope, **style)
            ax.plot(grid, fit.predict(grid) - less(grid), lw=1, **style)
            if name in predicted:
                line = fit.predict(training_tokens) + predicted[name] * np.log(grid / training_tokens)
                said = f"{name}: predicted {predicted[name]:.3f}"
                ax.plot(grid, line - less(grid), ":", lw=1.2, label=said, **style)
        ax.plot(grid, unit - less(grid), "k--", lw=1, label="slope 1")
        _against_tokens(ax, training_tokens)
        ax.set_ylabel(f"{label} (nats)")
    look = {"loc": "outside upper center", "ncols": len(fits), "fontsize": "small"}
    figure.legend(*ax.get_legend_handles_labels(), **look)
    return figure


def _against_tokens(ax: Axes, training_tokens: int | None = None) -> None:
    """A logarithmic axis of tokens, on which T is marked."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("tokens N (log scale)")
    if training_tokens is not None:
        ax.axvline(training_tokens, color="0.6", lw=1, zorder=0)
        ax.annotate("T", (training_tokens, 0.94), xycoords=("data", "axes fraction"), color="0.4")


def entropy_per_layer(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean entropy of each layer by size and rule (the paper's Figure 6).

    Args:
        table: columns `layer, size, rule, estimate, low, high`; layers in order of execution, the first rule
            unscaled.
    """
    ax = ax or plt.subplots(figsize=_wide_enough(table.layer), layout="constrained")[1]
    layers, sizes, rules = (list(dict.fromkeys(table[name])) for name in ("layer", "size", "rule"))
    palette, position = colours(rules), np.arange(len(layers))
    for size, marker in zip(sizes, "os^DvP", strict=False):
        for offset, name in enumerate(rules):
            part = table[(table["size"] == size) & (table.rule == name)].set_index("layer").reindex(layers)
            place = position + 0.1 * (offset - (len(rules) - 1) / 2)
            style = {"capsize": 2, "marker": marker, "markersize": 5, "lw": 1, "color": palette[name]}
            ax.errorbar(place, part.estimate, yerr=errors_of(part), label=f"{size} {name}", **style)
    _name_layers(ax, layers)
    ax.set(ylabel="mean entropy (nats)")
    above = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.22), "ncols": len(sizes)}
    ax.legend(frameon=True, fontsize="small", **above)
    return ax


def _wide_enough(layers: Iterable[str]) -> tuple[float, float]:
    return max(8, 0.34 * len(set(layers))), 4.4


def _name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Layers along the axis, upright where they are many or their names long."""
    names = short_layers(layers)
    upright = sum(map(len, names)) > 80
    ax.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    ax.set_xlabel(ORDER)


def layers_that_matter(table: pd.DataFrame, native: str, ax: Axes | None = None) -> Axes:
    """How each layer's entropy follows ln N, against what the image owes to its attention.

    Args:
        table: of `statistics.layer_table`.
        native: the label of the native size.
    """
    ax = ax or plt.subplots(figsize=(7, 4.6), layout="constrained")[1]
    known = {name: part.set_index("layer") for name, part in table.groupby("quantity")}
    tokens = known["tokens"][known["tokens"]["size"] == native].estimate
    layers, least = known["slope"].index, DEAD / 30  # what is less stands at the edge
    across, up = known["importance"].estimate[layers].clip(lower=least), known["slope"].estimate
    for colour, level in zip(PALETTE, sorted(tokens.unique(), reverse=True), strict=False):
        own = tokens.index[tokens == level]
        bars = known["importance"].loc[own, ["low", "high"]].clip(lower=least).T.sub(across[own]).abs()
        look = {"fmt": "o", "ms": 5, "lw": 1, "color": colour, "label": f"{level:,.0f} tokens"}
        ax.errorbar(across[own], up[own], errors_of(known["slope"].loc[own]), bars.to_numpy(), **look)
    ax.axhline(1, color="k", ls="--", lw=1)
    ax.axvspan(least / 1.5, DEAD, color="0.9", zorder=0)
    low, high = known["slope"].low.min(), known["slope"].high.max()
    ax.set(xscale="log", xlim=(least / 1.5, 6), ylim=(min(0, low) - 0.05, max(1, high) + 0.25))
    ax.set_ylabel("slope of entropy on ln N")
    ax.set_xlabel("importance: change of the image (log scale; grey: dead)")
    most = across[across >= DEAD].nlargest(3).index
    black = dict.fromkeys(map(short_layer, most), "0.2")
    above = up[most] + 0.04 * np.diff(ax.get_ylim())  # so that no bar goes through a name
    label_points(ax, most.to_series().map(short_layer), across[most], above, black)
    ax.legend(frameon=True, fontsize="small")
    return ax


def entropy_laws(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Entropy, in units of ln N, against b / b_c: simulation as points, the exact law as lines, Eq. 5 dashed.

    Args:
        table: of `entropy.simulation.compare`.
    """
    ax = ax or plt.subplots(figsize=(7, 4.6), layout="constrained")[1]
    counts, shares = list(dict.fromkeys(table.tokens)), np.linspace(0, table.of_freezing.max() * 1.05, 40)
    for count, colour in zip(counts, sns.color_palette("viridis", len(counts)), strict=True):
        part, unit = table[table.tokens == count], np.log(count)
        ax.plot(shares, exact_entropy(count, shares * freezing_std(count)) / unit, color=colour, lw=1.2)
        style = {"fmt": "o", "ms": 4.5, "color": colour, "label": f"{count:,}"}
        ax.errorbar(part.of_freezing, part.simulated / unit, yerr=4 * part.standard_error / unit, **style)
    ax.plot(shares, np.clip(1 - shares**2, 0, None), "k--", lw=1.2, label="Eq. 5")
    ax.set(ylabel="entropy / ln N", ylim=(0, 1.05))
    ax.set_xlabel("$b\\,/\\,b_c$, spread of logits in units of the freezing transition")
    ax.legend(title="tokens N", frameon=True, fontsize="small", ncols=2)
    return ax


def validity_map(
    tokens: np.ndarray,
    logit_std: np.ndarray,
    error: np.ndarray,
    layers: pd.DataFrame,
    tolerance: float,
    ax: Axes | None = None,
) -> Axes:
    """Where Eq. 5 can be used: its error over N and b, the tolerance, the freezing transition, real layers.

    Args:
        tokens, logit_std, error: of `entropy.simulation.gaussian_error_map`.
        layers: columns `tokens, logit_std`; drawn as points, moved a little sideways where they coincide.
    """
    ax = ax or plt.subplots(figsize=(7, 4.6), layout="constrained")[1]
    levels, place = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], (tokens, logit_std, np.abs(error).T)
    scale = BoundaryNorm(levels, 256, extend="max")
    filled = ax.contourf(*place, levels, cmap="Blues", extend="max", norm=scale)
    ax.contour(*place, [tolerance], colors="k", linewidths=1.5)
    ax.plot(tokens, freezing_std(tokens), "w-", lw=1.5)
    middle = tokens[len(tokens) // 2]
    beside = {"xytext": (-8, 6), "textcoords": "offset points", "ha": "right", "color": "w"}
    ax.annotate("frozen: a few keys have it all", (middle, freezing_std(middle)), **beside)
    own = layers.groupby("tokens").tokens
    spread = 1.12 ** (own.cumcount() - (own.transform("size") - 1) / 2)
    look = {"color": PALETTE[1], "ms": 6, "mec": "w", "label": "layers of mini"}
    ax.plot(layers.tokens * spread, layers.logit_std, "o", **look)
    _against_tokens(ax)
    ax.set(ylabel="spread of logits b", ylim=(logit_std[0], logit_std[-1]))
    ax.figure.colorbar(filled, ax=ax, label=f"error of Eq. 5 (nats); black: {tolerance:g}")
    ax.legend(frameon=True, fontsize="small", loc="upper left")
    return ax


def under_rules(table: pd.DataFrame, training_tokens: int) -> Figure:
    """Entropy, and entropy over ln N, against N for each rule: what each keeps constant.

    Args:
        table: of `scaling.predictions.under_rules`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    palette = colours(table.rule)
    shown = {"entropy": "entropy H (nats)", "entropy_ratio": "H / ln N"}
    for ax, (value, label) in zip(axes, shown.items(), strict=True):
        for name, part in table.groupby("rule", sort=False):
            ax.plot(part.tokens, part[value], color=palette[name], label=name, lw=2)
        _against_tokens(ax, training_tokens)
        ax.set_ylabel(label)
    axes[0].legend(frameon=True, fontsize="small")
    return figure


def predicted_and_measured(table: pd.DataFrame, tolerance: float) -> Figure:
    """Measured entropy against Eq. 5, a panel a size, a point a layer x timestep x head (means over prompts).

    Args:
        table: columns `size, training_tokens, layer, step, branch, head, entropy, gaussian_entropy`.
        tolerance: nats; a band around the line of identity.
    """
    values = ["gaussian_entropy", "entropy"]
    one = ["size", "training_tokens", "layer", "step", "branch", "head"]
    cells, sizes = table.groupby(one, sort=False)[values].mean().reset_index(), table["size"].unique()
    shape = {"squeeze": False, "figsize": (3.4 * len(sizes) + 0.6, 3.6), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(sizes), **shape)
    for ax, size in zip(axes[0], sizes, strict=True):
        part = cells[cells["size"] == size]
        for colour, (level, own) in zip(PALETTE, reversed([*part.groupby("training_tokens")]), strict=False):
            ax.plot(*own[values].to_numpy().T, ".", ms=3, alpha=0.5, color=colour, label=f"T = {level:,}")
        ends = np.array([part[values].min().min(), part[values].max().max()])
        ax.plot(ends, ends, "k-", lw=1)
        ax.fill_between(ends, ends - tolerance, ends + tolerance, color="0.8", zorder=0)
        ax.set(title=size, xlabel="Eq. 5: ln N - b²/2 (nats)", ylim=(part.entropy.min() - 0.3, None))
    axes[0, 0].set_ylabel("measured entropy (nats)")
    axes[0, 0].legend(frameon=True, fontsize="small", markerscale=3)
    return figure


def error_parts(layers: pd.DataFrame, tolerance: float, ax: Axes | None = None) -> Axes:
    """The error of Eq. 5 in each layer as a stack of its causes, the whole as a black mark.

    Args:
        layers: of `entropy.by_layer`, indexed by layer.
    """
    ax = ax or plt.subplots(figsize=_wide_enough(layers.index), layout="constrained")[1]
    position, ends = np.arange(len(layers)), np.zeros((2, len(layers)))  # of the bars above and below zero
    for (name, label), colour in zip(CAUSES.items(), PALETTE, strict=False):
        value = layers[name].to_numpy()
        ax.bar(position, value, 0.6, bottom=np.where(value >= 0, *ends), color=colour, label=label)
        ends += value.clip(min=0), value.clip(max=0)
    ax.plot(position, layers.error, "k_", ms=22, mew=2, label="whole error")
    ax.axhspan(-tolerance, tolerance, color="0.85", zorder=0)
    _name_layers(ax, list(layers.index))
    ax.set(ylabel="measured minus Eq. 5 (nats)")
    ax.legend(frameon=True, fontsize="small")
    return ax


def quantile_plot(quantiles: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """Mean quantiles of logits against normal ones, a panel a layer; the upper tail decides the entropy.

    Args:
        quantiles: of `probes.LogitProbe.quantiles()`, one size and one rule.
        layers: which ones to draw.
    """
    shape = {"squeeze": False, "sharey": True, "figsize": (3.6 * len(layers), 3.6), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(layers), **shape)
    for ax, layer in zip(axes[0], layers, strict=True):
        part = quantiles[quantiles.layer == layer]
        ax.plot(part.normal, part.measured, ".-", ms=5, lw=1)
        ax.axline((0, 0), slope=1, color="k", ls="--", lw=1)
        ax.set(title=f"{short_layer(layer)}, N = {part.tokens.iloc[0]}", xlabel="normal quantile")
    axes[0, 0].set_ylabel("logit, in its row's standard deviations")
    return figure
