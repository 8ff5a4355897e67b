"""Which layers follow ln N, and which of them the image depends on.

    python -m benchmarks.importance mini mini-dit terrain
    python -m benchmarks.importance mini mini-dit terrain --keep    # writes data/results/MODEL/layers.csv

Entropy of every layer at native size beside its importance: how far the image changes, in its own standard
deviations, when the layer's attention is made uniform, with an interval over images. The slope of entropy on
ln N, from half to twice the native side, is that of each layer, and of its three means over layers.
"""

import argparse

import numpy as np

import entropy_lib as el
from entropy_lib.files import DATA, PROMPTS, replacing
from entropy_lib.models.catalogue import load
from entropy_lib.plots.labels import HEADINGS
from entropy_lib.plots.tables import means
from entropy_lib.probes.importance import branch_over_stream, first_order, importance
from entropy_lib.sampling.request import native_size
from entropy_lib.sizes import Size
from entropy_lib.statistics import (
    layer_table,
    means_over_layers,
    rank_correlation,
    slope_on_log_tokens,
    with_importance,
)

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


def shown(layers, size):
    """What layers are like at one size, a row a layer; the slopes of all sizes beside them."""
    own = layers[layers["size"].isin([size, "all"])]
    tokens = own[own.quantity == "tokens"].set_index("layer").estimate.astype(int)
    own = own[
        ~own.quantity.isin(["tokens", "same_keys_error"])
    ]  # the same everywhere, nothing at native size
    wide = means(own, "layer", "quantity")
    wide.insert(1, "tokens", wide.layer.map(tokens))
    return wide.rename(columns=HEADINGS).to_markdown(index=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mini", "mini-dit"])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--keep", action="store_true", help="write data/results/MODEL/layers.csv")
    given = parser.parse_args()
    for model in given.models:
        pipe, listed = opened(model)
        prompts = [listed[place] for place in np.linspace(0, len(listed) - 1, given.prompts).astype(int)]
        sizes, options = requests(pipe, prompts, given.steps)
        native = str(native_size(pipe))
        table = el.entropy_by_size(pipe, sizes=sizes, rows=ROWS, **options)

        def generate(pipe=pipe, native=native, options=options):
            return el.generate(pipe, size=native, **options)

        measured = importance(pipe, generate)
        layers = layer_table(table, measured, native)
        if given.keep:
            with replacing(DATA / "results" / model / "layers.csv") as temporary:
                layers.round(5).to_csv(temporary, index=False)
        print(f"\n{model}: {len(prompts)} prompts, {given.steps or 'own'} steps, native {native}\n")
        print(shown(layers, native), end="\n\n")
        truth = measured.groupby("layer", sort=False).change.mean()
        for estimate in (branch_over_stream, first_order):
            cheap = estimate(pipe, generate)
            correlation, p_value = rank_correlation(cheap, truth[cheap.index])
            print(f"rank correlation of {cheap.name} with importance: {correlation:.2f} (p = {p_value:.2g})")
        ways = means_over_layers(with_importance(table, measured), ["prompt", "size"])
        tokens = table.groupby("size").tokens.mean()  # of joint attention, text too
        for name, part in ways.assign(tokens=ways["size"].map(tokens)).groupby("layers", sort=False):
            print(f"slope of entropy on ln N, {name}: {slope_on_log_tokens(part)}")


if __name__ == "__main__":
    main()
