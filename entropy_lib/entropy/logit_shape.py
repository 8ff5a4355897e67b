"""How Gaussian logits are, and what it costs Eq. 5 where they are not: in nats, not in p-values.

Any test rejects normality once a row is long enough, so the size of the deviation is what is measured. For
one row of N logits with variance s² (divided by N), Eq. 5 says ln N - s²/2. Its error on a layer is split
exactly into three causes, b² being the mean of s² over rows:

    H - (ln N - b²/2)  =  finite_tokens + row_spread + non_gaussian

    finite_tokens   exact_entropy at b minus Eq. 5: what Gaussian logits of that spread have at this N
    row_spread      mean over rows of exact_entropy at each row's own spread, minus that at b (Jensen)
    non_gaussian    measured entropy minus that mean: the shape of the logits; for many tokens it is close to
                    `cumulants` = -κ3/3 - κ4/8 (see `entropy.cumulant_entropy`)

A row's variance divides by N, which takes off b²/N on average; `exact_entropy` is asked for the law that rows
are drawn from, so it gets s² N/(N - 1).

`probes.LogitProbe` sums these statistics while a model runs; `by_layer` reads its table.
"""

import functools
import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.stats import norm
from torch import Tensor

from entropy_lib.entropy import exact_entropy
from entropy_lib.errors import InvalidInputError

SPLINE_STD = 32.0  # largest b of a row; the exact law takes seconds a point beyond it
# side of the square of neighbouring keys whose mean is compared with the mean of keys from anywhere
SQUARE = 2


