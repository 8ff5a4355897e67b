"""How denoising networks are called: what they need as input, and what a call says of its size and its text.

That is read from the signature of `forward` and the configuration; which layout of the latents a network takes is tried on a twin
without weights (`models.layers`). Classes are not named, but for what no configuration says.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entropy_lib.errors import InvalidInputError, UnsupportedModelError

Config = dict
Size = tuple[int, int]
SAMPLES = ("sample", "hidden_states", "x", "latents")  # what the noisy picture is called
TEXT_WIDTHS = (
    "joint_attention_dim", "caption_channels", "cross_attention_dim", "text_embed_dim", "context_in_dim", "cap_feat_dim",
    "text_dim", "cross_attention_input_dim", "encoder_hidden_size", "text_in_dim", "cond_token_dim",
)  # fmt: skip
TEXT_TOKENS = {"pooled_projections": 77 + 256, "img_ids": 512}  # of a default call, by a parameter that such networks have
FLUX_LIKE = (128, 128)  # latent pixels: networks with `img_ids` know no native size; FLUX and its kin have this one
PACKED = ("img_ids", "img_shapes")  # parameters that say where each token of packed latents is


@dataclass(frozen=True)
class Family:
    """How networks of one class and configuration are called.

    Attributes:
        parameters: of `forward`.
        layout: of the latents: "picture" `[batch, channel, height, width]`, "video" with frames before the height, "frames" with
            frames before the channels, "packed" `[batch, token, channel]`.
        latent_multiple: height and width in latent pixels must be multiples of this.
        text_tokens: text tokens of a default call where text joins the self-attention; 0 where it does not.
    """

    parameters: Mapping[str, inspect.Parameter] = field(hash=False)
    layout: str
    latent_multiple: int = 1
    text_tokens: int = 0
    recorded: "Recorded | None" = None

    @property
    def packed(self) -> bool:
        """Whether latents come as a row of tokens."""
        return self.layout == "packed"

    def inputs(self, config: Config, height: int, width: int, text: int) -> dict:
        """Keyword arguments of one forward pass of zeros: latent height and width, text tokens (1 where text is kept apart)."""
        if self.recorded is not None:
            return self.recorded.at(height, width, text)
        return dict(_arguments(self.parameters, self.layout, dict(config), height, width, max(text, 1)))

    def native_size(self, config: Config) -> Size:
        """Height and width in latent pixels at training size.

        Raises:
            InvalidInputError: where the configuration does not say; naming what to give.
        """
        size = config.get("sample_size")
        if size is None and config.get("sample_height") and config.get("sample_width"):
            size = config["sample_height"], config["sample_width"]
        if size is None and "img_ids" in self.parameters:
            size = FLUX_LIKE
        if size is None:
            raise InvalidInputError(
                "sample_size of the network's configuration is None, so the size that it was trained at is not known; give "
                "`latent_size`, height and width in latent pixels, for example (64, 64)"
            )
        return (size, size) if isinstance(size, int) else tuple(size)

    def latent_size(self, args: tuple, kwargs: dict) -> Size:
        """Height and width in latent pixels of a call; of the picture that is drawn where others stand beside it."""
        if not self.packed:
            return tuple(sample_of(args, kwargs).shape[-2:])
        places = self.given("img_ids", args, kwargs)
        if places is None:
            return _of_shapes(self.given("img_shapes", args, kwargs))
        places = places.reshape(-1, places.shape[-1])
        own = places[places[:, 0] == places[0, 0]]  # FLUX Kontext counts pictures in the first column, its own first
        rows, columns = (own.amax(0)[-2:] + 1).int().tolist() if own.shape[-1] == 3 else (own.amax(0)[1:3] + 1).int().tolist()
        return 2 * rows, 2 * columns

    def text_length(self, args: tuple, kwargs: dict) -> int:
        """Text tokens that a call brings."""
        text = self.given("encoder_hidden_states", args, kwargs)
        return text.shape[1] if isinstance(text, Tensor) and text.ndim == 3 else 0

    def given(self, name: str, args: tuple, kwargs: dict) -> Any:
        """What a call hands over as the named parameter; None where it does not."""
        if name in kwargs or name not in self.parameters:
            return kwargs.get(name)
        place = list(self.parameters).index(name)
        return args[place] if place < len(args) else None


def family(network: nn.Module) -> Family:
    """How a denoising network is called.

    Raises:
        UnsupportedModelError: where that cannot be found out.
    """
    from entropy_lib.models.trace import structure

    return structure(type(network), config_of(network)).family


CONFIG = "_entropy_lib_config"  # attribute of a network: its configuration, and a hashable copy of it


def config_of(network: nn.Module) -> tuple:
    """A hashable copy of a network's configuration, made once for each."""
    kept = network.__dict__.get(CONFIG)
    if kept is None or kept[0] is not network.config:
        kept = network.__dict__[CONFIG] = (network.config, frozen(network.config))
    return kept[1]


