"""Stands by while a model runs and hands over query and key of every self-attention call.

The watcher stands at `scaled_dot_product_attention`, where query and key arrive exactly as they are used: after norms,
rotary embeddings, LoRA and any scale rule. What to do with them is left to its children, the probes. It changes nothing,
so images are the same bit for bit, and it is gone after the `with` block. When a call takes place, and for which images, is
told by `denoiser_call`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from entropy_lib.errors import AttentionNotSeenError, InvalidInputError
from entropy_lib.models.layers import (
    DiffusionModel,
    SelfAttentionInput,
    denoiser,
    forget_compiled,
    grid,
    select_layers,
    self_attention_input,
    training_tokens,
)
from entropy_lib.models.networks import family, text_length
from entropy_lib.probes.denoiser_call import DenoiserCall, DenoiserCallTracker

FACTOR_ROWS = 4  # query rows from which the factor is measured


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


@dataclass(frozen=True)
class LayerStep:
    """One self-attention layer at one call of the denoiser: what measurements are kept apart by.

    Attributes:
        layer: its name.
        height, width: of its grid of image tokens; 0 where no level of the network has as many.
        tokens: keys N of the call, joint text included.
        training_tokens: T of the layer.
        call: of the denoiser.
    """

    layer: str
    height: int
    width: int
    tokens: int
    training_tokens: int
    call: DenoiserCall


@dataclass(frozen=True)
class AttentionCall:
    """What a watcher hands over of one self-attention call.

    Attributes:
        place: layer and step.
        layer: the call of the layer that it is part of.
        query, key: as used, `[batch, head, tokens, dim]`.
        scale: λ, as used.
    """

    place: LayerStep
    layer: LayerCall
    query: Tensor
    key: Tensor
    scale: float


class AttentionWatcher(TorchFunctionMode):
    """Calls `measure` at every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        layers: names or glob patterns of the layers to watch; all self-attention by default.

    Raises:
        ValueError: when the model has no self-attention; and, from the model's own call, where a mask hides keys.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.
    """

    def __init__(self, model: DiffusionModel, layers: str | Sequence[str] | None = None):
        super().__init__()
        self.network = denoiser(model)
        self.family = family(self.network)
        self.training_tokens = training_tokens(self.network)
        self.layers = select_layers(list(self.training_tokens), layers)
        self._tracker = DenoiserCallTracker(model, self.family)
        self._handles: list = []
        self._call: DenoiserCall | None = None
        self._layer: LayerCall | None = None
        self._text = self.family.text_tokens

    def measure(self, call: AttentionCall) -> None:
        """What to do with one call."""
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

    def __exit__(self, *exception: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._call, self._layer = [], None, None
        super().__exit__(*exception)
        forget_compiled()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
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
        if mask is not None and _hides(mask):
            raise InvalidInputError(
                f"the self-attention of {layer.name!r} was called with a mask that hides or weighs keys: rows then differ in their "
                "number of keys, and ln N is no longer what their entropy compares with. Call the model without the mask, or leave "
                "this layer out by `layers`."
            )
        height, width = grid(tokens - self._text, *call.latent_size)
        place = LayerStep(layer.name, height, width, tokens, self.training_tokens[layer.name], replace(call, branches=branches))
        self.measure(AttentionCall(place, layer, query, key, query.shape[-1] ** -0.5 if scale is None else scale))

    def _denoiser_starts(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._text = text_length(module, args, kwargs)
        self.training_tokens = training_tokens(module, text_tokens=self._text)
        self._call = self._tracker.advance(args, kwargs)

    def _layer_starts(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given = self_attention_input(module, args, kwargs)
            self._layer = None if given is None else LayerCall(name, module, given, self.family.text_first)

        return hook

    def _layer_ends(self, module: nn.Module, args: tuple, output: object) -> None:
        layer, self._layer = self._layer, None
        failed = output is None  # the layer raised; its own error goes on
        if layer is not None and not layer.seen and not failed:
            raise AttentionNotSeenError(
                f"the attention of {layer.name!r} was not seen: its processor {type(module.processor).__name__} does not call "
                "scaled_dot_product_attention. Undo attention slicing, xformers or another attention backend: set diffusers' "
                "AttnProcessor2_0 on a UNet, set_attention_backend('native') on a transformer, and run again."
            )


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, float | None]:
    """The arguments of scaled_dot_product_attention that decide its weights."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, attn_mask, scale


def _hides(mask: Tensor) -> bool:
    """Whether a mask changes anything: pipelines pass one that is all True, or all zeros, where there is nothing to hide."""
    return not bool(mask.all()) if mask.dtype == torch.bool else bool(mask.any())
