"""Which attention a network has, found by running a twin of it without weights, at two sizes and with two lengths of text.

Where the keys grow with the picture, and the queries too, it is self-attention; where the keys grow with the text as well, text
joins it. A run on the meta device costs neither time nor memory and works for any size.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from entropy_lib.errors import UnsupportedModelError
from entropy_lib.models.kernels import KernelCall, Listener, Run, listening
from entropy_lib.models.networks import Family, layouts

LONGER = 64  # text tokens more, to see what grows with the text; some networks pad it to multiples of 32
SOME = 32  # latent pixels a side, where the native size is not known
_LOCK = threading.RLock()  # twins are shared, and changed for as long as they are run


@dataclass(frozen=True)
class TracedCall:
    """One call of a kernel: the module that makes it, rows of all heads, queries, keys, λ, and what the keys were joined from."""

    module: str
    rows: int
    queries: int
    keys: int
    scale: float
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Attention:
    """What one module's attention is.

    Attributes:
        attends: "image", "image+text", "text" (what does not grow with the picture) or "cross" (a picture asks something else).
        text: how many keys each token of text adds.
        other: keys that are neither picture nor text.
        part: which of the parts that the keys are joined from is the picture.
    """

    attends: str
    text: int = 0
    other: int = 0
    part: int = 0

    @property
    def is_self(self) -> bool:
        """Whether a picture attends to itself."""
        return self.attends.startswith("image")


@dataclass(frozen=True)
class Structure:
    """How a network is called, and the attention of each module that has any, in the order of execution."""

    family: Family
    attention: Mapping[str, Attention]


def structure(network_class: type, config: tuple) -> Structure:
    """What a network of this class and configuration is made of.

    Raises:
        UnsupportedModelError: where it cannot be run without weights.
    """
    with _LOCK:
        return _structure(network_class, config)


def forget() -> None:
    """Look anew at every network, for how one is called has been learnt."""
    _structure.cache_clear()


@lru_cache(maxsize=64)
def _structure(network_class: type, config: tuple) -> Structure:
    failures = []
    for family in layouts(network_class, dict(config)):
        try:
            return _compare(network_class, config, family)
        except Exception as error:  # networks raise whatever they like where a call does not suit them
            failures.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
    raise UnsupportedModelError(
        f"how {network_class.__name__} is called could not be found out from its signature and configuration; show it once, "
        "`with entropy_lib.models.networks.recording(pipe.transformer): pipe(...)` "
        f"({'; '.join(each[:160] for each in dict.fromkeys(failures))}), so its attention is not known"
    )


def _compare(network_class: type, config: tuple, family: Family) -> Structure:
    text = family.text_tokens or 1
    height, width = _reference(family, dict(config))
    base = _first_calls(trace_at(network_class, config, family, height, width, text))
    wide, ratio = _at_another_size(network_class, config, family, height, width, text)
    try:
        longer = _first_calls(trace_at(network_class, config, family, height, width, text + LONGER))
    except Exception:  # a network of a fixed number of text tokens
        longer = base
    found = {
        name: _attention(call, wide[name], longer[name], ratio, text)
        for name, call in base.items()
        if name in wide and name in longer
    }
    joint = any(each.is_self and each.text for each in found.values())
    return Structure(family if joint else replace(family, text_tokens=0), found)


def _reference(family: Family, config: dict) -> tuple[int, int]:
    """A size to compare at: native, rounded up so that levels halve without a remainder."""
    try:
        size = family.native_size(config)
    except Exception:  # not known, and not needed here
        size = (SOME, SOME)
    return tuple(1 << (max(side, 1) - 1).bit_length() for side in size)


def _at_another_size(
    network_class: type, config: tuple, family: Family, height: int, width: int, text: int
) -> tuple[dict[str, TracedCall], float]:
    """First calls at another size that the network takes, and its area over the one given."""
    others = ((height, 2 * width), (height, width // 2), (2 * height, 2 * width), (height // 2, width // 2))
    failure: Exception | None = None
    for rows, columns in others:
        try:
            calls = _first_calls(trace_at(network_class, config, family, rows, columns, text))
        except Exception as error:  # a network with an end to its positions, or of square pictures only
            failure = error
        else:
            return calls, rows * columns / (height * width)
    raise failure or ValueError("no other size")


def _attention(base: TracedCall, wide: TracedCall, longer: TracedCall, ratio: float, text: int) -> Attention:
    if wide.keys == base.keys or wide.queries == base.queries:
        return Attention("cross" if wide.queries != base.queries else "text")
    each = (longer.keys - base.keys) // LONGER
    image = round((wide.keys - base.keys) / (ratio - 1))
    grown = [one != other for one, other in zip(base.parts, wide.parts, strict=False)]
    part = grown.index(True) if True in grown else 0
    return Attention("image+text" if each else "image", each, base.keys - image - each * text, part)


def _first_calls(calls: tuple[TracedCall, ...]) -> dict[str, TracedCall]:
    found: dict[str, TracedCall] = {}
    for call in calls:
        found.setdefault(call.module, call)
    return found


@lru_cache(maxsize=64)
def trace_at(network_class: type, config: tuple, family: Family, height: int, width: int, text: int) -> tuple[TracedCall, ...]:
    """Every kernel call of one forward pass at a size in latent pixels, with so much text."""
    with torch.device("meta"):
        inputs = family.inputs(dict(config), height, width, text)
    return trace(network_class, config, inputs)


def trace(network_class: type, config: tuple, inputs: Any, positional: tuple = ()) -> tuple[TracedCall, ...]:
    """Every kernel call of one forward pass with these arguments, none of which is computed."""
    from diffusers.models.attention_dispatch import attention_backend  # not before there is a network of diffusers

    with _LOCK, torch.device("meta"), torch.no_grad(), attention_backend("native"):  # others, as flex, refuse the meta device
        twin = _twin(network_class, config)
        recorder, joined = _Recorder(), _Joined()
        recorder.joined, recorder.layers = joined.parts, tuple(name for name, _ in twin.named_modules())
        with listening(twin, recorder), joined:
            twin(*tree_map(_weightless, positional), **tree_map(_weightless, inputs))
    return tuple(recorder.calls)


def _weightless(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


@lru_cache(maxsize=16)
def _twin(network_class: type, config: tuple) -> nn.Module:
    return network_class.from_config(dict(config)).eval().to("meta")  # a few parameters ignore the device that they are made for


class _Recorder(Listener):
    """Writes down every kernel call, with the innermost module that runs."""

    observes = True

    def __init__(self) -> None:
        self.calls: list[TracedCall] = []
        self.joined: dict[int, tuple[int, ...]] = {}

    def observe(self, run: Run, layer: str, asked: KernelCall, used: KernelCall) -> None:
        parts = self.joined.get(used.keys, (used.keys,))
        self.calls.append(TracedCall(layer, used.query.shape[:2].numel(), used.queries, used.keys, float(used.scale), parts))


class _Joined(TorchFunctionMode):
    """Remembers how rows of tokens were joined: {length: lengths of the parts}."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[int, tuple[int, ...]] = {}

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.cat, torch.concat) and isinstance(result, Tensor):
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else 0)
            self.parts[result.shape[dim]] = tuple(part.shape[dim] for part in args[0])
        return result
