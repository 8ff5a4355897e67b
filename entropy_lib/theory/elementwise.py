"""One decorator: a function of numbers becomes one of numbers, numpy arrays or tensors."""

import functools
import inspect
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from entropy_lib.theory.domain import Domain, Numbers, as_array, in_domain


def elementwise(function: Callable[..., float] | None = None, **domains: Domain) -> Callable:
    """Let a function of Python floats take broadcastable numbers, arrays or tensors, and return the like in float64.

    Its arguments are checked by their names, see `domain`; a point with a NaN among them is NaN.

    Example:
        >>> elementwise(lambda a, b: a + b)(np.array([1.0, 2.0]), 1)
        array([2., 3.])
    """
    if function is None:
        return functools.partial(elementwise, **domains)

    signature = inspect.signature(function)

    @in_domain(**domains)
    @functools.wraps(function)
    def wrapper(*positional: object, **named: object) -> Numbers:
        values, options = (given := signature.bind(*positional, **named)).args, given.kwargs
        arrays = [as_array(name, value) for name, value in zip(signature.parameters, values, strict=False)]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        flat = zip(*(np.broadcast_to(array, shape).ravel().tolist() for array in arrays), strict=True)
        points = [math.nan if any(map(math.isnan, point)) else function(*point, **options) for point in flat]
        result = np.array(points, dtype=float).reshape(shape)
        tensor = next((value for value in values if isinstance(value, torch.Tensor)), None)
        if tensor is not None:
            return torch.from_numpy(result).to(tensor.device)
        return result if any(isinstance(value, np.ndarray | pd.Series) for value in values) else float(result)

    return wrapper
