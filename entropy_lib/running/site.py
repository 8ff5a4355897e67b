"""Builds the report: a site that opens from the file system, with navigation, search, and pages light and dark (Sphinx).

Nothing is asked of any server: MathJax comes with the site, and widgets, which need a kernel, are left to JupyterLab. Only pages
whose source changed are built again.
"""

import io
import shutil
from pathlib import Path

from entropy_lib import __version__
from entropy_lib.errors import extra
from entropy_lib.files import DATA, replacing
from entropy_lib.running.site_pages import TEMPLATES, Sources, sources

SOURCE, DOCTREES = ".source", ".doctrees"  # folders inside that of the report
SETTINGS = {
    "project": "entropy_lib",
    "release": __version__,
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_design"],
    "default_role": "code",
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",  # else outputs would be read by other rules than text
    "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence"],
    "myst_disable_syntax": ["html_block", "html_inline"],  # what a prompt or a parameter says is text
    "myst_heading_anchors": 3,
    "mathjax_path": "tex-svg.js",
    "html_theme": "pydata_sphinx_theme",
    "html_title": "entropy_lib",
    "html_static_path": [str(TEMPLATES / "site"), str(DATA / "mathjax")],
    "html_css_files": ["site.css"],
    "html_context": {"default_mode": "auto"},
    "html_sidebars": {"index": [], "results": []},
    "html_show_search_summary": False,  # fetches pages, which browsers refuse where there is no server
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_theme_options": {
        "logo": {"text": "entropy_lib"},
        "navbar_align": "left",
        "navbar_end": ["theme-switcher"],
        "header_links_before_dropdown": 6,
        "show_prev_next": True,
        "secondary_sidebar_items": ["page-toc"],
        "footer_start": ["copyright"],
        "footer_end": [],
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    },
    "autodoc_member_order": "bysource",
    "autodoc_typehints": "signature",
    "autodoc_preserve_defaults": True,
    "python_use_unqualified_type_names": True,
    "add_module_names": False,
    "maximum_signature_line_length": 88,
    "toc_object_entries_show_parents": "hide",
    "suppress_warnings": ["mystnb.unknown_mime_type", "myst.header", "ref.python"],
}


def write_report(output: Path, handbook: bool = True) -> Path:
    """Build the site of all runs in a folder; what an earlier build had and no run has any more goes.

    Args:
        output: the folder of the report, see `site_pages.sources`.
        handbook: see there.

    Returns:
        the front page.
    """
    with extra("notebooks"):
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

    _bring_up_to_date(output / SOURCE, sources(output, handbook))
    warnings = io.StringIO()
    paths = (output / SOURCE, None, output, output / DOCTREES)
    try:
        with patch_docutils(), docutils_namespace():  # so that it can be built again in the same process
            Sphinx(*paths, "html", SETTINGS, status=None, warning=warnings).build()
    except BaseException:
        shutil.rmtree(output / DOCTREES, ignore_errors=True)  # else a page that was written by half would count as built
        raise
    with replacing(output / DOCTREES / "warnings.txt") as temporary:
        temporary.write_text(warnings.getvalue(), encoding="utf-8")
    return output / "index.html"


def _bring_up_to_date(folder: Path, wanted: Sources) -> None:
    """Write what differs and remove what is not wanted, so that the rest keeps its date and is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in wanted]:
        path.unlink()
    for place, content in wanted.items():
        path = folder / place
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
