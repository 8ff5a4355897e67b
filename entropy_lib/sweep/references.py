"""Real images to compare with: the shipped scenes, or a folder, Parquet, WebDataset or the Hub.

    scenes                   2,000 test scenes, of the kind that the embedded model was trained on, and never
                             seen by it; scenes:300 the first 300 of them
    simple-scenes            likewise of the simpler world that mini-dit was trained on
    path/to/folder           images, captions in metadata.csv (file_name, caption), see `sweep.image_sources`
    path/to/*.parquet        a column of images and one of captions
    path/to/*.tar            WebDataset shards
    hub:owner/name:split     a data set of the Hugging Face Hub; split "train" where none is named
    path/to/file.safetensors a state written by `FeatureState.save`: enough for a Fréchet distance, and
                             nothing else

Real data sets are JPEG more often than not; that is said, not refused. What cannot be decoded is left out,
counted and named; what cannot be shown as a viewer shows it (`metrics.picture_files`) is refused.
"""

import hashlib
import inspect
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.errors import EntropyLibError, InvalidInputError, MissingFileError, extra
from entropy_lib.files import workplace
from entropy_lib.metrics import picture_files
from entropy_lib.metrics.picture_files import read_picture
from entropy_lib.metrics.state import FeatureState
from entropy_lib.models.checksums import verify
from entropy_lib.models.hub import offline_where_it_does_not_answer
from entropy_lib.scenes import scenes, sprites
from entropy_lib.sweep.image_sources import (
    CAPTION_COLUMNS,
    Row,
    column,
    first_text,
    in_archive,
    in_folder,
    some,
)

if TYPE_CHECKING:
    import datasets  # comes with an extra

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp")
SEED = 0  # of the split into halves
LEAST = 6  # images
SCENES = 2000  # test scenes, where no number is given
DAMAGED = "damaged"
FACTS = ("digest", "height", "width", "format", "problem")


