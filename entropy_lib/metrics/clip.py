"""CLIP score: how well each image fits its prompt."""

from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.samples import FeatureRows, feature_matrix, same_width


def clip_scores(images: FeatureRows, texts: FeatureRows) -> Float64[Tensor, " image"]:
    """100 times the cosine between each image and its own prompt, one score an image.

    Not clipped at 0: torchmetrics clips the mean of all, Hessel et al. (EMNLP 2021) each image and multiply
    by 2.5, not 100. For a level, or for the difference of two methods, give the scores to `jackknife` or
    `jackknife_difference` with `mean`.

    Args:
        images, texts: CLIP embeddings `[n, d]`, row i of both belonging together; of any length, normalised
            here.

    Raises:
        InvalidInputError: for matrices that do not fit, or a row of zeros.

    Example:
        >>> import numpy as np
        >>> images, texts = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> clip_scores(images, texts).round(decimals=2)
        tensor([100.0000,  70.7100], dtype=torch.float64)
    """
    images, texts = feature_matrix(images, "images").double(), feature_matrix(texts, "texts").double()
    same_width(images, texts, ("images", "texts"))
    if len(images) != len(texts):
        raise InvalidInputError(
            f"{len(images)} images and {len(texts)} texts; there must be one text for each image"
        )
    return 100 * (unit_rows(images) * unit_rows(texts)).sum(1)


def unit_rows(values: Float64[Tensor, "image dim"]) -> Float64[Tensor, "image dim"]:
    """Each row divided by its length; InvalidInputError for a row of zeros, which has no direction."""
    if (empty := int((values == 0).all(1).sum())) > 0:
        raise InvalidInputError(f"{empty} embeddings are all zeros; find those images and leave them out")
    return functional.normalize(values, dim=1, eps=0.0)
