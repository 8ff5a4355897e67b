"""How Gaussian the logits of real attention are, and what it costs Eq. 5 where they are not: in nats, not in p-values.

Any test rejects normality once a row is long enough, so the size of the deviation is what is measured. For one row of N
logits with variance s² (divided by N), Eq. 5 says ln N - s²/2. Its error on a layer is split exactly into three causes:

    H - (ln N - b²/2)  =  finite_tokens + row_spread + non_gaussian            (b² is the mean of s² over rows)

    finite_tokens   exact_entropy at b minus Eq. 5: what Gaussian logits of that spread would have at this N
    row_spread      mean over rows of exact_entropy at each row's own spread, minus exact_entropy at b (Jensen)
    non_gaussian    measured entropy minus that mean: what is left is the shape of the logits; for many tokens it is
                    close to `cumulants` = -κ3/3 - κ4/8 (see `theory.cumulant_entropy`)

A row's variance divides by N, which takes off b²/N on average; `exact_entropy` is asked for the law that rows are drawn from,
so it gets s² N/(N - 1).

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with LogitProbe(pipe, rows=8) as probe:
    ...     _ = pipe("a zebra", num_inference_steps=1)
    >>> bool(probe.table().eval("entropy - gaussian_entropy - finite_tokens - row_spread - non_gaussian").abs().max() < 1e-6)
    True
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.stats import norm
from torch import Tensor

from entropy_lib.attention import Rows, row_indices
from entropy_lib.theory import exact_entropy, freezing_std, gaussian_entropy
from entropy_lib.watch import AttentionWatcher, Cell, DenoiserCall, LayerCall, cell_index, images_apart

STATISTICS = (
    "entropy", "logit_variance", "row_std", "skewness", "excess_kurtosis", "cumulants", "exact_per_row",
    "maximum", "variance_inflation", "response",
)  # fmt: skip
BLOCK = 2  # side of the square of neighbouring keys whose mean is compared with the mean of keys drawn anywhere
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


def standardised(logits: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch key"]:
    """Each row in standard deviations from its own mean."""
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


def row_statistics(logits: Float[Tensor, "*batch key"], grid: tuple[int, int]) -> dict[str, Float[Tensor, "*batch"]]:
    """What `LogitProbe` sums, for each row.

    Args:
        logits: scaled, `[..., N]`, float64.
        grid: (height, width) of the keys, for their neighbourhoods.
    """
    tokens = logits.shape[-1]
    log_weight = logits.log_softmax(-1)
    centred = logits - logits.mean(-1, keepdim=True)
    variance, third, fourth = (centred.pow(order).mean(-1) for order in (2, 3, 4))
    scale = variance.clamp(min=1e-24)
    values = (
        -(log_weight.exp() * log_weight).sum(-1),
        variance,
        variance.sqrt(),
        third / scale**1.5,
        fourth / scale**2 - 3,
        -third / 3 - (fourth - 3 * variance.square()) / 8,
        exact_for_rows(tokens, variance),
        centred.amax(-1) / scale.sqrt(),
        variance_inflation(logits, grid),
        -weighted_variance(logits, log_weight.exp()),
    )
    return dict(zip(STATISTICS, values, strict=True))


def weighted_variance(logits: Float[Tensor, "*batch key"], weight: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch"]:
    """Variance of a row of logits under its own softmax weights; -dH/d ln λ, whatever the law of the logits."""
    mean = (weight * logits).sum(-1, keepdim=True)
    return (weight * (logits - mean).square()).sum(-1)


def exact_for_rows(tokens: int, variance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`exact_entropy` for rows of given variance (divided by N), from a cubic spline in b: within 1e-6 nats."""
    if tokens == 1:
        return torch.zeros_like(variance)
    logit_std = (variance * tokens / (tokens - 1)).sqrt().cpu().numpy()
    highest = 2.0 ** math.ceil(math.log2(max(float(logit_std.max(initial=0)), 0.5)))
    return torch.from_numpy(_entropy_spline(tokens, highest)(logit_std)).to(variance)


