"""The Fréchet distance of infinitely many images, by a line through the distances of n images and of fewer.

The other cure for the bias of order 1/n, beside the block jackknife of `frechet_interval`. Of a further term e/n² the jackknife
leaves -e/n², the line -2e/n²: where both disagree, what is left of the bias of the first is about their difference, and more
images are needed.
"""

from collections.abc import Sequence

import numpy as np

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.frechet import RootedState
from entropy_lib.metrics.frechet_intervals import refuse_few, rows_of
from entropy_lib.metrics.matrix import FeatureRows, feature_matrix
from entropy_lib.metrics.state import FeatureState
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import Labels, check_labels, from_deletions

PARTS = (1, 2)


def frechet_infinity(
    features: FeatureRows,
    reference: FeatureRows | FeatureState,
    labels: Labels,
    *,
    parts: Sequence[int] = PARTS,
    level: float = 0.95,
) -> Interval:
    """The Fréchet distance of infinitely many images: a line through the distances of n images and of fewer, at 1/n = 0.

    Chong and Forsyth (CVPR 2020) draw random subsets. Here the images are cut into 1, 2, … disjoint parts and the distances
    of the parts averaged, so that every size uses every image and the only noise is that of the images themselves; the
    interval comes from deleting blocks from the whole procedure.

    Args:
        features: `[n, d]`; the smallest part must have at least 2 d rows.
        reference: matrix or state; it is taken as it is, and its own error is no part of the interval.
        labels, level: as for `frechet_interval`.
        parts: into how many parts the images are cut, two different numbers at least. A part consists of whole blocks.

    Raises:
        InvalidInputError: for parts that are too small, or fewer than two numbers of parts; otherwise as `frechet_interval`.

    Example:
        >>> import torch
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
        >>> print(frechet_infinity(images, real, deal_blocks(range(400))))
        0.0641 [0.0153, 0.113]
    """
    if min(parts, default=0) < 1 or len(set(parts)) < 2:
        raise InvalidInputError(f"parts are {list(parts)}; a line needs two different numbers, each 1 or more, for example (1, 2)")
    check_level(level)
    features, labels = feature_matrix(features, least=2), check_labels(labels, len(features))
    if not isinstance(reference, FeatureState):
        reference = FeatureState.of(feature_matrix(reference, "the reference", least=2))
    known = RootedState.of(reference.to(features.device))
    states = {count: [FeatureState.of(rows_of(features, labels % count == part)) for part in range(count)] for count in set(parts)}
    refuse_few(min(state.count for states_of_size in states.values() for state in states_of_size), features.shape[1])
    points = {count: [_point(state, known) for state in members] for count, members in states.items()}
    removed = (FeatureState.of(rows_of(features, labels == block)) for block in range(labels.max() + 1))
    without = [_intercept(_points_without(points, states, block, gone, known)) for block, gone in enumerate(removed)]
    return from_deletions(_intercept(points), without, np.bincount(labels), level, correct_bias=False)


Points = dict[int, list[tuple[float, float]]]  # number of parts: 1/n and distance of each part


def _point(state: FeatureState, reference: RootedState) -> tuple[float, float]:
    return 1 / state.count, reference.distance(state)


def _points_without(
    points: Points, states: dict[int, list[FeatureState]], block: int, removed: FeatureState, reference: RootedState
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
