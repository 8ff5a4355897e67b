"""The architectures of the catalogue without their weights: exact, for counting, or tiny, for tests.

Configurations are written here from published facts; parameter counts prove them
(`tests/models/test_architectures.py`). A tiny pipeline has the parts, attention and call of the exact one, a
few thousand parameters and untrained weights. To add a model, give it a line in `ARCHITECTURES` and an entry
in `models.catalogue.CATALOGUE`.
"""

# ruff: noqa: C408 (a configuration reads like the call that it becomes)
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from tokenizers import pre_tokenizers
from torch import nn

from entropy_lib.errors import MissingExtraError, UnknownNameError

SEED = 0
CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
HOMES = (
    "diffusers", "transformers", "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion",
    "diffusers.pipelines.kolors.text_encoder",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One component: its class, its configuration, and what to change for the tiny one."""

    kind: str
    config: dict = field(default_factory=dict)
    tiny: dict = field(default_factory=dict)

    def build(self, tiny: bool, device: str) -> Any:
        """The component, with untrained weights on `device` where it has any."""
        if self.kind in TOKENIZERS:
            return TOKENIZERS[self.kind]()
        config = self.config | (self.tiny if tiny else {})
        kind = next(
            getattr(home, self.kind) for home in map(import_module, HOMES) if hasattr(home, self.kind)
        )
        if not issubclass(kind, nn.Module):
            return kind(**config)  # a scheduler
        with torch.device(device):
            own = issubclass(kind, transformers.PreTrainedModel)
            return kind(kind.config_class(**config)) if own else kind(**config)


@dataclass(frozen=True)
class Architecture:
    """A pipeline: its class, its components, and its other arguments. A part that is None is left out."""

    pipeline: str
    parts: Mapping[str, Part | None]
    options: Mapping = field(default_factory=dict)

    @property
    def denoiser(self) -> Part:
        """The denoising network."""
        found = self.parts.get("unet") or self.parts.get("transformer")
        assert found is not None
        return found

    @property
    def pixels(self) -> int:
        """Of a side of an image, for each of its latents."""
        decoder = self.parts.get("vae") or self.parts.get("vqvae")
        return 1 if decoder is None else decoder.config.get("spatial_compression_ratio", 8)


def build(
    name: str, *, tiny: bool = False, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionPipeline:
    """A pipeline of the named architecture with random weights, the same ones every time.

    Those of `TINY` can be tiny: of native size 64 x 64 px, FLUX, which does not say it, of 1024 x 1024.
    """
    if name not in (known := TINY if tiny else ARCHITECTURES):
        raise UnknownNameError("architecture", name, known)
    architecture = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        parts = {key: part and part.build(tiny, device) for key, part in architecture.parts.items()}
    for part in parts.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, dtype).eval()
    try:
        pipe = getattr(diffusers, architecture.pipeline)(**parts, **architecture.options)
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingExtraError(f"{name!r} needs a package that is not installed: {reason}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


LETTERS = [chr(code) for code in range(33, 127)]


def _clip_tokenizer() -> Any:
    """A stand-in for CLIP's: every byte a token, so that any prompt can be read."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _t5_tokenizer() -> Any:
    tokens = enumerate(["<pad>", "</s>", "<unk>", "▁", *LETTERS])
    return transformers.T5TokenizerFast(
        vocab=[(token, -float(index > 2)) for index, token in tokens], extra_ids=0
    )


def _bert_tokenizer() -> Any:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return transformers.BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})


TOKENIZERS = {
    "CLIP tokenizer": _clip_tokenizer, "T5 tokenizer": _t5_tokenizer, "BERT tokenizer": _bert_tokenizer,
}  # fmt: skip


def part(kind: str, tiny: dict | None = None, **config: object) -> Part:
    """A component; `tiny`: what to change for the tiny one."""
    return Part(kind, config, tiny or {})


def unet(cross: int, **config: object) -> Part:
    """A UNet of Stable Diffusion's shape; `cross`: width of the text states."""
    tiny = dict(
        sample_size=8, block_out_channels=(16, 32), down_block_types=(CROSS_DOWN,) * 2,
        up_block_types=(CROSS_UP,) * 2, layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        cross_attention_dim=32,
    )  # fmt: skip
    return part("UNet2DConditionModel", tiny, cross_attention_dim=cross, **config)


