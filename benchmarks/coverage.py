"""How often 95 % intervals of the Fréchet distance hold the true one, by Gaussian images per feature.

    python benchmarks/coverage.py [features, 32] [repetitions, 200]

The images have 1.3 times the standard deviations of the reference and another mean; blocks are 20, of whole
prompts, or as many as there are prompts. The reference is the distribution itself ("state") or as many
images of it ("sample"); with prompts, four images show each, two thirds of their variance is the prompt's,
and both samples have all or half of the prompts in common.
"""

import sys

import numpy as np
import torch

from entropy_lib.metrics import FeatureState, frechet_interval
from entropy_lib.statistics.resampling import BLOCKS, deal_together

SPREAD, SHIFT = 1.3, 0.5
PER_FEATURE = (2, 3, 5, 10, 30)
SHARED = {"": None, ", 4 images a prompt, shared": 1.0, ", 4 images a prompt, half shared": 0.5}


def normal(prompts, width, generator):
    """Features of images; those of one prompt have two thirds of their variance in common."""
    distinct, place = np.unique(prompts, return_inverse=True)
    content = torch.randn(int(distinct.max()) + 1, width, generator=generator, dtype=torch.float64)[
        distinct[place]
    ]
    own = torch.randn(len(prompts), width, generator=generator, dtype=torch.float64)
    return (2 / 3) ** 0.5 * content + (1 / 3) ** 0.5 * own


def samples(count, deviations, shared, seed):
    """Images and reference, and the prompt of each."""
    generator, width = torch.Generator().manual_seed(seed), len(deviations)
    prompts = np.arange(count) if shared is None else np.arange(count) // 4
    others = prompts + (prompts.max() + 1 if shared is None else int((1 - shared) * (prompts.max() + 1)))
    both = normal(np.concatenate([prompts, others]), width, generator) * deviations
    images, reference = SPREAD * both[:count], both[count:]
    images[:, 0] += SHIFT
    return images, reference, prompts, others


def row(width, falling, reference, shared, repetitions):
    """Share of intervals that hold the truth, of either way, at each number of images per feature."""
    variances = 1 / torch.arange(1, width + 1).double() if falling else torch.ones(width).double()
    truth = float((SPREAD - 1) ** 2 * variances.sum() + SHIFT**2)
    known = FeatureState(10**9, torch.zeros(width).double(), variances.diag() * (10**9 - 1))
    cells = []
    for per_feature in PER_FEATURE:
        held = {"influence": [], "blocks": []}
        for seed in range(repetitions):
            images, real, prompts, others = samples(per_feature * width, variances.sqrt(), shared, seed)
            labels, real_labels = deal_together(prompts, others, min(BLOCKS, len(set(prompts))))
            for way, found in held.items():
                options = {"reference_labels": real_labels} if reference == "sample" else {}
                target = real if reference == "sample" else known
                interval = frechet_interval(images, target, labels, way=way, **options)
                found.append(interval.low <= truth <= interval.high)
        cells.append(" / ".join(f"{np.mean(found):.0%}" for found in held.values()))
    return cells


def main():
    width, repetitions = (int(value) for value in (*sys.argv[1:], *("32", "200")[len(sys.argv) - 1 :]))
    print(f"d = {width}, {repetitions} repetitions; by influences / by deleting blocks\n")
    print(f"| variances, reference | {' | '.join(map(str, PER_FEATURE))} |\n|---|{'---|' * len(PER_FEATURE)}")
    for falling in (False, True):
        for reference, prompts in (("state", ""), *(("sample", name) for name in SHARED)):
            name = f"{'like 1/k' if falling else 'equal'}, {reference}{prompts}"
            print(
                f"| {name} | {' | '.join(row(width, falling, reference, SHARED[prompts], repetitions))} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
