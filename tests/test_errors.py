"""Every error that the library raises on purpose derives from EntropyLibError, and is still caught as
before.
"""

import ast
import importlib

import pytest

from entropy_lib.errors import EntropyLibError, InvalidInputError, UnknownNameError
from entropy_lib.files import ROOT


def error_classes() -> list[tuple[str, str]]:
    """(module, name) of every class called …Error in the source of the library."""
    paths = sorted((ROOT / "entropy_lib").rglob("*.py"))
    found = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    classes = [
        (path, node.name)
        for path, node in found
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), name) for path, name in classes]


@pytest.mark.parametrize(("module", "name"), error_classes())
def test_all_errors_of_the_library_share_one_base(module, name):
    kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, EntropyLibError)
    builtin = ValueError | TypeError | RuntimeError | ArithmeticError | OSError | ImportError | LookupError
    assert kind is EntropyLibError or issubclass(kind, builtin)


def test_an_unknown_name_is_invalid_input_and_the_nearest_is_offered():
    error = UnknownNameError("scale rule", "papr", ["paper", "unscaled"])
    assert isinstance(error, InvalidInputError)
    assert "did you mean 'paper'?" in str(error)
