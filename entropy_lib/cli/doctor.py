"""`python -m entropy_lib doctor`: which models and profiles this machine can run, and why not."""

import importlib.util
import platform
import shutil
import sys
from importlib import metadata
from typing import NamedTuple

import psutil
import torch

from entropy_lib import __version__
from entropy_lib.cli.parameters import NOTEBOOKS, Sampling, image_count
from entropy_lib.cli.profiles import available, profile_parameters
from entropy_lib.errors import EntropyLibError
from entropy_lib.files import PACKAGE, workplace
from entropy_lib.models.catalogue import CACHE, CATALOGUE, download_command, local_folder, weights_are_here

PACKAGES = ("torch", "diffusers", "transformers")
OPTIONAL = ("open_clip", "papermill", "jupyterlab", "xformers", "peft", "accelerate", "ray")
SLOW_ON_CPU = 100  # million parameters of a denoiser beyond which a CPU takes seconds a step


class Verdict(NamedTuple):
    """Whether something can run here, and why or why not."""

    name: str
    runs: bool
    reason: str


def machine() -> dict[str, str]:
    """Facts about this machine."""
    device = "none; models run on the CPU, in float32"
    if torch.cuda.is_available():
        half = "float16, bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        device = f"{torch.cuda.get_device_name()}, {memory_gb():.0f} GB, {half}"
    return {
        "entropy_lib": f"{__version__} ({PACKAGE})",
        "python": f"{platform.python_version()} ({sys.executable})",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "optional": ", ".join(filter(importlib.util.find_spec, OPTIONAL)) or "none",
        "CUDA device": device,
        "threads": str(torch.get_num_threads()),
        "memory": f"{psutil.virtual_memory().available / 1e9:.0f} GB free",
        "free disk": f"{free_disk_gb():.0f} GB",
    }


def memory_gb() -> float:
    """Memory of the first CUDA device, or what is free of the machine's own."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return psutil.virtual_memory().available / 1e9


def free_disk_gb() -> float:
    """Free space where output goes."""
    return shutil.disk_usage(workplace()).free / 1e9


def model_verdict(name: str) -> Verdict:
    """Whether a model of the catalogue can run here: its weights, and the memory and disk that they need."""
    known, cuda = CATALOGUE[name], torch.cuda.is_available()
    disk = known.weights_gb * (2 if known.dtype == "float32" else 1)
    memory = known.memory_gb(None if cuda else "float32")
    needs = f"about {memory:.0f} GB of memory, {disk:.1f} GB of disk or more"
    try:
        here = weights_are_here(name)
    except EntropyLibError as error:
        return Verdict(name, False, str(error))
    if not here:
        room = "" if disk < free_disk_gb() else f" (no room: {free_disk_gb():.0f} GB free)"
        return Verdict(name, False, f"not downloaded: `{download_command(name)}`; {needs}{room}")
    if memory > memory_gb():
        return Verdict(name, False, f"needs {needs}; {memory_gb():.0f} GB are there")
    folder = "data" if known.package is None else str(CACHE)
    here = f"{folder}/{known.source}, checksums right"
    where = here if local_folder(name) else "the local cache of the Hub"
    slow = "" if cuda or known.parameters < SLOW_ON_CPU else "; slow without a CUDA device"
    return Verdict(name, True, f"weights in {where}; {needs}{slow}")


def profile_verdict(profile: str) -> Verdict:
    """Whether a profile can be run here, and how many images it has; `sweep plan` measures hours."""
    try:
        every = [profile_parameters(name, profile) for name in NOTEBOOKS]
    except EntropyLibError as error:
        return Verdict(profile, False, f"cannot be judged: {error}")
    checked = [one for one in every if isinstance(one, Sampling)]
    models = sorted({one.model for one in checked})
    bad = [f"{name} cannot run here" for name in models if name in CATALOGUE and not model_verdict(name).runs]
    patterns = sorted({path for one in checked if "*" in (path := getattr(one, "reference", ""))})
    bad += [f"{path} is not there (docs/batch.md)" for path in patterns if not any(workplace().glob(path))]
    images = f"{', '.join(models)}: {sum(map(image_count, checked)):,} images"
    return Verdict(profile, not bad, "; ".join([images, *bad]))


def report() -> dict[str, list[Verdict]]:
    """The verdicts on all models and profiles."""
    return {"model": list(map(model_verdict, CATALOGUE)), "profile": list(map(profile_verdict, available()))}
