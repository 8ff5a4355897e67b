"""Numbers that are to be kept do not depend on what their caller allows arithmetic to be rounded to."""

import numpy as np
import pytest
import torch

from entropy_lib.metrics.extractors import extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.registry import METRICS
from entropy_lib.precision import full_precision
from entropy_lib.scenes import detection, scenes

BACKENDS = torch.backends
ROUNDED = [
    "BACKENDS.cuda.matmul.fp32_precision = 'tf32'",
    "BACKENDS.cuda.matmul.allow_tf32 = True",
    "BACKENDS.cudnn.conv.fp32_precision = 'ieee'",
    "BACKENDS.cudnn.fp32_precision = 'tf32'",
    "BACKENDS.cudnn.allow_tf32 = False",
    "BACKENDS.fp32_precision = 'tf32'",
    "BACKENDS.mkldnn.matmul.fp32_precision = 'bf16'",
    "BACKENDS.mkldnn.conv.fp32_precision = 'bf16'",
    "torch.set_float32_matmul_precision('medium')",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_default_dtype(torch.bfloat16)",
]
renamed = pytest.mark.skipif(
    not hasattr(BACKENDS.cuda.matmul, "fp32_precision"), reason="this torch has only allow_tf32"
)


def answer(function):
    try:
        return function()
    except RuntimeError:
        return "torch raises"


def settings():
    """All that a caller can read of them, the old names first."""
    products = (BACKENDS, BACKENDS.cuda.matmul, BACKENDS.cudnn, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)
    products += (BACKENDS.mkldnn, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn)
    return [
        answer(lambda: BACKENDS.cuda.matmul.allow_tf32),
        answer(lambda: BACKENDS.cudnn.allow_tf32),
        answer(torch.get_float32_matmul_precision),
        *(product.fp32_precision for product in products),
    ]


@pytest.fixture(autouse=True)
def untouched():
    """As torch starts: the general setting last, for what is below it inherits."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    onednn = BACKENDS.mkldnn
    for one in (onednn.matmul, onednn.conv, onednn.rnn, BACKENDS.cuda.matmul, BACKENDS.cudnn, BACKENDS):
        one.fp32_precision = "none"


@pytest.fixture(scope="module")
def own():
    return extractor("mini-clip")


@pytest.fixture(scope="module")
def pictures():
    return np.stack([scenes.draw(scenes.scene(number, "test"), 64, 64) for number in range(6)])


@pytest.fixture(scope="module")
def values(own, pictures):
    """{what is kept: computed}, each as its users compute it."""
    seeing, stock = detection.load(), dict(zip("abcdef", pictures, strict=True))

    def kept(source):
        return lambda folder: FeatureCache(folder, source).matrix(list(stock), stock.__getitem__)

    def scores(_):
        found = [one.score for things in detection.find(seeing, pictures) for one in things]
        return torch.tensor(found, dtype=torch.float32)

    return {
        "pictures": lambda _: own.pictures(pictures, "pad"),
        "captions": lambda _: own.captions(["a penguin, fluent style", "two owls"]),
        "findings": scores,
        "repetition": lambda _: METRICS["Repetition"].pictures(pictures),
        "cache of features": kept(own),
        "cache of captions": lambda folder: FeatureCache(folder, own).captions(["a penguin", "an owl"]),
        "cache of findings": kept(detection.detector()),
        "cache of numbers": kept(METRICS["Repetition"]),
    }


ALONE = ["pictures", "captions", "findings", "repetition"]
KEPT = ["cache of features", "cache of captions", "cache of findings", "cache of numbers"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*ALONE, *KEPT])
def test_autocast_changes_nothing_that_is_measured(values, name, dtype, tmp_path):
    expected = values[name](tmp_path / "plain")
    with torch.autocast("cpu", dtype):
        found = values[name](tmp_path / "cast")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype, "autocast must go on for the caller"
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@renamed
@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("rounded", ROUNDED)
def test_products_are_not_rounded_and_the_settings_are_put_back(values, name, rounded, tmp_path):
    expected = values[name](tmp_path)
    exec(rounded)
    before = settings()
    found = values[name](tmp_path)
    assert settings() == before
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-5)


@renamed
@pytest.mark.parametrize("rounded", ROUNDED[:-1])
@pytest.mark.parametrize("device", [torch.device("cuda"), torch.device("cpu"), None], ids=str)
def test_settings_are_exact_inside_and_as_before_after_an_error(rounded, device):
    exec(rounded)
    before = settings()
    with pytest.raises(ZeroDivisionError), full_precision(device):
        cuda, cudnn, onednn = BACKENDS.cuda.matmul, BACKENDS.cudnn, BACKENDS.mkldnn
        on = {"cuda": (cuda, cudnn.conv, cudnn.rnn), "cpu": (onednn.matmul, onednn.conv, onednn.rnn)}
        inside = [one.fp32_precision for one in (on[device.type] if device else [*on["cuda"], *on["cpu"]])]
        assert not {"tf32", "bf16"} & set(inside)
        1 / 0  # noqa: B018
    assert settings() == before


@renamed
def test_a_setting_that_was_inherited_goes_on_following():
    BACKENDS.fp32_precision = "tf32"
    with full_precision():
        pass
    assert BACKENDS.cuda.matmul.fp32_precision == "tf32"
    BACKENDS.fp32_precision = "ieee"
    assert BACKENDS.cuda.matmul.fp32_precision == BACKENDS.mkldnn.matmul.fp32_precision == "ieee"
