"""How good the embedded model is: does the picture that it draws look like what was asked for?

    python -m entropy_lib.mini.evaluate              # measure data/mini and write its quality.json
    python -m entropy_lib.mini.evaluate --quick      # 64 px only, print

A drawn picture is resized to 64 px, encoded, and compared with the latents of all training pictures. It is named
correctly when the nearest one carries the prompted name, in whichever design.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor
from torch.nn import functional

from entropy_lib.experiments.generation import generate
from entropy_lib.experiments.request import Size, distinct_rules_at
from entropy_lib.files import PROMPTS, replacing
from entropy_lib.mini import dataset
from entropy_lib.mini.train import MODEL
from entropy_lib.models.catalogue import load
from entropy_lib.models.checksums import MEASURED
from entropy_lib.probes.entropy_probe import EntropyProbe
from entropy_lib.sizes import size_name
from entropy_lib.statistics.interval import wilson

NATIVE = (dataset.SIZE, dataset.SIZE)
PROMPT_LIST = PROMPTS / "mini.txt"
SIZES = ((32, 32), (48, 48), (64, 64), (96, 96), (128, 128), (64, 96), (128, 64))
COUNT = 200
SEED = 0
MARKS = ("<!-- measured -->", "<!-- end of measured -->")


def draw_prompts(table: pd.DataFrame, count: int = COUNT) -> list[str]:
    """`count` captions of different names in a fixed random order: how the committed prompt list was made."""
    shuffled = table.sample(frac=1, random_state=SEED).drop_duplicates("name").head(count)
    return [dataset.caption(name, design) for name, design in zip(shuffled.name, shuffled.design, strict=True)]


def prompted_names(prompts: Sequence[str], names: Sequence[str]) -> list[str]:
    """The name that each caption asks for."""
    known = {dataset.caption(name): name for name in names}
    return [known[prompt.rsplit(",", 1)[0]] for prompt in prompts]


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Latents, flattened, of pixels `[n, 3, height, width]` in [-1, 1] after resizing to 64 px (antialiased bicubic)."""
    pixels = functional.interpolate(pixels, (dataset.SIZE, dataset.SIZE), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([vae.encode(batch.clamp(-1, 1)).latent_dist.mode().flatten(1) for batch in pixels.split(50)])


def from_uint8(images: np.ndarray) -> Tensor:
    """uint8 `[n, height, width, 3]` to float `[n, 3, height, width]` in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def named_within(drawn: Tensor, reference: Tensor, names: Sequence[str], wanted: Sequence[str], nearest: int) -> list[bool]:
    """Whether the wanted name is among the `nearest` reference pictures of each drawn one."""
    order = torch.cdist(drawn, reference).topk(nearest, largest=False).indices.tolist()
    return [name in {names[index] for index in row} for name, row in zip(wanted, order, strict=True)]


def share(hits: Sequence[bool]) -> dict[str, float]:
    """Share of hits with its 95 % Wilson interval."""
    return {**wilson(sum(hits), len(hits)).columns("share"), "count": len(hits)}


def quality(
    pipe: DiffusionPipeline, prompts: Sequence[str], sizes: Sequence[Size], rules: Sequence[str], steps: int, guidance: float
) -> list[dict]:
    """Share of pictures named correctly (nearest, and among the five nearest), for each size and rule."""
    table = dataset.load()
    reference, wanted = encode(pipe.vae, dataset.pixels(table.image)), prompted_names(prompts, table.name.unique())
    rows = []
    for height, width in sizes:
        for scale_rule in distinct_rules_at(pipe, rules, height, width):
            images = generate(
                pipe, prompts, range(SEED, SEED + len(prompts)), height, width,
                scale_rule=scale_rule, steps=steps, guidance=guidance, batch=20, progress=True,
            )  # fmt: skip
            drawn = encode(pipe.vae, from_uint8(images))
            first = share(named_within(drawn, reference, table.name, wanted, 1))
            fifth = share(named_within(drawn, reference, table.name, wanted, 5))
            rows.append({"size": size_name(height, width), "rule": scale_rule, **first, "share_of_five": fifth["share"]})
            print(rows[-1], flush=True)
    return rows


@torch.no_grad()
def ceiling(pipe: DiffusionPipeline) -> dict[str, float]:
    """The same share for the autoencoder's reconstructions of all training pictures."""
    table = dataset.load()
    pixels = dataset.pixels(table.image)
    rebuilt = torch.cat([pipe.vae(batch).sample for batch in pixels.split(50)])
    error = (rebuilt - pixels).abs().mean().item() / 2
    hits = named_within(encode(pipe.vae, rebuilt), encode(pipe.vae, pixels), table.name, list(table.name), 1)
    return share(hits) | {"mean_absolute_error": error}


def attention_health(pipe: DiffusionPipeline, prompts: Sequence[str], steps: int, guidance: float) -> list[dict]:
    """Per layer at native size: logit_std b, its ratio to freezing, and the share of rows beyond freezing."""
    with EntropyProbe(pipe) as probe:
        generate(pipe, prompts, range(len(prompts)), *NATIVE, steps=steps, guidance=guidance)
    table = probe.table().assign(logit_variance=lambda t: t.logit_std**2)
    grouped = table.groupby(["layer", "tokens"], sort=False)[["logit_variance", "beyond_freezing", "entropy"]].mean().reset_index()
    grouped["logit_std"] = grouped.pop("logit_variance") ** 0.5
    grouped["of_freezing"] = grouped.logit_std / np.sqrt(2 * np.log(grouped.tokens))
    return grouped.round(4).to_dict("records")


def card_tables(report: dict) -> str:
    """The measured part of the model card, in Markdown."""
    named = pd.DataFrame(report["named"])
    percent = [f"{100 * row.share:.0f} % [{100 * row.low:.0f}, {100 * row.high:.0f}]" for row in named.itertuples()]
    of_five = [f"{100 * value:.0f} %" for value in named.share_of_five]
    named = named[["size", "rule"]].assign(**{"nearest": percent, "among five": of_five, "prompts": named["count"]})
    health = pd.DataFrame(report["attention"])
    health["beyond_freezing"] = [f"{100 * value:.1f} %" for value in health.beyond_freezing]
    health = health[["layer", "tokens", "entropy", "logit_std", "of_freezing", "beyond_freezing"]]
    top, sampler = report["ceiling"], report["sampler"]
    return (
        f"{sampler['steps']} steps, guidance {sampler['guidance']:g}, seeds from {sampler['seed']}; 95 % Wilson intervals.\n\n"
        f"{named.to_markdown(index=False)}\n\n"
        f"Ceiling, the autoencoder's reconstructions of the data: {100 * top['share']:.1f} % (mean absolute error "
        f"{100 * top['mean_absolute_error']:.1f} % of the grey range).\n\n"
        f"Self-attention at native size, all rows:\n\n{health.to_markdown(index=False)}\n"
    )


def update_card(report: dict) -> None:
    """Put the measured tables between the two marks of the card."""
    card = MODEL / "README.md"
    before, _, rest = card.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    with replacing(card) as temporary:
        temporary.write_text(f"{before}{MARKS[0]}\n\n{card_tables(report)}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--elsewhere", type=int, default=COUNT, help="prompts at sizes other than native")
    parser.add_argument("--quick", action="store_true", help="native size only, and write nothing")
    arguments = parser.parse_args()
    pipe, prompts = load(arguments.model), PROMPT_LIST.read_text().splitlines()[: arguments.count]
    sampler = {"steps": arguments.steps, "guidance": arguments.guidance}
    if arguments.quick:
        quality(pipe, prompts, [NATIVE], ["unscaled"], **sampler)
        print(pd.DataFrame(attention_health(pipe, prompts[:16], **sampler)).to_string())
        return
    native, others = [size for size in SIZES if size == NATIVE], [size for size in SIZES if size != NATIVE]
    report = {
        "sampler": sampler | {"seed": SEED},
        "ceiling": ceiling(pipe),
        "attention": attention_health(pipe, prompts[:32], **sampler),
        "named": quality(pipe, prompts, native, ["unscaled"], **sampler)
        + quality(pipe, prompts[: arguments.elsewhere], others, ["unscaled", "paper"], **sampler),
    }
    with replacing(MODEL / MEASURED) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    update_card(report)


if __name__ == "__main__":
    main()
