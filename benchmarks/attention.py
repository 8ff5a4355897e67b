"""Time and memory of `attention_entropy` against plain fused attention and against forming the map.

    python -m benchmarks.attention

Prints a Markdown table. Times are medians of interleaved runs, so that a busy machine slows all of them
alike.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from entropy_lib.entropy.attention import attention_entropy
from entropy_lib.sampling.costs import peak_memory

HEADS, DIM, REPEATS = 8, 40, 5


def plain(query, key):
    """One fused attention, as the model itself runs it."""
    return functional.scaled_dot_product_attention(query, key, key)


def formed(query, key):
    """Entropy from the map, one head at a time."""
    for head in range(query.shape[1]):
        log_weight = (query[:, head] @ key[:, head].mT * DIM**-0.5).log_softmax(-1)
        -(log_weight.exp() * log_weight).sum(-1)


WAYS = {"plain attention": plain, "attention_entropy": attention_entropy, "forming the map": formed}


def seconds(way, query, key):
    start = time.perf_counter()
    way(query, key)
    return time.perf_counter() - start


def times(tokens):
    """Median seconds of each way, interleaved."""
    query, key = torch.randn(2, 1, HEADS, tokens, DIM)
    runs = [{name: seconds(way, query, key) for name, way in WAYS.items()} for _ in range(REPEATS + 1)][1:]
    return {name: statistics.median(run[name] for run in runs) for name in WAYS}


def peak_megabytes(name, tokens):
    """Memory that one call takes in a fresh process, at its peak."""
    folder = str(Path(__file__).parent)
    code = f"import attention; print(attention.growth({name!r}, {tokens}))"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def growth(name, tokens):
    """Megabytes at the peak of one call, above what was taken before it."""
    query, key = torch.randn(2, 1, HEADS, tokens, DIM)
    WAYS[name](query[:, :, :64], key[:, :, :64])
    measured = peak_memory(lambda: WAYS[name](query, key), query.device)
    return measured["allocated"] - measured["before"]


def main():
    print(
        f"float32, {HEADS} heads, d = {DIM}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print(
        "| tokens | plain attention | attention_entropy | forming the map | entropy / plain | map / entropy |"
    )
    print("|---|---|---|---|---|---|")
    for tokens in (1024, 4096, 9216):
        first, second, third = times(tokens).values()
        seconds_of = f"{first:.3f} s | {second:.3f} s | {third:.3f} s"
        print(f"| {tokens} | {seconds_of} | {second / first:.2f} | {third / second:.2f} |")
    print(
        "\n| tokens | peak memory of attention_entropy | of forming one head's map at a time |\n|---|---|---|"
    )
    for tokens in (4096, 8192, 16384):
        ours, formed_map = (peak_megabytes(name, tokens) for name in ("attention_entropy", "forming the map"))
        print(f"| {tokens} | {ours:.0f} MB | {formed_map:.0f} MB |")


if __name__ == "__main__":
    main()
