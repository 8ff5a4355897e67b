"""The command line: `python -m entropy_lib run | site | parameters | sweep | study | calibrate | doctor`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from entropy_lib.running import study_commands, sweep_commands
from entropy_lib.running.console import console, say, say_error
from entropy_lib.running.interruption import interruptible


class _Commands(typer.core.TyperGroup):
    """All commands; typer alone would end an interrupted one without a word."""

    def invoke(self, ctx: typer.Context) -> Any:
        with interruptible():
            return super().invoke(ctx)


LOOKS = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
app = typer.Typer(cls=_Commands, no_args_is_help=True, help=__doc__, **LOOKS)
app.add_typer(sweep_commands.app, name="sweep")
app.add_typer(study_commands.app, name="study")


def _print_version(wanted: bool) -> None:
    from entropy_lib import __version__

    if wanted:
        say(f"entropy_lib {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Say which.")] = False,
) -> None:
    """What happens to the attention of a diffusion model at a size it was not trained for."""


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Notebook names without ending; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="A file of notebooks/profiles/, without ending.")] = "mini",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report; build/report by default.")] = None,
    force: Annotated[bool, typer.Option(help="Run finished notebooks again.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="How many run at a time; two, or one with a GPU.")] = None,
    build: Annotated[bool, typer.Option("--site/--no-site", help="Build the site of the report, or leave it to `site`.")] = True,
) -> None:
    """Run notebooks and add them to the report."""
    from entropy_lib.files import check_writable
    from entropy_lib.running.profiles import overrides
    from entropy_lib.running.runner import report_folder
    from entropy_lib.running.runner import run as run_notebooks

    values, place = overrides(parameter or []), output or report_folder()
    check_writable("--output", place)
    results = run_notebooks(notebooks or (), profile, values, place, force, jobs)
    if build:
        site(place)
    if failed := [result.name for result in results if not result.ok]:
        say(f"failed: {', '.join(failed)}", "red")
        raise typer.Exit(1)


@app.command()
def site(
    output: Annotated[Path | None, typer.Option(help="Folder of the report; build/report by default.")] = None,
) -> None:
    """Build the site of all that was run; only what changed is built again."""
    from entropy_lib.files import check_writable
    from entropy_lib.running.runner import report_folder
    from entropy_lib.running.site import write_report

    place = output or report_folder()
    check_writable("--output", place)
    say(f"report: {write_report(place)}")


@app.command()
def parameters(
    notebook: Annotated[str, typer.Argument(help="Its name without ending.")],
    profile: Annotated[str, typer.Option(help="A file of notebooks/profiles/, without ending.")] = "mini",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")] = None,
) -> None:
    """Print the checked parameters of a notebook as YAML: a file for papermill's -f."""
    import yaml

    from entropy_lib.running.profiles import overrides, profile_parameters

    values = profile_parameters(notebook, profile, overrides(parameter or [])).model_dump()
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a folder.")],
    prompts: Annotated[str, typer.Option(help="A list of data/prompts/, or a text file, one prompt a line.")] = "general",
    prompt_count: Annotated[int, typer.Option(min=1, help="How many of them, each drawn once at native size.")] = 24,
    output: Annotated[Path | None, typer.Option(help="build/calibrations/MODEL.json by default.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16.")] = "auto",
) -> None:
    """Measure what equal-entropy(layers), bridge and ultraimage need to know of a model; notebook 10 takes the file."""
    from entropy_lib.errors import InvalidInputError
    from entropy_lib.experiments.calibration import calibrate as measure
    from entropy_lib.files import check_writable, workplace
    from entropy_lib.models.catalogue import check_device, check_weights, load, resolve_device, resolve_dtype
    from entropy_lib.running.parameters import first_prompts

    check_weights(model)
    place = output or workplace() / "build" / "calibrations" / f"{Path(model).name}.json"
    check_writable("--output", place.parent)
    if place.is_dir():
        raise InvalidInputError(f"--output is {str(place)!r}, where a folder lies; name a file, as {str(place / 'own.json')!r}")
    check_device(device)
    chosen = first_prompts(prompts, prompt_count)
    resolve_dtype(dtype, resolve_device(device), model)
    found = measure(load(model, device=device, dtype=dtype), chosen, range(len(chosen)), batch=batch)
    say(f"{found.write(place)}: {len(found.layers)} layers, {found.source}; use it with -p calibration={place}")


@app.command()
def readme(
    keep: Annotated[str | None, typer.Option(help="First copy the tables that this profile's run wrote to data/results/.")] = None,
) -> None:
    """Write README's table of results from the tables in data/results/."""
    from entropy_lib.files import ROOT, check_writable, workplace
    from entropy_lib.running import results

    check_writable("README.md", ROOT)
    results.read_readme()  # refused before anything is copied, where it cannot be read
    if keep is not None:
        results.keep(keep, workplace() / "build" / "output" / keep)
    results.write_readme()


@app.command()
def doctor() -> None:
    """Say what this machine has, and which models and profiles it can run."""
    from rich.table import Table
    from rich.text import Text

    from entropy_lib.running.doctor import machine, report

    facts = Table(show_header=False, box=None)
    for name, value in machine():
        facts.add_row(name, Text(value))
    console.print(facts)
    for kind, verdicts in report().items():
        table = Table(kind, "runs", "why", box=None, title_justify="left")
        for verdict in verdicts:
            runs = Text("yes", "green") if verdict.runs else Text("no", "red")
            table.add_row(Text(verdict.name), runs, Text(verdict.reason))
        console.print("", table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what the library refuses ends in one line and exit status 2, a bug in its traceback.

    Args:
        arguments: those of the process by default.
    """
    from entropy_lib.errors import EntropyLibError
    from entropy_lib.files import disk_words

    try:
        with disk_words():
            app(args=arguments)
    except EntropyLibError as error:
        say_error(error)
        raise SystemExit(2) from None
