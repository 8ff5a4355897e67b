"""The project's own CLIP: its training, and that what is shipped is as good as its card says."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from entropy_lib.metrics.extractors import extractor
from entropy_lib.models.checksums import MEASURED
from entropy_lib.scenes import scenes
from entropy_lib.scenes.detection import pixels
from training import clip, pictures, retrieval
from training.tokenizer import round_trip, tokenizer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def some():
    """Sixty test scenes: images and captions."""
    chosen = [scenes.scene(number, "test") for number in range(60)]
    return np.stack([scenes.draw(one, 64, 64) for one in chosen]), [one.caption for one in chosen]


def test_augmented_pictures_stay_pictures_and_depend_on_the_step_alone(some):
    before = pixels(some[0][:8])
    first, again = (clip.augmented(before, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == before.shape
    assert first.abs().max() <= 1
    assert (first - before).abs().mean() > 0.02
    white = clip.augmented(torch.ones(4, 3, 64, 64), torch.Generator().manual_seed(0))
    assert (white - 1).abs().mean() < 0.1, "white stays white"


def test_a_caption_is_true_of_what_it_leaves_open():
    shown = [("owl", 1, "red", "fluent"), ("owl", 2, "red", "fluent"), ("bus", 1, "red", "fluent")]
    said = [("owl", 1, None, None), (*shown[1][:3], "twemoji"), ("bus", 1, "red", "fluent")]
    assert clip.matches(shown, said).nonzero().tolist() == [[0, 0], [2, 2]]


def test_a_perfect_model_has_the_least_loss_that_can_be():
    vectors, scale = torch.eye(3), torch.tensor(50.0)
    right = clip.contrastive_loss(vectors, vectors, scale, vectors.bool())
    wrong = clip.contrastive_loss(vectors, vectors.roll(1, 0), scale, vectors.bool())
    assert right < 1e-6 < wrong


def test_training_learns_resumes_and_exports_what_open_clip_reads(tmp_path, some, monkeypatch):
    monkeypatch.setattr(
        pictures, "drawn", lambda count: np.stack([scenes.draw(scenes.scene(n), 64, 64) for n in range(16)])
    )
    monkeypatch.setattr(clip, "BATCH", 16)
    monkeypatch.setattr(clip, "CHECKPOINT", tmp_path / "clip.safetensors")
    clip.train(clip.CHECKPOINT, 50)
    model = clip.train(clip.CHECKPOINT, 100)
    curve = pd.read_csv(tmp_path / "clip.csv")
    assert list(curve.step) == [50, 100]
    assert curve.loss.iloc[-1] < curve.loss.iloc[0]
    clip.export(model, tmp_path / "model")
    import open_clip

    name = f"local-dir:{tmp_path / 'model'}"
    loaded, seen = open_clip.create_model(name).eval(), pixels(some[0][:16])
    assert torch.allclose(loaded.encode_image(seen), model.encode_image(seen), atol=0.05)
    own = clip.tokens(round_trip(tokenizer_of(scenes.captions())), some[1])
    assert torch.equal(own, open_clip.get_tokenizer(name)(some[1]))


def test_pictures_and_captions_find_each_other(some):
    images, captions = some
    found = retrieval.retrieval(extractor("mini-clip"), images, captions)
    assert found["thing"]["share"] >= 0.95
    assert found["picture"]["share"] >= 0.95
    lost = retrieval.retrieval(extractor("mini-clip"), np.roll(images, 1, axis=0), captions)
    assert lost["thing"]["share"] < 0.2


def test_facts_are_compared_where_both_tell_them():
    asked = [("owl", 1, None, "fluent"), ("bus", 2, "red", None)]
    told = [("owl", 1, "red", "twemoji"), ("car", 2, "red", None)]
    said = [retrieval.both_say(asked, told, place) for place in range(4)]
    assert said[:2] == [[("owl", "owl"), ("bus", "car")], [(1, 1), (2, 2)]]
    assert said[2:] == [[("red", "red")], [("fluent", "twemoji")]]


def test_the_card_shows_what_was_measured():
    report = json.loads((clip.MODEL / MEASURED).read_text(encoding="utf-8"))
    assert report["model"] == extractor("mini-clip").label
    assert retrieval.card_table(report) in (clip.MODEL / "README.md").read_text(encoding="utf-8")
    assert report["retrieval"]["reconstructions"]["thing"]["low"] > 0.9
