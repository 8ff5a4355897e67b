"""How numbers are written in tables, figures and sentences: as many digits as their interval gives them, never more."""

import math
from collections.abc import Iterable


def decimals(low: float, high: float, otherwise: int = 3) -> int:
    """Decimals that show two significant figures of an interval's half-width; `otherwise` where there is no interval.

    Example:
        >>> decimals(8.6, 14.4), decimals(1.0003, 1.005), decimals(math.nan, math.nan)
        (1, 4, 3)
    """
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return otherwise
    return min(max(1 - math.floor(round(math.log10(half), 6)), 0), 8)


def interval(value: float, low: float, high: float, otherwise: int = 3) -> str:
    """A value with its interval, to two significant figures of the half-width; without limits, the value alone.

    Args:
        otherwise: decimals of a value without limits.

    Example:
        >>> interval(0.951, 0.93, 0.972), interval(0.951, math.nan, math.nan, 1)
        ('0.951 [0.930, 0.972]', '1.0')
    """
    digits = decimals(low, high, otherwise)
    text = f"{value:.{digits}f}"
    return text if math.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def percent(share: float, low: float = math.nan, high: float = math.nan) -> str:
    """A share as per cent, with its interval where there is one.

    Example:
        >>> percent(0.123, 0.1, 0.146), percent(0.5)
        ('12.3 % [10.0, 14.6]', '50 %')
    """
    value, _, limits = interval(100 * share, 100 * low, 100 * high, otherwise=0).partition(" ")
    return f"{value} % {limits}".strip()


def chance(p_value: float) -> str:
    """A p-value as it stands beside an interval, to three figures.

    Example:
        >>> chance(0.0713), chance(1e-9), chance(math.nan)
        ('p = 0.0713', 'p < 0.001', 'no p')
    """
    if math.isnan(p_value):
        return "no p"
    return f"p = {p_value:.3g}" if p_value >= 0.001 else "p < 0.001"


def side(low: float, high: float, of: float) -> str:
    """Whether an interval lies "above" or "below" a value or "holds" it, all as they are shown; "" without an interval.

    Rounded first, so that what is said never contradicts what is printed.

    Example:
        >>> side(1.00001, 1.005, of=1.0), side(1.0003, 1.005, of=1.0)
        ('holds', 'above')
    """
    if math.isnan(low) or math.isnan(of):
        return ""
    digits = decimals(low, high)
    low, high, of = (round(limit, digits) for limit in (low, high, of))
    return "above" if low > of else "below" if high < of else "holds"


def listed(names: Iterable[object]) -> str:
    """Names in a sentence.

    Example:
        >>> listed(["32x32", "64x64", "96x96"])
        '32x32, 64x64 and 96x96'
    """
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
