"""What each call of a denoiser is: at which step, for which branches of guidance, for which images.

Pipelines do not tell; it follows from the arguments of the call, the scheduler's list of timesteps and the pipeline's own
words on guidance. Nothing here needs a network, so the bookkeeping can be tried on a table of calls.

Example:
    >>> from types import SimpleNamespace
    >>> from entropy_lib.models.networks import FAMILIES
    >>> pipeline = SimpleNamespace(scheduler=SimpleNamespace(timesteps=torch.tensor([900, 400])), do_classifier_free_guidance=True)
    >>> tracker = DenoiserCallTracker(pipeline, FAMILIES["UNet2DConditionModel"])
    >>> call = tracker.advance((torch.zeros(4, 4, 8, 12), torch.tensor(400)), {})
    >>> call.step, call.branches, call.images, call.latent_size
    (1, ('uncond', 'cond'), 2, (8, 12))
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entropy_lib.models.networks import Family


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser.

    Attributes:
        step: position in the schedule, from 0.
        timestep: its value there.
        branches: what the batch is made of, in order: "all", or "uncond", "cond", "perturbed"; "extra" for a call beyond those
            that the schedule plans, as FLUX makes for true guidance.
        images: of each branch.
        first_image: how many images earlier batches had.
        latent_size: height and width.
    """

    step: int
    timestep: float
    branches: tuple[str, ...]
    images: int
    first_image: int
    latent_size: tuple[int, int]


class DenoiserCallTracker:
    """Follows the calls of one denoiser through steps, runs and batches.

    Args:
        pipeline: what calls the denoiser: anything with a `scheduler` and the properties of guidance that diffusers'
            pipelines have; a bare network has none of them.
        family: of the network.
    """

    def __init__(self, pipeline: object, family: Family):
        self.pipeline, self.family = pipeline, family
        self.latest: DenoiserCall | None = None
        self._calls = 0  # at the present step
        self._schedule: Tensor | None = None  # of the run in progress; a new run brings a new tensor
        self._unlisted: list[float] = []  # timesteps that are in no schedule

    def advance(self, args: tuple, kwargs: dict) -> DenoiserCall:
        """The call that the network is about to get with these arguments."""
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        given = args[1] if len(args) > 1 and "timestep" not in kwargs else kwargs["timestep"]
        schedule = getattr(getattr(self.pipeline, "scheduler", None), "timesteps", None)
        step, timestep, planned = self._step(torch.as_tensor(given), schedule)
        first_image = self._count(step, schedule)
        branches = ("extra",) if self._calls > planned else self._branches(sample)
        images, size = sample.shape[0] // len(branches), self.family.latent_size(sample, kwargs)
        self.latest = DenoiserCall(step, timestep, branches, images, first_image, size)
        return self.latest

    def _count(self, step: int, schedule: Tensor | None) -> int:
        """Count the calls at a step, and return the images of the batches before this one."""
        earlier, same_run = self.latest, schedule is self._schedule
        self._schedule = schedule
        self._calls = 1 + (self._calls if earlier is not None and same_run and step == earlier.step else 0)
        if earlier is None:
            return 0
        return earlier.first_image + (0 if same_run and step >= earlier.step else earlier.images)

    def _branches(self, sample: Tensor) -> tuple[str, ...]:
        """What the batch is made of, in the order of diffusers. Pipelines that do not say have doubled their latents."""
        guided = getattr(self.pipeline, "do_classifier_free_guidance", None)
        if guided is None and self.family.guidance_in_batch and not isinstance(self.pipeline, nn.Module):
            guided = sample.shape[0] % 2 == 0 and torch.equal(*sample.chunk(2))
        perturbed = bool(getattr(self.pipeline, "do_perturbed_attention_guidance", False))
        if not guided and not perturbed:
            return ("all",)
        branches = (*(("uncond",) if guided else ()), "cond", *(("perturbed",) if perturbed else ()))
        return branches if sample.shape[0] % len(branches) == 0 else ("all",)

    def _step(self, given: Tensor, schedule: Tensor | None) -> tuple[int, float, float]:
        """Position of a timestep in the schedule, its value there, and how many calls the schedule plans at it.

        Counting calls would be wrong: PNDM calls the denoiser twice at one of its timesteps. FLUX hands over a thousandth of
        the timestep in the model's precision, so the nearest one is meant. Without a schedule, or where a sampler takes a
        step between its timesteps, timesteps are numbered in the order of first appearance.
        """
        timestep = float(given.flatten()[0]) * self.family.timestep_unit
        rounding = torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
        listed = [] if schedule is None else [float(t) for t in schedule]
        nearest = min(listed, key=lambda t: abs(t - timestep), default=math.inf)
        if abs(nearest - timestep) <= rounding * abs(timestep):
            return list(dict.fromkeys(listed)).index(nearest), nearest, listed.count(nearest)
        if timestep not in self._unlisted:
            self._unlisted.append(timestep)
        return self._unlisted.index(timestep), timestep, math.inf
