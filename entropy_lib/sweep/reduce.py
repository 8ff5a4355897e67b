"""From committed images to metric tables: every number with its interval, every comparison in pairs.

All methods of a size are judged on the same prompts and seeds: an image that is missing under one of them is left out of
all. Two tables come out, tidy, one row a number:

    levels        how far each method is from the reference (FD, KID, CMMD), how well it fits its prompts (CLIP score)
    differences   a rule against the first rule, paired image by image

Beside the rules stand two floors at every size: `real, resized`, real pictures brought to that size, is what a perfect model
would get; `native, resized`, the model's own native images brought to that size, is what one gets without the trouble.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from entropy_lib.errors import extra
from entropy_lib.files import replacing
from entropy_lib.metrics import (
    FeatureState,
    clip_scores,
    frechet_difference,
    frechet_interval,
    gaussian_kernel,
    kernel_difference,
    kernel_interval,
    polynomial_kernel,
)
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.frechet import ENOUGH
from entropy_lib.sizes import parse_size
from entropy_lib.statistics.interval import Interval, wilson
from entropy_lib.statistics.intervals import deal_blocks, jackknife, jackknife_difference
from entropy_lib.sweep.comparison import NATIVE, Cell, Comparison, Features
from entropy_lib.sweep.plan import drawn_rule
from entropy_lib.sweep.references import Reference

REAL = "real, resized"
KERNELS = {"KID": polynomial_kernel, "CMMD": gaussian_kernel}


@dataclass(frozen=True)
class Tables:
    """What `metric_tables` returns.

    Attributes:
        levels: columns `size, method, metric, reference, estimate, low, high, images, prompts`.
        differences: columns `size, rule, against, metric, estimate, low, high, p_value, p_holm, effect, share_improved,
            share_low, share_high, pairs`; `estimate` is that of the rule less that of the first rule.
        exclusions: columns `size, rule, reason, images`.
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
                table.to_csv(temporary, index=False, float_format="%.6g")
        with replacing(folder / "provenance.txt") as temporary:
            temporary.write_text(f"{self.provenance}\n{self.label}\n")
        return [*(folder / f"{name}.csv" for name in tables), folder / "provenance.txt"]


def metric_tables(comparison: Comparison, progress: Callable[[str], None] = lambda size: None) -> Tables:
    """All metrics of a comparison.

    Fréchet distances are left out where either side has fewer than two images for each feature: no interval would cover them.
    Kernel distances and CLIP scores are given for any number.

    Args:
        comparison: what to judge; nothing is drawn.
        progress: called with each size before its work starts.

    Raises:
        ValueError: where hardly anything was drawn.
        DamagedImageError: for an image that is not what was committed.
    """
    against = _references(comparison)
    levels, differences, exclusions = [], [], []
    for size in comparison.plan.sizes:
        progress(size)
        cells, dropped = comparison.paired(size)
        exclusions += [{"size": size, **row} for row in _exclusions(cells, dropped)]
        methods = _methods(comparison, size, cells)
        levels += [{"size": size, **row} for row in _levels(comparison, methods, against, size)]
        differences += [{"size": size, **row} for row in _differences(comparison, size, methods, against)]
    changes = _with_holm(pd.DataFrame(differences))
    left_out = pd.DataFrame(exclusions, columns=["size", "rule", "reason", "images"])
    return Tables(pd.DataFrame(levels), changes, left_out, _label(comparison), _provenance(comparison))


def _exclusions(cells: dict[str, Cell], dropped: int) -> list[dict]:
    """What was left out at one size, by rule and reason; and how many pairs that took away."""
    reasons = [(rule, reason, count) for rule, cell in cells.items() for reason, count in cell.excluded.items()]
    rows = [*reasons, ("all", "pairs dropped", dropped)] if dropped else reasons
    return [{"rule": rule, "reason": reason, "images": count} for rule, reason, count in rows]


@dataclass(frozen=True)
class _Method:
    """Features of a method at one size, with the prompt of each image."""

    features: Features
    prompts: list[str]
    scores: np.ndarray | None  # CLIP score of each image


