"""A model as its configuration files tell it: layers and sizes, of which nothing needs the weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from safetensors import safe_open
from torch import nn

from entropy_lib.errors import UnsupportedModelError, WeightsError
from entropy_lib.models.architectures import ARCHITECTURES
from entropy_lib.models.catalogue import CATALOGUE, local_folder, model_folders, on_hub
from entropy_lib.models.hub import hub_answers
from entropy_lib.models.layers import native_latent_size, note_native_size, query_product, training_tokens

DENOISERS, DECODERS = ("unet", "transformer"), ("vae", "vqvae", "movq")


def outline(model: str) -> nn.Module:
    """The denoising network of a model, configured as it is, on the meta device: without weights.

    Raises:
        UnknownNameError: for an unknown model.
        UnsupportedModelError: when it has no denoiser that diffusers knows.
        WeightsError: when its configuration is not there.
    """
    if model in ARCHITECTURES:
        network = ARCHITECTURES[model].denoiser.build(tiny=False, device="meta")
    else:
        name, kind = _part(model, DENOISERS)
        with torch.device("meta"):
            network = kind.from_config(_config(model, f"{name}/config.json"))
    if model in CATALOGUE:  # a network may not say it, as PRX's, whose pipeline does
        pixels = _enlarging(model)
        note_native_size(network, tuple(side // pixels for side in CATALOGUE[model].native_size))
    return network


def outline_size(model: str) -> tuple[int, int]:
    """Height and width in pixels that a model was trained on.

    Raises:
        UnsupportedModelError: when the model does not say by how much its decoder enlarges.
        UnknownNameError, WeightsError: as `outline`.
    """
    if model in CATALOGUE:
        return CATALOGUE[model].native_size
    height, width = native_latent_size(outline(model))
    factor = _enlarging(model)
    return height * factor, width * factor


def _enlarging(model: str) -> int:
    """Pixels for each latent pixel, along a side; 1 for a pipeline without a decoder."""
    if model in ARCHITECTURES:
        return ARCHITECTURES[model].pixels
    if not any(name in _config(model, "model_index.json") for name in DECODERS):
        return 1
    name, kind = _part(model, DECODERS)
    blocks = _config(model, f"{name}/config.json").get("block_out_channels")
    if not blocks:
        raise UnsupportedModelError(
            f"{model!r} has a {kind.__name__}, which does not say by how much it enlarges; give `latent_size`"
        )
    return 2 ** (len(blocks) - 1)


def outline_levels(model: str) -> dict[str, int]:
    """{layer: T} of a model's self-attention; of the catalogue's models the levels alone, by number."""
    if model in CATALOGUE:
        return {str(level): tokens for level, tokens in enumerate(CATALOGUE[model].training_tokens)}
    return training_tokens(outline(model))


def stored_lengths(model: str, layers: Iterable[str]) -> dict[str, float] | None:
    """Length of what each layer's query comes from, read from safetensors; None without any."""
    folder, found, modules = _folder_of_weights(model), {}, dict(outline(model).named_modules())
    there = {layer: modules[layer] for layer in layers if layer in modules}
    keys = {f"{layer}.{query_product(module)}.weight": layer for layer, module in there.items()}
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        with safe_open(path, "pt") as file:
            names = keys.keys() & set(file.keys())
            found |= {keys[name]: float(file.get_tensor(name).double().norm()) for name in names}
    return found or None


def _folder_of_weights(model: str) -> Path | None:
    """Of the denoiser, where it is on this machine."""
    folder = local_folder(model)
    if folder is not None:
        return next((folder / name for name in DENOISERS if (folder / name).is_dir()), None)
    source, revision = on_hub(model)
    for name in DENOISERS if "/" in source else ():
        cached = try_to_load_from_cache(source, f"{name}/config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _part(model: str, names: Iterable[str]) -> tuple[str, Any]:
    """Name and class of the first of these components that a pipeline has."""
    index = _config(model, "model_index.json")
    for name in names:
        library, kind = index.get(name) or (None, None)
        if library == "diffusers" and hasattr(diffusers, kind):
            return name, getattr(diffusers, kind)
    raise UnsupportedModelError(
        f"{model!r} has no {' or '.join(names)} that diffusers knows; it has {', '.join(index)}"
    )


def _config(model: str, name: str) -> dict[str, Any]:
    """What a file of a model says: `model_index.json`, or `config.json` of a part."""
    folder = local_folder(model)
    try:
        if folder is None:
            path = Path(hf_hub_download(model, name, local_files_only=not hub_answers()))
        else:  # of a control its own, where it has one
            paths = [each / name for each in model_folders(model, folder)]
            path = next((path for path in reversed(paths) if path.is_file()), paths[0])
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{name} of {model!r} cannot be read: {error}; restore it, or `hf download {model}`"
        ) from error
