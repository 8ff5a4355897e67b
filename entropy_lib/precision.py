"""float32 arithmetic as it is, for as long as a measurement takes, whatever its caller allows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# torch 2.9 has renamed the setting, and reading the old name after the new one was set makes torch raise.
SETTING, EXACT = (
    ("fp32_precision", "ieee")
    if hasattr(torch.backends.cuda.matmul, "fp32_precision")
    else ("allow_tf32", False)
)
ROUNDS = (True, "tf32", "bf16")  # settings that let products lose digits


@contextmanager
def full_precision(device: torch.device | None = None) -> Iterator[None]:
    """Keep autocast, TF32, bfloat16 and another default dtype out for as long as the block runs.

    Args:
        device: where the products are computed; None for wherever that may be.
    """
    kinds = ("cpu", "cuda") if device is None else (device.type,)
    backends = [backend for kind in kinds for backend in _backends(kind)]
    rounding = [(each, before) for each in backends if (before := getattr(each, SETTING)) in ROUNDS]
    autocast = [
        kind for kind in kinds if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    ]
    if not rounding and not autocast and torch.get_default_dtype() == torch.float32:
        yield  # nothing to change: probes ask for every layer of every step
        return
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        for kind in autocast:
            stack.enter_context(torch.autocast(kind, enabled=False))
        for backend, before in rounding:
            stack.callback(_put_back, backend, before)
            setattr(backend, SETTING, EXACT)
        yield


def _backends(kind: str) -> tuple:
    """What multiplies on a kind of device and has a setting of its own."""
    cuda, cudnn, onednn = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn
    if SETTING == "allow_tf32":
        return (cuda, cudnn) if kind == "cuda" else ()
    return {"cuda": (cuda, cudnn.conv, cudnn.rnn), "cpu": (onednn.matmul, onednn.conv, onednn.rnn)}.get(
        kind, ()
    )


def _put_back(backend: object, before: str | bool) -> None:
    """Inherited from the setting for all backends again, where that gives the same."""
    if SETTING == "fp32_precision":
        setattr(backend, SETTING, "none")
    if getattr(backend, SETTING) != before:
        setattr(backend, SETTING, before)
