"""One type for every number that is uncertain: an estimate, its limits, and what they rest on.

Example:
    >>> print(wilson(14, 20))
    0.7 [0.481, 0.855]
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from entropy_lib.errors import InvalidInputError, extra

EQUAL = 1e-12  # a standard error that is a smaller part of its estimate is what rounding leaves of none


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty, in the units of the statistic.

    Attributes:
        estimate: of the statistic.
        low, high: confidence limits; NaN where there is too little to have any.
        level: of the interval.
        standard_error: of the estimate; NaN where the limits come another way.
        blocks: on how many independent units it rests (clusters, or blocks deleted in turn); t has one degree of freedom
            fewer. None: normal limits.
    """

    estimate: float
    low: float
    high: float
    level: float
    standard_error: float = math.nan
    blocks: int | None = None

    @classmethod
    def around(cls, estimate: float, standard_error: float, level: float = 0.95, blocks: int | None = None) -> "Interval":
        """The t interval of blocks - 1 degrees of freedom; the normal one where `blocks` is None; no limits for one block."""
        from scipy import stats

        check_level(level)
        reach = stats.t.ppf((1 + level) / 2, _freedom(blocks)) * standard_error
        return cls(float(estimate), float(estimate - reach), float(estimate + reach), level, float(standard_error), blocks)

    @property
    def p_value(self) -> float:
        """Two-sided, for the hypothesis that the true value is 0; of blocks that are all the same, that of the sign test."""
        from scipy import stats

        if self.standard_error <= EQUAL * abs(self.estimate):  # no spread at all: as many signs that are the same
            return 1.0 if self.estimate == 0 else 0.0 if self.blocks is None else min(2.0 ** (1 - self.blocks), 1.0)
        return float(2 * stats.t.sf(abs(self.estimate) / self.standard_error, _freedom(self.blocks)))

    def columns(self, name: str = "estimate") -> dict[str, float]:
        """What it is in a row of a table: the estimate under its name, `low` and `high`."""
        return {name: self.estimate, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def check_level(level: float) -> None:
    """Raise InvalidInputError unless `level` lies between 0 and 1."""
    if not isinstance(level, Real) or not 0 < level < 1:
        raise InvalidInputError(f"level is {level!r}; it must lie between 0 and 1, for example 0.95")


def _freedom(blocks: int | None) -> float:
    return math.inf if blocks is None else blocks - 1.0


def wilson(hits: int, count: int, level: float = 0.95) -> Interval:
    """The share `hits` / `count` of independent images with Wilson's limits (J. Am. Stat. Assoc. 22, 1927).

    Example:
        >>> share = wilson(0, 20)
        >>> share.estimate, round(share.low, 3), round(share.high, 3)
        (0.0, 0.0, 0.161)
    """
    with extra("metrics"):
        from statsmodels.stats.proportion import proportion_confint

    check_level(level)
    whole = isinstance(hits, Integral) and isinstance(count, Integral)
    if not whole or not 0 <= hits <= count or count == 0:
        raise InvalidInputError(f"{hits} hits of {count}; hits must be 0 to count, and count above 0")
    low, high = proportion_confint(hits, count, alpha=1 - level, method="wilson")
    return Interval(hits / count, float(low), float(high), level)
