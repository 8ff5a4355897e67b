"""SHA256SUMS: what a folder of weights must hold, checked at every load."""

import re
from pathlib import Path

from entropy_lib.errors import WeightsError
from entropy_lib.files import replacing, restore_command, sha256

CHECKSUMS = "SHA256SUMS"
MEASURED = "quality.json"  # is written after the weights, by measuring them


def verify(folder: Path, *, required: bool = False) -> None:
    """Compare the files of a model folder with its SHA256SUMS.

    Args:
        folder: of the model.
        required: whether SHA256SUMS must be there. A folder of the user's own may do without, and is then not
            checked.
    """
    sums = folder / CHECKSUMS
    if not sums.is_file() and not required:
        return
    for expected, path in _listed(sums):
        problem = "is missing" if not path.is_file() else "is damaged" if sha256(path) != expected else None
        if problem:
            raise _harmed(path, folder, problem)


def _listed(sums: Path) -> list[tuple[str, Path]]:
    """The checksum and the path of every file that SHA256SUMS names."""
    if not sums.is_file():
        raise _harmed(sums, sums.parent, "is missing")
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line) for line in lines]
    if not found or None in found:
        raise _harmed(sums, sums.parent, "is damaged")
    return [(match[1], sums.parent / match[2]) for match in found]


def _harmed(path: Path, folder: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{path.name} of the model in {folder.name!r} {problem}: restore it with "
        f"`{restore_command(folder.name)}`"
    )


def write_checksums(folder: Path) -> None:
    """SHA256SUMS of everything that a user loads; weights are made readable by all."""
    loaded = {".safetensors", ".json", ".txt"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in loaded and path.name != MEASURED)
    for path in files:
        path.chmod(0o644)
    with replacing(folder / CHECKSUMS) as temporary:
        lines = (f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
        temporary.write_text("".join(lines), encoding="utf-8")
