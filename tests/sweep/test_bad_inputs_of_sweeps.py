"""What metrics, plans, stores and engines say of bad input: one error of our own, before any work
starts.

Every message says what was given and what is allowed, or what to do; a row of a table each.
"""

import numpy as np
import pytest
import torch
from torch import nn

from entropy_lib import metrics
from entropy_lib.errors import EntropyLibError
from entropy_lib.metrics.extractors import Extractor, extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.views import resize_pictures, squares
from entropy_lib.statistics.resampling import (
    check_labels,
    deal_blocks,
    deal_together,
    jackknife,
    jackknife_difference,
)
from entropy_lib.sweep import comparison, engines, sample
from entropy_lib.sweep.plan import Plan, Settings
from entropy_lib.sweep.store import Store

FEATURES = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
REAL = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
LABELS = deal_blocks(range(40))
STATE = metrics.FeatureState.of(REAL)
WRONG = FEATURES.clone().index_fill_(0, torch.tensor([2]), float("nan"))
IMAGES = np.zeros((2, 16, 16, 3), np.uint8)
BLIND = Extractor("blind", nn.Linear(1, 1), 8, lambda x: x.flatten(1), [0.5] * 3, [0.5] * 3)


def interval(real=REAL, labels=LABELS, **options):
    return metrics.kernel_interval(FEATURES, real, labels, **options)


OF_METRICS = {
    r"features have shape \(5,\); they must be \[images, features\]": lambda: metrics.kid(np.zeros(5), REAL),
    "features are NoneType; they must be a matrix of numbers": lambda: metrics.kid(None, REAL),
    "features hold 1 images; this needs at least 2": lambda: metrics.kid(FEATURES[:1], REAL),
    "NaN or infinity in 1 of 40 rows; leave those images out": lambda: metrics.kid(WRONG, REAL),
    "the reference hold NaN or infinity": lambda: metrics.kid(FEATURES, REAL / 0),
    "3 columns and the reference 4; both must come": lambda: metrics.kid(FEATURES[:, :3], REAL),
    "40 embeddings are all zeros; find those images": lambda: metrics.squared_mmd(
        FEATURES * 0, REAL, metrics.gaussian_kernel
    ),
    r"\(9,\) block labels for 40 images": lambda: interval(labels=LABELS[:9]),
    "0, 1, … without gaps": lambda: interval(labels=LABELS * 2),
    "at least 3 .* take three prompts or more": lambda: interval(labels=LABELS % 2),
    r"\(40,\) block labels for 30 images of the reference": lambda: interval(reference_labels=LABELS),
    "40 and 39 images; a paired difference": lambda: metrics.kernel_difference(
        FEATURES, FEATURES[1:], REAL, LABELS
    ),
    "leave reference_labels out": lambda: metrics.frechet_interval(
        FEATURES, STATE, LABELS, reference_labels=LABELS[:30]
    ),
    "4 columns and the second 3": lambda: STATE + metrics.FeatureState.of(FEATURES[:, :3]),
    "cannot take 30 images out of 30": lambda: STATE - STATE,
    "40 images and 30 texts; there must be one text": lambda: metrics.clip_scores(FEATURES, REAL),
    "float64 .* they must be uint8": lambda: squares(IMAGES / 255, 8, "pad"),
    "did you mean 'center'": lambda: squares(IMAGES, 8, "centre"),
    "size is 0 x 8; both sides must be 1 pixel or more": lambda: resize_pictures(IMAGES, 0, 8),
    "unknown extractor None": lambda: extractor(None),
    "Allowed: .*open_clip:ViT-B-32/laion2b": lambda: extractor("open_clip:ViT-B-32"),
    "blind knows no text; a CLIP score needs 'mini-clip'": lambda: BLIND.captions(["a zebra"]),
    "no captions; give at least one": lambda: extractor("mini-clip").captions([]),
    "no images; give at least one": lambda: FeatureCache("nowhere", BLIND).matrix([], None),
    "blocks is 20; it must be a whole number from 2 to 1,": lambda: deal_blocks(["a"] * 9),
    "blocks is 20; .* from 2 to 9, the number of prompts": lambda: deal_together(range(30), range(9)),
    "blocks is True; it must be a whole number": lambda: deal_together(range(9), range(9), True),
    r"block labels are \[0, 2, 4": lambda: jackknife(np.mean, REAL, np.arange(30) * 2),
    "block labels are float64; they must be whole": lambda: jackknife(np.mean, REAL, LABELS[:30] / 1),
    "block labels are bool": lambda: check_labels(np.arange(30) % 2 == 0, 30),
    "40 and 30 images; a paired": lambda: jackknife_difference(np.mean, FEATURES, REAL, LABELS),
}


