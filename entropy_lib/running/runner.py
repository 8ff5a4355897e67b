"""Runs the notebooks: parameters checked first, failures kept and named, resumed after an interruption.

    python -m entropy_lib run                       # all notebooks on profile mini, into build/report/
    python -m entropy_lib run 03_entropy_vs_tokens -p steps=10

The runs of a profile lie together in a folder, those with other parameters in a folder of their own. What became of a
notebook is in `<name>.result.json`, written last; its fingerprint says whether the same run would give the same again.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from pydantic import TypeAdapter

from entropy_lib.errors import extra
from entropy_lib.files import WORKPLACE, replacing, workplace
from entropy_lib.running.console import say
from entropy_lib.running.fingerprint import fingerprint, versions
from entropy_lib.running.parameters import FOLDER, NOTEBOOKS, Parameters, drawn_images
from entropy_lib.running.profiles import profile_parameters
from entropy_lib.running.readiness import check_ready

with extra("notebooks"):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook


@dataclass(frozen=True)
class Result:
    """What became of one notebook, of which profile, and with which parameters that are not the profile's."""

    name: str
    profile: str
    overrides: dict[str, Any]
    ok: bool
    seconds: float
    fingerprint: str
    error: str = ""
    versions: dict[str, str] = field(default_factory=versions)
    skipped: bool = False

    def write(self, folder: Path) -> None:
        """Keep it in `folder`."""
        with replacing(result_file(self.name, folder)) as temporary:
            temporary.write_bytes(TypeAdapter(Result).dump_json(self, indent=1))


def report_folder() -> Path:
    """Where the report is written by default."""
    return workplace() / "build" / "report"


def run_folder(output: Path, profile: str, overrides: dict[str, Any]) -> Path:
    """The folder, inside that of the report, of all runs of a profile with the same overrides."""
    if not overrides:
        return output / profile
    return output / f"{profile}-{hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:8]}"


def result_file(name: str, folder: Path) -> Path:
    """Where the result of a notebook is kept."""
    return folder / f"{name}.result.json"


def read_result(path: Path) -> Result | None:
    """An earlier result, or None where there is none; one that cannot be read is named and left out, and so is one without its
    executed notebook.
    """
    if not path.exists():
        return None
    executed = path.with_name(path.name.replace(".result.json", ".ipynb"))
    try:
        nbformat.read(executed, as_version=4)
        return TypeAdapter(Result).validate_json(path.read_bytes())
    except Exception as error:  # nbformat has many
        say(f"{path} or {executed.name} cannot be read and is left out ({type(error).__name__}); run the notebook again", "yellow")
        return None


def run(
    names: Sequence[str] = (),
    profile: str = "mini",
    overrides: dict[str, Any] | None = None,
    output: Path | None = None,
    force: bool = False,
    jobs: int | None = None,
) -> list[Result]:
    """Run notebooks; one that fails does not stop the others.

    Args:
        names: notebooks without ending; all by default.
        profile: see `notebooks/profiles/`.
        overrides: parameters that replace those of the profile, in every notebook that has them.
        output: folder of the report; see `run_folder` for where inside it executed notebooks and logs go.
        force: run finished notebooks again.
        jobs: how many run at a time; by default two where there are two processors and no GPU to share.

    Raises:
        EntropyLibError: for any notebook that cannot be run, before the first one starts.
    """
    names, overrides = list(dict.fromkeys(names or NOTEBOOKS)), overrides or {}
    chosen = {name: profile_parameters(name, profile, _meant_for(name, names, overrides)) for name in names}
    folder = run_folder(output or report_folder(), profile, overrides)
    wanted = {name: fingerprint(FOLDER / f"{name}.ipynb", checked) for name, checked in chosen.items()}
    results = {} if force else _finished(folder, wanted)
    for name in chosen.keys() - results.keys():
        check_ready(chosen[name])
    waiting = [
        _Run(name, checked, folder, Result(name, profile, overrides, False, 0.0, wanted[name]))
        for name, checked in chosen.items()
        if name not in results
    ]
    results |= _execute_all(waiting, jobs or _jobs())
    return [results[name] for name in names]


