"""`study make | check | analyse` on the embedded model: from a profile to a page, from the files of raters
to tables.
"""

import json

import pandas as pd
import pytest

from entropy_lib.study import Study, Truth, simulate_panel


@pytest.mark.slow
def test_a_study_is_made_checked_and_analysed(tmp_path, command):
    place = tmp_path
    options = ("--profile", "smoke", "-p", f"store={place / 'store'}", "--output", str(place / "made"))
    said = command("study", "make", *options, "-p", "protocol=choice")
    assert said.code == 0, said.err
    assert "10 pairs, 2 of them catch trials: unscaled, paper" in said.out
    assert (place / "made" / "study.html").is_file()
    study = Study.read(place / "made")
    assert study.protocol == "choice"
    assert {pair.size for pair in study.pairs if pair.catch} == {"64x64"}, "catch trials are of native size"
    assert not {pair.size for pair in study.pairs if not pair.catch} & {"64x64"}
    assert command("study", "make", *options, "-p", "protocol=choice", "--title", "Again").code == 0
    assert Study.read(place / "made").digest == study.digest, (
        "the same images and the same seed are the same study"
    )
    other = command("study", "make", *options, "-p", "protocol=choice", "-p", "seed=1")
    assert other.code == 2
    assert "of another study" in other.err
    assert Study.read(place / "made").digest == study.digest

    (place / "answers").mkdir()
    panel = simulate_panel(study, 12, Truth(effect=2.0))
    for name, content in panel.items():
        (place / "answers" / name).write_text(json.dumps(content), encoding="utf-8")
    (place / "answers" / "broken.json").write_text("{", encoding="utf-8")
    checked = command("study", "check", str(place / "made"), str(place / "answers"))
    assert "96 answers of 12 raters can be used" in checked.out
    assert "not JSON" in checked.out
    analysed = command("study", "analyse", str(place / "made"), str(place / "answers"))
    assert analysed.code == 0, analysed.err
    table = pd.read_csv(place / "made" / "comparison.csv")
    assert table["size"].tolist()[-1] == "all sizes"
    assert table.low.iloc[-1] > 0.5
    assert not (place / "made" / "mean_scores.csv").exists(), "choices have no scores"
