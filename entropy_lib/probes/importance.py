"""What a layer's self-attention is for: how far an image changes when that attention may not choose, with the
same noise.

Entropy says how a layer attends, not whether that matters: a layer's entropy may follow ln N to the third
digit and its attention leave no trace in the image. Here one part of a network after the other is disabled
where its softmax is computed (`models.kernels`), so the same code serves UNets and transformers. It answers
whether a trained network *uses* a layer; whether a recipe *needs* one takes another training without it.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> def draw():
    ...     return el.generate(pipe, ["a penguin"], [0], "64x64", steps=2)
    >>> table = importance(pipe, draw, by="level")
    >>> list(table.columns), sorted(table.level)
    (['level', 'intervention', 'image', 'change'], [16, 64, 256])
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from entropy_lib.errors import AttentionNotSeenError, InvalidInputError, NotFiniteError, UnknownNameError
from entropy_lib.models.kernels import Change, KernelCall, Listener, Run, forget_compiled, leave, listen
from entropy_lib.models.layers import (
    CallTokens,
    DiffusionModel,
    check_latent_size,
    native_latent_size,
    select_layers,
    sole_denoiser,
    training_tokens,
)

INTERVENTIONS = ("uniform", "mean key", "removed")
PARTS = ("layer", "level", "head")
SAME = 0.01  # by how much two runs on a GPU, whose sums come in any order, may differ
Images = np.ndarray | Tensor  # [image, ...], of any range


@dataclass(eq=False)
class Ablation(Listener):
    """Disables the self-attention of some layers while it listens; see `ablated`."""

    network: nn.Module
    intervention: str
    native: tuple[int, int]
    layers: Sequence[str]
    heads: Sequence[int] | None = None

    def start(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a call of the network: what its layers will attend to."""
        run.notes[id(self)] = CallTokens.of(self.network, args, kwargs, self.native)

    again = start

    def change(self, run: Run, layer: str, call: KernelCall) -> Change | None:
        """Logits, or keys of the image, that are all the same, or no answer at all."""
        tokens = run.notes[id(self)]
        if not tokens.is_self(layer, call):
            return None
        if not call.whole:
            raise AttentionNotSeenError(
                f"the heads of {layer!r} attend in slices. Undo attention slicing "
                "(`disable_attention_slicing()`), and run again."
            )
        kept = self._kept(call)
        if self.intervention == "uniform":
            return Change(factor=kept)
        if self.intervention == "removed":
            return Change(kept=kept)
        known, key = tokens.layers[layer], call.key.clone()
        image = slice(known.first, known.first + known.image)
        mean = key[..., image, :].mean(-2, keepdim=True)
        key[..., image, :] = torch.lerp(mean, key[..., image, :], kept.to(key))
        return Change(key=key)

    def leave(self, run: Run, layer: str) -> None:
        """Check that the layer's self-attention came by."""
        run.notes[id(self)].check_seen(run.station.watched[layer], layer, AttentionNotSeenError)

    def _kept(self, call: KernelCall) -> Tensor:
        """0 for the heads that are disabled, 1 for others: `[1, head, 1, 1]`."""
        kept = torch.ones(call.query.shape[1], device=call.query.device)
        kept[slice(None) if self.heads is None else list(self.heads)] = 0
        return kept[None, :, None, None]


@contextmanager
def ablated(
    model: DiffusionModel,
    intervention: str = "uniform",
    layers: str | Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    *,
    latent_size: tuple[int, int] | None = None,
) -> Iterator[DiffusionModel]:
    """Disable self-attention within a `with` block; on any exit the model is as before.

    Args:
        model: a diffusers pipeline, or its denoising network.
        intervention: "uniform": every key gets the same weight, so each query is given the mean of the
            values. "mean key": the image's keys are replaced by their mean, so that no query can choose among
            them, and joint text keeps its own (the same as "uniform" where no text joins). "removed": zeros
            in place of what attention gives (the bias of the output projection stays).
        layers: names or glob patterns; all self-attention by default.
        heads: numbers of the heads to disable; all by default.
        latent_size: as for `EntropyProbe`.

    Raises:
        InvalidInputError: when the model has no self-attention, or not those heads.
        UnknownNameError: for an unknown intervention or layer.
        AttentionNotSeenError: from the model's own call, where attention is computed some other way.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with ablated(pipe, "removed", "mid_block.*"):
        ...     images = el.generate(pipe, ["a penguin"], [0], "64x64", steps=2)
    """
    if intervention not in INTERVENTIONS:
        raise UnknownNameError("intervention", intervention, INTERVENTIONS)
    network = sole_denoiser(model)
    native = native_latent_size(model) if latent_size is None else check_latent_size(latent_size)
    names = select_layers(list(training_tokens(network, native)), layers)
    for name in names if heads is not None else []:
        if not heads or not set(heads) <= set(range(there := _heads(network, name))):
            raise InvalidInputError(f"heads is {list(heads)}; {name!r} has heads 0 to {there - 1}")
    listener = Ablation(network, intervention, native, names, heads)
    listen(network, listener)
    try:
        yield model
    finally:
        leave(network, listener)


