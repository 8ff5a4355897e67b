"""From committed images to metric tables: every number with its interval, every comparison in pairs.

All methods of a size are measured on the same prompts and seeds: an image that is missing under one of them
is left out of all. Two tables come out, tidy, one row a number; which metrics there are is said by
`metrics.registry.METRICS`:

    levels        how far each method is from the reference, how well it fits its prompts
    differences   a method against the first, paired image by image

Beside the methods stand two reference baselines at every size: `real, resized`, real images brought to that
size, is what a perfect model would get; `native, resized`, the model's own native images brought to that
size, is what one gets without the trouble.

Whatever distances are measured to is a sample too: its error is part of every interval, and blocks of prompts
that it shares with a method are deleted from both. Only a reference that is a state is taken as it is.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import replacing
from entropy_lib.metrics.extractors import CutCaptionWarning
from entropy_lib.metrics.layout import layout_values
from entropy_lib.metrics.registry import (
    CAPTIONS,
    DISTANCES,
    FINDINGS,
    METRICS,
    PRIMARY,
    UNCOUNTED,
    Distance,
    Score,
)
from entropy_lib.metrics.state import FeatureState
from entropy_lib.sizes import Size
from entropy_lib.statistics.fits import cluster_mean
from entropy_lib.statistics.interval import Interval, wilson
from entropy_lib.statistics.interventions import holm
from entropy_lib.statistics.resampling import (
    BLOCKS,
    deal_blocks,
    deal_together,
    jackknife,
    jackknife_difference,
)
from entropy_lib.sweep.comparison import LEAST_PROMPTS, NATIVE, Comparison, Images, Sample
from entropy_lib.sweep.references import Reference

REAL = "real, resized"
WAYS = {"influence": "influences of images", "blocks": "deleting blocks of prompts"}  # to an interval


@dataclass(frozen=True)
class Tables:
    """What `evaluate` returns.

    Attributes:
        levels: columns `size, method, metric, reference, estimate, low, high, way, images, prompts`; `way` is
            that to the interval, "influence" of images or deleting "blocks" of prompts.
        differences: columns `size, method, against, metric, estimate, low, high, way, p_value, p_holm,
            effect, share_improved, share_low, share_high, pairs`; `estimate` is that of the method less that
            of the first method.
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
        contents = {f"{name}.csv": t.to_csv(index=False, float_format="%.6g") for name, t in tables.items()}
        contents["provenance.txt"] = f"{self.provenance}\n{self.label}\n"
        for name, content in contents.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
        return [folder / name for name in contents]


def evaluate(comparison: Comparison, progress: Callable[[str], None] = lambda size: None) -> Tables:
    """All metrics of a comparison, as tables. Nothing is generated.

    A Fréchet distance is left out where either side has fewer than two images for each feature: no interval
    would cover it. Kernel distances and scores are given for any number.

    Args:
        comparison: what to measure.
        progress: called with each size before its work starts.

    Raises:
        InvalidInputError: where hardly anything was generated.
        DamagedImageError: for an image that is not what was committed.
    """
    targets = _targets(comparison)
    levels, differences, exclusions = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutCaptionWarning)  # it is said once, in the provenance
        for size in comparison.plan.sizes:
            progress(size)
            images, left_out = comparison.common_images(size)
            samples = _samples(comparison, size, images)
            exclusions += [(size, *each) for each in left_out]
            levels += [{"size": size, **row} for row in _levels(comparison, samples, targets, size)]
            differences += [{"size": size, **row} for row in _differences(comparison, samples, targets, size)]
    changes = pd.DataFrame(differences)
    # p-values are corrected over the sizes at which a pair of methods is compared by a metric
    if len(changes):
        changes = holm(changes, by=["method", "metric"])
    excluded = pd.DataFrame(exclusions, columns=["size", "method", "reason", "images"])
    provenance = _provenance(comparison, [*levels, *differences])
    return Tables(pd.DataFrame(levels), changes, excluded, _label(comparison), provenance)


def _targets(comparison: Comparison) -> dict[str, Sample | FeatureState]:
    """What distances are measured to: "real" images or a state of them, "native" images of the model."""
    plan, reference, targets = comparison.plan, comparison.reference, {}
    if not comparison.wanted(Distance):
        return {}
    if isinstance(reference, FeatureState):
        own = comparison.caches[DISTANCES].label
        if reference.extractor not in ("", own):
            raise InvalidInputError(
                f"the reference holds features of {reference.extractor!r}, not of {own!r}; name its "
                "extractor and view, or make the state again"
            )
        targets["real"] = reference
    elif reference is not None:
        targets["real"] = comparison.real_sample(reference.halves()[1])
    if plan.native in plan.sizes:
        images, _ = comparison.common_images(plan.native)
        targets["native"] = comparison.sample(images[plan.methods[0]])
    return targets


