"""How a cost grows with the number of tokens: its exponent, and where attention takes over."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics.interval import Interval, check_level


def exponent(tokens: Sequence[float], cost: Sequence[float], level: float = 0.95) -> Interval:
    """e of cost ~ N^e, least squares on logarithms, with a t interval over the sizes.

    The interval says how well one power describes these sizes; a cost of several parts (N and N²) has no single exponent.

    Args:
        tokens: N, three different ones at least.
        cost: above 0, one for each.
        level: of the interval.

    Raises:
        InvalidInputError: for fewer than three sizes, and numbers that are not above 0.

    Example:
        >>> print(exponent([64, 256, 1024], [1, 16, 256]))
        2 [2, 2]
    """
    from scipy import stats

    check_level(level)
    if len(set(tokens)) < 3 or len(tokens) != len(cost):
        raise InvalidInputError(f"{len(set(tokens))} sizes and {len(cost)} costs; an exponent with an interval needs three sizes")
    if min(tokens) <= 0 or min(cost) <= 0:
        raise InvalidInputError(f"tokens go down to {min(tokens):g} and costs to {min(cost):g}; both must be above 0")
    line = stats.linregress(np.log(tokens), np.log(cost))
    return Interval.around(float(line.slope), float(line.stderr), level, len(tokens) - 1)


def crossover(tokens: Sequence[float], share: Sequence[float], at: float = 0.5) -> float:
    """The number of tokens from which a share is beyond `at`; NaN where it is not within what was measured.

    Between sizes it is read off a straight line over ln N.

    Example:
        >>> round(crossover([100, 400, 1600], [0.2, 0.4, 0.6]))
        800
    """
    table = pd.DataFrame({"tokens": tokens, "share": share}).groupby("tokens").share.mean()
    above = np.flatnonzero(table.to_numpy() >= at)
    if not len(above) or above[0] == 0:
        return float("nan")
    pair = table.iloc[above[0] - 1 : above[0] + 1]
    return float(np.exp(np.interp(at, pair.to_numpy(), np.log(pair.index.to_numpy(dtype=float)))))
