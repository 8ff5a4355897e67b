"""What raters send: read as the page saves it, or refused by name; no file and no person is lost."""

import copy
import json
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lib.study import (
    Candidate,
    Limits,
    Truth,
    check_answers,
    make_study,
    read_answers,
    simulate_panel,
)

THINGS = ["zebra", "owl", "boat", "crab", "tree", "car", "fox", "whale"]
GREY = [
    {name: np.full((8, 8, 3), 9 * i + j, np.uint8) for j, name in enumerate(("no", "yes"))} for i in range(8)
]
CANDIDATES = [Candidate(f"a {thing}", "64x96", two) for thing, two in zip(THINGS, GREY, strict=True)]
STUDIES = {
    protocol: make_study(CANDIDATES, pairs=7, catch_trials=1, protocol=protocol)
    for protocol in ("choice", "rating")
}
STUDY = STUDIES["rating"]
EVERYONE = Limits(fastest=0, failed_catch_trials=9)


def answers_of(rater="Zoë Ann", seed=0, protocol="rating", **changes):
    (content,) = simulate_panel(STUDIES[protocol], 1, Truth(), seed).values()
    return content | {"rater": rater} | changes


def text_of(content=None):
    """As the page saves it, or shows it to be copied."""
    return json.dumps(content or answers_of(), ensure_ascii=False, indent=1)


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def checked(folder, study=STUDY, limits=EVERYONE):
    found = check_answers(study, read_answers(folder), limits)
    assert set(found.excluded.file[found.excluded.what == "all answers"]) == set(
        found.raters.file[~found.raters.used]
    )
    return found


def why(found):
    return found.excluded.set_index("file").why.to_dict()


PLAIN = text_of()
SENT = {
    "the name of a text": ("answers-3.txt", PLAIN),
    "no ending": ("answers", PLAIN),
    "another folder": ("ann__answers.json", PLAIN),
    "a mark of byte order": ("answers.json", PLAIN.encode("utf-8-sig")),
    "lines of Windows": ("answers.json", PLAIN.replace("\n", "\r\n")),
    "copied text on one line": ("answers.txt", f"\n{json.dumps(answers_of())}\n\n"),
}


@pytest.mark.parametrize(("name", "content"), SENT.values(), ids=SENT)
def test_what_the_page_saves_or_shows_is_read_whatever_its_file_is_called(tmp_path, name, content):
    found = checked(put(tmp_path, **{name: content}))
    assert found.raters.used.tolist() == [True], why(found)
    assert found.answers.equals(check_answers(STUDY, {"as it was": answers_of()}, EVERYONE).answers)
    assert found.raters.file.tolist() == [name.replace("__", "/")]


REFUSED = {
    "nothing": ("a.json", b"", "not JSON"),
    "a mail": ("a.eml", f"From: Ann\nSubject: answers\n\n{PLAIN}", "ask for the file that the page saves"),
    "another encoding": ("a.txt", PLAIN.encode("utf-16"), "not JSON in UTF-8"),
    "half a file": ("a.json", PLAIN[:300], "not JSON"),
    "nested deeply": ("a.json", "[" * 100_000, "nested too deeply"),
    "the key": ("study.json", json.dumps({"pairs": [], "digest": STUDY.digest}), "no file of answers"),
    "a name broken within a word": ("a.txt", PLAIN.replace("Ann", "An\\nn"), "mend it"),
    "a number twice": ("a.json", PLAIN.replace('"rater"', '"rater": "x", "rater"'), "occurs twice"),
    "too large": ("a.json", b"a" * (4 * 2**20 + 1), "too large"),
}


