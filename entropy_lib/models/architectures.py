"""The architectures of the catalogue without their weights: exact, for counting and timing, or tiny, for
tests.

Configurations are written here from published facts; the parameter counts prove them
(`tests/models/test_architectures.py`). A tiny pipeline has the same parts, attention and call as the exact
one, a few thousand parameters, and untrained weights. To add a model, give it a line in `ARCHITECTURES` and
an entry in `models.catalogue.CATALOGUE`.

Example:
    >>> pipe = build("sd21-base", device="meta")                 # takes neither memory nor time
    >>> round(parameter_counts(pipe)["unet"] / 1e6, 2)
    865.91
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion as ldm
from tokenizers import pre_tokenizers
from torch import nn

from entropy_lib.errors import UnknownNameError

SEED = 0
CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"


@dataclass(frozen=True)
class Part:
    """One component: its class, its configuration, and what to change for the tiny one."""

    kind: str
    config: dict = field(default_factory=dict)
    tiny: dict = field(default_factory=dict)

    def build(self, tiny: bool, device: str):
        """The component, with untrained weights on `device` where it has any."""
        config = self.config | (self.tiny if tiny else {})
        if self.kind in TOKENIZERS:
            return TOKENIZERS[self.kind]()
        kind = next(
            getattr(home, self.kind) for home in (diffusers, transformers, ldm) if hasattr(home, self.kind)
        )
        if not issubclass(kind, nn.Module):
            return kind(**config)  # a scheduler
        with torch.device(device):
            return (
                kind(kind.config_class(**config))
                if issubclass(kind, transformers.PreTrainedModel)
                else kind(**config)
            )


@dataclass(frozen=True)
class Architecture:
    """A pipeline: its class, its components, and its other arguments."""

    pipeline: str
    parts: Mapping[str, Part]
    options: Mapping = field(default_factory=dict)


def build(
    name: str, *, tiny: bool = False, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionPipeline:
    """A pipeline of the named architecture with random weights, the same ones every time.

    Args:
        name: a name of `ARCHITECTURES`.
        tiny: the small relative for tests, native size 64 x 64 px (FLUX: 1024 x 1024, which it does not say
        in its config).
        device: "meta" for an architecture that takes no memory and cannot be run.
        dtype: of the weights.

    Raises:
        UnknownNameError: for an unknown name.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES)
    architecture = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        parts = {key: part.build(tiny, device) for key, part in architecture.parts.items()}
    for part in parts.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, dtype).eval()
    pipe = getattr(diffusers, architecture.pipeline)(**parts, **architecture.options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parameter_counts(pipe: DiffusionPipeline) -> dict[str, int]:
    """Parameters of each component that has any."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in modules.items()}


def _clip_tokenizer():
    """A stand-in for CLIP's: every byte a token, so that any prompt can be read."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _t5_tokenizer():
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [
        (token, -float(index > 2)) for index, token in enumerate(["<pad>", "</s>", "<unk>", "▁", *letters])
    ]
    return transformers.T5TokenizerFast(vocab=vocabulary, extra_ids=0)


def _bert_tokenizer():
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return transformers.BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})


TOKENIZERS = {
    "CLIP tokenizer": _clip_tokenizer,
    "T5 tokenizer": _t5_tokenizer,
    "BERT tokenizer": _bert_tokenizer,
}


def _unet(cross: int, tiny_levels: int = 2, **config: object) -> Part:
    tiny = {
        "sample_size": 8,
        "block_out_channels": (16, 32, 32, 32)[:tiny_levels],
        "down_block_types": (CROSS_DOWN,) * tiny_levels,
        "up_block_types": (CROSS_UP,) * tiny_levels,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
    }
    return Part("UNet2DConditionModel", {"cross_attention_dim": cross, **config}, tiny)


def _vae(**config: object) -> Part:
    return Part(
        "AutoencoderKL",
        {
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "sample_size": 512,
            **config,
        },
        {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64},
    )


def _clip(kind: str, width: int, layers: int, heads: int, activation: str = "gelu") -> Part:
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # those of the stand-in tokenizer
    size = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return Part(
        kind,
        {**size, "hidden_act": activation, "projection_dim": width, **special},
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32,
         "vocab_size": 600},
    )  # fmt: skip


T5_XXL = Part(
    "T5EncoderModel",
    {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
     "vocab_size": 32128, "tie_word_embeddings": False},
    {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
)  # fmt: skip
CLIP_L = _clip("CLIPTextModel", 768, 12, 12, "quick_gelu")
CLIP_TOKENIZER, T5_TOKENIZER = Part("CLIP tokenizer"), Part("T5 tokenizer")
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DDIM = Part("DDIMScheduler", NOISE | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1})
WITHOUT_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
SIXTEEN_CHANNELS = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}

