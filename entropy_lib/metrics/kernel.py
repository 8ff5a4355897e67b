"""Kernel distances between two sets of features, and which of two methods is nearer to a reference.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)                     (Gretton et al. 2012, Lemma 6)

estimated as a U-statistic over all pairs of different images (Eq. 3), which has no bias whatever the number of images: values
just below 0 are right where two sets are alike. KID is MMD² with the cubic kernel on Inception features (Bińkowski et al.
2018), CMMD with a wide Gaussian kernel on CLIP features (Jayasumana et al. 2024; its own code keeps k(x, x), which biases it).
torchmetrics and torch-fidelity average KID over random subsets and give the spread over overlapping subsets: that is not a
standard error. Here every pair counts once, and the error comes from deleting blocks or from the asymptotic variance.

The reference is a sample too. Unless `fixed_reference` is set, its own error is part of every interval, so that the claim is
about the distribution that the reference was drawn from. "No bias" asks for independent images: several of one prompt, or a
reference that shows the very prompts, make a share of about 1/n of all pairs too alike. Where both sets have the same law,
U-statistics are not normal: intervals of a level are then too wide rather than too narrow.

The kernel matrix is formed in tiles and never held.

Example:
    >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
    >>> round(kid(images, real), 4), round(kid(images + 0.5, real), 4)
    (0.0041, 1.0207)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from entropy_lib.metrics.clip import unit_rows
from entropy_lib.metrics.matrix import Features, blocks, feature_matrix, same_width
from entropy_lib.statistics.intervals import Interval, Labels, check_labels, check_pairs, from_deletions

Kernel = Callable[[Float64[Tensor, "row dim"], Float64[Tensor, "column dim"]], Float64[Tensor, "row column"]]


def polynomial_kernel(x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"]) -> Float64[Tensor, "row column"]:
    """The cubic kernel of KID, (x·y / d + 1)³ (Bińkowski et al., ICLR 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(
    x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"], width: float = 10.0
) -> Float64[Tensor, "row column"]:
    """The kernel of CMMD, exp(-|x - y|² / 2 width²), of rows scaled to length 1 (Jayasumana et al., CVPR 2024)."""
    # |x - y|² = 2 - 2 x·y for rows of length 1.
    return torch.exp((unit_rows(x) @ unit_rows(y).T - 1) / width**2)


def squared_mmd(features: Features, reference: Features, kernel: Kernel = polynomial_kernel) -> float:
    """Unbiased squared maximum mean discrepancy, over all pairs (Gretton et al. 2012, Eq. 3).

    Args:
        features, reference: `[n, d]` and `[m, d]`, two images each at least.
        kernel: a function of two blocks of rows.

    Raises:
        ValueError: for matrices that do not fit (see `feature_matrix`).

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        >>> squared_mmd(x, y, lambda x, y: x @ y.T)                     # 0·1 + 2·3 - 2 · (0·2 + 0·3 + 1·2 + 1·3) / 4
        3.5
    """
    features, reference = _matrices(features, reference)
    among = _among(features, kernel).mean() + _among(reference, kernel).mean()
    return float(among - 2 * _across(features, reference, kernel)[0].mean())


def kid(features: Features, reference: Features) -> float:
    """Kernel Inception distance: `squared_mmd` with `polynomial_kernel`, over all pairs at once.

    Published figures are often 1000 times this.

    Args, Raises: as for `squared_mmd`.

    Example:
        >>> kid(torch.zeros(9, 4), torch.ones(9, 4))                       # 1³ + 2³ - 2 · 1³
        7.0
    """
    return squared_mmd(features, reference, polynomial_kernel)


def cmmd(features: Features, reference: Features) -> float:
    """CLIP-MMD: `squared_mmd` with `gaussian_kernel`, of CLIP embeddings of any length.

    Published figures are 1000 times this.

    Args, Raises: as for `squared_mmd`; and ValueError for an embedding of zeros.

    Example:
        >>> round(cmmd(torch.ones(9, 4), -torch.ones(9, 4)), 4)            # 1 + 1 - 2 exp(-2² / 200)
        0.0396
    """
    return squared_mmd(features, reference, gaussian_kernel)


def kernel_interval(
    features: Features,
    reference: Features,
    labels: Labels,
    kernel: Kernel = polynomial_kernel,
    *,
    level: float = 0.95,
    fixed_reference: bool = False,
) -> Interval:
    """`squared_mmd` with its interval, in one pass over the kernel matrix: blocks of generated images are deleted from sums.

    Args:
        features, reference, kernel: as for `squared_mmd`.
        labels: the block of each generated image, of `statistics.deal_blocks`.
        level: of the interval.
        fixed_reference: speak of the distance to these reference images only, and leave their error out.

    Raises:
        ValueError: for matrices or labels that do not fit.

    Example:
        >>> from entropy_lib.statistics.intervals import deal_blocks
        >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> print(kernel_interval(images + 0.5, real, deal_blocks(range(500))))
        1.02 [0.89, 1.15]
    """
    features, reference = _matrices(features, reference)
    labels = check_labels(labels, len(features))
    method, among = _Method.of(features, reference, kernel, labels), _among(reference, kernel)
    deletions = method.deletions(labels) + float(among.mean())
    influence = None if fixed_reference else among - method.columns
    return _interval(deletions, labels, influence, level)


def kernel_difference(
    first: Features,
    second: Features,
    reference: Features,
    labels: Labels,
    kernel: Kernel = polynomial_kernel,
    *,
    level: float = 0.95,
    fixed_reference: bool = False,
) -> Interval:
    """How much farther `first` is from the reference than `second`, row i of both being the same prompt and seed.

    MMD²(first) - MMD²(second), with the same blocks deleted from both. `p_value` of the result tests that both are equally
    far. For methods that share nothing but the reference, see `relative_test`.

    Args:
        first, second: `[n, d]`, paired by row.
        reference, labels, kernel, level, fixed_reference: as for `kernel_interval`.

    Raises:
        ValueError: for matrices, lengths or labels that do not fit.

    Example:
        >>> from entropy_lib.statistics.intervals import deal_blocks
        >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> print(kernel_difference(images + 0.5, images + 0.4, real, deal_blocks(range(500))))
        0.418 [0.382, 0.453]
    """
    check_pairs(len(first), len(second))
    labels = check_labels(labels, len(first))
    one, other = (_Method.of(*_matrices(features, reference), kernel, labels) for features in (first, second))
    influence = None if fixed_reference else one.columns - other.columns
    return _interval(one.deletions(labels) - other.deletions(labels), labels, influence, level)


def relative_test(
    first: Features, second: Features, reference: Features, kernel: Kernel = polynomial_kernel, *, level: float = 0.95
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
        ValueError: for matrices that do not fit.

    Example:
        >>> near, far, real = torch.randn(3, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> test = relative_test(far + 0.5, near + 0.4, real)
        >>> print(test, test.p_value < 0.001)
        0.411 [0.269, 0.553] True
    """
    one, other = (_Method.of(*_matrices(features, reference), kernel) for features in (first, second))
    parts = (one.influence, other.influence, one.columns - other.columns)
    error = math.sqrt(sum(_variance(part) for part in parts))
    return Interval.around(one.value - other.value, error, level)


@dataclass(frozen=True, eq=False)
class _Method:
    """Everything about a method that does not depend on the reference's own kernel matrix."""

    inside: Float64[Tensor, "image block"]  # sums over the other images in each block
    rows: Float64[Tensor, " image"]  # mean over the reference
    columns: Float64[Tensor, " reference"]  # mean over the method's images

    @classmethod
    def of(cls, features: Tensor, reference: Tensor, kernel: Kernel, labels: Labels | None = None) -> "_Method":
        rows, columns = _across(features, reference, kernel)
        return cls(_inside(features, kernel, labels), rows, columns)

    @property
    def influence(self) -> Float64[Tensor, " image"]:
        """Half of what each image contributes to MMD², to first order."""
        return self.inside.sum(1) / (len(self.rows) - 1) - self.rows

    @property
    def value(self) -> float:
        """MMD² less the reference's own mean, which cancels between methods."""
        return float((self.influence - self.rows).mean())

    def deletions(self, labels: Labels) -> Float64[np.ndarray, " deletion"]:
        """`value`, then with each block left out."""
        member = _members(labels, self.rows.device)
        inside, rows = member.T @ self.inside, member.T @ self.rows
        kept = len(self.rows) - member.sum(0)
        left = inside.sum() - 2 * inside.sum(1) + inside.diagonal()
        without = left / (kept * (kept - 1)) - 2 * (rows.sum() - rows) / kept
        return np.array([self.value, *without.tolist()])


def _interval(
    deletions: Float64[np.ndarray, " deletion"], labels: Labels, influence: Float64[Tensor, " reference"] | None, level: float
) -> Interval:
    """Jackknife over generated images, plus the variance that comes from the reference."""
    generated = from_deletions(deletions[0], deletions[1:], np.bincount(labels), level, correct_bias=False)
    variance = generated.standard_error**2 + (0.0 if influence is None else _variance(influence))
    return Interval.around(generated.estimate, math.sqrt(variance), level, generated.blocks)


def _variance(influence: Float64[Tensor, " image"]) -> float:
    """Of a statistic to which each image contributes twice its influence, divided by their number."""
    return float(4 * influence.var() / len(influence))


def _inside(features: Tensor, kernel: Kernel, labels: Labels | None = None) -> Float64[Tensor, "image block"]:
    """For each image, the kernel summed over the other images of each block (of one block without labels)."""
    member = _members(np.zeros(len(features), int) if labels is None else labels, features.device)
    sums = torch.zeros_like(member)
    for row, some in blocks(features):
        for column, others in blocks(features):
            tile = kernel(some, others)
            if row == column:
                tile = tile - tile.diagonal().diag()
            sums[row] += tile @ member[column]
    return sums


def _among(features: Tensor, kernel: Kernel) -> Float64[Tensor, " image"]:
    """Mean kernel of each image with the others."""
    return _inside(features, kernel)[:, 0] / (len(features) - 1)


def _across(features: Tensor, reference: Tensor, kernel: Kernel) -> tuple[Float64[Tensor, " image"], Float64[Tensor, " reference"]]:
    """Mean kernel of each image with the reference, and of each reference image with the images."""
    rows, columns = (torch.zeros(len(values), dtype=torch.float64, device=features.device) for values in (features, reference))
    for row, some in blocks(features):
        for column, others in blocks(reference):
            tile = kernel(some, others)
            rows[row] += tile.sum(1)
            columns[column] += tile.sum(0)
    return rows / len(reference), columns / len(features)


def _members(labels: Labels, device: torch.device) -> Float64[Tensor, "image block"]:
    """1 where an image belongs to a block."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels)).to(device, torch.float64)


def _matrices(features: Features, reference: Features) -> tuple[Tensor, Tensor]:
    features, reference = feature_matrix(features, least=2), feature_matrix(reference, "the reference", least=2)
    same_width(features, reference)
    return features, reference.to(features.device)