@functools.lru_cache(maxsize=128)
def _entropy_spline(tokens: int, highest: float) -> CubicSpline:
    knots = np.linspace(0, highest, 65 + int(16 * highest))
    return CubicSpline(knots, exact_entropy(tokens, knots), bc_type=((1, 0.0), "not-a-knot"))  # dH/db is 0 at b = 0


def variance_inflation(logits: Float[Tensor, "*batch key"], grid: tuple[int, int]) -> Float[Tensor, "*batch"]:
    """Variance of the mean of `BLOCK` x `BLOCK` neighbouring keys over that of as many keys drawn anywhere in the row.

    1 for keys in random order, more where neighbours are alike; N over it is an effective number of keys, a lower bound
    where likeness reaches beyond a block. NaN on grids with a side below 2 `BLOCK`.
    """
    height, width = (side // BLOCK * BLOCK for side in grid)
    if min(grid) < 2 * BLOCK:
        return torch.full_like(logits[..., 0], math.nan)
    area = logits.unflatten(-1, grid)[..., :height, :width]
    blocks = area.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).mean((-1, -3)).flatten(-2)
    values = area.flatten(-2)
    size, count = BLOCK**2, values.shape[-1]
    anywhere = values.var(-1, correction=0) / size * (count - size) / (count - 1)  # without replacement
    return blocks.var(-1, correction=0) / anywhere.clamp(min=1e-24)


@functools.lru_cache(maxsize=128)
def expected_maximum(tokens: int) -> float:
    """Expected largest of N independent standard normal values.

    About sqrt(2 ln N) - (ln ln N + ln 4π) / (2 sqrt(2 ln N)) + 0.577 / sqrt(2 ln N) for large N (extreme-value theory); here
    by integration, ∫ x dΦ(x)^N.

    Example:
        >>> round(expected_maximum(2), 6) == round(1 / math.sqrt(math.pi), 6)
        True
    """
    x = np.linspace(-12, 12, 24001)
    return float(np.trapezoid(x * tokens * np.exp((tokens - 1) * norm.logcdf(x) + norm.logpdf(x)), x))


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


PARTS = ("finite_tokens", "row_spread", "non_gaussian")
CAUSES = {"finite_tokens": "too few tokens", "row_spread": "rows differ in spread", "non_gaussian": "logits are not Gaussian"}


def by_layer(table: pd.DataFrame, tolerance: float = 0.05, by: Sequence[str] = ("layer",)) -> pd.DataFrame:
    """How well Eq. 5 does in each layer, and what it fails by.

    Args:
        table: of `LogitProbe.table()`, with the columns `by`.
        tolerance: nats; an error within it is a pass.
        by: columns to tell apart.

    Returns:
        indexed by `by`, in order of appearance: `tokens, logit_std` (root mean square), `absolute_error` (mean over timesteps,
        branches and heads), `error` and its parts, `unexplained` (non_gaussian less cumulants, absolute mean), `outside` (share of
        cells beyond the tolerance), `beyond_half_freezing` (share of cells with b > b_c/2), `response_ratio` (measured response
        over that of Eq. 5), `effective_tokens`, and `verdict`.
    """
    cells = table.assign(
        error=table.entropy - table.gaussian_entropy,
        absolute_error=(table.entropy - table.gaussian_entropy).abs(),
        variance=table.logit_std**2,
        unexplained=(table.non_gaussian - table.cumulants).abs(),
        beyond_half_freezing=table.of_freezing > 0.5,
    )
    cells["outside"] = cells.absolute_error > tolerance
    names = [
        "tokens", "variance", "absolute_error", "error", *PARTS, "cumulants", "unexplained", "outside", "beyond_half_freezing",
        "response", "effective_tokens",
    ]  # fmt: skip
    result = cells.groupby(list(by), sort=False)[names].mean()
    result.insert(1, "logit_std", result.variance**0.5)
    result["response_ratio"] = -result.response / result.variance
    result["verdict"] = [_verdict(row, tolerance) for _, row in result.iterrows()]
    return result.drop(columns=["variance", "response"])


def _verdict(row: pd.Series, tolerance: float) -> str:
    """Holds where the mean absolute error is within the tolerance, or else the largest part of the error."""
    if row.absolute_error <= tolerance:
        return "holds"
    return f"fails: {CAUSES[row[list(PARTS)].abs().idxmax()]}"
