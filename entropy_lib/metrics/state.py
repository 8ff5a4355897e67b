"""What a Fréchet distance needs to know of a set of images: their number, mean and covariance, in parts that
add up.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from entropy_lib.errors import InvalidInputError, MissingFileError
from entropy_lib.files import replacing
from entropy_lib.metrics.samples import PART, FeatureRows, feature_matrix, same_width

FORMAT = "entropy_lib feature state 1"


@dataclass(frozen=True, eq=False)
class FeatureState:
    """All that the Fréchet distance needs to know of a set of images; states of parts add up to that of the
    whole.

    Attributes:
        count: number of images.
        mean: `[d]`, float64.
        scatter: `[d, d]`, float64: the sum over images of (x - mean)(x - mean)ᵀ.
        extractor: how the features were made (network, weights, resize filter); states that differ in it do
            not mix. Empty: not known, mixes with any.

    Example:
        >>> features = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> whole = FeatureState.of(features[:30]) + FeatureState.of(features[30:])
        >>> torch.allclose(whole.covariance, features.double().T.cov())
        True
    """

    count: int
    mean: Float64[Tensor, " dim"]
    scatter: Float64[Tensor, "dim dim"]
    extractor: str = ""

    @classmethod
    def of(
        cls, features: FeatureRows, extractor: str = "", rows: Int[Tensor, " row"] | None = None
    ) -> "FeatureState":
        """State of a feature matrix `[n, d]`, or of some of its rows, read some at a time.

        Raises:
            InvalidInputError: if it is not a matrix, is empty, or holds NaN or infinity.
        """
        features = feature_matrix(features)
        rows = torch.arange(len(features)) if rows is None else rows
        mean = sum(features[part].double().sum(0) for part in rows.split(PART)) / len(rows)
        scatter = mean.new_zeros(len(mean), len(mean))
        for part in rows.split(PART):
            centred = features[part].double() - mean
            scatter.addmm_(centred.T, centred)
        return cls(len(rows), mean, scatter, extractor)

    def __add__(self, other: "FeatureState") -> "FeatureState":
        """Chan, Golub and LeVeque (1983): no sum of squares is ever formed, so nothing cancels."""
        self.check(other)
        count = self.count + other.count
        shift = other.mean - self.mean
        scatter = (self.scatter + other.scatter).addr_(shift, shift, alpha=self.count * other.count / count)
        mean = self.mean + other.count / count * shift
        return FeatureState(count, mean, scatter, self.extractor or other.extractor)

    def __sub__(self, part: "FeatureState") -> "FeatureState":
        """What is left when the images of `part` are taken out again.

        Raises:
            InvalidInputError: if `part` is not smaller.
        """
        self.check(part)
        if self.count <= part.count:
            raise InvalidInputError(f"cannot take {part.count} images out of {self.count}")
        return self + FeatureState(-part.count, part.mean, -part.scatter, part.extractor)

    def check(self, other: "FeatureState") -> None:
        """Raise InvalidInputError unless both states may be added or compared."""
        same_width(self.mean, other.mean, ("the first features", "the second"))
        if self.extractor and other.extractor and self.extractor != other.extractor:
            raise InvalidInputError(
                f"features of {self.extractor!r} and of {other.extractor!r} do not mix; extract both alike"
            )

    @property
    def covariance(self) -> Float64[Tensor, "dim dim"]:
        """Scatter / (count - 1)."""
        if self.count < 2:
            raise InvalidInputError("1 image has no covariance; at least 2 are needed")
        return self.scatter / (self.count - 1)

    def to(self, device: torch.device | str) -> "FeatureState":
        """The same on another device; itself where it lies there, so that `kept` knows it again."""
        if self.mean.device == torch.device(device):
            return self
        return FeatureState(self.count, self.mean.to(device), self.scatter.to(device), self.extractor)

    def save(self, path: Path | str) -> None:
        """Write as safetensors: whole or not at all."""
        tensors = {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter}
        with replacing(path) as temporary:
            temporary.write_bytes(save(tensors, {"format": FORMAT, "extractor": self.extractor}))

    @classmethod
    def load(cls, path: Path | str) -> "FeatureState":
        """Read what `save` wrote.

        Raises:
            InvalidInputError: if the file is damaged, or is something else.
        """
        if not Path(path).is_file():
            raise MissingFileError(f"no file {str(path)!r}; write a state there with FeatureState.save")
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise InvalidInputError(f"{path} is not a {FORMAT!r}; write it with FeatureState.save")
                tensors = {name: file.get_tensor(name) for name in ("count", "mean", "scatter")}
                return cls(
                    int(tensors["count"]), tensors["mean"], tensors["scatter"], file.metadata()["extractor"]
                )
        except SafetensorError as error:
            raise InvalidInputError(f"{path} is damaged ({error}); compute it again") from error
