"""The expected entropy of a softmax over N independent Gaussian logits, exact for every N and every b.

The sum Z = Σ_j exp(b g_j), g_j standard normal, is the partition function of Derrida's random energy model (Phys. Rev. B 24,
2613, 1981). By Frullani's integral, with φ(t) = E exp(-t exp(b g)),

    E ln Z = ∫_0^∞ [exp(-t) - φ(t)^N] dt/t        and        E H = E ln Z - b d(E ln Z)/db.

Both are integrals of smooth functions of u = ln t that vanish at both ends, where the trapezoid rule converges exponentially.
"""

import functools

import numpy as np

from entropy_lib.theory.domain import Domain
from entropy_lib.theory.elementwise import elementwise

STEP = 0.25  # in u and in b·g: error exp(-π²/STEP), far below float64
REACH = 12.0  # standard deviations of g; the mass beyond is 1e-32
MAX_TOKENS = 1e9  # tested to 1e6
MAX_STD = 100.0
REACH_OF_LAW = {"tokens": Domain("a number of keys", 1, MAX_TOKENS), "logit_std": Domain("a standard deviation", 0, MAX_STD)}


@functools.lru_cache(maxsize=512)
def _laplace_transform(logit_std: float):
    """u, 1 - φ, φ and b ∂(1 - φ)/∂b at t = e^u, for u from where 1 - φ^N has vanished for any N to where φ has."""
    growth = min(logit_std**2 / 2, REACH * logit_std)  # of the mean of exp(b g), as far as it is represented
    u = np.arange(-(growth + np.log(MAX_TOKENS) + 37), 9 * logit_std + 5, STEP)
    spacing = min(0.4, STEP / logit_std)
    g = np.arange(-REACH, REACH + spacing, spacing)
    weight = np.exp(-(g**2) / 2) * spacing / np.sqrt(2 * np.pi)
    y = np.exp(np.minimum(u[:, None] + logit_std * g, 700.0))
    decay = np.exp(-y)
    return u, -np.expm1(-y) @ weight, decay @ weight, (y * decay) @ (weight * logit_std * g)


def _moments(tokens: float, logit_std: float) -> tuple[float, float]:
    """(E ln Z, E H) of one point."""
    if logit_std == 0:
        return np.log(tokens), np.log(tokens)
    u, missing, phi, slope = _laplace_transform(float(logit_std))
    with np.errstate(divide="ignore"):
        log_phi = np.where(missing < 0.5, np.log1p(-np.minimum(missing, 0.5)), np.log(phi))
    power = np.exp(tokens * log_phi)
    lower = np.exp((tokens - 1) * log_phi) if tokens > 1 else np.ones_like(phi)
    log_sum = STEP * np.sum(np.exp(-np.exp(np.minimum(u, 7.0))) - power)
    return log_sum, log_sum - STEP * np.sum(tokens * lower * slope)


@elementwise(**REACH_OF_LAW)
def exact_log_sum(tokens: float, logit_std: float) -> float:
    """Expected ln Σ_j exp(s_j) over N independent Gaussian logits of mean zero and standard deviation b.

    Args:
        tokens: N, from 1 to 1e9; need not be whole.
        logit_std: b, from 0 to 100.

    Raises:
        InvalidInputError: outside these ranges, and for what is no number.

    Example:
        >>> round(exact_log_sum(1, 2.0), 12) + 0.0
        0.0
    """
    return _moments(tokens, logit_std)[0]


@elementwise(**REACH_OF_LAW)
def exact_entropy(tokens: float, logit_std: float) -> float:
    """Expected entropy of a softmax over N independent Gaussian logits, on both sides of freezing.

    Takes numbers, numpy arrays or tensors, broadcasts, and returns what it was given. About 10 ms a point, once for each b.

    Args:
        tokens: N, from 1 to 1e9; need not be whole.
        logit_std: b, from 0 to 100.

    Returns:
        Entropy in nats.

    Raises:
        InvalidInputError: outside these ranges, and for what is no number.

    Example:
        >>> round(exact_entropy(4096, 3.0), 3)
        4.421
    """
    return _moments(tokens, logit_std)[1]
