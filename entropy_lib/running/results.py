"""Tables that are kept: a notebook writes them, `data/results/` holds those of long runs, README tells what they say.

    python -m entropy_lib run --profile mini-full
    python -m entropy_lib readme --keep mini-full    # copies the tables to data/results/ and writes README's table from them

Example:
    >>> "| [06_metric_tables](notebooks/06_metric_tables.ipynb) | `mini-full` |" in results_section()
    True
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from entropy_lib.display import verdicts
from entropy_lib.display.tables import means
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.metrics.catalogue import METRICS
from entropy_lib.running.parameters import RECORD, Sampling, claimed
from entropy_lib.running.profiles import profile_parameters
from entropy_lib.sweep.comparison import NATIVE

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import

RESULTS = DATA / "results"
README = ROOT / "README.md"
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
        profile: whose values the tables must have been made with, all of them.
        output: the folder that holds one folder for each notebook.

    Raises:
        InvalidInputError: before anything is copied, where there is nothing to keep, where a file is missing or cannot be read,
            and for tables of other parameters.
    """
    there = [name for name in ANSWERS if any(path.suffix in (".csv", ".txt") for path in (output / name).glob("*"))]
    if not there:
        raise InvalidInputError(
            f"{output} holds no tables of {', '.join(ANSWERS)}; run `entropy_lib run --profile {profile}` first"
        )
    for name in there:
        _check_whose(name, profile, output / name)
        answer(name, output / name)
    with tempfile.TemporaryDirectory() as folder, _readable(f"a table of {', '.join(there)} in {output}"):
        shutil.copytree(results, folder, dirs_exist_ok=True)
        _copy(there, output, Path(folder) / profile)
        results_section(Path(folder))
    _copy(there, output, results / profile)
    return there


def _check_whose(name: str, profile: str, folder: Path) -> None:
    """InvalidInputError unless the tables in a folder are of this notebook in this profile, with nothing changed."""
    wanted = profile_parameters(name, profile).model_dump()
    given = claimed(folder).get("parameters")
    again = f"run `entropy_lib run {name} --profile {profile} --force`"
    if not isinstance(given, dict):
        raise InvalidInputError(f"{folder / RECORD} is missing or does not say by which parameters the tables were made; {again}")
    if other := sorted(key for key in wanted.keys() | given.keys() if given.get(key, ...) != wanted.get(key, ...)):
        raise InvalidInputError(
            f"{folder} is not of profile {profile!r}: {other[0]} is {given.get(other[0])!r}, not {wanted.get(other[0])!r}; {again}"
        )


def _copy(names: Sequence[str], output: Path, kept: Path) -> None:
    for name in names:
        for path in [*(output / name).glob("*.csv"), output / name / "provenance.txt", output / name / RECORD]:
            with replacing(kept / name / path.name) as temporary:
                shutil.copyfile(path, temporary)


def _read(path: Path) -> pd.DataFrame:
    """A kept table; InvalidInputError, with its name, where it is missing, empty or malformed."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InvalidInputError(
            f"{path} cannot be read as a table ({type(error).__name__}: {error}); run its notebook again"
        ) from None


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Around what makes sentences of tables; InvalidInputError for those that are not as notebooks write them."""
    try:
        yield
    except InvalidInputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{what} is not as notebooks write it ({error!r}); run the notebook again") from None


def origin(folder: Path) -> str:
    """Where kept tables come from, in a line.

    Raises:
        InvalidInputError: for a `provenance.txt` that is missing or says nothing.
    """
    path = folder / "provenance.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read ({type(error).__name__}); run its notebook again") from None
    if not lines[0].strip():
        raise InvalidInputError(f"{path} does not say where the tables come from; run its notebook again")
    return lines[0].rstrip()


def answer(name: str, folder: Path) -> str:
    """What the tables of a notebook in a folder say, in its sentence; all tables there are looked at.

    Raises:
        InvalidInputError: for a file that is missing, empty or malformed.
    """
    origin(folder)
    files, sentence = ANSWERS[name]
    tables = {path.stem: _read(path) for path in sorted({*folder.glob("*.csv"), *(folder / f"{file}.csv" for file in files)})}
    for file in files:
        if tables[file].empty:
            raise InvalidInputError(f"{folder / file}.csv holds no rows; run its notebook again")
    with _readable(" or ".join(str(folder / f"{file}.csv") for file in files)):
        return sentence(*(tables[file] for file in files))


def kept_tables(notebook: str, name: str, profiles: Sequence[str], results: Path = RESULTS) -> pd.DataFrame:
    """A kept table of a notebook as several profiles made it, one below the other, with a column `profile`.

    Args:
        notebook: its file name without ending.
        name: of the table, without ending.
        profiles: those without one are left out; the table is empty where none has any.
    """
    paths = {profile: results / profile / notebook / f"{name}.csv" for profile in profiles}
    tables = [_read(path).assign(profile=profile) for profile, path in paths.items() if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["profile"])


def results_section(results: Path = RESULTS) -> str:
    """README's tables: what each kept table says, in the sentence of its notebook; the controls beside `mini`; their origin."""
    rows, origins = [], []
    for name in ANSWERS:
        for folder in sorted(results.glob(f"*/{name}")):
            origins.append(f"- {name}, `{folder.parent.name}`: {origin(folder)}")
            if folder.parent.name not in CONTROLS:
                text = answer(name, folder).replace("|", "\\|")
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
        InvalidInputError: where the marks are missing; as `answer`.
    """
    before, after = _around_results(text)
    return f"{before}{START}\n\n{results_section(results)}\n\n{END}{after}"


def _around_results(text: str) -> tuple[str, str]:
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InvalidInputError(f"README.md has no place for the results; write the lines {START} and {END} where they belong")
    return before, after


def read_readme(path: Path = README) -> str:
    """The text of README.

    Raises:
        InvalidInputError: where there is no README (outside a checkout), or it has no marks.
    """
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there; README is written in a checkout of the project")
    text = path.read_text(encoding="utf-8")
    _around_results(text)
    return text


def write_readme(path: Path = README) -> None:
    """Write the table of results into README.

    Raises:
        InvalidInputError: as `read_readme` and `answer`.
    """
    text = with_results(read_readme(path))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
