"""Folders that cannot be written to and disks that are full: one sentence, before any work where it can be
known.
"""

import errno
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from entropy_lib.cli import results, runner, site
from entropy_lib.errors import EntropyLibError, NotWrittenError
from entropy_lib.files import WORKPLACE, disk_words, replacing
from entropy_lib.metrics.extractors import extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.state import FeatureState
from entropy_lib.scaling.calibration import SHIPPED, Calibration
from entropy_lib.sweep import engines
from entropy_lib.sweep.plan import Unit
from entropy_lib.sweep.store import Store

PLACES = {  # {the kind of place: where it is, what is said of it}
    "below a file": ("HERE/afile/below", "Not a directory"),
    "a file": ("HERE/afile", "Not a directory"),
    "too long": (f"HERE/{'long' * 80}", "too long"),
    "too long, below nothing": (f"HERE/nothing/{'long' * 80}", "too long"),
    "no real folder": ("/proc/entropy_lib", "No such file or directory"),
    "a link to nowhere": ("HERE/dangling", "No such file or directory"),
}
COMMANDS = {  # {whose value the place is: the command}
    "store": ["sweep plan --no-measure -p store=PLACE", "run 06_metric_tables -p store=PLACE"],
    "store of a study": ["study make --output HERE/study -p store=PLACE"],
    "output": ["sweep reduce -p output=PLACE", "run 05_image_grids -p output=PLACE"],
    "--output": [
        "run 05_image_grids --output PLACE",
        "site --output PLACE",
        "study make --output PLACE",
        "calibrate mini --output PLACE/own.json",
    ],
}
CASES = [("store", "sweep sample -p store=PLACE", kind) for kind in PLACES]
CASES += [(name, text, "below a file") for name, texts in COMMANDS.items() for text in texts]
CASES += [("--output", text, "too long, below nothing") for text in COMMANDS["--output"]]


@contextmanager
def largest_file(size):
    """The kernel refuses to write any file beyond so many bytes, as a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workplace in which no work can begin."""
    (tmp_path / "afile").write_bytes(b"kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv(WORKPLACE, str(tmp_path))

    def fail(*_, **__):
        pytest.fail("work was begun")

    monkeypatch.setattr(runner, "_execute_all", fail)
    monkeypatch.setattr(engines, "local", fail)
    monkeypatch.setitem(engines.ENGINES, "local", fail)
    monkeypatch.setattr(site, "write_report", fail)
    monkeypatch.setattr("entropy_lib.models.catalogue.load", fail)
    return tmp_path


@pytest.fixture
def refused(here, command):
    """What a command says that ends in one line and leaves everything as it was."""

    def run(text, place=""):
        before = sorted(here.rglob("*"))
        words = [word.replace("PLACE", place).replace("HERE", str(here)) for word in text.split()]
        own = [] if words[0] in ("site", "calibrate", "results") else ["--profile", "smoke"]
        ended = command(*words, *own)
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1, ended.err
        assert sorted(here.rglob("*")) == before, "neither files nor empty folders"
        return ended.err

    return run


@pytest.mark.parametrize(("name", "text", "kind"), CASES)
def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(refused, name, text, kind):
    place, reason = PLACES[kind]
    said = refused(text, place)
    assert name.split()[0] in said
    assert reason in said or "cannot be a folder" in said


def test_a_disk_that_is_nearly_full_is_refused_before_any_work(here, refused):
    with largest_file(4096):
        assert "which cannot be written to" in refused("site --output PLACE", f"{here}/new/folder")


def test_readme_is_checked_before_tables_are_kept(here, command, monkeypatch):
    monkeypatch.setattr(results, "keep", lambda *_: pytest.fail("tables were copied"))
    with largest_file(4096):
        ended = command("results", "--keep", "smoke")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "cannot be written to" in ended.err


def test_a_disk_that_fills_on_the_way_ends_in_a_line(here, command, monkeypatch):
    """Wherever it happens, with whatever wrote."""
    monkeypatch.setattr(site, "write_report", lambda place: (here / "afile" / "page.html").write_text(""))
    ended = command("site", "--output", str(here / "report"))
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert f"{here}/afile/page.html cannot be used: Not a directory" in ended.err


def written(path):
    with replacing(path) as temporary:
        temporary.write_text("x" * 9000)


UNIT = Unit("a zebra", 0, 64, 64, "paper", "mini", "1234", "own", 2, 2.0, "float32")
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
WRITERS = {
    "text": lambda place: written(place / "a.txt"),
    "image": lambda place: Store(place).commit(UNIT, NOISE),
    "calibration": lambda place: Calibration.read(SHIPPED / "mini.json").write(place / "own.json"),
    "features": lambda place: FeatureCache(place, extractor("mini-clip"))._save(["a"], torch.zeros(1, 9000)),
    "state": lambda place: FeatureState.of(torch.randn(99, 90)).save(place / "state.safetensors"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_whole_is_named_and_leaves_nothing_behind(tmp_path, kind):
    with (
        largest_file(4096),
        pytest.raises(NotWrittenError, match=rf"{tmp_path}\S* cannot be used: .*; make room or name another"),
    ):
        WRITERS[kind](tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_earlier_file_stays(tmp_path):
    (tmp_path / "a.txt").write_text("earlier")
    with largest_file(4096), pytest.raises(NotWrittenError):
        written(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "earlier"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_every_refusal_of_a_disk_has_its_words(number):
    with pytest.raises(EntropyLibError, match=r"^/a/b cannot be used: ") as said, disk_words():
        raise OSError(number, "as the system says", "/a/b")
    assert "Errno" not in str(said.value)
    assert "as the system says" not in str(said.value)


def test_other_errors_of_the_system_stay_what_they_are():
    with pytest.raises(BrokenPipeError), disk_words():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_another_file_that_cannot_be_read_is_not_blamed_on_the_one_that_iswritten(tmp_path):
    (tmp_path / "afile").write_text("")
    with (
        pytest.raises(NotWrittenError, match=r"afile/source\.csv cannot be used"),
        replacing(tmp_path / "copy.csv") as temporary,
    ):
        shutil.copyfile(tmp_path / "afile" / "source.csv", temporary)
