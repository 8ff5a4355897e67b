"""Real pictures to compare with, and captions to draw: from the shipped data, a folder, parquet, WebDataset or the Hub.

    scenes                   2,000 test scenes, of the kind that the embedded model was trained on, and never seen by it;
                             scenes:300 the first 300 of them
    path/to/folder           pictures, captions in metadata.csv or metadata.jsonl (Hugging Face's image folder)
    path/to/*.parquet        a column of pictures and one of captions
    path/to/*.tar            WebDataset shards
    hub:owner/name:split     a data set of the Hugging Face Hub; split "train" where none is named
    path/to/file.safetensors a state written by `FeatureState.save`: enough for a Fréchet distance, and nothing else

Real data sets are JPEG more often than not; that is said, not refused. What cannot be decoded is left out and counted.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.errors import InvalidInputError, MissingFileError, extra
from entropy_lib.files import workplace
from entropy_lib.metrics.state import FeatureState
from entropy_lib.models.checksums import verify
from entropy_lib.models.hub import offline_where_it_does_not_answer

if TYPE_CHECKING:
    import datasets  # comes with an extra

LOSSY = ("JPEG", "WEBP")
CAPTION_COLUMNS = ("caption", "text", "txt", "captions")
PICTURE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp")
SEED = 0  # of the split into halves
LEAST = 6  # pictures
SCENES = 2000  # pictures of the reference that is drawn here
UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)  # what Pillow says of broken files


class DamagedReferenceWarning(UserWarning):
    """Pictures of a reference that could not be decoded and were left out."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures in a fixed order, read one at a time.

    Attributes:
        name: what it was made from.
        rows: an indexable table whose rows hold the encoded picture and perhaps a caption.
        picture, caption: their columns; no caption column is None.
    """

    name: str
    rows: Sequence[Mapping]
    picture: str
    caption: str | None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """A picture, transparency on white.

        Raises:
            OSError: if it is truncated or no picture.
        """
        with Image.open(io.BytesIO(_encoded(self.rows[index][self.picture]))) as file:
            file.load()
            if file.mode in ("RGBA", "LA", "P"):
                whole = file.convert("RGBA")
                file = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
            return np.asarray(file.convert("RGB"))

    @cached_property
    def survey(self) -> pd.DataFrame:
        """Every picture decoded once: columns `digest, height, width, format`, indexed as `rows` are.

        Pictures that cannot be decoded are not in it; repeated ones once. Of a data set it is kept in the cache of `datasets`.

        Raises:
            InvalidInputError: if fewer than six can be decoded: three for captions and floor, three to compare with.

        Warns:
            DamagedReferenceWarning: saying how many were left out.
        """
        if hasattr(self.rows, "map"):
            options = {"input_columns": [self.picture], "remove_columns": self.rows.column_names, "desc": f"reading {self.name}"}
            whole = self.rows.map(_facts, **options).to_pandas()
        else:
            whole = pd.DataFrame([_facts(row[self.picture]) for row in self.rows], columns=FACTS)
        decoded = whole[whole["format"] != ""].drop_duplicates("digest")
        damaged = f"{(whole['format'] == '').sum()} of {len(whole)} pictures of {self.name} cannot be decoded"
        if len(decoded) < LEAST:
            raise InvalidInputError(
                f"{self.name} holds {len(decoded)} different pictures ({damaged}); a reference needs {LEAST} at least, half of "
                "them to compare with. Name another reference, or restore its files"
            )
        if (whole["format"] == "").any():
            warnings.warn(f"{damaged} and were left out", DamagedReferenceWarning, stacklevel=2)
        return decoded

    @property
    def keys(self) -> dict[str, int]:
        """{sha256 of the encoded picture: its index}."""
        return dict(zip(self.survey.digest, self.survey.index, strict=True))

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The captions of some pictures, the first where a picture has several.

        Raises:
            InvalidInputError: if captions are missing, saying how many.
        """
        if self.caption is None:
            raise InvalidInputError(f"{self.name} has no captions (no column {', '.join(CAPTION_COLUMNS)}); name a prompt list")
        values = [self.rows[index][self.caption] for index in indices]
        texts = [value[0] if isinstance(value, list | tuple) and value else value for value in values]
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in texts]
        if missing := sum(not isinstance(text, str) or not text.strip() for text in texts):
            raise InvalidInputError(
                f"{missing} of {len(texts)} captions of {self.name} are missing; caption those pictures, or leave them out"
            )
        return [text.strip() for text in texts]

    def halves(self) -> tuple[list[int], list[int]]:
        """Indices of two halves that share no picture, in random order, the same every time: the first few are a fair sample.

        The first gives captions and the floor of real pictures, the second is what all are compared with: no picture is ever
        compared with itself.
        """
        order = np.random.default_rng(SEED).permutation(np.array(self.survey.index))
        return order[: len(order) // 2].tolist(), order[len(order) // 2 :].tolist()

    def summary(self) -> str:
        """One line: how many pictures, of what sizes and formats."""
        sizes = set(self.survey[["height", "width"]].itertuples(index=False, name=None))
        shortest, longest, formats = min(sizes), max(sizes), set(self.survey["format"])
        size = f"{shortest[0]}x{shortest[1]}" + ("" if len(sizes) == 1 else f" to {longest[0]}x{longest[1]}, {len(sizes)} sizes")
        return f"{self.name}: {len(self.survey):,} pictures of {size}, {' and '.join(sorted(formats))}"

    def check_size(self, side: int) -> None:
        """Raise InvalidInputError if pictures are smaller than what the extractor reads: enlarging the reference would blur it."""
        small = int((self.survey[["height", "width"]].min(axis=1) < side).sum())
        if small:
            raise InvalidInputError(
                f"{small} of {len(self.survey)} pictures of {self.name} have a side below the {side} px that the extractor reads: "
                "they would be enlarged, and samples compared with blurred pictures. Leave them out"
            )


FACTS = ("digest", "height", "width", "format")


def _facts(value: object) -> dict:
    """What a comparison needs to know of an encoded picture; its format is empty where it cannot be decoded."""
    try:
        encoded = _encoded(value)
        with Image.open(io.BytesIO(encoded)) as file:
            file.load()
            return dict(zip(FACTS, (hashlib.sha256(encoded).hexdigest(), *file.size[::-1], file.format or "unknown"), strict=True))
    except UNREADABLE:
        return dict(zip(FACTS, ("", 0, 0, ""), strict=True))


def _encoded(value: object) -> bytes:
    """The file of a picture."""
    if isinstance(value, Mapping):  # how `datasets` gives an image that it was told not to decode
        value = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
    return value


def load_reference(source: str) -> Reference:
    """Open a reference; nothing is decoded yet. See the module's text for what `source` may be.

    Raises:
        MissingFileError: for a path that is not there.
        InvalidInputError: for a source of another kind, or one without a column of pictures.
    """
    if match := re.fullmatch(r"scenes(?::([0-9]{1,6}))?", source):
        return _scenes(int(match[1] or SCENES))
    arguments = _data_set(source)
    with extra("metrics"):
        import datasets

    try:
        with offline_where_it_does_not_answer() if source.startswith("hub:") else nullcontext():
            rows = datasets.load_dataset(**arguments)
    except Exception as error:  # of many kinds, and of as many libraries
        cause = str(error.__cause__ or error).splitlines()[0]
        raise InvalidInputError(f"reference {source!r} cannot be read ({cause}); restore its files, or name another") from error
    return _of_dataset(source, rows)


def _data_set(source: str) -> dict[str, str]:
    """Arguments of `datasets.load_dataset` for a source that is there."""
    path = Path(source)
    if path.is_dir():
        return {"path": "imagefolder", "data_dir": source, "split": "train"}
    if path.suffix in (".parquet", ".tar"):
        kind = "parquet" if path.suffix == ".parquet" else "webdataset"
        return {"path": kind, "data_files": _existing(source), "split": "train"}
    if source.startswith("hub:"):
        name, _, split = source.removeprefix("hub:").partition(":")
        return {"path": name, "split": split or "train"}
    raise InvalidInputError(
        f"reference {source!r} is not there: it may be 'scenes', 'scenes:300', a folder of pictures, a .parquet, a .tar, a state "
        f"(.safetensors), or hub:owner/name[:split]; relative paths are taken from {workplace()}"
    )


def open_reference(source: str) -> Reference | FeatureState | None:
    """A reference as a notebook parameter names it: "" is none, relative paths are taken from `files.workplace()`.

    Raises:
        MissingFileError, InvalidInputError: as `load_reference` and `FeatureState.load`.
    """
    if not source:
        return None
    path = workplace() / source
    found = str(path) if path.exists() or "*" in source else source
    return FeatureState.load(found) if found.endswith(".safetensors") else load_reference(found)


def caption_list(source: str, count: int) -> list[str]:
    """The first `count` different captions of half of the real pictures: prompts for pictures to compare with the other half.

    Raises:
        InvalidInputError: for a reference without captions, or with fewer.
        MissingFileError: as `open_reference`.
    """
    reference = open_reference(source)
    if not isinstance(reference, Reference):
        raise InvalidInputError(f"prompts are to be those of the reference, but {source!r} has no captions; name a prompt list")
    captions = list(dict.fromkeys(reference.captions(reference.halves()[0])))
    if len(captions) < count:
        raise InvalidInputError(f"prompt_count is {count}, but half of {source!r} has {len(captions)} captions")
    return captions[:count]


def _of_dataset(source: str, rows: "datasets.Dataset") -> Reference:
    with extra("metrics"):
        import datasets
    picture = next((name for name in PICTURE_COLUMNS if name in rows.column_names), None)
    if picture is None:
        raise InvalidInputError(
            f"{source} has columns {', '.join(rows.column_names)}; one of {', '.join(PICTURE_COLUMNS)} must hold pictures"
        )
    if isinstance(rows.features[picture], datasets.Image):
        rows = rows.cast_column(picture, datasets.Image(decode=False))
    return Reference(Path(source).name, rows, picture, next((name for name in CAPTION_COLUMNS if name in rows.column_names), None))


def _existing(pattern: str) -> str:
    """The pattern, if any file matches it."""
    folder, name = Path(pattern).parent, Path(pattern).name
    if not any(folder.glob(name)):
        raise MissingFileError(f"no file matches {pattern!r}; relative paths are taken from {workplace()}")
    return pattern


@cache
def _scenes(count: int) -> Reference:
    from entropy_lib.mini import scenes, sprites

    verify(sprites.PARQUET.parent, required=True)
    drawn = [scenes.scene(number, "test") for number in range(count)]
    rows = [{"image": _bitmap(scenes.draw(one, scenes.SIZE, scenes.SIZE)), "caption": one.caption} for one in drawn]
    return Reference("scenes", rows, "image", "caption")


def _bitmap(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A picture as a file, without loss and without the time that compression takes."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="BMP")
    return encoded.getvalue()
