"""What the entropy of attention is: exact row entropies and logit moments of (query, key), without the N x N
map.

A row of logits is s_j = λ q·k_j and its weights p = softmax(s). With lse(s) = ln Σ_j exp(s_j),

    H = lse(s) - Σ_j p_j s_j = lse(s) - λ q·(Σ_j p_j k_j)

and Σ_j p_j k_j is what fused attention returns when the keys are given as values; the same call already holds
lse. One extra fused call therefore gives the exact entropy of every row in O(N) memory. Taking the mean key
off first changes no weight and removes most of the rounding error. `fused` holds the fused kernels; without
one, and with a mask, the rows are taken in blocks.

Example:
    >>> import torch
    >>> query = torch.zeros(1, 8, 256, 40)                       # [batch, heads, N_q, d]; equal logits
    >>> attention_entropy(query, query).mean().exp().round()
    tensor(256.)
"""

import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entropy_lib.entropy.fused import BLOCKS, find_kernel, row_entropy
from entropy_lib.errors import InvalidInputError
from entropy_lib.precision import full_precision

# Elements of one block of logits when they have to be formed: 64 MiB in float32.
BLOCK_ELEMENTS = 1 << 24
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

    Computed in float32 (float64 for float64 input) whatever the input, autocast and TF32, and without
    gradient.

    Args:
        query: `[..., heads, N_q, d]`.
        key: `[..., heads, N_k, d]`, same leading axes; N_k may differ from N_q (cross-attention).
        scale: λ; 1/sqrt(d) by default.
        rows: query rows to look at. A number takes that many at random (always the same ones, and without
            touching torch's random state), or all where there are no more; a sequence names them; None takes
            all.
        mask: as in `scaled_dot_product_attention`: boolean (True attends) or additive. A row that attends
            nowhere has no distribution and gives NaN.
        kernel: how to compute it: "cpu" or "efficient", see `fused`, or "blocks" of rows; None takes the
            first that works for these tensors.

    Returns:
        `[..., heads, rows]`, between 0 and ln N_k.

    NaN and infinity in query or key give NaN in the rows that they reach, as in a softmax.

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
        flat_query, flat_key = _four_axes(query), _four_axes(key)
        if found := find_kernel(flat_query, flat_key, kernel):
            return row_entropy(found, flat_query, flat_key, scale).reshape(query.shape[:-1])
    elif kernel not in (None, BLOCKS):
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
    and with gradients. The higher ones need the logits, which are formed in blocks of rows. All divide by N_k
    (population values).

    Args:
        query: `[..., heads, N_q, d]`.
        key: `[..., heads, N_k, d]`.
        scale: λ; 1/sqrt(d) by default.
        order: 1 to 4, the number of cumulants returned.

    Returns:
        `order` tensors `[..., heads, N_q]`. The square root of the second is `logit_std`, b.

    Raises:
        InvalidInputError: when query or key is no floating-point tensor, their shapes do not fit, `scale` is
            not a positive number, or `order` is not 1 to 4.

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
    with full_precision(query.device):
        covariance = centred.mT @ centred / key.shape[-2]
        variance = scale**2 * ((query @ covariance) * query).sum(-1).clamp(min=0)
    higher = _blocked_cumulants(query, centred, scale) if order > 2 else ()
    return (mean, variance, *higher)[:order]


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
        # evenly spaced rows would alias with the image's columns
        generator = torch.Generator().manual_seed(SAMPLE_SEED)
        return torch.randperm(total, generator=generator)[:rows].sort().values
    try:
        indices = np.asarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows)
    except ValueError:  # lists of unequal lengths
        indices = np.empty(0)
    whole = indices.ndim == 1 and indices.size > 0 and indices.dtype.kind in "iu"
    if not whole or indices.min() < 0 or indices.max() >= total:
        raise InvalidInputError(
            f"rows must be None, a whole number, or a non-empty sequence of indices from 0 to {total - 1} for a query of {total} "
            f"rows; got {rows!r:.80}"
        )
    return torch.from_numpy(indices.astype(np.int64))


def _four_axes(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 4 else tensor.reshape(1, -1, *tensor.shape[-2:])


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


def _checked(query: Tensor, key: Tensor, scale: float | None) -> tuple[Tensor, Tensor, float]:
    """Query and key in the precision to work in, and λ, after refusing what is no attention."""
    for name, tensor in (("query", query), ("key", key)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise InvalidInputError(
                f"{name} is {_kind(tensor)}; give a floating-point torch tensor [..., heads, N, d] (torch.from_numpy takes numpy "
                "arrays)"
            )
    shapes = f"query is {list(query.shape)} and key is {list(key.shape)}"
    if (
        query.ndim < 2
        or key.ndim < 2
        or query.shape[:-2] != key.shape[:-2]
        or query.shape[-1] != key.shape[-1]
    ):
        raise InvalidInputError(
            f"{shapes}; expected [..., N_q, d] and [..., N_k, d] with the same leading axes and d (repeat grouped keys for each "
            "query head first)"
        )
    if not query.numel() or not key.numel():
        raise InvalidInputError(f"{shapes}; no axis may be empty: a softmax needs at least one key")
    if query.device != key.device:
        raise InvalidInputError(
            f"query is on {query.device} and key on {key.device}; move them to one device"
        )
    if scale is not None and (
        not isinstance(scale, Real) or isinstance(scale, bool) or not 0 < scale < math.inf
    ):
        raise InvalidInputError(f"scale is {scale!r:.80}; give a positive number, or None for 1/sqrt(d)")
    dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)
    return query.to(dtype), key.to(dtype), query.shape[-1] ** -0.5 if scale is None else float(scale)


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _check_mask(mask: Mask, query: Tensor, key: Tensor) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise InvalidInputError(
            f"mask is {_kind(mask)}; give a boolean tensor (True attends) or a floating-point one (added to the logits)"
        )
    full = (*query.shape[:-1], key.shape[-2])
    sides = zip(reversed(mask.shape), reversed(full), strict=False)
    if (
        not 2 <= mask.ndim <= len(full)
        or any(own not in (1, size) for own, size in sides)
        or mask.device != query.device
    ):
        raise InvalidInputError(
            f"mask is {list(mask.shape)} on {mask.device}; it must broadcast to {list(full)} on {query.device}, its last two axes "
            "being N_q and N_k"
        )
