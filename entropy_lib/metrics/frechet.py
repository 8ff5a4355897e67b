"""Fréchet distance between two sets of features, each described by its mean and covariance.

    FD = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1^½ S2 S1^½)^½    (Dowson and Landau 1982; Heusel et al. 2017)

With Inception features it is the FID. The matrix under the last root is symmetric, so its eigenvalues are
real: there is no imaginary part to throw away, as there is with a general matrix root of S1 S2.

**Standard error.** The distance is smooth in means and covariances, so that a sample's error is, to first
order, a mean over its images of their influences (delta method). With T the symmetric matrix for which T S1 T
= S2, the optimal transport between the two Gaussians,

    IF(x) = 2 (m1 - m2)·(x - m1) + |x - m1|² - (x - m1)ᵀ T (x - m1), less its mean,

and likewise for an image of the reference, with T⁻¹. One eigenvalue problem gives all of them. Influences are
summed over the images of a label (a prompt, or a block of prompts) in both samples: what those share counts
as shared.

**Bias.** The distance of n images is biased upwards, by about c/n, and c depends on the method, so that equal
n does not make two methods comparable (Chong and Forsyth 2020). In coordinates in which S1 and S2 are both
diag(s) the term of second order is ½ Σ_ij (dS1 - dS2)_ij² / (s_i + s_j): summed over labels it is the bias of
order 1/n. What this leaves, of order 1/n², is taken off by Richardson's extrapolation from halves.

**Deleting blocks** (`way="blocks"`) does both without any derivative, at one eigenvalue problem for each
block. It is what the closed form is tested against, and what is taken where there are fewer than
`CLOSED_FORM` independent images a feature. Those of a prompt count as one as far as they are alike: as the
sums over labels vary more than those of independent images would, in whole numbers.

A reference that is a matrix is a sample too: its bias is taken off and its error counts. A reference that is
a state is taken as it is: the distance is that to *these* images.

How often 95 % intervals held the true distance (Gaussian features, d = 32, 20 blocks, 200 repetitions;
influence / blocks, in %; * where blocks are taken):

    images per feature                        2          3           5          10         30
    equal variances, reference a state     99*/90     99/94      100/96      98/96      96/98
    reference a sample                     96*/97     96/99       98/100     98/96      97/98
      of the same prompts                  96*/98     95/98       96/96      96/96      96/95
      four images of each, in both         14*/85     44*/96      78*/95     93/96      98/98
      half of these prompts in both        99*/100    94*/100     74*/98     94/98      97/96
    variances like 1/k, a state            94*/91     95/94       94/94      94/93      94/94
    reference a sample                     96*/94     94/96       96/94      94/94      96/96
      of the same prompts                  96*/94     92/92       96/96      95/95      92/92

Where the two disagree, blocks are right: images of a prompt that both samples show are too few for a
derivative long before the images are. (At two images a feature and d = 128 influences covered 62 %.)
`benchmarks/coverage.py` repeats it.

**Memory** beside the features, of which a part is read at a time, is four matrices of d x d in float64 and
those parts, whatever the number of images: all is done in place. One of the four, of the reference's halves,
is kept for the next distance.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.metrics.samples import PART, Blocks, FeatureRows, feature_matrix, kept, same_width
from entropy_lib.metrics.state import FeatureState
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.resampling import Labels, check_pairs

ENOUGH = 2  # images per feature, below which no interval of a level covers (see above)
CLOSED_FORM = 3  # independent images per feature, below which influences cover too little
GROUPS = 32  # of labels, which second derivatives are averaged over: each costs a pass over a d x d matrix
LABELS = 8  # fewer are not halved
NULL = 1e-10  # smaller parts of the largest eigenvalue are rounding: directions without images

Way = Literal["influence", "blocks"]


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
        >>> round(frechet_distance(images, images + 1.0), 6)         # moved by 1 in each of 8 directions
        8.0
        >>> def normal(mean, variance, count=1000):
        ...     scatter = torch.tensor([[variance * (count - 1)]]).double()
        ...     return FeatureState(count, torch.tensor([mean]).double(), scatter)
        >>> frechet_distance(normal(3.0, 4.0), normal(0.0, 1.0))                  # 3² + (2 - 1)²
        10.0
    """
    state = _state(_checked(features, "features"))
    known = _state(_checked(reference, "the reference"))
    state.check(known)
    return _distance(Moments.of(state), Moments.of(known))[0]


