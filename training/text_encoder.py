"""The text encoder of the embedded models: a small CLIP text transformer with a tokenizer of its own.

It is trained alone, before the denoiser, as Stable Diffusion's was: from a caption the last 16 of its 32
positions must tell the 4 x 4 patches of the thing's portrait (the sprite, centred, on grey, 32 px), how many
there are and the colour of the ground. It comes to know what things look like, and never where they are in an
image. Then it stays fixed.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from entropy_lib.scenes import scenes
from entropy_lib.scenes.detection import pixels
from training.loop import descend, loop, step_generator
from training.muon import muon_and_adamw
from training.tokenizer import GRID, MAX_TOKENS, encode, tokenizer_of

WIDTH = 192
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
UNCONDITIONAL = 0.10  # share of captions replaced by "" (classifier-free guidance)
GREY = 128 / 255
PORTRAIT = 32  # pixels a side


def portrait(name: str, design: str) -> UInt8[np.ndarray, "32 32 3"]:
    """A thing alone: centred, as large as the frame allows, on grey."""
    alone = scenes.Thing(name, design, side=1 - 2 * scenes.MARGIN, down=0.5, right=0.5)
    ground = scenes.Background("grey", (GREY,) * 3, (GREY,) * 3, angle=0.0)
    return scenes.draw(scenes.Scene("", (alone,), ground), PORTRAIT, PORTRAIT)


def facts(count: int, colour: str | None) -> list[float]:
    """One-hot count and colour; no colour stated: all zero."""
    return [float(count == number) for number in scenes.COUNTS] + [
        float(colour == known) for known in scenes.COLOURS
    ]


def targets(world: scenes.World = scenes.FULL) -> dict[str, Float[Tensor, "patch value"]]:
    """What each caption must tell; where it names no design, the mean of the designs' portraits."""
    keys = list(product(world.names, world.designs))
    portraits = patches(pixels(np.stack([portrait(*key) for key in keys])))
    looks = dict(zip(keys, portraits, strict=True))
    looks |= {
        (name, None): torch.stack([looks[name, design] for design in world.designs]).mean(0)
        for name in world.names
    }
    told = {}
    for text, (name, count, colour, design) in scenes.captions(world).items():
        told[text] = torch.cat(
            [looks[name, design], torch.tensor(facts(count, colour)).expand(GRID**2, -1)], 1
        )
    return told | {"": torch.zeros_like(told[text])}


def build_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def patches(latents: Float[Tensor, "n channel height width"]) -> Float[Tensor, "n patch value"]:
    """The latents cut into GRID x GRID patches, row by row."""
    size = latents.shape[-1] // GRID
    cut = latents.unfold(2, size, size).unfold(3, size, size)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(len(latents), GRID**2, -1)


def train(path: Path, steps: int) -> CLIPTextModel:
    """Train the text encoder to tell what is in an image from its caption, resuming from `path`.

    Args:
        path: checkpoint; the loss curve is written beside it.
        steps: in all, earlier ones of the checkpoint included.
    """
    torch.manual_seed(2)
    told = targets()
    texts, wanted = list(told), torch.stack(list(told.values()))
    tokenizer = tokenizer_of(scenes.captions())
    ids = encode(tokenizer, texts)
    model = torch.nn.ModuleDict(
        {"encoder": build_encoder(tokenizer), "teller": torch.nn.Linear(WIDTH, wanted.shape[-1])}
    )
    optimizers = muon_and_adamw(model, LEARNING_RATE, WEIGHT_DECAY)

    def update(step: int) -> dict[str, float]:
        rows = torch.randint(len(texts), (BATCH,), generator=step_generator(step))
        output = model["teller"](model["encoder"](ids[rows]).last_hidden_state[:, -(GRID**2) :])
        loss = (output - wanted[rows]).square().mean()
        return {"loss": loss.item(), "norm": descend(loss, model, optimizers)}

    loop(path, {"model": model}, optimizers, steps, update)
    return model["encoder"].eval()


@torch.no_grad()
def all_states(encoder: CLIPTextModel) -> tuple[list[str], Float[Tensor, "caption token width"]]:
    """Every caption, the empty one first, and the text encoder's output for each."""
    texts = ["", *scenes.captions()]
    ids = encode(tokenizer_of(scenes.captions()), texts)
    return texts, torch.cat([encoder(part).last_hidden_state for part in ids.split(64)])
