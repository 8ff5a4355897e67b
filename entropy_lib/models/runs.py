"""How pipelines are called, and where in a pipeline's run a call of its network is.

Pipelines do not tell the network; their own variables say it: `t`, `latents` and
`do_classifier_free_guidance` are what nearly every pipeline of diffusers calls them, and a call of the
network is made from among them.
"""

import inspect
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from entropy_lib.models.layers import denoiser
from entropy_lib.models.networks import named, parameters_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TRAINING_TIMESTEPS = 1000  # of a network that is called without a schedule


# what keeps a pipeline from changing what it was asked for: PixArt else takes the nearest of its own sizes;
# one frame of a video is an image
KEPT = {"use_resolution_binning": False, "clean_caption": False, "num_frames": 1}


def own_options(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Arguments that keep a pipeline from changing what it was asked for; see `KEPT`."""
    accepted = inspect.signature(pipe.__call__).parameters
    return {name: value for name, value in KEPT.items() if name in accepted}


def is_truly_guided(pipe: "DiffusionPipeline") -> bool:
    """Whether guidance is `true_cfg_scale` with a negative prompt alone (Qwen-Image)."""
    accepted = inspect.signature(pipe.__call__).parameters
    if "true_cfg_scale" not in accepted or denoiser(pipe).config.get("guidance_embeds"):
        return False
    return "guidance_scale" not in accepted or accepted["guidance_scale"].default is None


@contextmanager
def call_options(pipe: "DiffusionPipeline", guidance: float, count: int) -> Iterator[dict[str, Any]]:
    """What a pipeline's call is given beside prompts and a size, for this guidance.

    Where the call has no word for guidance, the pipeline's guider is set to it for the block (HunyuanImage).
    """
    accepted, options = inspect.signature(pipe.__call__).parameters, own_options(pipe)
    if is_truly_guided(pipe):
        negative = {"negative_prompt": [" "] * count} if guidance > 1 else {}
        yield options | {"true_cfg_scale": guidance} | negative
    elif "guidance_scale" in accepted or getattr(pipe, "guider", None) is None:
        yield options | {"guidance_scale": guidance}
    else:
        own, pipe.guider = pipe.guider, pipe.guider.new(guidance_scale=guidance)
        try:
            yield options
        finally:
            pipe.guider = own


def returned_images(output: Any) -> Any:
    """The images `[image, height, width, 3]` that a pipeline returned; of videos the first frames."""
    return output.images if hasattr(output, "images") else output.frames[:, 0]


@dataclass(frozen=True)
class Caller:
    """What calls a network: a pipeline, or the components of a modular one, and the variables of its loop."""

    pipeline: object = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    frame: FrameType | None = None  # of the loop: one run of a pipeline has one

    @property
    def schedule(self) -> Tensor | None:
        """The timesteps of the run."""
        return getattr(getattr(self.pipeline, "scheduler", None), "timesteps", None)


def caller_of(network: nn.Module) -> Caller:
    """The pipeline whose loop calls a network just now; nothing where it is called by other code."""
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_code.co_varnames
        for name in ("components", "self"):
            if name in names:
                owner = frame.f_locals.get(name)
                if not isinstance(owner, nn.Module) and hasattr(
                    getattr(owner, "scheduler", None), "timesteps"
                ):
                    return Caller(owner, frame.f_locals, frame)
        frame = frame.f_back
    return Caller()


def timestep_of(network: nn.Module, args: tuple, kwargs: dict) -> Tensor:
    """The timestep that a call hands to the network; NaN where it hands none."""
    given = named(network, args, kwargs)
    said = (given[name] for name in ("timestep", "t", "timestep_ratio") if given.get(name) is not None)
    return torch.as_tensor(next(said, torch.nan)).flatten()[:1]


def listed(timestep: Tensor, schedule: Tensor | None) -> float | None:
    """The entry of a schedule that a network's timestep means, which may be a thousandth of it."""
    if schedule is None or not len(schedule):
        return None
    rounding = torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
    entries, given = schedule.tolist(), float(timestep)
    if given in entries:
        return given
    for meant in (given, given * TRAINING_TIMESTEPS):
        nearest = min(entries, key=lambda entry: abs(entry - meant))
        if abs(nearest - meant) <= rounding * abs(meant):
            return nearest
    return None


def progress(network: nn.Module, args: tuple, kwargs: dict) -> float:
    """Which share of the run lies behind a call of a network: 0 at pure noise, towards 1 at the image.

    A network that no pipeline calls has no run: there it is the share of the noise schedule, by its timestep,
    and NaN where that may run either way.
    """
    caller, given = caller_of(network), timestep_of(network, args, kwargs)
    schedule = caller.schedule
    entry = current(caller, given)
    if schedule is not None and entry is not None:
        entries = list(dict.fromkeys(schedule.tolist()))
        return entries.index(entry) / len(entries)
    falls = "sample" in parameters_of(type(network)) or not given.is_floating_point()
    return 1 - float(given) / TRAINING_TIMESTEPS if falls else math.nan


def current(caller: Caller, given: Tensor) -> float | None:
    """The entry of the schedule that a pipeline is at."""
    t = caller.variables.get("t")
    if isinstance(t, Tensor | float | int) and torch.as_tensor(t).numel() == 1:
        found = listed(torch.as_tensor(t).flatten(), caller.schedule)
        if found is not None:
            return found
    return listed(given, caller.schedule)
