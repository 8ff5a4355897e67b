"""Tables that are kept: a notebook writes them, `data/results/` holds those of long runs, README tells what they say.

    python -m entropy_lib run --profile mini-full
    python -m entropy_lib readme --keep mini-full    # copies the tables to data/results/ and writes README's table from them

Example:
    >>> "| [06_metric_tables](notebooks/06_metric_tables.ipynb) | `mini-full` |" in results_section()
    True
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from entropy_lib.display import verdicts
from entropy_lib.display.tables import means
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.metrics.catalogue import METRICS
from entropy_lib.running.parameters import Sampling
from entropy_lib.sweep.comparison import NATIVE

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import

RESULTS = DATA / "results"
CONTROLS = ("mini-weak", "mini-circular")  # profiles, each named after its model
START, END = "<!-- results: written by `python -m entropy_lib readme`, not by hand -->", "<!-- end of results -->"


def _gaussian_check(layers: pd.DataFrame) -> str:
    return verdicts.gaussian_check(layers, layers["size"].iloc[0], layers.tolerance.iloc[0])


def _metric_tables(differences: pd.DataFrame, levels: pd.DataFrame) -> str:
    """Of rules alone: the floors stand in the table of differences too."""
    return verdicts.metric_tables(differences[~differences.rule.str.contains(",")], levels)


def _layout_metrics(differences: pd.DataFrame, levels: pd.DataFrame) -> str:
    """Of rules alone; the native size is the one at which nothing was resized to it."""
    native = levels["size"][~levels["size"].isin(levels["size"][levels.method == NATIVE])].iloc[0]
    rules = levels[~levels.method.str.contains(",")]
    return verdicts.layout_metrics(rules, differences[~differences.rule.str.contains(",")], native)


# What is kept of a notebook, and the sentence that it makes; the same function writes the notebook's own answer.
ANSWERS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "02_gaussian_check": (("layers",), _gaussian_check),
    "03_entropy_vs_tokens": (("slopes",), verdicts.slopes),
    "04_entropy_per_layer": (("share_removed",), verdicts.shares),
    "06_metric_tables": (("differences", "levels"), _metric_tables),
    "07_cost_and_baselines": (("changes", "costs"), verdicts.baselines),
    "09_layout_metrics": (("differences", "levels"), _layout_metrics),
    "10_causes": (("choices", "dose"), verdicts.causes),
}


def write_tables(p: Sampling, pipe: "DiffusionPipeline", **tables: pd.DataFrame) -> None:
    """Write tables of a notebook as CSV into its output folder, and beside them where they come from.

    Args:
        p: the notebook's checked parameters.
        pipe: the pipeline that was measured.
        tables: {file name without ending: table}.
    """
    for name, table in tables.items():
        with replacing(p.folder() / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", encoding="utf-8")
    with replacing(p.folder() / "provenance.txt") as temporary:
        temporary.write_text(p.provenance(pipe) + "\n", encoding="utf-8")


def keep(profile: str, output: Path, results: Path = RESULTS) -> list[str]:
    """Copy the tables that notebooks wrote for a profile to `data/results/`; returns the notebooks that had any.

    Args:
        output: the folder that holds one folder for each notebook.

    Raises:
        InvalidInputError: where there is nothing to keep.
    """
    there = [name for name, (files, _) in ANSWERS.items() if all((output / name / f"{file}.csv").is_file() for file in files)]
    if not there:
        raise InvalidInputError(
            f"{output} holds no tables of {', '.join(ANSWERS)}; run `entropy_lib run --profile {profile}` first"
        )
    for name in there:
        for path in [*(output / name).glob("*.csv"), output / name / "provenance.txt"]:
            with replacing(results / profile / name / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return there


def kept_tables(notebook: str, name: str, profiles: Sequence[str], results: Path = RESULTS) -> pd.DataFrame:
    """A kept table of a notebook as several profiles made it, one below the other, with a column `profile`.

    Args:
        notebook: its file name without ending.
        name: of the table, without ending.
        profiles: those without one are left out; the table is empty where none has any.
    """
    paths = {profile: results / profile / notebook / f"{name}.csv" for profile in profiles}
    tables = [pd.read_csv(path).assign(profile=profile) for profile, path in paths.items() if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["profile"])


def results_section(results: Path = RESULTS) -> str:
    """README's tables: what each kept table says, in the sentence of its notebook; the controls beside `mini`; their origin."""
    rows, origins = [], []
    for name, (files, sentence) in ANSWERS.items():
        for folder in sorted(results.glob(f"*/{name}")):
            origin = (folder / "provenance.txt").read_text(encoding="utf-8").splitlines()[0]
            origins.append(f"- {name}, `{folder.parent.name}`: {origin}")
            if folder.parent.name not in CONTROLS:
                text = sentence(*(pd.read_csv(folder / f"{file}.csv") for file in files)).replace("|", "\\|")
                rows.append(f"| [{name}](notebooks/{name}.ipynb) | `{folder.parent.name}` | {text} |")
    answers = [kept_story(results), "", "| notebook | profile | answer |", "|---|---|---|", *rows, ""]
    return "\n".join([*answers, *controls_section(results), "Measured on:", "", *origins])


