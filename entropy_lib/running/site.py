"""Turns executed notebooks into a small site that opens offline: one page each and an index with thumbnails."""

import base64
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from entropy_lib.files import replacing
from entropy_lib.running.runner import Result, read_executed

TEMPLATES = Path(__file__).parent / "templates"
FORMULA = re.compile(r"`[^`]*`|\$\$(?P<display>.+?)\$\$|(?<![\\$])\$(?P<inline>[^\s$](?:[^$]*[^\s$\\])?)\$(?!\d)", re.DOTALL)


def write_report(results: Sequence[Result], profile: str, output: Path) -> Path:
    """Write `<name>.html` for each executed notebook and `index.html`; returns the index."""
    cards = [_card(result, output) for result in results if (output / f"{result.name}.ipynb").exists()]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    seconds = sum(result.seconds for result in results)
    packages = ("torch", "diffusers", "transformers")
    page = environment.get_template("index.html.j2").render(
        profile=profile,
        results=cards,
        minutes=f"{seconds / 60:.1f} minutes",
        versions=" · ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
    )
    with replacing(output / "index.html") as temporary:
        temporary.write_text(page)
    return output / "index.html"


def with_mathml(markdown: str) -> str:
    """Replace $…$ and $$…$$ by MathML, which browsers show without any script; code spans are left alone.

    Example:
        >>> with_mathml("the factor $f$ and `$HOME`")[:17]
        'the factor <math '
    """

    def formula(match: re.Match) -> str:
        if match["display"]:
            return convert(match["display"].strip(), display="block")
        return convert(match["inline"]) if match["inline"] else match[0]

    return FORMULA.sub(formula, markdown)


def _card(result: Result, output: Path) -> dict:
    notebook = read_executed(result.name, output)
    title, question = _heading(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[str(TEMPLATES)])
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    with replacing(output / f"{result.name}.html") as temporary:
        temporary.write_text(html)
    return vars(result) | {"title": title, "question": question, "thumbnail": _thumbnail(notebook, output / f"{result.name}.png")}


def _heading(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """Title and question: the first heading and the first paragraph under it."""
    lines = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    return lines[0].lstrip("# "), re.sub(r"[*_$`\\]", "", lines[1]) if len(lines) > 1 else ""


def _thumbnail(notebook: nbformat.NotebookNode, path: Path) -> str | None:
    """Write the notebook's first figure beside the page and return its file name."""
    for cell in notebook.cells:
        for part in cell.get("outputs", []):
            if "image/png" in part.get("data", {}):
                with replacing(path) as temporary:
                    temporary.write_bytes(base64.b64decode(part["data"]["image/png"]))
                return path.name
    return None
