"""What the entropy of a softmax row should be, from the statistics of its logits alone.

A row of attention is p = softmax(s) over N keys, with scaled logits s_j = λ q·k_j. Its entropy H = -Σ p_j ln p_j, in
nats, lies between 0 and ln N. If the logits are Gaussian with standard deviation b, then for large N

    H ≈ ln N - b²/2            (Jin et al. 2023, Eq. 5; their λσ is b here)

All functions take numbers, numpy arrays or tensors, broadcast, and return what they were given.

Example:
    >>> round(gaussian_entropy(4096, 1.0), 3)
    7.818
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

Numeric = TypeVar("Numeric", float, np.ndarray, torch.Tensor)


def _log(value):
    if isinstance(value, torch.Tensor):
        return value.double().log()
    return np.log(value) if isinstance(value, np.ndarray) else math.log(value)


def gaussian_entropy(tokens: Numeric, logit_std: Numeric) -> Numeric:
    """Entropy of a softmax over Gaussian logits, for many tokens: ln N - b²/2 (Eq. 5).

    Valid well below the freezing point, `logit_std` < `freezing_std(tokens)` / 2; beyond it the formula goes on falling,
    below zero in the end, while the true entropy does not.

    Args:
        tokens: number of keys N, at least 1.
        logit_std: standard deviation b of the scaled logits within a row.

    Returns:
        Entropy in nats.

    Example:
        >>> gaussian_entropy(1, 0.0)
        0.0
    """
    return _log(tokens) - logit_std**2 / 2


def cumulant_entropy(tokens: Numeric, cumulants: Sequence[Numeric]) -> Numeric:
    """Entropy for any law of the logits: ln N - κ2/2 - κ3/3 - κ4/8 - … - κn (n-1)/n!.

    It follows from H = ln N + K(1) - K'(1), K being the cumulant generating function of the logits within a row; the
    Gaussian law is its first term.

    Args:
        tokens: number of keys N.
        cumulants: κ2, κ3, … of the scaled logits within a row, as many as are known.

    Returns:
        Entropy in nats.

    Example:
        >>> cumulant_entropy(4096, [1.0]) == gaussian_entropy(4096, 1.0)
        True
    """
    corrections = sum(kappa * (order - 1) / math.factorial(order) for order, kappa in enumerate(cumulants, start=2))
    return _log(tokens) - corrections


def freezing_std(tokens: Numeric) -> Numeric:
    """The logit_std b_c = sqrt(2 ln N) beyond which a few keys take all the weight.

    The freezing point of Derrida's random energy model (Phys. Rev. B 24, 2613, 1981).

    Example:
        >>> round(freezing_std(4096), 2)
        4.08
    """
    return (2 * _log(tokens)) ** 0.5


def paper_slope(training_tokens: Numeric, logit_std: Numeric) -> Numeric:
    """Slope of H against ln N under the paper's rule: 1 - b²/(2 ln T), b being the logit_std at N = T.

    The rule sets b² ∝ ln N (Eq. 7), so H = ln N (1 - b_T²/(2 ln T)): the ratio H / ln N stays, H still grows.

    Example:
        >>> round(paper_slope(4096, 1.0), 3)
        0.94
    """
    return 1 - logit_std**2 / (2 * _log(training_tokens))
