"""What pages and front page take from an executed notebook, and the site in a real browser, opened from the
file system.
"""

import importlib
import inspect
import itertools
import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from entropy_lib.cli import runner, site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg+P//PwAF/gL+De9GuAAAAABJRU5ErkJggg=="
PROPORTIONS = """[...document.querySelectorAll('.cell_output img')].map(
    one => (one.clientWidth / one.clientHeight) / (one.naturalWidth / one.naturalHeight))"""
NAME = "03_entropy_vs_tokens"
PAGES = ["index.html", f"smoke/{NAME}.html", "smoke/index.html", "guides/lessons.html"]
PAGES += ["reference/entropy.html", "results.html"]
ODD = "<img src=x onerror=alert(1)>"
HEAD = f"""# 03 · A "title"

What is $x^2$?

$$
\\sum_j p_j = 1
$$

\\begin{{equation}}a < b\\end{{equation}}

but `$HOME` is none. {ODD} Next: [grids](05_image_grids.ipynb), [data](../data/README.md),
[the paper](https://arxiv.org/abs/2306.08645)."""


def executed(answer="**Summary.** `paper` removes 2 % " + ODD):
    def display(data, **metadata):
        return new_output("display_data", data, metadata=metadata)

    widget = display({site.WIDGET: {"model_id": "a"}, "text/plain": "generating: 0%"})
    figure = display({"image/png": PIXEL}, **{"image/png": {"width": 600, "height": 600}})
    shown = [display({"text/markdown": answer})] if answer else []
    cells = [
        new_markdown_cell(HEAD),
        new_code_cell("hidden()", metadata={"tags": ["summary"]}, outputs=shown),
        new_code_cell("steps = 3", metadata={"tags": ["parameters"]}),
        new_code_cell("shown()", outputs=[widget, figure]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "widgets": widgets})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A site with its handbook and the runs of two notebooks, one of which failed."""
    output = tmp_path_factory.mktemp("report")
    (output / "smoke").mkdir()
    for name, error in ((NAME, ""), ("05_image_grids", "ValueError: not [b](c) `d`")):
        runner.Result(name, "smoke", {}, not error, 1.0, "", error).write(output / "smoke")
        (output / "smoke" / f"{name}.log").write_text("said", encoding="utf-8")
        nbformat.write(executed(), output / "smoke" / f"{name}.ipynb")
    site.write_report(output)
    return output


def test_a_card_has_the_answer_of_its_notebook_and_a_page_has_no_card_without_one():
    card = site.card_of(executed())
    assert card["answer"] == "**Summary.** `paper` removes 2 % " + ODD
    assert (card["title"], card["question"], card["figure"]) == ('03 · A "title"', "What is $x^2$?", PIXEL)
    assert site.card_of(executed(""))["answer"] == ""


def test_a_page_shows_no_widget_and_the_parameters_that_were_given():
    page = site.for_a_page(executed(), "03")
    assert "widgets" not in page.metadata
    assert [output.data for output in page.cells[3].outputs] == [{"image/png": PIXEL}]
    assert "remove-input" in page.cells[1].metadata.tags
    assert "hide-input" not in page.cells[2].metadata.tags, "nothing was given instead of the defaults"
    given = executed()
    given.cells.insert(3, new_code_cell("# Parameters", metadata={"tags": ["injected-parameters"]}))
    assert "hide-input" in site.for_a_page(given, "03").cells[2].metadata.tags


@pytest.mark.slow
def test_building_warns_of_nothing_and_links_lead_to_pages_or_into_the_world(built):
    assert (built / site.DOCTREES / "warnings.txt").read_text(encoding="utf-8") == ""
    page = (built / "smoke" / f"{NAME}.html").read_text(encoding="utf-8")
    found = re.findall(r'href="([^"]+)"[^>]*>(?:<span[^>]*>)?(grids|data|the paper)<', page)
    links = {text: address for address, text in found}
    assert links == {"grids": "05_image_grids.html", "the paper": "https://arxiv.org/abs/2306.08645"}
    (image,) = re.findall(r"<img[^>]*_images/[^>]*>", page)
    assert 'alt="A figure of 03 · A &quot;title&quot;"' in image, "what it belongs to"


@pytest.mark.slow
def test_pages_ask_for_nothing_that_is_elsewhere_or_missing(built):
    """In scripts, styles, images and links; what a script fetches is for the test in a browser."""
    pages = [path for path in built.rglob("*.html") if not {site.SOURCE, "_static"} & {*path.parts}]
    assert len(pages) > 20
    named = r"<(script|link|img|iframe|a|source)\b[^>]*?(?:src|href)=[\"']([^\"']*)"
    for page in pages:
        for tag, address in re.findall(named, page.read_text(encoding="utf-8")):
            if "://" in address:
                assert tag == "a", (page.name, tag, address)
            elif not address.startswith(("#", "data:", "mailto:")) and address:
                assert (page.parent / re.split(r"[#?]", address)[0]).exists(), (page.name, address)


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(built):
    for listed in ("statistics", "scaling", "study"):
        html = (built / "reference" / f"{listed}.html").read_text(encoding="utf-8")
        module = importlib.import_module(f"entropy_lib.{listed}")
        public = {name: getattr(module, name) for name in module.__all__}
        names = [name for name, one in public.items() if inspect.isfunction(one) or inspect.isclass(one)]
        assert len(names) > 5
        assert not [name for name in names if f'id="entropy_lib.{listed}.{name}"' not in html]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a system's Chromium (Debian: apt-get install chromium)")
def test_the_site_works_in_a_browser(built):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab, said, asked = browser.new_page(), [], []
        tab.on("console", lambda said_by: said_by.type in ("error", "warning") and said.append(said_by.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        for page, width in itertools.product(PAGES, (1280, 390)):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.goto((built / page).as_uri())
            assert all(0.98 < shape < 1.02 for shape in tab.evaluate(PROPORTIONS)), "an image is stretched"
            fits = tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert fits, f"{page} is wider than a screen of {width} px"
        tab.goto((built / f"smoke/{NAME}.html").as_uri())
        tab.wait_for_selector("mjx-container")
        assert tab.locator("mjx-container").count() == 3, "three formulas"
        assert tab.locator("mjx-merror").count() == 0
        assert tab.get_by_text("hidden()").count() == 0
        tab.goto((built / "index.html").as_uri())
        (first, second) = (tab.locator(".sd-card").nth(index) for index in (0, 1))
        assert "removes 2 %" in first.inner_text()
        assert ODD in first.inner_text(), "it is text"
        assert "failed: ValueError: not [b](c)" in second.inner_text()
        assert first.locator("img").count() == 1, "its figure, and nothing that the answer says"
        tab.goto((built / "search.html").as_uri() + "?q=Krippendorff")
        tab.wait_for_selector("ul.search li")
        assert "el.study" in tab.locator("ul.search").inner_text()
        assert not said
        assert {url for url in asked if not url.startswith(("file:", "data:"))} == set()
        browser.close()
