"""Where the mass lies, against weights that are written out."""

import numpy as np
import pandas as pd
import pytest
import torch
from plain_attention import projected
from scipy.spatial.distance import cdist

import entropy_lib as el
from entropy_lib.errors import InvalidInputError
from entropy_lib.probes import MassProbe
from entropy_lib.probes.importance import ablated
from entropy_lib.probes.mass_probe import mass_by_layer
from entropy_lib.statistics import slopes_on_sides


def test_it_is_that_of_a_plain_softmax(network, call):
    layer, seen = next(iter(el.training_tokens(network))), []
    module = network.get_submodule(layer)
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with MassProbe(network, layer) as probe:
        call(network, 16, 24)
    handle.remove()
    query, key, _ = projected(module, seen[0])
    weights = (query.detach().double() @ key.detach().double().mT * module.scale).softmax(-1)
    assert len(probe.rows) == 2 * module.heads
    for row in probe.rows:
        own = weights[row["image"], row["head"]].numpy()
        assert row["mass"] == pytest.approx(own.mean(0).reshape(16, 24), abs=1e-6)
        places = np.stack(np.divmod(np.arange(384), 24), 1)
        assert row["distance"] == pytest.approx((own * cdist(places, places)).sum() / 384, rel=1e-4)


def test_uniform_attention_lies_on_the_edge_by_its_area(network, call):
    with ablated(network), MassProbe(network) as probe:
        call(network, 16, 32)
    table = probe.table()
    assert table.edge_share.to_numpy() == pytest.approx(table.edge_area, abs=1e-5)
    assert table.distance.to_numpy() == pytest.approx(table.uniform_distance, rel=1e-4)
    assert (table.largest * table.tokens).to_numpy() == pytest.approx(1, abs=1e-3)
    assert set(zip(table.height, table.width, strict=True)) == {(16, 32), (8, 16)}


def test_slopes_on_the_sides_need_several_shapes():
    table = pd.DataFrame(
        {"prompt": [0, 1] * 2, "height": [8, 8, 16, 16], "width": [8, 8, 16, 16], "entropy": 1.0}
    )
    with pytest.raises(InvalidInputError, match="sizes of several shapes"):
        slopes_on_sides(table)
    with pytest.raises(InvalidInputError, match="missing values in entropy"):
        slopes_on_sides(table.assign(entropy=np.nan))


def test_slopes_on_the_sides_are_those_of_least_squares():
    generator = torch.Generator().manual_seed(0)
    table = pd.DataFrame([(p, h, w) for p in range(5) for h in (4, 8) for w in (4, 16)])
    table.columns = ["prompt", "height", "width"]
    table["entropy"] = torch.randn(len(table), generator=generator).numpy()
    design = np.stack([np.ones(len(table)), np.log(table.height), np.log(table.width)], 1)
    expected = np.linalg.lstsq(design, table.entropy.to_numpy(), rcond=None)[0]
    found = slopes_on_sides(table)
    assert [found["height"].estimate, found["width"].estimate] == pytest.approx(expected[1:].tolist())
    assert found["height"].low < found["height"].estimate < found["height"].high


def test_a_sink_that_stays_does_not_move():
    one = {"layer": "x", "step": 0, "branch": "all", "image": 0, "height": 4, "width": 4, "tokens": 16}
    one |= {"edge_share": 0.9, "edge_area": 0.75, "largest": 0.5, "distance": 1.0, "uniform_distance": 2.0}
    places = [("8x8", 0, 0.0, 0.0), ("8x8", 1, 0.0, 1.0), ("16x16", 0, 0.0, 0.0), ("16x16", 1, 0.6, 0.2)]
    names = ["size", "head", "largest_row", "largest_column"]
    table = pd.DataFrame([one | dict(zip(names, place, strict=True)) for place in places])
    (found,) = mass_by_layer(table, "8x8").to_dict("records")
    assert found["moved"] == pytest.approx((0 + 1) / 2)
    assert (found["largest_times"], found["reach"]) == (8.0, 0.5)
    with pytest.raises(InvalidInputError, match="no rows of native size 9x9"):
        mass_by_layer(table, "9x9")