def frechet_interval(
    features: FeatureRows,
    reference: FeatureRows | FeatureState,
    labels: Labels,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
    way: Way | None = None,
) -> Interval:
    """The Fréchet distance without the bias of few images, and its interval.

    Args:
        features: `[n, d]`, n at least 2 d.
        reference: a matrix, which is a sample like the features; or a state, which is taken as it is.
        labels: what is independent: the block of each image, of `statistics.deal_blocks`, or its
            prompt's number.
        reference_labels: as for `kernel_interval`.
        level: of the interval.
        way: "influence" or "blocks" (see above); None: influence, from three independent images a feature on
            either side. The interval says which.

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
        -0.0213 [-0.0778, 0.0352]
    """
    features, known = feature_matrix(features, least=2).cpu(), _checked(reference, "the reference")
    count, width = features.shape
    if count < ENOUGH * width:
        raise InvalidInputError(
            f"{count} images for {width} features: too few for the level of a Fréchet distance, no interval "
            f"would cover it. Generate at least {ENOUGH * width} (in each part), or report KID or the paired "
            "difference of two methods"
        )
    return _interval([features], known, (labels, reference_labels), level, way)


def frechet_difference(
    first: FeatureRows,
    second: FeatureRows,
    reference: FeatureRows | FeatureState,
    labels: Labels,
    *,
    reference_labels: Labels | None = None,
    level: float = 0.95,
    way: Way | None = None,
) -> Interval:
    """How much farther `first` is from the reference than `second`, row i of both being the same prompt and
    seed.

    Influences are subtracted label by label, and the bias, which differs between methods, is taken off the
    difference. `p_value` of the result tests that both are equally far.

    Args:
        first, second: `[n, d]`, paired by row.
        reference, labels, reference_labels, level, way: as for `frechet_interval`.

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
    methods = [_checked(first, "features"), feature_matrix(second, "the second features", least=2).cpu()]
    return _interval(methods, _checked(reference, "the reference"), (labels, reference_labels), level, way)


def _checked(features: FeatureRows | FeatureState, name: str) -> Tensor | FeatureState:
    """A state as it is, or a matrix of two images at least; whoever called the caller is warned where it
    holds few.
    """
    if not isinstance(features, FeatureState):
        features = feature_matrix(features, name, least=2)
    features = features.to("cpu")
    state = isinstance(features, FeatureState)
    count, width = (features.count, len(features.mean)) if state else features.shape
    if count < ENOUGH * width:
        warnings.warn(
            f"{name}: {count} images for {width} features; the distance is mostly bias below "
            f"{ENOUGH * width} images. Read it as a comparison at equal n at best, or use KID, which has no "
            "bias",
            FewImagesWarning,
            stacklevel=3,
        )
    return features


def _state(features: Tensor | FeatureState) -> FeatureState:
    """The state of a matrix, or the state that it is."""
    return features if isinstance(features, FeatureState) else FeatureState.of(features)


class Moments(NamedTuple):
    """Mean and covariance of a sample. The covariance is used up: what is found from it takes its place."""

    mean: Float64[Tensor, " dim"]
    covariance: Float64[Tensor, "dim dim"]

    @classmethod
    def of(cls, state: FeatureState) -> "Moments":
        """Those of a state, which stays as it is."""
        return cls(state.mean, state.covariance)


def _distance(first: Moments, second: Moments) -> tuple[float, Float64[Tensor, " rank"]]:
    """The distance, and the roots of the eigenvalues of S1^½ S2 S1^½, at one eigenvalue problem."""
    apart = _apart(first, second)
    values = scipy.linalg.eigvalsh(_product(first, second)[0], overwrite_a=True, check_finite=False)
    roots = torch.from_numpy(values).clamp(min=0).sqrt()
    return max(0.0, apart - 2 * float(roots.sum())), roots  # rounding can take one of 0 just below it


def _apart(first: Moments, second: Moments) -> float:
    """The distance but for its last term."""
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces)


def _product(
    first: Moments, second: Moments
) -> tuple[
    Float64[np.ndarray, "rank rank"], Float64[np.ndarray, "rank rank"], Float64[np.ndarray, "dim rank"] | None
]:
    """RᵀS1R, with RRᵀ = S2, whose eigenvalues are those of S1^½ S2 S1^½; and R: lower triangles.

    Where S2 is singular (of fewer images than features) both are of the directions that it has: the third
    matrix, else None.
    """
    # transposed, a matrix is in Fortran's order, which LAPACK overwrites
    own, known = first.covariance.numpy().T, second.covariance.numpy().T
    diagonal, basis = known.diagonal().copy(), None
    root, singular = scipy.linalg.lapack.dpotrf(known, lower=1, clean=0, overwrite_a=1)
    if singular:  # the upper triangle is what it was
        known = np.triu(known, 1) + np.triu(known, 1).T + np.diag(diagonal)
        values, basis = scipy.linalg.eigh(known, check_finite=False)
        found = values >= NULL * values[-1]
        basis, root = basis[:, found], np.diag(np.sqrt(values[found].clip(0)))
        own = basis.T @ own @ basis
    product, _ = scipy.linalg.lapack.dsygst(own, root, itype=2, lower=1, overwrite_a=1)
    return product, root, basis


def _interval(
    methods: Sequence[Tensor],
    reference: Tensor | FeatureState,
    labels: tuple[Labels, Labels | None],
    level: float,
    way: Way | None,
) -> Interval:
    """Of a method's distance, or of how much farther the first of two methods is than the second."""
    check_level(level)
    if way not in (None, "influence", "blocks"):
        raise UnknownNameError("way", way, ["influence", "blocks"])
    sampled = isinstance(reference, Tensor)
    for features in methods:
        same_width(features, reference if sampled else reference.mean)
    blocks = Blocks.of(labels[0], len(methods[0]), labels[1], len(reference) if sampled else None)
    samples = [(features, blocks.images) for features in methods]
    samples += [(reference, blocks.reference)] if sampled else []
    # what does not vary has no derivative
    varied = all(_varies(features) for features in (*methods, reference))
    enough = varied and all(_covered(*sample, blocks) for sample in samples)
    if way == "influence" and varied and not enough:
        raise InvalidInputError(
            f"{min(len(features) for features, _ in samples)} images of {blocks.count} labels for "
            f"{methods[0].shape[1]} features: too few for way='influence', which needs {CLOSED_FORM} "
            f"independent images a feature and {LABELS} labels; take way='blocks'"
        )
    if way == "blocks" or not enough:
        return _by_deletion(methods, reference, blocks, level)
    found = [
        kept(reference, features, blocks.key, lambda features=features: _measure(features, reference, blocks))
        for features in methods
    ]
    estimate, influences = (first - sum(second) for first, *second in zip(*found, strict=True))
    error = np.sqrt(blocks.count / (blocks.count - 1) * np.square(influences).sum())
    return replace(Interval.around(estimate, error, level, blocks.count), way="influence")