References = dict[str, Tensor | FeatureState]  # what distances are measured to: real pictures, the model's own native ones


def _references(comparison: Comparison) -> References:
    found: References = {}
    if isinstance(comparison.reference, FeatureState):
        extractor, label = comparison.reference.extractor, comparison.cache.label
        if extractor not in ("", label):
            raise ValueError(f"the reference holds features of {extractor!r}, not of {label!r}")
        found["real"] = comparison.reference
    elif comparison.reference is not None:
        found["real"] = comparison.real_features(comparison.cache, comparison.reference.halves()[1])
    if comparison.plan.native in comparison.plan.sizes:
        cells, _ = comparison.paired(comparison.plan.native)
        found["native"] = comparison.features(comparison.cache, cells[comparison.plan.rules[0]])
    return found


def _methods(comparison: Comparison, size: str, cells: dict[str, Cell]) -> dict[str, _Method]:
    """The rules of a size and its floors. Where a rule changes nothing it is not shown apart from the one that it equals."""
    pixels, rules, native = parse_size(size), comparison.plan.rules, size == comparison.plan.native
    found = {
        name: _method(comparison, cell, pixels if name == NATIVE else None)
        for name, cell in cells.items()
        if name == NATIVE or drawn_rule(rules, name, native) == name
    }
    if isinstance(comparison.reference, Reference):
        found[REAL] = _real(comparison, comparison.reference.halves()[0], pixels)
    return found


def _method(comparison: Comparison, cell: Cell, size: tuple[int, int] | None) -> _Method:
    prompts = [unit.prompt for unit in cell.keys]
    scores = _scores(comparison, lambda cache: comparison.features(cache, cell, size), prompts)
    return _Method(comparison.features(comparison.cache, cell, size), prompts, scores)


def _real(comparison: Comparison, indices: list[int], size: tuple[int, int]) -> _Method:
    """Real pictures brought to a size, each its own prompt where there are no captions."""
    if comparison.reference.caption is None:
        return _Method(comparison.real_features(comparison.cache, indices, size), [str(index) for index in indices], None)
    captions = comparison.reference.captions(indices)
    scores = _scores(comparison, lambda cache: comparison.real_features(cache, indices, size), captions)
    return _Method(comparison.real_features(comparison.cache, indices, size), captions, scores)


def _scores(comparison: Comparison, embedded: Callable[[FeatureCache], Features], prompts: Sequence[str]) -> np.ndarray | None:
    if comparison.scores is None:
        return None
    return clip_scores(embedded(comparison.scores), comparison.scores.captions(prompts)).numpy()


def _levels(comparison: Comparison, methods: dict[str, _Method], against: References, size: str) -> list[dict]:
    rows = []
    for name, method in methods.items():
        labels, count = _labels(comparison, method.prompts), {"images": len(method.prompts), "prompts": len(set(method.prompts))}
        for reference, known in against.items():
            if reference == "native" and (name == NATIVE or (name == comparison.plan.rules[0] and size == comparison.plan.native)):
                continue  # the very pictures that it is made of
            for metric, interval in _distances(comparison, method.features, known, labels, reference == "native").items():
                rows.append({"method": name, "metric": metric, "reference": reference, **_numbers(interval), **count})
        if method.scores is not None:
            interval = jackknife(np.mean, method.scores, labels, level=comparison.level)
            rows.append({"method": name, "metric": "CLIP score", "reference": "prompts", **_numbers(interval), **count})
    return rows


def _distances(
    comparison: Comparison, features: Features, known: Tensor | FeatureState, labels, fixed: bool
) -> dict[str, Interval]:
    """FD where there are images enough, the kernel distances where the reference has pictures.

    Args:
        fixed: speak of the distance to these very reference pictures, as FD always does. The model's own native pictures are
            taken so: several show one prompt, and all show the prompts of the methods, so they are no independent sample.
    """
    found = {}
    if _enough(features, known):
        found["FD"] = frechet_interval(features, known, labels, level=comparison.level)
    if isinstance(known, Tensor):
        for metric, kernel in KERNELS.items():
            found[metric] = kernel_interval(features, known, labels, kernel, level=comparison.level, fixed_reference=fixed)
    return found


