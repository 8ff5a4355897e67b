"""The notebooks themselves: how they are written, and that they run (profile smoke)."""

import ast
import base64
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from IPython.utils.capture import capture_output

from entropy_lib.cli.parameters import NOTEBOOKS, check_parameters
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.cli.runner import run
from entropy_lib.files import ROOT

FOLDER = ROOT / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_notebooks_and_parameters_belong_together():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    exercises = {
        path.stem for path in FOLDER.glob("*.ipynb") if "## Exercises" in path.read_text(encoding="utf-8")
    }
    assert {path.stem for path in SOLUTIONS} == exercises, "solutions for all that have exercises"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_written_as_the_house_asks(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "stripped"
    assert len(text) >= len(code) - 4
    headings = [line for cell in text for line in cell.source.splitlines() if line.startswith("# ")]
    assert headings == [notebook.cells[0].source.splitlines()[0]], "exactly one title, and it comes first"
    assert sum("## Exercises" in cell.source for cell in text) <= 1
    assert (
        max(
            len(cell.source.splitlines())
            for cell in code
            if "parameters" not in cell.metadata.get("tags", [])
        )
        <= 14
    )
    source = "\n".join(cell.source for cell in code)
    assert not re.search(r"pip install|sys\.path|except:|/home/|/tmp/", source)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_parameters_cell_holds_plain_literals_that_pass_the_check(name):
    (cell,) = tagged(read(FOLDER / f"{name}.ipynb"), "parameters")
    values = {}
    for node in ast.parse(cell.source).body:
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


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_answer_of_a_notebook_comes_first_and_is_not_typed_by_hand(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    assert tagged(notebook, "in-short") == [notebook.cells[1]]
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "Summary" not in text
    assert not re.search(r"\d %? ?\[-?\d", text), "a number with its interval"
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert code.count("in_short.update(") == 1
    assert re.search(r"in_short\.update\(Markdown\(f\"\*\*Summary\.\*\* [^\n]*\{", code), (
        "filled in from the run's own numbers"
    )
    assert "el.tables.sentence(" in code or name not in NOTEBOOKS


@pytest.fixture(scope="module")
def smoke_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report") / "smoke"


@pytest.fixture(scope="module")
def smoke_results(smoke_folder):
    return {result.name: result for result in run(profile="smoke", output=smoke_folder.parent)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_profile_smoke_and_answers_its_question(smoke_results, smoke_folder, name):
    assert smoke_results[name].ok, smoke_results[name].error
    (cell,) = tagged(read(smoke_folder / f"{name}.ipynb"), "in-short")
    (answer,) = [output.data["text/markdown"] for output in cell.outputs]
    assert answer.startswith("**Summary.** ")
    assert "when the notebook has run" not in answer, "the placeholder is still there"
    assert "nan" not in answer


@pytest.mark.slow
def test_the_widget_of_notebook_01_appears(smoke_results, smoke_folder):
    outputs = [
        output for cell in read(smoke_folder / "01_theory.ipynb").cells for output in cell.get("outputs", [])
    ]
    assert (
        sum("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs) == 1
    )


@pytest.mark.slow
def test_figures_of_notebooks_are_sharp(smoke_results, smoke_folder):
    outputs = [
        output for cell in read(smoke_folder / "01_theory.ipynb").cells for output in cell.get("outputs", [])
    ]
    (first, *_) = [output for output in outputs if "image/png" in output.get("data", {})]
    header = base64.b64decode(first.data["image/png"])[16:20]
    assert int.from_bytes(header, "big") >= 1.9 * first.metadata["image/png"]["width"]


@pytest.fixture
def shown(shell, execute, tmp_path):
    """What a notebook shows as HTML, run in this process on profile smoke with other parameters."""

    def run(name, **values):
        checked = profile_parameters(name, "smoke", values | {"output": str(tmp_path)})
        # the trap first: within it cells leave the display as it is
        with shell.display_trap, capture_output() as captured:
            execute(FOLDER / f"{name}.ipynb", checked.model_dump())
        return [output.data["text/html"] for output in captured.outputs if "text/html" in output.data]

    return run


GAMMA = ["unscaled", "gamma(1.4)", "paper"]  # gamma is not the identity at native size


@pytest.mark.slow
def test_notebook_00_bears_a_rule_that_is_not_the_identity_at_native_size(shown):
    assert "gamma(1.4)" in "".join(shown("00_quickstart", rule="gamma(1.4)"))


@pytest.mark.slow
def test_notebook_04_sets_a_rule_that_is_not_the_identity_beside_its_own_prediction(shown):
    (page,) = [page for page in shown("04_entropy_per_layer", rules=GAMMA) if "predicted" in page]
    assert "gamma(1.4)" in page
    assert page.count("predicted") == 2, "each rule beside its own prediction"


@pytest.mark.slow
def test_notebook_05_draws_and_compares_a_rule_that_is_not_the_identity_at_native_size(shown, tmp_path):
    shown("05_image_grids", rules=GAMMA)
    native = pd.read_csv(tmp_path / "differences.csv").query("size == '64x64'")
    assert native.rule.tolist() == ["gamma(1.4)"]
