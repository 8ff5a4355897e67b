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

from entropy_lib.errors import ScaleNotAppliedError
from entropy_lib.models.kernels import KernelCall, Listener, Run, is_one, leave, listen
from entropy_lib.models.layers import (
    CallTokens,
    DiffusionModel,
    check_latent_size,
    choose_layers,
    denoiser,
    forget_compiled,
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

    @property
    def factor(self) -> float:
        """Of the latest call; the mean of its heads where they differ."""
        return sum(self.factors.factors) / len(self.factors.factors)

    def factors_at(self, tokens: int, training_tokens: int) -> LayerFactors:
        """Of the heads, or one for all, where a softmax has so many keys."""
        if (tokens, training_tokens) not in self.known:
            self.known[tokens, training_tokens] = self._factors(tokens, training_tokens)
        return self.known[tokens, training_tokens]

    def _factors(self, tokens: int, training_tokens: int) -> LayerFactors:
        if self.calibration is not None:
            measured = (
                self.calibration.layers[self.name].training_tokens
                if self.name in self.calibration.layers
                else tokens
            )
            return self.calibration.factors(self.rule, self.name, round(tokens * measured / training_tokens))
        return LayerFactors((self.rule.factor(tokens, training_tokens),))


@dataclass
class ModelScale(Listener):
    """The patch of one network: what was asked for, and its layers."""

    network: nn.Module
    arguments: dict
    layers: dict[str, LayerScale]

    def start(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a forward pass: note whether it is in the rule's window, and what its layers will attend
        to.
        """
        chosen = self.arguments["scale_rule"]
        inside = chosen.window is None or chosen.holds(progress(self.network, args, kwargs))
        run.notes[id(self)] = CallTokens.of(self.network, args, kwargs), inside
        run.notes[id(self)][0].check(run.station.watched, self.layers, ScaleNotAppliedError)

    def again(self, run: Run, args: tuple, kwargs: dict) -> None:
        """Before a pass within it: note what its layers will attend to."""
        run.notes[id(self)] = CallTokens.of(self.network, args, kwargs), run.notes[id(self)][1]

    def factor(self, run: Run, layer: str, call: KernelCall) -> float | Tensor:
        """What to multiply the scale by. At N = T it is 1 and nothing is touched: the images are those of
        the unpatched model.
        """
        tokens, inside = run.notes[id(self)]
        if not tokens.is_self(layer, call):
            return 1.0
        patched, counts = self.layers[layer], tokens.counts(layer, call)
        patched.tokens, patched.training_tokens = max(counts)
        if not inside:
            patched.factors = NOTHING
            return 1.0
        rows = [patched.factors_at(*count) for count in counts]
        patched.factors = rows[counts.index(max(counts))]
        multiplier, own = _multiplier(rows, call), tokens.layers[layer].scale
        if not is_one(multiplier) and not math.isclose(call.scale, own, rel_tol=1e-4):
            raise ScaleNotAppliedError(
                f"{layer!r} is called with a softmax scale of {call.scale:.4g}, where its network by itself has {own:.4g}: it is "
                "rescaled already (as LuminaPipeline does by `proportional_attn`), and a rule on top would act twice. Switch "
                "that off, or take the rule away."
            )
        return multiplier

    def leave(self, run: Run, layer: str) -> None:
        """Check that the layer's self-attention came by."""
        run.notes[id(self)][0].check_seen(run.station.watched[layer], layer, ScaleNotAppliedError)
        self.layers[layer].calls += 1

    def end(self, run: Run) -> None:
        """After a forward pass: every patched layer must have been called."""
        run.notes[id(self)][0].check_ran(run, self.layers, ScaleNotAppliedError)
        missed = [name for name, layer in self.layers.items() if layer.calls == 0]
        if missed:
            raise ScaleNotAppliedError(_missed(missed, self.layers))


def _multiplier(rows: list[LayerFactors], call: KernelCall) -> float | Tensor:
    """One number where all rows and heads have the same factor, else `[batch, head, 1, 1]`."""
    if len({each.factors for each in rows}) == 1 and len(rows[0].factors) == 1:
        return rows[0].factors[0]
    heads = call.query.shape[1]
    if not call.whole or {len(each.factors) for each in rows} - {1, heads}:
        raise ScaleNotAppliedError(
            f"factors of single heads or images cannot be applied to a query of shape {tuple(call.query.shape)}: its heads come "
            "apart, as under attention slicing. Undo that (`disable_attention_slicing()`), or take a rule of whole layers."
        )
    table = torch.tensor([each.factors if len(each.factors) > 1 else each.factors * heads for each in rows])
    return table.expand(len(call.query), heads)[..., None, None].to(call.query.device)


def _missed(missed: list[str], layers: dict) -> str:
    return (
        f"{len(missed)} of {len(layers)} patched attention layers did not run, the first being {missed[0]!r}: they "
        "were replaced or bypassed after the patch. Call apply_scale again once the model is complete."
    )


def apply_scale(
    model: Model,
    scale_rule: str | Rule,
    layers: str | Sequence[str] | None = None,
    *,
    attends: str | Sequence[str] | None = None,
    latent_size: tuple[int, int] | None = None,
) -> Model:
    """Rescale the self-attention of a model by a rule, until `remove_scale`.

    Applying again replaces the earlier rule. At training size the images stay identical bit for bit (except
    `gamma`).

    Args:
        model: a diffusers pipeline, or its denoising network. Pipelines that share a network share the patch.
        scale_rule: see `entropy_lib.rule`.
        layers: names or glob patterns of the layers to rescale, e.g. "down_blocks.*"; all self-attention by
        default.
        attends: what the layers to rescale attend to: "image", "image+text" (as `scale_report` says it), or both,
            as by default.
        latent_size: height and width of the training latents, if not those of the network's config. The
            probes go by it too, and so does a patch that is applied over this one without a size of its own.

    Returns:
        `model`, so that `pipe = el.apply_scale(el.load("mini"), "paper")` can be written.

    Raises:
        UnknownNameError: for an unknown rule or layer.
        UnsupportedModelError: when the network is of no known family.
        InvalidInputError: when it has no self-attention, or `latent_size` is no height and width; where the
            rule names a level that the network has not, or needs a calibration and there is none.
        ScaleNotAppliedError: later, from the model's own call, when the factor cannot reach the attention.
        InvalidInputError: likewise, at a size where the rule has no factor.
    """
    chosen_rule, network = rule(scale_rule), sole_denoiser(model)
    latent_size = native_latent_size(model) if latent_size is None else check_latent_size(latent_size)
    training = training_tokens(network, latent_size)
    found = layers_at(network, *latent_size)
    chosen_layers = choose_layers(found, layers, attends)
    names = [name for name in chosen_rule.layers(training) if name in chosen_layers]
    calibration = calibration_of(network, chosen_rule.name) if chosen_rule.calibrated else None
    remove_scale(network)
    state = ModelScale(
        network,
        {"scale_rule": chosen_rule, "layers": names, "latent_size": latent_size},
        {
            name: LayerScale(name, chosen_rule, training[name], calibration, found[name].attends)
            for name in names
        },
    )
    listen(network, state)
    setattr(network, ATTRIBUTE, state)
    note_training_size(network, latent_size)
    forget_compiled()
    return model


def remove_scale(model: DiffusionModel) -> None:
    """Undo `apply_scale`. Does nothing to a model that is not patched."""
    network = denoiser(model)
    state = getattr(network, ATTRIBUTE, None)
    if state is None:
        return
    leave(network, state)
    delattr(network, ATTRIBUTE)
    note_training_size(network, None)
    forget_compiled()


@contextmanager
def scaled(
    model: Model,
    scale_rule: str | Rule,
    layers: str | Sequence[str] | None = None,
    *,
    attends: str | Sequence[str] | None = None,
    latent_size: tuple[int, int] | None = None,
) -> Iterator[Model]:
    """Rescale within a `with` block, which is given the model; on any exit it is as before, an earlier patch
    included.

    Arguments and errors are those of `apply_scale`.
    """
    network = denoiser(model)
    earlier = getattr(network, ATTRIBUTE, None)
    apply_scale(model, scale_rule, layers, attends=attends, latent_size=latent_size)
    try:
        yield model
    finally:
        remove_scale(network)
        if earlier is not None:
            apply_scale(network, **earlier.arguments)


def applied_rule(model: DiffusionModel) -> Rule:
    """The rule that a model carries: that of its patch, or "unscaled"."""
    state = getattr(denoiser(model), ATTRIBUTE, None)
    return rule("unscaled") if state is None else state.arguments["scale_rule"]


def scale_report(model: DiffusionModel) -> pd.DataFrame:
    """What the patch did in the latest calls: one row a layer.

    Columns: `layer`; `attends`, "image", or "image+text" where text joins the softmax; `tokens,
    training_tokens, factor` of the latest call (0 and 1.0 before the first; the factor is the mean of the
    heads where they differ); `calls`; `clamped`, of how many factors the entropy that the rule wants is out
    of reach. Without a patch the table is empty.
    """
    state = getattr(denoiser(model), ATTRIBUTE, None)
    columns = ["layer", "attends", "tokens", "training_tokens", "factor", "calls", "clamped"]
    layers = [] if state is None else state.layers.values()
    rows = [
        (s.name, s.attends, s.tokens, s.training_tokens, s.factor, s.calls, s.factors.clamped) for s in layers
    ]
    return pd.DataFrame(rows, columns=columns)
