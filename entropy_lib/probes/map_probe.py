"""What attention looks at: the entropy of every query as a map, and the whole row of one query.

The map of a layer is never formed: of every query only its entropy is kept, and of one query its row.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with MapProbe(pipe, place=(0.5, 0.5), steps=[1]) as probe:
    ...     _ = pipe("a penguin", height=64, width=96, num_inference_steps=2)
    >>> first = probe.maps[0]
    >>> first.entropy.shape, round(float(first.weights.sum()), 3)
    ((16, 24), 1.0)
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from entropy_lib.entropy.attention import AttentionMap, attention_entropy
from entropy_lib.errors import InvalidInputError
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.watcher import AttentionCall, AttentionWatcher

SHOWN = ("cond", "all")  # branches of guidance that look for what was asked for


class MapProbe(AttentionWatcher):
    """Keep maps of the first image that is generated inside a `with` block.

    Args:
        model, layers, latent_size: as for `EntropyProbe`.
        place: of the query whose row is kept: shares of the height and the width, (0, 0) being the upper left
            corner. None: the query that looks at the fewest tokens.
        steps: positions in the schedule, from 0; None for all.

    Attributes:
        maps: one a layer and step, in the order of calls.

    Raises:
        InvalidInputError: for a place outside the image; else as `EntropyProbe`.
    """

    def __init__(
        self,
        model: DiffusionModel,
        place: tuple[float, float] | None = None,
        layers: str | Sequence[str] | None = None,
        steps: Collection[int] | None = None,
        *,
        latent_size: tuple[int, int] | None = None,
    ):
        super().__init__(model, layers, latent_size=latent_size)
        if place is not None and (len(place) != 2 or not all(0 <= share <= 1 for share in place)):
            raise InvalidInputError(
                f"place is {place}; give two shares of height and width, each from 0 to 1, as (0.5, 0.5)"
            )
        self.place, self.steps = place, steps
        self.maps: list[AttentionMap] = []

    def __enter__(self) -> Any:
        self.maps = []
        return super().__enter__()

    def measure(self, call: AttentionCall) -> None:
        """Keep the map of one call, if it is of the branch, the image and the step that are asked for."""
        place, branches = call.place, call.place.call.branches
        chosen = next((name for name in SHOWN if name in branches), None)
        wanted = self.steps is None or place.call.step in self.steps
        if chosen is None or not wanted or not place.height or place.call.first_image:
            return
        image, grid = branches.index(chosen) * place.call.images, (place.height, place.width)
        query, key = call.query[image].float(), call.key[image].float()  # [head, tokens, dim]
        asks, own = (slice(each, each + math.prod(grid)) for each in (call.first_query, call.first_key))
        entropy = attention_entropy(query[:, asks], key, call.scale).mean(0).reshape(grid).cpu()
        row, column = self._token(entropy)
        asking = query[:, call.first_query + row * place.width + column, None]
        weights = (asking @ key.mT * call.scale).softmax(-1)[:, 0, own].mean(0).reshape(grid).cpu()
        counts = place.tokens, place.training_tokens
        seen = (row, column), entropy.numpy(), weights.numpy()
        self.maps.append(AttentionMap(place.layer, place.call.step, *counts, *seen))

    def _token(self, entropy: Float[Tensor, "height width"]) -> tuple[int, int]:
        """Row and column of the token at the place, or of the one of least entropy."""
        height, width = entropy.shape
        if self.place is None:
            return divmod(int(entropy.argmin()), width)
        row, column = (int(share * side) for share, side in zip(self.place, (height, width), strict=True))
        return min(row, height - 1), min(column, width - 1)
