"""Seconds and memory, each configuration in a fresh process, so that nothing that ran before is in its numbers."""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from subprocess import DEVNULL, PIPE

import pandas as pd
import torch
from tqdm.auto import tqdm

from entropy_lib.costs.configuration import Configuration
from entropy_lib.errors import InvalidInputError, MeasurementFailedError

REPEATS, PROCESSES = 5, 3  # timed runs in the first process; processes whose least peak counts, on a CPU
COLUMNS = [
    "model", "size", "method", "part", "images", "seconds", "fastest", "slowest", "megabytes", "reserved", "above", "attention",
    "backend", "device", "threads", "repeats",
]  # fmt: skip


class Elsewhere:
    """A process that has the libraries loaded and measures every configuration in a fresh copy of itself; a context manager.

    Raises:
        MeasurementFailedError: where there are no such copies (Windows).
    """

    def __enter__(self) -> "Elsewhere":
        if not hasattr(os, "fork"):
            raise MeasurementFailedError("costs are measured in copies of a process, which this system has not; use Linux or macOS")
        command = [sys.executable, "-m", "entropy_lib.costs.process"]
        self._process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def cost(self, configuration: Configuration, repeats: int) -> dict:
        """What `process.cost` finds.

        Raises:
            MeasurementFailedError: with what it said, or that it was killed.
        """
        asked = {"configuration": asdict(configuration), "repeats": repeats, "threads": torch.get_num_threads()}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        found = json.loads(answer or '{"killed": 0}')
        if "killed" in found:
            found["error"] = "it was killed, most likely for want of memory; take a smaller size or fewer images"
        if "error" in found:
            raise MeasurementFailedError(f"{configuration.label} could not be measured: {found['error']}")
        return found


def measure(
    configuration: Configuration, repeats: int = REPEATS, processes: int = PROCESSES, elsewhere: Elsewhere | None = None
) -> dict:
    """What one configuration costs.

    Args:
        configuration: see there.
        repeats: timed runs, 5 or more; two others come before.
        processes: on a CPU the allocator adds to a process's peak at random, so the least of so many counts. One on a GPU.
        elsewhere: where to measure, to load the libraries once for many; a new one by default.

    Returns:
        `COLUMNS`: `seconds`, the median of `repeats` runs, with `fastest` and `slowest`; `megabytes` at the peak, on CUDA as
        allocated on the device with `reserved` beside, on a CPU of the whole process; `above`, how much of them the work itself
        took; `attention`, the share of self-attention's softmax(QKᵀ)V in the time of the denoiser; the kernel that torch chose,
        the device, and how it was measured.

    Raises:
        InvalidInputError: for fewer than 5 repeats or no process.
        MeasurementFailedError: where the process fails, with what it said; where it was killed, most likely for its memory.

    Example:
        >>> measure(Configuration("mini", 32, 32, part="denoiser"), processes=1)["seconds"] > 0
        True
    """
    if repeats < 5 or processes < 1:
        raise InvalidInputError(f"repeats is {repeats} and processes {processes}; a median needs 5 runs, and a peak one process")
    with nullcontext(elsewhere) if elsewhere is not None else Elsewhere() as place:
        first = place.cost(configuration, repeats)
        again = 0 if not math.isnan(first["reserved"]) else processes - 1
        peaks = [first, *(place.cost(configuration, 0) for _ in range(again))]
    least = min(peaks, key=lambda one: one["allocated"])
    c, runs = configuration, first["seconds"]
    return {
        "model": c.model, "size": c.size, "method": c.method, "part": c.part, "images": c.images,
        "seconds": statistics.median(runs), "fastest": min(runs), "slowest": max(runs),
        "megabytes": least["allocated"], "reserved": least["reserved"],
        "above": min(one["allocated"] - one["before"] for one in peaks),
        "attention": first["attention"], "backend": " and ".join(first["backends"]) or "none", "device": first["device"],
        "threads": first["threads"], "repeats": repeats,
    }  # fmt: skip


def measure_all(
    configurations: Sequence[Configuration], repeats: int = REPEATS, processes: int = PROCESSES, progress: bool = True
) -> pd.DataFrame:
    """`measure` for each, one after the other, one row each.

    Raises:
        InvalidInputError, MeasurementFailedError: as `measure`.
    """
    bar = tqdm(configurations, disable=not progress, desc="measuring")
    with Elsewhere() as place:
        return pd.DataFrame([measure(each, repeats, processes, place) for each in bar], columns=COLUMNS)
