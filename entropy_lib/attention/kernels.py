"""Fused attention kernels that also give the log-sum-exp of every row, and which of them to trust on this machine.

Given the mean-centred keys as values, a kernel returns Σ_j p_j k_j and lse = ln Σ_j exp(s_j), from which the entropy of a
row is lse - λ q·(Σ_j p_j k_j). Both terms reach b² and more (b: standard deviation of the logits), so a rounding error of
Σ p k counts in full, and accuracy decides the order. Largest errors in nats at b = 4, 1,000 rows of 4,096 keys and d 40 to
128, measured with torch's CPU kernel in each type; in brackets with one dimension eight times the others:

    float32     1e-5 (3e-5)
    float16     4e-3 (2e-2)
    bfloat16    3e-2 (2e-1)

Half precision cannot keep 5e-3 nats for certain. So half-precision input is computed in float32, by `efficient`, and the
faster `flash` is only used when asked for by name. `efficient` does not read `allow_tf32`: its float32 products are three
TF32 products each from compute capability 8.0 on (`OpMultiplyAddFastF32`, gemm_kernel_utils.h), plain ones below. All but
`flex` are private operators of torch. So what is chosen has first had to agree with the definition, in one tiny call.
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
GRID_LIMIT = 1 << 16  # CUDA starts at most 65,535 blocks along the axes that hold batch and heads

aten = torch.ops.aten
Attended = tuple[Float[Tensor, "batch head query dim"], Float[Tensor, "batch head query"]]


class Kernel(NamedTuple):
    """One fused kernel.

    Attributes:
        name: what `attention_entropy(kernel=...)` calls it.
        serves: of query and key `[batch, heads, N, d]`, float32 or float64: whether device, type and shape fit.
        attend: of query, mean-centred key and λ: Σ_j p_j k_j `[batch, heads, N_q, d]` and lse `[batch, heads, N_q]`.
        tolerance: largest error of the tiny call, in nats.
        automatic: whether it is accurate and quick to start, so that it may be chosen without being named.
    """

    name: str
    serves: Callable[[Tensor, Tensor], bool]
    attend: Callable[[Tensor, Tensor, float], Attended]
    tolerance: float
    automatic: bool


def find_kernel(
    query: Float[Tensor, "batch head query dim"], key: Float[Tensor, "batch head key dim"], name: str | None = None
) -> Kernel | None:
    """The kernel to use for these tensors: the first that is accurate and works here, or the one named.

    Returns:
        None where rows have to be taken in blocks: no kernel fits, or `name` is "blocks".

    Raises:
        InvalidInputError: when the named kernel is unknown or does not serve these tensors.
    """
    if name == BLOCKS:
        return None
    candidates = [kernel for kernel in KERNELS if (kernel.automatic if name is None else kernel.name == name)]
    for kernel in candidates:
        if kernel.serves(query, key) and works(kernel, query.device, query.dtype, query.shape[-1]):
            return kernel
    if name is None:
        return None
    reason = f"does not serve {query.dtype} of shape {list(query.shape)} on {query.device}" if candidates else "is unknown"
    names = [kernel.name for kernel in KERNELS]
    raise InvalidInputError(f"kernel {name!r} {reason}; give None for the best that works, or one of {[*names, BLOCKS]}")


def row_entropy(
    kernel: Kernel, query: Float[Tensor, "batch head query dim"], key: Float[Tensor, "batch head key dim"], scale: float
) -> Float[Tensor, "batch head query"]:
    """Entropy of every row in nats, by one call of the kernel; the key must have its mean taken off."""
    mean_key, log_sum = kernel.attend(query, key, scale)
    return (log_sum - scale * (query * mean_key).sum(-1)).clamp(min=0)


@cache
def works(kernel: Kernel, device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether a tiny call gives the entropy of the definition here; where it does not, a warning says so, once."""
    try:
        with unset_fake_temporarily():
            error = _trial_error(kernel, device, dtype, dim)
    except Exception as failure:  # torch, Triton and the driver each raise their own kind
        reason = f"raises {type(failure).__name__}: {failure}".splitlines()[0]
    else:
        if error <= kernel.tolerance:
            return True
        reason = f"is off by {error:.2g} nats"
    message = f"attention kernel {kernel.name!r} {reason} ({device}, {dtype}, d = {dim}, torch {torch.__version__})"
    warnings.warn(f"{message}; it is not used", stacklevel=2)
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
    return query.device.type == "cpu" and query.numel() > 0 and hasattr(aten, "_scaled_dot_product_flash_attention_for_cpu")


