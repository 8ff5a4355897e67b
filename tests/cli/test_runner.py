"""The runner and its site, with notebooks made for the purpose: fast, failing, changed, interrupted."""

import json
import re
import shutil
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from entropy_lib.cli import parameters, runner, site
from entropy_lib.cli.command_line import main
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT, WORKPLACE, workplace

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([steps, 2]);"
HEAD = "# {name}\n\nWhat is $x^2$?\n\nThe price is `$5`. Next: [grids](05_image_grids.ipynb), [data](../data/README.md)."
NAMES = ("00_quickstart", "03_entropy_vs_tokens", "05_image_grids")


def write_notebook(folder, name, source, head=HEAD):
    cells = [
        new_markdown_cell(head.format(name=name)),
        new_code_cell("steps = 0", metadata={"tags": ["parameters"]}),
        new_code_cell(source),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Three notebooks of which the second fails unless `steps` is 7."""
    for name, source in zip(
        NAMES, (FIGURE, "assert steps == 7, 'steps must be [/b] 7'", "print(steps)"), strict=True
    ):
        write_notebook(tmp_path, name, source)
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "NOTEBOOKS", {name: parameters.NOTEBOOKS[name] for name in NAMES})
    monkeypatch.setenv(WORKPLACE, str(tmp_path / "workplace"))
    return tmp_path


@pytest.fixture
def alone(monkeypatch):
    """The site of what was run, without guides and reference, which are the same for all."""
    monkeypatch.setattr(site, "handbook", lambda source: None)


@pytest.fixture
def instantly(monkeypatch):
    """Notebooks are kept as they are, without a kernel; a list of those that ran."""
    ran = []

    def execute(run, kernels):
        ran.append(run)
        run.checked.folder()  # as a notebook that writes
        notebook = nbformat.read(runner.FOLDER / f"{run.name}.ipynb", as_version=4)
        nbformat.write(notebook, run.folder / f"{run.name}.ipynb")
        (run.folder / f"{run.name}.log").write_text("", encoding="utf-8")
        return ""

    monkeypatch.setattr(runner, "_error_of_execution", execute)
    return ran


def test_a_failing_notebook_is_kept_and_named_and_the_others_run(workshop, alone, command):
    output = workshop / "out"
    ended = command("run", "--profile", "smoke", "--output", str(output))
    folder, printed = output / "smoke", ended.out
    assert ended.code == 1
    assert "failed: 03_entropy_vs_tokens" in printed
    assert "steps must be [/b] 7" in printed, "square brackets are no markup"
    kept = nbformat.read(folder / "03_entropy_vs_tokens.ipynb", as_version=4)
    assert any(
        part.get("ename") == "AssertionError" for cell in kept.cells for part in cell.get("outputs", [])
    )
    assert "steps must be [/b] 7" in (folder / "03_entropy_vs_tokens.log").read_text(encoding="utf-8")
    assert (folder / "05_image_grids.log").read_text(encoding="utf-8") == "2\n"
    assert not runner.read_result(runner.result_file("03_entropy_vs_tokens", folder)).ok
    index = (output / "index.html").read_text(encoding="utf-8")
    assert "steps must be [/b] 7" in re.sub(r"<[^>]*>", "", index)
    assert "A figure of 00_quickstart" in index
    assert "failed:" in index
    assert (folder / "05_image_grids.html").exists()


def test_finished_notebooks_are_not_run_again_unless_something_changed(workshop, instantly):
    output, name = workshop / "out", "05_image_grids"

    def skipped(**changes):
        return runner.run([name], profile="smoke", output=output, **changes)[0].skipped

    assert [skipped(), skipped()] == [False, True]
    assert not skipped(overrides={"steps": 3}), "other parameters"
    assert skipped(), "the earlier parameters again: their result is still there"
    assert not skipped(force=True)
    write_notebook(workshop, name, "print('changed')")
    assert not skipped(), "another notebook"


def test_runs_with_other_parameters_share_neither_page_nor_folder_of_output(workshop, instantly):
    """What each wrote is still there, and what counts as finished is what it wrote."""
    name, output = "05_image_grids", workshop / "out"

    def ran(**changes):
        return not runner.run([name], profile="smoke", output=output, **changes)[0].skipped

    assert [ran(), ran(overrides={"steps": 1}), ran(), ran(overrides={"steps": 1}), ran(overrides={"steps": 2})] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert len({run.folder for run in instantly}) == len({run.checked.folder() for run in instantly}) == 2


def test_what_somebody_else_wrote_into_the_folder_of_output_does_not_count_as_finished(
    workshop, instantly, monkeypatch
):
    name, output = "05_image_grids", workshop / "out"

    def skipped():
        return runner.run([name], profile="smoke", output=output)[0].skipped

    assert [skipped(), skipped()] == [False, True]
    instantly[0].checked.model_copy(update={"steps": 1}).folder()  # by papermill, as an example
    assert [skipped(), skipped()] == [False, True]
    shutil.rmtree(instantly[0].checked.folder())
    assert [skipped(), skipped()] == [False, True]
    monkeypatch.setenv(WORKPLACE, str(workshop / "another"))
    assert not skipped(), "there are no tables"


def test_a_folder_of_output_that_is_named_is_not_shared(workshop, instantly):
    def run(*names, **overrides):
        runner.run(
            names, profile="smoke", output=workshop / "out", overrides=overrides | {"output": "build/mine"}
        )

    run("05_image_grids", steps=1)
    run("05_image_grids", steps=1)
    for other in ({"steps": 3}, {}):
        with pytest.raises(
            InvalidInputError, match="output is 'build/mine', which 05_image_grids would share"
        ):
            run("05_image_grids", **other)
    with pytest.raises(InvalidInputError, match="which 00_quickstart would share"):
        run("00_quickstart", steps=1)
    assert len(instantly) == 1
    shutil.rmtree(workshop / "workplace")
    with pytest.raises(InvalidInputError, match="would share"):
        run("05_image_grids", "00_quickstart")
    run("05_image_grids", steps=3)


def break_notebook(folder, how):
    path = folder / "05_image_grids.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if how == "no kernelspec":
        del notebook["metadata"]["kernelspec"]
    elif how == "of R":
        notebook["metadata"]["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    elif how == "no cells":
        notebook["cells"] = []
    elif how == "no parameters cell":
        notebook["cells"][1]["metadata"] = {}
    elif how == "a cell without source":
        del notebook["cells"][2]["source"]
    text = {"no JSON": "{", "empty": "", "a list": "[]", "no notebook": "{}"}.get(how, json.dumps(notebook))
    path.write_text(text, encoding="utf-8")
    if how == "gone":
        path.unlink()


BROKEN = ["no kernelspec", "of R", "no cells", "no parameters cell", "a cell without source"]
BROKEN += ["no JSON", "empty", "a list", "no notebook", "gone"]


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_notebook_is_named_and_the_others_run(workshop, instantly, alone, command, how):
    break_notebook(workshop, how)
    ended = command(
        "run", "05_image_grids", "00_quickstart", "--profile", "smoke", "--output", str(workshop / "out")
    )
    assert ended.code == 1
    assert "05_image_grids is no notebook that can be run: " in ended.out
    assert "failed: 05_image_grids" in ended.out
    assert "Traceback" not in ended.out + ended.err
    assert (workshop / "out" / "smoke" / "00_quickstart.html").exists()
    assert [run.name for run in instantly] == ["00_quickstart"]


@pytest.mark.parametrize(
    "content",
    ["{", "{}", '{"cells": []}', '{"cells": [{"metadata": {"tags": ["parameters"]}, "source": "x = f()"}]}'],
)
@pytest.mark.parametrize("names", [["00_quickstart"], ["00_quickstart", "11_mine"]])
def test_a_broken_notebook_of_ones_own_stops_nothing(workshop, instantly, monkeypatch, names, content):
    for path in parameters.FOLDER.glob("*.ipynb"):
        shutil.copy(path, workshop)
    monkeypatch.setattr(parameters, "FOLDER", workshop)
    monkeypatch.setattr(runner, "NOTEBOOKS", parameters.NOTEBOOKS)
    (workshop / "11_mine.ipynb").write_text(content, encoding="utf-8")
    found = runner.run(names, profile="smoke", output=workshop / "out", overrides={"steps": 1})
    assert [result.ok for result in found] == [name == "00_quickstart" for name in names]
    assert all("11_mine" in result.error for result in found[1:])


def test_notebooks_run_in_the_interpreter_that_was_called(workshop, monkeypatch):
    """Whatever is called python3 elsewhere, and whatever the notebook says of its kernel."""
    elsewhere = workshop / "jupyter" / "kernels" / "python3"
    elsewhere.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (elsewhere / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(workshop / "jupyter"))
    write_notebook(workshop, "05_image_grids", "import sys; print(sys.executable)")
    path = workshop / "05_image_grids.ipynb"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"name": "python3"', '"name": "another"'), encoding="utf-8"
    )
    (result,) = runner.run(["05_image_grids"], profile="smoke", output=workshop / "out")
    assert result.ok, result.error
    assert (workshop / "out" / "smoke" / "05_image_grids.log").read_text(
        encoding="utf-8"
    ) == f"{sys.executable}\n"


def test_a_relative_workplace_is_meant_from_where_the_command_is_given(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    monkeypatch.setenv(WORKPLACE, "mine/./below")
    write_notebook(workshop, "05_image_grids", f"import os; print(os.environ['{WORKPLACE}'])")
    runner.run(["05_image_grids"], profile="smoke")
    printed = workshop / "mine" / "below" / "build" / "report" / "smoke" / "05_image_grids.log"
    assert printed.read_text(encoding="utf-8") == f"{workshop / 'mine' / 'below'}\n"
    assert (workshop / "mine" / "below" / "build" / "output" / "smoke" / "05_image_grids").is_dir()
    monkeypatch.chdir("/")
    assert workplace() == workshop / "mine" / "below"
    monkeypatch.setenv(WORKPLACE, "")
    assert workplace() == ROOT, "nothing is said"


@pytest.mark.parametrize("content", ["", "{}", "\x00\xff", '{"ok": tru'])
@pytest.mark.parametrize("damaged", ["05_image_grids.result.json", "05_image_grids.ipynb"])
def test_a_damaged_result_is_named_and_the_notebook_runs_again(workshop, instantly, capsys, damaged, content):
    output = workshop / "out"
    runner.run(["05_image_grids"], profile="smoke", output=output)
    (output / "smoke" / damaged).write_text(content, encoding="utf-8")
    assert not runner.run(["05_image_grids"], profile="smoke", output=output)[0].skipped
    assert damaged in capsys.readouterr().out


def test_a_run_of_one_notebook_or_of_another_profile_adds_to_the_site(workshop, instantly, alone, command):
    output = workshop / "out"

    def cards(arguments):
        assert command("run", "--output", str(output), *arguments).code == 0
        index = (output / "index.html").read_text(encoding="utf-8")
        return index, re.findall(r'class="sd-stretched-link[^>]*href="([^"]+)"', index)

    _, first = cards(["--profile", "smoke"])
    assert first == [f"smoke/{name}.html" for name in NAMES]
    index, second = cards(["05_image_grids", "--profile", "smoke", "-p", "steps=3"])
    assert set(first) < set(second)
    assert len(second) == 4
    assert "Profile smoke with <code" in index
    index, third = cards(["00_quickstart", "--profile", "mini"])
    assert set(second) < set(third)
    assert "Profile mini<" in index
    assert all((output / address).exists() for address in third)


def test_what_was_not_changed_is_not_read_again(workshop, instantly, alone):
    output = workshop / "out"

    def read():
        runner.run(profile="smoke", output=output)
        site.write_report(output)
        return {
            path.stem: path.stat().st_mtime_ns
            for path in (output / site.DOCTREES / "smoke").glob("*.doctree")
        }

    before = read()
    write_notebook(workshop, "05_image_grids", "print('changed')")
    after = read()
    assert before["05_image_grids"] != after["05_image_grids"]
    assert before["00_quickstart"] == after["00_quickstart"]
    assert "changed" in (output / "smoke" / "05_image_grids.html").read_text(encoding="utf-8")


def test_the_page_of_a_run_that_is_gone_is_in_no_list(workshop, instantly, alone):
    output = workshop / "out"
    runner.run(profile="smoke", output=output)
    runner.result_file("05_image_grids", output / "smoke").unlink()
    site.write_report(output)
    assert "smoke/05_image_grids" not in (output / "index.html").read_text(encoding="utf-8")


def test_an_override_goes_to_the_notebooks_that_have_it(workshop, instantly):
    runner.run(profile="smoke", output=workshop / "out", overrides={"rule": "unscaled", "steps": 5})
    given = {run.name: run.checked for run in instantly}
    assert given["00_quickstart"].rule == "unscaled"
    assert given["05_image_grids"].steps == 5
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        runner.run(profile="smoke", output=workshop / "out", overrides={"stepps": 5})


def test_a_bug_keeps_its_traceback(workshop, monkeypatch):
    monkeypatch.setattr(runner, "check_ready", lambda checked: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["run", "05_image_grids", "--profile", "smoke", "--output", str(workshop / "out")])


def test_the_version_is_told(command):
    import entropy_lib

    assert command("--version").out == f"entropy_lib {entropy_lib.__version__}\n"
