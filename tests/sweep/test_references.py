"""Real images from wherever they lie."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics import FeatureState
from entropy_lib.scenes import scenes
from entropy_lib.sweep import references
from entropy_lib.sweep.references import (
    SCENES,
    DamagedReferenceWarning,
    Reference,
    load_reference,
    open_reference,
)


def encoded(seed, size=(32, 40), form="PNG"):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, format=form)
    return content.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def folder(tmp_path, count=8):
    path = tmp_path / "images"
    path.mkdir()
    for index in range(count):
        (path / f"{index}.png").write_bytes(encoded(index))
    rows = [{"file_name": f"{index}.png", "caption": f"image {index}"} for index in range(count)]
    pd.DataFrame(rows).to_csv(path / "metadata.csv", index=False)
    return path


def parquet(tmp_path, count=8):
    path = tmp_path / "images.parquet"
    pd.DataFrame(
        {"image": [encoded(i) for i in range(count)], "text": [f"image {i}" for i in range(count)]}
    ).to_parquet(path)
    return path


def archive(path, files):
    with tarfile.open(path, "w") as file:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def web_dataset(tmp_path):
    pairs = [((f"{i:04}.png", encoded(i)), (f"{i:04}.txt", f"image {i}".encode())) for i in range(8)]
    return archive(tmp_path / "images.tar", [file for pair in pairs for file in pair])


NAMES = [
    "a photo of a train {}.png", "test/{}.png", "Train/val-{}.PNG", "val/dev/{}.png", "eval_{}.png", "validation/{}.png",
    "{:05}-of-00008.png", "train-{:05}-of-00008.png", "data/test-{}.png", "test{}/train/dev.png", "{}.x.y.png",
    "no_suffix_{}", "{}.jfif", "[{}].png", "{}*?.png", "a::b{}.png", "__MACOSX/{}.png", "__pycache__/{}.png",
    "labels/cat/{}.png", "%41 {}.png", "{} ünïcødé 猫.png", "metadata{}.png", "folder.png/{}.png", "{}.txt.png",
    "#{}&.png", "-{}.png", "{} .png", "a/b/c/d/e/f/{}.png", "zip/{}.png", "{}.tar.png", "hub:owner/{}.png",
]  # fmt: skip


def named(path, names, captioned=True):
    """Images in a folder, by names of their own, and where it is wanted a table of captions."""
    for index, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(index))
    if captioned:
        rows = [{"file_name": name, "caption": f"image {index}"} for index, name in enumerate(names)]
        pd.DataFrame(rows).to_csv(path / "metadata.csv", index=False)
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("captioned", [True, False], ids=["captions", "no captions"])
@pytest.mark.parametrize(
    "patterns", [NAMES, *([pattern] for pattern in NAMES[:7])], ids=lambda patterns: patterns[-1]
)
def test_every_image_of_a_folder_is_there_whatever_it_is_called(tmp_path, patterns, captioned):
    """Beside names that mean nothing, such as a library may take for a split, a class or a pattern."""
    names = [
        *(f"{index}.png" for index in range(20, 24)),
        *(pattern.format(index) for pattern in patterns for index in range(4)),
    ]
    reference = load_reference(str(named(tmp_path / "real images", names, captioned)))
    assert len(reference.survey) == len(reference) == len(names)
    found = {row["image"]["name"]: reference.read(index) for index, row in enumerate(reference.rows)}
    for index, name in enumerate(names):
        assert np.array_equal(found[name], np.asarray(Image.open(io.BytesIO(encoded(index)))))
    if captioned:
        captions = dict(zip(found, reference.captions(range(len(names))), strict=True))
        assert captions == {name: f"image {index}" for index, name in enumerate(names)}


@pytest.mark.parametrize("place", ["train", "test set", ".hidden", "a[1]", "data/val", "x.parquet", "ünï"])
def test_the_folder_itself_may_have_any_name(tmp_path, place):
    assert (
        len(load_reference(str(named(tmp_path / place, [f"{index}.png" for index in range(8)]))).survey) == 8
    )


def test_what_lies_beside_images_is_no_image(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)])
    for name in (
        ".DS_Store",
        "._0.png",
        ".thumbnails/0.png",
        "Thumbs.db",
        "README.md",
        "sub/notes.txt",
        "scores.json",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no image")
    assert len(load_reference(str(path)).survey) == 8


def test_a_file_that_is_no_image_is_left_out_by_name(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)])
    (path / "photo.heic").write_bytes(b"an image that cannot be read here")
    (path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(
        DamagedReferenceWarning,
        match=r"2 of 10 images of real cannot be decoded .*: 'gone.png', 'photo.heic'",
    ):
        assert len(load_reference(str(path)).survey) == 8


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    named(tmp_path / "elsewhere", [f"{index}.png" for index in range(8)], captioned=False)
    path = named(tmp_path / "real", ["here.gif.png"], captioned=False)
    (path / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(path)
    assert len(load_reference(str(path))) == 9


def test_an_image_that_is_there_twice_counts_once(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)])
    (path / "copy.png").write_bytes(encoded(3))
    (path / "as bitmap.bmp").write_bytes(encoded(3, form="BMP"))
    assert len(load_reference(str(path)).survey) == 8


def test_a_folder_is_read_anew_when_it_has_changed(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)])
    before = load_reference(str(path))
    assert len(before.survey) == 8
    (path / "0.png").write_bytes(encoded(100))
    (path / "9.png").write_bytes(encoded(9))
    after = load_reference(str(path))
    assert len(after.survey) == 9
    assert len(set(after.survey.digest) - set(before.survey.digest)) == 2


def write_table(path, rows, kind):
    table = pd.DataFrame(rows)
    if kind == "csv":
        table.to_csv(path / "metadata.csv", index=False, encoding="utf-8-sig")
    elif kind == "jsonl":
        table.to_json(path / "metadata.jsonl", orient="records", lines=True, force_ascii=False)
    else:
        table.to_parquet(path / "metadata.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_captions_are_those_of_the_table(tmp_path, kind):
    """Words that stand for nothing elsewhere are captions here; accents and folders may be written in two
    ways.
    """
    names = [*(f"{index}.png" for index in range(5)), "007", "caf\u00e9.png", "sub/7.png"]
    path = named(tmp_path / "real", names, captioned=False)
    texts = ["NA", "null", "1.50", "a, b", "2024-01-02", "None", "two\u2028lines", "below"]
    listed = [*names[:6], "cafe\u0301.png", "sub\\7.png"]
    write_table(
        path, [{"file_name": name, "caption": text} for name, text in zip(listed, texts, strict=True)], kind
    )
    reference = load_reference(str(path))
    found = dict(
        zip((row["image"]["name"] for row in reference.rows), reference.captions(range(8)), strict=True)
    )
    assert found == dict(zip(names, texts, strict=True))


def test_a_subfolder_may_have_a_table_of_its_own(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(4)])
    named(path / "test", [f"{index}.png" for index in range(4)])
    assert load_reference(str(path)).captions(range(8)) == [f"image {index}" for index in range(4)] * 2


def test_without_a_table_captions_stand_beside_the_images(tmp_path):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)], captioned=False)
    for index in range(8):
        (path / f"{index}.txt").write_text(f"image {index}\n", encoding="utf-8")
    assert load_reference(str(path)).captions(range(8)) == [f"image {index}" for index in range(8)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_captions_for_some_images_only_are_counted(tmp_path, kind):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)], captioned=False)
    write_table(
        path, [{"file_name": f"{index}.png", "caption": f"image {index}"} for index in range(5)], kind
    )
    reference = load_reference(str(path))
    assert len(reference.survey) == 8
    with pytest.raises(ValueError, match="3 of 8 captions of real are missing"):
        reference.captions(range(8))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file_name": "9.png", "caption": "x"}], "1 rows name images that are not there: '9.png'"),
        (
            [{"file_name": ".hidden.png", "caption": "x"}],
            "1 rows name images that are not there: '.hidden.png'",
        ),
        ([{"file_name": "0.png", "caption": c} for c in "xy"], "0.png has two captions: 'x', 'y'"),
        ([{"file": "0.png", "caption": "x"}], "has columns file, caption; it needs file_name"),
    ],
    ids=["no image", "hidden image", "two captions", "no names"],
)
def test_a_table_that_does_not_fit_its_folder_is_refused(tmp_path, kind, rows, message):
    path = named(tmp_path / "real", [*(f"{index}.png" for index in range(8)), ".hidden.png"], captioned=False)
    write_table(path, rows, kind)
    with pytest.raises(InvalidInputError, match=message):
        load_reference(str(path))


@pytest.mark.parametrize(
    ("name", "content"), [("metadata.csv", b"\xff\xfe"), ("metadata.jsonl", b"{"), ("metadata.parquet", b"x")]
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, name, content):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)], captioned=False)
    (path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"{name} cannot be read"):
        load_reference(str(path))


def test_an_archive_may_hold_images_of_several_kinds_and_names(tmp_path):
    forms = ["png", "jpg", "webp", "bmp", "PNG", "gif", "tiff", "jpeg"]
    format_of = {"jpg": "JPEG", "tiff": "TIFF", "webp": "WEBP"}
    files = [
        (
            f"{'train' if index % 2 else 'test'}/{index}.{form}",
            encoded(index, form=format_of.get(form, form.upper())),
        )
        for index, form in enumerate(forms)
    ]
    files += [
        (f"{'train' if index % 2 else 'test'}/{index}.txt", f"image {index}".encode()) for index in range(8)
    ]
    files += [("test/._0.png", b"of a Mac"), ("train/1.json", b"{}"), ("train/1.seg.png", b"a mask")]
    reference = load_reference(str(archive(tmp_path / "train.tar", files)))
    assert len(reference.survey) == 8
    assert reference.captions(range(8)) == [f"image {index}" for index in range(8)]


def test_archives_of_a_pattern_are_apart(tmp_path):
    for shard in range(2):
        archive(
            tmp_path / f"test-{shard}.tar",
            [(f"{index}.png", encoded(10 * shard + index)) for index in range(4)],
        )
    (tmp_path / ".test-9.tar").write_bytes(b"hidden")
    assert len(load_reference(str(tmp_path / "*.tar")).survey) == 8


def joined(path):
    one, other = (
        archive(path / name, [(f"{index}.png", encoded(index)) for index in range(8)])
        for name in ("a.tar", "b.tar")
    )
    one.write_bytes(one.read_bytes() + other.read_bytes())
    return one


def cut(path):
    whole = archive(path / "a.tar", [(f"{index}.png", encoded(index)) for index in range(8)])
    with tarfile.open(whole) as file:
        end = file.getmembers()[4].offset
    whole.write_bytes(whole.read_bytes()[:end])
    return whole


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (joined, "a.tar was cut off, or is several archives"),
        (cut, "a.tar was cut off"),
        (
            lambda path: archive(path / "a.tar", [("a photo 1.5.png", encoded(0))]),
            "'a photo 1' of a.tar has 0 images",
        ),
        (
            lambda path: archive(path / "a.tar", [("1.png", encoded(0)), ("1.jpg", encoded(0))]),
            "'1' of a.tar has 2 images",
        ),
        (
            lambda path: archive(path / "a.tar", [("1.png", encoded(0)), ("1.png", encoded(1))]),
            "'1' of a.tar has 2 images",
        ),
        (lambda path: archive(path / "a.tar", [("1.txt", b"a caption")]), "'1' of a.tar has 0 images"),
        (lambda path: archive(path / "a.tar", []), "it holds no images"),
    ],
    ids=["joined", "cut off", "dotted name", "two kinds", "one name twice", "no image", "empty"],
)
def test_an_archive_that_would_lose_images_is_refused(tmp_path, make, message):
    with pytest.raises(InvalidInputError, match=message):
        load_reference(str(make(tmp_path)))


@pytest.mark.parametrize(
    "name", ["test.parquet", "a[1].parquet", "val*.parquet", "train-00000-of-00001.parquet"]
)
def test_a_table_of_images_may_have_any_name(tmp_path, name):
    parquet(tmp_path).rename(tmp_path / name)
    pd.DataFrame({"image": [encoded(99)]}).to_parquet(tmp_path / "val_q1.parquet")
    assert len(load_reference(str(tmp_path / name)).survey) == 8


def grey(path):
    levels = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) * 51
    Image.fromarray(levels).save(path / "x.png")
    return (levels / 257).round()[..., None].repeat(3, 2)


def turned(path):
    tag = Image.Exif()
    tag[274] = 6
    image = Image.open(io.BytesIO(encoded(50)))
    image.save(path / "x.png", exif=tag)
    return np.asarray(image.rotate(-90, expand=True))


@pytest.mark.parametrize("make", [grey, turned])
def test_images_of_a_reference_are_as_a_viewer_shows_them(tmp_path, make):
    path = named(tmp_path / "real", [f"{index}.png" for index in range(8)], captioned=False)
    expected = make(path)
    reference = load_reference(str(path))
    assert np.array_equal(reference.read(8), expected)
    assert tuple(reference.survey.loc[8, ["height", "width"]]) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["folder", "parquet", "list"])
def test_what_cannot_be_shown_is_refused_by_name(tmp_path, kind):
    content = io.BytesIO()
    Image.fromarray(np.zeros((32, 40), np.float32)).save(content, "TIFF")
    images = [*(encoded(index) for index in range(8)), content.getvalue()]
    if kind == "folder":
        path = named(tmp_path / "real", [f"{index}.png" for index in range(8)], captioned=False)
        (path / "depth.tiff").write_bytes(content.getvalue())
        reference, name = load_reference(str(path)), "depth.tiff"
    elif kind == "parquet":
        pd.DataFrame({"image": images}).to_parquet(tmp_path / "a.parquet")
        reference, name = load_reference(str(tmp_path / "a.parquet")), "row 8"
    else:
        reference, name = Reference("a list", [{"image": one} for one in images], "image", None), "row 8"
    with pytest.raises(
        InvalidInputError, match=rf"1 images of .* cannot be shown as they are \('{name}'\): .*mode 'F'"
    ):
        reference.survey  # noqa: B018


@pytest.mark.parametrize("make", [folder, parquet, web_dataset])
def test_images_and_captions_are_the_same_wherever_they_lie(tmp_path, make):
    reference = load_reference(str(make(tmp_path)))
    assert len(reference) == 8
    found = {text: reference.read(index) for index, text in enumerate(reference.captions(range(8)))}
    for index in range(8):
        assert np.array_equal(found[f"image {index}"], np.asarray(Image.open(io.BytesIO(encoded(index)))))
    assert "8 images of 32x40, PNG" in reference.summary()


def test_what_cannot_be_decoded_is_left_out_and_counted(tmp_path):
    path = parquet(tmp_path)
    table = pd.read_parquet(path)
    table.loc[1, "image"] = table.image[1][:-30]
    table.loc[2, "image"] = b"no image"
    table.to_parquet(path)
    with pytest.warns(DamagedReferenceWarning, match=r"2 of 8 images of images.parquet cannot be decoded"):
        assert list(load_reference(str(path)).survey.index) == [0, 3, 4, 5, 6, 7]


def test_each_image_is_decoded_once_whatever_is_asked(tmp_path, monkeypatch):
    """And not again by the next process that opens the same files."""
    opened, plain = [], references.read_picture
    monkeypatch.setattr(references, "read_picture", lambda content: opened.append(content) or plain(content))
    path = str(parquet(tmp_path, 8))
    for _ in range(2):
        reference = load_reference(path)
        (
            reference.halves(),
            reference.check_size(32),
            reference.summary(),
            reference.captions(reference.halves()[0]),
        )
    assert len(opened) == 8
    opened.clear()
    listed = Reference("a list", [{"image": encoded(index)} for index in range(8)], "image", None)
    listed.halves(), listed.check_size(32), listed.summary()
    assert len(opened) == 8


def test_missing_captions_are_counted(tmp_path):
    path = parquet(tmp_path)
    pd.read_parquet(path).assign(text=["a", None, " ", *"defgh"]).to_parquet(path)
    with pytest.raises(ValueError, match=r"2 of 8 captions of images.parquet are missing"):
        load_reference(str(path)).captions(range(8))
    pd.read_parquet(path).drop(columns="text").to_parquet(path)
    with pytest.raises(ValueError, match="has no captions"):
        load_reference(str(path)).captions(range(8))


def test_lossy_and_mixed_images_are_said(tmp_path):
    path = tmp_path / "mixed.parquet"
    pd.DataFrame(
        {"image": [*(encoded(index) for index in range(5)), encoded(5, (64, 48), "JPEG")]}
    ).to_parquet(path)
    assert (
        load_reference(str(path)).summary()
        == "mixed.parquet: 6 images of 32x40 to 64x48, 2 sizes, JPEG and PNG"
    )


def test_a_reference_smaller_than_the_extractor_reads_is_refused(tmp_path):
    reference = load_reference(str(parquet(tmp_path)))
    reference.check_size(32)
    with pytest.raises(ValueError, match=r"8 of 8 images .* have a side below the 64 px .* Leave them out"):
        reference.check_size(64)


def test_halves_share_nothing_and_are_the_same_every_time():
    reference = load_reference("scenes")
    first, second = reference.halves()
    assert not set(first) & set(second)
    assert len(first) + len(second) == len(reference.survey) == SCENES
    assert (first, second) == load_reference("scenes").halves()
    assert first[:20] != sorted(first[:20]), "the first few are a fair sample of all"


def test_scenes_are_drawn_without_loss_and_fewer_are_the_first_ones():
    few, whole = load_reference("scenes:12"), load_reference("scenes")
    assert (len(few), len(whole)) == (12, SCENES)
    for reference in (few, whole):
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
        ("nowhere/images.tar", FileNotFoundError, "no file matches"),
        ("scene", ValueError, "'scene' is not there: it may be 'scenes', 'scenes:300', a folder"),
        ("data/no_such_folder", ValueError, "is not there"),
    ],
)
def test_a_reference_that_is_not_there_is_named(source, error, message):
    with pytest.raises(error, match=message):
        open_reference(source)


def test_a_table_without_images_says_what_it_has(tmp_path):
    pd.DataFrame({"photo": [b"x"]}).to_parquet(tmp_path / "photos.parquet")
    with pytest.raises(ValueError, match=r"has columns photo; one of image, .* must hold images"):
        load_reference(str(tmp_path / "photos.parquet"))