def kept_story(results: Path = RESULTS) -> str:
    """The project in a sentence, from the kept tables of the embedded model; "" where they are not there."""
    shares = kept_tables("04_entropy_per_layer", "share_removed", ["mini"], results)
    levels, differences = (kept_tables("09_layout_metrics", name, ["mini-full"], results) for name in ("levels", "differences"))
    if shares.empty or levels.empty or differences.empty:
        return ""
    arms = kept_tables("10_causes", "shares", ["mini-full"], results)
    return verdicts.story(shares, levels, differences, arms, native="64x64")


def controls_section(results: Path = RESULTS) -> list[str]:
    """Lines of Markdown: `mini` and its controls side by side, how much entropy a rule moves and what it does to the pictures."""
    shares = kept_tables("04_entropy_per_layer", "share_removed", ["mini", *CONTROLS], results)
    levels = kept_tables("09_layout_metrics", "levels", ["mini-full", *CONTROLS], results)
    levels = levels.replace({"profile": {"mini-full": "mini"}})
    if min(shares.profile.nunique(), levels.profile.nunique()) < 2:
        return []
    shares = shares.assign(estimate=100 * shares["share"], low=100 * shares.low, high=100 * shares.high)
    lines = _table("Of the change of entropy, a rule removes (%)", shares.assign(of=shares.profile + ", " + shares.rule))
    levels = levels[~levels.method.str.contains(",")]
    for metric in ("Excess", "Missing", "Exact"):
        text = f"{metric} ({METRICS[metric].unit})"
        lines += _table(text, levels[levels.metric == metric].assign(of=levels.profile + ", " + levels.method))
    return lines


def _table(text: str, table: pd.DataFrame) -> list[str]:
    """A heading and a table of `estimate`, `low`, `high`: sizes below each other, `of` side by side."""
    return [f"{text}:", "", means(table, "size", "of").fillna("–").to_markdown(index=False), ""]


def with_results(text: str, results: Path = RESULTS) -> str:
    """The text of README with the table between its marks renewed.

    Raises:
        InvalidInputError: where the marks are missing.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InvalidInputError(f"README.md has no place for the results; write the lines {START} and {END} where they belong")
    return f"{before}{START}\n\n{results_section(results)}\n\n{END}{after}"


def write_readme(path: Path = ROOT / "README.md") -> None:
    """Write the table of results into README.

    Raises:
        InvalidInputError: where there is no README (outside a checkout), or it has no marks.
    """
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there; README is written in a checkout of the project")
    text = with_results(path.read_text(encoding="utf-8"))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
