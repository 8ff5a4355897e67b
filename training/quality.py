"""How good an embedded model is at its native size: is its attention alive, and are its images what was asked
for?

    python -m training.quality   # measure data/mini, write its quality.json and card
    python -m training.quality --model mini-weak   # a control
    python -m training.quality --model FOLDER --quick   # any other folder; print only

This is what a model is chosen by. Nothing here looks at another size or at a scale rule.
"""

import argparse
import colorsys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from jaxtyping import Float, UInt8

from entropy_lib.metrics.layout import Detection, layout_values, summary
from entropy_lib.models.catalogue import load, local_folder
from entropy_lib.probes import EntropyProbe
from entropy_lib.sampling.generation import generate
from entropy_lib.scenes import detection, scenes
from training import autoencoder, pictures
from training.card import share, shown, write_measured
from training.mini import MODEL

NATIVE = (scenes.SIZE, scenes.SIZE)
COUNT = 200
GATE_PROMPTS = 32
SEED = 0
STEPS, GUIDANCE = 25, 3.0


def draw_prompts(count: int = COUNT, world: scenes.World = scenes.FULL) -> list[str]:
    """Captions of the first test scenes that name a colour, one of each wording."""
    found: dict[str, None] = {}
    number = 0
    while len(found) < count:
        one = scenes.scene(number, "test", world)
        if one.background.colour in one.caption:
            found.setdefault(one.caption)
        number += 1
    return list(found)


def attention(pipe: DiffusionPipeline, prompts: Sequence[str]) -> pd.DataFrame:
    """Per layer at native size, over all rows, steps and both branches: entropy, H / ln T, b, b / b_c, rows
    beyond freezing.
    """
    with EntropyProbe(pipe) as probe:
        generate(
            pipe,
            list(prompts),
            range(SEED, SEED + len(prompts)),
            NATIVE,
            steps=STEPS,
            guidance=GUIDANCE,
            batch=16,
        )
    table = probe.table().assign(logit_variance=lambda t: t.logit_std**2)
    values = ["entropy", "entropy_ratio", "logit_variance", "beyond_freezing"]
    layers = table.groupby(["layer", "tokens"], sort=False)[values].mean().reset_index()
    layers["logit_std"] = layers.pop("logit_variance") ** 0.5
    layers["of_freezing"] = layers.logit_std / np.sqrt(2 * np.log(layers.tokens))
    return layers


def gate(layers: pd.DataFrame) -> dict[str, bool]:
    """Which conditions on live attention hold.

    Example:
        >>> layers = pd.DataFrame({"of_freezing": [0.4, 0.6, 0.5], "beyond_freezing": [0.0, 0.1, 0.3]})
        >>> layers["entropy_ratio"] = [0.8, 0.6, 0.7]
        >>> [name for name, holds in gate(layers).items() if not holds]
        ['no layer has more than 20 % of its rows beyond freezing']
    """
    ratio = layers.of_freezing
    return {
        "median b/b_c at least 0.35": bool(ratio.median() >= 0.35),
        "a third of the layers at least 0.5": bool((ratio >= 0.5).mean() >= 1 / 3),
        "no layer above 0.9": bool((ratio <= 0.9).all()),
        "no layer has more than 20 % of its rows beyond freezing": bool(
            (layers.beyond_freezing <= 0.2).all()
        ),
        "mean H/ln T between 0.5 and 0.9": bool(0.5 <= layers.entropy_ratio.mean() <= 0.9),
    }


