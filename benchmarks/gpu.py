"""Time, memory and error of every way to compute the entropy of attention on a CUDA device.

    python -m benchmarks.gpu

Prints one Markdown table for each type. Times are medians of interleaved runs; memory is what one call adds
at its peak; the error is the largest of 256 rows in each head against float64.
"""

import statistics
import sys

import torch
from torch.nn import functional

from entropy_lib.entropy.attention import attention_entropy
from entropy_lib.entropy.fused import BLOCKS, KERNELS, find_kernel

HEADS, DIM, REPEATS, CHECKED_ROWS = 8, 40, 11, 256
TOKENS = (4096, 9216, 16384)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
PLAIN, FORMED = "plain attention", "forming the map"


def formed(query, key):
    """Entropy from the map, one head at a time, with the softmax in float32."""
    heads = []
    for head in range(query.shape[1]):
        log_weight = (query[:, head] @ key[:, head].mT * DIM**-0.5).float().log_softmax(-1)
        heads.append(-(log_weight.exp() * log_weight).sum(-1))
    return torch.stack(heads, 1)


def ways(query, key):
    """Every way that works here: plain attention as the model runs it, the kernels, row blocks, the map."""
    found = {PLAIN: lambda query, key: functional.scaled_dot_product_attention(query, key, key)}
    for name in [kernel.name for kernel in KERNELS] + [BLOCKS]:
        try:
            attention_entropy(query[:, :, :64], key, kernel=name)
        except ValueError:
            continue
        found[name] = lambda query, key, name=name: attention_entropy(query, key, kernel=name)
    return found | {FORMED: formed}


def exact(query, key):
    """Entropy of the first rows by the definition, in float64."""
    log_weight = (query[:, :, :CHECKED_ROWS].double() @ key.double().mT * DIM**-0.5).log_softmax(-1)
    return -(log_weight.exp() * log_weight).sum(-1)


def milliseconds(way, query, key):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    way(query, key)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def times(found, query, key):
    """Median milliseconds of each way, interleaved; the first two rounds warm up."""
    rounds = [
        {name: milliseconds(way, query, key) for name, way in found.items()} for _ in range(REPEATS + 2)
    ][2:]
    return {name: statistics.median(run[name] for run in rounds) for name in found}


def peak_megabytes(way, query, key):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way(query, key)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def sample(tokens, dtype, device="cuda"):
    """Query and key with logits of standard deviation 4, near freezing, where rounding counts most."""
    generator = torch.Generator().manual_seed(tokens)
    query, key = torch.randn(2, 1, HEADS, tokens, DIM, generator=generator)
    return (4 * query).to(device, dtype), (key + 1).to(device, dtype)


def measure(tokens, dtype):
    """Lines of the table for one type and number of tokens."""
    query, key = sample(tokens, dtype)
    found = ways(query, key)
    spent, expected = times(found, query, key), exact(query, key)
    automatic = find_kernel(query.float(), key.float())
    for name, way in found.items():
        error = (way(query, key)[:, :, :CHECKED_ROWS] - expected).abs().max() if name != PLAIN else None
        shown = f"{error:.1e}" if error is not None else ""
        label = f"**{name}**" if name == (automatic.name if automatic else BLOCKS) else name
        ratio, memory = spent[name] / spent[PLAIN], peak_megabytes(way, query, key)
        yield f"| {tokens} | {label} | {spent[name]:.2f} ms | {ratio:.2f} | {memory:.0f} MB | {shown} |"
    for kernel in KERNELS:
        if kernel.name not in found and kernel.name != "cpu":
            yield f"| {tokens} | {kernel.name} | does not serve here |  |  |  |"


@torch.no_grad()
def main():
    if not torch.cuda.is_available():
        print(
            f"no CUDA device: torch {torch.__version__} sees none, so there is nothing to measure here",
            file=sys.stderr,
        )
        return 2
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    print(
        f"{name}, compute capability {capability[0]}.{capability[1]}, torch {torch.__version__}, "
        f"{HEADS} heads, d = {DIM}, b = 4."
    )
    print(
        f"TF32 {'is' if torch.backends.cuda.matmul.allow_tf32 else 'is not'} allowed. "
        "Bold: chosen when no kernel is named."
    )
    for dtype in DTYPES:
        print(
            f"\n{dtype}\n\n| tokens | way | time | time / plain | peak memory | largest error (nats) |\n"
            "|---|---|---|---|---|---|"
        )
        for tokens in TOKENS:
            print(*measure(tokens, dtype), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
