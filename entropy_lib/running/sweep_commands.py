"""`python -m entropy_lib sweep plan | sample | status | reduce`: notebooks 06, 09 and 10 without the notebook, for a cluster."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import workplace
from entropy_lib.running.console import console, interactive, say
from entropy_lib.running.parameters import NOTEBOOKS, Sweep, parameter_names
from entropy_lib.running.profiles import overrides, profile_parameters
from entropy_lib.sweep import engines
from entropy_lib.sweep.plan import FILE, Plan
from entropy_lib.sweep.store import Store

DEFAULT = "06_metric_tables"

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

Profile = Annotated[str, typer.Option(help="A file of notebooks/profiles/; its section of the notebook says what to draw.")]
Notebook = Annotated[str, typer.Option(help="Whose section: 06_metric_tables, 09_layout_metrics or 10_causes.")]
Values = Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")]


@app.command()
def plan(profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT, measure: bool = True) -> None:
    """Write down what is to be drawn, and print what it costs: images, hours, bytes."""
    from entropy_lib.files import check_writable
    from entropy_lib.models.catalogue import check_device
    from entropy_lib.running.metric_tables import keep_calibration, plan_of
    from entropy_lib.sweep.cost import estimate

    checked = checked_sweep(notebook, profile, parameter)
    check_writable("store", checked.folder_of_store())
    check_device(checked.device)
    chosen, store = plan_of(checked), Store(checked.folder_of_store())
    keep_calibration(checked)
    path = chosen.write(store.folder, _file(notebook))
    table = Table("size", "images", "seconds an image", "hours", "MB", box=None, title_justify="left")
    options = {"batch": checked.batch, "device": checked.device, "measure": measure, "progress": interactive()}
    for row in estimate(chosen, store, **options).itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    console.print(table, soft_wrap=True)
    say(f"\n{len(chosen.units):,} images, plan in {_shown(path)}")
    _say_what_is_not_used(chosen, store)


@app.command()
def sample(
    profile: Profile = "mini",
    parameter: Values = None,
    notebook: Notebook = DEFAULT,
    shard: Annotated[str, typer.Option(help="i/n: draw every n-th batch. By default what SLURM or torchrun say, else all.")] = "",
    engine: Annotated[str, typer.Option(help="local: this process; ray: workers of a Ray cluster.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Of the engine ray.")] = 1,
) -> None:
    """Draw what the store has not; may be stopped and started again at any time, in as many processes as one likes."""
    from entropy_lib.files import check_writable
    from entropy_lib.models.catalogue import check_device, check_weights

    checked = checked_sweep(notebook, profile, parameter)
    if engine not in engines.ENGINES:
        raise UnknownNameError("engine", engine, engines.ENGINES)
    check_writable("store", checked.folder_of_store())
    check_device(checked.device)
    check_weights(checked.model)
    part = engines.parse_shard(shard) if shard else engines.shard_of_environment()
    store = Store(checked.folder_of_store())
    groups = _plan_of(notebook, checked).groups(checked.batch, part)
    store.clean()
    try:
        drawn = engines.ENGINES[engine](groups, store, device=checked.device, workers=workers, progress=interactive())
    except KeyboardInterrupt:
        keys = {unit.key for group in groups for unit in group}
        safe = f"{len(keys & store.committed()):,} of {len(keys):,} images are safe, the same command draws the others"
        raise KeyboardInterrupt(safe) from None
    say(f"{drawn:,} images drawn")


@app.command()
def status(profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT, verify: bool = False) -> None:
    """How much of each cell is there; with --verify every image is read and damaged ones are put aside."""
    checked = checked_sweep(notebook, profile, parameter)
    store, chosen = Store(checked.folder_of_store()), _plan_of(notebook, checked)
    for problem in store.verify(chosen.units) if verify else []:
        say(problem, "red")
    done = store.committed()
    table = Table("size", "rule", "done", "of", box=None, title_justify="left")
    for (size, rule), units in chosen.cells.items():
        table.add_row(size, Text(rule), f"{sum(unit.key in done for unit in units):,}", f"{len(units):,}")
    console.print(table)
    _say_what_is_not_used(chosen, store)


@app.command()
def reduce(profile: Profile = "mini", parameter: Values = None, notebook: Notebook = DEFAULT) -> None:
    """Make the metric tables of what has been drawn, into the output folder of these parameters."""
    from entropy_lib.files import check_writable
    from entropy_lib.running.metric_tables import comparison_of
    from entropy_lib.sweep.reduce import metric_tables

    checked = checked_sweep(notebook, profile, parameter)
    check_writable("output", workplace() / checked.output)
    check_writable("store", checked.folder_of_store())
    tables = metric_tables(comparison_of(checked, _plan_of(notebook, checked)), say)
    for path in tables.write(checked.folder()):
        say(_shown(path))


def checked_sweep(notebook: str, profile: str, parameter: list[str] | None) -> Sweep:
    """The parameters of a notebook that draws one plan, from a profile and what was set by `-p`.

    Raises:
        UnknownNameError: for another notebook, and as `profile_parameters`.
    """
    able = [name for name in NOTEBOOKS if "store" in (own := parameter_names(name)) and "rules_below" not in own]  # one plan each
    if notebook not in able:
        raise UnknownNameError("notebook", notebook, able)
    return profile_parameters(notebook, profile, overrides(parameter or []))


def _file(notebook: str) -> str:
    """Of the plan: notebooks that draw into one store have a plan each."""
    return FILE if notebook == DEFAULT else f"plan_{notebook}.parquet"


def _plan_of(notebook: str, checked: Sweep) -> Plan:
    """The plan in the store, if it is the one that these parameters ask for.

    A dtype of "auto" is what the plan says: it was chosen where the plan was made, perhaps on another machine.
    """
    from entropy_lib.running.metric_tables import plan_of

    stored = Plan.read(checked.folder_of_store(), _file(notebook))
    dtype = stored.units[0].dtype if checked.dtype == "auto" else checked.dtype
    stored.check_same(plan_of(checked.model_copy(update={"dtype": dtype})))
    return stored


def _shown(path: Path) -> str:
    return str(path.relative_to(workplace()) if path.is_relative_to(workplace()) else path)


def _say_what_is_not_used(chosen: Plan, store: Store) -> None:
    if others := len(store.committed() - {unit.key for unit in chosen.units}):
        say(f"{others:,} other images here are not of this plan (other values, or another drawing version)")
