"""Dilution: mass and gap against a plain softmax, and the factor that restores the mass."""

import math

import numpy as np
import pandas as pd
import pytest

import entropy_lib as el
from benchmarks.dilution import (
    FACTORS,
    ThingProbe,
    dilution_factor,
    measured,
    of_native_pixels,
    restoring_factors,
)
from entropy_lib.errors import UnsupportedModelError


def test_mass_and_gap_are_those_of_a_plain_softmax(network, call):
    inside = np.zeros((16, 16), bool)
    inside[:8, 4:12] = True
    seen = []

    class Keeping(ThingProbe):
        def measure(self, attention):
            seen.append(attention)
            super().measure(attention)

    with Keeping(network, inside) as probe:
        call(network, batch=1)
    first = seen[0]
    own = np.flatnonzero(inside) if first.place.height == 16 else np.flatnonzero(inside[::2, ::2])
    logits = (first.scale * first.query[0, 0, own].double() @ first.key[0, 0].double().mT).numpy()
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    others = np.delete(np.arange(logits.shape[1]), own)
    within, without = ((weights * logits)[:, part].sum(1) / weights[:, part].sum(1) for part in (own, others))
    table = probe.table()
    row = table[(table.layer == first.place.layer) & (table["head"] == 0)].iloc[0]
    assert row["mass at 1"] == pytest.approx(weights[:, own].sum(1).mean(), abs=1e-5)
    assert row.gap == pytest.approx((within - without).mean(), abs=1e-5)


def test_the_factor_keeps_the_mass_where_logits_have_two_values():
    """There the mean logits do not move with the factor, and the prediction is exact."""
    gap, own, tokens, training = 3.0, 10, 410, 110

    def mass(count, factor):
        return own / (own + (count - own) * math.exp(-factor * gap))

    factor = dilution_factor(tokens - own, training - own, gap)
    assert mass(tokens, factor) == pytest.approx(mass(training, 1))


def test_a_thing_of_the_same_pixels_keeps_less_in_a_larger_image():
    pipe = el.load("mini-dit", device="cpu")
    native, larger = (measured(pipe, side, 2, of_native_pixels, [500]) for side in (64, 128))
    found = restoring_factors(native, larger)
    assert len(found) == 8
    assert (found.mass > found.diluted).sum() >= 7, "in nearly every layer"
    assert (found.needed[found.mass > found.diluted].dropna() > 1).all()
    assert (restoring_factors(native, native).needed - 1).abs().max() < 0.01


def test_it_takes_a_flow(pipe):
    with pytest.raises(UnsupportedModelError, match="DDIMScheduler is no scheduler of a flow"):
        measured(pipe, 64, 1, of_native_pixels, [500])


def test_layers_are_paired_by_name():
    masses = {f"mass at {factor:.4g}": 0.5 for factor in FACTORS}
    rows = [{"layer": name, "gap": gap, "tokens": 64} | masses for name, gap in (("fine", 1.0), ("mid", 2.0))]
    native = pd.DataFrame(rows)
    found = restoring_factors(native, native[::-1].assign(tokens=128)).set_index("layer")
    assert found.gap.to_dict() == {"fine": 1.0, "mid": 2.0}
    assert restoring_factors(native, native[:1]).layer.tolist() == ["fine"]
