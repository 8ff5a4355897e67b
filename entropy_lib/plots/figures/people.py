"""What raters prefer: a table of the study's analysis in, axes out."""

import pandas as pd

from entropy_lib.errors import extra
from entropy_lib.plots.figures.panels import PALETTE, colours, interval_line

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes


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
