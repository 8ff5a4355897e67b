"""Stands by while a model runs and hands over query and key of every self-attention call.

The watcher stands at `scaled_dot_product_attention`, where query and key arrive exactly as they are used: after norms,
rotary embeddings, LoRA and any scale rule. What to do with them is left to its two children, `EntropyProbe` and
`gaussianity.LogitProbe`. It changes nothing, so images are the same bit for bit, and it is gone after the `with` block.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from entropy_lib.errors import AttentionNotSeenError
from entropy_lib.layers import denoiser, grid, select_layers, self_attention_input, training_tokens

FACTOR_ROWS = 4  # query rows from which the factor is measured


@dataclass(frozen=True)
class Cell:
    """One self-attention layer at one denoising step (and, with `per_image`, in one batch)."""

    layer: str
    height: int
    width: int
    tokens: int
    training_tokens: int
    step: int
    timestep: float
    branches: tuple[str, ...]
    first_image: int


def cell_index(cell: Cell, images: int, heads: int) -> pd.MultiIndex:
    """What the sums of a cell `[..., branch, image, head]` belong to, flattened."""
    numbers = range(cell.first_image, cell.first_image + images)
    return pd.MultiIndex.from_product([cell.branches, numbers, range(heads)], names=["branch", "image", "head"])


def images_apart(sums: Tensor, call: "DenoiserCall", apart: bool) -> Tensor:
    """`[statistic, batch, head]` as `[statistic, branch, image, head]` on the CPU, images summed unless kept apart."""
    sums = sums.cpu().unflatten(1, (len(call.branches), call.images))
    return sums if apart else sums.sum(2, keepdim=True)


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser: when, and what its batch is made of."""

    step: int
    timestep: float
    branches: tuple[str, ...]
    images: int
    first_image: int
    latent_size: tuple[int, int]


@dataclass
class LayerCall:
    """One call of a self-attention layer."""

    name: str
    module: nn.Module
    hidden: Tensor
    seen: bool = False

    def measured_factor(self, query: Tensor, scale: float) -> Tensor:
        """Effective scale times sqrt(d), `[batch, heads]`, from the lengths of a few query rows.

        The projection is called by its `forward`, which passes by any hook, so this is the query of the unpatched model.
        Rotary embeddings turn a query but keep its length. NaN where the layer has no projection of its own.
        """
        batch, heads, _, dim = query.shape
        if getattr(self.module, "fused_projections", False) or self.hidden.ndim != 3:
            return query.new_full((batch, heads), math.nan, dtype=torch.float32)
        states = self.module.to_q.forward(self.hidden[:, :FACTOR_ROWS]).unflatten(-1, (heads, dim)).transpose(1, 2)
        norm = getattr(self.module, "norm_q", None)
        states = norm.forward(states) if isinstance(norm, nn.Module) else states
        used, projected = (x.float().square().sum((-1, -2)).sqrt() for x in (query[..., :FACTOR_ROWS, :], states))
        return scale * dim**0.5 * used / projected


class AttentionWatcher(TorchFunctionMode):
    """Calls `measure` at every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        layers: names or glob patterns of the layers to watch; all self-attention by default.

    Raises:
        ValueError: when the model has no self-attention.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.
    """

    def __init__(self, model, layers: str | Sequence[str] | None = None):
        super().__init__()
        self.model, self.network = model, denoiser(model)
        self.training_tokens = training_tokens(self.network)
        self.layers = select_layers(list(self.training_tokens), layers)
        self._handles: list = []
        self._call: DenoiserCall | None = None
        self._layer: LayerCall | None = None
        self._images = 0
        self._schedule: Tensor | None = None  # of the run in progress; a new run brings a new tensor
        self._timesteps: list[float] = []

    def measure(
        self, cell: Cell, call: DenoiserCall, layer: LayerCall, query: Tensor, key: Tensor, mask: Tensor | None, scale: float
    ) -> None:
        """What to do with one call; query and key are `[batch, head, tokens, dim]`, scale is the λ in use."""
        raise NotImplementedError

    def __enter__(self):
        self._handles = [self.network.register_forward_pre_hook(self._denoiser_starts, with_kwargs=True)]
        for name in self.layers:
            module = self.network.get_submodule(name)
            self._handles += [
                module.register_forward_pre_hook(self._layer_starts(name), with_kwargs=True),
                module.register_forward_hook(self._layer_ends, always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._call, self._layer = [], None, None
        super().__exit__(*exception)

    def __torch_function__(self, function: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and self._layer is not None:
            self._attention(*_attention_arguments(*args, **kwargs))
        return function(*args, **kwargs)

    @torch.no_grad()
    def _attention(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> None:
        call, layer, tokens = self._call, self._layer, key.shape[-2]
        layer.seen = True
        cell = Cell(
            layer.name, *grid(tokens, *call.latent_size), tokens, self.training_tokens[layer.name],
            call.step, call.timestep, call.branches, call.first_image,
        )  # fmt: skip
        self.measure(cell, call, layer, query, key, mask, query.shape[-1] ** -0.5 if scale is None else scale)

    def _denoiser_starts(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        timestep = float(torch.as_tensor(timestep).flatten()[0])
        guided = bool(getattr(self.model, "do_classifier_free_guidance", False)) and sample.shape[0] % 2 == 0
        schedule = getattr(getattr(self.model, "scheduler", None), "timesteps", None)
        step, earlier = self._step(timestep, schedule), self._call
        if earlier is not None and (step < earlier.step or schedule is not self._schedule):  # a new run
            self._images += earlier.images
        self._schedule = schedule
        branches = ("uncond", "cond") if guided else ("all",)  # the order of diffusers
        images = sample.shape[0] // len(branches)
        self._call = DenoiserCall(step, timestep, branches, images, self._images, tuple(sample.shape[-2:]))

    def _step(self, timestep: float, schedule: Tensor | None) -> int:
        """Position of a timestep in the schedule, or in the order of first appearance where there is no schedule.

        Counting calls would be wrong: PNDM calls the denoiser twice at one of its timesteps.
        """
        known = self._timesteps if schedule is None else list(dict.fromkeys(float(t) for t in schedule))
        if timestep not in known:
            known = self._timesteps
            if timestep not in known:
                known.append(timestep)
        return known.index(timestep)

    def _layer_starts(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            hidden = self_attention_input(args, kwargs)
            self._layer = None if hidden is None else LayerCall(name, module, hidden)

        return hook

    def _layer_ends(self, module: nn.Module, args: tuple, output) -> None:
        layer, self._layer = self._layer, None
        failed = output is None  # the layer raised; its own error goes on
        if layer is not None and not layer.seen and not failed:
            raise AttentionNotSeenError(
                f"the attention of {layer.name!r} was not seen: its processor {type(module.processor).__name__} does not call "
                "scaled_dot_product_attention. Set diffusers' AttnProcessor2_0 (no attention slicing, no xformers) and run again."
            )


def _attention_arguments(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The arguments of scaled_dot_product_attention that decide its weights."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, attn_mask, scale
