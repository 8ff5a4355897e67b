"""Runs the notebooks with papermill: parameters first, failures saved and named, resumed after a stop.

The runs of a profile lie together in a folder, those with other parameters in a folder of their own; so do
what they write. What became of a notebook is in `<name>.result.json`, written last; its fingerprint, which
the folder of output has too, says whether the same run would give the same again.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from pydantic import TypeAdapter

from entropy_lib.cli.console import say
from entropy_lib.cli.fingerprint import fingerprint, versions
from entropy_lib.cli.parameters import (
    FOLDER,
    NOTEBOOKS,
    BrokenNotebookError,
    Parameters,
    claimed,
    image_count,
    parameter_names,
)
from entropy_lib.cli.profiles import output_folder, profile_run
from entropy_lib.cli.sweeps import check_ready
from entropy_lib.errors import InvalidInputError, extra
from entropy_lib.files import WORKPLACE, replacing, workplace

with extra("notebooks"):
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook
    from papermill.iorw import load_notebook_node


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
        """Save it in `folder`."""
        with replacing(result_file(self.name, folder)) as temporary:
            temporary.write_bytes(TypeAdapter(Result).dump_json(self, indent=1))


def report_folder() -> Path:
    """Where the report is written by default."""
    return workplace() / "build" / "report"


def result_file(name: str, folder: Path) -> Path:
    """Where the result of a notebook is saved."""
    return folder / f"{name}.result.json"


def read_result(path: Path) -> Result | None:
    """An earlier result; None where there is none, or it, or its notebook, cannot be read, which is said."""
    if not path.exists():
        return None
    executed = path.with_name(path.name.replace(".result.json", ".ipynb"))
    try:
        nbformat.read(executed, as_version=4)
        return TypeAdapter(Result).validate_json(path.read_bytes())
    except Exception as error:  # nbformat has many
        unreadable = f"{path} or {executed.name} cannot be read and is left out ({type(error).__name__})"
        say(f"{unreadable}; run the notebook again", "yellow")
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
        output: folder of the report; executed notebooks and logs go into its folders, one for all runs of the
            same parameters.
        force: run finished notebooks again.
        jobs: how many run at a time; by default two where there are two processors and no GPU to share.
    """
    names, overrides = list(dict.fromkeys(names or NOTEBOOKS)), overrides or {}
    place = output or report_folder()
    prepared = [_prepared(name, profile, _meant_for(name, names, overrides), place) for name in names]
    results = {one.name: one for one in prepared if isinstance(one, Result)}
    runs = [one for one in prepared if isinstance(one, _Run)]
    _check_alone(runs)
    results |= {} if force else _finished(runs)
    waiting = [run for run in runs if run.name not in results]
    for run in waiting:
        check_ready(run.checked)
    results |= _execute_all(waiting, jobs or _jobs())
    return [results[name] for name in names]


def _meant_for(name: str, names: Sequence[str], overrides: dict[str, Any]) -> dict[str, Any]:
    """Those overrides that a notebook has, and those that none has: to be refused."""
    own, all_own = set(parameter_names(name)), set().union(*map(parameter_names, names))
    return {key: value for key, value in overrides.items() if key in own or key not in all_own}


@dataclass(frozen=True)
class _Run:
    """A notebook that is to be executed, and its result so far."""

    name: str
    checked: Parameters
    notebook: nbformat.NotebookNode
    folder: Path  # of the report, with the pages of all runs of the same parameters
    result: Result


def _prepared(name: str, profile: str, overrides: dict[str, Any], place: Path) -> _Run | Result:
    """What is to be executed; of a broken notebook, which does not stop the others, its result."""
    try:
        asked = profile_run(name, profile, overrides)
        notebook = _readable_notebook(name)
    except BrokenNotebookError as error:
        say(f"{error}; the others run", "red")
        return Result(name, profile, overrides, False, 0.0, "", str(error))
    wanted = fingerprint(FOLDER / f"{name}.ipynb", asked.parameters)
    result = Result(name, profile, asked.changed, False, 0.0, wanted)
    return _Run(name, asked.parameters, notebook, place / asked.name, result)


def _readable_notebook(name: str) -> nbformat.NotebookNode:
    """A notebook; BrokenNotebookError if it is none, or names no kernel of Python."""
    try:
        notebook = load_notebook_node(str(FOLDER / f"{name}.ipynb"))
        nbformat.validate(notebook)
        kernel = notebook.metadata.get("kernelspec", {"language": "not named (no kernelspec)"})
        if (language := kernel.get("language", "python")) != "python":
            raise ValueError(f"its language is {language}, not python")
    except Exception as error:  # nbformat and papermill have many
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BrokenNotebookError(f"{name} is no notebook that can be run: {reason}") from None
    return notebook


def _check_alone(runs: Sequence[_Run]) -> None:
    """InvalidInputError for a folder of output, named by a parameter, that another run has already."""
    taken: dict[Path, dict[str, Any]] = {}
    for run in runs:
        folder, own = workplace() / run.checked.output, run.checked.model_dump(mode="json")
        if run.checked.output != output_folder(run.folder.name, run.name):
            taken.setdefault(folder, claimed(folder).get("parameters", own))
        if taken.setdefault(folder, own) != own:
            shared = f"output is {run.checked.output!r}, which {run.name} would share with a run of other"
            raise InvalidInputError(f"{shared} parameters; name another folder, or remove that one")


