"""Finding the self-attention of a diffusers model: which layers, at how many tokens, on what grid.

A layer is self-attention when its keys grow with the image; joint attention, where text and image tokens
attend to all of both, counts too. That is decided by running the model: block names and key counts mislead (a
cross-attention may carry the name attn1; a 7 x 11 grid has as many keys as a prompt, 77). The run uses a
weightless twin on the meta device (`models.trace`), so it costs neither time nor memory and works for any
size.
"""

import fnmatch
import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from entropy_lib.errors import EntropyLibError, InvalidInputError, UnknownNameError, UnsupportedModelError
from entropy_lib.models.kernels import KernelCall, Run, visible_keys
from entropy_lib.models.networks import (
    COUNTED,
    Recorded,
    bare,
    batch_of,
    config_of,
    family,
    named,
    text_length,
)
from entropy_lib.models.trace import Structure, TracedCall, attending, said, structure, trace, trace_at

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline  # slow to import, and not needed to look into a model

KINDS = ("image", "image+text")  # of attention that rules act on, unless something else is asked for
DiffusionModel: TypeAlias = "DiffusionPipeline | nn.Module"  # a pipeline, or its denoising network


def denoiser(model: DiffusionModel) -> nn.Module:
    """The denoising network of a pipeline (`unet` or `transformer`, the first of two), or the model."""
    for part in (model, getattr(model, "unet", None), getattr(model, "transformer", None)):
        if isinstance(part, nn.Module):
            return getattr(part, "_orig_mod", part)  # what torch.compile wraps
    networks = ", ".join(_networks(model))
    hint = f"; hand over one of its networks by itself ({networks})" if networks else ""
    raise UnsupportedModelError(
        "expected a diffusers pipeline with a unet or transformer, or the network itself; got "
        f"{type(model).__name__}{hint}"
    )


def known_denoiser(model: DiffusionModel) -> nn.Module:
    """`denoiser`, once it is known how that is called: from its pipeline, where nothing else says it."""
    from entropy_lib.models.recording import learn

    network = denoiser(model)
    if not isinstance(model, nn.Module):
        learn(model, network)
    return network


def sole_denoiser(model: DiffusionModel) -> nn.Module:
    """`denoiser`, for what would be silent about a second one."""
    network = known_denoiser(model)
    alike = [name for name, part in _networks(model).items() if type(part) is type(network)]
    if len(alike) > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} denoises with {' and '.join(alike)}; patch and probe act on one "
            f"network each: hand over each by itself, as pipe.{alike[0]} and pipe.{alike[1]}, with "
            "`latent_size` where it is asked for"
        )
    return network


def _networks(model: object) -> dict[str, nn.Module]:
    """The networks of a pipeline, by name, as they are under torch.compile."""
    parts = getattr(model, "__dict__", {}).items()
    return {name: getattr(part, "_orig_mod", part) for name, part in parts if isinstance(part, nn.Module)}


def tokens_at(
    model: DiffusionModel, height: int, width: int, text_tokens: int | None = None
) -> dict[str, int]:
    """Tokens of every self-attention layer for latents of the given size, traced on a weightless twin.

    Args:
        model: a pipeline or its denoising network.
        height: latent height (pixels / 8 for Stable Diffusion, / 4 for `mini`).
        width: latent width.
        text_tokens: tokens of text, counted where they join the self-attention (SD3, FLUX); by default those
            of a default call.

    Returns:
        {layer name: tokens}, in the order of execution.
    """
    network = known_denoiser(model)
    counts = {name: layer.keys for name, layer in layers_at(network, height, width, text_tokens).items()}
    if not counts:
        raise InvalidInputError(
            f"{type(network).__name__} has no self-attention layer; there is no entropy to measure "
            "and no scale to change"
        )
    return counts


@dataclass(frozen=True)
class LayerTokens:
    """The tokens of one self-attention layer at one size of the image."""

    keys: int  # of its softmax, text and other tokens included
    queries: int  # of it
    image: int  # those of the image
    first: int  # where the image's keys begin
    scale: float  # λ that the network asks for
    rows: int  # of all heads, for each row of a batch
    attends: str  # "image", "image+text", or "frames"

    @property
    def first_query(self) -> int:
        """Where the image's queries begin: where its keys do, if text has queries too."""
        return self.first if self.queries == self.keys else 0


Tokens: TypeAlias = dict[str, LayerTokens]  # by layer


