"""What metrics, references, plans, stores and engines say of bad input: one error of our own, before any work
starts.

Every message says what was given and what is allowed, or what to do; a row of a table each.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from entropy_lib import metrics
from entropy_lib.errors import EntropyLibError
from entropy_lib.metrics.extractors import Extractor, extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.views import resize_pictures, squares
from entropy_lib.models import hub
from entropy_lib.statistics.resampling import (
    check_labels,
    deal_blocks,
    deal_together,
    jackknife,
    jackknife_difference,
)
from entropy_lib.sweep import comparison, engines, references, sample
from entropy_lib.sweep.plan import Plan, Settings
from entropy_lib.sweep.store import Store

pytestmark = pytest.mark.slow

IMAGES = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
REAL = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
LABELS = deal_blocks(range(40))
STATE = metrics.FeatureState.of(REAL)
WRONG = IMAGES.clone().index_fill_(0, torch.tensor([2]), float("nan"))
IMAGES = np.zeros((2, 16, 16, 3), np.uint8)
BLIND = Extractor("blind", nn.Linear(1, 1), 8, lambda x: x.flatten(1), [0.5] * 3, [0.5] * 3)

OF_METRICS = [
    (
        "no matrix",
        lambda: metrics.kid(np.zeros(5), REAL),
        r"features have shape \(5,\); they must be \[images, features\]",
    ),
    ("nothing", lambda: metrics.kid(None, REAL), "features are NoneType; they must be a matrix of numbers"),
    (
        "text",
        lambda: metrics.cmmd("features.npy", REAL),
        "features are str; they must be a matrix of numbers",
    ),
    ("texts", lambda: metrics.kid(np.array([["a", "b"]] * 4), REAL), "they must be a matrix of numbers"),
    ("one image", lambda: metrics.kid(IMAGES[:1], REAL), "features hold 1 images; this needs at least 2"),
    ("no features", lambda: metrics.kid(IMAGES[:, :0], REAL), r"features have shape \(40, 0\)"),
    (
        "not a number",
        lambda: metrics.kid(WRONG, REAL),
        "NaN or infinity in 1 of 40 rows; leave those images out",
    ),
    ("infinite reference", lambda: metrics.kid(IMAGES, REAL / 0), "the reference hold NaN or infinity"),
    (
        "other width",
        lambda: metrics.kid(IMAGES[:, :3], REAL),
        "3 columns and the reference 4; both must come from the same",
    ),
    (
        "zero embeddings",
        lambda: metrics.cmmd(IMAGES * 0, REAL),
        "40 embeddings are all zeros; find those images and leave them out",
    ),
    (
        "too few labels",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS[:9]),
        r"\(9,\) block labels for 40 images",
    ),
    ("labels with gaps", lambda: metrics.kernel_interval(IMAGES, REAL, LABELS * 2), "0, 1, … without gaps"),
    (
        "two blocks",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS % 2),
        "at least 3 .* take three prompts or more",
    ),
    (
        "two reference images",
        lambda: metrics.kernel_interval(IMAGES, REAL[:2], LABELS),
        "the reference are in blocks",
    ),
    (
        "labels of another reference",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS, reference_labels=LABELS),
        r"\(40,\) block labels for 30 images of the reference",
    ),
    (
        "reference in one block",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS, reference_labels=LABELS[:30] * 0),
        "the reference are in blocks",
    ),
    (
        "blocks that the images have not",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS, reference_labels=np.arange(30)),
        "the reference are in blocks",
    ),
    (
        "percent",
        lambda: metrics.kernel_interval(IMAGES, REAL, LABELS, level=95),
        "level is 95; it must lie between 0 and 1",
    ),
    ("level nan", lambda: metrics.frechet_interval(IMAGES, REAL, LABELS, level=float("nan")), "level is nan"),
    (
        "no pairs",
        lambda: metrics.kernel_difference(IMAGES, IMAGES[1:], REAL, LABELS),
        "40 and 39 images; a paired difference",
    ),
    (
        "no pairs of FD",
        lambda: metrics.frechet_difference(IMAGES[1:], IMAGES, REAL, LABELS),
        "39 and 40 images; a paired",
    ),
    (
        "FD of one image",
        lambda: metrics.frechet_distance(IMAGES, REAL[:1]),
        "the reference hold 1 images; this needs at least 2",
    ),
    ("FD of infinity", lambda: metrics.frechet_distance(WRONG * np.inf, STATE), "NaN or infinity"),
    (
        "few images for a level",
        lambda: metrics.frechet_interval(IMAGES.repeat(1, 9), REAL.repeat(1, 9), LABELS),
        "40 images for 36 features: too few .* Draw at least 72",
    ),
    (
        "a state has no blocks",
        lambda: metrics.frechet_interval(IMAGES, STATE, LABELS, reference_labels=LABELS[:30]),
        "leave reference_labels out",
    ),
    (
        "states of other width",
        lambda: STATE + metrics.FeatureState.of(IMAGES[:, :3]),
        "4 columns and the second 3",
    ),
    (
        "states of other networks",
        lambda: metrics.FeatureState.of(REAL, "one") + metrics.FeatureState.of(REAL, "two"),
        "do not mix; extract both alike",
    ),
    ("taking too much", lambda: STATE - STATE, "cannot take 30 images out of 30"),
    (
        "CLIP score without texts",
        lambda: metrics.clip_scores(IMAGES, REAL),
        "40 images and 30 texts; there must be one text",
    ),
    ("images of floats", lambda: squares(IMAGES / 255, 8, "pad"), "float64 .* they must be uint8"),
    ("channels first", lambda: squares(IMAGES.transpose(0, 3, 1, 2), 8, "pad"), "they must be uint8"),
    ("no images", lambda: squares(IMAGES[:0], 8, "pad"), r"uint8 \(0, 16, 16, 3\); they must be"),
    ("a list of images", lambda: squares(list(IMAGES), 8, "pad"), "images are list; they must be an array"),
    ("unknown view", lambda: squares(IMAGES, 8, "centre"), "did you mean 'center'"),
    (
        "size of nothing",
        lambda: resize_pictures(IMAGES, 0, 8),
        "size is 0 x 8; both sides must be 1 pixel or more",
    ),
    ("unknown extractor", lambda: extractor("mini_clip"), "did you mean 'mini-clip'"),
    ("no extractor", lambda: extractor(None), "unknown extractor None"),
    (
        "open_clip without a tag",
        lambda: extractor("open_clip:ViT-B-32"),
        "Allowed: .*open_clip:ViT-B-32/laion2b",
    ),
    (
        "weights that are not there",
        lambda: extractor("dinov2"),
        "get it with `hf download facebook/dinov2-small`",
    ),
    (
        "no text tower",
        lambda: BLIND.captions(["a zebra"]),
        "blind knows no text; a CLIP score needs 'mini-clip'",
    ),
    ("no captions", lambda: extractor("mini-clip").captions([]), "no captions; give at least one"),
    ("no keys", lambda: FeatureCache("nowhere", BLIND).matrix([], None), "no images; give at least one"),
    (
        "blocks of one prompt",
        lambda: deal_blocks(["a"] * 9),
        "blocks is 20; it must be a whole number from 2 to 1,",
    ),
    (
        "blocks of few others",
        lambda: deal_together(range(30), range(9)),
        "blocks is 20; .* from 2 to 9, the number of prompts",
    ),
    ("half a block", lambda: deal_blocks(range(9), 2.5), "blocks is 2.5; it must be a whole number"),
    (
        "a yes for blocks",
        lambda: deal_together(range(9), range(9), True),
        "blocks is True; it must be a whole number",
    ),
    ("few labels", lambda: jackknife(np.mean, REAL, LABELS), r"\(40,\) block labels for 30 images"),
    ("labels with a gap", lambda: jackknife(np.mean, REAL, np.arange(30) * 2), r"block labels are \[0, 2, 4"),
    (
        "labels of floats",
        lambda: jackknife(np.mean, REAL, LABELS[:30] / 1),
        "block labels are float64; they must be whole numbers",
    ),
    ("labels of truth values", lambda: check_labels(np.arange(30) % 2 == 0, 30), "block labels are bool"),
    (
        "a level in percent",
        lambda: jackknife(np.mean, IMAGES, LABELS, level=95),
        "level is 95; it must lie between 0 and 1",
    ),
    (
        "unequal pairs",
        lambda: jackknife_difference(np.mean, IMAGES, REAL, LABELS),
        "40 and 30 images; a paired difference",
    ),
]


@pytest.mark.parametrize(
    ("call", "message"), [row[1:] for row in OF_METRICS], ids=[row[0] for row in OF_METRICS]
)
def test_metrics_say_what_they_cannot_measure(call, message, monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    with pytest.raises(EntropyLibError, match=message):
        call()


SETTINGS = Settings("mini", "1234", "own", 20, 2.0, "float32", (64, 64))
PROMPTS = ["a zebra", "a crab", "an owl"]


def plan(
    settings=SETTINGS, prompts=PROMPTS, seeds=(0,), sizes=((32, 32), (64, 64)), methods=("unscaled", "paper")
):
    return Plan.of(settings, prompts, seeds, sizes, methods)


def make(**changes):
    values = {
        "model": "mini", "prompts": PROMPTS, "seeds": [0], "sizes": ["32x32", "64x64"], "methods": ["unscaled"],
        "steps": 1, "guidance": 2.0, "dtype": "float32", "device": "cpu", "reference": "scenes",
    }  # fmt: skip
    return comparison.make_plan(**values | changes)


def stored(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    return Plan.read(tmp_path)


def table(**columns):
    content = io.BytesIO()
    pd.DataFrame(columns).to_parquet(content)
    return content.getvalue()


def truncated_plan(path):
    plan().write(path)
    return stored(path, (path / "plan.json").read_bytes()[:-40])


def folder_as_plan(path):
    (path / "plan.json").mkdir()
    return Plan.read(path)


def folder_in_the_way(path):
    (path / "plan.json").mkdir()
    return plan().write(path)


def changed_plan(**changes):
    def read(path):
        content = json.loads(plan().write(path).read_bytes())
        return stored(path, json.dumps(content | changes).encode())

    return read


def file_as_store(path):
    (path / "store").write_text("", encoding="utf-8")
    return Store(path / "store")


def shard(**variables):
    return engines.shard_of_environment(
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"} | variables
    )


AGAIN = "python -m entropy_lib sweep plan"
OF_SWEEPS = [
    ("no prompts", lambda _: plan(prompts=[]), "no prompts; give at least one"),
    ("repeated prompts", lambda _: plan(prompts=["a", "a"]), "1 prompts are repeated, the first being 'a'"),
    ("repeated methods", lambda _: plan(methods=["power(0.5)", "power(0.50)"]), "1 methods are repeated"),
    ("repeated sizes", lambda _: plan(sizes=[(32, 32), (32, 32)]), "1 sizes are repeated"),
    ("odd size", lambda _: plan(sizes=[(32, 36)]), "width is 36; it must be a positive multiple of 8"),
    ("unknown method", lambda _: plan(methods=["papper"]), "did you mean 'paper'"),
    ("no steps", lambda _: make(steps=0), "steps is 0; it must be a whole number, 1 or more"),
    ("half a step", lambda _: make(steps=2.5), "steps is 2.5; it must be a whole number"),
    (
        "guidance nan",
        lambda _: make(guidance=float("nan")),
        "guidance is nan; it must be a number, 0 or more",
    ),
    ("guidance infinite", lambda _: make(guidance=float("inf")), "guidance is inf"),
    ("guidance below 0", lambda _: make(guidance=-1.0), "guidance is -1.0; it must be a number, 0 or more"),
    ("a number as prompt", lambda _: make(prompts=[1, 2, 3]), "prompt is 1; it must be a text"),
    (
        "two prompts",
        lambda _: make(prompts=PROMPTS[:2]),
        "prompt_count is 2; metric tables need 3 different prompts at least",
    ),
    (
        "nothing to compare with",
        lambda _: make(reference="", sizes=["32x32"]),
        "native size 64x64 is not among sizes",
    ),
    ("size as numbers", lambda _: make(sizes=[32]), "size 32 is not written as height x width"),
    ("unknown model", lambda _: make(model="mimi"), "did you mean 'mini'"),
    ("unknown dtype", lambda _: make(dtype="float33"), "did you mean 'float32'"),
    ("no batch", lambda _: plan().groups(0), "batch is 0; it must be 1 or more"),
    ("shard beyond", lambda _: plan().groups(4, (4, 4)), "shard is 4/4; write i/n with i from 0 to n - 1"),
    *(
        (
            f"shard {text!r}",
            lambda _, text=text: engines.parse_shard(text),
            "not written as i/n .* for example '0/4'",
        )
        for text in ("1 of 4", "4/4", "-1/4", "1", "1/", "0/0")
    ),
    (
        "array with gaps",
        lambda _: shard(SLURM_ARRAY_TASK_ID="9"),
        "an array with gaps; say which part with --shard i/n",
    ),
    (
        "array below its first",
        lambda _: shard(SLURM_ARRAY_TASK_MIN="3"),
        "SLURM_ARRAY_TASK_ID is 1 .* --shard i/n",
    ),
    (
        "array of words",
        lambda _: shard(SLURM_ARRAY_TASK_COUNT="four"),
        "is four: not whole numbers; .* --shard i/n",
    ),
    (
        "plan that is a folder",
        folder_as_plan,
        f"plan.json is no plan that can be read .* again with `{AGAIN}`",
    ),
    (
        "folder in the plan's place",
        folder_in_the_way,
        "plan.json is a folder, where the plan is to be written; remove it",
    ),
    (
        "truncated plan",
        truncated_plan,
        f"plan.json is no plan that can be read .*`{AGAIN}`: images that are generated stay",
    ),
    ("empty plan", lambda path: stored(path, b""), "plan.json is no plan that can be read"),
    ("another file", lambda path: stored(path, b"[1]"), "plan.json is no plan that can be read"),
    (
        "plan of another version",
        changed_plan(library="0.1.0"),
        "plan.json is no plan that can be read .*library",
    ),
    (
        "changed plan",
        changed_plan(steps=9),
        "plan.json is no plan that can be read .its images have other keys here",
    ),
    ("store that is a file", file_as_store, "store is .*, which is a file; name a folder"),
]


@pytest.mark.parametrize(
    ("call", "message"), [row[1:] for row in OF_SWEEPS], ids=[row[0] for row in OF_SWEEPS]
)
def test_sweeps_say_what_they_cannot_do(call, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(EntropyLibError, match=message):
        call(tmp_path)


def png(seed, size=(32, 40)):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(
        content, format="PNG"
    )
    return content.getvalue()


def parquet(path, **columns):
    count = len(columns.get("image", [0] * 8))
    file = path / "images.parquet"
    file.write_bytes(
        table(**{"image": [png(i) for i in range(8)], "text": [f"image {i}" for i in range(count)]} | columns)
    )
    return str(file)


def truncated_parquet(path):
    file = parquet(path)
    Path(file).write_bytes(Path(file).read_bytes()[:-40])
    return references.open_reference(file)


def bad_tar(path):
    (path / "images.tar").write_bytes(b"no archive" * 100)
    return references.open_reference(str(path / "images.tar")).survey


def truncated_tar(path):
    with tarfile.open(path / "images.tar", "w") as archive:
        for index in range(8):
            entry = tarfile.TarInfo(f"{index:04}.png")
            entry.size = len(png(index))
            archive.addfile(entry, io.BytesIO(png(index)))
    content = (path / "images.tar").read_bytes()
    (path / "images.tar").write_bytes(content[:700])
    return references.open_reference(str(path / "images.tar")).survey


def broken_sprites(path):
    from entropy_lib.scenes import sprites

    content = bytearray(sprites.PARQUET.read_bytes())
    content[len(content) // 2] ^= 1
    for name, changed in (
        (sprites.PARQUET.name, content),
        ("SHA256SUMS", (sprites.PARQUET.parent / "SHA256SUMS").read_bytes()),
    ):
        (path / name).write_bytes(changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sprites, "PARQUET", path / sprites.PARQUET.name)
        return references._scenes.__wrapped__(8)


def state(path, content):
    (path / "state.safetensors").write_bytes(content)
    return references.open_reference(str(path / "state.safetensors"))


def foreign_state(path):
    save_file({"weight": torch.zeros(3)}, path / "state.safetensors")
    return references.open_reference(str(path / "state.safetensors"))


def opened(path, **columns):
    return references.open_reference(parquet(path, **columns))


OF_REFERENCES = [
    ("pattern without files", lambda _: references.open_reference("no/*.parquet"), "no file matches"),
    ("empty folder", lambda path: references.open_reference(str(path)), "cannot be read .* restore its files, or name another"),
    ("truncated parquet", truncated_parquet, "images.parquet' cannot be read .* restore its files"),
    ("no archive", bad_tar, "images.tar"),
    ("truncated archive", truncated_tar, "images.tar"),
    ("all images broken", lambda path: opened(path, image=[b"no image"] * 8).survey, "8 of 8 images .* cannot be decoded"),
    ("images that are numbers", lambda path: opened(path, image=[1] * 8).survey, "holds 0 different images"),
    ("five images", lambda path: opened(path, image=[png(i) for i in range(5)]).survey, "holds 5 different .* needs 6 at least"),
    ("one image eight times", lambda path: opened(path, image=[png(0)] * 8).halves(), "holds 1 different images"),
    ("more prompts than captions", lambda path: references.caption_list(parquet(path), 9), "prompt_count is 9, but half of"),
    ("captions of nothing", lambda _: references.caption_list("", 3), "has no captions; name a prompt list"),
    ("flipped byte in the shipped sprites", broken_sprites, "sprites.parquet .* is damaged: restore it with `git checkout"),
    ("state that is not there", lambda path: references.open_reference(f"{path}/no.safetensors"), "FeatureState.save"),
    ("damaged state", lambda path: state(path, b"nonsense"), "state.safetensors is damaged .* compute it again"),
    ("another file", foreign_state, "is not a 'entropy_lib feature state 1'; write it with FeatureState.save"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"), [row[1:] for row in OF_REFERENCES], ids=[row[0] for row in OF_REFERENCES]
)
@pytest.mark.filterwarnings("ignore::entropy_lib.sweep.references.DamagedReferenceWarning")
def test_references_say_what_is_wrong_with_them(call, message, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(EntropyLibError, match=message):
        call(tmp_path)
