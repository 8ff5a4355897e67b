"""The parameters of the notebooks: strict, typed, and checked before any work starts.

Their one source is the notebook's cell with the tag `parameters`. It gives names and defaults; a name of
`TYPES` has the type that stands there, any other the type of the value that is written. `cli.profiles` reads
other values from files. What parameters must be together is checked by functions `check_…`, which a notebook
calls beside `check_parameters`; the command line makes the same calls before any notebook starts. papermill
only warns about a misspelt parameter, and passes the string "30" where 30 was meant.

Example:
    >>> check_parameters("01_theory", {})
    Traceback (most recent call last):
    ...
    entropy_lib.cli.parameters.ParameterError: 01_theory: parameter 'seed' is missing; ...
"""

import functools
import json
import os.path
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

import entropy_lib
from entropy_lib.cli.parameters_cell import implied_type, injected_names, read_cells
from entropy_lib.errors import InvalidInputError, UnknownNameError, in_words, shortened
from entropy_lib.files import PROMPTS, ROOT, replacing, workplace
from entropy_lib.metrics.extractors import known_extractor
from entropy_lib.metrics.views import VIEWS
from entropy_lib.models.catalogue import CATALOGUE, entry, local_folder, model_folders, version
from entropy_lib.sampling.methods import method
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import Size, check_size
from entropy_lib.study.design import PROTOCOLS
from entropy_lib.sweep.references import caption_list

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = ROOT / "notebooks"
RECORD = "run.json"  # in a folder of output
REFERENCE = "reference"  # in place of a prompt list: the captions of real images
DTYPES = ("auto", "float32", "float16", "bfloat16")
LONGEST_PROMPT = 1000  # letters; text encoders read 77 to 512 tokens of it
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes and letters that systems take
LARGEST_RULE_PARAMETER = 10.0  # beyond, factors overflow and mean nothing


def _model_name(name: str) -> str:
    folder = local_folder(name)
    if folder is None:
        if "/" not in name:
            entry(name)
        return name  # of the catalogue or, as owner/name, of the Hub
    if not (model_folders(name, folder)[0] / "model_index.json").is_file():
        raise InvalidInputError(f"the folder {name!r} holds no diffusers pipeline (no model_index.json)")
    return name if Path(name) != folder else str(folder.resolve())  # notebooks run in a folder of their own


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:[0-9]+)?", name):
        allowed = "'auto', 'cpu', 'cuda', 'cuda:0', …, 'mps', 'xpu'"
        raise InvalidInputError(f"{name!r} is no device; allowed are {allowed}")
    return name


def first_prompts(name: str, count: int = 0) -> list[str]:
    """The first so many prompts of a list of `data/prompts/` or of a text file, one a line; 0 for all.

    Blank lines and lines that begin with # are no prompts.

    Raises:
        UnknownNameError: when there is no such list or file.
        InvalidInputError: when it is shorter, is not UTF-8 text, or holds no prompt or one of more than 1,000
            letters.
    """
    path = PROMPTS / f"{name}.txt" if name in _prompt_lists() else Path(name)
    if not os.path.isfile(path):  # False, too, for what is too long for a name: a prompt that was pasted
        raise UnknownNameError("prompt list (or text file, one prompt a line)", name, _prompt_lists())
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        wanted = "save it as text, one prompt a line"
        raise InvalidInputError(f"{name!r} cannot be read as UTF-8 text ({error}); {wanted}") from None
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if not lines:
        raise InvalidInputError(f"{name!r} holds no prompt; write one a line")
    if bad := next((line for line in lines if len(line) > LONGEST_PROMPT or not line.isprintable()), ""):
        allowed = f"allowed are {LONGEST_PROMPT:,} printable ones"
        raise InvalidInputError(f"{name!r} holds a prompt of {len(bad):,} letters, {bad[:20]!r}…; {allowed}")
    if len(lines) < count:
        raise InvalidInputError(f"prompt_count is {count}, but the prompt list {name!r} has {len(lines)}")
    return lines[:count] if count else lines


def _prompt_lists() -> list[str]:
    return sorted(path.stem for path in PROMPTS.glob("*.txt"))


