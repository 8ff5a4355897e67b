"""How the denoising networks of each kind are called: what they need as input, and where text joins the image tokens.

In the UNets and in PixArt the text is seen by cross-attention only. In SD3 and FLUX text and image attend jointly, so N
and T of a layer count both, and T depends on how much text a call brings. To add a kind of network, give it a line in
`FAMILIES`; everything else in the library takes it from there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entropy_lib.errors import UnsupportedModelError

Config = dict


@dataclass(frozen=True)
class Family:
    """One kind of denoising network.

    Attributes:
        inputs: (config, latent height, latent width, text tokens) → keyword arguments of one forward pass of zeros.
        native_size: config → height and width in latent pixels at training size.
        latent_multiple: height and width in latent pixels must be multiples of this.
        text_tokens: text tokens of a default call where text joins the self-attention; 0 where it does not.
        text_first: whether joint attention puts text before image tokens.
        guidance_in_batch: whether pipelines call the network on [uncond, cond] in one batch.
        timestep_unit: what to multiply the timestep of a call by to find it in the scheduler's list.
        latent_size: (sample, keyword arguments) of a call → height and width in latent pixels.
    """

    inputs: Callable[[Config, int, int, int], dict]
    native_size: Callable[[Config], tuple[int, int]]
    latent_multiple: int = 1
    text_tokens: int = 0
    text_first: bool = False
    guidance_in_batch: bool = True
    timestep_unit: float = 1.0
    latent_size: Callable[[Tensor, dict], tuple[int, int]] = lambda sample, _: tuple(sample.shape[-2:])


def family(network: nn.Module) -> Family:
    """The family of a denoising network.

    Raises:
        UnsupportedModelError: when the class is not known.
    """
    known = FAMILIES.get(type(network).__name__)
    if known is None:
        raise UnsupportedModelError(
            f"{type(network).__name__} is not among the networks known here: {', '.join(FAMILIES)}. "
            "To add it, say in entropy_lib/models/networks.py how it is called."
        )
    return known


def text_length(network: nn.Module, args: tuple, kwargs: dict) -> int:
    """Text tokens that join the self-attention of a call of the network; 0 where text is kept apart."""
    if not family(network).text_tokens:
        return 0
    text = args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]
    return text.shape[1]


def _sample_size(config: Config) -> tuple[int, int]:
    size = config["sample_size"]
    return (size, size) if isinstance(size, int) else tuple(size)


def _unet(config: Config, height: int, width: int, _: int) -> dict:
    inputs = {"sample": torch.zeros(1, config["in_channels"], height, width), "timestep": torch.tensor(0)}
    if config.get("cross_attention_dim"):
        inputs["encoder_hidden_states"] = torch.zeros(1, 1, config["cross_attention_dim"])
    if config.get("addition_embed_type") == "text_time":  # SDXL: pooled text and six numbers about size and crop
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs["added_cond_kwargs"] = {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
    return inputs


def _sd3(config: Config, height: int, width: int, text: int) -> dict:
    return {
        "hidden_states": torch.zeros(1, config["in_channels"], height, width),
        "encoder_hidden_states": torch.zeros(1, text, config["joint_attention_dim"]),
        "pooled_projections": torch.zeros(1, config["pooled_projection_dim"]),
        "timestep": torch.zeros(1),
    }


def _flux(config: Config, height: int, width: int, text: int) -> dict:
    rows, columns = height // 2, width // 2  # the pipeline packs 2 x 2 latent pixels into a token
    places = torch.zeros(rows, columns, 3)
    places[..., 1] += torch.arange(rows)[:, None]
    places[..., 2] += torch.arange(columns)
    return {
        "hidden_states": torch.zeros(1, rows * columns, config["in_channels"]),
        "encoder_hidden_states": torch.zeros(1, text, config["joint_attention_dim"]),
        "pooled_projections": torch.zeros(1, config["pooled_projection_dim"]),
        "timestep": torch.zeros(1),
        "guidance": torch.zeros(1) if config["guidance_embeds"] else None,
        "img_ids": places.reshape(-1, 3),
        "txt_ids": torch.zeros(text, 3),
    }


def _flux_latent_size(_: Tensor, kwargs: dict) -> tuple[int, int]:
    rows, columns = (kwargs["img_ids"].reshape(-1, 3).amax(0)[1:] + 1).int().tolist()
    return 2 * rows, 2 * columns


def _pixart(config: Config, height: int, width: int, _: int) -> dict:
    return {
        "hidden_states": torch.zeros(1, config["in_channels"], height, width),
        "encoder_hidden_states": torch.zeros(1, 1, config["caption_channels"]),
        "timestep": torch.zeros(1),
        "added_cond_kwargs": {"resolution": torch.zeros(1, 2), "aspect_ratio": torch.zeros(1, 1)},
    }


FAMILIES = {
    "UNet2DModel": Family(_unet, _sample_size),
    "UNet2DConditionModel": Family(_unet, _sample_size),
    "PixArtTransformer2DModel": Family(_pixart, _sample_size, latent_multiple=2),
    "SD3Transformer2DModel": Family(_sd3, _sample_size, latent_multiple=2, text_tokens=77 + 256),
    "FluxTransformer2DModel": Family(
        _flux, lambda _: (128, 128), latent_multiple=2, text_tokens=512, text_first=True, guidance_in_batch=False,
        timestep_unit=1000, latent_size=_flux_latent_size,
    ),
}  # fmt: skip