def _varies(features: Tensor | FeatureState) -> bool:
    if isinstance(features, FeatureState):
        return bool(features.scatter.trace() > 0)
    return not all(bool((part == features[0]).all()) for part in features.split(PART))


def _covered(features: Tensor, labels: Labels, blocks: Blocks) -> bool:
    """Whether a sample is large enough for influences.

    Where images of a label have something in common, as many count as one as their sum varies more than that
    of independent ones would.
    """
    count, width = features.shape
    halves = np.bincount(_groups(blocks)[labels] % 2, minlength=2)
    if count < CLOSED_FORM * width or min(halves) < 2 or blocks.count < LABELS:
        return False
    as_one = kept(features, features, labels.tobytes(), lambda: _images_as_one(features, labels))
    return count >= CLOSED_FORM * width * round(as_one)


def _images_as_one(features: Tensor, labels: Labels) -> float:
    """How much more sums over labels vary than those of as many independent images would; 1 at least."""
    sums, squares = torch.zeros(labels.max() + 1, features.shape[1], dtype=torch.float64), 0.0
    for rows in torch.arange(len(features)).split(PART):
        part = features[rows].double() - features[0]
        sums.index_add_(0, torch.from_numpy(labels)[rows], part)
        squares += float(part.square().sum())
    mean, sizes = sums.sum(0) / len(features), torch.from_numpy(np.bincount(labels))[:, None]
    alone = squares - len(features) * mean.square().sum()
    return max(1.0, float((sums - sizes * mean).square().sum() / alone))


def _by_deletion(
    methods: Sequence[Tensor], reference: Tensor | FeatureState, blocks: Blocks, level: float
) -> Interval:
    """The jackknife: the state of each block is subtracted from that of all."""
    states, known = [FeatureState.of(features) for features in methods], _state(reference)
    compared, found = known, []
    for block in range(-1, blocks.count):
        if isinstance(reference, Tensor) and block >= 0:
            compared = _without(known, reference, blocks.reference == block)
        left = [_without(*pair, blocks.images == block) for pair in zip(states, methods, strict=True)]
        found.append([_distance(Moments.of(state), Moments.of(compared))[0] for state in left])
    first, *second = np.array(found).T
    return blocks.interval(first - sum(second), level, correct_bias=True)


