"""`mini-clip`: a small open_clip model of the project's own, so that metric tables can be made offline.

    python -m entropy_lib.mini.clip              # train on data/emoji and write data/mini-clip (`make mini-clip`); resumes
    python -m entropy_lib.mini.retrieval         # measure it

A ModifiedResNet and a two-layer text transformer with a shared space of 64 dimensions: few enough for a Fréchet distance
of some hundred images. It has learnt the 1,006 pictures of `data/emoji` and their captions, from every size and place in the
frame, and nothing else; for real images use a real CLIP.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from entropy_lib.errors import extra
from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.mini import dataset, text
from entropy_lib.mini.training import epoch_batch, loop, step_generator
from entropy_lib.models.checksums import write_checksums

with extra("metrics"):
    from open_clip import CLIP

MODEL = DATA / "mini-clip"
CHECKPOINT = ROOT / "build" / "mini" / "clip.safetensors"
STEPS = 3000
BATCH = 96
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WITHOUT_DESIGN = 0.3  # share of captions that name no design
SMALLEST = 20  # pixels a side to which a batch is reduced and enlarged again, at the least
MEAN, DEVIATION = 0.5, 0.5  # pixels are normalised to [-1, 1]


def config(vocabulary: int) -> dict:
    """The model as open_clip describes it (`open_clip_config.json`)."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": dataset.SIZE, "layers": [2, 2, 2, 2], "width": 16},
            "text_cfg": {
                "context_length": 16, "vocab_size": vocabulary, "width": 128, "heads": 2, "layers": 2,
                "pool_type": "eos", "eos_id": 1, "pad_id": 1, "hf_tokenizer_name": "mini-clip",
            },
        },
        "preprocess_cfg": {"mean": [MEAN] * 3, "std": [DEVIATION] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }  # fmt: skip


def build(vocabulary: int) -> CLIP:
    """An untrained model, 2.3 M parameters."""
    torch.manual_seed(3)
    return CLIP(**config(vocabulary)["model_cfg"]).to(memory_format=torch.channels_last)


def tokens(tokenizer: PreTrainedTokenizerBase, captions: list[str]) -> Tensor:
    """Token ids `[n, 16]`, as open_clip's own tokenizer class makes them from the same files."""
    return tokenizer(captions, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids


def augmented(pixels: Float[Tensor, "n 3 height width"], generator: torch.Generator) -> Float[Tensor, "n 3 height width"]:
    """Pictures moved, scaled, mirrored, blurred and shaded at random, on white: what a picture may suffer and stay itself.

    Without it the model would know its 1,006 pictures by single pixels, and nothing drawn would resemble any.
    """
    count, side = len(pixels), pixels.shape[-1]
    uniform = torch.rand(6, count, generator=generator) * 2 - 1
    scale, mirror = 1.1 ** (3 * uniform[0] + 1), torch.where(uniform[1] > 0.5, -1.0, 1.0)
    turn = 0.15 * uniform[2]
    across = torch.stack([scale * mirror * turn.cos(), -scale * turn.sin(), 0.25 * uniform[3]], 1)
    down = torch.stack([scale * mirror * turn.sin(), scale * turn.cos(), 0.25 * uniform[4]], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels - 1, grid, align_corners=False) + 1  # outside is white
    small = int(torch.randint(SMALLEST, side + 1, (), generator=generator))
    moved = resized(resized(moved, small), side)
    shade = 1 + 0.15 * uniform[5][:, None, None, None]
    noise = 0.05 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(moved.shape, generator=generator)
    return ((moved - 1) * shade + 1 + noise).clamp(-1, 1)


def resized(pixels: Float[Tensor, "n 3 height width"], side: int) -> Float[Tensor, "n 3 side side"]:
    """Antialiased bicubic."""
    return functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)


def matches(names: list[str], designs: list[str], stated: list[str | None]) -> Bool[Tensor, "picture caption"]:
    """Which captions of a batch are true of which pictures: the same thing, and the same design where it is named.

    Example:
        >>> matches(["zebra", "zebra"], ["noto", "fluent"], ["noto", None]).tolist()
        [[True, True], [False, True]]
    """
    pictures = list(zip(names, designs, strict=True))
    captions = list(zip(names, stated, strict=True))
    return torch.tensor([[name == other and said in (None, design) for other, said in captions] for name, design in pictures])


def contrastive_loss(
    images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"], scale: Tensor, true: Bool[Tensor, "n n"]
) -> Float[Tensor, ""]:
    """Cross-entropy in both directions, the target spread evenly over all captions (pictures) that are true."""
    logits, target = scale * images @ texts.T, true.float()
    by_image = functional.cross_entropy(logits, target / target.sum(1, keepdim=True))
    by_text = functional.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
    return (by_image + by_text) / 2


def train(path: Path, steps: int) -> CLIP:
    """Train to `steps`, resuming from `path`; the loss curve is written beside it."""
    table = dataset.load()
    pixels, tokenizer = dataset.pixels(table.image), text.round_trip(text.build_tokenizer(table))
    model = build(len(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)

    def update(step: int) -> dict[str, float]:
        generator, rows = step_generator(step), epoch_batch(step, BATCH, len(table))
        names, designs = list(table.name.iloc[rows]), list(table.design.iloc[rows])
        hidden = (torch.rand(BATCH, generator=generator) < WITHOUT_DESIGN).tolist()
        stated = [None if hide else design for design, hide in zip(designs, hidden, strict=True)]
        captions = [dataset.caption(name, design) for name, design in zip(names, stated, strict=True)]
        seen = augmented(pixels[rows], generator).contiguous(memory_format=torch.channels_last)
        images, texts, scale = model(seen, tokens(tokenizer, captions))
        loss = contrastive_loss(images, texts, scale, matches(names, designs, stated))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.logit_scale.data.clamp_(max=4.6052)  # ln 100, as in CLIP
        hits = (images @ texts.T).argmax(1)
        correct = matches(names, designs, stated)[torch.arange(BATCH), hits]
        return {"loss": loss.item(), "correct": correct.float().mean().item(), "scale": scale.item()}

    loop(path, {"model": model}, {"adamw": optimizer}, steps, update, checkpoint_every=500)
    return model.eval()


def export(model: CLIP, folder: Path) -> None:
    """Write the model as open_clip reads it (`local-dir:`): config, half-precision safetensors, tokenizer, checksums."""
    tokenizer = text.build_tokenizer(dataset.load())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    with replacing(folder / "open_clip_config.json") as temporary:
        temporary.write_text(json.dumps(config(len(tokenizer)), indent=1) + "\n")
    halves = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with replacing(folder / "open_clip_model.safetensors") as temporary:
        save_file(halves, temporary)
    with replacing(folder / "training.csv") as temporary:
        pd.read_csv(CHECKPOINT.with_suffix(".csv")).drop(columns="seconds").to_csv(temporary, index=False)
    write_checksums(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=MODEL)
    arguments = parser.parse_args()
    export(train(CHECKPOINT, arguments.steps), arguments.output)


if __name__ == "__main__":
    main()