@pytest.mark.parametrize(("name", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name_and_stops_nothing_else(tmp_path, name, content, said):
    found = checked(put(tmp_path, **{name: content, "fine.txt": PLAIN.replace("Zoë", "Bob")}))
    assert found.raters.set_index("file").used.to_dict() == {name: False, "fine.txt": True}
    assert said in why(found)[name]


def test_every_file_is_accounted_for(tmp_path):
    put(tmp_path, **{name: content for name, content, _ in REFUSED.values()})
    put(tmp_path, **{f"{number}_{name}": content for number, (name, content) in enumerate(SENT.values())})
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    found = checked(tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()]
    assert sorted(found.raters.file) == sorted(files)
    assert "no file" in why(found)["pipe"]
    assert "no file" in why(found)["nowhere"]
    assert found.raters.used.sum() == 1, "all of one rater"


def test_one_file_may_be_read_alone(tmp_path):
    put(tmp_path, a=PLAIN, b=PLAIN)
    assert list(read_answers(tmp_path / "a")) == ["a"]


def test_the_fuller_of_two_files_that_agree_counts(tmp_path):
    whole, study = answers_of(protocol="choice"), STUDIES["choice"]
    few, many = (text_of(whole | {"answers": whole["answers"][:count], "finished": None}) for count in (4, 7))
    found = checked(put(tmp_path / "two", a=few, b=many, c=PLAIN[:99]), study)
    assert found.raters.set_index("file").used.to_dict() == {"a": False, "b": True, "c": False}
    assert why(found)["a"] == "a second file of this rater; b has as many answers or more"
    assert checked(put(tmp_path / "one", b=many), study).answers.equals(found.answers)


@pytest.mark.parametrize("protocol", ["choice", "rating"])
def test_two_files_of_one_rater_that_disagree_are_both_refused_with_the_pair(tmp_path, protocol):
    first = answers_of("Ann", protocol=protocol)
    second = copy.deepcopy(first | {"rater": "ann"})
    answer = second["answers"][3]
    other_choice = {"choice": "left" if answer.get("choice") != "left" else "right"}
    answer |= other_choice if protocol == "choice" else {"left_score": 11 - answer["left_score"]}
    other = answers_of("Bob", 1, protocol)
    found = checked(put(tmp_path, a=text_of(first), b=text_of(second), c=text_of(other)), STUDIES[protocol])
    assert found.raters.set_index("file").used.to_dict() == {"a": False, "b": False, "c": True}
    assert set(why(found).values()) == {f"files of one rater disagree: a and b on {answer['pair']}"}


def test_answers_agree_by_the_image_and_not_by_its_side(tmp_path):
    """The page deals sides by the name as it was typed."""
    first = answers_of("Ann")
    turned = copy.deepcopy(first | {"rater": "ANN"})
    for answer in turned["answers"]:
        answer["left"] = "ba"["ab".index(answer["left"])]
        answer |= {"left_score": answer["right_score"], "right_score": answer["left_score"]}
    assert checked(put(tmp_path, a=text_of(first), b=text_of(turned))).raters.used.sum() == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Zoë  Ann ", " zoë ann", True),
        ("Zoë", unicodedata.normalize("NFD", "Zoë"), True),
        ("Zoë Ann", "Zoë\xa0Ann", True),
        ("STRASSE", "straße", True),
        ("Zoë", "Zo\u200bë", True),
        ("7", 7, True),
        ("Zoe", "Zoë", False),
        ("ann", "anne", False),
    ],
)
def test_one_person_under_two_spellings_is_one_rater(tmp_path, one, other, same):
    found = checked(put(tmp_path, a=text_of(answers_of(one)), b=text_of(answers_of(other))))
    assert found.raters.used.sum() == (1 if same else 2)
    assert found.answers.rater.nunique() == (1 if same else 2)


BAD = {
    "answers": [None, [], "p01", [[]]],
    "rater": [None, [], "", True, "a\nb", "\u200b"],
    "study": [None, "other"],
}
BAD_ANSWERS = {"pair": [{}, "p99"], "order": ["1", 0], "left": ["c"], "left_score": [None, 11, 5.5]}
BAD_ANSWERS |= {"milliseconds": [-1, 10**400, float("nan")]}


def test_one_bad_content_is_one_refused_file():
    first, *others = answers_of()["answers"]
    changed = [first | {field: value} for field, values in BAD_ANSWERS.items() for value in values]
    contents = [None, [], {}, *({"answers": [each, *others]} for each in changed)]
    contents += [{field: value} for field, values in BAD.items() for value in values]
    for content in contents:
        bad = answers_of() | content if content else content
        found = check_answers(STUDY, {"bad": bad, "good": answers_of("Bob", 1)}, EVERYONE)
        assert found.raters.set_index("file").used.to_dict() == {"bad": False, "good": True}, content
        (reason,) = why(found).values()
        assert 5 < len(reason) < 200


words = st.text(max_size=5) | st.sampled_from(["a", "p01", "left", "tie"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(STUDIES)), st.data())
def test_no_content_stops_the_check(protocol, data):
    content = answers_of(protocol=protocol)
    for _ in range(data.draw(st.integers(1, 3))):
        answers = [each for each in content["answers"] if isinstance(each, dict)]
        place = data.draw(st.sampled_from([content, *answers]))
        place[data.draw(st.sampled_from([*place, "another"]))] = data.draw(anything)
        if not isinstance(content.get("answers"), list):
            break
    both = {"odd": content, "good": answers_of("Bob", 1, protocol)}
    found = check_answers(STUDIES[protocol], both, EVERYONE)
    assert found.raters.file.tolist() == ["odd", "good"]
    assert found.raters.used.iloc[1]
    assert found.answers.value.between(-9, 9).all()
