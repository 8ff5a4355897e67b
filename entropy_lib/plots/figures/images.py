"""Figures of images: grids, what was found, what attention looks at (notebooks 00, 04, 05, 07, 09)."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.entropy.attention import AttentionMap
from entropy_lib.errors import extra
from entropy_lib.metrics.layout import LEGIBLE
from entropy_lib.plots.labels import short_layers

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

BRACKET = re.compile(r"(?=[(@\[])(?!.+[(@\[])")  # before the last one


def image_grid(
    images: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], zoom: float = 1.0
) -> Figure:
    """Rows of images at their true relative size: one row a key, one column a prompt.

    Args:
        images: {row label: one uint8 `[height, width, 3]` image a column}; sizes may differ between rows.
        columns: text above each column; shown as it is, wrapped, and cut off with an ellipsis where it is
        long.
        zoom: screen pixels for each image pixel.
    """
    heights = [max(image.shape[0] for image in row) for row in images.values()]
    words = round(125 / zoom)  # pixels that the text above a column takes
    widths = [max(words, *(row[index].shape[1] for row in images.values())) for index in range(len(columns))]
    titles, scale = [_wrapped(text) for text in columns], zoom / 100
    room = 0.3 + 0.2 * max(title.count("\n") + 1 for title in titles)
    beside = 1.8 if any(images) else 0.1  # inches for the labels of rows
    inches = sum(widths) * scale + beside, sum(heights) * scale + room
    figure = plt.figure(figsize=inches, layout="constrained")
    ratios = {"height_ratios": heights, "width_ratios": widths}
    axes = figure.subplots(len(images), len(columns), squeeze=False, gridspec_kw=ratios)
    for row, (label, shown) in zip(axes, images.items(), strict=True):
        for ax, image, width in zip(row, shown, widths, strict=True):
            _centred(ax, image, width)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small", parse_math=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize="small", parse_math=False)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    return figure


def _centred(ax: Axes, image: np.ndarray, width: int) -> None:
    """Draw an image in the middle of its column, at the scale of the widest one."""
    ax.imshow(image, interpolation="nearest")
    left = (width - image.shape[1]) / 2
    ax.set(xlim=(-left - 0.5, image.shape[1] + left - 0.5), xticks=[], yticks=[])
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)


def _wrapped(text: str, width: int = 13, lines: int = 6) -> str:
    """In lines; a long name of a method breaks before its last bracket, "padding(circular)" for one."""
    text = " ".join(BRACKET.sub(" ", word) if len(word) > width else word for word in text.split())
    return "\n".join(textwrap.wrap(text[: width * lines * 2], width, max_lines=lines, placeholder=" …"))


def found_things(
    images: Sequence[np.ndarray], found: pd.DataFrame, columns: Sequence[str], zoom: float = 1.5
) -> Figure:
    """Images with a box around each thing that was found in them: named, or dashed where it has no name.

    Args:
        images: uint8 `[height, width, 3]`, one a column.
        found: columns `image` (which image), `name, legible, top, left, bottom, right` (pixels).
        columns: text above each image.
        zoom: screen pixels for each image pixel.
    """
    figure = image_grid({"": images}, columns, zoom)
    for ax in figure.axes:
        ax.set_anchor("S")  # what room is left belongs to the text above
    for row in found.itertuples():
        ax, named = figure.axes[row.picture], row.legible >= LEGIBLE
        size, line = (row.right - row.left, row.bottom - row.top), "-" if named else ":"
        box = plt.Rectangle((row.left - 0.5, row.top - 0.5), *size, fill=False, ls=line, ec="w", lw=1.5)
        look = {"color": "w", "fontsize": "x-small", "va": "top", "clip_on": True}
        name = ax.text(row.left, max(row.top, 0), row.name if named else "?", **look)
        for drawn in (ax.add_patch(box), name):
            drawn.set_in_layout(False)
    return figure


def attention_of_a_query(maps: Mapping[str, AttentionMap], images: Mapping[str, np.ndarray]) -> Figure:
    """Where one query looks, a row a size or rule: the image, the weights, and the entropy of all queries.

    Args:
        maps: {size: map of one layer at one step}.
        images: {size: the image that was generated, uint8 `[height, width, 3]`}.
    """
    figure = plt.figure(figsize=(8.4, 2.5 * len(maps) + 0.4), layout="constrained")
    axes = figure.subplots(len(maps), 3, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (size, found), row in zip(maps.items(), axes, strict=True):
        height, width = images[size].shape[:2]
        # laid over the image, in its pixels
        over = {"extent": (0, width, height, 0), "interpolation": "nearest", "vmin": 0}
        sides = zip(found.query, (height, width), found.weights.shape, strict=True)
        down, across = ((place + 0.5) * side / count for place, side, count in sides)
        row[0].imshow(images[size], interpolation="nearest")
        row[1].imshow(found.weights, cmap="magma", **over)
        shown = row[2].imshow(found.entropy / math.log(found.tokens), cmap="viridis", vmax=1, **over)
        for ax in row[:2]:
            ax.plot(across, down, "o", ms=9, mfc="none", mec="white", mew=3)
            ax.plot(across, down, "o", ms=9, mfc="none", mec="black", mew=1)
        row[0].set_ylabel(size, rotation=0, ha="right", va="center")
        row[1].set_title(f"$e^H$ = {found.spread:,.0f} of {found.tokens:,} tokens", fontsize="medium")
        figure.colorbar(shown, ax=row[2], shrink=0.8, label="H / ln N")
    axes[0, 0].set_title("the image, and one query", fontsize="medium")
    axes[0, 2].set_title("entropy of every query", fontsize="medium")
    return figure


def entropy_maps(maps: Mapping[str, Sequence[AttentionMap]]) -> Figure:
    """Entropy of every query over the image, in units of ln N: layers as rows, sizes as columns.

    Args:
        maps: {size: one map a layer}, the same layers at each size.
    """
    layers = [found.layer for found in next(iter(maps.values()))]
    figure, axes = _panels(layers, {size: found[0].entropy for size, found in maps.items()})
    for column, found in zip(axes.T, maps.values(), strict=True):
        for ax, one in zip(column, found, strict=True):
            look = {"cmap": "viridis", "interpolation": "nearest", "vmin": 0, "vmax": 1}
            shown = ax.imshow(one.entropy / math.log(one.tokens), **look)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="H / ln N")
    return figure


def mass_maps(rows: Mapping[str, Sequence[Mapping]], layers: Sequence[str]) -> Figure:
    """The mass that each key is given, in even shares of its layer: layers as rows, sizes as columns.

    Args:
        rows: {size: `rows` of a `probes.MassProbe`}; images, heads and branches are averaged.
        layers: which ones to show.
    """
    figure, axes = _panels(layers, {size: found[0]["mass"] for size, found in rows.items()})
    for column, found in zip(axes.T, rows.values(), strict=True):
        for ax, layer in zip(column, layers, strict=True):
            mass = np.mean([row["mass"] for row in found if row["layer"] == layer], 0)
            look = {"cmap": "RdBu_r", "interpolation": "nearest", "norm": LogNorm(1 / 8, 8)}
            shown = ax.imshow(mass / mass.mean(), **look)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, label="mass, in even shares", extend="both")
    bar.ax.set_yticks([1 / 8, 1 / 2, 1, 2, 8], ["1/8", "1/2", "1", "2", "8"])
    bar.ax.minorticks_off()
    return figure


def _panels(layers: Sequence[str], sizes: Mapping[str, np.ndarray]) -> tuple[Figure, np.ndarray]:
    """A panel for each layer and size, of one height and as wide as the map of its size."""
    widths = [one.shape[1] / one.shape[0] for one in sizes.values()]
    inches = 1.2 * sum(widths) + 2.2, 1.2 * len(layers) + 0.5
    figure = plt.figure(figsize=inches, layout="compressed")
    bare = {"width_ratios": widths, "subplot_kw": {"xticks": [], "yticks": []}}
    axes = figure.subplots(len(layers), len(widths), squeeze=False, **bare)
    for ax, size in zip(axes[0], sizes, strict=True):
        ax.set_title(size, fontsize="small")
    for ax, name in zip(axes[:, 0], short_layers(layers), strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    return figure, axes
