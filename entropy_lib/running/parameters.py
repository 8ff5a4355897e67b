"""The parameters of the notebooks: strict, typed, and checked before any work starts.

papermill only warns about a misspelt parameter and passes the string "30" where 30 was meant. Here each notebook has a
class that knows its parameters; `running.profiles` reads their values from files.
To add a notebook, write its class, give it a line in `NOTEBOOKS`, and a section in every profile.

Example:
    >>> check_parameters("01_theory", {})
    Traceback (most recent call last):
    ...
    entropy_lib.running.parameters.ParameterError: 01_theory: parameter 'seed' is missing ...
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.files import PROMPTS, ROOT
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import parse_size

REFERENCE = "reference"  # in place of a prompt list: the captions of real pictures


def _known_model(name: str) -> str:
    from entropy_lib.models.catalogue import entry, local_folder  # diffusers is slow to import

    if local_folder(name) is None and "/" not in name:  # a repository of the Hub is asked for when it is loaded
        entry(name)
    return name


def _prompt_file(name: str) -> str:
    allowed = sorted(path.stem for path in PROMPTS.glob("*.txt"))
    if name not in allowed and not Path(name).is_file():
        raise UnknownNameError("prompt list (or text file)", name, allowed)
    return name if name in allowed else str(Path(name).resolve())  # notebooks run in a folder of their own


def _size_text(text: Any) -> str:
    parse_size(text)
    return str(text).strip()


def _known_extractor(name: str) -> str:
    from entropy_lib.metrics.extractors import known_extractor

    return known_extractor(name)


def _known_view(name: str) -> str:
    from entropy_lib.metrics.views import VIEWS

    if name not in VIEWS:
        raise UnknownNameError("view", name, VIEWS)
    return name


Size = Annotated[str, BeforeValidator(_size_text)]
RuleName = Annotated[str, AfterValidator(lambda text: rule(text).name)]
Positive = Annotated[int, Field(gt=0)]


class Parameters(BaseModel):
    """What every notebook needs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int
    output: str

    def folder(self) -> Path:
        """Where the notebook writes its figures and tables (made if need be)."""
        path = ROOT / self.output
        path.mkdir(parents=True, exist_ok=True)
        return path


class Sampling(Parameters):
    """What every notebook that samples a model needs."""

    model: Annotated[str, AfterValidator(_known_model)]
    device: str
    dtype: str
    prompts: Annotated[str, AfterValidator(_prompt_file)]
    prompt_count: Positive
    steps: Positive
    guidance: Annotated[float, Field(ge=0)]

    def prompt_list(self) -> list[str]:
        """The first `prompt_count` lines of the prompt list: a file of `data/prompts/`, or one of your own.

        Raises:
            ValueError: when the list is shorter.
        """
        shipped = PROMPTS / f"{self.prompts}.txt"
        text = (shipped if shipped.exists() else Path(self.prompts)).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        if len(lines) < self.prompt_count:
            raise ValueError(f"prompt_count is {self.prompt_count}, but the prompt list {self.prompts!r} has {len(lines)}")
        return lines[: self.prompt_count]

    def seed_list(self) -> list[int]:
        """One seed a prompt, counting up from `seed`."""
        return [self.seed + index for index in range(self.prompt_count)]

    def sampling(self) -> dict[str, Any]:
        """What `generate` and `entropy_by_size` need: prompts, seeds, steps, guidance."""
        return {"prompts": self.prompt_list(), "seeds": self.seed_list(), "steps": self.steps, "guidance": self.guidance}

    def provenance(self, pipe) -> str:
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

    sizes: Annotated[list[Size], Field(min_length=1)]
    rule: RuleName


class Theory(Parameters):
    """01_theory."""

    tokens: Annotated[list[Annotated[int, Field(ge=2, le=10**6)]], Field(min_length=1)]
    shares: Annotated[list[Annotated[float, Field(gt=0, le=3)]], Field(min_length=1)]  # of the freezing point
    rows: Annotated[int, Field(ge=2)]  # simulated at each point
    training_tokens: Annotated[int, Field(ge=2, le=10**6)]
    logit_std: Annotated[float, Field(gt=0, le=10)]
    rules: Annotated[list[RuleName], Field(min_length=1)]
    tolerance: Annotated[float, Field(gt=0)]  # nats


class GaussianCheck(Sampling):
    """02_gaussian_check."""

    sizes: Annotated[list[Size], Field(min_length=1)]
    rules: Annotated[list[RuleName], Field(min_length=1)]
    rows: Annotated[int, Field(ge=0)]  # 0 takes all
    tolerance: Annotated[float, Field(gt=0)]  # nats
    level: Annotated[float, Field(gt=0, lt=1)]


