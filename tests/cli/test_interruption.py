"""Ctrl-C at any moment, and again: one line, exit status 130, and what was finished before stays."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from entropy_lib.cli import parameters, runner
from entropy_lib.files import ROOT, WORKPLACE

MAIN = """
import sys, pathlib
from entropy_lib.cli import parameters, runner
parameters.FOLDER = runner.FOLDER = pathlib.Path(sys.argv.pop(1))
from entropy_lib.cli.command_line import main
main()
"""
SLEEP = """
import pathlib, time
print('begun')
begun = pathlib.Path(output + '.begun')
begun.parent.mkdir(parents=True, exist_ok=True)
begun.touch()
time.sleep({seconds})"""
NAMES = ("91_sleep", "92_sleep")
COMMAND = ("run", *NAMES, "--no-site", "--output")


def write_notebooks(folder, seconds):
    for name in NAMES:
        parameters = f'seed = 0\noutput = "{folder / name}"'
        cells = [
            new_markdown_cell(f"# {name}"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            new_code_cell(SLEEP.format(seconds=seconds)),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


def start(arguments, workplace):
    """A command in a process group of its own, as a terminal starts it."""
    environment = os.environ | {WORKPLACE: str(workplace), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    own = {"process_group": 0, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    line = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(line, env=environment, cwd=workplace, **said, **own)


def ended(process, presses=1, group=True):
    """What a process says that gets so many interruptions."""
    for _ in range(presses):
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        time.sleep(0.2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "rror" not in out + err, out + err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("interrupted")
    return out, err


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A report of two notebooks that have run."""
    folder = tmp_path_factory.mktemp("notebooks")
    write_notebooks(folder, 0)
    with pytest.MonkeyPatch.context() as patch:
        for module in (parameters, runner):
            patch.setattr(module, "FOLDER", folder)
        patch.setenv(WORKPLACE, str(folder))
        assert all(result.ok for result in runner.run(NAMES, output=folder / "report"))
    write_notebooks(folder, 60)
    for name in NAMES:
        (mark,) = folder.rglob(f"*{name}.begun")
        mark.unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "jobs", "presses", "group"),
    [("kernels are started + 0.7", 2, 2, False), ("in a cell", 1, 1, True)],
)
def test_an_interrupted_run_leaves_the_earlier_pages(finished, moment, jobs, presses, group):
    before = files(finished / "report")
    process = start(["-c", MAIN, finished, *COMMAND, finished / "report", "--jobs", jobs], finished)
    assert process.stdout.readline().endswith("…\n")
    marks = []
    while moment == "in a cell" and len(marks) < jobs:
        marks = list(finished.rglob("*.begun"))
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(float(moment.partition("+")[2] or 0))
    ended(process, presses, group)
    for mark in marks:
        mark.unlink()
    assert files(finished / "report") == before


def test_however_often_it_is_pressed_the_notebooks_are_ended(monkeypatch):
    """Also where it is pressed again before the first press has been dealt with."""
    begun, ended, seen = threading.Event(), threading.Event(), []

    def press():
        begun.wait()
        while not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    def execute(run, kernels):
        begun.set()
        deadline = time.monotonic() + 5
        while not kernels.stopped and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(kernels.stopped)
        time.sleep(0.2)
        ended.set()
        pressing.join()

    pressing = threading.Thread(target=press)
    pressing.start()
    monkeypatch.setattr(runner, "_execute", execute)
    with pytest.raises(KeyboardInterrupt):
        runner._execute_all([SimpleNamespace(checked=None)], jobs=1)
    assert seen == [True]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_command_may_be_interrupted_while_it_is_imported_and_asked(tmp_path, seconds):
    begun = "from entropy_lib.__main__ import main; print('begun', flush=True); main()"
    process = start(["-c", begun, "run", "01_theory", "--output", tmp_path / "report"], tmp_path)
    process.stdout.readline()
    time.sleep(seconds)
    ended(process)
    assert not list(tmp_path.rglob("*.result.json"))


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_many_images_are_safe(tmp_path, command, monkeypatch):
    monkeypatch.setenv(WORKPLACE, str(tmp_path))
    values = ["--profile", "smoke", "-p", "prompt_count=90", "-p", "batch=1", "-p", "steps=5"]
    values += ["-p", "reference=scenes:200"]
    planned = command("sweep", "plan", "--no-measure", *values).out
    count = re.search(r"(\d+) images\n", planned)[1]
    process = start(["-m", "entropy_lib", "sweep", "sample", *values], tmp_path)
    while len(list(tmp_path.rglob("records/*/[0-9a-f]*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    _, err = ended(process)
    safe = len(list(tmp_path.rglob("records/*/[0-9a-f]*.json")))
    assert f"interrupted: {safe} of {count} images are safe" in err
    assert 3 <= safe < int(count)
