"""What metric tables cost: the share of drawing outside the model, cached features, and memory by the number
of images.

    python benchmarks/evaluation.py

Memory is the growth of a fresh process's resident peak, with synthetic features of 64 and 512 dimensions.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from denoising_step import resident

from entropy_lib.metrics import frechet_difference, frechet_interval, kernel_difference, kernel_interval
from entropy_lib.metrics.extractors import extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.sampling import generation
from entropy_lib.statistics.resampling import deal_blocks
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.sample import Sampler, settings
from entropy_lib.sweep.store import Store

PROMPTS = [f"a penguin, number {index}" for index in range(16)]


def outside_the_model(size, folder):
    """Seconds of a group of 16 in all, and in the pipeline."""
    inside, one_batch = [], generation.one_batch

    def timed(*arguments, **options):
        start = time.perf_counter()
        images = one_batch(*arguments, **options)
        inside.append(time.perf_counter() - start)
        return images

    plan = Plan.of(settings("mini", 10, 2.0, "float32", "cpu"), PROMPTS, [0], [size], ["paper"])
    generation.one_batch = timed
    sampler = Sampler("mini", "float32", "cpu")
    sampler.generate_group(plan.units, Store(folder / "warm"))
    inside.clear()
    start = time.perf_counter()
    sampler.generate_group(plan.units, Store(folder / f"{size}"))
    whole = time.perf_counter() - start
    generation.one_batch = one_batch
    print(f"| {size[0]}x{size[1]} | {16 / whole:.1f} | {1 - inside[0] / whole:.1%} |", flush=True)
    return Store(folder / f"{size}")


def feature_pass(plan, store, folder):
    """How much faster the second pass is."""
    cache, seconds = FeatureCache(folder / "features", extractor("mini-clip"), "pad"), []
    units = {store.record(unit)["sha256"]: unit for unit in plan.units}
    for _ in range(2):
        start = time.perf_counter()
        cache.matrix(list(units), lambda key: store.read(units[key]))
        seconds.append(time.perf_counter() - start)
    return seconds


def reduce_synthetic(images, width):
    """All distances of a cell, and what they add to the memory of the features."""
    generator = torch.Generator().manual_seed(0)
    first, second, real = (torch.randn(images, width, generator=generator) for _ in range(3))
    labels = deal_blocks(np.arange(images))
    kernel_interval(first[:400], real[:400], labels[:400] * 0 + np.arange(400) % 20)  # libraries loaded
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    start = time.perf_counter()
    for values in (first, second):
        frechet_interval(values, real, labels)
        kernel_interval(values, real, labels)
    frechet_difference(first, second, real, labels)
    kernel_difference(first, second, real, labels)
    matrix = images * width * 4 / 1e6
    print(
        f"| {images:,} | {width} | {matrix:.1f} | {(resident('VmHWM') - before) / 1024:.0f} | {time.perf_counter() - start:.1f} |"
    )


def main():
    with tempfile.TemporaryDirectory() as place:
        print(
            f"mini, 10 steps, guidance, batches of 16, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
        )
        print("| size | images a second | share of time outside the model |\n|---|---|---|")
        for size in ((32, 32), (64, 64), (128, 128)):
            store = outside_the_model(size, Path(place))
        prompts = [f"an owl, number {index}" for index in range(512)]
        many = Plan.of(settings("mini", 1, 1.0, "float32", "cpu"), prompts, [0], [(64, 64)], ["unscaled"])
        for unit in many.units:
            store.commit(
                unit,
                np.random.default_rng(unit.noise_seed % 2**32).integers(0, 256, (64, 64, 3), dtype=np.uint8),
            )
        first, second = feature_pass(many, store, Path(place))
        print(
            f"\nFeatures of 512 images: {first:.2f} s, the second time {second:.3f} s: {first / second:.0f} times faster\n"
        )
    print(
        "| images | features | one matrix (MB) | growth of the peak (MB) | seconds |\n|---|---|---|---|---|",
        flush=True,
    )
    for images, width in ((1000, 64), (10_000, 64), (2000, 512), (10_000, 512)):
        subprocess.run([sys.executable, __file__, str(images), str(width)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        reduce_synthetic(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
