"""From committed images to metric tables: every number with its interval, every comparison in pairs.

All methods of a size are judged on the same prompts and seeds: an image that is missing under one of them is left out of
all. Two tables come out, tidy, one row a number; which metrics there are is said by `metrics.catalogue.METRICS`:

    levels        how far each method is from the reference, how well it fits its prompts
    differences   a method against the first, paired image by image

Beside the methods stand two floors at every size: `real, resized`, real pictures brought to that size, is what a perfect model
would get; `native, resized`, the model's own native images brought to that size, is what one gets without the trouble.

Whatever distances are measured to is a sample too: its error is part of every interval, and blocks of prompts that it shares
with a method are deleted from both. Only a reference that is a state is taken as it is.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import replacing
from entropy_lib.metrics.catalogue import CAPTIONS, DISTANCES, METRICS, Distance, PictureScore, Score
from entropy_lib.metrics.extractors import CutCaptionWarning
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.state import FeatureState
from entropy_lib.sizes import parse_size
from entropy_lib.statistics.interval import Interval, wilson
from entropy_lib.statistics.interventions import holm
from entropy_lib.statistics.resampling import deal_blocks, deal_together, jackknife, jackknife_difference
from entropy_lib.sweep.comparison import LEAST_PROMPTS, NATIVE, Comparison, UsableImages
from entropy_lib.sweep.plan import drawn_as
from entropy_lib.sweep.references import Reference

REAL = "real, resized"


@dataclass(frozen=True)
class Tables:
    """What `metric_tables` returns.

    Attributes:
        levels: columns `size, method, metric, reference, estimate, low, high, images, prompts`.
        differences: columns `size, method, against, metric, estimate, low, high, p_value, p_holm, effect, share_improved,
            share_low, share_high, pairs`; `estimate` is that of the method less that of the first.
        exclusions: columns `size, method, reason, images`.
        label: of the features: network, weights, resize, view.
        provenance: model, sampler, samples and reference, in one line.
    """

    levels: pd.DataFrame
    differences: pd.DataFrame
    exclusions: pd.DataFrame
    label: str
    provenance: str

    def write(self, folder: Path) -> list[Path]:
        """The tables as CSV and where they come from as text, each whole or not at all."""
        tables = {
            "levels": self.levels.assign(features=self.label),
            "differences": self.differences.assign(features=self.label),
            "exclusions": self.exclusions,
        }
        for name, table in tables.items():
            with replacing(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False, float_format="%.6g", encoding="utf-8")
        with replacing(folder / "provenance.txt") as temporary:
            temporary.write_text(f"{self.provenance}\n{self.label}\n", encoding="utf-8")
        return [*(folder / f"{name}.csv" for name in tables), folder / "provenance.txt"]


def metric_tables(comparison: Comparison, progress: Callable[[str], None] = lambda size: None) -> Tables:
    """All metrics of a comparison.

    A Fréchet distance is left out where either side has fewer than two images for each feature: no interval would cover it.
    Kernel distances and scores are given for any number.

    Args:
        comparison: what to judge; nothing is drawn.
        progress: called with each size before its work starts.

    Raises:
        InvalidInputError: where hardly anything was drawn.
        DamagedImageError: for an image that is not what was committed.
    """
    targets = _targets(comparison)
    levels, differences, exclusions = [], [], []
    for size in comparison.plan.sizes:
        progress(size)
        images, dropped = comparison.common_images(size)
        samples = _samples(comparison, size, images)
        exclusions += [{"size": size, **row} for row in _exclusions(images, dropped)]
        levels += [{"size": size, **row} for row in _levels(comparison, samples, targets, size)]
        differences += [{"size": size, **row} for row in _differences(comparison, samples, targets, size)]
    changes = _corrected(pd.DataFrame(differences))
    left_out = pd.DataFrame(exclusions, columns=["size", "method", "reason", "images"])
    return Tables(pd.DataFrame(levels), changes, left_out, _label(comparison), _provenance(comparison))


@dataclass(frozen=True)
class Sample:
    """The images of a method at one size, as the metrics see them.

    Attributes:
        prompts: of each image; a name of its own where a picture has none.
        features: {what they are for: a row an image}.
        scores: {metric: a number an image}.
    """

    prompts: list[str]
    features: Mapping[str, Float[Tensor, "image dim"]]
    scores: Mapping[str, Float[np.ndarray, " image"]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        prompts: list[str],
        features_of: Callable[[FeatureCache], Tensor],
        scored: bool,
        captioned: bool = True,
    ) -> "Sample":
        """Features of all networks; where they are wanted, scores: of captions where the prompts are some."""
        caches = comparison.caches
        distinct = {id(cache): features_of(cache) for cache in {id(cache): cache for cache in caches.values()}.values()}
        features = {name: distinct[id(cache)] for name, cache in caches.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutCaptionWarning)  # it is said once, in the provenance
            scores = {
                metric.name: metric.values(features[metric.features], prompts, caches[metric.features].captions).numpy()
                for metric in comparison.wanted(Score)
                if scored and captioned
            }
        scores |= {
            metric.name: features_of(comparison.numbers(metric))[:, 0].double().numpy()
            for metric in comparison.wanted(PictureScore)
            if scored
        }
        return cls(prompts, features, scores)

    @property
    def counts(self) -> dict[str, int]:
        """How many images, of how many prompts."""
        return {"images": len(self.prompts), "prompts": len(set(self.prompts))}


@dataclass(frozen=True)
class Target:
    """What distances are measured to.

    Attributes:
        name: "real", or "native": the model's own native pictures.
        reference: the images themselves, or a state of their features.
    """

    name: str
    reference: Sample | FeatureState

    def intervals(self, comparison: Comparison, sample: Sample, first: Sample | None = None) -> dict[str, Interval]:
        """Every distance of a sample that can be given; with `first` how much farther the sample is than that, in pairs."""
        labels, reference_labels = self._labels(comparison, sample)
        options, found = {"reference_labels": reference_labels, "level": comparison.level}, {}
        for metric in comparison.wanted(Distance):
            features, reference = sample.features[metric.features], self._features(metric.features)
            if not metric.can_be_given(features, reference):
                continue
            if first is None:
                found[metric.name] = metric.interval(features, reference, labels, **options)
            else:
                found[metric.name] = metric.difference(features, first.features[metric.features], reference, labels, **options)
        return found

    def _features(self, name: str) -> Tensor | FeatureState:
        return self.reference if isinstance(self.reference, FeatureState) else self.reference.features[name]

    def _labels(self, comparison: Comparison, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Blocks of the sample's prompts, and the same ones of the reference's."""
        if isinstance(self.reference, FeatureState):
            return _blocks(comparison, sample), None
        fewest = min(len(set(prompts)) for prompts in (sample.prompts, self.reference.prompts))
        return deal_together(sample.prompts, self.reference.prompts, min(comparison.blocks, fewest))


