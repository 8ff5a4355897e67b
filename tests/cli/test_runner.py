"""The runner and its site, with notebooks made for the purpose: fast, failing, changed, broken."""

import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from entropy_lib import __version__
from entropy_lib.cli import parameters, runner, site
from entropy_lib.cli.command_line import main
from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT, WORKPLACE, workplace

FAILING = "assert steps == 7, 'steps must be [/b] 7'"
SOURCES = {
    "00_quickstart": "import matplotlib.pyplot as plt\nplt.plot([steps, 2]);",
    "03_entropy_vs_tokens": FAILING,
    "05_image_grids": f"import os, sys\nprint(steps, sys.executable, os.environ['{WORKPLACE}'])",
}
NAMES = tuple(SOURCES)


def write_notebook(folder, name, source):
    cells = [
        new_markdown_cell(f"# {name}\n\nWhat is it?"),
        new_code_cell("steps = 0", metadata={"tags": ["parameters"]}),
        new_code_cell(source),
    ]
    kernel = {"kernelspec": {"name": "another", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


def write_workshop(folder, patch):
    """Three notebooks in place of the shipped ones, of which the second fails unless `steps` is 7."""
    for name, source in SOURCES.items():
        write_notebook(folder, name, source)
    patch.setattr(runner, "FOLDER", folder)
    patch.setattr(runner, "NOTEBOOKS", {name: parameters.NOTEBOOKS[name] for name in NAMES})
    # the site of what was run, without guides and reference, which are the same for all
    patch.setattr(site, "handbook", lambda source: None)
    return folder


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKPLACE, str(tmp_path / "workplace"))
    return write_workshop(tmp_path, monkeypatch)


@pytest.fixture
def instantly(monkeypatch):
    """Notebooks are saved as they are, without a kernel; a list of those that ran."""
    ran = []

    def execute(run, kernels):
        ran.append(run)
        run.checked.folder()  # as a notebook that writes
        shutil.copy(runner.FOLDER / f"{run.name}.ipynb", run.folder)
        (run.folder / f"{run.name}.log").write_text("", encoding="utf-8")
        return ""

    monkeypatch.setattr(runner, "_error_of_execution", execute)
    return ran


@pytest.fixture
def run(workshop, instantly):
    """Runs one notebook on profile smoke, or those named, and says of each whether it was executed."""

    def executed(*names, profile="smoke", output=workshop / "out", force=False, **overrides):
        found = runner.run(names or ["05_image_grids"], profile, overrides, output, force)
        return [not result.skipped for result in found]

    return executed


def test_a_failing_notebook_is_saved_and_named_and_the_others_run(tmp_path, monkeypatch, command):
    """In kernels of the interpreter that was called, whatever python3 is elsewhere, and in a workplace meant
    from where the command is given.
    """
    folder, elsewhere = write_workshop(tmp_path, monkeypatch), tmp_path / "jupyter" / "kernels" / "python3"
    elsewhere.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (elsewhere / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv(WORKPLACE, "mine/./below")
    ended = command("run", "--profile", "smoke")
    assert ended.code == 1
    assert "failed: 03_entropy_vs_tokens" in ended.out
    assert "steps must be [/b] 7" in ended.out, "square brackets are no markup"
    place = tmp_path / "mine" / "below"
    pages = place / "build" / "report" / "smoke"
    saved = nbformat.read(pages / "03_entropy_vs_tokens.ipynb", as_version=4)
    failures = [part.get("ename") for cell in saved.cells for part in cell.get("outputs", [])]
    assert "AssertionError" in failures
    assert "steps must be [/b] 7" in (pages / "03_entropy_vs_tokens.log").read_text(encoding="utf-8")
    printed = (pages / "05_image_grids.log").read_text(encoding="utf-8")
    assert printed == f"2 {sys.executable} {place}\n"
    assert not runner.read_result(runner.result_file("03_entropy_vs_tokens", pages)).ok
    index = (pages.parent / "index.html").read_text(encoding="utf-8")
    assert "failed: AssertionError: steps must be [/b] 7" in re.sub(r"<[^>]*>", "", index)
    assert "A figure of 00_quickstart" in index
    assert (pages / "05_image_grids.html").exists()
    assert (place / "build" / "output" / "smoke" / "05_image_grids").is_dir()


def test_the_workplace_stays_where_the_first_command_meant_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WORKPLACE, "mine/./below")
    assert workplace() == tmp_path / "mine" / "below"
    monkeypatch.chdir("/")
    assert workplace() == tmp_path / "mine" / "below"
    monkeypatch.setenv(WORKPLACE, "")
    assert workplace() == ROOT, "nothing is said"


def test_finished_notebooks_are_not_run_again_unless_something_changed(workshop, run, instantly):
    assert [run(), run()] == [[True], [False]]
    assert [run(steps=3), run(steps=3)] == [[True], [False]], "other parameters"
    assert run() == [False], "the earlier parameters again: their result is still there"
    assert len({one.folder for one in instantly}) == len({one.checked.folder() for one in instantly}) == 2
    assert run(force=True) == [True]
    write_notebook(workshop, "05_image_grids", "print('changed')")
    assert run() == [True], "another notebook"


def test_what_somebody_else_wrote_into_the_folder_of_output_does_not_count_as_finished(
    workshop, run, instantly, monkeypatch
):
    assert [run(), run()] == [[True], [False]]
    instantly[0].checked.model_copy(update={"steps": 1}).folder()  # by papermill, as an example
    assert [run(), run()] == [[True], [False]]
    shutil.rmtree(instantly[0].checked.folder())
    assert [run(), run()] == [[True], [False]]
    monkeypatch.setenv(WORKPLACE, str(workshop / "another"))
    assert run() == [True], "there are no tables"


def test_a_folder_of_output_that_is_named_is_not_shared(workshop, instantly):
    own = {"output": "build/mine"}
    for _ in range(2):
        runner.run(["05_image_grids"], "smoke", own | {"steps": 1}, workshop / "out")
    shared = "output is 'build/mine', which {} would share"
    for name, other in ((NAMES[2], {"steps": 3}), (NAMES[2], {}), (NAMES[0], {"steps": 1})):
        with pytest.raises(InvalidInputError, match=shared.format(name)):
            runner.run([name], "smoke", own | other, workshop / "out")
    assert len(instantly) == 1
    shutil.rmtree(workshop / "workplace")
    with pytest.raises(InvalidInputError, match="would share"):
        runner.run(["05_image_grids", "00_quickstart"], "smoke", own, workshop / "out")


BREAKS = {
    "no kernelspec": lambda notebook: notebook["metadata"].pop("kernelspec"),
    "of R": lambda notebook: notebook["metadata"]["kernelspec"].update(language="R"),
    "a cell without source": lambda notebook: notebook["cells"][2].pop("source"),
}


@pytest.mark.parametrize("how", [*BREAKS, "{", "", "[]", "{}", None])
def test_a_broken_notebook_is_named_and_the_others_run(workshop, instantly, command, how):
    path = workshop / "05_image_grids.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if how in BREAKS:
        BREAKS[how](notebook)
    path.write_text(json.dumps(notebook) if how in BREAKS else how or "", encoding="utf-8")
    if how is None:
        path.unlink()
    names = ("05_image_grids", "00_quickstart")
    ended = command("run", *names, "--profile", "smoke", "--output", str(workshop / "out"), "--no-site")
    assert ended.code == 1
    assert "05_image_grids is no notebook that can be run: " in ended.out
    assert "failed: 05_image_grids" in ended.out
    assert "Traceback" not in ended.out + ended.err
    assert [one.name for one in instantly] == ["00_quickstart"]


CELL = '{"cells": [{"metadata": {"tags": ["parameters"]}, "source": "x = f()"}]}'


@pytest.mark.parametrize("content", ["{", '{"cells": []}', CELL])
def test_a_broken_notebook_of_ones_own_stops_nothing(workshop, instantly, monkeypatch, content):
    for path in parameters.FOLDER.glob("*.ipynb"):
        shutil.copy(path, workshop)
    monkeypatch.setattr(parameters, "FOLDER", workshop)
    monkeypatch.setattr(runner, "NOTEBOOKS", parameters.NOTEBOOKS)
    (workshop / "11_mine.ipynb").write_text(content, encoding="utf-8")
    for names in (["00_quickstart"], ["00_quickstart", "11_mine"]):
        found = runner.run(names, "smoke", {"steps": 1}, workshop / "out")
        assert [result.ok for result in found] == [name == "00_quickstart" for name in names]
        assert all("11_mine" in result.error for result in found[1:])


@pytest.mark.parametrize("content", ["", "{}", "\x00\xff"])
@pytest.mark.parametrize("damaged", ["05_image_grids.result.json", "05_image_grids.ipynb"])
def test_a_damaged_result_is_named_and_the_notebook_runs_again(workshop, run, capsys, damaged, content):
    run()
    (workshop / "out" / "smoke" / damaged).write_text(content, encoding="utf-8")
    assert run() == [True]
    assert damaged in capsys.readouterr().out


@pytest.mark.slow
def test_the_site_has_what_was_run_and_reads_again_only_what_changed(workshop, instantly, command):
    output = workshop / "out"

    def cards(*arguments):
        assert command("run", "--output", str(output), *arguments).code == 0
        index = (output / "index.html").read_text(encoding="utf-8")
        trees = (output / site.DOCTREES / "smoke").glob("*.doctree")
        dates = {path.stem: path.stat().st_mtime_ns for path in trees}
        return index, re.findall(r'class="sd-stretched-link[^>]*href="([^"]+)"', index), dates

    _, first, before = cards("--profile", "smoke")
    assert first == [f"smoke/{name}.html" for name in NAMES]
    write_notebook(workshop, "00_quickstart", "print('changed')")
    _, _, after = cards("00_quickstart", "--profile", "smoke")
    assert before["00_quickstart"] != after["00_quickstart"]
    assert before["05_image_grids"] == after["05_image_grids"]
    assert "changed" in (output / "smoke" / "00_quickstart.html").read_text(encoding="utf-8")
    index, second, _ = cards("05_image_grids", "--profile", "smoke", "-p", "methods=[paper]")
    assert set(first) < set(second), "a run with other values is added"
    assert "Profile smoke with <code" in index
    assert all((output / address).exists() for address in second)
    runner.result_file("05_image_grids", output / "smoke").unlink()
    index, third, _ = cards("00_quickstart", "--profile", "mini")
    assert "Profile mini<" in index
    assert "smoke/05_image_grids.html" not in third, "a page that is gone is in no list"


def test_an_override_goes_to_the_notebooks_that_have_it(run, instantly):
    run(*NAMES, rule="unscaled", steps=5)
    given = {one.name: one.checked for one in instantly}
    assert given["00_quickstart"].rule == "unscaled"
    assert given["05_image_grids"].steps == 5
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        run(*NAMES, stepps=5)


def test_notebooks_run_from_another_thread(run):
    """Where signals cannot be asked for, as from a server."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == [True]


def test_a_bug_keeps_its_traceback(workshop, monkeypatch):
    monkeypatch.setattr(runner, "check_ready", lambda checked: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["run", "05_image_grids", "--profile", "smoke", "--output", str(workshop / "out")])


def test_the_version_is_said(command):
    assert command("--version").out == f"entropy_lib {__version__}\n"
