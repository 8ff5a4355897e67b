"""What the entropy of every head would be if the softmax scale were another, while the model runs as it does.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with ResponseProbe(pipe, factors=(0.5, 1, 2), rows=16) as probe:
    ...     _ = pipe("a penguin", num_inference_steps=2)
    >>> means = probe.table()[list(probe.measured)].mean()
    >>> bool(means["entropy at 0.5"] > means["entropy at 1"] > means["entropy at 2"])
    True
"""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from entropy_lib.entropy.attention import Rows, attention_entropy
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.attention_probe import AttentionProbe
from entropy_lib.probes.watcher import AttentionCall, LayerStep


class ResponseProbe(AttentionProbe):
    """Measure the entropy of every self-attention call under several factors of its scale.

    Args:
        model, rows, layers: as for `EntropyProbe`.
        factors: of the scale that the model uses.

    `table()` has one row per layer x step x branch x head, with a column "entropy at f" in nats for each
    factor.
    """

    def __init__(
        self,
        model: DiffusionModel,
        factors: Sequence[float],
        rows: Rows = None,
        layers: str | Sequence[str] | None = None,
    ):
        super().__init__(model, rows, layers)
        self.factors = tuple(map(float, factors))
        self.measured = tuple(f"entropy at {factor:.4g}" for factor in self.factors)

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """Entropy of each row under each factor."""
        entropies = [attention_entropy(rows, call.key, factor * call.scale) for factor in self.factors]
        return dict(zip(self.measured, entropies, strict=True))

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """The means as they are."""
        return {name: mean[name] for name in self.measured}
