"""What decides the results of a notebook, in one checksum: when it changes, the notebook has to run again.

Nothing is listed by hand: every file of the library and of `data/` counts, every installed package, and every
file that a parameter names. A notebook may so run once too often, and never once too seldom.
"""

import glob
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from entropy_lib.cli.parameters import Parameters
from entropy_lib.errors import WeightsError, extra
from entropy_lib.files import DATA, PACKAGE, sha256, workplace
from entropy_lib.models.catalogue import resolve_device, revision

with extra("notebooks"):
    import nbformat

WRITTEN = {"output", "store"}  # parameters that name what a notebook writes
LARGE = 2**28  # bytes; of more real images than that, sizes and times are looked at


def fingerprint(notebook: Path, checked: Parameters) -> str:
    """sha256 of everything that decides what a notebook computes and shows, as 64 hexadecimal digits.

    Its cells, its parameters and the files that these name, the weights, the library, the shipped data, the
    versions of packages, and the kind of device.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    given = checked.model_dump()
    facts = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells],
        given,
        [_state(text) for name in sorted(given.keys() - WRITTEN) for text in _texts(given[name])],
        [_revision(name) for name in _texts([given.get("model"), given.get("controls")])],
        [_state(PACKAGE), _state(DATA), versions(), sys.version, resolve_device("auto").type],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of all packages that are installed."""
    described = [package.metadata for package in metadata.distributions()]
    # the first of a name is imported
    return {package["Name"]: package["Version"] for package in reversed(described)}


def _texts(value: Any) -> Iterator[str]:
    """All texts in the value of a parameter, but empty ones."""
    if isinstance(value, str) and value:
        yield value
    for each in value if isinstance(value, list) else []:
        yield from _texts(each)


def _revision(model: str) -> str:
    try:
        return revision(model)
    except WeightsError:  # not there yet
        return "unknown"


def _state(place: Path | str) -> str:
    """Of a file, a folder, or all that a pattern matches, from the workplace; "" where there is nothing."""
    whole = str(workplace() / place)
    found = {Path(path) for pattern in (glob.escape(whole), whole) for path in glob.glob(pattern)}
    inside = [path for top in found for path in (top.rglob("*") if top.is_dir() else [top])]
    files = sorted(path for path in inside if path.is_file() and path.parent.name != "__pycache__")
    facts = [(str(path), (state := path.stat()).st_size, state.st_mtime_ns) for path in files]
    return _digest(tuple(facts)) if facts else ""


@cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    read = sum(size for _, size, _ in files) <= LARGE
    states = [(path, sha256(path) if read else f"{size} bytes, {time}") for path, size, time in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()
