"""What a number would answer in a rater's place: labelled as such, and never averaged with people."""

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError
from entropy_lib.study.answers import COLUMNS
from entropy_lib.study.design import Study


def automatic_rater(
    study: Study, outcomes: pd.DataFrame, metric: str, higher_is_better: bool = True
) -> pd.DataFrame:
    """The pairs of a study as a metric would choose: the image with the better number, no difference where
    they are equal.

    Args:
        study: whose pairs are judged; catch trials are left out.
        outcomes: of every image, from `sweep.image_outcomes`: columns `size, rule, prompt, seed, metric,
            value`. Of several seeds the first counts, as in the study.
        metric: a name of its column `metric`; the rater is named after it.
        higher_is_better: which way the metric goes.

    Returns:
        answers as of `check_answers`, choices; pairs without a number are left out.
    """
    own = outcomes[outcomes.metric == metric].drop_duplicates(["size", "method", "prompt"])
    if own.empty:
        raise InvalidInputError(
            f"there are no outcomes of {metric!r}; there are {', '.join(sorted(set(outcomes.metric)))}"
        )
    values = own.set_index(["size", "prompt", "method"])["value"]
    rows = []
    for order, pair in enumerate((pair for pair in study.pairs if not pair.catch), start=1):
        first, second = sorted(pair.methods, key=study.methods.index)
        try:
            before, after = (values[pair.size, pair.prompt, method] for method in (first, second))
        except KeyError:
            raise InvalidInputError(f"the outcomes lack an image of {pair.prompt!r} at {pair.size}") from None
        if not np.isnan([before, after]).any():
            better = np.sign(after - before) * (1 if higher_is_better else -1)
            shown = (pair.name, pair.prompt, pair.size, first, second, pair.methods[0])
            rows.append((metric, *shown, order, np.nan, 0.5 + 0.5 * better, np.nan, np.nan))
    return pd.DataFrame(rows, columns=COLUMNS)
