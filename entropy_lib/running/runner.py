"""Runs the notebooks with papermill: parameters checked first, failures kept and named, resumed after an interruption.

    python -m entropy_lib run                       # all notebooks on profile mini, into build/report/
    python -m entropy_lib run 03_entropy_vs_tokens -p steps=10

A notebook is finished when its marker `<name>.done.json` exists, written last. The marker holds a fingerprint of the
notebook, its parameters, the library and the model, so a second run repeats only what has changed.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import papermill
from rich.console import Console

from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.running.parameters import NOTEBOOKS, Parameters
from entropy_lib.running.profiles import profile_parameters

FOLDER = ROOT / "notebooks"
REPORT = ROOT / "build" / "report"

console = Console()


@dataclass(frozen=True)
class Result:
    """What became of one notebook."""

    name: str
    ok: bool
    seconds: float
    error: str = ""
    skipped: bool = False


def run(
    names: Sequence[str] = (), profile: str = "mini", overrides: dict | None = None, output: Path = REPORT, force: bool = False
) -> list[Result]:
    """Run notebooks one after another; one that fails does not stop the others.

    Args:
        names: notebooks without ending; all by default.
        profile: see `notebooks/profiles/`.
        overrides: parameters that replace those of the profile, in every notebook that has them.
        output: folder for executed notebooks, logs and markers.
        force: run finished notebooks again.

    Raises:
        UnknownNameError, ParameterError: for any notebook, before the first one runs.
    """
    names = list(names or NOTEBOOKS)
    chosen = {name: profile_parameters(name, profile, _meant_for(name, names, overrides or {})) for name in names}
    output.mkdir(parents=True, exist_ok=True)
    return [_run_one(name, checked, output, force) for name, checked in chosen.items()]


def _meant_for(name: str, names: Sequence[str], overrides: dict) -> dict:
    """Those overrides that a notebook has, and those that none has: to be refused."""
    elsewhere = {field for other in names if other in NOTEBOOKS for field in NOTEBOOKS[other].model_fields}
    own = NOTEBOOKS[name].model_fields if name in NOTEBOOKS else {}
    return {key: value for key, value in overrides.items() if key in own or key not in elsewhere}


def fingerprint(name: str, checked: Parameters) -> str:
    """sha256 of everything that decides what a notebook computes."""
    digest = hashlib.sha256((FOLDER / f"{name}.ipynb").read_bytes())
    digest.update(json.dumps(checked.model_dump(), sort_keys=True).encode())
    for path in [
        *sorted((ROOT / "entropy_lib").rglob("*.py")),
        *sorted(DATA.glob("*/SHA256SUMS")),
        *sorted(DATA.glob("*/quality.json")),
        *sorted(DATA.glob("prompts/*")),
        *sorted(DATA.glob("paper/*.csv")),
        *sorted(DATA.glob("results/**/*.csv")),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def marker(name: str, output: Path) -> Path:
    """The file that says a notebook has finished."""
    return output / f"{name}.done.json"


def _run_one(name: str, checked: Parameters, output: Path, force: bool) -> Result:
    mark, wanted = marker(name, output), fingerprint(name, checked)
    if not force and mark.exists():
        earlier = json.loads(mark.read_text())
        if earlier.pop("fingerprint") == wanted:
            console.print(f"[dim]{name}: finished before, {earlier['seconds']:.0f} s[/dim]")
            return Result(**earlier | {"skipped": True})
    mark.unlink(missing_ok=True)
    result = _execute(name, checked, output)
    if result.ok:
        with replacing(mark) as temporary:
            temporary.write_text(json.dumps(asdict(result) | {"fingerprint": wanted}, indent=1))
        console.print(f"[green]{name}: {result.seconds:.0f} s[/green]")
    else:
        console.print(f"[red]{name} failed: {result.error}[/red] (see {output.name}/{name}.ipynb and .log)")
    return result


def _execute(name: str, checked: Parameters, output: Path) -> Result:
    start, executed = time.monotonic(), output / f"{name}.ipynb"
    with open(output / f"{name}.log", "w") as log:
        try:
            papermill.execute_notebook(
                FOLDER / f"{name}.ipynb",
                executed,
                parameters=checked.model_dump(),
                kernel_name="python3",
                cwd=FOLDER,
                stdout_file=log,
                stderr_file=log,
                progress_bar={"desc": name, "leave": False},
                extra_arguments=["--log-level=ERROR"],  # of the kernel, which else warns about its transport
            )
        except papermill.PapermillExecutionError as error:
            log.write(f"\n{error}\n")
            return Result(name, False, time.monotonic() - start, f"{error.ename}: {error.evalue}")
        except Exception as error:  # a kernel that died; KeyboardInterrupt passes through and leaves no marker
            log.write(f"\n{error}\n")
            return Result(name, False, time.monotonic() - start, f"{type(error).__name__}: {error}")
    return Result(name, True, time.monotonic() - start)


def read_executed(name: str, output: Path) -> nbformat.NotebookNode:
    """The executed notebook of an earlier run."""
    return nbformat.read(output / f"{name}.ipynb", as_version=4)
