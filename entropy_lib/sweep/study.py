"""A study from the parameters of notebook 06: the same settings for the notebook and for the command line."""

from entropy_lib.metrics.features import FeatureCache
from entropy_lib.profiles import MetricTables
from entropy_lib.references import opened
from entropy_lib.sizes import check_size, parse_size
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.reduce import Study
from entropy_lib.sweep.store import Store

FEATURES = "features"  # folder of the cache, beside the images


def planned(p: MetricTables) -> Plan:
    """The plan of a study, from its parameters. Nothing is loaded but captions.

    Raises:
        ValueError: for sizes that the model cannot draw, or too few prompts.
        WeightsError: when it is not known which state of the weights is meant.
    """
    from entropy_lib.models import CATALOGUE
    from entropy_lib.sweep.sample import settings

    sizes = [parse_size(size) for size in p.sizes]
    for size in sizes if p.model in CATALOGUE else []:
        check_size(*size, CATALOGUE[p.model].size_multiple)
    return Plan.of(settings(p.model, p.steps, p.guidance, p.dtype, p.device), p.prompt_list(), p.seed_list(), sizes, p.rules)


def study(p: MetricTables, plan: Plan) -> Study:
    """What is judged by what: the images of the store, the extractor, the reference.

    Raises:
        WeightsError: when the extractor's weights are not there.
        FileNotFoundError, ValueError: for a reference that cannot be opened.
    """
    from entropy_lib.metrics.extractors import extractor
    from entropy_lib.models import resolve_device

    def cache(name: str) -> FeatureCache:
        return FeatureCache(p.folder_of_store() / FEATURES, extractor(name, str(resolve_device(p.device))), p.view)

    features = cache(p.extractor)
    scores = features if p.score_extractor == p.extractor else cache(p.score_extractor)
    if scores.extractor.encode_text is None:
        raise ValueError(f"score_extractor is {p.score_extractor!r}, which knows no text; take 'mini-clip' or 'open_clip:NAME/TAG'")
    return Study(plan, Store(p.folder_of_store()), features, scores, opened(p.reference), p.level)
