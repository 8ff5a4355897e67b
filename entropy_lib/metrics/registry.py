"""The metrics of the tables, one row each: its name, which way is better, how it is computed.

    Distance    of a set of images from a reference
    Score       a number for each image from its features, or what a detector finds in it, and its prompt
    PictureScore   … from its pixels alone

The mean of a score is its level, with the jackknife's interval over prompts, and methods are compared image
by image. To add a metric, write its function and give it a row in `METRICS`: `sweep.reduce` computes it,
figures and tables show it.

Example:
    >>> METRICS["KID"].title, METRICS["CLIP score"].higher_is_better
    ('KID x 1000 (lower is better)', True)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from entropy_lib.metrics.clip import clip_scores
from entropy_lib.metrics.frechet import ENOUGH, frechet_difference, frechet_interval
from entropy_lib.metrics.kernel import gaussian_kernel, kernel_difference, kernel_interval
from entropy_lib.metrics.layout import layout_values
from entropy_lib.metrics.repetition import repetition_index
from entropy_lib.metrics.state import FeatureState
from entropy_lib.statistics.interval import Interval

# the networks of a comparison, by what they are for
DISTANCES, CAPTIONS, FINDINGS = "distances", "captions", "findings"

Embed = Callable[[Sequence[str]], Float[Tensor, "caption dim"]]  # captions to features of the same network
Values = Callable[[Float[Tensor, "image dim"], Sequence[str], Embed], Float[Tensor, " image"]]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What figures and tables need to know of a metric."""

    name: str  # in tables
    unit: str  # in words
    # which way; "as in reality" where real images are the measure, to be approached from either side
    better: Literal["lower", "higher", "as in reality"]
    times: int = 1  # what numbers are multiplied by where they are shown
    # what a number an image lies between, and so do the limits of their mean; None where there is none
    bounds: tuple[float, float] | None = None

    @property
    def directed(self) -> bool:
        """Whether one of two numbers is the better one whatever real images have."""
        return self.better in ("lower", "higher")

    @property
    def higher_is_better(self) -> bool:
        """Which way is better, as torchmetrics says it."""
        return self.better == "higher"

    @property
    def label(self) -> str:
        """The name with what its numbers are multiplied by: "KID x 1000"."""
        return self.name if self.times == 1 else f"{self.name} x {self.times}"

    @property
    def title(self) -> str:
        """Label and direction, for an axis or a heading: "KID x 1000 (lower is better)"."""
        return f"{self.label} ({self.better} is better)" if self.directed else f"{self.label} ({self.better})"


@dataclass(frozen=True, kw_only=True)
class Distance(Metric):
    """A distance from a reference."""

    interval: Callable[..., Interval]  # of (features, reference, block labels, reference_labels=, level=)
    # of (features, other features, reference, block labels, reference_labels=, level=), paired by row
    difference: Callable[..., Interval]
    images_per_feature: int = 0  # fewer images on either side, and no number is given
    of_states: bool = False  # whether a `FeatureState` will do as the reference
    features: str = DISTANCES  # which features it is computed from, `DISTANCES` or `CAPTIONS`

    def can_be_given(
        self, features: Float[Tensor, "image dim"], reference: Float[Tensor, "image dim"] | FeatureState
    ) -> bool:
        """Whether both sides are of a kind, and have images enough."""
        state = isinstance(reference, FeatureState)
        fewest = min(len(features), reference.count if state else len(reference))
        return (self.of_states or not state) and fewest >= self.images_per_feature * features.shape[1]


@dataclass(frozen=True, kw_only=True)
class Score(Metric):
    """A number for each image, from its features and its prompt."""

    reference: ClassVar[str] = "prompts"  # what tables say that it is measured against
    # of (features, prompt of each image, the network's embedding of captions): one number an image
    values: Values
    features: str = CAPTIONS  # what it is computed from: `DISTANCES`, `CAPTIONS`, or `FINDINGS` of a detector


@dataclass(frozen=True, kw_only=True)
class PictureScore(Metric):
    """A number for each image, from its pixels alone."""

    reference: ClassVar[str] = "nothing"  # what tables say that it is measured against
    # of one image of any size. Its numbers are kept: whoever changes them raises `features.VERSION`
    value: Callable[[UInt8[np.ndarray, "height width 3"]], float]

    def pictures(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image 1"]:
        """The numbers of images of one size, a column."""
        return torch.tensor([[self.value(image)] for image in pictures], dtype=torch.float32)


SHARE, COUNT = (0.0, 1.0), (0.0, math.inf)


def finding(
    name: str, unit: str, better: Literal["lower", "higher", "as in reality"], bounds: tuple[float, float]
) -> Score:
    """One of `layout.layout_values`, as a metric."""
    return Score(
        name=name.capitalize().replace("_", "-"),
        unit=unit,
        better=better,
        bounds=bounds,
        features=FINDINGS,
        values=lambda rows, prompts, asked_for: layout_values(rows, asked_for(prompts))[name],
    )


METRICS: dict[str, Distance | Score | PictureScore] = {
    metric.name: metric
    for metric in (
        Distance(
            name="FD", unit="squared units of a feature", better="lower",
            images_per_feature=ENOUGH, of_states=True,
            interval=frechet_interval, difference=frechet_difference,
        ),
        Distance(
            name="KID", unit="squared MMD, cubic kernel", better="lower", times=1000,
            interval=kernel_interval, difference=kernel_difference,
        ),
        Distance(
            name="CMMD", unit="squared MMD, Gaussian kernel", better="lower", times=1000,
            interval=partial(kernel_interval, kernel=gaussian_kernel),
            difference=partial(kernel_difference, kernel=gaussian_kernel),
        ),
        Score(
            name="CLIP score", unit="100 x cosine", better="higher",
            values=lambda rows, prompts, embed: clip_scores(rows, embed(prompts)),
        ),
        PictureScore(
            name="Repetition", unit="share of patches displaced alike", better="lower", bounds=SHARE,
            value=repetition_index,
        ),
        finding("over_count", "things beyond what was asked for, an image", "lower", COUNT),
        finding("under_count", "things short of what was asked for, an image", "lower", COUNT),
        finding("misnamed", "things of another name, an image", "lower", COUNT),
        finding("illegible", "things that nobody could name, an image", "lower", COUNT),
        finding("completeness", "visible share of nameable things", "higher", SHARE),
        finding("covered", "share of the image", "as in reality", SHARE),
        finding("exact", "share of images with just what was asked for", "higher", SHARE),
    )
}  # fmt: skip

# The preregistration: outcomes that were chosen before anything was generated to tell of repetition above the
# native size and of incompleteness below it. Notebooks 09 to 11, their summaries and
# `sweep.primary_outcomes` take them from here.
PRIMARY = {"above": ("Over-count",), "below": ("Under-count", "Completeness")}
# instead, where nothing counts things
UNCOUNTED: dict[str, tuple[str, ...]] = {"above": ("Repetition",), "below": ()}
