"""The detector: a small detector that finds, names and measures the things in an image of the scene world.

A fully convolutional network in the manner of CenterNet (Zhou et al. 2019): on a grid of a quarter of the
image's size it says where the centre of something visible is, the box of what is visible, which share of the
whole thing that is, its name, and whether a person could name it. It has seen scenes and damaged scenes at
all sizes and no image that a model generated.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, WeightsError, extra
from entropy_lib.files import DATA, sha256
from entropy_lib.metrics.layout import Detection, Detector
from entropy_lib.metrics.registry import FINDINGS, METRICS, PictureScore
from entropy_lib.metrics.views import check_pictures
from entropy_lib.models.checksums import CHECKSUMS, verify
from entropy_lib.precision import full_precision
from entropy_lib.scenes import scenes, sprites
from entropy_lib.sizes import Size
from entropy_lib.statistics.resampling import deal_blocks, jackknife

with extra("metrics"):
    from torchvision.ops import nms

MODEL = DATA / "detector"
STRIDE = 4  # pixels of one cell of the output
SMALLEST = 24  # pixels a side of the smallest image
BATCH = 32  # images that it looks at together
THRESHOLD = 0.45  # score of a centre that counts
OVERLAP = 0.45  # of two boxes (intersection over union) that are one thing
WIDTHS = (24, 48, 96, 128, 128, 128)  # of the levels; the last sees things of 190 px as a whole
OUTPUTS = {"centre": 1, "box": 4, "visible": 1, "legible": 1, "name": len(sprites.NAMES)}


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3, normalised within the image (batches are of many sizes and as few as four images), rectified."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU()
    )


class DetectorNetwork(nn.Module):
    """Pixels `[n, 3, height, width]` in [-1, 1] to maps a quarter of the size; 1.25 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        first, *further = WIDTHS
        self.down = nn.ModuleList([nn.Sequential(convolution(3, first, 2), convolution(first, first))])
        self.down.extend(
            # half of the size, rounded up; strided kernels in bfloat16 gave NaN where a side is 1
            nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), convolution(a, b), convolution(b, b))
            for a, b in zip(WIDTHS, further, strict=False)
        )
        self.across = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in WIDTHS[1:])
        self.merge = nn.ModuleList(convolution(64, 64) for _ in WIDTHS[1:])
        last = nn.Conv2d(64, sum(OUTPUTS.values()), 1)
        last.bias.data[0] = -4.0  # centres are rare
        self.head = nn.Sequential(convolution(64, 64), last)

    def forward(
        self, pixels: Float[Tensor, "n 3 height width"]
    ) -> dict[str, Float[Tensor, "n output row column"]]:
        levels, values = [], pixels
        for stage in self.down:
            values = stage(values)
            levels.append(values)
        merged = None
        for level, across, merge in reversed(list(zip(levels[1:], self.across, self.merge, strict=True))):
            lateral = across(level)
            merged = merge(
                lateral if merged is None else lateral + functional.interpolate(merged, lateral.shape[-2:])
            )
        return dict(zip(OUTPUTS, self.head(merged).float().split(list(OUTPUTS.values()), 1), strict=True))


def pixels(images: np.ndarray) -> Float[Tensor, "n 3 height width"]:
    """uint8 `[n, height, width, 3]` as float32 in [-1, 1], channels last in memory."""
    floats = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return floats.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@full_precision()
def find(model: DetectorNetwork, images: UInt8[np.ndarray, "n height width 3"]) -> list[list[Detection]]:
    """The things in each image, the surest first."""
    check_pictures(images)
    if min(images.shape[1:3]) < SMALLEST:
        raise InvalidInputError(
            f"images are {images.shape[1]}x{images.shape[2]} px; the detector needs {SMALLEST} px a side"
        )
    found = []
    for start in range(0, len(images), BATCH):
        output = model(pixels(images[start : start + BATCH]))
        for index in range(len(output["box"])):
            found.append(in_image({name: values[index] for name, values in output.items()}))
    return found