def _without(
    state: FeatureState, features: Float[Tensor, "image dim"], chosen: Bool[np.ndarray, " image"]
) -> FeatureState:
    return state - FeatureState.of(features, rows=_places(chosen)) if chosen.any() else state


def _places(chosen: Bool[np.ndarray, " image"]) -> Int[Tensor, " row"]:
    return torch.from_numpy(np.flatnonzero(chosen))


def _groups(blocks: Blocks) -> Labels:
    """The group of each label, at random: `GROUPS` of them, the even ones one half."""
    return np.random.default_rng(0).permutation(blocks.count) % GROUPS


def _measure(
    features: Tensor, reference: Tensor | FeatureState, blocks: Blocks
) -> tuple[float, Float64[np.ndarray, " label"]]:
    """The distance without its bias, and the influences of each label, in both samples, which sum to 0."""
    groups, sampled = _groups(blocks), isinstance(reference, Tensor)
    if sampled:
        others = kept(
            reference, reference, blocks.key, lambda: Halves.of(reference, groups[blocks.reference])
        )
    own = Halves.of(features, groups[blocks.images])
    half_distance = half_curvature = 0.0
    for number in range(2):
        distance, roots = _distance(
            own.half(number), others.half(number) if sampled else Moments.of(reference)
        )
        half_distance += distance / 2
        half_curvature += _curvature(roots) / 2
    state, known = own.whole(), others.whole() if sampled else Moments.of(reference)
    del own
    apart, means = _apart(state, known), (state.mean, known.mean)
    roots, maps = _common_coordinates(state, known)
    del state, known  # what maps were found in
    double = torch.float64 in (features.dtype, getattr(reference, "dtype", None))
    maps = [each.to(torch.float64 if double else torch.float32) for each in maps]
    away, whole = means[0] - means[1], max(0.0, apart - 2 * float(roots.sum()))
    samples = [Side(features, blocks.images, means[0], maps[0], away, 1)]
    if sampled:
        samples.append(Side(reference, blocks.reference, means[1], maps[1], -away, -1))
    influences, of_means, of_covariances = _derivatives(samples, roots, groups)
    # Halves have twice the bias of means, and of covariances by as much more as their curvature is higher;
    # (4 F(n) - F(n/2)) / 3 is without the next order.
    ratio = half_curvature / _curvature(roots)
    left = 2 * of_means + (4 - 2 * ratio) * of_covariances
    return (4 * whole - half_distance - left) / 3, influences


@dataclass(frozen=True, eq=False)
class Halves:
    """The states of two halves of a sample, in one matrix: of a symmetric one a triangle is enough."""

    counts: tuple[int, int]
    means: tuple[Float64[Tensor, " dim"], Float64[Tensor, " dim"]]
    scatters: Float64[Tensor, "dim dim"]  # the first half's in the upper triangle, the second's in the lower
    diagonal: Float64[Tensor, " dim"]  # of the second half's

    @classmethod
    def of(cls, features: Tensor, groups: Labels) -> "Halves":
        """The images of even groups, and those of odd ones."""
        first, second = (FeatureState.of(features, rows=_places(groups % 2 == half)) for half in range(2))
        diagonal = second.scatter.diagonal().clone()
        scatters = first.scatter.triu_().add_(second.scatter.tril_(-1))
        return cls((first.count, second.count), (first.mean, second.mean), scatters, diagonal)

    def half(self, number: int) -> Moments:
        upper = torch.ones_like(self.scatters, dtype=torch.bool).triu_()
        both = (self.scatters, self.scatters.T)
        covariance = torch.where(upper, *(reversed(both) if number else both))
        if number:
            covariance.diagonal().copy_(self.diagonal)
        return Moments(self.means[number], covariance.div_(self.counts[number] - 1))

    def whole(self) -> Moments:
        """Those of the sample: Chan, Golub and LeVeque (1983)."""
        (first, second), shift = self.counts, self.means[1] - self.means[0]
        covariance = self.scatters + self.scatters.T
        covariance.diagonal().sub_(self.scatters.diagonal()).add_(self.diagonal)
        covariance.addr_(shift, shift, alpha=first * second / (first + second))
        mean = self.means[0] + second / (first + second) * shift
        return Moments(mean, covariance.div_(first + second - 1))


