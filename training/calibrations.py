"""Measure what calibrated rules and interventions need to know of the embedded models, into
`data/calibrations/`.

    python -m training.calibrations

Entropy against the softmax scale at native size, for the model and its controls; and at which noise level
each denoises scenes of other sizes best. Both are of the first test scenes; no image of another size is
generated.
"""

from pathlib import Path

import numpy as np

from entropy_lib.models.catalogue import load
from entropy_lib.sampling.calibration_run import calibrate
from entropy_lib.sampling.noise_level import SHIPPED as NOISE
from entropy_lib.scaling.calibration import SHIPPED
from entropy_lib.scenes import scenes
from training import noise_levels

MODELS = ("mini", "mini-weak", "mini-circular")
PROMPTS, IMAGES = 48, 64
SIZES = ((32, 32), (48, 48), (64, 96), (96, 96), (128, 64), (128, 128))


def main(models: tuple[str, ...] = MODELS) -> list[Path]:
    """Measure and write; returns the files."""
    written = []
    test_scenes = [scenes.scene(number, "test") for number in range(IMAGES)]
    captions = [one.caption for one in test_scenes]
    images = {size: np.stack([scenes.draw(one, *size) for one in test_scenes]) for size in SIZES}
    for name in models:
        pipe = load(name)
        found = calibrate(pipe, captions[:PROMPTS], range(PROMPTS))
        written.append(found.write(SHIPPED / f"{name}.json"))
        levels = noise_levels.measure(pipe, images, captions)
        written.append(noise_levels.write(levels, NOISE / f"{name}.json"))
        print(*written[-2:], flush=True)
    return written


if __name__ == "__main__":
    main()
