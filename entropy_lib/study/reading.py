"""From the files that raters sent to their answers, whatever a mail program, a telephone or a text editor has
made of them.

What can be read with certainty is read: any name and ending, marks of byte order, UTF-16, mails with all that
is attached to them, archives, text before and after the answers, quoted and wrapped lines, typographic
quotation marks. The rest is refused with its reason. Nothing that lies in a folder is passed over.
"""

import collections
import email
import email.policy
import html
import io
import json
import os
import quopri
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from entropy_lib.errors import InvalidInputError, MissingFileError

LARGEST = 4 * 2**20  # bytes; the answers of a rater take some ten thousand
DEEPEST = 3  # archives and mails within each other
# what unpacking a file of an archive may say
DAMAGE = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError)

Contents = Mapping[str, Any]  # of files by their names


class Refused(str):
    """Why there are no answers in a file, or none that can be read."""


NOTHING = Refused("no file of answers"), Refused("not JSON")
Found = Iterator[tuple[str, Any]]  # names, and what lies under them: answers as they were saved, or `Refused`


def read_answers(files: Path | str | Iterable[Path | str]) -> Contents:
    """What raters sent: {name of the file: its content, or `Refused` where it cannot be read}.

    What lies in a mail or an archive stands under the name of both, `ann.zip/answers.json`.

    Args:
        files: files, or a folder of them; all that lie in a folder and in those within it are read.

    Raises:
        MissingFileError: for a folder or file that is not there.
        InvalidInputError: for a folder without files.
    """
    listed = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    found: dict[str, Any] = {}
    for path in listed:
        if not path.exists():
            raise MissingFileError(f"no answers at {path}; give the folder of the raters' files")
        for name, content in _in_folder(path) if path.is_dir() else _in_file(path, path.name):
            found[_another(name, found)] = content
    if not found:
        places = ", ".join(map(str, listed))
        raise InvalidInputError(f"no answers in {places}; the files that raters save end in .json")
    return found


def _another(name: str, taken: Mapping[str, Any]) -> str:
    """A name that nothing has yet, without what a terminal cannot show."""
    name = name.encode("utf-8", "backslashreplace").decode()
    names = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(each for each in names if each not in taken)


def _in_folder(folder: Path) -> Found:
    failed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=failed.append):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            yield from _in_file(path, path.relative_to(folder).as_posix())
    for error in failed:
        yield os.path.relpath(error.filename, folder), Refused(f"cannot be read: {error.strerror}")


def _in_file(path: Path, name: str) -> Found:
    try:
        if not path.is_file():
            yield name, Refused("no file but a link to nothing, or a device")
        elif path.stat().st_size > LARGEST:
            yield name, Refused(f"too large for answers: {path.stat().st_size:,} bytes")
        else:
            yield from _in_bytes(path.read_bytes(), name)
    except OSError as error:
        yield name, Refused(f"cannot be read: {error.strerror}")
    except RecursionError:
        yield name, Refused("nested too deeply")


def _in_bytes(content: bytes, name: str, depth: int = 0) -> Found:
    if not content.strip(b" \t\r\n\0"):
        yield name, Refused("empty")
    elif depth > DEEPEST:
        yield name, Refused("archives or mails within each other; take them apart")
    elif content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _in_archive(content, name, depth)
    elif mails := _mails(content):
        names = (name, *(f"{name}/{number}" for number in range(1, len(mails))))
        found = [each for mail, own in zip(mails, names, strict=True) for each in _in_mail(mail, own, depth)]
        yield from found or _in_text(_decoded(content), name)
    else:
        yield from _in_text(_decoded(content), name)


def _in_archive(content: bytes, name: str, depth: int) -> Found:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            if {"[Content_Types].xml", "mimetype"} & {each.filename for each in members}:
                yield name, Refused("a document of an office program; save its text as a plain text file")
            elif sum(each.file_size for each in members) > LARGEST:
                yield name, Refused("an archive too large for answers; unpack it")
            elif not members:
                yield name, Refused("empty")
            else:
                for member in members:
                    inside = f"{name}/{member.filename}"
                    try:
                        content = archive.read(member)
                    except DAMAGE as error:
                        yield inside, Refused(f"cannot be unpacked: {error}")
                    else:
                        yield from _in_bytes(content, inside, depth + 1)
    except zipfile.BadZipFile as error:
        yield name, Refused(f"a damaged archive: {error}")


HEADER = (
    rb"(?:received|return-path|delivered-to|from|to|cc|subject|date|sender|reply-to|mime-version|message-id"
    rb"|content-[a-z-]+|x-[\w-]+|dkim-signature|arc-[\w-]+|authentication-results|in-reply-to|references"
    rb"|thread-[\w-]+):"
)


def _mails(content: bytes) -> list[bytes]:
    """The mails that a file is made of: one, or those of a mailbox; none where it is something else."""
    if content.startswith(b"From ") and re.match(rb"From .*\r?\n" + HEADER, content, re.IGNORECASE):
        return [each for each in re.split(rb"(?m)^From .*\r?\n(?=[\w-]+:)", content) if each]
    return [content] if re.match(rb"(?:\xef\xbb\xbf)?\s*" + HEADER, content, re.IGNORECASE) else []


