"""Shared by all tests: the embedded model, and a tiny untrained network of the same kind."""

import gc
import io
import math
import os
import sys
import timeit
from contextlib import contextmanager
from types import SimpleNamespace

# one thread for each of the processes, and for the notebooks that they start
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch
from diffusers import UNet2DConditionModel
from IPython.core.interactiveshell import InteractiveShell

import entropy_lib as el
from entropy_lib.sampling import costs

gc.freeze()  # what was imported stays, and no collection of garbage looks through it again

# files whose tests take longest, which are begun first: so no process waits for another at the end
LONGEST = ("test_notebooks.py", "test_solutions.py", "test_interruption.py", "test_native_models.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files in front; `make test` keeps the order."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def pipe():
    """The embedded model, on the CPU in float32."""
    return el.load("mini", device="cpu", dtype="float32")


@pytest.fixture
def network():
    """A UNet of two levels with random weights: 16 x 16 latents, 256 and 64 tokens."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        norm_num_groups=8,
    ).eval()


@pytest.fixture
def call():
    """Run a network once on fixed input of a given latent size."""

    def run(network, height=16, width=16, batch=2):
        generator = torch.Generator().manual_seed(1)
        sample = torch.randn(batch, 4, height, width, generator=generator)
        text = torch.randn(batch, 7, 24, generator=generator)
        with torch.no_grad():
            return network(sample, torch.tensor(500), text).sample

    return run


@pytest.fixture
def losses(monkeypatch):
    """Runs a training for a few steps without checkpoints, and returns what each step reported."""

    def run(module, batch, steps, *arguments):
        reported = []
        monkeypatch.setattr(module, "BATCH", batch, raising=False)
        monkeypatch.setattr(
            module,
            "loop",
            lambda path, modules, optimizers, steps, update: reported.extend(map(update, range(steps))),
        )
        model = module.train(*arguments[:1], steps, *arguments[1:])
        return model, pd.DataFrame(reported)

    return run


@pytest.fixture
def command(capsys):
    """The command line in this process: its exit status, and what it printed on standard output and standard
    error.
    """
    from entropy_lib.cli.command_line import main

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=printed.out, err=printed.err)

    return run


@pytest.fixture
def measured_once(monkeypatch):
    """Costs are of one image generated in this process, and memory is left out: `test_costs.py` measures."""

    def once(configuration, repeats):
        work = costs._work(configuration, el.load(configuration.model, device="cpu", dtype="float32"))
        facts = {"allocated": 1.0, "before": 0.0, "reserved": math.nan, "attention": math.nan}
        return facts | {"seconds": timeit.repeat(work, number=1, repeat=1), "backends": [], "device": "cpu"}

    monkeypatch.setattr(costs, "in_fresh_process", once)


@contextmanager
def cell_shell():
    """IPython's shell, for as long as it is needed: it puts a main module of its own, which later processes
    cannot begin with.
    """
    main = sys.modules["__main__"]
    try:
        yield InteractiveShell.instance()
    finally:
        InteractiveShell.clear_instance()
        sys.modules["__main__"] = main


@pytest.fixture(scope="module")
def shell():
    """Runs cells in this process: a kernel of its own would import everything again, for each notebook."""
    with cell_shell() as running:
        yield running


@pytest.fixture
def execute(shell):
    """A notebook's code, cell by cell, with other parameters; its figures are drawn."""

    def run(path, values=None):
        shell.reset(new_session=False)
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source, store_history=False).raise_error()
            if "parameters" in cell.metadata.get("tags", []):
                shell.push(values or {})
        for number in plt.get_fignums():
            plt.figure(number).savefig(io.BytesIO(), dpi=30)
            plt.close(number)

    return run