def _prompt_source(name: str) -> str:
    first_prompts(name)
    return name if name in _prompt_lists() else str(Path(name).resolve())  # see `_model_name`


def _path_text(text: str) -> str:
    longest = max((len(part.encode(errors="replace")) for part in Path(text).parts), default=0)
    if len(text) > LONGEST_PATH or longest > LONGEST_NAME:
        raise InvalidInputError(
            f"{shortened(text)} is too long for the name of a file or folder; name another"
        )
    return text


def _folder_of_output(text: str) -> str:
    """A path that may be written to: full, or inside the workplace, and no file."""
    place = Path(os.path.normpath(workplace() / _path_text(text)))
    inside = workplace() in place.parents and not text.startswith("~")
    if not text.strip() or not text.isprintable() or not (Path(text).is_absolute() or inside):
        wanted = "write a folder inside it, as 'build/mine', or a full path"
        raise InvalidInputError(f"{text!r} leads out of {workplace()}; {wanted}")
    if file := next((path for path in (place, *place.parents) if path.is_file()), None):
        raise InvalidInputError(f"{text!r} cannot be a folder: {file} is a file; name another")
    return text


def _rule_name(text: str) -> str:
    chosen = rule(text)
    if isinstance(chosen.parameter, float) and abs(chosen.parameter) > LARGEST_RULE_PARAMETER:
        raise InvalidInputError(f"scale rule {text!r}: its number may be at most {LARGEST_RULE_PARAMETER:g}")
    return chosen.name


def _method_name(text: str) -> str:
    chosen = method(text)
    _rule_name(chosen.rule)
    return chosen.name


def _knows_text(name: str) -> str:
    if known_extractor(name) != "mini-clip" and not name.startswith("open_clip:"):
        raise InvalidInputError(f"{name!r} knows no text; take 'mini-clip' or 'open_clip:NAME/TAG'")
    return name


def _distinct(values: list) -> list:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise InvalidInputError(f"{repeated[0]!r} occurs twice; each may occur once")
    return values


def _text(check: Callable[[str], str]) -> Any:
    return Annotated[str, AfterValidator(check)]


def _among(kind: str, allowed: Collection[str]) -> Any:
    def known(name: str) -> str:
        if name not in allowed:
            raise UnknownNameError(kind, name, allowed)
        return name

    return _text(known)


def _whole(least: int, most: int = 10**6) -> Any:
    return Annotated[int, Field(ge=least, le=most)]


def _several(each: Any) -> Any:
    return Annotated[list[each], Field(min_length=1), AfterValidator(_distinct)]


Model: TypeAlias = _text(_model_name)
Folder: TypeAlias = _text(_folder_of_output)
Source: TypeAlias = _text(_path_text)  # a file, a folder or a name; "" for none
SizeText: TypeAlias = Annotated[str, BeforeValidator(lambda given: str(Size.parse(given)))]
Sizes: TypeAlias = _several(SizeText)
Methods: TypeAlias = _several(_text(_method_name))
Level: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
UpToTen: TypeAlias = Annotated[float, Field(gt=0, le=10)]
TYPES: dict[str, Any] = {  # of parameters by name, beside those that the classes below declare
    "answers": Source,  # folder of the files that raters saved; "" for a simulated panel
    "calibration": Source,  # a file of `calibrate`; "" for the shipped one
    "catch_trials": _whole(0, 100),
    "controls": Annotated[list[Model], AfterValidator(_distinct)],  # generate and are evaluated like `model`
    "extractor": _text(known_extractor),  # of the distances
    "large": SizeText,
    "level": Level,
    "logit_std": UpToTen,
    "measured": Sizes,  # of `sizes`: where time and memory are measured, each method in a fresh process
    "measured_prompts": _whole(2),
    "pairs": _whole(1, 1000),
    "processes": _whole(1, 9),  # of which the least memory counts, on a CPU
    "protocol": _among("protocol", PROTOCOLS),
    "raters": _whole(2, 1000),  # of the simulated panel
    "rows": _whole(0),  # query rows; 0 takes all
    "rule": _text(_rule_name),
    "rules": _several(_text(_rule_name)),
    "methods": Methods,
    "methods_below": Methods,  # at sizes where no window of native size fits
    "score_extractor": _text(_knows_text),  # of the CLIP score
    "shares": _several(Annotated[float, Field(gt=0, le=3)]),  # of b_c
    "size": SizeText,
    "sizes": Sizes,
    "small": SizeText,
    "tokens": _several(_whole(2)),
    "tolerance": UpToTen,  # nats
    "training_tokens": _whole(2),
    "view": _among("view", VIEWS),
}


