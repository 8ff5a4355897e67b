"""The runner and its site, with notebooks made for the purpose: fast, failing, changed, interrupted."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from entropy_lib.errors import UnknownNameError
from entropy_lib.running import parameters, runner, site, site_pages
from entropy_lib.running.command_line import main

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
    for name, source in zip(NAMES, (FIGURE, "assert steps == 7, 'steps must be [/b] 7'", "print(steps)"), strict=True):
        write_notebook(tmp_path, name, source)
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "NOTEBOOKS", {name: parameters.NOTEBOOKS[name] for name in NAMES})
    return tmp_path


@pytest.fixture
def alone(monkeypatch):
    """The site of what was run, without guides and reference, which are the same for all."""
    monkeypatch.setattr(site_pages, "_handbook", dict)


@pytest.fixture
def instantly(monkeypatch):
    """Notebooks are kept as they are, without a kernel; a list of those that ran."""
    ran = []

    async def execute(run, environment):
        ran.append(run)
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
    assert any(part.get("ename") == "AssertionError" for cell in kept.cells for part in cell.get("outputs", []))
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


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": 3}', "\x00\xff", '{"ok": tru'])
def test_a_damaged_result_is_named_and_the_notebook_runs_again(workshop, instantly, capsys, content):
    name, output = "05_image_grids", workshop / "out"
    runner.run([name], profile="smoke", output=output)
    path = runner.result_file(name, output / "smoke")
    path.write_text(content, encoding="utf-8")
    assert not runner.run([name], profile="smoke", output=output)[0].skipped
    assert path.name in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{", encoding="utf-8")])
def test_without_its_executed_notebook_a_result_counts_for_nothing(workshop, instantly, damage):
    name, output = "05_image_grids", workshop / "out"
    runner.run([name], profile="smoke", output=output)
    damage(output / "smoke" / f"{name}.ipynb")
    assert not runner.run([name], profile="smoke", output=output)[0].skipped


def test_an_interruption_passes_through_and_leaves_the_earlier_page(workshop, instantly, monkeypatch):
    name, output = "05_image_grids", workshop / "out"
    runner.run([name], profile="smoke", output=output)
    site.write_report(output, handbook=False)
    before = sorted((path, path.read_bytes()) for path in (output / "smoke").iterdir())

    async def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_error_of_execution", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run([name], profile="smoke", output=output, force=True)
    assert sorted((path, path.read_bytes()) for path in (output / "smoke").iterdir()) == before


@pytest.mark.parametrize("names", [["05_image_grids", "00_quick"], ["nonsense"]])
def test_nothing_runs_when_one_name_is_wrong(workshop, instantly, names):
    with pytest.raises(UnknownNameError, match="unknown notebook"):
        runner.run(names, profile="smoke", output=workshop / "out")
    assert not instantly


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


def test_what_was_not_changed_is_not_read_again(workshop, instantly):
    output = workshop / "out"

    def read():
        runner.run(profile="smoke", output=output)
        site.write_report(output, handbook=False)
        return {path.stem: path.stat().st_mtime_ns for path in (output / site.DOCTREES / "smoke").glob("*.doctree")}

    before = read()
    write_notebook(workshop, "05_image_grids", "print('changed')")
    after = read()
    assert before["05_image_grids"] != after["05_image_grids"]
    assert before["00_quickstart"] == after["00_quickstart"]
    assert "changed" in (output / "smoke" / "05_image_grids.html").read_text(encoding="utf-8")


def test_the_page_of_a_run_that_is_gone_is_in_no_list(workshop, instantly):
    output = workshop / "out"
    runner.run(profile="smoke", output=output)
    runner.result_file("05_image_grids", output / "smoke").unlink()
    site.write_report(output, handbook=False)
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
