"""One denoising step of the Stable Diffusion 2.1-base architecture: patch, probe, and forming the maps.

    python -m benchmarks.denoising_step [rounds]

The weights are random: time and memory do not depend on them. Linux only. Each round takes every way once, in
a fresh random order; ratios are taken within a round. Memory is the peak of a fresh process, above what the
model itself takes, the least of three.
"""

import ctypes
import gc
import random
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor

import entropy_lib as el
from entropy_lib.models.networks import family

SIZES = (512, 768)
PROCESSES = 3  # that a peak is measured in; the allocator adds to it at random, so the least counts


class FormsTheMap(AttnProcessor):
    """What other tools do: the plain processor of diffusers, whose map is then reduced to entropies."""

    def __call__(self, attn, *args, **kwargs):
        formed = attn.get_attention_scores

        def keeping(*inputs):
            weight = formed(*inputs)
            torch.special.entr(weight).sum(-1).mean()
            return weight

        attn.get_attention_scores = keeping
        try:
            return super().__call__(attn, *args, **kwargs)
        finally:
            attn.get_attention_scores = formed


class Mapped:
    """A context in which every self-attention of a network forms its map."""

    def __init__(self, network):
        self.network = network

    def __enter__(self):
        self.before = self.network.attn_processors
        own = {
            name: FormsTheMap() if ".attn1." in name else processor for name, processor in self.before.items()
        }
        self.network.set_attn_processor(own)

    def __exit__(self, *exception):
        self.network.set_attn_processor(dict(self.before))


WAYS = {
    "plain": lambda network: nullcontext(),
    "paper's rule": lambda network: el.scaled(network, "paper"),
    "probe, all rows": lambda network: el.EntropyProbe(network),
    "probe, rows=256": lambda network: el.EntropyProbe(network, rows=256),
    "maps formed": Mapped,
}


def load():
    return el.load("sd21-base", random_weights=True, device="cpu", dtype="float32").unet


def step(network, size):
    """One call of the network on one latent, text of 77 tokens."""
    inputs = family(network).inputs(dict(network.config), size // 8, size // 8, 0)
    inputs["encoder_hidden_states"] = torch.randn(1, 77, 1024)
    with torch.no_grad():
        network(**inputs | {"sample": torch.randn_like(inputs["sample"]), "timestep": torch.tensor(500)})


def seconds(network, way, size):
    with WAYS[way](network):
        start = time.perf_counter()
        step(network, size)
        return time.perf_counter() - start


def peak(way, size):
    """Megabytes above the loaded model, in this process.

    Building the model takes more for a moment than the step does, so what is free is given back and the peak
    set to now.
    """
    network = load()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    seconds(network, way, size)
    print((resident("VmHWM") - before) / 1024)


def resident(field):
    """Kilobytes of this process in memory: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def peak_elsewhere(way, size):
    command = [sys.executable, __file__, "peak", way, str(size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(rounds):
    network = load()
    machine = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"sd21-base architecture, float32, batch 1, {machine}, {rounds} rounds\n")
    columns = [
        "size",
        "way",
        "seconds (median)",
        "time / plain (median)",
        "range",
        "peak above weights / plain",
    ]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for size in SIZES:
        step(network, size)
        measured = [
            {way: seconds(network, way, size) for way in random.sample(list(WAYS), len(WAYS))}
            for _ in range(rounds)
        ]
        print(f"{size}: timed", file=sys.stderr, flush=True)
        memory = {way: min(peak_elsewhere(way, size) for _ in range(PROCESSES)) for way in WAYS}
        for way in WAYS:
            middle = statistics.median(one[way] for one in measured)
            ratios = sorted(one[way] / one["plain"] for one in measured)
            ratio = f"{statistics.median(ratios):.3f} | {ratios[0]:.3f} to {ratios[-1]:.3f}"
            print(
                f"| {size}x{size} | {way} | {middle:.2f} | {ratio} | {memory[way] / memory['plain']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