def _targets(comparison: Comparison) -> list[Target]:
    plan, reference, targets = comparison.plan, comparison.reference, []
    if not comparison.wanted(Distance):
        return []
    if isinstance(reference, FeatureState):
        if reference.extractor not in ("", comparison.caches[DISTANCES].label):
            raise InvalidInputError(
                f"the reference holds features of {reference.extractor!r}, not of {comparison.caches[DISTANCES].label!r}; name its "
                "extractor and view, or make the state again"
            )
        targets.append(Target("real", reference))
    elif reference is not None:
        targets.append(Target("real", _real_sample(comparison, reference, reference.halves()[1], scored=False)))
    if plan.native in plan.sizes:
        images, _ = comparison.common_images(plan.native)
        targets.append(Target("native", _drawn_sample(comparison, images[plan.methods[0]], scored=False)))
    return targets


def _samples(comparison: Comparison, size: str, images: Mapping[str, UsableImages]) -> dict[str, Sample]:
    """The methods of a size and its floors. Where one changes nothing it is not shown apart from the one that it equals."""
    pixels, methods, at_native_size = parse_size(size), comparison.plan.methods, size == comparison.plan.native
    samples = {
        name: _drawn_sample(comparison, usable, pixels if name == NATIVE else None)
        for name, usable in images.items()
        if name == NATIVE or drawn_as(methods, name, at_native_size) == name
    }
    if isinstance(comparison.reference, Reference):
        samples[REAL] = _real_sample(comparison, comparison.reference, comparison.reference.halves()[0], pixels)
    return samples


def _drawn_sample(comparison: Comparison, usable: UsableImages, size: tuple[int, int] | None = None, scored: bool = True) -> Sample:
    prompts = [unit.prompt for unit in usable.keys]
    return Sample.of(comparison, prompts, lambda cache: comparison.features(cache, usable, size), scored)


def _real_sample(
    comparison: Comparison,
    reference: Reference,
    indices: list[int],
    size: tuple[int, int] | None = None,
    scored: bool = True,
) -> Sample:
    captioned = reference.caption is not None
    prompts = reference.captions(indices) if captioned else [f"picture {index} of {reference.name}" for index in indices]
    return Sample.of(comparison, prompts, lambda cache: comparison.real_features(cache, indices, size), scored, captioned)


def _exclusions(images: Mapping[str, UsableImages], dropped: int) -> list[dict]:
    """What was left out at one size, by method and reason; and how many pairs that took away."""
    reasons = [(method, reason, count) for method, usable in images.items() for reason, count in usable.excluded.items()]
    rows = [*reasons, ("all", "pairs dropped", dropped)] if dropped else reasons
    return [{"method": method, "reason": reason, "images": count} for method, reason, count in rows]


def _levels(comparison: Comparison, samples: Mapping[str, Sample], targets: Sequence[Target], size: str) -> list[dict]:
    rows = []
    for method, sample in samples.items():
        for target in targets:
            if target.name == "native" and _are_the_native_pictures(comparison, method, size):
                continue
            rows += [
                {"method": method, "metric": metric, "reference": target.name, **interval.columns(), **sample.counts}
                for metric, interval in target.intervals(comparison, sample).items()
            ]
        for metric, values in sample.scores.items():
            known = _known(sample.prompts, values)
            if known is None:
                continue
            counts = {"images": len(known), "prompts": len({sample.prompts[index] for index in known})}
            interval = jackknife(np.mean, values[known], _blocks(comparison, sample, known), level=comparison.level)
            row = {"method": method, "metric": metric, "reference": METRICS[metric].reference}
            rows.append({**row, **interval.columns(), **counts})
    return rows


