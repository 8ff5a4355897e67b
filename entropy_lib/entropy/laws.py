"""What the entropy of a softmax row should be, from the statistics of its logits alone.

A row of attention is p = softmax(s) over N keys, with scaled logits s_j = λ q·k_j. Its entropy H = -Σ p_j ln
p_j, in nats, lies between 0 and ln N. If the logits are Gaussian with standard deviation b, then for large N

    H ≈ ln N - b²/2            (Jin et al. 2023, Eq. 5; their λσ is b here)

Three laws, from coarse to exact: `gaussian_entropy` (many tokens, far from freezing), `finite_law` (its first
correction in 1/N) and `exact_entropy` (any N, any b). `cumulant_entropy` is for logits that are not Gaussian.
The solvers at the end say what a scale rule would have to be.

All functions take numbers, numpy arrays or tensors, broadcast, and return what they were given. They refuse
what is no number, fewer than one token, and a negative spread (InvalidInputError); NaN in an array gives NaN.
Where the result of an asymptotic law is no entropy, below 0 or above ln N, it is returned as it stands, with
a BeyondLawWarning.

The exact law: the sum Z = Σ_j exp(b g_j), g_j standard normal, is the partition function of Derrida's random
energy model (Phys. Rev. B 24, 2613, 1981). By Frullani's integral, with φ(t) = E exp(-t exp(b g)),

    E ln Z = ∫_0^∞ [exp(-t) - φ(t)^N] dt/t        and        E H = E ln Z - b d(E ln Z)/db,

integrals of smooth functions of u = ln t that vanish at both ends, where the trapezoid rule converges
exponentially.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import brentq

from entropy_lib.entropy.arguments import SEVERAL, SPREAD, TOKENS, Domain, Numbers, as_array, check, pointwise
from entropy_lib.errors import InvalidInputError

Numeric = TypeVar("Numeric", float, np.ndarray, torch.Tensor)
ROUNDING = 1e-6  # nats
STEP = 0.25  # in u and in b·g: error exp(-π²/STEP), far below float64
REACH = 12.0  # standard deviations of g; the mass beyond is 1e-32
MAX_TOKENS = 1e9  # tested to 1e6
MAX_STD = 100.0


class BeyondLawWarning(UserWarning):
    """An asymptotic law was asked for values where it does not hold."""


def _warned(values: Numbers, most: Numbers, meaning: str = "entropy") -> Numbers:
    """The values, after a warning if some are below 0 or above `most`."""
    numbers, top = as_array(meaning, values), as_array("most", most)
    wrong = numbers[(numbers < -ROUNDING) | (numbers > top + ROUNDING)]
    if wrong.size:
        warnings.warn(
            f"{wrong.size} of {numbers.size} values are no {meaning}, the first being {wrong[0]:.4g}: the "
            "law does not hold there (logit_std is too near freezing_std, or beyond); take exact_entropy",
            BeyondLawWarning,
            stacklevel=3,  # the caller of the law
        )
    return values


def _log(value: Numbers) -> Numbers:
    if isinstance(value, torch.Tensor):
        return value.double().log()
    return math.log(value) if isinstance(value, Real) else np.log(value)


def gaussian_entropy(tokens: Numeric, logit_std: Numeric) -> Numeric:
    """Entropy of a softmax over Gaussian logits, for many tokens: ln N - b²/2 (Eq. 5).

    The law is asymptotic: valid well below the freezing transition, `logit_std` < `freezing_std(tokens)` / 2.
    Beyond it the formula goes on falling while the true entropy does not, and is negative where b > sqrt(2 ln
    N). It is not cut off at 0: that would hide its error, of which `logit_shape` gives an account in nats.

    Args:
        tokens: number of keys N, at least 1.
        logit_std: standard deviation b of the scaled logits within a row, at least 0.

    Returns:
        ln N - b²/2 in nats, an entropy where it is not negative.

    Warns:
        BeyondLawWarning: where it is negative.

    Example:
        >>> gaussian_entropy(1, 0.0)
        0.0
    """
    check(tokens=(tokens, TOKENS), logit_std=(logit_std, SPREAD))
    return _warned(gaussian_law(tokens, logit_std), _log(tokens))


def gaussian_law(tokens: Numeric, logit_std: Numeric) -> Numeric:
    """The formula of `gaussian_entropy`, unchecked, beside what it is compared with."""
    return _log(tokens) - logit_std**2 / 2


def finite_law(tokens: float, logit_std: float) -> float:
    """Eq. 5 to first order in 1/N: ln N - b²/2 + [(2b² - 1) exp(b²) + 1] / (2N), unchecked.

    By the delta method, from E ln Z ≈ ln N + b²/2 - (exp(b²) - 1) / (2N). It asks for exp(b²) well below N,
    in practice b below half the freezing transition; for small b it is ln N - (b²/2)(1 - 1/N), exact to order
    b².

    Example:
        >>> round(finite_law(4096, 2.0), 3), round(exact_entropy(4096, 2.0), 3)
        (6.365, 6.351)
    """
    square = logit_std**2
    return gaussian_law(tokens, logit_std) + ((2 * square - 1) * math.exp(square) + 1) / (2 * tokens)


@functools.lru_cache(maxsize=512)
def _laplace_transform(logit_std: float):
    """u, 1 - φ, φ and b ∂(1 - φ)/∂b at t = e^u, where 1 - φ^N has not vanished for any N, nor φ."""
    growth = min(logit_std**2 / 2, REACH * logit_std)  # of the mean of exp(b g), as far as it is represented
    u = np.arange(-(growth + np.log(MAX_TOKENS) + 37), 9 * logit_std + 5, STEP)
    spacing = min(0.4, STEP / logit_std)
    g = np.arange(-REACH, REACH + spacing, spacing)
    weight = np.exp(-(g**2) / 2) * spacing / np.sqrt(2 * np.pi)
    y = np.exp(np.minimum(u[:, None] + logit_std * g, 700.0))
    decay = np.exp(-y)
    return u, -np.expm1(-y) @ weight, decay @ weight, (y * decay) @ (weight * logit_std * g)


def _exact_entropy(tokens: float, logit_std: float) -> float:
    if logit_std == 0:
        return np.log(tokens)
    u, missing, phi, slope = _laplace_transform(float(logit_std))
    with np.errstate(divide="ignore"):
        log_phi = np.where(missing < 0.5, np.log1p(-np.minimum(missing, 0.5)), np.log(phi))
    power = np.exp(tokens * log_phi)
    lower = np.exp((tokens - 1) * log_phi) if tokens > 1 else np.ones_like(phi)
    log_sum = STEP * np.sum(np.exp(-np.exp(np.minimum(u, 7.0))) - power)
    return log_sum - STEP * np.sum(tokens * lower * slope)


def exact_entropy(tokens: Numbers, logit_std: Numbers) -> Numbers:
    """Expected entropy of a softmax over N independent Gaussian logits, on both sides of freezing.

    About 10 ms a point, once for each b.

    Args:
        tokens: N, from 1 to 1e9; need not be whole.
        logit_std: b, from 0 to 100.

    Returns:
        Entropy in nats.

    Example:
        >>> round(exact_entropy(4096, 3.0), 3)
        4.421
    """
    count, spread = TOKENS._replace(most=MAX_TOKENS), SPREAD._replace(most=MAX_STD)
    return pointwise(_exact_entropy, tokens=(tokens, count), logit_std=(logit_std, spread))


def cumulant_entropy(tokens: Numeric, cumulants: Sequence[Numeric]) -> Numeric:
    """Entropy for any law of the logits: ln N - κ2/2 - κ3/3 - κ4/8 - … - κn (n-1)/n!.

    It follows from H = ln N + K(1) - K'(1), K being the cumulant generating function of the logits within a
    row; the Gaussian law is its first term.

    Args:
        tokens: number of keys N.
        cumulants: κ2, κ3, … of the scaled logits within a row, as many as are known.

    Returns:
        Entropy in nats.

    Warns:
        BeyondLawWarning: where it is negative or above ln N.

    Example:
        >>> cumulant_entropy(4096, [1.0]) == gaussian_entropy(4096, 1.0)
        True
    """
    if not isinstance(cumulants, Sequence | np.ndarray) or isinstance(cumulants, str):
        raise InvalidInputError(f"cumulants is {cumulants!r}; give a list of κ2, κ3, …, as [1.0, 0.2]")
    by_order = dict(enumerate(cumulants, start=2))
    named = {f"cumulant κ{n}": (kappa, Domain("a cumulant")) for n, kappa in by_order.items()}
    check(tokens=(tokens, TOKENS), **named)
    corrections = sum(kappa * (n - 1) / math.factorial(n) for n, kappa in by_order.items())
    return _warned(_log(tokens) - corrections, _log(tokens))


def freezing_std(tokens: Numeric) -> Numeric:
    """The logit_std b_c = sqrt(2 ln N) beyond which a few keys take all the weight.

    The freezing transition of Derrida's random energy model (Phys. Rev. B 24, 2613, 1981).

    Example:
        >>> round(freezing_std(4096), 2)
        4.08
    """
    check(tokens=(tokens, TOKENS))
    return (2 * _log(tokens)) ** 0.5


def paper_slope(training_tokens: Numeric, logit_std: Numeric) -> Numeric:
    """Slope of H against ln N under the paper's rule: 1 - b²/(2 ln T), b being the logit_std at N = T.

    The rule sets b² ∝ ln N (Eq. 7), so H = ln N (1 - b_T²/(2 ln T)): the ratio H / ln N stays, H still grows.

    Warns:
        BeyondLawWarning: where it is negative: b is beyond the freezing transition.

    Example:
        >>> round(paper_slope(4096, 1.0), 3)
        0.94
    """
    check(training_tokens=(training_tokens, SEVERAL), logit_std=(logit_std, SPREAD))
    return _warned(1 - logit_std**2 / (2 * _log(training_tokens)), 1.0, "slope")


def equal_entropy_factor(tokens: Numbers, training_tokens: Numbers, logit_std: Numbers) -> Numbers:
    """The factor on the softmax scale that gives N tokens the entropy of T tokens; NaN where there is none.

    Solves H(N, f b) = H(T, b) with `exact_entropy`; for many tokens f² = 1 + 2 ln(N/T) / b². There is no
    solution where ln N < H(T, b): even equal weights over N keys have less entropy.

    Args:
        tokens: N of the new size.
        training_tokens: T.
        logit_std: b at T, and at N before the factor.

    Example:
        >>> round(equal_entropy_factor(9216, 4096, 1.0), 2)
        1.62
        >>> equal_entropy_factor(784, 4096, 1.0)
        nan
    """
    return pointwise(_equal_entropy_factor, **_of(tokens, training_tokens, logit_std))


def _of(tokens: Numbers, training_tokens: Numbers, logit_std: Numbers) -> dict[str, tuple[Numbers, Domain]]:
    given = {"tokens": (tokens, TOKENS), "training_tokens": (training_tokens, TOKENS)}
    return given | {"logit_std": (logit_std, SPREAD)}


def _equal_entropy_factor(tokens: float, training_tokens: float, logit_std: float) -> float:
    """By bisection: H falls strictly with b. NaN where no f, or every f, would do."""
    entropy = exact_entropy(training_tokens, logit_std)
    if logit_std == 0 or not 0 < entropy <= math.log(tokens) * (1 + 1e-12):
        return math.nan
    upper, most = 1.0, MAX_STD / logit_std
    while upper < most and exact_entropy(tokens, upper * logit_std) > entropy:
        upper *= 2
    if upper >= most:
        raise InvalidInputError(
            f"{tokens:g} tokens have {entropy:.3g} nats only where logit_std is near {MAX_STD:g} or above, "
            "beyond the exact law: take a smaller logit_std"
        )
    return brentq(lambda factor: exact_entropy(tokens, factor * logit_std) - entropy, 0.0, upper, xtol=1e-10)


def fraction_of_change_removed(
    tokens: Numbers, training_tokens: Numbers, logit_std: Numbers, factor: Numbers
) -> Numbers:
    """How much of the change of entropy between T and N tokens a factor takes away: 1 all of it, 0 nothing.

    Share = 1 - [H(N, f b) - H(T, b)] / [H(N, b) - H(T, b)], with `exact_entropy`; NaN at N = T.

    Args:
        tokens, training_tokens, logit_std: as for `equal_entropy_factor`.
        factor: f, for example `rule("paper").factor(tokens, training_tokens)`.

    Example:
        >>> round(fraction_of_change_removed(9216, 4096, 1.0, (math.log(9216) / math.log(4096)) ** 0.5), 3)
        0.06
    """
    multiplier = Domain("what multiplies the softmax scale", 0, above=True)
    return pointwise(_share_removed, **_of(tokens, training_tokens, logit_std), factor=(factor, multiplier))


def _share_removed(tokens: float, training_tokens: float, logit_std: float, factor: float) -> float:
    if math.isclose(tokens, training_tokens):
        return math.nan
    if factor * logit_std > MAX_STD:
        raise InvalidInputError(
            f"factor {factor:g} times logit_std {logit_std:g} is above {MAX_STD:g}, the largest that the "
            "exact law takes: take a smaller factor"
        )
    start = exact_entropy(training_tokens, logit_std)
    change = exact_entropy(tokens, logit_std) - start
    return 1 - (exact_entropy(tokens, factor * logit_std) - start) / change