class DamagedReferenceWarning(UserWarning):
    """Images of a reference that could not be decoded and were left out."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images in a fixed order, read one at a time."""

    name: str  # what it was made from
    rows: Sequence[Mapping]  # an indexable table whose rows hold the encoded image and perhaps a caption
    image: str  # their columns; no caption column is None
    caption: str | None  # likewise

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """An image as a viewer shows it, transparency on white.

        Raises:
            InvalidInputError, OSError: as `read_picture`, for what the survey leaves out or refuses.
        """
        return read_picture(_encoded(self.rows[index][self.image]))

    @cached_property
    def survey(self) -> pd.DataFrame:
        """Every image decoded once: columns `digest, height, width, format`, indexed as `rows` are.

        Images that cannot be decoded are not in it; repeated ones once. Of a data set it is kept in the cache
        of `datasets`.

        Warns:
            DamagedReferenceWarning: saying how many were left out, and which.
        """
        whole = self._facts()
        names = whole.index.map(self._name_of)
        refused = whole["problem"].where(~whole["problem"].isin(["", DAMAGED])).dropna()
        if len(refused):
            raise InvalidInputError(
                f"{len(refused)} images of {self.name} cannot be shown as they are "
                f"({some(names[refused.index])}): of the first, {refused.iloc[0]}"
            )
        decoded = whole[whole["problem"] == ""].drop_duplicates("digest")
        broken = names[whole["problem"] == DAMAGED]
        damaged = f"{len(broken)} of {len(whole)} images of {self.name} cannot be decoded"
        if len(decoded) < LEAST:
            raise InvalidInputError(
                f"{self.name} holds {len(decoded)} different images ({damaged}); a reference needs {LEAST} "
                "at least, half of them to compare with. Name another reference, or restore its files"
            )
        if len(broken):
            said = f"{damaged} and were left out: {some(broken)}"
            warnings.warn(said, DamagedReferenceWarning, stacklevel=2)
        return decoded.drop(columns="problem")

    def _facts(self) -> pd.DataFrame:
        if not hasattr(self.rows, "map"):
            return pd.DataFrame([_facts(row[self.image]) for row in self.rows], columns=FACTS)
        columns = {"input_columns": [self.image], "remove_columns": self.rows.column_names}
        found = self.rows.map(_facts, fn_kwargs={"code": _code()}, desc=f"reading {self.name}", **columns)
        return found.to_pandas()

    def _name_of(self, index: int) -> str:
        """The file of an image, or its row where it has none."""
        value = self.rows[index][self.image]
        return (isinstance(value, Mapping) and (value.get("name") or value.get("path"))) or f"row {index}"

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The captions of some images, the first where an image has several."""
        if self.caption is None:
            columns = ", ".join(CAPTION_COLUMNS)
            raise InvalidInputError(f"{self.name} has no captions (no column {columns}); name a prompt list")
        texts = [(first_text(self.rows[index][self.caption]) or "").strip() for index in indices]
        if missing := texts.count(""):
            said = f"{missing} of {len(texts)} captions of {self.name} are missing"
            raise InvalidInputError(f"{said}; caption those images, or leave them out")
        return texts

    def halves(self) -> tuple[list[int], list[int]]:
        """Indices of two halves that share no image, in a random order that is the same every time.

        The first gives captions and the reference baseline, the second is what all are compared with: no
        image is ever compared with itself.
        """
        order = np.random.default_rng(SEED).permutation(np.array(self.survey.index))
        return order[: len(order) // 2].tolist(), order[len(order) // 2 :].tolist()

    def summary(self) -> str:
        """One line: how many images, of what sizes and formats."""
        sizes = sorted(set(self.survey[["height", "width"]].itertuples(index=False, name=None)))
        (shortest, longest), formats = (sizes[0], sizes[-1]), sorted(set(self.survey["format"]))
        size = f"{shortest[0]}x{shortest[1]}"
        if len(sizes) > 1:
            size += f" to {longest[0]}x{longest[1]}, {len(sizes)} sizes"
        return f"{self.name}: {len(self.survey):,} images of {size}, {' and '.join(formats)}"

    def check_size(self, side: int) -> None:
        """InvalidInputError for images smaller than what the extractor reads, whose enlarging would blur."""
        small = int((self.survey[["height", "width"]].min(axis=1) < side).sum())
        if small:
            raise InvalidInputError(
                f"{small} of {len(self.survey)} images of {self.name} have a side below the {side} px that "
                "the extractor reads: they would be enlarged, and samples compared with blurred images. "
                "Leave them out"
            )


def _facts(value: object, code: str = "") -> dict:
    """What there is to know of an encoded image; `code` is a part of what the cache goes by."""
    found = ("", 0, 0, "")
    try:
        encoded = _encoded(value)
        pixels, problem = read_picture(encoded), ""
        with Image.open(io.BytesIO(encoded)) as file:
            form = file.format or "unknown"
        digest = hashlib.sha256(f"{pixels.shape} ".encode() + pixels.tobytes()).hexdigest()
        found = (digest, *pixels.shape[:2], form)
    except InvalidInputError as error:
        problem = str(error)
    except Exception:  # Pillow's own, of many kinds, for a broken file
        problem = DAMAGED
    return dict(zip(FACTS, (*found, problem), strict=True))


@cache
def _code() -> str:
    """A checksum of what decides the facts: `datasets` knows functions by their names alone."""
    return hashlib.sha256((inspect.getsource(picture_files) + inspect.getsource(_facts)).encode()).hexdigest()


def _encoded(value: object) -> bytes:
    """The file of an image: a place on disk, what `datasets` gives undecoded, or the bytes themselves."""
    if not isinstance(value, Mapping):
        return value
    if value.get("bytes") is not None:
        return value["bytes"]
    with open(value["path"], "rb") as file:
        file.seek(value.get("start", 0))
        return file.read(value.get("size", -1))


def load_reference(source: str) -> Reference:
    """Open a reference; nothing is decoded yet. See the module's text for what `source` may be.

    Raises:
        MissingFileError: for a path that is not there.
        InvalidInputError: for a source of another kind, one that cannot be read, or one without a column of
            images.
    """
    if match := re.fullmatch(r"((?:simple-)?scenes)(?::([0-9]{1,6}))?", source):
        return _scenes(match[1], int(match[2] or SCENES))
    with extra("metrics"):
        import datasets

    path = Path(source)
    rows = _rows(source, path)
    image = column(IMAGE_COLUMNS, rows.column_names)
    if image is None:
        there, known = ", ".join(rows.column_names), ", ".join(IMAGE_COLUMNS)
        raise InvalidInputError(f"{source} has columns {there}; one of {known} must hold images")
    if isinstance(rows.features[image], datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))
    return Reference(path.name, rows, image, column(CAPTION_COLUMNS, rows.column_names))


def _rows(source: str, path: Path) -> "datasets.Dataset":
    """The table of a reference, by the kind of its source."""
    with extra("metrics"):
        import datasets

    kind = path.suffix if path.suffix in (".parquet", ".tar") else source.partition(":")[0]
    if kind not in (".parquet", ".tar", "hub") and not path.is_dir():
        raise InvalidInputError(
            f"reference {source!r} is not there: it may be 'scenes', 'scenes:300', 'simple-scenes', a folder "
            "of images, a .parquet, a .tar, a state (.safetensors), or hub:owner/name[:split]; relative "
            f"paths are taken from {workplace()}"
        )
    files = [] if path.is_dir() or kind == "hub" else _existing(path)
    try:
        if path.is_dir():
            return _dataset(in_folder(path))
        if kind == ".tar":
            return _dataset([row for file in files for row in in_archive(file)])
        if kind == ".parquet":
            names = [escape(str(file)) for file in files]
            return datasets.load_dataset("parquet", data_files=names, split="train")
        name, _, split = source.removeprefix("hub:").partition(":")
        with offline_where_it_does_not_answer():
            return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # of many kinds, and of as many libraries
        cause = error if isinstance(error, EntropyLibError) else error.__cause__ or error
        said = f"reference {source!r} cannot be read ({str(cause).splitlines()[0]})"
        raise InvalidInputError(f"{said}; restore its files, or name another") from error


def _dataset(rows: Sequence[Row]) -> "datasets.Dataset":
    """As a data set that `datasets` finds again: under all that the rows say."""
    with extra("metrics"):
        import datasets

    if not rows:
        raise InvalidInputError("it holds no images")
    whole, text = datasets.Value("int64"), datasets.Value("string")
    place = {"path": text, "name": text, "start": whole, "size": whole, "changed": whole}
    features = datasets.Features({"image": place, "caption": text})
    found = datasets.Dataset.from_generator(_each, features, gen_kwargs={"rows": rows})
    return found if any(row["caption"] is not None for row in rows) else found.remove_columns("caption")


def _each(rows: Sequence[Row]) -> Iterator[Row]:
    yield from rows


def open_reference(source: str) -> Reference | FeatureState | None:
    """A reference as a parameter names it: "" is none, relative paths start at `files.workplace()`.

    Raises:
        MissingFileError, InvalidInputError: as `load_reference` and `FeatureState.load`.
    """
    if not source:
        return None
    path = workplace() / source
    found = str(path) if path.exists() or "*" in source else source
    return FeatureState.load(found) if found.endswith(".safetensors") else load_reference(found)


def caption_list(source: str, count: int) -> list[str]:
    """The first different captions of half of the real images, to compare with the other half."""
    reference = open_reference(source)
    if not isinstance(reference, Reference):
        said = "prompts are to be those of the reference"
        raise InvalidInputError(f"{said}, but {source!r} has no captions; name a prompt list")
    captions = list(dict.fromkeys(reference.captions(reference.halves()[0])))
    if (there := len(captions)) < count:
        raise InvalidInputError(f"prompt_count is {count}, but half of {source!r} has {there} captions")
    return captions[:count]


def _existing(pattern: Path) -> list[Path]:
    """The file of this name, or those that match it as a pattern, without hidden ones."""
    if pattern.is_file():
        return [pattern]
    found = sorted(path for path in pattern.parent.glob(pattern.name) if not path.name.startswith("."))
    if not found:
        raise MissingFileError(f"no file matches {str(pattern)!r}; relative paths start at {workplace()}")
    return found


@cache
def _scenes(name: str, count: int) -> Reference:
    verify(sprites.PARQUET.parent, required=True)
    world, rows = {"scenes": scenes.FULL, "simple-scenes": scenes.SIMPLE}[name], []
    for one in (scenes.scene(number, "test", world) for number in range(count)):
        encoded = io.BytesIO()
        # BMP: without loss, and without the time that compression takes
        Image.fromarray(scenes.draw(one, scenes.SIZE, scenes.SIZE)).save(encoded, format="BMP")
        rows.append({"image": encoded.getvalue(), "caption": one.caption})
    return Reference(name, rows, "image", "caption")
