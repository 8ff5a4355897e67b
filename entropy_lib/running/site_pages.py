"""What the pages of the report say: from executed notebooks, kept results, guides and docstrings to the sources of a site.

Sources are {place in the site: content}; `running.site` builds them. A link that would lead nowhere becomes text.
"""

import base64
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from entropy_lib.errors import extra
from entropy_lib.files import PACKAGE, ROOT
from entropy_lib.running.results import PAGE
from entropy_lib.running.runner import Result, read_result

with extra("notebooks"):
    import nbformat
    from jinja2 import Environment, FileSystemLoader

TEMPLATES = Path(__file__).parent / "templates"
NAMED = ("torch", "diffusers", "transformers")  # packages whose versions the index shows
WIDGET = "application/vnd.jupyter.widget-view+json"
GUIDES = ("lessons", "study", "batch", "rules", "combinations")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")

Sources = dict[str, bytes]


def sources(output: Path, handbook: bool = True) -> Sources:
    """All pages of a site.

    Args:
        output: the folder of the report, that holds a folder for all runs of a profile with the same overrides.
        handbook: with the guides, kept results and reference, which are the same whatever was run.
    """
    runs = _runs(output)
    around = _handbook() if handbook else {}
    pages = {f"{folder.name}/{result.name}.ipynb" for folder, results in runs.items() for result in results} | set(around)
    found = {place: _linked(content, place, pages) if place.endswith(".md") else content for place, content in around.items()}
    for folder, results in runs.items():
        for result in results:
            found |= _of_a_run(result, folder, pages)
        text = _template("profile.md.j2").render(section=_section(folder, results), names=[result.name for result in results])
        found[f"{folder.name}/index.md"] = text.encode()
    picture = ROOT / "docs" / "grid.png"
    if handbook and picture.is_file():
        found["grid.png"] = picture.read_bytes()
    shown = {"sections": [_section(*pair) for pair in runs.items()], "story": "", "picture": "grid.png" in found}
    found["index.md"] = _template("index.md.j2").render(**shown, handbook=bool(around)).encode()
    return found


def _runs(output: Path) -> dict[Path, list[Result]]:
    found: dict[Path, list[Result]] = {}
    for path in sorted(output.glob("*/*.result.json")):
        if (result := read_result(path)) is not None:
            found.setdefault(path.parent, []).append(result)
    return found


def _template(name: str):
    return Environment(loader=FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True).get_template(name)


def _section(folder: Path, results: list[Result]) -> dict:
    """What the index says of the runs of one profile with the same overrides."""
    first = results[0]
    overrides = ", ".join(f"{name} = {value}" for name, value in first.overrides.items())
    return {
        "folder": folder.name,
        "title": f"Profile {first.profile}" + (f" with {literal(overrides)}" if overrides else ""),
        "minutes": sum(result.seconds for result in results) / 60,
        "versions": " or ".join(sorted({" · ".join(f"{name} {result.versions[name]}" for name in NAMED) for result in results})),
        "results": [_card(result, folder) for result in results],
    }


def _card(result: Result, folder: Path) -> dict:
    notebook = _executed(result, folder)
    title, question = heading(notebook)
    return {
        "title": title,
        "question": question,
        "answer": answer(notebook),
        "address": f"{folder.name}/{result.name}",
        "thumbnail": first_figure(notebook) is not None,
        "error": literal(result.error),
        "result": result,
    }


def literal(text: str) -> str:
    """Text as it is, in Markdown: no letter of it has an effect.

    Example:
        >>> literal("a [b](c)`")
        "``a [b](c)' ``"
    """
    return f"``{' '.join(text.split()).replace('`', chr(39))} ``" if text.strip() else ""


def _executed(result: Result, folder: Path) -> nbformat.NotebookNode:
    return nbformat.read(folder / f"{result.name}.ipynb", as_version=4)


def _of_a_run(result: Result, folder: Path, pages: set[str]) -> Sources:
    """The page of a notebook, its first figure, and its log."""
    notebook, place = _executed(result, folder), f"{folder.name}/{result.name}"
    found = {f"{place}.log": log.read_bytes()} if (log := folder / f"{result.name}.log").is_file() else {}
    if (figure := first_figure(notebook)) is not None:
        found[f"{place}.png"] = figure
    return found | {f"{place}.ipynb": nbformat.writes(for_a_page(notebook, place, pages)).encode()}