def layers_at(
    network: nn.Module, height: int, width: int, text_tokens: int | None = None, frames: int | None = None
) -> Tokens:
    """The tokens of each self-attention layer, as `tokens_at`; with frames, of attention over them too."""
    size = check_latent_size((height, width))
    text = family(network).text_tokens if text_tokens is None else text_tokens
    return _layers(type(network), config_of(network), *size, text, frames)


@lru_cache(maxsize=64)
def _layers(
    network_class: type, config: tuple, height: int, width: int, text: int, frames: int | None
) -> Tokens:
    made, found = structure(network_class, config), {}
    if height % (multiple := made.family.latent_multiple) or width % multiple:
        raise InvalidInputError(
            f"latent_size is ({height}, {width}); {network_class.__name__} takes multiples of {multiple}"
        )
    kinds = KINDS if frames is None else (*KINDS, "frames")
    try:
        calls = trace_at(network_class, config, made.family, height, width, text, frames or 1)
    except EntropyLibError:
        raise
    except Exception as error:  # networks raise whatever they like
        raise InvalidInputError(
            f"{network_class.__name__} cannot be run at latent_size {(height, width)} with {text} tokens of "
            f"text ({said(error)}); give a size, or a text, that it takes"
        ) from error
    for call in attending(calls, made.attention).values():
        kind = made.attention.get(call.module)
        if kind is not None and kind.attends in kinds:
            image = call.keys - kind.text * max(text, 1) - kind.other
            if kind.text and kind.other:  # padding, of which more or less is needed than for a default text
                image = kind.image * height * width // math.prod(made.size)
            first = sum(call.parts[: kind.part]) if kind.text or kind.other else 0
            found[call.module] = LayerTokens(
                call.keys, call.queries, image, first, call.scale, call.rows, kind.attends
            )
    return found


def _structure(network: nn.Module) -> Structure:
    return structure(type(network), config_of(network))


@lru_cache(maxsize=64)
def _of_usual_call(
    network_class: type,
    config: tuple,
    native: tuple[int, ...],
    size: tuple[int, int],
    text: int,
    shapes: tuple,
) -> tuple[Tokens, Tokens] | None:
    """The tokens in a call, and at training size, where it hands over shapes like those of any call."""
    known = structure(network_class, config).family
    joint, framed = (text if known.text_tokens else 0), len(native) == 3
    layers = _layers(network_class, config, *size, joint, 1 if framed else None)
    with torch.device("meta"):
        usual = known.inputs(dict(config), *size, text, described=True)
    if shapes != _shapes(usual):
        return None
    if not framed:
        return layers, _layers(network_class, config, *native, known.text_tokens, None)
    plain = _layers(network_class, config, *native[1:], joint, native[0])
    return layers, _trained(layers, plain, plain)


def _of_unusual_call(network: nn.Module, given: dict, native: tuple[int, ...]) -> tuple[Tokens, Tokens]:
    """Likewise, by what the network does with the arguments."""
    known, frames = family(network), native[0] if len(native) == 3 else None
    size, text = known.latent_size(given), known.joint_text(given)
    usual, made = layers_at(network, *size, text, frames and 1), _attending(network, given)
    if strange := [name for name in made if name not in _structure(network).attention]:
        raise UnsupportedModelError(
            f"this call of {type(network).__name__} runs attention that a default call has not, the first "
            f"being {strange[0]!r} (as GLIGEN does for boxes): whether it is self-attention, and its T, is "
            "not known. Leave that argument out."
        )
    layers = {
        name: replace(layer, keys=made[name].keys, queries=made[name].queries) if name in made else layer
        for name, layer in usual.items()
    }
    if frames:
        plain = there = layers_at(network, *native[1:], text, frames)
    else:
        plain = layers_at(network, *native)
        as_usual = all(layer.keys == usual[name].keys for name, layer in layers.items())
        if as_usual or known.layout in ("packed", "patches"):
            return layers, plain
        there = _attending(network, Recorded(tree_map(bare, given), tuple(size), 0).at(*native, 0))
    if not set(layers) <= set(there):
        raise UnsupportedModelError(
            f"how many tokens this call of {type(network).__name__} would have at its training size could "
            "not be found out"
        )
    return layers, _trained(layers, plain, there)


def _trained(layers: Tokens, plain: Tokens, there: Mapping[str, LayerTokens | TracedCall]) -> Tokens:
    """The tokens at training size, of which those beside the image are as many as in the call."""
    return {
        name: replace(plain[name], image=layer.image + there[name].keys - layer.keys)
        for name, layer in layers.items()
    }


