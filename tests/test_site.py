"""What pages and index take from an executed notebook."""

import base64
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from entropy_lib.running import site

PIXEL = base64.b64encode(b"not looked at").decode()


def executed(answer):
    shown = [new_output("display_data", {"text/markdown": answer})] if answer else []
    figure = [new_output("display_data", {"image/png": PIXEL})]
    cells = [
        new_markdown_cell('# 03 · A "title"\n\nA question?'),
        new_code_cell("", metadata={"tags": ["in-short"]}, outputs=shown),
        new_code_cell("", outputs=figure),
    ]
    return new_notebook(cells=cells)


@pytest.fixture
def result():
    return site.Result("03_entropy_vs_tokens", "smoke", {}, ok=True, seconds=1.0, fingerprint="")


def test_a_card_shows_the_answer_of_its_notebook_as_text(tmp_path, result):
    nbformat.write(executed("**In short.** `paper` removes 2 % <img src=x>"), tmp_path / f"{result.name}.ipynb")
    card = site._card(result, tmp_path)
    assert "<strong>In short.</strong> <code>paper</code> removes 2 %" in card["answer"]
    assert "<img" not in card["answer"], "nothing in it has an effect"


def test_a_notebook_without_an_answer_has_a_card_without_one(tmp_path, result):
    nbformat.write(executed(""), tmp_path / f"{result.name}.ipynb")
    assert site._card(result, tmp_path)["answer"].strip() == ""


def test_figures_of_a_page_say_what_they_belong_to(tmp_path, result):
    nbformat.write(executed(""), tmp_path / f"{result.name}.ipynb")
    site._write_page(result, tmp_path, set())
    page = (tmp_path / f"{result.name}.html").read_text(encoding="utf-8")
    (alternative,) = re.findall(r"<img alt=(?:'([^']*)'|\"[^\"]*\")", page)
    assert alternative == 'A figure of 03 · A "title"'
    assert "No description has been provided" not in page
