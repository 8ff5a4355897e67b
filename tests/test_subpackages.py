"""Imports between the subpackages point one way, lazy ones included; names of files and the public face."""

import ast
import importlib
from collections import Counter
from functools import cache

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import entropy_lib
from entropy_lib.files import ROOT

LIBRARY = ROOT / "entropy_lib"
GROUND = {"errors", "files", "precision", "sizes"}  # every subpackage stands on these

# Which subpackages, or which single modules of one, each may import, and why.
ALLOWED = {
    "entropy": {},
    "statistics": {},
    "models": {},
    "metrics": {
        "statistics": "intervals of its own statistics",
        "models.checksums": "weights of feature networks are verified like those of models",
        "models.hub": "feature networks come from the Hub too",
    },
    "scaling": {
        "entropy": "the factor of equal entropy, and what each rule does by the exact law",
        "models.layers": "where the queries are, and T",
        "models.kernels": "where the scale is",
        "models.runs": "how much of a run lies behind",
    },
    "probes": {
        "entropy": "what is measured, and Eq. 5 beside it",
        "models.layers": "which layers to watch, and T",
        "models.networks": "the image of a call",
        "models.kernels": "where query and key are",
        "models.runs": "what calls the network, and when",
    },
    "sampling": {
        "entropy": "the type of a choice of query rows",
        "models": "loading, native size, how a network is called",
        "scaling": "generating under a rule",
        "probes": "measuring while generating",
    },
    "sweep": {
        "__init__": "the version that drew an image",
        "scaling.calibration": "one of the user's own is kept beside the images",
        "scaling.rules": "whether a model has the levels of a rule",
        "statistics": "intervals",
        "metrics": "what images are judged by",
        "models": "loading, revisions",
        "sampling": "generating by any method",
        "scenes": "one of the references, and what images are judged by",
    },
    "study": {"statistics": "intervals over raters and prompts"},
    "scenes": {
        "statistics": "intervals of what a perfect model would get",
        "metrics": "what detections are counted by",
        "models.checksums": "the detector's weights are verified",
    },
    "plots": {
        "entropy": "lines of the laws, names of what Eq. 5 fails by, what a layer looks at",
        "metrics.registry": "names, directions and units of metrics",
        "metrics.layout": "from which probability on a thing can be named",
        "statistics": "the type of a fit",
    },
    "cli": {},  # knows all
    "__init__": {},  # names what subpackages offer in its stub, and loads none of them
    "__main__": {"cli": "the command line"},
}


@cache
def modules() -> dict[str, ast.Module]:
    """{dotted name inside the library: its syntax tree}; a subpackage's own name is that of its __init__."""
    return {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in LIBRARY.rglob("*.py")}


def dotted(path) -> str:
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 else [part for part in parts if part != "__init__"])


@cache
def imported(module: str) -> set[str]:
    """Full names of everything that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def neighbours(module: str) -> set[str]:
    """Modules of the library that a module imports."""
    inside = [name.split(".")[1:] for name in imported(module) if name.split(".")[0] == "entropy_lib"]
    return {nearest(parts) for parts in inside}


def nearest(parts: list[str]) -> str:
    """The module that a dotted name lies in."""
    while parts and ".".join(parts) not in modules():
        parts = parts[:-1]
    return ".".join(parts) or "__init__"


def subpackage(module: str) -> str:
    return module.split(".")[0]


def reached(module: str) -> set[str]:
    """Modules that may be imported with a module, one through the other; who names a subpackage may load all
    of it.
    """
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += neighbours(name)
            waiting += [other for other in modules() if name in ALLOWED and subpackage(other) == name]
    return found


SUBPACKAGES = sorted({subpackage(name) for name in modules()} - GROUND)


def test_the_top_level_holds_subpackages_and_little_else():
    assert {path.stem for path in LIBRARY.glob("*.py")} == {"__init__", "__main__"} | GROUND
    assert set(SUBPACKAGES) == set(ALLOWED)


def test_no_two_files_have_one_name():
    names = Counter(path.stem for path in LIBRARY.rglob("*.py") if path.stem != "__init__")
    assert not [name for name, count in names.items() if count > 1]


def test_few_names_are_public_at_the_top_and_all_others_by_their_subpackage():
    assert len(entropy_lib.__all__) <= 35
    assert set(SUBPACKAGES) - {"__init__", "__main__"} <= set(entropy_lib.__all__)


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_a_subpackage_imports_only_what_it_may(name):
    arrows = {
        (own, other)
        for own in modules()
        if subpackage(own) == name
        for other in neighbours(own)
        if subpackage(other) != name
    }
    allowed = set(ALLOWED[name]) | GROUND
    wrong = [f"{own} imports {other}" for own, other in arrows if not {other, subpackage(other)} & allowed]
    assert name == "cli" or not wrong


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_no_arrow_is_allowed_in_vain(name):
    others = {other for own in modules() if subpackage(own) == name for other in neighbours(own)}
    named = others | set(map(subpackage, others))
    assert set(ALLOWED[name]) <= named


def test_subpackages_stand_on_each_other_without_a_circle():
    level = {name: {subpackage(other) for other in ALLOWED[name]} - {"__init__"} for name in ALLOWED}
    while level:
        floor = {name for name, below in level.items() if not below & set(level)}
        assert floor, f"a circle among {', '.join(level)}"
        level = {name: below for name, below in level.items() if name not in floor}


@pytest.mark.parametrize("name", ["entropy", "statistics", "metrics", "plots"])
def test_subpackages_of_tensors_and_tables_do_not_import_diffusers(name):
    for module in modules():
        if subpackage(module) == name:
            assert not {other.split(".")[0] for other in imported(module)} & {
                "diffusers",
                "ray",
                "papermill",
            }, module


def test_plots_reach_nothing_that_imports_a_model():
    reach = set().union(*(reached(name) for name in modules() if subpackage(name) == "plots"))
    assert {subpackage(name) for name in reach} <= {"plots", "entropy", "statistics", "metrics"} | GROUND


@pytest.mark.parametrize("name", [name for name in SUBPACKAGES if not name.startswith("__")])
def test_every_subpackage_says_what_it_knows_and_what_it_must_not_know(name):
    text = ast.get_docstring(modules()[name])
    assert "Knows" in text
    assert "must not" in text


@pytest.mark.parametrize(
    "name", ["", *(name for name in SUBPACKAGES if (LIBRARY / name / "__init__.pyi").exists())]
)
def test_every_name_of_a_stub_is_there(name):
    package = importlib.import_module(f"entropy_lib.{name}".rstrip("."))
    for public in package.__all__:
        assert getattr(package, public) is not None


@pytest.mark.parametrize(
    "path", [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")], ids=lambda p: p.stem
)
def test_notebooks_import_no_inner_module(path):
    """Anywhere in their code, indented or not."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    code = ast.parse("\n".join(TransformerManager().transform_cell(cell) for cell in cells))
    found = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.Import | ast.ImportFrom) and "entropy_lib" in ast.unparse(node)
    ]
    assert {ast.unparse(node) for node in found} == {"import entropy_lib as el"}