@dataclass
class CallTokens:
    """What the self-attention of one call of a network attends to, and what of it has come by."""

    # by what the network itself does with the arguments of the call
    layers: dict[str, LayerTokens] = field(default_factory=dict)
    training: dict[str, LayerTokens] = field(default_factory=dict)  # at the size that it was trained at
    latent_size: tuple[int, int] = (0, 0)  # height and width of the image that is drawn, in latent pixels
    batch: int = 0  # rows of the call
    seen: dict[str, int] = field(default_factory=dict)  # rows of all heads that have attended in each layer
    # keys of a softmax that is not the layer's self-attention
    strange: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, network: nn.Module, args: tuple, kwargs: dict, native: tuple[int, ...] | None = None
    ) -> "CallTokens":
        """Of the call that a network is about to get."""
        given = named(network, args, kwargs)
        native = getattr(network, TRAINING_SIZE, None) or native or native_latent_size(network)
        size = check_latent_size(family(network).latent_size(given))
        known = type(network), config_of(network), native, size, text_length(given), _shapes(given)
        layers, training = _of_usual_call(*known) or _of_unusual_call(network, given, native)
        return cls(layers, training, size, batch_of(given), dict.fromkeys(layers, 0))

    def is_self(self, layer: str, call: KernelCall) -> bool:
        """Whether a kernel call is the self-attention of a layer; a processor may make others.

        Those come later: once all rows have attended, what follows is something else, as an image prompt.
        """
        known = self.layers[layer]
        whole = self.seen[layer] < known.rows * self.batch
        if whole and (call.queries, call.keys) == (known.queries, known.keys):
            self.seen[layer] += call.query.shape[:2].numel()
            return True
        self.strange[layer] = call.keys
        return False

    def counts(self, layer: str, call: KernelCall) -> list[tuple[int, int]]:
        """N and T of a call: one pair for each row of the batch, or one for all where a mask hides nothing.

        Keys beside the image, as text and reference images, were there in training too.
        """
        if call.mask is not None and not isinstance(call.mask, Tensor):
            raise InvalidInputError(
                f"the self-attention of {layer!r} leaves out blocks of keys ({type(call.mask).__name__}): N "
                "differs from query to query. Take an attention without it, or leave this layer out by "
                "`layers`."
            )
        beside = self.training[layer].image - self.layers[layer].image
        visible = visible_keys(call)
        keys = [call.keys] if visible is None else visible.sum(-1).tolist()
        if min(keys) < self.layers[layer].image:
            raise InvalidInputError(
                f"the self-attention of {layer!r} was called with a mask that hides keys of the image "
                "itself, and what T is then is not known. Call the model without the mask, or leave this "
                "layer out by `layers`."
            )
        return [(count, count + beside) for count in keys]

    def check(
        self, watched: Mapping[str, nn.Module], layers: Iterable[str], error: type[EntropyLibError]
    ) -> None:
        """Refuse a network that leaves its LoRA out."""
        for name in layers:
            if getattr(watched[name], "fused_projections", False) and _has_lora(watched[name]):
                raise error(
                    f"the projections of {name!r} are fused, and diffusers then leaves its LoRA out. Call "
                    "unfuse_qkv_projections() on the pipeline, or fuse_lora() before the projections are "
                    "fused."
                )

    def check_ran(self, run: Run, layers: Collection[str], error: type[EntropyLibError]) -> None:
        """Refuse a call that left layers out because others stand in their place now."""
        missed = [name for name in layers if name not in run.ran]
        there = dict(run.station.network.named_modules()) if missed else {}
        if names := [name for name in missed if there.get(name) is not run.station.watched[name]]:
            raise error(
                f"{len(names)} of {len(layers)} patched attention layers did not run, the first being "
                f"{names[0]!r}: they were replaced or bypassed after the patch or the probe was put in. Put "
                "it in again once the model is complete."
            )

    def check_seen(self, module: nn.Module, layer: str, error: type[EntropyLibError]) -> None:
        """Refuse a layer that ran without its self-attention coming by."""
        if self.seen[layer] or may_skip(module):
            return
        processor = type(getattr(module, "processor", module)).__name__
        if layer in self.strange:
            raise error(
                f"the self-attention of {layer!r} has {self.strange[layer]} keys where the network by "
                f"itself has {self.layers[layer].keys}: {processor}, or what is around it, joins tokens of "
                "other images or merges tokens, and what T is then is not known. Undo that, or leave this "
                "layer out by `layers`."
            )
        raise error(
            f"the attention of {layer!r} was not seen: its processor {processor} calls no softmax kernel "
            "that is known here. Set diffusers' AttnProcessor2_0 on a UNet, "
            "set_attention_backend('native') on a transformer, and run again."
        )


