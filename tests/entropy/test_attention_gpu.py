"""Every way to compute the entropy, on a CUDA device: `pytest tests/entropy/test_entropy_gpu.py`. Skipped
where there is none.
"""

import pytest
import torch
from test_attention import softmax_loop

from entropy_lib.entropy import fused as kernels
from entropy_lib.entropy.attention import attention_entropy, logit_moments

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)  # as one, not each of its hundreds of cases

pytestmark = pytest.mark.gpu

EXACT = 1e-4  # float32; half-precision input is exact once it is rounded
WAYS = [None, "blocks", "efficient"]
SHAPES = [(256, 256), (129, 129), (1, 1), (1, 77), (225, 77), (33, 1025)]  # queries, keys


def sample(queries, keys, dim, dtype, spread=1.0, offset=3.0):
    """Query and key on the device; the logits have a standard deviation of `spread`."""
    generator = torch.Generator().manual_seed(queries + keys + dim)
    query = spread * torch.randn(2, 3, queries, dim, generator=generator)
    key = torch.randn(2, 3, keys, dim, generator=generator) + offset
    return query.to("cuda", dtype), key.to("cuda", dtype)


def entropy_by(way, query, key, **options):
    """Entropy by one way, or skip where it does not serve."""
    try:
        return attention_entropy(query, key, kernel=way, **options).cpu()
    except ValueError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture
def tf32_allowed():
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    kernels.works.cache_clear()
    yield
    matmul.allow_tf32 = before
    kernels.works.cache_clear()


def error_of(way, query, key, **options):
    """The largest, in nats, against the definition."""
    return (entropy_by(way, query, key, **options) - softmax_loop(query.cpu(), key.cpu())).abs().max()


@pytest.mark.parametrize("dim", [40, 64, 72, 80, 128])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_agrees_with_a_float64_softmax_loop(way, dtype, shape, dim):
    assert error_of(way, *sample(*shape, dim, dtype)) <= EXACT


@pytest.mark.parametrize("spread", [0.3, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_spread_of_the_logits(way, dtype, spread):
    assert error_of(way, *sample(300, 1024, 64, dtype, spread)) <= EXACT


@pytest.mark.parametrize("way", [None, "blocks"])
def test_float64_is_kept(way):
    assert error_of(way, *sample(50, 70, 40, torch.float64)) <= 1e-11


@pytest.mark.parametrize("dim", [40, 64, 72, 80, 128, 160, 512])
def test_the_exact_kernel_is_chosen_whatever_the_type_of_the_input(dim):
    query, key = sample(16, 16, dim, torch.float32)
    assert kernels.find_kernel(query, key).name == "efficient"


@pytest.mark.parametrize(
    ("heads", "dim"), [(3, 7), (70_000, 8)], ids=["odd dim", "more heads than a grid takes"]
)
def test_what_no_kernel_serves_is_taken_in_blocks(heads, dim):
    query, key = torch.randn(2, heads, 3, dim)
    entropy = attention_entropy(query.cuda(), key.cuda())[:50].cpu()
    assert (entropy - softmax_loop(query[:50], key[:50])).abs().max() <= EXACT


@pytest.mark.parametrize("way", WAYS)
def test_tf32_does_not_spoil_it(way, tf32_allowed):
    query, key = sample(200, 500, 64, torch.float32, spread=4.0)
    assert error_of(way, query, key) <= EXACT
    logits = query @ key.mT
    exact = query.double() @ key.double().mT
    if torch.cuda.get_device_capability() >= (8, 0):
        assert (logits - exact).abs().max() > 1e-3, "TF32 is not in use, so this test shows nothing"
    assert torch.allclose(logit_moments(query, key)[1].double(), (exact / 8).var(-1, correction=0), rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_autocast_does_not_spoil_it(way):
    query, key = sample(64, 100, 64, torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        entropy = entropy_by(way, query, key)
    assert (entropy - softmax_loop(query.cpu(), key.cpu())).abs().max() <= EXACT


@pytest.mark.parametrize("layout", ["heads last", "one projection", "odd offset", "dim first"])
@pytest.mark.parametrize("way", WAYS)
def test_any_layout_in_memory(way, layout):
    query, key = sample(65, 65, 40, torch.float32)
    if layout == "heads last":
        views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key)]
    elif layout == "one projection":
        views = torch.cat([query, key], -1).split(40, -1)
    elif layout == "odd offset":
        views = [torch.cat([torch.zeros(1, device="cuda"), x.flatten()])[1:].view_as(x) for x in (query, key)]
    else:
        views = [x.mT.contiguous().mT for x in (query, key)]
    assert error_of(way, *views) <= EXACT


def test_masks_and_rows():
    query, key = sample(40, 50, 64, torch.bfloat16)
    mask = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[..., 0] = True
    expected = softmax_loop(query.cpu(), key.cpu(), mask=mask)
    for rows in (range(40), [3, 30]):
        entropy = attention_entropy(query, key, rows=rows, mask=mask.cuda()).cpu()
        assert (entropy - expected[..., rows]).abs().max() <= EXACT


def peak_bytes(way, tokens, dtype):
    """Growth of the allocated memory by one call, its result included."""
    query, key = torch.randn(2, 1, 8, tokens, 40, device="cuda").to(dtype)
    entropy_by(way, query, key)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attention_entropy(query, key, kernel=way)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_memory_grows_linearly_and_no_map_is_formed(way, dtype):
    tokens = 16384
    peak = peak_bytes(way, tokens, dtype)
    assert peak < tokens**2 * 4 / 2, "less than half the map of one of the eight heads"
    if way != "blocks":  # whose logits take 64 MiB at a time whatever the length
        assert peak < 2.2 * peak_bytes(way, tokens // 2, dtype)
