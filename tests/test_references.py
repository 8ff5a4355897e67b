"""Real pictures from wherever they lie."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from entropy_lib.metrics import FeatureState
from entropy_lib.scenes import scenes
from entropy_lib.sweep import references
from entropy_lib.sweep.references import SCENES, DamagedReferenceWarning, Reference, load_reference, open_reference


def encoded(seed, size=(32, 40), form="PNG"):
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format=form)
    return content.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def folder(tmp_path, count=8):
    path = tmp_path / "pictures"
    path.mkdir()
    for index in range(count):
        (path / f"{index}.png").write_bytes(encoded(index))
    rows = [{"file_name": f"{index}.png", "caption": f"picture {index}"} for index in range(count)]
    pd.DataFrame(rows).to_csv(path / "metadata.csv", index=False)
    return path


def parquet(tmp_path, count=8):
    path = tmp_path / "pictures.parquet"
    pd.DataFrame({"image": [encoded(i) for i in range(count)], "text": [f"picture {i}" for i in range(count)]}).to_parquet(path)
    return path


def web_dataset(tmp_path, count=8):
    path = tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as archive:
        for index in range(count):
            for ending, content in (("png", encoded(index)), ("txt", f"picture {index}".encode())):
                entry = tarfile.TarInfo(f"{index:04}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [folder, parquet, web_dataset])
def test_pictures_and_captions_are_the_same_wherever_they_lie(tmp_path, make):
    reference = load_reference(str(make(tmp_path)))
    assert len(reference) == 8
    found = {text: reference.read(index) for index, text in enumerate(reference.captions(range(8)))}
    for index in range(8):
        assert np.array_equal(found[f"picture {index}"], np.asarray(Image.open(io.BytesIO(encoded(index)))))
    assert "8 pictures of 32x40, PNG" in reference.summary()


def test_what_cannot_be_decoded_is_left_out_and_counted(tmp_path):
    path = parquet(tmp_path)
    table = pd.read_parquet(path)
    table.loc[1, "image"] = table.image[1][:-30]
    table.loc[2, "image"] = b"no picture"
    table.to_parquet(path)
    with pytest.warns(DamagedReferenceWarning, match=r"2 of 8 pictures of pictures.parquet cannot be decoded"):
        assert list(load_reference(str(path)).keys.values()) == [0, 3, 4, 5, 6, 7]


def test_each_picture_is_decoded_once_whatever_is_asked(tmp_path, monkeypatch):
    """And not again by the next process that opens the same files."""
    opened, plain = [], Image.open
    monkeypatch.setattr(references.Image, "open", lambda file: opened.append(file) or plain(file))
    path = str(parquet(tmp_path, 8))
    for _ in range(2):
        reference = load_reference(path)
        reference.halves(), reference.check_size(32), reference.summary(), reference.captions(reference.halves()[0])
    assert len(opened) == 8
    opened.clear()
    listed = Reference("a list", [{"image": encoded(index)} for index in range(8)], "image", None)
    listed.halves(), listed.check_size(32), listed.summary()
    assert len(opened) == 8


def test_missing_captions_are_counted(tmp_path):
    path = parquet(tmp_path)
    pd.read_parquet(path).assign(text=["a", None, " ", *"defgh"]).to_parquet(path)
    with pytest.raises(ValueError, match=r"2 of 8 captions of pictures.parquet are missing"):
        load_reference(str(path)).captions(range(8))
    pd.read_parquet(path).drop(columns="text").to_parquet(path)
    with pytest.raises(ValueError, match="has no captions"):
        load_reference(str(path)).captions(range(8))


def test_lossy_and_mixed_pictures_are_said(tmp_path):
    path = tmp_path / "mixed.parquet"
    pd.DataFrame({"image": [*(encoded(index) for index in range(5)), encoded(5, (64, 48), "JPEG")]}).to_parquet(path)
    assert load_reference(str(path)).summary() == "mixed.parquet: 6 pictures of 32x40 to 64x48, 2 sizes, JPEG and PNG"


def test_a_reference_smaller_than_the_extractor_reads_is_refused(tmp_path):
    reference = load_reference(str(parquet(tmp_path)))
    reference.check_size(32)
    with pytest.raises(ValueError, match=r"8 of 8 pictures .* have a side below the 64 px"):
        reference.check_size(64)


def test_halves_share_nothing_and_are_the_same_every_time():
    reference = load_reference("scenes")
    first, second = reference.halves()
    assert not set(first) & set(second)
    assert len(first) + len(second) == len(reference.keys) == SCENES
    assert (first, second) == load_reference("scenes").halves()
    assert first[:20] != sorted(first[:20]), "the first few are a fair sample of all"


def test_fewer_scenes_are_the_first_ones():
    few, whole = load_reference("scenes:12"), load_reference("scenes")
    assert (len(few), len(whole)) == (12, SCENES)
    assert [row["caption"] for row in few.rows] == [row["caption"] for row in whole.rows[:12]]


def test_scenes_are_drawn_without_loss():
    reference = load_reference("scenes")
    assert (reference.read(7) == scenes.draw(scenes.scene(7, "test"), 64, 64)).all()
    assert reference.captions([7]) == [scenes.scene(7, "test").caption]


def test_transparency_is_put_on_white(tmp_path):
    content = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(content, format="PNG")
    pd.DataFrame({"image": [content.getvalue()]}).to_parquet(tmp_path / "clear.parquet")
    assert (load_reference(str(tmp_path / "clear.parquet")).read(0) == 255).all()


def test_a_state_is_a_reference_too(tmp_path):
    FeatureState.of(torch.randn(9, 3)).save(tmp_path / "state.safetensors")
    assert open_reference(str(tmp_path / "state.safetensors")).count == 9
    assert open_reference("") is None


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere/*.parquet", FileNotFoundError, "no file matches"),
        ("nowhere/pictures.tar", FileNotFoundError, "no file matches"),
        ("scene", ValueError, "'scene' is not there: it may be 'scenes', 'scenes:300', a folder"),
        ("data/no_such_folder", ValueError, "is not there"),
    ],
)
def test_a_reference_that_is_not_there_is_named(source, error, message):
    with pytest.raises(error, match=message):
        open_reference(source)


def test_a_table_without_pictures_says_what_it_has(tmp_path):
    pd.DataFrame({"photo": [b"x"]}).to_parquet(tmp_path / "photos.parquet")
    with pytest.raises(ValueError, match=r"has columns photo; one of image, .* must hold pictures"):
        load_reference(str(tmp_path / "photos.parquet"))
