"""Two rival explanations that leave attention alone: at another size the noise level of a picture is another.

A larger picture of the same things is the less damaged by noise of the same variance, for more pixels show the same thing.

    schedule-shift   more noise for more pixels, as SD3 and FLUX have it; the network is told the level that it gets
    noise-told       the same noise, but the network is told another level: the one at which it denoises pictures of this size
                     best (after NoiseShift, 2510.02307)

Example:
    >>> from diffusers import DDIMScheduler
    >>> plain = DDIMScheduler(prediction_type="v_prediction")
    >>> noisier = shifted(plain, 4.0)
    >>> bool(noisier.alphas_cumprod[500] < plain.alphas_cumprod[500])
    True
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers import SchedulerMixin
from jaxtyping import UInt8
from torch import Tensor, nn

from entropy_lib.baselines.options import SHIFT
from entropy_lib.errors import UnsupportedModelError
from entropy_lib.experiments.generation import generate
from entropy_lib.experiments.noise_level import log_snr, noise_level_of, told_offset
from entropy_lib.experiments.request import check_pipeline, check_sizes, native_size
from entropy_lib.models.layers import denoiser

Pictures = UInt8[np.ndarray, "image height width 3"]


def schedule_shift(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    strength: float = SHIFT,
    **options: object,
) -> Pictures:
    """Draw with the noise schedule of the size: the signal-to-noise ratio divided by (pixels / native pixels)^strength.

    Args:
        pipe, prompts, seeds, height, width, options: as for `generate`, a rule among them.
        strength: 1 is the shift of SD3 (Esser et al. 2024, Eq. 23) and of simple diffusion.

    Raises:
        UnsupportedModelError: for a scheduler that knows neither a schedule of variances nor a shift, or shifts by itself.
        InvalidInputError: as `generate`.

    Example:
        >>> import entropy_lib as el
        >>> schedule_shift(el.load("mini"), ["a penguin"], [0], 64, 96, steps=2).shape
        (1, 64, 96, 3)
    """
    check_pipeline(pipe)
    check_sizes(pipe, [(height, width)], 1)
    rows, columns = native_size(pipe)
    ratio = (height * width / (rows * columns)) ** strength
    if ratio == 1:
        return generate(pipe, prompts, seeds, height, width, **options)  # bit for bit
    own, shifted_one = pipe.scheduler, shifted(pipe.scheduler, ratio)
    retell = _level_of(own, shifted_one)
    pipe.scheduler = shifted_one
    try:
        with retold(denoiser(pipe), retell):
            return generate(pipe, prompts, seeds, height, width, **options)
    finally:
        pipe.scheduler = own


def noise_told(
    pipe: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], height: int, width: int, **options: object
) -> Pictures:
    """Draw with the usual noise, the network being told the level at which it denoises pictures of this size best.

    Args:
        pipe, prompts, seeds, height, width, options: as for `generate`, a rule among them.

    Raises:
        InvalidInputError: where the levels of this model and size have not been measured (`calibrate_noise_level`), and as
            `generate`.
        UnsupportedModelError: for a scheduler without a schedule of variances.
    """
    check_pipeline(pipe)
    check_sizes(pipe, [(height, width)], 1)
    if (height, width) == native_size(pipe):
        return generate(pipe, prompts, seeds, height, width, **options)
    offsets = noise_level_of(pipe, height, width)
    with retold(denoiser(pipe), lambda timestep: told_offset(pipe.scheduler, timestep, offsets)):
        return generate(pipe, prompts, seeds, height, width, **options)


def shifted(scheduler: SchedulerMixin, ratio: float) -> SchedulerMixin:
    """A scheduler like the given one, all of whose signal-to-noise ratios are divided by `ratio`.

    Raises:
        UnsupportedModelError: for one that shifts by itself, or has nothing that can be shifted.
    """
    config = dict(scheduler.config)
    if config.get("use_dynamic_shifting"):
        raise UnsupportedModelError(f"{type(scheduler).__name__} shifts its schedule by the size itself (use_dynamic_shifting)")
    if "shift" in config:
        return type(scheduler).from_config(config, shift=config["shift"] * ratio**0.5)
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise UnsupportedModelError(f"{type(scheduler).__name__} has neither a schedule of variances nor a shift to change")
    signal = scheduler.alphas_cumprod.double()
    signal = signal / (signal + ratio * (1 - signal))
    betas = 1 - signal / torch.cat([signal.new_ones(1), signal[:-1]])
    return type(scheduler).from_config(config, trained_betas=betas.tolist())


def _level_of(own: SchedulerMixin, other: SchedulerMixin) -> Callable[[Tensor], Tensor]:
    """What a network trained with `own` has to be told at a timestep of `other`."""
    if getattr(own, "alphas_cumprod", None) is None:
        return lambda timestep: timestep  # flows are told the level itself
    return lambda timestep: log_snr(own).timestep(log_snr(other).at(timestep))


@contextmanager
def retold(network: nn.Module, retell: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a network be told other timesteps while the block runs; it is as it was on any exit.

    Args:
        network: the denoiser.
        retell: timestep → timestep, of any shape.
    """
    own, before = network.forward, vars(network).get("forward")

    def forward(*args: object, **kwargs: object) -> object:
        if len(args) > 1 and "timestep" not in kwargs:
            return own(args[0], retell(torch.as_tensor(args[1])), *args[2:], **kwargs)
        return own(*args, **kwargs | {"timestep": retell(torch.as_tensor(kwargs["timestep"]))})

    network.forward = forward
    try:
        yield
    finally:
        del network.forward
        if before is not None:
            network.forward = before
