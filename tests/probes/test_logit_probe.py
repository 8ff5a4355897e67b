"""The Gaussian check of a running model, against the entropy probe."""

import numpy as np
import pytest
import torch

from entropy_lib import EntropyProbe, generate, scaled
from entropy_lib.entropy import gaussian_entropy
from entropy_lib.models.architectures import build
from entropy_lib.probes.logit_probe import LogitProbe


def test_the_probes_agree_on_the_embedded_model(pipe):
    with scaled(pipe, "paper"), EntropyProbe(pipe) as entropy, LogitProbe(pipe, rows=None) as shape:
        generator = torch.Generator().manual_seed(0)
        pipe("a penguin, fluent style", height=48, width=64, num_inference_steps=2, generator=generator)
    one, other = entropy.table(), shape.table()
    keys = ["layer", "step", "branch", "head"]
    both = one.merge(other, on=keys, suffixes=("", "_shape"))
    assert len(both) == len(one) == len(other)
    shared = ["tokens", "rows", "training_tokens", "height", "width"]
    for name in ["entropy", "logit_std", "gaussian_entropy", *shared]:
        assert np.allclose(both[name], both[f"{name}_shape"], atol=1e-4), name
    parts = other.finite_tokens + other.row_spread + other.non_gaussian
    assert np.allclose(parts, other.entropy - other.gaussian_entropy, atol=1e-9)
    assert other.gaussian_entropy.to_numpy() == pytest.approx(
        gaussian_entropy(other.tokens.to_numpy(), other.logit_std.to_numpy())
    )


def test_quantiles_of_every_layer(pipe):
    with LogitProbe(pipe, rows=8) as probe:
        pipe("a penguin", num_inference_steps=1)
    quantiles = probe.quantiles()
    assert quantiles.layer.nunique() == len(probe.layers)
    for _, part in quantiles.groupby("layer"):
        assert part.normal.is_monotonic_increasing
        assert part.measured.is_monotonic_increasing
        assert len(part) <= 101


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_joint_attention_has_no_grid_of_keys(name):
    pipe = build(name, tiny=True)
    with LogitProbe(pipe, rows=4) as probe:
        generate(pipe, ["a penguin"], [0], (64, 96), steps=1)
    table = probe.table()
    assert table.entropy.notna().all()
    assert table.effective_tokens.isna().all(), "text and image keys have no neighbourhood in common"