def _known(prompts: Sequence[str], *values: Float[np.ndarray, " image"]) -> np.ndarray | None:
    """Rows in which all values are numbers; None where they are of too few prompts for an interval."""
    rows = np.flatnonzero(np.isfinite(values).all(0))
    return rows if len({prompts[index] for index in rows}) >= LEAST_PROMPTS else None


def _differences(comparison: Comparison, samples: Mapping[str, Sample], targets: Sequence[Target], size: str) -> list[dict]:
    """Each further method, and the native floor, against the first, image by image; distances are to the first target."""
    name, rows = comparison.plan.methods[0], []
    for method, sample in samples.items():
        if method in (name, REAL):
            continue
        pair = {"method": method, "against": name, "pairs": len(sample.prompts)}
        for target in targets[:1]:
            if target.name == "native" and (method == NATIVE or size == comparison.plan.native):
                continue  # one of the two is made of those very pictures
            for metric, interval in target.intervals(comparison, sample, samples[name]).items():
                rows.append({**pair, "metric": metric, **interval.columns(), "p_value": interval.p_value})
        for metric in sample.scores:
            known = _known(sample.prompts, sample.scores[metric], samples[name].scores[metric])
            if known is not None:
                difference = _score_difference(comparison, metric, sample, samples[name], known)
                rows.append({**pair, "metric": metric, **difference, "pairs": len(known)})
    return rows


def _are_the_native_pictures(comparison: Comparison, method: str, size: str) -> bool:
    return method == NATIVE or (method == comparison.plan.methods[0] and size == comparison.plan.native)


def _score_difference(comparison: Comparison, metric: str, sample: Sample, first: Sample, rows: np.ndarray) -> dict:
    """Paired scores: the mean difference, its size in standard deviations, and the share of prompts improved (or with more)."""
    new, old = sample.scores[metric][rows], first.scores[metric][rows]
    interval = jackknife_difference(np.mean, new, old, _blocks(comparison, sample, rows), level=comparison.level)
    gain = (old - new) if METRICS[metric].better == "lower" else (new - old)
    by_prompt = pd.Series(gain).groupby([sample.prompts[index] for index in rows]).mean()
    changed = by_prompt[by_prompt != 0]
    improved = wilson(int((changed > 0).sum()), len(changed), comparison.level) if len(changed) else None
    deviation = float(np.std(new - old, ddof=1))
    return {
        **interval.columns(),
        "p_value": interval.p_value,
        "effect": float(interval.estimate / deviation) if deviation else 0.0,
        "share_improved": improved.estimate if improved else np.nan,
        "share_low": improved.low if improved else np.nan,
        "share_high": improved.high if improved else np.nan,
    }


def _blocks(comparison: Comparison, sample: Sample, rows: Sequence[int] | None = None) -> np.ndarray:
    """The block of each image, or of some of them."""
    prompts = sample.prompts if rows is None else [sample.prompts[index] for index in rows]
    return deal_blocks(prompts, min(comparison.blocks, len(set(prompts))))


def _label(comparison: Comparison) -> str:
    """What decides the features; of each network where there are several."""
    labels: dict[str, list[str]] = {}
    for purpose, cache in comparison.caches.items():
        labels.setdefault(cache.label, []).append(purpose)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{' and '.join(purposes)}: {label}" for label, purposes in labels.items())


def _provenance(comparison: Comparison) -> str:
    real = comparison.reference
    pictures = real.summary() if isinstance(real, Reference) else "none" if real is None else f"state of {real.count:,} pictures"
    counted = "taken as it is" if isinstance(real, FeatureState) else "counted as a sample"
    parts = [
        comparison.plan.provenance,
        f"reference {pictures}, {counted}",
        f"{comparison.level:.0%} interval, jackknife over prompts",
        _cut_captions(comparison),
    ]
    return " · ".join(part for part in parts if part)


def _cut_captions(comparison: Comparison) -> str:
    """How many of the prompts, and of the captions of real pictures, the CLIP score knows the beginning of only."""
    if not any(metric.features == CAPTIONS for metric in comparison.wanted(Score)):
        return ""
    real, texts = comparison.reference, [unit.prompt for unit in comparison.plan.units]
    if isinstance(real, Reference) and real.caption is not None:
        texts += real.captions(real.halves()[0])
    return comparison.caches[CAPTIONS].extractor.cut_off(list(dict.fromkeys(texts)))


def _corrected(differences: pd.DataFrame) -> pd.DataFrame:
    """p-values corrected for the number of sizes at which the same pair of methods is compared by the same metric (Holm)."""
    return differences if differences.empty else holm(differences, by=["method", "metric"])
