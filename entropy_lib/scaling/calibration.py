"""How every head's entropy answers the softmax scale at native size, and the factors that follow from it.

If a head sees, at N tokens in place of T, N/T times as many keys of the same kinds, its entropy is that of
native size plus ln(N/T), whatever its logits look like. The factor that gives it back its native entropy is
then read off one curve: the entropy at native size under factors around 1, as `entropy_lib.calibrate`
measures it. Where no factor on the curve will do, the last one is taken. `scale_report` says of how many
heads, and by how much the assumption misses at the sizes that are run.

A calibration is a small JSON file. It knows the model by the lengths of the projections that its queries come
from.

Example:
    >>> import numpy as np
    >>> factors = np.geomspace(0.5, 2, 65)
    >>> curve = [[float(np.log(64) - 0.5 * f**2) for f in factors]]  # one head of Gaussian logits with b = 1
    >>> layer = LayerResponse(64, tuple(factors), curve)
    >>> [round(f, 2) for f in equal_entropy(layer, 80, per_head=True).factors]
    [1.2]
"""

import hashlib
import json
import math
import os.path
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from entropy_lib.errors import InvalidInputError, MissingFileError, in_words, shortened
from entropy_lib.files import DATA, replacing
from entropy_lib.models.layers import query_product, training_tokens
from entropy_lib.scaling.rules import Rule

SHIPPED = DATA / "calibrations"
ATTRIBUTE = "_entropy_lib_calibration"  # where a network keeps one that it was given
STRICT = ConfigDict(strict=True, extra="forbid")
ROUNDING = 1e-3  # nats that a measured entropy may be below 0
OF_ANOTHER, AGAIN = (
    "the calibration was measured on other weights",
    "calibrate this model, `entropy_lib.calibrate(pipe)`",
)
SAME = 0.01  # relative difference of lengths up to which weights are the same, bfloat16's rounding included


@dataclass(frozen=True)
class LayerFactors:
    """What a calibrated rule multiplies the queries of a layer by."""

    factors: tuple[float, ...]  # one for each head, or a single one for all
    clamped: int = 0  # for how many of them no factor gives the wanted entropy


@dataclass(frozen=True)
class LayerResponse:
    """Entropy of one layer at native size against the softmax scale."""

    __pydantic_config__: ClassVar = STRICT

    training_tokens: int  # T
    factors: tuple[float, ...]  # of the scale, ascending, 1 among them
    entropies: Sequence[Sequence[float]]  # in nats, `[head][factor]`

    def __post_init__(self) -> None:
        factors, count = np.asarray(self.factors, dtype=float), len(self.factors)
        if self.training_tokens < 1:
            raise InvalidInputError(f"training_tokens is {self.training_tokens}; it must be 1 or more")
        ascending = count > 1 and np.isfinite(factors).all() and (np.diff(factors) > 0).all()
        if not ascending or not 0 < factors[0] <= 1 <= factors[-1]:
            raise InvalidInputError(
                f"factors are {shortened(self.factors)}; they must be numbers above 0, ascending, from below "
                "1 to above it"
            )
        heads = [np.asarray(head, dtype=float) for head in self.entropies]
        whole = [len(head) == count and np.isfinite(head).all() and min(head) > -ROUNDING for head in heads]
        if not heads or not all(whole):
            raise InvalidInputError(
                f"entropies are {shortened(self.entropies)}; of each head they must be numbers from 0, as "
                f"many as there are factors, {count}"
            )

    def at_native(self) -> np.ndarray:
        """Entropy of each head under no rule, `[head]`."""
        return np.array([np.interp(0.0, np.log(self.factors), head) for head in self.entropies])


