"""The project's own CLIP: its training, and that what is shipped is as good as its card says."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from entropy_lib.metrics.extractors import extractor
from entropy_lib.mini import clip, dataset, retrieval, text
from entropy_lib.models.checksums import MEASURED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table():
    return dataset.load()


def test_augmented_pictures_stay_pictures_and_depend_on_the_step_alone(table):
    pixels = dataset.pixels(table.image[:8])
    first, again = (clip.augmented(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == pixels.shape
    assert first.min() >= -1
    assert first.max() <= 1
    assert (first - pixels).abs().mean() > 0.02
    white = torch.ones(4, 3, 64, 64)
    assert (clip.augmented(white, torch.Generator().manual_seed(0)) - 1).abs().mean() < 0.1, "white stays white"


def test_a_perfect_model_has_the_least_loss_that_can_be():
    true = clip.matches(["zebra", "zebra", "crab"], ["noto", "fluent", "noto"], ["noto", None, None])
    assert true.tolist() == [[True, True, False], [False, True, False], [False, False, True]]
    vectors = torch.eye(3)
    right = clip.contrastive_loss(vectors, vectors, torch.tensor(50.0), torch.eye(3, dtype=torch.bool))
    wrong = clip.contrastive_loss(vectors, vectors.roll(1, 0), torch.tensor(50.0), torch.eye(3, dtype=torch.bool))
    assert right < 1e-6 < wrong


@pytest.mark.slow
def test_training_learns_resumes_and_exports_what_open_clip_reads(tmp_path, table, monkeypatch):
    few = table[table.design == "noto"].head(16)
    monkeypatch.setattr(dataset, "load", lambda: few)
    monkeypatch.setattr(clip, "BATCH", 16)
    monkeypatch.setattr(clip, "CHECKPOINT", tmp_path / "clip.safetensors")
    clip.train(clip.CHECKPOINT, 50)
    model = clip.train(clip.CHECKPOINT, 100)
    curve = pd.read_csv(tmp_path / "clip.csv")
    assert list(curve.step) == [50, 100]
    assert curve.loss.iloc[-1] < curve.loss.iloc[0]
    clip.export(model, tmp_path / "model")
    import open_clip

    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'model'}").eval()
    pixels = dataset.pixels(few.image)
    assert torch.allclose(loaded.encode_image(pixels), model.encode_image(pixels), atol=0.05)
    captions, name = text.captions(few), f"local-dir:{tmp_path / 'model'}"
    own = clip.tokens(text.round_trip(text.build_tokenizer(few)), captions)
    assert torch.equal(own, open_clip.get_tokenizer(name)(captions))


def test_pictures_and_captions_find_each_other(table):
    some = table.groupby("design").head(30)
    pictures = retrieval._grey_levels(dataset.pixels(some.image))
    found = retrieval.retrieval(extractor("mini-clip"), pictures, text.captions(some), text.captions(table))
    assert found["picture_to_name"]["share"] >= 0.95
    assert found["caption_to_name"]["share"] >= 0.95
    shuffled = np.roll(pictures, 1, axis=0)
    lost = retrieval.retrieval(extractor("mini-clip"), shuffled, text.captions(some), text.captions(table))
    assert lost["picture_to_caption"]["share"] < 0.05


def test_the_card_shows_what_was_measured():
    report = json.loads((clip.MODEL / MEASURED).read_text())
    assert report["model"] == extractor("mini-clip").label
    assert retrieval.card_table(report) in (clip.MODEL / "README.md").read_text()
    assert report["retrieval"]["native-size samples"]["picture_to_name"]["low"] > 0.9
