"""Dilution: how much of its attention a thing keeps to itself when the rest of the image grows.

    python -m benchmarks.dilution [scenes] [prompts]

Of the embedded transformer at 64x64 and 128x128. The thing's tokens are known, because the network denoises a
scene whose contents are known. With m the mass that a query inside a thing puts on the thing's own tokens,
the log-odds of m change with a factor f on all logits at the rate of the gap Δ between the mean logits inside
and outside, each weighted by the attention itself. N / T times as many tokens outside lower the log-odds by
ln(N / T), so the factor that restores m is 1 + ln(N / T) / Δ to first order. Masses and factors are medians
over layers and heads. Then images are generated under the median factor.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

import entropy_lib as el
from benchmarks.positions import BATCH, GUIDANCE, SIZE, STEPS, row
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.layers import DiffusionModel
from entropy_lib.probes.attention_probe import AttentionProbe
from entropy_lib.probes.watcher import AttentionCall, LayerStep
from entropy_lib.sampling.request import check_sizes
from entropy_lib.scenes import detection, scenes
from entropy_lib.statistics import rank_correlation
from training.quality import draw_prompts

FACTORS = tuple(np.geomspace(0.25, 8, 41).round(6).tolist())  # of the scale, at which the mass is looked at
LEVELS = (800, 500, 200)  # timesteps


def dilution_factor(tokens: float, training_tokens: float, gap: float) -> float:
    """What the logits must be multiplied by, to first order, that a thing keeps its mass among N tokens."""
    return 1 + math.log(tokens / training_tokens) / gap


class ThingProbe(AttentionProbe):
    """Of queries inside a mask, the mass on keys inside it, and the gap Δ.

    Args:
        model, layers: as for `EntropyProbe`.
        inside: which pixels of the image, all images of a batch alike, belong to things; a token belongs
            where at least half of it does.

    `table()` has, beside the columns of every probe, `gap` in nats, and `mass at f` for each of `FACTORS`.
    """

    measured = ("gap", *(f"mass at {factor:.4g}" for factor in FACTORS))

    def __init__(
        self,
        model: DiffusionModel,
        inside: Bool[np.ndarray, "height width"],
        layers: Sequence[str] | None = None,
    ):
        super().__init__(model, None, layers)
        self.inside = torch.from_numpy(inside.astype(np.float32))[None]

    def measure(self, call: AttentionCall) -> None:
        """Add the queries inside, if the layer's grid has any."""
        if call.place.height and len(own := self._own(call.place)):
            self.rows = own + call.first_query
            super().measure(call)

    def statistics(self, call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
        """Mass at each factor, and the gap."""
        logits = call.scale * rows.float() @ call.key.float().mT
        own = torch.zeros(logits.shape[-1], dtype=torch.bool)
        own[call.first_key + self._own(call.place)] = True
        weights = logits.softmax(-1)
        means = [(weights * logits)[..., part].sum(-1) / weights[..., part].sum(-1) for part in (own, ~own)]
        masses = [(factor * logits).softmax(-1)[..., own].sum(-1) for factor in FACTORS]
        return dict(zip(self.measured, (means[0] - means[1], *masses), strict=True))

    def columns(self, place: LayerStep, mean: pd.DataFrame) -> dict[str, pd.Series]:
        """The means as they are."""
        return {name: mean[name] for name in self.measured}

    def _own(self, place: LayerStep) -> Tensor:
        share = adaptive_avg_pool2d(self.inside, (place.height, place.width))
        return (share >= 0.5).flatten().nonzero()[:, 0]


def thing_mass(
    pipe: DiffusionPipeline,
    images: UInt8[np.ndarray, "image height width 3"],
    inside: Bool[np.ndarray, "image height width"],
    captions: Sequence[str],
    levels: Sequence[int] = LEVELS,
) -> pd.DataFrame:
    """Measure, while images of known contents are denoised, what queries inside things put on the things.

    Args:
        pipe: that learnt a flow, as `mini-dit`; it runs with the rule and the positions that it carries.
        images: of a size that it can make, such as scenes.
        inside: which of their pixels belong to things (`scenes.inside`).
        captions: of the images.
        levels: timesteps, at each of which an image has the same noise.

    Returns:
        the table of `ThingProbe`, with `scene` and `level`.

    Raises:
        UnsupportedModelError: for a scheduler of another kind.
        InvalidInputError: for a size that the model cannot make, or arguments of different lengths.
    """
    if not isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler):
        raise UnsupportedModelError(
            f"{type(pipe.scheduler).__name__} is no scheduler of a flow, as mini-dit has"
        )
    check_sizes(pipe, [images.shape[1:3]])
    if not len(images) == len(inside) == len(captions):
        raise InvalidInputError(
            f"{len(images)} images, {len(inside)} masks and {len(captions)} captions; give one for each"
        )
    parts = []
    for number, (image, mask, caption) in enumerate(zip(images, inside, captions, strict=True)):
        for level in levels:
            with ThingProbe(pipe, mask) as probe:
                _denoise(pipe, image, caption, level, number)
            parts.append(probe.table().assign(scene=number, level=level))
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def _denoise(pipe: DiffusionPipeline, image: np.ndarray, caption: str, level: int, seed: int) -> None:
    """One step from an image with noise on it, without guidance."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(pipe.device, pipe.vae.dtype) / 127.5 - 1
    clean = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    options = {"guidance_scale": 1.0, "output_type": "latent", "use_resolution_binning": False}
    sides = dict(zip(("height", "width"), image.shape[:2], strict=True))
    pipe([caption], latents=torch.lerp(clean, noise, level / 1000), timesteps=[level], **sides, **options)


def restoring_factors(
    native: pd.DataFrame, other: pd.DataFrame, by: Sequence[str] = ("layer",)
) -> pd.DataFrame:
    """The factor that gives things the mass of native size again, measured and predicted.

    Args:
        native, other: of `thing_mass`, at native size and at another.
        by: what it is measured apart for: layers, or layers and heads, or also levels.

    Returns:
        one row for each: `mass` at native size, `diluted` at the other, `gap` there, the factor `needed`
        (nan where no factor from 0.25 to 8 is enough) and the one `predicted` (nan where the gap is no gap).
        Of what only one of the tables has, there is none.
    """
    masses, rows = [f"mass at {factor:.4g}" for factor in FACTORS], []
    first, second = (
        table.groupby(list(by), sort=False)[[*masses, "gap", "tokens"]].mean() for table in (native, other)
    )
    for key in first.index.intersection(second.index, sort=False):
        before, after = first.loc[key], second.loc[key]
        wanted, keys = before["mass at 1"], key if isinstance(key, tuple) else (key,)
        needed = _crossing(after[masses].to_numpy(float), wanted)
        predicted = dilution_factor(after.tokens, before.tokens, after.gap) if after.gap > 0 else math.nan
        rows.append((*keys, wanted, after["mass at 1"], after.gap, needed, predicted))
    return pd.DataFrame(rows, columns=[*by, "mass", "diluted", "gap", "needed", "predicted"])


def _crossing(mass: Float[np.ndarray, " factor"], wanted: float) -> float:
    """The factor nearest to 1 that gives the mass that is wanted; nan without one."""
    above = mass >= wanted
    steps = np.flatnonzero(above[1:] != above[:-1])
    logs = np.log(FACTORS)
    found = logs[steps] + (wanted - mass[steps]) / (mass[steps + 1] - mass[steps]) * np.diff(logs)[steps]
    return math.exp(min(found, key=abs)) if len(found) else math.nan


def measured(
    pipe: DiffusionPipeline, side: int, count: int, brought: Callable, levels: Sequence[int] = LEVELS
) -> pd.DataFrame:
    """The table of `thing_mass` for the first test scenes, brought to a side of so many pixels."""
    some = [brought(scenes.scene(number, "test", scenes.SIMPLE), side, side) for number in range(count)]
    images = np.stack([scenes.draw(one, side, side) for one in some])
    masks = np.stack([scenes.inside(one, side, side) for one in some])
    return thing_mass(pipe, images, masks, [one.caption for one in some], levels)


def main() -> None:
    count, prompts = (int(text) for text in (*sys.argv[1:], "12", "32")[:2])
    pipe = el.load("mini-dit")
    print(f"{count} scenes at {len(LEVELS)} noise levels, native size to {SIZE}\n")
    print("| things | mass | at 128x128 | factor needed | predicted | rank correlation over heads |")
    print("|---|---|---|---|---|---|")
    factors = {}
    for name, brought in {"of as many pixels": of_native_pixels, "of the same share": _same}.items():
        tables = [measured(pipe, side, count, brought) for side in (64, 128)]
        found = restoring_factors(*tables, by=("layer", "head"))
        known = found.dropna()
        agree = rank_correlation(known.needed, known.predicted)[0]
        middle = found[["mass", "diluted", "needed", "predicted"]].median()
        factors[name] = middle.predicted
        numbers = " | ".join(f"{number:.2f}" for number in middle)
        print(f"| {name} | {numbers} | {agree:.2f}, {len(known)} of {len(found)} heads |", flush=True)
    tokens = tables[1].tokens.iloc[0], tables[0].tokens.iloc[0]
    power = math.log(factors["of as many pixels"]) / math.log(math.log(tokens[0]) / math.log(tokens[1]))
    chosen = draw_prompts(prompts, scenes.SIMPLE)
    print(f"\n{SIZE}, {prompts} prompts, {STEPS} steps, guidance {GUIDANCE}, batches of {BATCH}\n")
    print("| method | exact | over-count | under-count |\n|---|---|---|---|")
    for method in ("unscaled", "paper", f"power({power:.2f})", "equal-entropy(heads)"):
        row(f"`{method}`", pipe, chosen, detection.detector(), method)


def of_native_pixels(scene: scenes.Scene, height: int, width: int) -> scenes.Scene:
    """The scene with things that have, at another size, as many pixels as at native size."""
    share = scenes.SIZE / min(height, width)
    return replace(scene, things=tuple(replace(thing, side=thing.side * share) for thing in scene.things))


def _same(scene: scenes.Scene, height: int, width: int) -> scenes.Scene:
    return scene


if __name__ == "__main__":
    main()
