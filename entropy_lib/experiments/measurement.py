"""Entropy, and the shape of logits, over sizes, rules and prompts in tidy tables: the measurement behind notebooks 02 to 04."""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from entropy_lib.attention.entropy import Rows
from entropy_lib.experiments.generation import generate, native_size
from entropy_lib.probes.entropy_probe import EntropyProbe
from entropy_lib.probes.logit_probe import LogitProbe
from entropy_lib.scaling.rules import Rule, rule
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
    tables = []
    for (height, width), scale_rule, same in tqdm(_cells(pipe, sizes, rules), disable=not progress, desc="size x rule"):
        with EntropyProbe(pipe, rows=rows, per_image=True) as probe:
            generate(pipe, prompts, seeds, height, width, scale_rule=scale_rule, steps=steps, guidance=guidance, batch=batch)
        table = probe.table()
        label = {"size": size_name(height, width), "prompt": table.image.map(dict(enumerate(prompts)))}
        tables += [table.assign(rule=str(r), **label) for r in [scale_rule, *same]]
    return pd.concat(tables, ignore_index=True)


def logit_shape_by_size(
    pipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    rules: Sequence[str],
    *,
    rows: Rows = 32,
    steps: int = 25,
    guidance: float = 2.0,
    batch: int = 8,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample every prompt at every size under every rule and measure how Gaussian the logits of all self-attention are.

    Args and Raises: as for `entropy_by_size`.

    Returns:
        The columns of `probes.LogitProbe.table()` with `size, rule, prompt`, and those of `.quantiles()` with `size, rule`.
    """
    tables, quantiles = [], []
    for (height, width), scale_rule, same in tqdm(_cells(pipe, sizes, rules), disable=not progress, desc="size x rule"):
        label = {"size": size_name(height, width)}
        options = {"scale_rule": scale_rule, "steps": steps, "guidance": guidance, "batch": batch}
        with LogitProbe(pipe, rows=rows, per_image=True) as probe:
            generate(pipe, prompts, seeds, height, width, **options)
        table = probe.table()
        label_with_prompt = label | {"prompt": table.image.map(dict(enumerate(prompts)))}
        tables += [table.assign(rule=str(r), **label_with_prompt) for r in [scale_rule, *same]]
        quantiles += [probe.quantiles().assign(rule=str(r), **label) for r in [scale_rule, *same]]
    return pd.concat(tables, ignore_index=True), pd.concat(quantiles, ignore_index=True)


def _cells(pipe, sizes: Sequence[tuple[int, int]], rules: Sequence[str]) -> list[tuple[tuple[int, int], Rule, list[Rule]]]:
    """What has to be sampled: (size, rule, the other rules that are the same there)."""
    for height, width in sizes:
        check_size(height, width)
    rules, native, cells = [rule(text) for text in rules], native_size(pipe), []
    for size in map(tuple, sizes):
        identical = [r for r in rules if size == native and r.formula.identity]
        for r in rules:
            if r not in identical[1:]:
                cells.append((size, r, identical[1:] if r in identical else []))
    return cells


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
