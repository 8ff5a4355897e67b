"""The Gaussian check of a running model: the shape of the logits of every self-attention call, row by row.

What the columns mean, and how the error of Eq. 5 splits into three causes, is said in `entropy.logit_shape`.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with LogitProbe(pipe, rows=8) as probe:
    ...     _ = pipe("a penguin", num_inference_steps=1)
    >>> error = probe.table().eval("entropy - gaussian_entropy")
    >>> parts = probe.table().eval("finite_tokens + row_spread + non_gaussian")
    >>> bool((error - parts).abs().max() < 1e-6)
    True
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm
from torch import Tensor

from entropy_lib.entropy import exact_entropy, freezing_std
from entropy_lib.entropy.attention import Rows
from entropy_lib.entropy.laws import gaussian_law
from entropy_lib.entropy.logit_shape import SPLINE_STD, expected_maximum, row_statistics, standardised
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.attention_probe import AttentionProbe
from entropy_lib.probes.watcher import AttentionCall, LayerStep

LEVELS = 101  # points of a QQ plot, at most


class LogitProbe(AttentionProbe):
    """Measure the shape of the logits of every self-attention call made inside a `with` block.

    The logits of the chosen rows are formed, and of no others: memory is `rows` x N for each head.

    Args and Raises: as `EntropyProbe`, but 32 rows by default.

    `table()` has one row per layer x step x branch x head (and image, with `per_image`), means over rows:
        layer, attends, height, width, tokens, training_tokens, step, timestep, branch, head, rows: as in
        `EntropyProbe`. entropy: measured, nats. logit_std: b, root of the mean within-row variance.
        spread_of_std: standard deviation over rows of each row's own logit_std. of_freezing: b / sqrt(2 ln
        N). skewness, excess_kurtosis: within rows. gaussian_entropy: Eq. 5 from b. finite_tokens, row_spread,
        non_gaussian: the three parts of entropy - gaussian_entropy, nats. cumulants: -κ3/3 - κ4/8, nats.
        maximum: the largest logit of a row, in standard deviations above its mean; `expected_maximum` for
        Gaussian logits. response: dH/d ln λ, how entropy answers a small change of the softmax scale; Eq. 5
        says -b². effective_tokens: N over `variance_inflation`.

    Columns are NaN where a layer's logits are; finite_tokens, row_spread and non_gaussian also where b is
    above 32, beyond which the exact law is too slow.
    """

    measured = (
        "entropy", "logit_std", "spread_of_std", "of_freezing", "skewness", "excess_kurtosis",
        "gaussian_entropy", "finite_tokens", "row_spread", "non_gaussian", "cumulants", "maximum",
        "expected_maximum", "response", "effective_tokens",
    )  # fmt: skip

    def __init__(
        self,
        model: DiffusionModel,
        rows: Rows = 32,
        layers: str | Sequence[str] | None = None,
        *,
        per_image: bool = False,
        latent_size: tuple[int, int] | None = None,
    ):
        super().__init__(model, rows, layers, per_image=per_image, latent_size=latent_size)
        # of each layer and N: sums of sorted rows, each in its own standard deviations, and how many
        self._quantiles: dict[tuple[str, int], tuple[Tensor, int]] = {}

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """The shape of each row of logits; its sorted values go to the quantiles of the layer."""
        logits = call.scale * (rows.double() @ call.key.double().mT)
        ordered = standardised(logits).flatten(0, -2).sort(-1).values
        place = call.place.layer, call.place.tokens
        total, count = self._quantiles.get(place, (0.0, 0))
        self._quantiles[place] = (total + ordered.sum(0).cpu(), count + len(ordered))
        return row_statistics(logits, (call.place.height, call.place.width))

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """What the means over rows say."""
        tokens, logit_std = place.tokens, mean.logit_variance**0.5
        gaussian = gaussian_law(tokens, logit_std)
        drawn_std = logit_std * (tokens / max(tokens - 1, 1)) ** 0.5
        at_mean = exact_entropy(tokens, drawn_std.where(drawn_std <= SPLINE_STD))
        kept = ("entropy", "skewness", "excess_kurtosis", "cumulants", "maximum", "response")
        return {name: mean[name] for name in kept} | {
            "logit_std": logit_std,
            "spread_of_std": (mean.logit_variance - mean.row_std**2).clip(lower=0) ** 0.5,
            "of_freezing": logit_std / freezing_std(tokens) if tokens > 1 else logit_std * math.nan,
            "gaussian_entropy": gaussian,
            "finite_tokens": at_mean - gaussian,
            "row_spread": mean.exact_per_row - at_mean,
            "non_gaussian": mean.entropy - mean.exact_per_row,
            "expected_maximum": pd.Series(expected_maximum(tokens), mean.index),
            "effective_tokens": tokens / mean.variance_inflation,
        }

    def quantiles(self) -> pd.DataFrame:
        """Data of QQ plots: for each layer and N, mean quantiles of a row in its own standard deviations.

        Columns: `layer, tokens, normal` (of Gaussian logits, roughly), `measured`, `rows`.

        Raises:
            AttentionNotSeenError: as `table`.
        """
        self.check_called()
        parts = []
        for (layer, tokens), (total, count) in self._quantiles.items():
            chosen = np.unique(np.linspace(0, tokens - 1, min(tokens, LEVELS)).round().astype(int))
            normal = norm.ppf((chosen + 1 - 0.375) / (tokens + 0.25))  # Blom's positions
            measured = (total / count).numpy()[chosen]
            part = {"layer": layer, "tokens": tokens, "normal": normal, "measured": measured, "rows": count}
            parts.append(pd.DataFrame(part))
        return pd.concat(parts, ignore_index=True)
