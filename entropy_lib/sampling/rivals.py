"""What one would change if attention were not the cause: noise levels, positional information.

A larger image of the same things is the less damaged by noise of the same variance, for more pixels show the
same thing.

Example:
    >>> from diffusers import DDIMScheduler
    >>> plain = DDIMScheduler(prediction_type="v_prediction")
    >>> noisier = shifted(plain, 4.0)
    >>> bool(noisier.alphas_cumprod[500] < plain.alphas_cumprod[500])
    True
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers import SchedulerMixin
from torch import Tensor, nn

from entropy_lib.errors import UnsupportedModelError
from entropy_lib.models.kernels import forget_compiled
from entropy_lib.models.layers import denoiser
from entropy_lib.models.padding import padding_of, restore_padding, set_padding
from entropy_lib.sampling.generation import directly
from entropy_lib.sampling.methods import Images
from entropy_lib.sampling.multidiffusion import forward_replaced
from entropy_lib.sampling.noise_level import log_snr, moved, noise_level_of
from entropy_lib.sampling.request import Request, native_size


def schedule_shift(pipe: DiffusionPipeline, asked: Request, rule: str, strength: float) -> Images:
    """Generate with the signal-to-noise ratio divided by (pixels / native pixels)^strength.

    A strength of 1 is the shift of SD3 (Esser et al. 2024, Eq. 23) and of simple diffusion.
    """
    ratio = (asked.size.pixels / native_size(pipe).pixels) ** strength
    if ratio == 1:
        return directly(pipe, asked, rule)  # bit for bit
    own, of_the_size = pipe.scheduler, shifted(pipe.scheduler, ratio)
    pipe.scheduler = of_the_size
    try:
        with timestep_replaced(denoiser(pipe), _level_of(own, of_the_size)):
            return directly(pipe, asked, rule)
    finally:
        pipe.scheduler = own


def noise_told(pipe: DiffusionPipeline, asked: Request, rule: str) -> Images:
    """Generate with the usual noise, the network being given the level that suits this size best."""
    if asked.size == native_size(pipe):
        return directly(pipe, asked, rule)
    offsets = noise_level_of(pipe, asked.size)
    with timestep_replaced(denoiser(pipe), lambda timestep: moved(pipe.scheduler, timestep, offsets)):
        return directly(pipe, asked, rule)


def padding(pipe: DiffusionPipeline, asked: Request, rule: str, mode: str) -> Images:
    """Generate while all convolutions of the denoiser pad in another way than they were trained with."""
    with padded(denoiser(pipe), mode):
        return directly(pipe, asked, rule)


def positions(pipe: DiffusionPipeline, asked: Request, rule: str, share: float) -> Images:
    """Generate with rotary positions multiplied by (native side / side)^share, height and width apart.

    A share of 1 is position interpolation (Chen et al. 2023): at every size the image covers the coordinates
    that training saw. A share of 0 would be extrapolation, whole coordinates as the model has them by itself.
    """
    native = native_size(pipe)
    ratios = [(own / side) ** share for own, side in zip(native, asked.size, strict=True)]
    with positioned(denoiser(pipe), *ratios):
        return directly(pipe, asked, rule)


@contextmanager
def positioned(network: nn.Module, height: float, width: float) -> Iterator[None]:
    """Multiply the image's coordinates that a rotary embedding sees while the block runs."""
    embedding = rotary_embedding(network)
    axes = len(embedding.axes_dim)
    first = 0 if axes == 2 else 1  # of three or four axes, the first counts images or words
    multiplier = torch.ones(axes)
    multiplier[first : first + 2] = torch.tensor([height, width])

    texts: list[Tensor] = []

    def note(_: nn.Module, args: tuple, kwargs: dict) -> None:
        texts[:] = [kwargs["txt_ids"]] if isinstance(kwargs.get("txt_ids"), Tensor) else []

    def multiplied(_: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
        if height == width == 1:
            return None
        places = inputs[0].float() * multiplier.to(inputs[0].device)
        for text in texts:
            rows = text.shape[-2]
            if torch.equal(inputs[0][..., :rows, :], text.to(inputs[0])):
                places[..., :rows, :] = text.to(places)
        return places

    forget_compiled()
    hooks = [embedding.register_forward_pre_hook(multiplied)]
    try:
        hooks.append(network.register_forward_pre_hook(note, with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        forget_compiled()


def rotary_embedding(network: nn.Module) -> nn.Module:
    """The module of a network that makes rotary factors of coordinates, `ids` `[..., token, axis]`."""
    for module in network.children():
        parameters = list(inspect.signature(module.forward).parameters)
        if parameters == ["ids"] and hasattr(module, "axes_dim"):
            return module
    raise UnsupportedModelError(
        f"{type(network).__name__} hands no coordinates to a rotary embedding, so its positions cannot be "
        "interpolated; those of PRX, FLUX and its kin, Chroma and HiDream can"
    )


@contextmanager
def padded(network: nn.Module, mode: str) -> Iterator[None]:
    """Another padding while the block runs; every convolution is as it was on any exit."""
    before = padding_of(network)
    if not before:
        raise UnsupportedModelError(f"{type(network).__name__} has no convolution that sees a border")
    set_padding(network, mode)
    try:
        yield
    finally:
        restore_padding(network, before)


def shifted(scheduler: SchedulerMixin, ratio: float) -> SchedulerMixin:
    """A scheduler like the given one, all of whose signal-to-noise ratios are divided by `ratio`."""
    config = dict(scheduler.config)
    if config.get("use_dynamic_shifting"):
        raise UnsupportedModelError(
            f"{type(scheduler).__name__} shifts its schedule by the size itself (use_dynamic_shifting)"
        )
    if "shift" in config:
        return type(scheduler).from_config(config, shift=config["shift"] * ratio**0.5)
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise UnsupportedModelError(
            f"{type(scheduler).__name__} has neither a schedule of variances nor a shift to change"
        )
    signal = scheduler.alphas_cumprod.double()
    signal = signal / (signal + ratio * (1 - signal))
    betas = 1 - signal / torch.cat([signal.new_ones(1), signal[:-1]])
    return type(scheduler).from_config(config, trained_betas=betas.tolist())


def _level_of(own: SchedulerMixin, other: SchedulerMixin) -> Callable[[Tensor], Tensor]:
    """What a network trained with `own` is to be given at a timestep of `other`."""
    if getattr(own, "alphas_cumprod", None) is None:
        return lambda timestep: timestep  # flows are given the level itself
    return lambda timestep: log_snr(own).timestep(log_snr(other).at(timestep))


@contextmanager
def timestep_replaced(network: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a network be given other timesteps while the block runs; it is as it was on any exit."""
    own = network.forward

    def forward(*args: object, **kwargs: object) -> object:
        if len(args) > 1 and "timestep" not in kwargs:
            return own(args[0], replace(torch.as_tensor(args[1])), *args[2:], **kwargs)
        return own(*args, **kwargs | {"timestep": replace(torch.as_tensor(kwargs["timestep"]))})

    with forward_replaced(network, forward):
        yield
