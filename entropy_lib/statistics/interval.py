"""One type for every number that is uncertain: an estimate, its limits, and what they rest on."""

import math
from dataclasses import dataclass, replace
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
        blocks: on how many independent units it rests (clusters, or blocks deleted in turn); t has one degree
            of freedom fewer. None: normal limits.
        way: how the error was found, where there are several ways: "influence" or "blocks".
    """

    estimate: float
    low: float
    high: float
    level: float
    standard_error: float = math.nan
    blocks: int | None = None
    way: str = ""

    @classmethod
    def around(
        cls, estimate: float, standard_error: float, level: float = 0.95, blocks: int | None = None
    ) -> "Interval":
        """The t interval of blocks - 1 degrees of freedom; normal where `blocks` is None; NaN for one."""
        from scipy import stats

        check_level(level)
        reach = stats.t.ppf((1 + level) / 2, _freedom(blocks)) * standard_error
        low, high = float(estimate - reach), float(estimate + reach)
        return cls(float(estimate), low, high, level, float(standard_error), blocks)

    def within(self, least: float, most: float = math.inf, answers: int | None = None) -> "Interval":
        """The same with limits that a mean of bounded numbers can have, and an error if it were 0.

        The spread of such a mean depends on the mean itself, which the limits are solved for: Wilson's (1927)
        for a share, with t in place of the normal, on the number of answers that the standard error stands
        for; the like for counts, which have no upper bound. Where all answers are the same, they are taken as
        so many independent ones.

        Args:
            least, most: what the numbers lie between.
            answers: independent ones where the estimate has no error; as many as blocks if not given.

        Example:
            >>> print(Interval.around(1.0, 0.0, blocks=20).within(0, 1))           # twenty of twenty
            1 [0.813, 1]
        """
        from scipy import stats

        square = float(stats.t.ppf((1 + self.level) / 2, _freedom(self.blocks))) ** 2
        width, mean = most - least, self.estimate - least

        def variance(of: float) -> float:
            """Of one answer, in units of the width: a share's, or without an upper bound a count's."""
            return max(of * (1 - of / width), 0.0)

        error = 0.0 if self.standard_error <= EQUAL * abs(self.estimate) else self.standard_error
        alike = ((answers or self.blocks or 2) - 1.0) / (1 if most == math.inf else width)
        size = variance(mean) / error**2 if error else alike
        middle, shrink = mean + square / size / 2, 1 + square / size / width
        half = math.sqrt(square / size * (variance(mean) + square / size / 4))
        low, high = (min(max(least + (middle + side * half) / shrink, least), most) for side in (-1, 1))
        # which rounding may have crossed, as it may the limits below
        estimate = min(max(self.estimate, least), most)
        low, high = min(low, estimate), max(high, estimate)
        error = math.sqrt(variance(-least) / size) or math.nan  # where 0 is no answer nothing is tested
        return replace(self, estimate=estimate, low=low, high=high, standard_error=error)

    @property
    def p_value(self) -> float:
        """Two-sided, for a true value of 0; of blocks that are all the same, the sign test's."""
        from scipy import stats

        # no spread at all: as many signs that are the same
        if self.standard_error <= EQUAL * abs(self.estimate):
            alike = 0.0 if self.blocks is None else min(2.0 ** (1 - self.blocks), 1.0)
            return 1.0 if self.estimate == 0 else alike
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
