"""The denoiser of `mini-dit` and its training: PRX's transformer, small, on the latents of `mini`'s
autoencoder.

Nothing but self-attention carries anything from one image token to another: 8 blocks of width 192 see 64
tokens of 2 x 2 latent pixels, with rotary positions on their grid and normalised query and key. Text stands
in the same softmax as further keys. PRX (diffusers' `PRXTransformer2DModel`) is taken because nothing of it
has to be ours: one text encoder, a tokenizer that knows its own length, Stable Diffusion's kind of
autoencoder, positions that are whole numbers at every size, and no word about size in its conditions.

A twin of the same recipe has attention that cannot choose between image tokens, in training as afterwards:
each key of the image is replaced by the mean of all of them, so that every image token gets the same weight,
whichever token asks.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXTransformer2DModel
from diffusers.models.transformers.transformer_prx import PRXAttention, apply_rope
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import CLIPTextModel

from entropy_lib.scenes import scenes
from training import masked_text_encoder
from training.loop import descend, epoch_batch, follow, loop, step_generator
from training.muon import muon_and_adamw
from training.precision import mixed
from training.text_encoder import UNCONDITIONAL, WIDTH
from training.unet import stratified_timesteps

BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.999


@dataclass(frozen=True)
class Recipe:
    """What distinguishes the models; everything else, the seed and the steps included, is common to both."""

    uniform: bool = False  # whether attention can choose between image tokens


RECIPES = {"mini-dit": Recipe(), "mini-dit-uniform": Recipe(uniform=True)}


def build() -> PRXTransformer2DModel:
    """An untrained denoiser, 6.1 M parameters; its blocks and its last layer start at zero."""
    model = PRXTransformer2DModel(
        in_channels=4,
        patch_size=2,
        context_in_dim=WIDTH,
        hidden_size=192,
        mlp_ratio=2.67,
        num_heads=6,
        depth=8,
        axes_dim=[16, 16],
        theta=100,
    )
    torch.nn.init.zeros_(model.final_layer.linear.weight)
    torch.nn.init.zeros_(model.final_layer.linear.bias)
    return model


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Straight paths from noise to image, in even steps."""
    return FlowMatchEulerDiscreteScheduler()


class PlainProcessor:
    """PRX's attention as products and a softmax, which trains faster on a CPU than the fused kernel; uniform
    on request.
    """

    def __init__(self, uniform: bool = False) -> None:
        self.uniform = uniform

    def __call__(
        self,
        attn: PRXAttention,
        hidden_states: Float[Tensor, "batch token width"],
        encoder_hidden_states: Float[Tensor, "batch text width"],
        attention_mask: Bool[Tensor, "batch text"] | None = None,
        image_rotary_emb: Tensor | None = None,
        **_: object,
    ) -> Float[Tensor, "batch token width"]:
        query, key, value = (
            attn.img_qkv_proj(hidden_states).unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        text_key, text_value = (
            attn.txt_kv_proj(encoder_hidden_states).unflatten(-1, (2, attn.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        query, key = (
            apply_rope(norm(part), image_rotary_emb)
            for norm, part in ((attn.norm_q, query), (attn.norm_k, key))
        )
        key = key.mean(-2, keepdim=True).expand_as(key) if self.uniform else key
        logits = query @ torch.cat([attn.norm_added_k(text_key), key], -2).mT * query.shape[-1] ** -0.5
        if attention_mask is not None:
            padding = torch.nn.functional.pad(~attention_mask, (0, key.shape[-2]))
            logits = logits.masked_fill(padding[:, None, None], -torch.inf)
        output = logits.softmax(-1).to(value.dtype) @ torch.cat([text_value, value], -2)
        return attn.to_out[0](output.transpose(1, 2).flatten(-2))


def train(
    path: Path, recipe: Recipe, latents: Float[Tensor, "scene 4 16 16"], encoder: CLIPTextModel, steps: int
) -> PRXTransformer2DModel:
    """Train to `steps`, resuming from `path`; returns the averaged (EMA) denoiser.

    Args:
        path: checkpoint; the loss curve is written beside it.
        recipe: which of the models.
        latents: of the first training scenes of the simple world, in their order.
        encoder: the trained text encoder; it stays as it is.
        steps: in all, earlier ones of the checkpoint included.
    """
    torch.manual_seed(1)
    model = build()
    average = copy.deepcopy(model).requires_grad_(False)
    model.set_attn_processor(PlainProcessor(recipe.uniform))
    optimizers = muon_and_adamw(model, LEARNING_RATE, WEIGHT_DECAY)
    texts, states, masks = masked_text_encoder.all_states(encoder)
    states, masks = states[:, : masks.sum(1).max()], masks[:, : masks.sum(1).max()]  # no caption is longer
    row = {caption: index for index, caption in enumerate(texts)}
    told = torch.tensor(
        [row[scenes.scene(number, world=scenes.SIMPLE).caption] for number in range(len(latents))]
    )

    def update(step: int) -> dict[str, float]:
        generator = step_generator(step)
        rows = epoch_batch(step, BATCH, len(latents))
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        share = stratified_times(generator)
        noisy = torch.lerp(clean, noise, share.view(-1, 1, 1, 1))
        # row 0 is the empty caption
        said = told[rows] * (torch.rand(BATCH, generator=generator) >= UNCONDITIONAL)
        with mixed():
            output = model(noisy, share, states[said], masks[said]).sample.float()
        error = (output - (noise - clean)).square().mean((1, 2, 3))
        loss = error.mean()
        norm = descend(loss, model, optimizers)
        follow(average, model, step, EMA_DECAY)
        return {"loss": loss.item(), "high_noise": error[share > 0.75].mean().item(), "norm": norm}

    loop(path, {"model": model, "average": average}, optimizers, steps, update)
    return average.eval()


def stratified_times(generator: torch.Generator) -> Float[Tensor, "batch"]:
    """Shares of noise in (0, 1), evenly spread over a batch."""
    return (stratified_timesteps(BATCH, 1_000_000, generator) + 0.5) / 1_000_000
