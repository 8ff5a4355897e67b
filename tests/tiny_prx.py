"""A tiny PRX pipeline: image queries, keys of text and image, text masked where it is padding; no size in
its network's config.
"""

import diffusers
import torch

from entropy_lib.models.architectures import CLIP_TOKENIZER, clip, vae


def prx(sample_size=64):
    """Native size 64 px: 16 x 16 latents of 2 x 2, text of 24 tokens."""
    torch.manual_seed(0)
    network = diffusers.PRXTransformer2DModel(
        in_channels=4, patch_size=2, context_in_dim=32, hidden_size=32, num_heads=2, depth=2, axes_dim=(8, 8)
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the gates of its blocks begin at 0
    decoder = vae(shift_factor=0.0).build(tiny=True, device="cpu")
    text = clip("CLIPTextModel", 32, 2, 2).build(tiny=True, device="cpu")
    tokenizer = CLIP_TOKENIZER.build(tiny=True, device="cpu")
    tokenizer.model_max_length = 24
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.PRXPipeline(
        network.eval(), scheduler, text.eval(), tokenizer, decoder.eval(), default_sample_size=sample_size
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