def may_skip(module: nn.Module) -> bool:
    """Whether a cache of diffusers may hand out an earlier output of a module in place of a new one."""
    hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    return any(hasattr(hook, "new_forward") for hook in hooks.values())


def _has_lora(module: nn.Module) -> bool:
    """Whether a module has an adapter that is to act; merged ones are in the weights."""
    layers = [
        part for part in module.modules() if hasattr(part, "lora_A") and hasattr(part, "active_adapters")
    ]
    return any(part.active_adapters and not part.merged and not part.disable_adapters for part in layers)


def _shapes(given: dict) -> tuple:
    """Of the tensors that a call hands over, by name, batch aside."""
    found = []
    for name in sorted(given):
        leaves = [given[name]] if isinstance(given[name], Tensor) else tree_leaves(given[name])
        shapes = tuple(leaf.shape[1:] for leaf in leaves if isinstance(leaf, Tensor))
        found += [(name, shapes)] if any(shapes) else []
    return tuple(found)


def _attending(network: nn.Module, given: dict) -> dict[str, TracedCall]:
    """What the twin does with a call's arguments; nothing where it cannot take them."""
    leaves = tree_leaves(given)
    shapes = tuple(_told(leaf) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves)
    key = type(network), config_of(network), tuple(given), shapes
    if key not in _TRACED_CALLS:
        if len(_TRACED_CALLS) > 64:
            _TRACED_CALLS.clear()
        try:
            _TRACED_CALLS[key] = trace(*key[:2], given)
        except Exception:  # networks raise whatever they like
            _TRACED_CALLS[key] = ()
    return attending(_TRACED_CALLS[key], _structure(network).attention)


def _told(leaf: Tensor) -> tuple:
    """What of a tensor a trace goes by: its shape, and the numbers of masks and places."""
    whole = leaf.ndim > 1 and not leaf.is_floating_point() and not leaf.is_complex()
    counted = (whole or leaf.dtype == torch.bool) and not leaf.is_meta and leaf.numel() <= COUNTED
    return leaf.shape, leaf.dtype, leaf.cpu().numpy().tobytes() if counted else None


_TRACED_CALLS: dict[tuple, tuple[TracedCall, ...]] = {}


def forget_traces() -> None:
    """Look anew at every network, for how one is called has been learnt."""
    for cached in (structure, _layers, _of_usual_call):
        cached.cache_clear()
    _TRACED_CALLS.clear()


# attributes of a network: the training size that it was patched with, and what is known of it without its
# config
TRAINING_SIZE, NATIVE_SIZE = "_entropy_lib_training_size", "_entropy_lib_native_size"


def note_training_size(network: nn.Module, latent_size: tuple[int, ...] | None) -> None:
    """Let patch and probes alike take this for the training size of a network; None forgets it."""
    if latent_size is not None:
        setattr(network, TRAINING_SIZE, latent_size)
    elif hasattr(network, TRAINING_SIZE):
        delattr(network, TRAINING_SIZE)


def check_training_size(network: nn.Module, latent_size: tuple[int, ...] | None) -> None:
    """Refuse a training size that is not the one that a network was patched with; None agrees with any."""
    patched = getattr(network, TRAINING_SIZE, latent_size)
    if latent_size not in (None, patched):
        raise InvalidInputError(
            f"latent_size is {latent_size}, and the patch on this {type(network).__name__} has {patched}: T "
            "would be two numbers. Give both the same, or leave it out here, and the patch's is taken"
        )


def note_native_size(network: nn.Module, latent_size: tuple[int, int]) -> None:
    """Say what native size a network has, in latent pixels, over what its configuration says."""
    setattr(network, NATIVE_SIZE, latent_size)


