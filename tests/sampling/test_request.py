"""What cannot be generated or measured ends in one clear error, before the pipeline runs."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, UnsupportedModelError
from entropy_lib.sampling import (
    distinct_rules_at,
    logit_shape_by_size,
    native_layers,
    native_size,
    size_multiple,
)
from entropy_lib.sampling.request import check_memory

GOOD = {"prompts": ["a zebra", "a crab"], "seeds": [0, 1], "size": (64, 64)}

BAD_REQUESTS = [
    *[({"prompts": value}, "prompts is .*list of strings")
      for value in ("a zebra", b"a", None, 3, {"a": 1}, {"a"}, iter("ab"))],
    *[({"prompts": ["a", value]}, r"prompts\[1\] is .*strings") for value in (None, 3, b"b", ["b"])],
    ({"prompts": []}, "prompts is empty"),
    ({"prompts": ["a"]}, "1 prompts and 2 seeds"),
    *[({"seeds": value}, "seeds is .*list of whole numbers") for value in (0, None, "01", {0, 1}, {0: 1})],
    *[({"seeds": [0, value]}, r"seeds\[1\] is .*whole numbers from 0 to 2\^32")
      for value in (-1, 1.5, 1.0, 2**32, 2**70, "1", None, True, math.nan, torch.tensor(1))],
    ({"seeds": []}, "seeds is empty"),
    ({"seeds": [0]}, "2 prompts and 1 seeds"),
    *[({"size": (value, 64)}, "height is .*multiple of 8")
      for value in (0, -8, 100, 64.0, "64", None, True, math.nan, [64])],
    *[({"size": (64, value)}, "width is .*multiple of 8") for value in (63, 1e300)],
    *[({"size": value}, "size") for value in ("64", "64x", 64, None, (64,), (64, 64, 3))],
    ({"size": "800000x800000"}, "at most 8192 pixels"),
    *[({"steps": value}, "steps is .*from 1 to 1000") for value in (0, 1001, "x", 2.5, math.nan, True, [1])],
    *[({"guidance": value}, "guidance is .*number from 0")
      for value in (math.nan, math.inf, -5, "2", True, [2.0], 1j)],
    *[({"batch": value}, "batch is .*at least 1") for value in (0, -1, 1.5, "2", None, True, math.inf)],
    ({"method": "papper"}, "did you mean 'paper'"),
    ({"method": ["paper"]}, "method is .'paper'.*write for example"),
    ({"method": "power(1e300)"}, "at most 100"),
    ({"method": "equal-entropy(1e9)"}, "at most 20"),
    *[({"method": f"{baseline}equal-entropy(1)", "size": (16, 16)}, "tokens cannot have the entropy")
      for baseline in ("", "two-stage + ")],
]  # fmt: skip


@pytest.fixture
def idle(pipe, monkeypatch):
    """The embedded model, which must not be called."""
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran"))
    return pipe


@pytest.mark.parametrize(("changes", "message"), BAD_REQUESTS, ids=lambda value: str(value)[:40])
def test_what_cannot_be_generated_is_refused_before_anything_is(idle, changes, message):
    with pytest.raises(InvalidInputError, match=message):
        el.generate(idle, **(GOOD | changes))


MEASURED = {"prompts": ["a"], "seeds": [0], "sizes": [(32, 32), (64, 64)], "rules": ["unscaled", "paper"]}

BAD_MEASUREMENTS = [
    *[({"sizes": value}, "sizes") for value in ([], (32, 32), None, "32x32", [(32,)], [(32, 32, 3)], 32)],
    ({"sizes": [(32, 32), (32, 36)]}, "width is 36"),
    ({"sizes": [(32, 32), (32, 32)]}, "sizes repeat 32x32"),
    ({"sizes": [(32, 32), (800_000, 800_000)]}, "at most 8192 pixels"),
    *[({"rules": value}, "rules is .*list") for value in ([], "paper", 3)],
    ({"rules": ["paper", "paper"]}, "repeat 'paper'"),
    ({"rules": ["power(.5)", "power(0.50)"]}, "repeat 'power"),
    ({"rules": ["unscaled", "papr"]}, "did you mean 'paper'"),
    ({"rules": ["unscaled", None]}, "method is None"),
    ({"rules": ["equal-entropy(1)"], "sizes": [(64, 64), (16, 16)]}, "tokens cannot have the entropy"),
    ({"steps": 0}, "steps is 0"),
]  # fmt: skip


@pytest.mark.parametrize("measure", [el.entropy_by_size, logit_shape_by_size])
@pytest.mark.parametrize(("changes", "message"), BAD_MEASUREMENTS, ids=lambda value: str(value)[:40])
def test_what_cannot_be_measured_is_refused_before_anything_is_generated(idle, measure, changes, message):
    with pytest.raises(InvalidInputError, match=message):
        measure(idle, **(MEASURED | changes))


@pytest.mark.parametrize("model", [None, "mini", 3], ids=str)
def test_what_is_no_pipeline_is_refused(model):
    with pytest.raises(UnsupportedModelError, match="expected a"):
        el.generate(model, **GOOD)


def test_a_bare_network_generates_nothing(network):
    with pytest.raises(UnsupportedModelError, match="expected a text-to-image pipeline"):
        el.generate(network, **GOOD, steps=1, guidance=1)


def test_seeds_beyond_32_bits_would_repeat_images():
    first, second = (torch.randn(3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + 2**32))
    assert torch.equal(first, second), "if this fails, torch uses all bits and the limit on seeds can go"


def test_lists_may_be_arrays_ranges_and_tuples(pipe):
    for seeds in (np.arange(2), range(2), (0, 1)):
        el.sampling.request.check_samples(("a", "b"), seeds)


def test_the_bound_on_memory_lets_pass_what_can_be_generated(pipe):
    check_memory(pipe, el.Size(512, 512), 1)
    with pytest.raises(InvalidInputError, match="80000x80000 in batches of 2 needs at least"):
        check_memory(pipe, el.Size(80_000, 80_000), 2)


def native_table(*rows):
    columns = ["size", "layer", "tokens", "training_tokens", "logit_std"]
    return pd.DataFrame(rows, columns=columns).assign(factor=1.0, rule="unscaled")


def test_a_layer_that_has_its_training_tokens_elsewhere_does_not_count_as_native():
    """At 56 px the lowest level of a model of 64 px rounds up to its own 4 x 4 tokens."""
    native = ("64x64", "top", 256, 256, 1.0), ("64x64", "low", 16, 16, 2.0)
    table = native_table(*native, ("56x56", "top", 196, 256, 1.0), ("56x56", "low", 16, 16, 4.0))
    assert native_layers(table).logit_std.to_dict() == {"top": 1.0, "low": 2.0}


def test_two_sizes_with_the_tokens_of_native_size_are_told_apart_by_the_caller():
    table = native_table(("64x64", "top", 256, 256, 1.0), ("32x128", "top", 256, 256, 2.0))
    with pytest.raises(InvalidInputError, match=r"at 32x128, 64x64; keep the rows of native size only"):
        native_layers(table)


def test_rules_coincide_wherever_the_layers_have_their_training_tokens(pipe):
    rules = ["unscaled", "paper", "gamma(1.4)"]
    for size in (native_size(pipe), "32x128"):
        same = {"unscaled": ["unscaled", "paper"], "gamma(1.4)": ["gamma(1.4)"]}
        assert distinct_rules_at(pipe, rules, size) == same
    assert list(distinct_rules_at(pipe, rules, "32x32")) == rules
    assert size_multiple(pipe) == 8
