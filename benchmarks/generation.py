"""What the patch and the probe cost on the embedded model: a call of the denoiser, and a whole generation.

    python -m benchmarks.generation

Each round takes every way once, in a fresh random order; ratios are taken within a round, and their median
over rounds is printed with its range. The call has a batch of 2 on one thread.
"""

import random
import statistics
import time
from contextlib import nullcontext

import torch

import entropy_lib as el

ROUNDS, COUNT, STEPS, CALLS = 9, 4, 8, 8
WAYS = {
    "plain": lambda model: nullcontext(),
    "paper's rule": lambda model: el.scaled(model, "paper"),
    "probe, rows=64": lambda model: el.EntropyProbe(model, rows=64),
    "probe, all rows": lambda model: el.EntropyProbe(model),
}


def call(pipe, size):
    """A few calls of the denoiser on a batch of 2."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, pipe.unet.config.in_channels, size // 4, size // 4, generator=generator)
    text = torch.randn(2, 77, pipe.unet.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        for _ in range(CALLS):
            pipe.unet(sample, torch.tensor(500), encoder_hidden_states=text)


def generate(pipe, size):
    """The bare pipeline, up to the latents."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(COUNT)]
    options = {"num_inference_steps": STEPS, "generator": generators, "output_type": "latent"}
    pipe(["a penguin"] * COUNT, height=size, width=size, **options)


def ratios(work, pipe, size, rounds=ROUNDS):
    """{way: its time over the plain one, in order, one a round}."""
    work(pipe, size)
    measured = []
    for _ in range(rounds):
        measured.append({})
        for name in random.sample(list(WAYS), len(WAYS)):
            with WAYS[name](pipe):
                start = time.perf_counter()
                work(pipe, size)
                measured[-1][name] = time.perf_counter() - start
    return {name: sorted(one[name] / one["plain"] for one in measured) for name in list(WAYS)[1:]}


def main():
    pipe, threads = el.load("mini", device="cpu", dtype="float32"), torch.get_num_threads()
    pipe.set_progress_bar_config(disable=True)
    print(f"mini, float32; generation: {COUNT} images, {STEPS} steps, guidance, {threads} threads\n")
    print("| what | size | way | time / plain (median) | range |\n|---|---|---|---|---|")
    cases = [(call, 64, 1, 3 * ROUNDS), (generate, 64, threads, ROUNDS), (generate, 128, threads, ROUNDS)]
    for work, size, number, rounds in cases:
        torch.set_num_threads(number)
        for name, found in ratios(work, pipe, size, rounds).items():
            middle = f"{statistics.median(found):.3f} | {found[0]:.3f} to {found[-1]:.3f}"
            print(f"| {work.__name__} | {size}x{size} | {name} | {middle} |", flush=True)


if __name__ == "__main__":
    main()
