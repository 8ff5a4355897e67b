"""Measure what calibrated rules and interventions need to know of the embedded models, into
`data/calibrations/`.

    python -m training.calibrations

Entropy against the softmax scale at native size, for the model and its controls; and at which noise level
each denoises scenes of other sizes best. Both are of the first test scenes; no image of another size is
drawn.
"""

from pathlib import Path

import numpy as np

from entropy_lib.models.catalogue import load
from entropy_lib.sampling.calibration_run import calibrate
from entropy_lib.sampling.noise_level import SHIPPED as NOISE
from entropy_lib.sampling.noise_level import calibrate_noise_level
from entropy_lib.scaling.calibration import SHIPPED
from entropy_lib.scenes import scenes

MODELS = ("mini", "mini-weak", "mini-circular")
PROMPTS, PICTURES = 48, 64
SIZES = ((32, 32), (48, 48), (64, 96), (96, 96), (128, 64), (128, 128))


def main(models: tuple[str, ...] = MODELS) -> list[Path]:
    """Measure and write; returns the files."""
    written = []
    test_scenes = [scenes.scene(number, "test") for number in range(PICTURES)]
    captions = [one.caption for one in test_scenes]
    pictures = {size: np.stack([scenes.draw(one, *size) for one in test_scenes]) for size in SIZES}
    for name in models:
        pipe = load(name)
        found = calibrate(pipe, captions[:PROMPTS], range(PROMPTS))
        written.append(found.write(SHIPPED / f"{name}.json"))
        written.append(calibrate_noise_level(pipe, pictures, captions).write(NOISE / f"{name}.json"))
        print(*written[-2:], flush=True)
    return written


if __name__ == "__main__":
    main()
