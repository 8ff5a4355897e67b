"""A comparison: a plan, its images, and what they are compared with.

The notebook and the command line make both by the same two functions, so they judge the same images in the same way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from entropy_lib.baselines.methods import method
from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.catalogue import CAPTIONS, DISTANCES, FINDINGS, METRICS, Metric, PictureScore
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.layout import Detector
from entropy_lib.metrics.state import FeatureState
from entropy_lib.metrics.views import resize_pictures
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import check_size, parse_size, size_name
from entropy_lib.statistics.resampling import BLOCKS
from entropy_lib.sweep.plan import Plan, drawn_as
from entropy_lib.sweep.references import Reference, open_reference
from entropy_lib.sweep.store import DamagedImageError, NotDrawnError, Store
from entropy_lib.sweep.units import Unit

FEATURES = "features"  # folder of the cache, beside the images
NATIVE = "native, resized"  # the model's own native images brought to another size
LEAST_PROMPTS = 3  # for an interval: images of one prompt are never paired, and one prompt is left out in turn


@dataclass(frozen=True)
class UsableImages:
    """The images of one size by one method that can be used, in the order of the plan.

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

    def only(self, pairs: set[tuple[str, int]]) -> "UsableImages":
        """The same, reduced to some prompts and seeds."""
        return UsableImages({unit: key for unit, key in self.keys.items() if (unit.prompt, unit.seed) in pairs}, self.excluded)


@dataclass(frozen=True)
class Comparison:
    """A plan, its images, and what they are compared with.

    Attributes:
        plan, store: what was to be drawn, and where it lies.
        caches: {what they are for: features}, of `DISTANCES`, `CAPTIONS` and `FINDINGS` (see `metrics.catalogue`) as far as the
            metrics need them and can have them.
        reference: real pictures, a state of their features, or None for none.
        level: of all intervals.
        blocks: of the jackknife.
        metrics: names of the metrics that are wanted; None for all.
    """

    plan: Plan
    store: Store
    caches: Mapping[str, FeatureCache]
    reference: Reference | FeatureState | None = None
    level: float = 0.95
    blocks: int = BLOCKS
    metrics: Sequence[str] | None = None

    def wanted(self, kind: type[Metric] = Metric) -> list[Metric]:
        """The metrics, or those of one kind, that are wanted and that there are features for."""
        chosen = [METRICS[name] for name in self.metrics or METRICS if isinstance(METRICS[name], kind)]
        return [metric for metric in chosen if getattr(metric, "features", None) in (None, *self.caches)]

    def usable(self, size: str, method: str) -> UsableImages:
        """The images of one size by one method; what is missing, damaged or was excluded is counted."""
        drawn = drawn_as(self.plan.methods, method, size == self.plan.native)
        records = {unit: self._record(unit) for unit in self.plan.cells[size, drawn]}
        keys = {unit: record["sha256"] for unit, record in records.items() if "excluded" not in record}
        return UsableImages(keys, dict(Counter(record["excluded"] for record in records.values() if "excluded" in record)))

    def _record(self, unit: Unit) -> dict:
        try:
            return self.store.record(unit)
        except NotDrawnError:
            return {"excluded": "not drawn"}
        except DamagedImageError:
            return {"excluded": "damaged"}

    def common_images(self, size: str) -> tuple[dict[str, UsableImages], int]:
        """The images of a size, and of native size as `NATIVE`, reduced to the prompts and seeds that all of them have.

        Returns:
            {method: images}, and how many pairs were dropped.

        Raises:
            InvalidInputError: if fewer than three prompts are left.
        """
        cells = {method: self.usable(size, method) for method in self.plan.methods}
        if self.plan.native in self.plan.sizes and size != self.plan.native:
            cells[NATIVE] = self.usable(self.plan.native, self.plan.methods[0])
        common = set.intersection(*(cell.pairs for cell in cells.values()))
        if len({prompt for prompt, _ in common}) < LEAST_PROMPTS:
            reasons = {method: cell.excluded for method, cell in cells.items()}
            raise InvalidInputError(f"{len(common)} images are usable at {size} ({reasons}); draw them first with `sweep sample`")
        drawn = next(len(units) for (label, _), units in self.plan.cells.items() if label == size)
        return {method: cell.only(common) for method, cell in cells.items()}, drawn - len(common)

    def numbers(self, metric: PictureScore) -> FeatureCache:
        """What keeps the numbers of a metric, beside the features."""
        return FeatureCache(self.store.folder / FEATURES, metric)

    def features(
        self, cache: FeatureCache, images: UsableImages, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "image dim"]:
        """Of drawn images, or of the same brought to another size.

        Raises:
            DamagedImageError: for an image that is not what was committed; it is put aside, and `sample` draws it again.
        """
        units = {self._key(key, size): unit for unit, key in images.keys.items()}
        return cache.matrix(
            [self._key(key, size) for key in images.keys.values()], lambda key: _at(self.store.read(units[key]), size)
        )

    def real_features(
        self, cache: FeatureCache, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "picture dim"]:
        """Of real pictures, as they are or brought to a size."""
        digests = {index: digest for digest, index in self.reference.keys.items()}
        places = {self._key(digests[index], size): index for index in indices}
        return cache.matrix(list(places), lambda key: _at(self.reference.read(places[key]), size))

    @staticmethod
    def _key(digest: str, size: tuple[int, int] | None) -> str:
        return digest if size is None else f"{digest} at {size[0]}x{size[1]}"


