"""SHA256SUMS: what a folder of weights must hold, checked at every load."""

from pathlib import Path

from entropy_lib.errors import WeightsError
from entropy_lib.files import replacing, sha256

CHECKSUMS = "SHA256SUMS"
MEASURED = "quality.json"  # is written after the weights, by measuring them


def verify(folder: Path) -> None:
    """Compare the files of a model folder with its SHA256SUMS, where it has one.

    Raises:
        WeightsError: naming the first file that is missing or differs.
    """
    sums = folder / CHECKSUMS
    if not sums.exists():
        return
    for line in sums.read_text().splitlines():
        expected, name = line.split(maxsplit=1)
        path = folder / name
        problem = "is missing" if not path.exists() else "is damaged" if sha256(path) != expected else None
        if problem:
            raise WeightsError(
                f"{path.name} of the model in {folder.name!r} {problem}: restore it with `git checkout -- data/{folder.name}`"
            )


def write_checksums(folder: Path) -> None:
    """SHA256SUMS of everything that a user loads; weights are made readable by all."""
    loaded = {".safetensors", ".json", ".txt"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in loaded and path.name != MEASURED)
    for path in files:
        path.chmod(0o644)
    with replacing(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files))
