"""A comparison: a plan, its images, and what they are compared with.

The notebook and the command line make both by the same two functions, so they judge the same images in the same way.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.state import FeatureState
from entropy_lib.metrics.views import resized
from entropy_lib.sizes import check_size, parse_size, size_name
from entropy_lib.statistics.intervals import BLOCKS
from entropy_lib.sweep.plan import Plan, drawn_rule
from entropy_lib.sweep.references import Reference, open_reference
from entropy_lib.sweep.store import DamagedImageError, Store
from entropy_lib.sweep.units import Unit

FEATURES = "features"  # folder of the cache, beside the images
NATIVE = "native, resized"  # the model's own native images brought to another size
Features = Float[Tensor, "image dim"]


@dataclass(frozen=True)
class Cell:
    """The images of one size under one rule that can be used, in the order of the plan.

    Attributes:
        keys: {unit: checksum of its image's bytes}.
        excluded: {reason: how many}.
    """

    keys: dict[Unit, str]
    excluded: dict[str, int]

    @property
    def pairs(self) -> set[tuple[str, int]]:
        """Prompt and seed of each image: what methods are paired by."""
        return {(unit.prompt, unit.seed) for unit in self.keys}

    def only(self, pairs: set[tuple[str, int]]) -> "Cell":
        """The same, reduced to some prompts and seeds."""
        return Cell({unit: key for unit, key in self.keys.items() if (unit.prompt, unit.seed) in pairs}, self.excluded)


@dataclass(frozen=True)
class Comparison:
    """A plan, its images, and what they are compared with.

    Attributes:
        plan, store: what was to be drawn, and where it lies.
        cache: of the features that distances are measured with.
        scores: of the embeddings of the CLIP score; None for no score.
        reference: real pictures, a state of their features, or None for none.
        level: of all intervals.
        blocks: of the jackknife.
    """

    plan: Plan
    store: Store
    cache: FeatureCache
    scores: FeatureCache | None = None
    reference: Reference | FeatureState | None = None
    level: float = 0.95
    blocks: int = BLOCKS

    def cell(self, size: str, rule: str) -> Cell:
        """What is there of a cell; what is missing, damaged or was excluded is counted."""
        drawn = drawn_rule(self.plan.rules, rule, size == self.plan.native)
        records = {unit: self._record(unit) for unit in self.plan.cells[size, drawn]}
        keys = {unit: record["sha256"] for unit, record in records.items() if "excluded" not in record}
        return Cell(keys, dict(Counter(record["excluded"] for record in records.values() if "excluded" in record)))

    def _record(self, unit: Unit) -> dict:
        try:
            return self.store.record(unit)
        except KeyError:
            return {"excluded": "not drawn"}
        except DamagedImageError:
            return {"excluded": "damaged"}

    def paired(self, size: str) -> tuple[dict[str, Cell], int]:
        """The cells of a size, and of native size as `NATIVE`, reduced to the prompts and seeds that all of them have.

        Returns:
            {rule: cell}, and how many pairs were dropped.

        Raises:
            ValueError: if fewer than two prompts are left.
        """
        cells = {rule: self.cell(size, rule) for rule in self.plan.rules}
        if self.plan.native in self.plan.sizes and size != self.plan.native:
            cells[NATIVE] = self.cell(self.plan.native, self.plan.rules[0])
        common = set.intersection(*(cell.pairs for cell in cells.values()))
        if len({prompt for prompt, _ in common}) < 2:
            reasons = {rule: cell.excluded for rule, cell in cells.items()}
            raise ValueError(f"{len(common)} images are usable at {size} ({reasons}); draw them first with `sweep sample`")
        planned = next(len(units) for (own, _), units in self.plan.cells.items() if own == size)
        return {rule: cell.only(common) for rule, cell in cells.items()}, planned - len(common)

    def features(self, cache: FeatureCache, cell: Cell, size: tuple[int, int] | None = None) -> Features:
        """Of the images of a cell, or of the same brought to another size.

        Raises:
            DamagedImageError: for an image that is not what was committed; it is put aside, and `sample` draws it again.
        """
        known = {self._key(key, size): unit for unit, key in cell.keys.items()}
        return cache.matrix(
            [self._key(key, size) for key in cell.keys.values()], lambda key: _at(self.store.read(known[key]), size)
        )

    def real_features(self, cache: FeatureCache, indices: Sequence[int], size: tuple[int, int] | None = None) -> Features:
        """Of real pictures, as they are or brought to a size."""
        own = {index: key for key, index in self.reference.keys.items()}
        known = {self._key(own[index], size): index for index in indices}
        return cache.matrix(list(known), lambda key: _at(self.reference.read(known[key]), size))

    @staticmethod
    def _key(digest: str, size: tuple[int, int] | None) -> str:
        return digest if size is None else f"{digest} at {size[0]}x{size[1]}"


def _at(picture: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    return picture if size is None else resized(picture[None], *size)[0]


def make_plan(
    model: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[str],
    rules: Sequence[str],
    *,
    steps: int,
    guidance: float,
    dtype: str = "auto",
    device: str = "auto",
    reference: str = "",
) -> Plan:
    """The plan of a comparison. Nothing is loaded, where the catalogue knows the model.

    Args:
        model, steps, guidance, dtype, device: see `sweep.sample.settings`.
        prompts, seeds, rules: see `Plan.of`.
        sizes: height x width in pixels, "64x96".
        reference: what will be compared with; with none, native size must be among the sizes.

    Raises:
        ValueError: for sizes that the model cannot draw.
        WeightsError: when it is not known which state of the weights is meant.
    """
    from entropy_lib.models.catalogue import CATALOGUE
    from entropy_lib.sweep.sample import settings

    pixels, shared = [parse_size(size) for size in sizes], settings(model, steps, guidance, dtype, device)
    if not reference and shared.native_size not in pixels:
        native = size_name(*shared.native_size)
        raise ValueError(f"reference is empty and native size {native} is not among sizes: nothing to compare with")
    for size in pixels if model in CATALOGUE else []:
        check_size(*size, CATALOGUE[model].size_multiple)
    return Plan.of(shared, prompts, seeds, pixels, rules)


def open_comparison(
    plan: Plan,
    folder: Path,
    *,
    extractor: str,
    score_extractor: str,
    view: str = "pad",
    device: str = "auto",
    reference: str = "",
    level: float = 0.95,
) -> Comparison:
    """What is judged by what: the images of the store in `folder`, the extractor, the reference.

    Args:
        extractor, score_extractor, view, device: of the distances and of the CLIP score, see `metrics.extractors`.
        reference: see `sweep.references`; "" for none.
        level: of the intervals.

    Raises:
        WeightsError: when the extractor's weights are not there.
        FileNotFoundError, ValueError: for a reference that cannot be opened, or is too small for the extractor.
    """
    features = _cache(folder, extractor, device, view)
    scores = features if score_extractor == extractor else _cache(folder, score_extractor, device, view)
    if scores.extractor.encode_text is None:
        raise ValueError(f"score_extractor is {score_extractor!r}, which knows no text; take 'mini-clip' or 'open_clip:NAME/TAG'")
    pictures = open_reference(reference)
    if isinstance(pictures, Reference):
        pictures.check_size(features.extractor.side)
    return Comparison(plan, Store(folder), features, scores, pictures, level)


def _cache(folder: Path, name: str, device: str, view: str) -> FeatureCache:
    from entropy_lib.metrics.extractors import extractor
    from entropy_lib.models.catalogue import resolve_device

    return FeatureCache(folder / FEATURES, extractor(name, str(resolve_device(device))), view)
