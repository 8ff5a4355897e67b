"""Generation has a version: the same unit gives the same image until `GENERATION_VERSION` is raised.

Where `test_images_are_those_of_the_version` fails, a unit of the sweep gives another image than before. If
that is not what you meant, find out why. If it is, or if a new torch or diffusers does it:

    1. add 1 to `GENERATION_VERSION` in entropy_lib/sweep/plan.py: stores then generate anew, and mix nothing;
    2. python tests/sweep/test_generation_version.py writes tests/sweep/images/generation-<version>.png: look,
       commit it, drop the old;
    3. say in CHANGELOG.md what changed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entropy_lib.models.architectures import build
from entropy_lib.sweep import sample
from entropy_lib.sweep.plan import GENERATION_VERSION, Unit
from entropy_lib.sweep.store import Store

IMAGES = Path(__file__).parent / "images" / f"generation-{GENERATION_VERSION}.png"
TOLERANCE = 2  # grey levels: sums in floating point differ between machines
COMMON = {
    "model": "tiny",
    "revision": "0",
    "scheduler": "own",
    "steps": 3,
    "guidance": 5.0,
    "dtype": "float32",
}
UNITS = [
    Unit(prompt, seed, 32, width, method, **COMMON)
    for method, width in (("unscaled", 32), ("paper", 32), ("gamma(3)", 64))
    for prompt, seed in (("a zebra", 0), ("ein Käse", 1))
]


def tiny_pipeline(*_, **__):
    """Untrained, with attention that is alive: logits of untrained weights are so small that no rule would be
    seen.

    Weights times four, not more: from eight on the network is chaotic, and the last bits, which are another
    processor's own, become 50 grey levels. With four, instruction sets differ by one grey level and rules by
    more than 90.
    """
    pipe = build("sd21-base", tiny=True)
    with torch.no_grad():
        for name, weight in pipe.unet.named_parameters():
            if "to_q" in name or "to_k" in name or "to_v" in name:
                weight.mul_(4)
    return pipe


def generated(folder) -> np.ndarray:
    """What the sweep generates with a tiny untrained model, side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "load", tiny_pipeline)
        patch.setattr(sample, "revision", lambda _: "0")
        store = Store(folder)
        sampler = sample.Sampler("tiny", "float32", "cpu")
        for start in range(0, len(UNITS), 2):
            sampler.generate_group(UNITS[start : start + 2], store)
    return np.concatenate([store.read(unit) for unit in UNITS], axis=1)


def test_images_are_those_of_the_version(tmp_path):
    expected, found = np.asarray(Image.open(IMAGES).convert("RGB")).astype(int), generated(tmp_path)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE, f"images changed: {__doc__}"


if __name__ == "__main__":
    import tempfile

    IMAGES.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        Image.fromarray(generated(place)).save(IMAGES)
    print(IMAGES)
