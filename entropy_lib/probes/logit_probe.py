"""The Gaussian check of a running model: the shape of the logits of every self-attention call, row by row.

What the columns mean, and how the error of Eq. 5 splits into three causes, is told in `attention.logit_shape`.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with LogitProbe(pipe, rows=8) as probe:
    ...     _ = pipe("a zebra", num_inference_steps=1)
    >>> bool(probe.table().eval("entropy - gaussian_entropy - finite_tokens - row_spread - non_gaussian").abs().max() < 1e-6)
    True
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from entropy_lib.attention.entropy import Rows, row_indices
from entropy_lib.attention.logit_shape import STATISTICS, expected_maximum, row_statistics, standardised
from entropy_lib.probes.watcher import AttentionWatcher, Cell, DenoiserCall, LayerCall, cell_index, images_apart
from entropy_lib.theory import exact_entropy, freezing_std, gaussian_entropy

LEVELS = 101  # points of a QQ plot, at most


class LogitProbe(AttentionWatcher):
    """Measure the shape of the logits of every self-attention call made inside a `with` block.

    The logits of the chosen rows are formed, and of no others: memory is `rows` x N for each head.

    Args:
        model: a diffusers pipeline, or its denoising network.
        rows: query rows to look at in each call: None for all, a number for that many at random, or indices.
        layers: names or glob patterns of the layers to watch; all self-attention by default.
        per_image: keep the images of a batch apart, in the column `image`.

    Raises:
        ValueError, UnknownNameError, AttentionNotSeenError: as `EntropyProbe`; and ValueError, from the model's own call,
            where an attention mask makes rows of unequal length.
    """

    def __init__(self, model, rows: Rows = 32, layers: str | Sequence[str] | None = None, *, per_image: bool = False):
        super().__init__(model, layers)
        self.rows, self.per_image = rows, per_image
        row_indices(min(self.training_tokens[name] for name in self.layers), rows)
        self._sums: dict[Cell, Tensor] = {}  # [len(STATISTICS) + 1, branch, image, head], the last being the rows summed
        self._quantiles: dict[tuple[str, int], tuple[Tensor, int]] = {}

    def measure(
        self, cell: Cell, call: DenoiserCall, layer: LayerCall, query: Tensor, key: Tensor, mask: Tensor | None, scale: float
    ) -> None:
        """Add one call to the sums of its cell."""
        if mask is not None:
            raise ValueError(f"the attention of {cell.layer!r} has a mask: LogitProbe needs rows of equal length")
        chosen = row_indices(query.shape[-2], self.rows)
        rows = query if chosen is None else query.index_select(-2, chosen.to(query.device))
        logits = scale * (rows.double() @ key.double().mT)
        values = row_statistics(logits, (cell.height, cell.width))
        sums = torch.stack([*(value.sum(-1) for value in values.values()), torch.full(logits.shape[:2], float(rows.shape[-2]))])
        sums = images_apart(sums, call, self.per_image)
        cell = cell if self.per_image else replace(cell, first_image=0)
        self._sums[cell] = self._sums.get(cell, 0) + sums
        self._add_quantiles((cell.layer, cell.tokens), logits)

    def _add_quantiles(self, place: tuple[str, int], logits: Float[Tensor, "batch head row key"]) -> None:
        """Sum the sorted rows, each in its own standard deviations."""
        ordered = standardised(logits).flatten(0, -2).sort(-1).values
        total, count = self._quantiles.get(place, (0.0, 0))
        self._quantiles[place] = (total + ordered.sum(0).cpu(), count + len(ordered))

    def table(self) -> pd.DataFrame:
        """Everything seen so far, one row per layer x step x branch x head (and image, with `per_image`);
        means over query rows.

        Columns:
            layer, height, width, tokens, training_tokens, step, timestep, image, branch, head, rows: as in `EntropyProbe.table()`.
            entropy: measured, nats.
            logit_std: b, root of the mean within-row variance.
            spread_of_std: standard deviation over rows of each row's own logit_std.
            of_freezing: b / sqrt(2 ln N).
            skewness, excess_kurtosis: within rows.
            gaussian_entropy: Eq. 5 from b.
            finite_tokens, row_spread, non_gaussian: the three parts of entropy - gaussian_entropy, nats.
            cumulants: -κ3/3 - κ4/8, nats.
            maximum: the largest logit of a row, in standard deviations above its mean; `expected_maximum` for Gaussian logits.
            response: dH/d ln λ, how entropy answers a small change of the softmax scale; Eq. 5 says -b².
            effective_tokens: N over the variance inflation of means of neighbouring keys (see `variance_inflation`).
        """
        parts = [_cell_table(cell, sums) for cell, sums in self._sums.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def quantiles(self) -> pd.DataFrame:
        """Data of QQ plots: for each layer and N, mean quantiles of a row in its own standard deviations.

        Columns: `layer, tokens, normal` (the mean order statistic of N Gaussian logits, roughly), `measured`, `rows`.
        """
        parts = []
        for (layer, tokens), (total, count) in self._quantiles.items():
            chosen = np.unique(np.linspace(0, tokens - 1, min(tokens, LEVELS)).round().astype(int))
            normal = norm.ppf((chosen + 1 - 0.375) / (tokens + 0.25))  # Blom's positions
            measured = (total / count).numpy()[chosen]
            parts.append(pd.DataFrame({"layer": layer, "tokens": tokens, "normal": normal, "measured": measured, "rows": count}))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _cell_table(cell: Cell, sums: Tensor) -> pd.DataFrame:
    """Table of one cell: one row for each branch, image and head."""
    index = cell_index(cell, *sums.shape[-2:])
    rows = sums[-1].flatten().numpy()
    mean = pd.DataFrame(dict(zip(STATISTICS, sums[:-1].flatten(1).numpy() / rows, strict=True)), index=index).reset_index()
    logit_std = mean.logit_variance**0.5
    drawn_std = logit_std * (cell.tokens / max(cell.tokens - 1, 1)) ** 0.5
    gaussian = gaussian_entropy(cell.tokens, logit_std)
    at_mean = exact_entropy(cell.tokens, drawn_std.to_numpy())
    place = {name: getattr(cell, name) for name in ("layer", "height", "width", "tokens", "training_tokens", "step", "timestep")}
    return pd.DataFrame(place | {name: mean[name] for name in ("image", "branch", "head")}).assign(
        rows=rows.astype(int),
        entropy=mean.entropy,
        logit_std=logit_std,
        spread_of_std=(mean.logit_variance - mean.row_std**2).clip(lower=0) ** 0.5,
        of_freezing=logit_std / freezing_std(cell.tokens) if cell.tokens > 1 else math.nan,
        skewness=mean.skewness,
        excess_kurtosis=mean.excess_kurtosis,
        gaussian_entropy=gaussian,
        finite_tokens=at_mean - gaussian,
        row_spread=mean.exact_per_row - at_mean,
        non_gaussian=mean.entropy - mean.exact_per_row,
        cumulants=mean.cumulants,
        maximum=mean.maximum,
        expected_maximum=expected_maximum(cell.tokens),
        response=mean.response,
        effective_tokens=cell.tokens / mean.variance_inflation,
    )