def for_a_page(notebook: nbformat.NotebookNode, place: str, pages: set[str]) -> nbformat.NotebookNode:
    """The notebook without what a page cannot show: widgets, which need a kernel, and links to what is not there."""
    notebook.metadata.pop("widgets", None)
    described = {"image": {"alt": f"A figure of {heading(notebook)[0]}"}}
    injected = any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    for index, cell in enumerate(notebook.cells):
        cell.id = str(index)  # else two runs that say the same would be two pages
        if cell.cell_type == "markdown":
            cell.source = links_to_pages(cell.source, place, pages)
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            cell.metadata["mystnb"] = described
            tags = cell.metadata.get("tags", [])
            if "in-short" in tags:
                cell.metadata["tags"] = [*tags, "remove-input"]
            elif "parameters" in tags and injected:
                cell.metadata["tags"] = [*tags, "hide-input"]  # their defaults; what was given stands below
    return notebook


def links_to_pages(text: str, place: str, pages: set[str]) -> str:
    """Markdown whose links lead to pages of the site or elsewhere in the world; all others become text.

    Args:
        text: of a page.
        place: of the page in the site, without or with ending.
        pages: places of all pages.

    Example:
        >>> links_to_pages("[a](b.ipynb), [c](../data/d.md), [e](https://f.org)", "mini/x", {"mini/b.ipynb"})
        '[a](b.ipynb), c, [e](https://f.org)'
    """

    def kept(found: re.Match) -> str:
        label, address = found.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), address.partition("#")[0]))
        inside = address.startswith(("#", "mailto:")) or "://" in address or target in pages
        return found[0] if inside else label

    return LINK.sub(kept, text)


def heading(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """Title and question: the first heading and the first line under it."""
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.strip()] or ["no title"]
    return lines[0].lstrip("# "), lines[1] if len(lines) > 1 else ""


def answer(notebook: nbformat.NotebookNode) -> str:
    """What the notebook wrote at its top when it had run, in Markdown; "" where it says nothing."""
    cells = [cell for cell in notebook.cells if "in-short" in cell.metadata.get("tags", [])]
    texts = [output.get("data", {}).get("text/markdown", "") for cell in cells for output in cell.get("outputs", [])]
    return "\n\n".join(texts)


def first_figure(notebook: nbformat.NotebookNode) -> bytes | None:
    """The notebook's first figure, as PNG."""
    figures = (part.get("data", {}).get("image/png") for cell in notebook.cells for part in cell.get("outputs", []))
    found = next(filter(None, figures), None)
    return base64.b64decode(found) if found else None


def _handbook() -> Sources:
    """Guides, kept results, and the reference: one page a room."""
    found = {f"guides/{name}.md": path for name in GUIDES if (path := ROOT / "docs" / f"{name}.md").is_file()}
    pages = {place: path.read_bytes() for place, path in found.items()}
    if PAGE.is_file():
        pages["results.md"] = PAGE.read_bytes()
        pages["answer.png"] = PAGE.with_name("answer.png").read_bytes()
    pages["guides/index.md"] = _contents("Guides", "", [posixpath.basename(place)[:-3] for place in found])
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.pyi"))
    pages |= {f"reference/{name}.rst": _room(name).encode() for name in rooms}
    pages["reference/index.md"] = _contents("Reference", REFERENCE, rooms)
    return pages


REFERENCE = "The rooms of the library. `import entropy_lib as el` has each as `el.room`."


def _contents(title: str, text: str, names: Sequence[str]) -> bytes:
    listed = "\n".join(names)
    return f"# {title}\n\n{text}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n".encode()


def _room(name: str) -> str:
    title = f"el.{name}"
    return f"{title}\n{'=' * len(title)}\n\n.. automodule:: entropy_lib.{name}\n   :members:\n   :imported-members:\n"


def _linked(content: bytes, place: str, pages: set[str]) -> bytes:
    return links_to_pages(content.decode(), place, pages).encode()
