"""What decides the results of a notebook, in one checksum: when it changes, the notebook has to run again.

Text that decides nothing is left out: comments, docstrings and formatting of the library, and modules that no notebook
comes to, as the training of the embedded models.
"""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from entropy_lib.errors import WeightsError, extra
from entropy_lib.files import DATA, PACKAGE, PROMPTS, sha256, workplace
from entropy_lib.running.parameters import Causes, Parameters, Sampling, Sweep

with extra("notebooks"):
    import nbformat

PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "safetensors", "open_clip_torch", "numpy", "scipy", "pandas",
    "statsmodels", "matplotlib", "seaborn", "pillow", "datasets",
)  # fmt: skip
NOT_REACHED = ("mini", "running", "__main__")  # rooms of which notebooks use no more than what is imported from elsewhere
REACHED = ("running.parameters", "running.metric_tables", "running.results")


def fingerprint(notebook: Path, checked: Parameters) -> str:
    """sha256 of everything that decides what a notebook computes and shows.

    Its cells, its parameters, the files that these name (real pictures by size and time), the shipped data, the weights, the
    code of the library, the versions of packages, and the kind of device.
    """
    facts = {
        "cells": [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, as_version=4).cells],
        "parameters": checked.model_dump(),
        "inputs": dict(_inputs(checked)),
        "code": code_digest(PACKAGE),
        "packages": versions(),
        "python": platform.python_version_tuple()[:2],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _inputs(checked: Parameters) -> Iterator[tuple[str, str]]:
    """(name, state) of what a notebook reads."""
    for pattern in ("*/quality.json", "paper/*.csv", "results/**/*.csv", "results/**/*.txt", "calibrations/**/*.json"):
        yield from ((path.relative_to(DATA).as_posix(), sha256(path)) for path in sorted(DATA.glob(pattern)))
    if not isinstance(checked, Sampling):
        return
    from entropy_lib.models.catalogue import resolve_device

    yield "weights", _weights(checked.model)
    yield "device", resolve_device("auto").type if checked.device == "auto" else checked.device
    for prompts in (PROMPTS / f"{checked.prompts}.txt", Path(checked.prompts)):
        if prompts.is_file():
            yield "prompts", sha256(prompts)
    if isinstance(checked, Causes) and (own := checked.own_calibration()) is not None:
        yield "calibration", own.digest
    if isinstance(checked, Sweep):
        yield from _pictures(checked.reference)
        yield from ((path.parent.name, sha256(path)) for path in sorted(DATA.glob("*/SHA256SUMS")))


def _weights(model: str) -> str:
    from entropy_lib.models.catalogue import revision

    try:
        return revision(model)
    except WeightsError:  # not there yet
        return "unknown"


def _pictures(reference: str) -> Iterator[tuple[str, str]]:
    """Files of real pictures: too many to read all of them."""
    if reference.partition(":")[0] == "scenes":
        yield from ((path.name, sha256(path)) for path in sorted(DATA.glob("sprites/*.parquet")))
    elif reference and not reference.startswith("hub:"):
        path = workplace() / reference
        files = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
        for file in sorted(files):
            state = file.stat()
            yield str(file), f"{state.st_size} bytes, {state.st_mtime_ns}"


@cache
def code_digest(library: Path) -> str:
    """sha256 of the code that notebooks come to, without docstrings and comments."""
    trees = {_dotted(path, library): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(library.rglob("*.py"))}
    digest = hashlib.sha256()
    for name in sorted(_reached(trees)):
        digest.update(f"{name}\n{ast.dump(_without_docstrings(trees[name]))}\n".encode())
    return digest.hexdigest()


def _dotted(path: Path, library: Path) -> str:
    return ".".join(path.relative_to(library).with_suffix("").parts)


def _reached(trees: dict[str, ast.Module]) -> set[str]:
    """Modules of all rooms but `NOT_REACHED`, and what they import of those."""
    found: set[str] = set()
    waiting = [name for name in trees if name.split(".")[0] not in NOT_REACHED] + list(REACHED)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += [other for other in _imports(trees[name]) if other in trees]
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    """Names of modules, without the library's own, that a module imports anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("entropy_lib.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.removeprefix("entropy_lib.")
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree
