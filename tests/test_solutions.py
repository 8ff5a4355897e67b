"""The solutions of the exercises run."""

import pytest

import entropy_lib as el
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.files import ROOT

FEW = {"steps": 4, "prompt_count": 6, "rows": 8}  # at most


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Images of all solutions."""
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture
def quick(monkeypatch, store, measured_once):
    """Few images in few steps, few real ones: a solution is asked whether it runs."""

    def parameters(notebook, profile, values):
        asked = profile_parameters(notebook, profile, values).model_dump()
        few = {name: min(asked.get(name, most), most) for name, most in FEW.items()}
        own = few | {"store": store, "reference": "scenes:60"}
        own = {name: value for name, value in own.items() if name in asked}
        return profile_parameters(notebook, profile, values | own)

    monkeypatch.setattr(el.cli, "profile_parameters", parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_solutions_run(path, execute, quick):
    execute(path)