def frozen(config: Any) -> Any:
    """A hashable copy of a configuration (nested lists and dicts become tuples)."""
    if isinstance(config, Mapping):
        return tuple((key, frozen(value)) for key, value in config.items() if not key.startswith("_"))
    return tuple(frozen(item) for item in config) if isinstance(config, list | tuple) else config


@dataclass(frozen=True, eq=False)
class Recorded:
    """One real call of a network: its arguments, without their numbers.

    Attributes:
        arguments: by name, tensors on the meta device.
        size: height and width in latent pixels; for packed latents, as they say.
        text: tokens of `encoder_hidden_states`.
    """

    arguments: dict
    size: Size
    text: int

    def at(self, height: int, width: int, text: int) -> dict:
        """The arguments of a call at another size, or with another length of text."""
        tokens = self.size[0] * self.size[1]
        lengths = {self.text: max(text, 1)} if self.text > 1 and text else {}
        packed = {tokens // each: height * width // each for each in (1, 4, 16) if tokens // each > 1}

        def resized(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.ndim >= 4 and tuple(value.shape[-2:]) == self.size:
                return value.new_zeros(*value.shape[:-2], height, width)
            inner = value.shape[1:-1] if value.ndim > 2 else value.shape[:-1] if value.ndim == 2 else ()
            grown = [lengths.get(each, packed.get(each, each)) for each in inner]
            ends = (value.shape[:1], value.shape[-1:]) if value.ndim > 2 else ((), value.shape[-1:])
            return value.new_zeros(*ends[0], *grown, *ends[1]) if grown else value

        return tree_map(resized, self.arguments)


RECORDED: dict[tuple, Recorded] = {}  # by class and configuration


@contextmanager
def recording(network: nn.Module) -> Iterator[None]:
    """Learn from real calls how a network is called, where its signature and configuration do not say it.

    Args:
        network: the denoiser, as `pipe.transformer`.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with recording(pipe.unet):
        ...     _ = pipe("a penguin", num_inference_steps=1)
        >>> len(el.training_tokens(pipe))
        10
    """
    from entropy_lib.models.trace import forget

    def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(zip(_parameters(type(module)), args, strict=False)) | kwargs
        text = given.get("encoder_hidden_states")
        length = text.shape[1] if isinstance(text, Tensor) and text.ndim == 3 else 0
        sample = sample_of(args, kwargs)
        if sample.ndim < 4:
            raise UnsupportedModelError(
                f"{type(module).__name__} takes its latents as {list(sample.shape)}, which says nothing of height and width"
            )
        size = tuple(sample.shape[-2:])
        bare = tree_map(lambda value: value.to("meta") if isinstance(value, Tensor) else value, given)
        RECORDED[type(module), config_of(module)] = Recorded(bare, size, length)

    handle = network.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        forget()


def sample_of(args: tuple, kwargs: dict) -> Tensor:
    """The noisy picture of a call."""
    sample = args[0] if args else next((kwargs[name] for name in SAMPLES if name in kwargs), None)
    while isinstance(sample, list | tuple):
        sample = sample[0]
    if not isinstance(sample, Tensor):
        raise UnsupportedModelError(f"a network was called without {' or '.join(SAMPLES)}, so its picture is not known")
    return sample


def layouts(network_class: type, config: Config) -> Iterator[Family]:
    """The ways in which a network may be called, the likeliest first."""
    parameters = _parameters(network_class)
    patch = config.get("patch_size") or 1
    multiple = patch if isinstance(patch, int) else patch[-1]
    packed = any(name in parameters for name in PACKED)
    recorded = RECORDED.get((network_class, frozen(config)))
    if recorded is not None and not packed:
        yield Family(parameters, "picture", multiple, recorded.text, recorded)
    text = max((tokens for name, tokens in TEXT_TOKENS.items() if name in parameters), default=77)
    text = 0 if not any(name in parameters for name in ("encoder_hidden_states", "cap_feats")) else text
    for layout in ("packed",) if packed else ("picture", "video", "frames"):
        yield Family(parameters, layout, 2 if packed else multiple, text)


@lru_cache(maxsize=128)
def _parameters(network_class: type) -> Mapping[str, inspect.Parameter]:
    found = inspect.signature(network_class.forward).parameters
    return {name: each for name, each in found.items() if name != "self"}


def _of_shapes(shapes: Any) -> Size:
    while isinstance(shapes, list | tuple) and isinstance(shapes[0], list | tuple):
        shapes = shapes[0]
    return 2 * shapes[-2], 2 * shapes[-1]


def _arguments(parameters: Mapping, layout: str, config: Config, height: int, width: int, text: int) -> Iterator[tuple[str, Any]]:
    """Name and value of each argument that a forward pass may need; what is left out has a default."""
    make = {
        **dict.fromkeys(SAMPLES, lambda: _latents(layout, config, height, width)),
        "timestep": lambda: torch.zeros(1) if "sample" not in parameters else torch.tensor(0),
        "t": lambda: torch.zeros(1),
        "r_timestep": lambda: torch.zeros(1),
        "timestep_r": lambda: torch.zeros(1),
        "timestep_ratio": lambda: torch.zeros(1),
        "encoder_hidden_states": lambda: _text(config, text),
        "cap_feats": lambda: [torch.zeros(text, config["cap_feat_dim"])],
        "text_bth": lambda: _text(config, text),
        "text_lens": lambda: torch.tensor([text]),
        "height": lambda: _required(parameters, "height", lambda: height),
        "width": lambda: _required(parameters, "width", lambda: width),
        "num_frames": lambda: 1,
        "pooled_projections": lambda: _row(config.get("pooled_projection_dim")),
        "guidance": lambda: torch.zeros(1) if config.get("guidance_embeds") else None,
        "img_ids": lambda: _places(config, height // 2, width // 2),
        "txt_ids": lambda: torch.zeros(text, len(config.get("axes_dims_rope") or (0, 0, 0))),
        "img_shapes": lambda: [[(1, height // 2, width // 2)]],
        "txt_seq_lens": lambda: [text],
        "added_cond_kwargs": lambda: _added(config, layout),
        "class_labels": lambda: _labels(config),
        "attention_mask": lambda: _required(parameters, "attention_mask", lambda: torch.ones(1, text)),
        "encoder_attention_mask": lambda: _required(parameters, "encoder_attention_mask", lambda: torch.ones(1, text).bool()),
        "original_size": lambda: torch.zeros(1, 2),
        "target_size": lambda: torch.zeros(1, 2),
        "crop_coords": lambda: torch.zeros(1, 2),
        "padding_mask": lambda: torch.zeros(1, 1, height, width),
        "clip_text_pooled": lambda: torch.zeros(1, 1, config.get("clip_text_pooled_in_channels") or 1280),
        "text_embedding_mask": lambda: torch.ones(1, text),
        "encoder_mask": lambda: torch.ones(1, text),
        "image_latents": lambda: torch.zeros(1, config.get("in_channels") or 4, 1, height, width),
        "image_embeddings": lambda: torch.zeros(1, config.get("cross_attention_dim") or 1024),
        "global_hidden_states": lambda: torch.zeros(1, 1, config.get("global_states_input_dim") or 1536),
        "added_time_ids": lambda: torch.zeros(1, 3),
        "fps": lambda: torch.tensor([24]) if parameters["fps"].default is inspect.Parameter.empty else None,
    }
    for name in parameters:
        value = make[name]() if name in make else None
        if value is not None:
            yield name, value


def _required(parameters: Mapping, name: str, make: Callable[[], Tensor]) -> Tensor | None:
    return make() if parameters[name].default is inspect.Parameter.empty else None


def _latents(layout: str, config: Config, height: int, width: int) -> Tensor:
    channels = config.get("in_channels") or config.get("in_channel") or config.get("latent_channels") or 4
    shapes = {
        "picture": (1, channels, height, width),
        "video": (1, channels, 1, height, width),
        "frames": (1, 1, channels, height, width),
        "packed": (1, height // 2 * (width // 2), channels),
    }
    return torch.zeros(shapes[layout])


def _text(config: Config, tokens: int) -> Tensor | None:
    width = next((config[name] for name in TEXT_WIDTHS if config.get(name)), None)
    if config.get("encoder_hid_dim") and config.get("encoder_hid_dim_type") in (None, "text_proj", "text_image_proj"):
        width = config["encoder_hid_dim"]
    width = max(width) if isinstance(width, list | tuple) else width
    return None if width is None else torch.zeros(1, tokens, width)


def _row(width: int | None) -> Tensor | None:
    return None if width is None else torch.zeros(1, width)


def _places(config: Config, rows: int, columns: int) -> Tensor:
    places = torch.zeros(rows, columns, len(config.get("axes_dims_rope") or (0, 0, 0)))
    places[..., 1] += torch.arange(rows)[:, None]
    places[..., 2] += torch.arange(columns)
    return places.reshape(-1, places.shape[-1])


def _labels(config: Config) -> Tensor | None:
    """Of networks that are told a class, or have a projection in its place."""
    kind = config.get("class_embed_type")
    if kind in ("projection", "simple_projection"):
        return torch.zeros(1, config["projection_class_embeddings_input_dim"])
    wanted = kind is not None or config.get("num_class_embeds") or config.get("norm_type") == "ada_norm_zero"
    return torch.zeros(1, dtype=torch.long) if wanted else None


def _added(config: Config, layout: str) -> dict | None:
    """What SDXL, Kandinsky and PixArt add to the time."""
    kind, image = config.get("addition_embed_type"), config.get("encoder_hid_dim")
    if kind == "text_time":  # pooled text and six numbers about size and crop
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        return {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
    if kind in ("text_image", "image", "image_hint") or str(config.get("encoder_hid_dim_type")).endswith("image_proj"):
        width = image or config.get("cross_attention_dim")
        hint = {"hint": torch.zeros(1, 3, 64, 64)} if kind == "image_hint" else {}
        return {"image_embeds": torch.zeros(1, width), "text_embeds": torch.zeros(1, width)} | hint
    asked = "use_additional_conditions" in config
    return {"resolution": torch.zeros(1, 2), "aspect_ratio": torch.zeros(1, 1)} if asked else None
