"""Which pairs of images raters see: chosen, blinded and balanced from a seed.

A study is two files. The page goes to raters and knows no method. The key, `study.json`, stays with whoever
asks.

Example:
    >>> import numpy as np
    >>> images = {name: np.zeros((64, 64, 3), np.uint8) for name in ("unscaled", "paper")}
    >>> generated = [Candidate(text, "64x64", images) for text in ("a zebra", "two owls", "a boat")]
    >>> study = make_study(generated, pairs=2, catch_trials=1)
    >>> len(study.pairs), sum(pair.catch for pair in study.pairs), study.methods
    (3, 1, ('unscaled', 'paper'))
"""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8

from entropy_lib.errors import InvalidInputError, MissingFileError, UnknownNameError
from entropy_lib.files import replacing

Protocol = Literal["rating", "choice"]
PROTOCOLS = get_args(Protocol)
KEY = "study.json"
TITLE = "Images and texts"  # of the page, unless another is given
OTHER_PROMPT = "another prompt"  # what is in the place of a method for the wrong image of a catch trial
PAIRS, CATCH_TRIALS = 50, 4  # 50 as in the paper
SMALL_WORDS = {"a", "an", "the", "on", "of", "and", "background", "style"}

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Candidate:
    """A prompt and its image by each method, all of one size."""

    prompt: str
    size: str
    images: Mapping[str, Pixels]


@dataclass(frozen=True)
class Pair:
    """Two images that are shown at once.

    Attributes:
        name: "p01" and so on, in random order.
        prompt, size: of both images.
        methods: by which image a and image b were generated; which of the two is a was left to chance.
        catch: a trial with one right answer: image b or a shows another prompt.
        digests: of the pixels.
    """

    name: str
    prompt: str
    size: str
    methods: tuple[str, str]
    catch: bool
    digests: tuple[str, str]