class Parameters(BaseModel):
    """What every notebook needs."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    defaults: ClassVar[dict[str, Any]] = {}  # what the notebook's cell says
    checks: ClassVar[list[str]] = []  # that it makes beside `check_parameters`

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    output: Folder

    def folder(self) -> Path:
        """Where the notebook writes figures and tables, made if need be; whoever writes there claims it."""
        self.claim()
        return workplace() / self.output

    def claim(self, **facts: str) -> None:
        """Record in the folder of output by which parameters its files are made; earlier ones are void."""
        path = workplace() / self.output / RECORD
        content = json.dumps({"parameters": self.model_dump()} | facts, indent=1, ensure_ascii=False)
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")

    def save(self, **named: "pd.DataFrame | Figure | Axes | np.ndarray | str") -> None:
        """Save tables, figures, arrays and texts into the folder of output, each under its keyword.

        Args:
            named: a table becomes NAME.csv, a figure, or the one of axes, NAME.png, an array NAME.npy, a text
                NAME.txt. `provenance=p.provenance(pipe)` says where the tables beside it come from.

        Raises:
            InvalidInputError: for anything else, before anything is written.
            NotWrittenError: when the disk is full or cannot be written to.

        Example:
            >>> import tempfile
            >>> p = Parameters(seed=0, output=tempfile.mkdtemp())
            >>> p.save(law=pd.DataFrame({"tokens": [64], "entropy": [3.2]}), provenance="by hand")
            >>> sorted(path.name for path in p.folder().iterdir())
            ['law.csv', 'provenance.txt', 'run.json']
        """
        files = {name: _written(name, thing) for name, thing in named.items()}
        for name, (ending, write) in files.items():
            with replacing(self.folder() / f"{name}{ending}") as temporary:
                write(temporary)


def _written(name: str, thing: Any) -> tuple[str, Callable[[Path], object]]:
    """The ending of the file that a thing is saved in, and what writes it."""
    figure = getattr(thing, "figure", thing)  # of axes
    match thing:
        case pd.DataFrame():
            as_csv = {"index": False, "float_format": "%.6g", "encoding": "utf-8"}
            return ".csv", functools.partial(thing.to_csv, **as_csv)
        case np.ndarray():
            return ".npy", functools.partial(np.save, arr=thing)
        case str():
            return ".txt", lambda path: path.write_text(f"{thing.rstrip()}\n", encoding="utf-8")
        case _ if hasattr(figure, "savefig"):
            return ".png", functools.partial(figure.savefig, dpi=150)
    allowed = "a table, a figure or its axes, a numpy array, or a text"
    raise InvalidInputError(f"{name} is {shortened(thing)}; save takes {allowed}")


def claimed(folder: Path) -> dict[str, Any]:
    """What `Parameters.claim` recorded in a folder; {} where there is nothing that can be read."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Sampling(Parameters):
    """What every notebook needs that has a `model`."""

    model: Model
    device: Annotated[str, AfterValidator(_device_name)]
    dtype: _among("dtype", DTYPES)
    prompts: Annotated[str, AfterValidator(_prompt_source)]
    prompt_count: Annotated[int, Field(ge=1, le=10**6)]
    steps: Annotated[int, Field(ge=1, le=1000)]  # as many as diffusion models are trained on
    guidance: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _fit_together(self) -> "Sampling":
        for size in self.image_sizes() if self.model in CATALOGUE else []:
            check_size(*Size.parse(size), CATALOGUE[self.model].size_multiple)
        if self.prompts != REFERENCE:
            self.prompt_list()
        return self

    def native(self) -> str:
        """The label of the model's native size, from its configuration alone; errors as `outline_size`."""
        from entropy_lib.models.outline import outline_size  # diffusers is slow to import

        return str(Size.of(outline_size(self.model)))

    def image_sizes(self) -> list[str]:
        """The sizes that are generated, as far as the parameters name them."""
        single = [getattr(self, name) for name in ("size", "small", "large") if hasattr(self, name)]
        return [*getattr(self, "sizes", []), *single]

    def rule_names(self) -> list[str]:
        """The rules or methods that are generated by, as far as the parameters name them."""
        one = ["unscaled", self.rule] if hasattr(self, "rule") else []
        return [*getattr(self, "rules", []), *getattr(self, "methods", []), *one]

    def prompt_list(self) -> list[str]:
        """The first `prompt_count` prompts: of a list, of a file, or captions of the reference."""
        if self.prompts != REFERENCE:
            return first_prompts(self.prompts, self.prompt_count)
        return caption_list(self.reference, self.prompt_count)

    def seed_list(self) -> list[int]:
        """One seed a prompt, counting up from `seed`."""
        return list(range(self.seed, self.seed + self.prompt_count))

    def sampling(self) -> dict[str, Any]:
        """What `generate` and `entropy_by_size` need: prompts, seeds, steps, guidance."""
        chosen = {"prompts": self.prompt_list(), "seeds": self.seed_list()}
        return chosen | {"steps": self.steps, "guidance": self.guidance}

    def provenance(self, pipe: "DiffusionPipeline") -> str:
        """One line to print under every table: model and revision, sampler, samples, seeds, precision."""
        seeds, checker = self.seed_list(), ["no safety checker"] if hasattr(pipe, "safety_checker") else []
        facts = [
            f"model {self.model}{version(self.model)}",
            f"{type(pipe.scheduler).__name__}, {self.steps} steps",
            f"guidance {self.guidance:g}",
            f"{self.prompt_count} prompts of {Path(self.prompts).name!r}",
            f"seeds {seeds[0]} to {seeds[-1]}",
            str(pipe.dtype).removeprefix("torch."),
        ]
        return " · ".join(facts + checker)


