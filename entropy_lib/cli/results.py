"""Results: a notebook writes tables, `data/results/` keeps those of long runs, `docs/results.md` shows them.

python -m entropy_lib run --profile mini-full
python -m entropy_lib results --keep mini-full  # copies the tables to data/results/ and writes
docs/results.md from them
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

from entropy_lib.cli.parameters import RECORD, claimed
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import DATA, ROOT, replacing
from entropy_lib.metrics.registry import PRIMARY
from entropy_lib.plots.labels import HEADINGS, short_layer
from entropy_lib.plots.tables import comparisons, means, shares, slopes
from entropy_lib.sizes import pixel_count

RESULTS, PAGE = DATA / "results", ROOT / "docs" / "results.md"
CONTROLS = ("mini-weak", "mini-circular")  # profiles, each named after its model
COUNTED = (PRIMARY["above"][0], PRIMARY["below"][0])  # over-count and under-count
JUDGED = (*COUNTED, "Exact", "KID", "CLIP score")

IN_FIGURE = ("unscaled", "paper", "native, resized", "real, resized")
BESIDE = ("provenance.txt", RECORD)  # what is kept beside the tables

ABOUT = """# Results of the long runs

![Over-count and under-count by size](answer.png)

*The embedded model, profile `mini-full`: objects too many and missing per image, against size.*

Written by `python -m entropy_lib results` from the tables in `data/results/`. Intervals are 95 % and, of
differences, unadjusted; `p (Holm)` is corrected for all differences that were tested together, and the last
column goes by it.
"""

COUNTS = (  # what says how many objects there are, those of most images first
    ("10_dose_response", "counts"),
    ("11_rival_explanations", "counts"),
    ("09_layout_metrics", "levels"),
)
BOTH = {"mini-full": "A UNet (`mini`)", "mini-dit-full": "A transformer (`mini-dit`)"}
ARCHITECTURES = """## Two architectures, every size, rule and positions

The paper says that images below the training size are incomplete because entropy has fallen, that those above
it repeat because entropy has risen, and that the rule mends both.

- *The UNet* leaves objects out below its size and repeats them above it, as the paper says. The rule removes
  a small part of the change of entropy and nothing of the degradation; stronger doses, and what restores the
  entropy, add to it or leave it as it is. So entropy is not shown to be the cause of either.
- *The transformer* does both, too, but how often it repeats an object goes by positions: interpolating them
  ends the repetition and leaves entropy as it was, and the rule adds to it. With positions interpolated the
  rule does what the paper says of it: at twice the side, objects that were missing come back.

![Images of the UNet at 64 and 128 px, without a rule and with two](grid-mini.png)

![Images of the transformer at 64 and 128 px by five methods](grid-dit.png)

*The same prompts on the UNet and on the transformer (notebook 05, profiles `mini` and `mini-dit`, prompts of
`mini-dit`).*

Exact, Over-count, Under-count: notebook 10, else 11, else 09. FD to real images: 06, for the methods that it
compares. Entropy: the fraction of its change that the method removes (11), with one vote for each layer,
votes by importance, and without dead layers. Paired differences stand below under these notebooks.

![The fraction of the degradation removed against that of the change of entropy](recovery.png)

*The transformer, profile `mini-dit-full`: each point is an intervention. Were entropy the cause, they would
lie on the dashed line.*
"""


def _compared(differences: pd.DataFrame) -> pd.DataFrame:
    """Without the reference baselines, which stand in the table of differences too."""
    return comparisons(differences[~differences.method.str.contains(",")], JUDGED)


def _levels(levels: pd.DataFrame) -> pd.DataFrame:
    chosen = levels[levels.metric.isin(JUDGED)].drop_duplicates(["metric", "size", "method"])
    return means(chosen.assign(line=chosen.metric + " at " + chosen["size"]), "line", "method").fillna("–")


def _columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    table = table.assign(layer=table.layer.map(short_layer)) if "layer" in table else table
    return table[list(names)].round(3)


# What is kept of a notebook, and what a page shows of each table.
SHOWN: dict[str, dict[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "02_gaussian_check": {
        "layers": partial(_columns, names=["layer", "tokens", "logit_std", "error", "response_ratio"])
    },
    "03_entropy_vs_tokens": {"slopes": slopes},
    "04_entropy_per_layer": {"fraction_removed": shares},
    "06_metric_tables": {"levels": _levels, "differences": _compared},
    "07_cost_and_baselines": {
        "changes": comparisons,
        "costs": partial(_columns, names=["size", "method", "seconds", "fastest", "slowest", "megabytes"]),
    },
    "09_layout_metrics": {"levels": _levels, "differences": _compared},
    "10_dose_response": {"dose": comparisons},
    "11_rival_explanations": {"choices": comparisons},
}


def keep(profile: str, output: Path, results: Path = RESULTS) -> list[str]:
    """Copy the tables that notebooks wrote for a profile to `data/results/`; the notebooks that had any.

    Args:
        profile: whose values the tables must have been made with, all of them.
        output: the folder that holds one folder for each notebook.

    Raises:
        InvalidInputError: before anything is copied, where there is nothing to keep, where a file is missing
            or cannot be read, and for tables of other parameters.
    """
    there = [name for name in SHOWN if any([*(output / name).glob("*.csv"), *(output / name).glob("*.txt")])]
    if not there:
        again = f"run `entropy_lib run --profile {profile}` first"
        raise InvalidInputError(f"{output} holds no tables of {', '.join(SHOWN)}; {again}")
    for name in there:
        _check_whose(name, profile, output / name)
        _section(name, output / name)
    for name in there:
        for path in [*(output / name).glob("*.csv"), *(output / name / file for file in BESIDE)]:
            with replacing(results / profile / name / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return there


def _check_whose(name: str, profile: str, folder: Path) -> None:
    """InvalidInputError unless a folder's tables are of this notebook in this profile, nothing changed."""
    wanted, given = profile_parameters(name, profile).model_dump(), claimed(folder).get("parameters")
    again = f"run `entropy_lib run {name} --profile {profile} --force`"
    if not isinstance(given, dict):
        missing = "is missing or does not say by which parameters the tables were made"
        raise InvalidInputError(f"{folder / RECORD} {missing}; {again}")
    for key in sorted(wanted.keys() | given.keys()):
        if given.get(key, ...) != wanted.get(key, ...):
            differs = f"{key} is {given.get(key)!r}, not {wanted.get(key)!r}"
            raise InvalidInputError(f"{folder} is not of profile {profile!r}: {differs}; {again}")


