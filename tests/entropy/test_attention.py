import importlib.util
import math
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from entropy_lib.entropy import fused as kernels
from entropy_lib.entropy.attention import attention_entropy, logit_moments, row_indices
from entropy_lib.files import ROOT


def softmax_loop(query, key, scale=None, mask=None):
    """Entropy by the definition, row by row in float64: the reference for everything here."""
    query, key = query.double(), key.double()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    rows = torch.empty(query.shape[:-1], dtype=torch.float64)
    for index in np.ndindex(*query.shape[:-1]):
        logits = scale * (key[index[:-1]] @ query[index])
        if mask is not None:
            part = mask.expand(*query.shape[:-1], key.shape[-2])[index]
            logits = logits[part] if part.dtype == torch.bool else logits + part.double()
        weights = (logits - logits.max()).exp()
        weights = weights[weights > 0] / weights.sum()
        rows[index] = -(weights * weights.log()).sum()
    return rows


SHAPES = {
    "square": (2, 3, 16, 16, 8),
    "odd": (1, 2, 25, 25, 7),
    "one token": (2, 2, 1, 1, 8),
    "one key": (1, 2, 9, 1, 8),
    "cross": (2, 2, 30, 77, 24),
    "few queries": (1, 4, 3, 200, 48),
}


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3), (torch.float64, 1e-12)]
)
def test_agrees_with_a_float64_softmax_loop(shape, spread, dtype, tolerance):
    batch, heads, queries, keys, dim = shape
    generator = torch.Generator().manual_seed(queries * keys)
    query = (spread * torch.randn(batch, heads, queries, dim, generator=generator)).to(dtype)
    # an offset that centring must remove
    key = (torch.randn(batch, heads, keys, dim, generator=generator) + 3).to(dtype)
    assert (attention_entropy(query, key) - softmax_loop(query, key)).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["boolean", "additive", "broadcast"])
def test_masked_rows_agree_with_the_loop(kind):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 9, 8, generator=generator), torch.randn(2, 3, 12, 8, generator=generator)
    mask = torch.rand(2, 1, 9, 12, generator=generator) > 0.4
    mask[..., 0] = True
    additive = torch.randn(9, 12, generator=generator)
    mask = {"boolean": mask, "additive": additive, "broadcast": mask[:, :, :1]}[kind]
    expected = softmax_loop(query, key, mask=mask)
    assert (attention_entropy(query, key, mask=mask) - expected).abs().max() <= 1e-5
    assert (attention_entropy(query, key, rows=[1, 7], mask=mask) - expected[..., [1, 7]]).abs().max() <= 1e-5


def test_a_row_that_attends_nowhere_has_no_entropy():
    mask = torch.tensor([[True, True], [False, False]])
    entropy = attention_entropy(torch.randn(1, 2, 4), torch.randn(1, 2, 4), mask=mask)
    assert entropy[0, 0].isfinite()
    assert entropy[0, 1].isnan()


