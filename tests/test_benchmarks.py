"""What writes `benchmarks/RESULTS.md`. The benchmarks themselves are run by `make bench`, never in a test."""

import datetime
import importlib.util
from types import SimpleNamespace

import pytest

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT


@pytest.fixture
def run(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmarks_run", ROOT / "benchmarks" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "RESULTS.md")
    return module


def printing(text, returncode=0):
    return lambda *_, **__: SimpleNamespace(returncode=returncode, stdout=text)


def test_every_benchmark_is_run_and_has_a_heading_of_its_own(run):
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"run"}
    assert set(run.SCRIPTS) == there
    assert len({run.heading(name) for name in there}) == len(there)


def test_sections_are_replaced_one_by_one(run, monkeypatch):
    monkeypatch.setattr(run.subprocess, "run", printing("first\n"))
    assert run.main(["attention", "generation"]) == 0
    monkeypatch.setattr(run.subprocess, "run", printing("\x1b[33m(raylet)\x1b[0m a worker died\nsecond\n"))
    assert run.main(["generation"]) == 0
    text = run.RESULTS.read_text(encoding="utf-8")
    found = run.sections(text)
    assert found["attention"].endswith("first\n")
    assert found["generation"].endswith("second\n")
    assert "raylet" not in text, "what a library prints for a terminal"
    assert "python benchmarks/generation.py" in found["generation"]
    assert str(datetime.datetime.now(datetime.UTC).year) in found["generation"]
    assert text.startswith("# Measured")


def test_one_that_fails_leaves_its_section_as_it_was(run, monkeypatch, capsys):
    monkeypatch.setattr(run.subprocess, "run", printing("first\n"))
    run.main(["attention"])
    monkeypatch.setattr(run.subprocess, "run", printing("", 1))
    assert run.main(["attention"]) == 1
    assert "first" in run.RESULTS.read_text(encoding="utf-8")
    assert "failed: attention" in capsys.readouterr().out


def test_an_unknown_benchmark_is_named(run):
    with pytest.raises(UnknownNameError, match="did you mean 'growth'"):
        run.main(["grwth"])
