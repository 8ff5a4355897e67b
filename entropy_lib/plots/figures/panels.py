"""What all figures share: the theme, the colour and marker of each method, panels, direct labels."""

import itertools
import math
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import extra
from entropy_lib.metrics.registry import METRICS

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = tuple(f"#{code}" for code in (
    "4c72b0", "dd8452", "55a868", "c44e52", "8172b3", "937860", "da8bc3", "2f9e9e", "b8a02c", "64b5cd"
))  # fmt: skip
FIRST = ("unscaled", "paper", "power(2)", "power(4)", "equal-entropy(heads)")
KNOWN = dict(zip(FIRST, PALETTE, strict=False))
KNOWN |= {"real, resized": "#555555", "native, resized": "#999999"}


def theme() -> None:
    """Fonts and grid of all figures; call it once in a notebook: its figures are then sharp on any screen."""
    sizes = {"figure.dpi": 110, "axes.titlesize": "medium"}
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, rc=sizes)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        with extra("notebooks"):
            from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("retina")  # twice the pixels at the same size


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each method, rule, model or rater, by its name: the same in every figure.

    Those that are not in `KNOWN` take one by the checksum of their name, or the next that no other in the
    figure has.
    """
    names = list(dict.fromkeys(names))
    found = {name: KNOWN[name] for name in names if name in KNOWN}
    for name in names:
        if name not in found:
            start = zlib.crc32(name.encode())
            turns = [PALETTE[(start + step) % len(PALETTE)] for step in range(len(PALETTE))]
            found[name] = next((colour for colour in turns if colour not in found.values()), turns[0])
    return {name: found[name] for name in names}


def looks_of(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Marker and colour of each of many names, as arguments of `errorbar`."""
    markers = itertools.cycle("osD^vPX")
    return {name: {"color": colour, "fmt": next(markers)} for name, colour in colours(names).items()}


def panels_of(
    count: int, width: float, height: float, most: int = 4, **shared: bool
) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, each so many inches, the rows as full as can be."""
    rows = math.ceil(count / most)
    columns = math.ceil(count / rows)
    size = max(width * columns, 6) + 0.6, height * rows + 0.4
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained", **shared)
    for empty in axes.flat[count:]:
        empty.remove()
    return figure, list(axes.flat[:count])


def errors_of(table: pd.DataFrame, times: float = 1) -> np.ndarray:
    """Lengths of the bars of an interval, below and above the estimate."""
    bounds = table[["low", "high"]].to_numpy(dtype=float).T
    return times * np.abs(bounds - table.estimate.to_numpy(dtype=float))


def label_points(
    ax: Axes, names: pd.Series, across: pd.Series, up: pd.Series, palette: Mapping[str, str]
) -> None:
    """Names beside points, in data coordinates, each moved up as far as it takes to hide no other."""
    line, taken = 0.13 * ax.figure.dpi, []
    for index in np.argsort(up.to_numpy()):
        name, place = names.iloc[index], (across.iloc[index], up.iloc[index])
        x, y = ax.transData.transform(place)
        height = y
        while any(abs(x - other) < 9 * line and abs(height - text) < line for other, text in taken):
            height += line / 4
        taken.append((x, height))
        style = {"color": palette[name], "fontsize": "x-small", "va": "center", "textcoords": "offset points"}
        ax.annotate(name, place, xytext=(6, (height - y) * 72 / ax.figure.dpi), **style)


def interval_line(
    ax: Axes, position: float, value: float, low: float, high: float, colour: str, label: str | None = None
) -> None:
    """A value as a point on the line of its interval, across."""
    ax.plot([low, high], [position] * 2, color=colour, lw=2, solid_capstyle="butt")
    ax.plot(value, position, "o", ms=5, color=colour, label=label)


def difference_lines(ax: Axes, table: pd.DataFrame, metric: str, palette: Sequence[str]) -> None:
    """Differences with their intervals below each other, a row a line; the better side is tinted."""
    times = METRICS[metric].times
    for position, (row, colour) in enumerate(zip(table.itertuples(), palette, strict=True)):
        interval_line(ax, position, times * row.estimate, times * row.low, times * row.high, colour)
    half = 1.15 * times * np.nanmax(np.abs(table[["low", "high"]].to_numpy())) or 1.0  # of nothing but zeros
    if METRICS[metric].directed:
        better = (0, half) if METRICS[metric].higher_is_better else (-half, 0)
        ax.axvspan(*better, color="#55a868", alpha=0.08, lw=0)
    ax.axvline(0, color="k", lw=1)
    ax.set(xlim=(-half, half), ylim=(len(palette) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=4)
