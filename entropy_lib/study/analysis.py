"""What the answers of a study say, raters and prompts being samples both."""

import numpy as np
import pandas as pd

from entropy_lib.errors import InvalidInputError, extra
from entropy_lib.statistics.interval import Interval, check_level
from entropy_lib.statistics.two_way import Answers, two_way_mean
from entropy_lib.study.answers import SCORES

ALL = "all sizes"


def answer_table(answers: pd.DataFrame, column: str = "value") -> Answers:
    """Answers as `[rater, pair]`, NaN where there is none.

    Args:
        answers: of one pair of methods, from `check_answers`.
        column: what of them.
    """
    return answers.pivot(index="rater", columns="pair", values=column).to_numpy(dtype=float)


def as_choices(answers: pd.DataFrame) -> pd.DataFrame:
    """Ratings as the choices that they imply: of the image with the higher score. Choices stay as they are.

    Args:
        answers: from `check_answers`.
    """
    value = 0.5 + 0.5 * np.sign((answers.value - _nothing(answers)).astype(float))
    return answers.assign(value=value, first_score=np.nan, second_score=np.nan)


def compare(answers: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Every pair of methods, at every size and over all of them: how much better the second is.

    The interval is that of `two_way_mean`. Tests that take prompts alone as samples stand beside it, on each
    prompt's mean over the raters; they speak of these raters only.

    Args:
        answers: from `check_answers`.
        level: of the intervals.

    Returns:
        one row for each pair of methods and size: `size, first, second, raters, pairs, estimate, low, high,
        nothing, p_value, sign_p, wilcoxon_p`. `estimate` is the mean difference of scores, or the share of
        choices for the second, no difference counting half; `nothing` is where no difference lies, 0 or one
        half, and `p_value` against it.
    """
    check_level(level)
    _some(answers)
    nothing, rows = _nothing(answers), []
    for (first, second), part in answers.groupby(["first", "second"], sort=False):
        sizes = [(str(size), here) for size, here in part.groupby("size", sort=False)]
        for size, here in [*sizes, (ALL, part)] if len(sizes) > 1 else sizes:
            away = answer_table(here) - nothing
            found = two_way_mean(away, level, _bounds(answers))
            row = {"size": size, "first": first, "second": second, **_counts(away)}
            row |= {name: value + nothing for name, value in found.columns().items()}
            row |= {"nothing": nothing, "p_value": found.p_value, **_over_prompts(np.nanmean(away, axis=0))}
            rows.append(row)
    return pd.DataFrame(rows)


def mean_scores(answers: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The mean score of every method at every size, as in the paper's Table 3, with intervals.

    Args:
        answers: of the rating protocol, from `check_answers`.
        level: of the intervals, over raters and prompts.

    Returns:
        columns `size, method, estimate, low, high, raters, pairs`.
    """
    _some(answers)
    if answers.first_score.isna().all():
        raise InvalidInputError("the answers have no scores; the mean score belongs to the protocol 'rating'")
    columns, rows = ["rater", "pair", "size", "method", "score"], []
    halves = [
        answers.rename(columns={place: "method", f"{place}_score": "score"})[columns]
        for place in ("first", "second")
    ]
    for (size, method), part in pd.concat(halves).groupby(["size", "method"], sort=False):
        values = answer_table(part, "score")
        found = two_way_mean(values, level, (SCORES[0], SCORES[-1]))
        rows.append({"size": size, "method": method, **found.columns(), **_counts(values)})
    return pd.DataFrame(rows)


def side_bias(answers: pd.DataFrame, level: float = 0.95) -> Interval:
    """By how much answers favour what stands on the left, whatever it is: 0 where sides do not matter.

    Args:
        answers: from `check_answers`.
        level: of the interval, over raters and prompts.
    """
    _some(answers)
    away = answers.value - _nothing(answers)
    to_the_left = answers.assign(value=np.where(answers.left == answers.second, away, -away))
    return two_way_mean(answer_table(to_the_left), level, _bounds(answers))


def agreement(answers: pd.DataFrame, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
    """Krippendorff's alpha over raters: 1 where all agree, 0 where they agree as by chance.

    Interval distances for ratings' differences, ordinal ones for choices; bounds by resampling pairs
    (evalica). Near zero is normal where images hardly differ: read it beside the mean. NaN where all answers
    are the same, by which raters cannot be distinguished.

    Args:
        answers: from `check_answers`.
        level, resamples, seed: of the interval.
    """
    with extra("metrics"):
        import evalica

    _some(answers)
    values = answers.pivot(index="rater", columns="pair", values="value")
    if len(values) < 2:
        raise InvalidInputError("agreement needs two raters at least")
    if not np.nanmax(values) > np.nanmin(values):
        return Interval(np.nan, np.nan, np.nan, level)
    distance = "interval" if answers.first_score.notna().any() else "ordinal"
    options = {"n_resamples": resamples, "confidence_level": level, "random_state": seed}
    found = evalica.alpha_bootstrap(values, distance=distance, **options)
    return Interval(float(found.alpha), float(found.low), float(found.high), level)


def _counts(values: Answers) -> dict[str, int]:
    return {"raters": values.shape[0], "pairs": values.shape[1]}


def _over_prompts(away: np.ndarray) -> dict[str, float]:
    """The sign test and Wilcoxon's on each prompt's mean, NaN where no prompt differs."""
    from scipy import stats

    moved = away[away != 0]
    if not len(moved):
        return {"sign_p": np.nan, "wilcoxon_p": np.nan}
    sign = stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue
    return {"sign_p": float(sign), "wilcoxon_p": float(stats.wilcoxon(moved).pvalue)}


def _nothing(answers: pd.DataFrame) -> float:
    """The value of an answer that sees no difference: of a choice one half, of a difference of scores 0."""
    return 0.0 if answers.first_score.notna().any() else 0.5


def _bounds(answers: pd.DataFrame) -> tuple[float, float]:
    """How far an answer can be from seeing no difference, either way."""
    furthest = SCORES[-1] - SCORES[0] if answers.first_score.notna().any() else 0.5
    return -furthest, furthest


def _some(answers: pd.DataFrame) -> None:
    if answers.empty:
        raise InvalidInputError("no answers can be used; `check_answers` says why in `excluded`")
