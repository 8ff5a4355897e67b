"""What the laws take: numbers, numpy arrays, pandas columns or tensors, which mix and broadcast.

One clear error for all else. NaN is refused as a number and passes through arrays, where it stands for what
is missing.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch

from entropy_lib.errors import InvalidInputError

Numbers: TypeAlias = float | np.ndarray | pd.Series | torch.Tensor


class Domain(NamedTuple):
    """Finite values from `least` (or from above it) to `most`."""

    meaning: str
    least: float = -np.inf
    most: float = np.inf
    above: bool = False

    def __str__(self) -> str:
        low = f", {'above' if self.above else 'at least'} {self.least:g}" if self.least > -np.inf else ""
        return f"{self.meaning}{low}{f' and at most {self.most:g}' if self.most < np.inf else ', finite'}"


TOKENS = Domain("a number of keys", 1)
SEVERAL = TOKENS._replace(above=True)  # where ln of the number divides
SPREAD = Domain("a standard deviation", 0)


def check(**given: tuple[object, Domain]) -> list[np.ndarray]:
    """The float64 arrays of `name=(value, domain)`."""
    arrays = {name: as_array(name, value) for name, (value, _) in given.items()}
    for name, numbers in arrays.items():
        domain = given[name][1]
        low = numbers > domain.least if domain.above else numbers >= domain.least
        missing = np.isnan(numbers) & (numbers.ndim > 0)
        wrong = numbers[~(low & (numbers <= domain.most) & np.isfinite(numbers)) & ~missing]
        if wrong.size:
            holds = "is" if numbers.ndim == 0 else f"has {wrong.size} values that cannot be, the first being"
            raise InvalidInputError(f"{name} {holds} {wrong.flat[0]:g}; it must be {domain}")
    try:
        np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        fit = "they must be equal, or broadcast as numpy's do"
        raise InvalidInputError(f"shapes do not fit: {shown}; {fit}") from None
    return list(arrays.values())


def as_array(name: str, value: object) -> np.ndarray:
    """The float64 array of a number, array or tensor.

    InvalidInputError for anything else, truth values included.
    """
    if isinstance(value, torch.Tensor) and not value.is_complex() and value.dtype != torch.bool:
        return value.detach().cpu().double().numpy()
    if isinstance(value, Real | np.ndarray | np.generic | pd.Series) and not isinstance(value, bool):
        array = np.asarray(value)
        if array.dtype.kind in "iuf":
            return array.astype(float)
    given = f"of {value.dtype}" if hasattr(value, "dtype") else repr(value)
    raise InvalidInputError(f"{name} is {given:.80}; give a real number, or a numpy array or tensor of them")


def pointwise(law: Callable[..., float], **given: tuple[Numbers, Domain]) -> Numbers:
    """A law of Python floats at every point of its checked, broadcast arguments; NaN where one of them is.

    Example:
        >>> pointwise(lambda a, b: a + b, a=(np.array([1.0, 2.0]), TOKENS), b=(1, TOKENS))
        array([2., 3.])
    """
    arrays, values = np.broadcast_arrays(*check(**given)), [value for value, _ in given.values()]
    points = zip(*(array.ravel().tolist() for array in arrays), strict=True)
    found = [math.nan if any(map(math.isnan, point)) else law(*point) for point in points]
    result = np.array(found, dtype=float).reshape(arrays[0].shape)
    tensor = next((value for value in values if isinstance(value, torch.Tensor)), None)
    if tensor is not None:
        return torch.from_numpy(result).to(tensor.device)
    return result if any(isinstance(value, np.ndarray | pd.Series) for value in values) else float(result)
