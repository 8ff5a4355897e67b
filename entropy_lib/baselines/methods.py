"""All ways to a picture of some size, chosen by a string as rules are.

To add one, write its function and give it a line in `METHODS`.

    "direct"               as the model is, patched or not; "+ unscaled" says the same
    "direct + paper"       under a scale rule
    "resized(lanczos)"     native, then resized by that filter
    "multidiffusion(0.5)"  through windows that overlap by half
    "two-stage(0.7) + paper"

Example:
    >>> method("two-stage( 0.6 )+ paper").name, method("multidiffusion(0.5)").name
    ('two-stage + paper', 'multidiffusion(0.5)')
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from diffusers import DiffusionPipeline
from jaxtyping import UInt8

from entropy_lib.baselines.from_native import FILTERS, STRENGTH, resized, two_stage
from entropy_lib.baselines.multidiffusion import OVERLAP, multidiffusion
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.experiments.generation import generate
from entropy_lib.scaling.rules import rule

UNSCALED = "unscaled"


@dataclass(frozen=True)
class Kind:
    """One kind of method.

    Attributes:
        draw: takes pipeline, prompts, seeds, height, width, and `steps, guidance, batch, progress` by name.
        option: name of the one argument that a method's string may give in brackets, or None.
        default: its value.
        ruled: whether a scale rule can change anything: `draw` then takes `scale_rule`.
    """

    draw: Callable[..., UInt8[np.ndarray, "image height width 3"]]
    option: str | None = None
    default: float | str | None = None
    ruled: bool = True


METHODS = {
    "direct": Kind(generate),
    "resized": Kind(resized, "filter", "bicubic", ruled=False),
    "multidiffusion": Kind(multidiffusion, "overlap", OVERLAP),
    "two-stage": Kind(two_stage, "strength", STRENGTH),
}


@dataclass(frozen=True)
class Method:
    """A way to a picture; made by `method`.

    Attributes:
        kind: its key in `METHODS`.
        value: of the kind's option; None where it has none.
        rule: name of the scale rule; "unscaled" leaves the model as it is.
    """

    kind: str
    value: float | str | None
    rule: str

    @property
    def name(self) -> str:
        """The shortest string that means it."""
        own = METHODS[self.kind]
        option = "" if self.value == own.default else f"({self.value:g})" if isinstance(self.value, float) else f"({self.value})"
        return self.kind + option + ("" if self.rule == UNSCALED else f" + {self.rule}")


def method(text: str) -> Method:
    """The method that a string names.

    Raises:
        UnknownNameError: for an unknown kind, filter or rule.
        InvalidInputError: for a string that cannot be read, an option that the kind has not or that is not of its type, and a
            rule where none can change anything.
    """
    found = re.fullmatch(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*(?:\+(.+))?", text) if isinstance(text, str) else None
    if not found:
        raise InvalidInputError(f"method is {text!r}; write for example 'direct', 'multidiffusion(0.5)' or 'two-stage + paper'")
    kind, value, rule_text = found.groups()
    if kind not in METHODS:
        raise UnknownNameError("method", kind, METHODS)
    chosen = rule(rule_text.strip()).name if rule_text else UNSCALED
    if chosen != UNSCALED and not METHODS[kind].ruled:
        able = ", ".join(name for name, known in METHODS.items() if known.ruled)
        raise InvalidInputError(
            f"method {text!r}: {kind!r} draws at native size, where a rule changes nothing; rules go with {able}"
        )
    return Method(kind, _value(text, METHODS[kind], value), chosen)


def _value(text: str, kind: Kind, value: str | None) -> float | str | None:
    """The option of a method's string, of the type of its default and within its range."""
    if value is None:
        return kind.default
    if kind.option is None:
        raise InvalidInputError(f"method {text!r}: it has no option; leave the brackets out")
    if isinstance(kind.default, str):
        if value.strip() not in FILTERS:
            raise UnknownNameError("filter", value.strip(), FILTERS)
        return value.strip()
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number <= 1:
        raise InvalidInputError(f"method {text!r}: {kind.option} is {value!r}; it must be a number above 0 and at most 1")
    return number


def draw_by(
    text: str | Method,
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    **sampling: object,
) -> UInt8[np.ndarray, "image height width 3"]:
    """Draw one image for each (prompt, seed) pair by a method.

    Args:
        text: of the method, see above.
        pipe, prompts, seeds, height, width: as for `generate`.
        sampling: `steps, guidance, batch, progress`, as for `generate`.

    Returns:
        uint8 `[n, height, width, 3]`.

    Raises:
        EntropyLibError: what `method` and the method's own function raise, before anything is drawn.

    Example:
        >>> import entropy_lib as el
        >>> draw_by("multidiffusion + paper", el.load("mini"), ["a penguin"], [0], 64, 96, steps=2).shape
        (1, 64, 96, 3)
    """
    chosen = text if isinstance(text, Method) else method(text)
    kind = METHODS[chosen.kind]
    own = {kind.option: chosen.value} if kind.option else {}
    scale = {} if chosen.rule == UNSCALED else {"scale_rule": chosen.rule}  # none leaves an outer patch, as `generate` does
    return kind.draw(pipe, prompts, seeds, height, width, **own, **scale, **sampling)
