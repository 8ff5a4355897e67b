"""What a store promises: whole files, checksums, and nothing lost."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from entropy_lib.sweep import store as module
from entropy_lib.sweep.plan import Unit
from entropy_lib.sweep.store import DamagedImageError, NotGeneratedError, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def unit(seed=0, **changes):
    values = {"method": "paper", "model": "mini", "revision": "1", "scheduler": "own", "steps": 2}
    return Unit("a zebra", seed, 16, 24, guidance=2.0, dtype="float32", **values | changes)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def test_what_is_committed_is_read_back_bit_for_bit(store):
    store.commit(unit(), image(), seconds=0.5)
    assert np.array_equal(store.read(unit()), image())
    assert store.committed() == {unit().key}
    record = store.record(unit())
    assert record["seconds"] == 0.5
    assert record["prompt"] == "a zebra"
    first = store.image_path(unit().key).read_bytes()
    store.commit(unit(), image())
    assert store.image_path(unit().key).read_bytes() == first, "to generate a unit twice is harmless"


def test_a_disk_that_writes_something_else_is_noticed(store, monkeypatch):
    """The checksum is that of what was to be written, not of what lies there."""
    write = module._write
    monkeypatch.setattr(
        module, "_write", lambda path, content: write(path, content.replace(b"IEND", b"IENE"))
    )
    store.commit(unit(), image())
    with pytest.raises(DamagedImageError):
        store.read(unit())


def test_an_image_without_a_record_does_not_exist(store):
    store.commit(unit(), image())
    store.record_path(unit().key).unlink()
    assert not store.has(unit())
    assert store.committed() == set()
    with pytest.raises(NotGeneratedError, match=r"'a zebra', 16x24, paper.* generate it first"):
        store.read(unit())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, os.remove], ids=lambda f: f.__name__)
def test_a_damaged_image_is_put_aside_and_counts_as_not_generated(store, damage):
    store.commit(unit(), image())
    damage(store.image_path(unit().key))
    said = r"(checksum|missing).* put aside in quarantine/, `sweep sample` generates it again"
    with pytest.raises(DamagedImageError, match=said):
        store.read(unit())
    assert not store.has(unit())
    assert list((store.folder / "quarantine").iterdir())
    store.commit(unit(), image())
    assert np.array_equal(store.read(unit()), image())


def test_an_unreadable_record_is_put_aside(store):
    store.commit(unit(), image())
    path, key = store.record_path(unit().key), unit().key
    content = path.read_text(encoding="utf-8")
    others = (content[: len(content) // 2], content.replace(key, unit(1).key))
    for damage in ("{", "[]", "", "null", "{}", *others):
        path.write_text(damage, encoding="utf-8")
        said = rf"unreadable record, records.{key[:2]}.{key}\.json"
        with pytest.raises(DamagedImageError, match=said):
            store.record(unit())
        assert not store.has(unit())
    path.write_bytes(b"\xff\xfe")
    assert store.records([unit()]) == {unit(): {"excluded": "damaged"}}


def test_verify_names_what_is_damaged_and_nothing_else(store):
    for seed in range(3):
        store.commit(unit(seed), image(seed))
    flip(store.image_path(unit(1).key))
    problems = store.verify([unit(seed) for seed in range(4)])
    assert len(problems) == 1
    assert unit(1).key[:12] in problems[0]
    assert store.committed() == {unit(0).key, unit(2).key}


def test_an_excluded_unit_is_done_and_has_no_image(store):
    store.exclude(unit(), "not finite")
    assert store.has(unit())
    with pytest.raises(NotGeneratedError, match="excluded: not finite"):
        store.read(unit())


@pytest.mark.parametrize(
    "wrong", [np.zeros((24, 16, 3), np.uint8), np.zeros((16, 24, 3)), np.zeros((16, 24), np.uint8)]
)
def test_an_image_of_another_size_or_type_is_refused(store, wrong):
    with pytest.raises(ValueError, match=r"the unit asks for uint8 \(16, 24, 3\)"):
        store.commit(unit(), wrong)
    assert store.committed() == set()


def test_a_full_disk_is_said_and_loses_nothing(store, monkeypatch):
    store.commit(unit(0), image())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; make room .*What was finished before stays"):
        store.commit(unit(1), image())
    monkeypatch.undo()
    assert store.committed() == {unit(0).key}
    assert not list(store.folder.rglob(".*tmp*"))
    store.commit(unit(1), image())
    assert len(store.committed()) == 2


def test_a_kill_in_the_middle_of_a_write_leaves_a_temporary_file_that_is_cleaned_later(store):
    code = f"""
import os, signal, numpy as np
from entropy_lib.sweep import store as module
from test_store import unit, image
module.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
module.Store({str(store.folder)!r}).commit(unit(), image())
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent).returncode == -9
    (leftover,) = store.folder.rglob(".*.tmp.*")
    assert store.committed() == set()
    assert store.clean() == 0, "a writer may still live, on whichever machine"
    os.utime(leftover, (time.time() - 2 * module.STALE,) * 2)
    assert store.clean() == 1
    assert not list(store.folder.rglob("*.png"))


def test_records_are_what_they_were(store):
    """Stores of older releases are read, and theirs read this one's: a method is a `rule` there."""
    store.commit(unit(version=0), image())
    of_units = ["prompt", "seed", "height", "width", "rule", "model", "revision", "scheduler", "steps"]
    of_units += ["guidance", "dtype", "drawing", "calibration"]
    record = json.loads(store.record_path(unit(version=0).key).read_text(encoding="utf-8"))
    assert set(record) == {*of_units, "key", "host", "sha256", "bytes"}
    assert (record["rule"], record["drawing"]) == ("paper", 0)
    assert not store.has(unit()), "of another generation version"