class EntropyVsTokens(Sampling):
    """03_entropy_vs_tokens."""

    sizes: Annotated[list[Size], Field(min_length=2)]
    rules: Annotated[list[RuleName], Field(min_length=1)]
    rows: Annotated[int, Field(ge=0)]  # 0 takes all
    level: Annotated[float, Field(gt=0, lt=1)]


class EntropyPerLayer(Sampling):
    """04_entropy_per_layer."""

    small: Size
    large: Size
    rules: Annotated[list[RuleName], Field(min_length=1)]
    rows: Annotated[int, Field(ge=0)]
    level: Annotated[float, Field(gt=0, lt=1)]


class MetricTables(Sampling):
    """06_metric_tables. `prompts` may be "reference": the captions of half of the reference's pictures."""

    prompts: Annotated[str, AfterValidator(lambda name: name if name == REFERENCE else _prompt_file(name))]
    seeds_per_prompt: Positive
    sizes: Annotated[list[Size], Field(min_length=1)]
    rules: Annotated[list[RuleName], Field(min_length=1)]
    reference: str  # see `entropy_lib.sweep.references`; "" for none
    extractor: Annotated[str, AfterValidator(_known_extractor)]  # of the distances
    score_extractor: Annotated[str, AfterValidator(_known_extractor)]  # of the CLIP score
    view: Annotated[str, AfterValidator(_known_view)]
    batch: Positive  # images drawn together
    store: str  # folder of the drawn images
    level: Annotated[float, Field(gt=0, lt=1)]

    def prompt_list(self) -> list[str]:
        """As for the other notebooks; from the reference where `prompts` says so.

        Raises:
            ValueError: when there are fewer.
        """
        if self.prompts != REFERENCE:
            return super().prompt_list()
        from entropy_lib.sweep.references import caption_list  # decodes pictures

        return caption_list(self.reference, self.prompt_count)

    def seed_list(self) -> list[int]:
        """The seeds of each prompt, counting up from `seed`."""
        return [self.seed + index for index in range(self.seeds_per_prompt)]

    def folder_of_store(self) -> Path:
        """Where the drawn images are."""
        return ROOT / self.store


class ImageGrids(Sampling):
    """05_image_grids."""

    sizes: Annotated[list[Size], Field(min_length=1)]
    rules: Annotated[list[RuleName], Field(min_length=1)]


NOTEBOOKS: dict[str, type[Parameters]] = {
    "00_quickstart": Quickstart,
    "01_theory": Theory,
    "02_gaussian_check": GaussianCheck,
    "03_entropy_vs_tokens": EntropyVsTokens,
    "04_entropy_per_layer": EntropyPerLayer,
    "05_image_grids": ImageGrids,
    "06_metric_tables": MetricTables,
}


class ParameterError(InvalidInputError):
    """Parameters of a notebook that cannot be used; the message lists every problem."""


def check_parameters(notebook: str, values: dict[str, Any]) -> Parameters:
    """Check the parameters of a notebook.

    Args:
        notebook: its file name without ending.
        values: the parameters. Inside a notebook, `globals()` will do: only names of parameters are looked at.

    Raises:
        UnknownNameError: for an unknown notebook.
        ParameterError: for a missing or unusable value.
    """
    if notebook not in NOTEBOOKS:
        raise UnknownNameError("notebook", notebook, NOTEBOOKS)
    model = NOTEBOOKS[notebook]
    known = {name: values[name] for name in model.model_fields if name in values}
    try:
        return model(**known)
    except ValidationError as error:
        lines = [_explained(problem) for problem in error.errors()]
        raise ParameterError(f"{notebook}: {'; '.join(lines)}") from None


def drawn_images(checked: Parameters) -> int:
    """Images that a notebook draws: prompts x sizes x rules; the rules coincide at native size, which is not counted off."""
    if not isinstance(checked, Sampling):
        return 0
    sizes = getattr(checked, "sizes", [0, 0, 0])  # 04 draws a small, a large and the native size
    seeds = getattr(checked, "seeds_per_prompt", 1)
    return checked.prompt_count * seeds * len(sizes) * len(getattr(checked, "rules", [0, 0]))


def _explained(problem: dict) -> str:
    """One problem in words: the parameter, what was given, what is allowed."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"parameter {name!r} is missing (misspelt in the parameters cell?)"
    cause = problem.get("ctx", {}).get("error")
    return (
        f"{name}: {cause}" if cause else f"{name}: {problem['msg']}, got {problem['input']!r} ({type(problem['input']).__name__})"
    )