def _at(picture: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    return picture if size is None else resize_pictures(picture[None], *size)[0]


def make_plan(
    model: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[str],
    methods: Sequence[str],
    *,
    steps: int,
    guidance: float,
    dtype: str = "auto",
    device: str = "auto",
    reference: str = "",
    calibration: str = "",
) -> Plan:
    """The plan of a comparison. Nothing is loaded, where the catalogue knows the model.

    Args:
        model, steps, guidance, dtype, device: see `sweep.sample.settings`.
        prompts, seeds, methods: see `Plan.of`.
        sizes: height x width in pixels, "64x96".
        reference: what will be compared with; with none, native size must be among the sizes.
        calibration: digest of one that the store keeps, see `Store.keep_calibration`.

    Raises:
        InvalidInputError: for sizes that the model cannot draw, rules of levels that it has not, or fewer than three prompts.
        WeightsError: when it is not known which state of the weights is meant.
    """
    from entropy_lib.models.catalogue import CATALOGUE
    from entropy_lib.models.outline import outline_levels
    from entropy_lib.sweep.sample import settings

    if len(set(prompts)) < LEAST_PROMPTS:
        raise InvalidInputError(
            f"prompt_count is {len(set(prompts))}; metric tables need {LEAST_PROMPTS} different prompts at least, for there is no "
            "interval with fewer (70 give useful ones)"
        )
    pixels = [parse_size(size) for size in sizes]
    shared = replace(settings(model, steps, guidance, dtype, device), calibration=calibration)
    if not reference and shared.native_size not in pixels:
        native = size_name(*shared.native_size)
        raise InvalidInputError(f"reference is empty and native size {native} is not among sizes: nothing to compare with")
    for size in pixels if model in CATALOGUE else []:
        check_size(*size, CATALOGUE[model].size_multiple)
    for chosen in (rule(method(name).rule) for name in methods):
        chosen.layers(outline_levels(model))
    return Plan.of(shared, prompts, seeds, pixels, methods)


def open_comparison(
    plan: Plan,
    folder: Path,
    *,
    extractor: str = "mini-clip",
    score_extractor: str = "mini-clip",
    view: str = "pad",
    device: str = "auto",
    reference: str = "",
    level: float = 0.95,
    metrics: Sequence[str] | None = None,
) -> Comparison:
    """What is judged by what: the images of the store in `folder`, the extractor, the reference.

    Args:
        extractor, score_extractor, view, device: of the distances and of the CLIP score, see `metrics.extractors`.
        reference: see `sweep.references`; "" for none.
        level: of the intervals.
        metrics: names of `metrics.catalogue.METRICS`, None for all; networks that none of them needs are not loaded. Those of
            findings are given where the judge understands every prompt, a caption of scenes, and no size is below 24 px a side.

    Raises:
        WeightsError: when the extractor's weights are not there.
        MissingFileError, InvalidInputError: for a reference that cannot be opened, or is too small for the extractor.
    """
    pictures, caches = open_reference(reference), {}
    wanted = {getattr(METRICS[name], "features", None) for name in metrics or METRICS}
    if DISTANCES in wanted:
        caches[DISTANCES] = _cache(folder, extractor, device, view)
        if isinstance(pictures, Reference):
            pictures.check_size(min(caches[DISTANCES].extractor.side, *plan.native_size))
    if CAPTIONS in wanted:
        caches[CAPTIONS] = _caption_cache(folder, score_extractor, device, view, caches.get(DISTANCES))
    if FINDINGS in wanted and (detector := _detector(plan)):
        caches[FINDINGS] = FeatureCache(folder / FEATURES, detector)
    return Comparison(plan, Store(folder), caches, pictures, level, metrics=metrics)


def _caption_cache(folder: Path, name: str, device: str, view: str, other: FeatureCache | None) -> FeatureCache:
    same = other is not None and other.extractor.name == name
    cache = other if same else _cache(folder, name, device, view)
    if cache.extractor.encode_text is None:
        raise InvalidInputError(f"score_extractor is {name!r}, which knows no text; take 'mini-clip' or 'open_clip:NAME/TAG'")
    return cache


def _detector(plan: Plan) -> Detector | None:
    """The judge, where it understands every prompt and can look at every size."""
    from entropy_lib.scenes import judge

    detector = judge.detector()
    understood = all(detector.asked(prompt) for prompt in {unit.prompt for unit in plan.units})
    seen = all(min(unit.height, unit.width) >= detector.smallest for unit in plan.units)
    return detector if understood and seen else None


def _cache(folder: Path, name: str, device: str, view: str) -> FeatureCache:
    from entropy_lib.metrics.extractors import extractor
    from entropy_lib.models.catalogue import resolve_device

    return FeatureCache(folder / FEATURES, extractor(name, str(resolve_device(device))), view)
