"""Arguments of one forward pass, made of zeros from a network's signature and configuration.

Classes are not named: what a parameter is given follows from its name, and its shape from the words of the
    configuration.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

SAMPLES = ("sample", "hidden_states", "x", "latents", "input_ids")  # what the noisy image is called
TEXT_WIDTHS = (
    "joint_attention_dim", "caption_channels", "cross_attention_dim", "text_embed_dim", "context_in_dim",
    "cap_feat_dim", "text_dim", "cross_attention_input_dim", "encoder_hidden_size", "text_in_dim",
    "cond_token_dim", "in_text_dim", "text_hidden_dim",
)  # fmt: skip
# of a second text encoder
SECOND_WIDTHS = ("cross_attention_dim_t5", "text_embed_dim_t5", "text_embed_2_dim")
FIXED_TEXT = ("max_text_seq_length", "text_len")  # where a network takes one number of tokens only
AUDIO = 4  # frames of sound beside a video


@dataclass(frozen=True)
class Arguments:
    """What a forward pass is made for."""

    parameters: Mapping[str, inspect.Parameter]  # of `forward`
    layout: str  # of the latents, see `Family`
    config: dict  # of the network
    height: int  # in latent pixels
    width: int  # likewise
    text: int  # tokens of text
    masks: bool = False  # whether masks of the text are given though they need not be
    # whether images and texts are on the meta device, where they take no memory; masks and places never are
    described: bool = False
    frames: int = 1  # in latents, of a video

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each argument; what is left out has a default."""
        made = self._makers
        for name in self.parameters:
            value = made[name]() if name in made else None
            if value is not None:
                yield name, value

    @cached_property
    def _makers(self) -> dict[str, Callable]:
        get, text, height, width = self.config.get, self.text, self.height, self.width
        zeros, grid = torch.zeros, (1, height // 2, width // 2)
        one, ones = lambda: zeros(1), lambda: torch.ones(1, text)
        sides = {"height": height, "width": width, "num_frames": self.frames, "fps": torch.tensor([24])}
        row = ("height", "width", "num_frames") if self.layout == "row" else ()
        asked = [name for name in sides if self._is_required(name) or name in row]
        return {
            **dict.fromkeys(SAMPLES, self._latents),
            **{name: lambda name=name: sides[name] for name in asked},
            "timestep": self._timestep,
            **dict.fromkeys(("t", "timestep_ratio"), one),
            "timestep_r": lambda: None if get("use_meanflow") is False else zeros(1),
            "r_timestep": lambda: zeros(1, self.frames) if self._framewise else zeros(1),
            # text
            **dict.fromkeys(("encoder_hidden_states", "text_bth", "audio_encoder_hidden_states"), self._text),
            "encoder_hidden_states_t5": lambda: self._row(get("text_len_t5"), self._first(SECOND_WIDTHS)),
            "encoder_hidden_states_2": lambda: self._row(text, get("text_embed_2_dim")),
            "text_encoder_layers": lambda: (
                [zeros(1, text, get("text_encoder_dim"))] * (get("num_layers") + get("num_single_layers"))
            ),
            "cap_feats": lambda: [zeros(text, get("cap_feat_dim"))],
            "text_lens": lambda: torch.tensor([text]),
            "txt_seq_lens": lambda: [text],
            **dict.fromkeys(("text_embedding_mask", "encoder_mask"), ones),
            "text_embedding_mask_t5": lambda: torch.ones(1, get("text_len_t5") or text),
            "attention_mask": lambda: self._mask("attention_mask"),
            "encoder_attention_mask": lambda: self._mask("encoder_attention_mask"),
            "encoder_attention_mask_2": lambda: ones().bool() if get("text_embed_2_dim") else None,
            "pooled_projections": lambda: self._row(0, get("pooled_projection_dim") or get("in_text_dim2")),
            "pooled_text_emb": lambda: self._row(0, get("cond_embed_dim")),
            "clip_text_pooled": lambda: zeros(1, 1, get("clip_text_pooled_in_channels") or 1280),
            # where tokens are
            "img_ids": self._places,
            "txt_ids": lambda: zeros(text, self._axes),
            "position_ids": lambda: torch.cat([zeros(text, self._axes), self._places()]),
            **dict.fromkeys(("img_shapes", "shape_list"), lambda: [[grid]]),
            "img_mask": lambda: torch.arange(text + self._tokens // 4)[None] >= text,
            "visual_rope_pos": lambda: [torch.arange(side) for side in (self.frames, *grid[1:])],
            "text_rope_pos": lambda: torch.arange(text),
            "image_rotary_emb": self._rotary,
            "indices_latents": lambda: torch.arange(1),
            # conditions
            "guidance": lambda: zeros(1) if get("guidance_embeds") else None,
            "added_cond_kwargs": self._added,
            "cross_attention_kwargs": dict,
            "class_labels": self._labels,
            "micro_conds": lambda: zeros(1, 5),
            "added_time_ids": lambda: zeros(1, 3),
            "image_meta_size": lambda: zeros(1, 6),
            **dict.fromkeys(("original_size", "target_size", "crop_coords"), lambda: zeros(1, 2)),
            "style": lambda: zeros(1, dtype=torch.long),
            "prior_token_id": lambda: zeros(1, self._tokens, dtype=torch.long),
            "prior_token_drop": lambda: zeros(1).bool(),
            "padding_mask": lambda: self._shaped(1, 1, height, width),
            "image_latents": lambda: self._shaped(1, get("in_channels") or 4, 1, height, width),
            "control_hidden_states": lambda: self._shaped(1, get("vace_in_channels"), 1, height, width),
            "controlnet_cond": lambda: self._shaped(1, 3, 8 * height, 8 * width),
            "image_embeddings": lambda: zeros(1, get("cross_attention_dim") or 1024),
            "image_embeds": lambda: self._row(1, get("image_embed_dim") or get("image_proj_dim")),
            "global_hidden_states": lambda: zeros(1, 1, get("global_states_input_dim") or 1536),
            "audio_hidden_states": lambda: self._row(AUDIO, get("audio_in_channels")),
            "audio_num_frames": lambda: AUDIO,
        }

    def _shaped(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device="meta" if self.described else None)

    @property
    def _framewise(self) -> bool:
        """Whether each frame has a timestep of its own."""
        return self.layout == "frames" and "r_timestep" in self.parameters

    @property
    def _axes(self) -> int:
        return len(self.config.get("axes_dims_rope") or (0, 0, 0))

    @property
    def _tokens(self) -> int:
        return self.height // 2 * (self.width // 2)

    def _first(self, names: tuple[str, ...]) -> Any:
        return next((self.config[name] for name in names if self.config.get(name)), None)

    def _is_required(self, name: str) -> bool:
        return name in self.parameters and self.parameters[name].default is inspect.Parameter.empty

    def _mask(self, name: str) -> Tensor | None:
        return torch.ones(1, self.text).bool() if self.masks or self._is_required(name) else None

    def _timestep(self) -> Tensor:
        if self._framewise:
            return torch.zeros(1, self.frames)
        return torch.tensor(0) if "sample" in self.parameters else torch.zeros(1)

    def _latents(self) -> Tensor:
        channels = self._first(("in_channels", "in_channel", "latent_channels", "in_visual_dim")) or 4
        channels = 2 * channels + 1 if self.config.get("visual_cond") else channels
        frames, height, width = self.frames, self.height, self.width
        shapes = {
            "image": (1, channels, height, width),
            "video": (1, channels, frames, height, width),
            "frames": (1, frames, channels, height, width),
            "last": (1, frames, height, width, channels),
            "packed": (1, self._tokens, channels),
            "row": (1, frames * height * width, channels),
            "patches": (1, self._tokens, channels, 1, 2, 2),
            "codes": (1, height, width),
        }
        shape = shapes[self.layout]
        return torch.zeros(shape, dtype=torch.long) if self.layout == "codes" else self._shaped(*shape)

    def _text(self) -> Tensor | None:
        get, width = self.config.get, self._first(TEXT_WIDTHS)
        if get("encoder_hid_dim") and get("encoder_hid_dim_type") in (None, "text_proj", "text_image_proj"):
            width = get("encoder_hid_dim")
        width = max(width) if isinstance(width, list | tuple) else width
        if get("injection_layer_ids"):  # a text of its own for some layers
            return self._shaped(1, 1 + len(get("injection_layer_ids")), self.text, width)
        if get("num_text_layers"):  # states of several layers of the text encoder
            return self._shaped(1, self.text, get("num_text_layers"), width)
        return None if width is None else self._shaped(1, self.text, width)

    def _row(self, tokens: int | None, width: int | None) -> Tensor | None:
        """States of tokens (None: of the text); of a thing without a place among tokens where there are 0."""
        if width is None:
            return None
        return torch.zeros(1, width) if tokens == 0 else torch.zeros(1, tokens or self.text, width)

    def _places(self) -> Tensor:
        rows, columns = self.height // 2, self.width // 2
        places = torch.zeros(rows, columns, self._axes)
        places[..., 1] += torch.arange(rows)[:, None]
        places[..., 2] += torch.arange(columns)
        return places.reshape(-1, self._axes)

    def _rotary(self) -> Tensor | None:
        """Of networks that are given all places of the largest image as complex numbers."""
        if not self._is_required("image_rotary_emb"):
            return None
        width = self.config["hidden_size"] // self.config["num_attention_heads"] // 2
        return torch.ones(384, 384, width, dtype=torch.complex64)

    def _labels(self) -> Tensor | None:
        """Of networks that are given a class, or have a projection in its place."""
        kind = self.config.get("class_embed_type")
        if kind in ("projection", "simple_projection"):
            return torch.zeros(1, self.config["projection_class_embeddings_input_dim"])
        named = self.config.get("num_class_embeds") or self.config.get("norm_type") == "ada_norm_zero"
        return torch.zeros(1, dtype=torch.long) if named or kind is not None else None

    def _added(self) -> dict | None:
        """What SDXL, Kandinsky and PixArt add to the time."""
        get, zeros = self.config.get, torch.zeros
        kind, projected = get("addition_embed_type"), str(get("encoder_hid_dim_type"))
        if kind == "text_time":  # pooled text and six numbers about size and crop
            pooled = get("projection_class_embeddings_input_dim") - 6 * get("addition_time_embed_dim")
            return {"text_embeds": zeros(1, pooled), "time_ids": zeros(1, 6)}
        if kind in ("text_image", "image", "image_hint") or projected.endswith("image_proj"):
            width = get("encoder_hid_dim") or get("cross_attention_dim")
            hint = {"hint": zeros(1, 3, 64, 64)} if kind == "image_hint" else {}
            return {"image_embeds": zeros(1, width), "text_embeds": zeros(1, width)} | hint
        asked = "use_additional_conditions" in self.config
        return {"resolution": zeros(1, 2), "aspect_ratio": zeros(1, 1)} if asked else None
