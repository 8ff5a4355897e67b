"""The command line: `python -m entropy_lib run | sweep | doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from entropy_lib.running import sweep_commands

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(sweep_commands.app, name="sweep")


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Notebook names without ending; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="A file of notebooks/profiles/, without ending.")] = "mini",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report; build/report by default.")] = None,
    force: Annotated[bool, typer.Option(help="Run finished notebooks again.")] = False,
) -> None:
    """Run notebooks and write the report site."""
    from entropy_lib.running.profiles import overrides
    from entropy_lib.running.runner import REPORT, console
    from entropy_lib.running.runner import run as run_notebooks
    from entropy_lib.running.site import write_report

    output = output or REPORT
    try:
        results = run_notebooks(notebooks or (), profile, overrides(parameter or []), output, force)
    except ValueError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(2) from None
    console.print(f"report: {write_report(results, profile, output)}", soft_wrap=True)
    if failed := [result.name for result in results if not result.ok]:
        console.print(f"[red]failed: {', '.join(failed)}[/red]")
        raise typer.Exit(1)


@app.command()
def readme(
    keep: Annotated[str | None, typer.Option(help="First copy the tables that this profile's run wrote to data/results/.")] = None,
) -> None:
    """Write README's table of results from the tables in data/results/."""
    from entropy_lib.files import workplace
    from entropy_lib.running import results

    if keep is not None:
        results.keep(keep, workplace() / "build" / "output" / keep)
    results.write_readme()


@app.command()
def doctor() -> None:
    """Say what this machine has, and which models and profiles it can run."""
    from rich.console import Console
    from rich.table import Table

    from entropy_lib.running.doctor import machine, report

    console, facts = Console(), Table(show_header=False, box=None)
    for name, value in machine():
        facts.add_row(name, value)
    console.print(facts)
    for kind, verdicts in report().items():
        table = Table(kind, "runs", "why", box=None, title_justify="left")
        for verdict in verdicts:
            table.add_row(verdict.name, "[green]yes[/green]" if verdict.runs else "[red]no[/red]", verdict.reason)
        console.print("", table)


def main() -> None:
    """Run the command line; bad input and missing weights end in one line, not in a traceback."""
    from rich.console import Console

    from entropy_lib.errors import WeightsError
    from entropy_lib.sweep.store import DamagedImageError

    try:
        app()
    except (ValueError, OSError, ImportError, WeightsError, DamagedImageError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