def _in_mail(content: bytes, name: str, depth: int) -> Found:
    """Of text, attachments and mails that were sent on; the same as text and as HTML counts once."""
    seen: list[Any] = []
    for part in email.message_from_bytes(content, policy=email.policy.compat32).walk():
        if part.is_multipart():
            continue
        payload, file = part.get_payload(decode=True) or b"", part.get_filename()
        inside = f"{name}/{file}" if file else name
        if part.get_content_maintype() == "text" and not file:
            found = _in_text(_decoded(payload, part.get_content_charset()), inside)
        else:
            found = _in_bytes(payload, inside, depth + 1)
        for each, answers in found:
            if answers not in (*(() if file else NOTHING), *seen):
                seen += [] if isinstance(answers, Refused) else [answers]
                yield each, answers


def _decoded(content: bytes, charset: str | None = None) -> str | None:
    """The text of a file; None where it is in no encoding that shows of itself or that its mail names."""
    wide = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}  # which begin as those of 16 bits do
    marks = wide | {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    # which would pass for UTF-8
    seven_bits = charset if re.match("iso-2022|utf-?7|hz", charset or "") else None
    marked = next((code for mark, code in marks.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content[:2]:
        marked = "utf-16-be" if content[0] == 0 else "utf-16-le"
    for code in (marked or seven_bits,) if marked or seven_bits else ("utf-8-sig", charset or "ascii"):
        try:
            return content.decode(code)
        except (ValueError, LookupError):
            continue
    return None


def _in_text(text: str | None, name: str) -> Found:
    """All answers in a text, by the first reading that has them all; others that it names are refused."""
    if text is None:
        yield name, Refused("no text in UTF-8 or UTF-16; save it as UTF-8")
        return
    most: list[dict[str, Any]] = []
    looked_for, why = 0, ""
    for reading in _readings(text):
        found, failed = _objects(reading)
        looked_for, why = max(looked_for, len(ANSWERS.findall(reading))), why or failed
        most = max(most, found, key=len)
        if most and len(most) >= looked_for:
            break
    yield from ((name, each) for each in most)
    if not most or len(most) < looked_for:
        yield name, Refused(f"not JSON: {why}") if looked_for else NOTHING[not _is_json(text)]


QUOTES = str.maketrans(dict.fromkeys("“”„‟«»″＂", '"'))
ANSWERS = re.compile(r"""(?:["“”„‟«»″＂]|&quot;|&#34;)answers(?:["“”„‟«»″＂]|&quot;|&#34;)\s*:""")


def _readings(text: str) -> Iterator[str]:
    """The text as it is, then with one after the other taken back of what programs do to text."""
    yield text
    if re.search(r"=\r?\n|=3D|=22", text):
        text = quopri.decodestring(text.encode()).decode("utf-8", "replace")
        yield text
    if re.search(r"&(?:quot|#34);|</?[a-zA-Z]", text):
        text = _without_markup(text)
        yield text
    text = _plain_spaces(re.sub(r"(?m)^[ \t\xa0]*(?:>[ \t\xa0]?)+", "", text))
    for quoted in (text, text.translate(QUOTES)):
        yield quoted
        yield _unwrapped(quoted)


def _without_markup(text: str) -> str:
    lines = re.sub(r"<(?:br|p|div|tr|li)\b[^<>]*>", "\n", text)
    return html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", "", lines))


def _plain_spaces(text: str) -> str:
    """Spaces of every kind as the plain one, none where they have no width."""
    plain = {"Zs": " ", "Cf": "", "Zl": "\n", "Zp": "\n"}
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(plain.get(unicodedata.category(each), each) for each in text)


BREAK = re.compile(r"[ \t]*\n[ \t]*")
STRING = re.compile(r'("rater"\s*:\s*)?("(?:[^"\\]|\\.)*")', re.DOTALL)


def _unwrapped(text: str) -> str:
    """Lines joined that were broken, also within a word: of all texts only the rater's name has spaces."""
    text = text[max(text.find("{"), 0) :]
    lengths = collections.Counter(map(len, text.split("\n")))
    full = {max(lengths)} | {length for length, count in lengths.items() if count > 1}
    parts, end = [], 0
    for string in STRING.finditer(text):
        key, content = string[1] or "", string[2]
        joined = _joined_name(text, string.start(2), content, full) if key else BREAK.sub("", content)
        parts += [(text[end : string.start()] + key).replace("\n", ""), joined]
        end = string.end()
    return "".join(parts) + text[end:]


def _joined_name(text: str, start: int, name: str, full: set[int]) -> str:
    """A broken name with its space; the break stays where it may be within a word, to be refused later."""
    for found in reversed(list(BREAK.finditer(name))):
        line = text[: start + found.start()].rpartition("\n")[2]
        at_a_space = found[0] != "\n" or (len(line) not in full and not line.endswith("-"))
        name = name[: found.start()] + (" " if at_a_space else "\\n") + name[found.end() :]
    return name


def _objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """All answers that stand in a text as JSON, and what is wrong with the first that cannot be read."""
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
    found, at, why = [], 0, ""
    while (at := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError:
            return found, "nested too deeply"
        except ValueError as error:
            why, at = why or str(error), at + 1
        else:
            found += [value] if "answers" in value else []
    return found, why


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