class Sweep(Sampling):
    """What every notebook needs that has a `store`: it evaluates images by the hundred.

    `prompts` may be "reference": the captions of half of the reference's images.
    """

    prompts: Annotated[str, AfterValidator(lambda name: name if name == REFERENCE else _prompt_source(name))]
    # the jackknife leaves out one block and needs two images more
    prompt_count: Annotated[int, Field(ge=3, le=10**6)]
    seeds_per_prompt: Annotated[int, Field(ge=1, le=10**4)]
    sizes: Sizes
    methods: Methods  # scale rules, or any other method to make an image
    reference: Source  # see `entropy_lib.sweep.references`; "" for none
    batch: Annotated[int, Field(ge=1, le=4096)]  # images generated together
    store: Folder  # of the images
    level: Level

    def parts(self) -> "list[Sweep]":
        """Itself, or, with `methods_below`, the sizes that hold a window of native size, and the others."""
        if not hasattr(self, "methods_below"):
            return [self]
        native = Size.parse(self.native())
        fits = [size for size in self.sizes if np.greater_equal(Size.parse(size), native).all()]
        below = [size for size in self.sizes if size not in fits]
        others = {"sizes": [*below, str(native)], "methods": self.methods_below}
        return [self.model_copy(update=part) for part in [{"sizes": fits}, *([others] if below else [])]]

    def seed_list(self) -> list[int]:
        """The seeds of each prompt, counting up from `seed`."""
        return list(range(self.seed, self.seed + self.seeds_per_prompt))

    def folder_of_store(self) -> Path:
        """Where the images are."""
        return workplace() / self.store


class ParameterError(InvalidInputError):
    """Parameters of a notebook that cannot be used; the message lists every problem."""


class BrokenNotebookError(ParameterError):
    """The file of a notebook from which no run can be made."""


