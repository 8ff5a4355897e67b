"""The page of a study in a real browser, opened from the file system as a rater would."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from entropy_lib.study import Candidate, Limits, check_answers, compare, make_study, read_answers, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a system's Chromium (Debian: apt-get install chromium)"
)

ODD = '</script><script>alert(1)</script> <b>bold</b> & "quoted" %STUDY%'
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 640}


def study_of(protocol, pairs=6, catch_trials=2):
    noise = np.random.default_rng(0).integers(0, 256, (pairs, 2, 48, 96, 3), np.uint8)
    texts = [ODD, *(f"a thing of number {index}" for index in range(1, pairs))]
    candidates = [
        Candidate(text, "48x96", {"unscaled": one, "paper": two})
        for text, (one, two) in zip(texts, noise, strict=True)
    ]
    return make_study(candidates, pairs=pairs, catch_trials=catch_trials, protocol=protocol)


@contextmanager
def opened(page, profile, viewport=DESKTOP):
    """The page in a browser whose storage lies in a folder; what it says and asks for is kept, and must be
    nothing at the end.
    """
    with sync_api.sync_playwright() as playwright:
        start = playwright.chromium.launch_persistent_context
        browser = start(
            profile, executable_path=CHROMIUM, viewport=viewport, args=["--no-sandbox"], accept_downloads=True
        )
        tab, said, asked = browser.pages[0], [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        yield tab
        assert not said
        assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {page.as_uri()}
        browser.close()


def press(tab, *keys):
    """As a person: after a look, so that the key belongs to this pair."""
    number = tab.locator(".count").inner_text()
    tab.wait_for_timeout(220)
    for key in keys:
        tab.keyboard.press(key)
    tab.wait_for_function("text => document.querySelector('.count')?.textContent !== text", arg=number)


def saved(tab, folder):
    folder.mkdir(exist_ok=True)
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")  # the link has the focus
    download.value.save_as(folder / download.value.suggested_filename)
    return folder


def test_a_study_is_answered_by_keyboard_closed_reopened_saved_and_analysed(tmp_path):
    study = study_of("rating")
    page, seen = write_page(study, tmp_path), []
    with opened(page, tmp_path / "profile") as tab:
        tab.keyboard.type("ann <i>")
        tab.keyboard.press("Enter")
        for _ in range(4):
            seen.append(tab.locator("h1").inner_text())
            press(tab, "3", "0", "Enter")
    with opened(page, tmp_path / "profile") as tab:
        assert "4 of 8 pairs" in tab.locator("main").inner_text()
        tab.keyboard.press("Enter")
        for _ in range(4):
            seen.append(tab.locator("h1").inner_text())
            press(tab, "3", "0", "Enter")
        folder = saved(tab, tmp_path / "answers")
    assert sorted(seen) == sorted(f"“{pair.prompt}”" for pair in study.pairs)
    checked = check_answers(study, read_answers(folder), Limits(fastest=0, failed_catch_trials=2))
    assert checked.raters.used.tolist() == [True]
    assert checked.raters.rater.tolist() == ["ann <i>"]
    answers = checked.answers
    assert len(answers) == 6
    assert {tuple(sorted(two)) for two in answers[["first_score", "second_score"]].to_numpy()} == {(3, 10)}
    assert (answers.value == np.where(answers.left == "unscaled", 7, -7)).all(), "left had 3, right had 10"
    assert compare(answers).raters.tolist() == [1]


def test_a_prompt_with_html_is_text_and_a_choice_fits_on_a_phone(tmp_path):
    study = study_of("choice", pairs=3, catch_trials=1)
    page = write_page(study, tmp_path)
    with opened(page, tmp_path / "profile", PHONE) as tab:
        tab.locator("#rater").fill("bob")
        tab.get_by_role("button", name="Begin").click()
        for _ in study.pairs:
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
                "the page is wider than the phone"
            )
            assert tab.locator("h1 *").count() == 0, "the prompt's HTML had an effect"
            sizes = tab.evaluate(
                "[...document.querySelectorAll('button')].map(one => one.getBoundingClientRect().height)"
            )
            assert min(sizes) >= 40, "too small for a thumb"
            number = tab.locator(".count").inner_text()
            tab.wait_for_timeout(220)
            right = next(pair for pair in study.pairs if f"“{pair.prompt}”" == tab.locator("h1").inner_text())
            tab.get_by_role("button", name="No difference" if not right.catch else "Left").click()
            tab.wait_for_function(
                "text => document.querySelector('.count')?.textContent !== text", arg=number
            )
        folder = saved(tab, tmp_path / "answers")
    answers = check_answers(study, read_answers(folder), Limits(fastest=0, failed_catch_trials=1)).answers
    assert (answers.value == 0.5).all()
