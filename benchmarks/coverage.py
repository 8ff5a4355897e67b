"""How often 95 % intervals of the Fréchet distance hold the true one, by Gaussian images per feature.

    python -m benchmarks.coverage [features, 32] [repetitions, 200]

The images have 1.3 times the standard deviations of the reference and another mean; blocks are 20, of whole
prompts, or as many as there are prompts. The reference is the distribution itself ("state") or as many
images of it ("sample"); with prompts, one or four images show each, two thirds of their variance is the
prompt's, and both samples have all or half of the prompts in common.
"""

import sys
from unittest import mock

import numpy as np
import torch

from entropy_lib.metrics import FeatureState, frechet, frechet_interval
from entropy_lib.statistics.resampling import BLOCKS, deal_together

SPREAD, SHIFT = 1.3, 0.5
PER_FEATURE = (2, 3, 5, 10, 30)
PROMPTS = {  # images of each, and which share of the prompts both samples have
    "": (1, 0.0),
    ", shared prompts": (1, 1.0),
    ", 4 images a prompt, shared": (4, 1.0),
    ", 4 images a prompt, half shared": (4, 0.5),
}


def normal(prompts, width, generator):
    """Features of images; those of one prompt have two thirds of their variance in common."""
    distinct, place = np.unique(prompts, return_inverse=True)
    content = torch.randn(int(distinct.max()) + 1, width, generator=generator, dtype=torch.float64)[
        distinct[place]
    ]
    own = torch.randn(len(prompts), width, generator=generator, dtype=torch.float64)
    return (2 / 3) ** 0.5 * content + (1 / 3) ** 0.5 * own


def samples(count, deviations, each, shared, seed):
    """Images and reference, and the prompt of each."""
    generator, width = torch.Generator().manual_seed(seed), len(deviations)
    prompts = np.arange(count) // each
    others = prompts + int((1 - shared) * (prompts.max() + 1))
    both = normal(np.concatenate([prompts, others]), width, generator) * deviations
    images, reference = SPREAD * both[:count], both[count:]
    images[:, 0] += SHIFT
    return images, reference, prompts, others


def cell(count, variances, reference, prompts, repetitions):
    """Share of intervals that hold the truth, of either way; a star where the library takes blocks."""
    truth = float((SPREAD - 1) ** 2 * variances.sum() + SHIFT**2)
    known = FeatureState(10**9, 0 * variances, variances.diag() * (10**9 - 1))
    held, chosen = {"influence": [], "blocks": []}, []
    for seed in range(repetitions):
        images, target, shown, others = samples(count, variances.sqrt(), *PROMPTS[prompts], seed)
        labels, real_labels = deal_together(shown, others, min(BLOCKS, len(set(shown))))
        options = {"reference_labels": real_labels} if reference == "sample" else {}
        target = target if reference == "sample" else known
        chosen.append(frechet_interval(images, target, labels, **options).way)
        for way, found in held.items():
            with mock.patch.object(frechet, "CLOSED_FORM", 0):
                interval = frechet_interval(images, target, labels, way=way, **options)
            found.append(interval.low <= truth <= interval.high)
    star = "*" if chosen.count("blocks") > repetitions / 2 else ""
    return f"{np.mean(held['influence']):.0%}{star} / {np.mean(held['blocks']):.0%}"


def main():
    width, repetitions = (int(value) for value in (*sys.argv[1:], *("32", "200")[len(sys.argv) - 1 :]))
    print(f"d = {width}, {repetitions} repetitions; by influences / by deleting blocks")
    print("(* where the library takes blocks)\n")
    print(f"| variances, reference | {' | '.join(map(str, PER_FEATURE))} |\n|---|{'---|' * len(PER_FEATURE)}")
    ones = torch.ones(width, dtype=torch.float64)
    for name, variances in {"equal": ones, "like 1/k": 1 / ones.cumsum(0)}.items():
        for reference, prompts in (("state", ""), *(("sample", prompts) for prompts in PROMPTS)):
            cells = [cell(n * width, variances, reference, prompts, repetitions) for n in PER_FEATURE]
            print(f"| {name}, {reference}{prompts} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
