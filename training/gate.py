"""What `mini-dit` is chosen by: what its attention does for its images at native size, and nothing else.

    python -m training.gate               # measure data/mini-dit beside its twin, write quality.json
    python -m training.gate --quick 64    # fewer prompts; print, and write nothing

- Quality: images with exactly what was asked for, as the detector finds.
- Used: with self-attention made uniform, exact images fall to a half or less.
- Needed: a twin of the same recipe, seed and steps, trained with uniform attention, reaches a half or less.

Uniform means that every key of the image is replaced by the mean of all of them; the text's keys stay as they
are. No statistic of entropy has a say. What attention is like is reported as it came, layer by layer, with
what each layer is for.
"""

import argparse
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
from diffusers import PRXPipeline
from jaxtyping import UInt8

from entropy_lib.models.catalogue import load
from entropy_lib.probes import EntropyProbe
from entropy_lib.sampling.generation import generate
from entropy_lib.scenes import detection, scenes
from training.card import share, shown, write_measured
from training.mini_dit import MODEL, TWINS
from training.quality import COUNT, NATIVE, SEED, detected, draw_prompts, quality
from training.transformer import PlainProcessor

STEPS, GUIDANCE = 25, 2.5
BATCH = 25
BARS = {"one thing, exactly": 0.95, "two things, exactly": 0.85, "colour of the ground": 0.98}
HALF = 0.5  # of the exact images: what uniform attention may leave at most
TWIN = "twin trained with uniform attention"
NAMEABLE = 0.9
NAMED = MODEL / "named.csv"  # what was seen in the images, without their prompts, of `training.naming`
LAYER_PROMPTS, PROBED = 25, 16


def generated(pipe: PRXPipeline, prompts: Sequence[str]) -> UInt8[np.ndarray, "image height width 3"]:
    """One image for each prompt, seeds from 0."""
    seeds, options = range(SEED, SEED + len(prompts)), {"steps": STEPS, "guidance": GUIDANCE, "batch": BATCH}
    return generate(pipe, prompts, seeds, NATIVE, **options)


@contextmanager
def uniform(pipe: PRXPipeline, layers: Sequence[int] | None = None):
    """Self-attention that cannot choose between image tokens, in these blocks or in all, within a `with`
    block.
    """
    before = pipe.transformer.attn_processors
    chosen = range(len(pipe.transformer.blocks)) if layers is None else layers
    for index in chosen:
        pipe.transformer.blocks[index].attention.set_processor(PlainProcessor(uniform=True))
    try:
        yield pipe
    finally:
        pipe.transformer.set_attn_processor(before)


def measure(
    pipe: PRXPipeline, twin: PRXPipeline | None, prompts: Sequence[str], detector: detection.DetectorNetwork
) -> dict:
    """Everything that the model is chosen by; without a twin, whether attention is needed is not known."""
    real = np.stack(
        [scenes.draw(scenes.scene(number, "test", scenes.SIMPLE), *NATIVE) for number in range(2 * COUNT)]
    )
    captions = [scenes.scene(number, "test", scenes.SIMPLE).caption for number in range(2 * COUNT)]
    native = generated(pipe, prompts)
    with uniform(pipe):
        ablated = detected(generated(pipe, prompts), prompts, detector)
    table = detected(native, prompts, detector)
    exact = {"as it is": share(table.exact), "its attention made uniform": share(ablated.exact)}
    if twin is not None:
        with uniform(twin):
            exact[TWIN] = share(detected(generated(twin, prompts), prompts, detector).exact)
    return {
        "sampler": {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED},
        "quality": quality(table),
        "real scenes": quality(detected(real, captions, detector)),
        "exact": exact,
        "named without the prompt": named(),
        "layers": layers(pipe, prompts[:LAYER_PROMPTS], native[:LAYER_PROMPTS], detector)
        .round(4)
        .to_dict("records"),
    }


def named() -> dict[str, float]:
    """Share of images whose thing was named rightly, with its interval."""
    table = pd.read_csv(NAMED)
    return share(table.seen == table.name)


