"""How well a linear map reads a token's place from a network's last features.

Convolutions that pad with zeros tell borders from the inside, and that is all the positional information that
a UNet like Stable Diffusion's has. At another size the borders are farther away. A network that pads in
circles should know nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.models.layers import denoiser
from entropy_lib.sampling.generation import images_of
from entropy_lib.sampling.request import check_requests
from entropy_lib.sizes import SizeLike

RIDGE = 1e-6  # of the features' own mean square: keeps constant channels harmless
LAST = "conv_norm_out"  # the layer of a UNet of diffusers that reads its last features

Gram = Float[Tensor, "column column"]  # AᵀA; a row of A is a token: its features, 1, and its place


def position_error(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Sequence[SizeLike],
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> pd.DataFrame:
    """Mean squared error, in squared sides, of rows and columns read from the last features linearly.

    For each size and prompt the map is fitted on all other prompts' features at that size, all steps and
    branches together, so nothing is read that was fitted. A map of noise has an error of `chance`, 1/12 where
    there are many tokens.

    Args:
        pipe: a text-to-image pipeline around a UNet of diffusers.
        prompts, seeds: of equal length, two at least.
        sizes: each "64x96", or (height, width) in pixels.
        steps, guidance: as for `generate`.

    Returns:
        One row a size and prompt: `size, prompt, error, chance`.

    Raises:
        UnsupportedModelError: for a network without a layer `conv_norm_out`.
        InvalidInputError: for fewer than two prompts, and as `generate`.

    Example:
        >>> import entropy_lib as el
        >>> table = position_error(el.load("mini"), ["an owl", "a bus"], [0, 1], ["32x32"], steps=2)
        >>> list(table.columns), len(table)
        (['size', 'prompt', 'error', 'chance'], 2)
    """
    requests, rows = check_requests(pipe, prompts, seeds, sizes, steps=steps, guidance=guidance, batch=1), []
    if len(prompts) < 2:
        raise InvalidInputError(
            f"prompts holds {len(prompts)}; the map is tried on other prompts than it is fitted on: give at "
            "least 2"
        )
    for asked in requests:
        with last_features(denoiser(pipe)) as features:
            images_of(pipe, replace(asked, batch=len(prompts)), None)
        # branches of guidance come whole
        by_prompt = torch.cat([calls.unflatten(0, (-1, len(prompts))) for calls in features])
        every = [gram(by_prompt[:, index]) for index in range(len(prompts))]
        for own, prompt in zip(every, prompts, strict=True):
            weights = fitted(sum(other for other in every if other is not own))
            errors = {"error": unexplained(weights, own), "chance": unexplained(0 * weights, own)}
            rows.append({"size": str(asked.size), "prompt": prompt, **errors})
    return pd.DataFrame(rows)


@contextmanager
def last_features(network: nn.Module) -> Iterator[list[Float[Tensor, "image channel row column"]]]:
    """A list that is filled with what the last layer reads, call by call, while the network runs."""
    layer = getattr(network, LAST, None)
    if layer is None:
        raise UnsupportedModelError(
            f"{type(network).__name__} has no layer {LAST}; the place is read from UNets of diffusers only"
        )
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().float().cpu()))
    try:
        yield found
    finally:
        hook.remove()


def places(rows: int, columns: int) -> Float[Tensor, "row column 2"]:
    """The middle of each token, as shares of the height and the width from the centre on."""
    down, right = ((torch.arange(count) + 0.5) / count - 0.5 for count in (rows, columns))
    return torch.stack(torch.meshgrid(down, right, indexing="ij"), -1)


def gram(features: Float[Tensor, "image channel row column"]) -> Gram:
    """All that a least-squares fit needs of some features, and its error."""
    place = places(*features.shape[-2:]).movedim(-1, 0).expand(len(features), -1, -1, -1)
    tokens = torch.cat([features, torch.ones_like(features[:, :1]), place], 1).movedim(1, -1).flatten(0, 2)
    return tokens.double().T @ tokens.double()


def fitted(known: Gram) -> Float[Tensor, "feature 2"]:
    """The least-squares map from features and 1 to places."""
    squares, products = known[:-2, :-2], known[:-2, -2:]
    return torch.linalg.solve(squares + RIDGE * squares.diagonal().mean() * torch.eye(len(squares)), products)


def unexplained(weights: Float[Tensor, "feature 2"], known: Gram) -> float:
    """Mean squared error of a map on some features, a coordinate."""
    left = torch.cat([-weights, torch.eye(2)])  # places less what the map makes of features
    return float((left.T @ known @ left).trace() / known[-3, -3] / 2)
