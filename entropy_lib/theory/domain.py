"""What the laws accept, by the name of the argument: one clear error for everything else, before anything is computed.

NaN is refused as a number and passes through arrays, where it stands for what is missing.
"""

import functools
import inspect
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch

from entropy_lib.errors import InvalidInputError

Numbers: TypeAlias = float | np.ndarray | pd.Series | torch.Tensor  # what the laws take; they mix, and broadcast


class Domain(NamedTuple):
    """Finite values from `least` (or from above it) to `most`."""

    meaning: str
    least: float = -np.inf
    most: float = np.inf
    above: bool = False

    def __str__(self) -> str:
        low = f", {'above' if self.above else 'at least'} {self.least:g}" if self.least > -np.inf else ""
        return f"{self.meaning}{low}{f' and at most {self.most:g}' if self.most < np.inf else ', finite'}"

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Which values lie in it; NaN does not."""
        return np.isfinite(values) & (values > self.least if self.above else values >= self.least) & (values <= self.most)


DOMAINS = {
    "tokens": Domain("a number of keys", 1),
    "training_tokens": Domain("a number of keys", 1),
    "logit_std": Domain("a standard deviation", 0),
    "factor": Domain("what multiplies the softmax scale", 0, above=True),
}


def in_domain(law: Callable | None = None, **narrower: Domain) -> Callable:
    """Check the arguments of a law that have a domain, those of `narrower` included, and that their shapes fit.

    Example:
        >>> @in_domain
        ... def uniform(tokens):
        ...     return np.log(tokens)
        >>> uniform(0)
        Traceback (most recent call last):
        ...
        entropy_lib.errors.InvalidInputError: tokens is 0; it must be a number of keys, at least 1, finite
    """
    if law is None:
        return functools.partial(in_domain, **narrower)
    signature, domains = inspect.signature(law), DOMAINS | narrower

    @functools.wraps(law)
    def wrapper(*values: object, **options: object) -> object:
        given = signature.bind(*values, **options).arguments
        checked = {name: value for name, value in given.items() if name in domains}
        for name, value in checked.items():
            check(name, value, domains[name])
        check_shapes(checked)
        return law(*values, **options)

    return wrapper


def check(name: str, value: object, domain: Domain) -> None:
    """InvalidInputError unless a value is a number, array or tensor within its domain."""
    numbers = as_array(name, value)
    missing = np.isnan(numbers) & (numbers.ndim > 0)
    wrong = numbers[~domain.holds(numbers) & ~missing]
    if wrong.size:
        holds = "is" if numbers.ndim == 0 else f"has {wrong.size} values that cannot be, the first being"
        raise InvalidInputError(f"{name} {holds} {wrong.flat[0]:g}; it must be {domain}")


def as_array(name: str, value: object) -> np.ndarray:
    """The float64 array of a number, array or tensor of real numbers.

    Raises:
        InvalidInputError: for anything else; truth values are no numbers here.
    """
    if isinstance(value, torch.Tensor) and not value.is_complex() and value.dtype != torch.bool:
        return value.detach().cpu().double().numpy()
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number or isinstance(value, np.ndarray | np.generic | pd.Series):
        array = np.asarray(value)
        if array.dtype.kind in "iuf":
            return array.astype(float)
    given = f"of {value.dtype}" if hasattr(value, "dtype") else repr(value)
    raise InvalidInputError(f"{name} is {given:.80}; give a real number, or a numpy array or tensor of them")


def check_shapes(values: dict) -> None:
    """InvalidInputError unless the values broadcast."""
    shapes = {name: tuple(np.shape(value)) for name, value in values.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InvalidInputError(f"shapes do not fit: {shown}; they must be equal, or broadcast as numpy's do") from None
