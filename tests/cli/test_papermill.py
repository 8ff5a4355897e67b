"""Papermill by hand, as the README has it: a file of parameters, and a name that is no parameter."""

import subprocess
import sys

import nbformat
import pytest
import yaml

from entropy_lib.cli.parameters import check_parameters
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT


@pytest.fixture
def by_hand(tmp_path, command):
    """Notebook 01 by papermill with the file that `parameters` writes, and more on its command line."""
    values = tmp_path / "mine.yaml"
    values.write_text(
        command("parameters", "01_theory", "--profile", "smoke", "-p", f"output={tmp_path}").out,
        encoding="utf-8",
    )

    def run(*more):
        out = tmp_path / "out.ipynb"
        line = [
            sys.executable,
            "-m",
            "papermill",
            str(ROOT / "notebooks" / "01_theory.ipynb"),
            str(out),
            "-f",
            str(values),
            *more,
        ]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False), out

    return run


def test_the_file_of_parameters_has_those_of_the_profile(command):
    said = command("parameters", "03_entropy_vs_tokens", "--profile", "smoke", "-p", "sizes=[32x32, 64x64]")
    assert (
        yaml.safe_load(said.out)
        == profile_parameters("03_entropy_vs_tokens", "smoke", {"sizes": ["32x32", "64x64"]}).model_dump()
    )
    assert "did you mean 'steps'" in command("parameters", "03_entropy_vs_tokens", "-p", "stepz=3").err


@pytest.mark.slow
def test_papermill_runs_a_notebook_with_that_file(by_hand):
    ended, out = by_hand()
    assert ended.returncode == 0, ended.stderr[-2000:]
    cells = nbformat.read(out, as_version=4).cells
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    assert any(
        "Summary" in str(cell.get("outputs")) and "Eq. 5" in str(cell.get("outputs")) for cell in cells
    )


@pytest.mark.slow
def test_the_notebook_refuses_a_name_that_is_no_parameter(by_hand):
    ended, _ = by_hand("-p", "toknes", "3")
    assert ended.returncode != 0
    assert "unknown parameter of 01_theory 'toknes'; did you mean 'tokens'" in ended.stderr


def test_only_what_papermill_put_in_is_looked_at():
    values = profile_parameters("01_theory", "smoke").model_dump()
    check_parameters("01_theory", values | {"toknes": 3, "In": ["", "toknes = 3"]})
    check_parameters("01_theory", values | {"In": ["", "# Parameters\nseed = 3\n"]})
    with pytest.raises(UnknownNameError, match="did you mean 'tokens'"):
        check_parameters("01_theory", values | {"In": ["", "# Parameters\ntoknes = 3\n"]})
