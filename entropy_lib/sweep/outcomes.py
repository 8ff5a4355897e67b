"""The numbers of every picture of a comparison, and which of them is decided beforehand to tell of a size's damage."""

import pandas as pd

from entropy_lib.metrics.catalogue import PRIMARY, UNCOUNTED, PictureScore, Score
from entropy_lib.sizes import parse_size
from entropy_lib.sweep.comparison import Comparison


def picture_outcomes(comparison: Comparison) -> pd.DataFrame:
    """Every wanted metric that is a number a picture, of every usable picture. Nothing is drawn.

    Returns:
        one row a picture and metric: `size, method, prompt, seed, metric, value`; NaN where a number cannot be given. Pictures of
        native size stand under the methods that they were drawn by.

    Raises:
        DamagedImageError: for an image that is not what was committed.
    """
    tables = []
    for size, method in comparison.plan.cells:
        usable = comparison.usable(size, method)
        pictures = pd.DataFrame([{"size": size, "method": method, "prompt": u.prompt, "seed": u.seed} for u in usable.keys])
        for metric in comparison.wanted(Score):
            cache = comparison.caches[metric.features]
            values = metric.values(comparison.features(cache, usable), [u.prompt for u in usable.keys], cache.captions)
            tables.append(pictures.assign(metric=metric.name, value=values.double().numpy()))
        for metric in comparison.wanted(PictureScore):
            values = comparison.features(comparison.numbers(metric), usable)[:, 0]
            tables.append(pictures.assign(metric=metric.name, value=values.double().numpy()))
    return pd.concat(tables, ignore_index=True)


def primary_outcomes(comparison: Comparison) -> dict[str, list[str]]:
    """What tells of the damage at each size but the native one: `metrics.catalogue.PRIMARY`, or what stands in for it.

    Returns:
        {size: names of metrics}.
    """
    wanted = {metric.name for metric in comparison.wanted()}
    native = parse_size(comparison.plan.native)
    found = {}
    for size in comparison.plan.sizes:
        height, width = parse_size(size)
        if (height, width) == native:
            continue
        side = "above" if height * width > native[0] * native[1] else "below"
        counted = [name for name in PRIMARY[side] if name in wanted]
        found[size] = counted or [name for name in UNCOUNTED[side] if name in wanted]
    return found
