"""What cannot be used is refused by one clear error of our own, before any work: theory, attention, probes
and statistics.

One row an input: a name, the call, and what the message must name.
"""

import numpy as np
import pandas as pd
import pytest
import torch

import entropy_lib as el
from entropy_lib.entropy import simulation
from entropy_lib.entropy.fused import find_kernel
from entropy_lib.errors import EntropyLibError
from entropy_lib.scaling import predicted_slope

theory, nan, inf = el.entropy, float("nan"), float("inf")
QUERY, KEY = torch.zeros(2, 3, 9, 8), torch.zeros(2, 3, 5, 8)
LOGITS = torch.zeros(4, 16)


def entropy(query=QUERY, key=KEY, **options):
    return el.attention_entropy(query, key, **options)


def moments(query=QUERY, key=KEY, **options):
    return el.logit_moments(query, key, **options)


THEORY = {
    "no tokens": (lambda: theory.gaussian_entropy(0, 1.0), "tokens is 0"),
    "tokens nan": (lambda: theory.gaussian_entropy(nan, 1.0), "tokens is nan"),
    "tokens as a list": (lambda: theory.gaussian_entropy([64, 256], 1.0), "numpy array"),
    "tokens True": (lambda: theory.gaussian_entropy(True, 1.0), "tokens is True"),
    "complex tensor": (lambda: theory.gaussian_entropy(torch.zeros(2).cfloat(), 1.0), "complex64"),
    "negative spread": (lambda: theory.gaussian_entropy(64, -1.0), "logit_std is -1"),
    "one negative spread": (lambda: theory.gaussian_entropy(64, np.array([1.0, -2.0])), "has 1 values"),
    "shapes that do not fit": (lambda: theory.gaussian_entropy(np.ones(3), np.ones(4)), "shapes do not fit"),
    "cumulants as a number": (lambda: theory.cumulant_entropy(64, 1.0), "cumulants is 1.0"),
    "a cumulant nan": (lambda: theory.cumulant_entropy(64, [nan]), "κ2"),
    "slope from one training token": (lambda: theory.paper_slope(1, 1), "training_tokens is 1"),
    "exact law, too many tokens": (lambda: theory.exact_entropy(2e9, 1.0), "at most 1e[+]09"),
    "exact law, spread too large": (lambda: theory.exact_entropy(64, 101.0), "at most 100"),
    "slope at one token": (lambda: predicted_slope("unscaled", 1, 4096, 1.0), "tokens is 1"),
    "factor out of reach": (lambda: theory.equal_entropy_factor(1e8, 2, 60.0), "near 100 or above"),
    "share of no factor": (lambda: theory.fraction_of_change_removed(64, 16, 1.0, 0.0), "factor is 0"),
    "share of a huge factor": (lambda: theory.fraction_of_change_removed(64, 16, 1.0, 1e6), "factor 1e[+]06"),
    "simulation of one token": (lambda: simulation.compare([1], [0.5]), "tokens is 1"),
    "simulation of no rows": (lambda: simulation.compare([16], [0.5], rows=0), "rows is 0"),
    "infinite tolerance": (lambda: simulation.validity_limit(64, inf), "tolerance is inf"),
    "layers of an unknown model": (lambda: simulation.shipped_layers("nini"), "did you mean 'mini'"),
}

ATTENTION = {
    "numpy query": (lambda: entropy(QUERY.numpy()), "query is of type ndarray"),
    "query of whole numbers": (lambda: entropy(QUERY.long()), "query is a tensor of torch.int64"),
    "one axis": (lambda: entropy(torch.zeros(8), torch.zeros(8)), r"query is \[8\]"),
    "different d": (lambda: entropy(key=torch.zeros(2, 3, 5, 7)), "same leading axes and d"),
    "no keys": (lambda: entropy(key=KEY[..., :0, :]), "no axis may be empty"),
    "two devices": (lambda: entropy(key=KEY.to("meta")), "move them to one device"),
    "negative scale": (lambda: entropy(scale=-1.0), "scale is -1.0"),
    "no rows": (lambda: entropy(rows=0), "rows is 0"),
    "a row beyond the queries": (lambda: entropy(rows=[9]), "from 0 to 8"),
    "rows as truth values": (lambda: entropy(rows=[True, False]), "from 0 to 8"),
    "rows as text": (lambda: entropy(rows="all"), "rows must be"),
    "mask of whole numbers": (lambda: entropy(mask=torch.ones(9, 5).long()), "tensor of torch.int64"),
    "mask that does not fit": (lambda: entropy(mask=torch.zeros(9, 4)), "must broadcast"),
    "mask elsewhere": (lambda: entropy(mask=torch.zeros(9, 5, device="meta")), "on meta"),
    "unknown kernel": (lambda: entropy(kernel="flush"), "'flush' is unknown"),
    "kernel that does not serve": (lambda: find_kernel(QUERY, KEY, "efficient"), "does not serve"),
    "fused kernel with a mask": (lambda: entropy(kernel="cpu", mask=torch.zeros(9, 5)), "takes no mask"),
    "moments of numpy": (lambda: moments(QUERY.numpy()), "query is of type ndarray"),
    "moments of order 5": (lambda: moments(order=5), "order is 5"),
    "shape of whole numbers": (lambda: el.entropy.row_statistics(LOGITS.long(), (4, 4)), "torch.int64"),
    "grid of one side": (lambda: el.entropy.row_statistics(LOGITS, (16,)), r"grid is \(16,\)"),
    "maximum of none": (lambda: el.entropy.expected_maximum(0), "tokens is 0"),
    "layers of another table": (lambda: el.entropy.by_layer(pd.DataFrame([0])), "lacks the columns"),
    "layers, no tolerance": (lambda: el.entropy.by_layer(pd.DataFrame(), tolerance=0), "tolerance is 0"),
}


