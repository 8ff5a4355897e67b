"""A repetition index without reference or detector: do patches recur at one common displacement?

Copy-move forgery is found in this way. Each patch of an image that stands out looks for its likeness
elsewhere; where an image repeats a thing, many patches find theirs at the same displacement. Chance
likenesses scatter. The index does not know what was asked for, so two owls on purpose count as much as two by
mistake, and one symmetrical thing repeats its halves: compare the same prompt and noise at two sizes.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from entropy_lib.metrics.views import check_pictures
from entropy_lib.precision import full_precision

GRID = 32  # patches a side; images are resized to it, so the index does not depend on their size
CELLS = 3  # cells a side of one patch descriptor
BINS = 8  # of gradient orientation
PIXELS = 4  # of one cell's side
SALIENT = 0.2  # share of patches that take part: those with the strongest edges
APART = 0.15  # least displacement, of the image's side
SIMILARITY = 0.8  # cosine from which two patches are alike
FAINT = 1e-3  # a descriptor shorter than this is rounding: a flat image repeats nothing
LEAST_VOTES, LEAST_SHARE = 4, 0.01  # of one displacement, to count


@full_precision()
def repetition_index(image: UInt8[np.ndarray, "height width 3"]) -> float:
    """The share, 0 to 1, of the chosen patches of one image, of any size, that agree on a displacement."""
    check_pictures(image[None] if isinstance(image, np.ndarray) else image)
    descriptors, salience = described(image)
    chosen = salience.argsort(descending=True)[: int(SALIENT * len(salience))]
    moves = displacements(functional.normalize(descriptors[chosen], dim=1, eps=FAINT), chosen)
    _, counts = torch.unique(moves, dim=0, return_counts=True)
    return float(counts[counts >= max(LEAST_VOTES, LEAST_SHARE * len(chosen))].sum()) / len(chosen)


def described(image: np.ndarray) -> tuple[Float[Tensor, "patch value"], Float[Tensor, "patch"]]:
    """A descriptor of every patch, the image's mean taken off, and the strength of its edges."""
    side = GRID * PIXELS
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    pixels = functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)
    cells = functional.avg_pool2d(torch.cat([pixels, orientations(pixels.mean(1, keepdim=True))], 1), PIXELS)
    around = functional.unfold(functional.pad(cells, (1, 1, 1, 1), mode="replicate"), CELLS)[0].T
    edges = around.view(len(around), -1, CELLS**2)[:, 3:].sum((1, 2))  # after red, green and blue
    return around - around.mean(0), edges


def orientations(grey: Float[Tensor, "1 1 height width"]) -> Float[Tensor, "1 bin height width"]:
    """Strength of the gradient by direction."""
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    angle = torch.atan2(down, across)
    centres = torch.arange(BINS) * 2 * torch.pi / BINS
    away = (torch.remainder(angle - centres.view(1, -1, 1, 1) + torch.pi, 2 * torch.pi) - torch.pi).abs()
    return (1 - away * BINS / (2 * torch.pi)).clamp(min=0) * torch.hypot(across, down)


def displacements(
    descriptors: Float[Tensor, "patch value"], where: Int[Tensor, "patch"]
) -> Int[Tensor, "match 2"]:
    """From each patch to its likeness elsewhere, downwards first; both directions are one."""
    rows, columns = where // GRID, where % GRID
    down, across = rows[None] - rows[:, None], columns[None] - columns[:, None]
    likeness = (descriptors @ descriptors.T).masked_fill(
        torch.hypot(down.float(), across.float()) < APART * GRID, -1
    )
    value, other = likeness.max(1)
    matched = value >= SIMILARITY
    index = torch.arange(len(where))
    moves = torch.stack([down[index, other], across[index, other]], 1)[matched]
    backwards = (moves[:, 0] < 0) | ((moves[:, 0] == 0) & (moves[:, 1] < 0))
    return torch.where(backwards[:, None], -moves, moves)