def _common_coordinates(
    first: Moments, second: Moments
) -> tuple[Float64[Tensor, " rank"], list[Float64[Tensor, "dim rank"]]]:
    """The roots s, and what takes the features of either sample to coordinates of covariance 1.

    In these T and T⁻¹ are diag(s). Directions in which either has no variance are left out.
    """
    product, root, basis = _product(first, second)
    squares, turn = scipy.linalg.eigh(product, overwrite_a=True, check_finite=False, driver="evr")
    none = np.searchsorted(squares, NULL * squares[-1], side="right")
    roots, other, own = np.sqrt(squares[none:]), turn[:, none:], product[:, none:]
    own[:] = other
    own = scipy.linalg.blas.dtrmm(1.0, root, own, lower=1, overwrite_b=1)
    own /= roots
    other = scipy.linalg.blas.dtrsm(1.0, root, other, lower=1, trans_a=1, overwrite_b=1)
    maps = [torch.from_numpy(each if basis is None else basis @ each) for each in (own, other)]
    return torch.from_numpy(roots), maps


def _reciprocals(roots: Float[Tensor, " rank"]) -> Float[Tensor, "rank rank"]:
    """1 / (s_i + s_j)."""
    return (roots[:, None] + roots).clamp_(min=torch.finfo(roots.dtype).tiny).reciprocal_()


def _curvature(roots: Float64[Tensor, " rank"]) -> float:
    """What the bias that covariances cause would be proportional to, were all Gaussian.

    Sum and trace of s_i s_j / (s_i + s_j), the second derivative in coordinates of covariance 1.
    """
    return float(roots @ _reciprocals(roots) @ roots + roots.sum() / 2)


@dataclass(frozen=True, eq=False)
class Side:
    features: Tensor
    labels: Labels
    mean: Float64[Tensor, " dim"]
    map: Float[Tensor, "dim rank"]  # to coordinates of covariance 1
    away: Float64[Tensor, " dim"]  # its mean less that of the other
    sign: int  # 1 for the images, -1 for the reference

    def parts(self, chosen: Bool[np.ndarray, " image"]):
        """Labels, centred features and coordinates of some images, a part in memory at a time."""
        for rows in _places(chosen).split(PART):
            centred = (self.features[rows].double() - self.mean).to(self.map.dtype)
            yield torch.from_numpy(self.labels)[rows], centred, centred @ self.map


def _derivatives(
    samples: Sequence[Side], roots: Float64[Tensor, " rank"], groups: Labels
) -> tuple[Float64[np.ndarray, " label"], float, float]:
    """The influence of each label, and the bias of order 1/n from means and from covariances, in one pass."""
    s = roots.to(samples[0].map.dtype)
    kernel = _reciprocals(s).mul_(s).mul_(s[:, None])
    influences = torch.zeros(len(samples), len(groups), dtype=torch.float64)
    change, of_means, of_covariances = torch.empty_like(kernel), 0.0, 0.0
    for group in range(int(groups.max()) + 1):
        shift, change = torch.zeros_like(samples[0].mean), change.zero_()
        for number, side in enumerate(samples):
            count, moved, turned = len(side.features), torch.zeros_like(shift), torch.zeros_like(s)
            for labels, centred, u in side.parts(groups[side.labels] == group):
                gain = (centred.square().sum(1) - u.square() @ s).double()
                own = (gain + 2 * centred.double() @ side.away) / count
                influences[number].index_add_(0, labels, own)
                moved += centred.double().sum(0)
                turned += u.sum(0)
                change.addmm_(u.T, u, alpha=side.sign / count)
                change.diagonal().sub_(side.sign * len(u) / count)
                of_means += float(gain.sum()) / (count * (count - 1))
            # S lacks the variance of its mean, whatever images of a label have in common
            of_means -= float(moved.square().sum() - turned.double().square() @ roots) / count**2
            shift += side.sign * moved / count
        of_means += float(shift.square().sum())
        of_covariances += float(change.square_().mul_(kernel).sum()) / 2
    for sums, side in zip(influences, samples, strict=True):  # each image's less the mean of all
        sums -= (
            sums.sum() * torch.from_numpy(np.bincount(side.labels, minlength=len(groups))) / len(side.labels)
        )
    return influences.sum(0).numpy(), of_means, of_covariances
