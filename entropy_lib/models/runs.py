"""Where in a pipeline's run a call of its network is. Pipelines do not tell the network; their own variables
say it.

`t`, `latents` and `do_classifier_free_guidance` are what nearly every pipeline of diffusers calls them, and a
call of the network is made from among them.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from entropy_lib.models.networks import family

TRAINING_TIMESTEPS = 1000  # of a network that is called without a schedule


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
    known = family(network)
    for name in ("timestep", "t", "timestep_ratio"):
        given = known.given(name, args, kwargs)
        if given is not None:
            return torch.as_tensor(given).flatten()[:1]
    return torch.tensor([torch.nan])


def listed(timestep: Tensor, schedule: Tensor | None) -> float | None:
    """The entry of a schedule that a network's timestep means, which may be a thousandth of it, or counted
    from the other end.
    """
    if schedule is None or not len(schedule):
        return None
    rounding = torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
    entries, given = schedule.tolist(), float(timestep)
    for meant in (given, given * TRAINING_TIMESTEPS):
        nearest = min(entries, key=lambda entry: abs(entry - meant))
        if abs(nearest - meant) <= rounding * abs(meant):
            return nearest
    return None


def progress(network: nn.Module, args: tuple, kwargs: dict) -> float:
    """Which share of the run lies behind a call of a network: 0 at pure noise, towards 1 at the image.

    A network that no pipeline calls has no run: there it is the share of the noise schedule, by its timestep.
    """
    caller, given = caller_of(network), timestep_of(network, args, kwargs)
    schedule = caller.schedule
    entry = current(caller, given)
    if schedule is not None and entry is not None:
        entries = list(dict.fromkeys(schedule.tolist()))
        return entries.index(entry) / len(entries)
    timestep = float(given)
    return (
        1
        - (timestep if not given.is_floating_point() or timestep > 1 else timestep * TRAINING_TIMESTEPS)
        / TRAINING_TIMESTEPS
    )


def current(caller: Caller, given: Tensor) -> float | None:
    """The entry of the schedule that a pipeline is at."""
    t = caller.variables.get("t")
    if isinstance(t, Tensor | float | int) and torch.as_tensor(t).numel() == 1:
        found = listed(torch.as_tensor(t).flatten(), caller.schedule)
        if found is not None:
            return found
    return listed(given, caller.schedule)
