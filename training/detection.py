"""The detector's training.

    python -m training.detection         # train it and write data/detector; resumes
    python -m training.acceptance             # measure how far it can be trusted

It sees scenes and damaged scenes at all sizes, no image twice, and none that a model drew.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from entropy_lib.models.checksums import write_checksums
from entropy_lib.scenes import sprites
from entropy_lib.scenes.detection import MODEL, STRIDE, DetectorNetwork, pixels
from training import damaged, pictures
from training.loop import loop, step_generator
from training.precision import mixed, save_halves

CHECKPOINT = pictures.RUNS / "detector.safetensors"
STEPS = 16_000
LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 0.02
SIDES = (32, 40, 48, 64, 80, 96, 128, 160, 192)
PIXELS = 28 * 64 * 64  # in one batch


def targets(seen: Sequence[Sequence[damaged.Seen]], rows: int, columns: int) -> dict[str, Tensor]:
    """What the network should say of a batch.

    Returns:
        heat `[n, rows, columns]`: 1 at centres, falling around them; and of each thing: where `[things, 3]`
        (image, row, column), box `[things, 4]` (distances from the cell's middle, in cells, logarithmic),
        visible, legible, name `[things]`.
    """
    heat = torch.zeros(len(seen), rows, columns)
    across, down = torch.meshgrid(torch.arange(columns) + 0.5, torch.arange(rows) + 0.5, indexing="xy")
    things = [(index, one) for index, picture in enumerate(seen) for one in picture]
    where, boxes = [], []
    for index, one in things:
        top, left, bottom, right = (value / STRIDE for value in one.box)
        row, column = min(int((top + bottom) / 2), rows - 1), min(int((left + right) / 2), columns - 1)
        spread_down, spread_across = max((bottom - top) / 8, 0.5), max((right - left) / 8, 0.5)
        bump = torch.exp(
            -((down - row - 0.5) ** 2) / (2 * spread_down**2)
            - (across - column - 0.5) ** 2 / (2 * spread_across**2)
        )
        heat[index] = torch.maximum(heat[index], bump)
        where.append((index, row, column))
        boxes.append([row + 0.5 - top, column + 0.5 - left, bottom - row - 0.5, right - column - 0.5])
    return {
        "heat": heat,
        "where": torch.tensor(where, dtype=torch.long).view(-1, 3),
        "box": torch.tensor(boxes).view(-1, 4).clamp(min=0.1).log(),
        "visible": torch.tensor([one.visible for _, one in things]),
        "legible": torch.tensor([float(one.legible) for _, one in things]),
        "name": torch.tensor([sprites.NAMES.index(one.name) for _, one in things], dtype=torch.long),
    }


def focal_loss(
    logits: Float[Tensor, "n row column"], heat: Float[Tensor, "n row column"]
) -> Float[Tensor, ""]:
    """CornerNet's penalty-reduced focal loss, per thing: near a centre, a high score is forgiven."""
    probability = logits.sigmoid()
    at_centre = heat == 1
    missed = (1 - probability) ** 2 * functional.logsigmoid(logits) * at_centre
    invented = (1 - heat) ** 4 * probability**2 * functional.logsigmoid(-logits) * ~at_centre
    return -(missed + invented).sum() / at_centre.sum().clamp(min=1)


def losses(output: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """One loss for each output of the detector; names count only where a person could name the thing."""
    result = {"centre": focal_loss(output["centre"][:, 0], wanted["heat"])}
    if len(wanted["where"]):
        picture, row, column = wanted["where"].T
        told = {name: values[picture, :, row, column] for name, values in output.items()}
        named = functional.cross_entropy(told["name"], wanted["name"], reduction="none")
        result |= {
            "box": functional.smooth_l1_loss(told["box"], wanted["box"]),
            "visible": functional.smooth_l1_loss(
                told["visible"][:, 0].sigmoid(), wanted["visible"], beta=0.05
            ),
            "legible": functional.binary_cross_entropy_with_logits(told["legible"][:, 0], wanted["legible"]),
            "name": (named * wanted["legible"]).sum() / wanted["legible"].sum().clamp(min=1),
        }
    return result


def size_of_batch(step: int) -> tuple[int, int, int]:
    """Number, height and width of the images of a training step: all sizes in turn, a third of them not
    square.
    """
    random = np.random.default_rng([7, step])
    height = width = int(random.choice(SIDES))
    if random.random() < 0.33:
        width = int(random.choice(SIDES))
    return max(4, min(32, PIXELS // (height * width))), height, width


def batch(step: int) -> tuple[UInt8[np.ndarray, "n height width 3"], list[list[damaged.Seen]]]:
    """Images and their truth; no image is seen twice."""
    count, height, width = size_of_batch(step)
    drawn = [damaged.damaged(step * 32 + index, height, width) for index in range(count)]
    return np.stack([picture for picture, _ in drawn]), [seen for _, seen in drawn]


def softened(pixels: Tensor, vae: nn.Module | None, step: int) -> Tensor:
    """Half of the batches pass through the autoencoder, as all generated images do."""
    if vae is None or step % 2:
        return pixels
    generator = step_generator(step)
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
        return vae.decode(
            latents
            + 0.1 * torch.rand((), generator=generator) * torch.randn(latents.shape, generator=generator)
        ).sample


def train(path: Path, steps: int, vae: nn.Module | None = None) -> DetectorNetwork:
    """Train to `steps`, resuming from `path`; the loss curve is written beside it."""
    torch.manual_seed(4)
    model = DetectorNetwork().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True
    )

    def update(step: int) -> dict[str, float]:
        images, seen = batch(step)
        with mixed():
            output = model(softened(pixels(images), vae, step))
        rows, columns = output["centre"].shape[-2:]
        parts = losses(output, targets(seen, rows, columns))
        sum(parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        return {
            name: parts[name].item() if name in parts else 0.0
            for name in ("centre", "box", "visible", "legible", "name")
        }

    loop(path, {"model": model}, {"adamw": optimizer}, steps, update)
    return model.eval()


def export(model: DetectorNetwork, folder: Path = MODEL) -> None:
    """Write half-precision weights and checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    save_halves(model, folder / "detector.safetensors")
    write_checksums(folder)


def main() -> None:
    from training.mini import load_autoencoder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=MODEL)
    arguments = parser.parse_args()
    export(train(CHECKPOINT, arguments.steps, load_autoencoder()), arguments.output)


if __name__ == "__main__":
    main()
