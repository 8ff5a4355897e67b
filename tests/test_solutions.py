"""The solutions of the exercises run."""

import pytest

import entropy_lib as el
from entropy_lib.files import ROOT
from entropy_lib.running.profiles import profile_parameters


@pytest.fixture
def two_steps(monkeypatch):
    """Every picture in two steps: a solution is asked whether it runs, and draws longer than it computes."""
    monkeypatch.setattr(el.running, "profile_parameters", lambda *given: profile_parameters(*given[:2], given[2] | {"steps": 2}))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")), ids=lambda path: path.stem)
def test_solutions_run(path, execute, two_steps):
    execute(path)
