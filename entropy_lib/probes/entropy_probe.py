"""Watches every self-attention call of a running model and returns one tidy table.

Each call's query and key are reduced at once to a few sums, without the attention map. The probe knows nothing of the
patch; its `factor` column is measured from the query.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with el.EntropyProbe(pipe) as probe:
    ...     _ = pipe("a zebra, noto style", num_inference_steps=2)
    >>> probe.table().entropy.between(0, 5.6).all()
    np.True_
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from entropy_lib.attention.entropy import Rows, attention_entropy, logit_moments, row_indices
from entropy_lib.probes.watcher import AttentionWatcher, Cell, DenoiserCall, LayerCall, cell_index, images_apart
from entropy_lib.theory import freezing_std, gaussian_entropy

COLUMNS = [
    "layer", "height", "width", "tokens", "training_tokens", "step", "timestep", "branch", "head", "rows",
    "entropy", "entropy_std", "entropy_ratio", "logit_std", "gaussian_entropy", "beyond_freezing", "factor",
]  # fmt: skip
SUMS = ("entropy", "entropy_squared", "logit_variance", "beyond", "factor")  # of which sums over query rows are kept


class EntropyProbe(AttentionWatcher):
    """Measure the entropy of every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        rows: query rows to look at in each call: None for all, a number for that many at random, or indices.
        layers: names or glob patterns of the layers to watch; all self-attention by default.
        per_image: keep the images of a batch apart, in a column `image` that counts all images of the block.

    Raises:
        ValueError: when the model has no self-attention.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with el.scaled(pipe, "paper"), el.EntropyProbe(pipe, rows=16) as probe:
        ...     _ = pipe("a zebra", height=32, width=32, num_inference_steps=2)
        >>> int(probe.table().tokens.max())
        64
    """

    def __init__(self, model, rows: Rows = None, layers: str | Sequence[str] | None = None, *, per_image: bool = False):
        super().__init__(model, layers)
        self.rows, self.per_image = rows, per_image
        row_indices(min(self.training_tokens[name] for name in self.layers), rows)  # fail here, not in the middle of a run
        self._sums: dict[Cell, Tensor] = {}  # [len(SUMS) + 1, branches, images, heads], the last being the rows summed

    def table(self) -> pd.DataFrame:
        """Everything seen so far, one row per layer x step x branch x head (and image, with `per_image`).

        Columns:
            layer, height, width, tokens, training_tokens: where (height and width of the layer's token grid).
            step, timestep, branch ("cond", "uncond", or "all" without guidance), head: when and in which part.
            rows: query rows summarised.
            entropy, entropy_std: mean and standard deviation over rows, in nats.
            entropy_ratio: entropy / ln N.
            logit_std: b, the square root of the mean within-row variance of the scaled logits.
            gaussian_entropy: what Eq. 5 predicts from it.
            beyond_freezing: share of rows with b > sqrt(2 ln N).
            factor: measured length of the query used over that of the query projected, times sqrt(d) x the scale used.
        """
        columns = [*COLUMNS[:7], "image", *COLUMNS[7:]] if self.per_image else COLUMNS
        parts = [_table(cell, sums) for cell, sums in self._sums.items()]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        rank = {name: index for index, name in enumerate(self.layers)}
        order = ["image", "step", "layer", "height", "width", "branch", "head"]
        table = table.assign(image=table.get("image", 0)).sort_values(
            order, key=lambda column: column.map(rank) if column.name == "layer" else column, kind="stable", ignore_index=True
        )
        return table[columns]

    def measure(
        self, cell: Cell, call: DenoiserCall, layer: LayerCall, query: Tensor, key: Tensor, mask: Tensor | None, scale: float
    ) -> None:
        """Add one call to the sums of its cell."""
        chosen = row_indices(query.shape[-2], self.rows)
        rows = query if chosen is None else query.index_select(-2, chosen.to(query.device))
        entropy = attention_entropy(query, key, scale, chosen, mask=mask)
        variance = logit_moments(rows, key, scale)[1]
        beyond = (variance.sqrt() > freezing_std(cell.tokens)).float()
        factor = layer.measured_factor(query, scale).unsqueeze(-1).expand_as(entropy)
        measured = (entropy, entropy.square(), variance, beyond, factor, torch.ones_like(entropy))
        sums = images_apart(torch.stack([values.sum(-1, dtype=torch.float64) for values in measured]), call, self.per_image)
        cell = cell if self.per_image else replace(cell, first_image=0)
        self._sums[cell] = self._sums.get(cell, 0) + sums


def _table(cell: Cell, sums: Tensor) -> pd.DataFrame:
    """Table of one cell: one row for each branch, image and head."""
    _, _, images, heads = sums.shape
    index = cell_index(cell, images, heads)
    rows = sums[-1].flatten().numpy()
    mean = pd.DataFrame(dict(zip(SUMS, sums[:-1].flatten(1).numpy() / rows, strict=True)), index=index).reset_index()
    logit_std = mean.logit_variance**0.5
    log_tokens = math.log(cell.tokens)
    return mean.assign(
        **{name: getattr(cell, name) for name in COLUMNS[:7]},
        rows=rows.astype(int),
        entropy_std=(mean.entropy_squared - mean.entropy**2).clip(lower=0) ** 0.5,
        entropy_ratio=mean.entropy / log_tokens if log_tokens else math.nan,
        logit_std=logit_std,
        gaussian_entropy=gaussian_entropy(cell.tokens, logit_std),
        beyond_freezing=mean.beyond,
    )