def ground_colour(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """The colour name of an image's ground: the hue nearest to that of most of its border.

    Example:
        >>> ground_colour(scenes.draw(scenes.scene(0), 64, 64)) == scenes.scene(0).background.colour
        True
    """
    border = np.concatenate(
        [
            image[:2].reshape(-1, 3),
            image[-2:].reshape(-1, 3),
            image[:, :2].reshape(-1, 3),
            image[:, -2:].reshape(-1, 3),
        ]
    )
    hues = np.array([360 * colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in border])
    centres = np.array(list(scenes.COLOURS.values()))
    nearest = np.abs((hues[:, None] - centres + 180) % 360 - 180).argmin(1)
    return list(scenes.COLOURS)[np.bincount(nearest, minlength=len(centres)).argmax()]


def layout(found: Sequence[Detection], name: str, count: int, height: int, width: int) -> dict[str, float]:
    """`layout_values` of what was found in one image of a size, where so many of a name were asked for."""
    names = list(dict.fromkeys([name, *(one.name for one in found)]))
    rows, asked = summary(found, names, height, width)[None], torch.tensor([[0.0, count]])
    return {value: numbers.item() for value, numbers in layout_values(rows, asked).items()}


def detected(images: np.ndarray, prompts: Sequence[str], detector: detection.DetectorNetwork) -> pd.DataFrame:
    """What the detector finds in each image, beside what its prompt asked for."""
    known, rows = scenes.captions(), []
    for image, prompt, found in zip(images, prompts, detection.find(detector, images), strict=True):
        name, count, colour, _ = known[prompt]
        ground = float(ground_colour(image) == colour) if colour else float("nan")
        rows.append(
            {"prompt": prompt, "name": name, "count": count, "ground": ground}
            | layout(found, name, count, *image.shape[:2])
        )
    return pd.DataFrame(rows)


def quality(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Shares of images with exactly the things that were asked for, and with the ground's colour."""
    return {
        "one thing, exactly": share(table[table["count"] == 1].exact),
        "two things, exactly": share(table[table["count"] == 2].exact),
        "colour of the ground": share(table.ground.dropna()),
    }


@torch.no_grad()
def nearest(vae: AutoencoderKL, images: np.ndarray, others: np.ndarray) -> Float[np.ndarray, "image"]:
    """Distance in latent space of each image to the nearest of others, per value."""
    one, other = (autoencoder.encode(vae, values).flatten(1) for values in (images, others))
    return torch.cat([torch.cdist(part, other).min(1).values for part in one.split(50)]).numpy() / np.sqrt(
        one.shape[1]
    )


def copies(vae: AutoencoderKL, images: np.ndarray, count: int = 4000) -> dict[str, float]:
    """Median distances to the nearest training scene, of generated images and of test scenes."""
    train = pictures.drawn(pictures.TRAIN_COUNT)[:count]
    test = np.stack([scenes.draw(scenes.scene(number, "test"), *NATIVE) for number in range(len(images))])
    return {
        "drawn": float(np.median(nearest(vae, images, train))),
        "test scenes": float(np.median(nearest(vae, test, train))),
    }


def measure(pipe: DiffusionPipeline, prompts: Sequence[str], detector: detection.DetectorNetwork) -> dict:
    """Everything that a model is chosen by."""
    layers = attention(pipe, prompts[:GATE_PROMPTS])
    seeds = range(SEED, SEED + len(prompts))
    images = generate(
        pipe, list(prompts), seeds, NATIVE, steps=STEPS, guidance=GUIDANCE, batch=20, progress=True
    )
    table = detected(images, prompts, detector)
    test = np.stack([scenes.draw(scenes.scene(number, "test"), *NATIVE) for number in range(500)])
    return {
        "sampler": {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED},
        "attention": layers.round(4).to_dict("records"),
        "gate": gate(layers),
        "quality": quality(table),
        "reconstruction_error": autoencoder.reconstruction_error(pipe.vae, test),
        "nearest_training_scene": copies(pipe.vae, images),
    }


def card_tables(report: dict) -> str:
    """The measured part of the model card, in Markdown."""
    found = pd.DataFrame(
        {
            "asked for": list(report["quality"]),
            "found": [shown(value) for value in report["quality"].values()],
            "images": [v["count"] for v in report["quality"].values()],
        }
    )
    layers = pd.DataFrame(report["attention"])[
        ["layer", "tokens", "entropy", "entropy_ratio", "logit_std", "of_freezing", "beyond_freezing"]
    ]
    holds = "\n".join(f"- {name}: {'yes' if yes else 'no'}" for name, yes in report["gate"].items())
    sampler, near = report["sampler"], report["nearest_training_scene"]
    return (
        f"{sampler['steps']} steps, guidance {sampler['guidance']:g}, seeds from {sampler['seed']}; 95 % "
        "Wilson intervals.\n\n"
        f"{found.to_markdown(index=False)}\n\n"
        f"Autoencoder: mean absolute error {100 * report['reconstruction_error']:.2f} % of the range on "
        "test scenes. Distance to "
        f"the nearest training scene (median, latents): drawn {near['drawn']:.3f}, test scenes "
        f"{near['test scenes']:.3f}.\n\n"
        f"Self-attention at native size, all rows:\n\n{layers.to_markdown(index=False)}\n\n{holds}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL.name, help="of the catalogue, or a folder")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--quick", action="store_true", help="print, and write nothing")
    arguments = parser.parse_args()
    report = measure(load(arguments.model), draw_prompts(arguments.count), detection.load())
    print(card_tables(report))
    if not arguments.quick:
        write_measured(local_folder(arguments.model), report, card_tables(report))


if __name__ == "__main__":
    main()