def _distances(
    sample: Sample, target: Sample | FeatureState, first: Sample | None = None
) -> dict[str, Interval]:
    """Every distance of a sample that can be given; with `first` the paired difference to its own."""
    comparison, found = sample.comparison, {}
    options, state = {"level": comparison.level}, isinstance(target, FeatureState)
    if state:
        labels = _blocks(sample)
    else:  # blocks of the sample's prompts, and the same ones of the target's
        fewest = min(BLOCKS, sample.counts["prompts"], target.counts["prompts"])
        labels, options["reference_labels"] = deal_together(sample.prompts, target.prompts, fewest)
    for metric in comparison.wanted(Distance):
        features = [each.features(metric.features) for each in (sample, first) if each is not None]
        known = target if state else target.features(metric.features)
        if metric.can_be_given(features[0], known):
            measure = metric.interval if first is None else metric.difference
            found[metric.name] = measure(*features, known, labels, **options)
    return found


def _samples(comparison: Comparison, size: str, images: Mapping[str, Images]) -> dict[str, Sample]:
    """The methods of a size, of those that make the same images the first, and its reference baselines."""
    samples = {
        name: comparison.sample(usable, size if name == NATIVE else None)
        for name, usable in images.items()
        if name == NATIVE or comparison.plan.generated_by(size, name) == name
    }
    if isinstance(comparison.reference, Reference):
        samples[REAL] = comparison.real_sample(comparison.reference.halves()[0], size)
    return samples


def _levels(
    comparison: Comparison, samples: Mapping[str, Sample], targets: Mapping, size: str
) -> Iterator[dict]:
    plan = comparison.plan
    for method, sample in samples.items():
        # those very images are a target
        native = method == NATIVE or (method == plan.methods[0] and size == plan.native)
        found = [
            (metric, name, interval, sample.counts)
            for name, target in targets.items()
            if not (native and name == "native")
            for metric, interval in _distances(sample, target).items()
        ]
        for metric, reference, interval, counts in [*found, *_score_levels(sample)]:
            row = {"method": method, "metric": metric, "reference": reference}
            yield {**row, **interval.columns(), "way": interval.way, **counts}


def _score_levels(sample: Sample) -> Iterator[tuple[str, str, Interval, dict[str, int]]]:
    """Metric, what it is measured against, mean score, and how many images and prompts have a score."""
    for name, values in sample.scores.items():
        known, metric = _known(sample, values), METRICS[name]
        if known is not None:
            counts = {"images": len(known), "prompts": len({sample.prompts[index] for index in known})}
            blocks = _blocks(sample, known)
            interval = jackknife(np.mean, values[known], blocks, level=sample.comparison.level)
            if metric.bounds is not None:
                interval = interval.within(*metric.bounds, counts["prompts"])
            yield name, metric.reference, interval, counts


def _differences(
    comparison: Comparison, samples: Mapping[str, Sample], targets: Mapping, size: str
) -> Iterator[dict]:
    """Methods and native images against the first method, paired; distances are to the first target."""
    plan = comparison.plan
    first = samples[plan.methods[0]]
    for method, sample in samples.items():
        if method in (plan.methods[0], REAL):
            continue
        pair = {"method": method, "against": plan.methods[0], "pairs": len(sample.prompts)}
        # one of the two is made of the images of the native target
        native = method == NATIVE or size == plan.native
        for name, target in [*targets.items()][:1]:
            found = {} if native and name == "native" else _distances(sample, target, first)
            for metric, interval in found.items():
                yield {**pair, "metric": metric, **_tested(interval)}
        for metric, values in sample.scores.items():
            known = _known(sample, values, first.scores[metric])
            if known is not None:
                difference = _score_difference(metric, sample, first, known)
                yield {**pair, "metric": metric, **difference, "pairs": len(known)}


def _score_difference(metric: str, sample: Sample, first: Sample, rows: np.ndarray) -> dict:
    """The mean paired difference, its size in standard deviations, the fraction of prompts improved."""
    new, old, level = sample.scores[metric][rows], first.scores[metric][rows], sample.comparison.level
    interval = jackknife_difference(np.mean, new, old, _blocks(sample, rows), level=level)
    gain = (old - new) if METRICS[metric].better == "lower" else (new - old)
    by_prompt = pd.Series(gain).groupby([sample.prompts[index] for index in rows]).mean()
    changed = by_prompt[by_prompt != 0]
    improved = (
        wilson(int((changed > 0).sum()), len(changed), level).columns("improved") if len(changed) else {}
    )
    deviation = float(np.std(new - old, ddof=1))
    return {
        **_tested(interval),
        "effect": float(interval.estimate / deviation) if deviation else 0.0,
        **{f"share_{name}": improved.get(name, np.nan) for name in ("improved", "low", "high")},
    }


def _tested(interval: Interval) -> dict:
    return {**interval.columns(), "way": interval.way, "p_value": interval.p_value}


