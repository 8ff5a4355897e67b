"""How units are drawn: a group at a time, from a pipeline that has been checked against what the units ask for."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from entropy_lib import __version__
from entropy_lib.errors import InvalidInputError
from entropy_lib.experiments.generation import draw, finite, to_uint8
from entropy_lib.experiments.request import native_size
from entropy_lib.models.catalogue import CATALOGUE, entry, load, resolve_device, resolve_dtype, revision
from entropy_lib.scaling.patch import apply_scale, remove_scale
from entropy_lib.sweep.plan import OWN, Settings
from entropy_lib.sweep.store import Store
from entropy_lib.sweep.units import DRAWING_VERSION, Unit


def settings(model: str, steps: int, guidance: float, dtype: str = "auto", device: str = "auto") -> Settings:
    """What the units of a plan share. A model whose revision the catalogue pins needs no weights, so a laptop can plan for it.

    Raises:
        WeightsError: for any other model whose weights are not there.
        UnknownNameError: for an unknown model or dtype.
    """
    listed = CATALOGUE.get(model) if "/" in model else entry(model)
    scheduler = (listed.scheduler if listed else None) or OWN
    native = listed.native_size if listed else native_size(load(model, device="cpu"))
    chosen = str(resolve_dtype(dtype, resolve_device(device), model)).removeprefix("torch.")
    return Settings(model, revision(model), scheduler, steps, guidance, chosen, native)


class Sampler:
    """Draws units of one model; a context manager that takes the scale rule out again at the end.

    Args:
        model, dtype: of the units to come.
        device: where to draw.

    Raises:
        WeightsError: when the weights are missing or damaged.
    """

    def __init__(self, model: str, dtype: str, device: str = "auto"):
        self.model, self.revision, self.dtype = model, revision(model), dtype
        self.pipe = load(model, device=device, dtype=dtype)
        self._rule = "unscaled"

    def __enter__(self) -> "Sampler":
        return self

    def __exit__(self, *exception: object) -> None:
        remove_scale(self.pipe)

    def draw_group(self, units: Sequence[Unit], store: Store) -> int:
        """Draw the units of a group that the store has not, and commit them; returns how many those were.

        All of the group is drawn even where a part is there already, so that images do not depend on what was there.
        Images that are not finite are excluded, with the reason in their record.

        Raises:
            InvalidInputError: for units of another model, revision, scheduler, dtype or drawing version.
        """
        missing = [unit for unit in units if not store.has(unit)]
        if not missing:
            return 0
        self._check(units)
        start = time.perf_counter()
        images, batch = self._draw(units)
        facts = {"seconds": (time.perf_counter() - start) / len(units), "batch": batch, "library": __version__}
        for unit, image, whole in zip(units, images, finite(images), strict=True):
            if unit not in missing:
                continue
            if whole:
                store.commit(unit, to_uint8(image[None])[0], **facts)
            else:
                store.exclude(unit, "not finite", **facts)
        return len(missing)

    def _check(self, units: Sequence[Unit]) -> None:
        here = {
            "model": {self.model},
            "revision": {self.revision},
            "dtype": {self.dtype},
            "scheduler": {OWN, type(self.pipe.scheduler).__name__},
            "drawing": {DRAWING_VERSION},
        }
        for name, allowed in here.items():
            if asked := {getattr(unit, name) for unit in units} - allowed:
                given, wanted = " or ".join(sorted(map(str, allowed))), ", ".join(sorted(map(str, asked)))
                raise InvalidInputError(
                    f"{name} here is {given}, the plan asks for {wanted}; make the plan again, or load what it asks for"
                )

    def _draw(self, units: Sequence[Unit]) -> tuple[Float[np.ndarray, "image height width 3"], int]:
        """The images and the batch that fitted into memory: halved until it does."""
        first = units[0]
        if first.rule != self._rule:
            apply_scale(self.pipe, first.rule)
            self._rule = first.rule
        prompts, seeds = [unit.prompt for unit in units], [unit.noise_seed for unit in units]
        try:
            images = draw(
                self.pipe, prompts, seeds, first.height, first.width, steps=first.steps, guidance=first.guidance
            )  # fmt: skip
            return images, len(units)
        except RuntimeError as error:
            if not out_of_memory(error) or len(units) == 1:
                raise
        # Outside the handler, which would keep the failed attempt's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halves = [self._draw(units[: len(units) // 2]), self._draw(units[len(units) // 2 :])]
        return np.concatenate([images for images, _ in halves]), min(batch for _, batch in halves)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out: a class of its own on CUDA, a message on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error) or "out of memory" in str(error)