def standardised(logits: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch key"]:
    """Each row in standard deviations from its own mean."""
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


def row_statistics(
    logits: Float[Tensor, "*batch key"], grid: tuple[int, int]
) -> dict[str, Float[Tensor, "*batch"]]:
    """What `LogitProbe` sums, for each row.

    Args:
        logits: scaled, `[..., N]`, floating point; float64 keeps the higher cumulants exact.
        grid: (height, width) of the keys, for their neighbourhoods.

    Returns:
        `[...]` for each statistic by its name; NaN for a row that holds NaN or infinity, and `exact_per_row`
        also where the row's logit_std is beyond `SPLINE_STD`.
    """
    _check_logits(logits, grid)
    tokens = logits.shape[-1]
    log_weight = logits.log_softmax(-1)
    weight = log_weight.exp()
    from_weighted_mean = logits - (weight * logits).sum(-1, keepdim=True)
    centred = logits - logits.mean(-1, keepdim=True)
    variance, third, fourth = (centred.pow(order).mean(-1) for order in (2, 3, 4))
    scale = variance.clamp(min=1e-24)
    return {
        "entropy": -(weight * log_weight).sum(-1),
        "logit_variance": variance,
        "row_std": variance.sqrt(),
        "skewness": third / scale**1.5,
        "excess_kurtosis": fourth / scale**2 - 3,
        "cumulants": -third / 3 - (fourth - 3 * variance.square()) / 8,
        "exact_per_row": exact_for_rows(tokens, variance),
        "maximum": centred.amax(-1) / scale.sqrt(),
        "variance_inflation": variance_inflation(logits, grid),
        # dH/d ln λ, whatever the law of the logits
        "response": -(weight * from_weighted_mean.square()).sum(-1),
    }


def exact_for_rows(tokens: int, variance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`exact_entropy` for rows of a variance (divided by N), from a cubic spline in b: within 1e-6 nats.

    NaN where the variance is, and beyond `SPLINE_STD`.
    """
    if tokens == 1:
        return torch.zeros_like(variance)
    logit_std = (variance * tokens / (tokens - 1)).sqrt().cpu().numpy()
    within = np.where(logit_std <= SPLINE_STD, logit_std, np.nan)
    highest = 2.0 ** math.ceil(math.log2(np.fmax.reduce(within, axis=None, initial=0.5)))
    return torch.from_numpy(_entropy_spline(tokens, highest)(within)).to(variance)


@functools.lru_cache(maxsize=128)
def _entropy_spline(tokens: int, highest: float) -> CubicSpline:
    """Knots 1/16 apart up to b = 4, then 32 an octave: the law flattens in b, and its cost grows with b²."""
    near = np.linspace(0, min(highest, 4.0), 65 + int(16 * min(highest, 4.0)))
    far = np.geomspace(4.0, highest, 1 + int(32 * math.log2(highest / 4)))[1:] if highest > 4 else []
    knots = np.concatenate([near, far])
    # dH/db is 0 at b = 0
    return CubicSpline(knots, exact_entropy(tokens, knots), bc_type=((1, 0.0), "not-a-knot"))


def _check_logits(logits: Tensor, grid: tuple[int, int]) -> None:
    tensor = isinstance(logits, Tensor)
    if not tensor or not logits.is_floating_point() or logits.ndim < 1 or not logits.numel():
        given = f"{logits.dtype} of {list(logits.shape)}" if tensor else f"of type {type(logits).__name__}"
        raise InvalidInputError(
            f"logits are {given}; give a floating-point torch tensor [..., N] with at least one row and key"
        )
    sides = isinstance(grid, tuple | list) and len(grid) == 2
    if not sides or any(type(side) is not int or side < 0 for side in grid):
        raise InvalidInputError(
            f"grid is {grid!r}; give (height, width) of the keys, for example (16, 16), or (0, 0) for none"
        )


def variance_inflation(logits: Float[Tensor, "*batch key"], grid: tuple[int, int]) -> Float[Tensor, "*batch"]:
    """Variance of the mean of `SQUARE` x `SQUARE` neighbouring keys over that of as many from anywhere.

    1 for keys in random order, more where neighbours are alike; N over it is an effective number of keys, a
    lower bound where likeness reaches beyond a square. NaN on grids with a side below 2 `SQUARE`, and where
    the keys are more than the grid (text beside the image).
    """
    height, width = (side // SQUARE * SQUARE for side in grid)
    if min(grid) < 2 * SQUARE or math.prod(grid) != logits.shape[-1]:
        return torch.full_like(logits[..., 0], math.nan)
    area = logits.unflatten(-1, grid)[..., :height, :width]
    squares = area.unflatten(-1, (-1, SQUARE)).unflatten(-3, (-1, SQUARE)).mean((-1, -3)).flatten(-2)
    values = area.flatten(-2)
    size, count = SQUARE**2, values.shape[-1]
    anywhere = values.var(-1, correction=0) / size * (count - size) / (count - 1)  # without replacement
    return squares.var(-1, correction=0) / anywhere.clamp(min=1e-24)


@functools.lru_cache(maxsize=128)
def expected_maximum(tokens: int) -> float:
    """Expected largest of N independent standard normal values.

    About sqrt(2 ln N) - (ln ln N + ln 4π) / (2 sqrt(2 ln N)) + 0.577 / sqrt(2 ln N) for large N
    (extreme-value theory); here by integration, ∫ x dΦ(x)^N.

    Example:
        >>> round(expected_maximum(2), 6) == round(1 / math.sqrt(math.pi), 6)
        True
    """
    if type(tokens) is not int or tokens < 1:
        raise InvalidInputError(f"tokens is {tokens!r}; it must be a whole number, at least 1")
    x = np.linspace(-12, 12, 24001)
    return float(np.trapezoid(x * tokens * np.exp((tokens - 1) * norm.logcdf(x) + norm.logpdf(x)), x))


CAUSES = {
    "finite_tokens": "too few tokens",
    "row_spread": "rows differ in spread",
    "non_gaussian": "logits are not Gaussian",
}


def by_layer(table: pd.DataFrame, tolerance: float = 0.05, by: Sequence[str] = ("layer",)) -> pd.DataFrame:
    """How well Eq. 5 does in each layer, and what it fails by.

    Args:
        table: of `LogitProbe.table()`, with the columns `by`.
        tolerance: nats; an error within it is a pass.
        by: columns to tell apart.

    Returns:
        indexed by `by`, in order of appearance: `tokens, logit_std` (root mean square), `absolute_error`
        (mean over timesteps, branches and heads), `error` and its parts, `unexplained` (non_gaussian less
        cumulants, absolute mean), `outside` (share of cells beyond the tolerance), `beyond_half_freezing`
        (share of cells with b > b_c/2), `response_ratio` (measured response over that of Eq. 5),
        `effective_tokens`, and `verdict`: "holds" where the mean absolute error is within the tolerance, or
        else the largest part of the error.
    """
    if not isinstance(tolerance, Real) or isinstance(tolerance, bool) or not 0 < tolerance < math.inf:
        raise InvalidInputError(f"tolerance is {tolerance!r}; give a positive number of nats, as 0.05")
    if not isinstance(table, pd.DataFrame):
        raise InvalidInputError(f"by_layer takes a table, of LogitProbe.table(); got {type(table).__name__}")
    needed = {*by, "tokens", "entropy", "gaussian_entropy", "logit_std", "of_freezing", "cumulants", *CAUSES}
    missing = sorted(needed - set(table))
    if missing or table.empty:
        lack = f"lacks the columns {', '.join(missing)}" if missing else "is empty"
        raise InvalidInputError(f"the table {lack}; give that of LogitProbe.table(), after the model has run")
    cells = table.assign(
        error=table.entropy - table.gaussian_entropy,
        absolute_error=(table.entropy - table.gaussian_entropy).abs(),
        variance=table.logit_std**2,
        unexplained=(table.non_gaussian - table.cumulants).abs(),
        beyond_half_freezing=table.of_freezing > 0.5,
    )
    cells["outside"] = cells.absolute_error > tolerance
    names = [
        "tokens", "variance", "absolute_error", "error", *CAUSES, "cumulants", "unexplained", "outside",
        "beyond_half_freezing", "response", "effective_tokens",
    ]  # fmt: skip
    result = cells.groupby(list(by), sort=False)[names].mean()
    result.insert(1, "logit_std", result.variance**0.5)
    result["response_ratio"] = -result.response / result.variance
    cause = result[list(CAUSES)].abs().idxmax(axis=1).map(CAUSES)
    result["verdict"] = ("fails: " + cause).mask(result.absolute_error <= tolerance, "holds")
    return result.drop(columns=["variance", "response"])
