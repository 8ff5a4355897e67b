"""`python -m entropy_lib sweep plan | sample | status | reduce`: notebook 06 without the notebook, for a cluster."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import workplace
from entropy_lib.running.console import console, interactive, say
from entropy_lib.running.parameters import MetricTables
from entropy_lib.running.profiles import overrides, profile_parameters
from entropy_lib.sweep import engines
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.store import Store

NOTEBOOK = "06_metric_tables"

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

Profile = Annotated[str, typer.Option(help="A file of notebooks/profiles/; its section 06_metric_tables says what to draw.")]
Values = Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")]


@app.command()
def plan(profile: Profile = "mini", parameter: Values = None, measure: bool = True) -> None:
    """Write down what is to be drawn, and print what it costs: images, hours, bytes."""
    from entropy_lib.running.metric_tables import plan_of
    from entropy_lib.running.readiness import check_device
    from entropy_lib.sweep.cost import estimate

    checked = _checked(profile, parameter)
    check_device(checked.device)
    made, store = plan_of(checked), Store(checked.folder_of_store())
    path = made.write(store.folder)
    table = Table("size", "images", "seconds an image", "hours", "MB", box=None, title_justify="left")
    for row in estimate(made, store, batch=checked.batch, device=checked.device, measure=measure).itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    console.print(table, soft_wrap=True)
    say(f"\n{len(made.units):,} images, plan in {_shown(path)}")
    _warn_of_other_versions(made, store)


@app.command()
def sample(
    profile: Profile = "mini",
    parameter: Values = None,
    shard: Annotated[str, typer.Option(help="i/n: draw every n-th batch. By default what SLURM or torchrun say, else all.")] = "",
    engine: Annotated[str, typer.Option(help="local: this process; ray: workers of a Ray cluster.")] = "local",
    workers: Annotated[int, typer.Option(help="Of the engine ray.")] = 1,
) -> None:
    """Draw what the store has not; may be stopped and started again at any time, in as many processes as one likes."""
    from entropy_lib.running.readiness import check_device, check_weights

    checked = _checked(profile, parameter)
    if engine not in engines.ENGINES:
        raise UnknownNameError("engine", engine, engines.ENGINES)
    check_device(checked.device)
    check_weights(checked.model)
    part = engines.parse_shard(shard) if shard else engines.shard_of_environment()
    store = Store(checked.folder_of_store())
    groups = _plan_of(checked).groups(checked.batch, part)
    store.clean()
    drawn = engines.ENGINES[engine](groups, store, device=checked.device, workers=workers, progress=interactive())
    say(f"{drawn:,} images drawn")


@app.command()
def status(profile: Profile = "mini", parameter: Values = None, verify: bool = False) -> None:
    """How much of each cell is there; with --verify every image is read and damaged ones are put aside."""
    checked = _checked(profile, parameter)
    store, made = Store(checked.folder_of_store()), _plan_of(checked)
    for problem in store.verify(made.units) if verify else []:
        say(problem, "red")
    done = store.committed()
    table = Table("size", "rule", "done", "of", box=None, title_justify="left")
    for (size, rule), units in made.cells.items():
        table.add_row(size, Text(rule), f"{sum(unit.key in done for unit in units):,}", f"{len(units):,}")
    console.print(table)
    _warn_of_other_versions(made, store)


@app.command()
def reduce(profile: Profile = "mini", parameter: Values = None) -> None:
    """Make the metric tables of what has been drawn, into the profile's output folder."""
    from entropy_lib.running.metric_tables import comparison_of
    from entropy_lib.sweep.reduce import metric_tables

    checked = _checked(profile, parameter)
    tables = metric_tables(comparison_of(checked, _plan_of(checked)), say)
    for path in tables.write(checked.folder()):
        say(_shown(path))


def _checked(profile: str, parameter: list[str] | None) -> MetricTables:
    return profile_parameters(NOTEBOOK, profile, overrides(parameter or []))


def _plan_of(checked: MetricTables) -> Plan:
    """The plan in the store, if it is the one that these parameters ask for."""
    made = Plan.read(checked.folder_of_store())
    first = made.units[0]
    there = {
        "model": first.model,
        "steps": first.steps,
        "guidance": first.guidance,
        "sizes": made.sizes,
        "prompt_count": len({unit.prompt for unit in made.units}),
        "seeds_per_prompt": len({unit.seed for unit in made.units}),
    }
    if made.sizes != [made.native]:  # where no rule shows
        there["rules"] = made.rules
    for name, value in there.items():
        if (asked := getattr(checked, name)) != value:
            raise ValueError(f"{name} is {asked}, but the plan in the store was made with {value}; give all commands the same")
    return made


def _shown(path: Path) -> str:
    return str(path.relative_to(workplace()) if path.is_relative_to(workplace()) else path)


def _warn_of_other_versions(made: Plan, store: Store) -> None:
    for version, count in store.other_versions(made.units[0].library).items():
        say(f"{count:,} images here were drawn by entropy_lib {version}; they are not used", "yellow")
