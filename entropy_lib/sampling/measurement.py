"""Entropy, and the shape of logits, over sizes, methods and prompts in tidy tables."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import pandas as pd
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from entropy_lib.entropy.attention import Rows
from entropy_lib.errors import InvalidInputError
from entropy_lib.probes.entropy_probe import EntropyProbe
from entropy_lib.probes.logit_probe import LogitProbe
from entropy_lib.sampling.generation import images_of
from entropy_lib.sampling.methods import Method, method_list
from entropy_lib.sampling.request import Request, check_requests, distinct_rules_at
from entropy_lib.scaling.patch import applied_rule
from entropy_lib.scaling.rules import Rule
from entropy_lib.sizes import SizeLike

Rules: TypeAlias = Sequence[str | Rule | Method] | None


def entropy_by_size(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[SizeLike],
    rules: Rules = None,
    *,
    rows: Rows = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
    progress: bool = False,
) -> pd.DataFrame:
    """Sample every prompt at every size under every rule and measure the entropy of all self-attention.

    Where several rules do the same, as all but `gamma` do at native size, the first of them is sampled and
    its rows are repeated for the others. A method of several stages or windows is measured in all of them.

    Args:
        pipe: a text-to-image pipeline.
        prompts, seeds: of equal length; the same for all sizes and rules.
        sizes: each "64x96", or (height, width) in pixels.
        rules: scale rules, or any other methods of `generate`; each replaces whatever patch the model
            carries. None measures the model as it is, and the table names the rule that it carries.
        rows: query rows to look at, as for `EntropyProbe`.
        steps, guidance, batch, progress: as for `generate`.

    Returns:
        The columns of `EntropyProbe.table()` (with `image`), and `size, rule, prompt`.

    Raises:
        InvalidInputError, UnknownNameError: as `generate`, for any of the sizes and rules, before anything is
            generated; and for sizes or rules that are repeated.
    """
    requests = check_requests(pipe, prompts, seeds, sizes, steps=steps, guidance=guidance, batch=batch)
    measured = _measured(partial(EntropyProbe, pipe, rows, per_image=True), pipe, requests, rules, progress)
    return pd.concat([table for table, _, _ in measured], ignore_index=True)


def logit_shape_by_size(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[SizeLike],
    rules: Rules = None,
    *,
    rows: Rows = 32,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample as `entropy_by_size` does, and measure how Gaussian the logits of all self-attention are.

    Args and Raises: as for `entropy_by_size`.

    Returns:
        The columns of `probes.LogitProbe.table()` with `size, rule, prompt`, and those of `.quantiles()` with
        `size, rule`.
    """
    requests = check_requests(pipe, prompts, seeds, sizes, steps=steps, guidance=guidance, batch=batch)
    probe_of = partial(LogitProbe, pipe, rows, per_image=True)
    tables, quantiles = [], []
    for table, probe, labels in _measured(probe_of, pipe, requests, rules, progress):
        tables.append(table)
        quantiles.append(probe.quantiles().assign(**labels))
    return pd.concat(tables, ignore_index=True), pd.concat(quantiles, ignore_index=True)


def _measured(
    probe_of: Callable, pipe: DiffusionPipeline, requests: Sequence[Request], rules: Rules, progress: bool
) -> Iterator[tuple[pd.DataFrame, EntropyProbe | LogitProbe, dict[str, str]]]:
    """Generate every request by every method: its table, the probe, and its size and rule."""
    cells = [(asked, *cell) for asked in requests for cell in _distinct(pipe, asked, rules)]
    for asked, chosen, names in tqdm(cells, disable=not progress, desc="size x rule"):
        with probe_of() as probe:
            images_of(pipe, asked, chosen)
        table, size = probe.table(), str(asked.size)
        table = table.assign(size=size, prompt=table.image.map(dict(enumerate(asked.prompts))))
        for name in names:
            yield table.assign(rule=name), probe, {"size": size, "rule": name}


def _distinct(pipe: DiffusionPipeline, asked: Request, rules: Rules) -> list[tuple[Method | None, list[str]]]:
    """The methods to sample by, None for the model as it is, and the names that each has in the table."""
    if rules is None:
        return [(None, [applied_rule(pipe).name])]
    chosen = {each.name: each for each in method_list(rules)}
    scale_rules = [name for name, each in chosen.items() if each.direct]
    same = distinct_rules_at(pipe, scale_rules, asked.size) if scale_rules else {}
    for name, each in chosen.items():
        if not each.direct:
            distinct_rules_at(pipe, [each.rule], asked.size)  # fails here where the rule has no factor
            same[name] = [name]
    return [(chosen[first], names) for first, names in same.items()]


def native_layers(table: pd.DataFrame) -> pd.DataFrame:
    """What each layer does at the size it was trained on, without a rule.

    Args:
        table: of `entropy_by_size`, native size included.

    Returns:
        indexed by layer, in order of execution: `training_tokens`, and `logit_std`, the root of the mean
            within-row variance.

    Raises:
        InvalidInputError: when native size without a rule is not in the table, or another size has the same
            tokens.
    """
    # one layer alone may have its T elsewhere too
    whole = (table.tokens == table.training_tokens).groupby(table["size"]).all()
    natives = list(whole[whole].index)
    if len(natives) > 1:
        raise InvalidInputError(
            f"every layer has its training tokens at {', '.join(natives)}; keep the rows of native size only"
        )
    native = table[table["size"].isin(natives) & (table.factor.sub(1).abs() < 1e-3)]
    if native.empty:
        sizes, rules = ", ".join(table["size"].unique()), ", ".join(table["rule"].unique())
        raise InvalidInputError(
            f"the table has no rows at native size without a rule; it has sizes {sizes} and rules {rules}; "
            "add native size and 'unscaled'"
        )
    grouped = native.assign(variance=native.logit_std**2).groupby("layer", sort=False)
    layers = grouped.agg(training_tokens=("training_tokens", "first"), logit_variance=("variance", "mean"))
    return layers.assign(logit_std=layers.pop("logit_variance") ** 0.5)
