"""A notebook's parameters and their checks, read from its file without running it."""

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from entropy_lib.errors import InvalidInputError

INJECTED = "# Parameters\n"  # how the cell begins that papermill puts in


def read_cells(notebook: Path) -> tuple[dict[str, Any], list[str]]:
    """The values of a notebook's `parameters` cell, and its checks: the calls of `check_…` of parameters."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell.get("cell_type") != "markdown"]
        found = [_source(cell) for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        statements = ast.parse("\n".join(found)).body
        checking = [_source(cell) for cell in code if "check_parameters(" in _source(cell)]
        beside = ast.parse("\n".join(map(_without_magics, checking))).body
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise InvalidInputError(f"its parameters cannot be read ({type(error).__name__}: {error})") from None
    if len(found) != 1:
        raise InvalidInputError(f"it has {len(found)} cells with the tag 'parameters'; it must have one")
    values: dict[str, Any] = {}
    for name, value in map(_assigned, statements):
        if name in values:
            raise InvalidInputError(f"parameter {name!r} is given twice; take one of the lines out")
        values[name] = value
    return values, [ast.unparse(statement) for statement in beside if _is_check(statement)]


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _without_magics(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))


def _is_check(statement: ast.stmt) -> bool:
    called = getattr(statement.value, "func", None) if isinstance(statement, ast.Expr) else None
    return getattr(called, "attr", "").startswith("check_")


def injected_names(cells: Iterable[str]) -> list[str]:
    """The names that papermill gave values to, from the cells that a kernel has run; none where it did not.

    Example:
        >>> injected_names(["steps = 3", "# Parameters\\nstepz = 5\\n"])
        ['stepz']
    """
    given = [cell for cell in cells if cell.startswith(INJECTED)][-1:]
    assigned = [each for cell in given for each in ast.parse(cell).body if isinstance(each, ast.Assign)]
    return [each.targets[0].id for each in assigned if isinstance(each.targets[0], ast.Name)]


def _assigned(statement: ast.stmt) -> tuple[str, Any]:
    try:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return name, ast.literal_eval(value)
    except (ValueError, TypeError):  # no literal
        pass
    raise _not_plain(ast.unparse(statement))


def implied_type(value: Any) -> Any:
    """The type of such a value: a plain one, or a list of one; whole numbers among others are numbers."""
    if type(value) in (bool, int, float, str):
        return type(value)
    kinds = {implied_type(each) for each in value} if isinstance(value, list) else set()
    if kinds == {int, float}:
        return list[float]
    if len(kinds) != 1:
        raise _not_plain(repr(value))
    return list[kinds.pop()]


def _not_plain(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"parameters cell: {text!r:.80} is not name = value with a number, a text, True, False, or a list "
        "of one of these"
    )
