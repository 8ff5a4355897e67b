"""Real images from wherever they lie."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from entropy_lib.errors import EntropyLibError, InvalidInputError, MissingFileError
from entropy_lib.metrics import FeatureState
from entropy_lib.scenes import scenes, sprites
from entropy_lib.sweep import references
from entropy_lib.sweep.references import (
    SCENES,
    DamagedReferenceWarning,
    Reference,
    caption_list,
    load_reference,
    open_reference,
)

TABLES = ["csv", "jsonl", "parquet"]
NUMBERED = [f"{index}.png" for index in range(8)]


def encoded(seed, size=(32, 40), form="PNG"):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, format=form)
    return content.getvalue()


def decoded(seed):
    return np.asarray(Image.open(io.BytesIO(encoded(seed))))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_table(path, kind="csv", **columns):
    table = pd.DataFrame(columns)
    if kind == "csv":
        table.to_csv(path / "metadata.csv", index=False, encoding="utf-8-sig")
    elif kind == "jsonl":
        table.to_json(path / "metadata.jsonl", orient="records", lines=True, force_ascii=False)
    else:
        table.to_parquet(path / "metadata.parquet")


def folder(path, names=NUMBERED, captioned=False):
    """Images in a folder, by names of their own, and where it is wanted a table of captions."""
    for index, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(index))
    if captioned:
        write_table(path, file_name=names, caption=[f"image {index}" for index in range(len(names))])
    return path


def parquet(path, **columns):
    own = {"image": [encoded(i) for i in range(8)], "text": [f"image {i}" for i in range(8)]}
    pd.DataFrame(own | columns).to_parquet(path)
    return path


def archive(path, files):
    with tarfile.open(path, "w") as file:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def web_dataset(path):
    pairs = [((f"{i:04}.png", encoded(i)), (f"{i:04}.txt", f"image {i}".encode())) for i in range(8)]
    return archive(path, [file for pair in pairs for file in pair])


NAMES = [
    *("a photo of a train {}.png", "test/{}.png", "Train/val-{}.PNG", "val/dev/{}.png", "eval_{}.png"),
    *("validation/{}.png", "{:05}-of-00008.png", "train-{:05}-of-00008.png", "data/test-{}.png"),
    *("test{}/train/dev.png", "{}.x.y.png", "no_suffix_{}", "{}.jfif", "[{}].png", "{}*?.png", "a::b{}.png"),
    *("__MACOSX/{}.png", "__pycache__/{}.png", "labels/cat/{}.png", "%41 {}.png", "{} ünïcødé 猫.png"),
    *("metadata{}.png", "folder.png/{}.png", "{}.txt.png", "#{}&.png", "-{}.png", "{} .png"),
    *("a/b/c/d/e/f/{}.png", "zip/{}.png", "{}.tar.png", "hub:owner/{}.png"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("captioned", [True, False], ids=["captions", "no captions"])
@pytest.mark.parametrize("patterns", [NAMES, ["test/{}.png"], ["train-{:05}-of-00008.png"]], ids=len)
def test_every_image_of_a_folder_is_there_whatever_it_is_called(tmp_path, patterns, captioned):
    """Beside names that mean nothing, such as a library may take for a split, a class or a pattern."""
    names = [pattern.format(index) for pattern in patterns for index in range(2)]
    names += [f"{index}.png" for index in range(20, 24)]
    reference = load_reference(str(folder(tmp_path / "test [1] ünï.parquet", names, captioned)))
    assert len(reference.survey) == len(reference) == len(names)
    found = {row["image"]["name"]: reference.read(index) for index, row in enumerate(reference.rows)}
    assert all(np.array_equal(found[name], decoded(index)) for index, name in enumerate(names))
    if captioned:
        captions = dict(zip(found, reference.captions(range(len(names))), strict=True))
        assert captions == {name: f"image {index}" for index, name in enumerate(names)}


def test_what_lies_beside_images_is_no_image(tmp_path):
    path = folder(tmp_path / "real")
    beside = (".DS_Store", "._0.png", ".thumbnails/0.png", "Thumbs.db", "README.md", "a/notes.txt", "a.json")
    for name in beside:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no image")
    assert len(load_reference(str(path)).survey) == 8


def test_a_file_that_is_no_image_is_left_out_by_name(tmp_path):
    path = folder(tmp_path / "real")
    (path / "photo.heic").write_bytes(b"an image that cannot be read here")
    (path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    said = r"2 of 10 images of real cannot be decoded .*: 'gone.png', 'photo.heic'"
    with pytest.warns(DamagedReferenceWarning, match=said):
        assert len(load_reference(str(path)).survey) == 8


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    folder(tmp_path / "elsewhere")
    path = folder(tmp_path / "real", ["here.gif.png"])
    (path / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(path)
    assert len(load_reference(str(path))) == 9


def test_an_image_that_is_there_twice_counts_once(tmp_path):
    path = folder(tmp_path / "real")
    (path / "copy.png").write_bytes(encoded(3))
    (path / "as bitmap.bmp").write_bytes(encoded(3, form="BMP"))
    assert len(load_reference(str(path)).survey) == 8


def test_a_folder_is_read_anew_when_it_has_changed(tmp_path):
    path = folder(tmp_path / "real")
    before = load_reference(str(path)).survey
    assert len(before) == 8
    (path / "0.png").write_bytes(encoded(100))
    (path / "9.png").write_bytes(encoded(9))
    after = load_reference(str(path)).survey
    assert len(after) == 9
    assert len(set(after.digest) - set(before.digest)) == 2


@pytest.mark.parametrize("kind", TABLES)
def test_captions_are_those_of_the_table(tmp_path, kind):
    """Words that stand for nothing elsewhere are captions here; accents and folders may be written in two
    ways.
    """
    names = [*NUMBERED[:5], "007", "caf\u00e9.png", "sub/7.png"]
    path = folder(tmp_path / "real", names)
    texts = ["NA", "null", "1.50", "a, b", "2024-01-02", "None", "two\u2028lines", "below"]
    write_table(path, kind, file_name=[*names[:6], "cafe\u0301.png", "sub\\7.png"], caption=texts)
    reference = load_reference(str(path))
    found = [row["image"]["name"] for row in reference.rows]
    assert dict(zip(found, reference.captions(range(8)), strict=True)) == dict(zip(names, texts, strict=True))


def test_a_subfolder_may_have_a_table_of_its_own(tmp_path):
    path = folder(tmp_path / "real", NUMBERED[:4], captioned=True)
    folder(path / "test", NUMBERED[:4], captioned=True)
    assert load_reference(str(path)).captions(range(8)) == [f"image {index}" for index in range(4)] * 2


def test_without_a_table_captions_stand_beside_the_images(tmp_path):
    path = folder(tmp_path / "real")
    for index in range(8):
        (path / f"{index}.txt").write_text(f"image {index}\n", encoding="utf-8")
    assert load_reference(str(path)).captions(range(8)) == [f"image {index}" for index in range(8)]


def test_captions_for_some_images_only_are_counted(tmp_path):
    path = folder(tmp_path / "real")
    write_table(path, file_name=NUMBERED[:5], caption=list("abcde"))
    reference = load_reference(str(path))
    assert len(reference.survey) == 8
    with pytest.raises(InvalidInputError, match="3 of 8 captions of real are missing"):
        reference.captions(range(8))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file_name": ["9.png"], "caption": ["x"]}, "1 rows name images that are not there: '9.png'"),
        ({"file_name": [".hidden.png"], "caption": ["x"]}, "1 rows name .* not there: '.hidden.png'"),
        ({"file_name": ["0.png"] * 2, "caption": ["x", "y"]}, "0.png has two captions: 'x', 'y'"),
        ({"file": ["0.png"], "caption": ["x"]}, "has columns file, caption; it needs file_name"),
    ],
    ids=["no image", "hidden image", "two captions", "no names"],
)
def test_a_table_that_does_not_fit_its_folder_is_refused(tmp_path, kind, columns, message):
    path = folder(tmp_path / "real", [*NUMBERED, ".hidden.png"])
    write_table(path, kind, **columns)
    with pytest.raises(InvalidInputError, match=message):
        load_reference(str(path))


@pytest.mark.parametrize(("kind", "content"), [("csv", b"\xff\xfe"), ("jsonl", b"{"), ("parquet", b"x")])
def test_a_table_that_cannot_be_read_is_named(tmp_path, kind, content):
    path = folder(tmp_path / "real")
    (path / f"metadata.{kind}").write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"metadata.{kind} cannot be read"):
        load_reference(str(path))


def test_an_archive_may_hold_images_of_several_kinds_and_names(tmp_path):
    forms = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "PNG": "PNG", "gif": "GIF"}
    forms |= {"tiff": "TIFF", "jpeg": "JPEG"}
    files = []
    for index, (suffix, form) in enumerate(forms.items()):
        name = f"{'train' if index % 2 else 'test'}/{index}"
        files += [(f"{name}.{suffix}", encoded(index, form=form)), (f"{name}.txt", f"image {index}".encode())]
    files += [("test/._0.png", b"of a Mac"), ("train/1.json", b"{}"), ("train/1.seg.png", b"a mask")]
    reference = load_reference(str(archive(tmp_path / "train.tar", files)))
    assert len(reference.survey) == 8
    assert reference.captions(range(8)) == [f"image {index}" for index in range(8)]


def test_archives_of_a_pattern_are_apart(tmp_path):
    for shard in range(2):
        files = [(f"{index}.png", encoded(10 * shard + index)) for index in range(4)]
        archive(tmp_path / f"test-{shard}.tar", files)
    (tmp_path / ".test-9.tar").write_bytes(b"hidden")
    assert len(load_reference(str(tmp_path / "*.tar")).survey) == 8


def whole(path):
    return archive(path, [(name, encoded(index)) for index, name in enumerate(NUMBERED)])


def joined(path):
    path.write_bytes(whole(path).read_bytes() * 2)


def cut(path):
    with tarfile.open(whole(path)) as file:
        end = file.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:end])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (joined, "a.tar was cut off, or is several archives"),
        (cut, "a.tar was cut off"),
        (["a photo 1.5.png"], "'a photo 1' of a.tar has 0 images"),
        (["1.png", "1.jpg"], "'1' of a.tar has 2 images"),
        (["1.png", "1.png"], "'1' of a.tar has 2 images"),
        ([], "it holds no images"),
    ],
    ids=["joined", "cut off", "dotted name", "two kinds", "one name twice", "empty"],
)
def test_an_archive_that_would_lose_images_is_refused(tmp_path, make, message):
    path = tmp_path / "a.tar"
    if callable(make):
        make(path)
    else:
        archive(path, [(name, encoded(index)) for index, name in enumerate(make)])
    with pytest.raises(InvalidInputError, match=message):
        load_reference(str(path))


@pytest.mark.parametrize("name", ["test.parquet", "a[1].parquet", "val*.parquet", "train-0-of-1.parquet"])
def test_a_table_of_images_may_have_any_name(tmp_path, name):
    parquet(tmp_path / name)
    pd.DataFrame({"image": [encoded(99)]}).to_parquet(tmp_path / "val_q1.parquet")
    assert len(load_reference(str(tmp_path / name)).survey) == 8


def test_images_of_a_reference_are_as_a_viewer_shows_them(tmp_path):
    path, tag = folder(tmp_path / "real"), Image.Exif()
    tag[274] = 6  # turned
    image = Image.open(io.BytesIO(encoded(50)))
    image.save(path / "x.png", exif=tag)
    reference = load_reference(str(path))
    assert np.array_equal(reference.read(8), np.asarray(image.rotate(-90, expand=True)))
    assert tuple(reference.survey.loc[8, ["height", "width"]]) == (40, 32)


def test_what_cannot_be_shown_is_refused_by_name(tmp_path):
    path = folder(tmp_path / "real")
    Image.fromarray(np.zeros((32, 40), np.float32)).save(path / "depth.tiff")
    images = [path.read_bytes() for path in sorted(path.iterdir())]
    listed = Reference("a list", [{"image": one} for one in images], "image", None)
    for reference, name in ((load_reference(str(path)), "depth.tiff"), (listed, "row 8")):
        said = rf"1 images of .* cannot be shown as they are \('{name}'\): .*mode 'F'"
        with pytest.raises(InvalidInputError, match=said):
            reference.survey  # noqa: B018


@pytest.mark.parametrize("make", [lambda path: folder(path, captioned=True), parquet, web_dataset])
def test_images_and_captions_are_the_same_wherever_they_lie(tmp_path, make):
    suffix = {parquet: ".parquet", web_dataset: ".tar"}.get(make, "")
    reference = load_reference(str(make(tmp_path / f"images{suffix}")))
    assert len(reference) == 8
    found = {text: reference.read(index) for index, text in enumerate(reference.captions(range(8)))}
    assert all(np.array_equal(found[f"image {index}"], decoded(index)) for index in range(8))
    assert "8 images of 32x40, PNG" in reference.summary()


def test_each_image_is_decoded_once_whatever_is_asked(tmp_path, monkeypatch):
    """And not again by the next process that opens the same files."""
    opened, plain = [], references.read_picture
    monkeypatch.setattr(references, "read_picture", lambda content: opened.append(content) or plain(content))
    path = str(parquet(tmp_path / "a.parquet"))
    for _ in range(2):
        reference = load_reference(path)
        reference.halves(), reference.check_size(32), reference.summary(), reference.captions([0])
    assert len(opened) == 8
    opened.clear()
    listed = Reference("a list", [{"image": encoded(index)} for index in range(8)], "image", None)
    listed.halves(), listed.check_size(32), listed.summary()
    assert len(opened) == 8


def test_missing_captions_are_counted(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=["a", None, " ", *"defgh"])
    with pytest.raises(InvalidInputError, match=r"2 of 8 captions of a.parquet are missing"):
        load_reference(str(path)).captions(range(8))
    pd.read_parquet(path).drop(columns="text").to_parquet(path)
    with pytest.raises(InvalidInputError, match="has no captions"):
        load_reference(str(path)).captions(range(8))


def test_lossy_and_mixed_images_are_said(tmp_path):
    images = [*(encoded(index) for index in range(5)), encoded(5, (64, 48), "JPEG")]
    pd.DataFrame({"image": images}).to_parquet(tmp_path / "a.parquet")
    said = "a.parquet: 6 images of 32x40 to 64x48, 2 sizes, JPEG and PNG"
    assert load_reference(str(tmp_path / "a.parquet")).summary() == said


def test_a_reference_smaller_than_the_extractor_reads_is_refused(tmp_path):
    reference = load_reference(str(parquet(tmp_path / "a.parquet")))
    reference.check_size(32)
    said = r"8 of 8 images .* have a side below the 64 px .* Leave them out"
    with pytest.raises(InvalidInputError, match=said):
        reference.check_size(64)


def test_halves_share_nothing_and_are_the_same_every_time():
    reference = load_reference("scenes:200")
    first, second = reference.halves()
    assert not set(first) & set(second)
    assert len(first) + len(second) == len(reference.survey) == 200
    again = Reference(reference.name, reference.rows, reference.image, reference.caption)
    assert (first, second) == again.halves()
    assert first[:20] != sorted(first[:20]), "the first few are a fair sample of all"


def test_scenes_lose_nothing_and_fewer_are_the_first_ones():
    few, all_of_them, simple = map(load_reference, ("scenes:12", "scenes", "simple-scenes:12"))
    assert (len(few), len(all_of_them)) == (12, SCENES)
    for reference in (few, all_of_them):
        assert (reference.read(7) == scenes.draw(scenes.scene(7, "test"), 64, 64)).all()
        assert reference.captions([7]) == [scenes.scene(7, "test").caption]
    assert simple.captions([7]) == [scenes.scene(7, "test", scenes.SIMPLE).caption]


def test_a_state_is_a_reference_too(tmp_path):
    FeatureState.of(torch.randn(9, 3)).save(tmp_path / "state.safetensors")
    assert open_reference(str(tmp_path / "state.safetensors")).count == 9
    assert open_reference("") is None


def opened(path, name, content):
    (path / name).write_bytes(content)
    return open_reference(str(path / name))


def truncated_parquet(path):
    return opened(path, "images.parquet", parquet(path / "whole.parquet").read_bytes()[:-40])


def broken_sprites(path):
    content = bytearray(sprites.PARQUET.read_bytes())
    content[len(content) // 2] ^= 1
    (path / sprites.PARQUET.name).write_bytes(content)
    (path / "SHA256SUMS").write_bytes((sprites.PARQUET.parent / "SHA256SUMS").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sprites, "PARQUET", path / sprites.PARQUET.name)
        return references._scenes.__wrapped__("scenes", 8)


def table_of(path, **columns):
    pd.DataFrame(columns).to_parquet(path / "images.parquet")
    return open_reference(str(path / "images.parquet"))


def survey(path, images):
    return table_of(path, image=images).survey


REFUSED = {
    "no file matches 'no/\\*.parquet'": lambda _: load_reference("no/*.parquet"),
    "no file matches .*images.tar": lambda _: open_reference("nowhere/images.tar"),
    "'scene' is not there: it may be 'scenes', 'scenes:300', 'simple-scenes', a folder": lambda _: (
        open_reference("scene")
    ),
    "data/no_such_folder' is not there": lambda _: open_reference("data/no_such_folder"),
    "cannot be read .* restore its files, or name another": lambda path: open_reference(str(path)),
    "images.parquet' cannot be read .* restore its files": truncated_parquet,
    "images.tar": lambda path: opened(path, "images.tar", b"no archive" * 100),
    "8 of 8 images .* cannot be decoded": lambda path: survey(path, [b"no image"] * 8),
    "holds 5 different .* needs 6 at least": lambda path: survey(path, [encoded(i) for i in range(5)]),
    "prompt_count is 9, but half of": lambda path: caption_list(str(parquet(path / "a.parquet")), 9),
    "has no captions; name a prompt list": lambda _: caption_list("", 3),
    "has columns photo; one of image, .* must hold images": lambda path: table_of(path, photo=[b"x"]),
    "sprites.parquet .* is damaged: restore it with `git checkout": broken_sprites,
    "FeatureState.save": lambda path: open_reference(f"{path}/no.safetensors"),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.items(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::entropy_lib.sweep.references.DamagedReferenceWarning")
def test_a_reference_that_cannot_be_used_is_refused_in_one_sentence(message, call, tmp_path):
    kind = MissingFileError if message.startswith("no file") else EntropyLibError
    with pytest.raises(kind, match=message):
        call(tmp_path)
