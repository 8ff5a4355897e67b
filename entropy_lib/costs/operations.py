"""Floating-point operations of one call of a denoiser, counted by torch on a network without weights."""

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from entropy_lib.models.layers import denoiser, tokens_at
from entropy_lib.models.networks import family
from entropy_lib.sizes import Size

TEXT_TOKENS = 77  # of a prompt as CLIP reads it, for networks that keep text apart


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one call of a denoiser for one image; a multiplication and its addition count as two.

    Attributes:
        total: convolutions and matrix products; what is done element by element is not counted.
        self_attention: of them, QKᵀ and the product of the weights with V, in self-attention.
        tokens: the most tokens of any self-attention layer.
    """

    total: int
    self_attention: int
    tokens: int

    @property
    def share(self) -> float:
        """Of self-attention in all."""
        return self.self_attention / self.total


def count_operations(pipe: DiffusionPipeline | nn.Module, height: int, width: int) -> Operations:
    """Count the operations of a model's denoiser at a size. Nothing is computed, so any size can be asked.

    Args:
        pipe: a pipeline or its denoiser.
        height, width: of the latents.

    Raises:
        UnsupportedModelError, InvalidInputError: as `tokens_at`.

    Example:
        >>> import entropy_lib as el
        >>> counted = count_operations(el.load("sd21-base", random_weights=True, device="meta"), 64, 64)
        >>> round(counted.total / 1e9), round(counted.share, 2)
        (804, 0.15)
    """
    network, counts = denoiser(pipe), tokens_at(pipe, height, width)
    with torch.device("meta"), torch.no_grad():
        twin = type(network).from_config(network.config).eval()
        with FlopCounterMode(display=False) as counter:
            twin(**_inputs(network, height, width))
    modules = dict(twin.named_modules())
    own = sum(4 * tokens**2 * modules[name].inner_dim for name, tokens in counts.items())
    return Operations(counter.get_total_flops(), own, max(counts.values()))


def denoiser_inputs(pipe: DiffusionPipeline, size: Size, images: int) -> dict[str, object]:
    """What a pipeline would give its denoiser for a batch of images of a size: on its device, noise in place of zeros."""
    network = denoiser(pipe)
    inputs = _inputs(network, *(side // pipe.vae_scale_factor for side in size))
    return {key: _as_given(value, images, network) for key, value in inputs.items()}


def _inputs(network: nn.Module, height: int, width: int) -> dict[str, object]:
    """Inputs of one call, with as much text as a prompt has where the family's own is one token: shapes are all that counts."""
    known = family(network)
    inputs = known.inputs(dict(network.config), height, width, known.text_tokens)
    if not known.text_tokens and "encoder_hidden_states" in inputs:
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].expand(-1, TEXT_TOKENS, -1)
    return inputs


def _as_given(value: object, images: int, network: nn.Module) -> object:
    if isinstance(value, dict):
        return {key: _as_given(each, images, network) for key, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if value.dim() < 2 or not value.is_floating_point():
        return value.to(network.device)
    batch = value.expand(images, *value.shape[1:]) if value.shape[0] == 1 else value
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    return (noise if value.shape[0] == 1 else value).to(network.device, network.dtype)
