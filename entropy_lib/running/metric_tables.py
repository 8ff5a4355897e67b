"""From the parameters of notebook 06 to a plan and a comparison; the notebook and the command line both come this way."""

from entropy_lib.running.parameters import MetricTables
from entropy_lib.sweep.comparison import Comparison, make_plan, open_comparison
from entropy_lib.sweep.plan import Plan


def plan_of(p: MetricTables) -> Plan:
    """What is to be drawn. Nothing is loaded but captions.

    Raises:
        ValueError, WeightsError: as `make_plan`; ValueError also for too few prompts.
    """
    drawn = {"steps": p.steps, "guidance": p.guidance, "dtype": p.dtype, "device": p.device}
    return make_plan(p.model, p.prompt_list(), p.seed_list(), p.sizes, p.rules, reference=p.reference, **drawn)


def comparison_of(p: MetricTables, plan: Plan) -> Comparison:
    """What is judged by what.

    Raises:
        WeightsError, MissingFileError, InvalidInputError: as `open_comparison`.
    """
    seen = {"extractor": p.extractor, "score_extractor": p.score_extractor, "view": p.view, "device": p.device}
    return open_comparison(plan, p.folder_of_store(), reference=p.reference, level=p.level, **seen)
