"""What interpolated positions do to the embedded transformer at twice its size, and which frequencies do it.

    python -m benchmarks.positions [prompts]

Exact images, over-count and under-count at 128x128 by the detector: means with 95 % intervals over prompts.
The last rows multiply the coordinates of some rotary frequencies alone. At 64 px the distances between
tokens, -7 to 7, cover a whole turn of the two fastest frequencies of each axis, and a part of a turn of the
others.
"""

import sys

import torch

import entropy_lib as el
from entropy_lib.metrics.layout import layout_values
from entropy_lib.sampling.multidiffusion import forward_replaced
from entropy_lib.sampling.rivals import rotary_embedding
from entropy_lib.scenes import detection, scenes
from entropy_lib.statistics.interval import Interval
from training.quality import draw_prompts

SIZE, STEPS, GUIDANCE, BATCH = "128x128", 12, 2.5, 16
METHODS = ("unscaled", "positions(0.5)", "positions(interpolated)")  # more of them: profile mini-dit-full
COVERED = 2  # frequencies of each axis, the fastest first
VALUES = ("exact", "over_count", "under_count")


def interpolated(embedding, chosen):
    """The embedding's forward, with the coordinates of some frequencies halved."""
    own, count = embedding.forward, embedding.axes_dim[0] // 2
    here = chosen(torch.arange(sum(embedding.axes_dim) // 2) % count)[:, None, None]
    return lambda ids: torch.where(here, own(ids * 0.5), own(ids))


def row(name, pipe, prompts, detector, method="unscaled"):
    options = {"steps": STEPS, "guidance": GUIDANCE, "batch": BATCH, "progress": False}
    images = el.generate(pipe, prompts, range(len(prompts)), SIZE, method, **options)
    values = layout_values(detector.pictures(images), detector.captions(prompts))
    cells = []
    for value in VALUES:
        each = values[value].double()
        error = float(each.std()) / len(each) ** 0.5
        interval = Interval.around(float(each.mean()), error, 0.95, len(each))
        cells.append(f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
    pipe, detector = el.load("mini-dit"), detection.detector()
    prompts = draw_prompts(int(sys.argv[1]) if len(sys.argv) > 1 else 32, scenes.SIMPLE)
    print(f"{SIZE}, {len(prompts)} prompts, {STEPS} steps, guidance {GUIDANCE}\n")
    print("| method | exact | over-count | under-count |\n|---|---|---|---|")
    for method in METHODS:
        row(f"`{method}`", pipe, prompts, detector, method)
    embedding = rotary_embedding(pipe.transformer)
    for name, chosen in (
        ("covered frequencies interpolated", lambda index: index < COVERED),
        ("other frequencies interpolated", lambda index: index >= COVERED),
    ):
        with forward_replaced(embedding, interpolated(embedding, chosen)):
            row(name, pipe, prompts, detector)


if __name__ == "__main__":
    main()
