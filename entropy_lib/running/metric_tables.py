"""From the parameters of notebooks 06 to 10 to a plan and a comparison; notebooks and the command line both come this way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from entropy_lib.baselines.methods import method
from entropy_lib.metrics.catalogue import FINDINGS, METRICS, PictureScore
from entropy_lib.models.outline import outline, stored_lengths
from entropy_lib.running.parameters import Causes, MetricTables, Sweep
from entropy_lib.scaling.calibration import shipped_calibration
from entropy_lib.scaling.rules import rule
from entropy_lib.sweep.comparison import Comparison, make_plan, open_comparison
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.store import Store

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import

    from entropy_lib.scaling.calibration import Calibration

IN_TABLES = [name for name in METRICS if name not in ("Misnamed", "Illegible", "Covered", "Exact")]  # those are in notebook 09
ABOUT_LAYOUT = [name for name, one in METRICS.items() if isinstance(one, PictureScore) or getattr(one, "features", "") == FINDINGS]


def plan_of(p: Sweep, model: str | None = None) -> Plan:
    """What is to be drawn, by the model of the parameters or another. Nothing is loaded but captions, and nothing written.

    Raises:
        ValueError, WeightsError: as `make_plan`; ValueError also for too few prompts, and for a calibration of another model.
    """
    own, model = _own_calibration(p), model or p.model
    drawn = {"steps": p.steps, "guidance": p.guidance, "dtype": p.dtype, "device": p.device}
    drawn["calibration"] = own.digest if own else ""
    plan = make_plan(model, p.prompt_list(), p.seed_list(), p.sizes, p.rules, reference=p.reference, **drawn)
    rules = [each for each in (rule(method(name).rule) for name in p.rules) if each.calibrated]
    if own or rules:
        known = own or shipped_calibration(lambda one: one.fits(stored_lengths(model, one.layers)), rules[0].name)
        known.check_planned(rules, outline(model), stored_lengths(model, known.layers))
    return plan


def keep_calibration(p: Sweep) -> None:
    """Let the store have the calibration of the parameters, before anything is drawn by it.

    Raises:
        NotWrittenError: when the disk cannot take it.
    """
    if own := _own_calibration(p):
        Store(p.folder_of_store()).keep_calibration(own)


def _own_calibration(p: Sweep) -> "Calibration | None":
    return p.own_calibration() if isinstance(p, Causes) else None


def pipe_of(p: Causes) -> "DiffusionPipeline":
    """The model of the parameters, whose rules take their factors from the calibration of the parameters.

    Raises:
        WeightsError: as `load`.
        InvalidInputError: if the calibration is of other weights.
    """
    from entropy_lib.models.catalogue import load  # diffusers is slow to import
    from entropy_lib.models.layers import denoiser
    from entropy_lib.scaling.calibration import use_calibration

    pipe = load(p.model, device=p.device, dtype=p.dtype)
    use_calibration(denoiser(pipe), p.own_calibration())
    return pipe


def comparison_of(p: Sweep, plan: Plan, metrics: Sequence[str] | None = None) -> Comparison:
    """What is judged by what; by metrics about the layout only, where the notebook names no extractor.

    Raises:
        WeightsError, MissingFileError, InvalidInputError: as `open_comparison`.
    """
    keep_calibration(p)
    seen = {"reference": p.reference, "level": p.level, "device": p.device}
    seen |= {name: getattr(p, name) for name in ("extractor", "score_extractor", "view") if hasattr(p, name)}
    chosen = metrics or (IN_TABLES if isinstance(p, MetricTables) else ABOUT_LAYOUT)
    return open_comparison(plan, p.folder_of_store(), metrics=chosen, **seen)
