"""What one configuration costs: seconds, memory and the share of attention, each measured in a fresh process.

Nothing that ran before is in the numbers then. Processes are forked from one that has the libraries loaded
(Python's forkserver), which takes longer than most measurements.
"""

import ctypes
import gc
import math
import os
import re
import statistics
import sys
import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from diffusers import DiffusionPipeline
from torch import nn
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from entropy_lib.errors import InvalidInputError, MeasurementFailedError, UnknownNameError
from entropy_lib.models.catalogue import load
from entropy_lib.models.layers import denoiser, pixels_per_latent
from entropy_lib.models.networks import family
from entropy_lib.sampling.generation import generate
from entropy_lib.sampling.methods import method
from entropy_lib.scaling.patch import scaled
from entropy_lib.sizes import Size, SizeLike

PARTS = ("image", "denoiser")
TEXT_TOKENS = 77  # of a prompt as CLIP reads it, for networks that keep text apart
REPEATS, PROCESSES = 5, 3  # timed runs in the first process; processes whose least peak counts, on a CPU
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
MEGABYTE = 2**20
KERNEL = re.compile(r"aten::_scaled_dot_product_(?:attention_(?=math))?(math|\w+attention)")


@dataclass(frozen=True)
class Configuration:
    """One thing to measure: one model, one method, one size."""

    model: str  # as for `load`
    size: SizeLike  # "64x96", or (height, width) in pixels
    method: str = "unscaled"  # by which images are generated, as for `generate`
    # "image": from prompt to pixels; "denoiser": one call of the network, at one noise level, no guidance
    part: str = "image"
    images: int = 1  # generated together, or the batch of the call
    steps: int | None = None  # of the sampler; the model's own where None
    guidance: float | None = None  # likewise
    dtype: str = "auto"  # as for `load`
    device: str = "auto"  # likewise
    random_weights: bool = False  # the exact architecture untrained; time and memory do not depend on weights

    def __post_init__(self) -> None:
        chosen = method(self.method)
        object.__setattr__(self, "size", Size.of(self.size))
        object.__setattr__(self, "method", chosen.name)
        if self.part not in PARTS:
            raise UnknownNameError("part", self.part, PARTS)
        if self.part == "denoiser" and not chosen.direct:
            raise InvalidInputError(
                f"method is {chosen.name!r}, which is no way to call the denoiser once; measure part='image'"
            )
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise InvalidInputError(f"images is {self.images!r}; it must be a whole number, 1 or more")


def measure(configuration: Configuration, repeats: int = REPEATS, processes: int = PROCESSES) -> dict:
    """What one configuration costs.

    Args:
        configuration: see there.
        repeats: timed runs, 5 or more; two others come before.
        processes: on a CPU the allocator adds to a process's peak at random, so the least of so many counts.
            One on a GPU.

    Returns:
        what was asked for; `seconds`, the median of `repeats` runs, with `fastest` and `slowest`; `megabytes`
        at the peak, on CUDA as allocated on the device with `reserved` beside, on a CPU of the whole process;
        `above`, how much of them the work itself took; `attention`, the share of self-attention's
        softmax(QKᵀ)V in the time of the denoiser; the kernel that torch chose, the device, and how it was
        measured.

    Raises:
        InvalidInputError: for fewer than 5 repeats or no process.
        MeasurementFailedError: where the process fails, with what it said; where it was killed, most likely
            for its memory.

    Example:
        >>> measure(Configuration("mini", "32x32", part="denoiser"), processes=1)["seconds"] > 0
        True
    """
    if repeats < 5 or processes < 1:
        raise InvalidInputError(
            f"repeats is {repeats} and processes {processes}; a median needs 5 runs, and a peak one process"
        )
    first = in_fresh_process(configuration, repeats)
    again = 0 if not math.isnan(first["reserved"]) else processes - 1
    peaks = [first, *(in_fresh_process(configuration, 0) for _ in range(again))]
    least, c, runs = min(peaks, key=lambda one: one["allocated"]), configuration, first["seconds"]
    return {
        "model": c.model, "size": str(c.size), "method": c.method, "part": c.part, "images": c.images,
        "seconds": statistics.median(runs), "fastest": min(runs), "slowest": max(runs),
        "megabytes": least["allocated"], "reserved": least["reserved"],
        "above": min(one["allocated"] - one["before"] for one in peaks),
        "attention": first["attention"], "backend": " and ".join(first["backends"]) or "none",
        "device": first["device"], "threads": torch.get_num_threads(), "repeats": repeats,
    }  # fmt: skip


def measure_all(
    configurations: Sequence[Configuration],
    repeats: int = REPEATS,
    processes: int = PROCESSES,
    progress: bool = True,
) -> pd.DataFrame:
    """`measure` for each, one after the other, one row each."""
    bar = tqdm(configurations, disable=not progress, desc="measuring")
    return pd.DataFrame([measure(each, repeats, processes) for each in bar])


