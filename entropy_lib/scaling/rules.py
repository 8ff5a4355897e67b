"""Scale rules: by what factor the softmax scale 1/sqrt(d) changes when N tokens meet a model trained on T.

A rule is written as one string, `"paper"` or `"power(0.75)"`, so that it fits a notebook parameter, a file name and a
table cell. To add one, write a function of (tokens, training_tokens, parameter) and give it a line in `FORMULAS`.
"""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from entropy_lib.errors import UnknownNameError


def _unscaled(tokens: int, training_tokens: int, _: None) -> float:
    return 1.0


def _paper(tokens: int, training_tokens: int, _: None) -> float:
    return _power(tokens, training_tokens, 0.5)  # Eq. 7


def _power(tokens: int, training_tokens: int, exponent: float) -> float:
    return (math.log(tokens) / math.log(training_tokens)) ** exponent


@functools.lru_cache(maxsize=1024)  # a patched layer asks at every call
def _equal_entropy(tokens: int, training_tokens: int, logit_std: float) -> float:
    from entropy_lib.theory import equal_entropy_factor  # scipy is slow to import

    factor = equal_entropy_factor(tokens, training_tokens, logit_std)
    if math.isnan(factor):
        raise ValueError(
            f"equal-entropy({logit_std:g}): {tokens} tokens cannot have the entropy that {training_tokens} had; even equal weights "
            f"give only ln {tokens} = {math.log(tokens):.2f} nats. Use a larger size, a larger logit_std, or another rule."
        )
    return factor


def _gamma(tokens: int, training_tokens: int, gamma: float) -> float:
    return math.sqrt(gamma * math.log(tokens) / math.log(training_tokens))


@dataclass(frozen=True)
class Formula:
    """One family of rules: its formula, its source, and the parameter it takes (None, or the example to show)."""

    factor: Callable[[int, int, float | None], float]
    source: str
    example: float | None = None
    default: float | None = None  # the parameter where none is written
    identity: bool = True  # whether the factor is 1 at N = T


FORMULAS = {
    "unscaled": Formula(_unscaled, "the model as it is: 1"),
    "paper": Formula(_paper, "Jin et al. 2023, Eq. 7: sqrt(ln N / ln T)"),
    "power": Formula(_power, "(ln N / ln T)^p; p = 0.5 is the paper's rule, p = 1 the log-n rule of Su (2021)", 0.75),
    "equal-entropy": Formula(
        _equal_entropy, "H(N, f b) = H(T, b) for Gaussian logits of standard deviation b at N = T", 1.2, default=1.0
    ),
    "gamma": Formula(_gamma, "Pippo (2025): sqrt(γ ln N / ln T); not 1 at N = T", 1.4, identity=False),
}


@dataclass(frozen=True)
class Rule:
    """A scale rule, parsed by `rule`.

    Attributes:
        name: its string form, e.g. "power(0.75)".
        formula: the family it belongs to.
        parameter: the family's parameter, or None.
    """

    name: str
    formula: Formula
    parameter: float | None = None

    def factor(self, tokens: int, training_tokens: int) -> float:
        """What multiplies 1/sqrt(d) at N = `tokens`; exactly 1.0 at N = T (but for `gamma`).

        A single key always gets all the weight and one training token gives no scale to compare with, so the factor is
        1.0 where either count is 1.

        Args:
            tokens: key tokens N of the call, at least 1.
            training_tokens: key tokens T of the same layer at the size the model was trained on, at least 1.

        Raises:
            ValueError: when a count is below 1, or where `equal-entropy` has no solution.

        Example:
            >>> round(rule("paper").factor(9216, 4096), 4)
            1.0476
        """
        if tokens < 1 or training_tokens < 1:
            raise ValueError(f"tokens is {tokens} and training_tokens is {training_tokens}; both must be at least 1")
        if tokens == 1 or training_tokens == 1 or (tokens == training_tokens and self.formula.identity):
            return 1.0
        return self.formula.factor(tokens, training_tokens, self.parameter)

    def __str__(self) -> str:
        return self.name


def rule(text: str | Rule) -> Rule:
    """Parse a scale rule.

    Args:
        text: "unscaled", "paper", or "power(p)", "gamma(g)", "equal-entropy(b)" with a positive number
            ("equal-entropy" alone means b = 1); a `Rule` is returned as it is.

    Raises:
        UnknownNameError: when there is no such rule; the nearest one is suggested.
        ValueError: when the parameter is missing, unwanted, or not a positive number.

    Example:
        >>> rule("power(1)").factor(4096, 1024)
        1.2
    """
    if isinstance(text, Rule):
        return text
    match = re.fullmatch(r"\s*([A-Za-z-]+)\s*(?:\(([^()]*)\))?\s*", str(text))
    name = match[1] if match else str(text)
    if name not in FORMULAS:
        raise UnknownNameError("scale rule", text, (_written(known) for known in FORMULAS))
    formula, argument = FORMULAS[name], match[2]
    if formula.example is None:
        if argument is not None:
            raise ValueError(f"scale rule {text!r}: {name} takes no parameter; write {name!r}")
        return Rule(name, formula)
    parameter = formula.default if argument is None else _positive(argument)
    if parameter is None:
        raise ValueError(f"scale rule {text!r}: {name} needs a positive number; write for example {_written(name)!r}")
    return Rule(f"{name}({parameter:g})", formula, parameter)


def _written(name: str) -> str:
    example = FORMULAS[name].example
    return name if example is None else f"{name}({example:g})"


def _positive(text: str | None) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < math.inf else None
