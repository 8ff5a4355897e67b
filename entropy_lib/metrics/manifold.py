"""How much of what is drawn looks real, and how much of what is real is drawn: by balls around images.

Each image of a set gets a ball that reaches to its k-th nearest neighbour in the same set; the balls together stand for the
set's manifold.

    precision   share of drawn images inside some ball of the reference          (Kynkäänniemi et al. 2019, k = 3)
    recall      share of reference images inside some ball of the drawn set
    density     mean number of reference balls around a drawn image, over k      (Naeem et al. 2020, k = 5)
    coverage    share of reference balls that hold some drawn image

Balls are closed: an image on the border is inside, so that a set matches itself even where images repeat (the prdc package
takes open balls). Euclidean distances are computed in blocks, never held as a whole, and nothing is sampled.

No interval is offered. These numbers are steps, not smooth functions of averages: the jackknife does not hold for them, the
bootstrap puts repeated images at distance 0, and balls shared between images make the binomial too narrow. All of them also
move with n and k: compare methods at equal n, k and reference, and repeat with other seeds to see the spread.

Example:
    >>> images, real = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0))
    >>> precision_recall(images / 4, real)                           # too tame: all plausible, little variety
    PrecisionRecall(precision=0.9966666666666667, recall=0.11)
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.matrix import FeatureRows, blocks_of_rows, feature_matrix, same_width


class PrecisionRecall(NamedTuple):
    """Shares, 0 to 1."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, around 1 for equal distributions and not bounded by it; coverage, a share."""

    density: float
    coverage: float


def precision_recall(features: FeatureRows, reference: FeatureRows, neighbours: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019, Eqs. 1 and 2).

    Args:
        features, reference: `[n, d]` and `[m, d]`.
        neighbours: k, without counting the image itself.

    Raises:
        InvalidInputError: for matrices that do not fit, or with k images or fewer in a set.

    Example:
        >>> points = torch.arange(10.0)[:, None]
        >>> precision_recall(points[:5], points, neighbours=1)
        PrecisionRecall(precision=1.0, recall=0.6)
    """
    features, reference = _matrices(features, reference, neighbours)
    balls, _ = _hits(features, reference, _radii(reference, neighbours))
    other_balls, _ = _hits(reference, features, _radii(features, neighbours))
    return PrecisionRecall(_share(balls > 0), _share(other_balls > 0))


def density_coverage(features: FeatureRows, reference: FeatureRows, neighbours: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al., ICML 2020).

    Where both sets come from the same law, the expected density is 1 and the expected coverage 1 - C(m-1, k) / C(n+m-1, k):
    the chance that some of the k nearest others of a reference image are drawn ones.

    Args, Raises: as for `precision_recall`.

    Example:
        >>> points = torch.arange(10.0)[:, None]
        >>> density_coverage(points[:5], points, neighbours=1)
        DensityCoverage(density=2.8, coverage=0.6)
    """
    features, reference = _matrices(features, reference, neighbours)
    balls, hit = _hits(features, reference, _radii(reference, neighbours))
    return DensityCoverage(float(balls.double().mean()) / neighbours, _share(hit))


def _share(hits: Bool[Tensor, " image"]) -> float:
    return float(hits.double().mean())


def _matrices(features: FeatureRows, reference: FeatureRows, neighbours: int) -> tuple[Tensor, Tensor]:
    if neighbours < 1:
        raise InvalidInputError(f"neighbours is {neighbours}; it must be 1 or more")
    features = feature_matrix(features, least=neighbours + 1)
    reference = feature_matrix(reference, "the reference", least=neighbours + 1).to(features.device)
    same_width(features, reference)
    return features, reference


def _square_distances(x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"]) -> Float64[Tensor, "row column"]:
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    distances = lengths - 2 * x @ y.T
    # Equal rows must be at distance 0, which rounding does not give; nothing else is that near in float64.
    return distances.masked_fill(distances < 1e-13 * lengths, 0.0)


def _radii(features: Float[Tensor, "image dim"], neighbours: int) -> Float64[Tensor, " image"]:
    """Square distance of each image to its k-th nearest other."""
    radii = torch.cat([_nearest(block, features, neighbours + 1)[:, -1] for _, block in blocks_of_rows(features)])
    # Where an image is in both sets, the k-th neighbour is on the border: rounding must not push it out.
    return radii * (1 + 1e-9)


def _nearest(block: Float64[Tensor, "row dim"], features: Float[Tensor, "image dim"], count: int) -> Float64[Tensor, "row near"]:
    """Smallest square distances, ascending; the image itself is the first."""
    near = block.new_empty(len(block), 0)
    for _, others in blocks_of_rows(features):
        candidates = torch.cat([near, _square_distances(block, others)], dim=1)
        near = candidates.topk(min(count, candidates.shape[1]), largest=False).values
    return near


def _hits(
    points: Float[Tensor, "point dim"], centres: Float[Tensor, "centre dim"], radii: Float64[Tensor, " centre"]
) -> tuple[Int[Tensor, " point"], Bool[Tensor, " centre"]]:
    """How many balls each point is in, and whether each ball holds a point."""
    balls = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    hit = torch.zeros(len(centres), dtype=torch.bool, device=points.device)
    for point, some in blocks_of_rows(points):
        for centre, others in blocks_of_rows(centres):
            inside = _square_distances(some, others) <= radii[centre]
            balls[point] += inside.sum(1)
            hit[centre] |= inside.any(0)
    return balls, hit
