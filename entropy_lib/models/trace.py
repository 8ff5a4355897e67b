"""Which attention a network has, by a twin without weights at two sizes and two lengths of text.

Where the keys grow with the image, and the queries too, it is self-attention; where the keys grow with the
text as well, text joins it. A run on the meta device costs neither time nor memory and works for any size.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from entropy_lib.errors import UnsupportedModelError
from entropy_lib.models.kernels import KernelCall, Listener, Run, listening
from entropy_lib.models.networks import Family, bare, batch_of, layouts

LONGER = 64  # text tokens more, to see what grows with the text; some networks pad it to multiples of 32
SOME = 32  # latent pixels a side, where the native size is not known
_LOCK = threading.RLock()  # twins are shared, and changed for as long as they are run


@dataclass(frozen=True)
class TracedCall:
    """One call of a kernel: its module, rows of all heads, and what the keys were joined from."""

    module: str
    rows: int
    queries: int
    keys: int
    scale: float
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Attention:
    """What one module's attention is."""

    # "image", "image+text", "text" (what does not grow with the image), "frames" (each place by itself) or
    # "cross" (an image asks something else)
    attends: str
    text: int = 0  # how many keys each token of text adds
    other: int = 0  # keys that are neither image nor text
    image: int = 0  # keys that are the image's, at the size that its structure was compared at
    part: int = 0  # which of the parts that the keys are joined from is the image
    call: int = 0  # which call of the module it is

    @property
    def is_self(self) -> bool:
        """Whether an image attends to itself."""
        return self.attends.startswith("image")


@dataclass(frozen=True)
class Structure:
    """How a network is called, and the attention of its modules in order, found at this latent size."""

    family: Family
    attention: Mapping[str, Attention]
    size: tuple[int, int]


@lru_cache(maxsize=64)
def structure(network_class: type, config: tuple) -> Structure:
    """What a network of this class and configuration is made of."""
    failures = {}  # each once, in order
    for family in layouts(network_class, dict(config)):
        try:
            return _compare(network_class, config, family)
        except Exception as error:  # networks raise whatever they like where a call does not suit them
            failures[said(error)] = None
    raise UnsupportedModelError(
        f"how {network_class.__name__} is called could not be found out from its signature and "
        "configuration; show it once, `with entropy_lib.models.recording.recording(pipe.transformer): "
        f"pipe(...)` ({'; '.join(failures)}), so its attention is not known"
    )


