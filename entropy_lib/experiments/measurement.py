"""Entropy, and the shape of logits, over sizes, rules and prompts in tidy tables: the measurement behind notebooks 02 to 04."""

from collections.abc import Sequence

import pandas as pd
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from entropy_lib.attention.entropy import Rows
from entropy_lib.errors import InvalidInputError
from entropy_lib.experiments.generation import generate
from entropy_lib.experiments.request import Size, check_sampler, check_samples, check_sizes, distinct_rules_at
from entropy_lib.probes.entropy_probe import EntropyProbe
from entropy_lib.probes.logit_probe import LogitProbe
from entropy_lib.scaling.patch import applied_rule
from entropy_lib.scaling.rules import Rule
from entropy_lib.sizes import size_name


def entropy_by_size(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    rules: Sequence[str | Rule] | None = None,
    *,
    rows: Rows = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
    progress: bool = False,
) -> pd.DataFrame:
    """Sample every prompt at every size under every rule and measure the entropy of all self-attention.

    Where several rules do the same, as all but `gamma` do at native size, the first of them is sampled and its rows are repeated
    for the others.

    Args:
        pipe: a text-to-image pipeline.
        prompts, seeds: of equal length; the same for all sizes and rules.
        sizes: (height, width) in pixels.
        rules: see `entropy_lib.rule`; each replaces whatever patch the model carries. None measures the model as it is, and the
            table names the rule that it carries.
        rows: query rows to look at, as for `EntropyProbe`.
        steps, guidance, batch, progress: as for `generate`.

    Returns:
        The columns of `EntropyProbe.table()` (with `image`), and `size, rule, prompt`.

    Raises:
        InvalidInputError, UnknownNameError: as `generate`, for any of the sizes and rules, before anything is drawn; and for
            sizes or rules that are repeated.
    """
    tables = []
    check_sampler(pipe, steps, guidance, batch)
    check_samples(prompts, seeds)
    cells = _cells(pipe, sizes, rules, batch)
    for (height, width), scale_rule, names in tqdm(cells, disable=not progress, desc="size x rule"):
        with EntropyProbe(pipe, rows=rows, per_image=True) as probe:
            generate(pipe, prompts, seeds, height, width, scale_rule=scale_rule, steps=steps, guidance=guidance, batch=batch)
        table = probe.table()
        label = {"size": size_name(height, width), "prompt": table.image.map(dict(enumerate(prompts)))}
        tables += [table.assign(rule=name, **label) for name in names]
    return pd.concat(tables, ignore_index=True)


def logit_shape_by_size(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    rules: Sequence[str | Rule] | None = None,
    *,
    rows: Rows = 32,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample every prompt at every size under every rule and measure how Gaussian the logits of all self-attention are.

    Args and Raises: as for `entropy_by_size`.

    Returns:
        The columns of `probes.LogitProbe.table()` with `size, rule, prompt`, and those of `.quantiles()` with `size, rule`.
    """
    tables, quantiles = [], []
    check_sampler(pipe, steps, guidance, batch)
    check_samples(prompts, seeds)
    cells = _cells(pipe, sizes, rules, batch)
    for (height, width), scale_rule, names in tqdm(cells, disable=not progress, desc="size x rule"):
        label = {"size": size_name(height, width)}
        options = {"scale_rule": scale_rule, "steps": steps, "guidance": guidance, "batch": batch}
        with LogitProbe(pipe, rows=rows, per_image=True) as probe:
            generate(pipe, prompts, seeds, height, width, **options)
        table = probe.table()
        label_with_prompt = label | {"prompt": table.image.map(dict(enumerate(prompts)))}
        tables += [table.assign(rule=name, **label_with_prompt) for name in names]
        quantiles += [probe.quantiles().assign(rule=name, **label) for name in names]
    return pd.concat(tables, ignore_index=True), pd.concat(quantiles, ignore_index=True)


def _cells(
    pipe: DiffusionPipeline, sizes: Sequence[Size], rules: Sequence[str | Rule] | None, batch: int
) -> list[tuple[Size, str | None, list[str]]]:
    """What has to be sampled: (size, rule or None for the model as it is, the names under which it stands in the table)."""
    sizes = check_sizes(pipe, sizes, batch)
    if rules is None:
        return [(size, None, [applied_rule(pipe).name]) for size in sizes]
    return [(size, first, names) for size in sizes for first, names in distinct_rules_at(pipe, rules, *size).items()]


def native_layers(table: pd.DataFrame) -> pd.DataFrame:
    """What each layer does at the size it was trained on, without a rule.

    Args:
        table: of `entropy_by_size`, native size included.

    Returns:
        indexed by layer, in order of execution: `training_tokens`, and `logit_std`, the root of the mean within-row variance.

    Raises:
        InvalidInputError: when native size without a rule is not in the table, or another size cannot be told from it.
    """
    whole = (table.tokens == table.training_tokens).groupby(table["size"]).all()  # one layer alone may have its T elsewhere too
    natives = list(whole[whole].index)
    if len(natives) > 1:
        raise InvalidInputError(f"every layer has its training tokens at {', '.join(natives)}; keep the rows of native size only")
    native = table[table["size"].isin(natives) & (table.factor.sub(1).abs() < 1e-3)]
    if native.empty:
        sizes, rules = ", ".join(table["size"].unique()), ", ".join(table["rule"].unique())
        raise InvalidInputError(
            f"the table has no rows at native size without a rule; it has sizes {sizes} and rules {rules}; add native size "
            "and 'unscaled'"
        )
    grouped = native.assign(variance=native.logit_std**2).groupby("layer", sort=False)
    layers = grouped.agg(training_tokens=("training_tokens", "first"), logit_variance=("variance", "mean"))
    return layers.assign(logit_std=layers.pop("logit_variance") ** 0.5)
