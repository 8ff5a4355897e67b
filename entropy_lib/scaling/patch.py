"""Puts a scale rule into a diffusers model and takes it out again.

diffusers never hands its `scale` attribute to the fused kernel, so setting it does nothing. The factor multiplies the
query instead, by a hook on the layer that produces it; λ (f q)·k = (f λ) q·k, so this is a change of scale, exactly.
Hooks leave processors, LoRA layers and IP-Adapters alone. Every call checks that the factor arrived and says so if not. A
compiled model is compiled again at its next call, with the hooks in its graph.

Example:
    >>> import entropy_lib as el
    >>> pipe = el.load("mini")
    >>> with el.scaled(pipe, "paper"):
    ...     images = pipe("a penguin, fluent style", height=128, width=128, num_inference_steps=2).images
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from entropy_lib.errors import ScaleNotAppliedError
from entropy_lib.models.layers import (
    DiffusionModel,
    check_latent_size,
    denoiser,
    forget_compiled,
    is_joint,
    native_latent_size,
    note_training_size,
    select_layers,
    self_attention_input,
    training_tokens,
)
from entropy_lib.models.networks import family, text_length
from entropy_lib.scaling.calibration import Calibration, LayerFactors, calibration_of
from entropy_lib.scaling.rules import Rule, rule

Model = TypeVar("Model", bound=DiffusionModel)  # what is patched is given back, as what it was
ATTRIBUTE = "_entropy_lib_scale"  # where a patched network keeps its state
TRAINING_TIMESTEPS = 1000  # of every family in `models.networks`
NOTHING = LayerFactors((1.0,))


@dataclass
class LayerScale:
    """The patch of one attention layer."""

    name: str
    rule: Rule
    training_tokens: int
    calibration: Calibration | None = None  # of rules whose factors come from one
    tokens: int = 0
    factors: LayerFactors = NOTHING
    in_window: bool = True  # whether the denoiser's present call is one that the rule is for
    calls: int = 0
    active: bool = False  # between the start and the end of a self-attention call
    scaled: set[nn.Module] = field(default_factory=set)  # sources of the query that were scaled in that call
    hooks: dict[nn.Module, RemovableHandle] = field(default_factory=dict)  # one on each source

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Note N and the factor of a self-attention call; follow the query's sources if they were replaced (LoRA)."""
        given = self_attention_input(module, args, kwargs)
        self.active = given is not None
        if not self.active:
            return
        self.tokens = given.tokens
        self.factors = self._factors() if self.in_window else NOTHING
        self.scaled.clear()
        sources = query_sources(module, joint=given.text is not None)
        if set(sources) != set(self.hooks):
            self.release()
            self.hooks = {source: source.register_forward_hook(self.scale_query) for source in sources}

    @property
    def factor(self) -> float:
        """Of the latest call; the mean of its heads where they differ."""
        return sum(self.factors.factors) / len(self.factors.factors)

    def _factors(self) -> LayerFactors:
        if self.calibration is not None:
            return self.calibration.factors(self.rule, self.name, self.tokens)
        return LayerFactors((self.rule.factor(self.tokens, self.training_tokens),))

    def scale_query(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Multiply the query. At N = T the output is left untouched, so the images are those of the unpatched model."""
        if not self.active:
            return None
        self.scaled.add(module)
        factors = self.factors.factors
        if len(factors) > 1:
            return scale_heads(output, factors)
        return None if factors[0] == 1.0 else output * factors[0]

    def after(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        """Check that the factor reached the attention, and nothing else."""
        if not self.active:
            return
        self.active = False
        if self.scaled != set(self.hooks) or _query_is_shared(module):
            raise ScaleNotAppliedError(_not_applied(self, module))
        self.calls += 1

    def release(self) -> None:
        """Take the hooks off the query's sources."""
        for hook in self.hooks.values():
            hook.remove()
        self.hooks.clear()


@dataclass
class ModelScale:
    """The patch of one network: what was asked for, its layers, and the handles that undo it."""

    arguments: dict
    layers: dict[str, LayerScale]
    text_tokens: int
    handles: list[RemovableHandle] = field(default_factory=list)

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a forward pass: note whether it is in the rule's window, and how much text joins."""
        chosen = self.arguments["scale_rule"]
        if chosen.window is not None:
            inside = chosen.holds(progress(module, args, kwargs))
            for layer in self.layers.values():
                layer.in_window = inside
        self.count_text(module, args, kwargs)

    def count_text(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Where text joins the self-attention, T counts as much of it as this call brings."""
        text = text_length(module, args, kwargs)
        if text == self.text_tokens:
            return
        self.text_tokens = text
        training = training_tokens(module, self.arguments["latent_size"], text)
        for name, layer in self.layers.items():
            layer.training_tokens = training[name]

    def check_reached(self, module: nn.Module, args: tuple, output: object) -> None:
        """After a forward pass: every patched layer must have been called."""
        missed = [name for name, layer in self.layers.items() if layer.calls == 0]
        if missed:
            raise ScaleNotAppliedError(
                f"{len(missed)} of {len(self.layers)} patched attention layers did not run, the first being {missed[0]!r}: they "
                "were replaced or bypassed after the patch. Call apply_scale again once the model is complete."
            )


def progress(network: nn.Module, args: tuple, kwargs: dict) -> float:
    """Where in the noise schedule a call of a network is: 0 at pure noise, 1 at the picture."""
    given = args[1] if len(args) > 1 and "timestep" not in kwargs else kwargs["timestep"]
    timestep = float(given.flatten()[0] if isinstance(given, Tensor) else given) * family(network).timestep_unit
    return 1 - timestep / TRAINING_TIMESTEPS


def scale_heads(query: Tensor, factors: Sequence[float]) -> Tensor:
    """Multiply each head of a query by its own factor.

    Args:
        query: `[batch, tokens, heads * dim]`, or with an axis of heads, as norms of queries have it.
        factors: one for each head.

    Raises:
        ScaleNotAppliedError: where no axis, or more than one, can be that of the heads.
    """
    scale = query.new_tensor(factors)
    if query.ndim == 3:
        return (query.unflatten(-1, (len(factors), -1)) * scale[:, None]).flatten(-2)
    axes = [axis for axis in (1, 2) if query.ndim == 4 and query.shape[axis] == len(factors)]
    if len(axes) != 1:
        raise ScaleNotAppliedError(
            f"factors of single heads cannot be applied to a query of shape {tuple(query.shape)}: which axis holds the "
            f"{len(factors)} heads is not certain; take a rule of whole layers"
        )
    return query * (scale[:, None, None] if axes == [1] else scale[:, None])


def query_sources(attention: nn.Module, joint: bool = False) -> list[nn.Module]:
    """The layers whose outputs make up the query that attention uses, the norm where there is one; text's own if `joint`."""
    pairs = [("norm_q", "to_q"), ("norm_added_q", "add_q_proj")][: 1 + joint]
    norms = [(getattr(attention, norm, None), projection) for norm, projection in pairs]
    return [norm if isinstance(norm, nn.Module) else getattr(attention, projection) for norm, projection in norms]


def _query_is_shared(attention: nn.Module) -> bool:
    """Whether the image's query also asks an image prompt (IP-Adapter of SD3 and FLUX), which must not be rescaled."""
    return is_joint(attention) and hasattr(getattr(attention, "processor", None), "to_k_ip")


def apply_scale(
    model: Model, scale_rule: str | Rule, layers: str | Sequence[str] | None = None, *, latent_size: tuple[int, int] | None = None
) -> Model:
    """Rescale the self-attention of a model by a rule, until `remove_scale`.

    Applying again replaces the earlier rule. At training size the images stay identical bit for bit (except `gamma`).

    Args:
        model: a diffusers pipeline, or its denoising network. Pipelines that share a network share the patch.
        scale_rule: see `entropy_lib.rule`.
        layers: names or glob patterns of the layers to rescale, e.g. "down_blocks.*"; all self-attention by default.
        latent_size: height and width of the training latents, if not those of the network's config. The probes go by it too, and
            so does a patch that is applied over this one without a size of its own.

    Returns:
        `model`, so that `pipe = el.apply_scale(el.load("mini"), "paper")` can be written.

    Raises:
        UnknownNameError: for an unknown rule or layer.
        UnsupportedModelError: when the network is of no known family.
        InvalidInputError: when it has no self-attention, or `latent_size` is no height and width; where the rule names a level
            that the network has not, or needs a calibration and there is none.
        ScaleNotAppliedError: later, from the model's own call, when the factor cannot reach the attention.
        InvalidInputError: likewise, at a size where the rule has no factor.
    """
    chosen_rule, network = rule(scale_rule), denoiser(model)
    latent_size = native_latent_size(network) if latent_size is None else check_latent_size(latent_size)
    training = training_tokens(network, latent_size)
    chosen_layers = select_layers(list(training), layers)
    names = [name for name in chosen_rule.layers(training) if name in chosen_layers]
    calibration = calibration_of(network, chosen_rule.name) if chosen_rule.calibrated else None
    remove_scale(network)
    state = ModelScale(
        {"scale_rule": chosen_rule, "layers": names, "latent_size": latent_size},
        {name: LayerScale(name, chosen_rule, training[name], calibration) for name in names},
        family(network).text_tokens,
    )
    for name, layer in state.layers.items():
        module = network.get_submodule(name)
        state.handles += [
            module.register_forward_pre_hook(layer.before, with_kwargs=True),
            module.register_forward_hook(layer.after, with_kwargs=True),
        ]
    state.handles += [
        network.register_forward_pre_hook(state.before, with_kwargs=True),
        network.register_forward_hook(state.check_reached),
    ]
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
    for handle in state.handles:
        handle.remove()
    for layer in state.layers.values():
        layer.release()
    delattr(network, ATTRIBUTE)
    note_training_size(network, None)
    forget_compiled()


@contextmanager
def scaled(
    model: Model, scale_rule: str | Rule, layers: str | Sequence[str] | None = None, *, latent_size: tuple[int, int] | None = None
) -> Iterator[Model]:
    """Rescale within a `with` block, which is given the model; on any exit it is as before, an earlier patch included.

    Arguments and errors are those of `apply_scale`.
    """
    network = denoiser(model)
    earlier = getattr(network, ATTRIBUTE, None)
    apply_scale(network, scale_rule, layers, latent_size=latent_size)
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
    """What the patch did in the latest calls: one row a layer, with `layer, tokens, training_tokens, factor, calls, clamped`.

    `tokens` and `factor` are those of the latest call (0 and 1.0 before the first); the factor is the mean of the heads where
    they differ. `clamped` says of how many factors the entropy that the rule wants is out of reach. Without a patch the table
    is empty.
    """
    state = getattr(denoiser(model), ATTRIBUTE, None)
    columns = ["layer", "tokens", "training_tokens", "factor", "calls", "clamped"]
    layers = [] if state is None else state.layers.values()
    rows = [(s.name, s.tokens, s.training_tokens, s.factor, s.calls, s.factors.clamped) for s in layers]
    return pd.DataFrame(rows, columns=columns)


def _not_applied(layer: LayerScale, attention: nn.Module) -> str:
    processor = type(getattr(attention, "processor", None)).__name__
    if _query_is_shared(attention):
        return (
            f"the scale cannot be kept to the self-attention of {layer.name!r}: its processor {processor} lets the same query ask "
            "the image prompt. Unload the IP-Adapter, or leave the scale off."
        )
    if getattr(attention, "fused_projections", False):
        return (
            f"the scale did not reach {layer.name!r}: its query, key and value projections are fused, so the query is never "
            "produced by itself. Call unfuse_qkv_projections() on the pipeline, then apply the scale."
        )
    return (
        f"the scale did not reach {layer.name!r}: its processor {processor} does not call the layer that produces the query. "
        "Use a processor that calls attn.to_q, for example diffusers' AttnProcessor2_0."
    )
