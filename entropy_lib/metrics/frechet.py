"""Fréchet distance between two sets of features, each described by its mean and covariance.

    FD = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1^½ S2 S1^½)^½          (Dowson and Landau 1982; Heusel et al. 2017, Eq. 6)

With Inception features it is the FID. The matrix under the last root is symmetric, so its eigenvalues are real: there is no
imaginary part to throw away, as there is with a general matrix root of S1 S2. With fewer images than features, the last
trace is the sum of singular values of X1 X2ᵀ / sqrt((n1 - 1)(n2 - 1)), X being the centred features (FastFID, Mathiasen and
Hvilshøj 2020): the same number, without any d x d matrix.

The distance of n images is biased upwards, by about c/n; c depends on the method, so that equal n does not make two methods
comparable (Chong and Forsyth 2020): see `frechet_intervals`.

Example:
    >>> import torch
    >>> images = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(images, images + 1.0), 6)                         # moved by 1 in each of 8 directions
    8.0
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from entropy_lib.metrics.matrix import FeatureRows, feature_matrix, same_width
from entropy_lib.metrics.state import FeatureState

ENOUGH = 2  # images per feature, below which no interval of a level covers (see above)


class FewImagesWarning(UserWarning):
    """So few images for so many features that a Fréchet distance is mostly bias."""


def frechet_distance(features: FeatureRows | FeatureState, reference: FeatureRows | FeatureState) -> float:
    """Fréchet distance between two sets of images, biased upwards by about c/n as always (see `frechet_intervals`).

    Two matrices with fewer images than features are compared without forming a covariance; everything else by way of
    states. Both ways give the same number.

    Args:
        features, reference: feature matrices `[n, d]`, or states of them.

    Returns:
        The distance, in squared units of a feature; 0 for equal means and covariances.

    Raises:
        InvalidInputError: if the widths or extractors differ, or a set has fewer than 2 images.

    Warns:
        FewImagesWarning: if a set has fewer than two images for each feature.

    Example:
        >>> import torch
        >>> def normal(mean, variance, count=1000):
        ...     return FeatureState(count, torch.tensor([mean]).double(), torch.tensor([[variance * (count - 1)]]).double())
        >>> frechet_distance(normal(3.0, 4.0), normal(0.0, 1.0))                  # 3² + (2 - 1)²
        10.0
    """
    first, second = checked_features(features, "features"), checked_features(reference, "the reference")
    warn_of_few(*images_and_width(first), "features")
    warn_of_few(*images_and_width(second), "the reference")
    if isinstance(first, Tensor) and isinstance(second, Tensor) and max(len(first), len(second)) < first.shape[1]:
        same_width(first, second)
        return _low_rank_distance(first.double(), second.double().to(first.device))
    state = state_of(first)
    return RootedState.of(state_of(second).to(state.mean.device)).distance(state)


@dataclass(frozen=True, eq=False)
class RootedState:
    """A state with the root of its covariance, so that a distance to it costs one eigenvalue problem."""

    state: FeatureState
    root: Float64[Tensor, "dim dim"]  # root @ root.T is the covariance

    @classmethod
    def of(cls, state: FeatureState) -> "RootedState":
        """The state itself, and the root."""
        values, vectors = torch.linalg.eigh(state.covariance)
        return cls(state, vectors * values.clamp(min=0).sqrt())

    def distance(self, state: FeatureState) -> float:
        """The Fréchet distance to another state."""
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


def checked_features(features: FeatureRows | FeatureState, name: str) -> Tensor | FeatureState:
    """A state as it is, or a matrix of two images at least."""
    return features if isinstance(features, FeatureState) else feature_matrix(features, name, least=2)


def state_of(features: Tensor | FeatureState) -> FeatureState:
    """The state of a matrix, or the state that it is."""
    return features if isinstance(features, FeatureState) else FeatureState.of(features)


def images_and_width(features: Tensor | FeatureState) -> tuple[int, int]:
    """Images and features."""
    return (features.count, len(features.mean)) if isinstance(features, FeatureState) else tuple(features.shape)


def warn_of_few(images: int, width: int, name: str) -> None:
    """Warn whoever called the caller of fewer images than a Fréchet distance needs."""
    if images < ENOUGH * width:
        message = f"{name}: {images} images for {width} features; the distance is mostly bias below {ENOUGH * width} images. "
        message += "Read it as a comparison at equal n at best, or use KID, which has no bias"
        warnings.warn(message, FewImagesWarning, stacklevel=3)
