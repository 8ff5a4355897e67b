"""Results: tables that are kept, docs/results.md, which shows them, and README, whose numbers are theirs."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from entropy_lib.cli import results
from entropy_lib.cli.command_line import app
from entropy_lib.cli.parameters import RECORD
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.errors import InvalidInputError
from entropy_lib.files import ROOT
from entropy_lib.plots.tables import sentence


def test_the_page_says_what_the_committed_results_say():
    assert results.page() == results.PAGE.read_text(encoding="utf-8"), (
        "write it anew: python -m entropy_lib results"
    )
    assert not re.search(r"\| (real|native), resized +\| unscaled", results.page()), (
        "baselines are not compared with a rule"
    )


SENTENCES = [
    "Asked for 128x128 instead of 64x64, the model over-counts: an image holds {estimate} objects too many, "
    "against {native:.2f} at its own size.",
    "Asked for 32x32, it under-counts: {estimate} objects are missing from an image, against {native:.2f}.",
    "The paper's rule removes {share:%} of the change of entropy at {size}.",
    "It changes the over-count there by {estimate} (interval unadjusted; {p_holm} after Holm's correction): "
    "no significant difference.",
    "Where entropy does recover, images do not: `{method}` removes {entropy:%} of its change there, and "
    "{share:%} of the over-counting.",
]
TRANSFORMER = [
    "Its images of {size} hold {estimate} objects too many, against {native:.2f} at its own size.",
    "Each unit of the rule's exponent changes that by {estimate} ({p_holm} after Holm's correction): worse.",
    "With positions interpolated only {estimate} are too many,",
    "and there each unit changes the number of missing objects by {estimate} ({p_holm}): better.",
    "`{method}` removes {entropy:%} of the change of entropy and {share:%} of the over-counting",
    "`{method}` removes {entropy:%} and {share:%}.",
]
EXPECTED = ["estimate > 0", "estimate < 0.2", "estimate < 0", "entropy > 0.9 and share < 0"]
EXPECTED += ["entropy < 0.1 and share > 0.9"]
LARGEST = "metric == @over and method == 'paper' and size == '128x128'"


def answers() -> list[str]:
    """The sentences of README, from the kept tables of the embedded models."""
    over, under = results.COUNTED

    def table(notebook, name, profile="mini-full"):
        return results.kept_tables(notebook, name, [profile])

    plain = table("09_layout_metrics", "levels").query("method == 'unscaled'").set_index(["metric", "size"])
    counts = [
        plain.loc[metric, size].to_dict() | {"native": plain.estimate[metric, "64x64"]}
        for metric, size in ((over, "128x128"), (under, "32x32"))
    ]
    removed = table("04_entropy_per_layer", "fraction_removed", "mini").query("size == '128x128'")
    changed = table("09_layout_metrics", "differences").query(LARGEST)
    shares = table("11_rival_explanations", "shares")
    restored = shares.query("size == '128x128' and method == 'equal-entropy(heads)'")
    more = "estimate > native"
    expected = [more, more, "share > 0 and share < 0.5", "estimate = 0", "entropy > 0.9 and share = 0"]
    return [
        *map(sentence, SENTENCES, expected, [*counts, removed, changed, restored]),
        *map(sentence, TRANSFORMER, [more, *EXPECTED], transformer()),
    ]


def transformer():
    """Rows of the sentences on the embedded transformer."""
    known, folder = ["mini-dit-full"], "10_dose_response"
    levels = results.kept_tables("09_layout_metrics", "levels", known).query("metric == 'Over-count'")
    at = levels.set_index(["size", "method"], drop=False)
    plain = at.loc["128x128", "unscaled"].to_dict() | {"native": at.estimate["64x64", "unscaled"]}
    interpolated = "positions(interpolated)"
    dose = results.kept_tables(folder, "dose", known).query("size == '128x128' and method == 'unscaled'")
    beside = results.kept_tables(folder, "beside", known).query(
        "size == '128x128' and method == @interpolated"
    )
    missing = beside.query("metric == 'Under-count'")
    shares = results.kept_tables("11_rival_explanations", "shares", known).query("size == '128x128'")
    apart = [shares[shares.method == name] for name in ("equal-entropy(heads)", interpolated)]
    return [plain, dose, at.loc[[("128x128", interpolated)]], missing, *apart]


def test_the_numbers_of_readme_are_those_of_the_committed_results():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for said in answers():
        assert said in text
        text = text.replace(said, "")
    assert not re.search(r"\d %? ?\[-?\d", text), "a number with an interval that is held to no table"


@pytest.fixture
def kept(tmp_path):
    shutil.copytree(results.RESULTS, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def output(kept, tmp_path):
    """What runs of three notebooks in profile mini-full wrote, as its kept tables say."""
    for name in ("06_metric_tables", "07_cost_and_baselines", "11_rival_explanations"):
        shutil.copytree(kept / "mini-full" / name, tmp_path / "output" / name)
        recorded = json.dumps({"parameters": profile_parameters(name, "mini-full").model_dump()})
        (tmp_path / "output" / name / RECORD).write_text(recorded, encoding="utf-8")
    (tmp_path / "output" / "03_entropy_vs_tokens").mkdir()
    shutil.rmtree(kept / "mini-full")
    return tmp_path / "output"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tables_are_kept_with_their_provenance_and_parameters(kept, output):
    there = ["06_metric_tables", "07_cost_and_baselines", "11_rival_explanations"]
    assert results.keep("mini-full", output, kept) == there, "an empty folder is passed over"
    for name in there:
        names = {path.name for path in (output / name).iterdir()}
        assert names == {path.name for path in (kept / "mini-full" / name).iterdir()}
        assert RECORD in names
    assert "`mini-full`" in results.page(kept)
    with pytest.raises(InvalidInputError, match="run `entropy_lib run --profile mini`"):
        results.keep("mini", output / "nothing", kept)


LEVELS, CAUSES = "06_metric_tables/levels.csv", f"11_rival_explanations/{RECORD}"
COSTS = "07_cost_and_baselines/provenance.txt"
DAMAGES = [  # file; text, and what it becomes; what is said
    (COSTS, None, None, "provenance.txt cannot be read"),
    (COSTS, ".+", "", "provenance.txt does not say"),
    (LEVELS, None, None, "levels.csv cannot be read"),
    (LEVELS, r"\n(.|\n)*", "\n", "levels.csv holds no rows"),
    (LEVELS, "size", "seize", "levels.csv cannot be read"),
    ("11_rival_explanations/choices.csv", r"(.|\n)+", 'a,"b\nc', "choices.csv cannot be read"),
    ("11_rival_explanations/shares.csv", r"(.|\n)+", "", "shares.csv cannot be read"),
    (CAUSES, None, None, "is missing or does not say"),
    (CAUSES, r"(.|\n)+", "[]", "is missing or does not say"),
    (CAUSES, '"seed": 0', '"seed": 1', "11_rival_explanations is not of.*seed is 1, not 0"),
    (CAUSES, '"seed": 0', '"seeed": 0', "seed is None, not 0"),
]


@pytest.mark.parametrize(("path", "old", "new", "said"), DAMAGES)
def test_what_cannot_be_kept_is_named_before_anything_is_copied(kept, output, path, old, new, said):
    file, before = output / path, contents(kept)
    if old is None:
        file.unlink()
    else:
        file.write_text(re.sub(old, new, file.read_text(encoding="utf-8"), count=1), encoding="utf-8")
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
        results.page(kept)


def test_kept_tables_of_several_profiles_stand_below_each_other(kept):
    shutil.copytree(kept / "mini-full", kept / "mine")
    table = results.kept_tables("06_metric_tables", "levels", ["mini-full", "nothing", "mine"], kept)
    assert list(table.profile.unique()) == ["mini-full", "mine"]
    assert table.profile.value_counts().nunique() == 1
    assert results.kept_tables("06_metric_tables", "levels", ["nothing"], kept).empty


def test_the_page_is_written_with_its_figure_in_a_checkout_alone(tmp_path, kept):
    page = tmp_path / "results.md"
    with pytest.raises(InvalidInputError, match="in a checkout"):
        results.write_page(page, kept)
    page.touch()
    results.write_page(page, kept)
    assert page.read_text(encoding="utf-8") == results.page()
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("answer", "recovery"))


def test_the_command_keeps_tables_only_where_the_page_can_be_written(monkeypatch):
    asked = []
    monkeypatch.setattr(results, "write_page", lambda: asked.append("page"))
    monkeypatch.setattr(results, "keep", lambda profile, output: asked.append((profile, output.name)))
    assert CliRunner().invoke(app, ["results", "--keep", "mini"]).exit_code == 0
    assert asked == [("mini", "mini"), "page"]
    monkeypatch.setattr(results.check_checkout, "__defaults__", (ROOT / "nowhere.md",))
    assert CliRunner().invoke(app, ["results", "--keep", "mini"]).exit_code != 0
    assert asked == [("mini", "mini"), "page"], "nothing was copied"
