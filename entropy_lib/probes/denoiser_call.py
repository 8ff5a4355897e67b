"""What each call of a denoiser is: at which step, for which branches of guidance, for which images.

Pipelines do not say; it follows from the arguments of the call, the scheduler's list of timesteps and the
pipeline's own words and variables (`models.runs`). Nothing here needs a network, so the bookkeeping can be
tried on a table of calls.

Example:
    >>> import torch
    >>> from types import SimpleNamespace
    >>> scheduler = SimpleNamespace(timesteps=torch.tensor([900, 400]))
    >>> pipeline = SimpleNamespace(scheduler=scheduler, do_classifier_free_guidance=True)
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
    """One call of the denoiser."""

    step: int  # position in the schedule, from 0
    timestep: float  # its value there
    # what the batch is made of, in order: "all", or "uncond", "cond", "perturbed"; "extra" for a call beyond
    # those that the schedule plans, as FLUX makes for true guidance
    branches: tuple[str, ...]
    images: int  # of each branch
    first_image: int  # how many images earlier batches had
    latent_size: tuple[int, int]  # height and width


class DenoiserCallTracker:
    """Follows the calls of one denoiser through steps, runs and batches."""

    def __init__(self) -> None:
        self.latest: DenoiserCall | None = None
        self._calls = 0  # at the present step
        self._frame: FrameType | None = None  # of the run in progress; a new run brings a new one
        self._schedule: Tensor | None = None  # of the latest call; a new run brings a new tensor
        self._unlisted: list[float] = []  # timesteps that are in no schedule
        self._total = 0  # images so far
        self._repeats: dict[int, int] = {}  # at each step, which batch the latest call was of, without a run
        self._firsts: list[int] = []  # first image of each such batch

    def advance(
        self,
        caller: Caller,
        batch: int,
        timestep: Tensor,
        latent_size: tuple[int, int],
        texts: Sequence[Tensor | list] = (),
    ) -> DenoiserCall:
        """The call that the network is about to get."""
        step, value, planned = self._step(caller, timestep.flatten())
        branches = _branches(caller, batch)
        images = batch // len(branches)
        if branches == GUIDED_BRANCHES and _prompt_first(caller, texts, images):
            branches = branches[::-1]
        first_image = self._count(step, caller)
        if self._calls > planned and branches == ("all",):
            branches = ("extra",)
        self._total = max(self._total, first_image + images)
        self.latest = DenoiserCall(step, value, branches, images, first_image, latent_size)
        return self.latest

    def rest(self) -> None:
        """Let go of what the latest run still holds."""
        self._frame = self._schedule = None

    def _count(self, step: int, caller: Caller) -> int:
        """Count the calls at a step, and return the images of the batches before this one.

        Either sign of a run will do: Panorama copies the schedule for each window, modular pipelines call
        from a frame a step. Without a run, a timestep that comes again is one of another batch.
        """
        earlier, schedule = self.latest, caller.schedule
        if caller.frame is None and schedule is None:
            number = self._repeats[step] = self._repeats.get(step, -1) + 1
            self._firsts += [self._total] if number == len(self._firsts) else []
            return self._firsts[number]
        same_run = schedule is self._schedule or (caller.frame is not None and caller.frame is self._frame)
        self._frame, self._schedule = caller.frame, schedule
        self._calls = 1 + (self._calls if earlier is not None and same_run and step == earlier.step else 0)
        if earlier is None:
            return 0
        return earlier.first_image + (0 if same_run and step >= earlier.step else earlier.images)

    def _step(self, caller: Caller, given: Tensor) -> tuple[int, float, float]:
        """Position of a call in the schedule, the timestep there, and how many calls are planned at it.

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
    """Whether a guided batch ends with the negative prompt, as those of Lumina and Stable Cascade do."""
    given = [value for name, value in caller.variables.items() if name.startswith("negative_prompt")]
    negative = [value for value in given if isinstance(value, Tensor)]
    ends = [list(map(id, value)) for value in given if isinstance(value, list)]
    if any(isinstance(text, list) and list(map(id, text[images:])) in ends for text in texts):
        return True  # Z-Image hands over lists
    for text in (each for each in texts if isinstance(each, Tensor)):
        for own in negative:
            if own.shape == (images, *text.shape[1:]) and len(text) == 2 * images:
                first, second = (torch.equal(half, own.to(text)) for half in text.split(images))
                if second and not first:
                    return True
    return False


def check_turns(caller: Caller, sample: Tensor, images: int) -> None:
    """Refuse a batch that does not take its images in turn.

    Where rows are none of the pipeline's latents, nothing is said.
    """
    latents = caller.variables.get("latents")
    if images < 2 or not isinstance(latents, Tensor):
        return
    if latents.shape[0] != images or latents.shape[2:] != sample.shape[2:]:
        return
    if sample.shape[1] < latents.shape[1]:  # the first of a list, as Z-Image hands over
        return
    # other channels are masks and images; lengths differ as schedulers scale what the network gets
    flat = (each[:, : latents.shape[1]].flatten(1).float() for each in (sample, latents))
    rows, own = (torch.nn.functional.normalize(each, dim=1) for each in flat)
    same = (rows @ own.mT > ALIKE).cpu()
    turns = torch.arange(len(rows)) % images
    strange = (same.any(1) & ~same[torch.arange(len(rows)), turns]).nonzero().flatten().tolist()
    if strange:
        row, image = strange[0], int(same[strange[0]].float().argmax())
        raise AttentionNotSeenError(
            f"{type(caller.pipeline).__name__} hands its network image {image} as row {row} of a batch of "
            f"{images} images, where image {int(turns[row])} has its turn (as CycleDiffusion does, which "
            "then mixes them). Generate one image at a time."
        )


def _branches(caller: Caller, batch: int) -> tuple[str, ...]:
    """What the batch is made of, in the order of diffusers; nothing is guessed beyond the pipeline's words.

    How many images a pipeline generates, its own latents say. Twice as many rows as images, where a pipeline
    says nothing of guidance, are [uncond, cond].
    """
    state = caller.variables.get("guider_state_batch")
    kind = getattr(state, "__guidance_identifier__", None)
    if kind is not None:  # a guider calls the network once for each branch
        return (GUIDER_BRANCHES.get(kind, "perturbed"),)
    latents = caller.variables.get("latents")
    images = latents.shape[0] if isinstance(latents, Tensor) and latents.ndim > 1 else 0
    rows = batch // images if images and batch % images == 0 else None
    guided = getattr(caller.pipeline, GUIDED, caller.variables.get(GUIDED))
    perturbed = bool(getattr(caller.pipeline, "do_perturbed_attention_guidance", False))
    if guided is None:
        guided = rows == 2 + perturbed
    names = ("uncond",) if guided else ()
    names += ("cond",) if guided or perturbed else ("all",)
    names += ("perturbed",) if perturbed else ()
    if rows is None:
        return names if batch % len(names) == 0 else ("all",)
    return names if rows == len(names) else ("all",) * rows
