"""The parameters of the notebooks: strict, typed, and checked before any work starts.

papermill only warns about a misspelt parameter and passes the string "30" where 30 was meant. Here each notebook has a
class that knows its parameters; `running.profiles` reads their values from files.
A notebook without a class here gets one from its own `parameters` cell: names that another notebook has are checked as there,
others must be of the type that is written. Write a class where parameters must suit each other.

Example:
    >>> check_parameters("01_theory", {})
    Traceback (most recent call last):
    ...
    entropy_lib.running.parameters.ParameterError: 01_theory: parameter 'seed' is missing; ...
"""

import json
import os.path
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from entropy_lib.errors import InvalidInputError, UnknownNameError, in_words, shortened
from entropy_lib.files import PROMPTS, ROOT, replacing, workplace
from entropy_lib.running.parameters_cell import cell_values, implied_type, injected_names
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import check_size, parse_size, size_name

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import

    from entropy_lib.scaling.calibration import Calibration

FOLDER = ROOT / "notebooks"
RECORD = "run.json"  # in a folder of output
REFERENCE = "reference"  # in place of a prompt list: the captions of real pictures
DTYPES = ("auto", "float32", "float16", "bfloat16")
LONGEST_PROMPT = 1000  # letters; text encoders read 77 to 512 tokens of it
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes and letters that systems take
LARGEST_RULE_PARAMETER = 10.0  # beyond, factors overflow and mean nothing


def _known_model(name: str) -> str:
    from entropy_lib.models.catalogue import entry, local_folder, model_folders  # diffusers is slow to import

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
        raise InvalidInputError(f"{name!r} is no device; allowed are 'auto', 'cpu', 'cuda', 'cuda:0', …, 'mps', 'xpu'")
    return name


def _one_of(kind: str, allowed: Callable[[], Any]) -> AfterValidator:
    def known(name: str) -> str:
        if name not in allowed():
            raise UnknownNameError(kind, name, allowed())
        return name

    return AfterValidator(known)


def _views() -> tuple[str, ...]:
    from entropy_lib.metrics.views import VIEWS  # torch is slow to import

    return VIEWS


def _protocols() -> tuple[str, ...]:
    from entropy_lib.study.design import PROTOCOLS  # numpy is slow to import

    return PROTOCOLS


def prompt_lines(name: str) -> list[str]:
    """The prompts of a list of `data/prompts/` or of a text file: one a line, without blank lines and lines that begin with #.

    Raises:
        UnknownNameError: when there is no such list or file.
        InvalidInputError: for a file that is not UTF-8 text, holds no prompt, or a prompt of more than 1,000 letters.
    """
    shipped = PROMPTS / f"{name}.txt"
    path = shipped if name in _prompt_lists() else Path(name)
    if not os.path.isfile(path):  # False, too, for what is too long for a name: a prompt that was pasted
        raise UnknownNameError("prompt list (or text file, one prompt a line)", name, _prompt_lists())
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidInputError(f"{name!r} cannot be read as UTF-8 text ({error}); save it as text, one prompt a line") from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines:
        raise InvalidInputError(f"{name!r} holds no prompt; write one a line")
    for line in lines:
        if len(line) > LONGEST_PROMPT or not line.isprintable():
            raise InvalidInputError(
                f"{name!r} holds a prompt of {len(line):,} letters, {line[:20]!r}…; allowed are {LONGEST_PROMPT:,} printable ones"
            )
    return lines


def first_prompts(name: str, count: int) -> list[str]:
    """So many of the lines of a prompt list.

    Raises:
        InvalidInputError: when the list is shorter, or as `prompt_lines`.
        UnknownNameError: as `prompt_lines`.
    """
    lines = prompt_lines(name)
    if len(lines) < count:
        raise InvalidInputError(f"prompt_count is {count}, but the prompt list {name!r} has {len(lines)}")
    return lines[:count]


def _prompt_lists() -> list[str]:
    return sorted(path.stem for path in PROMPTS.glob("*.txt"))


