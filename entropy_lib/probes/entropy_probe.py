"""Watches every self-attention call of a running model and returns its entropy in one tidy table.

Each call's query and key are reduced at once to a few sums, without the attention map. The probe knows
nothing of the patch; its `factor` column is measured at the kernel.
"""

import math
from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from entropy_lib.entropy.attention import Rows, attention_entropy, entropy_and_variance
from entropy_lib.entropy.laws import gaussian_law
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.attention_probe import AttentionProbe
from entropy_lib.probes.watcher import AttentionCall, LayerStep


class EntropyProbe(AttentionProbe):
    """Measure the entropy of every self-attention call made inside a `with` block.

    Args:
        model: a diffusers pipeline, or its denoising network.
        rows: query rows to look at in each call: None for all, a number for that many at random, or indices.
        layers: names or glob patterns of the layers to watch; all self-attention by default.
        per_image: keep the images of a batch apart, in a column `image` that counts all images of the block.
        latent_size: height and width of the training latents, if neither the network's config nor a patch
            says them.

    Raises:
        InvalidInputError: when the model has no self-attention or `rows` cannot be had; and, from the model's
            own call, where an attention mask hides keys.
        UnknownNameError: when `layers` matches nothing.
        AttentionNotSeenError: from the model's own call, when a layer computes its attention some other way.

    `table()` has one row per layer x step x branch x head (and image, with `per_image`):
        layer, attends ("image" or "image+text"), height and width of its token grid, tokens,
        training_tokens: where, and to what. step, timestep, branch ("cond", "uncond", or "all" without
        guidance), head: when and in which part. rows: query rows summarised. entropy, entropy_std: mean and
        standard deviation over rows, in nats. entropy_ratio: entropy / ln N. logit_std: b, the root of the
        mean within-row variance of the scaled logits. gaussian_entropy: what Eq. 5 predicts from it.
        beyond_freezing: share of rows with b > sqrt(2 ln N). factor: scale times length of the query,
        measured at the kernel, over what the network by itself would have there.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with el.scaled(pipe, "paper"), el.EntropyProbe(pipe, rows=16) as probe:
        ...     _ = pipe("a penguin", height=32, width=32, num_inference_steps=2)
        >>> int(probe.table().tokens.max())
        64
    """

    together = True
    measured = (
        "entropy", "entropy_std", "entropy_ratio", "logit_std", "gaussian_entropy", "beyond_freezing",
        "factor",
    )  # fmt: skip

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """Entropy and within-row variance of each row, exact and without the map."""
        entropy, variance = entropy_and_variance(rows, call.key, call.scale)
        return {
            "entropy": entropy,
            "entropy_squared": entropy.square(),
            "logit_variance": variance,
            "beyond_freezing": (variance > 2 * math.log(call.place.tokens)).to(variance.dtype),
            "factor": call.factor.unsqueeze(-1).to(variance.dtype).expand_as(entropy),
        }

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """What the means over rows say."""
        logit_std, log_tokens = mean.logit_variance**0.5, math.log(place.tokens)
        return {
            "entropy": mean.entropy,
            "entropy_std": (mean.entropy_squared - mean.entropy**2).clip(lower=0) ** 0.5,
            "entropy_ratio": mean.entropy / log_tokens if log_tokens else mean.entropy * math.nan,
            "logit_std": logit_std,
            "gaussian_entropy": gaussian_law(place.tokens, logit_std),
            "beyond_freezing": mean.beyond_freezing,
            "factor": mean.factor,
        }


class ResponseProbe(AttentionProbe):
    """Measure what the entropy of every self-attention call would be under several factors of its scale.

    The model runs as it does. `table()` has a column "entropy at f" in nats for each factor.

    Args:
        model, rows, layers: as for `EntropyProbe`.
        factors: of the scale that the model uses.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> with ResponseProbe(pipe, factors=(0.5, 1, 2), rows=16) as probe:
        ...     _ = pipe("a penguin", num_inference_steps=2)
        >>> means = probe.table()[list(probe.measured)].mean()
        >>> bool(means["entropy at 0.5"] > means["entropy at 1"] > means["entropy at 2"])
        True
    """

    together = True

    def __init__(
        self,
        model: DiffusionModel,
        factors: Sequence[float],
        rows: Rows = None,
        layers: str | Sequence[str] | None = None,
    ):
        super().__init__(model, rows, layers)
        self.factors = tuple(map(float, factors))
        self.measured = tuple(f"entropy at {factor:.4g}" for factor in self.factors)

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """Entropy of each row under each factor."""
        entropies = [attention_entropy(rows, call.key, factor * call.scale) for factor in self.factors]
        return dict(zip(self.measured, entropies, strict=True))

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """The means as they are."""
        return {name: mean[name] for name in self.measured}
