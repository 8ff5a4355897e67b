"""`python -m entropy_lib sweep` from plan to tables, and what it says when something is wrong."""

import subprocess
import sys

import pandas as pd
import pytest

from entropy_lib.files import ROOT

pytestmark = pytest.mark.slow

SMALL = ["--profile", "smoke", "-p", "prompt_count=3", "-p", "sizes=[32x32, 64x64]", "-p", "steps=1"]


@pytest.fixture
def sweep(tmp_path, command, monkeypatch):
    """What a command of `sweep` says, on standard output if it worked, else on standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    places = ["-p", f"store={tmp_path / 'store'}", "-p", f"output={tmp_path / 'out'}"]

    def said(name, *arguments):
        ended = command("sweep", name, *SMALL, *places, *arguments)
        return ended.err if ended.code else ended.out

    return said


def test_from_plan_to_tables(sweep, tmp_path):
    planned = sweep("plan", "--no-measure")
    assert "9 images\n" in planned
    assert " – " in planned, "no rate is known before any image was generated"
    assert "0 images generated" not in sweep("sample", "--shard", "0/2")
    assert "done" in sweep("status")
    sweep("sample")
    assert "0 images generated" in sweep("sample")
    measured = sweep("plan", "--no-measure")
    assert " – " not in measured.splitlines()[1], "the rate of the images that are there"
    sweep("reduce")
    differences = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert set(differences["size"]) == {"32x32"}
    assert set(differences.method) == {"paper", "native, resized"}
    path = next((tmp_path / "store" / "images").rglob("*.png"))
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert "checksum" in sweep("status", "--verify")
    assert "1 images generated" in sweep("sample")
    assert path.read_bytes() == content, "damage is found and mended"


def test_notebooks_share_the_images_of_a_store(sweep):
    methods = "methods=[unscaled, paper, power(2)]"
    causes = ["--notebook", "11_rival_explanations", "-p", "prompt_count=6", "-p", methods]
    assert "9 images\n" in sweep("plan", "--no-measure")
    assert "24 images\n" in sweep("plan", "--no-measure", *causes)
    assert "9 images generated" in sweep("sample")
    assert "15 images generated" in sweep("sample", *causes), "those of the other plan are there"
    assert "power(2)" in sweep("status", *causes)
    assert "power(2)" not in sweep("status")


def test_a_calibration_is_measured_and_planned_with(sweep, command, tmp_path):
    path = tmp_path / "own.json"
    options = ["--prompts", "mini", "--prompt-count", "1", "--device", "cpu", "--output", str(path)]
    assert f"use it with -p calibration={path}" in command("calibrate", "mini", *options).out
    choices = ["prompt_count=6", "sizes=[64x64, 64x96]", "methods=[unscaled, paper, equal-entropy(layers)]"]
    causes = ["--notebook", "11_rival_explanations", *(part for choice in choices for part in ("-p", choice))]
    assert "24 images generated" in sweep("sample", *causes, "-p", f"calibration={path}")
    assert "6 other images here are not of this plan" in sweep("status", *causes)


def test_images_of_other_values_are_no_part_of_a_plan(sweep):
    """Those that nobody generated are asked for; those that are there are counted."""
    sweep("sample")
    assert "9 other images here are not of this plan" in sweep("status", "-p", "steps=2")
    assert "sweep sample" in sweep("reduce", "-p", "steps=2")


EACH = """import sys
from entropy_lib.__main__ import main
for name in ("plan", "sample", "reduce"):
    sys.argv[2] = name
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
"""


def test_a_log_holds_no_progress_bars(tmp_path):
    """Neither ours nor those of diffusers, transformers and datasets."""
    places = ["-p", f"store={tmp_path / 'store'}", "-p", f"output={tmp_path / 'out'}"]
    line = [sys.executable, "-c", EACH, "sweep", "", *SMALL, *places]
    run = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "images generated" in run.stdout
    assert "it/s" not in run.stdout
