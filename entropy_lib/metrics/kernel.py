"""Kernel distances between two sets of features, and differences of two methods' distances.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)                     (Gretton et al. 2012, Lemma 6)

estimated as a U-statistic over pairs of different images (Eq. 3), which has no bias whatever the number of
images: values just below 0 are right where two sets are alike. KID is MMD² with the cubic kernel on Inception
features (Bińkowski et al. 2018), CMMD with a wide Gaussian kernel on CLIP features (Jayasumana et al. 2024;
its own code keeps k(x, x), which biases it). The kernel matrix is formed in tiles and never held.

"No bias" asks for independent images. Several of one prompt, or a reference that shows the very prompts, make
a share of about 1/n of all pairs too alike, and KID too large or too small: with 70 prompts twice, by as much
as KID itself. Intervals therefore come from pairs of images in *different blocks* only, blocks being made of
whole prompts. The reference is a sample too: blocks are deleted from it as well, so that the claim is about
the distribution that it was drawn from (see `samples`). Where both sets have the same law, U-statistics are
not normal: intervals of a level are then too wide rather than too narrow.

torchmetrics and torch-fidelity average KID over random subsets and give the spread over overlapping subsets:
that is not a standard error.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from entropy_lib.metrics.clip import unit_rows
from entropy_lib.metrics.samples import Blocks, FeatureRows, feature_matrix, kept, parts_of_rows, same_width
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import Labels, check_pairs

KernelFunction = Callable[
    [Float64[Tensor, "row dim"], Float64[Tensor, "column dim"]], Float64[Tensor, "row column"]
]
Sample = tuple[Float[Tensor, "image dim"], Labels]  # features and their blocks


def polynomial_kernel(
    x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"]
) -> Float64[Tensor, "row column"]:
    """The cubic kernel of KID, (x·y / d + 1)³ (Bińkowski et al., ICLR 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(
    x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"], width: float = 10.0
) -> Float64[Tensor, "row column"]:
    """CMMD's (Jayasumana et al., CVPR 2024): `exp(-|x - y|² / 2 width²)` of rows scaled to length 1."""
    # |x - y|² = 2 - 2 x·y for rows of length 1.
    return torch.exp((unit_rows(x) @ unit_rows(y).T - 1) / width**2)


def squared_mmd(
    features: FeatureRows, reference: FeatureRows, kernel: KernelFunction = polynomial_kernel
) -> float:
    """Unbiased squared maximum mean discrepancy, over all pairs at once (Gretton et al. 2012, Eq. 3).

    Args:
        features, reference: `[n, d]` and `[m, d]`, two images each at least.
        kernel: a function of two parts of the rows.

    Raises:
        InvalidInputError: for matrices that do not fit (see `feature_matrix`).

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        >>> squared_mmd(x, y, lambda x, y: x @ y.T)         # 0·1 + 2·3 - 2 · (0·2 + 0·3 + 1·2 + 1·3) / 4
        3.5
    """
    features, reference = _matrices(features, reference)

    def total(first: Tensor, second: Tensor) -> Tensor:
        return _times(
            first, second, kernel, torch.ones(len(second), 1, dtype=torch.float64, device=second.device)
        ).sum()

    def among(rows: Tensor) -> Tensor:
        itself = sum(kernel(part, part).trace() for _, part in parts_of_rows(rows))
        return (total(rows, rows) - itself) / (len(rows) * (len(rows) - 1))

    across = total(features, reference) / (len(features) * len(reference))
    return float(among(features) + among(reference) - 2 * across)


def kid(features: FeatureRows, reference: FeatureRows) -> float:
    """Kernel Inception distance: `squared_mmd` by default. Published figures are often 1000 times this.

    Example:
        >>> kid(torch.zeros(9, 4), torch.ones(9, 4))                       # 1³ + 2³ - 2 · 1³
        7.0
    """
    return squared_mmd(features, reference, polynomial_kernel)


def kernel_interval(
    features: FeatureRows,
    reference: FeatureRows,
    labels: Labels,
    kernel: KernelFunction = polynomial_kernel,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """Squared MMD over pairs of images in different blocks, with its interval, in one pass.

    Args:
        features, reference, kernel: as for `squared_mmd`; the reference is a sample, whose error counts.
        labels: the block of each generated image, of `statistics.deal_blocks`; three blocks at least.
        reference_labels: the block of each reference image, where both share prompts or the reference has
            several images of one, of `statistics.deal_together`. By default its images are independent, and
            dealt at random.
        level: of the interval.

    Raises:
        InvalidInputError: for matrices or labels that do not fit, or fewer than three blocks.

    Example:
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> print(kernel_interval(images + 0.5, real, deal_blocks(range(500))))
        1.02 [0.906, 1.14]
    """
    features, reference = _matrices(features, reference)
    check_level(level)
    blocks = Blocks.of(labels, len(features), reference_labels, len(reference))
    own = (reference, blocks.reference)
    deletions = _to_reference((features, blocks.images), own, kernel) + _between(own, own, kernel)
    return blocks.interval(deletions, level, correct_bias=False)


def kernel_difference(
    first: FeatureRows,
    second: FeatureRows,
    reference: FeatureRows,
    labels: Labels,
    kernel: KernelFunction = polynomial_kernel,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """How much farther `first` is from the reference than `second`, paired by prompt and seed.

    MMD²(first) - MMD²(second), with the same blocks deleted from all three. `p_value` of the result tests
    that both are equally far.

    Args:
        first, second: `[n, d]`, paired by row.
        reference, labels, kernel, reference_labels, level: as for `kernel_interval`.

    Raises:
        InvalidInputError: for matrices, lengths or labels that do not fit, or fewer than three blocks.

    Example:
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> print(kernel_difference(images + 0.5, images + 0.4, real, deal_blocks(range(500))))
        0.418 [0.384, 0.451]
    """
    check_pairs(len(first), len(second))
    first, reference = _matrices(first, reference)
    second, _ = _matrices(second, reference)
    check_level(level)
    blocks = Blocks.of(labels, len(first), reference_labels, len(reference))
    own = (reference, blocks.reference)
    one, other = (_to_reference((features, blocks.images), own, kernel) for features in (first, second))
    return blocks.interval(one - other, level, correct_bias=False)


def _matrices(features: FeatureRows, reference: FeatureRows) -> tuple[Tensor, Tensor]:
    features, reference = feature_matrix(features, least=2), feature_matrix(reference, "the reference", 2)
    same_width(features, reference)
    return features, reference.to(features.device)


def _times(
    first: Tensor, second: Tensor, kernel: KernelFunction, weights: Float64[Tensor, "other weight"]
) -> Float64[Tensor, "image weight"]:
    """The kernel matrix times `weights`, tile by tile; of one sample, each pair of tiles once."""
    sums = weights.new_zeros(len(first), weights.shape[1])
    for row, some in parts_of_rows(first):
        for column, others in parts_of_rows(second):
            if first is second and column.start < row.start:
                continue
            tile = kernel(some, others)
            sums[row] += tile @ weights[column]
            if first is second and column.start > row.start:
                sums[column] += tile.T @ weights[row]
    return sums


def _to_reference(
    sample: Sample, reference: Sample, kernel: KernelFunction
) -> Float64[np.ndarray, " deletion"]:
    """MMD² less the reference's own mean, of all images and with each block left out."""
    return _between(sample, sample, kernel) - 2 * _between(sample, reference, kernel)


def _between(first: Sample, second: Sample, kernel: KernelFunction) -> Float64[np.ndarray, " deletion"]:
    """Mean kernel over pairs of images in different blocks: of all, and with each block left out of both."""
    count = 1 + int(max(first[1].max(), second[1].max()))

    def compute() -> Float64[np.ndarray, " deletion"]:
        left, right = (_members(labels, count, features.device) for features, labels in (first, second))
        sums = left.T @ _times(first[0], second[0], kernel, right)
        pairs = torch.outer(left.sum(0), right.sum(0))
        return (_off_diagonal(sums) / _off_diagonal(pairs)).cpu().numpy()

    return kept(first[0], second[0], (kernel, first[1].tobytes(), second[1].tobytes()), compute)


def _off_diagonal(values: Float64[Tensor, "block block"]) -> Float64[Tensor, " deletion"]:
    """Sum over pairs of different blocks: of all, and without each block."""
    values = values - values.diagonal().diag()
    return torch.cat([values.sum()[None], values.sum() - values.sum(0) - values.sum(1)])


def _members(labels: Labels, count: int, device: torch.device) -> Float64[Tensor, "image block"]:
    return torch.nn.functional.one_hot(torch.from_numpy(labels), count).to(device, torch.float64)