def _prompt_source(name: str) -> str:
    prompt_lines(name)
    return name if name in _prompt_lists() else str(Path(name).resolve())  # notebooks run in a folder of their own


def _path_text(text: str) -> str:
    """A text that some system may know a file by."""
    if len(text) > LONGEST_PATH or any(len(part.encode(errors="replace")) > LONGEST_NAME for part in Path(text).parts):
        raise InvalidInputError(f"{shortened(text)} is too long for the name of a file or folder; name another")
    return text


def _folder_of_output(text: str) -> str:
    """A path that may be written to: full, or inside the workplace, and no file."""
    place = Path(os.path.normpath(workplace() / _path_text(text)))
    inside = workplace() in place.parents and not text.startswith("~")
    if not text.strip() or not text.isprintable() or not (Path(text).is_absolute() or inside):
        raise InvalidInputError(f"{text!r} leads out of {workplace()}; write a folder inside it, as 'build/mine', or a full path")
    if file := next((path for path in (place, *place.parents) if path.is_file()), None):
        raise InvalidInputError(f"{text!r} cannot be a folder: {file} is a file; name another")
    return text


def _size_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"size {text!r} is not written as height x width in pixels, for example '64x96'")
    parse_size(text)
    return text.strip()


def _rule_name(text: str) -> str:
    chosen = rule(text)
    if isinstance(chosen.parameter, float) and abs(chosen.parameter) > LARGEST_RULE_PARAMETER:
        raise InvalidInputError(f"scale rule {text!r}: its number may be at most {LARGEST_RULE_PARAMETER:g}")
    return chosen.name


def _method_name(text: str) -> str:
    from entropy_lib.baselines.methods import method  # diffusers is slow to import

    chosen = method(text)
    _rule_name(chosen.rule)
    return chosen.name


def _distinct(values: list) -> list:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise InvalidInputError(f"{repeated[0]!r} occurs twice; each may occur once")
    return values


def _known_extractor(name: str) -> str:
    from entropy_lib.metrics.extractors import known_extractor

    return known_extractor(name)


def _knows_text(name: str) -> str:
    if _known_extractor(name) != "mini-clip" and not name.startswith("open_clip:"):
        raise InvalidInputError(f"{name!r} knows no text; take 'mini-clip' or 'open_clip:NAME/TAG'")
    return name


Size = Annotated[str, BeforeValidator(_size_text)]
Sizes = Annotated[list[Size], Field(min_length=1), AfterValidator(_distinct)]
RuleName = Annotated[str, AfterValidator(_rule_name)]
MethodName = Annotated[str, AfterValidator(_method_name)]
Methods = Annotated[list[MethodName], Field(min_length=1), AfterValidator(_distinct)]
Rules = Annotated[list[RuleName], Field(min_length=1), AfterValidator(_distinct)]
Prompts = Annotated[str, AfterValidator(_prompt_source)]
Source = Annotated[str, AfterValidator(_path_text)]  # a file, a folder or a name; "" for none
Folder = Annotated[str, AfterValidator(_folder_of_output)]
Tokens = Annotated[int, Field(ge=2, le=10**6)]
Count = Annotated[int, Field(gt=0, le=10**6)]
Clusters = Annotated[int, Field(ge=2, le=10**6)]  # prompts that an interval is made from
QueryRows = Annotated[int, Field(ge=0, le=10**6)]  # 0 takes all
Level = Annotated[float, Field(gt=0, lt=1)]
Tolerance = Annotated[float, Field(gt=0, le=10)]  # nats


