"""From the parameters of notebook 08 and what a sweep has drawn to a study; notebook and command line both
come this way.
"""

from entropy_lib.cli.parameters import Sweep
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import workplace
from entropy_lib.study.design import Candidate, Study, make_study
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.store import Store


def check_pairs(p: Sweep) -> None:
    """Whether so many pairs can be made of two methods or more, away from the native size.

    Raises:
        InvalidInputError: naming the parameter that is in the way, or answers that are not there.
    """
    away = [size for size in p.sizes if size != p.native()]
    if len(p.methods) < 2:
        raise InvalidInputError(f"methods are {p.methods}; raters compare two at least")
    if not away:
        raise InvalidInputError(
            f"sizes are {p.sizes}; at the native size the methods change nothing, so name another"
        )
    if p.pairs > (there := len(away) * p.prompt_count):
        raise InvalidInputError(
            f"pairs is {p.pairs}; {p.prompt_count} prompts at {', '.join(away)} make {there}"
        )
    if p.answers and not (workplace() / p.answers).exists():
        raise InvalidInputError(
            f'answers is {p.answers!r}, which is not there; "" simulates a panel of raters'
        )


def study_of(p: Sweep, plan: Plan, store: Store) -> Study:
    """The study of the parameters; the same one whenever the same images are there.

    Of several seeds the first is taken. At native size the rules of the paper change nothing, so nobody is
    asked to compare there, and its images are for catch trials.

    Raises:
        InvalidInputError: where something has not been drawn, or as `make_study`.
    """
    done, found = store.committed(), {}
    for (size, rule), units in plan.cells.items():
        for unit in units:
            if unit.key not in done:
                raise InvalidInputError(
                    f"{unit.prompt!r} at {size} by {rule!r} has not been drawn; draw it with: entropy_lib sweep sample"
                )
            found.setdefault((size, unit.prompt), {}).setdefault(rule, unit)
    candidates = [
        Candidate(prompt, size, {rule: store.read(unit) for rule, unit in units.items()})
        for (size, prompt), units in found.items()
    ]
    away, native = (
        [each for each in candidates if (each.size == plan.native) == at_native]
        for at_native in (False, True)
    )
    asked = {"pairs": p.pairs, "catch_trials": p.catch_trials, "protocol": p.protocol, "seed": p.seed}
    return make_study(away, catch_candidates=native, provenance=plan.provenance, **asked)
