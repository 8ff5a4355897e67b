"""All methods to make an image of some size, chosen by a string as rules are. Loads nothing heavy.

What there is stands in docs/rules.md. To add one, write its function and give it a line in `METHODS`.

Example:
    >>> [method(text).name for text in ("two-stage( 0.6 )+ paper", "multidiffusion(.5)", "direct + paper")]
    ['two-stage + paper', 'multidiffusion(0.5)', 'paper']
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.models.padding import PADDINGS
from entropy_lib.scaling.rules import FORMULAS, NAME, Rule, distinct_rules, parsed_list, rule
from entropy_lib.sizes import Size

DIRECT, UNSCALED = "direct", "unscaled"
SYNTAX = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*(?:\+(.+))?")
# of `resized`
FILTERS = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")}
FILTER = "bicubic"
# of windows; MultiDiffusion moves windows of 64 latent pixels by 8, which is 0.875 and takes four times as
# long
OVERLAP = 0.75

Images: TypeAlias = UInt8[np.ndarray, "image height width 3"]


@dataclass(frozen=True)
class Kind:
    # where it is, "module:name", for it loads diffusers: it takes a pipeline, a checked `Request`, the name
    # of the scale rule, and the value of the option if there is one
    function: str
    option: str | None = None  # name of the one argument that a method's string may give in brackets, or None
    default: float | str | None = None  # its value; None where the string must give it
    largest: float | None = None  # for a number, which must be above 0; None where only words will do
    words: Mapping[str, float | str] = field(default_factory=dict)  # {what a string may say: value}
    ruled: bool = True  # whether a scale rule can change anything
    identity: bool = True  # whether it makes what `direct` makes at native size
    from_native: bool = False  # whether it begins with an image of native size, and so with the noise of one
    windows: bool = False  # whether it looks through windows of native size


METHODS = {
    DIRECT: Kind("sampling.generation:directly"),
    "resized": Kind(
        "sampling.from_native:resized",
        "filter",
        FILTER,
        words={each: each for each in FILTERS},
        ruled=False,
        from_native=True,
    ),
    "super-resolved": Kind("sampling.from_native:super_resolved", ruled=False, from_native=True),
    "multidiffusion": Kind(
        "sampling.multidiffusion:multidiffusion", "overlap", OVERLAP, largest=1.0, windows=True
    ),
    # how much noise is put back before an image is generated over
    "two-stage": Kind(
        "sampling.from_native:two_stage", "strength", 0.6, largest=1.0, identity=False, from_native=True
    ),
    # 1 keeps the signal-to-noise ratio of the mean over as many pixels as show the same share
    "schedule-shift": Kind("sampling.rivals:schedule_shift", "strength", 1.0, largest=4.0),
    "noise-told": Kind("sampling.rivals:noise_told"),
    "padding": Kind(
        "sampling.rivals:padding", "mode", "reflect", words={each: each for each in PADDINGS}, identity=False
    ),
    "positions": Kind("sampling.rivals:positions", "share", largest=1.0, words={"interpolated": 1.0}),
}


@dataclass(frozen=True)
class Method:
    """A way to make an image; made by `method`.

    Attributes:
        kind: its key in `METHODS`.
        value: of the kind's option; None where it has none.
        rule: name of the scale rule; "unscaled" leaves the model as it is.
    """

    kind: str
    value: float | str | None
    rule: str

    @property
    def direct(self) -> bool:
        """Whether it is nothing but the model, under a rule or none."""
        return self.kind == DIRECT

    @property
    def calibrated(self) -> bool:
        """Whether its rule takes factors from a calibration of the model."""
        return rule(self.rule).calibrated

    @property
    def whole(self) -> str:
        """Name of the same with its rule in all layers and all of the way.

        Example:
            >>> method("noise-told + paper[0]").whole, method("paper").whole
            ('noise-told + paper', 'paper')
        """
        return replace(self, rule=rule(self.rule).whole.name).name

    @property
    def base(self) -> str:
        """Name of the same without a rule."""
        return replace(self, rule=UNSCALED).name

    @property
    def name(self) -> str:
        """The shortest string that means it."""
        if self.direct:
            return self.rule
        own = METHODS[self.kind]
        said = {value: word for word, value in own.words.items()}
        number = f"{self.value:g}" if isinstance(self.value, float) else self.value
        option = "" if self.value == own.default else f"({said.get(self.value, number)})"
        return self.kind + option + ("" if self.rule == UNSCALED else f" + {self.rule}")


def method(text: str | Rule | Method) -> Method:
    """The method that a string names, or the one that is given.

    Raises:
        UnknownNameError: for an unknown kind, filter or rule.
        InvalidInputError: for a string that cannot be read, an option that the kind has not or that is not of
            its type, and a rule where none can change anything.
    """
    if isinstance(text, Method):
        return text
    if isinstance(text, Rule):
        return Method(DIRECT, None, text.name)
    found = SYNTAX.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[1] not in METHODS:
        return _direct(text, found)
    kind, value, rule_text = found.groups()
    chosen = rule(rule_text.strip()).name if rule_text else UNSCALED
    if chosen != UNSCALED and not METHODS[kind].ruled:
        able = ", ".join(name for name, known in METHODS.items() if known.ruled)
        raise InvalidInputError(
            f"method {text!r}: {kind!r} generates at native size, where a rule changes nothing; "
            f"rules go with {able}"
        )
    return Method(kind, _value(text, METHODS[kind], value), chosen)


def method_list(texts: Sequence[str | Rule | Method]) -> list[Method]:
    """Several methods, each of which may occur once."""
    return parsed_list(texts, method)


def _direct(text: object, found: re.Match | None) -> Method:
    """A string that names no kind of method is a rule, under which the model generates directly."""
    name = re.match(NAME, text) if isinstance(text, str) else None
    if name is not None and name[1] in FORMULAS:
        return Method(DIRECT, None, rule(text).name)
    if found is None:
        raise InvalidInputError(
            f"method is {text!r}; write for example 'paper', 'multidiffusion(0.5)' or 'two-stage + paper'"
        )
    raise UnknownNameError("method", found[1], [*METHODS, *FORMULAS])


def _value(text: str, kind: Kind, value: str | None) -> float | str | None:
    """The option of a method's string, of the type of its default and within its range."""
    if kind.option is None and value is not None:
        raise InvalidInputError(f"method {text!r}: it has no option; leave the brackets out")
    if kind.option is None or (value is None and kind.default is not None):
        return kind.default
    given = (value or "").strip()
    if given in kind.words:
        return kind.words[given]
    if kind.largest is None:
        raise UnknownNameError(kind.option, given, kind.words)
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 < number <= kind.largest:
        words = "".join(f"{word!r} or " for word in kind.words)
        raise InvalidInputError(
            f"method {text!r}: {kind.option} is {given!r}; it must be {words}a number above 0 and at most "
            f"{kind.largest:g}"
        )
    return number


