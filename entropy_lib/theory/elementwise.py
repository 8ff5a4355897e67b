"""One decorator: a function of numbers becomes one of numbers, numpy arrays or tensors."""

import functools
from collections.abc import Callable

import numpy as np
import torch


def elementwise(function: Callable[..., float]) -> Callable:
    """Let a function of Python floats take broadcastable numbers, arrays or tensors, and return the like in float64.

    Example:
        >>> elementwise(lambda a, b: a + b)(np.array([1.0, 2.0]), 1)
        array([2., 3.])
    """

    @functools.wraps(function)
    def wrapper(*values, **options):
        arrays = [value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value) for value in values]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        flat = zip(*(np.broadcast_to(array, shape).astype(float).ravel().tolist() for array in arrays), strict=True)
        result = np.array([function(*point, **options) for point in flat], dtype=float).reshape(shape)
        given = next((value for value in values if isinstance(value, torch.Tensor)), None)
        if given is not None:
            return torch.from_numpy(result).to(given.device)
        return result if any(isinstance(value, np.ndarray) for value in values) else float(result)

    return wrapper
