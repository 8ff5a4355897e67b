"""How time grows with the number of tokens, and where attention takes over.

    python -m benchmarks.growth

One call of the denoiser for one image, each size in a fresh process: the embedded model, and the architecture
of Stable Diffusion 2.1-base with random weights. Attention is softmax(QKᵀ)V among image tokens, without its
projections. Operations are counted by torch.
"""

import numpy as np
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

import entropy_lib as el
from entropy_lib.models.layers import denoiser, tokens_at
from entropy_lib.sampling.costs import Configuration, inputs_of, measure_all
from entropy_lib.statistics.interval import Interval

MODELS = {"mini": (64, 128, 256, 512), "sd21-base": (256, 512, 768, 1024)}  # sides in pixels
PROCESSES = 1


def count_operations(pipe, height, width):
    """Floating-point operations of one call at a size of latents, all and of self-attention, on a network
    without weights.

    A multiplication and its addition count as two; what is done element by element is not counted.
    """
    network, counts = denoiser(pipe), tokens_at(pipe, height, width)
    with torch.device("meta"), torch.no_grad():
        twin = type(network).from_config(network.config).eval()
        with FlopCounterMode(display=False) as counter:
            twin(**inputs_of(network, height, width))
    modules = dict(twin.named_modules())
    return counter.get_total_flops(), sum(
        4 * tokens**2 * modules[name].inner_dim for name, tokens in counts.items()
    )


def measured(model, sides):
    """Time, share of attention and operations at each size."""
    common = {"part": "denoiser", "device": "cpu", "dtype": "float32", "random_weights": model != "mini"}
    table = measure_all([Configuration(model, (side, side), **common) for side in sides], processes=PROCESSES)
    pipe = el.load(
        model, **({"random_weights": True, "device": "meta"} if model != "mini" else {"device": "cpu"})
    )
    latents = [side // pipe.vae_scale_factor for side in sides]
    counted = [count_operations(pipe, side, side) for side in latents]
    tokens = [max(tokens_at(pipe, side, side).values()) for side in latents]
    operations = {
        "tokens": tokens,
        "gigaflops": [total / 1e9 for total, _ in counted],
        "of_attention": [own / total for total, own in counted],
    }
    return table.assign(**operations)


def exponent(tokens, cost):
    """e of cost ~ N^e, least squares on logarithms, with a t interval over the sizes."""
    line = stats.linregress(np.log(tokens), np.log(cost))
    return Interval.around(float(line.slope), float(line.stderr), 0.95, len(tokens) - 1)


def crossover(tokens, share, at=0.5):
    """The number of tokens from which a share is beyond `at`, on a straight line over ln N; NaN where it is
    not within.
    """
    above = np.flatnonzero(np.asarray(share) >= at)
    if not len(above) or above[0] == 0:
        return float("nan")
    pair = slice(above[0] - 1, above[0] + 1)
    return float(np.exp(np.interp(at, share[pair], np.log(tokens[pair]))))


def main():
    print(
        "| model | size | tokens | seconds (median of 5) | range | attention's share of time | GFLOP "
        "| attention's share of them |"
    )
    print("|---|---|---|---|---|---|---|---|")
    lines = []
    for model, sides in MODELS.items():
        table = measured(model, sides)
        for row in table.itertuples():
            print(
                f"| {model} | {row.size} | {row.tokens:,} | {row.seconds:.3f} "
                f"| {row.fastest:.3f} to {row.slowest:.3f} | "
                f"{row.attention:.1%} | {row.gigaflops:,.1f} | {row.of_attention:.1%} |",
                flush=True,
            )
        whole, own = (
            exponent(table.tokens, table.seconds),
            exponent(table.tokens, table.seconds * table.attention),
        )
        half = crossover(table.tokens, table.attention)
        where = f"at {half:,.0f} tokens" if np.isfinite(half) else "not within these sizes"
        by_count = crossover(table.tokens, table.of_attention)
        counted = f"at {by_count:,.0f}" if np.isfinite(by_count) else "not within these sizes"
        lines.append(
            f"- {model}: time grows as N^{whole} in all, attention's as N^{own}; "
            f"attention takes half of the time {where}, half "
            f"of the operations {counted}."
        )
    print("\nIntervals: 95 %, over sizes, of the line through the logarithms.\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