def _meant_for(name: str, names: Sequence[str], overrides: dict[str, Any]) -> dict[str, Any]:
    """Those overrides that a notebook has, and those that none has: to be refused."""
    elsewhere = {field for other in names if other in NOTEBOOKS for field in NOTEBOOKS[other].model_fields}
    own = NOTEBOOKS[name].model_fields if name in NOTEBOOKS else {}
    return {key: value for key, value in overrides.items() if key in own or key not in elsewhere}


def _finished(folder: Path, wanted: dict[str, str]) -> dict[str, Result]:
    earlier = {name: read_result(result_file(name, folder)) for name in wanted}
    same = {name: result for name, result in earlier.items() if result and result.ok and result.fingerprint == wanted[name]}
    for name, result in same.items():
        say(f"{name}: finished before, {result.seconds:.0f} s", "dim")
    return {name: replace(result, skipped=True) for name, result in same.items()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jobs() -> int:
    """Half of a notebook's time goes into imports, tables and figures, which one processor does while the other draws."""
    return 1 if torch.cuda.is_available() else min(2, _cores())


@dataclass(frozen=True)
class _Run:
    """A notebook that is to be executed, and its result so far."""

    name: str
    checked: Parameters
    folder: Path
    result: Result


class _Loop(asyncio.SelectorEventLoop):
    """Leaves Ctrl-C to Python; else the kernel started last would take it, and the next notebook would go on."""

    def add_signal_handler(self, *_) -> None:
        raise NotImplementedError


def _execute_all(runs: Sequence[_Run], jobs: int) -> dict[str, Result]:
    """Execute notebooks, so many at a time, those that draw most first."""
    jobs, environment = min(jobs, len(runs)) or 1, os.environ | {WORKPLACE: str(workplace())}
    if jobs > 1:  # threads of two processes on the same cores would wait for each other
        environment = {"OMP_NUM_THREADS": str(max(1, _cores() // jobs))} | environment

    async def all_of_them() -> list[Result]:
        gate = asyncio.Semaphore(jobs)
        longest_first = sorted(runs, key=lambda run: -drawn_images(run.checked))
        return await asyncio.gather(*(_execute(run, gate, environment) for run in longest_first))

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return {result.name: result for result in runner.run(all_of_them())}


async def _execute(run: _Run, gate: asyncio.Semaphore, environment: dict[str, str]) -> Result:
    async with gate:
        say(f"{run.name} …", "dim")
        run.folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        error = await _error_of_execution(run, environment)
        result = replace(run.result, ok=not error, seconds=time.monotonic() - start, error=error)
        result.write(run.folder)
    if error:
        say(f"{run.name} failed: {error} (see {run.name}.ipynb and .log in {run.folder})", "red")
    else:
        say(f"{run.name}: {result.seconds:.0f} s", "green")
    return result


async def _error_of_execution(run: _Run, environment: dict[str, str]) -> str:
    """Execute, keep the notebook as far as it came, and return in a line what ended it; "" for nothing."""
    notebook = parameterize_notebook(load_notebook_node(str(FOLDER / f"{run.name}.ipynb")), run.checked.model_dump())
    with open(run.folder / f"{run.name}.log", "w", encoding="utf-8") as log:
        options = {"kernel_name": "python3", "timeout": None, "extra_arguments": ["--log-level=ERROR"]}  # quiet about its transport
        client = _Client(log, notebook, resources={"metadata": {"path": str(FOLDER)}}, **options)
        try:
            await client.async_execute(env=environment)
            error = ""
        except CellExecutionError as failure:
            log.write(f"\n{failure}\n")
            error = f"{failure.ename}: {failure.evalue}"
        except Exception as failure:  # a kernel that died; an interruption passes through, and the earlier page stays
            log.write(f"\n{failure}\n")
            error = f"{type(failure).__name__}: {failure}"
    with replacing(run.folder / f"{run.name}.ipynb") as temporary:
        nbformat.write(notebook, temporary)
    return error


class _Client(NotebookClient):
    """Writes what cells print into a log while they run."""

    def __init__(self, printed: TextIO, notebook: nbformat.NotebookNode, **options: Any):
        super().__init__(notebook, **options)
        self.printed = printed

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int):
        """Of nbclient: called for each message of the kernel."""
        if msg["msg_type"] == "stream":
            self.printed.write(msg["content"]["text"])
            self.printed.flush()
        return super().process_message(msg, cell, cell_index)
