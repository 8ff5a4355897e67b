"""Errors that say what was given, what is allowed and what to do."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def shortened(value: object, longest: int = 80) -> str:
    """A value as Python writes it, cut where it is long: messages are one line.

    >>> shortened("a prompt that was pasted", 12)
    "'a prompt th…"
    """
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def in_words(problem: Mapping[str, Any]) -> str:
    """An error of a `pydantic.ValidationError` in a sentence: the parameter, what was given, what is allowed.

    >>> problem = {"type": "greater_than", "loc": ("tokens", 2), "input": 0}
    >>> in_words(problem | {"msg": "Input should be greater than 0"})
    'tokens[2] is 0; it must be greater than 0'
    """
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    name, own = "".join(parts).removeprefix("."), problem.get("ctx", {}).get("error")
    if problem["type"] == "missing":
        return f"parameter {name!r} is missing; is it misspelt?"
    if own is not None:  # one of the library's
        return ": ".join(filter(None, (name, str(own))))
    text = ", a text" if isinstance(problem["input"], str) else ""
    must = problem["msg"].replace("Input should be", "it must be")
    return f"{name} is {shortened(problem['input'])}{text}; {must}"


class EntropyLibError(Exception):
    """Base of every error that the library raises on purpose; anything else that escapes is a bug."""


class InvalidInputError(EntropyLibError, ValueError):
    """A value that cannot be used; the message names it, says what is allowed and what to do."""


class MissingFileError(EntropyLibError, FileNotFoundError):
    """A file or folder that is not there."""


class UnknownNameError(InvalidInputError):
    """A name that is not among the allowed ones; the message suggests the nearest."""

    def __init__(self, kind: str, given: object, allowed: Iterable[str]):
        names = sorted(allowed)
        near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
        super().__init__(f"unknown {kind} {shortened(given)}{hint or '.'} Allowed: {shown}")


class UnsupportedModelError(EntropyLibError, TypeError):
    """An object that is no diffusion model, or a network of a kind that is not known here."""


class NotWrittenError(EntropyLibError, OSError):
    """A disk that is full or may not be written to, or something in a file's place; it says what to do."""


class NotFiniteError(EntropyLibError, FloatingPointError):
    """A model drew NaN or infinity: it overflowed its dtype."""


class ScaleNotAppliedError(EntropyLibError, RuntimeError):
    """A patched model ran an attention that the factor did not reach."""


class AttentionNotSeenError(EntropyLibError, RuntimeError):
    """A probed model ran a self-attention without calling `scaled_dot_product_attention`."""


class WeightsError(EntropyLibError, RuntimeError):
    """Model weights are missing or damaged."""


class MeasurementFailedError(EntropyLibError, RuntimeError):
    """A process in which something was to be measured failed; the message says what it said."""


class MissingExtraError(EntropyLibError, ImportError):
    """A package that only some users need is not installed; the message says how to install it."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of packages that come with an extra of pyproject.toml.

    Example:
        >>> with extra("metrics"):
        ...     import open_clap
        Traceback (most recent call last):
        ...
        entropy_lib.errors.MissingExtraError: No module named 'open_clap'; get it with: pip install
        "entropy_lib[metrics]"
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f'{error}; get it with: pip install "entropy_lib[{name}]"') from error
