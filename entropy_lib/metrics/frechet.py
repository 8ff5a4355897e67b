"""Fréchet distance between two sets of features, each described by its mean and covariance.

    FD = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1^½ S2 S1^½)^½          (Dowson and Landau 1982; Heusel et al. 2017, Eq. 6)

With Inception features it is the FID. The matrix under the last root is symmetric, so its eigenvalues are real: there is no
imaginary part to throw away, as there is with a general matrix root of S1 S2. With fewer images than features, the last
trace is the sum of singular values of X1 X2ᵀ / sqrt((n1 - 1)(n2 - 1)), X being the centred features (FastFID, Mathiasen and
Hvilshøj 2020): the same number, without any d x d matrix.

The distance of n images is biased upwards, by about c/n; c depends on the method, so that equal n does not make two methods
comparable (Chong and Forsyth 2020). Two cures are offered for the bias in the generated images: `frechet_interval` (block
jackknife) and `frechet_infinity` (extrapolation in 1/n). Of a further term e/n² the first leaves -e/n², the second -2e/n²:
where they disagree, what is left of the bias of the first is about their difference, and more images are needed. Both take
the reference as it is and speak of the distance to *these* images, whose own number adds a bias that all methods share.

How far the jackknife interval can be trusted (Gaussian features, 20 blocks, nominal 95 %; share of 200 repetitions, 40 for
d = 128): what matters is images per feature, and how many directions of the features matter at all.

    images per feature                              2        3        5        10
    variances falling like 1/k, d = 32            89 %     95 %     94 %     92 %
    all variances equal, d = 32                   88 %     98 %     98 %     97 %
    all variances equal, d = 128                           50 %     90 %

Example:
    >>> import torch
    >>> images = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(images, images + 1.0), 6)                         # moved by 1 in each of 8 directions
    8.0
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from entropy_lib.metrics.matrix import Features, feature_matrix, same_width
from entropy_lib.metrics.state import FeatureState
from entropy_lib.statistics.intervals import Interval, Labels, check_labels, check_pairs, from_deletions

PARTS = (1, 2)
ENOUGH = 2  # images per feature, below which no interval of a level covers (see above)


class FewImagesWarning(UserWarning):
    """So few images for so many features that a Fréchet distance is mostly bias."""


def frechet_distance(features: Features | FeatureState, reference: Features | FeatureState) -> float:
    """Fréchet distance between two sets of images, biased upwards by about c/n as always (see `frechet_interval`).

    Two matrices with fewer images than features are compared without forming a covariance; everything else by way of
    states. Both ways give the same number.

    Args:
        features, reference: feature matrices `[n, d]`, or states of them.

    Returns:
        The distance, in squared units of a feature; 0 for equal means and covariances.

    Raises:
        ValueError: if the widths or extractors differ, or a set has fewer than 2 images.

    Warns:
        FewImagesWarning: if a set has fewer than two images for each feature.

    Example:
        >>> import torch
        >>> def normal(mean, variance, count=1000):
        ...     return FeatureState(count, torch.tensor([mean]).double(), torch.tensor([[variance * (count - 1)]]).double())
        >>> frechet_distance(normal(3.0, 4.0), normal(0.0, 1.0))                  # 3² + (2 - 1)²
        10.0
    """
    first, second = _checked(features, "features"), _checked(reference, "the reference")
    _warn_of_few(*_size(first), "features")
    _warn_of_few(*_size(second), "the reference")
    if isinstance(first, Tensor) and isinstance(second, Tensor) and max(len(first), len(second)) < first.shape[1]:
        same_width(first, second)
        return _low_rank_distance(first.double(), second.double().to(first.device))
    state = _state(first)
    return _Reference.of(second, state.mean.device).distance(state)


def frechet_interval(features: Features, reference: Features | FeatureState, labels: Labels, *, level: float = 0.95) -> Interval:
    """The Fréchet distance with the bias of order 1/n taken off, and its interval, by deleting blocks of images.

    The state of each block is subtracted from that of all: no image is looked at more than twice, and three d x d matrices
    are held at a time. It costs one eigenvalue problem of size d for each block.

    Args:
        features: `[n, d]`, n at least 2 d.
        reference: matrix or state, taken as it is.
        labels: the block of each image, of `statistics.deal_blocks`.
        level: of the interval.

    Raises:
        ValueError: with fewer than two images for each feature: no interval would cover. Also as `frechet_distance`, and for
            labels that do not fit.

    Warns:
        FewImagesWarning: if it is the reference that is small.

    Example:
        >>> from entropy_lib.statistics.intervals import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> labels = deal_blocks(range(400))
        >>> print(round(frechet_distance(images, real), 3), frechet_interval(images, real, labels))
        0.117 0.0474 [0.0218, 0.0729]
    """
    features, known, labels = _prepared(features, reference, labels)
    _refuse_few(*features.shape)
    distances = _deletions(features, known, labels)
    return from_deletions(distances[0], distances[1:], np.bincount(labels), level)


def frechet_difference(
    first: Features, second: Features, reference: Features | FeatureState, labels: Labels, *, level: float = 0.95
) -> Interval:
    """How much farther `first` is from the reference than `second`, row i of both being the same prompt and seed.

    The same blocks are deleted from both, and the bias of order 1/n, which differs between methods, is taken off the
    difference. `p_value` of the result tests that both are equally far.

    Args:
        first, second: `[n, d]`, paired by row.
        reference, labels, level: as for `frechet_interval`.

    Raises:
        ValueError: for unequal lengths; as `frechet_distance`; for labels that do not fit.

    Warns:
        FewImagesWarning: with fewer than two images for each feature, here or in the reference.

    Example:
        >>> from entropy_lib.statistics.intervals import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> difference = frechet_difference(images + 0.1, images, real, deal_blocks(range(400)))
        >>> difference.low > 0, difference.p_value < 0.05
        (True, True)
    """
    second = feature_matrix(second, "the second features", least=2)
    check_pairs(len(first), len(second))
    first, known, labels = _prepared(first, reference, labels)
    _warn_of_few(*first.shape, "features")
    distances = _deletions(first, known, labels) - _deletions(second, known, labels)
    return from_deletions(distances[0], distances[1:], np.bincount(labels), level)


def frechet_infinity(
    features: Features, reference: Features | FeatureState, labels: Labels, *, parts: Sequence[int] = PARTS, level: float = 0.95
) -> Interval:
    """The Fréchet distance of infinitely many images: a line through the distances of n images and of fewer, at 1/n = 0.

    Chong and Forsyth (CVPR 2020) draw random subsets. Here the images are cut into 1, 2, … disjoint parts and the distances
    of the parts averaged, so that every size uses every image and the only noise is that of the images themselves; the
    interval comes from deleting blocks from the whole procedure.

    Args:
        features: `[n, d]`; the smallest part must have at least 2 d rows.
        reference, labels, level: as for `frechet_interval`.
        parts: into how many parts the images are cut, two different numbers at least. A part consists of whole blocks.

    Raises:
        ValueError: for parts that are too small, or fewer than two numbers of parts; otherwise as `frechet_interval`.

    Example:
        >>> from entropy_lib.statistics.intervals import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> print(frechet_infinity(images, real, deal_blocks(range(400))))
        0.0641 [0.0153, 0.113]
    """
    if min(parts, default=0) < 1 or len(set(parts)) < 2:
        raise ValueError(f"parts are {list(parts)}; a line needs two different numbers, each 1 or more, for example (1, 2)")
    features, known, labels = _prepared(features, reference, labels)
    states = {count: [FeatureState.of(_rows(features, labels % count == part)) for part in range(count)] for count in set(parts)}
    _refuse_few(min(state.count for states_of_size in states.values() for state in states_of_size), features.shape[1])
    points = {count: [_point(state, known) for state in members] for count, members in states.items()}
    removed = (FeatureState.of(_rows(features, labels == block)) for block in range(labels.max() + 1))
    without = [_intercept(_points_without(points, states, block, gone, known)) for block, gone in enumerate(removed)]
    return from_deletions(_intercept(points), without, np.bincount(labels), level, correct_bias=False)


def _prepared(
    features: Features, reference: Features | FeatureState, labels: Labels
) -> tuple[Float[Tensor, "image dim"], "_Reference", Labels]:
    features, reference = feature_matrix(features, least=2), _checked(reference, "the reference")
    _warn_of_few(*_size(reference), "the reference", stacklevel=4)
    return features, _Reference.of(reference, features.device), check_labels(labels, len(features))


def _rows(features: Float[Tensor, "image dim"], chosen: Bool[np.ndarray, " image"]) -> Float[Tensor, "row dim"]:
    return features[torch.from_numpy(np.flatnonzero(chosen))]


def _deletions(features: Float[Tensor, "image dim"], reference: "_Reference", labels: Labels) -> Float64[np.ndarray, " deletion"]:
    """The distance of all images, then of all but each block."""
    whole = FeatureState.of(features)
    states = (whole - FeatureState.of(_rows(features, labels == block)) for block in range(labels.max() + 1))
    return np.array([reference.distance(state) for state in chain([whole], states)])


Points = dict[int, list[tuple[float, float]]]  # number of parts: 1/n and distance of each part


def _point(state: FeatureState, reference: "_Reference") -> tuple[float, float]:
    return 1 / state.count, reference.distance(state)


def _points_without(
    points: Points, states: dict[int, list[FeatureState]], block: int, removed: FeatureState, reference: "_Reference"
) -> Points:
    """Only the part that the block belongs to has changed, for each number of parts."""
    changed = {count: _point(members[block % count] - removed, reference) for count, members in states.items()}
    return {
        count: [changed[count] if part == block % count else point for part, point in enumerate(values)]
        for count, values in points.items()
    }


def _intercept(points: Points) -> float:
    """Least squares through the mean point of each number of parts, at 1/n = 0."""
    inverse, distance = np.array([np.mean(values, axis=0) for values in points.values()]).T
    return float(np.polyfit(inverse, distance, 1)[1])


@dataclass(frozen=True, eq=False)
class _Reference:
    """A state with the root of its covariance, so that a distance to it costs one eigenvalue problem."""

    state: FeatureState
    root: Float64[Tensor, "dim dim"]  # root @ root.T is the covariance

    @classmethod
    def of(cls, reference: Tensor | FeatureState, device: torch.device) -> "_Reference":
        state = _state(reference).to(device)
        values, vectors = torch.linalg.eigh(state.covariance)
        return cls(state, vectors * values.clamp(min=0).sqrt())

    def distance(self, state: FeatureState) -> float:
        state.check(self.state)
        # rootᵀ S root has the eigenvalues of S1^½ S S1^½.
        values = torch.linalg.eigvalsh(self.root.T @ state.covariance @ self.root)
        traces = self.state.covariance.trace() + state.covariance.trace()
        return _distance(self.state.mean - state.mean, traces, values.clamp(min=0).sqrt().sum())


def _low_rank_distance(first: Float64[Tensor, "image dim"], second: Float64[Tensor, "other dim"]) -> float:
    """From singular values of the cross Gram matrix: no covariance is formed."""
    # Divided so that rootᵀ root is the covariance.
    roots = [(part - part.mean(0)) / (len(part) - 1) ** 0.5 for part in (first, second)]
    traces = roots[0].square().sum() + roots[1].square().sum()
    return _distance(first.mean(0) - second.mean(0), traces, torch.linalg.svdvals(roots[0] @ roots[1].T).sum())


def _distance(shift: Float64[Tensor, " dim"], traces: Tensor, shared: Tensor) -> float:
    # Rounding can take a distance of 0 just below it.
    return max(0.0, float(shift.square().sum() + traces - 2 * shared))


def _checked(features: Features | FeatureState, name: str) -> Tensor | FeatureState:
    return features if isinstance(features, FeatureState) else feature_matrix(features, name, least=2)


def _state(features: Tensor | FeatureState) -> FeatureState:
    return features if isinstance(features, FeatureState) else FeatureState.of(features)


def _size(features: Tensor | FeatureState) -> tuple[int, int]:
    """Images and features."""
    return (features.count, len(features.mean)) if isinstance(features, FeatureState) else tuple(features.shape)


def _warn_of_few(images: int, width: int, name: str, stacklevel: int = 3) -> None:
    if images < ENOUGH * width:
        message = f"{name}: {images} images for {width} features; the distance is mostly bias below {ENOUGH * width} images. "
        message += "Read it as a comparison at equal n at best, or use KID, which has no bias"
        warnings.warn(message, FewImagesWarning, stacklevel=stacklevel)


def _refuse_few(images: int, width: int) -> None:
    if images < ENOUGH * width:
        raise ValueError(
            f"{images} images for {width} features: too few for the level of a Fréchet distance, no interval would cover it. "
            f"Draw at least {ENOUGH * width} (in each part), or report KID, or the paired difference of two methods"
        )
