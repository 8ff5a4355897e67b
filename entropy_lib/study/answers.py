"""What comes back from raters: read, checked against the study, and what is left out said with its reason."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from entropy_lib.errors import InvalidInputError, MissingFileError
from entropy_lib.study.design import OTHER_PROMPT, Pair, Study

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


def check_answers(study: Study, files: Path | str | Iterable[Path | str], limits: Limits | None = None) -> Checked:
    """Read the files that raters sent, and leave out what cannot be trusted.

    Left out whole: files that are damaged or of another study, a second file of a rater (the first that was finished counts),
    raters who left too much out, were too fast too often, or failed catch trials. Left out singly: answers that were too fast.

    Args:
        study: from `make_study` or `Study.read`.
        files: JSON files, or a folder of them.
        limits: see `Limits`.

    Raises:
        MissingFileError: for a folder or file that is not there.
        InvalidInputError: for a folder without answers.
    """
    limits = limits or Limits()
    excluded, raters, tables, seen = [], [], [], set()
    read = [(path, *_read(study, path)) for path in _paths(files)]
    for path, content, why in sorted(read, key=lambda each: str(each[1].get("finished") or "~")):
        rater, known = str(content.get("rater", "")), not why
        table = pd.DataFrame(content["answers"]) if known else pd.DataFrame()
        row = {"file": path.name, "rater": rater, "used": False, "answers": len(table)}
        if known:
            row |= {"failed_catch_trials": _failed(study, table), "median_seconds": table.milliseconds.median() / 1000}
            why = "a second file of this rater" if rater in seen else _why_not(study, table, row["failed_catch_trials"], limits)
            seen.add(rater)
        if why:
            excluded.append({"file": path.name, "rater": rater, "what": "all answers", "why": why})
        else:
            fast = table.milliseconds < limits.fastest
            for pair in table.pair[fast]:
                excluded.append({"file": path.name, "rater": rater, "what": pair, "why": f"faster than {limits.fastest} ms"})
            tables.append(_tidy(study, table[~fast], rater))
        raters.append(row | {"used": not why})
    answers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return Checked(answers, pd.DataFrame(excluded, columns=["file", "rater", "what", "why"]), pd.DataFrame(raters))


def _paths(files: Path | str | Iterable[Path | str]) -> list[Path]:
    listed = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    found = []
    for path in listed:
        if not path.exists():
            raise MissingFileError(f"no answers at {path}; give the folder that holds the files of the raters")
        found += sorted(each for each in path.glob("*.json") if each.name != "study.json") if path.is_dir() else [path]
    if not found:
        raise InvalidInputError(f"no answers in {', '.join(map(str, listed))}; the files that raters save end in .json")
    return found


def _read(study: Study, path: Path) -> tuple[dict[str, Any], str]:
    """What a file holds, and why it cannot be used, "" where it can."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return {}, f"not JSON ({type(error).__name__})"
    if not isinstance(content, dict) or not isinstance(content.get("answers"), list):
        return {}, "no file of answers"
    if content.get("study") != study.digest:
        return content, f"of another study ({content.get('study')}; this one is {study.digest})"
    if not str(content.get("rater", "")).strip():
        return content, "no rater's name"
    if not content["answers"]:
        return content, "incomplete: no answer"
    return content, _damage(study, content["answers"])


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
