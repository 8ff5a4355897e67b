"""Half precision: products, where the processor computes them, for the trainings; and weights, as they are
shipped.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from entropy_lib.files import replacing

HALVES = torch.cpu._is_avx512_bf16_supported()  # bfloat16 instructions; other processors emulate it and lose


def mixed() -> torch.autocast:
    """bfloat16 autocast where it nearly doubles the speed; parameters, optimiser states and losses stay in
    float32.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=HALVES)


def save_halves(model: torch.nn.Module, path: Path) -> None:
    """Write a model's weights as safetensors, in half precision what is a number with a fraction."""
    states = model.state_dict().items()
    halves = {
        name: value.half().contiguous() if value.is_floating_point() else value for name, value in states
    }
    with replacing(path) as temporary:
        save_file(halves, temporary)
