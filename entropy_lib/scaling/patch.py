"""Puts a scale rule into a diffusers model and takes it out again.

The factor multiplies the softmax scale where the fused kernel is called (`models.kernels`), after norms,
rotary embeddings and fused projections, whatever the processor. Processors, LoRA layers and IP-Adapters are
left alone. Every call checks that the factor arrived and says so if not. A compiled model is compiled again
at its next call, with the hooks in its graph.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with el.scaled(pipe, "paper"):
    ...     images = pipe("a penguin, fluent style", height=128, width=128, num_inference_steps=2).images
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from entropy_lib.entropy.attention import attention_entropy
from entropy_lib.errors import InvalidInputError, ScaleNotAppliedError
from entropy_lib.models.kernels import Change, KernelCall, Listener, Run, is_one, leave, listen
from entropy_lib.models.layers import (
    KINDS,
    TRAINING_SIZE,
    CallTokens,
    DiffusionModel,
    check_latent_size,
    choose_layers,
    denoiser,
    layers_at,
    native_latent_size,
    note_training_size,
    sole_denoiser,
    training_tokens,
)
from entropy_lib.models.runs import progress
from entropy_lib.scaling.calibration import Calibration, LayerFactors, calibration_of
from entropy_lib.scaling.rules import Rule, rule

Model = TypeVar("Model", bound=DiffusionModel)  # what is patched is given back, as what it was
ATTRIBUTE = "_entropy_lib_scale"  # where a patched network keeps its state
NOTHING = LayerFactors((1.0,))
CHECKED_ROWS = 32  # of the query, from which the entropy under `equal-entropy` is measured
COLUMNS = ["layer", "attends", "tokens", "training_tokens", "factor", "calls", "clamped", "missed"]


@dataclass
class LayerScale:
    """The patch of one attention layer, and what it did in the latest call."""

    name: str
    rule: Rule
    training_tokens: int
    calibration: Calibration | None = None  # of rules whose factors come from one
    attends: str = "image"
    tokens: int = 0
    factors: LayerFactors = NOTHING
    calls: int = 0
    known: dict[tuple[int, int], LayerFactors] = field(default_factory=dict)  # by N and T
    misses: list[float] = field(default_factory=list)  # nats, of each call

    @property
    def factor(self) -> float:
        """Of the latest call; the mean of its heads where they differ."""
        return sum(self.factors.factors) / len(self.factors.factors)

    @property
    def missed(self) -> float:
        """Mean entropy less the native one that the rule is to give; NaN where it is not to."""
        return sum(self.misses) / len(self.misses) if self.misses else math.nan

    def factors_at(self, tokens: int, training_tokens: int) -> LayerFactors:
        """Of the heads, or one for all, where a softmax has so many keys."""
        if (tokens, training_tokens) not in self.known:
            self.known[tokens, training_tokens] = self._factors(tokens, training_tokens)
        return self.known[tokens, training_tokens]

    def _factors(self, tokens: int, training_tokens: int) -> LayerFactors:
        if self.calibration is None:
            return LayerFactors((self.rule.factor(tokens, training_tokens),))
        response = self.calibration.layers.get(self.name)
        measured = tokens if response is None else round(tokens * response.training_tokens / training_tokens)
        return self.calibration.factors(self.rule, self.name, measured)

    def check_entropy(self, call: KernelCall) -> None:
        """Note by how much a call misses the entropy that `equal-entropy` is to give."""
        assert self.calibration is not None
        entropy = attention_entropy(call.query, call.key, call.scale, CHECKED_ROWS).mean()
        self.misses.append(float(entropy) - float(self.calibration.layers[self.name].at_native().mean()))


@dataclass
class ModelScale(Listener):
    """The patch of one network: what was asked for, and its layers."""

    network: nn.Module
    scale_rule: Rule
    latent_size: tuple[int, ...]  # at which T is
    layers: dict[str, LayerScale]
    observes: bool = False  # whether the entropy that the rule gives is to be measured

    def start(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a forward pass: note whether it is in the rule's window, and what its layers attend to."""
        run.notes[id(self)] = CallTokens.of(self.network, args, kwargs), self._inside(args, kwargs)
        run.notes[id(self)][0].check(run.station.watched, self.layers, ScaleNotAppliedError)

    def _inside(self, args: tuple, kwargs: dict) -> bool:
        chosen = self.scale_rule
        if chosen.window is None:
            return True
        place = progress(self.network, args, kwargs)
        if not 0 <= place <= 1:
            raise InvalidInputError(
                f"scale rule {chosen.name!r} holds in a share of the noise schedule, and at which share the "
                f"timestep of this call is cannot be said: {place:.3g} is outside 0 to 1 (as 250 ln σ of "
                "consistency models may be), or NaN, where no scheduler lists it and it may run either way "
                "(Lumina 2's is 1 at the image, that of FLUX 0). Call the network from a pipeline whose "
                "scheduler lists that timestep, or take the rule without a window."
            )
        return chosen.holds(place)

    def again(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a pass within it: note what its layers will attend to."""
        run.notes[id(self)] = CallTokens.of(self.network, args, kwargs), run.notes[id(self)][1]

    def change(self, run: Run, layer: str, call: KernelCall) -> Change | None:
        """What to multiply the scale by; at N = T nothing is touched."""
        tokens, inside = run.notes[id(self)]
        if not tokens.is_self(layer, call):
            return None
        patched, counts = self.layers[layer], tokens.counts(layer, call)
        patched.tokens, patched.training_tokens = max(counts)
        if not inside:
            patched.factors = NOTHING
            return None
        rows = [patched.factors_at(*count) for count in counts]
        patched.factors = rows[counts.index(max(counts))]
        multiplier, own = _multiplier(rows, call), tokens.layers[layer].scale
        if is_one(multiplier):
            return None
        if not math.isclose(call.scale, own, rel_tol=1e-4):
            raise ScaleNotAppliedError(
                f"{layer!r} is called with a softmax scale of {call.scale:.4g}, where its network by itself "
                f"has {own:.4g}: it is rescaled already (as LuminaPipeline does by `proportional_attn`), and "
                "a rule on top would act twice. Switch that off, or take the rule away."
            )
        return Change(multiplier)

    def observe(self, run: Run, layer: str, asked: KernelCall, used: KernelCall) -> None:
        """Measure the entropy that `equal-entropy` gives, where it acts."""
        if used is not asked and used.mask is None:
            self.layers[layer].check_entropy(used)

    def leave(self, run: Run, layer: str) -> None:
        """Check that the layer's self-attention came by."""
        run.notes[id(self)][0].check_seen(run.station.watched[layer], layer, ScaleNotAppliedError)
        self.layers[layer].calls += 1

    def end(self, run: Run) -> None:
        """After a forward pass: every patched layer must have been called."""
        run.notes[id(self)][0].check_ran(run, self.layers, ScaleNotAppliedError)
        if missed := [name for name, layer in self.layers.items() if layer.calls == 0]:
            raise ScaleNotAppliedError(
                f"{len(missed)} of {len(self.layers)} patched attention layers did not run, the first being "
                f"{missed[0]!r}: they were replaced or bypassed after the patch. Call apply_scale again once "
                "the model is complete."
            )


def _multiplier(rows: list[LayerFactors], call: KernelCall) -> float | Tensor:
    """One number where all rows and heads have the same factor, else `[batch, head, 1, 1]`."""
    first = rows[0].factors
    if len(first) == 1 and all(each.factors == first for each in rows):
        return first[0]
    heads = call.query.shape[1]
    if not call.whole or {len(each.factors) for each in rows} - {1, heads}:
        raise ScaleNotAppliedError(
            "factors of single heads or images cannot be applied to a query of shape "
            f"{tuple(call.query.shape)}: its heads come apart, as under attention slicing. Undo that "
            "(`disable_attention_slicing()`), or take a rule of whole layers."
        )
    table = torch.tensor([each.factors if len(each.factors) > 1 else each.factors * heads for each in rows])
    return table.expand(len(call.query), heads)[..., None, None].to(call.query.device)


def apply_scale(
    model: Model,
    scale_rule: str | Rule,
    layers: str | Sequence[str] | None = None,
    *,
    attends: str | Sequence[str] | None = None,
    latent_size: tuple[int, ...] | None = None,
) -> Model:
    """Rescale the self-attention of a model by a rule, until `remove_scale`.

    Applying again replaces the earlier rule. At training size the images stay identical bit for bit (except
    `gamma`).

    Args:
        model: a diffusers pipeline, or its denoising network. Pipelines that share a network share the patch.
        scale_rule: see `entropy_lib.rule`.
        layers: names or glob patterns of the layers to rescale, e.g. "down_blocks.*"; all self-attention by
            default.
        attends: what the layers to rescale attend to: "image", "image+text" (as `scale_report` says it), or
            both, as by default; "frames" where a video's attention over frames, place by place, is to be
            rescaled as well.
        latent_size: height and width of the training latents, if not those of the network's config. Of a
            video frames, height and width, if frames are to count in T as well: with height and width alone
            T has the frames of the call. The probes go by it too, and so does a patch that is applied over
            this one without a size of its own.

    Returns:
        `model`, so that `pipe = el.apply_scale(el.load("mini"), "paper")` can be written.

    Raises:
        UnknownNameError: for an unknown rule or layer.
        UnsupportedModelError: when how the network is called is not known.
        InvalidInputError: when it has no self-attention, or `latent_size` is no height and width; where the
            rule names a level that the network has not, or needs a calibration and there is none; later, from
            the model's own call, at a size where the rule has no factor.
        ScaleNotAppliedError: likewise, when the factor cannot reach the attention.
    """
    chosen_rule, network = rule(scale_rule), sole_denoiser(model)
    if latent_size is None:
        latent_size = getattr(network, TRAINING_SIZE, None) or native_latent_size(model)
    else:
        latent_size = check_latent_size(latent_size, frames=True)
    training_tokens(network, latent_size[-2:])  # which says what is wrong, if anything is
    frames = latent_size[0] if len(latent_size) == 3 else None
    found = layers_at(network, *latent_size[-2:], frames=frames or 1)
    over_frames = [name for name, layer in found.items() if layer.attends == "frames"]
    if frames is None and over_frames and attends is not None and "frames" in attends:
        raise InvalidInputError(
            f"attends is {attends!r}, and on how many frames {type(network).__name__} was trained is not "
            "known; give latent_size with them, frames, height and width, as (21, 60, 104)"
        )
    chosen_layers = choose_layers(found, layers, attends)
    # levels are of images
    training = {
        name: layer.keys for name, layer in found.items() if layer.attends in KINDS or name in chosen_layers
    }
    names = [name for name in chosen_rule.layers(training) if name in chosen_layers]
    if not names:
        raise InvalidInputError(
            f"rule {chosen_rule.name!r} is for none of the chosen layers: layers is {layers!r}, attends is "
            f"{attends!r}; el.training_tokens lists the layers"
        )
    calibration = calibration_of(network, chosen_rule.name) if chosen_rule.calibrated else None
    parts = (
        LayerScale(name, chosen_rule, training[name], calibration, found[name].attends) for name in names
    )
    state = {part.name: part for part in parts}
    _put(network, ModelScale(network, chosen_rule, latent_size, state, observes=calibration is not None))
    return model


def _put(network: nn.Module, state: ModelScale) -> None:
    """Put a patch in the place of the one that is there, which stays if this is interrupted."""
    listen(network, state)
    earlier = getattr(network, ATTRIBUTE, None)
    setattr(network, ATTRIBUTE, state)
    note_training_size(network, state.latent_size)
    if earlier is not None:
        leave(network, earlier)


def remove_scale(model: DiffusionModel) -> None:
    """Undo `apply_scale`. Does nothing to a model that is not patched."""
    network = denoiser(model)
    state = getattr(network, ATTRIBUTE, None)
    if state is None:
        return
    delattr(network, ATTRIBUTE)
    note_training_size(network, None)
    leave(network, state)


@contextmanager
def scaled(
    model: Model,
    scale_rule: str | Rule,
    layers: str | Sequence[str] | None = None,
    *,
    attends: str | Sequence[str] | None = None,
    latent_size: tuple[int, ...] | None = None,
) -> Iterator[Model]:
    """Rescale within a `with` block, which is given the model.

    On any exit the model is as before, an earlier patch included. Arguments and errors are those of
    `apply_scale`.
    """
    network = denoiser(model)
    earlier = getattr(network, ATTRIBUTE, None)
    try:
        yield apply_scale(model, scale_rule, layers, attends=attends, latent_size=latent_size)
    finally:
        if earlier is None:
            remove_scale(network)
        elif getattr(network, ATTRIBUTE, None) is not earlier:
            _put(network, earlier)


def applied_rule(model: DiffusionModel) -> Rule:
    """The rule that a model carries: that of its patch, or "unscaled"."""
    state = getattr(denoiser(model), ATTRIBUTE, None)
    return rule("unscaled") if state is None else state.scale_rule


def scale_report(model: DiffusionModel) -> pd.DataFrame:
    """What the patch did in the latest calls: one row a layer, none without a patch.

    Columns: `layer`; `attends`, "image", "image+text" where text joins the softmax, or "frames"; `tokens,
    training_tokens, factor` of the latest call (0 and 1.0 before the first; the factor is the mean of the
    heads where they differ); `calls`; `clamped`, for how many factors the entropy that the rule wants cannot
    be had; `missed`, of `equal-entropy` by layers or heads: by how many nats the entropy at the sizes that
    were run is above the native one, in the mean of calls. It assumes that N tokens are N / T times as many
    keys of the same kinds; this is the error of that. NaN for other rules.
    """
    state = getattr(denoiser(model), ATTRIBUTE, None)
    layers = [] if state is None else state.layers.values()
    rows = [
        (s.name, s.attends, s.tokens, s.training_tokens, s.factor, s.calls, s.factors.clamped, s.missed)
        for s in layers
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
