"""Watches every self-attention call of a running model and returns one tidy table.

The probe stands at `scaled_dot_product_attention`, where query and key arrive exactly as they are used: after norms,
rotary embeddings, LoRA and any scale rule. It reads them, reduces them at once to a few sums, and changes nothing, so
images are the same bit for bit. It knows nothing of the patch; its `factor` column is measured from the query.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with el.EntropyProbe(pipe) as probe:
    ...     _ = pipe("a zebra, noto style", num_inference_steps=2)
    >>> probe.table().entropy.between(0, 5.6).all()
    np.True_
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from entropy_lib.attention import Rows, attention_entropy, logit_moments, row_indices
from entropy_lib.errors import AttentionNotSeenError
from entropy_lib.layers import denoiser, grid, select_layers, self_attention_input, training_tokens
from entropy_lib.theory import freezing_std, gaussian_entropy

COLUMNS = [
    "layer", "height", "width", "tokens", "training_tokens", "step", "timestep", "branch", "head", "rows",
    "entropy", "entropy_std", "entropy_ratio", "logit_std", "gaussian_entropy", "beyond_freezing", "factor",
]  # fmt: skip
FACTOR_ROWS = 4  # query rows from which the factor is measured


SUMS = ("entropy", "entropy_squared", "logit_variance", "beyond", "factor")  # of which sums over query rows are kept


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


class EntropyProbe(TorchFunctionMode):
    """Measure the entropy of every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        rows: query rows to look at in each call: None for all, a number for that many at random, or indices.
        layers: names or glob patterns of the layers to watch; all self-attention by default.
        per_image: keep the images of a batch apart, in a column `image` that counts all images of the block.

    Raises:
        ValueError: when the model has no self-attention.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with el.scaled(pipe, "paper"), el.EntropyProbe(pipe, rows=16) as probe:
        ...     _ = pipe("a zebra", height=32, width=32, num_inference_steps=2)
        >>> int(probe.table().tokens.max())
        64
    """

    def __init__(self, model, rows: Rows = None, layers: str | Sequence[str] | None = None, *, per_image: bool = False):
        super().__init__()
        self.model, self.network, self.rows, self.per_image = model, denoiser(model), rows, per_image
        self.training_tokens = training_tokens(self.network)
        self.layers = select_layers(list(self.training_tokens), layers)
        row_indices(min(self.training_tokens[name] for name in self.layers), rows)  # fail here, not in the middle of a run
        self._sums: dict[Cell, Tensor] = {}  # [len(SUMS) + 1, branches, images, heads], the last being the rows summed
        self._handles: list = []
        self._call: _DenoiserCall | None = None
        self._layer: _LayerCall | None = None
        self._images = 0
        self._schedule: Tensor | None = None  # of the run in progress; a new run brings a new tensor
        self._timesteps: list[float] = []

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
            self._measure(*_attention_arguments(*args, **kwargs))
        return function(*args, **kwargs)

    def table(self) -> pd.DataFrame:
        """Everything seen so far, one row per layer x step x branch x head (and image, with `per_image`).

        Columns:
            layer, height, width, tokens, training_tokens: where (height and width of the layer's token grid).
            step, timestep, branch ("cond", "uncond", or "all" without guidance), head: when and in which part.
            rows: query rows summarised.
            entropy, entropy_std: mean and standard deviation over rows, in nats.
            entropy_ratio: entropy / ln N.
            logit_std: b, the square root of the mean within-row variance of the scaled logits.
            gaussian_entropy: what Eq. 5 predicts from it.
            beyond_freezing: share of rows with b > sqrt(2 ln N).
            factor: measured length of the query used over that of the query projected, times sqrt(d) x the scale used.
        """
        columns = [*COLUMNS[:7], "image", *COLUMNS[7:]] if self.per_image else COLUMNS
        parts = [_table(cell, sums) for cell, sums in self._sums.items()]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        rank = {name: index for index, name in enumerate(self.layers)}
        order = ["image", "step", "layer", "height", "width", "branch", "head"]
        table = table.assign(image=table.get("image", 0)).sort_values(
            order, key=lambda column: column.map(rank) if column.name == "layer" else column, kind="stable", ignore_index=True
        )
        return table[columns]

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
        self._call = _DenoiserCall(step, timestep, branches, images, self._images, tuple(sample.shape[-2:]))

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
            self._layer = None if hidden is None else _LayerCall(name, module, hidden)

        return hook

    def _layer_ends(self, module: nn.Module, args: tuple, output) -> None:
        layer, self._layer = self._layer, None
        failed = output is None  # the layer raised; its own error goes on
        if layer is not None and not layer.seen and not failed:
            raise AttentionNotSeenError(
                f"the attention of {layer.name!r} was not seen: its processor {type(module.processor).__name__} does not call "
                "scaled_dot_product_attention. Set diffusers' AttnProcessor2_0 (no attention slicing, no xformers) and run again."
            )

    @torch.no_grad()
    def _measure(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> None:
        call, layer = self._call, self._layer
        layer.seen = True
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        chosen = row_indices(query.shape[-2], self.rows)
        rows = query if chosen is None else query.index_select(-2, chosen.to(query.device))
        entropy = attention_entropy(query, key, scale, chosen, mask=mask)
        variance = logit_moments(rows, key, scale)[1]
        tokens = key.shape[-2]
        cell = Cell(
            layer.name, *grid(tokens, *call.latent_size), tokens, self.training_tokens[layer.name],
            call.step, call.timestep, call.branches, call.first_image if self.per_image else 0,
        )  # fmt: skip
        beyond = (variance.sqrt() > freezing_std(tokens)).float()
        factor = layer.measured_factor(query, scale).unsqueeze(-1).expand_as(entropy)
        measured = (entropy, entropy.square(), variance, beyond, factor, torch.ones_like(entropy))
        sums = torch.stack([values.sum(-1, dtype=torch.float64) for values in measured]).cpu()
        sums = sums.unflatten(1, (len(call.branches), call.images))
        sums = sums if self.per_image else sums.sum(2, keepdim=True)
        self._sums[cell] = self._sums.get(cell, 0) + sums


@dataclass(frozen=True)
class _DenoiserCall:
    """One call of the denoiser: when, and what its batch is made of."""

    step: int
    timestep: float
    branches: tuple[str, ...]
    images: int
    first_image: int
    latent_size: tuple[int, int]


@dataclass
class _LayerCall:
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


def _attention_arguments(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The arguments of scaled_dot_product_attention that decide its weights."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return query, key, attn_mask, scale


def _table(cell: Cell, sums: Tensor) -> pd.DataFrame:
    """Table of one cell: one row for each branch, image and head."""
    _, _, images, heads = sums.shape
    index = pd.MultiIndex.from_product(
        [cell.branches, range(cell.first_image, cell.first_image + images), range(heads)], names=["branch", "image", "head"]
    )
    rows = sums[-1].flatten().numpy()
    mean = pd.DataFrame(dict(zip(SUMS, sums[:-1].flatten(1).numpy() / rows, strict=True)), index=index).reset_index()
    logit_std = mean.logit_variance**0.5
    log_tokens = math.log(cell.tokens)
    return mean.assign(
        **{name: getattr(cell, name) for name in COLUMNS[:7]},
        rows=rows.astype(int),
        entropy_std=(mean.entropy_squared - mean.entropy**2).clip(lower=0) ** 0.5,
        entropy_ratio=mean.entropy / log_tokens if log_tokens else math.nan,
        logit_std=logit_std,
        gaussian_entropy=gaussian_entropy(cell.tokens, logit_std),
        beyond_freezing=mean.beyond,
    )
