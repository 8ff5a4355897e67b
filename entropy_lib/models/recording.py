"""Learning from a real call how a network is called, where its signature and configuration do not say it.

Of a pipeline the library makes that call by itself: with a prompt alone, and no further than to its network.
Pipelines that need more than a prompt, and networks by themselves, are shown once by the user (`recording`).
"""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entropy_lib.errors import AttentionNotSeenError, UnsupportedModelError
from entropy_lib.models.layers import forget_traces
from entropy_lib.models.networks import (
    RECORDED,
    Family,
    Recorded,
    bare,
    config_of,
    family,
    named,
    parameters_of,
    sample_of,
)
from entropy_lib.models.runs import own_options
from entropy_lib.models.trace import said

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@contextmanager
def recording(network: nn.Module) -> Iterator[None]:
    """Learn from the calls of a network inside a `with` block how it is called.

    Args:
        network: the denoiser, as `pipe.transformer`.

    Raises:
        AttentionNotSeenError: where the block ends without a call of it.
        UnsupportedModelError: from its call, where that does not say height and width.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with recording(pipe.unet):
        ...     _ = pipe("a penguin", num_inference_steps=1)
        >>> len(el.training_tokens(pipe))
        10
    """
    called = []

    def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
        RECORDED[type(module), config_of(module)] = _recorded(module, args, kwargs)
        called.append(True)

    handle = network.register_forward_pre_hook(keep, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()
        forget_traces()
    if not called:
        raise AttentionNotSeenError(
            f"{type(network).__name__} was not called inside the block, so nothing was learnt: call the "
            "pipeline that it belongs to there"
        )


def _recorded(network: nn.Module, args: tuple, kwargs: dict) -> Recorded:
    given = named(network, args, kwargs)
    text = given.get("encoder_hidden_states")
    length = text.shape[1] if isinstance(text, Tensor) and text.ndim == 3 else 0
    bared = Recorded(tree_map(bare, given), (0, 0), length)
    known = Family(parameters_of(type(network)), "packed" if bared.places else "image")
    try:
        size, dimensions = known.latent_size(given), sample_of(given).ndim
    except Exception as error:  # places in an order of their own
        raise UnsupportedModelError(
            f"{type(network).__name__} says where its tokens are in a way that is not known ({said(error)})"
        ) from error
    if dimensions < 4 and not bared.places:
        raise UnsupportedModelError(
            f"{type(network).__name__} takes its latents as a row of tokens, which says nothing of height "
            "and width"
        )
    return Recorded(bared.arguments, size, length)


class _Reached(BaseException):
    """Ends the call of a pipeline where it calls its network; no pipeline catches it."""


def learn(pipe: "DiffusionPipeline", network: nn.Module) -> None:
    """Find out how a network is called: by itself, or from a call of its pipeline with a prompt alone.

    That call ends where the network begins, and leaves pipeline, scheduler and random numbers as they were.
    """
    try:
        family(network)
    except UnsupportedModelError as unknown:
        try:
            _call(pipe, network)
        except Exception as error:  # pipelines raise whatever they like
            raise UnsupportedModelError(
                f"{unknown}. Nor does {type(pipe).__name__} call it for a prompt alone ({said(error)})"
            ) from error
        family(network)


def _call(pipe: "DiffusionPipeline", network: nn.Module) -> None:
    own = copy.copy(pipe)  # keeps what a call notes on its pipeline
    own.__dict__["scheduler"] = copy.deepcopy(getattr(pipe, "scheduler", None))
    own.set_progress_bar_config(disable=True)
    options = {"prompt": "a", "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent"}
    options["generator"] = torch.Generator().manual_seed(0)
    accepted = inspect.signature(pipe.__call__).parameters
    given = own_options(pipe) | {name: value for name, value in options.items() if name in accepted}

    def stop(*_: object) -> None:
        raise _Reached

    handle = network.register_forward_pre_hook(stop, prepend=True)
    try:
        with torch.random.fork_rng(), recording(network), suppress(_Reached):
            own(**given)
    finally:
        handle.remove()
