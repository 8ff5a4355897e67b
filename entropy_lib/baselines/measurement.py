"""Entropy while a method draws: what it does to attention, whether or not it touches the softmax."""

from collections.abc import Sequence

import pandas as pd
from diffusers import DiffusionPipeline

from entropy_lib.attention.entropy import Rows
from entropy_lib.baselines.methods import Method, draw_by, method
from entropy_lib.experiments.request import check_samples, check_sizes
from entropy_lib.probes.entropy_probe import EntropyProbe
from entropy_lib.scaling.patch import scaled
from entropy_lib.sizes import size_name


def entropy_by_method(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    methods: Sequence[str | Method],
    *,
    rows: Rows = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> pd.DataFrame:
    """Draw every prompt at every size by every method and measure the entropy of all self-attention of it.

    The model's own patch plays no part. A method that draws in several stages or windows is measured in all of them.

    Args:
        pipe, prompts, seeds, rows, steps, guidance: as for `experiments.entropy_by_size`; all prompts are drawn together.
        sizes: (height, width) in pixels.
        methods: see `baselines.methods`.

    Returns:
        one row for each size, method and prompt: `size, rule, prompt, entropy` in nats, the mean over all else.

    Raises:
        InvalidInputError, UnknownNameError: as `draw_by`; for samples and sizes before anything is drawn.

    Example:
        >>> import entropy_lib as el
        >>> table = entropy_by_method(el.load("mini"), ["a penguin"], [0], [(64, 96)], ["unscaled", "power(3)"], steps=2)
        >>> bool(table.entropy[0] > table.entropy[1])
        True
    """
    check_samples(prompts, seeds)
    check_sizes(pipe, sizes, len(prompts))
    chosen, tables = [method(text) for text in methods], []
    options = {"steps": steps, "guidance": guidance, "batch": len(prompts)}
    for height, width in sizes:
        for each in chosen:
            with scaled(pipe, "unscaled"), EntropyProbe(pipe, rows=rows, per_image=True) as probe:
                draw_by(each, pipe, prompts, seeds, height, width, **options)
            label = {"size": size_name(height, width), "rule": each.name}
            means = probe.table().groupby("image").entropy.mean().reset_index()
            tables.append(means.assign(prompt=means.pop("image").map(dict(enumerate(prompts))), **label))
    return pd.concat(tables, ignore_index=True)[["size", "rule", "prompt", "entropy"]]
