"""The report: a site that opens from the file system, built by Sphinx (`docs/conf.py`) over what was run.

Only pages whose source changed are built again, so sources keep the date of what they are made from.
"""

import base64
import io
import shutil
from pathlib import Path
from typing import Any

from entropy_lib.cli.results import PAGE
from entropy_lib.cli.runner import Result, read_result
from entropy_lib.errors import extra
from entropy_lib.files import PACKAGE, ROOT, replacing

with extra("notebooks"):
    import nbformat
    from jinja2 import Environment, FileSystemLoader
    from papermill.execute import remove_error_markers

DOCS = ROOT / "docs"
SOURCE, DOCTREES = ".source", ".doctrees"  # folders inside that of the report
NAMED = ("torch", "diffusers", "transformers")  # packages whose versions the index shows
WIDGET = "application/vnd.jupyter.widget-view+json"


def write_report(output: Path) -> Path:
    """Build the site of all runs in a folder."""
    with extra("notebooks"):
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

    shutil.rmtree(output / SOURCE, ignore_errors=True)
    gather(output, output / SOURCE)
    warnings = io.StringIO()
    paths = (output / SOURCE, DOCS, output, output / DOCTREES)
    try:
        with patch_docutils(), docutils_namespace():  # so that it can be built again in the same process
            Sphinx(*paths, "html", status=None, warning=warnings).build()
    except BaseException:
        # else a page that was written by half would count as built
        shutil.rmtree(output / DOCTREES, ignore_errors=True)
        raise
    with replacing(output / DOCTREES / "warnings.txt") as temporary:
        temporary.write_text(warnings.getvalue(), encoding="utf-8")
    return output / "index.html"


def gather(output: Path, source: Path) -> None:
    """Write the sources of the site: guides, results, reference, executed notebooks, the front page."""
    handbook(source)
    runs: dict[Path, list[Result]] = {}
    for path in sorted(output.glob("*/*.result.json")):
        if (result := read_result(path)) is not None:
            runs.setdefault(path.parent, []).append(result)
    sections = [_section(folder, results, source / folder.name) for folder, results in runs.items()]
    for section in sections:
        _render("profile.md", source / section["folder"] / "index.md", section=section)
    _render("index.md", source / "index.md", sections=sections)


def handbook(source: Path) -> None:
    """The pages that are the same whatever was run."""
    results = (PAGE, *DOCS.glob("*.png"))  # which have a place of their own in the bar at the top
    left_out = shutil.ignore_patterns("conf.py", "*.j2", "_*", *(path.name for path in results))
    shutil.copytree(DOCS, source / "guides", ignore=left_out)
    for path in results:
        shutil.copy2(path, source)
    _render("reference.md", source / "reference" / "index.md")
    for listed in PACKAGE.glob("*/__init__.pyi"):
        name = listed.parent.name
        _render("subpackage.md", source / "reference" / f"{name}.md", listed, name=name)


def _section(folder: Path, results: list[Result], place: Path) -> dict[str, Any]:
    """What the front page says of runs of one profile with the same overrides, whose pages are written."""
    versions = {" · ".join(f"{name} {result.versions[name]}" for name in NAMED) for result in results}
    return {
        "folder": folder.name,
        "profile": results[0].profile,
        "overrides": ", ".join(f"{name} = {value}" for name, value in results[0].overrides.items()),
        "minutes": sum(result.seconds for result in results) / 60,
        "versions": " or ".join(sorted(versions)),
        "cards": [_page(result, folder, place) for result in results],
    }


def _page(result: Result, folder: Path, place: Path) -> dict[str, Any]:
    """What the front page says of a notebook, whose page, first figure and log are written."""
    executed = folder / f"{result.name}.ipynb"
    notebook = remove_error_markers(nbformat.read(executed, as_version=4))
    card = {"result": result, **card_of(notebook)}
    _write(place / executed.name, nbformat.writes(for_a_page(notebook, card["title"])), executed)
    if card["figure"]:
        (place / f"{result.name}.png").write_bytes(base64.b64decode(card["figure"]))
    if (log := folder / f"{result.name}.log").is_file():
        shutil.copy2(log, place)
    return card


def card_of(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Title and question, the first two lines; the answer; the first figure, or ""."""
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.strip()] or [
        "no title"
    ]
    shown = [(cell, output.get("data", {})) for cell in notebook.cells for output in cell.get("outputs", [])]
    answers = [
        data.get("text/markdown", "") for cell, data in shown if "summary" in cell.metadata.get("tags", [])
    ]
    return {
        "title": lines[0].lstrip("# "),
        "question": lines[1] if len(lines) > 1 else "",
        "answer": "\n\n".join(answers),
        "figure": next((data["image/png"] for _, data in shown if "image/png" in data), ""),
    }


def for_a_page(notebook: nbformat.NotebookNode, title: str) -> nbformat.NotebookNode:
    """The notebook without widgets, which need a kernel, and with descriptions of its figures."""
    notebook.metadata.pop("widgets", None)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [tag for cell in code for tag in cell.metadata.get("tags", [])]
    hidden = {"summary": "remove-input"}
    if "injected-parameters" in tags:
        hidden["parameters"] = "hide-input"  # their defaults; what was given stands below
    for cell in code:
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        cell.metadata["mystnb"] = {"image": {"alt": f"A figure of {title}"}}
        own = cell.metadata.get("tags", [])
        cell.metadata["tags"] = [*own, *(hidden[tag] for tag in own if tag in hidden)]
    return notebook


def _render(template: str, path: Path, made_from: Path | None = None, **values: Any) -> None:
    templates = Environment(loader=FileSystemLoader(DOCS), trim_blocks=True, lstrip_blocks=True)
    _write(path, templates.get_template(f"{template}.j2").render(**values), made_from)


def _write(path: Path, text: str, made_from: Path | None = None) -> None:
    """Write a source, with the date of the file that it is made from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if made_from:
        shutil.copystat(made_from, path)
