"""The denoiser of the embedded models and its training: v-prediction on 16 x 16 latents, captions as the only
condition.

Self-attention stands at every level (256, 64 and 16 tokens at native size). It starts as a similarity kernel
(mimetic initialisation, after Trockman & Kolter 2023: W_k = W_q), for attention that starts at random is
hardly used by so small a model.

Two penalties hold the spread b of its logits within what real models have, as a share of the freezing
transition b_c = sqrt(2 ln N). Rows beyond `Recipe.limit` are penalised, for trained long enough logits can
grow until each query attends to one key. A layer of 64 tokens or more that stays below `Recipe.floor` is
penalised too: left to themselves such layers come to 0.25 to 0.45, whatever the start (W_q times 1 or 1.7)
and the optimiser of W_q and W_k (Muon, AdamW, AdamW at three times the rate).
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from entropy_lib.entropy import freezing_std, logit_moments
from entropy_lib.models.padding import set_padding
from entropy_lib.scenes import scenes
from training import text_encoder
from training.loop import descend, epoch_batch, follow, loop, step_generator
from training.muon import muon_and_adamw
from training.precision import mixed

BATCH = 32
LEARNING_RATE = 8e-4
WEIGHT_DECAY = 0.02
MAX_SNR = 5.0
EMA_DECAY = 0.999
PENALTY_WEIGHT = 0.05
FLOOR_FROM = 64  # tokens: with fewer, logits freeze early
SIMILARITY = ("attn1.to_q", "attn1.to_k")  # trained faster than the rest: b / b_c is theirs to decide


@dataclass(frozen=True)
class Recipe:
    """What distinguishes the embedded models; everything else, the seed included, is common to all.

    Attributes:
        gain: of W_q at the start, W_k being equal to it; None leaves both as they are drawn.
        limit: of b / b_c, above which a row is penalised.
        floor: of b / b_c, below which a layer of 64 tokens or more is penalised; 0 for none.
        padding: of all convolutions, "zeros" or "circular".
    """

    gain: float | None = 1.7
    limit: float = 0.75
    floor: float = 0.55
    padding: str = "zeros"


RECIPES = {
    "mini": Recipe(),
    "mini-weak": Recipe(gain=None, limit=0.12, floor=0.0),  # attention is there and can hardly choose
    "mini-circular": Recipe(padding="circular"),  # no border, so no positional information
}


def build(recipe: Recipe) -> UNet2DConditionModel:
    """An untrained denoiser, 7.5 M parameters, with residual branches that start at zero."""
    model = UNet2DConditionModel(
        sample_size=scenes.SIZE // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 160),
        attention_head_dim=(2, 3, 5),  # diffusers means the number of heads; 24 or 32 dimensions each
        cross_attention_dim=text_encoder.WIDTH,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        use_linear_projection=True,
        norm_num_groups=16,
    )
    for name, module in model.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
        if name.endswith("attn1"):
            make_similarity_kernel(module, recipe.gain)
    set_padding(model, recipe.padding)
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


@torch.no_grad()
def make_similarity_kernel(attention: Attention, gain: float | None) -> None:
    """Start a self-attention with W_k = W_q, multiplied by `gain`; None changes nothing."""
    if gain is not None:
        attention.to_q.weight *= gain
        attention.to_k.weight.copy_(attention.to_q.weight)


def freezing_ratio(
    query: Float[Tensor, "batch head query dim"], key: Float[Tensor, "batch head key dim"], scale: float
) -> Float[Tensor, "batch head query"]:
    """b / b_c of every row: the spread of its logits over the freezing transition sqrt(2 ln N)."""
    _, variance = logit_moments(query, key, scale)
    return (variance + 1e-6).sqrt() / float(freezing_std(key.shape[-2]))


class PenalisedProcessor:
    """The plain attention of diffusers; of every self-attention call the penalty and the mean of b / b_c are
    kept.
    """

    def __init__(self, limit: float, floor: float = 0.0) -> None:
        self.limit, self.floor = limit, floor
        self.penalties: list[Tensor] = []
        self.ratios: list[Tensor] = []

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
            with torch.autocast("cpu", enabled=False):
                self.note(freezing_ratio(query.float(), key.float(), attn.scale))
        weights = ((query * attn.scale) @ key.mT).softmax(-1)  # on a CPU, trains faster than the fused kernel
        output = weights.to(value.dtype) @ value
        return attn.to_out[1](attn.to_out[0](output.transpose(1, 2).flatten(-2)))

    def note(self, ratio: Float[Tensor, "batch head query"]) -> None:
        mean, floor = ratio.square().mean().sqrt(), self.floor if ratio.shape[-1] >= FLOOR_FROM else 0.0
        self.penalties.append(functional.relu(ratio - self.limit).mean() + functional.relu(floor - mean))
        self.ratios.append(mean.detach())

    def collect(self) -> tuple[Tensor, dict[str, float]]:
        """Sum of the penalties, and b / b_c by layer, of the layers called since the last `collect`."""
        total, ratios = (
            sum(self.penalties),
            {f"ratio_{index}": value.item() for index, value in enumerate(self.ratios)},
        )
        self.penalties, self.ratios = [], []
        return total, ratios


def stratified_timesteps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """Uniform timesteps, one from each of `count` equal strata: the same mean loss with less noise."""
    return ((torch.arange(count) + torch.rand(count, generator=generator)) / count * total).long()


def loss_weight(signal_to_noise: Tensor) -> Tensor:
    """Weight of the v-prediction error: 1 where noise dominates, falling as 1/SNR where the image is nearly
    clean.

    In terms of the clean image this is min(SNR + 1, MAX_SNR), the limit of Hang et al. (2023) without its
    zero at SNR = 0.
    """
    return (MAX_SNR / (signal_to_noise + 1)).clamp(max=1.0)


def caption_rows(count: int, texts: list[str]) -> Tensor:
    """For each of the first `count` training scenes, the row of its caption in `texts`."""
    row = {caption: index for index, caption in enumerate(texts)}
    return torch.tensor([row[scenes.scene(number).caption] for number in range(count)])


def train(
    path: Path, recipe: Recipe, latents: Tensor, encoder: CLIPTextModel, steps: int
) -> UNet2DConditionModel:
    """Train to `steps`, resuming from `path`; returns the averaged (EMA) denoiser.

    Args:
        path: checkpoint; the loss curve is written beside it.
        recipe: which of the embedded models.
        latents: of the first training scenes, in their order.
        encoder: the trained text encoder. It stays as it is, so every caption is encoded once, before the
        first step.
        steps: in all, earlier ones of the checkpoint included.
    """
    torch.manual_seed(1)
    scheduler, model, processor = (
        build_scheduler(),
        build(recipe),
        PenalisedProcessor(recipe.limit, recipe.floor),
    )
    average = copy.deepcopy(model).requires_grad_(False)
    model.set_attn_processor(processor)
    optimizers = muon_and_adamw(model, LEARNING_RATE, WEIGHT_DECAY, quick=SIMILARITY)
    texts, states = text_encoder.all_states(encoder)
    captions = caption_rows(len(latents), texts)
    signal = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)

    def update(step: int) -> dict[str, float]:
        generator = step_generator(step)
        rows = epoch_batch(step, BATCH, len(latents))
        clean = latents[rows].contiguous(memory_format=torch.channels_last)
        noise = torch.randn(clean.shape, generator=generator)
        times = stratified_timesteps(BATCH, scheduler.config.num_train_timesteps, generator)
        # row 0 is the empty caption
        said = captions[rows] * (torch.rand(BATCH, generator=generator) >= text_encoder.UNCONDITIONAL)
        with mixed():
            output = model(scheduler.add_noise(clean, noise, times), times, states[said]).sample.float()
        error = (output - scheduler.get_velocity(clean, noise, times)).square().mean((1, 2, 3))
        loss, (penalty, ratios) = (loss_weight(signal[times]) * error).mean(), processor.collect()
        norm = descend(loss + PENALTY_WEIGHT * penalty, model, optimizers)
        follow(average, model, step, EMA_DECAY)
        high = error[-BATCH // 4 :].mean()  # timesteps above 750, where the caption decides
        losses = {
            "loss": loss,
            "error": error.mean(),
            "error_high_noise": high,
            "penalty": penalty,
            "norm": norm,
        }
        return {name: float(value) for name, value in losses.items()} | ratios

    loop(path, {"model": model, "average": average}, optimizers, steps, update)
    return average.eval()