def said(error: Exception) -> str:
    """Kind and first line of what others raised."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"


def _compare(network_class: type, config: tuple, family: Family) -> Structure:
    text = family.text_tokens or 1
    # native, or rounded up so that levels halve without a remainder
    sides = family.native_size(dict(config)) or (SOME, SOME)
    height, width = (1 << (max(side, 1) - 1).bit_length() for side in sides)
    base = _by_module(trace_at(network_class, config, family, height, width, text))
    wide, ratio = _at_another_size(network_class, config, family, height, width, text)
    try:
        longer = _by_module(trace_at(network_class, config, family, height, width, text + LONGER))
    except Exception:  # a network of a fixed number of text tokens
        longer = {}
    found = {
        name: _attention(
            list(zip(calls, wide[name], longer.get(name, [None] * len(calls)), strict=False)), ratio, text
        )
        for name, calls in base.items()
        if name in wide and (name in longer or not longer)
    }
    joint = any(each.is_self and each.text for each in found.values())
    return Structure(family if joint else replace(family, text_tokens=0), found, (height, width))


def _at_another_size(
    network_class: type, config: tuple, family: Family, height: int, width: int, text: int
) -> tuple[dict[str, list[TracedCall]], float]:
    """Calls at another size that the network takes, and its area over the one given."""
    others = ((height, 2 * width), (height, width // 2), (2 * height, 2 * width), (height // 2, width // 2))
    failures = []
    for rows, columns in others:
        try:
            calls = trace_at(network_class, config, family, rows, columns, text)
            return _by_module(calls), rows * columns / (height * width)
        except Exception as error:  # a network with an end to its positions, or of square images only
            failures.append(error)
    raise failures[-1]


def _attention(
    calls: list[tuple[TracedCall, TracedCall, TracedCall | None]], ratio: float, text: int
) -> Attention:
    """Of a module, from its calls at two sizes and with a longer text."""
    grows = [wide.keys != base.keys and wide.queries != base.queries for base, wide, _ in calls]
    number = grows.index(True) if True in grows else 0
    base, wide, longer = calls[number]
    if True not in grows:
        frames = wide.keys == base.keys and wide.queries == base.queries and wide.rows != base.rows
        return Attention("frames" if frames else "cross" if wide.queries != base.queries else "text")
    image = round((wide.keys - base.keys) / (ratio - 1))
    each = int(base.keys - image == text) if longer is None else (longer.keys - base.keys) // LONGER
    grown = [one != other for one, other in zip(base.parts, wide.parts, strict=False)]
    part = grown.index(True) if True in grown else 0
    other = base.keys - image - each * text
    return Attention("image+text" if each else "image", each, other, image, part, number)


def _by_module(calls: tuple[TracedCall, ...]) -> dict[str, list[TracedCall]]:
    found: dict[str, list[TracedCall]] = {}
    for call in calls:
        found.setdefault(call.module, []).append(call)
    return found


def attending(calls: tuple[TracedCall, ...], attention: Mapping[str, Attention]) -> dict[str, TracedCall]:
    """The call of each module that `attention` tells of, in order; of others the first."""
    found = {}
    for name, own in _by_module(calls).items():
        number = attention[name].call if name in attention else 0
        found[name] = own[number if number < len(own) else 0]
    return found


@lru_cache(maxsize=64)
def trace_at(
    network_class: type, config: tuple, family: Family, height: int, width: int, text: int, frames: int = 1
) -> tuple[TracedCall, ...]:
    """Every kernel call of one forward pass at a size in latent pixels, with so much text."""
    inputs = family.inputs(dict(config), height, width, text, described=True, frames=frames)
    batch = batch_of(inputs)  # a call that was recorded may have one of several rows
    return tuple(replace(call, rows=call.rows // batch) for call in trace(network_class, config, inputs))


def trace(network_class: type, config: tuple, inputs: dict) -> tuple[TracedCall, ...]:
    """Every kernel call of one forward pass, of whose arguments small ones alone are computed with."""
    # not before there is a network of diffusers
    from diffusers.models.attention_dispatch import attention_backend

    with _LOCK, torch.no_grad(), attention_backend("native"):  # others, as flex, refuse the meta device
        twin = _twin(network_class, config)
        recorder, weightless = _Recorder(), Weightless()
        recorder.joined, recorder.layers = weightless.joined, tuple(name for name, _ in twin.named_modules())
        with listening(twin, recorder), weightless:
            twin(**tree_map(bare, inputs))
    return tuple(recorder.calls)


@lru_cache(maxsize=16)
def _twin(network_class: type, config: tuple) -> nn.Module:
    with torch.device("meta"):
        twin = network_class.from_config(dict(config)).eval()
    return twin.to("meta")  # a few parameters ignore the device that they are made for


class _Recorder(Listener):
    """Writes down every kernel call, with the innermost module that runs."""

    observes = True

    def __init__(self) -> None:
        self.calls: list[TracedCall] = []
        self.joined: dict[int, tuple[int, ...]] = {}

    def observe(self, run: Run, layer: str, asked: KernelCall, used: KernelCall) -> None:
        parts = self.joined.get(used.keys, (used.keys,))
        self.calls.append(
            TracedCall(layer, used.query.shape[:2].numel(), used.queries, used.keys, float(used.scale), parts)
        )


class Weightless(TorchFunctionMode):
    """Lets a network run on the meta device, although some count or branch by numbers.

    What is made of whole numbers alone, as places and masks of text, is computed on the CPU, and becomes
    weightless where it meets weights or images. The network is told that everything is on the CPU.

    Attributes:
        joined: how rows of tokens were joined: {length: lengths of the parts}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.joined: dict[int, tuple[int, ...]] = {}

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function == DEVICE:
            return torch.device("cpu")
        if function in MOVES:
            args = args[:1] + tuple(each for each in args[1:] if not _is_device(each))
            kwargs.pop("device", None)
            if len(args) == 1 and not kwargs.get("dtype"):
                return args[0]
        if function in FACTORIES:
            whole = function in COUNTS or not kwargs.get("dtype", torch.float32).is_floating_point
            kwargs["device"] = "cpu" if whole else "meta"
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(each.is_meta for each in tensors):
            if function in INDEXING:
                args = (args[0], _indices(args[1]), *args[2:])
            if function in REPEATS and isinstance(args[1], Tensor) and not args[1].is_meta:
                kwargs["output_size"] = int(args[1].sum())
            args, kwargs = tree_map(
                lambda each: each.to("meta") if isinstance(each, Tensor) else each, (args, kwargs)
            )
        result = function(*args, **kwargs)
        if function in (torch.cat, torch.concat) and isinstance(result, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            self.joined[result.shape[dim]] = tuple(part.shape[dim] for part in args[0])
        return result


DEVICE = Tensor.device.__get__
MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
COUNTS = (torch.arange, torch.linspace, torch.tensor, torch.as_tensor)
FACTORIES = (*COUNTS, torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn, torch.eye)
REPEATS = (torch.repeat_interleave, Tensor.repeat_interleave)
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and not value.startswith("torch."))


def _indices(index: Any) -> Any:
    """Places in the stead of masks: how many there are must be known."""
    parts = index if isinstance(index, tuple) else (index,)
    masked = any(isinstance(part, Tensor) and part.dtype == torch.bool and not part.is_meta for part in parts)
    if not masked:
        return index

    def places(part: Any) -> tuple:
        mask = isinstance(part, Tensor) and part.dtype == torch.bool
        return part.nonzero(as_tuple=True) if mask else (part,)

    return tuple(chain.from_iterable(map(places, parts)))
