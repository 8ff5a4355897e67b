"""Turns executed notebooks into a small site that opens offline: a page each, and an index of all profiles that were run.

Pages load no script: mathematics is MathML, and widgets are left to JupyterLab.
"""

import base64
import posixpath
from collections.abc import Collection
from pathlib import Path
from typing import Any

from entropy_lib.errors import extra
from entropy_lib.files import replacing
from entropy_lib.running.runner import Result, read_result

with extra("notebooks"):
    import jinja2
    import nbformat
    from jinja2 import Environment, FileSystemLoader
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATES = Path(__file__).parent / "templates"
NAMED = ("torch", "diffusers", "transformers")  # packages whose versions the index shows


def write_report(output: Path, folder: Path) -> Path:
    """Write the page of every notebook that was executed in `folder`, and `index.html` of all folders in `output`.

    Returns:
        the index.
    """
    runs = {path: read_result(path) for path in sorted(output.glob("*/*.result.json"))}
    by_folder: dict[Path, list[Result]] = {}
    for path, result in runs.items():
        if result is not None:
            by_folder.setdefault(path.parent, []).append(result)
    for result in by_folder.get(folder, []):
        _write_page(result, folder, {other.name for other in by_folder[folder]})
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("index.html.j2").render(sections=[_section(*pair) for pair in by_folder.items()])
    with replacing(output / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return output / "index.html"


def _section(folder: Path, results: list[Result]) -> dict:
    """What the index says of the runs of one profile with the same overrides."""
    first = results[0]
    return {
        "profile": first.profile,
        "overrides": ", ".join(f"{name} = {value}" for name, value in first.overrides.items()),
        "minutes": sum(result.seconds for result in results) / 60,
        "versions": " or ".join(sorted({" · ".join(f"{name} {result.versions[name]}" for name in NAMED) for result in results})),
        "results": [_card(result, folder) for result in results],
    }


def _card(result: Result, folder: Path) -> dict:
    notebook = _executed(result, folder)
    title, question = _heading(notebook)
    picture = folder / f"{result.name}.png"
    return {
        "title": title,
        "question": MarkdownWithMath(renderer=_Renderer(escape=False)).render(question),
        "answer": MarkdownWithMath(renderer=_Renderer(escape=True)).render(_answer(notebook)),
        "address": f"{folder.name}/{result.name}",
        "thumbnail": picture.exists(),
        "result": result,
    }


def _executed(result: Result, folder: Path) -> nbformat.NotebookNode:
    return nbformat.read(folder / f"{result.name}.ipynb", as_version=4)


def _write_page(result: Result, folder: Path, pages: Collection[str]) -> None:
    notebook = _executed(result, folder)
    exporter = _Exporter(pages, template_name="report", extra_template_basedirs=[str(TEMPLATES)])
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": _heading(notebook)[0]}})
    with replacing(folder / f"{result.name}.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
    _write_thumbnail(notebook, folder / f"{result.name}.png")


def _heading(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """Title and question: the first heading and the first line under it."""
    lines = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    return lines[0].lstrip("# "), lines[1] if len(lines) > 1 else ""


def _answer(notebook: nbformat.NotebookNode) -> str:
    """What the notebook wrote at its top when it had run, in Markdown; "" where it says nothing."""
    cells = [cell for cell in notebook.cells if "in-short" in cell.metadata.get("tags", [])]
    texts = [output.get("data", {}).get("text/markdown", "") for cell in cells for output in cell.get("outputs", [])]
    return "\n\n".join(texts)


def _write_thumbnail(notebook: nbformat.NotebookNode, path: Path) -> None:
    """The notebook's first figure, beside its page."""
    figures = (part.get("data", {}).get("image/png") for cell in notebook.cells for part in cell.get("outputs", []))
    if figure := next(filter(None, figures), None):
        with replacing(path) as temporary:
            temporary.write_bytes(base64.b64decode(figure))


class _Renderer(IPythonRenderer):
    """Formulas become MathML, which browsers show without any script; links to files that have no page become text."""

    pages: Collection[str] = ()

    def inline_math(self, body: str) -> str:
        return convert(body.strip())

    def block_math(self, body: str) -> str:
        return convert(body.strip(), display="block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if "://" in url or url.startswith(("#", "mailto:")):
            return super().link(text, url, title)
        name, ending = posixpath.splitext(url)
        return super().link(text, f"{name}.html", title) if ending == ".ipynb" and name in self.pages else text


class _Exporter(HTMLExporter):
    """Exports with `_Renderer`."""

    def __init__(self, pages: Collection[str], **options: Any):
        super().__init__(**options)
        self.pages = pages

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        """Of nbconvert: the filter for cells of text."""
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, anchor_link_text=self.anchor_link_text)
        renderer.pages = self.pages
        return MarkdownWithMath(renderer=renderer).render(source)
