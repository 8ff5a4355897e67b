"""What all probes have in common: statistics of query rows, summed while a model runs, in one tidy table.

A probe says what to sum (`statistics`) and what to make of the means (`columns`); which rows, layers, steps,
branches and images they belong to is kept here.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from entropy_lib.entropy.attention import Rows, row_indices
from entropy_lib.models.kernels import Run
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.watcher import AttentionCall, AttentionWatcher, LayerStep

# numbers of the keys of a call that is kept until its network is done, to be measured with others
SMALL = 1 << 18
PLACE = ("layer", "attends", "height", "width", "tokens", "training_tokens", "step", "timestep")
PARTS = ("branch", "image", "head")  # what the sums of one layer at one step are kept apart by
ORDER = ("image", "step", "layer", "height", "width", "branch", "head")


class AttentionProbe(AttentionWatcher):
    """Sums statistics of the query rows of every self-attention call made inside a `with` block.

    Args:
        model, layers, latent_size: as for `AttentionWatcher`.
        rows: query rows to look at in each call: None for all, a number for that many at random, or indices.
        per_image: keep the images of a batch apart, in a column `image` that counts all images of the block.

    Raises:
        InvalidInputError: when `rows` cannot be had; else as `AttentionWatcher`.
    """

    measured: tuple[str, ...]  # columns of the table that are the probe's own, in order
    together = False  # whether small calls of one shape and scale may be measured as one longer batch

    def __init__(
        self,
        model: DiffusionModel,
        rows: Rows = None,
        layers: str | Sequence[str] | None = None,
        *,
        per_image: bool = False,
        latent_size: tuple[int, int] | None = None,
    ):
        super().__init__(model, layers, latent_size=latent_size)
        self.rows, self.per_image = rows, per_image
        # fail here, not in the middle of a run
        row_indices(min(self.training_tokens[name] for name in self.layers), rows)
        self._names: tuple[str, ...] = ()
        # [statistic, branch, image, head], and how many rows they are sums of
        self._sums: dict[LayerStep, tuple[Tensor, int]] = {}
        self._waiting: dict[tuple, list[tuple[AttentionCall, Tensor]]] = {}

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """What to sum of one call: by name, `[batch, head, row]`, of the rows of the query to look at."""
        raise NotImplementedError

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """The columns `measured` of one layer at one step, from the means of its statistics over rows."""
        raise NotImplementedError

    def start(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a call of the denoiser."""
        self._waiting.clear()  # of a call that failed
        super().start(run, args, kwargs)

    def end(self, run: Run) -> None:
        """After a call of the denoiser: measure what waited for it."""
        super().end(run)
        for calls in self._waiting.values():
            self._measure(calls)
        self._waiting.clear()

    def measure(self, call: AttentionCall) -> None:
        """Measure the chosen rows of one call, at once or with others like it."""
        chosen = row_indices(call.query.shape[-2], self.rows)
        rows = call.query if chosen is None else call.query.index_select(-2, chosen.to(call.query.device))
        if not self.together or call.key.numel() > SMALL:
            self._measure([(call, rows)])
            return
        kind = rows.shape, call.key.shape, call.key.dtype, call.key.device, call.scale
        rows = rows.clone() if chosen is None else rows  # the network may write over its own
        kept = replace(call, query=rows, key=call.key.clone())
        self._waiting.setdefault(kind, []).append((kept, rows))

    def _measure(self, calls: Sequence[tuple[AttentionCall, Tensor]]) -> None:
        """Add calls of one shape and scale to the sums of their places."""
        call, rows = calls[0]
        if len(calls) > 1:
            rows = torch.cat([own for _, own in calls])
            key, factor = (
                torch.cat([getattr(each, name) for each, _ in calls]) for name in ("key", "factor")
            )
            call = replace(call, query=rows, key=key, factor=factor)
        statistics = self.statistics(call, rows)
        self._names = tuple(statistics)
        sums = torch.stack(tuple(statistics.values())).sum(-1, dtype=torch.float64).cpu()
        for (each, own), part in zip(calls, sums.chunk(len(calls), 1), strict=True):
            self._add(each.place, part, own.shape[-2])

    def _add(self, place: LayerStep, sums: Tensor, count: int) -> None:
        """Add sums over `count` rows, `[statistic, batch, head]`, to those of a place."""
        # [statistic, branch, image, frame, head]
        sums = sums.unflatten(1, (len(place.call.branches), place.call.images, -1))
        count *= sums.shape[3]
        if self.per_image:
            sums = sums.sum(3)
        else:
            sums, count = sums.sum((2, 3)).unsqueeze(2), count * sums.shape[2]
            place = replace(place, call=replace(place.call, first_image=0, images=1))
        if place in self._sums:
            earlier, counted = self._sums[place]
            sums, count = sums + earlier, count + counted
        self._sums[place] = sums, count

    def table(self, *, shared_steps: bool = False) -> pd.DataFrame:
        """Everything seen so far, one row per layer x step x branch x head (and image, with `per_image`).

        Where a cache lets layers out at some steps a warning says so: means of layers are then over
        different steps.

        Args:
            shared_steps: keep only steps at which all layers attended.

        Raises:
            AttentionNotSeenError: if the model was not called inside a block.
        """
        self.check_called()
        skipped = {step for step, layers in self._steps.items() if set(self.layers) - layers}
        if skipped and not shared_steps:
            warnings.warn(self._skipped(), stacklevel=2)
        dropped = {step for _, step in skipped} if shared_steps else set()
        parts = [part for part in PARTS if part != "image" or self.per_image]
        columns = [*PLACE, *parts, "rows", *self.measured]
        tables = [self._part(place) for place in self._sums if place.call.step not in dropped]
        if not tables:
            return pd.DataFrame(columns=columns)
        rank = {name: number for number, name in enumerate(self.layers)}  # in the order of execution
        ranked = {"key": lambda column: column.map(rank) if column.name == "layer" else column}
        table = pd.concat(tables).sort_values(list(ORDER), **ranked, kind="stable", ignore_index=True)
        return table[columns]

    def _skipped(self) -> str:
        """Which layers attended at how many steps."""
        calls = len(self._steps)
        seen = {name: sum(name in layers for layers in self._steps.values()) for name in self.layers}
        fewest = min(seen, key=lambda name: seen[name])
        many = sum(count < calls for count in seen.values())
        return (
            f"{many} of {len(seen)} layers did not attend at all {calls} steps, {fewest!r} at "
            f"{seen[fewest]}: a cache handed out earlier outputs. Means of layers are over different steps; "
            "table(shared_steps=True) keeps those that all have; without the cache "
            "(diffusers: disable_cache()) all are measured."
        )

    def _part(self, place: LayerStep) -> pd.DataFrame:
        """Table of one layer at one step: one row for each branch, image and head."""
        (sums, count), call = self._sums[place], place.call
        images = range(call.first_image, call.first_image + sums.shape[2])
        index = pd.MultiIndex.from_product([call.branches, images, range(sums.shape[3])], names=PARTS)
        mean = pd.DataFrame(dict(zip(self._names, sums.flatten(1).numpy() / count, strict=True)))
        at = {name: getattr(place, name) for name in PLACE[:-2]}
        at |= {"step": call.step, "timestep": call.timestep}
        return index.to_frame(index=False).assign(**at, rows=count, **self.columns(place, mean))
