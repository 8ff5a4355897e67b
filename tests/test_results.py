"""Tables that are kept, and README, which tells what they say."""

import json
import re
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import ROOT
from entropy_lib.running import results
from entropy_lib.running.command_line import app
from entropy_lib.running.parameters import RECORD
from entropy_lib.running.profiles import profile_parameters
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


@pytest.fixture
def output(kept, tmp_path):
    """What runs of three notebooks in profile mini-full wrote, as its kept tables say."""
    for name in ("06_metric_tables", "07_cost_and_baselines", "10_causes"):
        shutil.copytree(kept / "mini-full" / name, tmp_path / "output" / name)
        recorded = json.dumps({"parameters": profile_parameters(name, "mini-full").model_dump()})
        (tmp_path / "output" / name / RECORD).write_text(recorded, encoding="utf-8")
    (tmp_path / "output" / "03_entropy_vs_tokens").mkdir()
    shutil.rmtree(kept / "mini-full")
    return tmp_path / "output"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tables_are_kept_with_their_provenance_and_parameters(kept, output):
    there = ["06_metric_tables", "07_cost_and_baselines", "10_causes"]
    assert results.keep("mini-full", output, kept) == there, "an empty folder is passed over"
    for name in there:
        names = {path.name for path in (output / name).iterdir()}
        assert names == {path.name for path in (kept / "mini-full" / name).iterdir()}
        assert RECORD in names
    assert "`mini-full`" in results.results_section(kept)
    with pytest.raises(InvalidInputError, match="run `entropy_lib run --profile mini`"):
        results.keep("mini", output / "nothing", kept)


def cut(text):
    return "".join(text.splitlines(keepends=True)[:1])


@pytest.mark.parametrize(
    ("path", "edit", "said"),
    [
        ("07_cost_and_baselines/provenance.txt", None, "provenance.txt cannot be read"),
        ("07_cost_and_baselines/provenance.txt", lambda text: "", "provenance.txt does not say"),
        ("10_causes/provenance.txt", lambda text: "\n" + text, "provenance.txt does not say"),
        ("06_metric_tables/levels.csv", None, "levels.csv cannot be read"),
        ("06_metric_tables/levels.csv", lambda text: "", "levels.csv cannot be read"),
        ("06_metric_tables/levels.csv", cut, "levels.csv holds no rows"),
        ("06_metric_tables/levels.csv", lambda text: text.replace("size", "seize"), "levels.csv is not as notebooks write it"),
        ("10_causes/dose.csv", lambda text: "{}", "dose.csv is not as|dose.csv holds no rows"),
        ("10_causes/dose.csv", lambda text: "\0" * 9, "dose.csv"),
        ("10_causes/dose.csv", lambda text: 'a,"b\nc', "dose.csv cannot be read"),
        ("10_causes/shares.csv", lambda text: "", "shares.csv cannot be read"),
        (f"10_causes/{RECORD}", None, "is missing or does not say"),
        (f"10_causes/{RECORD}", lambda text: "{", "is missing or does not say"),
        (f"10_causes/{RECORD}", lambda text: "[]", "is missing or does not say"),
        (
            f"10_causes/{RECORD}",
            lambda text: text.replace('"seed": 0', '"seed": 1'),
            "10_causes is not of profile.*seed is 1, not 0",
        ),
        (f"10_causes/{RECORD}", lambda text: text.replace('"mini"', '"mini-weak"', 1), "model is 'mini-weak', not 'mini'"),
        (f"10_causes/{RECORD}", lambda text: text.replace('"seed": 0', '"seeed": 0'), "seed is None, not 0"),
    ],
)
def test_what_cannot_be_kept_is_named_before_anything_is_copied(kept, output, path, edit, said):
    file, before = output / path, contents(kept)
    if edit is None:
        file.unlink()
    else:
        text = file.read_text(encoding="utf-8")
        assert edit(text) != text
        file.write_text(edit(text), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=said) as refused:
        results.keep("mini-full", output, kept)
    assert path.partition("/")[0] in str(refused.value)
    assert contents(kept) == before


def test_tables_of_another_notebook_or_profile_are_not_kept(kept, output):
    with pytest.raises(InvalidInputError, match="06_metric_tables is not of profile 'mini'"):
        results.keep("mini", output, kept)
    with pytest.raises(InvalidInputError, match="unknown profile"):
        results.keep("mine", output, kept)


@pytest.mark.parametrize("name", ["provenance.txt", "differences.csv"])
def test_a_damaged_file_among_the_kept_ones_is_named(kept, name):
    (kept / "mini-full" / "06_metric_tables" / name).write_text("", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=rf"mini-full.06_metric_tables.{name}"):
        results.with_results(README, kept)


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


def test_nothing_is_copied_where_readme_cannot_be_written(monkeypatch, tmp_path, command):
    monkeypatch.setattr(results, "keep", lambda *_: pytest.fail("tables were copied"))
    monkeypatch.setattr(results.read_readme, "__defaults__", (tmp_path / "README.md",))
    assert "in a checkout" in command("readme", "--keep", "mini").err
