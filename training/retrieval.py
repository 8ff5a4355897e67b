"""How good `mini-clip` is: are images and captions found among others?

    python -m training.retrieval         # measure data/mini-clip, write its quality.json and card

Three sets of images: test scenes, the embedded model's reconstructions of them, and what it draws for their
captions at native size. Each image looks for its caption among all captions that a scene can have, each
caption for its image among the set.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from jaxtyping import UInt8
from torch.nn import functional

from entropy_lib.metrics.extractors import Extractor, extractor
from entropy_lib.models.catalogue import load, sampling_defaults
from entropy_lib.sampling.generation import generate
from entropy_lib.scenes import scenes
from entropy_lib.scenes.detection import pixels
from training.card import share, shown, write_measured
from training.clip import MODEL
from training.quality import NATIVE, SEED

FACTS = ("thing", "number", "colour", "design")


def retrieval(
    own: Extractor, images: UInt8[np.ndarray, "n height width 3"], wanted: Sequence[str]
) -> dict[str, dict]:
    """Shares of images and captions that find each other.

    Args:
        own: an extractor with a text tower.
        images: of one size.
        wanted: the caption of each image, one of `scenes.captions()`.

    Returns:
        thing, number, colour, design: what the nearest of all captions says right, where both it and the
        image's own say something; image: the image nearest to a caption shows the thing that it names. Each
        with its 95 % Wilson interval.
    """
    known = list(scenes.captions())
    shown, texts = (
        functional.normalize(values, dim=1) for values in (own.pictures(images), own.captions(known))
    )
    told = [scenes.captions()[known[index]] for index in (shown @ texts.T).argmax(1).tolist()]
    asked = [scenes.captions()[caption] for caption in wanted]
    found = (texts[[known.index(caption) for caption in wanted]] @ shown.T).argmax(1).tolist()
    rights = {name: [a == b for a, b in both_say(asked, told, place)] for place, name in enumerate(FACTS)}
    return {name: share(hits) for name, hits in rights.items()} | {
        "picture": share([asked[index][0] == facts[0] for index, facts in zip(found, asked, strict=True)])
    }


def both_say(
    asked: Sequence[scenes.Facts], told: Sequence[scenes.Facts], place: int
) -> list[tuple[str | int, str | int]]:
    """Pairs of one fact, where both captions tell it."""
    pairs = ((one[place], other[place]) for one, other in zip(asked, told, strict=True))
    return [(one, other) for one, other in pairs if one is not None and other is not None]


@torch.no_grad()
def reconstructions(
    vae: AutoencoderKL, images: UInt8[np.ndarray, "n 64 64 3"]
) -> UInt8[np.ndarray, "n 64 64 3"]:
    """What is left of images after the autoencoder."""
    rebuilt = torch.cat([vae(batch).sample for batch in pixels(images).split(50)])
    return ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def measure(count: int = 200) -> dict:
    """Retrieval on test scenes, on reconstructions, and on native-size samples of their captions."""
    pipe, own = load("mini"), extractor("mini-clip")
    steps, guidance = sampling_defaults(pipe)
    drawn_from = [scenes.scene(number, "test") for number in range(count)]
    images, prompts = (
        np.stack([scenes.draw(one, *NATIVE) for one in drawn_from]),
        [one.caption for one in drawn_from],
    )
    seeds = range(SEED, SEED + count)
    samples = generate(pipe, prompts, seeds, NATIVE, steps=steps, guidance=guidance, batch=20)
    sets = {
        "test scenes": images,
        "reconstructions": reconstructions(pipe.vae, images),
        "native-size samples": samples,
    }
    return {
        "model": own.label,
        "parameters": sum(value.numel() for value in own.network.parameters()),
        "sampler": {"steps": steps, "guidance": guidance, "seed": SEED},
        "retrieval": {name: retrieval(own, values, prompts) for name, values in sets.items()},
    }


def card_table(report: dict) -> str:
    """The measured part of the card, in Markdown."""
    rows = []
    for name, kinds in report["retrieval"].items():
        texts = {kind: shown(value, 1) for kind, value in kinds.items()}
        rows.append({"images": name, **texts})
    return f"{report['model']}; 95 % Wilson intervals.\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = measure()
    write_measured(MODEL, report, card_table(report))
    print(card_table(report))


if __name__ == "__main__":
    main()
