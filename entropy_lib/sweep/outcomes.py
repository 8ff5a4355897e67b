"""The numbers of every image of a comparison, and which of them are decided beforehand to tell of a size's
damage.
"""

import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.layout import layout_values
from entropy_lib.metrics.registry import FINDINGS, PRIMARY, UNCOUNTED
from entropy_lib.sizes import Size
from entropy_lib.sweep.comparison import Comparison, UsableImages


def image_outcomes(comparison: Comparison) -> pd.DataFrame:
    """Every wanted metric that is a number an image, of every usable image. Nothing is drawn.

    Returns:
        one row an image and metric: `size, method, prompt, seed, metric, value`; NaN where a number cannot be
        given. Images of native size stand under the methods that they were drawn by.

    Raises:
        DamagedImageError: for an image that is not what was committed.
    """
    tables = []
    for size, method in comparison.plan.cells:
        images = comparison.usable(size, method)
        for name, values in comparison.sample(images).scores.items():
            tables.append(_rows(size, method, images).assign(metric=name, value=values))
    return pd.concat(tables, ignore_index=True)


def things_found(comparison: Comparison) -> pd.DataFrame:
    """Nameable things in every usable image of a comparison, beside how many its prompt asks for. Nothing is
    drawn.

    Returns:
        one row an image: `size, method, prompt, seed, asked, things`; images of native size as in
            `image_outcomes`.

    Raises:
        InvalidInputError: for a comparison that nothing finds things in.
    """
    if FINDINGS not in comparison.caches:
        raise InvalidInputError(
            "no detector looks at this comparison; it must understand every prompt (captions of scenes) and have room at every size"
        )
    tables = []
    for size, method in comparison.plan.cells:
        images = comparison.usable(size, method)
        sample = comparison.sample(images)
        asked = comparison.caches[FINDINGS].captions(sample.prompts)
        found = layout_values(sample.features(FINDINGS), asked)["things"]
        counted = {"asked": asked[:, 1].int().numpy(), "things": found.int().numpy()}
        tables.append(_rows(size, method, images).assign(**counted))
    return pd.concat(tables, ignore_index=True)


def _rows(size: str, method: str, images: UsableImages) -> pd.DataFrame:
    return pd.DataFrame(
        [{"size": size, "method": method, "prompt": u.prompt, "seed": u.seed} for u in images.keys]
    )


def primary_outcomes(comparison: Comparison) -> dict[str, list[str]]:
    """What tells of the damage at each size but the native one: `metrics.registry.PRIMARY`, or what stands in
    for it.

    Returns:
        {size: names of metrics}.
    """
    wanted = {metric.name for metric in comparison.wanted()}
    plan, found = comparison.plan, {}
    for size in plan.sizes:
        if size != plan.native:
            side = "above" if Size.parse(size).pixels > Size.parse(plan.native).pixels else "below"
            counted = [name for name in PRIMARY[side] if name in wanted]
            found[size] = counted or [name for name in UNCOUNTED[side] if name in wanted]
    return found
