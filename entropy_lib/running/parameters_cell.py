"""The `parameters` cell of a notebook, read without running it: names, values, and the type that each value implies.

Example:
    >>> implied_type([0.1, 2]), implied_type(3)
    (list[float], <class 'int'>)
"""

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from entropy_lib.errors import InvalidInputError

PLAIN = (bool, int, float, str)
INJECTED = "# Parameters\n"  # how the cell begins that papermill puts in


def cell_values(notebook: Path) -> dict[str, Any]:
    """The values of a notebook's parameters, as its cell with the tag `parameters` writes them.

    Raises:
        InvalidInputError: unless there is one such cell, and each of its lines gives a new name a plain value.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        found = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        statements = ast.parse("\n".join(found)).body
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise InvalidInputError(f"its parameters cannot be read ({type(error).__name__}: {error})") from None
    if len(found) != 1:
        raise InvalidInputError(f"it has {len(found)} cells with the tag 'parameters'; it must have one")
    values: dict[str, Any] = {}
    for statement in statements:
        name, value = _assigned(statement)
        if name in values:
            raise InvalidInputError(f"parameter {name!r} is given twice; take one of the lines out")
        values[name] = value
    return values


def injected_names(cells: Iterable[str]) -> list[str]:
    """The names that papermill gave values to, from the cells that a kernel has run; none where it did not.

    Example:
        >>> injected_names(["steps = 3", "# Parameters\\nstepz = 5\\n"])
        ['stepz']
    """
    given = [cell for cell in cells if cell.startswith(INJECTED)]
    targets = (
        [statement.targets[0] for statement in ast.parse(given[-1]).body if isinstance(statement, ast.Assign)] if given else []
    )
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _assigned(statement: ast.stmt) -> tuple[str, Any]:
    """Name and value of `name = value`."""
    try:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                implied_type(literal := ast.literal_eval(value))
                return name, literal
    except (ValueError, TypeError):  # no literal, or none of a plain type
        pass
    line = f"{ast.unparse(statement)!r:.80}"
    raise InvalidInputError(f"parameters cell: {line} is not name = value with a number, a text, True, False, or a list of these")


def implied_type(value: Any) -> Any:
    """The type of a parameter that has this value: a plain one, or a list of one; whole numbers among others are numbers.

    Raises:
        InvalidInputError: for an empty list, a mixed one, and everything else.
    """
    if type(value) in PLAIN:
        return type(value)
    kinds = {implied_type(each) for each in value} if isinstance(value, list) else set()
    if kinds == {int, float}:
        return list[float]
    if len(kinds) != 1:
        raise InvalidInputError(f"{value!r:.80} has no plain type; give a number, a text, True, False, or a list of one of these")
    return list[kinds.pop()]
