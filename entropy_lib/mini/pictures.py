"""Scenes drawn at native size for training, once, and kept on disk."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from entropy_lib.files import ROOT, replacing
from entropy_lib.mini import scenes

RUNS = ROOT / "build" / "mini"
TRAIN_COUNT = 40_000


def drawn(count: int, split: str = "train", folder: Path = RUNS, world: scenes.World = scenes.FULL) -> np.ndarray:
    """The first `count` scenes of a split, uint8 `[count, 64, 64, 3]`, memory-mapped; drawn on the first call."""
    path = folder / f"pictures_{world.name}_{split}_{count}.npy"
    if not path.exists():
        with replacing(path) as temporary:
            table = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, scenes.SIZE, scenes.SIZE, 3))
            for number in tqdm(range(count), desc=f"drawing {split} scenes", mininterval=10):
                table[number] = scenes.draw(scenes.scene(number, split, world), scenes.SIZE, scenes.SIZE)
            table.flush()
    return np.load(path, mmap_mode="r")


def pixels(pictures: np.ndarray) -> Float[Tensor, "n 3 height width"]:
    """uint8 `[n, height, width, 3]` as float32 in [-1, 1], channels last in memory."""
    floats = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return floats.contiguous(memory_format=torch.channels_last)
