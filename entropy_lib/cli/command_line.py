"""The command line: `python -m entropy_lib run | site | parameters | sweep | study | calibrate | doctor`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import yaml
from rich.table import Table
from rich.text import Text

import entropy_lib as el  # by which all is called that is slow to import, or of an extra
from entropy_lib.cli.console import console, say, say_error
from entropy_lib.cli.doctor import machine, report
from entropy_lib.cli.interruption import interruptible
from entropy_lib.cli.parameters import NOTEBOOKS, Sweep, first_prompts, parameter_names
from entropy_lib.cli.profiles import overrides, profile_parameters
from entropy_lib.errors import EntropyLibError, InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT, check_writable, disk_words, replacing, workplace
from entropy_lib.models import catalogue
from entropy_lib.study.answers import Checked, check_answers
from entropy_lib.study.design import KEY, TITLE, Study
from entropy_lib.study.reading import read_answers
from entropy_lib.sweep import engines
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.store import Store


class _Commands(typer.core.TyperGroup):
    """All commands; typer alone would end an interrupted one without a word."""

    def invoke(self, ctx: typer.Context) -> Any:
        with interruptible():
            return super().invoke(ctx)


LOOKS = {"no_args_is_help": True, "rich_markup_mode": None}
SWEEP = "`sweep plan | sample | status | reduce`: notebooks 06 and 08 to 11 without the notebook."
STUDY = "`study make | check | analyse`: a pairwise user study of the images of a sweep."
app = typer.Typer(cls=_Commands, help=__doc__, add_completion=False, pretty_exceptions_enable=False, **LOOKS)
sweep, study = typer.Typer(help=SWEEP, **LOOKS), typer.Typer(help=STUDY, **LOOKS)
app.add_typer(sweep, name="sweep")
app.add_typer(study, name="study")

DEFAULT = "06_metric_tables"


def _option(kind: Any, text: str, *names: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, **more)]


def _argument(kind: Any, text: str) -> Any:
    return Annotated[kind, typer.Argument(help=text)]


Profile = _option(str, "A file of notebooks/profiles/, without ending.")
Values = _option(list[str] | None, "name=value, read as YAML; may be repeated.", "-p")
Report = _option(Path | None, "Folder of the report; build/report by default.")
Notebook = _option(str, "Whose section: 06_metric_tables or another that measures images.")
Folder = _argument(Path, "Of the study, with its key study.json.")
Answers = _argument(Path, "The folder with the files that raters saved, or one file.")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"entropy_lib {el.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: _option(bool, "Say which.", "--version", is_eager=True, callback=_print_version) = False,
) -> None:
    """What happens to the attention of a diffusion model at a size it was not trained for."""


@app.command()
def run(
    notebooks: _argument(list[str] | None, "Names without ending; all by default.") = None,
    profile: Profile = "mini",
    parameter: Values = None,
    output: Report = None,
    force: _option(bool, "Run finished notebooks again.") = False,
    jobs: _option(int | None, "How many at a time; two, or one with a GPU.", min=1) = None,
    build: _option(bool, "Build the site, or leave it to `site`.", "--site/--no-site") = True,
) -> None:
    """Run notebooks and add them to the report."""
    values, place = overrides(parameter or []), output or el.cli.runner.report_folder()
    _check({"--output": place})
    results = el.cli.runner.run(notebooks or (), profile, values, place, force, jobs)
    if build:
        site(place)
    if failed := [result.name for result in results if not result.ok]:
        say(f"failed: {', '.join(failed)}", "red")
        raise typer.Exit(1)


@app.command()
def site(output: Report = None) -> None:
    """Build the site of all that was run; only what changed is built again."""
    place = output or el.cli.runner.report_folder()
    _check({"--output": place})
    say(f"report: {el.cli.site.write_report(place)}")


@app.command()
def parameters(
    notebook: _argument(str, "Its name without ending."), profile: Profile = "mini", parameter: Values = None
) -> None:
    """Print the checked parameters of a notebook as YAML: a file for papermill's -f."""
    values = profile_parameters(notebook, profile, overrides(parameter or [])).model_dump()
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def calibrate(
    model: _argument(str, "A name of the catalogue, or a folder."),
    prompts: _option(str, "A list of data/prompts/, or a text file, one a line.") = "general",
    prompt_count: _option(int, "How many, each once at native size.", min=1) = 24,
    output: _option(Path | None, "build/calibrations/MODEL.json by default.") = None,
    batch: _option(int, "Images generated together.", min=1) = 4,
    device: _option(str, "auto, cpu, cuda, mps.") = "auto",
    dtype: _option(str, "auto, float32, float16, bfloat16.") = "auto",
) -> None:
    """Measure what equal-entropy needs to know of a model; notebook 11 takes the file."""
    place = output or workplace() / "build" / "calibrations" / f"{Path(model).name}.json"
    _check({"--output": place.parent}, device, model)
    if place.is_dir():
        own = str(place / "own.json")
        raise InvalidInputError(f"--output is {str(place)!r}, where a folder lies; name a file, as {own!r}")
    chosen = first_prompts(prompts, prompt_count)
    catalogue.resolve_dtype(dtype, catalogue.resolve_device(device), model)
    pipe = catalogue.load(model, device=device, dtype=dtype)
    found = el.sampling.calibrate(pipe, chosen, range(len(chosen)), batch=batch)
    say(f"{found.write(place)}: {len(found.layers)} layers, {found.source}")
    say(f"use it with -p calibration={place}")


