"""How many things are in each picture, beside how many its prompt asked for."""

import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.catalogue import FINDINGS
from entropy_lib.metrics.layout import layout_values
from entropy_lib.sweep.comparison import Comparison


def things_found(comparison: Comparison) -> pd.DataFrame:
    """Nameable things in every usable picture of a comparison.

    Args:
        comparison: with findings, see `open_comparison`; nothing is drawn.

    Returns:
        One row a picture: `size, method, prompt, seed, asked, things`. Native images stand under the method that they were
        drawn under, once.

    Raises:
        InvalidInputError: for a comparison that nothing finds things in.
    """
    cache = comparison.caches.get(FINDINGS)
    if cache is None:
        raise InvalidInputError(
            "no detector looks at this comparison; it must understand every prompt (captions of scenes) and have room at every size"
        )
    tables = []
    for size, method in comparison.plan.cells:
        usable = comparison.usable(size, method)
        table = pd.DataFrame([{"prompt": unit.prompt, "seed": unit.seed} for unit in usable.keys])
        asked = cache.captions(list(table.prompt))
        found = layout_values(comparison.features(cache, usable), asked)["things"]
        tables.append(table.assign(size=size, method=method, asked=asked[:, 1].int().numpy(), things=found.int().numpy()))
    return pd.concat(tables, ignore_index=True)[["size", "method", "prompt", "seed", "asked", "things"]]
