"""How good `mini-clip` is, and with it `mini`: are pictures and captions found among a thousand others?

    python -m entropy_lib.mini.retrieval         # measure data/mini-clip, write its quality.json and card

Three sets of pictures: the data itself, the embedded model's reconstructions of it, and what it draws at native size. Each
picture looks for its caption among all captions of the data, each caption for its picture among the pictures of the set.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from entropy_lib.experiments.generation import generate
from entropy_lib.files import replacing
from entropy_lib.metrics.extractors import Extractor, extractor
from entropy_lib.mini import dataset
from entropy_lib.mini.clip import MODEL
from entropy_lib.mini.evaluate import MARKS, PROMPT_LIST, SEED, share
from entropy_lib.mini.text import captions
from entropy_lib.models.catalogue import load
from entropy_lib.models.checksums import MEASURED

STEPS, GUIDANCE = 25, 2.0


def retrieval(own: Extractor, pictures: np.ndarray, wanted: Sequence[str], known: Sequence[str]) -> dict[str, dict]:
    """Shares of pictures and captions that find each other.

    Args:
        own: an extractor with a text tower.
        pictures: uint8 `[n, height, width, 3]`.
        wanted: the caption of each picture, with its design.
        known: all captions to choose from.

    Returns:
        picture_to_caption: the nearest caption is the picture's own; picture_to_name: it names the same thing, in whichever
        design; caption_to_name: the picture nearest to a caption shows what it names. Each with its 95 % Wilson interval.
    """
    images, texts = (functional.normalize(values, dim=1) for values in (own.pictures(pictures), own.captions(known)))
    nearest = [known[index] for index in (images @ texts.T).argmax(1).tolist()]
    asked = functional.normalize(own.captions(wanted), dim=1)
    found = [wanted[index] for index in (asked @ images.T).argmax(1).tolist()]
    return {
        "picture_to_caption": share([one == other for one, other in zip(nearest, wanted, strict=True)]),
        "picture_to_name": share([_name(one) == _name(other) for one, other in zip(nearest, wanted, strict=True)]),
        "caption_to_name": share([_name(one) == _name(other) for one, other in zip(found, wanted, strict=True)]),
    }


def _name(caption: str) -> str:
    return caption.rsplit(",", 1)[0]


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, pixels: Tensor) -> np.ndarray:
    """What is left of the data after the autoencoder, uint8."""
    rebuilt = torch.cat([vae(batch).sample for batch in pixels.split(50)])
    return _grey_levels(rebuilt)


def _grey_levels(pixels: Tensor) -> np.ndarray:
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def measure() -> dict:
    """Retrieval on the data, on reconstructions, and on native-size samples of `data/prompts/mini.txt`."""
    table, pipe, own = dataset.load(), load("mini"), extractor("mini-clip")
    pixels, known, prompts = dataset.pixels(table.image), captions(table), PROMPT_LIST.read_text().splitlines()
    drawn = generate(
        pipe, prompts, range(SEED, SEED + len(prompts)), dataset.SIZE, dataset.SIZE, steps=STEPS, guidance=GUIDANCE, batch=20
    )  # fmt: skip
    return {
        "model": own.label,
        "parameters": sum(value.numel() for value in own.network.parameters()),
        "sampler": {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED},
        "retrieval": {
            "data": retrieval(own, _grey_levels(pixels), known, known),
            "reconstructions": retrieval(own, reconstructions(pipe.vae, pixels), known, known),
            "native-size samples": retrieval(own, drawn, prompts, known),
        },
    }


def card_table(report: dict) -> str:
    """The measured part of the card, in Markdown."""
    rows = []
    for name, kinds in report["retrieval"].items():
        texts = {kind: f"{100 * v['share']:.1f} % [{100 * v['low']:.1f}, {100 * v['high']:.1f}]" for kind, v in kinds.items()}
        rows.append({"pictures": name, "number": kinds["picture_to_name"]["count"], **texts})
    return f"{report['model']}; 95 % Wilson intervals.\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report, card = measure(), MODEL / "README.md"
    with replacing(MODEL / MEASURED) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    before, _, rest = card.read_text().partition(MARKS[0])
    with replacing(card) as temporary:
        temporary.write_text(f"{before}{MARKS[0]}\n\n{card_table(report)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
    print(card_table(report))


if __name__ == "__main__":
    main()
