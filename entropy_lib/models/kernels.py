"""The calls of softmax kernels that a network makes while it runs: the one place where attention is met.

Nearly all attention of diffusers' networks ends at `torch.nn.functional.scaled_dot_product_attention`, an
attribute that is looked up at each call; what is left goes through the table of backends,
`Attention.get_attention_scores` or xformers. While a network runs that somebody listens to, those functions
are wrapped by plain ones, in its own thread; at all other times they are what they were. What arrives there
is query, key, mask and scale exactly as the softmax sees them: after norms, rotary embeddings, LoRA, fused
projections. Names of classes, projections and norms decide nothing.
"""

import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_lib.errors import AttentionNotSeenError

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
MASKED = -1e4  # diffusers hides keys by adding this much to their logits, or more
STATION = "_entropy_lib_station"  # where a network that is listened to keeps its hooks


class KernelCall(NamedTuple):
    """What a softmax kernel is called with."""

    query: Tensor  # `[batch, head, tokens, dim]`, views of what is handed over
    key: Tensor  # likewise
    # what is added to the logits or, boolean, lets keys take part (True); None where all do
    mask: Tensor | None
    scale: float  # λ
    causal: bool = False  # whether each query sees the keys up to its own place only
    whole: bool = True  # whether a batch's heads have come together; slices of them have not

    @property
    def queries(self) -> int:
        """Queries of the call."""
        return self.query.shape[-2]

    @property
    def keys(self) -> int:
        """Keys of the call, masked ones included."""
        return self.key.shape[-2]


@dataclass(frozen=True)
class Change:
    """What is done to one kernel call."""

    # what its scale is multiplied by: a number, or `[batch, head or 1, 1, 1]`
    factor: float | Tensor = 1.0
    key: Tensor | None = None  # in place of its own, `[batch, head, tokens, dim]`; None leaves them
    # what the kernel's answer is multiplied by, a number or `[batch or 1, head or 1, 1, 1]`
    kept: float | Tensor = 1.0


class Listener:
    """What stands by at a network's kernels. `layers`: the modules whose calls it is told of."""

    layers: Collection[str] = ()
    observes = False  # whether calls are to be shown to it as the kernel gets them

    def start(self, run: "Run", args: tuple, kwargs: dict) -> None:
        """Before a forward pass."""

    def again(self, run: "Run", args: tuple, kwargs: dict) -> None:
        """Before another pass within the same call of the network, as through another window."""

    def change(self, run: "Run", layer: str, call: KernelCall) -> Change | None:
        """What to do to a call, whose scale is the network's own; None leaves it."""

    def observe(self, run: "Run", layer: str, asked: KernelCall, used: KernelCall) -> None:
        """Look at a call, as the network asks for it and as the kernel gets it."""

    def leave(self, run: "Run", layer: str) -> None:
        """After a layer that did not fail."""

    def end(self, run: "Run") -> None:
        """After a forward pass that did not fail."""


