"""Leaving out a block of images at a time, from a sample and from what it is compared with.

What a distance is measured to is a sample too. Where both have prompts in common they go up and down together; where they
have not, they do so apart. Deleting the same blocks from both, with each prompt in one block of both, is right in either case:
the interval counts the error of both samples, and bias of order 1/n of both shows in the deletions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from entropy_lib.errors import InvalidInputError
from entropy_lib.statistics.interval import Interval
from entropy_lib.statistics.resampling import Labels, check_labels, deal_blocks, from_deletions

LEAST = 3  # blocks: with one left out, images of two different ones must stay


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of two samples; deleting one takes its images out of both.

    Attributes:
        images, reference: the block of each image.
    """

    images: Labels
    reference: Labels

    @classmethod
    def of(cls, labels: Labels, images: int, reference_labels: Labels | None, reference: int) -> "Blocks":
        """Check the labels of both samples; a reference without labels is an independent one, and dealt at random.

        Raises:
            InvalidInputError: for labels that do not fit, or fewer than three blocks in a sample.
        """
        labels = check_labels(labels, images)
        count = int(labels.max()) + 1
        if reference_labels is None:
            reference_labels = deal_blocks(range(reference), min(count, reference)) if reference >= LEAST else []
        blocks = cls(labels, np.asarray(reference_labels, dtype=np.int64))
        if blocks.reference.shape != (reference,) and reference >= LEAST:
            raise InvalidInputError(
                f"{blocks.reference.shape} block labels for {reference} images of the reference; there must be one for each"
            )
        for name, found in (("the images", np.unique(blocks.images)), ("the reference", np.unique(blocks.reference))):
            if len(found) < LEAST or found[0] < 0 or found[-1] >= count:
                raise InvalidInputError(
                    f"{name} are in blocks {found[:10].tolist()}; they must be in at least {LEAST} of the {count} of the images, "
                    "for images of one block are never paired: take three prompts or more"
                )
        return blocks

    @classmethod
    def of_one(cls, labels: Labels, images: int) -> "Blocks":
        """Blocks of a sample alone: what it is compared with stays as it is."""
        labels = check_labels(labels, images)
        return cls(labels, labels)

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return int(self.images.max()) + 1

    @property
    def sizes(self) -> Float64[np.ndarray, " block"]:
        """The share of each block, the mean over both samples."""
        shares = (np.bincount(labels, minlength=self.count) / len(labels) for labels in (self.images, self.reference))
        return sum(shares) / 2

    def interval(self, deletions: Float64[np.ndarray, " deletion"], level: float, correct_bias: bool) -> Interval:
        """The jackknife interval from the statistic of all images, and of all but each block."""
        return from_deletions(deletions[0], deletions[1:], self.sizes, level, correct_bias)
