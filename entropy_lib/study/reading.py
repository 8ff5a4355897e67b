"""From the files that raters sent to their answers: JSON in UTF-8, saved or copied from the page.

Anything else is refused with its reason. Nothing that lies in a folder is passed over.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entropy_lib.errors import InvalidInputError, MissingFileError

LARGEST = 4 * 2**20  # bytes; the answers of a rater take some ten thousand
ADVICE = "ask for the file that the page saves, or put the text that it shows, from { to }, into a file"

Contents = Mapping[str, Any]  # of files by their names


class Refused(str):
    """Why there are no answers in a file, or none that can be read."""


def read_answers(place: Path | str) -> Contents:
    """What raters sent: {name of the file: its content, or `Refused` where it cannot be read}.

    Args:
        place: a folder, of which all files are read, those of the folders within it too; or one file.

    Raises:
        MissingFileError: for a folder or file that is not there.
        InvalidInputError: for a folder without files, or one that cannot be looked into.
    """
    place = Path(place).absolute()
    if not place.exists():
        raise MissingFileError(f"no answers at {place}; give the folder of the raters' files")
    folder, found = (place, list(_files(place))) if place.is_dir() else (place.parent, [place])
    if not found:
        raise InvalidInputError(f"no answers in {place}; the files that raters save end in .json")
    names = (str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode() for path in found)
    return {name: _content(path) for name, path in zip(names, found, strict=True)}


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def _unreadable(error: OSError) -> None:
    raise InvalidInputError(f"{error.filename} cannot be looked into: {error.strerror}") from error


def _content(path: Path) -> Any:
    """What stands in a file, or `Refused`."""
    try:
        if not path.is_file():
            return Refused("no file but a link to nothing, or a device")
        if path.stat().st_size > LARGEST:
            return Refused(f"too large for answers: {path.stat().st_size:,} bytes")
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        return Refused(f"cannot be read: {error.strerror}")
    except RecursionError:
        return Refused("nested too deeply")
    except ValueError as error:  # of the encoding, or of JSON
        return Refused(f"not JSON in UTF-8 ({error}); {ADVICE}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return content
