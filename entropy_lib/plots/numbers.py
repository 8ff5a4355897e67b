"""How numbers are written everywhere: as many digits as their interval gives them, never more."""

import math


def decimals(low: float, high: float, otherwise: int = 3) -> int:
    """Decimals for two significant figures of an interval's half-width; `otherwise` without an interval.

    Example:
        >>> decimals(8.6, 14.4), decimals(1.0003, 1.005), decimals(math.nan, math.nan)
        (1, 4, 3)
    """
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return otherwise
    return min(max(1 - math.floor(round(math.log10(half), 6)), 0), 8)


def interval(value: float, low: float, high: float, otherwise: int = 3) -> str:
    """A value with its interval, to two significant figures of the half-width, or the value alone.

    Args:
        otherwise: decimals of a value without bounds.

    Example:
        >>> interval(0.951, 0.93, 0.972), interval(0.951, math.nan, math.nan, 1)
        ('0.951 [0.930, 0.972]', '1.0')
    """
    digits = decimals(low, high, otherwise)
    text = f"{value:.{digits}f}"
    return text if math.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def percent(share: float, low: float = math.nan, high: float = math.nan) -> str:
    """A fraction as per cent, with its interval where there is one.

    Example:
        >>> percent(0.123, 0.1, 0.146), percent(0.5)
        ('12.3 % [10.0, 14.6]', '50 %')
    """
    value, _, bounds = interval(100 * share, 100 * low, 100 * high, otherwise=0).partition(" ")
    return f"{value} % {bounds}".strip()


def chance(p_value: float) -> str:
    """A p-value, to three figures.

    Example:
        >>> chance(0.0713), chance(1e-9), chance(math.nan)
        ('0.0713', '< 0.001', '–')
    """
    if math.isnan(p_value):
        return "–"
    return f"{p_value:.3g}" if p_value >= 0.001 else "< 0.001"


def significant(p_value: float, level: float) -> bool:
    """Whether a p-value, as it is shown, is at most one minus the level; NaN is not."""
    return float(f"{p_value:.3g}") <= round(1 - level, 9)


def side(low: float, high: float, of: float) -> str:
    """Whether an interval, as it is shown, lies "above" or "below" a value or "holds" it; "" without one.

    Rounded first, so that what is said never contradicts what is printed.

    Example:
        >>> side(1.00001, 1.005, of=1.0), side(1.0003, 1.005, of=1.0)
        ('holds', 'above')
    """
    if math.isnan(low) or math.isnan(of):
        return ""
    digits = decimals(low, high)
    low, high, of = (round(bound, digits) for bound in (low, high, of))
    return "above" if low > of else "below" if high < of else "holds"
