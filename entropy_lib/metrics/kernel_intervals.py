"""Kernel distances with their intervals, and which of two methods is nearer to a reference.

torchmetrics and torch-fidelity average KID over random subsets and give the spread over overlapping subsets: that is not a
standard error. Here the error comes from deleting blocks, or from the asymptotic variance.

"No bias" asks for independent images. Several of one prompt, or a reference that shows the very prompts, make a share of about
1/n of all pairs too alike, and KID too large or too small: with 70 prompts twice, by as much as KID itself. Intervals therefore
come from pairs of images in *different blocks* only, blocks being made of whole prompts. The reference is a sample too: blocks
are deleted from it as well, so that the claim is about the distribution that it was drawn from (see `deletion`). Where both
sets have the same law, U-statistics are not normal: intervals of a level are then too wide rather than too narrow.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from entropy_lib.metrics.deletion import Blocks
from entropy_lib.metrics.kernel import KernelFunction, matrices, means, others, polynomial_kernel, weighted
from entropy_lib.metrics.matrix import FeatureRows
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import Labels, check_pairs


def kernel_interval(
    features: FeatureRows,
    reference: FeatureRows,
    labels: Labels,
    kernel: KernelFunction = polynomial_kernel,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """Squared MMD over pairs of images in different blocks, with its interval, in one pass over the kernel matrix.

    Args:
        features, reference, kernel: as for `squared_mmd`; the reference is a sample, whose error counts.
        labels: the block of each generated image, of `statistics.deal_blocks`; three blocks at least.
        reference_labels: the block of each reference image, where both share prompts or the reference has several images of
            one, of `statistics.deal_together`. By default its images are independent, and dealt at random.
        level: of the interval.

    Raises:
        InvalidInputError: for matrices or labels that do not fit, or fewer than three blocks.

    Example:
        >>> from entropy_lib.statistics.resampling import deal_blocks
        >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> print(kernel_interval(images + 0.5, real, deal_blocks(range(500))))
        1.02 [0.906, 1.14]
    """
    features, reference = matrices(features, reference)
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
    """How much farther `first` is from the reference than `second`, row i of both being the same prompt and seed.

    MMD²(first) - MMD²(second), with the same blocks deleted from all three. `p_value` of the result tests that both are
    equally far. For methods that share nothing but the reference, see `relative_test`.

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
    first, reference = matrices(first, reference)
    second, _ = matrices(second, reference)
    check_level(level)
    blocks = Blocks.of(labels, len(first), reference_labels, len(reference))
    own = (reference, blocks.reference)
    one, other = (_to_reference((features, blocks.images), own, kernel) for features in (first, second))
    return blocks.interval(one - other, level, correct_bias=False)


def relative_test(
    first: FeatureRows,
    second: FeatureRows,
    reference: FeatureRows,
    kernel: KernelFunction = polynomial_kernel,
    *,
    level: float = 0.95,
) -> Interval:
    """How much farther `first` is from the reference than `second`, three samples independent of each other.

    MMD²(first) - MMD²(second) is asymptotically normal; its variance follows from that of the two U-statistics and their
    covariance through the reference they share (Bounliphone et al., ICLR 2016). To first order it is

        4 [Var h(first) / n + Var h(second) / n' + Var (mean k(first, r) - mean k(second, r)) / m]

    with h(x) the mean kernel of x with the other images of its method, less that with the reference. The samples may differ
    in size. Where methods share prompts and seeds they are not independent: use `kernel_difference`, which is also sharper.

    Args:
        first, second, reference: `[n, d]`, `[n', d]`, `[m, d]`.
        kernel, level: as for `kernel_interval`.

    Returns:
        A normal interval (its `blocks` is None); `p_value` tests, on both sides, that both are equally far.

    Raises:
        InvalidInputError: for matrices that do not fit.

    Example:
        >>> near, far, real = torch.randn(3, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> test = relative_test(far + 0.5, near + 0.4, real)
        >>> print(test, test.p_value < 0.001)
        0.411 [0.269, 0.553] True
    """
    check_level(level)
    (value, parts, columns), (other, other_parts, other_columns) = (
        _projected(*matrices(features, reference), kernel) for features in (first, second)
    )
    error = math.sqrt(sum(float(4 * part.var() / len(part)) for part in (parts, other_parts, columns - other_columns)))
    return Interval.around(value - other, error, level)


def _projected(
    features: Tensor, reference: Tensor, kernel: KernelFunction
) -> tuple[float, Float64[Tensor, " image"], Float64[Tensor, " reference"]]:
    """MMD² less the reference's own mean, h of each image, and the mean kernel of each reference image with the images."""
    rows = means(features, reference, kernel)
    parts = others(features, kernel) - rows
    return float((parts - rows).mean()), parts, means(reference, features, kernel)


Sample = tuple[Float[Tensor, "image dim"], Labels]  # features and their blocks


def _to_reference(sample: Sample, reference: Sample, kernel: KernelFunction) -> Float64[np.ndarray, " deletion"]:
    """MMD² less the reference's own mean, of all images and with each block left out."""
    return _between(sample, sample, kernel) - 2 * _between(sample, reference, kernel)


def _between(first: Sample, second: Sample, kernel: KernelFunction) -> Float64[np.ndarray, " deletion"]:
    """Mean kernel over pairs of images in different blocks: of all, and with each block left out of both."""
    count = 1 + int(max(first[1].max(), second[1].max()))
    left, right = (_members(labels, count, features.device) for features, labels in (first, second))
    sums, pairs = left.T @ weighted(first[0], second[0], kernel, right), torch.outer(left.sum(0), right.sum(0))
    return (_off_diagonal(sums) / _off_diagonal(pairs)).cpu().numpy()


def _off_diagonal(values: Float64[Tensor, "block block"]) -> Float64[Tensor, " deletion"]:
    """Sum over pairs of different blocks: of all, and without each block."""
    values = values - values.diagonal().diag()
    return torch.cat([values.sum()[None], values.sum() - values.sum(0) - values.sum(1)])


def _members(labels: Labels, count: int, device: torch.device) -> Float64[Tensor, "image block"]:
    """1 where an image belongs to a block."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels), count).to(device, torch.float64)