SAMPLES = pd.DataFrame({"prompt": list("aabb"), "tokens": [64, 256] * 2, "size": ["s", "l"] * 2})
SAMPLES = SAMPLES.assign(rule="unscaled", entropy=[4.0, 5.3, 4.1, 5.4])
statistics = el.statistics
STATISTICS = {
    "level in per cent": (lambda: statistics.wilson(3, 20, level=95), "level is 95"),
    "more hits than images": (lambda: statistics.wilson(3, 2), "3 hits of 2"),
    "slope, no column": (lambda: statistics.slope_on_log_tokens(SAMPLES, "entropie"), "no column 'entropie'"),
    "slope, one size": (lambda: statistics.slope_on_log_tokens(SAMPLES.assign(tokens=64)), "1 token counts"),
    "slopes of no such rule": (lambda: statistics.slopes_by_rule(SAMPLES, ["paper"]), "unknown rule 'paper'"),
    "share, no such native size": (lambda: statistics.fraction_removed(SAMPLES), "unknown size 'native'"),
}

CALLS = {**THEORY, **ATTENTION, **STATISTICS}


@pytest.mark.parametrize(("call", "named"), CALLS.values(), ids=CALLS.keys())
def test_it_is_refused(call, named):
    with pytest.raises(EntropyLibError, match=named):
        call()


PROBES = {
    "no rows": ({"rows": 0}, "rows is 0"),
    "a row beyond the smallest layer": ({"rows": [64]}, "from 0 to 63"),
    "rows as text": ({"rows": "all"}, "rows must be"),
    "unknown layer": ({"layers": "middle"}, "unknown layer"),
    "one unknown layer of two": ({"layers": ["mid_block.*", "nowhere"]}, "unknown layer 'nowhere'"),
}


@pytest.mark.parametrize("probe", [el.EntropyProbe, el.LogitProbe])
@pytest.mark.parametrize(("options", "named"), PROBES.values(), ids=PROBES.keys())
def test_probes_refuse(network, probe, options, named):
    with pytest.raises(EntropyLibError, match=named):
        probe(network, **options)


def test_missing_values_in_arrays_stay_missing():
    """A probe of a model that overflows must give its table, with NaN in it, and no error at the end."""
    for law in (theory.gaussian_entropy, theory.exact_entropy):
        found = law(64, np.array([1.0, nan]))
        assert np.isnan(found).tolist() == [False, True]
    missing = theory.exact_entropy(64, torch.tensor([nan, 1.0], dtype=torch.bfloat16)).isnan()
    assert missing.tolist() == [True, False]
    assert theory.gaussian_entropy(pd.Series([64, 256]), pd.Series([1.0, 2.0])).tolist() == pytest.approx(
        [theory.gaussian_entropy(64, 1.0), theory.gaussian_entropy(256, 2.0)]
    )
    assert theory.exact_entropy(tokens=64, logit_std=1.0) == theory.exact_entropy(64, 1.0)


@pytest.mark.parametrize("probe", [el.EntropyProbe, el.LogitProbe])
def test_a_model_that_overflows_gives_a_table_with_nan(network, call, probe):
    network.conv_in.bias.data.fill_(nan)
    with probe(network, rows=4) as measured:
        call(network)
    assert measured.table().entropy.isna().all()


def test_eq_5_is_returned_as_it_stands_beyond_freezing():
    """Cut off at 0 it would look right where it fails; the exact law stays in its range."""
    said = r"1 of 1 values are no entropy, the first being -4997.* take exact_entropy"
    with pytest.warns(theory.BeyondLawWarning, match=said):
        assert theory.gaussian_entropy(16, 100) == pytest.approx(np.log(16) - 5000)
    assert 0 <= theory.exact_entropy(16, 8.0) <= np.log(16)
