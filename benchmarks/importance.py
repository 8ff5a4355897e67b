"""Which layers follow ln N, and which of them the image depends on.

    python benchmarks/importance.py mini mini-dit terrain --prompts 8 --steps 25

Entropy of every layer at native size beside its importance: how far the image changes, in its own standard
deviations, when the layer's attention is made uniform, with an interval over images. The slope of entropy on
ln N, from half to twice the native side, is that of each layer, and of its three means over layers.
"""

import argparse

import numpy as np
import pandas as pd

import entropy_lib as el
from entropy_lib.entropy import freezing_std
from entropy_lib.files import PROMPTS
from entropy_lib.models.catalogue import load
from entropy_lib.probes.importance import branch_over_stream, importance, means_over_layers, with_importance
from entropy_lib.sampling.request import native_size
from entropy_lib.sizes import Size
from entropy_lib.statistics import cluster_mean, rank_correlation, slope_on_log_tokens

ROWS = 64  # query rows of each call whose entropy is measured
SHARES = (0.5, 1, 2)  # of the native side


def opened(model):
    """A pipeline, and prompts that it knows; `terrain` is fetched where it is asked for."""
    if model == "terrain":
        return load(model), [str(difficulty) for difficulty in range(1, 101)]
    listed = PROMPTS / f"{model}.txt"
    known = listed if listed.exists() else PROMPTS / "mini.txt"
    return load(model), known.read_text(encoding="utf-8").splitlines()


def requests(pipe, prompts, steps):
    """Arguments of `generate`, and sizes."""
    native = native_size(pipe)
    sizes = [Size(int(native.height * share), int(native.width * share)) for share in SHARES]
    return sizes, {"prompts": prompts, "seeds": range(len(prompts)), "steps": steps}


def layer_table(table, measured, cheap, native):
    """One row a layer at native size."""
    own = table[table["size"] == str(native)]
    means = own.groupby("layer", sort=False)[
        ["tokens", "entropy", "entropy_ratio", "logit_std", "beyond_freezing", "gaussian_entropy"]
    ].mean()
    change = cluster_mean(measured, "change", "layer", "image").set_index("layer")
    slopes = {
        layer: slope_on_log_tokens(part.groupby(["prompt", "tokens"], as_index=False).entropy.mean())
        for layer, part in table.groupby("layer", sort=False)
    }
    return pd.DataFrame(
        {
            "tokens": means.tokens.astype(int),
            "H": means.entropy,
            "H / ln T": means.entropy_ratio,
            "b": means.logit_std,
            "b / b_c": means.logit_std / freezing_std(means.tokens.to_numpy()),
            "rows beyond": means.beyond_freezing,
            "Eq. 5 - H": means.gaussian_entropy - means.entropy,
            "slope on ln N": pd.Series({layer: str(fit) for layer, fit in slopes.items()}),
            "importance": [
                f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in change.itertuples()
            ],
            "branch / stream": cheap,
        }
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mini", "mini-dit"])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    for model in given.models:
        pipe, listed = opened(model)
        prompts = [listed[place] for place in np.linspace(0, len(listed) - 1, given.prompts).astype(int)]
        sizes, options = requests(pipe, prompts, given.steps)
        native = native_size(pipe)
        table = el.entropy_by_size(pipe, sizes=sizes, rows=ROWS, **options)

        def generate(pipe=pipe, native=native, options=options):
            return el.generate(pipe, size=native, **options)

        measured = importance(pipe, generate)
        cheap = branch_over_stream(pipe, generate)
        truth = measured.groupby("layer", sort=False).change.mean()
        correlation, p_value = rank_correlation(cheap, truth[cheap.index])
        print(f"\n{model}: {len(prompts)} prompts, {given.steps or 'own'} steps, native {native}\n")
        print(layer_table(table, measured, cheap, native).round(3).to_markdown())
        print(
            f"\nrank correlation of branch / stream with importance: {correlation:.2f} (p = {p_value:.2g})\n"
        )
        means = means_over_layers(with_importance(table, measured), ["prompt", "size"])
        tokens = table.groupby("size").tokens.mean()  # of joint attention, text too
        for name, part in means.assign(tokens=means["size"].map(tokens)).groupby("layers", sort=False):
            print(f"slope of entropy on ln N, {name}: {slope_on_log_tokens(part)}")


if __name__ == "__main__":
    main()
