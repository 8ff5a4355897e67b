"""What one configuration costs, against clocks, counts and closed forms of our own."""

import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, MeasurementFailedError, UnknownNameError
from entropy_lib.sampling.costs import (
    Configuration,
    attention_share,
    in_fresh_process,
    measure,
    measure_all,
    peak_memory,
)

CPU = torch.device("cpu")
STEP = Configuration("mini", "32x32", part="denoiser", device="cpu")


@pytest.mark.slow
def test_a_configuration_is_measured_in_a_process_of_its_own():
    table = measure_all([STEP, replace(STEP, part="image", steps=1)], processes=1, progress=False)
    assert (table.fastest > 0).all()
    assert table.seconds.between(table.fastest, table.slowest).all()
    assert (table.above < table.megabytes).all()
    assert table.part.to_list() == ["denoiser", "image"]
    assert table.reserved.isna().all()
    assert 0 < table.attention[0] < 1
    assert np.isnan(table.attention[1]), "an image is text, network and decoder"
    assert table.backend[0] == "flash_attention", "what torch has for the CPU"


@pytest.mark.slow
def test_a_process_that_fails_says_what_it_said():
    said = r"mini, paper\[7\], 32x32, denoiser .*there is no level 7"
    with pytest.raises(MeasurementFailedError, match=said):
        measure(replace(STEP, method="paper[7]"), processes=1)


@pytest.mark.slow
def test_one_that_is_killed_is_named_and_the_next_is_measured():
    """Each configuration has a process of its own: what one takes is not in the numbers of the next."""
    before = set(psutil.Process().children(recursive=True))
    killer = threading.Thread(target=kill_a_worker, args=(before,))
    killer.start()
    with pytest.raises(MeasurementFailedError, match=r"mini, unscaled, 512x512, denoiser .* it was killed"):
        in_fresh_process(replace(STEP, size="512x512"), 1000)
    killer.join()
    assert len(in_fresh_process(STEP, 5)["seconds"]) == 5


def kill_a_worker(before):
    """The process that measures: a child of the fork server."""
    own, found = psutil.Process(), []
    while not found:
        time.sleep(0.1)
        started = set(own.children(recursive=True)) - before - set(own.children())
        found = [one for one in started if one.cpu_times().user > 0.5]
    found[0].kill()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"size": "0x32"}, InvalidInputError, "0"),
        ({"part": "network"}, UnknownNameError, "Allowed: denoiser, image"),
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


def test_the_peak_is_of_the_work_and_is_seen_after_it_was_given_back():
    found = peak_memory(lambda: torch.ones(2**27).sum(), CPU)  # half a gibibyte
    assert 500 < found["allocated"] - found["before"] < 700
    assert peak_memory(lambda: None, CPU)["allocated"] < found["allocated"] - 300


def test_the_share_of_attention_is_that_among_tokens_of_one_kind():
    query, text = torch.randn(1, 2, 256, 8), torch.randn(1, 2, 7, 8)
    own, backends = attention_share(lambda: functional.scaled_dot_product_attention(query, query, query), CPU)
    assert own == pytest.approx(1)
    assert backends == ["flash_attention"], "what torch has for the CPU"
    assert attention_share(lambda: functional.scaled_dot_product_attention(query, text, text), CPU) == (0, [])
