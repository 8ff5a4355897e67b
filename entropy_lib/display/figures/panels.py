"""What all figures share: the theme, colours and markers, and how panels stand."""

import itertools
import math
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import extra
from entropy_lib.metrics.catalogue import METRICS

with extra("notebooks"):
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def markers_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A marker and a colour for each of many names; no pair twice."""
    return dict(zip(names, zip(itertools.cycle("osD^vPX"), itertools.cycle(RULE_COLOURS), strict=False), strict=False))


def grid_of(panels: int, most: int = 4) -> tuple[int, int]:
    """Columns and rows of some panels, at most four beside each other, the rows as full as can be."""
    rows = math.ceil(panels / most)
    return math.ceil(panels / rows), rows


def panels_of(figure: Figure, count: int, sharey: bool = False) -> list[Axes]:
    """That many panels in rows; places that are left over stay empty."""
    columns, rows = grid_of(count)
    every = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for empty in every[count:]:
        empty.remove()
    return list(every[:count])


def change_lines(ax: Axes, changes: pd.DataFrame, metric: str, palette: Sequence[str]) -> None:
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
