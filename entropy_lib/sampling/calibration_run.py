"""Calibrations: what a rule or an intervention needs to know of a model, measured once at native size."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from diffusers import DiffusionPipeline

from entropy_lib.entropy.attention import Rows
from entropy_lib.errors import UnsupportedModelError
from entropy_lib.models.layers import denoiser, pixels_per_latent, tokens_at, training_tokens
from entropy_lib.probes.entropy_probe import ResponseProbe
from entropy_lib.sampling.generation import images_of
from entropy_lib.sampling.request import check_requests, native_size
from entropy_lib.scaling.calibration import (
    Calibration,
    LayerResponse,
    calibration_of,
    lengths,
    use_calibration,
)
from entropy_lib.scaling.rules import rule_list
from entropy_lib.sizes import Size, SizeLike

FACTORS = tuple(np.geomspace(0.125, 8, 25).round(6).tolist())  # 1 is the middle one


def calibrate(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    rows: Rows = 32,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
) -> Calibration:
    """Measure how every head's entropy answers the softmax scale at native size, and put it to use.

    The images are generated with whatever patch the model carries; entropies are means over rows, steps,
    branches and prompts.

    Args:
        pipe, prompts, seeds, steps, guidance, batch: as for `generate`.
        rows: query rows to look at, as for `EntropyProbe`.

    Returns:
        The calibration; `.write(path)` keeps it, `scaling.use_calibration` puts one to use that was read.

    Raises:
        InvalidInputError: as `generate`, before anything is generated.
        UnsupportedModelError: for a network with projections that are fused or replaced.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> found = calibrate(pipe, ["a penguin"], [0], steps=2)
        >>> _ = el.apply_scale(pipe, "equal-entropy(heads)")
    """
    options = {"steps": steps, "guidance": guidance, "batch": batch}
    [asked] = check_requests(pipe, prompts, seeds, [native_size(pipe)], **options)
    network, training = denoiser(pipe), training_tokens(pipe)
    own = lengths(network, training)
    if own is None:
        raise UnsupportedModelError(
            f"{type(network).__name__} has a layer without a query projection of its own, by which its "
            "calibration would be known again; take back what fused or replaced it"
        )
    with ResponseProbe(pipe, FACTORS, rows) as probe:
        images_of(pipe, asked, None)
    table = probe.table()
    layers = {}
    for name, part in table.groupby("layer", sort=False):
        heads = part.groupby("head")[list(probe.measured)].mean()
        layers[name] = LayerResponse(training[name], FACTORS, heads.to_numpy().round(5).tolist())
    source = f"{len(prompts)} prompts, {asked.steps} steps, guidance {asked.guidance:g}"
    found = Calibration({name: own[name] for name in layers}, layers, source)
    use_calibration(network, found)
    return found


def out_of_reach(pipe: DiffusionPipeline, rules: Sequence[str], sizes: Sequence[SizeLike]) -> pd.DataFrame:
    """Of how many factors of each calibrated rule the wanted entropy is out of reach.

    Args:
        pipe: with a calibration, shipped or its own.
        rules: names; those that take nothing from a calibration are passed over.
        sizes: each "64x96", or (height, width) in pixels.

    Returns:
        one row for each size and rule: `size, rule, factors, out_of_reach`.

    Raises:
        InvalidInputError: where there is no calibration.

    Example:
        >>> import entropy_lib as el
        >>> table = out_of_reach(el.load("mini"), ["paper", "equal-entropy(layers)"], ["32x32", "96x96"])
        >>> table.out_of_reach.tolist()
        [10, 0]
    """
    network, rows = denoiser(pipe), []
    for size in map(Size.of, sizes):
        counts = tokens_at(pipe, *(side // pixels_per_latent(pipe) for side in size))
        for chosen in (each for each in rule_list(rules) if each.calibrated):
            calibration = calibration_of(network, chosen.name)
            found = [
                calibration.factors(chosen, name, counts[name])
                for name in chosen.layers(training_tokens(pipe))
            ]
            many, beyond = sum(len(each.factors) for each in found), sum(each.clamped for each in found)
            rows.append({"size": str(size), "rule": chosen.name, "factors": many, "out_of_reach": beyond})
    return pd.DataFrame(rows, columns=["size", "rule", "factors", "out_of_reach"])