ARCHITECTURES = {
    "sd15": Architecture(
        "StableDiffusionPipeline",
        {"unet": _unet(768, sample_size=64, attention_head_dim=8), "vae": _vae(scaling_factor=0.18215), "text_encoder": CLIP_L,
         "tokenizer": CLIP_TOKENIZER, "scheduler": DDIM},
        WITHOUT_CHECKER,
    ),
    "sd21-base": Architecture(
        "StableDiffusionPipeline",
        {"unet": _unet(1024, sample_size=64, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
         "vae": _vae(scaling_factor=0.18215), "text_encoder": _clip("CLIPTextModel", 1024, 23, 16),
         "tokenizer": CLIP_TOKENIZER, "scheduler": DDIM},
        WITHOUT_CHECKER,
    ),
    "ldm-256": Architecture(
        "LDMTextToImagePipeline",
        {"unet": _unet(1280, sample_size=32, attention_head_dim=8), "vqvae": _vae(scaling_factor=0.18215, sample_size=256),
         "bert": Part("LDMBertModel", {}, {"vocab_size": 200, "d_model": 32, "encoder_layers": 2, "encoder_ffn_dim": 64,
                                           "encoder_attention_heads": 2, "head_dim": 16}),
         "tokenizer": Part("BERT tokenizer"), "scheduler": DDIM},
    ),
    "sdxl": Architecture(
        "StableDiffusionXLPipeline",
        {"unet": Part(
            "UNet2DConditionModel",
            {"sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
             "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
             "down_block_types": (PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, CROSS_UP, PLAIN_UP),
             "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
            {"sample_size": 8, "cross_attention_dim": 64, "attention_head_dim": 2, "block_out_channels": (16, 32, 32),
             "transformer_layers_per_block": (1, 1, 2), "layers_per_block": 1, "norm_num_groups": 8,
             "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 32 + 6 * 8},
         ),
         "vae": _vae(scaling_factor=0.13025, sample_size=1024), "text_encoder": CLIP_L,
         "text_encoder_2": _clip("CLIPTextModelWithProjection", 1280, 32, 20), "tokenizer": CLIP_TOKENIZER,
         "tokenizer_2": CLIP_TOKENIZER, "scheduler": Part("EulerDiscreteScheduler", NOISE | {"steps_offset": 1})},
        {"add_watermarker": False},
    ),
    "pixart": Architecture(
        "PixArtAlphaPipeline",
        {"transformer": Part("PixArtTransformer2DModel", {"sample_size": 128, "caption_channels": 4096},
                             {"sample_size": 8, "caption_channels": 64, "num_layers": 2, "num_attention_heads": 2,
                              "attention_head_dim": 16, "cross_attention_dim": 32}),
         "vae": _vae(scaling_factor=0.18215, sample_size=1024), "text_encoder": T5_XXL, "tokenizer": T5_TOKENIZER,
         "scheduler": Part("DPMSolverMultistepScheduler", {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02})},
    ),
    "sd3": Architecture(
        "StableDiffusion3Pipeline",
        {"transformer": Part("SD3Transformer2DModel",
                             {"sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
                              "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
                             {"sample_size": 8, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16,
                              "caption_projection_dim": 32, "joint_attention_dim": 64, "pooled_projection_dim": 64,
                              "pos_embed_max_size": 16}),
         "vae": _vae(scaling_factor=1.5305, shift_factor=0.0609, **SIXTEEN_CHANNELS),
         "text_encoder": _clip("CLIPTextModelWithProjection", 768, 12, 12, "quick_gelu"), "tokenizer": CLIP_TOKENIZER,
         "text_encoder_2": _clip("CLIPTextModelWithProjection", 1280, 32, 20), "tokenizer_2": CLIP_TOKENIZER,
         "text_encoder_3": T5_XXL, "tokenizer_3": T5_TOKENIZER,
         "scheduler": Part("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})},
    ),
    "flux": Architecture(
        "FluxPipeline",
        {"transformer": Part("FluxTransformer2DModel", {"guidance_embeds": True},
                             {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16,
                              "joint_attention_dim": 64, "pooled_projection_dim": 32, "axes_dims_rope": (4, 6, 6)}),
         "vae": _vae(scaling_factor=0.3611, shift_factor=0.1159, **SIXTEEN_CHANNELS), "text_encoder": CLIP_L,
         "tokenizer": CLIP_TOKENIZER, "text_encoder_2": T5_XXL, "tokenizer_2": T5_TOKENIZER,
         "scheduler": Part("FlowMatchEulerDiscreteScheduler",
                           {"shift": 3.0, "use_dynamic_shifting": True, "max_image_seq_len": 4096, "max_shift": 1.15})},
    ),
}  # fmt: skip
