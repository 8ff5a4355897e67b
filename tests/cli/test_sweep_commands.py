"""`python -m entropy_lib sweep` from plan to tables, and what it says when something is wrong."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from entropy_lib.cli.command_line import app
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT

pytestmark = pytest.mark.slow

SMALL = ["--profile", "smoke", "-p", "prompt_count=3", "-p", "sizes=[32x32, 64x64]", "-p", "steps=1"]


@pytest.fixture
def sweep(tmp_path):
    def run(command, *arguments):
        places = ["-p", f"store={tmp_path / 'store'}", "-p", f"output={tmp_path / 'out'}"]
        return CliRunner().invoke(
            app,
            ["sweep", command, *SMALL, *places, *arguments],
            catch_exceptions=False,
            env={"COLUMNS": "200"},
        )

    return run


def test_from_plan_to_tables(sweep, tmp_path):
    planned = sweep("plan", "--no-measure")
    assert "9 images, plan in" in planned.output
    assert " – " in planned.output, "no rate is known before anything was drawn"
    assert "0 images drawn" not in sweep("sample", "--shard", "0/2").output
    partly = sweep("status").output
    assert "done" in partly
    assert sweep("sample").exit_code == 0
    assert "0 images drawn" in sweep("sample").output
    measured = sweep("plan", "--no-measure").output
    assert " – " not in measured.splitlines()[1], "the rate of what has been drawn"
    assert sweep("reduce").exit_code == 0
    differences = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert set(differences["size"]) == {"32x32"}
    assert set(differences.method) == {"paper", "native, resized"}


def test_notebooks_that_draw_into_one_store_have_a_plan_each(sweep, tmp_path):
    causes = [
        "--notebook",
        "11_rival_explanations",
        "-p",
        "prompt_count=6",
        "-p",
        "methods=[unscaled, paper, power(2)]",
    ]
    assert "9 images, plan in" in sweep("plan", "--no-measure").output
    assert "24 images, plan in" in sweep("plan", "--no-measure", *causes).output
    assert "9 images drawn" in sweep("sample").output
    assert "15 images drawn" in sweep("sample", *causes).output, "what the other drew is there"
    assert "power(2)" in sweep("status", *causes).output
    assert "power(2)" not in sweep("status").output
    with pytest.raises(UnknownNameError, match="did you mean '11_rival_explanations'"):
        sweep("plan", "--notebook", "11_rival_explanation")


def test_a_calibration_is_measured_and_planned_with(sweep, tmp_path):
    path = tmp_path / "own.json"
    command = [
        "calibrate",
        "mini",
        "--prompts",
        "mini",
        "--prompt-count",
        "2",
        "--device",
        "cpu",
        "--output",
        str(path),
    ]
    run = CliRunner().invoke(app, command, catch_exceptions=False, env={"COLUMNS": "200"})
    assert f"use it with -p calibration={path}" in run.output
    choices = ["prompt_count=6", "sizes=[64x64, 64x96]", "methods=[unscaled, paper, equal-entropy(layers)]"]
    causes = ["--notebook", "11_rival_explanations", *(part for choice in choices for part in ("-p", choice))]
    sweep("plan", "--no-measure", *causes, "-p", f"calibration={path}")
    with pytest.raises(InvalidInputError, match=r"not the one asked for: calibration .., there ."):
        sweep("sample", *causes)
    assert "24 images drawn" in sweep("sample", *causes, "-p", f"calibration={path}").output
    with pytest.raises(FileNotFoundError, match="no calibration at"):
        sweep("plan", *causes, "-p", "calibration=nowhere.json")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("steps=9", "steps 9, there 1"), ("seed=7", "seeds .*: 7, there 0"),
        ("dtype=bfloat16", "dtype 'bfloat16', there 'float32'"),
        ("prompts=mini", "prompts .*: '.*', there '.*'"), ("guidance=2.0", "guidance 2.0, there 3.0"),
        ("seeds_per_prompt=2", r"seeds \(2, there 1"), ("prompt_count=4", r"prompts \(4, there 3"),
        ("sizes=[32x32]", r"sizes \(1, there 2"), ("methods=[unscaled]", r"methods \(1, there 2"),
    ],
)  # fmt: skip
def test_a_plan_of_other_values_is_refused(sweep, tmp_path, value, named):
    sweep("plan", "--no-measure")
    for command in ("sample", "status", "reduce"):
        with pytest.raises(
            InvalidInputError, match=f"not the one asked for: .*{named}.*Give all commands the same values"
        ):
            sweep(command, "-p", value)
    assert not (tmp_path / "store" / "images").exists()


def test_prompts_of_another_reference_are_another_plan(sweep, tmp_path):
    rows = {"image": [png(index) for index in range(8)], "text": [f"image {index}" for index in range(8)]}
    pd.DataFrame(rows).to_parquet(tmp_path / "other.parquet")
    sweep("plan", "--no-measure")
    with pytest.raises(InvalidInputError, match=r"prompts .*: 'image [0-9]', there '.* style'"):
        sweep("sample", "-p", f"reference={tmp_path / 'other.parquet'}")


def png(seed):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        content, format="PNG"
    )
    return content.getvalue()


def test_damage_is_found_and_drawn_again(sweep, tmp_path):
    sweep("plan", "--no-measure")
    sweep("sample")
    path = next((tmp_path / "store" / "images").rglob("*.png"))
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert "checksum" in sweep("status", "--verify").output
    assert "1 images drawn" in sweep("sample").output
    assert path.read_bytes() == content


def test_a_log_holds_no_progress_bars(tmp_path):
    """Neither ours nor those of diffusers, transformers and datasets, while a model is loaded and images are
    drawn.
    """
    places = ["-p", f"store={tmp_path / 'store'}", "-p", f"output={tmp_path / 'out'}"]
    for name in ("plan", "sample", "reduce"):
        command = [sys.executable, "-m", "entropy_lib", "sweep", name, *SMALL, *places]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert run.stderr == ""
        assert "it/s" not in run.stdout