@dataclass
class Run:
    """One forward pass of a network that is listened to."""

    station: "Station"
    # of the call of the network: stale when it is over, as after Ctrl-C, which no hook of torch's notices
    frame: FrameType
    modules: list[str] = field(default_factory=list)  # watched ones that run, the innermost last
    ran: set[str] = field(default_factory=set)
    # of listeners, by id: threads may run one network at a time each
    notes: dict[int, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether the pass is under way: its frame cannot be cleared then, and harmlessly else."""
        try:
            self.frame.clear()
        except RuntimeError:
            return True
        return False


@dataclass
class Station:
    """The hooks on one network, and who listens."""

    network: nn.Module
    watched: dict[str, nn.Module]
    listeners: list[Listener] = field(default_factory=list)
    handles: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heads = {name: getattr(module, "heads", 1) for name, module in self.watched.items()}
        self.share_out()

    def share_out(self) -> None:
        """Note who hears of each module."""
        self.listening: dict[str, list[Listener]] = {
            name: [each for each in self.listeners if name in each.layers] for name in self.watched
        }

    def open(self) -> None:
        """Put the hooks on the network and on the modules that are watched."""
        begin, end, enter, leave = (_outside_graphs(hook) for hook in (_begin, _end, _enter, _leave))
        before, after = self.network.register_forward_pre_hook, self.network.register_forward_hook
        self.handles = [
            before(lambda _, args, kwargs: begin(self, args, kwargs), with_kwargs=True),
            after(lambda _, args, output: end(self, output is None), always_call=True),
        ]
        for name, module in self.watched.items():
            before, after = module.register_forward_pre_hook, module.register_forward_hook
            self.handles += [
                before(lambda _, args, name=name: enter(self, name)),
                after(lambda _, args, out, name=name: leave(self, name, out is None), always_call=True),
            ]

    def close(self) -> None:
        """Take the hooks away, and end what Ctrl-C left."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        _forget(self)

    def run(self) -> Run | None:
        """The forward pass that is under way in this thread."""
        for run in reversed(_runs()):
            if run.station is self:
                return run
        return None


def _begin(station: Station, args: tuple, kwargs: dict) -> None:
    _forget_stale()
    run = Run(station, _caller())
    _runs().append(run)
    _install()
    for listener in station.listeners:
        listener.start(run, args, kwargs)


def _end(station: Station, failed: bool) -> None:
    run = station.run()
    if run is None:
        return
    _runs().remove(run)
    _uninstall()
    if not failed:
        for listener in station.listeners:
            listener.end(run)


def _enter(station: Station, name: str) -> None:
    run = station.run()
    if run is None:
        raise AttentionNotSeenError(
            f"{name!r} was called outside its network's own call, where neither patch nor probe can follow, "
            "as gradient checkpointing does. Switch that off (`disable_gradient_checkpointing()`), or take "
            "patch and probe away."
        )
    run.modules.append(name)
    run.ran.add(name)


def _leave(station: Station, name: str, failed: bool) -> None:
    run = station.run()
    if run is None or name not in run.modules:
        return
    while run.modules.pop() != name:
        pass
    if not failed:  # else its own error goes on
        for listener in station.listening[name]:
            listener.leave(run, name)


def listen(network: nn.Module, listener: Listener) -> None:
    """Let a listener hear of every kernel call of a network from its next forward pass on.

    Compiled graphs are forgotten first: where that is interrupted, nobody listens yet.
    """
    forget_compiled()
    _add(network, listener)


def leave(network: nn.Module, listener: Listener) -> None:
    """Take a listener away, and the hooks with the last one."""
    _remove(network, listener)
    forget_compiled()


def forget_compiled() -> None:
    """Make compiled models compile again: their graphs do not notice hooks that come or go after compilation.

    Does nothing where nothing has been compiled in this process.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]["total"]:
        torch.compiler.reset()


@contextmanager
def listening(network: nn.Module, listener: Listener) -> Iterator[None]:
    """Listen in a `with` block to a network that is not compiled."""
    _add(network, listener)
    try:
        yield
    finally:
        _remove(network, listener)


def _add(network: nn.Module, listener: Listener) -> None:
    earlier: Station | None = getattr(network, STATION, None)
    listeners = [*(() if earlier is None else earlier.listeners), listener]
    watched = {name: network.get_submodule(name) for each in listeners for name in each.layers}
    if earlier is not None:
        earlier.close()
    station = Station(network, watched, listeners)
    setattr(network, STATION, station)
    station.open()


def _remove(network: nn.Module, listener: Listener) -> None:
    station: Station | None = getattr(network, STATION, None)
    if station is None:
        return
    station.listeners = [each for each in station.listeners if each is not listener]
    station.share_out()
    if not station.listeners:
        station.close()
        delattr(network, STATION)


def announce(network: nn.Module, args: tuple, kwargs: dict) -> None:
    """Tell who listens that a call goes on with other arguments, as through windows."""
    station: Station | None = getattr(network, STATION, None)
    run = None if station is None else station.run()
    if station is not None and run is not None:
        for listener in station.listeners:
            listener.again(run, args, kwargs)


_HERE = threading.local()  # the runs of each thread
_LOCK = threading.Lock()
_installed = 0
# whose attribute, what was there, what is there now
_replaced: list[tuple[Any, str, Any, Any]] = []


def _runs() -> list[Run]:
    runs = _HERE.__dict__.get("runs")
    if runs is None:
        runs = _HERE.runs = []
    return runs


def _forget_stale() -> None:
    while _runs() and not _runs()[-1].running:
        _runs().pop()
        _uninstall()


def _forget(station: Station) -> None:
    for run in [run for run in _runs() if run.station is station and not run.running]:
        _runs().remove(run)
        _uninstall()


def _caller() -> FrameType:
    """The frame that calls a hook; those of torch's compiler in between are over as soon as the hook is."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(("eval_frame.py", __file__)):
        frame = frame.f_back
    return frame


@lru_cache(maxsize=256)
def _outside_graphs(function: Callable) -> Callable:
    """A function that `torch.compile` calls and does not look into."""
    if "torch._dynamo" not in sys.modules:
        return function
    outside = torch.compiler.disable(function)

    @wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (outside if torch.compiler.is_compiling() else function)(*args, **kwargs)

    return either


def _install() -> None:
    global _installed
    with _LOCK:
        _installed += 1
        if _installed == 1:
            for owner, name, original, replacement in _replacements():
                _replaced.append((owner, name, original, replacement))
                setattr(owner, name, replacement)


def _uninstall() -> None:
    global _installed
    with _LOCK:
        _installed -= 1
        if not _installed:
            for owner, name, original, replacement in _replaced:
                if getattr(owner, name) is replacement:  # else somebody else has replaced it meanwhile
                    setattr(owner, name, original)
            _replaced.clear()


def _replacements() -> Iterator[tuple[Any, str, Any, Any]]:
    """Where kernels are looked up: whose attribute, what is there, and what is there while a network runs."""
    yield _replacement(functional, "scaled_dot_product_attention", TORCH)
    dispatch = sys.modules.get("diffusers.models.attention_dispatch")
    if dispatch is not None:
        registry = dispatch._AttentionBackendRegistry
        backends = registry._backends
        yield registry, "_backends", backends, _table(tuple(backends), tuple(backends.values()))
    processors = sys.modules.get("diffusers.models.attention_processor")
    if processors is not None:
        yield _replacement(processors.Attention, "get_attention_scores", SCORES)
        if getattr(processors, "xformers", None) is not None:
            yield _replacement(processors.xformers.ops, "memory_efficient_attention", XFORMERS)


def _replacement(owner: Any, name: str, kind: "Kind") -> tuple[Any, str, Any, Any]:
    original = getattr(owner, name)
    return owner, name, original, _wrapped(original, kind)


@lru_cache(maxsize=8)
def _table(names: tuple, kernels: tuple) -> dict:
    """The table of backends, one and the same for the same ones: compiled graphs look at it."""
    return {name: _wrapped(kernel, BACKEND) for name, kernel in zip(names, kernels, strict=True)}


@dataclass(frozen=True, eq=False)
class Kind:
    """How a kind of kernel is called: parameters, and heads "first", "last" or "in the batch"."""

    names: tuple[str, ...]
    heads: str
    mask: str = "attn_mask"

    def read(self, arguments: dict, heads: int) -> KernelCall:
        """What the kernel is asked for."""
        query, key = (self._by_head(arguments[name], heads) for name in ("query", "key"))
        if query.shape[1] != key.shape[1]:  # grouped keys
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        mask, scale = self._by_key(arguments, query, key), arguments.get("scale")
        if scale is None:
            scale = arguments["self"].scale if "self" in arguments else query.shape[-1] ** -0.5
        whole = self.heads != "in the batch" or len(arguments["query"]) % heads == 0
        return KernelCall(query, key, mask, scale, bool(arguments.get("is_causal")), whole)

    def _by_key(self, arguments: dict, query: Tensor, key: Tensor) -> Any:
        """The mask, with heads and keys in the places that they have in torch's own kernel."""
        mask = arguments.get(self.mask)
        if not isinstance(mask, Tensor):
            return mask
        if self.heads == "in the batch" and mask.ndim == 3 and len(mask) == len(arguments["query"]):
            return mask.unflatten(0, query.shape[:2])
        of_keys = mask.ndim == 2 and mask.shape == (query.shape[0], key.shape[-2])
        return mask[:, None, None] if of_keys and self is not TORCH else mask

    def rescale(self, arguments: dict, heads: int, factor: float | Tensor) -> dict:
        """The same arguments with another scale."""
        query, scale = arguments["query"], arguments.get("scale")
        if not isinstance(factor, Tensor) and ("scale" in arguments or self is TORCH):
            return arguments | {"scale": (query.shape[-1] ** -0.5 if scale is None else scale) * factor}
        return arguments | {"query": self.times(query, heads, factor)}

    def times(self, tensor: Tensor, heads: int, factor: float | Tensor) -> Tensor:
        """What the kernel takes or gives, each head multiplied by its factor."""
        if not isinstance(factor, Tensor):
            return tensor * factor
        return self.laid_out(self._by_head(tensor, heads) * factor.to(tensor), tensor)

    def laid_out(self, by_head: Tensor, like: Tensor) -> Tensor:
        """`[batch, head, tokens, dim]` in the order of axes of what the kernel takes."""
        if like.ndim == 3:
            return by_head.flatten(0, 1)
        return by_head.transpose(1, 2) if self.heads == "last" else by_head

    def _by_head(self, tensor: Tensor, heads: int) -> Tensor:
        if tensor.ndim == 3:
            return tensor.unflatten(0, (-1, heads)) if len(tensor) % heads == 0 else tensor[:, None]
        return tensor.transpose(1, 2) if self.heads == "last" else tensor


TORCH = Kind(ARGUMENTS, "first")
BACKEND = Kind(ARGUMENTS, "last")
SCORES = Kind(("self", "query", "key", "attention_mask"), "in the batch", "attention_mask")
XFORMERS = Kind(("query", "key", "value", "attn_bias", "p", "scale"), "in the batch", "attn_bias")


@lru_cache(maxsize=256)
def _wrapped(original: Callable, kind: Kind) -> Callable:
    """A kernel that tells the listeners of the network that runs in this thread."""

    @wraps(original)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        runs = _HERE.__dict__.get("runs")
        if not runs or not runs[-1].modules or _HERE.__dict__.get("inside"):
            return original(*args, **kwargs)
        if not runs[-1].running:
            _forget_stale()
            return kernel(*args, **kwargs)
        _HERE.inside = True
        try:
            return _tell(runs[-1], original, kind, args, kwargs)
        finally:
            _HERE.inside = False

    return _outside_graphs(kernel)


def _tell(run: Run, original: Callable, kind: Kind, args: tuple, kwargs: dict) -> Any:
    layer = run.modules[-1]
    listeners = run.station.listening[layer]
    if not listeners:
        return original(*args, **kwargs)
    arguments = dict(zip(kind.names, args, strict=False)) | kwargs
    heads = run.station.heads[layer]
    asked = seen = kind.read(arguments, heads)
    changes = []
    for listener in listeners:
        change = listener.change(run, layer, seen)
        if change is None:
            continue
        changes.append(change)
        if not is_one(change.factor):
            arguments = kind.rescale(arguments, heads, change.factor)
        if change.key is not None:  # the next listener is given what this one leaves
            seen = seen._replace(key=change.key)
            arguments = arguments | {"key": kind.laid_out(change.key, arguments["key"])}
    if observers := [listener for listener in listeners if listener.observes]:
        used = kind.read(arguments, heads) if changes else asked
        for listener in observers:
            listener.observe(run, layer, asked, used)
    if not changes:
        return original(*args, **kwargs)
    answer = original(**arguments)
    for change in changes:
        answer = answer if is_one(change.kept) else kind.times(answer, heads, change.kept)
    return answer


def is_one(factor: float | Tensor) -> bool:
    """Whether a factor leaves the scale as it is."""
    return not isinstance(factor, Tensor) and factor == 1.0


def visible_keys(call: KernelCall) -> Tensor | None:
    """Which keys each image of a batch has, `[batch, key]`; None where each has all.

    A mask that differs between queries or heads hides a key only where it hides it from all of them.
    """
    if not isinstance(call.mask, Tensor):
        return None
    seen = _shown(call.mask).any(2).any(1).expand(call.query.shape[0], call.keys)
    return None if bool(seen.all()) else seen


def weighs(call: KernelCall) -> bool:
    """Whether a mask does more than to hide the same keys from all queries and heads."""
    mask = call.mask
    if call.causal or not isinstance(mask, Tensor):
        return call.causal or mask is not None
    if mask.dtype != torch.bool and bool(((mask > MASKED) & (mask != 0)).any()):
        return True
    seen = _shown(mask)
    return bool((seen != seen[:, :1, :1]).any())


def _shown(mask: Tensor) -> Tensor:
    """Which keys a mask lets take part, in four dimensions."""
    seen = mask if mask.dtype == torch.bool else mask > MASKED
    return seen[(None,) * (4 - seen.ndim)] if seen.ndim < 4 else seen
