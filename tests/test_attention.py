import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lib import attention
from entropy_lib.attention import attention_entropy, logit_moments, row_indices


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
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3), (torch.float64, 1e-12)])
def test_agrees_with_a_float64_softmax_loop(shape, spread, dtype, tolerance):
    batch, heads, queries, keys, dim = shape
    generator = torch.Generator().manual_seed(queries * keys)
    query = (spread * torch.randn(batch, heads, queries, dim, generator=generator)).to(dtype)
    key = (torch.randn(batch, heads, keys, dim, generator=generator) + 3).to(dtype)  # an offset that centring must remove
    assert (attention_entropy(query, key) - softmax_loop(query, key)).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["boolean", "additive", "broadcast"])
def test_masked_rows_agree_with_the_loop(kind):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 9, 8, generator=generator), torch.randn(2, 3, 12, 8, generator=generator)
    mask = torch.rand(2, 1, 9, 12, generator=generator) > 0.4
    mask[..., 0] = True
    mask = {"boolean": mask, "additive": torch.randn(9, 12, generator=generator), "broadcast": mask[:, :, :1]}[kind]
    expected = softmax_loop(query, key, mask=mask)
    assert (attention_entropy(query, key, mask=mask) - expected).abs().max() <= 1e-5
    assert (attention_entropy(query, key, rows=[1, 7], mask=mask) - expected[..., [1, 7]]).abs().max() <= 1e-5


def test_a_row_that_attends_nowhere_has_no_entropy():
    mask = torch.tensor([[True, True], [False, False]])
    entropy = attention_entropy(torch.randn(1, 2, 4), torch.randn(1, 2, 4), mask=mask)
    assert entropy[0, 0].isfinite()
    assert entropy[0, 1].isnan()


def test_agrees_with_scipy():
    query, key = torch.randn(5, 16), torch.randn(40, 16)
    weights = (query @ key.mT / 4).double().softmax(-1)
    assert np.allclose(attention_entropy(query, key), scipy.stats.entropy(weights.numpy(), axis=-1), atol=1e-5)


def test_fused_and_blocked_paths_agree(monkeypatch):
    query, key = torch.randn(2, 3, 50, 16), torch.randn(2, 3, 33, 16)
    assert attention.has_fused_kernel(query), "the fused path is not being tested here"
    fused = attention_entropy(query, key)
    monkeypatch.setattr(attention, "has_fused_kernel", lambda query: False)
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 3 * 33 * 7)  # blocks of 7 rows, the last one of 1
    assert torch.allclose(attention_entropy(query, key), fused, atol=1e-5)


def test_leading_axes_are_kept():
    query, key = torch.randn(2, 3, 4, 5, 8), torch.randn(2, 3, 4, 6, 8)
    entropy = attention_entropy(query, key)
    assert entropy.shape == (2, 3, 4, 5)
    assert torch.allclose(entropy[1, 2], attention_entropy(query[1, 2], key[1, 2]), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(keys=st.integers(1, 40), spread=st.floats(0, 20), copies=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_entropy_properties(keys, spread, copies, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(1, 4, 8, generator=generator), spread * torch.randn(1, keys, 8, generator=generator)
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
    assert torch.allclose(attention_entropy(torch.zeros(1, 6, 6), key), torch.full((1, 6), math.log(6)), atol=1e-6)
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


@pytest.mark.parametrize("rows", [0, -3, [], [100], [-1]])
def test_impossible_rows_are_refused(rows):
    with pytest.raises(ValueError, match="rows"):
        attention_entropy(torch.randn(2, 100, 8), torch.randn(2, 30, 8), rows=rows)


@pytest.mark.parametrize(("query", "key"), [((2, 5, 8), (2, 5, 9)), ((2, 5, 8), (3, 5, 8)), ((8,), (8,)), ((2, 5, 8), (2, 0, 8))])
def test_shapes_that_do_not_fit_are_refused(query, key):
    with pytest.raises(ValueError, match=r"query is|key has no tokens"):
        attention_entropy(torch.zeros(query), torch.zeros(key))


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


def test_moments_have_gradients_and_refuse_other_orders():
    query = torch.randn(1, 4, 8, requires_grad=True)
    logit_moments(query, torch.randn(1, 9, 8))[1].sum().backward()
    assert query.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="order is 5"):
        logit_moments(query, query, order=5)


MEMORY = """
import resource, torch
from entropy_lib.attention import attention_entropy
torch.set_num_threads(1)
attention_entropy(torch.randn(1, 1, 64, 40), torch.randn(1, 1, 64, 40))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokens = {tokens}
attention_entropy(torch.randn(1, 1, tokens, 40), torch.randn(1, 1, tokens, 40), rows=None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_linearly():
    def peak(tokens):
        run = subprocess.run([sys.executable, "-c", MEMORY.format(tokens=tokens)], capture_output=True, text=True, check=True)
        return int(run.stdout) * (1 if sys.platform == "darwin" else 1024)

    map_bytes = 16384**2 * 4
    assert peak(16384) < map_bytes / 16, "the N x N map must not be formed"
