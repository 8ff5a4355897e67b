"""Tables that are kept, and README, which tells what they say."""

import re
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import ROOT
from entropy_lib.running import results
from entropy_lib.running.command_line import app
from entropy_lib.sweep.comparison import NATIVE
from entropy_lib.sweep.reduce import REAL

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_says_what_the_committed_results_say():
    assert results.with_results(README) == README, "write it anew: python -m entropy_lib readme"


def test_no_number_with_an_interval_is_typed_into_readme_by_hand():
    before, _, rest = README.partition(results.START)
    after = rest.partition(results.END)[2]
    assert not re.search(r"\d %? ?\[-?\d", before + after)


@pytest.fixture
def kept(tmp_path):
    shutil.copytree(results.RESULTS, tmp_path / "results")
    return tmp_path / "results"


def test_other_results_are_another_readme(kept):
    path = next(kept.glob("*/06_metric_tables/differences.csv"))
    table = pd.read_csv(path)
    table.assign(estimate=-table.estimate, low=-table.high, high=-table.low).to_csv(path, index=False)
    assert results.with_results(README, kept) != README
    assert results.with_results(results.with_results(README, kept)) == README, "and back again"


def test_floors_are_no_rules():
    text = results.results_section().partition("Measured on")[0]
    assert not [floor for floor in (REAL, NATIVE) if floor in text]


def test_tables_are_kept_with_their_provenance(kept, tmp_path):
    source, output = next(kept.glob("*/06_metric_tables")), tmp_path / "output"
    shutil.copytree(source, output / "06_metric_tables")
    (output / "03_entropy_vs_tokens").mkdir()
    assert results.keep("mine", output, kept) == ["06_metric_tables"], "a folder without its tables is passed over"
    assert {path.name for path in (kept / "mine" / "06_metric_tables").iterdir()} == {path.name for path in source.iterdir()}
    assert "`mine`" in results.results_section(kept)
    with pytest.raises(InvalidInputError, match="run `entropy_lib run --profile other`"):
        results.keep("other", tmp_path / "nothing", kept)


def test_kept_tables_of_several_profiles_stand_below_each_other(kept):
    shutil.copytree(kept / "mini-full", kept / "mine")
    table = results.kept_tables("06_metric_tables", "levels", ["mini-full", "nothing", "mine"], kept)
    assert list(table.profile.unique()) == ["mini-full", "mine"]
    assert table.profile.value_counts().nunique() == 1
    assert results.kept_tables("06_metric_tables", "levels", ["nothing"], kept).empty


def test_a_readme_that_is_not_there_or_has_no_marks_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidInputError, match="in a checkout"):
        results.write_readme(tmp_path / "README.md")
    (tmp_path / "README.md").write_text("# mine", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="end of results"):
        results.write_readme(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# mine"


def test_the_command_writes_readme(monkeypatch):
    asked = []
    monkeypatch.setattr(results, "write_readme", lambda: asked.append("readme"))
    monkeypatch.setattr(results, "keep", lambda profile, output: asked.append((profile, output.name)) or [])
    assert CliRunner().invoke(app, ["readme", "--keep", "mini"]).exit_code == 0
    assert asked == [("mini", "mini"), "readme"]
