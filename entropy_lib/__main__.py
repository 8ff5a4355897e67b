"""The command line: `python -m entropy_lib run` and `python -m entropy_lib doctor`."""

import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
import yaml

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Notebook names without ending; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="A file of notebooks/profiles/, without ending.")] = "mini",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report; build/report by default.")] = None,
    force: Annotated[bool, typer.Option(help="Run finished notebooks again.")] = False,
) -> None:
    """Run notebooks and write the report site."""
    from entropy_lib.report import write_report
    from entropy_lib.runner import REPORT, console
    from entropy_lib.runner import run as run_notebooks

    output = output or REPORT
    try:
        results = run_notebooks(notebooks or (), profile, _overrides(parameter or []), output, force)
    except ValueError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(2) from None
    console.print(f"report: {write_report(results, profile, output)}", soft_wrap=True)
    if failed := [result.name for result in results if not result.ok]:
        console.print(f"[red]failed: {', '.join(failed)}[/red]")
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what this machine has, and which models can run here."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in _machine():
        table.add_row(name, value)
    Console().print(table)


def _overrides(texts: list[str]) -> dict:
    """{"steps": 10} from ["steps=10"]."""
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"{text!r} is not written as name=value", param_hint="-p")
        values[name] = yaml.safe_load(value)
    return values


def _machine() -> list[tuple[str, str]]:
    import torch

    from entropy_lib.errors import WeightsError
    from entropy_lib.files import ROOT
    from entropy_lib.models import CATALOGUE, local_folder, verify

    packages = ("torch", "torchvision", "diffusers", "transformers", "papermill", "jupyterlab")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; models run on the CPU"
    rows = [
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("packages", ", ".join(f"{name} {metadata.version(name)}" for name in packages)),
        ("CUDA device", cuda),
        ("threads", str(torch.get_num_threads())),
        ("free disk", f"{shutil.disk_usage(ROOT).free / 1e9:.0f} GB"),
    ]
    for name in CATALOGUE:
        folder = local_folder(name)
        try:
            state = "not in data/; taken from the Hub or its local cache" if folder is None else (verify(folder) or "ready")
        except WeightsError as error:
            state = str(error)
        rows.append((f"model {name}", state))
    return rows


if __name__ == "__main__":
    app()
