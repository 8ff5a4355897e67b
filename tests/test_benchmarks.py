"""What writes `benchmarks/RESULTS.md`. The benchmarks themselves are run by `make bench`, never in a test."""

import datetime
import importlib.util
from types import SimpleNamespace

import pytest
import torch

import entropy_lib as el
from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT
from entropy_lib.sampling.costs import CLEAR


def benchmark(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, tmp_path):
    module = benchmark("run")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "RESULTS.md")
    return module


def printing(text, returncode=0):
    return lambda *_, **__: SimpleNamespace(returncode=returncode, stdout=text)


def test_every_benchmark_is_run_and_has_a_heading_of_its_own(run):
    # writes a page of its own
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"run", "networks"}
    assert set(run.SCRIPTS) == there
    assert len({run.heading(name) for name in there}) == len(there)


@pytest.mark.skipif(not CLEAR.exists(), reason="this system does not let a peak begin anew")
@pytest.mark.parametrize("way", ["attention_entropy", "forming the map"])
def test_memory_of_attention_is_seen_below_an_earlier_peak(way):
    """Importing torch takes more for a moment than a small attention does: 0 MB were printed."""
    attention, tokens = benchmark("attention"), 2048
    torch.ones(200 << 18)  # 200 MB, given back at once
    one_map = tokens**2 * 4 / 2**20
    assert attention.growth(way, tokens) > (one_map if way == "forming the map" else 1)


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
    assert "python -m benchmarks.generation" in found["generation"]
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


def test_peaks_of_attention_are_those_of_the_process_that_is_measured():
    """Not of the one that started it, which here holds more."""
    held = b"x" * 2**29
    attention = benchmark("attention")
    ours, formed = (attention.peak_megabytes(name, 4096) for name in ("attention_entropy", "forming the map"))
    assert len(held) > ours * 2**20
    assert ours > 4, "query, key and the sums, 5 MB each"
    assert formed > ours + 64, "the map of one head"


def test_operations_grow_as_they_must():
    """Of three sizes, attention's are a parabola of the tokens in each layer, all others a line."""
    pipe, sizes = el.load("sd21-base", random_weights=True, device="meta"), (32, 64, 96)
    rest = [
        total - own
        for total, own in (benchmark("growth").count_operations(pipe, size, size) for size in sizes)
    ]
    first, second, third = (size**2 for size in sizes)
    assert rest[2] == pytest.approx(
        rest[1] + (rest[1] - rest[0]) / (second - first) * (third - second), rel=1e-6
    )