@app.command()
def results(
    keep: _option(str | None, "First copy the tables of this profile's run to data/results/.") = None,
) -> None:
    """Write docs/results.md and its figures from the tables in data/results/."""
    _check({"docs/results.md": ROOT / "docs"})
    el.cli.results.check_checkout()  # refused before anything is copied
    if keep is not None:
        el.cli.results.keep(keep, workplace() / "build" / "output" / keep)
    el.cli.results.write_page()


@app.command()
def doctor() -> None:
    """Say what this machine has, and which models and profiles it can run."""
    _show(pd.DataFrame(machine().items()), header=False)
    for kind, verdicts in report().items():
        say("")
        rows = pd.DataFrame(verdicts, columns=[kind, "runs", "why"])
        _show(rows.assign(runs=rows.runs.map({True: "yes", False: "no"})), wrapped=True)


@sweep.command()
def plan(
    profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT, measure: bool = True
) -> None:
    """Say what is to be generated, and what it costs: images, hours, bytes."""
    checked = _sweep(notebook, profile, parameter)
    _check({"store": checked.folder_of_store()}, device=checked.device)
    chosen, store = el.cli.plan_of(checked), el.cli.store_of(checked)
    costs = engines.estimate(chosen, store, batch=checked.batch, device=checked.device, measure=measure)
    _show(costs.set_axis(["size", "images", "seconds an image", "hours", "MB"], axis=1))
    say(f"\n{len(chosen.units):,} images")
    _say_what_is_not_used(chosen, store)


@sweep.command()
def sample(
    profile: Profile = "mini",
    parameter: Values = None,
    notebook: Notebook = DEFAULT,
    shard: _option(str, "i/n: every n-th batch; else what SLURM or torchrun say, or all.") = "",
    engine: _option(str, "local: this process; ray: workers of a Ray cluster.") = "local",
    workers: _option(int, "Of the engine ray.", min=1) = 1,
) -> None:
    """Generate what the store has not; may be stopped and started again, in as many processes as you like."""
    checked = _sweep(notebook, profile, parameter)
    if engine not in engines.ENGINES:
        raise UnknownNameError("engine", engine, engines.ENGINES)
    _check({"store": checked.folder_of_store()}, checked.device, checked.model)
    part = engines.parse_shard(shard) if shard else engines.shard_of_environment()
    groups, store = el.cli.plan_of(checked).groups(checked.batch, part), el.cli.store_of(checked)
    store.clean()
    try:
        drawn = engines.ENGINES[engine](groups, store, device=checked.device, workers=workers)
    except KeyboardInterrupt:
        keys = {unit.key for group in groups for unit in group}
        safe = f"{len(keys & store.committed()):,} of {len(keys):,} images are safe"
        raise KeyboardInterrupt(f"{safe}, the same command generates the others") from None
    say(f"{drawn:,} images generated")


@sweep.command()
def status(
    profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT, verify: bool = False
) -> None:
    """How much of each cell is there; with --verify every image is read and damaged ones are put aside."""
    checked = _sweep(notebook, profile, parameter)
    store, chosen = Store(checked.folder_of_store()), el.cli.plan_of(checked)
    for problem in store.verify(chosen.units) if verify else []:
        say(problem, "red")
    done = store.committed()
    counts = [(sum(unit.key in done for unit in units), len(units)) for units in chosen.cells.values()]
    rows = [(*cell, *map("{:,}".format, count)) for cell, count in zip(chosen.cells, counts, strict=True)]
    _show(pd.DataFrame(rows, columns=["size", "method", "done", "of"]))
    _say_what_is_not_used(chosen, store)


