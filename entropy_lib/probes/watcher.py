"""Stands by while a model runs and hands over query and key of every self-attention call.

The watcher stands at the softmax kernel (`models.kernels`), where query and key arrive exactly as they are
used: after norms, rotary embeddings, LoRA and any scale rule. What to do with them is left to its children,
the probes. It changes nothing, so images are the same bit for bit, and it is gone after the `with` block.
Which step a call belongs to, and which images, `denoiser_call` finds out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from entropy_lib.errors import AttentionNotSeenError, InvalidInputError
from entropy_lib.models.kernels import KernelCall, Listener, Run, leave, listen, visible_keys, weighs
from entropy_lib.models.layers import (
    CallTokens,
    DiffusionModel,
    check_latent_size,
    check_training_size,
    grid,
    may_skip,
    native_latent_size,
    select_layers,
    sole_denoiser,
    training_tokens,
)
from entropy_lib.models.networks import named, sample_of
from entropy_lib.models.runs import Caller, caller_of, timestep_of
from entropy_lib.probes.denoiser_call import DenoiserCall, DenoiserCallTracker, check_turns

FACTOR_ROWS = 4  # query rows from which the factor is measured


@dataclass(frozen=True)
class LayerStep:
    """One self-attention layer at one call of the denoiser: what measurements are kept apart by."""

    layer: str  # its name
    attends: str  # "image", or "image+text"
    height: int  # of its grid of image tokens; 0 where no level of the network has as many
    width: int  # likewise
    tokens: int  # keys N of the call, joint text included, masked ones left out
    training_tokens: int  # T of the layer
    call: DenoiserCall  # of the denoiser


@dataclass(frozen=True)
class AttentionCall:
    """What a watcher hands over of one self-attention call."""

    place: LayerStep  # layer and step
    query: Tensor  # as used, `[batch, head, tokens, dim]`, without keys that a mask hides
    key: Tensor  # likewise
    scale: float  # λ, as used
    # `[batch, head]`: λ times the length of the query, as used, over what the network by itself would have
    factor: Tensor
    first_query: int  # where those of the image begin
    first_key: int  # likewise


class AttentionWatcher(Listener):
    """Calls `measure` at every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        layers: names or glob patterns of the layers to watch; all self-attention by default.
        latent_size: height and width of the training latents, if neither the network's config nor a patch
            says them; frames before them, if those are to count in T.

    Raises:
        InvalidInputError: when the model has no self-attention, or its training size is not known; and, from
            the model's own call, where a mask hides keys of the image, or others from each query.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.
    """

    observes = True

    def __init__(
        self,
        model: DiffusionModel,
        layers: str | Sequence[str] | None = None,
        *,
        latent_size: tuple[int, ...] | None = None,
    ):
        self.model, self.network = model, sole_denoiser(model)
        self._given = None if latent_size is None else check_latent_size(latent_size, frames=True)
        self.native = self._given or native_latent_size(model)
        self.training_tokens = training_tokens(self.network, self.native[-2:])
        self.layers = select_layers(list(self.training_tokens), layers)
        self._tracker, self._tokens = DenoiserCallTracker(), CallTokens()
        self._call: DenoiserCall | None = None
        self._steps: dict[tuple, set[str]] = {}  # layers that attended at each call of the denoiser
        self._attended: set[str] = set()  # at the present call
        # rows of the batch that each layer has attended for: joint PAG takes its branches in turn
        self._rows: dict[str, int] = {}

    def measure(self, call: AttentionCall) -> None:
        """What to do with one call."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        listen(self.network, self)
        return self

    def __exit__(self, *exception: object) -> None:
        leave(self.network, self)
        self._call = None
        self._tracker.rest()

    def check_called(self) -> None:
        """Raise AttentionNotSeenError unless the model was called inside a block."""
        if not self._steps:
            raise AttentionNotSeenError(
                f"{type(self).__name__} has nothing to show: the model was not called inside its `with` "
                "block. Generate there, with the same pipeline"
            )

    def start(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a call of the denoiser."""
        check_training_size(self.network, self._given)
        self.again(run, args, kwargs)
        self._tokens.check(run.station.watched, self.layers, AttentionNotSeenError)
        caller = caller_of(self.network)
        if caller.pipeline is None and self.model is not self.network:
            caller = Caller(self.model)
        given = named(self.network, args, kwargs)
        texts = [
            each for each in given.values() if isinstance(each, list) or 1 < getattr(each, "ndim", 0) < 4
        ]
        timestep, tokens = timestep_of(self.network, args, kwargs), self._tokens
        self._call = self._tracker.advance(caller, tokens.batch, timestep, tokens.latent_size, texts)
        check_turns(caller, sample_of(given), self._call.images)
        self._attended = set()

    def again(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a pass within it."""
        self._tokens, self._rows = CallTokens.of(self.network, args, kwargs, self.native), {}

    @torch.no_grad()
    def observe(self, run: Run, layer: str, asked: KernelCall, used: KernelCall) -> None:
        """Look at a kernel call, if it is the layer's self-attention."""
        call = self._call
        if call is None or not self._tokens.is_self(layer, used):
            return
        self._check(layer, used)
        # rows of one image: frames, where they attend by themselves
        frames = self._tokens.layers[layer].rows // used.query.shape[1]
        first = self._rows.get(layer, 0)
        self._rows[layer] = last = first + len(used.query) // frames
        if last - first != self._tokens.batch:
            if may_skip(self.network):
                raise AttentionNotSeenError(
                    f"a cache lets {layer!r} attend for {last - first} of {self._tokens.batch} rows of the "
                    "batch (as FasterCache does), and which branch of guidance they are is not known. Call "
                    "disable_cache() on the network."
                )
            call = replace(call, branches=call.branches[first // call.images : last // call.images])
        if call.branches:
            self._attended.add(layer)
            for part in self._parts(layer, asked, used, call, frames):
                self.measure(part)

    def end(self, run: Run) -> None:
        """After a call of the denoiser."""
        self._tokens.check_ran(run, self.layers, AttentionNotSeenError)
        if self._call is not None:
            self._steps.setdefault((self._call.first_image, self._call.step), set()).update(self._attended)

    def leave(self, run: Run, layer: str) -> None:
        """Check that the layer's self-attention came by."""
        self._tokens.check_seen(run.station.watched[layer], layer, AttentionNotSeenError)

    def _check(self, layer: str, used: KernelCall) -> None:
        if not used.whole:
            raise AttentionNotSeenError(
                f"the heads of {layer!r} attend in slices, so that no call of its softmax is whole. Undo "
                "attention slicing (`disable_attention_slicing()`), and run again."
            )
        self._tokens.counts(layer, used)
        if weighs(used):
            raise InvalidInputError(
                f"the self-attention of {layer!r} was called with a mask that hides or weighs keys: rows "
                "then differ in their number of keys, and ln N is no longer what their entropy compares "
                "with. Call the model without the mask, or leave this layer out by `layers`."
            )

    def _parts(
        self, layer: str, asked: KernelCall, used: KernelCall, call: DenoiserCall, frames: int
    ) -> Iterator[AttentionCall]:
        """The call as a whole, or image by image where a mask leaves them different keys."""
        known, factor = self._tokens.layers[layer], self._factor(layer, asked, used)
        visible, counts = visible_keys(used), self._tokens.counts(layer, used)
        if visible is None:
            at = self._place(layer, counts[0], call)
            yield AttentionCall(at, used.query, used.key, used.scale, factor, known.first_query, known.first)
            return
        for row, kept in enumerate(visible):
            branch, image = divmod(row // frames, call.images)
            branches, first_image = call.branches[branch : branch + 1], call.first_image + image
            own = replace(call, branches=branches, images=1, first_image=first_image)
            part, first = slice(row, row + 1), int(kept[: known.first].sum())
            seen = used.query[part], used.key[part, :, kept], used.scale, factor[part]
            place, first_query = self._place(layer, counts[row], own), first if known.first_query else 0
            yield AttentionCall(place, *seen, first_query, first)

    def _place(self, layer: str, counts: tuple[int, int], call: DenoiserCall) -> LayerStep:
        known = self._tokens.layers[layer]
        return LayerStep(layer, known.attends, *grid(known.image, *call.latent_size), *counts, call)

    def _factor(self, layer: str, asked: KernelCall, used: KernelCall) -> Tensor:
        """From a few rows of the query: what the kernel gets over what the network by itself asks for."""
        scale = used.scale / self._tokens.layers[layer].scale
        if used.query.data_ptr() == asked.query.data_ptr():
            return used.query.new_full(used.query.shape[:2], scale, dtype=torch.float32)
        rows = (call.query[..., :FACTOR_ROWS, :].float() for call in (used, asked))
        used_length, asked_length = (each.square().sum((-1, -2)).sqrt() for each in rows)
        return scale * used_length / asked_length
