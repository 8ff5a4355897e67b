"""What comes back from raters: read, checked against the study, and what is left out said with its reason."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from entropy_lib.errors import InvalidInputError, MissingFileError
from entropy_lib.study.design import KEY, OTHER_PROMPT, Pair, Study

COLUMNS = [
    "rater",
    "pair",
    "prompt",
    "size",
    "first",
    "second",
    "left",
    "order",
    "milliseconds",
    "value",
    "first_score",
    "second_score",
]
CHOICES = ("left", "tie", "right")
SCORES = range(1, 11)

Contents = Mapping[str, Any]  # of files by their names


@dataclass(frozen=True)
class Limits:
    """When answers are left out; decide before you look at them.

    Attributes:
        fastest: an answer in fewer milliseconds is left out.
        fast_share: a rater with a larger share of such answers is left out whole.
        complete: a rater who answered a smaller share of the pairs is left out.
        failed_catch_trials: a rater who failed more of them is left out.
    """

    fastest: int = 500
    fast_share: float = 0.2
    complete: float = 0.8
    failed_catch_trials: int = 1


@dataclass(frozen=True)
class Checked:
    """Answers that can be used, and those that cannot.

    Attributes:
        answers: one row an answer, catch trials no longer among them. `first` and `second` are methods in the order of the study,
            `left` is the method that stood there, `value` what the answer says of the second: with choices 1 for better, 0.5 for no
            difference, 0 for worse; with ratings its score less that of the first.
        excluded: columns `file, rater, what, why`.
        raters: one row a file: `file, rater, used, answers, failed_catch_trials, median_seconds`.
    """

    answers: pd.DataFrame
    excluded: pd.DataFrame
    raters: pd.DataFrame


def read_answers(files: Path | str | Iterable[Path | str]) -> Contents:
    """What lies in the files that raters sent: {name of the file: its content}, None for one that cannot be read.

    Args:
        files: JSON files, or a folder of them.

    Raises:
        MissingFileError: for a folder or file that is not there.
        InvalidInputError: for a folder without answers.
    """
    listed = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    found: list[Path] = []
    for path in listed:
        if not path.exists():
            raise MissingFileError(f"no answers at {path}; give the folder that holds the files of the raters")
        found += sorted(each for each in path.glob("*.json") if each.name != KEY) if path.is_dir() else [path]
    if not found:
        raise InvalidInputError(f"no answers in {', '.join(map(str, listed))}; the files that raters save end in .json")
    return {path.name: _content(path) for path in found}


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None


def check_answers(study: Study, contents: Contents, limits: Limits | None = None) -> Checked:
    """Leave out what raters sent and what cannot be trusted, and say why.

    Left out whole: files that are damaged or of another study, a second file of a rater (the first that was finished counts),
    raters who left too much out, were too fast too often, or failed catch trials. Left out singly: answers that were too fast.

    Args:
        study: from `make_study` or `Study.read`.
        contents: from `read_answers` or `simulate_panel`.
        limits: see `Limits`.
    """
    limits = limits or Limits()
    excluded, raters, tables, seen = [], [], [], set()
    read = [(name, content if isinstance(content, dict) else {}, _unusable(study, content)) for name, content in contents.items()]
    for name, content, why in sorted(read, key=lambda each: str(each[1].get("finished") or "~")):
        rater, known = str(content.get("rater", "")), not why
        table = pd.DataFrame(content["answers"]) if known else pd.DataFrame()
        row = {"file": name, "rater": rater, "used": False, "answers": len(table)}
        if known:
            row |= {"failed_catch_trials": _failed(study, table), "median_seconds": table.milliseconds.median() / 1000}
            why = "a second file of this rater" if rater in seen else _why_not(study, table, row["failed_catch_trials"], limits)
            seen.add(rater)
        if why:
            excluded.append({"file": name, "rater": rater, "what": "all answers", "why": why})
        else:
            fast = table.milliseconds < limits.fastest
            for pair in table.pair[fast]:
                excluded.append({"file": name, "rater": rater, "what": pair, "why": f"faster than {limits.fastest} ms"})
            tables.append(_tidy(study, table[~fast], rater))
        raters.append(row | {"used": not why})
    answers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return Checked(answers, pd.DataFrame(excluded, columns=["file", "rater", "what", "why"]), pd.DataFrame(raters))


def _unusable(study: Study, content: Any) -> str:
    """Why what a file holds cannot be used, "" where it can."""
    if content is None:
        return "not JSON"
    if not isinstance(content, dict) or not isinstance(content.get("answers"), list):
        return "no file of answers"
    if content.get("study") != study.digest:
        return f"of another study ({content.get('study')}; this one is {study.digest})"
    if not str(content.get("rater", "")).strip():
        return "no rater's name"
    return _damage(study, content["answers"]) if content["answers"] else "incomplete: no answer"


def _damage(study: Study, answers: list[Any]) -> str:
    """What is wrong with the answers themselves."""
    names, found = {pair.name for pair in study.pairs}, []
    for answer in answers:
        if not isinstance(answer, dict) or answer.get("pair") not in names:
            return f"damaged: an answer to no pair of the study ({answer})"
        found.append(answer["pair"])
        scores = [answer.get("left_score"), answer.get("right_score")]
        fits = answer.get("choice") in CHOICES if study.protocol == "choice" else all(score in SCORES for score in scores)
        if not fits or answer.get("left") not in ("a", "b") or not isinstance(answer.get("milliseconds"), int | float):
            return f"damaged: the answer to {answer['pair']} cannot be"
    twice = sorted({name for name in found if found.count(name) > 1})
    return f"damaged: {', '.join(twice)} answered twice" if twice else ""


def _why_not(study: Study, table: pd.DataFrame, failed: int, limits: Limits) -> str:
    """Why a rater is left out, "" for one who is not."""
    if len(table) < limits.complete * len(study.pairs):
        return f"incomplete: {len(table)} of {len(study.pairs)} pairs"
    fast = (table.milliseconds < limits.fastest).mean()
    if fast > limits.fast_share:
        return f"too fast: {fast:.0%} of the answers in less than {limits.fastest} ms"
    return f"failed {failed} catch trials" if failed > limits.failed_catch_trials else ""


def _failed(study: Study, table: pd.DataFrame) -> int:
    """How many catch trials were not answered for the right picture."""
    trials = [(study.pair(answer.pair), answer) for answer in table.itertuples()]
    return sum(_value(pair, answer, study.protocol, _right(pair))[0] <= _nothing(study) for pair, answer in trials if pair.catch)


def _right(pair: Pair) -> str:
    return next(method for method in pair.methods if method != OTHER_PROMPT)


def _nothing(study: Study) -> float:
    """The value of an answer that sees no difference."""
    return 0.5 if study.protocol == "choice" else 0.0


def _value(pair: Pair, answer: Any, protocol: str, method: str) -> tuple[float, float, float]:
    """What an answer says of a method: its value, and its score and that of the other where there are scores."""
    on_left = pair.methods["ab".index(answer.left)] == method
    if protocol == "choice":
        return (0.5 if answer.choice == "tie" else float((answer.choice == "left") == on_left)), float("nan"), float("nan")
    own, other = (answer.left_score, answer.right_score) if on_left else (answer.right_score, answer.left_score)
    return float(own - other), float(own), float(other)


def _tidy(study: Study, table: pd.DataFrame, rater: str) -> pd.DataFrame:
    rows = []
    for answer in table.itertuples():
        pair = study.pair(answer.pair)
        if not pair.catch:
            first, second = sorted(pair.methods, key=study.methods.index)
            value, second_score, first_score = _value(pair, answer, study.protocol, second)
            shown = (pair.name, pair.prompt, pair.size, first, second, pair.methods["ab".index(answer.left)])
            rows.append((rater, *shown, answer.order, answer.milliseconds, value, first_score, second_score))
    return pd.DataFrame(rows, columns=COLUMNS)
