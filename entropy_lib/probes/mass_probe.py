"""Where the mass of attention lies: on edge tokens, on one key, near the query or far from it.

Attention may pile up on a few keys, sinks, that gather mass whatever asks. Where they lie along the border,
entropy grows with its length, not with the number of tokens.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with MassProbe(pipe, steps=[0]) as probe:
    ...     _ = pipe("a penguin", num_inference_steps=2)
    >>> table = probe.table()
    >>> bool(table.edge_share.between(0, 1).all()), float(table.edge_area.min())
    (True, 0.234375)
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.watcher import AttentionCall, AttentionWatcher

BLOCK = 1 << 22  # weights formed at a time
COLUMNS = [
    "layer", "step", "branch", "image", "head", "height", "width", "tokens", "edge_share", "edge_area",
    "largest", "largest_row", "largest_column", "distance", "uniform_distance",
]  # fmt: skip


class MassProbe(AttentionWatcher):
    """Keep the mass that each key of the image is given, a mean over queries, inside a `with` block.

    Args:
        model, layers, latent_size: as for `EntropyProbe`.
        steps: positions in the schedule, from 0; None for all.

    Attributes:
        rows: one a layer, step, branch, image and head, as in `table()`, with `mass`, the map.

    `table()` has, beside where (`layer, step, branch, image, head, height, width, tokens`), `edge_share` and
    `edge_area`: shares of the mass and of the tokens that lie on the outermost ring; `largest, largest_row,
    largest_column`: the share of the key that gets most, and where it lies, from 0 (top, left) to 1, so
    whether a sink moves with the size; `distance, uniform_distance`: mean distance from query to key in
    tokens, by weight and for equal weights.
    """

    def __init__(
        self,
        model: DiffusionModel,
        layers: str | Sequence[str] | None = None,
        steps: Collection[int] | None = None,
        *,
        latent_size: tuple[int, int] | None = None,
    ):
        super().__init__(model, layers, latent_size=latent_size)
        self.steps, self.rows = steps, []

    def __enter__(self) -> Any:
        self.rows = []
        return super().__enter__()

    def measure(self, call: AttentionCall) -> None:
        """Keep what one call gives to each key."""
        place, step = call.place, call.place.call
        if not place.height or (self.steps is not None and step.step not in self.steps):
            return
        size = place.height * place.width
        asks, own = (slice(first, first + size) for first in (call.first_query, call.first_key))
        mass, distance, uniform = _mass(
            call.query[:, :, asks].float() * call.scale, call.key.float(), own, place.height, place.width
        )
        frames = len(mass) // (step.images * len(step.branches))
        for row, heads in enumerate(mass):
            branch, image = divmod(row // frames, step.images)
            for head, values in enumerate(heads):
                self.rows.append(
                    {
                        "layer": place.layer, "step": step.step, "branch": step.branches[branch],
                        "image": step.first_image + image, "head": head, "height": place.height,
                        "width": place.width, "tokens": place.tokens, **where(values.numpy()),
                        "distance": float(distance[row, head]), "uniform_distance": uniform,
                        "mass": values.numpy(),
                    }
                )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """Everything seen so far, without the maps.

        Raises:
            AttentionNotSeenError: if the model was not called inside a block.
        """
        self.check_called()
        return pd.DataFrame(self.rows, columns=COLUMNS)


def where(mass: Float[np.ndarray, "height width"]) -> dict[str, float]:
    """Share on the outermost ring, and on the key that gets most.

    Example:
        >>> sink = np.zeros((4, 6))
        >>> sink[0, 3], sink[2, 2] = 0.75, 0.25
        >>> {name: round(value, 2) for name, value in where(sink).items()}
        {'edge_share': 0.75, 'edge_area': 0.67, 'largest': 0.75, 'largest_row': 0.0, 'largest_column': 0.6}
    """
    height, width = mass.shape
    inner = mass[1:-1, 1:-1]
    row, column = np.unravel_index(mass.argmax(), mass.shape)
    return {
        "edge_share": float(1 - inner.sum() / mass.sum()),
        "edge_area": 1 - inner.size / mass.size,
        "largest": float(mass.max() / mass.sum()),
        "largest_row": float(row / max(height - 1, 1)),
        "largest_column": float(column / max(width - 1, 1)),
    }


def mass_by_layer(table: pd.DataFrame, native: str) -> pd.DataFrame:
    """Where the mass of each layer lies at native size, and whether its largest key stays there at others.

    Args:
        table: of `MassProbe`, with a column `size`; the same images at each size.
        native: the label of the native size.

    Returns:
        columns `layer, tokens, edge_share, edge_area`; `largest_times`, the largest key's share in even
            shares; `reach`, the mean distance from query to key over that of even weights; `moved`, the mean
            distance of the largest key's place at other sizes from that at native size, in sides: 0 for a
            sink that stays, 0.5 for places at random.
    """
    keys, place = ["layer", "step", "branch", "image", "head"], ["largest_row", "largest_column"]
    own = table[table["size"] == native]
    if own.empty:
        raise InvalidInputError(f"the table has no rows of native size {native}; measure it too")
    other = table[table["size"] != native].merge(own[keys + place], on=keys, suffixes=("", "_native"))
    apart = np.hypot(*(other[name] - other[f"{name}_native"] for name in place))
    own = own.assign(
        largest_times=own.largest * own.height * own.width, reach=own.distance / own.uniform_distance
    )
    names = ["tokens", "edge_share", "edge_area", "largest_times", "reach"]
    means = own.groupby("layer", sort=False)[names].mean()
    return means.assign(moved=apart.groupby(other.layer).mean()).reset_index()


def _mass(query: Tensor, key: Tensor, own: slice, height: int, width: int) -> tuple[Tensor, Tensor, float]:
    """Mean mass `[row, head, height, width]`, distance `[row, head]`, and that of equal weights."""
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    apart = torch.cdist(places, places)
    each = max(1, BLOCK // (key.shape[0] * key.shape[1] * key.shape[2]))
    total, far = 0.0, 0.0
    for start in range(0, query.shape[2], each):
        weights = (query[:, :, start : start + each] @ key.mT).softmax(-1)[..., own].cpu()
        total = total + weights.sum(2, dtype=torch.float64)
        far = far + (weights * apart[start : start + each]).sum((2, 3), dtype=torch.float64)
    return ((total / query.shape[2]).unflatten(-1, (height, width)), far / total.sum(-1), float(apart.mean()))
