"""The notebooks themselves: how they are written, and that they run (profile smoke)."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from entropy_lib.files import ROOT
from entropy_lib.running.parameters import NOTEBOOKS, check_parameters
from entropy_lib.running.profiles import profile_parameters
from entropy_lib.running.runner import run

FOLDER = ROOT / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def test_notebooks_and_parameters_belong_together():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    assert {path.stem for path in SOLUTIONS} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_written_as_the_house_asks(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "stripped"
    assert len(text) >= len(code) - 3
    headings = [line for cell in text for line in cell.source.splitlines() if line.startswith("# ")]
    assert headings == [notebook.cells[0].source.splitlines()[0]], "exactly one title, and it comes first"
    assert sum("## Exercises" in cell.source for cell in text) == 1
    assert max(len(cell.source.splitlines()) for cell in code if "parameters" not in cell.metadata.get("tags", [])) <= 14
    source = "\n".join(cell.source for cell in code)
    assert not re.search(r"pip install|sys\.path|except:|/home/|/tmp/", source)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_parameters_cell_holds_plain_literals_that_pass_the_check(name):
    tagged = [cell for cell in read(FOLDER / f"{name}.ipynb").cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for node in ast.parse(tagged[0].source).body:
        assert isinstance(node, ast.Assign), "one assignment a line"
        values[node.targets[0].id] = ast.literal_eval(node.value)
    assert set(values) == set(NOTEBOOKS[name].model_fields)
    given, mini = check_parameters(name, values).model_dump(), profile_parameters(name, "mini").model_dump()
    assert given | {"output": ""} == mini | {"output": ""}, "the defaults are those of profile mini"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_somewhere(name):
    for cell in read(FOLDER / f"{name}.ipynb").cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else []:
            assert target.startswith("http") or (FOLDER / target).exists(), target


@pytest.fixture(scope="module")
def smoke_results(tmp_path_factory):
    return {result.name: result for result in run(profile="smoke", output=tmp_path_factory.mktemp("smoke"))}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_profile_smoke(smoke_results, name):
    assert smoke_results[name].ok, smoke_results[name].error


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run(path):
    NotebookClient(read(path), kernel_name="python3", timeout=300, extra_arguments=["--log-level=ERROR"]).execute()
