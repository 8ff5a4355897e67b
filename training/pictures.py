"""Scenes drawn at native size for training, once, and kept on disk."""

from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from entropy_lib.files import ROOT, replacing
from entropy_lib.scenes import scenes

RUNS = ROOT / "build" / "mini"
TRAIN_COUNT = 40_000


def drawn(
    count: int, split: str = "train", folder: Path = RUNS, world: scenes.World = scenes.FULL
) -> np.ndarray:
    """The first `count` scenes of a split, uint8 `[count, 64, 64, 3]`, memory-mapped; drawn on the first
    call.
    """
    path = folder / f"pictures_{world.name}_{split}_{count}.npy"
    if not path.exists():
        with replacing(path) as temporary:
            table = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, scenes.SIZE, scenes.SIZE, 3))
            for number in tqdm(range(count), desc=f"drawing {split} scenes", mininterval=10):
                table[number] = scenes.draw(scenes.scene(number, split, world), scenes.SIZE, scenes.SIZE)
            table.flush()
    return np.load(path, mmap_mode="r")
