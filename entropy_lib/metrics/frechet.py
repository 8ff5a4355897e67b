"""Fréchet distance between two sets of features, each described by its mean and covariance.

    FD = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1^½ S2 S1^½)^½          (Dowson and Landau 1982; Heusel et al. 2017, Eq. 6)

With Inception features it is the FID. The matrix under the last root is symmetric, so its eigenvalues are
real: there is no imaginary part to throw away, as there is with a general matrix root of S1 S2.

The distance of n images is biased upwards, by about c/n, and c depends on the method, so that equal n does
not make two methods comparable (Chong and Forsyth 2020). The block jackknife takes it off
(`frechet_interval`). A reference that is a matrix is a sample too: blocks are deleted from it as well, its
bias is taken off and its error counts. A reference that is a state is taken as it is: the distance is that to
*these* images.

How far the interval can be trusted where the reference is a distribution (Gaussian features, 20 blocks,
nominal 95 %; share of 200 repetitions, 40 for d = 128): what matters is images per feature, and how many
directions matter at all.

    images per feature                              2        3        5        10
    variances falling like 1/k, d = 32            89 %     95 %     94 %     92 %
    all variances equal, d = 32                   88 %     98 %     98 %     97 %
    all variances equal, d = 128                           50 %     90 %
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.samples import Blocks, FeatureRows, feature_matrix
from entropy_lib.metrics.state import FeatureState
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import Labels, check_pairs

ENOUGH = 2  # images per feature, below which no interval of a level covers (see above)


class FewImagesWarning(UserWarning):
    """So few images for so many features that a Fréchet distance is mostly bias."""


def frechet_distance(features: FeatureRows | FeatureState, reference: FeatureRows | FeatureState) -> float:
    """Fréchet distance between two sets of images, biased upwards by about c/n as always (see
    `frechet_interval`).

    Args:
        features, reference: feature matrices `[n, d]`, or states of them.

    Returns:
        The distance, in squared units of a feature; 0 for equal means and covariances.

    Raises:
        InvalidInputError: if the widths or extractors differ, or a set has fewer than 2 images.

    Warns:
        FewImagesWarning: if a set has fewer than two images for each feature.

    Example:
        >>> images = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(images, images + 1.0), 6)                      # moved by 1 in each of 8 directions
        8.0
        >>> def normal(mean, variance, count=1000):
        ...     return FeatureState(count, torch.tensor([mean]).double(), torch.tensor([[variance * (count - 1)]]).double())
        >>> frechet_distance(normal(3.0, 4.0), normal(0.0, 1.0))                  # 3² + (2 - 1)²
        10.0
    """
    state = _state(_checked(features, "features"))
    return _distance_to(_state(_checked(reference, "the reference")).to(state.mean.device))(state)


def frechet_interval(
    features: FeatureRows,
    reference: FeatureRows | FeatureState,
    labels: Labels,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """The Fréchet distance with the bias of order 1/n taken off, and its interval, by deleting blocks of
    images.

    The state of each block is subtracted from that of all: no image is looked at more than twice, and a few d
    x d matrices are held at a time. It costs one eigenvalue problem of size d for each block, and another
    where the reference is a matrix.

    Args:
        features: `[n, d]`, n at least 2 d.
        reference: a matrix, which is a sample like the features; or a state, which is taken as it is.
        labels: the block of each image, of `statistics.deal_blocks`.
        reference_labels: as for `kernel_interval`.
        level: of the interval.

    Raises:
        InvalidInputError: with fewer than two images for each feature: no interval would cover. Also as
            `frechet_distance`, and for labels that do not fit.

    Warns:
        FewImagesWarning: if it is the reference that is small.

    Example:
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> labels = deal_blocks(range(400))
        >>> print(frechet_interval(images, real, labels))                    # the plain distance is 0.117
        -0.0124 [-0.0694, 0.0446]
    """
    features, known = feature_matrix(features, least=2), _checked(reference, "the reference")
    count, width = features.shape
    if count < ENOUGH * width:
        raise InvalidInputError(
            f"{count} images for {width} features: too few for the level of a Fréchet distance, no interval would cover it. "
            f"Draw at least {ENOUGH * width} (in each part), or report KID, or the paired difference of two methods"
        )
    return _jackknife([features], known, labels, reference_labels, level)


def frechet_difference(
    first: FeatureRows,
    second: FeatureRows,
    reference: FeatureRows | FeatureState,
    labels: Labels,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """How much farther `first` is from the reference than `second`, row i of both being the same prompt and
    seed.

    The same blocks are deleted from both, and the bias of order 1/n, which differs between methods, is taken
    off the difference. `p_value` of the result tests that both are equally far.

    Args:
        first, second: `[n, d]`, paired by row.
        reference, labels, reference_labels, level: as for `frechet_interval`.

    Raises:
        InvalidInputError: for unequal lengths; as `frechet_distance`; for labels that do not fit.

    Warns:
        FewImagesWarning: with fewer than two images for each feature, here or in the reference.

    Example:
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> difference = frechet_difference(images + 0.1, images, real, deal_blocks(range(400)))
        >>> difference.low > 0, difference.p_value < 0.05
        (True, True)
    """
    check_pairs(len(first), len(second))
    first, second = _checked(first, "features"), feature_matrix(second, "the second features", least=2)
    return _jackknife([first, second], _checked(reference, "the reference"), labels, reference_labels, level)


def _checked(features: FeatureRows | FeatureState, name: str) -> Tensor | FeatureState:
    """A state as it is, or a matrix of two images at least; whoever called the caller is warned where it
    holds few.
    """
    if not isinstance(features, FeatureState):
        features = feature_matrix(features, name, least=2)
    count, width = (
        (features.count, len(features.mean)) if isinstance(features, FeatureState) else features.shape
    )
    if count < ENOUGH * width:
        message = f"{name}: {count} images for {width} features; the distance is mostly bias below {ENOUGH * width} images. "
        message += "Read it as a comparison at equal n at best, or use KID, which has no bias"
        warnings.warn(message, FewImagesWarning, stacklevel=3)
    return features


def _state(features: Tensor | FeatureState) -> FeatureState:
    """The state of a matrix, or the state that it is."""
    return features if isinstance(features, FeatureState) else FeatureState.of(features)


def _distance_to(reference: FeatureState) -> Callable[[FeatureState], float]:
    """What gives the distance of a state from the reference, at one eigenvalue problem each."""
    values, vectors = torch.linalg.eigh(reference.covariance)
    root = vectors * values.clamp(min=0).sqrt()  # root rootᵀ is the covariance

    def distance(state: FeatureState) -> float:
        state.check(reference)
        # rootᵀ S root has the eigenvalues of S1^½ S S1^½.
        shared = torch.linalg.eigvalsh(root.T @ state.covariance @ root).clamp(min=0).sqrt().sum()
        traces = reference.covariance.trace() + state.covariance.trace()
        # Rounding can take a distance of 0 just below it.
        return max(0.0, float((reference.mean - state.mean).square().sum() + traces - 2 * shared))

    return distance


def _jackknife(
    methods: Sequence[Tensor],
    reference: Tensor | FeatureState,
    labels: Labels,
    reference_labels: Labels | None,
    level: float,
) -> Interval:
    """The interval of a method's distance, or of how much farther the first of two methods is than the
    second.
    """
    check_level(level)
    images, device = len(methods[0]), methods[0].device
    blocks = Blocks.of(
        labels, images, reference_labels, None if isinstance(reference, FeatureState) else len(reference)
    )
    states, known = [FeatureState.of(features) for features in methods], _state(reference)
    distance = _distance_to(known.to(device))
    found = [[distance(state) for state in states]]
    for block in range(blocks.count):
        if isinstance(reference, Tensor):
            distance = _distance_to(_without(known, reference, blocks.reference == block).to(device))
        kept = [_without(*pair, blocks.images == block) for pair in zip(states, methods, strict=True)]
        found.append([distance(state) for state in kept])
    first, *second = np.array(found).T
    return blocks.interval(first - sum(second), level, correct_bias=True)


def _without(
    state: FeatureState, features: Float[Tensor, "image dim"], chosen: Bool[np.ndarray, " image"]
) -> FeatureState:
    """The state of a matrix less some of its rows."""
    return (
        state - FeatureState.of(features[torch.from_numpy(np.flatnonzero(chosen))]) if chosen.any() else state
    )
