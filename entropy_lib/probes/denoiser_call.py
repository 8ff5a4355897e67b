"""What each call of a denoiser is: at which step, for which branches of guidance, for which images.

Pipelines do not tell; it follows from the arguments of the call, the scheduler's list of timesteps and the
pipeline's own words and variables (`models.runs`). Nothing here needs a network, so the bookkeeping can be
tried on a table of calls.

Example:
    >>> import torch
    >>> from types import SimpleNamespace
    >>> pipeline = SimpleNamespace(scheduler=SimpleNamespace(timesteps=torch.tensor([900, 400])), do_classifier_free_guidance=True)
    >>> call = DenoiserCallTracker().advance(Caller(pipeline), 4, torch.tensor(400), (8, 12))
    >>> call.step, call.branches, call.images
    (1, ('uncond', 'cond'), 2)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from entropy_lib.errors import AttentionNotSeenError
from entropy_lib.models.runs import Caller, current

GUIDED = "do_classifier_free_guidance"
ALIKE = 0.999  # cosine of two images that differ by rounding
GUIDED_BRANCHES = ("uncond", "cond")
# of modular pipelines; what else they predict is perturbed
GUIDER_BRANCHES = {"pred_cond": "cond", "pred_uncond": "uncond"}


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser.

    Attributes:
        step: position in the schedule, from 0.
        timestep: its value there.
        branches: what the batch is made of, in order: "all", or "uncond", "cond", "perturbed"; "extra" for a
            call beyond those that the schedule plans, as FLUX makes for true guidance.
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
    """Follows the calls of one denoiser through steps, runs and batches."""

    def __init__(self) -> None:
        self.latest: DenoiserCall | None = None
        self._calls = 0  # at the present step
        self._frame: FrameType | None = None  # of the run in progress; a new run brings a new one
        self._schedule: Tensor | None = None  # of the latest call; a new run brings a new tensor
        self._unlisted: list[float] = []  # timesteps that are in no schedule

    def advance(
        self,
        caller: Caller,
        batch: int,
        timestep: Tensor,
        latent_size: tuple[int, int],
        texts: Sequence[Tensor | list] = (),
    ) -> DenoiserCall:
        """The call that the network is about to get.

        Args:
            caller: the pipeline, and the variables that it calls from.
            batch: rows of the network's input.
            timestep: that it is told.
            latent_size: of the image that is drawn.
            texts: what else the network is given, states of the text among it.
        """
        step, value, planned = self._step(caller, timestep.flatten())
        known = _images(caller, batch)
        branches = _branches(caller, batch, known)
        images = batch // len(branches)
        branches = (
            branches[::-1]
            if branches == GUIDED_BRANCHES and _prompt_first(caller, texts, images)
            else branches
        )
        first_image = self._count(step, caller)
        branches = ("extra",) if self._calls > planned and branches == ("all",) else branches
        self.latest = DenoiserCall(step, value, branches, images, first_image, latent_size)
        return self.latest

    def rest(self) -> None:
        """Let go of what the latest run still holds."""
        self._frame = self._schedule = None

    def _count(self, step: int, caller: Caller) -> int:
        """Count the calls at a step, and return the images of the batches before this one.

        Either sign of a run will do: Panorama copies the schedule for each window, modular pipelines call
            from a frame a step.
        """
        earlier, schedule = self.latest, caller.schedule
        same_run = schedule is self._schedule or (caller.frame is not None and caller.frame is self._frame)
        self._frame, self._schedule = caller.frame, schedule
        self._calls = 1 + (self._calls if earlier is not None and same_run and step == earlier.step else 0)
        if earlier is None:
            return 0
        return earlier.first_image + (0 if same_run and step >= earlier.step else earlier.images)

    def _step(self, caller: Caller, given: Tensor) -> tuple[int, float, float]:
        """Position of a call in the schedule, the timestep there, and how many calls the schedule plans at
        it.

        Counting calls would be wrong: PNDM calls the denoiser twice at one of its timesteps. Without a
        schedule, or where a sampler takes a step between its timesteps, timesteps are numbered in the order
        of first appearance.
        """
        entry = current(caller, given)
        if entry is not None and caller.schedule is not None:
            entries = caller.schedule.tolist()
            return list(dict.fromkeys(entries)).index(entry), entry, entries.count(entry)
        timestep = float(given[0])
        if timestep not in self._unlisted:
            self._unlisted.append(timestep)
        return self._unlisted.index(timestep), timestep, math.inf


def _prompt_first(caller: Caller, texts: Sequence[Tensor | list], images: int) -> bool:
    """Whether a guided batch ends with the negative prompt, as those of Lumina and Stable Cascade; elsewhere
    it begins with it.
    """
    given = [value for name, value in caller.variables.items() if name.startswith("negative_prompt")]
    negative = [value for value in given if isinstance(value, Tensor)]
    ends = [list(map(id, value)) for value in given if isinstance(value, list)]
    if any(isinstance(text, list) and list(map(id, text[images:])) in ends for text in texts):
        return True  # Z-Image hands over lists
    for text in (each for each in texts if isinstance(each, Tensor)):
        for own in negative:
            if own.shape == (images, *text.shape[1:]) and len(text) == 2 * images:
                halves = [torch.equal(half, own.to(text)) for half in text.split(images)]
                if halves == [False, True]:
                    return True
    return False


def check_turns(caller: Caller, sample: Tensor, images: int) -> None:
    """Refuse a batch that does not take its images in turn; where rows are none of the pipeline's latents,
    nothing is said.

    Args:
        caller: the pipeline, and the variables that it calls from.
        sample: rows of the network's input.
        images: how many images each branch is taken to have.
    """
    latents = caller.variables.get("latents")
    if (
        images < 2
        or not isinstance(latents, Tensor)
        or latents.shape[0] != images
        or latents.shape[2:] != sample.shape[2:]
    ):
        return
    # other channels are masks and images
    rows, own = (_directions(each[:, : latents.shape[1]]) for each in (sample, latents))
    same = (rows @ own.mT > ALIKE).cpu()
    turns = torch.arange(len(rows)) % images
    strange = (same.any(1) & ~same[torch.arange(len(rows)), turns]).nonzero().flatten().tolist()
    if strange:
        raise AttentionNotSeenError(
            f"{type(caller.pipeline).__name__} hands its network image {int(same[strange[0]].float().argmax())} as row "
            f"{strange[0]} of a batch of {images} images, where image {int(turns[strange[0]])} has its turn (as CycleDiffusion "
            "does, which then mixes them). Draw one image at a time."
        )


def _directions(pictures: Tensor) -> Tensor:
    """Each image as a vector of length 1: schedulers scale what the network gets."""
    return torch.nn.functional.normalize(pictures.flatten(1).float(), dim=1)


def _images(caller: Caller, batch: int) -> int | None:
    """How many images a pipeline is drawing, by its own latents; None where it does not say, or they are no
    rows.
    """
    latents = caller.variables.get("latents")
    images = latents.shape[0] if isinstance(latents, Tensor) and latents.ndim > 1 else 0
    return images if images and batch % images == 0 else None


def _branches(caller: Caller, batch: int, images: int | None) -> tuple[str, ...]:
    """What the batch is made of, in the order of diffusers; nothing is guessed where the pipeline's words do
    not account for it.

    Twice as many rows as images, where a pipeline says nothing of guidance, are [uncond, cond].
    """
    told = getattr(caller.variables.get("guider_state_batch"), "__guidance_identifier__", None)
    if told is not None:  # a guider calls the network once for each branch
        return (GUIDER_BRANCHES.get(told, "perturbed"),)
    pipeline, rows = caller.pipeline, None if images is None else batch // images
    guided = getattr(pipeline, GUIDED, caller.variables.get(GUIDED))
    perturbed = bool(getattr(pipeline, "do_perturbed_attention_guidance", False))
    if guided is None:
        guided = rows == 2 + perturbed
    names = (
        *(("uncond",) if guided else ()),
        *(("cond",) if guided or perturbed else ("all",)),
        *(("perturbed",) if perturbed else ()),
    )
    if rows is None:
        return names if batch % len(names) == 0 else ("all",)
    return names if rows == len(names) else ("all",) * rows
