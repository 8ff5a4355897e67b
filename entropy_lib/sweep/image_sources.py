"""What a folder or an archive of images holds: whatever they are named, none is left out.

A folder's files are all taken for images but hidden ones, tables of captions and what goes with images
(`BESIDE`). Captions stand in `metadata.csv`, `.jsonl` or `.parquet` (columns `file_name, caption`) in any
subfolder or, without such a table, in a `.txt` beside each image. An archive is a WebDataset: what is named
alike up to the first dot belongs together.
"""

import json
import os
import posixpath
import tarfile
import unicodedata
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError

CAPTION_COLUMNS = ("caption", "text", "txt", "captions")
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
BESIDE = {  # what may lie beside images
    ".txt", ".csv", ".json", ".jsonl", ".parquet", ".tsv", ".md", ".html", ".yaml", ".yml", ".db", ".ini",
    ".log",
}  # fmt: skip
# fields of images
ARCHIVED = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2", "avif"}

Row = dict[str, Any]


def _row(path: Path, name: str, start: int, size: int, facts: os.stat_result, caption: str | None) -> Row:
    """An image that lies in a file, `size` bytes from `start`, its name for messages, and its caption.

    With the time of the file's last change, so that what is known of an image is found out anew then.
    """
    place = {"path": str(path), "name": name, "start": start, "size": size, "changed": facts.st_mtime_ns}
    return {"image": place, "caption": caption}


def in_folder(folder: Path) -> list[Row]:
    """The images of a folder and its subfolders, by name."""
    files = list(_files(folder))
    tables = [path for path in files if path.name.lower() in TABLES]
    images = [path for path in files if path.suffix.lower() not in BESIDE]
    captions = _captions(folder, tables, images) if tables else {}
    rows = []
    for path in images:
        # a link may lead nowhere
        facts, beside = path.stat() if path.exists() else path.lstat(), path.with_suffix(".txt")
        if not tables and beside.is_file():
            captions[path] = beside.read_text(encoding="utf-8-sig")
        name, caption = str(path.relative_to(folder)), captions.get(path)
        rows.append(_row(path, name, 0, facts.st_size, facts, caption))
    return rows


def _files(folder: Path) -> Iterator[Path]:
    """All files but hidden ones; links to folders are followed, to each folder once."""

    def stop(error: OSError) -> None:
        raise error

    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        found = [] if real in seen else sorted(name for name in names if not name.startswith("."))
        seen.add(real)
        paths = (Path(place, name) for name in found)
        yield from (path for path in paths if path.is_file() or path.is_symlink())  # no pipes


def _captions(folder: Path, tables: Sequence[Path], images: Sequence[Path]) -> dict[Path, str | None]:
    """Of all tables; every row must name an image, and an image have one caption."""
    known, captions, absent = {_key(path): path for path in images}, {}, []
    for table in tables:
        for name, caption in _rows(table):
            spellings = (name.replace("\\", "/"), name)
            path = next(
                (known[key] for each in spellings if (key := _key(table.parent / each)) in known), None
            )
            if path is None:
                absent.append(name)
            elif captions.setdefault(path, caption) != caption:
                raise InvalidInputError(
                    f"{path.relative_to(folder)} has two captions: {captions[path]!r}, {caption!r}"
                )
    if absent:
        named = " and ".join(str(table.relative_to(folder)) for table in tables)
        raise InvalidInputError(f"{named}: {len(absent)} rows name images that are not there: {some(absent)}")
    return captions


def _key(path: Path) -> str:
    """One spelling of a path: some systems take letters with accents apart."""
    return unicodedata.normalize("NFC", posixpath.normpath(path.as_posix()))


def _rows(path: Path) -> Iterator[tuple[str, str | None]]:
    """File name and caption of each row; texts such as "NA" are texts."""
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        elif path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            # others of Unicode's line ends may be in a caption
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            table = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
    except Exception as error:  # of pandas, of pyarrow, of json
        raise InvalidInputError(f"{path.name} cannot be read ({error})") from error
    if "file_name" not in table:
        there = ", ".join(map(str, table.columns))
        raise InvalidInputError(f"{path.name} has columns {there}; it needs file_name and caption")
    captions = table.get(column(CAPTION_COLUMNS, table), [None] * len(table))
    return zip(map(str, table["file_name"]), map(first_text, captions), strict=True)


def column(names: Sequence[str], columns: Container[str]) -> str | None:
    """The first of the names that there is a column of."""
    return next((name for name in names if name in columns), None)


def first_text(caption: object) -> str | None:
    """A caption, the first where there are several; None for what is no text."""
    if isinstance(caption, str | bytes):
        return caption if isinstance(caption, str) else caption.decode(errors="replace")
    return first_text(caption[0]) if isinstance(caption, Sequence | np.ndarray) and len(caption) else None


def in_archive(path: Path) -> Iterator[Row]:
    """The samples of a WebDataset shard, an image each."""
    with tarfile.open(path, "r:") as archive, open(path, "rb") as file:
        samples: dict[str, dict[str, list[tarfile.TarInfo]]] = {}
        for member in archive:
            folder, name = posixpath.split(member.name)
            if member.isfile() and not name.startswith("."):
                sample, _, field = name.partition(".")
                fields = samples.setdefault(posixpath.join(folder, sample), {})
                fields.setdefault(field.lower(), []).append(member)
        file.seek(archive.offset)
        if any(rest := file.read()) or not rest:
            raise InvalidInputError(f"{path.name} was cut off, or is several archives in one file")
        for sample, fields in samples.items():
            yield _sample(path, file, sample, fields)


def _sample(path: Path, file: BinaryIO, sample: str, fields: dict[str, list[tarfile.TarInfo]]) -> Row:
    images = [member for field, members in fields.items() if field in ARCHIVED for member in members]
    if len(images) != 1:
        raise InvalidInputError(
            f"{sample!r} of {path.name} has {len(images)} images ({', '.join(fields)}); names are read up to "
            "their first dot, and each must have one image"
        )
    caption = None
    for member in next((fields[name] for name in CAPTION_COLUMNS if name in fields), [])[:1]:
        file.seek(member.offset_data)
        caption = file.read(member.size).decode("utf-8", errors="replace")
    return _row(path, images[0].name, images[0].offset_data, images[0].size, path.stat(), caption)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, for a message."""
    return ", ".join(map(repr, names[:most])) + (", …" if len(names) > most else "")