def in_fresh_process(configuration: Configuration, repeats: int) -> dict:
    if not hasattr(os, "fork"):
        raise MeasurementFailedError(
            "costs are measured in copies of a process, which this system has not; use Linux or macOS"
        )
    # which IPython's %reset takes away, and a new process asks for
    vars(sys.modules["__main__"]).setdefault("__spec__", None)
    context = get_context("forkserver")
    context.set_forkserver_preload(["entropy_lib.sampling.costs"])
    c = configuration
    failed = f"{c.model}, {c.method}, {c.size}, {c.part} could not be measured: "
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(cost, c, repeats, torch.get_num_threads()).result()
    except BrokenProcessPool:
        hint = "it was killed, most likely for want of memory; take a smaller size or fewer images"
        raise MeasurementFailedError(failed + hint) from None
    except Exception as error:  # whatever it is, it is said
        raise MeasurementFailedError(f"{failed}{type(error).__name__}: {error}") from None


def cost(c: Configuration, repeats: int, threads: int) -> dict:
    """Warm up twice, the second time for the memory; then time it; then look at attention, if it is one call.

    To be called in a process of its own.
    """
    # progress bars, and what the profiler says of devices that are not there
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(threads)
    pipe = load(c.model, device=c.device, dtype=c.dtype, random_weights=c.random_weights)
    work, device = _work(c, pipe), denoiser(pipe).device
    work()
    facts = peak_memory(work, device)
    facts["seconds"] = (
        timeit.repeat(lambda: (work(), synchronise(device)), number=1, repeat=repeats) if repeats else []
    )
    share, facts["backends"] = attention_share(work, device) if repeats else (math.nan, [])
    facts["attention"] = share if c.part == "denoiser" else math.nan
    return facts | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}


def _work(c: Configuration, pipe: DiffusionPipeline) -> Callable[[], object]:
    if c.part == "image":
        asked = ["a penguin on a blue background"] * c.images, range(c.images), c.size, c.method
        options = {"steps": c.steps, "guidance": c.guidance, "batch": c.images}
        return lambda: generate(pipe, *asked, **options)
    network = denoiser(pipe)
    inputs = inputs_of(network, *(side // pixels_per_latent(pipe) for side in c.size))
    inputs = {key: _as_given(value, c.images, network) for key, value in inputs.items()}

    def call() -> None:
        with torch.no_grad(), scaled(pipe, c.method):
            network(**inputs)

    return call


def inputs_of(network: nn.Module, height: int, width: int) -> dict[str, object]:
    """Inputs of one call, with as much text as a prompt has: shapes are all that counts."""
    known = family(network)
    inputs = known.inputs(dict(network.config), height, width, known.text_tokens)
    if not known.text_tokens and "encoder_hidden_states" in inputs:
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].expand(-1, TEXT_TOKENS, -1)
    return inputs


def _as_given(value: object, images: int, network: nn.Module) -> object:
    """An input as a pipeline would give it for a batch: on the network's device, noise in place of zeros."""
    if isinstance(value, dict):
        return {key: _as_given(each, images, network) for key, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if value.dim() < 2 or not value.is_floating_point():
        return value.to(network.device)
    batch = value.expand(images, *value.shape[1:]) if value.shape[0] == 1 else value
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    return (noise if value.shape[0] == 1 else value).to(network.device, network.dtype)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Megabytes at the peak of a piece of work.

    Returns:
        on CUDA `allocated` and `reserved`, of the device, weights included; elsewhere `allocated`, of the
        process, `reserved` NaN; and `before`, what was taken before the work, in the same unit.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        found = {"allocated": peaks[0], "reserved": peaks[1], "before": before}
        return {name: count / MEGABYTE for name, count in found.items()}
    if CLEAR.exists():  # give back what is free, and let the process's peak begin anew
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")
    before = _resident("VmRSS")
    work()
    return {"allocated": _resident("VmHWM"), "reserved": math.nan, "before": before}


def _resident(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most; without /proc its peak so far.

    The system's own count of the peak (`getrusage`) is no use on Linux: a process begins with its parent's.
    """
    if STATUS.exists():
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def attention_share(work: Callable[[], object], device: torch.device) -> tuple[float, list[str]]:
    """The share of self-attention's softmax(QKᵀ)V in some work, and the kernels that torch chose.

    Text has another length, so attention of as many keys as queries is self-attention. Projections are not in
    it.
    """
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, record_shapes=True) as profiled:
        work()
        synchronise(device)
    events = profiled.events()
    whole = sum(event.self_device_time_total if cuda else event.self_cpu_time_total for event in events)
    every = [event for event in events if event.name == "aten::scaled_dot_product_attention"]
    calls = [call for call in every if call.input_shapes[0][-2] == call.input_shapes[1][-2]]
    attention = sum(event.device_time_total if cuda else event.cpu_time_total for event in calls)
    kernels = (KERNEL.match(child.name) for call in calls for child in call.cpu_children)
    return attention / whole, sorted({found[1] for found in kernels if found})
