"""Tiny configurations of diffusers' network classes, made from the signatures of their constructors.

Depth 2, two heads of 16, and what of a default configuration cannot follow from that, by class.
"""

import inspect
import warnings

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin

STACKS = (
    "num_layers", "num_single_layers", "depth", "n_layers", "num_hidden_layers", "num_mmdit_layers",
    "num_single_dit_layers", "mmdit_layers",
)  # fmt: skip
DEPTH = dict.fromkeys(STACKS, 2) | dict.fromkeys(("num_refiner_layers", "n_refiner_layers"), 1)
WIDTH = {
    "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 32, "caption_channels": 32,
    "cross_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 16,
    "text_embed_dim": 32,
    "time_embed_dim": 16, "condition_dim": 8, "text_dim": 32, "freq_dim": 16, "ffn_dim": 64,
    "rope_axes_dim": (4, 6, 6), "axes_dims_rope": (4, 6, 6), "context_in_dim": 32, "guidance_embeds": False,
    "rope_max_seq_len": 128,
}  # fmt: skip
UNET = {
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 2,
    "cross_attention_dim": 32, "sample_size": 8, "num_attention_heads": None, "in_channels": 4,
    "out_channels": 4,
}  # fmt: skip
DOWN_UP = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
FOUR = {"in_channels": 4, "out_channels": 4}
EIGHT = {"in_channels": 8, "out_channels": 8}
VIDEO = FOUR | {"sample_width": 8, "sample_height": 8, "sample_frames": 1, "max_text_seq_length": 24}
# what else a class needs
OWN = {
    **dict.fromkeys(
        ("AnyFlowTransformer3DModel", "ChronoEditTransformer3DModel", "CosmosTransformer3DModel",
         "HunyuanVideoTransformer3DModel", "MotifVideoTransformer3DModel", "SkyReelsV2Transformer3DModel",
         "WanTransformer3DModel"), FOUR,
    ),
    **dict.fromkeys(
        ("BriaTransformer2DModel", "FluxTransformer2DModel", "LTXVideoTransformer3DModel",
         "LongCatImageTransformer2DModel", "NucleusMoEImageTransformer2DModel", "OvisImageTransformer2DModel",
         "QwenImage21Transformer2DModel", "QwenImageTransformer2DModel"), EIGHT,
    ),
    **dict.fromkeys(("CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"), VIDEO),
    "AllegroTransformer3DModel": {
        "attention_head_dim": 24, "cross_attention_dim": 48, "sample_height": 8, "sample_width": 8,
        "sample_frames": 1,
    },
    "AuraFlowTransformer2DModel": {"sample_size": 8, "caption_projection_dim": 32, "pos_embed_max_size": 256},
    "ChromaTransformer2DModel": {
        "in_channels": 8, "approximator_num_channels": 16, "approximator_hidden_dim": 32,
        "approximator_layers": 1,
    },
    "CogView3PlusTransformer2DModel": {
        "in_channels": 4, "out_channels": 4, "sample_size": 8, "pos_embed_max_size": 32,
    },
    "CogView4Transformer2DModel": {
        "in_channels": 4, "out_channels": 4, "sample_size": 8, "pos_embed_max_size": 32,
        "rope_axes_dim": (32, 32),
    },
    "DiTTransformer2DModel": {"sample_size": 8},
    "Flux2Transformer2DModel": {"in_channels": 8, "axes_dims_rope": (4, 4, 4, 4)},
    "PixArtTransformer2DModel": {"sample_size": 8},
    "PRXTransformer2DModel": {"in_channels": 4, "hidden_size": 32, "num_heads": 2, "axes_dim": (8, 8)},
    "SD3Transformer2DModel": {"sample_size": 8, "in_channels": 4, "pos_embed_max_size": 32},
    "UNet2DConditionModel": UNET | DOWN_UP,
    "UNet2DModel": {
        "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 8,
        "in_channels": 4, "down_block_types": ("AttnDownBlock2D",) * 2,
        "up_block_types": ("AttnUpBlock2D",) * 2,
    },
    "UNet3DConditionModel": UNET | {
        "down_block_types": ("CrossAttnDownBlock3D",) * 2, "attention_head_dim": 8,
        "up_block_types": ("CrossAttnUpBlock3D",) * 2,
    },
    "UNetSpatioTemporalConditionModel": {
        "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
        "num_attention_heads": (2, 4), "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 2,
        "up_block_types": ("CrossAttnUpBlockSpatioTemporal",) * 2, "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24, "sample_size": 8,
    },
    "UNetMotionModel": UNET | {
        "down_block_types": ("CrossAttnDownBlockMotion",) * 2,
        "up_block_types": ("CrossAttnUpBlockMotion",) * 2, "motion_num_attention_heads": 2,
        "num_attention_heads": 2,
    },
    "BriaFiboTransformer2DModel": {"in_channels": 8, "text_encoder_dim": 16},
    "EasyAnimateTransformer3DModel": {"in_channels": 4, "out_channels": 4, "patch_size": 2},
    "ErnieImageTransformer2DModel": {
        "in_channels": 4, "out_channels": 4, "hidden_size": 32, "ffn_hidden_size": 64, "text_in_dim": 32,
        "rope_axes_dim": (4, 6, 6),
    },
    "GlmImageTransformer2DModel": {
        "in_channels": 4, "out_channels": 4, "prior_vq_quantizer_codebook_size": 16,
    },
    "HeliosTransformer3DModel": {"in_channels": 4, "out_channels": 4, "rope_dim": (4, 6, 6)},
    "HunyuanDiT2DModel": {
        "in_channels": 4, "patch_size": 2, "sample_size": 8, "hidden_size": 32, "cross_attention_dim_t5": 16,
        "text_len": 24, "text_len_t5": 9,
    },
    "JoyImageEditPlusTransformer3DModel": {"in_channels": 4, "hidden_size": 32, "rope_dim_list": (4, 6, 6)},
    "Kandinsky3UNet": {
        "in_channels": 4, "time_embedding_dim": 32, "groups": 8, "attention_head_dim": 16,
        "layers_per_block": 3, "block_out_channels": (32, 64, 128, 256), "encoder_hid_dim": 32,
    },
    "Kandinsky5Transformer3DModel": {
        "in_text_dim": 32, "in_text_dim2": 16, "time_dim": 16, "model_dim": 32, "ff_dim": 64,
        "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6),
    },
    "Kandinsky6Transformer3DModel": {
        "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 32, "in_text_dim2": 16, "time_dim": 16,
        "model_dim": 32, "ff_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6),
    },
    "Krea2Transformer2DModel": {
        "in_channels": 8, "num_key_value_heads": 1, "intermediate_size": 64, "timestep_embed_dim": 16,
        "text_hidden_dim": 32, "num_text_layers": 2, "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2, "text_intermediate_size": 64, "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
    },
    "LTX2VideoTransformer3DModel": {
        "in_channels": 8, "out_channels": 8, "audio_in_channels": 8, "audio_out_channels": 8,
        "audio_num_attention_heads": 2, "audio_attention_head_dim": 16, "audio_cross_attention_dim": 32,
    },
    "LatteTransformer3DModel": {
        "in_channels": 4, "patch_size": 2, "sample_size": 8, "video_length": 1, "cross_attention_dim": 32,
        "norm_type": "ada_norm_single",
    },
    "Lumina2Transformer2DModel": {
        "in_channels": 4, "hidden_size": 32, "num_kv_heads": 1, "multiple_of": 8, "cap_feat_dim": 32,
        "axes_dim_rope": (4, 6, 6), "sample_size": 8,
    },
    "LuminaNextDiT2DModel": {
        "in_channels": 4, "hidden_size": 32, "num_kv_heads": 2, "multiple_of": 8, "sample_size": 8,
    },
    "MochiTransformer3DModel": {"in_channels": 4, "max_sequence_length": 24},
    "UNetControlNetXSModel": {
        "sample_size": 8, "block_out_channels": (16, 32), "norm_num_groups": 8,
        "ctrl_block_out_channels": (8, 16), "ctrl_num_attention_heads": 2, "ctrl_max_norm_num_groups": 4,
        "ctrl_conditioning_embedding_out_channels": (8, 8, 8, 8),
    } | DOWN_UP,
    "UVit2DModel": {
        "hidden_size": 32, "cond_embed_dim": 16, "micro_cond_encode_dim": 8, "micro_cond_embed_dim": 40,
        "encoder_hidden_size": 32, "vocab_size": 32, "codebook_size": 16, "in_channels": 16,
        "block_out_channels": 16, "num_res_blocks": 1, "block_num_heads": 2, "intermediate_size": 64,
        "sample_size": 8,
    },
    "WanVACETransformer3DModel": {
        "in_channels": 4, "out_channels": 4, "vace_in_channels": 8, "vace_layers": (0, 1),
    },
    "HunyuanImageTransformer2DModel": {
        "in_channels": 4, "out_channels": 4, "rope_axes_dim": (8, 8), "patch_size": (2, 2),
    },
    "HunyuanVideo15Transformer3DModel": {
        "in_channels": 4, "out_channels": 4, "text_embed_2_dim": 16, "image_embed_dim": 16,
    },
    "BriaFibo2Transformer2DModel": {
        "in_channels": 4, "dim": 32, "n_heads": 2, "cap_feat_dim": 32, "injection_layer_ids": (0,),
        "perceiver_num_layers": 1, "axes_dims": (4, 6, 6), "min_num_gist_tokens": 4,
        "max_num_gist_tokens": 8, "gist_step": 4, "gist_min_text_len": 4, "gist_max_text_len": 32,
    },
}  # fmt: skip


def classes():
    """Every network of diffusers that denoises, by name."""
    found = {}
    for name in dir(diffusers):
        if not any(
            word in name
            for word in ("Transformer", "UNet", "DiTModel", "UniDiffuserModel", "UVit2DModel", "DiT2DModel")
        ):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = getattr(diffusers, name, None)
        if (
            inspect.isclass(kind)
            and issubclass(kind, ModelMixin)
            and kind.__module__.startswith("diffusers.models")
        ):
            found[name] = kind
    return found


def tiny(name, **others):
    """A tiny network with random weights, gates included, or what its constructor said against it."""
    kind = getattr(diffusers, name)
    accepted = inspect.signature(kind.__init__).parameters
    wanted = DEPTH | WIDTH | OWN.get(name, {}) | others
    config = {key: value for key, value in wanted.items() if key in accepted}
    torch.manual_seed(0)
    network = kind(**config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    return network
