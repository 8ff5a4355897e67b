"""Muon, the optimiser of linear and convolutional layers (Jordan et al. 2024, with the step size of Liu et
al. 2025).

torch has one, but it iterates in bfloat16 on every processor, many of which emulate it, and takes matrices
only. A convolution's kernel is taken as the matrix that it applies to each patch.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

QUICK = 3.0  # times the common rate
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration that drives all singular values towards 1


def orthogonalised(
    matrix: Float[Tensor, "rows columns"], iterations: int = 5
) -> Float[Tensor, "rows columns"]:
    """The nearest semi-orthogonal matrix, roughly: all singular values between 0.7 and 1.2.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalised(torch.randn(8, 32)))
        >>> bool((values > 0.6).all() and (values < 1.3).all())
        True
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with decoupled weight decay; for matrices and convolution kernels.

    Args:
        parameters: of two dimensions or more; a kernel `[out, in, height, width]` counts as a matrix `[out,
        in * height * width]`.
        lr: comparable to AdamW's, as each update is scaled to the same root mean square.
        momentum, weight_decay: as usual.

    Raises:
        ValueError: when a parameter has fewer than two dimensions.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        parameters = list(parameters)
        if any(parameter.ndim < 2 for parameter in parameters):
            raise ValueError("Muon takes matrices and kernels only; give the other parameters to AdamW")
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, **{key: group[key] for key in ("lr", "momentum", "weight_decay")})

    def _update(self, parameter: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        matrix = torch.lerp(parameter.grad, state["momentum"], momentum).flatten(1)  # Nesterov
        direction = orthogonalised(matrix).view(parameter.shape)
        scale = 0.2 * max(matrix.shape) ** 0.5  # the usual root mean square of an AdamW update
        parameter.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr * scale)


def muon_and_adamw(
    model: torch.nn.Module,
    lr: float,
    weight_decay: float,
    convolutions: bool = False,
    quick: Sequence[str] = (),
) -> dict[str, torch.optim.Optimizer]:
    """Muon for the matrices of the linear layers, AdamW for everything else: embeddings, norms, biases, first
    and last layers.

    Args:
        model: whose parameters are trained.
        lr, weight_decay: common to both.
        convolutions: whether Muon takes the kernels of the inner convolutions too.
        quick: parts of names of what AdamW is to train three times as fast, without decay.
    """
    named = dict(model.named_parameters())
    hurried = [name for name in named if any(part in name for part in quick)]
    outer = (
        "embedding",
        "conv_in",
        "conv_out",
        "quant_conv",
        "img_in",
        "txt_in",
        "time_in",
        "modulation",
        "final_layer",
    )
    chosen = [
        name
        for name, parameter in named.items()
        if (parameter.ndim == 2 or (convolutions and parameter.ndim == 4))
        and not any(part in name for part in (*outer, *quick))
    ]
    others = [parameter for name, parameter in named.items() if name not in (*chosen, *hurried)]
    groups = [
        {"params": others},
        {"params": [named[name] for name in hurried], "lr": QUICK * lr, "weight_decay": 0.0},
    ]
    return {
        "muon": Muon([named[name] for name in chosen], lr=lr, weight_decay=weight_decay),
        "adamw": torch.optim.AdamW(
            groups if hurried else others, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        ),
    }
