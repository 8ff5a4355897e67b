"""Floating-point operations of one call of a denoiser, counted by torch on a network without weights."""

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from entropy_lib.costs.configuration import TEXT_TOKENS
from entropy_lib.models.layers import denoiser, tokens_at
from entropy_lib.models.networks import family


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one call of a denoiser for one picture; a multiplication and its addition count as two.

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


def count_operations(pipe: DiffusionPipeline | nn.Module, height: int, width: int, text_tokens: int = TEXT_TOKENS) -> Operations:
    """Count the operations of a model's denoiser at a size. Nothing is computed, so any size can be asked.

    Args:
        pipe: a pipeline or its denoiser.
        height, width: of the latents.
        text_tokens: of the prompt, for networks that keep it apart; where it joins the self-attention, as many as usual.

    Raises:
        UnsupportedModelError, InvalidInputError: as `tokens_at`.

    Example:
        >>> import entropy_lib as el
        >>> counted = count_operations(el.load("sd21-base", random_weights=True, device="meta"), 64, 64)
        >>> round(counted.total / 1e9), round(counted.share, 2)
        (804, 0.15)
    """
    network = denoiser(pipe)
    counts, config, known = tokens_at(pipe, height, width), dict(network.config), family(network)
    with torch.device("meta"), torch.no_grad():
        twin = type(network).from_config(network.config).eval()
        inputs = known.inputs(config, height, width, known.text_tokens)
        if not known.text_tokens and "encoder_hidden_states" in inputs:
            text = inputs["encoder_hidden_states"]
            inputs["encoder_hidden_states"] = text.new_zeros(1, text_tokens, text.shape[-1])
        with FlopCounterMode(display=False) as counter:
            twin(**inputs)
    modules = dict(twin.named_modules())
    own = sum(4 * tokens**2 * modules[name].inner_dim for name, tokens in counts.items())
    return Operations(counter.get_total_flops(), own, max(counts.values()))
