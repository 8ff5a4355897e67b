"""A value against ln height and ln width apart: whether it follows the area, or one side alone.

Where both slopes are the same, the area is all that counts, and each is the slope on ln N.
"""

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError, extra
from entropy_lib.statistics.interval import Interval, check_level


def slopes_on_sides(
    table: pd.DataFrame, value: str = "entropy", cluster: str = "prompt", level: float = 0.95
) -> dict[str, Interval]:
    """Fit `value` = a + b ln `height` + c ln `width` with cluster-robust intervals.

    Args:
        table: one row a measurement, with columns `height, width`; sizes of several shapes.
        value, cluster: column names.
        level: of the intervals.

    Returns:
        {"height": b, "width": c}.

    Raises:
        InvalidInputError: for missing values, one cluster, and where height and width do not vary apart.

    Example:
        >>> sizes = [(8, 8), (8, 16), (16, 8), (16, 16)]
        >>> rows = [(p, h, w, p + 0.5 * np.log(h)) for p in range(3) for h, w in sizes]
        >>> fit = slopes_on_sides(pd.DataFrame(rows, columns=["prompt", "height", "width", "entropy"]))
        >>> round(fit["height"].estimate, 3), abs(round(fit["width"].estimate, 3))
        (0.5, 0.0)
    """
    with extra("metrics"):
        import statsmodels.api as sm

    check_level(level)
    names = ["height", "width", value, cluster]
    if missing := [name for name in names if name not in table or table[name].isna().any()]:
        raise InvalidInputError(f"column {missing[0]!r} is not in the table, or has missing values")
    design = sm.add_constant(np.log(table[["height", "width"]].to_numpy(float)), has_constant="add")
    clusters = table[cluster].nunique()
    if np.linalg.matrix_rank(design) < 3 or clusters < 2:
        sizes = sorted({f"{height}x{width}" for height, width in zip(table.height, table.width, strict=True)})
        raise InvalidInputError(
            f"{clusters} clusters of {cluster!r} and sizes {', '.join(sizes)}; slopes apart need two "
            "clusters, and sizes of several shapes, as 64x64, 64x128 and 128x64"
        )
    options = {"groups": pd.factorize(table[cluster])[0]}
    fit = sm.OLS(table[value].to_numpy(float), design).fit(cov_type="cluster", cov_kwds=options, use_t=True)
    sides = zip(("height", "width"), fit.params[1:], fit.bse[1:], strict=True)
    return {name: Interval.around(slope, error, level, clusters) for name, slope, error in sides}
