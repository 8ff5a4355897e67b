"""The expected entropy of a softmax over N independent Gaussian logits, exact for every N and every b.

The sum Z = Σ_j exp(b g_j), g_j standard normal, is the partition function of Derrida's random energy model
(Phys. Rev. B 24, 2613, 1981). By Frullani's integral, with φ(t) = E exp(-t exp(b g)),

    E ln Z = ∫_0^∞ [exp(-t) - φ(t)^N] dt/t        and        E H = E ln Z - b d(E ln Z)/db.

Both are integrals of smooth functions of u = ln t that vanish at both ends, where the trapezoid rule
converges exponentially.
"""

import functools

import numpy as np

from entropy_lib.entropy.arguments import SPREAD, TOKENS, Numbers, pointwise

STEP = 0.25  # in u and in b·g: error exp(-π²/STEP), far below float64
REACH = 12.0  # standard deviations of g; the mass beyond is 1e-32
MAX_TOKENS = 1e9  # tested to 1e6
MAX_STD = 100.0


@functools.lru_cache(maxsize=512)
def _laplace_transform(logit_std: float):
    """u, 1 - φ, φ and b ∂(1 - φ)/∂b at t = e^u, for u from where 1 - φ^N has vanished for any N to where φ
    has.
    """
    growth = min(logit_std**2 / 2, REACH * logit_std)  # of the mean of exp(b g), as far as it is represented
    u = np.arange(-(growth + np.log(MAX_TOKENS) + 37), 9 * logit_std + 5, STEP)
    spacing = min(0.4, STEP / logit_std)
    g = np.arange(-REACH, REACH + spacing, spacing)
    weight = np.exp(-(g**2) / 2) * spacing / np.sqrt(2 * np.pi)
    y = np.exp(np.minimum(u[:, None] + logit_std * g, 700.0))
    decay = np.exp(-y)
    return u, -np.expm1(-y) @ weight, decay @ weight, (y * decay) @ (weight * logit_std * g)


def _entropy(tokens: float, logit_std: float) -> float:
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

    Takes numbers, numpy arrays or tensors, broadcasts, and returns what it was given. About 10 ms a point,
    once for each b.

    Args:
        tokens: N, from 1 to 1e9; need not be whole.
        logit_std: b, from 0 to 100.

    Returns:
        Entropy in nats.

    Example:
        >>> round(exact_entropy(4096, 3.0), 3)
        4.421
    """
    within = {
        "tokens": (tokens, TOKENS._replace(most=MAX_TOKENS)),
        "logit_std": (logit_std, SPREAD._replace(most=MAX_STD)),
    }
    return pointwise(_entropy, **within)
