"""Whether attention is used by a trained model: exact images with its attention as it is, and made uniform.

    python -m training.used mini mini-weak mini-circular    # 64 images each; terrain: how far maps change

Whether attention is *needed* takes a twin of the same recipe, trained with attention that cannot choose: of
`mini-dit`, `training.gate` has both.
"""

import argparse

import numpy as np

import entropy_lib as el
from entropy_lib.probes.importance import ablated, relative_change
from entropy_lib.scenes import detection
from training.card import share, shown
from training.quality import GUIDANCE, NATIVE, SEED, STEPS, detected, draw_prompts

IMAGES, MAPS = 64, 16


def scenes_of(model: str) -> str:
    """A row for a model of scenes: exact images as it is, and with uniform attention."""
    pipe, prompts, detector = el.load(model), draw_prompts(IMAGES), detection.load()
    seeds, options = range(SEED, SEED + IMAGES), {"steps": STEPS, "guidance": GUIDANCE, "batch": 16}
    native = el.generate(pipe, prompts, seeds, NATIVE, **options)
    with ablated(pipe):
        uniform = el.generate(pipe, prompts, seeds, NATIVE, **options)
    exact = [shown(share(detected(images, prompts, detector).exact)) for images in (native, uniform)]
    changed = relative_change(*(images.astype(float) for images in (native, uniform))).mean()
    return f"| `{model}` | {exact[0]} | {exact[1]} | {changed:.2f} |"


def maps() -> str:
    """A row for `terrain`, whose maps have nothing to be exact about."""
    pipe, difficulties = el.load("terrain"), [str(each) for each in np.linspace(1, 100, MAPS).astype(int)]
    asked = difficulties, range(MAPS), "128x128"
    native = el.generate(pipe, *asked, steps=1).astype(float)
    with ablated(pipe):
        uniform = el.generate(pipe, *asked, steps=1).astype(float)
    return f"| `terrain` | | | {relative_change(native, uniform).mean():.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mini", "mini-weak", "mini-circular", "terrain"])
    print(f"| model | exact as it is | exact with uniform attention | change |\n{'|---' * 4}|")
    for model in parser.parse_args().models:
        print(maps() if model == "terrain" else scenes_of(model), flush=True)


if __name__ == "__main__":
    main()
