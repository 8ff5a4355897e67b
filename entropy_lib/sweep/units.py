"""What to draw: one unit an image. Its key is a checksum of everything that the image depends on.

Example:
    >>> common = dict(model="mini", revision="1234", scheduler="DDIMScheduler", steps=20, guidance=2, dtype="float32")
    >>> unit = Unit("a zebra", 0, 64, 96, "paper", **common)
    >>> unit.key[:16], unit.noise_seed == Unit("a zebra", 0, 64, 96, "unscaled", **common).noise_seed
    ('262c734f8f04cfbc', True)
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property

from entropy_lib.baselines.methods import method
from entropy_lib.errors import InvalidInputError
from entropy_lib.sizes import check_size, size_name

DRAWING_VERSION = 1  # one more whenever the same unit gives another picture (`tests/test_drawing.py` notices)


@dataclass(frozen=True)
class Unit:
    """One image to draw.

    Attributes:
        prompt, seed: which noise and which text.
        height, width: in pixels.
        method: how it is drawn: name of a scale rule, or of any other method of `baselines.methods`, in its canonical form.
        model: name in the catalogue, Hub id or folder.
        revision: what tells one state of its weights from another (see `models.catalogue.revision`).
        scheduler: class of the sampler, or "own": the one that the weights come with.
        steps, guidance: of the sampler.
        dtype: of the weights, "float32", "float16" or "bfloat16".
        drawing: version of how units become pictures; releases that leave pictures as they are leave it too.
        calibration: digest of the user's own that the rule takes its factors from, which the store keeps; "" where it takes none,
            or the shipped one.

    Raises:
        InvalidInputError: for a size or a method that cannot be.
    """

    prompt: str
    seed: int
    height: int
    width: int
    method: str
    model: str
    revision: str
    scheduler: str
    steps: int
    guidance: float
    dtype: str
    drawing: int = DRAWING_VERSION
    calibration: str = ""

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        for name in ("prompt", "model", "revision", "scheduler", "dtype"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; it must be a text")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError(f"steps is {self.steps!r}; it must be a whole number, 1 or more")
        if not 0 <= self.guidance < math.inf:
            raise InvalidInputError(f"guidance is {self.guidance}; it must be a number, 0 or more")
        object.__setattr__(self, "method", method(self.method).name)
        object.__setattr__(self, "calibration", self.calibration if method(self.method).calibrated else "")
        object.__setattr__(self, "guidance", float(self.guidance))  # 2 and 2.0 are one unit

    @cached_property
    def key(self) -> str:
        """sha256 of the unit as canonical JSON, 64 hexadecimal digits."""
        content = self.content
        if not self.calibration:
            del content["calibration"]  # as it was before there were any
        return _digest(content).hex()

    @property
    def content(self) -> dict[str, object]:
        """All fields, under the names that stored images have always been found by: what is a method now was a rule there."""
        content = asdict(self)
        return {"rule": content.pop("method"), **content}

    @property
    def noise_seed(self) -> int:
        """Seed of the image's own generator. It does not know the method, so that all start from the same noise."""
        return int.from_bytes(_digest([self.prompt, self.seed, self.height, self.width])[:8]) >> 1

    @property
    def size(self) -> str:
        """The label of its size: "64x96"."""
        return size_name(self.height, self.width)


def _digest(content: object) -> bytes:
    """sha256 of canonical JSON: sorted keys, no spaces, floats in their shortest exact form."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()
