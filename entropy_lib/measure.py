"""Entropy over sizes, rules and prompts in one tidy table: the measurement behind notebooks 03 and 04."""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from entropy_lib.attention import Rows
from entropy_lib.probe import EntropyProbe
from entropy_lib.rules import rule
from entropy_lib.sampling import generate, native_pixels
from entropy_lib.sizes import check_size, size_name


def entropy_by_size(
    pipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    rules: Sequence[str],
    *,
    rows: Rows = None,
    steps: int = 25,
    guidance: float = 2.0,
    batch: int = 8,
    progress: bool = False,
) -> pd.DataFrame:
    """Sample every prompt at every size under every rule and measure the entropy of all self-attention.

    At native size all rules but `gamma` are the identity, so it is sampled once, under the first rule, and its rows
    are repeated for the others.

    Args:
        pipe: a text-to-image pipeline.
        prompts, seeds: of equal length; the same for all sizes and rules.
        sizes: (height, width) in pixels.
        rules: see `entropy_lib.rule`.
        rows: query rows to look at, as for `EntropyProbe`.
        steps, guidance, batch, progress: as for `generate`.

    Returns:
        The columns of `EntropyProbe.table()` (with `image`), and `size, rule, prompt`.

    Raises:
        ValueError, UnknownNameError: as `generate`, for any of the sizes and rules, before anything is drawn.
    """
    for height, width in sizes:
        check_size(height, width)
    rules = [rule(text) for text in rules]
    native, tables = native_pixels(pipe), []
    cells = [(size, r) for size in sizes for r in rules if tuple(size) != native or not r.formula.identity or r == rules[0]]
    for (height, width), scale_rule in tqdm(cells, disable=not progress, desc="size x rule"):
        with EntropyProbe(pipe, rows=rows, per_image=True) as probe:
            generate(pipe, prompts, seeds, height, width, scale_rule=scale_rule, steps=steps, guidance=guidance, batch=batch)
        table = probe.table()
        label = {"size": size_name(height, width), "prompt": table.image.map(dict(enumerate(prompts)))}
        same = [r for r in rules if (height, width) == native and r.formula.identity and r != scale_rule]
        tables += [table.assign(rule=str(r), **label) for r in [scale_rule, *same]]
    return pd.concat(tables, ignore_index=True)


def native_layers(table: pd.DataFrame) -> pd.DataFrame:
    """What each layer does at the size it was trained on, without a rule.

    Args:
        table: of `entropy_by_size`, native size included.

    Returns:
        indexed by layer, in order of execution: `training_tokens`, and `logit_std`, the root of the mean within-row variance.

    Raises:
        ValueError: when native size is not in the table.
    """
    native = table[(table.tokens == table.training_tokens) & (table.factor.sub(1).abs() < 1e-3)]
    if native.empty:
        raise ValueError(f"the table has no rows at native size; it has {', '.join(table['size'].unique())}")
    grouped = native.assign(variance=native.logit_std**2).groupby("layer", sort=False)
    layers = grouped.agg(training_tokens=("training_tokens", "first"), logit_variance=("variance", "mean"))
    return layers.assign(logit_std=layers.pop("logit_variance") ** 0.5)
