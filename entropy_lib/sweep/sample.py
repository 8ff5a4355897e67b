"""How units become images: a group at a time, by a pipeline that is what the units ask for."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from entropy_lib import __version__
from entropy_lib.errors import InvalidInputError, NotFiniteError
from entropy_lib.models.catalogue import CATALOGUE, entry, load, resolve_device, resolve_dtype, revision
from entropy_lib.models.layers import denoiser
from entropy_lib.models.outline import outline_size
from entropy_lib.sampling.generation import generate, under_rule
from entropy_lib.sampling.methods import METHODS, method
from entropy_lib.sampling.request import SEEDS, distinct_rules_at, native_size
from entropy_lib.scaling.calibration import use_calibration
from entropy_lib.sweep.plan import GENERATION_VERSION, OWN, Settings, Unit
from entropy_lib.sweep.store import Pixels, Store


def settings(model: str, steps: int, guidance: float, dtype: str = "auto", device: str = "auto") -> Settings:
    """What the units of a plan share; needs no weights for a model whose revision the catalogue pins."""
    listed = CATALOGUE.get(model) if "/" in model else entry(model)
    scheduler = (listed.scheduler if listed else None) or OWN
    chosen = str(resolve_dtype(dtype, resolve_device(device), model)).removeprefix("torch.")
    return Settings(model, revision(model), scheduler, steps, guidance, chosen, outline_size(model))


class Sampler:
    """Generates the images of units of one model.

    Args:
        model, dtype: of the units to come.
        device: where to generate.
    """

    def __init__(self, model: str, dtype: str, device: str = "auto"):
        self.model, self.revision, self.dtype = model, revision(model), dtype
        self.pipe = load(model, device=device, dtype=dtype)
        self.native = native_size(self.pipe)
        self._calibration = ""

    def generate_group(self, units: Sequence[Unit], store: Store) -> int:
        """Generate the units of a group that the store has not, and commit them; returns how many those were.

        All of the group is generated even where a part is there already, so that images do not depend on what
        was there. Images that are not finite are excluded, with the reason in their record.
        """
        missing = [unit for unit in units if not store.has(unit)]
        if not missing:
            return 0
        self._check(units)
        self._calibrate(units[0].calibration, store)
        start = time.perf_counter()
        images, batch = self._generate(units)
        seconds = (time.perf_counter() - start) / len(units)
        facts = {"seconds": seconds, "batch": batch, "library": __version__}
        for unit, image in zip(units, images, strict=True):
            if unit in missing and image is None:
                store.exclude(unit, "not finite", **facts)
            elif unit in missing:
                store.commit(unit, image, **facts)
        return len(missing)

    def check_rules(self, units: Iterable[Unit], store: Store) -> None:
        """Try every rule on the network before anything is generated."""
        asked = ((method(unit.method).rule, unit.calibration, unit.height, unit.width) for unit in units)
        for rule, digest, height, width in dict.fromkeys(asked):
            self._calibrate(digest, store)
            with under_rule(self.pipe, rule):
                distinct_rules_at(self.pipe, [rule], (height, width))

    def _calibrate(self, digest: str, store: Store) -> None:
        """Let rules take their factors from a calibration that the store keeps, or from the shipped one."""
        if digest != self._calibration:
            use_calibration(denoiser(self.pipe), store.calibration(digest) if digest else None)
            self._calibration = digest

    def _check(self, units: Sequence[Unit]) -> None:
        here = {
            "model": {self.model},
            "revision": {self.revision},
            "dtype": {self.dtype},
            "scheduler": {OWN, type(self.pipe.scheduler).__name__},
            "version": {GENERATION_VERSION},
        }
        for name, allowed in here.items():
            if asked := {getattr(unit, name) for unit in units} - allowed:
                given, wanted = " or ".join(sorted(map(str, allowed))), ", ".join(sorted(map(str, asked)))
                advice = "make the plan again, or load what it asks for"
                raise InvalidInputError(f"{name} here is {given}, the plan asks for {wanted}; {advice}")

    def _generate(self, units: Sequence[Unit]) -> tuple[list[Pixels | None], int]:
        """The images, None where one is not finite, and the batch, halved until it fits into memory."""
        first, seeds = units[0], [self._seed(unit) for unit in units]
        prompts = [unit.prompt for unit in units]
        asked = {"size": (first.height, first.width), "method": first.method, "batch": len(units)}
        asked |= {"steps": first.steps, "guidance": first.guidance}
        try:
            return list(generate(self.pipe, prompts, seeds, **asked)), len(units)
        except NotFiniteError:
            if len(units) == 1:
                return [None], 1
        except RuntimeError as error:
            if not out_of_memory(error) or len(units) == 1:
                raise
        # Outside the handler, which would keep the failed attempt's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halves = [self._generate(units[: len(units) // 2]), self._generate(units[len(units) // 2 :])]
        return [*halves[0][0], *halves[1][0]], min(batch for _, batch in halves)

    def _seed(self, unit: Unit) -> int:
        """Methods that begin with an image of native size begin with the noise of native size."""
        if METHODS[method(unit.method).kind].from_native:
            unit = replace(unit, height=self.native[0], width=self.native[1])
        return unit.noise_seed % SEEDS  # all that torch's generator on the CPU uses of a seed


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out: a class of its own on CUDA, a message on the CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in said or "out of memory" in said
