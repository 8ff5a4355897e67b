"""Self-attention of diffusers' blocks written out: what tests compare patch and probes with."""

from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional


def projected(attention, hidden):
    """Query, key and value, `[batch, head, token, dim]`."""
    layers = (attention.to_q, attention.to_k, attention.to_v)
    return [layer(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2) for layer in layers]


class ScalePassed(AttnProcessor2_0):
    """An independent way to rescale: hand the scale to the fused kernel. It shares nothing with the patch."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        query, key, value = projected(attn, hidden_states)
        scale = self.factor * query.shape[-1] ** -0.5
        output = functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return attn.to_out[1](attn.to_out[0](output.transpose(1, 2).flatten(-2)))
