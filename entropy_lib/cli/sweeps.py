"""From the parameters of notebooks 06 to 11 to a plan, a comparison and a study, if they can be had here.

Notebooks and the command line both come this way.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from entropy_lib.cli.parameters import Parameters, Sampling, Sweep
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import DATA, check_writable, workplace
from entropy_lib.metrics.extractors import extractor
from entropy_lib.metrics.registry import FINDINGS, METRICS, PictureScore
from entropy_lib.models.catalogue import CATALOGUE, check_device, check_weights, load
from entropy_lib.models.checksums import verify
from entropy_lib.models.layers import denoiser
from entropy_lib.models.outline import outline, outline_levels, stored_lengths
from entropy_lib.sampling.methods import method
from entropy_lib.scaling.calibration import Calibration, shipped_calibration, use_calibration
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import Size
from entropy_lib.study.design import Candidate, Study, make_study
from entropy_lib.sweep.comparison import Comparison, make_plan, open_comparison
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.references import open_reference
from entropy_lib.sweep.store import Store

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import

# those left out are in notebook 09
IN_TABLES = [name for name in METRICS if name not in ("Misnamed", "Illegible", "Covered", "Exact")]
ABOUT_LAYOUT = [
    name
    for name, one in METRICS.items()
    if isinstance(one, PictureScore) or getattr(one, "features", "") == FINDINGS
]


def check_ready(checked: Parameters) -> None:
    """Whether a notebook has what it needs: folders, device, weights, rules that have a factor, images.

    `parameters` looks at the values alone, so that a laptop can check what a cluster will run; this looks
    around.
    """
    check_writable("output", workplace() / checked.output)
    if isinstance(checked, Sampling):
        check_device(checked.device)
        for model in (checked.model, *getattr(checked, "controls", [])):
            check_weights(model)
        _check_rules(checked)
    if isinstance(checked, Sweep):
        check_writable("store", checked.folder_of_store())
        open_reference(checked.reference)
        for part in checked.parts():
            plan_of(part)
    for name in {getattr(checked, kind, "") for kind in ("extractor", "score_extractor")} - {""}:
        verify(DATA / name) if name == "mini-clip" else extractor(name)


def _check_rules(checked: Sampling) -> None:
    """Whether every rule has its levels, and a factor at every size, with tokens rounded up."""
    if (known := CATALOGUE.get(checked.model)) is None:
        return
    chosen = [rule(method(name).rule) for name in checked.rule_names()]
    for each in chosen:
        each.layers(outline_levels(checked.model))
    by_formula = [each for each in chosen if not each.calibrated]
    for size, trained, each in product(checked.image_sizes(), known.training_tokens, by_formula):
        sides = zip(Size.parse(size), known.native_size, strict=True)
        each.factor(math.prod(math.ceil(math.sqrt(trained) * one / own) for one, own in sides), trained)


def check_against_unscaled(p: Sweep) -> None:
    """Whether there are the unscaled model and the paper's rule to compare with, and the native size.

    Raises:
        InvalidInputError: for methods that do not begin with "unscaled" or lack "paper", and for a size that
            is missing.
    """
    for name in ("methods", "methods_below"):
        given = getattr(p, name, p.methods)
        if given[0] != "unscaled" or "paper" not in given:
            wanted = "they must begin with 'unscaled' and have 'paper', to compare with"
            raise InvalidInputError(f"{name} are {given}; {wanted}")
    if (native := p.native()) not in p.sizes:
        raise InvalidInputError(f"sizes are {p.sizes}; the native size {native} must be among them")
    if beyond := [size for size in getattr(p, "measured", []) if size not in p.sizes]:
        there = f"which is not among the sizes {p.sizes}; add it there"
        raise InvalidInputError(f"measured has {beyond[0]}, {there}")


def check_calibration(p: Sweep) -> None:
    """Whether the calibration can be read, and entropy be measured on so many prompts.

    Raises:
        MissingFileError, InvalidInputError: as `Calibration.read`; InvalidInputError for more prompts than
            there are.
    """
    own_calibration(p)
    if p.measured_prompts > p.prompt_count:
        few = f"of {p.prompt_count} prompts; take fewer"
        raise InvalidInputError(f"measured_prompts is {p.measured_prompts}, {few}")


def own_calibration(p: Sweep) -> Calibration | None:
    """The calibration of the parameters; None where the shipped one will do."""
    given = getattr(p, "calibration", "")
    return Calibration.read(workplace() / given) if given else None


def plan_of(p: Sweep, model: str | None = None) -> Plan:
    """What is to be generated, by this model or another. Only captions are loaded, and nothing written.

    Raises:
        ValueError, WeightsError: as `make_plan`; ValueError also for too few prompts, and for a calibration
            of another model.
    """
    own, model = own_calibration(p), model or p.model
    shared = {"steps": p.steps, "guidance": p.guidance, "dtype": p.dtype, "device": p.device}
    shared |= {"reference": p.reference, "calibration": own.digest if own else ""}
    plan = make_plan(model, p.prompt_list(), p.seed_list(), p.sizes, p.methods, **shared)
    rules = [each for each in (rule(method(name).rule) for name in p.methods) if each.calibrated]
    if own or rules:
        known = own or shipped_calibration(
            lambda one: one.fits(stored_lengths(model, one.layers)), rules[0].name
        )
        known.check_planned(rules, outline(model), stored_lengths(model, known.layers))
    return plan


def store_of(p: Sweep) -> Store:
    """Where the images of the parameters lie, with the calibration that some are generated by."""
    store = Store(p.folder_of_store())
    if own := own_calibration(p):
        store.keep_calibration(own)
    return store


def pipe_of(p: Sweep) -> "DiffusionPipeline":
    """The model of the parameters, whose rules take their factors from the calibration of the parameters.

    Raises:
        WeightsError: as `load`.
        InvalidInputError: if the calibration is of other weights.
    """
    pipe = load(p.model, device=p.device, dtype=p.dtype)
    use_calibration(denoiser(pipe), own_calibration(p))
    return pipe


def comparison_of(p: Sweep, plan: Plan, metrics: Sequence[str] | None = None) -> Comparison:
    """What is evaluated by what; by metrics about the layout only, where the notebook names no extractor.

    Raises:
        WeightsError, MissingFileError, InvalidInputError: as `open_comparison`.
    """
    seen = {"reference": p.reference, "level": p.level, "device": p.device}
    seen |= {name: getattr(p, name) for name in ("extractor", "score_extractor", "view") if hasattr(p, name)}
    chosen = metrics or (IN_TABLES if hasattr(p, "extractor") else ABOUT_LAYOUT)
    return open_comparison(plan, store_of(p).folder, metrics=chosen, **seen)


def check_pairs(p: Sweep) -> None:
    """Whether so many pairs can be made of two methods or more, away from the native size.

    Raises:
        InvalidInputError: naming the parameter that is in the way, or answers that are not there.
    """
    away = [size for size in p.sizes if size != p.native()]
    there = len(away) * p.prompt_count
    problems = {
        f"methods are {p.methods}; raters compare two at least": len(p.methods) < 2,
        f"sizes are {p.sizes}; at the native size the methods change nothing, so name another": not away,
        f"pairs is {p.pairs}; {p.prompt_count} prompts at {', '.join(away)} make {there}": p.pairs > there,
        f'answers is {p.answers!r}, which is not there; "" simulates a panel of raters': bool(
            p.answers and not (workplace() / p.answers).exists()
        ),
    }
    for said, wrong in problems.items():
        if wrong:
            raise InvalidInputError(said)


def study_of(p: Sweep, plan: Plan, store: Store) -> Study:
    """The study of the parameters; the same one whenever the same images are there.

    Of several seeds the first is taken. At native size the rules of the paper change nothing, so nobody is
    asked to compare there, and its images are for catch trials.

    Raises:
        InvalidInputError: where an image is not there, or as `make_study`.
    """
    done, found = store.committed(), {}
    for unit in plan.units:
        if unit.key not in done:
            missing = f"there is no image of {unit.prompt!r} at {unit.size} by {unit.method!r}"
            raise InvalidInputError(f"{missing}; generate it with: entropy_lib sweep sample")
        found.setdefault((unit.size, unit.prompt), {}).setdefault(unit.method, unit)
    away, native = [], []
    for (size, prompt), units in found.items():
        images = {name: store.read(unit) for name, unit in units.items()}
        (native if size == plan.native else away).append(Candidate(prompt, size, images))
    asked = {"pairs": p.pairs, "catch_trials": p.catch_trials, "protocol": p.protocol, "seed": p.seed}
    return make_study(away, catch_candidates=native, provenance=plan.provenance, **asked)
