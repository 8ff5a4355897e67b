"""What comes back from raters: checked against the study, and what is left out said with its reason."""

import itertools
import reprlib
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from entropy_lib.study.design import OTHER_PROMPT, Study
from entropy_lib.study.reading import Contents, Refused

COLUMNS = [
    *("rater", "pair", "prompt", "size", "first", "second", "left", "order", "milliseconds"),
    *("value", "first_score", "second_score"),
]
NOTHING = {"choice": 0.5, "rating": 0.0}  # the value of an answer that sees no difference
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
    """Answers that can be used, and those that cannot."""

    # one row an answer, catch trials no longer among them. `first` and `second` are methods in the order of
    # the study, `left` is the method that stood there, `value` what the answer says of the second: with
    # choices 1 for better, 0.5 for no difference, 0 for worse; with ratings its score less that of the first
    answers: pd.DataFrame
    excluded: pd.DataFrame  # columns `file, rater, what, why`
    raters: pd.DataFrame  # one row a file: `file, rater, used, answers, failed_catch_trials, median_seconds`


def check_answers(study: Study, contents: Contents, limits: Limits | None = None) -> Checked:
    """Leave out what raters sent and what cannot be trusted, and say why.

    Left out whole: files that cannot be read, are damaged or of another study; all files but the fullest of a
    rater who sent several that agree, and all of one whose files do not; raters who left too much out, were
    too fast too often, or failed catch trials. Left out singly: answers that were too fast. Names that differ
    in case, spaces or the way they are encoded are of one rater.

    Args:
        study: from `make_study` or `Study.read`.
        contents: from `read_answers` or `simulate_panel`.
        limits: see `Limits`.
    """
    limits = limits or Limits()
    excluded, raters, tables = [], [], []
    files = [_sent(study, name, content) for name, content in contents.items()]
    again = _sent_again([each for each in files if not each.why])
    for each in files:
        table, why = each.table, each.why
        row = {"file": each.name, "rater": each.rater, "used": False, "answers": len(table)}
        if not why:
            failed = int((table.catch & (table.value <= NOTHING[study.protocol])).sum())
            row |= {"failed_catch_trials": failed, "median_seconds": table.milliseconds.median() / 1000}
            why = again.get(each.name) or _why_not(study, table, failed, limits)
        if why:
            excluded.append((each.name, each.rater, "all answers", why))
        else:
            fast, said = table.milliseconds < limits.fastest, f"faster than {limits.fastest} ms"
            excluded += [(each.name, each.rater, pair, said) for pair in table.pair[fast]]
            tables.append(table[~fast & ~table.catch])
        raters.append(row | {"used": not why})
    answers = pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)
    left_out = pd.DataFrame(excluded, columns=["file", "rater", "what", "why"])
    return Checked(answers, left_out, pd.DataFrame(raters))


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
    rater = str(rater).strip() if type(rater) in (str, int) else ""
    rater = rater.encode("utf-8", "backslashreplace").decode()
    if why := _unusable(study, rater, content):
        return _Sent(name, rater, why, pd.DataFrame())
    rows = [_said_of_the_second(study, rater, answer) for answer in content["answers"]]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "catch"])
    return _Sent(name, rater, "", table, str(content.get("finished") or "~"))


def _said_of_the_second(study: Study, rater: str, answer: dict[str, Any]) -> tuple:
    """A row of answers. Of a catch trial, what is said of the right image."""
    pair = study.pair(answer["pair"])
    first, second = sorted(pair.methods, key=[OTHER_PROMPT, *study.methods].index)
    left = pair.methods["ab".index(answer["left"])]
    if study.protocol == "choice":
        chosen, scores = answer["choice"], (np.nan, np.nan)
        value = 0.5 if chosen == "tie" else float((chosen == "left") == (left == second))
    else:
        scores = float(answer["left_score"]), float(answer["right_score"])
        scores = scores if left == first else scores[::-1]
        value = scores[1] - scores[0]
    shown = pair.name, pair.prompt, pair.size, first, second, left
    return rater, *shown, answer["order"], answer["milliseconds"], value, *scores, pair.catch


