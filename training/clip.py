"""`mini-clip`: a small open_clip model of the project's own, so that metric tables can be made offline.

    python -m training.clip              # train on scenes and write data/mini-clip; resumes
    python -m training.retrieval         # measure it

A ModifiedResNet and a two-layer text transformer with a shared space of 64 dimensions: few enough for a
Fréchet distance of some hundred images. It has learnt the training scenes and their captions and nothing
else: for other images use a real CLIP, and for a judgement that owes nothing to this data,
`efficientnet-lite0`.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from entropy_lib.errors import extra
from entropy_lib.files import DATA, replacing
from entropy_lib.models.checksums import write_checksums
from entropy_lib.scenes import scenes
from entropy_lib.scenes.detection import pixels
from training import pictures
from training.loop import epoch_batch, loop, step_generator
from training.precision import mixed, save_halves
from training.tokenizer import round_trip, tokenizer_of

with extra("metrics"):
    from open_clip import CLIP

MODEL = DATA / "mini-clip"
CHECKPOINT = pictures.RUNS / "clip.safetensors"
STEPS = 3000
BATCH = 96
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
SMALLEST = 20  # pixels a side to which a batch is reduced and enlarged again, at the least
MEAN, DEVIATION = 0.5, 0.5  # pixels are normalised to [-1, 1]


def config(vocabulary: int) -> dict:
    """The model as open_clip describes it (`open_clip_config.json`)."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": scenes.SIZE, "layers": [2, 2, 2, 2], "width": 16},
            "text_cfg": {
                "context_length": 16, "vocab_size": vocabulary, "width": 128, "heads": 2, "layers": 2,
                "pool_type": "eos", "eos_id": 1, "pad_id": 1, "hf_tokenizer_name": "mini-clip",
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3, "std": [DEVIATION] * 3, "interpolation": "bicubic", "resize_mode": "squash",
        },
    }  # fmt: skip


def build(vocabulary: int) -> CLIP:
    """An untrained model, 2.3 M parameters."""
    torch.manual_seed(3)
    return CLIP(**config(vocabulary)["model_cfg"]).to(memory_format=torch.channels_last)


def tokens(tokenizer: PreTrainedTokenizerBase, captions: list[str]) -> Tensor:
    """Token ids `[n, 16]`, as open_clip's own tokenizer class makes them from the same files."""
    return tokenizer(
        captions, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    ).input_ids


def augmented(
    pixels: Float[Tensor, "n 3 height width"], generator: torch.Generator
) -> Float[Tensor, "n 3 height width"]:
    """Images moved, scaled, mirrored, blurred and shaded at random: what an image may suffer and still be
    what it is.
    """
    count, side = len(pixels), pixels.shape[-1]
    uniform = torch.rand(6, count, generator=generator) * 2 - 1
    scale, mirror = 1.1 ** (2 * uniform[0] + 1), torch.where(uniform[1] > 0.5, -1.0, 1.0)
    turn = 0.15 * uniform[2]
    across = torch.stack([scale * mirror * turn.cos(), -scale * turn.sin(), 0.1 * uniform[3]], 1)
    down = torch.stack([scale * mirror * turn.sin(), scale * turn.cos(), 0.1 * uniform[4]], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    small = int(torch.randint(SMALLEST, side + 1, (), generator=generator))
    moved = resized(resized(moved, small), side)
    shade = 1 + 0.15 * uniform[5][:, None, None, None]
    noise = (
        0.05 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(moved.shape, generator=generator)
    )
    return ((moved - 1) * shade + 1 + noise).clamp(-1, 1)


def resized(pixels: Float[Tensor, "n 3 height width"], side: int) -> Float[Tensor, "n 3 side side"]:
    """Antialiased bicubic."""
    return functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)


def matches(shown: list[scenes.Facts], said: list[scenes.Facts]) -> Bool[Tensor, "image caption"]:
    """Which captions of a batch are true of which images: in everything that the caption tells.

    Args:
        shown: name, count, colour and design of each image.
        said: the same of each caption, None for what it leaves open.

    Example:
        >>> shown = [("owl", 1, "red", "fluent"), ("owl", 1, "blue", "fluent")]
        >>> matches(shown, [("owl", 1, "red", None), ("owl", 1, None, "fluent")]).tolist()
        [[True, True], [False, True]]
    """
    return torch.tensor(
        [[all(b in (None, a) for a, b in zip(one, other, strict=True)) for other in said] for one in shown]
    )


def shown_facts(one: scenes.Scene) -> scenes.Facts:
    """What is seen in a scene."""
    return one.things[0].name, len(one.things), one.background.colour, one.things[0].design


def contrastive_loss(
    images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"], scale: Tensor, true: Bool[Tensor, "n n"]
) -> Float[Tensor, ""]:
    """Cross-entropy in both directions, the target spread evenly over all captions (images) that are true."""
    logits, target = scale * images @ texts.T, true.float()
    by_image = functional.cross_entropy(logits, target / target.sum(1, keepdim=True))
    by_text = functional.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
    return (by_image + by_text) / 2


def train(path: Path, steps: int) -> CLIP:
    """Train to `steps`, resuming from `path`; the loss curve is written beside it."""
    images, tokenizer = pictures.drawn(pictures.TRAIN_COUNT), round_trip(tokenizer_of(scenes.captions()))
    model = build(len(tokenizer)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )

    def update(step: int) -> dict[str, float]:
        rows = epoch_batch(step, BATCH, len(images))
        batch = [scenes.scene(number) for number in rows.tolist()]
        seen = augmented(pixels(images[rows.numpy()]), step_generator(step))
        ids = tokens(tokenizer, [one.caption for one in batch])
        with mixed():
            shown, said, scale = model(seen.contiguous(memory_format=torch.channels_last), ids)
        shown, said = shown.float(), said.float()
        true = matches([shown_facts(one) for one in batch], [scenes.captions()[one.caption] for one in batch])
        loss = contrastive_loss(shown, said, scale, true)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.logit_scale.data.clamp_(max=4.6052)  # ln 100, as in CLIP
        correct = true[torch.arange(BATCH), (shown @ said.T).argmax(1)]
        return {"loss": loss.item(), "correct": correct.float().mean().item(), "scale": scale.item()}

    loop(path, {"model": model}, {"adamw": optimizer}, steps, update, checkpoint_every=500)
    return model.eval()


def export(model: CLIP, folder: Path) -> None:
    """Write the model as open_clip reads it (`local-dir:`): config, half-precision safetensors, tokenizer,
    checksums.
    """
    tokenizer = tokenizer_of(scenes.captions())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    with replacing(folder / "open_clip_config.json") as temporary:
        temporary.write_text(json.dumps(config(len(tokenizer)), indent=1) + "\n", encoding="utf-8")
    save_halves(model, folder / "open_clip_model.safetensors")
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
