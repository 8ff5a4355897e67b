"""Calibrations: what a rule or an arm needs to know of a model, measured once at native size."""

from collections.abc import Sequence

import numpy as np
from diffusers import DiffusionPipeline

from entropy_lib.attention.entropy import Rows
from entropy_lib.experiments.generation import generate
from entropy_lib.experiments.request import check_sampler, check_samples, native_size
from entropy_lib.models.layers import denoiser, training_tokens
from entropy_lib.probes.response_probe import ResponseProbe
from entropy_lib.scaling.calibration import Calibration, LayerResponse, lengths, use_calibration

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
    """Measure how every head's entropy answers the softmax scale at native size, and let the pipeline's rules go by it.

    The pictures are drawn with whatever patch the model carries; entropies are means over rows, steps, branches and prompts.

    Args:
        pipe, prompts, seeds, steps, guidance, batch: as for `generate`.
        rows: query rows to look at, as for `EntropyProbe`.

    Returns:
        The calibration; `.write(path)` keeps it, `scaling.use_calibration` puts one to use that was read.

    Raises:
        InvalidInputError: as `generate`, before anything is drawn.

    Example:
        >>> import entropy_lib as el
        >>> pipe = el.load("mini")
        >>> found = calibrate(pipe, ["a penguin"], [0], steps=2)
        >>> _ = el.apply_scale(pipe, "equal-entropy(heads)")
    """
    sampler = check_sampler(pipe, steps, guidance, batch)
    check_samples(prompts, seeds)
    network, training = denoiser(pipe), training_tokens(pipe)
    with ResponseProbe(pipe, FACTORS, rows) as probe:
        generate(pipe, prompts, seeds, *native_size(pipe), steps=sampler.steps, guidance=sampler.guidance, batch=batch)
    table = probe.table()
    layers = {
        name: LayerResponse(training[name], FACTORS, part.groupby("head")[list(probe.measured)].mean().to_numpy().round(5).tolist())
        for name, part in table.groupby("layer", sort=False)
    }
    source = f"{len(prompts)} prompts, {sampler.steps} steps, guidance {sampler.guidance:g}"
    found = Calibration(lengths(network, layers) or {}, layers, source)
    use_calibration(network, found)
    return found