def _known(sample: Sample, *values: Float[np.ndarray, " image"]) -> np.ndarray | None:
    """Rows in which all values are numbers; None where they are of too few prompts for an interval."""
    rows = np.flatnonzero(np.isfinite(values).all(0))
    return rows if len({sample.prompts[index] for index in rows}) >= LEAST_PROMPTS else None


def _blocks(sample: Sample, rows: Sequence[int] | None = None) -> np.ndarray:
    prompts = sample.prompts if rows is None else [sample.prompts[index] for index in rows]
    return deal_blocks(prompts, min(BLOCKS, len(set(prompts))))


def _label(comparison: Comparison) -> str:
    """What decides the features; of each network where there are several."""
    labels: dict[str, list[str]] = {}
    for purpose, source in comparison.caches.items():
        labels.setdefault(source.label, []).append(purpose)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{' and '.join(purposes)}: {label}" for label, purposes in labels.items())


def _provenance(comparison: Comparison, rows: Sequence[Mapping]) -> str:
    real, parts = comparison.reference, [comparison.plan.provenance]
    texts = list(comparison.plan.prompts)
    if real is None:
        parts.append("no reference")
    elif isinstance(real, FeatureState):
        parts.append(f"reference state of {real.count:,} images, taken as it is")
    else:
        parts.append(f"reference {real.summary()}, counted as a sample")
        texts += real.captions(real.halves()[0]) if real.caption is not None else []
    names = {way: dict.fromkeys(row["metric"] for row in rows if row["way"] == way) for way in WAYS}
    found = [f"{said} ({', '.join(names[way])})" for way, said in WAYS.items() if names[way]]
    parts.append(f"{comparison.level:.0%} interval by {' and '.join(found)}")
    # prompts that it knows the beginning of only
    if any(metric.features == CAPTIONS for metric in comparison.wanted(Score)):
        parts.append(comparison.caches[CAPTIONS].extractor.cut_off(list(dict.fromkeys(texts))))
    return " · ".join(part for part in parts if part)


def image_outcomes(comparison: Comparison) -> pd.DataFrame:
    """Every wanted metric that is a number an image, of every usable image. Nothing is generated.

    Returns:
        one row an image and metric: `size, method, prompt, seed, metric, value`; NaN where a number cannot be
        given. Images of native size stand under the methods that they were generated by.

    Raises:
        DamagedImageError: for an image that is not what was committed.
    """
    tables = [
        rows.assign(metric=name, value=values)
        for rows, sample in _cells(comparison)
        for name, values in sample.scores.items()
    ]
    return pd.concat(tables, ignore_index=True)


def outcome_means(outcomes: pd.DataFrame, by: Sequence[str] = (), level: float = 0.95) -> pd.DataFrame:
    """The mean of each outcome over prompts; limits of shares and counts are shares and counts.

    Args:
        outcomes: of `image_outcomes`.
        by: columns whose values have means of their own, beside `metric`.

    Returns:
        as `statistics.cluster_mean`.
    """
    keys = ["metric", *by]
    parts = [
        cluster_mean(part, "value", keys, level=level, bounds=METRICS[name].bounds)
        for name, part in outcomes.groupby("metric", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def things_found(comparison: Comparison) -> pd.DataFrame:
    """Nameable things in every usable image of a comparison, beside how many its prompt asks for.

    Returns:
        one row an image: `size, method, prompt, seed, asked, things`; images of native size as in
        `image_outcomes`.

    Raises:
        InvalidInputError: for a comparison that nothing finds things in.
    """
    if FINDINGS not in comparison.caches:
        able = "it must understand every prompt (captions of scenes) and fit into every size"
        raise InvalidInputError(f"no detector looks at this comparison; {able}")
    tables = []
    for rows, sample in _cells(comparison):
        asked = comparison.caches[FINDINGS].captions(sample.prompts)
        found = layout_values(sample.features(FINDINGS), asked)["things"]
        tables.append(rows.assign(asked=asked[:, 1].int().numpy(), things=found.int().numpy()))
    return pd.concat(tables, ignore_index=True)


def _cells(comparison: Comparison) -> Iterator[tuple[pd.DataFrame, Sample]]:
    """The usable images of each size and method, as rows of a table and as the metrics see them."""
    for size, method in comparison.plan.cells:
        images, _ = comparison.usable(size, method)
        rows = [{"size": size, "method": method, "prompt": u.prompt, "seed": u.seed} for u in images]
        yield pd.DataFrame(rows), comparison.sample(images)


def primary_outcomes(comparison: Comparison) -> dict[str, list[str]]:
    """Names of `metrics.registry.PRIMARY`, or what stands in for them, by size but for the native one."""
    wanted = {metric.name for metric in comparison.wanted()}
    plan, found = comparison.plan, {}
    for size in plan.sizes:
        if size != plan.native:
            side = "above" if Size.parse(size).pixels > Size.parse(plan.native).pixels else "below"
            counted = [name for name in PRIMARY[side] if name in wanted]
            found[size] = counted or [name for name in UNCOUNTED[side] if name in wanted]
    return found
