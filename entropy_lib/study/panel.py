"""Raters who are no people: simulated ones of known truth, and metrics in a rater's place."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from entropy_lib.errors import InvalidInputError
from entropy_lib.study.answers import COLUMNS
from entropy_lib.study.design import OTHER_PROMPT, Protocol, Study

NODES = 60  # of the quadrature; the integrands are smooth


@dataclass(frozen=True)
class Truth:
    """What simulated raters answer by.

    Attributes:
        effect: how much better the second method is than the first; in logits with choices, in points with
        ratings.
        rater, prompt: standard deviation of that over raters and over prompts.
        noise: with ratings, the standard deviation of a single score.
        tie: with choices, the probability that no difference is seen.
        side: what standing on the left is worth, in the units of `effect`.
        careless: share of raters who answer by chance.
    """

    effect: float = 0.0
    rater: float = 0.4
    prompt: float = 0.6
    noise: float = 1.5
    tie: float = 0.2
    side: float = 0.0
    careless: float = 0.0

    def value(self, protocol: Protocol) -> float:
        """What `compare` estimates of a panel: the difference of scores, or the share of choices."""
        return self.effect if protocol == "rating" else self.share()

    def share(self) -> float:
        """The share of choices for the second method, no difference counting half."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        spread = np.hypot(self.rater, self.prompt)
        for_second = [expit(self.effect + spread * nodes + side) for side in (self.side, -self.side)]
        chosen = np.average(np.mean(for_second, axis=0), weights=weights)
        careful = self.tie / 2 + (1 - self.tie) * float(chosen)
        return self.careless / 2 + (1 - self.careless) * careful


def simulate_panel(study: Study, raters: int, truth: Truth, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Answers of raters who are not there: {name of a file: what the page would save}.

    With more than two methods each is better than the one before by `effect`. The right image of a catch
    trial is seen by all who are careful.

    Args:
        study: with or without its images.
        raters: how many.
        truth: what they answer by.
        seed: of everything that is left to chance.
    """
    if not isinstance(raters, int) or raters < 1:
        raise InvalidInputError(f"raters is {raters!r}; it must be a whole number, 1 or more")
    random = np.random.default_rng(seed)
    prompts = {pair.name: random.normal(0, truth.prompt) for pair in study.pairs}
    panel = {}
    for number in range(1, raters + 1):
        content = {"study": study.digest, "protocol": study.protocol, "rater": f"simulated {number}"}
        content |= {"started": "2000-01-01T00:00:00Z", "finished": "2000-01-01T00:10:00Z"}
        panel[f"simulated-{number}.json"] = content | {"answers": _answers(study, truth, prompts, random)}
    return panel


def _answers(
    study: Study, truth: Truth, prompts: dict[str, float], random: np.random.Generator
) -> list[dict[str, Any]]:
    own, careless = random.normal(0, truth.rater), random.random() < truth.careless
    sides = random.permutation(np.arange(len(study.pairs)) % 2)
    answers = []
    turns = zip(random.permutation(len(study.pairs)), sides, strict=True)
    for order, (index, side) in enumerate(turns, start=1):
        pair = study.pairs[index]
        if pair.catch:
            better = 50.0 if pair.methods[0] == OTHER_PROMPT else -50.0  # image b than a
        else:
            first, second = map(study.methods.index, pair.methods)
            better = (truth.effect + own + prompts[pair.name]) * (second - first)
        left = (-better if side == 0 else better) + truth.side  # how much better the left image is
        answer = {"pair": pair.name, "order": order, "left": "ab"[side]}
        answer["milliseconds"] = int(random.lognormal(8.3, 0.4))
        answers.append(answer | _said(study.protocol, left, careless, truth, random, pair.catch))
    return answers


def _said(
    protocol: str, left: float, careless: bool, truth: Truth, random: np.random.Generator, catch: bool
) -> dict[str, str | int]:
    if protocol == "choice":
        if random.random() < (0.0 if catch else truth.tie):
            return {"choice": "tie"}
        return {"choice": "left" if random.random() < (0.5 if careless else expit(left)) else "right"}
    half = 0.0 if careless else np.clip(left, -9, 9) / 2
    scores = random.normal([5.5 + half, 5.5 - half], 3.0 if careless else truth.noise).round().clip(1, 10)
    return {"left_score": int(scores[0]), "right_score": int(scores[1])}


def automatic_rater(
    study: Study, outcomes: pd.DataFrame, metric: str, higher_is_better: bool = True
) -> pd.DataFrame:
    """The pairs of a study as a metric would choose: the better number, or a tie.

    Args:
        study: whose pairs are rated; catch trials are left out.
        outcomes: of every image, from `sweep.image_outcomes`: columns `size, method, prompt, seed, metric,
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
