"""Samples of images as feature matrices: what is accepted, how they are read, and how blocks of images are
left out.

What a distance is measured to is a sample too. Where both have prompts in common they go up and down
together; where they have not, they do so apart. Deleting the same blocks from both, with each prompt in one
block of both, is right in either case: the interval counts the error of both samples, and bias of order 1/n
of both shows in the deletions.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics.interval import Interval
from entropy_lib.statistics.resampling import Labels, check_labels, deal_blocks, from_deletions

# The number of images is left open: two sets need not have as many.
FeatureRows = Float[Tensor, "_ dim"] | Float[np.ndarray, "_ dim"]

ROWS = 2048  # of a tile: one of two such parts has 32 MiB in float64
PART = 512  # rows in float64 at a time, where the features of many images are read
LEAST = 3  # blocks: with one left out, images of two different ones must stay

Found = TypeVar("Found")
_KEPT = WeakIdKeyDictionary()  # {sample: {sample: {key: what was found}}}


def kept(first: object, second: object, key: Hashable, compute: Callable[[], Found]) -> Found:
    """What `compute` finds of two samples, or found before in these very ones, unchanged since.

    A table asks for the distance of a method and for its differences from others, and measures all to one
    reference. What is kept lives no longer than either sample, and must not hold them.
    """
    tensors = [each for each in (first, second) if isinstance(each, Tensor)]
    if any(each.is_inference() for each in tensors):  # whether they change is not known
        return compute()
    found = _KEPT.setdefault(first, WeakIdKeyDictionary()).setdefault(second, {})
    key = key, *(each._version for each in tensors)
    if key not in found:
        found[key] = compute()
    return found[key]


def feature_matrix(values: FeatureRows, name: str = "features", least: int = 1) -> Float[Tensor, "image dim"]:
    """`values` as a tensor, not copied where that can be helped; InvalidInputError, by `name`, where they are
    not a matrix, hold fewer than `least` images, or hold NaN or infinity.

    Example:
        >>> feature_matrix(np.zeros(3))
        Traceback (most recent call last):
            ...
        entropy_lib.errors.InvalidInputError: features have shape (3,); they must be [images, features]
    """
    if not isinstance(values, Tensor):
        if np.asarray(values).dtype.kind not in "fiu":
            raise InvalidInputError(
                f"{name} are {type(values).__name__}; they must be a matrix of numbers, torch or numpy"
            )
        # torch warns of memory that it may not write to (memory maps, frozen arrays): such arrays are copied.
        values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if values.ndim != 2 or not values.shape[1]:
        raise InvalidInputError(f"{name} have shape {tuple(values.shape)}; they must be [images, features]")
    if len(values) < least:
        raise InvalidInputError(f"{name} hold {len(values)} images; this needs at least {least}")
    # a sum, which costs little, is finite only where all are
    if not all(part.sum().isfinite() for part in values.split(ROWS)) and (
        broken := sum(int((~part.isfinite()).any(1).sum()) for part in values.split(ROWS))
    ):
        raise InvalidInputError(
            f"{name} hold NaN or infinity in {broken} of {len(values)} rows; leave those images out"
        )
    # Apple's GPUs have no float64.
    values = values.cpu() if values.device.type == "mps" else values
    return values.detach() if values.requires_grad else values  # the caller's own tensor is known again


def same_width(first: Tensor, second: Tensor, names: tuple[str, str] = ("features", "the reference")) -> None:
    """Raise InvalidInputError unless both have the same number of columns."""
    if first.shape[-1] != second.shape[-1]:
        raise InvalidInputError(
            f"{names[0]} have {first.shape[-1]} columns and {names[1]} {second.shape[-1]}; "
            "both must come from the same extractor"
        )


def parts_of_rows(values: Float[Tensor, "image dim"]) -> Iterator[tuple[slice, Float64[Tensor, "row dim"]]]:
    """The matrix in parts of some rows: which rows, and those rows in float64."""
    for start in range(0, len(values), ROWS):
        part = values[start : start + ROWS]
        yield slice(start, start + len(part)), part.double()


@dataclass(frozen=True, eq=False)
class Blocks:
    """The block of each image of two samples; deleting a block takes its images out of both."""

    images: Labels
    reference: Labels

    @classmethod
    def of(
        cls, labels: Labels, images: int, reference_labels: Labels | None, reference: int | None
    ) -> "Blocks":
        """Check the labels of both samples, `images` and `reference` being their numbers of images.

        A reference without labels is an independent one, and dealt at random; one of None images is taken as
        it is.
        """
        labels = check_labels(labels, images)
        if reference is None:
            if reference_labels is not None:
                raise InvalidInputError(
                    "the reference is a state, which has no images to leave out; leave reference_labels out"
                )
            return cls(labels, labels)
        count = int(labels.max()) + 1
        if reference_labels is None:
            reference_labels = (
                deal_blocks(range(reference), min(count, reference)) if reference >= LEAST else []
            )
        blocks = cls(labels, np.asarray(reference_labels, dtype=np.int64))
        if blocks.reference.shape != (reference,) and reference >= LEAST:
            raise InvalidInputError(
                f"{blocks.reference.shape} block labels for {reference} images of the reference; "
                "there must be one for each"
            )
        for name, own in {"the images": blocks.images, "the reference": blocks.reference}.items():
            found = np.unique(own)
            if len(found) < LEAST or found[0] < 0 or found[-1] >= count:
                raise InvalidInputError(
                    f"{name} are in blocks {found[:10].tolist()}; they must be in at least {LEAST} "
                    f"of the {count} of the images, for images of one block are never paired: "
                    "take three prompts or more"
                )
        return blocks

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What `kept` knows them by."""
        return self.images.tobytes(), self.reference.tobytes()

    @property
    def count(self) -> int:
        return int(self.images.max()) + 1

    def interval(
        self, deletions: Float64[np.ndarray, " deletion"], level: float, correct_bias: bool
    ) -> Interval:
        """The jackknife interval from the statistic of all images, and of all but each block."""
        own, other = (np.bincount(labels, minlength=self.count) for labels in (self.images, self.reference))
        # the share of a block is the mean over both samples
        shares = own / own.sum() + other / other.sum()
        return from_deletions(deletions[0], deletions[1:], shares, level, correct_bias)
