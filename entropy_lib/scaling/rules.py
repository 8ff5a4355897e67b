"""Scale rules: by what factor the softmax scale 1/sqrt(d) changes when N tokens meet a model trained on T.

A rule is written as one string, `"paper"` or `"power(0.75)"`, so that it fits a notebook parameter, a file
name and a table cell. To add one, give its formula, of N, T and a parameter, a line in `FORMULAS`.

Any rule can be kept to a part of the network and to a part of the way from noise to image:

    paper[0]      in layers of level 0, those with the most training tokens; [1,2]: of the two levels below
    paper@0-0.4   in the first four tenths of the noise schedule, which begins with pure noise
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


@functools.lru_cache(maxsize=1024)  # a patched layer asks at every call
def _equal_entropy(tokens: float, training_tokens: float, logit_std: float) -> float:
    from entropy_lib.entropy import equal_entropy_factor  # scipy is slow to import

    factor = equal_entropy_factor(tokens, training_tokens, logit_std)
    if math.isnan(factor):
        raise InvalidInputError(
            f"equal-entropy({logit_std:g}): {tokens} tokens cannot have the entropy that {training_tokens} "
            f"had; even equal weights give only ln {tokens} = {math.log(tokens):.2f} nats. Use a larger "
            "size, a larger logit_std, or another rule."
        )
    return factor


@dataclass(frozen=True)
class Formula:
    """One family of rules."""

    factor: Callable[[float, float, float | None], float]  # of N, T and the parameter
    source: str  # what it is, and where it comes from
    example: float | None = None  # of its parameter; None for a family without one
    default: float | None = None  # the parameter where none is written
    least: float = 0.0  # parameters that are accepted; 0 itself only where less is
    largest: float = 100.0  # likewise
    identity: bool = True  # whether the factor is 1 at N = T
    words: tuple[str, ...] = ()  # parameters that are no numbers; the factors then come from a calibration


FORMULAS = {
    "unscaled": Formula(lambda n, t, _: 1.0, "the model as it is: 1"),
    "paper": Formula(
        lambda n, t, _: (math.log(n) / math.log(t)) ** 0.5, "Jin et al. 2023, Eq. 7: sqrt(ln N / ln T)"
    ),
    "power": Formula(
        lambda n, t, p: (math.log(n) / math.log(t)) ** p,
        "(ln N / ln T)^p; p = 0.5: the paper's rule, p = 1: the log-n rule of Su (2021), p < 0: the opposite",
        example=0.75,
        least=-100.0,
    ),
    "equal-entropy": Formula(
        _equal_entropy,
        "H(N, f b) = H(T, b), for Gaussian logits of spread b at N = T; of layers or heads: as measured",
        example=1.2,
        default=1.0,
        largest=20.0,
        words=("layers", "heads"),
    ),
    "gamma": Formula(
        lambda n, t, gamma: math.sqrt(gamma * math.log(n) / math.log(t)),
        "Pippo (2025): sqrt(γ ln N / ln T); not 1 at N = T",
        example=1.4,
        identity=False,
    ),
}


@dataclass(frozen=True)
class Rule:
    """A scale rule, parsed by `rule`.

    Attributes:
        name: its string form, e.g. "power(0.75)" or "paper[0]@0-0.4".
        formula: the family it belongs to.
        parameter: the family's parameter, or None.
        levels: those of the network where it holds, 0 having the most training tokens; None for all.
        window: from where to where in the noise schedule it holds, 0 being pure noise and 1 the image; None
            for all of it.
    """

    name: str
    formula: Formula
    parameter: float | str | None = None
    levels: tuple[int, ...] | None = None
    window: tuple[float, float] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether its factors come from a calibration of the model, see `scaling.calibration`."""
        return isinstance(self.parameter, str)

    @property
    def exponent(self) -> float | None:
        """p of the family (ln N / ln T)^p, with "unscaled" (0) and "paper" (0.5); None of any other rule.

        Example:
            >>> rule("paper").exponent, rule("power(-2)").exponent, rule("paper[0]").exponent
            (0.5, -2.0, None)
        """
        if self.formula is FORMULAS["power"] and self.levels is None and self.window is None:
            return self.parameter
        return {"unscaled": 0.0, "paper": 0.5}.get(self.name)

    @property
    def whole(self) -> "Rule":
        """The rule in all layers and all of the way; itself where it is not kept to a part.

        Example:
            >>> rule("power(3)[0]@0-0.3").whole.name
            'power(3)'
        """
        return rule(re.split(r"[\[@]", self.name)[0])

    def holds(self, progress: float) -> bool:
        """Whether a place in the noise schedule, 0 to 1, is in the rule's window; 1 is in the last one."""
        if self.window is None:
            return True
        start, end = self.window
        return start <= progress < end or progress == end == 1

    def layers(self, training_tokens: Mapping[str, int]) -> list[str]:
        """The layers on its levels, of all that have these training tokens.

        Raises:
            InvalidInputError: for a level that there is not.
        """
        levels = sorted(set(training_tokens.values()), reverse=True)
        if self.levels is None:
            return list(training_tokens)
        if beyond := [level for level in self.levels if level >= len(levels)]:
            raise InvalidInputError(
                f"scale rule {self.name!r}: there is no level {beyond[0]}; this network has {len(levels)}, "
                f"numbered from 0, of {', '.join(map(str, levels))} training tokens"
            )
        return [layer for layer, tokens in training_tokens.items() if levels.index(tokens) in self.levels]

    def factor(self, tokens: float, training_tokens: float) -> float:
        """What multiplies 1/sqrt(d) at N = `tokens`; exactly 1.0 at N = T (but for `gamma`).

        A single key always gets all the weight and one training token gives no scale to compare with, so the
        factor is 1.0 where either count is 1.

        Args:
            tokens: key tokens N of the call, at least 1.
            training_tokens: key tokens T of the same layer at the size the model was trained on, at least 1.

        Raises:
            InvalidInputError: when a count is no number from 1 up, where `equal-entropy` has no solution, and
                where the factor is too large for a number.

        Example:
            >>> round(rule("paper").factor(9216, 4096), 4)
            1.0476
        """
        for name, count in (("tokens", tokens), ("training_tokens", training_tokens)):
            if isinstance(count, bool) or not isinstance(count, Real) or not 1 <= count < math.inf:
                raise InvalidInputError(f"{name} is {count!r}; it must be a number of tokens, at least 1")
        if tokens == 1 or training_tokens == 1 or (tokens == training_tokens and self.formula.identity):
            return 1.0
        if self.calibrated:
            raise InvalidInputError(
                f"{self.name}: its factors come from a calibration of the model's layers, not from counts "
                "alone"
            )
        try:
            factor = self.formula.factor(tokens, training_tokens, self.parameter)
        except OverflowError:
            factor = math.inf
        if not 0 < factor < math.inf:
            raise InvalidInputError(
                f"{self.name}: the factor at {tokens} tokens, trained on {training_tokens}, is {factor}; "
                "take a smaller parameter"
            )
        return factor

    def __str__(self) -> str:
        return self.name