@dataclass(frozen=True)
class Calibration:
    """Responses of all self-attention layers of a network.

    Attributes:
        lengths: {layer: Euclidean length of its query projection}, by which the network is recognised.
        layers: {layer: its response}.
        source: model, prompts, sampler, in words.
    """

    __pydantic_config__: ClassVar = STRICT

    lengths: Mapping[str, float]
    layers: Mapping[str, LayerResponse]
    source: str = ""

    def __post_init__(self) -> None:
        if apart := sorted(set(self.lengths) ^ set(self.layers)):
            raise InvalidInputError(
                f"lengths and layers differ in {apart[0]!r}; they must be of the same layers"
            )
        if not self.layers:
            raise InvalidInputError("layers are none; there must be one at least")
        if not all(0 <= length < math.inf for length in self.lengths.values()):
            raise InvalidInputError(
                f"lengths are {shortened(dict(self.lengths))}; they must be numbers from 0"
            )

    @property
    def digest(self) -> str:
        """What tells it from every other: 16 hexadecimal digits."""
        return hashlib.sha256(self._text().encode()).hexdigest()[:16]

    def _text(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def fits(self, weights: nn.Module | Mapping[str, float] | None) -> bool:
        """Whether it was measured on the weights of a network, or on query projections of these lengths."""
        own = lengths(weights, self.lengths) if isinstance(weights, nn.Module) else weights
        return own is not None and same_lengths(own, self.lengths)

    def check_planned(
        self, rules: Sequence[Rule], network: nn.Module, own: Mapping[str, float] | None
    ) -> None:
        """InvalidInputError unless it is of a network and has all layers that rules need.

        Args:
            rules: calibrated ones.
            network: configured as the one that will generate, with or without weights; see `models.outline`.
            own: lengths of its query projections, None where they are not known yet.
        """
        self.check_shapes(network)
        training = training_tokens(network)
        for name, layer in self.layers.items():
            if layer.training_tokens != training[name]:
                there = f"{name} has {training[name]} tokens at native size and not {layer.training_tokens}"
                raise InvalidInputError(f"{OF_ANOTHER}: {there}; {AGAIN}")
        if own is not None and not self.fits(own):
            raise InvalidInputError(f"{OF_ANOTHER}; {AGAIN}")
        for chosen in rules:
            for name in chosen.layers(training):
                self.factors(chosen, name, training[name])

    def check_shapes(self, network: nn.Module) -> None:
        """InvalidInputError unless a network, which may lack weights, has these layers and heads."""
        modules = dict(network.named_modules())
        for name, layer in self.layers.items():
            there, heads = getattr(modules.get(name), "heads", 0), len(layer.entropies)
            if there != heads:
                lack = f"there is no self-attention {name!r}"
                has = f"{name} has {there} heads and not {heads}" if there else lack
                raise InvalidInputError(f"{OF_ANOTHER}: {has}; {AGAIN}")

    def factors(self, chosen: Rule, layer: str, tokens: int) -> LayerFactors:
        """What a calibrated rule does to a layer at N tokens; 1 at N = T."""
        if layer not in self.layers:
            raise InvalidInputError(
                f"layer {layer!r} is not in the calibration; calibrate all layers that the rule is for"
            )
        response = self.layers[layer]
        if tokens == response.training_tokens or min(tokens, response.training_tokens) == 1:
            return LayerFactors((1.0,))
        return equal_entropy(response, tokens, per_head=chosen.parameter == "heads")

    def check_within_reach(self, chosen: Rule, tokens: Mapping[str, int]) -> None:
        """InvalidInputError where at these N no head of a rule's layers can have what it wants."""
        training = {name: layer.training_tokens for name, layer in self.layers.items()}
        layers = [name for name in chosen.layers(training) if tokens.get(name, 1) not in (1, training[name])]
        found = [self.factors(chosen, name, tokens[name]) for name in layers]
        if found and all(each.clamped == len(each.factors) for each in found):
            counts = f"{max(tokens.values())} tokens in place of {max(training.values())}"
            raise InvalidInputError(
                f"scale rule {chosen.name!r}: at {counts} the entropy that it wants is out of reach in every "
                "head of every layer; take a size nearer the native one, or another rule"
            )

    def write(self, path: Path | str) -> Path:
        """Keep it as JSON, whole or not at all."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")
        return Path(path)

    @classmethod
    def read(cls, path: Path | str) -> "Calibration":
        """One that was written.

        Raises:
            MissingFileError: if it is not there.
            InvalidInputError: if it is no calibration.
        """
        if not os.path.isfile(path):
            raise MissingFileError(
                f"no calibration at {path}; make one with `entropy_lib.calibrate(pipe, ...).write(path)`"
            )
        try:
            return TypeAdapter(cls).validate_json(Path(path).read_bytes())
        except ValidationError as error:
            reason = in_words(error.errors()[0])
            lack = f"{path} is no calibration that can be read: {reason}; make it again"
            raise InvalidInputError(lack) from None


def equal_entropy(response: LayerResponse, tokens: int, per_head: bool) -> LayerFactors:
    """The factors that give a layer, or each of its heads, its native entropy at N tokens.

    That is the entropy at T less ln(N / T), on the curve at T.
    """
    curves, logs = np.asarray(response.entropies, dtype=float), np.log(response.factors)
    factors, clamped = [], 0
    for curve in curves if per_head else curves.mean(0, keepdims=True):
        falling = np.minimum.accumulate(curve)
        wanted = np.interp(0.0, logs, falling) - math.log(tokens / response.training_tokens)
        factors.append(math.exp(np.interp(-wanted, -falling, logs)))
        clamped += bool(not falling[-1] <= wanted <= falling[0])
    return LayerFactors(tuple(factors), clamped)


def lengths(network: nn.Module, layers: Sequence[str] | Mapping[str, float]) -> dict[str, float] | None:
    """Euclidean length of the projection that each layer's query comes from; None where one is missing."""
    modules = dict(network.named_modules())
    try:
        products = {name: modules[name].get_submodule(query_product(modules[name])) for name in layers}
        return {name: float(product.weight.detach().double().norm()) for name, product in products.items()}
    except (KeyError, AttributeError, IndexError):
        return None


def same_lengths(own: Mapping[str, float], measured: Mapping[str, float]) -> bool:
    """Whether lengths of query projections are of the weights that something was measured on."""
    return all(math.isclose(own.get(name, 0), each, rel_tol=SAME) for name, each in measured.items())


def use_calibration(network: nn.Module, calibration: Calibration | None) -> None:
    """Let calibrated rules that are applied to this network from now on take their factors from here.

    None: from the shipped one. A calibration of other weights or layers is refused by InvalidInputError.
    """
    if calibration is None:
        network.__dict__.pop(ATTRIBUTE, None)
        return
    calibration.check_shapes(network)
    if not calibration.fits(network):
        raise InvalidInputError(f"{OF_ANOTHER}; {AGAIN}")
    setattr(network, ATTRIBUTE, calibration)


def calibration_of(network: nn.Module, name: str) -> Calibration:
    """The calibration that a denoiser was given, or else the shipped one of its weights, for a named rule."""
    own = getattr(network, ATTRIBUTE, None)
    return own or shipped_calibration(lambda shipped: shipped.fits(network), name)


def shipped_calibration(fits: Callable[[Calibration], bool], name: str) -> Calibration:
    """The first shipped calibration that fits, for a named rule; InvalidInputError where there is none."""
    for shipped in map(Calibration.read, sorted(SHIPPED.glob("*.json"))):
        if fits(shipped):
            return shipped
    raise InvalidInputError(
        f"scale rule {name!r} takes its factors from a calibration, and there is none for these weights; "
        "`entropy_lib.calibrate(pipe)` measures one at native size and puts it to use"
    )