def importance(
    model: DiffusionModel,
    generate: Callable[[], Images],
    *,
    intervention: str = "uniform",
    by: str = "layer",
    layers: str | Sequence[str] | None = None,
    latent_size: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """How far each image changes when one part of a network after the other is disabled.

    Args:
        model, intervention, layers, latent_size: as for `ablated`.
        generate: makes the images, `[image, ...]`, the same at every call but for what is disabled.
        by: "layer", "level" (layers of as many tokens in training together) or "head".

    Returns:
        one row for each part and image: `layer`, or `level` (its T), or `layer, head`; `intervention, image,
            change`: root mean square of the difference over the standard deviation of the unchanged image. 0
            is an image untouched; unrelated images of the same spread differ by 1.4.
            `statistics.cluster_mean` gives means with intervals.

    Raises:
        as `ablated`; InvalidInputError for another `by`, and where `generate` does not give the same images
            twice; NotFiniteError where images are not finite.
    """
    if by not in PARTS:
        raise UnknownNameError("part", by, PARTS)
    native = native_latent_size(model) if latent_size is None else check_latent_size(latent_size)
    with ablated(model, intervention, layers, latent_size=latent_size):
        parts = list(_parts(sole_denoiser(model), by, layers, native))  # wrong arguments are known before
    plain, again = _checked(generate()), _checked(generate())
    if plain.shape != again.shape or relative_change(plain, again).max() > SAME:
        raise InvalidInputError(
            "generate gave two different sets of images; fix prompts, seeds and noise, so that what changes "
            "is due to attention alone"
        )
    tables = []
    for labels, names, heads in parts:
        with ablated(model, intervention, names, heads, latent_size=latent_size):
            change = relative_change(plain, _checked(generate()))
        rows = {"intervention": intervention, "image": range(len(change)), "change": change}
        tables.append(pd.DataFrame(labels | rows))
    return pd.concat(tables, ignore_index=True)


def relative_change(plain: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Root mean square difference of each image over the standard deviation of the first.

    Example:
        >>> relative_change(np.array([[0.0, 2.0]]), np.array([[1.0, 3.0]]))
        array([1.])
    """
    flat, other = (each.reshape(len(each), -1) for each in (plain, changed))
    spread = flat.std(1)
    if not spread.all():
        raise InvalidInputError("an image is one flat colour; give images whose spread is not 0")
    return np.sqrt(np.square(other - flat).mean(1)) / spread


def branch_over_stream(
    model: DiffusionModel, generate: Callable[[], Any], layers: str | Sequence[str] | None = None
) -> pd.Series:
    """A cheap estimate of importance, from one run: the norm of what each attention adds over that of what it
    is added to.

    It misleads: gates between attention and stream, as those of adaptive norms, are left out, and a large
    branch may be the same for every query, which making it uniform does not change. Compare with
    `importance`.

    Args:
        model, layers: as for `ablated`.
        generate: runs the model; what it returns is not looked at.

    Returns:
        a mean over calls and rows for each layer.

    Raises:
        AttentionNotSeenError: for a layer that did not run.
    """
    network = sole_denoiser(model)
    names = select_layers(list(training_tokens(network, native_latent_size(model))), layers)
    streams: dict[str, Tensor] = {}
    found: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack, torch.no_grad():
        for name in names:
            block, module = network.get_submodule(name.rpartition(".")[0]), network.get_submodule(name)
            own = module if getattr(module, "residual_connection", False) else block
            before, after = _hooks(name, streams, found)
            stack.callback(own.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        stack.callback(forget_compiled)
        forget_compiled()
        generate()
    return _means(found, "branch_over_stream")


def _means(found: dict[str, list[float]], what: str) -> pd.Series:
    if unseen := [name for name, each in found.items() if not each]:
        raise AttentionNotSeenError(f"{unseen[0]!r} did not run; let generate run the model")
    return pd.Series({name: float(np.mean(each)) for name, each in found.items()}, name=what)


def _hooks(name: str, streams: dict[str, Tensor], found: dict[str, list[float]]) -> tuple[Callable, Callable]:
    """Note the stream before a block, and compare with it what its attention gives."""

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        streams[name] = next(
            each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.ndim > 2
        )

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        branch, stream = output[0] if isinstance(output, tuple) else output, streams[name]
        if getattr(module, "residual_connection", False):
            branch = branch * module.rescale_output_factor - stream
        norms = (each.float().flatten(1).square().mean(1).sqrt() for each in (branch, stream))
        found[name].append(float(torch.div(*norms).mean()))

    return before, after


@dataclass(eq=False)
class FirstOrder(Ablation):
    """Weights of 1 on what attention gives, by which outputs are differentiated; see `first_order`."""

    weights: dict[str, Tensor] = field(default_factory=dict)

    def change(self, run: Run, layer: str, call: KernelCall) -> Change | None:
        """Put a weight for each row of the batch at a layer, and note it."""
        if not run.notes[id(self)].is_self(layer, call):
            return None
        rows = len(call.query)
        weight = torch.ones(rows, 1, 1, 1, device=call.query.device, requires_grad=True)
        self.weights[layer] = weight
        return Change(kept=weight)


def first_order(
    model: DiffusionModel,
    generate: Callable[[], Any],
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
) -> pd.Series:
    """A cheap estimate of importance, from one run with a backward pass at each call: the change of the
    network's output, to first order, when what an attention gives is taken out.

    The gradient of a random combination of the output (Gaussian weights) has the size of that change as its
    root mean square. It misleads where the change is not small, as a gradient sees no saturation, and where
    attention gives the same to every query: taking that out changes much, making it uniform nothing.

    Args:
        model, layers: as for `ablated`.
        generate: runs the model; what it returns is not looked at.
        seed: of the random weights.

    Returns:
        for each layer, over the standard deviation of the output; root mean square over calls and rows.

    Raises:
        AttentionNotSeenError: for a layer that did not run.
    """
    network, native = sole_denoiser(model), native_latent_size(model)
    names = select_layers(list(training_tokens(network, native)), layers)
    listener, found = FirstOrder(network, "removed", native, names), {name: [] for name in names}
    generator = torch.Generator().manual_seed(seed)

    def before(*_: Any) -> None:
        listener.weights.clear()
        torch.set_grad_enabled(True)

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        values = output if isinstance(output, Tensor) else output[0]
        random = torch.randn(values.shape, generator=generator).to(values)
        slopes = torch.autograd.grad((values * random).sum(), list(listener.weights.values()))
        torch.set_grad_enabled(False)
        spread = values.detach().float().flatten(1).var(1, correction=0) * values[0].numel()
        for name, slope in zip(listener.weights, slopes, strict=True):
            found[name] += (slope.flatten().float().square() / spread).tolist()

    with ExitStack() as stack, torch.no_grad():
        stack.callback(network.register_forward_pre_hook(before).remove)
        stack.callback(network.register_forward_hook(after).remove)
        stack.callback(leave, network, listener)
        listen(network, listener)
        generate()
    return _means(found, "first_order") ** 0.5


def _parts(
    network: nn.Module, by: str, layers: str | Sequence[str] | None, native: tuple[int, int]
) -> Iterator[tuple[dict, list[str], list[int] | None]]:
    """Labels, layers and heads of each part to disable, in the order of execution."""
    tokens = training_tokens(network, native)
    names = select_layers(list(tokens), layers)
    if by == "level":
        for level in dict.fromkeys(tokens[name] for name in names):
            yield {"level": level}, [name for name in names if tokens[name] == level], None
        return
    for name in names:
        if by == "layer":
            yield {"layer": name}, [name], None
            continue
        for head in range(_heads(network, name)):
            yield {"layer": name, "head": head}, [name], [head]


def _heads(network: nn.Module, name: str) -> int:
    heads = getattr(network.get_submodule(name), "heads", None)
    if not isinstance(heads, int):
        raise InvalidInputError(f"{name!r} does not say how many heads it has; disable whole layers")
    return heads


def _checked(images: Images) -> np.ndarray:
    values = np.asarray(images.detach().float().cpu() if isinstance(images, Tensor) else images, float)
    if not np.isfinite(values).all():
        raise NotFiniteError("an image is not finite; load the model in float32 or bfloat16")
    return values
