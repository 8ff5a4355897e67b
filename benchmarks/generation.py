"""Time of drawing with the paper's rule and with the probe, over drawing without.

    python benchmarks/generation.py

Each round draws the same images in every way, in a fresh random order; ratios are taken within a round and
their median over rounds is printed with its range.
"""

import random
import statistics
import time
from contextlib import nullcontext

import torch

import entropy_lib as el

ROUNDS, COUNT, STEPS = 9, 4, 8


def ways(pipe):
    return {
        "plain": lambda: nullcontext(),
        "paper's rule": lambda: el.scaled(pipe, "paper"),
        "probe, all rows": lambda: el.EntropyProbe(pipe),
        "probe, rows=64": lambda: el.EntropyProbe(pipe, rows=64),
    }


def seconds(pipe, context, size):
    with context:
        start = time.perf_counter()
        draw(pipe, size)
        return time.perf_counter() - start


def draw(pipe, size):
    """The bare pipeline, up to the latents: what is timed is the denoiser, with and without what is put into
    it.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in range(COUNT)]
    pipe(
        ["a penguin"] * COUNT,
        height=size,
        width=size,
        num_inference_steps=STEPS,
        generator=generators,
        output_type="latent",
    )


def main():
    pipe = el.load("mini", device="cpu", dtype="float32")
    print(
        f"mini, float32, {COUNT} images, {STEPS} steps, guidance, {torch.get_num_threads()} threads, {ROUNDS} rounds\n"
    )
    print("| size | way | time / plain (median) | range |\n|---|---|---|---|")
    for size in (64, 128):
        draw(pipe, size)
        rounds = []
        for _ in range(ROUNDS):
            order = list(ways(pipe).items())
            random.shuffle(order)
            rounds.append({name: seconds(pipe, make(), size) for name, make in order})
        for name in list(ways(pipe))[1:]:
            ratios = sorted(r[name] / r["plain"] for r in rounds)
            print(
                f"| {size}x{size} | {name} | {statistics.median(ratios):.3f} | {ratios[0]:.3f} to {ratios[-1]:.3f} |"
            )


if __name__ == "__main__":
    main()
