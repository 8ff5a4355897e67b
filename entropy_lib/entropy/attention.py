"""What the entropy of attention is: exact row entropies and logit moments of (query, key), without the map.

A row of logits is s_j = λ q·k_j and its weights p = softmax(s). With lse(s) = ln Σ_j exp(s_j),

    H = lse(s) - Σ_j p_j s_j = lse(s) - λ q·(Σ_j p_j k_j)

and Σ_j p_j k_j is what fused attention returns when the keys are given as values; the same call already holds
lse. One extra fused call therefore gives the exact entropy of every row in O(N) memory. Taking the mean key
off first changes no weight and removes most of the rounding error. `fused` holds the fused kernels; without
one, and with a mask, the rows are taken in blocks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entropy_lib.entropy.fused import BLOCKS, find_kernel, row_entropy
from entropy_lib.errors import InvalidInputError
from entropy_lib.precision import full_precision

BLOCK_ELEMENTS = 1 << 24  # of one block of logits, where they have to be formed: 64 MiB in float32
SAMPLE_SEED = 0

Rows = int | Sequence[int] | Int[Tensor, " rows"] | None
Mask = Bool[Tensor, "*#batch #query key"] | Float[Tensor, "*#batch #query key"] | None


@torch.no_grad()
def attention_entropy(
    query: Float[Tensor, "*batch query dim"],
    key: Float[Tensor, "*batch key dim"],
    scale: float | None = None,
    rows: Rows = None,
    *,
    mask: Mask = None,
    kernel: str | None = None,
) -> Float[Tensor, "*batch rows"]:
    """Entropy of every row of softmax(scale · query keyᵀ), in nats (Eq. 2), exact and in O(N) memory.

    Computed in float32 (float64 for float64 input) whatever the input, autocast and TF32, without gradient.

    Args:
        query: `[..., heads, N_q, d]`.
        key: `[..., heads, N_k, d]`, same leading axes; N_k may differ from N_q (cross-attention).
        scale: λ; 1/sqrt(d) by default.
        rows: query rows to look at. A number takes that many at random (always the same ones, without
            touching torch's random state), or all where there are no more; a sequence names them; None: all.
        mask: as in `scaled_dot_product_attention`: boolean (True attends) or additive. A row that attends
            nowhere has no distribution and gives NaN.
        kernel: "cpu" or "efficient", see `fused`, or "blocks" of rows; None: the first that works.

    Returns:
        `[..., heads, rows]`, between 0 and ln N_k; NaN in rows that NaN or infinity in query or key enter.

    Raises:
        InvalidInputError: when query or key is no floating-point tensor or their shapes do not fit, `scale`
            is not a positive number, `rows` is out of range, `mask` does not fit, or `kernel` does not serve
            these tensors.

    Example:
        >>> query, key = torch.randn(2, 4, 9, 16), torch.randn(2, 4, 5, 16)
        >>> attention_entropy(query, key, rows=3).shape
        torch.Size([2, 4, 3])
    """
    query, key, scale = _checked(query, key, scale)
    _check_mask(mask, query, key)
    chosen = row_indices(query.shape[-2], rows)
    if chosen is not None:
        query = query.index_select(-2, chosen.to(query.device))
        mask = mask if mask is None or mask.shape[-2] == 1 else mask.index_select(-2, chosen.to(mask.device))
    key = key - key.mean(-2, keepdim=True)
    if mask is None:
        return _entropy(query, key, scale, kernel)
    if kernel not in (None, BLOCKS):
        raise InvalidInputError(f"kernel {kernel!r} takes no mask; leave out kernel, or give {BLOCKS!r}")
    return _blocked_entropy(query, key, scale, mask)


def logit_moments(
    query: Float[Tensor, "*batch query dim"],
    key: Float[Tensor, "*batch key dim"],
    scale: float | None = None,
    order: int = 2,
) -> tuple[Float[Tensor, "*batch query"], ...]:
    """Cumulants over the keys of each row of scaled logits: mean, variance and, by `order`, κ3 and κ4.

    Mean and variance come from the mean and the covariance of the keys, λ q·k̄ and λ² qᵀ Cov(K) q, in O(N d²)
    and with gradients. The higher ones need the logits, in blocks of rows. All divide by N_k.

    Args:
        query: `[..., heads, N_q, d]`.
        key: `[..., heads, N_k, d]`.
        scale: λ; 1/sqrt(d) by default.
        order: 1 to 4, the number of cumulants returned.

    Returns:
        `order` tensors `[..., heads, N_q]`. The square root of the second is `logit_std`, b.

    Raises:
        InvalidInputError: as `attention_entropy`, or when `order` is not 1 to 4.

    Example:
        >>> query, key = torch.randn(2, 9, 16), torch.randn(2, 5, 16)
        >>> mean, variance = logit_moments(query, key)
        >>> bool(torch.allclose(variance, (query @ key.mT / 4).var(-1, correction=0), atol=1e-5))
        True
    """
    query, key, scale = _checked(query, key, scale)
    if not _is_whole(order) or not 1 <= order <= 4:
        raise InvalidInputError(f"order is {order!r}; logit_moments gives 1 to 4 cumulants")
    centre = key.mean(-2, keepdim=True)
    centred = key - centre
    mean = scale * (query * centre).sum(-1)
    higher = _blocked_cumulants(query, centred, scale) if order > 2 else ()
    return (mean, _variance(query, centred, scale), *higher)[:order]


@torch.no_grad()
def entropy_and_variance(
    query: Float[Tensor, "batch head query dim"], key: Float[Tensor, "batch head key dim"], scale: float
) -> tuple[Float[Tensor, "batch head query"], Float[Tensor, "batch head query"]]:
    """`attention_entropy` and the second of `logit_moments`, unchecked, the keys centred once for both."""
    query, key = _in_working_precision(query, key)
    centred = key - key.mean(-2, keepdim=True)
    return _entropy(query, centred, scale), _variance(query, centred, scale)


def row_indices(total: int, rows: Rows) -> Int[Tensor, " rows"] | None:
    """Resolve `rows` to sorted indices below `total`; None means all rows.

    Raises:
        InvalidInputError: when a number is below 1, an index is out of range, or `rows` is something else.
    """
    if rows is None or (_is_whole(rows) and rows >= total):
        return None
    if _is_whole(rows):
        if rows < 1:
            raise InvalidInputError(
                f"rows is {rows}; give None for all rows, a number of at least 1, or a sequence of indices"
            )
        return _sample(total, int(rows))
    try:
        indices = np.asarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows)
    except ValueError:  # lists of unequal lengths
        indices = np.empty(0)
    whole = indices.ndim == 1 and indices.size > 0 and indices.dtype.kind in "iu"
    if not whole or indices.min() < 0 or indices.max() >= total:
        raise InvalidInputError(
            f"rows must be None, a whole number, or a non-empty sequence of indices from 0 to {total - 1} "
            f"for a query of {total} rows; got {rows!r:.80}"
        )
    return torch.from_numpy(indices.astype(np.int64))


@lru_cache(maxsize=256)
def _sample(total: int, count: int) -> Tensor:
    """Evenly spaced rows would alias with the image's columns."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    return torch.randperm(total, generator=generator)[:count].sort().values


def _entropy(query: Tensor, centred: Tensor, scale: float, kernel: str | None = None) -> Tensor:
    """By a fused kernel where there is one."""
    flat = [each if each.ndim == 4 else each.reshape(1, -1, *each.shape[-2:]) for each in (query, centred)]
    if found := find_kernel(*flat, kernel):
        return row_entropy(found, *flat, scale).reshape(query.shape[:-1])
    return _blocked_entropy(query, centred, scale, None)


def _variance(query: Tensor, centred: Tensor, scale: float) -> Tensor:
    with full_precision(query.device):
        covariance = centred.mT @ centred
        squares = ((query @ covariance) * query).sum(-1)
    return (scale**2 / centred.shape[-2] * squares).clamp(min=0)


def _blocked_entropy(query: Tensor, key: Tensor, scale: float, mask: Mask) -> Tensor:
    blocks = []
    for block, logits in _logit_blocks(query, key, scale):
        if mask is not None:
            part = mask if mask.shape[-2] == 1 else mask[..., block, :]
            logits = logits.masked_fill(~part, -torch.inf) if part.dtype == torch.bool else logits + part
        log_weight = logits.log_softmax(-1)
        blocks.append(-(log_weight.exp() * log_weight.clamp(min=torch.finfo(logits.dtype).min)).sum(-1))
    return torch.cat(blocks, -1).clamp(min=0)


@torch.no_grad()
def _blocked_cumulants(query: Tensor, centred_key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    third, fourth = [], []
    for _, logits in _logit_blocks(query, centred_key, scale):
        square = logits.square()
        third.append((square * logits).mean(-1))
        fourth.append(square.square().mean(-1) - 3 * square.mean(-1).square())
    return torch.cat(third, -1), torch.cat(fourth, -1)


def _logit_blocks(query: Tensor, key: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of scaled logits, each small enough to keep memory linear in N."""
    size = max(1, BLOCK_ELEMENTS // max(1, key[..., 0].numel()))
    for start in range(0, query.shape[-2], size):
        block = slice(start, start + size)
        with full_precision(query.device):
            logits = scale * (query[..., block, :] @ key.mT)
        yield block, logits


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _in_working_precision(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)
    return query.to(dtype), key.to(dtype)


def _checked(query: Tensor, key: Tensor, scale: float | None) -> tuple[Tensor, Tensor, float]:
    """Query and key in the precision to work in, and λ, after refusing what is no attention."""
    for name, tensor in (("query", query), ("key", key)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise InvalidInputError(
                f"{name} is {_kind(tensor)}; give a floating-point torch tensor [..., heads, N, d] "
                "(torch.from_numpy takes numpy arrays)"
            )
    shapes, own, other = f"query is {list(query.shape)} and key is {list(key.shape)}", query.shape, key.shape
    if min(len(own), len(other)) < 2 or own[:-2] != other[:-2] or own[-1] != other[-1]:
        raise InvalidInputError(
            f"{shapes}; expected [..., N_q, d] and [..., N_k, d] with the same leading axes and d (repeat "
            "grouped keys for each query head first)"
        )
    if not query.numel() or not key.numel():
        raise InvalidInputError(f"{shapes}; no axis may be empty: a softmax needs at least one key")
    if query.device != key.device:
        raise InvalidInputError(
            f"query is on {query.device} and key on {key.device}; move them to one device"
        )
    number = isinstance(scale, Real) and not isinstance(scale, bool)
    if scale is not None and not (number and 0 < scale < math.inf):
        raise InvalidInputError(f"scale is {scale!r:.80}; give a positive number, or None for 1/sqrt(d)")
    return *_in_working_precision(query, key), own[-1] ** -0.5 if scale is None else float(scale)


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _check_mask(mask: Mask, query: Tensor, key: Tensor) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise InvalidInputError(
            f"mask is {_kind(mask)}; give a boolean tensor (True attends) or a floating-point one (added to "
            "the logits)"
        )
    full = (*query.shape[:-1], key.shape[-2])
    fits = all(own in (1, size) for own, size in zip(reversed(mask.shape), reversed(full), strict=False))
    if not fits or not 2 <= mask.ndim <= len(full) or mask.device != query.device:
        raise InvalidInputError(
            f"mask is {list(mask.shape)} on {mask.device}; it must broadcast to {list(full)} on "
            f"{query.device}, its last two axes being N_q and N_k"
        )


@dataclass(frozen=True)
class AttentionMap:
    """One layer at one step, for one image; means over heads.

    Attributes:
        layer, step, tokens, training_tokens: where and when; `tokens` counts joint text too.
        query: row and column of the token whose row is kept.
        entropy: of every query, in nats.
        weights: of that one query on the tokens of the image; they sum to 1, less what goes to joint text.
    """

    layer: str
    step: int
    tokens: int
    training_tokens: int
    query: tuple[int, int]
    entropy: Float[np.ndarray, "height width"]
    weights: Float[np.ndarray, "height width"]

    @property
    def spread(self) -> float:
        """Over how many tokens that query's attention is spread, e^H."""
        return float(np.exp(self.entropy[self.query]))
