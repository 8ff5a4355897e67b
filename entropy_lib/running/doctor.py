"""What `python -m entropy_lib doctor` prints: what this machine can run, model by model and profile by profile, and why not."""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

import psutil
import torch
from huggingface_hub import try_to_load_from_cache

from entropy_lib import __version__
from entropy_lib.errors import EntropyLibError, WeightsError
from entropy_lib.files import PACKAGE, workplace
from entropy_lib.models.catalogue import CATALOGUE, Entry, check_folder, local_folder
from entropy_lib.running.parameters import NOTEBOOKS, Sweep, drawn_images
from entropy_lib.running.profiles import available, profile_parameters
from entropy_lib.sizes import parse_size
from entropy_lib.sweep.engines import PNG_BYTES

PACKAGES = ("torch", "diffusers", "transformers")
OPTIONAL = ("open_clip", "papermill", "jupyterlab", "xformers", "peft", "accelerate", "ray")
SLOW_ON_CPU = 100  # million parameters of a denoiser beyond which a CPU takes seconds a step


@dataclass(frozen=True)
class Verdict:
    """Whether something can run here, and why or why not."""

    name: str
    runs: bool
    reason: str


def machine() -> list[tuple[str, str]]:
    """Facts about this machine: (what, value)."""
    extra = [name for name in OPTIONAL if importlib.util.find_spec(name)]
    return [
        ("entropy_lib", f"{__version__} ({PACKAGE})"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("packages", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)),
        ("optional", ", ".join(extra) or "none"),
        ("CUDA device", _cuda()),
        ("threads", str(torch.get_num_threads())),
        ("memory", f"{psutil.virtual_memory().available / 1e9:.0f} GB free"),
        ("free disk", f"{free_disk_gb():.0f} GB"),
    ]


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none; models run on the CPU, in float32"
    half = "float16, bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return f"{torch.cuda.get_device_name()}, {device_memory_gb():.0f} GB, {half}"


def device_memory_gb() -> float:
    """Memory of the first CUDA device, or what is free of the machine's own."""
    on_cuda = torch.cuda.is_available()
    return (torch.cuda.get_device_properties(0).total_memory if on_cuda else psutil.virtual_memory().available) / 1e9


def free_disk_gb() -> float:
    """Free space where output goes."""
    return shutil.disk_usage(workplace()).free / 1e9


def model_verdict(name: str) -> Verdict:
    """Whether a model of the catalogue can be sampled here: its weights and the memory that they need."""
    entry = CATALOGUE[name]
    weights, present = _weights(name, entry)
    needed = entry.memory_gb(None if torch.cuda.is_available() else "float32")
    if not present:
        return Verdict(name, False, weights)
    if needed > device_memory_gb():
        return Verdict(name, False, f"needs about {needed:.0f} GB of memory, {device_memory_gb():.0f} GB are there")
    slow = not torch.cuda.is_available() and entry.parameters > SLOW_ON_CPU
    return Verdict(name, True, weights + ("; slow without a CUDA device" if slow else ""))


def _weights(name: str, entry: Entry) -> tuple[str, bool]:
    folder = local_folder(name)
    if folder is not None:
        try:
            check_folder(name, folder)
        except WeightsError as error:
            return str(error), False
        return f"weights in data/{folder.name}, checksums right", True
    if isinstance(try_to_load_from_cache(entry.source, "model_index.json", revision=entry.revision), str):
        return "weights in the local cache of the Hub", True
    size, free = _weights_gb(entry), free_disk_gb()
    room = "" if size < free else f" (no room: {free:.0f} GB free)"
    pinned = f" --revision {entry.revision}" if entry.revision else ""
    return f"not downloaded: `hf download {entry.source}{pinned}`, {size:.1f} GB or more{room}", False


def _weights_gb(entry: Entry) -> float:
    """Of the files: in the precision that they are used in."""
    return entry.weights_gb * (1 if entry.dtype != "float32" else 2)


def profile_verdict(profile: str) -> Verdict:
    """Whether a profile can be run here, what its notebooks draw, and what that takes.

    Hours are not given: they depend on the device, and `sweep plan` measures them.
    """
    checked = [profile_parameters(notebook, profile) for notebook in NOTEBOOKS]
    images = sum(map(drawn_images, checked))
    tables = next(one for one in checked if isinstance(one, Sweep))
    if tables.model not in CATALOGUE:
        return Verdict(profile, True, f"{tables.model}, {images:,} images; what a model outside the catalogue needs is not known")
    known, verdict = CATALOGUE[tables.model], model_verdict(tables.model)
    memory = known.memory_gb(None if torch.cuda.is_available() else "float32")
    disk = _weights_gb(known) + _store_gb(tables)
    needs = f"{tables.model}, {images:,} images, about {memory:.0f} GB of memory, {disk:.1f} GB of disk"
    if not verdict.runs:
        return Verdict(profile, False, f"{needs}; the model cannot run here")
    missing = "*" in tables.reference and not any(workplace().glob(tables.reference))
    return Verdict(profile, not missing, needs + (f"; {tables.reference} is not there (docs/batch.md)" if missing else ""))


def _store_gb(p: Sweep) -> float:
    """What the images of notebook 06 take, as PNG of photographs."""
    pixels = sum(height * width for height, width in map(parse_size, p.sizes))
    return p.prompt_count * p.seeds_per_prompt * len(p.rules) * pixels * PNG_BYTES / 1e9


def report() -> dict[str, list[Verdict]]:
    """The verdicts on all models and profiles; a profile that cannot be read is a no with its reason."""
    return {"model": [model_verdict(name) for name in CATALOGUE], "profile": [_readable(name) for name in available()]}


def _readable(profile: str) -> Verdict:
    try:
        return profile_verdict(profile)
    except EntropyLibError as error:
        return Verdict(profile, False, f"cannot be judged: {error}")