def doses(methods: Sequence[str | Rule | Method]) -> list[dict[str, str | float]]:
    """Which methods are doses of the rule (ln N / ln T)^p, all else being equal.

    Returns:
        A row each, `method, base, dose`: `base` is the same method without a rule, `dose` the exponent p. A
        base of fewer than two doses is left out, and so is a rule for some layers or a part of the way.

    Example:
        >>> rows = doses(["unscaled", "paper", "power(2)[0]", "padding + paper", "resized(lanczos)"])
        >>> [tuple(row.values()) for row in rows]
        [('unscaled', 'unscaled', 0.0), ('paper', 'unscaled', 0.5)]
    """
    chosen = [(each, rule(each.rule).exponent) for each in method_list(methods) if METHODS[each.kind].ruled]
    rows = [{"method": each.name, "base": each.base, "dose": p} for each, p in chosen if p is not None]
    count = Counter(row["base"] for row in rows)
    return [row for row in rows if count[row["base"]] > 1]


def distinct_at_native_size(methods: Sequence[str | Method]) -> dict[str, list[str]]:
    """Which methods make the same images at native size, so that only one of them has to.

    Returns:
        {method: those that make the same, itself the first}; keys in the order given.

    Example:
        >>> distinct_at_native_size(["unscaled", "paper", "multidiffusion", "two-stage"])
        {'unscaled': ['unscaled', 'paper', 'multidiffusion'], 'two-stage': ['two-stage']}
    """
    groups: dict[tuple, list[str]] = {}
    chosen = [method(text) for text in methods]
    rules = list(dict.fromkeys(each.rule for each in chosen))
    distinct = distinct_rules(rules, [2], [2])  # at native size N is T in every layer, whatever T is
    same_rule = {name: first for first, names in distinct.items() for name in names}
    for each in chosen:
        kind = (DIRECT, None) if METHODS[each.kind].identity else (each.kind, each.value)
        groups.setdefault((*kind, same_rule[each.rule]), []).append(each.name)
    return {names[0]: names for names in groups.values()}


def check_at(text: str | Method, size: tuple[int, int], native: tuple[int, int]) -> None:
    """What can be known of a method at a size before the model is there."""
    if METHODS[method(text).kind].windows and (size[0] < native[0] or size[1] < native[1]):
        raise InvalidInputError(
            f"{method(text).name} at {Size(*size)}: there is no room for one window, which is "
            f"{Size(*native)}; leave this size out, or this method"
        )
