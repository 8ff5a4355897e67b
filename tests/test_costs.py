"""What one configuration costs, against clocks, counts and closed forms of our own."""

import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from scipy import stats
from torch.nn import functional

import entropy_lib as el
from entropy_lib.costs import Configuration, count_operations, crossover, exponent, measure, measure_all, measurement
from entropy_lib.costs.instruments import AttentionTimer, peak_memory, seconds
from entropy_lib.errors import InvalidInputError, MeasurementFailedError, UnknownNameError
from entropy_lib.models.layers import tokens_at

CPU = torch.device("cpu")
STEP = Configuration("mini", 32, 32, part="denoiser", device="cpu")


@pytest.mark.slow
def test_a_configuration_is_measured_in_a_process_of_its_own():
    table = measure_all([STEP, replace(STEP, part="picture", steps=1)], processes=1, progress=False)
    assert (table.seconds > 0).all()
    assert (table.fastest <= table.seconds).all()
    assert (table.seconds <= table.slowest).all()
    assert (table.above < table.megabytes).all()
    assert table.part.to_list() == ["denoiser", "picture"]
    assert table.reserved.isna().all()
    assert 0 < table.attention[0] < 1
    assert np.isnan(table.attention[1]), "a picture is text, network and decoder"
    assert table.backend[0] == "flash_attention", "what torch has for the CPU"


@pytest.mark.slow
def test_a_process_that_fails_says_what_it_said():
    with pytest.raises(MeasurementFailedError, match=r"mini, paper\[7\], 32x32, denoiser .*there is no level 7"):
        measure(replace(STEP, method="paper[7]"), processes=1)


@pytest.mark.slow
def test_one_that_is_killed_is_named_and_the_next_is_measured():
    """Each configuration has a process of its own, so that what one takes is not in the numbers of the next."""
    with measurement.Elsewhere() as place:
        server, found = psutil.Process(place._process.pid), []
        killer = threading.Thread(target=lambda: found.append(kill_first_child(server)))
        killer.start()
        with pytest.raises(MeasurementFailedError, match=r"mini, unscaled, 512x512, denoiser .* it was killed"):
            place.cost(replace(STEP, height=512, width=512), 1000)
        killer.join()
        assert found[0] != server.pid
        assert len(place.cost(STEP, 5)["seconds"]) == 5


def kill_first_child(server):
    while not (children := server.children()):
        time.sleep(0.1)
    children[0].kill()
    return children[0].pid


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"height": 0}, InvalidInputError, "0"),
        ({"part": "network"}, UnknownNameError, "Allowed: denoiser, picture"),
        ({"method": "multidiffusion"}, InvalidInputError, "no way to call the denoiser once"),
        ({"method": "papre"}, UnknownNameError, "did you mean 'paper'"),
        ({"images": 0}, InvalidInputError, "images is 0"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        replace(STEP, **changes)


@pytest.mark.parametrize(("repeats", "processes"), [(4, 1), (5, 0)])
def test_too_few_runs_are_no_measurement(repeats, processes):
    with pytest.raises(InvalidInputError, match="a median needs 5 runs"):
        measure(STEP, repeats, processes)


def test_time_is_of_the_work():
    assert seconds(lambda: time.sleep(0.05), CPU) == pytest.approx(0.05, abs=0.04)


def test_the_peak_is_of_the_work_and_is_seen_after_it_was_given_back():
    found = peak_memory(lambda: torch.ones(2**27).sum(), CPU)  # half a gibibyte
    assert 500 < found["allocated"] - found["before"] < 700
    assert peak_memory(lambda: None, CPU)["allocated"] < found["allocated"] - 300


def test_only_attention_among_tokens_of_one_kind_is_timed():
    query, text = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 7, 8)
    with AttentionTimer(CPU) as timer:
        own = functional.scaled_dot_product_attention(query, query, query)
        functional.scaled_dot_product_attention(query, text, text)
    assert timer.calls == 1
    assert timer.seconds > 0
    assert len(timer.backends) == 1
    assert torch.equal(own, functional.scaled_dot_product_attention(query, query, query))


@pytest.mark.parametrize("name", ["sd21-base", "sd3", "flux", "pixart"])
def test_operations_grow_as_they_must(name):
    """Of three sizes, attention's are a parabola of the tokens in each layer, all others a line."""
    pipe = el.load(name, random_weights=True, device="meta")
    sizes = (32, 64, 96)
    counted = [count_operations(pipe, size, size) for size in sizes]
    rest = [one.total - one.self_attention for one in counted]
    pixels = np.array(sizes) ** 2
    slope = (rest[1] - rest[0]) / (pixels[1] - pixels[0])
    assert rest[2] == pytest.approx(rest[1] + slope * (pixels[2] - pixels[1]), rel=1e-6)
    assert counted[0].share < counted[1].share < counted[2].share
    assert counted[0].tokens == max(tokens_at(pipe, 32, 32).values())


def test_operations_of_attention_are_those_of_its_matrix_products():
    """Twice N² d for the logits, twice for the values, each layer: against torch's own counter on one attention."""
    from torch.utils.flop_counter import FlopCounterMode

    query = torch.randn(1, 5, 4096, 64, device="meta")
    with FlopCounterMode(display=False) as counter:
        functional.scaled_dot_product_attention(query, query, query)
    pipe = el.load("sd21-base", random_weights=True, device="meta")
    first = next(name for name, tokens in tokens_at(pipe, 64, 64).items() if tokens == 4096)
    assert pipe.unet.get_submodule(first).inner_dim == 5 * 64
    assert counter.get_total_flops() == 4 * 4096**2 * 320


def test_the_exponent_is_that_of_a_line_on_logarithms():
    tokens, costs = [64, 256, 1024, 4096], [1.0, 3.0, 17.0, 60.0]
    found, line = exponent(tokens, costs), stats.linregress(np.log(tokens), np.log(costs))
    assert found.estimate == pytest.approx(line.slope)
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, 2) * line.stderr)
    for bad in (([64, 256], [1, 2]), ([64, 256, 1024], [1, 2, 0]), ([64, 256, 1024], [1, 2])):
        with pytest.raises(InvalidInputError):
            exponent(*bad)


def test_where_attention_takes_over():
    assert crossover([100, 400, 1600], [0.2, 0.4, 0.6]) == pytest.approx(800)
    assert np.isnan(crossover([100, 400], [0.2, 0.4])), "not within what was measured"
    assert np.isnan(crossover([100, 400], [0.6, 0.7])), "it had taken over before"