class _Notebooks(Mapping[str, type[Parameters]]):
    """The class of every `NN_name.ipynb` in the folder, made from its parameters cell."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.ipynb")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, notebook: str) -> type[Parameters]:
        path = FOLDER / f"{notebook}.ipynb"
        if not re.fullmatch(r"[0-9]{2}_[^/\\]*", notebook) or not path.is_file():
            raise KeyError(notebook)
        return _read(path, path.stat().st_mtime_ns)


NOTEBOOKS = _Notebooks()


@functools.lru_cache
def _read(path: Path, time: int) -> type[Parameters]:
    """The class of a notebook, as its file is at a time."""
    try:
        defaults, checks = read_cells(path)
        if taken := [name for name in defaults if name.startswith("_") or hasattr(Sweep, name)]:
            raise InvalidInputError(f"{taken[0]!r} cannot be the name of a parameter; take another")
        base = Sweep if "store" in defaults else Sampling if "model" in defaults else Parameters
        own = {name: value for name, value in defaults.items() if name not in base.model_fields}
        types = {name: TYPES[name] if name in TYPES else implied_type(value) for name, value in own.items()}
    except InvalidInputError as error:
        raise BrokenNotebookError(f"{path.stem}: {error}") from None
    made = create_model(path.stem, __base__=base, **{name: (kind, ...) for name, kind in types.items()})
    made.defaults, made.checks = defaults, checks
    return made


def parameter_names(notebook: str) -> Collection[str]:
    """The names of a notebook's parameters; none where it is unknown or broken."""
    try:
        return NOTEBOOKS[notebook].model_fields
    except (KeyError, BrokenNotebookError):
        return ()


def check_parameters(notebook: str, values: dict[str, Any]) -> Parameters:
    """Check the parameters of a notebook, each by itself.

    Args:
        notebook: its file name without ending.
        values: the parameters. Inside a notebook, `globals()` will do: only names of parameters are looked
            at, and what papermill put in.

    Raises:
        UnknownNameError: for an unknown notebook, or a name given by papermill that is no parameter.
        ParameterError: for a missing or unusable value.
    """
    if notebook not in NOTEBOOKS:
        raise UnknownNameError("notebook", notebook, NOTEBOOKS)
    model = NOTEBOOKS[notebook]
    for name in injected_names(values.get("In", ())):
        if name not in model.model_fields:
            raise UnknownNameError(f"parameter of {notebook}", name, model.model_fields)
    try:
        return model(**{name: values[name] for name in model.model_fields if name in values})
    except ValidationError as error:
        raise ParameterError(f"{notebook}: {'; '.join(map(in_words, error.errors()))}") from None


def check_together(notebook: str, checked: Parameters) -> None:
    """Make the checks of parameters that a notebook makes: its calls of `el.….check_…(…)`."""
    for check in checked.checks:
        try:
            eval(check, {"el": entropy_lib, "p": checked})
        except InvalidInputError as error:
            raise ParameterError(f"{notebook}: {error}") from None
        except (NameError, AttributeError, TypeError, LookupError) as error:
            wanted = f"its check {check!r} cannot be made of `el` and `p`"
            raise BrokenNotebookError(f"{notebook}: {wanted}: {error}") from None


def check_at_least(p: Parameters, **least: int) -> None:
    """Whether numbers are so large, and lists so long.

    Raises:
        InvalidInputError: naming the first that is not.
    """
    for name, number in least.items():
        value = getattr(p, name)
        listed = isinstance(value, list)
        if (len(value) if listed else value) < number:
            wanted = f"a list of {number}" if listed else number
            raise InvalidInputError(f"{name} is {value}; it must be {wanted} or more")


def image_count(checked: Parameters) -> int:
    """Images that a notebook generates: prompts x sizes x methods, those that coincide at native size too."""
    if not isinstance(checked, Sampling):
        return 0
    beside = hasattr(checked, "small")  # the native size
    parts = checked.parts() if isinstance(checked, Sweep) else [checked]
    cells = sum((len(part.image_sizes()) + beside) * (len(part.rule_names()) or 1) for part in parts)
    models = 1 + len(getattr(checked, "controls", []))
    return cells * checked.prompt_count * getattr(checked, "seeds_per_prompt", 1) * models
