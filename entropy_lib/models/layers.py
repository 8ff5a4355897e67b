"""Finding the self-attention of a diffusers model: which layers, at how many tokens, on what grid.

A layer is self-attention when its keys come from its own input; joint attention, where text and image tokens attend to
all of both, counts too. That is decided by running the model: block names and key counts mislead (a cross-attention may
carry the name attn1; a 7 x 11 grid has as many keys as a prompt, 77). The run uses a weightless twin on the meta device,
so it costs neither time nor memory and works for any size.
"""

import fnmatch
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from entropy_lib.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.models.networks import FAMILIES, family

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import, and not needed to look into a model

DiffusionModel: TypeAlias = "DiffusionPipeline | nn.Module"  # a pipeline, or its denoising network


def denoiser(model: DiffusionModel) -> nn.Module:
    """The denoising network of a pipeline (`unet` or `transformer`), or the model itself.

    Raises:
        UnsupportedModelError: when there is none.
    """
    for part in (model, getattr(model, "unet", None), getattr(model, "transformer", None)):
        if isinstance(part, nn.Module):
            return getattr(part, "_orig_mod", part)  # what torch.compile wraps
    raise UnsupportedModelError(
        f"expected a diffusers pipeline with a unet or transformer, or the network itself; got {type(model).__name__}"
    )


def forget_compiled() -> None:
    """Make compiled models compile again: their graphs do not notice hooks that come or go after compilation.

    Does nothing where nothing has been compiled in this process.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]["total"]:
        torch.compiler.reset()


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention layer of diffusers, recognised by its projections."""
    return hasattr(module, "heads") and (hasattr(module, "to_q") or hasattr(module, "to_qkv"))


def is_joint(attention: nn.Module) -> bool:
    """Whether text has queries of its own in an attention layer, so that text and image tokens share one softmax."""
    return getattr(attention, "add_q_proj", None) is not None


@dataclass(frozen=True)
class SelfAttentionInput:
    """What enters a call of self-attention: the layer's hidden states, and text where the layer is joint."""

    hidden: Tensor
    text: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Keys of the call: those of the image, and of the text that joins them."""
        hidden, own = self.hidden, 0 if self.text is None else self.text.shape[1]
        return own + (hidden.shape[1] if hidden.ndim == 3 else hidden.shape[-2] * hidden.shape[-1])


def self_attention_input(attention: nn.Module, args: tuple, kwargs: dict) -> SelfAttentionInput | None:
    """The input of an attention call whose keys come from it, or None where they come from elsewhere."""
    hidden = args[0] if args else kwargs["hidden_states"]
    source = args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states")
    if source is None or source is hidden:
        return SelfAttentionInput(hidden)
    return SelfAttentionInput(hidden, source) if is_joint(attention) else None


def tokens_at(model: DiffusionModel, height: int, width: int, text_tokens: int | None = None) -> dict[str, int]:
    """Tokens of every self-attention layer for latents of the given size, traced on a weightless twin.

    Args:
        model: a pipeline or its denoising network.
        height: latent height (pixels / 8 for Stable Diffusion, / 4 for `mini`).
        width: latent width.
        text_tokens: tokens of text, counted where they join the self-attention (SD3, FLUX); by default those of a
            default call.

    Returns:
        {layer name: tokens}, in the order of execution.

    Raises:
        UnsupportedModelError: when the network is of no known family.
        InvalidInputError: when it has no self-attention, and for a size that is none.
    """
    network = denoiser(model)
    height, width = check_latent_size((height, width))
    text = family(network).text_tokens if text_tokens is None else text_tokens
    counts = dict(_trace_tokens(type(network), _hashable(dict(network.config)), height, width, text))
    if not counts:
        raise InvalidInputError(
            f"{type(network).__name__} has no self-attention layer; there is no entropy to measure and no scale to change"
        )
    return counts


TRAINING_SIZE = "_entropy_lib_training_size"  # attribute of a network whose training size is not what its config says


def note_training_size(network: nn.Module, latent_size: tuple[int, int] | None) -> None:
    """Let everything that asks for a network's training size, the patch and the probes alike, get this one; None forgets it."""
    if latent_size is not None:
        setattr(network, TRAINING_SIZE, latent_size)
    elif hasattr(network, TRAINING_SIZE):
        delattr(network, TRAINING_SIZE)


