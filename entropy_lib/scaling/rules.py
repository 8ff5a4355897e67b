"""Scale rules: by what factor the softmax scale 1/sqrt(d) changes when N tokens meet a model trained on T.

A rule is written as one string, `"paper"` or `"power(0.75)"`, so that it fits a notebook parameter, a file name and a
table cell. To add one, write a function of (tokens, training_tokens, parameter) and give it a line in `FORMULAS`.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from entropy_lib.errors import InvalidInputError, UnknownNameError

Counts = Sequence[float] | Mapping[str, float]  # tokens of every self-attention layer, in a list or by name


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
        raise InvalidInputError(
            f"equal-entropy({logit_std:g}): {tokens} tokens cannot have the entropy that {training_tokens} had; even equal weights "
            f"give only ln {tokens} = {math.log(tokens):.2f} nats. Use a larger size, a larger logit_std, or another rule."
        )
    return factor


def _gamma(tokens: int, training_tokens: int, gamma: float) -> float:
    return math.sqrt(gamma * math.log(tokens) / math.log(training_tokens))


@dataclass(frozen=True)
class Formula:
    """One family of rules: its formula, its source, and the parameter it takes (None, or the example to show)."""

    factor: Callable[[float, float, float | None], float]
    source: str
    example: float | None = None
    default: float | None = None  # the parameter where none is written
    largest: float = 100.0  # parameter that is accepted
    identity: bool = True  # whether the factor is 1 at N = T


FORMULAS = {
    "unscaled": Formula(_unscaled, "the model as it is: 1"),
    "paper": Formula(_paper, "Jin et al. 2023, Eq. 7: sqrt(ln N / ln T)"),
    "power": Formula(_power, "(ln N / ln T)^p; p = 0.5 is the paper's rule, p = 1 the log-n rule of Su (2021)", 0.75),
    "equal-entropy": Formula(
        _equal_entropy,
        "H(N, f b) = H(T, b) for Gaussian logits of standard deviation b at N = T",
        1.2,
        default=1.0,
        largest=20.0,
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

    def factor(self, tokens: float, training_tokens: float) -> float:
        """What multiplies 1/sqrt(d) at N = `tokens`; exactly 1.0 at N = T (but for `gamma`).

        A single key always gets all the weight and one training token gives no scale to compare with, so the factor is
        1.0 where either count is 1.

        Args:
            tokens: key tokens N of the call, at least 1.
            training_tokens: key tokens T of the same layer at the size the model was trained on, at least 1.

        Raises:
            InvalidInputError: when a count is no number from 1 up, where `equal-entropy` has no solution, and where the
                factor is too large for a number.

        Example:
            >>> round(rule("paper").factor(9216, 4096), 4)
            1.0476
        """
        _check_count("tokens", tokens)
        _check_count("training_tokens", training_tokens)
        if tokens == 1 or training_tokens == 1 or (tokens == training_tokens and self.formula.identity):
            return 1.0
        try:
            factor = self.formula.factor(tokens, training_tokens, self.parameter)
        except OverflowError:
            factor = math.inf
        if not 0 < factor < math.inf:
            raise InvalidInputError(
                f"{self.name}: the factor at {tokens} tokens, trained on {training_tokens}, is {factor}; take a smaller parameter"
            )
        return factor

    def __str__(self) -> str:
        return self.name


def rule(text: str | Rule) -> Rule:
    """Parse a scale rule.

    Args:
        text: "unscaled", "paper", or "power(p)", "gamma(g)", "equal-entropy(b)" with a positive number, up to 100 (b: 20;
            "equal-entropy" alone means b = 1); a `Rule` is returned as it is.

    Raises:
        UnknownNameError: when there is no such rule; the nearest one is suggested.
        InvalidInputError: when the parameter is missing, unwanted, or not a number that can be used.

    Example:
        >>> rule("power(1)").factor(4096, 1024)
        1.2
    """
    if isinstance(text, Rule):
        return text
    match = re.fullmatch(r"\s*([A-Za-z-]+)\s*(?:\(([^()]*)\))?\s*", text) if isinstance(text, str) else None
    name = match[1] if match else text
    if match is None or name not in FORMULAS:
        raise UnknownNameError("scale rule", text, (_example(known) for known in FORMULAS))
    formula, argument = FORMULAS[name], match[2]
    if formula.example is None:
        if argument is not None:
            raise InvalidInputError(f"scale rule {text!r}: {name} takes no parameter; write {name!r}")
        return Rule(name, formula)
    parameter = formula.default if argument is None else _positive(argument, formula.largest)
    if parameter is None:
        raise InvalidInputError(
            f"scale rule {text!r}: {name} needs a positive number, at most {formula.largest:g}; write for example "
            f"{_example(name)!r}"
        )
    return Rule(f"{name}({_shortest(parameter)})", formula, parameter)


def rule_list(rules: Sequence[str | Rule]) -> list[Rule]:
    """Parse several rules, each of which may occur once.

    Raises:
        InvalidInputError: for no rules, one string in place of a list, or a rule that is repeated.
        UnknownNameError: as `rule`.

    Example:
        >>> [str(each) for each in rule_list(["paper", "power(.75)"])]
        ['paper', 'power(0.75)']
    """
    if isinstance(rules, str | Rule) or not isinstance(rules, Sequence) or not rules:
        raise InvalidInputError(f"rules is {rules!r}; give a list of at least one, for example ['unscaled', 'paper']")
    parsed = [rule(text) for text in rules]
    repeated = [name for name, count in Counter(each.name for each in parsed).items() if count > 1]
    if repeated:
        raise InvalidInputError(f"rules {list(map(str, rules))} repeat {repeated[0]!r}; each may occur once")
    return parsed


def distinct_rules(
    rules: Sequence[str | Rule],
    tokens: Counts,
    training_tokens: Counts,
) -> dict[str, list[str]]:
    """Which rules do the same to a model at one size, so that only one of them has to be drawn.

    Two rules are the same where their factors are, in every layer: at native size all but `gamma`, everywhere `paper` and
    `power(0.5)`.

    Args:
        rules: see `rule`.
        tokens: N of every self-attention layer at that size, in a list or by name as from `layers.tokens_at`.
        training_tokens: T of the same layers.

    Returns:
        {rule: the rules that do the same, itself the first}; keys in the order given.

    Raises:
        InvalidInputError: as `rule_list`, for layers that do not match, and where a rule has no factor.
        UnknownNameError: as `rule`.

    Example:
        >>> distinct_rules(["unscaled", "paper", "gamma(1.4)"], [256, 64], [256, 64])
        {'unscaled': ['unscaled', 'paper'], 'gamma(1.4)': ['gamma(1.4)']}
    """
    groups: dict[tuple[float, ...], list[str]] = {}
    pairs = _layer_counts(tokens, training_tokens)
    for each in rule_list(rules):
        groups.setdefault(tuple(each.factor(*pair) for pair in pairs), []).append(each.name)
    return {names[0]: names for names in groups.values()}


def _layer_counts(tokens: Counts, training_tokens: Counts) -> list[tuple[float, float]]:
    """(N, T) of every layer."""
    if isinstance(tokens, Mapping) and isinstance(training_tokens, Mapping) and set(tokens) == set(training_tokens):
        return [(count, training_tokens[layer]) for layer, count in tokens.items()]
    if isinstance(tokens, Mapping) or isinstance(training_tokens, Mapping) or not 0 < len(tokens) == len(training_tokens):
        raise InvalidInputError("tokens and training_tokens are not of the same layers; give one count of each for every layer")
    return list(zip(tokens, training_tokens, strict=True))


def _check_count(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 1 <= value < math.inf:
        raise InvalidInputError(f"{name} is {value!r}; it must be a number of tokens, at least 1")


def _example(name: str) -> str:
    """How a rule is written, with the example of its parameter."""
    example = FORMULAS[name].example
    return name if example is None else f"{name}({example:g})"


def _positive(text: str, largest: float) -> float | None:
    """The number that a parameter is written as, or None."""
    if not re.fullmatch(r"\s*\+?[0-9.]+(e[+-]?[0-9]+)?\s*", text, re.IGNORECASE):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= largest else None


def _shortest(number: float) -> str:
    """The shortest way to write a number from which it can be read back: names of different rules differ."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
