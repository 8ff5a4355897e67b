"""Stands by while a model runs and hands over query and key of every self-attention call.

The watcher stands at `scaled_dot_product_attention`, where query and key arrive exactly as they are used: after norms,
rotary embeddings, LoRA and any scale rule. What to do with them is left to its two children, `EntropyProbe` and
`probes.LogitProbe`. It changes nothing, so images are the same bit for bit, and it is gone after the `with` block.
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
from entropy_lib.models.layers import (
    SelfAttentionInput,
    denoiser,
    forget_compiled,
    grid,
    select_layers,
    self_attention_input,
    training_tokens,
)
from entropy_lib.models.networks import family, text_length

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
    sums = sums.cpu().unflatten(1, (-1, call.images))
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
    text_tokens: int


@dataclass
class LayerCall:
    """One call of a self-attention layer."""

    name: str
    module: nn.Module
    given: SelfAttentionInput
    text_first: bool  # where the image's rows begin in joint attention
    rows_seen: int = 0  # of the batch: joint PAG attends for its branches one after the other

    @property
    def seen(self) -> bool:
        """Whether the layer has called the attention."""
        return self.rows_seen > 0

    def measured_factor(self, query: Tensor, scale: float) -> Tensor:
        """Effective scale times sqrt(d), `[batch, heads]`, from the lengths of a few query rows of the image.

        The projection is called by its `forward`, which passes by any hook, so this is the query of the unpatched model.
        Rotary embeddings turn a query but keep its length. NaN where the layer has no projection of its own.
        """
        batch, heads, _, dim = query.shape
        if getattr(self.module, "fused_projections", False) or self.given.hidden.ndim != 3:
            return query.new_full((batch, heads), math.nan, dtype=torch.float32)
        own = slice(self.rows_seen - batch, self.rows_seen)
        states = self.module.to_q.forward(self.given.hidden[own, :FACTOR_ROWS]).unflatten(-1, (heads, dim)).transpose(1, 2)
        norm = getattr(self.module, "norm_q", None)
        states = norm.forward(states) if isinstance(norm, nn.Module) else states
        first = self.given.text.shape[1] if self.text_first and self.given.text is not None else 0
        rows = query[..., first : first + FACTOR_ROWS, :]
        used, projected = (x.float().square().sum((-1, -2)).sqrt() for x in (rows, states))
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
        self.family = family(self.network)
        self.training_tokens = training_tokens(self.network)
        self.layers = select_layers(list(self.training_tokens), layers)
        self._handles: list = []
        self._call: DenoiserCall | None = None
        self._layer: LayerCall | None = None
        self._text = self.family.text_tokens
        self._calls = 0  # at the present step
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
        forget_compiled()
        return super().__enter__()

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._call, self._layer = [], None, None
        super().__exit__(*exception)
        forget_compiled()

    def __torch_function__(self, function: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and self._layer is not None:
            self._attention(*_attention_arguments(*args, **kwargs))
        return function(*args, **kwargs)

    @torch.no_grad()
    def _attention(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> None:
        call, layer, tokens = self._call, self._layer, key.shape[-2]
        first, layer.rows_seen = layer.rows_seen, layer.rows_seen + query.shape[0]
        branches = call.branches[first // call.images : layer.rows_seen // call.images]  # PAG leaves one out, or takes it later
        if not branches:
            return  # all rows have attended: this is something else, as an image prompt asked by the same query
        cell = Cell(
            layer.name, *grid(tokens - call.text_tokens, *call.latent_size), tokens, self.training_tokens[layer.name],
            call.step, call.timestep, branches, call.first_image,
        )  # fmt: skip
        self.measure(cell, call, layer, query, key, mask, query.shape[-1] ** -0.5 if scale is None else scale)

    def _denoiser_starts(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        self._count_text(text_length(module, args, kwargs))
        given = args[1] if len(args) > 1 and "timestep" not in kwargs else kwargs["timestep"]
        schedule = getattr(getattr(self.model, "scheduler", None), "timesteps", None)
        step, timestep, planned = self._step(torch.as_tensor(given), schedule)
        earlier = self._call
        if earlier is not None and (step < earlier.step or schedule is not self._schedule):  # a new run
            self._images += earlier.images
        self._calls = 1 + (self._calls if earlier is not None and step == earlier.step and schedule is self._schedule else 0)
        self._schedule = schedule
        branches = ("extra",) if self._calls > planned else self._branches(sample)
        images = sample.shape[0] // len(branches)
        size = self.family.latent_size(sample, kwargs)
        self._call = DenoiserCall(step, timestep, branches, images, self._images, size, self._text)

    def _count_text(self, text: int) -> None:
        if text != self._text:
            self._text, self.training_tokens = text, training_tokens(self.network, text_tokens=text)

    def _branches(self, sample: Tensor) -> tuple[str, ...]:
        """What the batch is made of, in the order of diffusers. Pipelines that do not say have doubled their latents."""
        guided = getattr(self.model, "do_classifier_free_guidance", None)
        if guided is None and self.family.guidance_in_batch and not isinstance(self.model, nn.Module):
            guided = sample.shape[0] % 2 == 0 and torch.equal(*sample.chunk(2))
        perturbed = bool(getattr(self.model, "do_perturbed_attention_guidance", False))
        if not guided and not perturbed:
            return ("all",)
        branches = (*(("uncond",) if guided else ()), "cond", *(("perturbed",) if perturbed else ()))
        return branches if sample.shape[0] % len(branches) == 0 else ("all",)

    def _step(self, given: Tensor, schedule: Tensor | None) -> tuple[int, float, float]:
        """Position of a timestep in the schedule, its value there, and how many calls the schedule plans at it.

        Counting calls would be wrong: PNDM calls the denoiser twice at one of its timesteps. FLUX hands over a thousandth of
        the timestep in the model's precision, so the nearest one is meant. Without a schedule, or where a sampler takes a
        step between its timesteps, timesteps are numbered in the order of first appearance.
        """
        timestep = float(given.flatten()[0]) * self.family.timestep_unit
        rounding = torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
        listed = [] if schedule is None else [float(t) for t in schedule]
        nearest = min(listed, key=lambda t: abs(t - timestep), default=math.inf)
        if abs(nearest - timestep) <= rounding * abs(timestep):
            return list(dict.fromkeys(listed)).index(nearest), nearest, listed.count(nearest)
        if timestep not in self._timesteps:
            self._timesteps.append(timestep)
        return self._timesteps.index(timestep), timestep, math.inf

    def _layer_starts(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given = self_attention_input(module, args, kwargs)
            self._layer = None if given is None else LayerCall(name, module, given, self.family.text_first)

        return hook

    def _layer_ends(self, module: nn.Module, args: tuple, output) -> None:
        layer, self._layer = self._layer, None
        failed = output is None  # the layer raised; its own error goes on
        if layer is not None and not layer.seen and not failed:
            raise AttentionNotSeenError(
                f"the attention of {layer.name!r} was not seen: its processor {type(module.processor).__name__} does not call "
                "scaled_dot_product_attention. Undo attention slicing, xformers or another attention backend: set diffusers' "
                "AttnProcessor2_0 on a UNet, set_attention_backend('native') on a transformer, and run again."
            )


def _attention_arguments(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The arguments of scaled_dot_product_attention that decide its weights."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, attn_mask, scale