@pytest.mark.parametrize(("message", "call"), OF_METRICS.items(), ids=OF_METRICS)
def test_metrics_say_what_they_cannot_measure(message, call):
    with pytest.raises(EntropyLibError, match=message):
        call()


@pytest.mark.parametrize(
    "options",
    [{"real": REAL[:2]}, {"reference_labels": LABELS[:30] * 0}, {"reference_labels": np.arange(30)}],
    ids=["two images", "one block", "other blocks"],
)
def test_a_reference_in_too_few_or_other_blocks_is_refused(options):
    with pytest.raises(EntropyLibError, match="the reference are in blocks"):
        interval(**options)


SETTINGS = Settings("mini", "1234", "own", 20, 2.0, "float32", (64, 64))
PROMPTS = ["a zebra", "a crab", "an owl"]


def plan(**changes):
    values = {
        "prompts": PROMPTS,
        "seeds": (0,),
        "sizes": ("32x32", "64x64"),
        "methods": ("unscaled", "paper"),
    }
    return Plan.of(SETTINGS, **values | changes)


def make(**changes):
    values = {"model": "mini", "prompts": PROMPTS, "seeds": [0], "sizes": ["32x32"], "methods": ["unscaled"]}
    settings = {"steps": 1, "guidance": 2.0, "dtype": "float32", "device": "cpu", "reference": "scenes"}
    return comparison.make_plan(**values | settings | changes)


def file_as_store(path):
    (path / "store").write_text("", encoding="utf-8")
    return Store(path / "store")


def shard(**variables):
    known = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}
    return engines.shard_of_environment(known | variables)


OF_SWEEPS = {
    "no prompts; give at least one": lambda _: plan(prompts=[]),
    "1 prompts are repeated, the first being 'a'": lambda _: plan(prompts=["a", "a"]),
    "1 methods are repeated": lambda _: plan(methods=["power(0.5)", "power(0.50)"]),
    "width is 36; it must be a positive multiple of 8": lambda _: plan(sizes=[(32, 36)]),
    "did you mean 'paper'": lambda _: plan(methods=["papper"]),
    "steps is 0; it must be a whole number, 1 or more": lambda _: make(steps=0),
    "guidance is nan; it must be a number, 0 or more": lambda _: make(guidance=float("nan")),
    "prompt is 1; it must be a text": lambda _: make(prompts=[1, 2, 3]),
    "prompt_count is 2; metric tables need 3 different prompts": lambda _: make(prompts=PROMPTS[:2]),
    "native size 64x64 is not among sizes": lambda _: make(reference=""),
    "size 32 is not written as height x width": lambda _: make(sizes=[32]),
    "did you mean 'mini'": lambda _: make(model="mimi"),
    "did you mean 'float32'": lambda _: make(dtype="float33"),
    "batch is 0; it must be 1 or more": lambda _: plan().groups(0),
    "shard is 4/4; write i/n with i from 0 to n - 1": lambda _: plan().groups(4, (4, 4)),
    "SLURM_ARRAY_TASK_ID is 1 .* --shard i/n": lambda _: shard(SLURM_ARRAY_TASK_MIN="3"),
    "is four: not whole numbers; .* --shard i/n": lambda _: shard(SLURM_ARRAY_TASK_COUNT="four"),
    "store is .*, which is a file; name a folder": file_as_store,
    "workers is 2; the local engine is one process. Use --engine ray": lambda path: engines.local(
        plan().groups(), Store(path), workers=2
    ),
}


@pytest.mark.parametrize(("message", "call"), OF_SWEEPS.items(), ids=OF_SWEEPS)
def test_sweeps_say_what_they_cannot_do(message, call, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(EntropyLibError, match=message):
        call(tmp_path)


@pytest.mark.parametrize("text", ["1 of 4", "4/4", "-1/4", "1"])
def test_a_shard_is_written_in_one_way(text):
    with pytest.raises(EntropyLibError, match=r"not written as i/n.* for example '0/4'"):
        engines.parse_shard(text)
