"""Papermill by hand, as the documentation has it: a file of parameters, and a name that is no parameter."""

import base64
import subprocess
import sys

import nbformat
import pytest
import yaml

from entropy_lib.cli.parameters import check_parameters
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT

WIDGET = "application/vnd.jupyter.widget-view+json"


def test_the_file_of_parameters_has_those_of_the_profile(command):
    said = command("parameters", "03_entropy_vs_tokens", "--profile", "smoke", "-p", "sizes=[32x32, 64x64]")
    of_profile = profile_parameters("03_entropy_vs_tokens", "smoke", {"sizes": ["32x32", "64x64"]})
    assert yaml.safe_load(said.out) == of_profile.model_dump()


@pytest.mark.slow
def test_papermill_runs_a_notebook_with_that_file(tmp_path, command):
    """In a kernel of its own, as in JupyterLab: figures are sharp there, and the widget is one."""
    own = command("parameters", "01_theory", "--profile", "smoke", "-p", f"output={tmp_path}").out
    (tmp_path / "mine.yaml").write_text(own, encoding="utf-8")
    places = [ROOT / "notebooks" / "01_theory.ipynb", tmp_path / "out.ipynb", "-f", tmp_path / "mine.yaml"]
    line = [sys.executable, "-m", "papermill", *map(str, places)]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "data" in output]
    answers = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.data]
    assert any("Summary" in answer and "Eq. 5" in answer for answer in answers)
    assert sum(WIDGET in output.data for output in outputs) == 1
    figure = next(output for output in outputs if "image/png" in output.data)
    pixels = int.from_bytes(base64.b64decode(figure.data["image/png"])[16:20], "big")
    assert pixels >= 1.9 * figure.metadata["image/png"]["width"]


def test_a_notebook_refuses_a_name_that_papermill_put_in_and_that_is_no_parameter():
    values = profile_parameters("01_theory", "smoke").model_dump()
    check_parameters("01_theory", values | {"toknes": 3, "In": ["", "toknes = 3"]})
    check_parameters("01_theory", values | {"In": ["", "# Parameters\nseed = 3\n"]})
    with pytest.raises(UnknownNameError, match="parameter of 01_theory 'toknes'; did you mean 'tokens'"):
        check_parameters("01_theory", values | {"In": ["", "# Parameters\ntoknes = 3\n"]})
