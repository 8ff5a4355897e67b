import shutil

import pytest
import yaml

from entropy_lib.errors import UnknownNameError
from entropy_lib.running import profiles
from entropy_lib.running.parameters import CLASSES, NOTEBOOKS, ParameterError, Sampling, Sweep
from entropy_lib.running.profiles import available, profile_parameters, profile_run


@pytest.mark.parametrize("profile", available())
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_profile_is_valid_for_every_notebook(notebook, profile):
    checked = profile_parameters(notebook, profile)
    if getattr(checked, "reference", "").startswith("data/coco"):
        with pytest.raises(FileNotFoundError, match=r"no file matches .*data/coco"):
            checked.prompt_list()  # real pictures are for the user to bring
    elif isinstance(checked, Sweep):
        assert len(checked.prompt_list()) == checked.prompt_count
        assert len(checked.seed_list()) == checked.seeds_per_prompt
    elif isinstance(checked, Sampling):
        assert len(checked.prompt_list()) == len(checked.seed_list()) == checked.prompt_count


def test_unknown_profile_and_notebook_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mini'"):
        profile_parameters("00_quickstart", "minni")
    with pytest.raises(UnknownNameError, match="did you mean '00_quickstart'"):
        profile_parameters("00_quikstart", "mini")


def test_a_profile_without_a_section_says_so(tmp_path, monkeypatch):
    (tmp_path / "partial.yaml").write_text(yaml.safe_dump({"common": {}}), encoding="utf-8")
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    with pytest.raises(ParameterError, match="has no section '00_quickstart'"):
        profile_parameters("00_quickstart", "partial")


def test_a_profile_that_extends_another_says_only_what_differs():
    full, paper = profile_parameters("03_entropy_vs_tokens", "sd21"), profile_parameters("03_entropy_vs_tokens", "sd21-paper")
    assert full.model_dump(exclude={"prompt_count", "rows", "output"}) == paper.model_dump(
        exclude={"prompt_count", "rows", "output"}
    )
    assert (full.rows, paper.rows, paper.prompt_count) == (256, 0, 200)
    assert "sd21-paper" in paper.output


def test_sizes_of_a_profile_suit_its_model():
    from entropy_lib.models.catalogue import entry
    from entropy_lib.sizes import check_size, parse_size

    for profile in available():
        for notebook in NOTEBOOKS:
            checked = profile_parameters(notebook, profile)
            for size in getattr(checked, "sizes", []) if isinstance(checked, Sampling) else []:
                check_size(*parse_size(size), entry(checked.model).size_multiple)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a profile beside the shipped ones."""
    shutil.copytree(profiles.PROFILES, tmp_path / "profiles")
    monkeypatch.setattr(profiles, "PROFILES", tmp_path / "profiles")
    return lambda name, text: (tmp_path / "profiles" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_the_nearer_file_wins_over_the_sections_of_the_one_it_extends(mine):
    mine("mine", "extends: mini\ncommon: {steps: 3}\n")
    mine("nearer", "extends: mine\n06_metric_tables: {steps: 4}\n07_cost_and_baselines:\n")
    mine("nearest", "extends: nearer\ncommon: {prompt_count: 12}\n")
    assert profile_parameters("06_metric_tables", "mini").steps == 10, "a section says otherwise than common"
    for notebook in ("00_quickstart", "06_metric_tables", "07_cost_and_baselines"):
        assert profile_parameters(notebook, "mine").steps == 3
    assert [profile_parameters("06_metric_tables", name).steps for name in ("nearer", "nearest")] == [4, 4]
    assert profile_parameters("07_cost_and_baselines", "nearest").prompt_count == 12


@pytest.mark.parametrize("profile", available())
@pytest.mark.parametrize("notebook", CLASSES)
def test_a_profile_gives_what_its_own_file_says(profile, notebook):
    content = yaml.safe_load((profiles.PROFILES / f"{profile}.yaml").read_text(encoding="utf-8"))
    given = profiles.section(notebook, profile)
    said = {name: value for name, value in content.get("common", {}).items() if name in given} | (content.get(notebook) or {})
    assert {name: given[name] for name in said} == said


@pytest.mark.parametrize("profile", ["sd21-paper", "sdxl-paper", "ldm256-paper"])
def test_the_profiles_of_the_paper_ask_for_200_prompts_where_they_do_not_say_otherwise(profile):
    asked = {notebook: profile_parameters(notebook, profile) for notebook in CLASSES}
    counts = {notebook[:2]: checked.prompt_count for notebook, checked in asked.items() if hasattr(checked, "prompt_count")}
    others = {"02": 24, "05": 16, "06": counts["06"]}
    assert counts == dict.fromkeys(counts, 200) | others
    assert counts["06"] >= 10_000


def test_all_notebooks_of_a_profile_cannot_be_given_one_folder(mine):
    mine("mine", "extends: mini\ncommon: {output: build/mine}\n")
    with pytest.raises(UnknownNameError, match="section 'common' of profile 'mine' 'output'"):
        profile_parameters("06_metric_tables", "mine")


def test_other_parameters_have_folders_of_their_own(tmp_path, monkeypatch):
    def run(**overrides):
        return profile_run("00_quickstart", "smoke", overrides)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("a zebra\na bus\n", encoding="utf-8")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.txt").write_text("a bus\na zebra\n", encoding="utf-8")
    runs = [run(), run(steps=1), run(steps=3), run(guidance=1.0), run(steps=1, guidance=1.0), run(prompts="mine.txt")]
    monkeypatch.chdir(tmp_path / "below")
    runs.append(run(prompts="mine.txt"))
    assert len({one.name for one in runs}) == len({one.parameters.output for one in runs}) == len(runs)
    assert all(one.parameters.output == f"build/output/{one.name}/00_quickstart" for one in runs)
    assert runs[0].name == run(steps=2).name == "smoke", "its own values"
    assert run(guidance=1.0, steps=1).name == run(steps=1, guidance=1.0).name
    assert runs[1].changed == {"steps": 1}
    assert run(steps=1, output="build/mine").parameters.output == "build/mine"