NAME = r"\s*(?P<name>[A-Za-z][A-Za-z0-9-]*)"  # with which a rule begins
SYNTAX = re.compile(
    rf"{NAME}\s*(?:\((?P<parameter>[^()]*)\))?\s*(?:\[(?P<levels>[^\[\]]*)\])?\s*(?:@(?P<window>.*))?"
)
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*", re.IGNORECASE)


def rule(text: str | Rule) -> Rule:
    """Parse a scale rule.

    Args:
        text: "unscaled", "paper", or "power(p)", "gamma(g)", "equal-entropy(b)" with a number, p of either
            sign, the others positive, up to 100 (b: 20; "equal-entropy" alone means b = 1);
            "equal-entropy(layers)" and "equal-entropy(heads)", whose factors come from a calibration; each of
            them with levels, "[0,1]", and a window, "@0-0.4", behind it. A `Rule` is returned as it is.

    Raises:
        UnknownNameError: when there is no such rule; the nearest one is suggested.
        InvalidInputError: for a parameter, levels or a window that cannot be.

    Example:
        >>> rule("power(1)").factor(4096, 1024), rule("paper [1, 0] @ 0 - .4").name
        (1.2, 'paper[0,1]@0-0.4')
    """
    if isinstance(text, Rule):
        return text
    match = SYNTAX.fullmatch(text) if isinstance(text, str) else None
    if match is None or match["name"] not in FORMULAS:
        given = match["name"] if match else text
        raise UnknownNameError("scale rule", given, (_example(known) for known in FORMULAS))
    formula, name = FORMULAS[match["name"]], match["name"]
    parameter, levels, window = _parameter(text, name, match["parameter"]), None, None
    if parameter is not None:
        name += f"({parameter if isinstance(parameter, str) else _shortest(parameter)})"
    if match["levels"] is not None:
        levels = _levels(text, match["levels"])
        name += f"[{','.join(map(str, levels))}]"
    if match["window"] is not None:
        window = _window(text, match["window"])
        name += f"@{_shortest(window[0])}-{_shortest(window[1])}"
    return Rule(name, formula, parameter, levels, window)