def native_latent_size(model: DiffusionModel) -> tuple[int, int]:
    """Height and width in latent pixels at the size that a pipeline's denoiser was trained on.

    The first that says it: `latent_size` of a patch that is in place, the catalogue, the network's
    configuration, the size that the pipeline generates by default.

    Raises:
        InvalidInputError: where none says it; naming what to give.
    """
    network = known_denoiser(model)
    for attribute in (TRAINING_SIZE, NATIVE_SIZE):
        if hasattr(network, attribute):
            return getattr(network, attribute)[-2:]
    native, side = family(network).native_size(network.config), getattr(model, "default_sample_size", None)
    if native is None and isinstance(side, int):
        in_pixels = "default_sample_size" in model.config  # as PRX has it, which registers it
        return (side // pixels_per_latent(model) if in_pixels else side,) * 2
    if native is None:
        raise InvalidInputError(
            "sample_size of the network's configuration is None, so the size that it was trained at is not "
            "known; give `latent_size`, height and width in latent pixels, for example (64, 64)"
        )
    return native


SCALE_FACTORS = ("vae_scale_factor", "vae_scale_factor_spatial")  # the latter of pipelines of videos


def pixels_per_latent(pipe: "DiffusionPipeline") -> int:
    """Pixels of a side of an image for each latent pixel; 1 for a pipeline without a decoder."""
    for name in SCALE_FACTORS:
        if hasattr(pipe, name):
            return getattr(pipe, name)
    if any(getattr(pipe, part, None) is not None for part in ("vae", "vqvae", "movq")):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has no vae_scale_factor: how many pixels a latent stands for is not known"
        )
    return 1


def training_tokens(
    model: DiffusionModel, latent_size: tuple[int, int] | None = None, text_tokens: int | None = None
) -> dict[str, int]:
    """Tokens T of every self-attention layer at the size the model was trained on.

    Traced, not scaled by area: each level of a UNet halves and rounds up, so 25 x 25 latents give 625, 169,
        49, 16 tokens.

    Args:
        model: a pipeline or its denoising network.
        latent_size: height and width of the training latents; by default `native_latent_size`.
        text_tokens: as for `tokens_at`. While a model runs, the patch and the probe use the number in that
            call.

    Returns:
        {layer name: T}, in the order of execution.

    Raises:
        UnsupportedModelError: when the network is of no known family.
        InvalidInputError: when it has no self-attention, and for a size that is none.

    Example:
        >>> import entropy_lib as el
        >>> sorted(set(el.training_tokens(el.load("mini")).values()))
        [16, 64, 256]
    """
    size = native_latent_size(model) if latent_size is None else check_latent_size(latent_size)
    return tokens_at(model, *size, text_tokens)


def check_latent_size(latent_size: tuple[int, ...], frames: bool = False) -> tuple[int, ...]:
    """Height and width in latent pixels as integers; where frames may be given, those before them."""
    try:
        size = tuple(map(operator.index, latent_size))
    except (TypeError, ValueError):
        size = ()
    if min(size, default=0) < 1 or len(size) not in ((2, 3) if frames else (2,)):
        also = ", of videos also frames before them, as (21, 60, 104)" if frames else ""
        raise InvalidInputError(
            f"latent_size is {latent_size!r}; give height and width in latent pixels, for example (64, 64)"
            + also
        )
    return size


def select_layers(available: Sequence[str], wanted: str | Sequence[str] | None) -> list[str]:
    """The layers whose names match any of the `wanted` names or glob patterns; None selects all."""
    if wanted is None:
        return list(available)
    patterns = [wanted] if isinstance(wanted, str) else wanted
    texts = isinstance(patterns, Sequence) and all(isinstance(pattern, str) for pattern in patterns)
    if not texts or not patterns:
        raise UnknownNameError("layer", wanted, available)
    for pattern in patterns:
        if not fnmatch.filter(available, pattern):
            raise UnknownNameError("layer", pattern, available)
    return [name for name in available if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def choose_layers(
    layers: Mapping[str, LayerTokens], wanted: str | Sequence[str] | None, attends: str | Sequence[str] | None
) -> list[str]:
    """`select_layers`, of those whose attention is of certain kinds."""
    kinds = [attends] if isinstance(attends, str) else attends
    present = list(dict.fromkeys(layer.attends for layer in layers.values()))
    for kind in () if kinds is None else kinds or [()]:
        if kind not in present:
            raise UnknownNameError("kind of attention", kind, present)
    chosen = [name for name, layer in layers.items() if layer.attends in (KINDS if kinds is None else kinds)]
    return [name for name in select_layers(list(layers), wanted) if name in chosen]


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a level with so many tokens in a network that halves them, rounding up.

    Returns (0, 0) where no level has that many tokens.
    """
    while height * width > tokens and (height > 1 or width > 1):
        height, width = -(-height // 2), -(-width // 2)
    return (height, width) if height * width == tokens else (0, 0)


def query_product(attention: nn.Module) -> str:
    """Name of the linear part that makes the query: the first, where query, key and value come from one."""
    linear = [name for name, part in attention.named_modules() if isinstance(part, nn.Linear)]
    return "to_q" if hasattr(attention, "to_q") else linear[0]