@dataclass(frozen=True)
class Study:
    """Pairs, how they are asked about, and where they come from.

    Attributes:
        protocol: "rating", each image from 1 to 10 as in the paper, or "choice", left, right or a tie.
        seed: of choice, blinding and order.
        methods: what is compared, the first being the baseline.
        pairs: what is shown, catch trials among them.
        provenance: of the images, in a sentence.
        images: two of each pair, by its name; not in the key.
    """

    protocol: Protocol
    seed: int
    methods: tuple[str, ...]
    pairs: tuple[Pair, ...]
    provenance: str = ""
    images: Mapping[str, tuple[Pixels, Pixels]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """Checksum of all that raters see and are asked, 16 hexadecimal digits; every answer carries it."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:16]

    def pair(self, name: str) -> Pair:
        """The pair of a name."""
        return next(pair for pair in self.pairs if pair.name == name)

    def write_key(self, folder: Path | str) -> Path:
        """Write `study.json`, which names the methods and is not for raters; another study's stays."""
        path = Path(folder) / KEY
        if path.exists() and (there := _digest_of(path)) != self.digest:
            raise InvalidInputError(
                f"{path} is the key of another study ({there}; this one is {self.digest}), without which its "
                "answers are lost; name another folder, or move that one away"
            )
        content = self._content() | {"digest": self.digest}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path | str) -> "Study":
        """The study whose key lies in a folder, without its images.

        Raises:
            MissingFileError: if there is none.
            InvalidInputError: if it is damaged or was changed by hand.
        """
        path = Path(folder) / KEY
        if not path.is_file():
            raise MissingFileError(f"no study at {path}; make one with: entropy_lib study make")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digest, pairs, methods = (content.pop(name) for name in ("digest", "pairs", "methods"))
            tuples = ({name: tuple(pair[name]) for name in ("methods", "digests")} for pair in pairs)
            made = (Pair(**pair | two) for pair, two in zip(pairs, tuples, strict=True))
            study = cls(methods=tuple(methods), pairs=tuple(made), **content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InvalidInputError(f"{path} is no key of a study ({what}); restore it") from error
        if study.digest != digest:
            raise InvalidInputError(f"{path} was changed after it was written; restore it from a copy")
        return study

    def _content(self) -> dict[str, object]:
        content = {name: getattr(self, name) for name in ("protocol", "seed", "methods", "provenance")}
        return content | {"pairs": [asdict(pair) for pair in self.pairs]}


def make_study(
    candidates: Sequence[Candidate],
    *,
    pairs: int = PAIRS,
    catch_trials: int = CATCH_TRIALS,
    catch_candidates: Sequence[Candidate] | None = None,
    protocol: Protocol = "rating",
    seed: int = 0,
    provenance: str = "",
) -> Study:
    """Choose pairs of images for raters.

    Sizes get equally many pairs, and so do the pairs of methods; no prompt comes twice at a size. In half of
    the pairs of two methods the first one is image a. Which image is on the left is decided anew for each
    rater, equally often.

    Args:
        candidates: of all sizes, every one with the same methods; the first method is the baseline.
        pairs: how many to show; the paper shows 50.
        catch_trials: how many more with one right answer: the image of the prompt beside that of a prompt
            with no word in common, or as few as can be.
        catch_candidates: what to make catch trials of, best of native size; by default `candidates`.
        protocol: "rating" or "choice".
        seed: of everything that is left to chance.
        provenance: of the images.

    Raises:
        InvalidInputError: for candidates without two methods or with others; for images of different sizes in
            one; for more pairs than there are.
    """
    methods = _check(candidates, protocol, pairs, catch_trials)
    chance, rows = random.Random(f"{seed} {protocol}"), []
    chosen = _balanced(candidates, list(itertools.combinations(methods, 2)), pairs, chance)
    swapped = [index % 2 == 1 for index in range(len(chosen))]
    chance.shuffle(swapped)
    for (each, two), swap in zip(chosen, swapped, strict=True):
        two = two[::-1] if swap else two
        rows.append((each.prompt, each.size, two, tuple(each.images[method] for method in two), False))
    rows += _catch_trials(catch_candidates or candidates, catch_trials, chance)
    chance.shuffle(rows)
    made, images = [], {}
    for number, (prompt, size, two, both, catch) in enumerate(rows, start=1):
        name = f"p{number:02d}"
        made.append(Pair(name, prompt, size, two, catch, (_digest(both[0]), _digest(both[1]))))
        images[name] = both
    return Study(protocol, seed, methods, tuple(made), provenance, images)


def _digest_of(key: Path) -> object:
    """The checksum that a key carries; whatever cannot be read belongs to no study that is known here."""
    try:
        return json.loads(key.read_text(encoding="utf-8")).get("digest")
    except (OSError, ValueError, AttributeError, RecursionError):
        return "which cannot be read"


def _balanced(
    candidates: Sequence[Candidate], combinations: list[tuple[str, str]], pairs: int, chance: random.Random
) -> list[tuple[Candidate, tuple[str, str]]]:
    """Candidates in turn by size, their pairs of methods in turn."""
    by_size: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_size.setdefault(each.size, []).append(each)
    for group in by_size.values():
        chance.shuffle(group)
    turns = [each for turn in itertools.zip_longest(*by_size.values()) for each in turn if each is not None]
    if pairs > len(turns):
        raise InvalidInputError(
            f"pairs is {pairs}; there are images for {len(turns)}. Ask for fewer, or generate more prompts"
        )
    in_turn = {size: itertools.cycle(combinations) for size in by_size}
    return [(each, next(in_turn[each.size])) for each in turns[:pairs]]


def _catch_trials(candidates: Sequence[Candidate], count: int, chance: random.Random) -> list[tuple]:
    """By the same method, the right image and one of another prompt."""
    rows, order = [], chance.sample(list(candidates), len(candidates))
    for index in range(count):
        right = order[index % len(order)]
        others = [each for each in order if each.size == right.size and each.prompt != right.prompt]
        if not others:
            raise InvalidInputError(f"catch trials need two prompts of size {right.size}; there is one")
        shared = {each.prompt: len(_words(each.prompt) & _words(right.prompt)) for each in others}
        wrong = min(chance.sample(others, len(others)), key=lambda each: shared[each.prompt])
        method = next(iter(right.images))
        two, both = (method, OTHER_PROMPT), (right.images[method], wrong.images[method])
        turn = slice(None, None, -1 if index % 2 else 1)  # the right image is a, then b
        rows.append((right.prompt, right.size, two[turn], both[turn], True))
    return rows


def _words(prompt: str) -> set[str]:
    return set(prompt.lower().replace(",", " ").split()) - SMALL_WORDS


def _digest(image: Pixels) -> str:
    content = np.ascontiguousarray(image).tobytes() + str(image.shape).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _check(candidates: Sequence[Candidate], protocol: str, pairs: int, catch_trials: int) -> tuple[str, ...]:
    """The methods, when all can be used."""
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    for name, value, least in (("pairs", pairs, 1), ("catch_trials", catch_trials, 0)):
        if not isinstance(value, int) or value < least:
            raise InvalidInputError(f"{name} is {value!r}; it must be a whole number, {least} or more")
    if not candidates:
        raise InvalidInputError("no candidates; a study needs images of a prompt by two methods at least")
    methods = tuple(candidates[0].images)
    if len(methods) < 2:
        raise InvalidInputError(f"candidates have the method {', '.join(methods)}; a pair needs two")
    for each in candidates:
        if set(each.images) != set(methods):
            own, all_others = ", ".join(each.images), ", ".join(methods)
            raise InvalidInputError(f"{each.prompt!r} at {each.size} has {own}; others have {all_others}")
        if len({image.shape for image in each.images.values()}) > 1:
            what = f"{each.prompt!r} at {each.size} has images of different sizes"
            raise InvalidInputError(f"{what}; raters would see which is which")
    if repeated := len(candidates) - len({(each.prompt, each.size) for each in candidates}):
        raise InvalidInputError(f"{repeated} candidates repeat a prompt at a size; each may occur once")
    return methods