def in_image(output: dict[str, Tensor]) -> list[Detection]:
    """Local maxima of one image's centre map, one for each thing."""
    score = output["centre"][0].sigmoid()
    peak = (score == functional.max_pool2d(score[None], 3, 1, 1)[0]) & (score >= THRESHOLD)
    row, column = peak.nonzero(as_tuple=True)
    above, before, below, behind = output["box"][:, row, column].clamp(-3, 5).exp()
    middle_row, middle_column = row + 0.5, column + 0.5
    boxes = STRIDE * torch.stack(
        [middle_row - above, middle_column - before, middle_row + below, middle_column + behind], 1
    )
    kept = nms(boxes, score[peak], OVERLAP)  # symmetric in the axes, so rows before columns do no harm
    visible, legible = (
        output[name][0, row, column].sigmoid()[kept].tolist() for name in ("visible", "legible")
    )
    names = output["name"][:, row, column].argmax(0)[kept].tolist()
    parts = zip(names, boxes[kept].tolist(), visible, legible, score[peak][kept].tolist(), strict=True)
    return [Detection(sprites.NAMES[name], tuple(box), *rest) for name, box, *rest in parts]


def load(folder: Path = MODEL) -> DetectorNetwork:
    """The shipped detector.

    Raises:
        WeightsError: when its weights are missing or damaged.
    """
    verify(folder)
    if not (folder / "detector.safetensors").exists():
        raise WeightsError(f"there is no detector in {folder.name!r}; train it: python -m training.detection")
    model = DetectorNetwork()
    model.load_state_dict(load_file(folder / "detector.safetensors"))  # into the model's own float32
    return model.eval().to(memory_format=torch.channels_last)


def detector() -> Detector:
    """The shipped detector as the metrics take one: it understands the captions of scenes.

    Example:
        >>> detector().asked("two owls on a red background"), detector().asked("a cup of tea")
        (('owl', 2), None)
    """
    model, captions = load(), scenes.captions()
    label = f"detector @ {sha256(MODEL / CHECKSUMS)[:8]}, threshold {THRESHOLD}, overlap {OVERLAP}"

    def asked(prompt: str) -> tuple[str, int] | None:
        return captions[prompt][:2] if prompt in captions else None

    return Detector(label, sprites.NAMES, partial(find, model), asked, SMALLEST)


def true_layouts(
    detector: Detector, sizes: Sequence[str], metrics: Sequence[str], count: int = 200, level: float = 0.95
) -> pd.DataFrame:
    """What the detector finds in test scenes of each size: what a perfect model would get, and its errors.

    Args:
        detector: of `detection.detector()`.
        sizes: height x width in pixels, "64x96".
        metrics: names of `metrics.registry.METRICS`; those of findings and of single images are computed.
        count: of the scenes.
        level: of the intervals.

    Returns:
        columns `size, method, metric, reference, estimate, low, high, images`, as
        `sweep.reduce.Tables.levels`.
    """
    known_scenes = [scenes.scene(number, "test") for number in range(count)]
    asked = detector.captions([one.caption for one in known_scenes])
    blocks, rows = deal_blocks(range(count)), []
    for size in sizes:
        images = np.stack([scenes.draw(one, *Size.parse(size)) for one in known_scenes])
        summaries = detector.pictures(images)
        for metric in (METRICS[name] for name in metrics):
            if isinstance(metric, PictureScore):
                values = np.array([metric.value(image) for image in images])
            elif getattr(metric, "features", None) == FINDINGS:
                values = metric.values(summaries, (), lambda _: asked).double().numpy()
            else:
                continue
            known = np.flatnonzero(np.isfinite(values))
            interval = jackknife(np.mean, values[known], blocks[known], level=level)
            row = {"size": size, "metric": metric.name, "reference": metric.reference, "images": len(known)}
            rows.append({**row, **interval.columns()})
    return pd.DataFrame(rows).assign(method="scenes, drawn")
