"""Where images lie: one PNG and one commit record for each unit, named by its key.

    images/1e/<key>.png      written under a temporary name, then renamed
    records/1e/<key>.json    the same, after the image; without a record no reader knows an image
    quarantine/              what failed its checksum, with its record
    calibrations/            of users, named by their digests

Whatever moment a process is killed at, each file is whole or absent. Generating a unit twice is harmless: the
second result replaces the first. Readers verify the checksum of every image; a damaged one is put aside and
counts as not generated.

Example:
    >>> import numpy as np, tempfile
    >>> from entropy_lib.sweep.plan import Unit
    >>> unit = Unit("a zebra", 0, 8, 16, "paper", "mini", "1234", "own", 20, 2.0, "float32")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder)
    ...     store.commit(unit, np.zeros((8, 16, 3), np.uint8), seconds=0.5)
    ...     store.read(unit).shape, store.committed() == {unit.key}
    ((8, 16, 3), True)
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from entropy_lib.errors import EntropyLibError, InvalidInputError
from entropy_lib.files import HOST, replacing, sha256
from entropy_lib.metrics.picture_files import read_picture
from entropy_lib.scaling.calibration import Calibration
from entropy_lib.sweep.plan import Unit

Pixels = UInt8[np.ndarray, "height width 3"]
STALE = 3600.0  # seconds after which a temporary file has no writer any more, on whichever machine


class DamagedImageError(EntropyLibError, RuntimeError):
    """An image that is missing or is not the one that was committed; it has been put aside."""


class NotGeneratedError(EntropyLibError, LookupError):
    """An image that was never generated, or was and is excluded."""


class Store:
    """A folder of committed images.

    Args:
        folder: made if need be. Many processes may write to it at once; it must be one file system.

    Raises:
        InvalidInputError: if it is a file.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInputError(f"store is {str(folder)!r}, which is a file; name a folder, new or old")

    def image_path(self, key: str) -> Path:
        """Where the image of a key is or will be."""
        return self.folder / "images" / key[:2] / f"{key}.png"

    def record_path(self, key: str) -> Path:
        """Where its commit record is or will be."""
        return self.folder / "records" / key[:2] / f"{key}.json"

    def commit(self, unit: Unit, image: Pixels, **facts: object) -> None:
        """Write an image and then its record.

        Args:
            unit: what the image shows.
            image: uint8, of the unit's size.
            facts: anything else to remember, e.g. `seconds=1.5`.

        Raises:
            InvalidInputError: for an image of another size or type.
            NotWrittenError: when the disk is full or cannot be written; everything committed before stays.
        """
        if image.dtype != np.uint8 or image.shape != (unit.height, unit.width, 3):
            asked = (unit.height, unit.width, 3)
            raise InvalidInputError(f"image is {image.dtype} {image.shape}; the unit asks for uint8 {asked}")
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, format="PNG", compress_level=4)
        content = encoded.getvalue()
        _write(self.image_path(unit.key), content)
        # of what was to be written, so that a disk that wrote something else is noticed
        checksum = hashlib.sha256(content).hexdigest()
        self._record(unit, sha256=checksum, bytes=len(content), **facts)

    def exclude(self, unit: Unit, reason: str, **facts: object) -> None:
        """Record that a unit has no usable image, and why. It is not generated again."""
        self._record(unit, excluded=reason, **facts)

    def keep_calibration(self, calibration: Calibration) -> str:
        """Keep a calibration beside its images; returns its digest, by which units name it."""
        calibration.write(self._calibration_path(calibration.digest))
        return calibration.digest

    def calibration(self, digest: str) -> Calibration:
        """A calibration that was kept.

        Raises:
            MissingFileError: if it was not, or was taken away.
            InvalidInputError: if it is not what was kept.
        """
        found = Calibration.read(self._calibration_path(digest))
        if found.digest != digest:
            path = self._calibration_path(digest)
            raise InvalidInputError(f"{path} was changed after it was kept; remove it and plan again")
        return found

    def _calibration_path(self, digest: str) -> Path:
        return self.folder / "calibrations" / f"{digest}.json"

    def _record(self, unit: Unit, **facts: object) -> None:
        content = unit.content | {"key": unit.key, "host": HOST} | facts
        _write(self.record_path(unit.key), json.dumps(content, ensure_ascii=False, sort_keys=True).encode())

    def has(self, unit: Unit) -> bool:
        """Whether a unit is done: committed, or excluded."""
        return self.record_path(unit.key).exists()

    def committed(self) -> set[str]:
        """Keys of everything that is done."""
        written = (self.folder / "records").glob("??/*.json")
        # without those that are being written
        return {path.stem for path in written if not path.name.startswith(".")}

    def record(self, unit: Unit) -> dict:
        """The commit record of a unit.

        Raises:
            NotGeneratedError: if it has none.
            DamagedImageError: if it cannot be read; the unit counts as not generated from then on.
        """
        path = self.record_path(unit.key)
        if not path.exists():
            raise NotGeneratedError(f"{_named(unit)} is not in {self.folder.name}; generate it first")
        try:
            record = json.loads(path.read_bytes())
            known = isinstance(record, dict) and record.get("key") == unit.key
            if not known or not {"sha256", "excluded"} & set(record):
                raise InvalidInputError("it is not the commit record of this image")
            return record
        except ValueError as error:
            problem = f"has an unreadable record, {path.relative_to(self.folder)} ({error})"
            raise self._quarantined(unit.key, problem) from None

    def records(self, units: Iterable[Unit]) -> dict[Unit, dict]:
        """The commit record of each unit; for none, or a damaged one, it is `{"excluded": why}`."""
        found = {}
        for unit in units:
            try:
                found[unit] = self.record(unit)
            except NotGeneratedError:
                found[unit] = {"excluded": "not generated"}
            except DamagedImageError:
                found[unit] = {"excluded": "damaged"}
        return found

    def read(self, unit: Unit) -> Pixels:
        """The image of a unit, verified against its record.

        Raises:
            NotGeneratedError: if it was not generated, or was excluded.
            DamagedImageError: if it is missing or its bytes changed; it counts as not generated from then on.
        """
        record, path = self.record(unit), self.image_path(unit.key)
        if "excluded" in record:
            raise NotGeneratedError(f"{_named(unit)} was excluded: {record['excluded']}")
        if not path.exists():
            raise self._quarantined(unit.key, "is missing")
        if sha256(path) != record["sha256"]:
            raise self._quarantined(unit.key, "is not what was committed (checksum)")
        return read_picture(path.read_bytes())

    def verify(self, units: Iterable[Unit]) -> list[str]:
        """Read every image that is done, put damaged ones aside, and say which they were."""
        problems = []
        for unit in units:
            try:
                with suppress(NotGeneratedError):
                    self.read(unit)
            except DamagedImageError as error:
                problems.append(str(error))
        return problems

    def _quarantined(self, key: str, problem: str) -> DamagedImageError:
        """Put a damaged image aside; the record goes first, so that no reader trusts what is left."""
        aside = self.folder / "quarantine"
        aside.mkdir(parents=True, exist_ok=True)
        for path in (self.record_path(key), self.image_path(key)):
            if path.exists():
                os.replace(path, aside / f"{time.time_ns()}-{path.name}")
        advice = f"put aside in {aside.name}/, `sweep sample` generates it again"
        return DamagedImageError(f"image {key[:12]} {problem}; {advice}")

    def clean(self) -> int:
        """Remove temporary files whose writers must be gone; returns how many."""
        left = [path for path in self.folder.glob("*/??/.*.tmp.*") if _age(path) > STALE]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def _named(unit: Unit) -> str:
    return f"{unit.key[:12]} ({unit.prompt!r}, {unit.size}, {unit.method})"


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk before it bears its name."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _age(temporary: Path) -> float:
    """Seconds since a file was written to; none for one that has got its name meanwhile."""
    try:
        return time.time() - temporary.stat().st_mtime
    except FileNotFoundError:
        return 0.0