def _sent_again(files: list[_Sent]) -> dict[str, str]:
    """{name: why it is left out} of the files of raters who sent more than one."""
    people: dict[str, list[_Sent]] = {}
    for each in files:
        people.setdefault(_person(each.rater), []).append(each)
    left_out = {}
    for own in people.values():
        fullest = min(own, key=lambda each: (-len(each.table), each.finished))
        apart = [found for two in itertools.combinations(own, 2) if (found := _contradiction(*two))]
        for each in own:
            if apart:
                left_out[each.name] = f"files of one rater disagree: {apart[0]}"
            elif each is not fullest:
                why = f"a second file of this rater; {fullest.name} has as many answers or more"
                left_out[each.name] = why
    return left_out


def _contradiction(one: _Sent, other: _Sent) -> str:
    """The first pair of which two files say different things; "" where they agree as far as both go."""
    said = ["value", "first_score", "second_score"]
    both = one.table.merge(other.table, on="pair", suffixes=("", " again"))
    apart = both[said].fillna(0).to_numpy() != both[[f"{name} again" for name in said]].fillna(0).to_numpy()
    return "".join(f"{one.name} and {other.name} on {pair}" for pair in both.pair[apart.any(axis=1)][:1])


def _person(name: str) -> str:
    """A name without what differs when one person types it twice: case, spaces, encoding of accents."""
    letters = unicodedata.normalize("NFKC", name)
    shown = "".join(each for each in letters if unicodedata.category(each) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown.casefold()).split())


def _unusable(study: Study, rater: str, content: Any) -> str:
    """Why what a file holds cannot be used, "" where it can."""
    if isinstance(content, Refused):
        return content
    if not isinstance(content, dict) or not isinstance(content.get("answers"), list):
        return "no file of answers"
    if content.get("study") != study.digest:
        return f"of another study ({reprlib.repr(content.get('study'))}; this one is {study.digest})"
    if not _person(rater) or any(unicodedata.category(each) == "Cc" for each in rater):
        return f"no rater's name but {reprlib.repr(content.get('rater'))}; mend it in the file"
    return _damage(study, content["answers"]) if content["answers"] else "incomplete: no answer"


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    pair: str
    order: int = Field(ge=1, le=10_000)
    left: Literal["a", "b"]
    milliseconds: float = Field(ge=0, lt=LONGEST)


class _Choice(_Answer):
    choice: Literal["left", "tie", "right"]


class _Rating(_Answer):
    left_score: int = Field(ge=SCORES[0], le=SCORES[-1])
    right_score: int = Field(ge=SCORES[0], le=SCORES[-1])


ANSWERS = {"choice": TypeAdapter(list[_Choice]), "rating": TypeAdapter(list[_Rating])}


def _damage(study: Study, answers: list[Any]) -> str:
    """What is wrong with the answers themselves, "" for nothing."""
    try:
        named = [answer.pair for answer in ANSWERS[study.protocol].validate_python(answers)]
    except ValidationError as error:
        first = error.errors()[0]
        place, given = ".".join(map(str, first["loc"])), reprlib.repr(first["input"])
        return f"damaged: answers.{place}: {first['msg']}; it is {given}"
    known = {pair.name for pair in study.pairs}
    if unknown := [name for name in named if name not in known]:
        return f"damaged: an answer is to {reprlib.repr(unknown[0])}, which is no pair of the study"
    twice = sorted({name for name in named if named.count(name) > 1})
    return f"damaged: {', '.join(twice)} answered twice" if twice else ""


def _why_not(study: Study, table: pd.DataFrame, failed: int, limits: Limits) -> str:
    """Why a rater is left out, "" for one who is not."""
    if len(table) < limits.complete * len(study.pairs):
        return f"incomplete: {len(table)} of {len(study.pairs)} pairs"
    fast = (table.milliseconds < limits.fastest).mean()
    if fast > limits.fast_share:
        return f"too fast: {fast:.0%} of the answers in less than {limits.fastest} ms"
    return f"failed {failed} catch trials" if failed > limits.failed_catch_trials else ""
