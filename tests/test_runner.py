"""The runner, with notebooks made for the purpose: fast, failing, changed, interrupted."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from entropy_lib.errors import UnknownNameError
from entropy_lib.running import parameters, runner, site
from entropy_lib.running.command_line import app

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([steps, 2]);"


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Three notebooks of which the second fails unless `steps` is 7."""
    cells = {
        "00_quickstart": FIGURE,
        "03_entropy_vs_tokens": "assert steps == 7, 'steps must be 7'",
        "05_image_grids": "print(steps)",
    }
    for name, source in cells.items():
        head = new_markdown_cell(f"# {name}\n\nWhat is $x^2$?\n\nThe price is `$5`.")
        parameters_cell = new_code_cell("steps = 0", metadata={"tags": ["parameters"]})
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(
            new_notebook(cells=[head, parameters_cell, new_code_cell(source)], metadata=kernel), tmp_path / f"{name}.ipynb"
        )
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "NOTEBOOKS", {name: parameters.NOTEBOOKS[name] for name in cells})
    return tmp_path


def test_a_failing_notebook_is_kept_and_named_and_the_others_run(workshop):
    output = workshop / "out"
    run = CliRunner().invoke(app, ["run", "--profile", "smoke", "--output", str(output)])
    assert run.exit_code == 1
    assert "failed: 03_entropy_vs_tokens" in run.output
    kept = nbformat.read(output / "03_entropy_vs_tokens.ipynb", as_version=4)
    assert any(part.get("ename") == "AssertionError" for cell in kept.cells for part in cell.get("outputs", []))
    assert "steps must be 7" in (output / "03_entropy_vs_tokens.log").read_text()
    assert not runner.marker("03_entropy_vs_tokens", output).exists()
    index = (output / "index.html").read_text()
    assert "steps must be 7" in index
    assert 'src="00_quickstart.png"' in index
    assert (output / "05_image_grids.html").exists()

    again = runner.run(profile="smoke", output=output, overrides={"steps": 7}, names=["03_entropy_vs_tokens"])
    assert again[0].ok


def test_finished_notebooks_are_not_run_again_unless_something_changed(workshop):
    output, name = workshop / "out", "05_image_grids"

    def skipped(**changes):
        return runner.run([name], profile="smoke", output=output, **changes)[0].skipped

    assert [skipped(), skipped()] == [False, True]
    assert not skipped(overrides={"steps": 3}), "other parameters"
    assert not skipped(), "the earlier parameters again"
    assert not skipped(force=True)
    notebook = nbformat.read(workshop / f"{name}.ipynb", as_version=4)
    notebook.cells[-1].source += "\nprint('changed')"
    nbformat.write(notebook, workshop / f"{name}.ipynb")
    assert not skipped(), "another notebook"


def test_an_interrupted_notebook_leaves_no_marker(workshop, monkeypatch):
    monkeypatch.setattr(runner.papermill, "execute_notebook", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        runner.run(["05_image_grids"], profile="smoke", output=workshop / "out")
    assert not runner.marker("05_image_grids", workshop / "out").exists()


def test_parameters_reach_the_notebook(workshop):
    runner.run(["05_image_grids"], profile="smoke", output=workshop / "out", overrides={"steps": 5})
    executed = runner.read_executed("05_image_grids", workshop / "out")
    assert executed.cells[-1].outputs[0].text.strip() == "5"
    assert json.loads(runner.marker("05_image_grids", workshop / "out").read_text())["ok"]


@pytest.mark.parametrize("names", [["05_image_grids", "00_quick"], ["nonsense"]])
def test_nothing_runs_when_one_name_is_wrong(workshop, monkeypatch, names):
    monkeypatch.setattr(runner.papermill, "execute_notebook", lambda *_, **__: pytest.fail("a notebook ran"))
    with pytest.raises(UnknownNameError, match="unknown notebook"):
        runner.run(names, profile="smoke", output=workshop / "out")


@pytest.mark.parametrize("arguments", [["-p", "setps=3"], ["-p", "steps=many"], ["--profile", "minni"], ["-p", "steps"]])
def test_bad_command_lines_exit_with_2_and_one_message(workshop, arguments):
    run = CliRunner().invoke(app, ["run", "05_image_grids", "--output", str(workshop / "out"), *arguments])
    assert run.exit_code == 2
    assert "Traceback" not in run.output


def test_pages_need_no_network(workshop):
    output = workshop / "out"
    results = runner.run(["00_quickstart"], profile="smoke", output=output)
    site.write_report(results, "smoke", output)
    for page in output.glob("*.html"):
        html = page.read_text()
        assert 'src="http' not in html
        assert "<link" not in html or 'href="http' not in html.split("<body")[0]
    page = (output / "00_quickstart.html").read_text()
    assert "<math" in page
    assert "$5" in page


def test_an_override_goes_to_the_notebooks_that_have_it(workshop, monkeypatch):
    given = {}
    monkeypatch.setattr(runner, "_run_one", lambda name, checked, *_: given.setdefault(name, checked))
    runner.run(profile="smoke", output=workshop / "out", overrides={"rule": "unscaled", "steps": 5})
    assert given["00_quickstart"].rule == "unscaled"
    assert given["05_image_grids"].steps == 5
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        runner.run(profile="smoke", output=workshop / "out", overrides={"stepps": 5})
