"""Clocks and gauges that mean the same on CPU and CUDA: work that was queued is waited for, and peaks are of the work alone."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
MEGABYTE = 2**20


def synchronise(device: torch.device) -> None:
    """Wait for what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long a piece of work takes, from nothing queued to nothing queued."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def peak_memory(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Megabytes at the peak of a piece of work.

    Returns:
        on CUDA `allocated` and `reserved`, of the device, weights included; elsewhere `allocated`, of the process, `reserved` NaN;
        and `before`, what was taken before the work, in the same unit.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"allocated": peaks[0] / MEGABYTE, "reserved": peaks[1] / MEGABYTE, "before": before / MEGABYTE}
    before = _forget_peak()
    work()
    return {"allocated": _resident("VmHWM"), "reserved": float("nan"), "before": before}


def _forget_peak() -> float:
    """Give back what is free and let the process's peak begin anew, where the system can; megabytes taken now."""
    if not CLEAR.exists():
        return _resident("VmRSS")
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> float:
    """Megabytes of this process in memory: VmRSS now, VmHWM at most. Where the system does not say, its peak so far."""
    if STATUS.exists():
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


KERNEL = functional.scaled_dot_product_attention  # itself: while a patched network runs, another function stands in its place


class AttentionTimer(TorchFunctionMode):
    """Adds up, inside a `with` block, the time of attention among tokens of one kind: softmax(QKᵀ)V, without projections.

    Each call is waited for, which takes time of its own: what is timed inside is compared with a whole that is timed alike.

    Attributes:
        seconds: in all so far.
        calls: how many.
        backends: names of the kernels that torch chose, in order of appearance.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.seconds, self.calls, self.backends = device, 0.0, 0, []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not KERNEL or not _of_one_kind(*args, **kwargs):
            return function(*args, **kwargs)
        self._note_backend(*args, **kwargs)
        found = []
        self.seconds += seconds(lambda: found.append(function(*args, **kwargs)), self.device)
        self.calls += 1
        return found[0]

    def _note_backend(self, query: Tensor, key: Tensor, value: Tensor, *args: object, **kwargs: object) -> None:
        name = SDPBackend(torch._fused_sdp_choice(query, key, value)).name.lower()
        if name not in self.backends:
            self.backends.append(name)


def _of_one_kind(query: Tensor, key: Tensor, *_: object, **__: object) -> bool:
    """Whether as many keys as queries: text is of another length."""
    return query.shape[-2] == key.shape[-2]
