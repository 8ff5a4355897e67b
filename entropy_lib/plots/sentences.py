"""A sentence of a summary: written by a person, filled in by the run, and printed if that bears it out."""

import re
import string
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics.registry import METRICS
from entropy_lib.plots.numbers import chance, interval, percent, side, significant

CLAIM = re.compile(r"(\w+) ([<>=]) (-?\d+\.?\d*|[a-z_]\w*)")
SIDES = {"below": "<", "above": ">", "holds": "="}
WAYS = {
    "all": "over all layers",
    "by importance": "weighted by importance",
    "without dead": "without dead layers",
}
MAIN = ("estimate", "slope", "share")  # columns whose bounds are called `low` and `high`


def sentence(
    template: str, expectation: str, row: pd.DataFrame | Mapping[str, Any], level: float = 0.95
) -> str:
    """A summary's sentence with its numbers, or, where the row contradicts it, a statement that it does.

    A number with an interval lies above or below a limit if all of its interval does, as it is printed, and
    equals it ("n.s.") if the interval holds the limit. Where the row has `p_holm`, claims about 0 go by that
    p-value instead. Numbers without an interval are compared as they are.

    Args:
        template: text with `{column}` (a number with its interval), `{column:%}` (the same in per cent), or
            any format of Python's (the number alone). It shows every column that it claims something of.
        expectation: claims `column < limit`, `column > limit` or `column = limit`, joined by "and"; a limit
            is a number or another column.
        row: one row of a table, or a table of one row. Numbers of a metric are shown as `METRICS` says.
        level: of the intervals.

    Example:
        >>> row = {"size": "96x96", "estimate": 1.0, "low": 0.8, "high": 1.2}
        >>> sentence("At {size} the over-count is {estimate}.", "estimate > 0", row)
        'At 96x96 the over-count is 1.00 [0.80, 1.20].'
        >>> sentence("At {size} the over-count is {estimate}.", "estimate < 0", row)
        '**The run contradicts its summary**, which expects estimate < 0: estimate is 1.00 [0.80, 1.20].'
    """
    if isinstance(row, pd.DataFrame):
        if row.empty:
            return "Nothing was compared that the summary speaks of."
        if len(row) > 1:
            raise InvalidInputError(f"a sentence is about one row of a table; there are {len(row)}")
        row = row.iloc[0].to_dict()
    claims = _claims(template, expectation, row)
    row = dict(row)
    if (metric := METRICS.get(row.get("metric", ""))) is not None:
        row |= {name: metric.times * row[name] for name in ("estimate", "low", "high") if name in row}
        row["metric"] = metric.label
    for name, relation, limit in claims:
        found = _relation(row, name, row[limit] if limit in row else float(limit), level)
        if found != relation:
            shown = [f"{name} is {_written(row, name)}"]
            shown += [f"{_written(row, 'p_holm')} after Holm's correction"] if "p_holm" in row else []
            said = {"": "cannot test", "=": "does not show"}.get(found, "contradicts")
            limit = f"{limit} ({row[limit]:.3g})" if limit in row else limit
            expected = f"which expects {name} {relation} {limit}"
            return f"**The run {said} its summary**, {expected}: {', '.join(shown)}."
    fields = string.Formatter().parse(template)
    return "".join(text + (_written(row, name, form) if name else "") for text, name, form, _ in fields)


def _claims(template: str, expectation: str, row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What can be tested; InvalidInputError for what cannot."""
    found = [CLAIM.fullmatch(part.strip()) for part in expectation.split(" and ")]
    if None in found:
        wanted = "write claims as 'estimate < 0', joined by 'and'"
        raise InvalidInputError(f"the expectation {expectation!r} cannot be tested; {wanted}")
    claims = [match.groups() for match in found if match is not None]
    shown = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    needed = shown | {part for name, _, limit in claims for part in (name, limit) if part.isidentifier()}
    if missing := sorted(needed - set(row)):
        raise InvalidInputError(f"the row has no column {missing[0]!r}; it has {', '.join(map(str, row))}")
    if hidden := sorted({name for name, _, _ in claims} - shown):
        hides = f"does not show {hidden[0]!r}, of which it expects {expectation!r}"
        raise InvalidInputError(f"the sentence {template!r} {hides}")
    return claims


def _bounds(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Of a column's interval; None where it has none."""
    names = (f"{name}_low", f"{name}_high") if f"{name}_low" in row else ("low", "high")
    return (row[names[0]], row[names[1]]) if names[0] in row and (name in MAIN or names[0] != "low") else None


def _relation(row: Mapping[str, Any], name: str, limit: float, level: float) -> str:
    """How a number lies to a limit: < or >, = for no significant difference, "" where none can be told."""
    value, bounds = row[name], _bounds(row, name)
    if bounds is None:
        found = {"<": value < limit, ">": value > limit, "=": value == limit}
        return next((relation for relation, holds in found.items() if holds), "")  # NaN is in none
    if limit == 0 and name in MAIN and "p_holm" in row:
        if pd.isna(row["p_holm"]) or not significant(row["p_holm"], level):
            return "" if pd.isna(row["p_holm"]) else "="
        return "<" if value < 0 else ">"
    return SIDES.get(side(*bounds, limit), "")


def _written(row: Mapping[str, Any], name: str, form: str | None = "") -> str:
    value, bounds = row[name], _bounds(row, name)
    if name.startswith("p_"):
        return f"p {'=' if value >= 0.001 else ''} {chance(value)}".replace("  ", " ")
    if form == "%":
        return percent(value, *bounds or ())
    if bounds is not None and not form:
        return interval(value, *bounds)
    return format(value, form or (".3g" if isinstance(value, float) else ""))


def three_means(table: pd.DataFrame, what: str, write: Callable[..., str] = interval) -> str:
    """A sentence with the three means over layers of a number, and whether they differ.

    Args:
        table: columns `layers, estimate, low, high, change_low, change_high`, as of `statistics.three_means`.
        what: the number, in words that begin a sentence.
        write: how it is written: `numbers.interval` or `numbers.percent`.

    Example:
        >>> rows = [("all", 1.0, 0.9, 1.1, None, None), ("by importance", 0.3, 0.2, 0.4, -0.8, -0.6)]
        >>> names = ["layers", "estimate", "low", "high", "change_low", "change_high"]
        >>> three_means(pd.DataFrame(rows, columns=names), "It").partition(" over all layers, ")[2]
        '0.30 [0.20, 0.40] weighted by importance (less): **the means over layers disagree**.'
    """
    said, words, found = [], {"above": " (more)", "below": " (less)", "holds": " (n.s.)", "": ""}, set()
    for row in table.itertuples():
        found.add(apart := side(row.change_low, row.change_high, 0))
        said.append(f"{write(row.estimate, row.low, row.high)} {WAYS[row.layers]}{words[apart]}")
    end = ": **the means over layers disagree**" if found & {"above", "below"} else ""
    return f"{what} is {', '.join(said)}{end}."
