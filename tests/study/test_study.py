"""A user study without users: pairs are blinded and balanced, answers checked, simulated panels of known
truth are found out.
"""

import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from entropy_lib.errors import InvalidInputError, MissingFileError, UnknownNameError
from entropy_lib.study import (
    Candidate,
    Limits,
    Study,
    Truth,
    agreement,
    as_choices,
    automatic_rater,
    check_answers,
    compare,
    make_study,
    mean_scores,
    read_answers,
    side_bias,
    simulate_panel,
    write_page,
)
from entropy_lib.study.design import OTHER_PROMPT

THINGS = ["zebra", "owl", "boat", "crab", "tree", "car", "fox", "whale"]
THINGS += ["drum", "cake", "sun", "key", "hat", "bus", "leaf", "fish"]


def image(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


def candidates(methods=("unscaled", "paper"), sizes=("32x32", "64x96"), things=THINGS):
    found = []
    for size in sizes:
        for i, thing in enumerate(things):
            images = {name: image(10 * i + j) for j, name in enumerate(methods)}
            found.append(Candidate(f"a {thing} on a blue background", size, images))
    return found


def study_of(protocol="choice", pairs=20, catch_trials=4, seed=0, **changes):
    asked = {"pairs": pairs, "catch_trials": catch_trials, "protocol": protocol, "seed": seed}
    return make_study(candidates(**changes), **asked)


def outcomes_of(values):
    """Of every image: values of each metric by the candidate's number and whether it is the paper's."""
    names = ["size", "method", "prompt", "seed", "metric", "value"]
    rows = [
        (each.size, method, each.prompt, 0, metric, value(index, method == "paper"))
        for index, each in enumerate(candidates())
        for method in ("unscaled", "paper")
        for metric, value in values.items()
    ]
    return pd.DataFrame(rows, columns=names)


def answered(study, raters=12, truth=None, seed=0):
    return check_answers(study, simulate_panel(study, raters, truth or Truth(), seed)).answers


def saved(folder, contents):
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(contents):
        (folder / f"{index:03d}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_pairs_are_balanced_and_blinded():
    study = study_of()
    pairs = [pair for pair in study.pairs if not pair.catch]
    assert Counter(pair.size for pair in pairs) == {"32x32": 10, "64x96": 10}
    assert Counter(pair.methods for pair in pairs) == {("unscaled", "paper"): 10, ("paper", "unscaled"): 10}
    assert len({(pair.prompt, pair.size) for pair in pairs}) == 20
    catches = [pair for pair in study.pairs if pair.catch]
    assert len(catches) == 4
    assert all(set(pair.methods) == {"unscaled", OTHER_PROMPT} for pair in catches)
    assert len({pair.methods for pair in catches}) == 2, "the right image is not always the same one"
    numbers = [int(pair.name[1:]) for pair in catches]
    assert numbers != sorted(range(21, 25)), "they are not at the end"
    assert study == study_of()
    assert study != study_of(seed=1)


def test_images_are_those_of_the_methods():
    of_prompt = {(each.prompt, each.size): each.images for each in candidates()}
    study = study_of()
    for pair in study.pairs:
        for method, shown in zip(pair.methods, study.images[pair.name], strict=True):
            right = of_prompt[pair.prompt, pair.size]
            if method == OTHER_PROMPT:
                assert shown.max() // 10 != right["unscaled"].max() // 10
            else:
                assert np.array_equal(shown, right[method])


def test_the_page_names_no_method_and_takes_nothing_from_elsewhere(tmp_path):
    odd = '</script><img src=x onerror="alert(1)"> %SCRIPT% <b>bold</b>'
    shown = [*candidates(), Candidate(odd, "32x32", candidates()[0].images)]
    made = make_study(shown, pairs=33, catch_trials=0)
    text = write_page(made, tmp_path).read_text(encoding="utf-8")
    assert "unscaled" not in text
    assert OTHER_PROMPT not in text
    assert "<img" not in text.split('id="study"')[1].split("</script>")[0]
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL)
    shown = json.loads(data[1])
    assert odd in {pair["prompt"] for pair in shown["pairs"]}
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert "sourceMappingURL" not in text
    read = Study.read(tmp_path)
    assert read == made
    assert read.digest == made.digest == shown["digest"]
    with pytest.raises(InvalidInputError, match="has no images"):
        write_page(read, tmp_path / "again")


def test_another_question_is_another_study():
    changes = ({}, {"protocol": "rating"}, {"seed": 1}, {"pairs": 19})
    assert len({study_of(**change).digest for change in changes}) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": "rank"}, "unknown protocol 'rank'"),
        ({"pairs": 0}, "pairs is 0"),
        ({"pairs": 33}, "images for 32"),
        ({"catch_trials": -1}, "catch_trials is -1"),
        ({"methods": ("paper",)}, "a pair needs two"),
        ({"things": ["owl"], "pairs": 1, "catch_trials": 1}, "need two prompts of size"),
        ({"things": []}, "no candidates"),
        ({"things": ["owl", "owl"], "pairs": 1}, "repeat a prompt"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes, said):
    with pytest.raises((InvalidInputError, UnknownNameError), match=said):
        study_of(**changes)


def test_images_that_give_the_method_away_are_refused():
    one = Candidate("a cat", "32x32", {"unscaled": image(1), "paper": image(1, 8, 16)})
    with pytest.raises(InvalidInputError, match="would see which is which"):
        make_study([one], pairs=1, catch_trials=0)


def test_a_key_that_was_changed_is_refused(tmp_path):
    study = study_of()
    path = study.write_key(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="was changed"):
        Study.read(tmp_path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no key of a study"):
        Study.read(tmp_path)
    with pytest.raises(MissingFileError, match="study make"):
        Study.read(tmp_path / "nowhere")


@pytest.mark.parametrize("gone", ["study.json", "study.html"])
def test_a_folder_that_holds_another_study_is_left_as_it_is(tmp_path, gone):
    """Without its key answers that are still to come would be of no study."""
    write_page(study_of(), tmp_path, "Mine")
    (tmp_path / gone).unlink()
    ((before, content),) = [(path, path.read_bytes()) for path in tmp_path.iterdir()]
    with pytest.raises(InvalidInputError, match=r"of another study.*another folder"):
        write_page(study_of(seed=1), tmp_path)
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(before, content)]
    write_page(study_of(), tmp_path, "Again")
    assert Study.read(tmp_path) == study_of()
    assert "Again" in (tmp_path / "study.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"digest": null}', b"\xff\xfe", b"[" * 100_000], ids=len)
def test_a_key_that_cannot_be_read_is_not_written_over(tmp_path, content):
    (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match="another folder"):
        write_page(study_of(), tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_answers_are_turned_to_the_methods():
    """Whoever always takes the left image favours no method; whoever always takes the paper's says so."""
    study = study_of()
    for wanted, expected, bias in (("left", 0.5, 0.5), ("paper", 1.0, 0.0), ("unscaled", 0.0, 0.0)):
        panel = simulate_panel(study, 6, Truth())
        for content in panel.values():
            for answer in content["answers"]:
                pair = study.pair(answer["pair"])
                left = pair.methods["ab".index(answer["left"])]
                otherwise = "unscaled" if pair.catch else "left"
                aim = wanted if wanted in pair.methods else otherwise
                answer["choice"] = "left" if aim in ("left", left) else "right"
        found = check_answers(study, panel).answers
        assert found.value.mean() == pytest.approx(expected, abs=0.15 if wanted == "left" else 0)
        assert side_bias(found).estimate == pytest.approx(bias, abs=0.1)
        assert set(found["first"]) == {"unscaled"}
        assert not found.pair.isin([pair.name for pair in study.pairs if pair.catch]).any()


def test_scores_are_turned_to_the_methods():
    study = study_of("rating")
    panel = simulate_panel(study, 5, Truth())
    for content in panel.values():
        for answer in content["answers"]:
            pair = study.pair(answer["pair"])
            points = {"unscaled": 8 if pair.catch else 4, "paper": 7, OTHER_PROMPT: 1}
            left, right = pair.methods if answer["left"] == "a" else pair.methods[::-1]
            answer |= {"left_score": points[left], "right_score": points[right]}
    found = check_answers(study, panel).answers
    assert (found.value == 3).all()
    scores = mean_scores(found).set_index(["size", "method"]).estimate
    points = {"unscaled": 4, "paper": 7}
    assert scores.to_dict() == {(size, name): points[name] for size in ("32x32", "64x96") for name in points}
    assert side_bias(found).estimate == pytest.approx(0, abs=0.7)


def test_what_is_left_out_is_said_with_its_reason(tmp_path):
    study = study_of()
    panel = list(simulate_panel(study, 10, Truth(), seed=3).values())
    panel[0]["study"] = "0123456789abcdef"
    panel[1]["rater"] = panel[2]["rater"]
    panel[3]["answers"] = panel[3]["answers"][:9]
    for answer in panel[4]["answers"]:
        answer["milliseconds"] = 80
    for answer in panel[5]["answers"]:
        if study.pair(answer["pair"]).catch:
            answer["choice"] = "left" if answer["choice"] == "right" else "right"
    panel[6]["answers"][0]["choice"] = "middle"
    panel[7]["answers"][1]["pair"] = panel[7]["answers"][0]["pair"]
    panel[8]["answers"][2]["milliseconds"] = 90
    folder = saved(tmp_path / "answers", panel)
    (folder / "broken.json").write_text("{", encoding="utf-8")
    (folder / "list.json").write_text("[]", encoding="utf-8")
    found = check_answers(study, read_answers(folder))
    why = found.excluded.set_index("file").why
    assert {name: text.split(":")[0].split(" (")[0] for name, text in why.items()} == {
        "000.json": "of another study",
        "001.json": "files of one rater disagree",
        "002.json": "files of one rater disagree",
        "003.json": "incomplete",
        "004.json": "too fast",
        "005.json": "failed 4 catch trials",
        "006.json": "damaged",
        "007.json": "damaged",
        "008.json": "faster than 500 ms",
        "broken.json": "not JSON in UTF-8",
        "list.json": "no file of answers",
    }
    assert set(found.raters.file) == {path.name for path in folder.iterdir()}
    assert set(found.raters.file[found.raters.used]) == {"008.json", "009.json"}
    assert set(found.answers.rater) == {"simulated 9", "simulated 10"}
    limits = Limits(fastest=0, complete=0.1, failed_catch_trials=4)
    assert check_answers(study, read_answers(folder), limits).raters.used.sum() == 5


def test_answers_that_are_not_there_are_refused(tmp_path):
    study = study_of()
    with pytest.raises(MissingFileError, match="no answers at"):
        read_answers(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="that raters save end in"):
        read_answers(tmp_path)
    with pytest.raises(InvalidInputError, match="excluded"):
        compare(check_answers(study, {"one.json": {"study": "other", "answers": []}}).answers)
    with pytest.raises(InvalidInputError, match="raters is 0"):
        simulate_panel(study, 0, Truth())


@pytest.mark.parametrize(
    "truth", [Truth(), Truth(effect=0.5, side=0.3)], ids=["no effect", "an effect and a favoured side"]
)
def test_intervals_of_panels_cover_the_truth_and_no_effect_is_seldom_seen(truth):
    things = [f"thing {index}" for index in range(20)]
    study = study_of(pairs=20, catch_trials=0, sizes=("64x96",), things=things)
    found = pd.concat([compare(answered(study, 8, truth, seed)) for seed in range(80)])
    covered, alarms = (found.low <= truth.share()) & (truth.share() <= found.high), found.p_value < 0.05
    assert 0.90 <= covered.mean() <= 0.985
    assert alarms.mean() <= 0.085 if truth.effect == 0 else alarms.mean() > 0.2
    naive = (found.wilcoxon_p < 0.05).mean()  # which forgets that raters differ
    assert truth.effect or naive > alarms.mean()


def test_an_effect_is_found_at_every_size():
    found = compare(answered(study_of(pairs=32), 30, Truth(effect=1.5)))
    assert found["size"].tolist()[-1] == "all sizes"
    assert set(found["size"]) == {"32x32", "64x96", "all sizes"}
    assert (found.low > 0.5).all()
    assert (found[["p_value", "sign_p", "wilcoxon_p"]] < 0.05).all().all()
    assert found.raters.eq(30).all()


@pytest.mark.parametrize("protocol", ["choice", "rating"])
@pytest.mark.parametrize("raters", [1, 3])
@pytest.mark.parametrize("value", [0.5, 1.0])
def test_raters_who_always_answer_alike_make_nothing_certain(protocol, raters, value):
    given = answered(study_of(protocol, pairs=6, catch_trials=0, sizes=("64x96",)), raters, Truth(careless=1))
    second = 5.0 + 8 * (value - 0.5)
    scores = {"value": second - 5, "first_score": 5.0, "second_score": second}
    given = given.assign(**{"value": value} if protocol == "choice" else scores)
    (found,), (least, most) = compare(given).to_dict("records"), (0, 1) if protocol == "choice" else (-9, 9)
    assert least <= found["low"] < found["high"] <= most
    assert found["high"] - found["low"] > 0.5
    assert found["p_value"] >= 2 * 0.5 ** (6 if raters == 1 else 3)
    assert (found["low"] <= found["nothing"] <= found["high"]) == (found["p_value"] >= 0.05)
    if raters > 1:
        assert np.isnan(agreement(given, resamples=100).estimate)
    if protocol == "rating":
        scores = mean_scores(given)
        assert ((scores.low < scores.estimate) & (scores.estimate < scores.high)).all()
        assert scores.low.min() >= 1
        assert scores.high.max() <= 10


def test_agreement_is_one_where_all_agree_and_none_where_nobody_does():
    study = study_of("rating")
    (same,) = simulate_panel(study, 1, Truth(noise=2.0)).values()
    panel = {name: same | {"rater": name} for name in "abc"}
    everyone = Limits(failed_catch_trials=9)
    found = check_answers(study, panel, everyone).answers
    assert agreement(found, resamples=100).estimate == pytest.approx(1)
    strangers = answered(study, 20, Truth(rater=0, prompt=0))
    assert agreement(strangers, resamples=100).estimate == pytest.approx(0, abs=0.1)


def test_an_automatic_rater_chooses_the_better_number():
    study = study_of(pairs=20)

    def moved(index, paper):
        return index + float(paper and index % 3 > 0)

    outcomes = outcomes_of({"CLIP score": moved, "Illegible": moved, "Exact": lambda *_: np.nan})
    found = automatic_rater(study, outcomes, "CLIP score")
    assert len(found) == 20
    assert set(found.value) == {0.5, 1.0}
    worse = automatic_rater(study, outcomes, "Illegible", higher_is_better=False)
    assert (worse.value == 1 - found.value).all()
    assert automatic_rater(study, outcomes, "Exact").empty
    assert compare(found).iloc[-1].estimate == pytest.approx(found.value.mean())
    said = "no outcomes of 'KID'; there are CLIP score, Exact, Illegible"
    with pytest.raises(InvalidInputError, match=said):
        automatic_rater(study, outcomes, "KID")
    with pytest.raises(InvalidInputError, match="lack an image of"):
        automatic_rater(study, outcomes[outcomes["size"] == "32x32"], "CLIP score")


def test_ratings_imply_choices():
    ratings = answered(study_of("rating"), 5, Truth(effect=1.0))
    chosen = as_choices(ratings)
    assert (chosen.value == np.select([ratings.value > 0, ratings.value < 0], [1.0, 0.0], 0.5)).all()
    assert compare(chosen).iloc[-1].estimate == pytest.approx(chosen.value.mean())
    choices = answered(study_of(), 5)
    assert (as_choices(choices).value == choices.value).all()