def _parameter(text: str, name: str, argument: str | None) -> float | str | None:
    formula = FORMULAS[name]
    if formula.example is None:
        if argument is not None:
            raise InvalidInputError(f"scale rule {text!r}: {name} takes no parameter; write {name!r}")
        return None
    if argument is not None and argument.strip() in formula.words:
        return argument.strip()
    parameter = formula.default if argument is None else _number(argument, formula)
    if parameter is None:
        kind = "a positive number" if formula.least >= 0 else f"a number from {formula.least:g}"
        words = "".join(f", or {word!r}" for word in formula.words)
        raise InvalidInputError(
            f"scale rule {text!r}: {name} needs {kind}, at most {formula.largest:g}{words}; write for "
            f"example {_example(name)!r}"
        )
    return parameter


def _levels(text: str, written: str) -> tuple[int, ...]:
    parts = [part.strip() for part in written.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise InvalidInputError(
            f"scale rule {text!r}: levels are different whole numbers from 0, as in 'paper[0]' or "
            "'paper[0,1]'"
        )
    return tuple(sorted(map(int, parts)))


def _window(text: str, written: str) -> tuple[float, float]:
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", written, re.ASCII)
    start, end = map(float, match.groups()) if match else (1.0, 0.0)
    if not 0 <= start < end <= 1:
        raise InvalidInputError(
            f"scale rule {text!r}: a window goes from one share of the noise schedule to a larger one, 0 "
            "being noise and 1 the image, as in 'paper@0-0.4'"
        )
    return start, end


def rule_list(rules: Sequence[str | Rule]) -> list[Rule]:
    """Parse several rules, at least one, each of which may occur once.

    Example:
        >>> [str(each) for each in rule_list(["paper", "power(.75)"])]
        ['paper', 'power(0.75)']
    """
    return parsed_list(rules, rule)


def parsed_list(rules: Sequence, parse: Callable) -> list:
    """Several rules, or methods that rules are among, each of which may occur once."""
    if isinstance(rules, str | Rule) or not isinstance(rules, Sequence) or not rules:
        raise InvalidInputError(f"rules is {rules!r}; give a list of at least one, as ['unscaled', 'paper']")
    parsed = [parse(text) for text in rules]
    repeated = [name for name, count in Counter(each.name for each in parsed).items() if count > 1]
    if repeated:
        raise InvalidInputError(f"rules {list(map(str, rules))} repeat {repeated[0]!r}; each may occur once")
    return parsed


def distinct_rules(
    rules: Sequence[str | Rule], tokens: Counts, training_tokens: Counts
) -> dict[str, list[str]]:
    """Which rules do the same to a model at one size, so that only one of them has to be generated by.

    Two rules are the same where their factors are, in every layer: at native size all but `gamma`, everywhere
    `paper` and `power(0.5)`.

    Args:
        rules: see `rule`.
        tokens: N of every self-attention layer at that size, in a list or by name as from `layers.tokens_at`.
        training_tokens: T of the same layers.

    Returns:
        {rule: the rules that do the same, itself the first}; keys in the order given.

    Example:
        >>> distinct_rules(["unscaled", "paper", "gamma(1.4)"], [256, 64], [256, 64])
        {'unscaled': ['unscaled', 'paper'], 'gamma(1.4)': ['gamma(1.4)']}
    """
    both = (tokens, training_tokens)
    counts, training = (dict(each if isinstance(each, Mapping) else enumerate(each)) for each in both)
    if not counts or set(counts) != set(training):
        raise InvalidInputError(
            "tokens and training_tokens are not of the same layers; give one count of each for every layer"
        )
    groups: dict[tuple, list[str]] = {}
    for each in rule_list(rules):
        groups.setdefault(_effect(each, counts, training), []).append(each.name)
    return {names[0]: names for names in groups.values()}


def _effect(chosen: Rule, tokens: Mapping, training: Mapping) -> tuple:
    """What a rule does to layers, equal for rules that do the same; calibrated ones are unlike any other."""
    native = tokens == training
    if chosen.calibrated and not native:
        return (chosen.name,)
    # a level that is missing does nothing at native size
    held = list(training) if native else chosen.layers(training)
    factors = tuple(chosen.factor(tokens[name], training[name]) if name in held else 1.0 for name in tokens)
    return (factors, chosen.window if any(factor != 1 for factor in factors) else None)


def _example(name: str) -> str:
    """How a rule is written, with the example of its parameter."""
    example = FORMULAS[name].example
    return name if example is None else f"{name}({example:g})"


def _number(text: str, formula: Formula) -> float | None:
    """The number that a parameter is written as, or None where it is none that the formula takes."""
    if not NUMBER.fullmatch(text):
        return None
    value = float(text) + 0.0  # -0 is 0
    return value if formula.least <= value <= formula.largest and (value or formula.least < 0) else None


def _shortest(number: float) -> str:
    """The shortest way to write a number from which it can be read back: names of different rules differ."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