def _differences(comparison: Comparison, size: str, methods: dict[str, _Method], against: References) -> list[dict]:
    """Each further rule, and the native floor, against the first rule, image by image."""
    first, rows = comparison.plan.rules[0], []
    known = against.get("real", against.get("native"))
    for name, method in methods.items():
        if name in (first, REAL):
            continue
        # Without real pictures the reference is native ones: no distance for what is made of those very pictures.
        made_of_it = "real" not in against and (name == NATIVE or size == comparison.plan.native)
        base, nearest = methods[first], None if made_of_it else known
        labels, pairs = _labels(comparison, method.prompts), {"rule": name, "against": first, "pairs": len(method.prompts)}
        for metric, interval in _paired_distances(comparison, method, base, nearest, labels, "real" not in against).items():
            rows.append({**pairs, "metric": metric, **_numbers(interval), "p_value": interval.p_value})
        if method.scores is not None:
            rows.append({**pairs, "metric": "CLIP score", **_score_difference(comparison, method, base, labels)})
    return rows


def _paired_distances(comparison: Comparison, method: _Method, base: _Method, known, labels, fixed: bool) -> dict[str, Interval]:
    if known is None:
        return {}
    arguments = (method.features, base.features, known, labels)
    found = {"FD": frechet_difference(*arguments, level=comparison.level)} if _enough(method.features, known) else {}
    if isinstance(known, Tensor):
        for metric, kernel in KERNELS.items():
            found[metric] = kernel_difference(*arguments, kernel, level=comparison.level, fixed_reference=fixed)
    return found


def _enough(features: Features, known: Tensor | FeatureState) -> bool:
    """Whether both sides have images enough for a Fréchet distance that is more than bias."""
    least = ENOUGH * features.shape[1]
    return min(len(features), known.count if isinstance(known, FeatureState) else len(known)) >= least


def _score_difference(comparison: Comparison, method: _Method, base: _Method, labels) -> dict:
    """Paired CLIP scores: the mean difference, its size in standard deviations, and the share of prompts improved."""
    new, old = method.scores, base.scores
    interval = jackknife_difference(np.mean, new, old, labels, level=comparison.level)
    by_prompt = pd.Series(new - old).groupby(method.prompts).mean()
    changed = by_prompt[by_prompt != 0]
    improved = wilson(int((changed > 0).sum()), len(changed), comparison.level) if len(changed) else None
    deviation = float(np.std(new - old, ddof=1))
    return {
        **_numbers(interval),
        "p_value": interval.p_value,
        "effect": float(interval.estimate / deviation) if deviation else 0.0,
        "share_improved": improved.estimate if improved else np.nan,
        "share_low": improved.low if improved else np.nan,
        "share_high": improved.high if improved else np.nan,
    }


def _label(comparison: Comparison) -> str:
    """What decides the features; of both networks where the CLIP score has its own."""
    labels = dict.fromkeys(cache.label for cache in (comparison.cache, comparison.scores) if cache is not None)
    return "; CLIP score ".join(labels)


def _provenance(comparison: Comparison) -> str:
    real = comparison.reference
    pictures = real.summary() if isinstance(real, Reference) else "none" if real is None else f"state of {real.count:,} pictures"
    return (
        f"{comparison.plan.provenance} · reference {pictures} · {comparison.level:.0%} interval, jackknife over prompts; real "
        "pictures count as a sample in KID and CMMD, as given in FD"
    )


def _labels(comparison: Comparison, prompts: Sequence[str]) -> np.ndarray:
    return deal_blocks(prompts, min(comparison.blocks, len(set(prompts))))


def _numbers(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _with_holm(differences: pd.DataFrame) -> pd.DataFrame:
    """p-values corrected for the number of sizes at which the same pair of methods is compared by the same metric (Holm)."""
    with extra("metrics"):
        from statsmodels.stats.multitest import multipletests

    if differences.empty:
        return differences
    groups = differences.groupby(["rule", "metric"], sort=False).p_value
    corrected = groups.transform(lambda values: multipletests(values, method="holm")[1])
    return differences.assign(p_holm=corrected)
