"""What entropy should be: laws of softmax rows, exact and approximate, and simulation to check them.

Knows numbers, arrays and tensors; must not know a model, a rule's name or a picture.
"""

from entropy_lib.theory.laws import (
    cumulant_entropy,
    equal_entropy_factor,
    equal_ratio_factor,
    exact_entropy,
    exact_log_sum,
    finite_entropy,
    freezing_std,
    gaussian_entropy,
    paper_slope,
    share_of_change_removed,
    slope,
)

__all__ = [
    "cumulant_entropy",
    "equal_entropy_factor",
    "equal_ratio_factor",
    "exact_entropy",
    "exact_log_sum",
    "finite_entropy",
    "freezing_std",
    "gaussian_entropy",
    "paper_slope",
    "share_of_change_removed",
    "slope",
]
