"""From the parameters of notebook 08 and the images of a sweep to a study.

Notebook and command line both come this way.
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
    for (size, method), units in plan.cells.items():
        for unit in units:
            if unit.key not in done:
                missing = f"there is no image of {unit.prompt!r} at {size} by {method!r}"
                raise InvalidInputError(f"{missing}; generate it with: entropy_lib sweep sample")
            found.setdefault((size, unit.prompt), {}).setdefault(method, unit)
    away, native = [], []
    for (size, prompt), units in found.items():
        images = {method: store.read(unit) for method, unit in units.items()}
        (native if size == plan.native else away).append(Candidate(prompt, size, images))
    asked = {"pairs": p.pairs, "catch_trials": p.catch_trials, "protocol": p.protocol, "seed": p.seed}
    return make_study(away, catch_candidates=native, provenance=plan.provenance, **asked)
