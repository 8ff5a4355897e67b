"""All the units of a comparison: made from its settings, kept in the store, cut into groups that are drawn together."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby, product, zip_longest
from pathlib import Path

import pandas as pd

from entropy_lib.baselines.methods import check_at, distinct_at_native_size, method
from entropy_lib.errors import InvalidInputError, MissingFileError
from entropy_lib.files import replacing
from entropy_lib.sizes import size_name
from entropy_lib.sweep.units import Unit

FILE = "plan.parquet"
BATCH = 16  # images drawn together
OWN = "own"  # the scheduler that the weights come with
AGAIN = "python -m entropy_lib sweep plan"


SHARED = ("model", "revision", "scheduler", "steps", "guidance", "dtype", "drawing")


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


@dataclass(frozen=True)
class Plan:
    """The units of a comparison, those of one (size, method) side by side, each in the order of its prompts and seeds."""

    units: tuple[Unit, ...]
    native_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.units:
            raise InvalidInputError("a plan of no units; give at least one prompt, seed, size and method")
        for name in SHARED:
            values = {getattr(unit, name) for unit in self.units}
            if len(values) != 1:
                given = sorted(map(str, values))
                raise InvalidInputError(f"units of one plan differ in {name}: {given}; one table is of one setting")

    @classmethod
    def of(
        cls,
        settings: Settings,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        methods: Sequence[str],
    ) -> "Plan":
        """Every prompt with every seed at every size by every method.

        At native size many are the identity: its images are drawn once, under the first of them.

        Args:
            settings: shared by all.
            prompts: different from each other.
            seeds: of each prompt.
            sizes: (height, width) in pixels.
            methods: names of scale rules or of any others, see `baselines.methods`.

        Raises:
            InvalidInputError: for repeated prompts, seeds, sizes or methods, or none at all, and for sizes that cannot be.
            UnknownNameError: for an unknown method.
        """
        methods = [method(text).name for text in methods]
        sizes = [tuple(size) for size in sizes]
        for name, values in {"prompts": prompts, "seeds": seeds, "sizes": sizes, "methods": methods}.items():
            _check_distinct(name, values)
        shared = asdict(settings)
        native = tuple(shared.pop("native_size"))
        for size, name in product(sizes, methods):
            check_at(name, size, native)
        drawn = [(size, name) for size, name in product(sizes, methods) if name == drawn_as(methods, name, size == native)]
        units = [Unit(p, int(s), *size, name, **shared) for size, name in drawn for p, s in product(prompts, seeds)]
        return cls(tuple(units), native)

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Unit]]:
        """{(size, method): its units}, in order."""
        return {cell: list(units) for cell, units in groupby(self.units, key=lambda unit: (unit.size, unit.method))}

    @property
    def native(self) -> str:
        """The label of the native size."""
        return size_name(*self.native_size)

    @property
    def sizes(self) -> list[str]:
        """Labels of the sizes, in order."""
        return list(dict.fromkeys(unit.size for unit in self.units))

    @property
    def methods(self) -> list[str]:
        """The methods, in order of appearance."""
        return list(dict.fromkeys(unit.method for unit in self.units))

    @property
    def provenance(self) -> str:
        """One line to print under every table: model and revision, sampler, samples, seeds, precision."""
        unit, seeds = self.units[0], sorted({unit.seed for unit in self.units})
        prompts = len({unit.prompt for unit in self.units})
        sampler = "its own scheduler" if unit.scheduler == OWN else unit.scheduler
        return (
            f"model {unit.model} @ {unit.revision[:8]} · {sampler}, {unit.steps} steps · guidance {unit.guidance:g} · {prompts} "
            f"prompts x seeds {seeds[0]} to {seeds[-1]} · {unit.dtype} · no safety checker · drawing version {unit.drawing}"
        )

    def groups(self, batch: int = BATCH, shard: tuple[int, int] = (0, 1)) -> list[list[Unit]]:
        """The units in groups of `batch` that are drawn together, or every n-th group for shard (i, n).

        Groups do not depend on shards, nor on what has been drawn already. So an image has the same neighbours whoever
        draws it, and the same bytes (sums in floating point depend on the batch, by one grey level).

        Raises:
            InvalidInputError: for a batch below 1, or a shard that is not among n.
        """
        index, count = shard
        if batch < 1:
            raise InvalidInputError(f"batch is {batch}; it must be 1 or more")
        if not 0 <= index < count:
            raise InvalidInputError(f"shard is {index}/{count}; write i/n with i from 0 to n - 1")
        groups = [units[start : start + batch] for units in self.cells.values() for start in range(0, len(units), batch)]
        return groups[index::count]

    def write(self, folder: Path | str, name: str = FILE) -> Path:
        """Keep the plan in a store's folder; an earlier one of that name is replaced."""
        path = Path(folder) / name
        if path.is_dir():
            raise InvalidInputError(f"{path} is a folder, where the plan is to be written; remove it")
        table = pd.DataFrame([asdict(unit) for unit in self.units])
        table.attrs = {"native_size": list(self.native_size)}
        with replacing(path) as temporary:
            table.to_parquet(temporary)
        return path

    @classmethod
    def read(cls, folder: Path | str, name: str = FILE) -> "Plan":
        """The plan of a store, or the one of another name there.

        Raises:
            MissingFileError: if there is none.
            InvalidInputError: if it cannot be read, or was made by a version that knew other fields.
        """
        path = Path(folder) / name
        if not path.exists():
            raise MissingFileError(f"no plan in {folder}; make one with `{AGAIN}`")
        try:
            table = pd.read_parquet(io.BytesIO(path.read_bytes()))
            return cls(tuple(Unit(**row) for row in table.to_dict("records")), tuple(table.attrs["native_size"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            advice = f"remove it and make it again with `{AGAIN}`: images that are drawn stay"
            raise InvalidInputError(f"{path} is no plan that can be read ({error}); {advice}") from error

    def check_same(self, asked: "Plan") -> None:
        """Compare with the plan that was asked for, whole.

        Raises:
            InvalidInputError: if they differ, naming every field that does, with both values.
        """
        stored, wanted = self._facts(), asked._facts()
        different = [name for name in stored if stored[name] != wanted[name]]
        texts = [f"{name} {_both(wanted[name], stored[name])}" for name in different] or ["its units"] * (self != asked)
        if texts:
            raise InvalidInputError(
                f"the plan in the store is not the one asked for: {'; '.join(texts)}. Give all commands the same values, or make "
                f"it again with `{AGAIN}`: images that are drawn stay"
            )

    def _facts(self) -> dict[str, object]:
        """Everything that decides a plan, a field each."""
        unit, lists = self.units[0], ("prompt", "seed", "size", "method")
        values = {f"{name}s": list(dict.fromkeys(getattr(unit, name) for unit in self.units)) for name in lists}
        shared = {name: getattr(unit, name) for name in SHARED}
        calibrations = sorted({unit.calibration for unit in self.units} - {""})
        return values | shared | {"native size": self.native, "calibration": calibrations}


def drawn_as(methods: Sequence[str], name: str, at_native_size: bool) -> str:
    """By which method the images of `name` are drawn: at native size the first of those that do the same there."""
    if not at_native_size:
        return name
    groups = distinct_at_native_size(methods)
    return next(first for first, same in groups.items() if name in same)


def _both(asked: object, stored: object) -> str:
    """Two values for a message; of lists the first place where they differ."""
    if not isinstance(asked, list) or not isinstance(stored, list):
        return f"{asked!r}, there {stored!r}"
    pairs = enumerate(zip_longest(asked, stored), 1)
    place, (one, other) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    return f"({len(asked)}, there {len(stored)}; the first that differs, number {place}: {one!r}, there {other!r})"


def _check_distinct(name: str, values: Sequence) -> None:
    if not len(values):
        raise InvalidInputError(f"no {name}; give at least one")
    repeated = pd.Series(list(values))[lambda series: series.duplicated()]
    if len(repeated):
        raise InvalidInputError(f"{len(repeated)} {name} are repeated, the first being {repeated.iloc[0]!r}; each may occur once")
