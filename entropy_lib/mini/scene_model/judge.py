"""The judge: a small detector that finds, names and measures the things in a picture of the scene world.

    python -m entropy_lib.mini.scene_model.judge              # train it and write data/judge; resumes
    python -m entropy_lib.mini.scene_model.acceptance         # measure how far it can be trusted

A fully convolutional network in the manner of CenterNet (Zhou et al. 2019): on a grid of a quarter of the picture's size it tells
where the centre of something visible is, the box of what is visible, which share of the whole thing that is, its name, and whether
a person could name it. It has seen scenes and damaged scenes at all sizes and no picture that a model drew.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, WeightsError, extra
from entropy_lib.files import DATA, replacing
from entropy_lib.metrics.layout import Detection
from entropy_lib.mini.scene_model import damaged, pictures, sprites
from entropy_lib.mini.scene_model.precision import mixed
from entropy_lib.mini.training import loop, step_generator
from entropy_lib.models.checksums import verify, write_checksums

with extra("metrics"):
    from torchvision.ops import nms

MODEL = DATA / "judge"
CHECKPOINT = pictures.RUNS / "judge.safetensors"
STEPS = 6000
LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 0.02
STRIDE = 4  # pixels of one cell of the output
SMALLEST = 24  # pixels a side of the smallest picture
SIDES = (32, 40, 48, 64, 80, 96, 128, 160, 192)
PIXELS = 28 * 64 * 64  # in one batch
THRESHOLD = 0.35  # score of a centre that counts
OVERLAP = 0.6  # of two boxes (intersection over union) that are one thing
WIDTHS = (24, 48, 96, 128, 128, 128)  # of the levels; the last sees things of 190 px as a whole
OUTPUTS = {"centre": 1, "box": 4, "visible": 1, "legible": 1, "name": len(sprites.NAMES)}


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3, normalised within the picture (batches are of many sizes and as few as four pictures), rectified."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU())


def halved() -> nn.AvgPool2d:
    """Half of the size, rounded up. (Strided kernels in bfloat16 gave gradients that are no numbers where a side is 1.)"""
    return nn.AvgPool2d(2, ceil_mode=True)


class Judge(nn.Module):
    """Pixels `[n, 3, height, width]` in [-1, 1] to maps `[n, output, height / 4, width / 4]`; 1.25 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        first, *further = WIDTHS
        self.down = nn.ModuleList([nn.Sequential(convolution(3, first, 2), convolution(first, first))])
        self.down.extend(
            nn.Sequential(halved(), convolution(a, b), convolution(b, b)) for a, b in zip(WIDTHS, further, strict=False)
        )
        self.across = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in WIDTHS[1:])
        self.merge = nn.ModuleList(convolution(64, 64) for _ in WIDTHS[1:])
        last = nn.Conv2d(64, sum(OUTPUTS.values()), 1)
        last.bias.data[0] = -4.0  # centres are rare
        self.head = nn.Sequential(convolution(64, 64), last)

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> dict[str, Float[Tensor, "n output row column"]]:
        levels, values = [], pixels
        for stage in self.down:
            values = stage(values)
            levels.append(values)
        merged = None
        for level, across, merge in reversed(list(zip(levels[1:], self.across, self.merge, strict=True))):
            lateral = across(level)
            merged = merge(lateral if merged is None else lateral + functional.interpolate(merged, lateral.shape[-2:]))
        return dict(zip(OUTPUTS, self.head(merged).float().split(list(OUTPUTS.values()), 1), strict=True))


def targets(seen: Sequence[Sequence[damaged.Seen]], rows: int, columns: int) -> dict[str, Tensor]:
    """What the network should say of a batch.

    Returns:
        heat `[n, rows, columns]`: 1 at centres, falling around them; and of each thing: where `[things, 3]` (picture, row,
        column), box `[things, 4]` (distances from the cell's middle, in cells, logarithmic), visible, legible, name `[things]`.
    """
    heat = torch.zeros(len(seen), rows, columns)
    across, down = torch.meshgrid(torch.arange(columns) + 0.5, torch.arange(rows) + 0.5, indexing="xy")
    things = [(index, one) for index, picture in enumerate(seen) for one in picture]
    where, boxes = [], []
    for index, one in things:
        top, left, bottom, right = (value / STRIDE for value in one.box)
        row, column = min(int((top + bottom) / 2), rows - 1), min(int((left + right) / 2), columns - 1)
        spread_down, spread_across = max((bottom - top) / 8, 0.5), max((right - left) / 8, 0.5)
        bump = torch.exp(-((down - row - 0.5) ** 2) / (2 * spread_down**2) - (across - column - 0.5) ** 2 / (2 * spread_across**2))
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


def focal_loss(logits: Float[Tensor, "n row column"], heat: Float[Tensor, "n row column"]) -> Float[Tensor, ""]:
    """CornerNet's penalty-reduced focal loss, per thing: near a centre, a high score is forgiven."""
    probability = logits.sigmoid()
    at_centre = heat == 1
    missed = (1 - probability) ** 2 * functional.logsigmoid(logits) * at_centre
    invented = (1 - heat) ** 4 * probability**2 * functional.logsigmoid(-logits) * ~at_centre
    return -(missed + invented).sum() / at_centre.sum().clamp(min=1)