class Parameters(BaseModel):
    """What every notebook needs."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    output: Folder

    def folder(self) -> Path:
        """Where the notebook writes its figures and tables (made if need be); whoever writes there claims it."""
        self.claim()
        return workplace() / self.output

    def claim(self, **facts: str) -> None:
        """Record in the folder of output by which parameters its files were made; what was recorded before is void."""
        path = workplace() / self.output / RECORD
        content = json.dumps({"parameters": self.model_dump()} | facts, indent=1, ensure_ascii=False)
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")


def claimed(folder: Path) -> dict[str, Any]:
    """What `Parameters.claim` recorded in a folder; {} where there is nothing that can be read."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Sampling(Parameters):
    """What every notebook that samples a model needs."""

    model: Annotated[str, AfterValidator(_known_model)]
    device: Annotated[str, AfterValidator(_device_name)]
    dtype: Annotated[str, _one_of("dtype", lambda: DTYPES)]
    prompts: Prompts
    prompt_count: Count
    steps: Annotated[int, Field(gt=0, le=1000)]  # as many as diffusion models are trained on
    guidance: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _fit_together(self) -> "Sampling":
        from entropy_lib.models.catalogue import CATALOGUE  # diffusers is slow to import

        for size in self.image_sizes() if self.model in CATALOGUE else []:
            check_size(*parse_size(size), CATALOGUE[self.model].size_multiple)
        if self.prompts != REFERENCE:
            self.prompt_list()
        return self

    def image_sizes(self) -> list[str]:
        """The sizes that are drawn, as far as the parameters name them."""
        return [*getattr(self, "sizes", []), *(getattr(self, name) for name in ("size", "small", "large") if hasattr(self, name))]

    def rule_names(self) -> list[str]:
        """The rules that are drawn under, as far as the parameters name them."""
        return [*getattr(self, "rules", []), *([self.rule] if hasattr(self, "rule") else [])]

    def prompt_list(self) -> list[str]:
        """The first `prompt_count` lines of the prompt list: a file of `data/prompts/`, or one of your own.

        Raises:
            InvalidInputError, UnknownNameError: as `first_prompts`.
        """
        return first_prompts(self.prompts, self.prompt_count)

    def seed_list(self) -> list[int]:
        """One seed a prompt, counting up from `seed`."""
        return [self.seed + index for index in range(self.prompt_count)]

    def sampling(self) -> dict[str, Any]:
        """What `generate` and `entropy_by_size` need: prompts, seeds, steps, guidance."""
        return {"prompts": self.prompt_list(), "seeds": self.seed_list(), "steps": self.steps, "guidance": self.guidance}

    def provenance(self, pipe: "DiffusionPipeline") -> str:
        """One line to print under every table: model and revision, sampler, samples, seeds, precision."""
        from entropy_lib.models.catalogue import version  # diffusers is slow to import

        seeds, checker = self.seed_list(), " · no safety checker" if hasattr(pipe, "safety_checker") else ""
        return (
            f"model {self.model}{version(self.model)} · {type(pipe.scheduler).__name__}, {self.steps} steps · guidance "
            f"{self.guidance:g} · {self.prompt_count} prompts of {Path(self.prompts).name!r} · seeds {seeds[0]} to {seeds[-1]} · "
            f"{str(pipe.dtype).removeprefix('torch.')}{checker}"
        )


class Quickstart(Sampling):
    """00_quickstart."""

    sizes: Sizes
    rule: RuleName


class Theory(Parameters):
    """01_theory."""

    tokens: Annotated[list[Tokens], Field(min_length=1), AfterValidator(_distinct)]
    shares: Annotated[list[Annotated[float, Field(gt=0, le=3)]], Field(min_length=1), AfterValidator(_distinct)]  # of b_c
    rows: Annotated[int, Field(ge=2, le=10**6)]  # simulated at each point
    training_tokens: Tokens
    logit_std: Annotated[float, Field(gt=0, le=10)]
    rules: Rules
    tolerance: Tolerance


class GaussianCheck(Sampling):
    """02_gaussian_check."""

    prompt_count: Clusters
    sizes: Sizes
    rules: Rules
    rows: QueryRows
    tolerance: Tolerance
    level: Level


class EntropyVsTokens(Sampling):
    """03_entropy_vs_tokens."""

    prompt_count: Clusters
    sizes: Annotated[Sizes, Field(min_length=2)]
    rules: Rules
    rows: QueryRows
    level: Level