def test_fused_and_blocked_paths_agree(monkeypatch):
    query, key = torch.randn(2, 3, 50, 16), torch.randn(2, 3, 33, 16)
    assert kernels.find_kernel(query, key).name == "cpu", "the fused path is not being tested here"
    fused = attention_entropy(query, key)
    # blocks of 7 rows, the last one of 1
    monkeypatch.setattr("entropy_lib.entropy.attention.BLOCK_ELEMENTS", 2 * 3 * 33 * 7)
    assert torch.allclose(attention_entropy(query, key, kernel="blocks"), fused, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(keys=st.integers(1, 40), spread=st.floats(0, 20), copies=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_entropy_properties(keys, spread, copies, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 4, 8, generator=generator)
    key = spread * torch.randn(1, keys, 8, generator=generator)
    entropy = attention_entropy(query, key)
    assert (entropy >= 0).all()
    assert (entropy <= math.log(keys) + 1e-5).all()
    order = torch.randperm(keys, generator=generator)
    assert torch.allclose(attention_entropy(query, key[:, order]), entropy, atol=1e-4), "order of keys"
    assert torch.allclose(attention_entropy(query, key + 1), entropy, atol=1e-3), "a common shift of the keys"
    repeated = attention_entropy(query, key.repeat_interleave(copies, -2))
    assert torch.allclose(repeated, entropy + math.log(copies), atol=1e-4), "copies of the keys"


def test_limits_are_uniform_and_one_hot():
    key = torch.eye(6).unsqueeze(0)
    uniform = attention_entropy(torch.zeros(1, 6, 6), key)
    assert torch.allclose(uniform, torch.full((1, 6), math.log(6)), atol=1e-6)
    assert attention_entropy(1e4 * key, key).abs().max() < 1e-3


def test_a_number_of_rows_is_a_fixed_sample_that_leaves_random_state_alone():
    query, key = torch.randn(2, 100, 8), torch.randn(2, 30, 8)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = attention_entropy(query, key, rows=10), attention_entropy(query, key, rows=10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert torch.allclose(first, attention_entropy(query, key)[:, row_indices(100, 10)], atol=1e-6)
    assert attention_entropy(query, key, rows=1000).shape == (2, 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_agree_with_scipy(dtype):
    query, key = torch.randn(2, 6, 16, dtype=dtype), torch.randn(2, 60, 16, dtype=dtype) ** 2
    logits = (query.double() @ key.double().mT / 4).numpy()
    variance = logits.var(-1)
    expected = [
        logits.mean(-1),
        variance,
        scipy.stats.skew(logits, axis=-1) * variance**1.5,
        scipy.stats.kurtosis(logits, axis=-1) * variance**2,
    ]
    for given_moment, moment in zip(logit_moments(query, key, order=4), expected, strict=True):
        assert np.allclose(given_moment, moment, rtol=1e-3, atol=1e-4)


def test_moments_have_gradients():
    query = torch.randn(1, 4, 8, requires_grad=True)
    logit_moments(query, torch.randn(1, 9, 8))[1].sum().backward()
    assert query.grad.abs().sum() > 0


MEMORY = """
import resource, torch
from entropy_lib.entropy.attention import attention_entropy
torch.set_num_threads(1)
attention_entropy(torch.randn(1, 1, 64, 40), torch.randn(1, 1, 64, 40))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokens = {tokens}
attention_entropy(torch.randn(1, 1, tokens, 40), torch.randn(1, 1, tokens, 40), rows=None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_linearly():
    def peak(tokens):
        command = [sys.executable, "-c", MEMORY.format(tokens=tokens)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(run.stdout) * (1 if sys.platform == "darwin" else 1024)

    map_bytes = 16384**2 * 4
    assert peak(16384) < map_bytes / 16, "the N x N map must not be formed"


# What chooses between the fused kernels. There is no CUDA device here: its tensors are fake, its operators
# stand-ins.

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BY_NAME = {kernel.name: kernel for kernel in kernels.KERNELS}


@pytest.fixture
def untried():
    """Forget which kernels were found to work, before and after."""
    kernels.works.cache_clear()
    yield
    kernels.works.cache_clear()


@pytest.fixture
def believed(monkeypatch):
    """Take every kernel at its word, as no trial can run for a device that is not there."""
    monkeypatch.setattr(kernels, "works", lambda *arguments: True)


def fake(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="cuda")


@pytest.mark.usefixtures("believed")
@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 8, 4096, 40), torch.float32, {"efficient"}),
        ((1, 1, 1, 512), torch.float32, {"efficient"}),
        ((2, 8, 64, 7), torch.float32, set()),
        ((2, 8, 64, 40), torch.float64, set()),
        ((1, 70_000, 4, 40), torch.float32, set()),
        ((2, 8, 0, 40), torch.float32, set()),
    ],
)
def test_kernels_serve_what_their_cuda_operators_take(shape, dtype, expected):
    with FakeTensorMode():
        query = fake(*shape, dtype=dtype)
        assert {kernel.name for kernel in kernels.KERNELS if kernel.serves(query, query)} == expected
        found = kernels.find_kernel(query, query)
        assert (found and found.name) == ("efficient" if expected else None)


def test_each_device_has_its_kernels(monkeypatch):
    here = torch.zeros(1, 1, 4, 8)
    assert [kernel.name for kernel in kernels.KERNELS if kernel.serves(here, here)] == ["cpu"]
    assert kernels.find_kernel(here.to("meta"), here.to("meta")) is None
    # a version of torch that has dropped its private operators
    monkeypatch.setattr(kernels, "aten", SimpleNamespace())
    with FakeTensorMode():
        there = fake(1, 1, 4, 8)
        assert not any(each.serves(there, there) or each.serves(here, here) for each in kernels.KERNELS)
    query, key = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 5, 8)
    assert (attention_entropy(query, key) - softmax_loop(query, key)).abs().max() <= 1e-5


@pytest.mark.parametrize("queries", [1, 32, 33])
def test_the_cuda_operator_is_called_so_that_shapes_and_types_fit(queries):
    with FakeTensorMode():
        mean_key, log_sum = BY_NAME["efficient"].attend(fake(2, 3, queries, 40), fake(2, 3, 77, 40), 0.1)
    assert mean_key.shape == (2, 3, queries, 40)
    assert log_sum.shape == (2, 3, queries)
    assert mean_key.dtype == log_sum.dtype == torch.float32


def padded_efficient(query, key, value, bias, with_log_sum, *, scale):
    """What the CUDA operator demands and returns, by the kernel for the CPU."""
    assert bias is None
    assert with_log_sum
    for tensor in (query, key, value):
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % 16 == 0
    mean_key, log_sum = FUSED(query, key, value, scale=scale)
    padding = torch.full((*query.shape[:2], -query.shape[-2] % 32), torch.inf)
    return mean_key, torch.cat([log_sum, padding], -1), torch.tensor(0), torch.tensor(0)


@pytest.mark.parametrize("layout", ["contiguous", "heads last", "odd offset"])
@pytest.mark.parametrize("queries", [1, 31, 32, 65])
def test_padding_of_the_log_sum_is_cut_and_tensors_are_aligned(monkeypatch, layout, queries):
    monkeypatch.setattr(
        kernels, "aten", SimpleNamespace(_scaled_dot_product_efficient_attention=padded_efficient)
    )
    query, key = torch.randn(2, queries, 3, 8), torch.randn(2, 19, 3, 8)
    if layout == "odd offset":
        query, key = (torch.cat([torch.zeros(1), x.flatten()])[1:].view_as(x) for x in (query, key))
    query, key = query.transpose(1, 2), key.transpose(1, 2)
    query, key = (query.contiguous(), key.contiguous()) if layout == "contiguous" else (query, key)
    entropy = kernels.row_entropy(BY_NAME["efficient"], query, key, 8**-0.5)
    assert (entropy - softmax_loop(query, key)).abs().max() <= 1e-5


def to_tf32(tensor):
    """Keep 10 bits of the mantissa, as TF32 products do."""
    return ((tensor.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def raising(query, key, scale):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


FAULTS = {
    "an error": (raising, "no kernel image"),
    "not a number": (lambda query, key, scale: (query * torch.nan, query[..., 0]), "nan nats"),
    "a shape of its own": (lambda query, key, scale: FUSED(query, key, key, scale=scale)[::-1], "raises"),
    "TF32": (lambda query, key, scale: FUSED(to_tf32(query), to_tf32(key), key, scale=scale), "off by"),
    "another base": (
        lambda query, key, scale: (FUSED(query, key, key)[0], FUSED(query, key, key)[1] / math.log(2)),
        "off by",
    ),
}


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(("attend", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_a_kernel_that_fails_its_trial_is_reported_once_and_left_out(monkeypatch, attend, reason):
    monkeypatch.setattr(kernels, "KERNELS", (BY_NAME["cpu"]._replace(name="faulty", attend=attend),))
    query, key = torch.randn(1, 2, 9, 8), torch.randn(1, 2, 5, 8)
    with pytest.warns(UserWarning, match=f"'faulty' .*{reason}.* not used"):
        entropy = attention_entropy(query, key)
    assert (entropy - softmax_loop(query, key)).abs().max() <= 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_entropy(query, key)
    with pytest.raises(ValueError, match="'faulty' does not serve"):
        attention_entropy(query, key, kernel="faulty")


@pytest.mark.usefixtures("untried")
def test_the_next_kernel_takes_over_and_each_is_tried_once(monkeypatch):
    calls = []

    def attend(query, key, scale):
        calls.append(query.shape[-1])
        return FUSED(query, key, key, scale=scale)

    good = BY_NAME["cpu"]._replace(name="good", attend=attend)
    monkeypatch.setattr(kernels, "KERNELS", (good._replace(name="bad", attend=raising), good))
    query = torch.randn(1, 1, 4, 8)
    with pytest.warns(UserWarning, match="'bad'"):
        assert kernels.find_kernel(query, query) is good
    for _ in range(3):
        kernels.find_kernel(query, query)
    assert calls == [8]
    with FakeTensorMode():
        kernels.find_kernel(torch.empty(1, 1, 4, 8), torch.empty(1, 1, 4, 8))
    assert calls == [8]


def test_a_mask_is_served_by_blocks_alone(monkeypatch):
    query, mask = torch.randn(1, 2, 4, 8), torch.ones(4, 4, dtype=torch.bool).tril()
    monkeypatch.setattr(
        "entropy_lib.entropy.attention.find_kernel",
        lambda *arguments: pytest.fail("a fused kernel would ignore the mask"),
    )
    expected = softmax_loop(query, query, mask=mask)
    for name in (None, "blocks"):
        assert (attention_entropy(query, query, mask=mask, kernel=name) - expected).abs().max() <= 1e-5


class Precisions(torch.overrides.TorchFunctionMode):
    """Notes what float32 products are allowed to round to at every product."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__matmul__ or function is torch.Tensor.matmul:
            self.seen.append(torch.backends.cuda.matmul.fp32_precision)
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has only allow_tf32"
)
@pytest.mark.parametrize("allowed", [True, False])
def test_products_are_kept_free_of_tf32(allowed):
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    try:
        matmul.allow_tf32 = allowed
        with FakeTensorMode(), Precisions() as precisions:
            query = fake(1, 2, 9, 8)
            attention_entropy(query, query, kernel="blocks")
            logit_moments(query, query, order=4)
        assert len(precisions.seen) >= 4
        assert "tf32" not in precisions.seen
        assert matmul.allow_tf32 is allowed
    finally:
        matmul.allow_tf32 = before


def test_autocast_changes_nothing():
    query, key = torch.randn(1, 2, 9, 16), torch.randn(1, 2, 12, 16)
    mask = torch.zeros(9, 12)
    expected, moments = softmax_loop(query, key), logit_moments(query, key, order=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (attention_entropy(query, key) - expected).abs().max() <= 1e-5
        assert (attention_entropy(query, key, mask=mask) - expected).abs().max() <= 1e-5
        for given_moment, moment in zip(logit_moments(query, key, order=4), moments, strict=True):
            assert torch.allclose(given_moment, moment, atol=1e-5)
        assert (query @ key.mT).dtype == torch.bfloat16, "autocast must go on for the caller"


def test_the_gpu_benchmark_says_that_there_is_no_gpu(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_gpu", ROOT / "benchmarks" / "gpu.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("no CUDA device")
    assert printed.err.count("\n") == 1
