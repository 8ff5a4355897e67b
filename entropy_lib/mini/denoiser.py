"""The denoiser of the embedded model and its training: v-prediction on 16 x 16 latents, captions as the only condition.

Self-attention stands at every level (256, 64 and 16 tokens at native size). Trained freely at this learning rate its
logits grow until each query attends to one key, and a model whose attention has collapsed cannot show what the paper
describes. So training adds `freezing_penalty`: nothing for a row whose logit_std stays below `HEALTHY` times the
freezing point sqrt(2 ln N), and a slope above it.
"""

import copy
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from entropy_lib.attention.entropy import logit_moments
from entropy_lib.mini import dataset, text
from entropy_lib.mini.muon import muon_and_adamw
from entropy_lib.mini.training import epoch_batch, loop, step_generator
from entropy_lib.theory import freezing_std

BATCH = 16
LEARNING_RATE = 8e-4
WEIGHT_DECAY = 0.02
MAX_SNR = 5.0
EMA_DECAY = 0.999
HEALTHY = 0.6  # of the freezing point, per row
PENALTY_WEIGHT = 0.05


def build() -> UNet2DConditionModel:
    """An untrained denoiser, 9.7 M parameters, with residual branches that start at zero."""
    model = UNet2DConditionModel(
        sample_size=dataset.SIZE // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 192),
        attention_head_dim=(1, 2, 4),  # diffusers means the number of heads; 48 dimensions each
        cross_attention_dim=text.WIDTH,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        use_linear_projection=True,
        norm_num_groups=16,
    )
    for name, module in model.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return model.to(memory_format=torch.channels_last)


def build_scheduler() -> DDIMScheduler:
    """Training and sampling schedule: zero terminal signal-to-noise, so that the last step is pure noise."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def freezing_penalty(
    query: Float[Tensor, "batch head query dim"], key: Float[Tensor, "batch head key dim"], scale: float
) -> Float[Tensor, ""]:
    """Mean over rows of how far b / b_c exceeds `HEALTHY`."""
    _, variance = logit_moments(query, key, scale)
    limit = float(freezing_std(key.shape[-2]))
    return functional.relu((variance + 1e-6).sqrt() / limit - HEALTHY).mean()


class PenalisedProcessor:
    """The plain attention of diffusers, with `freezing_penalty` collected from every self-attention call."""

    def __init__(self) -> None:
        self.penalties: list[Tensor] = []

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, states in ((attn.to_q, hidden_states), (attn.to_k, source), (attn.to_v, source))
        )
        if encoder_hidden_states is None:
            self.penalties.append(freezing_penalty(query, key, attn.scale))
        output = functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[1](attn.to_out[0](output.transpose(1, 2).flatten(-2)))

    def total(self) -> Tensor:
        """Sum over the layers called since the last `total`."""
        total, self.penalties = sum(self.penalties), []
        return total


def stratified_timesteps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """Uniform timesteps, one from each of `count` equal strata: the same mean loss with less noise."""
    return ((torch.arange(count) + torch.rand(count, generator=generator)) / count * total).long()


def loss_weight(signal_to_noise: Tensor) -> Tensor:
    """Weight of the v-prediction error: 1 where noise dominates, falling as 1/SNR where the picture is nearly clean.

    In terms of the clean picture this is min(SNR + 1, MAX_SNR), the limit of Hang et al. (2023) without its zero at SNR = 0.
    """
    return (MAX_SNR / (signal_to_noise + 1)).clamp(max=1.0)


def train(path: Path, latents: Tensor, encoder: CLIPTextModel, steps: int) -> UNet2DConditionModel:
    """Train to `steps`, resuming from `path`; returns the averaged (EMA) denoiser.

    Args:
        path: checkpoint; the loss curve is written beside it.
        latents: of all pictures, in the order of the table.
        encoder: the trained text encoder. It stays as it is, so every caption is encoded once, before the first step.
        steps: in all, earlier ones of the checkpoint included.
    """
    torch.manual_seed(1)
    table, scheduler, model, processor = dataset.load(), build_scheduler(), build(), PenalisedProcessor()
    average = copy.deepcopy(model).requires_grad_(False)
    model.set_attn_processor(processor)
    optimizers = muon_and_adamw(model, LEARNING_RATE, WEIGHT_DECAY)
    states = text.all_states(encoder, table)
    signal = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)

    def update(step: int) -> dict[str, float]:
        generator = step_generator(step)
        rows = epoch_batch(step, BATCH, len(table))
        clean = latents[rows].contiguous(memory_format=torch.channels_last)
        noise = torch.randn(clean.shape, generator=generator)
        times = stratified_timesteps(BATCH, scheduler.config.num_train_timesteps, generator)
        condition = torch.stack([states[caption] for caption in text.drawn_captions(table.iloc[rows], generator)])
        output = model(scheduler.add_noise(clean, noise, times), times, condition).sample
        error = (output - scheduler.get_velocity(clean, noise, times)).square().mean((1, 2, 3))
        loss, penalty = (loss_weight(signal[times]) * error).mean(), processor.total()
        (loss + PENALTY_WEIGHT * penalty).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        high = error[-BATCH // 4 :].mean()  # timesteps above 750, where the caption decides
        return {
            "loss": loss.item(),
            "error": error.mean().item(),
            "error_high_noise": high.item(),
            "penalty": penalty.item(),
            "norm": norm.item(),
        }

    loop(path, {"model": model, "average": average}, optimizers, steps, update, checkpoint_every=250)
    return average.eval()