SDXL_UNET = dict(
    sample_size=128, cross_attention_dim=2048, attention_head_dim=(5, 10, 20), use_linear_projection=True,
    block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
    down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP),
    addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)  # fmt: skip
SDXL_TINY = dict(
    sample_size=8, cross_attention_dim=64, attention_head_dim=2, block_out_channels=(16, 32, 32),
    transformer_layers_per_block=(1, 1, 2), layers_per_block=1, norm_num_groups=8, addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=32 + 6 * 8,
)  # fmt: skip
KOLORS = dict(
    encoder_hid_dim=4096, encoder_hid_dim_type="text_proj", projection_class_embeddings_input_dim=5632
)


def vae(**config: object) -> Part:
    """An autoencoder of Stable Diffusion's shape."""
    exact = dict(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    tiny = dict(block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, sample_size=64)
    return Part("AutoencoderKL", exact | config, tiny)


def clip(kind: str, width: int, layers: int, heads: int, activation: str = "gelu") -> Part:
    """A text encoder of CLIP; special tokens are those of the stand-in tokenizer."""
    tiny = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, projection_dim=32,
        vocab_size=600,
    )  # fmt: skip
    return part(
        kind, tiny, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, hidden_act=activation, projection_dim=width, bos_token_id=0,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def t5(kind: str = "T5EncoderModel", **config: object) -> Part:
    """A text encoder of T5's family, by default T5-XXL's."""
    exact = dict(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=32128,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    tiny = dict(vocab_size=128, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return Part(kind, exact | config, tiny)


def language(
    kind: str,
    width: int,
    inner: int,
    layers: int,
    heads: int,
    groups: int,
    words: int,
    size: int,
    **config: object,
) -> Part:
    """A text encoder; `groups`: heads of keys, `words`: tokens known, `size`: of a head."""
    text = dict(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=words, head_dim=size,
    )  # fmt: skip
    return Part(kind, {"text_config": text} | config if "vision_config" in config else text | config)


QWEN_VL = language(
    "Qwen2_5_VLForConditionalGeneration", 3584, 18944, 28, 28, 4, 152064, 128, tie_word_embeddings=False,
    vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16,
                       out_hidden_size=3584),
)  # fmt: skip
MISTRAL = language(
    "Mistral3ForConditionalGeneration", 5120, 32768, 40, 32, 8, 131072, 128, tie_word_embeddings=False,
    vision_config=dict(model_type="pixtral", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                       num_attention_heads=16, patch_size=14, image_size=1540),
)  # fmt: skip
QWEN3 = (2560, 9728, 36, 32, 8, 151936, 128)
GEMMA = language("Gemma2Model", 2304, 9216, 26, 8, 4, 256000, 256)
CHATGLM = part(
    "ChatGLMModel", num_layers=28, padded_vocab_size=65024, hidden_size=4096, ffn_hidden_size=13696,
    num_attention_heads=32, multi_query_attention=True, multi_query_group_num=2, add_qkv_bias=True,
    original_rope=True,
)  # fmt: skip
BERT = part(
    "BertModel", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
    vocab_size=47020,
)  # fmt: skip
CLIP_L = clip("CLIPTextModel", 768, 12, 12, "quick_gelu")
CLIP_G = clip("CLIPTextModelWithProjection", 1280, 32, 20)
CLIP_TOKENIZER, T5_TOKENIZER = Part("CLIP tokenizer"), Part("T5 tokenizer")
NOISE = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
DDIM = part("DDIMScheduler", **NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
EULER = part("EulerDiscreteScheduler", **NOISE, steps_offset=1)
DPM = part("DPMSolverMultistepScheduler", beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
FLOW = part("FlowMatchEulerDiscreteScheduler", shift=3.0)
DYNAMIC = part(FLOW.kind, shift=3.0, use_dynamic_shifting=True, max_image_seq_len=4096, max_shift=1.15)
UNCHECKED = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
SIXTEEN = dict(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024)
SD_VAE, XL_VAE = vae(scaling_factor=0.18215), vae(scaling_factor=0.13025, sample_size=1024)
FLUX_VAE, FLUX2_VAE = vae(scaling_factor=0.3611, shift_factor=0.1159, **SIXTEEN), part("AutoencoderKLFlux2")


def _pipeline(kind: str, *, options: dict | None = None, **parts: Part | None) -> Architecture:
    return Architecture(kind, parts, options or {})


def _stable(denoiser: Part, text_encoder: Part) -> Architecture:
    parts = {"unet": denoiser, "vae": SD_VAE, "text_encoder": text_encoder, "tokenizer": CLIP_TOKENIZER}
    return _pipeline("StableDiffusionPipeline", **parts, scheduler=DDIM, options=UNCHECKED)


def _native(
    kind: str,
    denoiser: Part,
    decoder: Part,
    *encoders: Part,
    scheduler: Part = DYNAMIC,
    options: dict | None = None,
    **others: Part,
) -> Architecture:
    """A pipeline whose tokenizers have no stand-in: it is called with the embeddings of prompts."""
    names = ["", "_2"][: len(encoders)]
    texts = {f"text_encoder{name}": each for name, each in zip(names, encoders, strict=True)}
    network = {"unet" if denoiser.kind.startswith("UNet") else "transformer": denoiser}
    parts = network | texts | {f"tokenizer{name}": None for name in names} | others
    return _pipeline(kind, vae=decoder, scheduler=scheduler, options=options, **parts)


ARCHITECTURES = {
    "terrain": _pipeline(
        "ConsistencyModelPipeline",
        unet=part(
            "UNet2DModel", sample_size=128, in_channels=1, out_channels=1, layers_per_block=4,
            block_out_channels=(32, 32, 64, 96, 128), num_class_embeds=100, attention_head_dim=32,
            down_block_types=("ResnetDownsampleBlock2D",) * 2 + ("AttnDownBlock2D",) * 3,
            up_block_types=("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 2, downsample_type="resnet",
            upsample_type="resnet", resnet_time_scale_shift="scale_shift", attn_norm_num_groups=32,
        ),
        # estimates are clipped once, when they become an image, so that windows can be averaged before
        scheduler=part("CMStochasticIterativeScheduler", clip_denoised=False),
    ),
    "sd15": _stable(unet(768, sample_size=64, attention_head_dim=8), CLIP_L),
    "sd21-base": _stable(
        unet(1024, sample_size=64, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
        clip("CLIPTextModel", 1024, 23, 16),
    ),
    "ldm-256": _pipeline(
        "LDMTextToImagePipeline", unet=unet(1280, sample_size=32, attention_head_dim=8),
        vqvae=vae(scaling_factor=0.18215, sample_size=256), tokenizer=Part("BERT tokenizer"), scheduler=DDIM,
        bert=part("LDMBertModel", dict(vocab_size=200, d_model=32, encoder_layers=2, encoder_ffn_dim=64,
                                       encoder_attention_heads=2, head_dim=16)),
    ),
    "sdxl": _pipeline(
        "StableDiffusionXLPipeline", vae=XL_VAE, text_encoder=CLIP_L, text_encoder_2=CLIP_G,
        tokenizer=CLIP_TOKENIZER, tokenizer_2=CLIP_TOKENIZER, scheduler=EULER,
        unet=part("UNet2DConditionModel", SDXL_TINY, **SDXL_UNET), options=dict(add_watermarker=False),
    ),
    "pixart": _pipeline(
        "PixArtAlphaPipeline", vae=vae(scaling_factor=0.18215, sample_size=1024), text_encoder=t5(),
        tokenizer=T5_TOKENIZER, scheduler=DPM,
        transformer=part("PixArtTransformer2DModel",
                         dict(sample_size=8, caption_channels=64, num_layers=2, num_attention_heads=2,
                              attention_head_dim=16, cross_attention_dim=32),
                         sample_size=128, caption_channels=4096),
    ),
    "sd3": _pipeline(
        "StableDiffusion3Pipeline", vae=vae(scaling_factor=1.5305, shift_factor=0.0609, **SIXTEEN),
        text_encoder=clip("CLIPTextModelWithProjection", 768, 12, 12, "quick_gelu"), tokenizer=CLIP_TOKENIZER,
        text_encoder_2=CLIP_G, tokenizer_2=CLIP_TOKENIZER, text_encoder_3=t5(), tokenizer_3=T5_TOKENIZER,
        scheduler=FLOW,
        transformer=part("SD3Transformer2DModel",
                         dict(sample_size=8, num_layers=2, num_attention_heads=2, attention_head_dim=16,
                              caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=64,
                              pos_embed_max_size=16),
                         sample_size=128, num_layers=24, num_attention_heads=24, caption_projection_dim=1536,
                         joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=192),
    ),
    "flux": _pipeline(
        "FluxPipeline", vae=FLUX_VAE, text_encoder=CLIP_L, tokenizer=CLIP_TOKENIZER, text_encoder_2=t5(),
        tokenizer_2=T5_TOKENIZER, scheduler=DYNAMIC,
        transformer=part("FluxTransformer2DModel",
                         dict(num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=16,
                              joint_attention_dim=64, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6)),
                         guidance_embeds=True),
    ),
    "flux2": _native(
        "Flux2Pipeline",
        part("Flux2Transformer2DModel", num_layers=8, num_single_layers=48, num_attention_heads=48),
        FLUX2_VAE, MISTRAL,
    ),
    "flux2-klein": _native(
        "Flux2KleinPipeline",
        part("Flux2Transformer2DModel", num_layers=5, num_single_layers=20, num_attention_heads=24,
             joint_attention_dim=7680, guidance_embeds=False),
        FLUX2_VAE, language("Qwen3ForCausalLM", *QWEN3, tie_word_embeddings=True),
    ),
    "qwen-image": _native(
        "QwenImagePipeline", part("QwenImageTransformer2DModel", num_layers=60, num_attention_heads=24),
        part("AutoencoderKLQwenImage"), QWEN_VL,
    ),
    "z-image": _native(
        "ZImagePipeline", part("ZImageTransformer2DModel", n_layers=30, n_heads=30), FLUX_VAE,
        language("Qwen3Model", *QWEN3), scheduler=FLOW,
    ),
    "lumina2": _native(
        "Lumina2Pipeline",
        part("Lumina2Transformer2DModel", sample_size=128, num_layers=26, cap_feat_dim=2304), FLUX_VAE, GEMMA,
    ),
    "hunyuan-image": _native(
        "HunyuanImagePipeline",
        part("HunyuanImageTransformer2DModel", num_layers=20, num_single_layers=40, text_embed_2_dim=1472),
        part("AutoencoderKLHunyuanImage", in_channels=3, out_channels=3, latent_channels=64,
             layers_per_block=2, block_out_channels=(128, 256, 512, 512, 1024, 1024),
             spatial_compression_ratio=32, sample_size=384, scaling_factor=0.75289),
        QWEN_VL, t5(d_model=1472, d_ff=3584, num_layers=12, num_heads=6, vocab_size=1510),
        guider=part("AdaptiveProjectedMixGuidance"),
    ),
    "chroma": _native(
        "ChromaPipeline", part("ChromaTransformer2DModel", num_layers=19, num_single_layers=38), FLUX_VAE,
        t5(),
    ),
    "auraflow": _native(
        "AuraFlowPipeline", part("AuraFlowTransformer2DModel", num_mmdit_layers=4, num_single_dit_layers=32),
        XL_VAE, t5("UMT5EncoderModel", d_model=2048, d_ff=5120, num_heads=32), scheduler=FLOW,
    ),
    "pixart-sigma": _native(
        "PixArtSigmaPipeline",
        part("PixArtTransformer2DModel", sample_size=128, caption_channels=4096,
             use_additional_conditions=False),
        XL_VAE, t5(), scheduler=DPM,
    ),
    "hunyuan-dit": _native(
        "HunyuanDiTPipeline",
        part("HunyuanDiT2DModel", sample_size=128, in_channels=4, patch_size=2, hidden_size=1408,
             num_layers=40, mlp_ratio=4.3637),
        XL_VAE, BERT, t5(d_model=2048, d_ff=5120, num_heads=32, vocab_size=250112),
        scheduler=part("DDPMScheduler"), options=UNCHECKED,
    ),
    "kolors": _native(
        "KolorsPipeline", Part("UNet2DConditionModel", SDXL_UNET | KOLORS), XL_VAE, CHATGLM, scheduler=EULER,
    ),
    "wan": _native(
        "WanPipeline", part("WanTransformer3DModel", num_layers=30, num_attention_heads=12, ffn_dim=8960),
        part("AutoencoderKLWan"), t5("UMT5EncoderModel", vocab_size=256384), scheduler=FLOW,
    ),
}  # fmt: skip
TINY = [name for name, architecture in ARCHITECTURES.items() if architecture.denoiser.tiny]
