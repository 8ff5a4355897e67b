"""How denoising networks are called: what they need as input, and what a call says of its size and its text.

That is read from the signature of `forward` and the configuration; which layout of the latents a network
takes is tried on a twin without weights (`models.layers`). Classes are not named, but for what no
configuration says.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.forward_arguments import FIXED_TEXT, SAMPLES, Arguments

Config = dict
Size = tuple[int, int]
# of a default call, by a parameter that such networks have
TEXT_TOKENS = {"pooled_projections": 77 + 256, "img_ids": 512}
TEXTS = ("encoder_hidden_states", "text_bth", "cap_feats")  # what the states of the text are called
# latent pixels: networks with `img_ids` know no native size; FLUX and its kin have this one
FLUX_LIKE = (128, 128)
VIDEO = ("video", "frames", "last", "row")  # layouts of latents with frames
# parameters that say where each token of packed latents is
PACKED = ("img_ids", "img_shapes", "shape_list", "position_ids")


@dataclass(frozen=True)
class Family:
    """How networks of one class and configuration are called."""

    parameters: Mapping[str, inspect.Parameter] = field(hash=False)  # of `forward`
    # of the latents: "image" `[batch, channel, height, width]`, "video" with frames before the height,
    # "frames" with frames before the channels, "last" with channels last, "packed" `[batch, token, channel]`
    # with a token for 2 x 2 latent pixels, "row" with one for each, "patches" of them, "codes" `[batch,
    # height, width]`
    layout: str
    latent_multiple: int = 1  # height and width in latent pixels must be multiples of this
    # text tokens of a default call where text joins the self-attention; 0 where it does not
    text_tokens: int = 0
    recorded: "Recorded | None" = None
    masks: bool = False

    @property
    def packed(self) -> bool:
        """Whether latents come as a row of tokens."""
        return self.layout in ("packed", "row", "patches")

    def inputs(
        self, config: Config, height: int, width: int, text: int, *, described: bool = False, frames: int = 1
    ) -> dict:
        """Keyword arguments of one forward pass of zeros.

        Args:
            config: of the network.
            height, width: in latent pixels.
            text: tokens of text; 1 where it is kept apart.
            described: whether images and texts are to have no numbers.
            frames: in latents, of networks of video.
        """
        if frames > 1 and (self.recorded is not None or self.layout not in VIDEO):
            raise InvalidInputError(
                f"latent_size has {frames} frames, and how this network takes frames is not known; give "
                "height and width alone"
            )
        recorded, parameters = self.recorded, self.parameters
        if recorded is None:
            text = text if text > 1 else _fixed_text(config) or 1
        else:  # but for where its tokens are
            parameters = {name: each for name, each in parameters.items() if name in recorded.places}
        layout, masks = self.layout, self.masks
        made = Arguments(parameters, layout, dict(config), height, width, text, masks, described, frames)
        return ({} if recorded is None else recorded.at(height, width, text)) | dict(made)

    def native_size(self, config: Config) -> Size | None:
        """Height and width in latent pixels at training size; None where the configuration does not say."""
        size = config.get("sample_size")
        if size is None and config.get("sample_height") and config.get("sample_width"):
            size = config["sample_height"], config["sample_width"]
        if size is None:
            return FLUX_LIKE if "img_ids" in self.parameters else None
        return (size, size) if isinstance(size, int) else tuple(size)

    def latent_size(self, given: dict) -> Size:
        """Height and width in latent pixels of a call (see `named`): of the image that is generated."""
        if self.layout == "last":
            return tuple(sample_of(given).shape[-3:-1])
        if not self.packed:
            return tuple(sample_of(given).shape[-2:])
        if self.layout == "row":
            return given.get("height"), given.get("width")
        shapes, places = given.get("img_shapes") or given.get("shape_list"), given.get("img_ids")
        if shapes is not None:
            while isinstance(shapes[0], list | tuple):
                shapes = shapes[0]
            return 2 * shapes[-2], 2 * shapes[-1]
        if places is None:
            places = given["position_ids"][text_length(given) :]
        places = places.reshape(-1, places.shape[-1])
        # FLUX Kontext counts images in the first column, its own first
        own = places[places[:, 0] == places[0, 0]]
        rows, columns = (own.amax(0)[1:3] + 1).int().tolist()
        return 2 * rows, 2 * columns

    def joint_text(self, given: dict) -> int:
        """Text tokens of a call that join the self-attention."""
        return text_length(given) if self.text_tokens else 0


def family(network: nn.Module) -> Family:
    """How a denoising network is called."""
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
    """One real call of a network: its arguments, without their numbers."""

    arguments: dict  # by name, tensors on the meta device
    size: Size  # height and width in latent pixels; for packed latents, as they say
    text: int  # tokens of `encoder_hidden_states`

    @property
    def places(self) -> list[str]:
        """The arguments that say where each token of packed latents is."""
        return [name for name in PACKED if self.arguments.get(name) is not None]

    def at(self, height: int, width: int, text: int) -> dict:
        """The arguments of a call at another size, or with another length of text."""
        sizes, frames = {"height": height, "width": width}, self.arguments.get("num_frames") or 1
        tokens, grown = self.size[0] * self.size[1], height * width
        lengths = {
            count * tokens // each: count * grown // each
            for count in (1, frames)
            for each in (1, 4, 16)
            if tokens // each > 1
        }
        lengths |= {self.text: max(text, 1)} if self.text > 1 and text else {}

        def resized(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            shape = list(value.shape)
            if value.ndim >= 4 and self.size in (tuple(shape[-2:]), tuple(shape[-3:-1])):
                place = -2 if tuple(shape[-2:]) == self.size else -3
                shape[place], shape[place + 1] = height, width
            else:
                first = 1 if value.ndim > 2 else 0
                shape[first:-1] = [lengths.get(each, each) for each in shape[first:-1]]
            return value if shape == list(value.shape) else value.new_zeros(shape)

        given = {name: self._places(value, height, width) for name, value in self.arguments.items()}
        given |= {name: side for name, side in sizes.items() if isinstance(given.get(name), int)}
        return tree_map(resized, given)

    def _places(self, value: Any, height: int, width: int) -> Any:
        """Places along frames, height and width, at another size."""
        listed = value if isinstance(value, list | tuple) else ()
        if len(listed) != 3 or not all(isinstance(each, Tensor) and each.ndim == 1 for each in listed):
            return value
        sides = (len(value[1]) * height // self.size[0], len(value[2]) * width // self.size[1])
        return [value[0], *(torch.arange(side) for side in sides)]


COUNTED = 1 << 16  # numbers of a tensor that is kept


def bare(value: Any) -> Any:
    """A tensor without its numbers, but for those that networks count, index or branch by."""
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    kept = value.numel() <= COUNTED and (not value.is_floating_point() or not value.any())
    return value.detach().cpu() if kept else torch.empty_like(value, device="meta")


RECORDED: dict[tuple, Recorded] = {}  # by class and configuration


def named(network: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """What a call hands over, by parameter."""
    return dict(zip(parameters_of(type(network)), args, strict=False)) | kwargs


def text_length(given: dict) -> int:
    """Text tokens that a call brings."""
    text = next((given[name] for name in TEXTS if given.get(name) is not None), None)
    if isinstance(text, list) and isinstance(text[0], Tensor):
        return max(len(each) for each in text)
    return text.shape[1] if isinstance(text, Tensor) and text.ndim >= 3 else 0


def sample_of(given: dict) -> Tensor:
    """The noisy images of a call; of a list of them the first."""
    sample = _samples(given)
    while isinstance(sample, list | tuple):
        sample = sample[0]
    if not isinstance(sample, Tensor):
        raise UnsupportedModelError(
            f"a network was called without {' or '.join(SAMPLES)}, so its image is not known"
        )
    return sample


def batch_of(given: dict) -> int:
    """Rows of a call; Z-Image takes a list of images, one for each."""
    samples = _samples(given)
    return len(samples) if isinstance(samples, list | tuple) else len(sample_of(given))


def _samples(given: dict) -> Any:
    return next((given[name] for name in SAMPLES if name in given), None)


def layouts(network_class: type, config: Config) -> Iterator[Family]:
    """The ways in which a network may be called, the likeliest first."""
    parameters = parameters_of(network_class)
    patch = config.get("patch_size") or config.get("all_patch_size") or 1
    multiple = patch if isinstance(patch, int) else patch[-1]
    if "block_out_channels" in config and not any(name in parameters for name in TEXTS):
        multiple = 2 ** (len(config["block_out_channels"]) - 1)  # UNet2DModel, whose levels must halve
    recorded = RECORDED.get((network_class, frozen(config)))
    if recorded is not None:
        layout = "packed" if recorded.places else "image"
        yield Family(parameters, layout, 2 if recorded.places else multiple, recorded.text, recorded)
    text = max((tokens for name, tokens in TEXT_TOKENS.items() if name in parameters), default=77)
    text = 0 if not any(name in parameters for name in TEXTS) else _fixed_text(config) or text
    kinds = ("image", "video", "frames", "last")
    for layout, names in (
        ("packed", PACKED[:2]),
        ("patches", PACKED[2:3]),
        ("row", ("num_frames", "width")),
        ("codes", ("input_ids",)),
    ):
        if set(names) <= set(parameters) or (layout == "packed" and set(PACKED[:2]) & set(parameters)):
            kinds = (layout,)
            break
    kinds += ("packed",) if "position_ids" in parameters else ()
    for layout in kinds:
        for masks in (False, True):
            yield Family(parameters, layout, 2 if layout == "packed" else multiple, text, masks=masks)


def _fixed_text(config: Config) -> int | None:
    return next((config[name] for name in FIXED_TEXT if config.get(name)), None)


@lru_cache(maxsize=128)
def parameters_of(network_class: type) -> Mapping[str, inspect.Parameter]:
    found = inspect.signature(network_class.forward).parameters
    return {name: each for name, each in found.items() if name != "self"}
