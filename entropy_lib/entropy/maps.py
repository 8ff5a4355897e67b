"""What a layer of attention looks at, as maps over the image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class AttentionMap:
    """One layer at one step, for one image; means over heads.

    Attributes:
        layer, step, tokens, training_tokens: where and when; `tokens` counts joint text too.
        query: row and column of the token whose row is kept.
        entropy: of every query, in nats.
        weights: of that one query on the tokens of the image; they sum to 1, less what goes to joint text.
    """

    layer: str
    step: int
    tokens: int
    training_tokens: int
    query: tuple[int, int]
    entropy: Float[np.ndarray, "height width"]
    weights: Float[np.ndarray, "height width"]

    @property
    def spread(self) -> float:
        """Over how many tokens that query's attention is spread, e^H."""
        return float(np.exp(self.entropy[self.query]))
