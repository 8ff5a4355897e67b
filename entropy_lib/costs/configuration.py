"""What is measured: one model, one way to draw, one size."""

from dataclasses import dataclass

from entropy_lib.baselines.methods import method
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.sizes import check_size, size_name

TEXT_TOKENS = 77  # of a prompt as CLIP reads it, for networks that keep text apart
PARTS = ("picture", "denoiser")


@dataclass(frozen=True)
class Configuration:
    """One thing to measure.

    Attributes:
        model: as for `load`.
        height, width: in pixels.
        method: of `baselines.methods`, by which pictures are drawn.
        part: "picture": from prompt to pixels; "denoiser": one call of the network, at one noise level, no guidance.
        images: drawn together, or the batch of the call.
        steps, guidance: of the sampler; the model's own where None.
        dtype, device: as for `load`.
        random_weights: the exact architecture untrained; time and memory do not depend on weights.

    Raises:
        UnknownNameError: for an unknown part or method.
        InvalidInputError: for a size or a number of images that cannot be, and a method for the denoiser alone that is no rule.
    """

    model: str
    height: int
    width: int
    method: str = "unscaled"
    part: str = "picture"
    images: int = 1
    steps: int | None = None
    guidance: float | None = None
    dtype: str = "auto"
    device: str = "auto"
    random_weights: bool = False

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        chosen = method(self.method)
        object.__setattr__(self, "method", chosen.name)
        if self.part not in PARTS:
            raise UnknownNameError("part", self.part, PARTS)
        if self.part == "denoiser" and not chosen.direct:
            raise InvalidInputError(f"method is {chosen.name!r}, which is no way to call the denoiser once; measure part='picture'")
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise InvalidInputError(f"images is {self.images!r}; it must be a whole number, 1 or more")

    @property
    def size(self) -> str:
        """The label of its size: "64x96"."""
        return size_name(self.height, self.width)

    @property
    def label(self) -> str:
        """It in a few words."""
        return f"{self.model}, {self.method}, {self.size}, {self.part}"