def native_latent_size(model: DiffusionModel) -> tuple[int, int]:
    """Height and width in latent pixels at the size that a pipeline's denoiser was trained on.

    Where `apply_scale` was given a `latent_size` it is that one, as long as the patch is in place; else that of the config.
    """
    network = denoiser(model)
    return getattr(network, TRAINING_SIZE, None) or family(network).native_size(dict(network.config))


def training_tokens(
    model: DiffusionModel, latent_size: tuple[int, int] | None = None, text_tokens: int | None = None
) -> dict[str, int]:
    """Tokens T of every self-attention layer at the size the model was trained on.

    Traced, not scaled by area: each level of a UNet halves and rounds up, so 25 x 25 latents give 625, 169, 49, 16 tokens.

    Args:
        model: a pipeline or its denoising network.
        latent_size: height and width of the training latents; by default `native_latent_size`.
        text_tokens: as for `tokens_at`. While a model runs, the patch and the probe use the number in that call.

    Returns:
        {layer name: T}, in the order of execution.

    Raises:
        UnsupportedModelError: when the network is of no known family.
        InvalidInputError: when it has no self-attention, and for a size that is none.

    Example:
        >>> import entropy_lib as el
        >>> sorted(set(el.training_tokens(el.load("mini")).values()))
        [16, 64, 256]
    """
    size = native_latent_size(model) if latent_size is None else check_latent_size(latent_size)
    return tokens_at(model, *size, text_tokens)


def check_latent_size(latent_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in latent pixels as integers.

    Raises:
        InvalidInputError: when they are not two whole numbers from 1.
    """
    try:
        height, width = map(operator.index, latent_size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise InvalidInputError(f"latent_size is {latent_size!r}; give height and width in latent pixels, for example (64, 64)")
    return height, width


def select_layers(available: Sequence[str], wanted: str | Sequence[str] | None) -> list[str]:
    """The layers whose names match any of the `wanted` names or glob patterns; None selects all.

    Raises:
        UnknownNameError: when a name or pattern matches nothing, or there is none.

    Example:
        >>> select_layers(["mid_block.attn1", "up_blocks.0.attn1"], "up_blocks.*")
        ['up_blocks.0.attn1']
    """
    if wanted is None:
        return list(available)
    patterns = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise UnknownNameError("layer", wanted, available)
    for pattern in patterns:
        if not fnmatch.filter(available, pattern):
            raise UnknownNameError("layer", pattern, available)
    return [name for name in available if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a level with `tokens` tokens in a network that halves `height` x `width`, rounding up.

    Returns (0, 0) where no level has that many tokens.

    Example:
        >>> grid(169, 25, 25)
        (13, 13)
    """
    while height * width > tokens and (height > 1 or width > 1):
        height, width = -(-height // 2), -(-width // 2)
    return (height, width) if height * width == tokens else (0, 0)


def _hashable(config: dict):
    """A hashable copy of a config (nested lists and dicts become tuples)."""
    if isinstance(config, dict):
        return tuple((key, _hashable(value)) for key, value in config.items() if not key.startswith("_"))
    return tuple(_hashable(item) for item in config) if isinstance(config, list | tuple) else config


@lru_cache(maxsize=64)
def _trace_tokens(network_class: type, frozen_config: tuple, height: int, width: int, text: int) -> tuple[tuple[str, int], ...]:
    from diffusers.models.attention_dispatch import attention_backend  # not before there is a network of diffusers

    config, counts = dict(frozen_config), {}
    with torch.device("meta"), torch.no_grad(), attention_backend("native"):  # others, as flex, refuse the meta device
        twin = network_class.from_config(config).eval()
        for name, module in twin.named_modules():
            if is_attention(module):
                module.register_forward_pre_hook(_count_tokens(name, counts), with_kwargs=True)
        twin(**FAMILIES[network_class.__name__].inputs(config, height, width, text))
    return tuple(counts.items())


def _count_tokens(name: str, counts: dict[str, int]):
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = self_attention_input(module, args, kwargs)
        if given is not None:
            counts[name] = given.tokens

    return hook
