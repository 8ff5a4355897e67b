"""What each rule does to the entropy of a layer, by the exact law. No model is needed.

Example:
    >>> table = under_rules(["unscaled", "paper"], [9216], training_tokens=4096, logit_std=1.0)
    >>> table.share.round(3).tolist()
    [0.0, 0.06]
"""

import math
from collections.abc import Sequence

import pandas as pd

from entropy_lib.scaling.rules import rule
from entropy_lib.theory import exact_entropy, share_of_change_removed


def under_rules(rules: Sequence[str], tokens: Sequence[float], training_tokens: int, logit_std: float) -> pd.DataFrame:
    """Exact entropy over sizes under each rule, for a layer whose logits have standard deviation b before the rule.

    Returns:
        `rule, tokens, factor, entropy, entropy_ratio, share` (of the change removed); a row is left out where a rule has no
        factor, as `equal-entropy` at small sizes.
    """
    table = []
    for text in rules:
        for count in tokens:
            try:
                factor = rule(text).factor(count, training_tokens)
            except ValueError:
                continue
            entropy = exact_entropy(count, factor * logit_std)
            share = share_of_change_removed(count, training_tokens, logit_std, factor)
            ratio = entropy / math.log(count)
            table.append(
                {"rule": text, "tokens": count, "factor": factor, "entropy": entropy, "entropy_ratio": ratio, "share": share}
            )
    return pd.DataFrame(table)
