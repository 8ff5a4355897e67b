"""The solutions of the exercises run."""

import pytest

from entropy_lib.files import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")), ids=lambda path: path.stem)
def test_solutions_run(path, execute):
    execute(path)
