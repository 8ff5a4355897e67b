"""Fused attention kernels that also give the log-sum-exp of every row, and which of them to trust here.

Given the mean-centred keys as values, a kernel returns Σ_j p_j k_j and lse = ln Σ_j exp(s_j), from which the
entropy of a row is lse - λ q·(Σ_j p_j k_j). Both terms reach b² and more (b: standard deviation of the
logits), so a rounding error of Σ p k counts in full: at b = 4 and 4,096 keys up to 1e-5 nats in float32, 4e-3
in float16, 3e-2 in bfloat16, and several times that where one dimension is large. So half-precision input is
computed in float32.

`efficient` does not read `allow_tf32`: its float32 products are three TF32 products each from compute
capability 8.0 on (`OpMultiplyAddFastF32`, gemm_kernel_utils.h), plain ones below. Both kernels are private
operators of torch, so what is chosen has first had to agree with the definition, in one tiny call.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from entropy_lib.errors import InvalidInputError

BLOCKS = "blocks"
TOLERANCE = 1e-4  # nats, of the tiny call
GRID_LIMIT = 1 << 16  # CUDA starts at most 65,535 blocks along the axes that hold batch and heads

aten = torch.ops.aten
Attended = tuple[Float[Tensor, "batch head query dim"], Float[Tensor, "batch head query"]]


class Kernel(NamedTuple):
    name: str  # what `attention_entropy(kernel=...)` calls it
    # of query and key `[batch, heads, N, d]`, float32 or float64: whether device, type and shape fit
    serves: Callable[[Tensor, Tensor], bool]
    # of query, mean-centred key and λ: Σ_j p_j k_j `[batch, heads, N_q, d]` and lse `[batch, heads, N_q]`
    attend: Callable[[Tensor, Tensor, float], Attended]


def find_kernel(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    name: str | None = None,
) -> Kernel | None:
    """The kernel to use for these tensors: the first that is accurate and works here, or the one named.

    Returns:
        None where rows have to be taken in blocks: no kernel fits, or `name` is "blocks".
    """
    if name == BLOCKS:
        return None
    candidates = [kernel for kernel in KERNELS if name in (None, kernel.name)]
    for kernel in candidates:
        if kernel.serves(query, key) and works(kernel, query.device, query.dtype, query.shape[-1]):
            return kernel
    if name is None:
        return None
    unfit = f"does not serve {query.dtype} of shape {list(query.shape)} on {query.device}"
    reason, names = unfit if candidates else "is unknown", [kernel.name for kernel in KERNELS]
    raise InvalidInputError(
        f"kernel {name!r} {reason}; give None for the best that works, or one of {[*names, BLOCKS]}"
    )


def row_entropy(
    kernel: Kernel,
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    scale: float,
) -> Float[Tensor, "batch head query"]:
    """Entropy of every row in nats, by one call of the kernel; the key must have its mean taken off."""
    mean_key, log_sum = kernel.attend(query, key, scale)
    return torch.sub(log_sum, (query * mean_key).sum(-1), alpha=scale).clamp(min=0)


@cache
def works(kernel: Kernel, device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether a tiny call gives the entropy of the definition here; if not, one warning says so."""
    try:
        with unset_fake_temporarily():
            error = _trial_error(kernel, device, dtype, dim)
    except Exception as failure:  # torch, Triton and the driver each raise their own kind
        reason = f"raises {type(failure).__name__}: {failure}".splitlines()[0]
    else:
        if error <= TOLERANCE:
            return True
        reason = f"is off by {error:.2g} nats"
    where = f"{device}, {dtype}, d = {dim}, torch {torch.__version__}"
    warnings.warn(f"attention kernel {kernel.name!r} {reason} ({where}); it is not used", stacklevel=2)
    return False


@torch.no_grad()
def _trial_error(kernel: Kernel, device: torch.device, dtype: torch.dtype, dim: int) -> float:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2, 33, dim, generator=generator, dtype=torch.float64)
    key = torch.randn(2, 2, 70, dim, generator=generator, dtype=torch.float64)
    key = key - key.mean(-2, keepdim=True)
    scale = 2 * dim**-0.5  # logits of standard deviation 2: TF32 then shows
    log_weight = (scale * query @ key.mT).log_softmax(-1)
    entropy = row_entropy(kernel, query.to(device, dtype), key.to(device, dtype), scale)
    return float((entropy.cpu() + (log_weight.exp() * log_weight).sum(-1)).abs().max())


def _serves_cpu(query: Tensor, key: Tensor) -> bool:
    there = hasattr(aten, "_scaled_dot_product_flash_attention_for_cpu")
    return there and query.device.type == "cpu" and query.numel() > 0


def _attend_cpu(query: Tensor, key: Tensor, scale: float) -> Attended:
    return aten._scaled_dot_product_flash_attention_for_cpu(query, key, key, scale=scale)


def _serves_efficient(query: Tensor, key: Tensor) -> bool:
    batch, heads, _, dim = query.shape
    fits = query.numel() > 0 and max(batch, heads) < GRID_LIMIT and dim % 4 == 0
    there = query.device.type == "cuda" and hasattr(aten, "_scaled_dot_product_efficient_attention")
    return fits and there and query.dtype == torch.float32


def _attend_efficient(query: Tensor, key: Tensor, scale: float) -> Attended:
    query, key = _aligned(query), _aligned(key)
    attend = aten._scaled_dot_product_efficient_attention
    mean_key, log_sum, *_ = attend(query, key, key, None, True, scale=scale)
    return mean_key, log_sum[..., : query.shape[-2]]  # padded to a multiple of 32 rows


def _aligned(tensor: Tensor) -> Tensor:
    """The same values, contiguous and starting at a multiple of 16 bytes, as the kernel demands."""
    good = tensor.is_contiguous() and tensor.storage_offset() % 4 == 0
    return tensor if good else tensor.clone(memory_format=torch.contiguous_format)


KERNELS = (Kernel("cpu", _serves_cpu, _attend_cpu), Kernel("efficient", _serves_efficient, _attend_efficient))