class EntropyPerLayer(Sampling):
    """04_entropy_per_layer. Rules are compared with "unscaled", sizes with the native one."""

    prompt_count: Clusters
    small: Size
    large: Size
    rules: Annotated[Rules, Field(min_length=2)]
    rows: QueryRows
    level: Level

    @model_validator(mode="after")
    def _comparable(self) -> "EntropyPerLayer":
        from entropy_lib.models.catalogue import CATALOGUE  # diffusers is slow to import

        if "unscaled" not in self.rules:
            raise InvalidInputError(f"rules are {self.rules}; 'unscaled' must be among them, for the others are compared with it")
        native = [size_name(*CATALOGUE[self.model].native_size)] if self.model in CATALOGUE else []
        _distinct([*native, self.small, self.large])
        return self


class Sweep(Sampling):
    """What notebooks need that judge drawn images by the hundred.

    `prompts` may be "reference": the captions of half of the reference's pictures.
    """

    prompts: Annotated[str, AfterValidator(lambda name: name if name == REFERENCE else _prompt_source(name))]
    prompt_count: Annotated[int, Field(ge=3, le=10**6)]  # the jackknife leaves out one block and needs two images more
    seeds_per_prompt: Annotated[int, Field(gt=0, le=10**4)]
    sizes: Sizes
    rules: Methods  # scale rules, or any other way to draw
    reference: Source  # see `entropy_lib.sweep.references`; "" for none
    batch: Annotated[int, Field(gt=0, le=4096)]  # images drawn together
    store: Folder  # of the drawn images
    level: Level

    def prompt_list(self) -> list[str]:
        """As for the other notebooks; from the reference where `prompts` says so.

        Raises:
            ValueError: when there are fewer.
        """
        if self.prompts != REFERENCE:
            return super().prompt_list()
        from entropy_lib.sweep.references import caption_list  # decodes pictures

        return caption_list(self.reference, self.prompt_count)

    def parts(self) -> "list[Sweep]":
        """The comparisons that it is made of; one, where every size is drawn in the same ways."""
        return [self]

    def seed_list(self) -> list[int]:
        """The seeds of each prompt, counting up from `seed`."""
        return [self.seed + index for index in range(self.seeds_per_prompt)]

    def folder_of_store(self) -> Path:
        """Where the drawn images are."""
        return workplace() / self.store


class MetricTables(Sweep):
    """06_metric_tables."""

    extractor: Annotated[str, AfterValidator(_known_extractor)]  # of the distances
    score_extractor: Annotated[str, AfterValidator(_knows_text)]  # of the CLIP score
    view: Annotated[str, _one_of("view", _views)]


class CostAndBaselines(MetricTables):
    """07_cost_and_baselines."""

    rules_below: Methods  # at sizes with a side below the native one, where no window of native size fits
    measured: Sizes  # of `sizes`: where time and memory are measured, each method in a fresh process
    processes: Annotated[int, Field(ge=1, le=9)]  # of which the least memory counts, on a CPU

    @model_validator(mode="after")
    def _has_the_rule_and_sizes_on_both_sides(self) -> "CostAndBaselines":
        for name in ("rules", "rules_below"):
            if (given := getattr(self, name))[0] != "unscaled" or "paper" not in given:
                raise InvalidInputError(f"{name} are {given}; they must begin with 'unscaled' and have 'paper', to compare with")
        if beyond := [size for size in self.measured if size not in self.sizes]:
            raise InvalidInputError(f"measured has {beyond[0]}, which is not among the sizes {self.sizes}; add it there")
        if self.native() not in self.sizes:
            raise InvalidInputError(f"sizes are {self.sizes}; the native size {self.native()} must be among them")
        return self

    def native(self) -> str:
        """The label of the model's native size."""
        from entropy_lib.models.outline import outline_size  # diffusers is slow to import

        return size_name(*outline_size(self.model))

    def parts(self) -> list[Sweep]:
        """One of the sizes that hold a window of native size, one of the others where there are any; both with the native size."""
        native, found = parse_size(self.native()), []
        fits = [size for size in self.sizes if all(a >= b for a, b in zip(parse_size(size), native, strict=True))]
        below = [size for size in self.sizes if size not in fits]
        shared = self.model_dump(include=set(MetricTables.model_fields))
        for sizes, rules in ((fits, self.rules), ([*below, self.native()], self.rules_below)):
            if len(sizes) > 1 or sizes is fits:
                found.append(MetricTables(**shared | {"sizes": sizes, "rules": rules}))
        return found


