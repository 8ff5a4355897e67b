"""`python -m entropy_lib study make | check | analyse`: a pairwise user study of what a sweep has drawn."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table
from rich.text import Text

from entropy_lib.files import replacing, workplace
from entropy_lib.running.console import console, interactive, say
from entropy_lib.running.sweep_commands import checked_sweep
from entropy_lib.study.answers import Checked, Limits, check_answers
from entropy_lib.study.design import KEY, TITLE, Study
from entropy_lib.study.reading import read_answers

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

Folder = Annotated[Path, typer.Argument(help="Of the study, with its key study.json.")]
Answers = Annotated[Path, typer.Argument(help="The folder with the files that raters saved, or one file.")]
Level = Annotated[float, typer.Option(help="Of the intervals.")]


@app.command()
def make(
    profile: Annotated[
        str, typer.Option(help="A file of notebooks/profiles/; its section 08_user_study says what is drawn and asked.")
    ] = "mini",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, read as YAML; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the study; build/study/PROFILE by default.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = TITLE,
) -> None:
    """Draw what is missing, choose and blind pairs, and write the page for raters and the key that must not reach them."""
    from entropy_lib.files import check_writable
    from entropy_lib.models.catalogue import check_device, check_weights
    from entropy_lib.running.metric_tables import plan_of
    from entropy_lib.running.user_study import study_of
    from entropy_lib.study.page import write_page
    from entropy_lib.sweep import engines
    from entropy_lib.sweep.store import Store

    checked = checked_sweep("08_user_study", profile, parameter)
    place = output or workplace() / "build" / "study" / profile
    check_writable("--output", place)
    check_writable("store", checked.folder_of_store())
    check_device(checked.device)
    check_weights(checked.model)
    plan, store = plan_of(checked), Store(checked.folder_of_store())
    engines.local(plan.groups(checked.batch), store, device=checked.device, progress=interactive())
    study = study_of(checked, plan, store)
    say(f"{len(study.pairs)} pairs, {checked.catch_trials} of them catch trials: {', '.join(study.methods)}")
    say(f"for raters: {write_page(study, place, title)}")
    say(f"for you alone: {place / KEY}")


@app.command()
def check(folder: Folder, answers: Answers) -> Checked:
    """Say which answers can be used, and what is left out and why."""
    checked = check_answers(Study.read(folder), read_answers(answers), Limits())
    _show(checked.raters)
    if len(checked.excluded):
        _show(checked.excluded)
    say(f"{len(checked.answers):,} answers of {int(checked.raters.used.sum())} raters can be used")
    return checked


@app.command()
def analyse(folder: Folder, answers: Answers, level: Level = 0.95) -> None:
    """Say how much better each method is, with intervals over raters and prompts; tables go into the folder of the study."""
    from entropy_lib.files import check_writable
    from entropy_lib.study import analysis

    check_writable("folder", folder)
    used = check(folder, answers).answers
    found = {"comparison": analysis.compare(used, level)}
    if used.first_score.notna().any():
        found["mean_scores"] = analysis.mean_scores(used, level)
    if len({*used["first"], *used["second"]}) > 2:
        found["strengths"] = analysis.strengths(used, level)
    for name, table in found.items():
        _show(table.round(3))
        with replacing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8")
        say(f"{folder / name}.csv")
    say(f"left side favoured by {analysis.side_bias(used, level)}")
    if used.rater.nunique() > 1:
        say(f"Krippendorff's alpha {analysis.agreement(used, level)}")


def _show(table: pd.DataFrame) -> None:
    shown = Table(*map(str, table.columns), box=None, title_justify="left")
    for row in table.itertuples(index=False):
        shown.add_row(*(Text("–" if pd.isna(value) else str(value)) for value in row))
    console.print(shown, soft_wrap=True)
