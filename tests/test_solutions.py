"""The solutions of the exercises run."""

import pytest

import entropy_lib as el
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.files import ROOT


@pytest.fixture
def quick(monkeypatch):
    """Few images in few steps, few real ones: a solution is asked whether it runs, and draws longer than it
    computes.
    """

    def parameters(notebook, profile, values):
        few = {"steps": min(values.get("steps", 2), 4), "prompt_count": min(values.get("prompt_count", 8), 8)}
        judged = {"reference": "scenes:300"} if notebook in ("06_metric_tables", "09_layout_metrics") else {}
        return profile_parameters(notebook, profile, values | few | judged)

    monkeypatch.setattr(el.cli, "profile_parameters", parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_solutions_run(path, execute, quick):
    execute(path)