def layers(
    pipe: PRXPipeline,
    prompts: Sequence[str],
    native: UInt8[np.ndarray, "image height width 3"],
    detector: detection.DetectorNetwork,
) -> pd.DataFrame:
    """What each block's attention is for, and how it is by itself.

    Returns:
        columns `block`; `change` of the image in grey levels and share of `exact` images with it made
        uniform; `entropy, entropy_ratio, logit_std, of_freezing`, means over prompts, steps, branches, heads
        and rows.
    """
    with EntropyProbe(pipe) as probe:
        generated(pipe, prompts[:PROBED])
    table = probe.table().assign(of_freezing=lambda t: t.logit_std / np.sqrt(2 * np.log(t.tokens)))
    values = ["entropy", "entropy_ratio", "logit_std", "of_freezing"]
    measured = table.groupby("layer", sort=False)[values].mean().to_dict("records")
    rows = []
    for index in range(len(pipe.transformer.blocks)):
        with uniform(pipe, [index]):
            images = generated(pipe, prompts)
        change = float(np.abs(images.astype(float) - native).mean())
        exact = detected(images, prompts, detector).exact.mean()
        rows.append({"block": index, "change": change, "exact": exact, **measured[index]})
    return pd.DataFrame(rows)


def gate(report: dict) -> dict[str, bool | None]:
    """Which conditions hold; None where that was not measured."""
    exact = {name: value["share"] for name, value in report["exact"].items()}
    native = exact.pop("as it is")
    halves = {
        name: exact[name] <= HALF * native if name in exact else None
        for name in ("its attention made uniform", TWIN)
    }
    return {
        **{
            f"{name}: at least {bar:.0%}": report["quality"][name]["share"] >= bar
            for name, bar in BARS.items()
        },
        f"named without the prompt: at least {NAMEABLE:.0%}": report["named without the prompt"]["share"]
        >= NAMEABLE,
        **{f"{name}: at most half as many exact images": value for name, value in halves.items()},
    }


def card_tables(report: dict) -> str:
    """The measured part of the model card, in Markdown."""
    asked = pd.DataFrame(
        {
            "asked for": list(BARS),
            "found": [shown(report["quality"][name]) for name in BARS],
            "in real scenes": [shown(report["real scenes"][name]) for name in BARS],
            "images": [report["quality"][name]["count"] for name in BARS],
        }
    )
    exact = pd.DataFrame(
        [{"attention": name, "exact images": shown(value)} for name, value in report["exact"].items()]
    )
    words = {True: "yes", False: "NO", None: "not measured"}
    holds = "\n".join(f"- {name}: {words[yes]}" for name, yes in gate(report).items())
    sampler = report["sampler"]
    return (
        f"{sampler['steps']} steps, guidance {sampler['guidance']:g}, seeds from {sampler['seed']}; 95 % "
        "Wilson intervals. The detector makes mistakes of its own, which the column of real scenes "
        f"shows.\n\n{asked.to_markdown(index=False)}\n\n"
        f"{exact.to_markdown(index=False)}\n\n"
        "Named rightly by looking at them without their prompts (`named.csv`): "
        f"{shown(report['named without the prompt'])} of "
        f"{report['named without the prompt']['count']} images.\n\n{holds}\n\n"
        f"One block's attention made uniform at a time, {LAYER_PROMPTS} images (change in grey levels of "
        "255), and how it is "
        f"by itself (H in nats, H / ln N, b, b / b_c; {PROBED} images, all steps, text and image in one "
        "softmax):\n\n"
        f"{pd.DataFrame(report['layers']).to_markdown(index=False)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", type=int, help="this many prompts; print, and write nothing")
    arguments = parser.parse_args()
    prompts = draw_prompts(arguments.quick or COUNT, scenes.SIMPLE)
    folder = TWINS / "mini-dit-uniform"
    report = measure(
        load("mini-dit"), load(str(folder)) if folder.is_dir() else None, prompts, detection.load()
    )
    print(card_tables(report))
    if not arguments.quick:
        write_measured(MODEL, report | {"gate": gate(report)}, card_tables(report))


if __name__ == "__main__":
    main()
