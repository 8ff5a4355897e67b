"""How Sphinx builds the site: `entropy_lib site` gathers the executed notebooks and these pages into one
folder first.

Nothing is asked of any server: MathJax comes with the site, and widgets, which need a kernel, are left to
    JupyterLab.
"""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from entropy_lib import __version__
from entropy_lib.files import DATA

project = html_title = "entropy_lib"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_design"]
default_role = "code"
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "ref.python"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # else outputs would be read by other rules than text
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_disable_syntax = ["html_block", "html_inline"]  # what a prompt or a parameter says is text
myst_heading_anchors = 3
mathjax_path = "tex-svg.js"

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static", str(DATA / "mathjax")]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "results": []}
html_show_search_summary = False  # fetches pages, which browsers refuse where there is no server
html_copy_source = html_show_sourcelink = False
html_theme_options = {
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
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"


def links_that_lead_nowhere(app: Sphinx, doctree: nodes.document) -> None:
    """Links to files that are no pages of the site become text."""
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] == "myst" and link["refdomain"] is None and "." in link["reftarget"]:
            link.replace_self(link.children)


def pages_with_links(app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set) -> list[str]:
    """Pages that are read again when others come or go, for they may link to them."""
    return [name for name in env.found_docs if not name.startswith("reference/")] if added or removed else []


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", links_that_lead_nowhere)
    app.connect("env-get-outdated", pages_with_links)
