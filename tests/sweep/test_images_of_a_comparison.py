"""A comparison generates what is missing, and hands out images by prompt."""

import numpy as np
import pytest

import entropy_lib as el
from entropy_lib.errors import InvalidInputError


def test_images_are_generated_once_and_found_by_their_prompts(tmp_path):
    prompts = ["a photo of an owl", "a photo of a bus", "a photo of a cake"]
    asked = {"steps": 1, "guidance": 1.0, "dtype": "float32", "device": "cpu"}
    plan = el.sweep.make_plan("mini", prompts, [0, 1], ["64x64", "32x64"], ["unscaled", "paper"], **asked)
    comparison = el.sweep.open_comparison(plan, tmp_path, metrics=["Repetition"], device="cpu")
    assert comparison.generate(6, "cpu", progress=False) == len(plan.units) == 18
    assert comparison.generate(6, "cpu", progress=False) == 0
    backwards = comparison.images("32x64", "paper", prompts[::-1])
    first = [comparison.store.read(unit) for unit in plan.cells["32x64", "paper"] if unit.seed == 0]
    np.testing.assert_array_equal(backwards, np.stack(first[::-1]))
    native = comparison.images("64x64", "paper", prompts)
    np.testing.assert_array_equal(native, comparison.images("64x64", "unscaled", prompts))
    with pytest.raises(InvalidInputError, match="no image of 'a photo of a dog' at 32x64 by paper"):
        comparison.images("32x64", "paper", ["a photo of a dog"])
