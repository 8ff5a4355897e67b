"""Kernel distances between two sets of features, and which of two methods is nearer to a reference.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)                     (Gretton et al. 2012, Lemma 6)

estimated as a U-statistic over all pairs of different images (Eq. 3), which has no bias whatever the number of images: values
just below 0 are right where two sets are alike. KID is MMD² with the cubic kernel on Inception features (Bińkowski et al.
2018), CMMD with a wide Gaussian kernel on CLIP features (Jayasumana et al. 2024; its own code keeps k(x, x), which biases it).
Every pair counts once.

"No bias" asks for independent images; see `kernel_intervals` for what to do where they are not.

The kernel matrix is formed in tiles and never held.

Example:
    >>> images, real = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
    >>> round(kid(images, real), 4), round(kid(images + 0.5, real), 4)
    (0.0041, 1.0207)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from entropy_lib.metrics.clip import unit_rows
from entropy_lib.metrics.matrix import FeatureRows, blocks_of_rows, feature_matrix, same_width

KernelFunction = Callable[[Float64[Tensor, "row dim"], Float64[Tensor, "column dim"]], Float64[Tensor, "row column"]]


def polynomial_kernel(x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"]) -> Float64[Tensor, "row column"]:
    """The cubic kernel of KID, (x·y / d + 1)³ (Bińkowski et al., ICLR 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(
    x: Float64[Tensor, "row dim"], y: Float64[Tensor, "column dim"], width: float = 10.0
) -> Float64[Tensor, "row column"]:
    """The kernel of CMMD, `exp(-|x - y|² / 2 width²)`, of rows scaled to length 1 (Jayasumana et al., CVPR 2024)."""
    # |x - y|² = 2 - 2 x·y for rows of length 1.
    return torch.exp((unit_rows(x) @ unit_rows(y).T - 1) / width**2)


def squared_mmd(features: FeatureRows, reference: FeatureRows, kernel: KernelFunction = polynomial_kernel) -> float:
    """Unbiased squared maximum mean discrepancy, over all pairs (Gretton et al. 2012, Eq. 3).

    Args:
        features, reference: `[n, d]` and `[m, d]`, two images each at least.
        kernel: a function of two blocks of rows.

    Raises:
        InvalidInputError: for matrices that do not fit (see `feature_matrix`).

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        >>> squared_mmd(x, y, lambda x, y: x @ y.T)                     # 0·1 + 2·3 - 2 · (0·2 + 0·3 + 1·2 + 1·3) / 4
        3.5
    """
    features, reference = matrices(features, reference)
    among = others(features, kernel).mean() + others(reference, kernel).mean()
    return float(among - 2 * means(features, reference, kernel).mean())


def kid(features: FeatureRows, reference: FeatureRows) -> float:
    """Kernel Inception distance: `squared_mmd` with `polynomial_kernel`, over all pairs at once.

    Published figures are often 1000 times this.

    Args, Raises: as for `squared_mmd`.

    Example:
        >>> kid(torch.zeros(9, 4), torch.ones(9, 4))                       # 1³ + 2³ - 2 · 1³
        7.0
    """
    return squared_mmd(features, reference, polynomial_kernel)


def cmmd(features: FeatureRows, reference: FeatureRows) -> float:
    """CLIP-MMD: `squared_mmd` with `gaussian_kernel`, of CLIP embeddings of any length.

    Published figures are 1000 times this.

    Args, Raises: as for `squared_mmd`; and InvalidInputError for an embedding of zeros.

    Example:
        >>> round(cmmd(torch.ones(9, 4), -torch.ones(9, 4)), 4)            # 1 + 1 - 2 exp(-2² / 200)
        0.0396
    """
    return squared_mmd(features, reference, gaussian_kernel)


def others(features: Tensor, kernel: KernelFunction) -> Float64[Tensor, " image"]:
    """Mean kernel of each image with the others."""
    itself = torch.cat([kernel(block, block).diagonal() for _, block in blocks_of_rows(features)])
    return (means(features, features, kernel) * len(features) - itself) / (len(features) - 1)


def means(first: Tensor, second: Tensor, kernel: KernelFunction) -> Float64[Tensor, " image"]:
    """Mean kernel of each image with all of another set."""
    weights = torch.full((len(second), 1), 1 / len(second), dtype=torch.float64, device=second.device)
    return weighted(first, second, kernel, weights)[:, 0]


def weighted(
    first: Tensor, second: Tensor, kernel: KernelFunction, weights: Float64[Tensor, "other weight"]
) -> Float64[Tensor, "image weight"]:
    """The kernel matrix times `weights`, tile by tile."""
    sums = weights.new_zeros(len(first), weights.shape[1])
    for row, some in blocks_of_rows(first):
        for column, others in blocks_of_rows(second):
            sums[row] += kernel(some, others) @ weights[column]
    return sums


def matrices(features: FeatureRows, reference: FeatureRows) -> tuple[Tensor, Tensor]:
    """Both as tensors on one device, after checking them."""
    features, reference = feature_matrix(features, least=2), feature_matrix(reference, "the reference", least=2)
    same_width(features, reference)
    return features, reference.to(features.device)