class UserStudy(Sweep):
    """08_user_study."""

    protocol: Annotated[str, _one_of("protocol", _protocols)]
    pairs: Annotated[int, Field(ge=1, le=1000)]
    catch_trials: Annotated[int, Field(ge=0, le=100)]
    raters: Annotated[int, Field(ge=2, le=1000)]  # of the simulated panel
    answers: Source  # folder of the files that raters saved; "" for a simulated panel
    score_extractor: Annotated[str, AfterValidator(_knows_text)]  # of the CLIP score
    view: Annotated[str, _one_of("view", _views)]

    @model_validator(mode="after")
    def _has_pairs(self) -> "UserStudy":
        from entropy_lib.models.catalogue import CATALOGUE  # diffusers is slow to import

        if len(self.rules) < 2:
            raise InvalidInputError(f"rules are {self.rules}; raters compare two at least")
        native = size_name(*CATALOGUE[self.model].native_size) if self.model in CATALOGUE else ""
        away = [size for size in self.sizes if size != native]
        if not away:
            raise InvalidInputError(f"sizes are {self.sizes}; at the native size the rules change nothing, so name another")
        if self.pairs > (there := len(away) * self.prompt_count):
            raise InvalidInputError(f"pairs is {self.pairs}; {self.prompt_count} prompts at {', '.join(away)} make {there}")
        if self.answers and not (workplace() / self.answers).exists():
            raise InvalidInputError(f'answers is {self.answers!r}, which is not there; "" simulates a panel of raters')
        return self


class LayoutMetrics(Sweep):
    """09_layout_metrics."""

    controls: Annotated[
        list[Annotated[str, AfterValidator(_known_model)]], AfterValidator(_distinct)
    ]  # drawn and judged like `model`


class Causes(Sweep):
    """10_causes."""

    prompt_count: Annotated[int, Field(ge=6, le=10**6)]  # three to choose by, three held out
    measured_prompts: Clusters
    calibration: Source  # a file of `calibrate`, for rules that take their factors from one; "" for the shipped one

    def own_calibration(self) -> "Calibration | None":
        """The calibration of the file; None where the shipped one will do.

        Raises:
            MissingFileError, InvalidInputError: as `Calibration.read`.
        """
        from entropy_lib.scaling.calibration import Calibration  # torch is slow to import

        return Calibration.read(workplace() / self.calibration) if self.calibration else None

    @model_validator(mode="after")
    def _has_a_zero(self) -> "Causes":
        from entropy_lib.models.catalogue import CATALOGUE  # diffusers is slow to import

        if self.rules[0] != "unscaled" or "paper" not in self.rules:
            raise InvalidInputError(f"rules are {self.rules}; they must begin with 'unscaled', the dose of zero, and have 'paper'")
        native = size_name(*CATALOGUE[self.model].native_size) if self.model in CATALOGUE else ""
        if native and (native not in self.sizes or len(self.sizes) < 2):
            raise InvalidInputError(f"sizes are {self.sizes}; they must have the native size {native}, of no damage, and another")
        self.own_calibration()
        if self.measured_prompts > self.prompt_count:
            raise InvalidInputError(f"measured_prompts is {self.measured_prompts}, of {self.prompt_count} prompts; take fewer")
        return self


class ImageGrids(Sampling):
    """05_image_grids."""

    sizes: Sizes
    rules: Rules