def _finished(runs: Sequence[_Run]) -> dict[str, Result]:
    """The results of those that need not run again: page and folder of output are of this very run."""
    same = {}
    for run in runs:
        result = read_result(result_file(run.name, run.folder))
        output = claimed(workplace() / run.checked.output).get("fingerprint")
        if result and result.ok and result.fingerprint == run.result.fingerprint == output:
            say(f"{run.name}: finished before, {result.seconds:.0f} s", "dim")
            same[run.name] = replace(result, skipped=True)
    return same


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jobs() -> int:
    """Half of a notebook's time is imports, tables and figures: one processor, while another generates."""
    return 1 if torch.cuda.is_available() else min(2, _cores())


def _execute_all(runs: Sequence[_Run], jobs: int) -> dict[str, Result]:
    """Execute notebooks, so many at a time, those that generate most first.

    Threads will do, for papermill gives each notebook a process of its own. Whatever ends this early, Ctrl-C
    above all, ends those processes too.
    """
    jobs, environment = min(jobs, len(runs)) or 1, os.environ | {WORKPLACE: str(workplace())}
    if jobs > 1:  # threads of two processes on the same cores would wait for each other
        environment = {"OMP_NUM_THREADS": str(max(1, _cores() // jobs))} | environment
    logging.getLogger("papermill").disabled = True  # what goes wrong is raised
    kernels, longest_first = _Kernels(environment), sorted(runs, key=lambda run: -image_count(run.checked))
    with ThreadPoolExecutor(jobs) as pool, kernels.stopped_by_interruption():
        try:
            futures = [pool.submit(_execute, run, kernels) for run in longest_first]
            # in turns: a Ctrl-C that another thread receives ends no wait of this one
            while (found := wait(futures, timeout=0.2)).not_done and not kernels.stopped:
                for future in found.done:
                    future.result()  # raises what ended it
            if kernels.stopped:
                raise KeyboardInterrupt
            return {result.name: result for result in (future.result() for future in futures)}
        except BaseException:
            kernels.stop(pool)
            raise


class _Kernels:
    """Processes of notebooks in the interpreter that was called, whatever kernelspecs there are."""

    def __init__(self, environment: dict[str, str]):
        self.environment, self.managers, self.stopped = environment, [], False

    def writing_to(self, log: TextIO) -> type[AsyncKernelManager]:
        """The class of a manager whose process writes its own errors into `log`."""
        kernels, own = self, KernelSpecManager(kernel_dirs=[])

        class Manager(AsyncKernelManager):
            def __init__(self, **options: Any):
                super().__init__(**options | {"kernel_spec_manager": own})
                kernels.managers.append(self)

            async def start_kernel(self, **options: Any) -> None:
                await super().start_kernel(env=kernels.environment, stderr=log, **options)
                if kernels.stopped:
                    await self.provisioner.kill()

            async def _async_interrupt_kernel(self) -> None:
                """Not before a shutdown: jupyter_client interrupts idle kernels too, and some log that as an
                error of theirs.
                """
                if not self.shutting_down:
                    await super()._async_interrupt_kernel()

        return Manager

    @contextmanager
    def stopped_by_interruption(self) -> Iterator[None]:
        """Within the block Ctrl-C sets `stopped`, however often it is pressed, and raises nothing.

        An exception could come anywhere: where Python ignores it, or, by a second Ctrl-C, before the
        processes are ended, whose notebooks would then be waited for.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # no other thread is interrupted, nor may it ask for that
            return
        earlier = signal.signal(signal.SIGINT, lambda *_: setattr(self, "stopped", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, earlier)

    def stop(self, pool: ThreadPoolExecutor) -> None:
        """End every process at once, with those that it started; one that is just beginning ends then."""
        self.stopped = True
        for manager in self.managers:
            if provisioner := manager.provisioner:
                asyncio.run(provisioner.kill())
        pool.shutdown(cancel_futures=True)


def _execute(run: _Run, kernels: _Kernels) -> Result:
    say(f"{run.name} …", "dim")
    run.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    error = _error_of_execution(run, kernels)
    result = replace(run.result, ok=not error, seconds=time.monotonic() - start, error=error)
    if result.ok:
        run.checked.claim(fingerprint=result.fingerprint)
    result.write(run.folder)
    if error:
        say(f"{run.name} failed: {error} (see {run.name}.ipynb and .log in {run.folder})", "red")
    else:
        say(f"{run.name}: {result.seconds:.0f} s", "green")
    return result


def _error_of_execution(run: _Run, kernels: _Kernels) -> str:
    """Execute, save the notebook as far as it came, and return in a line what ended it; "" for nothing.

    Where all was stopped the earlier page stays.
    """
    page = run.folder / f"{run.name}.ipynb"
    with (
        replacing(page) as temporary,
        replacing(page.with_suffix(".log")) as printed,
        open(printed, "w", encoding="utf-8") as log,
    ):
        try:
            options = {"kernel_name": "python3", "kernel_manager_class": kernels.writing_to(log)}
            options |= {"stdout_file": log, "stderr_file": log, "extra_arguments": ["--log-level=ERROR"]}
            options |= {"resources": {"metadata": {"path": str(FOLDER)}}, "progress_bar": False}
            # papermill puts parameters into names
            place = str(temporary).replace("{", "{{").replace("}", "}}")
            execute_notebook(run.notebook, place, run.checked.model_dump(), **options)
        except OSError:  # of the disk
            raise
        except Exception as failure:  # of a cell, or a process that died
            if kernels.stopped:
                raise
            log.write(f"\n{failure}\n")
            if isinstance(failure, PapermillExecutionError):
                return f"{failure.ename}: {failure.evalue}"
            return f"{type(failure).__name__}: {failure}"
    return ""
