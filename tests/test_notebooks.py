"""The notebooks themselves: how they are written, and that they run (profile smoke, in this process)."""

import ast
import re

import nbformat
import pandas as pd
import pytest
from IPython.utils.capture import capture_output

from entropy_lib.cli.parameters import NOTEBOOKS, check_parameters
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.files import ROOT

FOLDER = ROOT / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
PLACEHOLDER = "Written here when the notebook has run"


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    """A notebook as its file has it."""
    return nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def of_type(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_notebooks_and_parameters_belong_together():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    exercises = {
        path.stem for path in FOLDER.glob("*.ipynb") if "## Exercises" in path.read_text(encoding="utf-8")
    }
    assert {path.stem for path in SOLUTIONS} == exercises, "solutions for all that have exercises"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_readme_lists_every_notebook(name):
    assert f"](notebooks/{name}.ipynb) |" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_notebook_is_written_as_contributing_asks(notebook):
    code, text = of_type(notebook, "code"), of_type(notebook, "markdown")
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "stripped"
    assert len(text) >= len(code) - 4
    headings = [line for cell in text for line in cell.source.splitlines() if line.startswith("# ")]
    assert headings == [notebook.cells[0].source.splitlines()[0]], "exactly one title, and it comes first"
    assert sum("## Exercises" in cell.source for cell in text) <= 1
    cells = [cell.source.splitlines() for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert max(map(len, cells)) <= 12, "a cell of more lines"
    source = "\n".join(cell.source for cell in code)
    assert not re.search(r"pip install|sys\.path|except:|/home/|/tmp/", source)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_parameters_cell_holds_plain_literals_that_pass_the_check(name):
    (cell,) = tagged(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), "parameters")
    assigned = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    assert set(assigned) == set(NOTEBOOKS[name].model_fields)
    given, mini = check_parameters(name, assigned).model_dump(), profile_parameters(name, "mini").model_dump()
    assert given | {"output": ""} == mini | {"output": ""}, "the defaults are those of profile mini"


def test_links_of_a_notebook_lead_somewhere(notebook):
    for cell in of_type(notebook, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert target.startswith("http") or (FOLDER / target).exists(), target


def test_the_answer_of_a_notebook_comes_first_and_is_not_typed_by_hand(notebook):
    assert tagged(notebook, "summary") == [notebook.cells[1]]
    text = "\n".join(cell.source for cell in of_type(notebook, "markdown"))
    assert "Summary" not in text
    assert not re.search(r"\d %? ?\[-?\d", text), "a number with its interval"
    code = "\n".join(cell.source for cell in of_type(notebook, "code"))
    assert code.count("summary.update(") == 1
    filled_in = re.search(r"summary\.update\(Markdown\(f\"\*\*Summary\.\*\* [^\n]*\{", code)
    assert filled_in, "from the run's own numbers"
    assert "el.tables.sentence(" in code


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Images of all notebooks of this file: what one has generated another finds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def shown(shell, execute, store, tmp_path, measured_once):
    """What a notebook displays, by its kind, run in this process on profile smoke, its parameters changed."""

    def run(name, **values):
        places = {"output": str(tmp_path), "store": str(store)}
        own = {key: place for key, place in places.items() if key in NOTEBOOKS[name].model_fields}
        checked = profile_parameters(name, "smoke", values | own)
        # the trap first: within it cells leave the display as it is
        with shell.display_trap, capture_output() as captured:
            shell.display_pub.clear_output = lambda *_, **__: None  # as a widget asks before it shows itself
            execute(FOLDER / f"{name}.ipynb", checked.model_dump())
        outputs = [output.data for output in captured.outputs]
        return lambda kind: [data[kind] for data in outputs if kind in data]

    return run


GAMMA = ["unscaled", "gamma(1.4)", "paper"]  # gamma is not the identity at native size
CHANGED = {
    "00_quickstart": {"rule": "gamma(1.4)"},
    "04_entropy_per_layer": {"rules": GAMMA},
    "05_image_grids": {"methods": GAMMA},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_answers_its_question(shown, tmp_path, name):
    """Notebooks 00, 04 and 05 by a rule that is not the identity at native size, too."""
    found = shown(name, **CHANGED.get(name, {}))
    placeholder, *_, answer = [text for text in found("text/markdown") if "**Summary.**" in text]
    assert PLACEHOLDER in placeholder
    assert answer.startswith("**Summary.** ")
    assert PLACEHOLDER not in answer
    assert "nan" not in answer
    pages = found("text/html")
    if name == "00_quickstart":
        assert "gamma(1.4)" in "".join(pages)
    if name == "04_entropy_per_layer":
        (page,) = [page for page in pages if "predicted" in page]
        assert "gamma(1.4)" in page
        assert page.count("predicted") == 2, "each rule beside its own prediction"
    if name == "05_image_grids":
        native = pd.read_csv(tmp_path / "differences.csv").query("size == '64x64'")
        assert native.method.tolist() == ["gamma(1.4)"]
