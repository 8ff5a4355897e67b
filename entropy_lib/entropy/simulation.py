"""Tables of the laws, beside simulation: of notebook 01. No model is needed.

Example:
    >>> table = compare([64], [0.5], rows=2000)
    >>> abs(table.simulated - table.exact).item() < 0.01
    True
"""

import itertools
import json
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from entropy_lib.entropy.arguments import Domain, as_array, check
from entropy_lib.entropy.laws import exact_entropy, finite_law, freezing_std, gaussian_law
from entropy_lib.errors import UnknownNameError
from entropy_lib.files import DATA

PAIR = Domain("a whole number", 2)
SIMULATED_LOGITS = 4_000_000  # for each N at most, whatever `rows` asks for


def simulated_entropy(normal: Float[Tensor, "row key"], logit_std: float) -> tuple[float, float]:
    """Mean entropy of softmax rows with logits `logit_std` x `normal`, and its standard error, nats."""
    log_weight = (logit_std * normal).log_softmax(-1)
    entropy = -(log_weight.exp() * log_weight).sum(-1)
    return entropy.mean().item(), (entropy.std() / len(entropy) ** 0.5).item()


def compare(tokens: Iterable[int], shares: Sequence[float], rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Simulated, Gaussian, finite-N and exact entropy at each N and each share of the freezing transition.

    Args:
        tokens: values of N, at least 2.
        shares: values of b / sqrt(2 ln N).
        rows: simulated rows a point; fewer where N is so large that they would not fit.
        seed: of the simulation.

    Returns:
        one row a point: `tokens, of_freezing, logit_std, rows, simulated, standard_error, gaussian, finite,
            exact`.
    """
    tokens, shares = list(tokens), list(shares)
    check(rows=(rows, PAIR))
    for name, values, domain in (("tokens", tokens, PAIR), ("shares", shares, Domain("a share", 0))):
        for value in values:
            check(**{name: (value, domain)})
    generator, table = torch.Generator().manual_seed(seed), []
    laws = {"gaussian": gaussian_law, "finite": finite_law, "exact": exact_entropy}
    for count in tokens:
        normal = torch.randn(max(2, min(rows, SIMULATED_LOGITS // count)), count, generator=generator)
        for share in shares:
            logit_std = share * freezing_std(count)
            simulated, error = simulated_entropy(normal, logit_std)
            predicted = {name: law(count, logit_std) for name, law in laws.items()}
            point = {"tokens": count, "of_freezing": share, "logit_std": logit_std, "rows": len(normal)}
            table.append(point | {"simulated": simulated, "standard_error": error} | predicted)
    return pd.DataFrame(table)


def gaussian_error_map(
    tokens: Sequence[float], logit_std: Sequence[float]
) -> Float[np.ndarray, "tokens logit_std"]:
    """Error of Eq. 5 in nats, Gaussian minus exact entropy, over a grid."""
    count = as_array("tokens", np.asarray(tokens))[:, None]
    spread = as_array("logit_std", np.asarray(logit_std))[None]
    return gaussian_law(count, spread) - exact_entropy(count, spread)


def validity_limit(tokens: float, tolerance: float) -> float:
    """The largest b up to which Eq. 5 is within `tolerance` nats of the exact entropy, to 0.01.

    Example:
        >>> 1.5 < validity_limit(4096, 0.05) < 2.5
        True
    """
    check(tolerance=(tolerance, Domain("an error in nats", 0, most=10, above=True)))
    beyond = (k for k in itertools.count(1) if abs(gaussian_error_map([tokens], [k / 100])[0, 0]) > tolerance)
    return (next(beyond) - 1) / 100


def validity_limits(tokens: Iterable[int], tolerance: float) -> pd.DataFrame:
    """`validity_limit` for each N: columns `tokens, logit_std, of_freezing`.

    Example:
        >>> validity_limits([4096], 0.05).of_freezing.between(0.3, 0.7).all()
        np.True_
    """
    limits = [(each, validity_limit(each, tolerance)) for each in tokens]
    table = pd.DataFrame(limits, columns=["tokens", "logit_std"])
    return table.assign(of_freezing=table.logit_std / freezing_std(table.tokens))


def shipped_layers(model: str = "mini") -> pd.DataFrame:
    """Tokens and logit_std of each self-attention layer at native size, measured after the training.

    Returns:
        columns `layer, tokens, entropy, logit_std, of_freezing, beyond_freezing`.
    """
    reports = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in DATA.glob("*/quality.json")
    }
    known = {name: report["attention"] for name, report in reports.items() if "attention" in report}
    if model not in known:
        raise UnknownNameError("model", model, known)
    return pd.DataFrame(known[model])
