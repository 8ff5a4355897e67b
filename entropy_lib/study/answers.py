"""What comes back from raters: checked against the study, and what is left out said with its reason."""

import itertools
import reprlib
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from entropy_lib.study.design import OTHER_PROMPT, Pair, Study
from entropy_lib.study.reading import Contents, Refused

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
LONGEST = 1e12  # milliseconds; a clock that says more is wrong


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


def check_answers(study: Study, contents: Contents, limits: Limits | None = None) -> Checked:
    """Leave out what raters sent and what cannot be trusted, and say why.

    Left out whole: files that cannot be read, are damaged or of another study; all files but the fullest of a rater who sent
    several that agree, and all of one whose files do not; raters who left too much out, were too fast too often, or failed catch
    trials. Left out singly: answers that were too fast. Names that differ in case, spaces or the way they are encoded are of one
    rater.

    Args:
        study: from `make_study` or `Study.read`.
        contents: from `read_answers` or `simulate_panel`.
        limits: see `Limits`.
    """
    limits = limits or Limits()
    excluded, raters, tables = [], [], []
    files = [_sent(study, name, content) for name, content in contents.items()]
    again = _sent_again(study, [each for each in files if not each.why])
    for each in files:
        row = {"file": each.name, "rater": each.rater, "used": False, "answers": len(each.table)}
        why = each.why
        if not why:
            row |= {"failed_catch_trials": _failed(study, each.table), "median_seconds": each.table.milliseconds.median() / 1000}
            why = again.get(each.name) or _why_not(study, each.table, row["failed_catch_trials"], limits)
        if why:
            excluded.append({"file": each.name, "rater": each.rater, "what": "all answers", "why": why})
        else:
            fast = each.table.milliseconds < limits.fastest
            for pair in each.table.pair[fast]:
                excluded.append({"file": each.name, "rater": each.rater, "what": pair, "why": f"faster than {limits.fastest} ms"})
            tables.append(_tidy(study, each.table[~fast], each.rater))
        raters.append(row | {"used": not why})
    answers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return Checked(answers, pd.DataFrame(excluded, columns=["file", "rater", "what", "why"]), pd.DataFrame(raters))


@dataclass(frozen=True)
class _Sent:
    """A file: whose it is and the answers in it, or why it cannot be used."""

    name: str
    rater: str
    why: str
    table: pd.DataFrame
    finished: str = ""


def _sent(study: Study, name: str, content: Any) -> _Sent:
    """What a file holds, with nothing in it that the study does not know."""
    rater = content.get("rater", "") if isinstance(content, dict) else ""
    rater = str(rater).strip().encode("utf-8", "backslashreplace").decode() if type(rater) in (str, int) else ""
    if why := _unusable(study, rater, content):
        return _Sent(name, rater, why, pd.DataFrame())
    fields = ["pair", "order", "left", "milliseconds", *SAID[study.protocol]]
    table = pd.DataFrame([{field: answer[field] for field in fields} for answer in content["answers"]])
    return _Sent(name, rater, "", table, str(content.get("finished") or "~"))


def _sent_again(study: Study, files: list[_Sent]) -> dict[str, str]:
    """{name: why it is left out} of the files of raters who sent more than one."""
    people: dict[str, list[_Sent]] = {}
    for each in files:
        people.setdefault(_person(each.rater), []).append(each)
    left_out = {}
    for own in people.values():
        fullest = min(own, key=lambda each: (-len(each.table), each.finished))
        apart = [found for two in itertools.combinations(own, 2) if (found := _contradiction(study, *two))]
        for each in own:
            if apart:
                left_out[each.name] = f"files of one rater disagree: {apart[0]}"
            elif each is not fullest:
                left_out[each.name] = f"a second file of this rater; {fullest.name} has as many answers or more"
    return left_out


def _person(name: str) -> str:
    """A name without what differs when one person types it twice: case, spaces, and how letters with accents are encoded."""
    shown = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown.casefold()).split())


def _contradiction(study: Study, one: _Sent, other: _Sent) -> str:
    """The first pair of which two files say different things; "" where they agree as far as both go."""
    said = [
        {
            row.pair: _value(study.pair(row.pair), row, study.protocol, study.pair(row.pair).methods[0])
            for row in each.table.itertuples()
        }
        for each in (one, other)
    ]
    apart = (pair for pair in said[0] if pair in said[1] and not np.array_equal(said[0][pair], said[1][pair], equal_nan=True))
    return next((f"{one.name} and {other.name} on {pair}" for pair in apart), "")


def _unusable(study: Study, rater: str, content: Any) -> str:
    """Why what a file holds cannot be used, "" where it can."""
    if content is None or isinstance(content, Refused):
        return content or "not JSON"
    if not isinstance(content, dict) or not isinstance(content.get("answers"), list):
        return "no file of answers"
    if content.get("study") != study.digest:
        return f"of another study ({reprlib.repr(content.get('study'))}; this one is {study.digest})"
    if not _person(rater):
        return "no rater's name"
    if any(unicodedata.category(each) == "Cc" for each in rater):
        return f"the rater's name is broken, {reprlib.repr(rater)}; mend it in the file"
    return _damage(study, content["answers"]) if content["answers"] else "incomplete: no answer"


def _damage(study: Study, answers: list[Any]) -> str:
    """What is wrong with the answers themselves."""
    names, found = {pair.name for pair in study.pairs}, []
    checks = {
        "order": lambda order: _whole(order, 1, len(names)),
        "left": lambda left: left in ("a", "b"),
        "milliseconds": _duration,
    }
    checks |= {field: CHECKS[field] for field in SAID[study.protocol]}
    for number, answer in enumerate(answers, start=1):
        if not isinstance(answer, dict) or not isinstance(answer.get("pair"), str) or answer["pair"] not in names:
            return f"damaged: answer {number} is to no pair of the study ({reprlib.repr(answer)})"
        for field, fits in checks.items():
            if not fits(answer.get(field)):
                return f"damaged: the answer to {answer['pair']} has {field} {reprlib.repr(answer.get(field))}"
        found.append(answer["pair"])
    twice = sorted({name for name in found if found.count(name) > 1})
    return f"damaged: {', '.join(twice)} answered twice" if twice else ""


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # True is no number here


def _duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LONGEST


SAID = {"choice": ("choice",), "rating": ("left_score", "right_score")}
CHECKS = {
    "choice": lambda choice: choice in CHOICES,
    "left_score": lambda score: _whole(score, SCORES[0], SCORES[-1]),
    "right_score": lambda score: _whole(score, SCORES[0], SCORES[-1]),
}


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
