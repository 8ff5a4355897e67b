"""A comparison: a plan, its images, and what they are compared with.

The notebook and the command line make both by the same two functions, so they measure the same images in the
same way.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics import extractors
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.layout import Detector
from entropy_lib.metrics.registry import CAPTIONS, DISTANCES, FINDINGS, METRICS, Metric, PictureScore, Score
from entropy_lib.metrics.state import FeatureState
from entropy_lib.metrics.views import resize_pictures
from entropy_lib.models.catalogue import CATALOGUE, resolve_device
from entropy_lib.sampling.methods import method
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import Size, SizeLike
from entropy_lib.sweep.engines import local
from entropy_lib.sweep.plan import BATCH, Plan, Unit
from entropy_lib.sweep.references import Reference, open_reference
from entropy_lib.sweep.store import Store

Images = dict[Unit, str]  # checksums of their bytes
FEATURES = "features"  # folder of the cache, beside the images
NATIVE = "native, resized"  # the model's own native images brought to another size
# for an interval: images of one prompt are never paired, and one prompt is left out in turn
LEAST_PROMPTS = 3


@dataclass(frozen=True)
class Comparison:
    """A plan, its images, and what they are compared with.

    Attributes:
        plan, store: what was to be generated, and where it lies.
        caches: {what they are for: features}, of `DISTANCES`, `CAPTIONS` and `FINDINGS` (see
            `metrics.registry`) as far as the metrics need them and can have them.
        reference: real images, a state of their features, or None for none.
        level: of all intervals.
        metrics: names of the metrics that are wanted; None for all.
    """

    plan: Plan
    store: Store
    caches: Mapping[str, FeatureCache]
    reference: Reference | FeatureState | None = None
    level: float = 0.95
    metrics: Sequence[str] | None = None

    def wanted(self, kind: type[Metric] = Metric) -> list[Metric]:
        """The metrics, or those of one kind, that are wanted and that there are features for."""
        chosen = [METRICS[name] for name in self.metrics or METRICS if isinstance(METRICS[name], kind)]
        return [metric for metric in chosen if getattr(metric, "features", None) in (None, *self.caches)]

    def generate(self, batch: int = BATCH, device: str = "auto", progress: bool = True) -> int:
        """Generate, in this process, what the store does not have; returns how many images that were.

        Raises:
            InvalidInputError: as `engines.local`.
        """
        return local(self.plan.groups(batch), self.store, device=device, progress=progress)

    def images(
        self, size: str, method: str, prompts: Sequence[str]
    ) -> UInt8[np.ndarray, "prompt height width 3"]:
        """One image of each of some prompts, that of its first seed.

        Raises:
            InvalidInputError: where a prompt has no usable image.
        """
        units = {unit.prompt: unit for unit in reversed(self.usable(size, method)[0])}
        if missing := [prompt for prompt in prompts if prompt not in units]:
            raise InvalidInputError(
                f"no image of {missing[0]!r} at {size} by {method} is usable; generate it, or leave it out"
            )
        return np.stack([self.store.read(units[prompt]) for prompt in prompts])

    def usable(self, size: str, method: str) -> tuple[Images, Counter[str]]:
        """The images of one size by one method, in the order of the plan, and why others are left out.

        Returns:
            {unit: checksum of its image's bytes}, and {reason: how many}.
        """
        records = self.store.records(self.plan.cells[size, self.plan.generated_by(size, method)])
        usable = {unit: record["sha256"] for unit, record in records.items() if "excluded" not in record}
        return usable, Counter(record["excluded"] for record in records.values() if "excluded" in record)

    def common_images(self, size: str) -> tuple[dict[str, Images], list[tuple[str, str, int]]]:
        """The images of a size, and of native size as `NATIVE`, that all methods have by prompt and seed.

        Returns:
            {method: images}, and what is left out: method, reason, how many.

        Raises:
            InvalidInputError: if fewer than three prompts are left.
        """
        plan = self.plan
        found = {method: self.usable(size, method) for method in plan.methods}
        if plan.native in plan.sizes and size != plan.native:
            found[NATIVE] = self.usable(plan.native, plan.methods[0])
        common = set.intersection(*({(u.prompt, u.seed) for u in usable} for usable, _ in found.values()))
        if len({prompt for prompt, _ in common}) < LEAST_PROMPTS:
            reasons = {method: dict(excluded) for method, (_, excluded) in found.items()}
            raise InvalidInputError(
                f"{len(common)} images are usable at {size} ({reasons}); generate them with `sweep sample`"
            )
        left_out = [(method, *each) for method, (_, excluded) in found.items() for each in excluded.items()]
        if dropped := len(plan.prompts) * len(plan.seeds) - len(common):
            left_out.append(("all", "pairs dropped", dropped))
        images = {
            method: {unit: key for unit, key in usable.items() if (unit.prompt, unit.seed) in common}
            for method, (usable, _) in found.items()
        }
        return images, left_out

    def sample(self, images: Images, size: SizeLike | None = None) -> "Sample":
        """Generated images as the metrics see them, or the same brought to another size.

        Reading one that is not what was committed raises DamagedImageError: it is put aside, and
        `sweep sample` generates it again.
        """
        return Sample(self, [unit.prompt for unit in images], images, self.store.read, size)

    def real_sample(self, indices: Sequence[int], size: SizeLike | None = None) -> "Sample":
        """Real images as the metrics see them, as they are or brought to a size."""
        real, captioned = self.reference, self.reference.caption is not None
        names = [f"image {index} of {real.name}" for index in indices]
        digests = {index: real.survey.digest[index] for index in indices}
        prompts = real.captions(indices) if captioned else names
        return Sample(self, prompts, digests, real.read, size, captioned)


@dataclass(frozen=True)
class Sample:
    """Images as the metrics see them."""

    comparison: Comparison  # whose networks and metrics
    prompts: list[str]  # of each image; a name of its own where an image has none
    digests: Mapping[Any, str]  # {what an image is read by: checksum of it}
    read: Callable[[Any], np.ndarray]  # gives the pixels of an image
    size: SizeLike | None = None  # that all are brought to; None for their own
    captioned: bool = True  # whether prompts say what the images are to show

    found: dict[Path, Float[Tensor, "image dim"]] = field(default_factory=dict, repr=False)

    def rows(self, source: FeatureCache) -> Float[Tensor, "image dim"]:
        """What a cache computes from the images; equal images share it."""
        if source.folder not in self.found:
            suffix = "" if self.size is None else f" at {Size.of(self.size)}"
            keys = [digest + suffix for digest in self.digests.values()]
            image_of = dict(zip(keys, self.digests, strict=True))
            self.found[source.folder] = source.matrix(keys, lambda key: self._pixels(image_of[key]))
        return self.found[source.folder]

    def _pixels(self, image: Any) -> np.ndarray:
        whole = self.read(image)
        return whole if self.size is None else resize_pictures(whole[None], *Size.of(self.size))[0]

    def features(self, purpose: str) -> Float[Tensor, "image dim"]:
        """Those of the network for `DISTANCES`, `CAPTIONS` or `FINDINGS`."""
        return self.rows(self.comparison.caches[purpose])

    @cached_property
    def scores(self) -> dict[str, Float[np.ndarray, " image"]]:
        """{wanted metric that is a number an image: its numbers}, NaN where there is none."""
        comparison, found = self.comparison, {}
        for metric in comparison.wanted(Score) if self.captioned else []:
            embed = comparison.caches[metric.features].captions
            found[metric.name] = metric.values(self.features(metric.features), self.prompts, embed)
        for metric in comparison.wanted(PictureScore):
            found[metric.name] = self.rows(FeatureCache(comparison.store.folder / FEATURES, metric))[:, 0]
        return {name: values.double().numpy() for name, values in found.items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many images, of how many prompts."""
        return {"images": len(self.prompts), "prompts": len(set(self.prompts))}


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
        InvalidInputError: for sizes that the model cannot generate, rules of levels that it has not, or fewer
            than three prompts.
        WeightsError: when it is not known which state of the weights is meant.
    """
    from entropy_lib.models.outline import outline_levels  # diffusers is slow to import
    from entropy_lib.sweep.sample import settings

    if (count := len(set(prompts))) < LEAST_PROMPTS:
        raise InvalidInputError(
            f"prompt_count is {count}; metric tables need {LEAST_PROMPTS} different prompts at least, for "
            "there is no interval with fewer (70 give useful ones)"
        )
    sizes = [Size.parse(size) for size in sizes]
    shared = replace(settings(model, steps, guidance, dtype, device), calibration=calibration)
    if not reference and shared.native_size not in sizes:
        native = Size(*shared.native_size)
        said = f"reference is empty and native size {native} is not among sizes"
        raise InvalidInputError(f"{said}: nothing to compare with")
    for size in sizes if model in CATALOGUE else []:
        Size.of(size, CATALOGUE[model].size_multiple)
    for name in methods:
        rule(method(name).rule).layers(outline_levels(model))
    return Plan.of(shared, prompts, seeds, sizes, methods)


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
    """What is compared with what: the images of the store in `folder`, the feature networks, the reference.

    Args:
        extractor, score_extractor, view, device: of the distances and of the CLIP score, see
            `metrics.extractors`.
        reference: see `sweep.references`; "" for none.
        level: of the intervals.
        metrics: names of `metrics.registry.METRICS`, None for all; networks that none of them needs are not
            loaded. Those of findings are given where the detector understands every prompt, a caption of
            scenes, and no size is below 24 px a side.

    Raises:
        WeightsError: when the extractor's weights are not there.
        MissingFileError, InvalidInputError: for a reference that cannot be opened, or is too small for the
            extractor.
    """

    def opened(name: str) -> FeatureCache:
        return FeatureCache(folder / FEATURES, extractors.extractor(name, str(resolve_device(device))), view)

    real, caches = open_reference(reference), {}
    wanted = {getattr(METRICS[name], "features", None) for name in metrics or METRICS}
    if DISTANCES in wanted:
        caches[DISTANCES] = opened(extractor)
        if isinstance(real, Reference):
            real.check_size(min(caches[DISTANCES].extractor.side, *plan.settings.native_size))
    if CAPTIONS in wanted:
        shared = DISTANCES in caches and score_extractor == extractor
        caches[CAPTIONS] = caches[DISTANCES] if shared else opened(score_extractor)
        if caches[CAPTIONS].extractor.encode_text is None:
            able = "take 'mini-clip' or 'open_clip:NAME/TAG'"
            raise InvalidInputError(f"score_extractor is {score_extractor!r}, which knows no text; {able}")
    if FINDINGS in wanted and (detector := _detector(plan)):
        caches[FINDINGS] = FeatureCache(folder / FEATURES, detector)
    return Comparison(plan, Store(folder), caches, real, level, metrics=metrics)


def _detector(plan: Plan) -> Detector | None:
    """The detector, where it understands every prompt and can look at every size."""
    from entropy_lib.scenes import detection

    detector = detection.detector()
    understood = all(detector.asked(prompt) for prompt in plan.prompts)
    seen = all(min(Size.parse(size)) >= detector.smallest for size in plan.sizes)
    return detector if understood and seen else None
