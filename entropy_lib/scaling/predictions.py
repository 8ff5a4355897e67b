"""What each rule does to the entropy of a layer, by the exact law. No model is needed.

A layer has T tokens at training size and logits of standard deviation b before any rule, at every size. A
rule with factor f(N) makes its entropy H(N, f b); the slope of that against ln N, and the share of the change
since H(T, b) that it removes, are what notebooks 03 and 04 measure.

Example:
    >>> table = under_rules(["unscaled", "paper"], [9216], training_tokens=4096, logit_std=1.0)
    >>> table.share.round(3).tolist()
    [0.0, 0.06]
"""

import math
from collections.abc import Sequence

import pandas as pd

from entropy_lib.entropy import exact_entropy, fraction_of_change_removed
from entropy_lib.entropy.arguments import SEVERAL, SPREAD, TOKENS, Numbers, pointwise
from entropy_lib.errors import InvalidInputError
from entropy_lib.scaling.rules import Rule, rule, rule_list

STEP = 1e-3  # of ln N, to either side


def under_rules(
    rules: Sequence[str | Rule], tokens: Sequence[float], training_tokens: float, logit_std: float
) -> pd.DataFrame:
    """Exact entropy over sizes under each rule, for a layer of logits of spread b before the rule.

    Returns:
        `rule, tokens, factor, entropy, entropy_ratio, share` (of the change removed); a row is left out where
        a rule has no factor, as `equal-entropy` at small sizes.
    """
    table = []
    for each in rule_list(rules):
        for count in tokens:
            factor = factor_or_nan(each, count, training_tokens)
            if math.isnan(factor):
                continue
            entropy = exact_entropy(count, factor * logit_std)
            share = fraction_of_change_removed(count, training_tokens, logit_std, factor)
            table.append((each.name, count, factor, entropy, entropy / math.log(count), share))
    return pd.DataFrame(table, columns=["rule", "tokens", "factor", "entropy", "entropy_ratio", "share"])


def predicted_share(
    scale_rule: str | Rule, tokens: Numbers, training_tokens: Numbers, logit_std: Numbers
) -> Numbers:
    """The share of the change of entropy between T and N tokens that a rule removes: 1 all of it, 0 nothing.

    Args:
        scale_rule: see `entropy_lib.rule`. Its factor counts as it is, that of `gamma` too, which is not 1 at
            N = T.
        tokens: N; a number, array or tensor, as the others.
        training_tokens: T.
        logit_std: b before the rule.

    Returns:
        Broadcast to one shape. NaN at N = T, where there is no change, and where the rule has no factor.

    Example:
        >>> import numpy as np
        >>> predicted_share("paper", np.array([1024, 9216]), 4096, 1.0).round(3)
        array([0.06, 0.06])
    """
    chosen = rule(scale_rule)

    def share(count: float, training: float, spread: float) -> float:
        factor = factor_or_nan(chosen, count, training)
        return math.nan if math.isnan(factor) else fraction_of_change_removed(count, training, spread, factor)

    given = {"tokens": (tokens, TOKENS), "training_tokens": (training_tokens, TOKENS)}
    return pointwise(share, **given, logit_std=(logit_std, SPREAD))


def predicted_slope(
    scale_rule: str | Rule, tokens: Numbers, training_tokens: Numbers, logit_std: Numbers
) -> Numbers:
    """The slope dH/d ln N of the exact entropy at N tokens under a rule.

    Unscaled it is 1 for many tokens, under the paper's rule 1 - b²/(2 ln T), under `equal-entropy` of the
    same b it is 0.

    Args and Returns: as for `predicted_share`; not NaN at N = T.

    Example:
        >>> [round(predicted_slope(name, 4096, 4096, 1.0), 3) for name in ("unscaled", "paper")]
        [1.0, 0.94]
    """
    chosen = rule(scale_rule)

    def entropy(count: float, training: float, spread: float) -> float:
        factor = factor_or_nan(chosen, count, training)
        return math.nan if math.isnan(factor) else exact_entropy(count, factor * spread)

    def slope(count: float, training: float, spread: float) -> float:
        above, below = (entropy(count * math.exp(step), training, spread) for step in (STEP, -STEP))
        return (above - below) / (2 * STEP)

    given = {"tokens": (tokens, SEVERAL), "training_tokens": (training_tokens, TOKENS)}
    return pointwise(slope, **given, logit_std=(logit_std, SPREAD))


def factor_or_nan(scale_rule: Rule, tokens: float, training_tokens: float) -> float:
    """The rule's factor, NaN where `equal-entropy` has none; bad counts of tokens are errors as ever."""
    try:
        return scale_rule.factor(tokens, training_tokens)
    except InvalidInputError:
        rule("unscaled").factor(tokens, training_tokens)  # raises where the counts are to blame
        return math.nan
