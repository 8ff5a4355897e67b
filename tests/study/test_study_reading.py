"""What raters send: read whatever a program has made of it, or refused by name; no file and no person is
lost without a word.
"""

import copy
import email.message
import email.policy
import io
import json
import os
import quopri
import textwrap
import unicodedata
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lib.study import (
    Candidate,
    Limits,
    Refused,
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


def text_of(content=None, compact=False):
    """As the page saves it, or shows it to be copied."""
    layout = {"separators": (",", ":")} if compact else {"indent": 1}
    return json.dumps(content or answers_of(), ensure_ascii=False, **layout)


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


def mail(body=None, attachments=(), sub="plain"):
    message = email.message.EmailMessage()
    message["From"], message["Subject"] = "Ann <ann@example.org>", "My answers"
    message.set_content(body or "Here they are.\n\nAnn\n", subtype=sub)
    for name, content in attachments:
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message


def archive(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, member in members.items():
            opened.writestr(name.replace("__", "/"), member)
    return content.getvalue()


def wrapped(text, width=76, ending="\n"):
    return f"{ending}".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def flowed(text, width=72):
    """RFC 3676: a line that goes on ends in a space."""
    return " \n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def folded(text, width=76):
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


def html_of(text):
    marked = text.replace('"', "&quot;").replace("\n", "<br>\n")
    return f"<html><body><p>Hello,&nbsp;</p><div>{marked}</div></body></html>"


def quoted(text, mark="> "):
    return textwrap.indent(text, mark, lambda _: True)


PLAIN, COMPACT = text_of(), text_of(compact=True)
SPACED = json.dumps(answers_of())  # as Python writes it: a space after each comma, letters escaped
LATIN = b"Subject: x\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\n"
SENT_ON = b"Subject: Fw\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n"
SENT = {
    "the name of a text": ("answers-3.txt", PLAIN),
    "no ending": ("answers", PLAIN),
    "another folder": ("ann__answers.json", PLAIN),
    "copied text": ("answers.txt", COMPACT),
    "a mark of byte order": ("answers.json", PLAIN.encode("utf-8-sig")),
    "UTF-16 of Windows": ("answers.txt", PLAIN.encode("utf-16")),
    "UTF-16 without a mark": ("answers.txt", PLAIN.encode("utf-16-be")),
    "lines of Windows": ("answers.json", PLAIN.replace("\n", "\r\n")),
    "spaces that do not break": ("answers.txt", PLAIN.replace("\n ", "\n\xa0")),
    "no space in the name that breaks": ("answers.txt", PLAIN.replace("Zoë Ann", "Zoë\xa0Ann")),
    "typographic quotation marks": ("answers.txt", PLAIN.replace('"', "”")),
    "German ones": ("answers.txt", PLAIN.replace(' "', " „").replace('"', "“")),
    "a greeting and a name": ("answers.txt", f'Hi {{you}},\nhere is "it":\n\n{PLAIN}\n\n-- \nAnn {{123}}\n'),
    "a quoted text": ("answers.txt", "On Monday Ann wrote:\n" + quoted(PLAIN)),
    "one quoted twice, with spaces": ("answers.txt", quoted(PLAIN, "> > ")),
    "wrapped lines": ("answers.txt", wrapped(SPACED)),
    "flowed lines": ("answers.txt", flowed(SPACED)),
    "a name broken after its space": ("answers.txt", flowed(SPACED, SPACED.index(" Ann"))),
    "lines broken anywhere": ("answers.txt", folded(COMPACT)),
    "wrapped, quoted, typographic": ("answers.txt", quoted(wrapped(SPACED.replace('"', "”"), 60))),
    "soft breaks": ("answers.txt", quopri.encodestring(COMPACT.encode())),
    "a page": ("answers.html", html_of(PLAIN)),
    "a mail of text": ("mail.eml", bytes(mail(f"Hello\n\n{PLAIN}\n\n-- \nAnn"))),
    "a mail in HTML": ("mail.eml", bytes(mail(html_of(PLAIN), sub="html"))),
    "a mail with a file": ("mail.eml", bytes(mail(attachments=[("answers.json", PLAIN.encode())]))),
    "a mail with an archive": ("mail.eml", bytes(mail(attachments=[("a.zip", archive(answers=PLAIN))]))),
    "a mail in another alphabet": ("mail.eml", LATIN + PLAIN.encode("latin-1")),
    "a mail sent on": ("mail", SENT_ON + bytes(mail(PLAIN))),
    "a mail saved as text": ("mail.txt", f"From: Ann\r\nTo: Bob\r\nSubject: answers\r\n\r\n{PLAIN}".encode()),
    "a mailbox": ("box", b"From ann@example.org Mon Jan  1 00:00:00 2024\n" + bytes(mail(PLAIN))),
    "an archive": ("a.zip", archive(**{"ann__answers.json": PLAIN})),
    "an archive in another": ("a.zip", archive(**{"b.zip": archive(answers=PLAIN)})),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), SENT.values(), ids=SENT)
def test_what_programs_do_to_a_file_does_it_no_harm(tmp_path, name, content):
    found = checked(put(tmp_path, **{name: content}))
    assert found.raters.used.tolist() == [True], why(found)
    right = check_answers(STUDY, {"as it was": answers_of()}, EVERYONE).answers
    assert found.answers.drop(columns="rater").equals(right.drop(columns="rater"))
    assert unicodedata.normalize("NFKC", found.answers.rater[0]) == "Zoë Ann"
    assert found.raters.file[0].startswith(name.replace("__", "/"))


DOCUMENT = archive(**{"[Content_Types].xml": "<Types/>", "word__document.xml": "<w:t>text</w:t>"})
HYPHENED = text_of(answers_of("Ann-Marie"), compact=True)
DEEP = archive(a=archive(a=archive(a=archive(a=archive(a=PLAIN)))))
REFUSED = {
    "nothing": ("a.json", b"", "empty"),
    "an empty archive": ("a.zip", archive(), "empty"),
    "what a Mac leaves": (".DS_Store", b"\0\0\0\1Bud1\0\0\x10\0\0\0\x08\0", "not JSON"),
    "letters of Windows": ("a.txt", PLAIN.encode("cp1252"), "no text in UTF-8"),
    "a document": ("a.docx", DOCUMENT, "office program"),
    "half a file": ("a.json", PLAIN[:300], "not JSON: "),
    "text without answers": ("a.txt", "I forgot the file, sorry.", "not JSON"),
    "the key": ("study.json", json.dumps({"pairs": [], "digest": STUDY.digest}), "no file of answers"),
    "a mail without answers": ("a.eml", bytes(mail()), "not JSON"),
    "a name broken within a word": ("a.txt", folded(COMPACT, COMPACT.index("nn")), "name is broken"),
    "a name broken at its hyphen": ("a.txt", HYPHENED.replace("Ann-", "Ann-\n"), "name is broken"),
    "a number twice": ("a.json", PLAIN.replace('"rater"', '"rater": "x", "rater"'), "occurs twice"),
    "too large": ("a.json", b"a" * (4 * 2**20 + 1), "too large"),
    "a large archive": ("a.zip", archive(a=b"0" * (4 * 2**20 + 1)), "too large"),
    "archives in archives": ("a.zip", DEEP, "within each other"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name_and_stops_nothing_else(tmp_path, name, content, said):
    found = checked(put(tmp_path, **{name: content, "fine.txt": PLAIN.replace("Zoë", "Bob")}))
    assert found.raters.set_index("file").used.to_dict()["fine.txt"]
    ((file, reason),) = why(found).items()
    assert file.startswith(name)
    assert said in reason


def test_every_file_is_accounted_for(tmp_path):
    put(tmp_path, **{name: content for name, content, _ in REFUSED.values()})
    put(tmp_path, **{f"{number}_{name}": content for number, (name, content) in enumerate(SENT.values())})
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    found = checked(tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()]
    assert not [name for name in files if not found.raters.file.str.startswith(name).any()]
    assert "no file" in why(found)["pipe"]
    assert "no file" in why(found)["nowhere"]
    assert found.raters.used.sum() == 1, "all of one rater"


def test_all_answers_of_a_mail_a_mailbox_and_an_archive_are_listed(tmp_path):
    texts = {name: text_of(answers_of(name, seed)) for seed, name in enumerate(("ann", "bob", "cyd"))}
    ann, bob, cyd = texts.values()
    attached = [("b.json", bob.encode()), ("b.json", cyd.encode()), ("me.png", b"\x89PNG\xff")]
    mails = (b"From a Mon Jan  1 00:00:00 2024\n" + bytes(mail(text)) + b"\n" for text in texts.values())
    for name, content, refused in [
        ("mail.eml", bytes(mail(ann, attached)), 1),
        ("box", b"".join(mails), 0),
        ("a.zip", archive(a=ann, b=bob, c=cyd, d="?"), 1),
        ("all.txt", "\n\n".join(["Three of us:", ann, quoted(bob), cyd]), 0),
        ("half.txt", "\n\n".join([ann, bob, cyd, ann[:200]]), 1),
        ("list.json", f"[{ann},{bob},{cyd}]", 0),
    ]:
        folder = tmp_path / name.partition(".")[0]
        found = checked(put(folder, **{name: content}))
        assert set(found.answers.rater) == set(texts), name
        assert (~found.raters.used).sum() == refused, why(found)
        assert found.raters.file.str.startswith(name).all()


def test_files_of_one_name_from_two_folders_are_two(tmp_path):
    for name in ("ann", "bob"):
        put(tmp_path / name, **{"answers.json": text_of(answers_of(name))})
    assert len(read_answers([tmp_path / "ann", tmp_path / "bob"])) == 2


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


NOT_A_FILE = [None, [], {}, 7, "text"]
BAD = {
    "answers": [None, [], "p01", [[]], ["p01"]],
    "rater": [None, [], "", True, "a\nb", "\u200b"],
    "study": [None, [], "other"],
}
BAD_ANSWERS = {
    "pair": [["p01"], {}, None, "p99"],
    "order": [None, "1", 0, 1.5, True, 10**400],
    "left": [None, [], "c"],
    "milliseconds": ["fast", -1, True, 10**400, float("nan"), float("inf")],
    "left_score": [None, 0, 11, True, 5.5, "5"],
}


def contents():
    """Every way in which the content of one file can be wrong that anybody has thought of."""
    yield from NOT_A_FILE
    yield from (answers_of() | {field: value} for field, values in BAD.items() for value in values)
    first, *others = answers_of()["answers"]
    changed = [first | {field: value} for field, values in BAD_ANSWERS.items() for value in values]
    changed += [{name: value for name, value in first.items() if name != field} for field in first]
    yield from (answers_of() | {"answers": [each, *others]} for each in changed)
    deep = "a"
    for _ in range(5000):
        deep = [deep]
    yield from (answers_of() | {"answers": each} for each in (deep, [deep], [{"pair": deep}]))


def test_one_bad_content_is_one_refused_file():
    for content in contents():
        found = check_answers(STUDY, {"bad": content, "good": answers_of("Bob", 1)}, EVERYONE)
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


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*SENT.values()]), st.data())
def test_a_file_that_is_damaged_anywhere_never_becomes_other_answers(tmp_path_factory, sent, data):
    """A byte exchanged, left out or doubled: the same answers, a refusal, or what the byte itself says;
    never an error.
    """
    content = sent[1] if isinstance(sent[1], bytes) else sent[1].encode()
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.sampled_from([b"", content[at : at + 1] * 2, b"\n", b"\0", b'"', b"{", b"\xff"]))
    folder = put(tmp_path_factory.mktemp("sent"), answers=content[:at] + new + content[at + 1 :])
    found = read_answers(folder)
    assert found
    assert all(isinstance(each, dict | Refused) for each in found.values())
    check_answers(STUDY, found, EVERYONE)