@contextmanager
def _readable(what: str | Path) -> Iterator[None]:
    """InvalidInputError, with the name of the file, for what is missing or not as notebooks write it."""
    try:
        yield
    except InvalidInputError:
        raise
    # pandas' own are ValueErrors
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = f"cannot be read as notebooks write it ({error!r}); run the notebook again"
        raise InvalidInputError(f"{what} {why}") from None


def _section(name: str, folder: Path) -> list[str]:
    """What the tables of a notebook in a folder say, as Markdown; all tables there are looked at."""
    said = folder / "provenance.txt"
    with _readable(said):
        origin = said.read_text(encoding="utf-8").partition("\n")[0].strip()
    if not origin:
        raise InvalidInputError(f"{said} does not say where the tables come from; run the notebook again")
    lines = [f"## [{name}](../notebooks/{name}.ipynb), profile `{folder.parent.name}`", "", f"{origin}", ""]
    for path in sorted({*folder.glob("*.csv"), *(folder / f"{file}.csv" for file in SHOWN[name])}):
        with _readable(path):
            table = pd.read_csv(path)
            if path.stem in SHOWN[name]:
                if table.empty:
                    raise InvalidInputError(f"{path} holds no rows; run the notebook again")
                shown = SHOWN[name][path.stem](table).rename(columns=HEADINGS)
                lines += [shown.to_markdown(index=False, disable_numparse=True), ""]
    return lines


def kept_tables(notebook: str, name: str, profiles: Sequence[str], results: Path = RESULTS) -> pd.DataFrame:
    """A kept table of a notebook as several profiles made it, one below the other, with a column `profile`.

    Args:
        notebook: its file name without ending.
        name: of the table, without ending.
        profiles: those without one are left out; the table is empty where none has any.
    """
    found = []
    for profile in profiles:
        if (path := results / profile / notebook / f"{name}.csv").is_file():
            with _readable(path):
                found.append(pd.read_csv(path).assign(profile=profile))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["profile"])


def _architectures(results: Path) -> list[str]:
    """Both embedded models, side by side: what several notebooks say of a size and a method."""
    lines = []
    for profile, model in BOTH.items():
        counted = pd.concat(kept_tables(*source, [profile], results) for source in COUNTS)
        distances = kept_tables("06_metric_tables", "levels", [profile], results)
        entropies = kept_tables("11_rival_explanations", "entropy", [profile], results)
        if counted.empty:
            continue
        counted = counted[counted.metric.isin((*COUNTED, "Exact")) & ~counted.method.str.contains(",")]
        parts = [counted]
        if len(distances):
            parts.append(distances[(distances.metric == "FD") & (distances.reference == "real")])
        if len(entropies):
            parts.append(entropies.assign(metric="entropy, " + entropies.layers, estimate=entropies.share))
        table = pd.concat(parts).drop_duplicates(["size", "method", "metric"])
        table = table.merge(counted[["size", "method"]].drop_duplicates())
        table = table.sort_values("size", key=lambda sizes: sizes.map(pixel_count), kind="stable")
        shown = means(table.assign(line=table["size"] + " " + table.method), "line", "metric").fillna("–")
        shown = shown.rename(columns={"line": "size, method"}).to_markdown(index=False, disable_numparse=True)
        lines += [f"**{model}**, profile `{profile}`", "", shown, ""]
    return [ARCHITECTURES, *lines] if lines else []


def page(results: Path = RESULTS) -> str:
    """The text of docs/results.md: what each kept table says."""
    folders = [(name, folder) for name in SHOWN for folder in sorted(results.glob(f"*/{name}"))]
    sections = [line for name, folder in folders for line in _section(name, folder)]
    return "\n".join([ABOUT, *_architectures(results), *sections])


def write_page(path: Path = PAGE, results: Path = RESULTS) -> None:
    """Write docs/results.md and its two figures.

    Raises:
        InvalidInputError: outside a checkout, and as `keep` for tables that cannot be read.
    """
    from entropy_lib.plots.figures import metrics_by_size, recovery_against_entropy, theme  # slow to import

    check_checkout(path)
    text, levels = page(results), kept_tables("09_layout_metrics", "levels", ["mini-full"], results)
    theme()
    shares = kept_tables("11_rival_explanations", "shares", ["mini-dit-full"], results)
    figures = {
        "answer.png": metrics_by_size(levels[levels.method.isin(IN_FIGURE)], COUNTED),
        "recovery.png": recovery_against_entropy(shares),
    }
    for name, figure in figures.items():
        with replacing(path.with_name(name)) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_checkout(path: Path = PAGE) -> None:
    """InvalidInputError where there is no docs/results.md: it is written in a checkout of the project."""
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there; results are kept in a checkout of the project")