def losses(output: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """One loss for each thing that the judge tells; names count only where a person could name the thing."""
    result = {"centre": focal_loss(output["centre"][:, 0], wanted["heat"])}
    if len(wanted["where"]):
        picture, row, column = wanted["where"].T
        told = {name: values[picture, :, row, column] for name, values in output.items()}
        named = functional.cross_entropy(told["name"], wanted["name"], reduction="none")
        result |= {
            "box": functional.smooth_l1_loss(told["box"], wanted["box"]),
            "visible": functional.smooth_l1_loss(told["visible"][:, 0].sigmoid(), wanted["visible"], beta=0.05),
            "legible": functional.binary_cross_entropy_with_logits(told["legible"][:, 0], wanted["legible"]),
            "name": (named * wanted["legible"]).sum() / wanted["legible"].sum().clamp(min=1),
        }
    return result


def size_of_batch(step: int) -> tuple[int, int, int]:
    """Number, height and width of the pictures of a training step: all sizes in turn, a third of them not square."""
    random = np.random.default_rng([7, step])
    height = width = int(random.choice(SIDES))
    if random.random() < 0.33:
        width = int(random.choice(SIDES))
    return max(4, min(32, PIXELS // (height * width))), height, width


def batch(step: int) -> tuple[UInt8[np.ndarray, "n height width 3"], list[list[damaged.Seen]]]:
    """Pictures and their truth; no picture is seen twice."""
    count, height, width = size_of_batch(step)
    drawn = [damaged.damaged(step * 32 + index, height, width) for index in range(count)]
    return np.stack([picture for picture, _ in drawn]), [seen for _, seen in drawn]


def softened(pixels: Tensor, vae: nn.Module | None, step: int) -> Tensor:
    """Half of the batches pass through the autoencoder, as all drawn pictures do."""
    if vae is None or step % 2:
        return pixels
    generator = step_generator(step)
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
        return vae.decode(
            latents + 0.1 * torch.rand((), generator=generator) * torch.randn(latents.shape, generator=generator)
        ).sample


def train(path: Path, steps: int, vae: nn.Module | None = None) -> Judge:
    """Train to `steps`, resuming from `path`; the loss curve is written beside it."""
    torch.manual_seed(4)
    model = Judge().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)

    def update(step: int) -> dict[str, float]:
        images, seen = batch(step)
        with mixed():
            output = model(softened(pictures.pixels(images), vae, step))
        rows, columns = output["centre"].shape[-2:]
        parts = losses(output, targets(seen, rows, columns))
        sum(parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        return {name: parts[name].item() if name in parts else 0.0 for name in ("centre", "box", "visible", "legible", "name")}

    loop(path, {"model": model}, {"adamw": optimizer}, steps, update)
    return model.eval()


@torch.no_grad()
def find(
    model: Judge, images: UInt8[np.ndarray, "n height width 3"], threshold: float = THRESHOLD, batch: int = 32
) -> list[list[Detection]]:
    """The things in each picture, the surest first.

    Args:
        model: as `load` returns it.
        images: of one size, at least 24 px a side.
        threshold: least score of a centre.
        batch: pictures at once.

    Raises:
        InvalidInputError: when a picture is too small or not uint8 RGB.
    """
    check_images(images)
    found = []
    for start in range(0, len(images), batch):
        output = model(pictures.pixels(images[start : start + batch]))
        found += [
            in_picture({name: values[index] for name, values in output.items()}, threshold) for index in range(len(output["box"]))
        ]
    return found


def check_images(images: np.ndarray) -> None:
    """InvalidInputError unless these are uint8 RGB pictures of at least 24 px a side."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        given = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InvalidInputError(f"images is {given}; the judge takes uint8 pictures [n, height, width, 3]")
    if min(images.shape[1:3]) < SMALLEST:
        raise InvalidInputError(f"images are {images.shape[1]}x{images.shape[2]} px; the judge needs at least {SMALLEST} px a side")


def in_picture(output: dict[str, Tensor], threshold: float) -> list[Detection]:
    """Local maxima of one picture's centre map, one for each thing."""
    score = output["centre"][0].sigmoid()
    peak = (score == functional.max_pool2d(score[None], 3, 1, 1)[0]) & (score >= threshold)
    row, column = peak.nonzero(as_tuple=True)
    above, before, below, behind = output["box"][:, row, column].clamp(-3, 5).exp()
    middle_row, middle_column = row + 0.5, column + 0.5
    boxes = STRIDE * torch.stack([middle_row - above, middle_column - before, middle_row + below, middle_column + behind], 1)
    kept = nms(boxes, score[peak], OVERLAP)  # symmetric in the axes, so rows before columns do no harm
    visible, legible = (output[name][0, row, column].sigmoid()[kept].tolist() for name in ("visible", "legible"))
    names = output["name"][:, row, column].argmax(0)[kept].tolist()
    parts = zip(names, boxes[kept].tolist(), visible, legible, score[peak][kept].tolist(), strict=True)
    return [Detection(sprites.NAMES[name], tuple(box), *rest) for name, box, *rest in parts]


def load(folder: Path = MODEL) -> Judge:
    """The shipped judge.

    Raises:
        WeightsError: when its weights are missing or damaged.
    """
    verify(folder)
    if not (folder / "judge.safetensors").exists():
        raise WeightsError(f"there is no judge in {folder.name!r}; train it: python -m entropy_lib.mini.scene_model.judge")
    model = Judge()
    model.load_state_dict(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in load_file(folder / "judge.safetensors").items()
        }
    )
    return model.eval().to(memory_format=torch.channels_last)


def export(model: Judge, folder: Path = MODEL) -> None:
    """Write half-precision weights and checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with replacing(folder / "judge.safetensors") as temporary:
        save_file(halves, temporary)
    write_checksums(folder)


def main() -> None:
    from entropy_lib.mini.scene_model.train import load_autoencoder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=MODEL)
    arguments = parser.parse_args()
    export(train(CHECKPOINT, arguments.steps, load_autoencoder()), arguments.output)


if __name__ == "__main__":
    main()