CLASSES: dict[str, type[Parameters]] = {
    "00_quickstart": Quickstart,
    "01_theory": Theory,
    "02_gaussian_check": GaussianCheck,
    "03_entropy_vs_tokens": EntropyVsTokens,
    "04_entropy_per_layer": EntropyPerLayer,
    "05_image_grids": ImageGrids,
    "06_metric_tables": MetricTables,
    "07_cost_and_baselines": CostAndBaselines,
    "08_user_study": UserStudy,
    "09_layout_metrics": LayoutMetrics,
    "10_causes": Causes,
}
KNOWN_TYPES: dict[str, Any] = {  # of parameters by name; where notebooks differ the later, less strict one
    name: known.rebuild_annotation()
    for parameters in (
        LayoutMetrics,
        UserStudy,
        CostAndBaselines,
        MetricTables,
        EntropyVsTokens,
        EntropyPerLayer,
        Theory,
        GaussianCheck,
        Quickstart,
        Sampling,
    )
    for name, known in parameters.model_fields.items()
} | {"size": Size}


class ParameterError(InvalidInputError):
    """Parameters of a notebook that cannot be used; the message lists every problem."""


class BrokenNotebookError(ParameterError):
    """The file of a notebook from which no run can be made."""


class _Notebooks(Mapping[str, type[Parameters]]):
    """The class of every notebook: of `CLASSES`, or made from the parameters cell of a `NN_name.ipynb` in the folder."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return sorted({*CLASSES, *(path.stem for path in FOLDER.glob("[0-9][0-9]_*.ipynb"))})

    def __getitem__(self, notebook: str) -> type[Parameters]:
        if notebook in CLASSES or notebook not in self._names():
            return CLASSES[notebook]
        values = written_values(notebook)
        types = {name: (KNOWN_TYPES.get(name) or implied_type(value), ...) for name, value in values.items()}
        return create_model(notebook, __base__=Sampling if "model" in types else Parameters, **types)


NOTEBOOKS = _Notebooks()


def parameter_names(notebook: str) -> Collection[str]:
    """The names of a notebook's parameters; none where it is unknown or broken."""
    try:
        return NOTEBOOKS[notebook].model_fields
    except (KeyError, BrokenNotebookError):
        return ()


def written_values(notebook: str) -> dict[str, Any]:
    """What a notebook without a class writes in its parameters cell: its values where a profile gives no others.

    Raises:
        BrokenNotebookError: for a cell that cannot be used.
    """
    if notebook in CLASSES:
        return {}
    try:
        values = cell_values(FOLDER / f"{notebook}.ipynb")
    except InvalidInputError as error:
        raise BrokenNotebookError(f"{notebook}: {error}") from None
    if taken := [name for name in values if name.startswith("_") or hasattr(Sampling, name)]:
        raise BrokenNotebookError(f"{notebook}: {taken[0]!r} cannot be the name of a parameter; take another")
    return values


def check_parameters(notebook: str, values: dict[str, Any]) -> Parameters:
    """Check the parameters of a notebook.

    Args:
        notebook: its file name without ending.
        values: the parameters. Inside a notebook, `globals()` will do: only names of parameters are looked at, and what papermill
            put in.

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
    known = {name: values[name] for name in model.model_fields if name in values}
    try:
        return model(**known)
    except ValidationError as error:
        lines = [in_words(problem) for problem in error.errors()]
        raise ParameterError(f"{notebook}: {'; '.join(lines)}") from None


def drawn_images(checked: Parameters) -> int:
    """Images that a notebook draws: prompts x sizes x rules; the rules coincide at native size, which is not counted off."""
    if isinstance(checked, Sweep) and len(parts := checked.parts()) > 1:
        return sum(map(drawn_images, parts))
    if not isinstance(checked, Sampling):
        return 0
    sizes = len(checked.image_sizes()) + isinstance(checked, EntropyPerLayer)  # which draws the native size too
    rules = 2 if isinstance(checked, Quickstart) else len(checked.rule_names()) or 1
    models = 1 + len(getattr(checked, "controls", []))
    return checked.prompt_count * getattr(checked, "seeds_per_prompt", 1) * sizes * rules * models
