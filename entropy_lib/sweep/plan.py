"""What to generate: units, one an image, and plans, all the units of a comparison in batches.

A unit's key is a checksum of everything that its image depends on. A plan is lists of prompts, seeds, sizes
and methods with what all its units share.

Example:
    >>> shared = Settings("mini", "1234", "own", 20, 2.0, "float32", native_size=(64, 64))
    >>> plan = Plan.of(shared, ["a zebra"], [0], ["64x64", "64x96"], ["unscaled", "paper"])
    >>> [(unit.size, unit.method, unit.key[:6]) for unit in plan.units]
    [('64x64', 'unscaled', 'f06cc9'), ('64x96', 'unscaled', 'de2148'), ('64x96', 'paper', 'f466af')]
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, product

from entropy_lib.errors import InvalidInputError
from entropy_lib.sampling.methods import check_at, distinct_at_native_size, method
from entropy_lib.sizes import Size, SizeLike

LISTS = ("prompts", "seeds", "sizes", "methods")
BATCH = 16  # images generated together
OWN = "own"  # the scheduler that the weights come with
# one more whenever the same unit gives another image (`tests/sweep/test_generation_version.py` notices)
GENERATION_VERSION = 1


@dataclass(frozen=True)
class Unit:
    """One image to generate.

    Attributes:
        prompt, seed: which noise and which text.
        height, width: in pixels.
        method: name of a scale rule or any other of `sampling.methods`, in its canonical form.
        model: name in the catalogue, Hub id or folder.
        revision: what tells one state of its weights from another (see `models.catalogue.revision`).
        scheduler: class of the sampler, or "own": the one that the weights come with.
        steps, guidance: of the sampler.
        dtype: of the weights, "float32", "float16" or "bfloat16".
        version: of how units become images; releases that leave images as they are leave it too.
        calibration: digest of the user's own that the rule takes its factors from, which the store keeps; ""
            where it takes none, or the shipped one.

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
    version: int = GENERATION_VERSION
    calibration: str = ""

    def __post_init__(self) -> None:
        Size.of((self.height, self.width))
        for name in ("prompt", "model", "revision", "scheduler", "dtype"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; it must be a text")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError(f"steps is {self.steps!r}; it must be a whole number, 1 or more")
        if not 0 <= self.guidance < math.inf:
            raise InvalidInputError(f"guidance is {self.guidance}; it must be a number, 0 or more")
        chosen = method(self.method)
        object.__setattr__(self, "method", chosen.name)
        object.__setattr__(self, "calibration", self.calibration if chosen.calibrated else "")
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
        """All fields by the names that stored images are found by: `rule` for the method, `drawing`."""
        content = asdict(self)
        return {"rule": content.pop("method"), "drawing": content.pop("version"), **content}

    @property
    def noise_seed(self) -> int:
        """Seed of the image's own generator; all methods start from the same noise."""
        return int.from_bytes(_digest([self.prompt, self.seed, self.height, self.width])[:8]) >> 1

    @property
    def size(self) -> str:
        """The label of its size: "64x96"."""
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Settings:
    """What all units of a comparison share; see `Unit` for the fields."""

    model: str
    revision: str
    scheduler: str
    steps: int
    guidance: float
    dtype: str
    native_size: tuple[int, int]
    calibration: str = ""
    version: int = GENERATION_VERSION


@dataclass(frozen=True)
class Plan:
    """The units of a comparison; made by `Plan.of`.

    Attributes:
        settings: shared by all.
        prompts, seeds, sizes, methods: each with each.
    """

    settings: Settings
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: tuple[str, ...]
    methods: tuple[str, ...]

    @classmethod
    def of(
        cls,
        settings: Settings,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sizes: Sequence[SizeLike],
        methods: Sequence[str],
    ) -> "Plan":
        """Every prompt with every seed at every size by every method.

        At native size many methods make the same images: those are generated once, by the first of them.

        Raises:
            InvalidInputError: for repeated prompts, seeds, sizes or methods, or none at all; for what no
                image can have.
            UnknownNameError: for an unknown method.
        """
        chosen = [method(text) for text in methods]
        labels = [str(Size.of(size)) for size in sizes]
        lists = dict(zip(LISTS, (prompts, seeds, labels, [each.name for each in chosen]), strict=True))
        for name, values in lists.items():
            if not len(values):
                raise InvalidInputError(f"no {name}; give at least one")
            if repeated := [value for value, count in Counter(values).items() if count > 1]:
                raise InvalidInputError(
                    f"{len(repeated)} {name} are repeated, the first being {repeated[0]!r}; "
                    "each may occur once"
                )
        for size, each in product(labels, chosen):
            check_at(each, Size.parse(size), settings.native_size)
        calibration = settings.calibration if any(each.calibrated for each in chosen) else ""
        shared = replace(settings, native_size=tuple(settings.native_size), calibration=calibration)
        plan = cls(shared, **{name: tuple(values) for name, values in lists.items()})
        plan.cells  # noqa: B018  # what no image can have is refused here
        return plan

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Unit]]:
        """{(size, method): its units}, each in the order of its prompts and seeds."""
        shared, images = asdict(self.settings), list(product(self.prompts, map(int, self.seeds)))
        del shared["native_size"]
        return {
            (size, name): [Unit(prompt, seed, *Size.parse(size), name, **shared) for prompt, seed in images]
            for size, name in product(self.sizes, self.methods)
            if self.generated_by(size, name) == name
        }

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All images, cell by cell."""
        return tuple(chain(*self.cells.values()))

    def generated_by(self, size: str, name: str) -> str:
        """The method whose images `name` shares: itself, but at native size the first that makes the same."""
        if size != self.native:
            return name
        groups = distinct_at_native_size(self.methods)
        return next(first for first, same in groups.items() if name in same)

    @property
    def native(self) -> str:
        """The label of the native size."""
        return str(Size(*self.settings.native_size))

    @property
    def provenance(self) -> str:
        """One line to print under every table: model and revision, sampler, samples, seeds, precision."""
        shared, seeds = self.settings, sorted(self.seeds)
        sampler = "its own scheduler" if shared.scheduler == OWN else shared.scheduler
        return (
            f"model {shared.model} @ {shared.revision[:8]} · {sampler}, {shared.steps} steps · "
            f"guidance {shared.guidance:g} · {len(self.prompts)} prompts x seeds {seeds[0]} to {seeds[-1]} · "
            f"{shared.dtype} · no safety checker · generation version {shared.version}"
        )

    def groups(self, batch: int = BATCH, shard: tuple[int, int] = (0, 1)) -> list[list[Unit]]:
        """The units in groups of `batch` that are generated together, or every n-th group for shard (i, n).

        Groups do not depend on shards, nor on what is generated already. So an image has the same neighbours
        whoever generates it, and the same bytes (sums in floating point depend on the batch, by one grey
        level).

        Raises:
            InvalidInputError: for a batch below 1, or a shard that is not among n.
        """
        index, count = shard
        if batch < 1:
            raise InvalidInputError(f"batch is {batch}; it must be 1 or more")
        if not 0 <= index < count:
            raise InvalidInputError(f"shard is {index}/{count}; write i/n with i from 0 to n - 1")
        cells = self.cells.values()
        whole = [units[start : start + batch] for units in cells for start in range(0, len(units), batch)]
        return whole[index::count]


def _digest(content: object) -> bytes:
    """sha256 of canonical JSON: sorted keys, no spaces, floats in their shortest exact form."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()