def _attend_cpu(query: Tensor, key: Tensor, scale: float) -> Attended:
    return aten._scaled_dot_product_flash_attention_for_cpu(query, key, key, scale=scale)


def _fits_cuda(query: Tensor, dim_step: int, dim_limit: int) -> bool:
    batch, heads, _, dim = query.shape
    fits_grid = query.numel() > 0 and max(batch, heads) < GRID_LIMIT
    fits_dim = dim % dim_step == 0 and dim <= dim_limit
    return query.device.type == "cuda" and query.dtype == torch.float32 and fits_grid and fits_dim


def _serves_efficient(query: Tensor, key: Tensor) -> bool:
    return _fits_cuda(query, 4, 1 << 16) and hasattr(aten, "_scaled_dot_product_efficient_attention")


def _attend_efficient(query: Tensor, key: Tensor, scale: float) -> Attended:
    query, key = _aligned(query), _aligned(key)
    mean_key, log_sum, *_ = aten._scaled_dot_product_efficient_attention(query, key, key, None, True, scale=scale)
    return mean_key, log_sum[..., : query.shape[-2]]  # padded to a multiple of 32 rows


def _serves_flash(query: Tensor, key: Tensor) -> bool:
    return _fits_cuda(query, 8, 256) and hasattr(aten, "_scaled_dot_product_flash_attention")


def _attend_flash(query: Tensor, key: Tensor, scale: float) -> Attended:
    """In float16, which has 3 bits more than bfloat16; its narrow range is met by moving a power of two between q and k."""
    shift = ((_exponent(key) - _exponent(query)) / 2).round().exp2()
    query, key = (query * shift).half().contiguous(), (key / shift).half().contiguous()
    mean_key, log_sum, *_ = aten._scaled_dot_product_flash_attention(query, key, key, scale=scale)
    return mean_key.float() * shift, log_sum


def _serves_flex(query: Tensor, key: Tensor) -> bool:
    return _fits_cuda(query, 1, 1 << 16) and query.shape[-1] >= 16


def _attend_flex(query: Tensor, key: Tensor, scale: float) -> Attended:
    from torch.nn.attention.flex_attention import AuxRequest

    options = {"FLOAT32_PRECISION": "'ieee'"}  # its default follows allow_tf32
    mean_key, extra = _compiled_flex()(query, key, key, scale=scale, return_aux=AuxRequest(lse=True), kernel_options=options)
    return mean_key, extra.lse


@cache
def _compiled_flex() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, fullgraph=True)  # without it, one recompilation too many would form the N x N map


def _aligned(tensor: Tensor) -> Tensor:
    """The same values, contiguous and starting at a multiple of 16 bytes, as the kernel demands."""
    good = tensor.is_contiguous() and tensor.storage_offset() % 4 == 0
    return tensor if good else tensor.clone(memory_format=torch.contiguous_format)


def _exponent(tensor: Tensor) -> Tensor:
    return tensor.abs().amax().clamp(min=torch.finfo(tensor.dtype).tiny).log2()


KERNELS = (
    Kernel("cpu", _serves_cpu, _attend_cpu, tolerance=1e-4, automatic=True),
    Kernel("efficient", _serves_efficient, _attend_efficient, tolerance=1e-4, automatic=True),
    Kernel("flash", _serves_flash, _attend_flash, tolerance=2e-2, automatic=False),
    Kernel("flex", _serves_flex, _attend_flex, tolerance=1e-4, automatic=False),  # compiles for many seconds
)