@sweep.command()
def reduce(profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT) -> None:
    """Make the metric tables of the images that are there, into the output folder of these parameters."""
    checked = _sweep(notebook, profile, parameter)
    _check({"output": workplace() / checked.output, "store": checked.folder_of_store()})
    tables = el.sweep.evaluate(el.cli.comparison_of(checked, el.cli.plan_of(checked)), say)
    for path in tables.write(checked.folder()):
        say(_shown(path))


@study.command()
def make(
    profile: _option(str, "Whose section 08_user_study says what is generated and asked.") = "mini",
    parameter: Values = None,
    output: _option(Path | None, "Folder of the study; build/study/PROFILE by default.") = None,
    title: _option(str, "Of the page.") = TITLE,
) -> None:
    """Generate what is missing, choose and blind pairs, and write the page for raters and the secret key."""
    checked = _sweep("08_user_study", profile, parameter)
    place = output or workplace() / "build" / "study" / profile
    _check({"--output": place, "store": checked.folder_of_store()}, checked.device, checked.model)
    chosen, store = el.cli.plan_of(checked), el.cli.store_of(checked)
    engines.local(chosen.groups(checked.batch), store, device=checked.device)
    made = el.cli.study_of(checked, chosen, store)
    say(f"{len(made.pairs)} pairs, {checked.catch_trials} of them catch trials: {', '.join(made.methods)}")
    say(f"for raters: {el.study.write_page(made, place, title)}")
    say(f"for you alone: {place / KEY}")


@study.command()
def check(folder: Folder, answers: Answers) -> Checked:
    """Say which answers can be used, and what is left out and why."""
    checked = check_answers(Study.read(folder), read_answers(answers))
    _show(checked.raters)
    if len(checked.excluded):
        _show(checked.excluded)
    say(f"{len(checked.answers):,} answers of {int(checked.raters.used.sum())} raters can be used")
    return checked


@study.command()
def analyse(folder: Folder, answers: Answers, level: _option(float, "Of the intervals.") = 0.95) -> None:
    """Say how much better each method is, with intervals over raters and prompts; write tables."""
    _check({"folder": folder})
    used = check(folder, answers).answers
    found = {"comparison": el.study.compare(used, level)}
    if used.first_score.notna().any():
        found["mean_scores"] = el.study.mean_scores(used, level)
    for name, table in found.items():
        _show(table.round(3))
        with replacing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8")
        say(f"{folder / name}.csv")
    say(f"left side favoured by {el.study.side_bias(used, level)}")


def _check(writable: dict[str, Path], device: str | None = None, model: str | None = None) -> None:
    """An error unless the folders can be written to, the device used, and the model loaded."""
    for name, folder in writable.items():
        check_writable(name, folder)
    if device is not None:
        catalogue.check_device(device)
    if model is not None:
        catalogue.check_weights(model)


def _sweep(notebook: str, profile: str, parameter: list[str] | None) -> Sweep:
    """The parameters of a notebook that has one plan, from a profile and what was set by `-p`."""
    names = {name: parameter_names(name) for name in NOTEBOOKS}
    able = [name for name, own in names.items() if "store" in own and "methods_below" not in own]  # one plan
    if notebook not in able:
        raise UnknownNameError("notebook", notebook, able)
    return profile_parameters(notebook, profile, overrides(parameter or []))


def _shown(path: Path) -> str:
    return str(path.relative_to(workplace()) if path.is_relative_to(workplace()) else path)


def _say_what_is_not_used(chosen: Plan, store: Store) -> None:
    if others := len(store.committed() - {unit.key for unit in chosen.units}):
        say(f"{others:,} other images here are not of this plan (other values, or another version)")


def _show(table: pd.DataFrame, header: bool = True, wrapped: bool = False) -> None:
    """Print a table; long cells are uncut, or in several lines."""
    shown = Table(*map(str, table.columns), box=None, show_header=header)
    for row in table.itertuples(index=False):
        shown.add_row(*(Text("–" if pd.isna(value) else str(value)) for value in row))
    console.print(shown, soft_wrap=not wrapped)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: what the library refuses is one line and exit status 2, a bug a traceback."""
    try:
        with disk_words():
            app(args=arguments)
    except EntropyLibError as error:
        say_error(error)
        raise SystemExit(2) from None
