"""The figures: one function each, a table in, axes out.

Every function takes `ax=None` (or `figure=None` for grids), draws with the theme of `theme()`, and never shows or saves.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entropy_lib.fits import SlopeFit

RULE_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


def theme() -> None:
    """Fonts and grid of all figures of the project; call it once in a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=RULE_COLOURS, rc={"figure.dpi": 110, "axes.titlesize": "medium"})


def colours(rules: Sequence[str]) -> dict[str, str]:
    """A colour for each rule, the same in every figure of a notebook."""
    return {name: RULE_COLOURS[index % len(RULE_COLOURS)] for index, name in enumerate(rules)}


def entropy_vs_tokens(table: pd.DataFrame, fits: Mapping[str, SlopeFit], training_tokens: int, ax: Axes | None = None) -> Axes:
    """Mean entropy against the number of tokens, with fits and a line of slope 1 (the paper's Figure 5).

    Args:
        table: columns `tokens, rule, mean, low, high`, as `fits.cluster_mean` gives them.
        fits: the fitted line of each rule.
        training_tokens: T, marked by a vertical line; the line of slope 1 passes through the first rule's value there.
    """
    ax = ax or plt.subplots(figsize=(6.4, 4.4), layout="constrained")[1]
    palette, grid = colours(list(fits)), np.geomspace(table.tokens.min(), table.tokens.max(), 50)
    for name, fit in fits.items():
        part = table[table.rule == name].sort_values("tokens")
        error = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
        ax.errorbar(part.tokens, part["mean"], yerr=error, fmt="o", color=palette[name], capsize=3, label=f"{name}: slope {fit}")
        ax.plot(grid, fit.predict(grid), color=palette[name], lw=1)
    first = next(iter(fits.values()))
    ax.plot(grid, first.predict(training_tokens) + np.log(grid / training_tokens), "k--", lw=1, label="slope 1")
    ax.axvline(training_tokens, color="0.6", lw=1, zorder=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel="tokens N at the top level (log scale)", ylabel="mean entropy (nats)")
    ax.annotate(
        "T", (training_tokens, 1), xycoords=("data", "axes fraction"), xytext=(3, -12), textcoords="offset points", color="0.4"
    )
    ax.legend(frameon=True, fontsize="small")
    return ax


def entropy_per_layer(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean entropy of each layer by size and rule (the paper's Figure 6).

    Args:
        table: columns `layer, size, rule, mean, low, high`; layers in order of execution, the first rule unscaled.
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
            error = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
            ax.errorbar(
                position + 0.1 * (offset - (len(rules) - 1) / 2), part["mean"], yerr=error, color=palette[name], capsize=2,
                marker=styles[size], markersize=5, lw=1, label=f"{size} {name}",
            )  # fmt: skip
    ax.set_xticks(position, [short_layer(layer) for layer in layers])
    ax.set(xlabel="self-attention layer, in order of execution", ylabel="mean entropy (nats)")
    ax.legend(frameon=True, fontsize="small", ncols=len(sizes), loc="upper center", bbox_to_anchor=(0.5, 1.22))
    return ax


def short_layer(name: str) -> str:
    """A layer's name short enough for an axis: "down_blocks.0.attentions.1…attn1" → "down 0.1".

    Example:
        >>> short_layer("mid_block.attentions.0.transformer_blocks.0.attn1")
        'mid 0'
    """
    parts = name.split(".")
    numbers = (
        [part for part in parts[: parts.index("transformer_blocks")] if part.isdigit()] if "transformer_blocks" in parts else []
    )
    return f"{parts[0].split('_')[0]} {'.'.join(numbers)}".strip() if numbers else name


def image_grid(
    images: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], zoom: float = 1.0, figure: Figure | None = None
) -> Figure:
    """Rows of images at their true relative size: one row a key, one column a prompt.

    Args:
        images: {row label: one uint8 `[height, width, 3]` image a column}; sizes may differ between rows.
        columns: text above each column (long prompts are wrapped).
        zoom: screen pixels for each image pixel.
    """
    heights = [max(image.shape[0] for image in row) for row in images.values()]
    widths = [max(row[index].shape[1] for row in images.values()) for index in range(len(columns))]
    scale = zoom / 100
    figure = figure or plt.figure(figsize=(sum(widths) * scale + 1.8, sum(heights) * scale + 0.7), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights, "width_ratios": widths})
    for row, (label, pictures) in zip(axes, images.items(), strict=True):
        for ax, picture, width in zip(row, pictures, widths, strict=True):
            _picture(ax, picture, width)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    for ax, text in zip(axes[0], columns, strict=True):
        ax.set_title(_wrapped(text), fontsize="small")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    return figure


def _picture(ax: Axes, picture: np.ndarray, width: int) -> None:
    """Draw a picture in the middle of its column, at the scale of the widest one."""
    ax.imshow(picture, interpolation="nearest")
    left = (width - picture.shape[1]) / 2
    ax.set(xlim=(-left - 0.5, picture.shape[1] + left - 0.5), xticks=[], yticks=[])
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)


def _wrapped(text: str, width: int = 14) -> str:
    return "\n".join(textwrap.wrap(text, width))
