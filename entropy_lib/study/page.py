"""The page of a study: one file, which asks no server for anything and names no method.

jsPsych (de Leeuw et al. 2023, JOSS 8(85), 5351) runs the trials; it holds under `file://`. Its plugins show
one image or markup that is not escaped, so the trial of two images is the page's own.
"""

import base64
import html
import io
import json
from pathlib import Path

from PIL import Image

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import DATA, replacing
from entropy_lib.study.design import TITLE, Pixels, Study

BROWSER = Path(__file__).parent / "browser"
PAGE = "study.html"


def write_page(study: Study, folder: Path | str, title: str = TITLE) -> Path:
    """Write what raters open, `study.html`, and the key that names the methods, `study.json`.

    Give the page away and keep the key. Images are in the page as they are, in PNG.

    Args:
        study: with its images, from `make_study`.
        folder: made where it is missing.
        title: of the page.

    Returns:
        path of the page.

    Raises:
        InvalidInputError: for a study that was read back from its key and has no images; where the folder
            holds another study.
    """
    if missing := [pair.name for pair in study.pairs if pair.name not in study.images]:
        raise InvalidInputError(f"pair {missing[0]} has no images; write the page where the study is made")
    path = Path(folder) / PAGE
    if path.exists() and study.digest not in path.read_text(encoding="utf-8", errors="replace"):
        raise InvalidInputError(
            f"{path} is the page of another study than {study.digest}; name another folder, or move it away"
        )
    study.write_key(folder)
    with replacing(path) as temporary:
        temporary.write_text(_page(study, title), encoding="utf-8")
    return path


def _page(study: Study, title: str) -> str:
    files = [BROWSER / f"page.{kind}" for kind in ("css", "js", "html")]
    files += [DATA / "jspsych" / name for name in ("jspsych.min.js", "LICENSE")]
    style, script, page, library, licence = (path.read_text(encoding="utf-8") for path in files)
    images = {name: [*map(_address, two)] for name, two in study.images.items()}
    pairs = [{"name": each.name, "prompt": each.prompt, "images": images[each.name]} for each in study.pairs]
    shown = {"digest": study.digest, "protocol": study.protocol, "title": title, "pairs": pairs}
    for name, content in {
        "TITLE": html.escape(title),
        "STYLE": style,
        "JSPSYCH_LICENSE": licence.replace("--", "- -"),
        "JSPSYCH": library.split("//# sourceMappingURL")[0],
        "SCRIPT": script,
        # last: a prompt may hold any of these words
        "STUDY": json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c"),
    }.items():
        page = page.replace(f"%{name}%", content)
    return page


def _address(image: Pixels) -> str:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
