"""Profiles: what a file says, what it extends, and folders of runs with other values."""

import shutil

import pytest
import yaml

from entropy_lib.cli import profiles
from entropy_lib.cli.parameters import NOTEBOOKS, ParameterError, Sampling
from entropy_lib.cli.profiles import available, profile_parameters, profile_run


@pytest.mark.parametrize("profile", available())
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_profile_is_valid_for_every_notebook_and_gives_what_its_file_says(notebook, profile):
    checked = profile_parameters(notebook, profile)
    content = yaml.safe_load((profiles.PROFILES / f"{profile}.yaml").read_text(encoding="utf-8"))
    given = profiles._values(notebook, profile)
    said = {name: value for name, value in content.get("common", {}).items() if name in given} | (
        content.get(notebook) or {}
    )
    assert {name: given[name] for name in said} == said
    if getattr(checked, "reference", "").startswith("data/coco"):
        with pytest.raises(FileNotFoundError, match=r"no file matches .*data/coco"):
            checked.prompt_list()  # real images are for the user to bring
    elif isinstance(checked, Sampling):
        assert len(checked.prompt_list()) == checked.prompt_count
        assert len(checked.seed_list()) == getattr(checked, "seeds_per_prompt", checked.prompt_count)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a profile beside the shipped ones."""
    shutil.copytree(profiles.PROFILES, tmp_path / "profiles")
    monkeypatch.setattr(profiles, "PROFILES", tmp_path / "profiles")
    return lambda name, text: (tmp_path / "profiles" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_the_nearer_file_wins_over_the_sections_of_the_one_it_extends(mine):
    mine("base", "common: {steps: 20}\n06_metric_tables: {steps: 10, level: 0.9}\n")
    mine("mine", "extends: base\ncommon: {steps: 3}\n")
    mine("nearer", "extends: mine\n06_metric_tables: {steps: 4}\n07_cost_and_baselines:\n")
    mine("nearest", "extends: nearer\ncommon: {prompt_count: 12}\n")
    assert profile_parameters("06_metric_tables", "base").steps == 10, "a section says otherwise than common"
    for notebook in ("00_quickstart", "06_metric_tables", "07_cost_and_baselines"):
        assert profile_parameters(notebook, "mine").steps == 3
    assert [profile_parameters("06_metric_tables", name).steps for name in ("nearer", "nearest")] == [4, 4]
    assert profile_parameters("06_metric_tables", "nearest").level == 0.9
    assert profile_parameters("07_cost_and_baselines", "nearest").prompt_count == 12


def test_numbers_and_words_are_those_of_yaml_1_2():
    numbers, words = "1e-3, 2., -.5, -2, true, ~, .inf", "0x64, 010, 1:30, 1_0, no, on, 2026-11-24"
    assert profiles.load_yaml(f"[{numbers}]") == [0.001, 2.0, -0.5, -2, True, None, float("inf")]
    assert profiles.load_yaml(f"[{words}]") == words.split(", ")
    with pytest.raises(ParameterError, match="'a' occurs twice in line 1"):
        profiles.load_yaml("{a: 1, a: 2}")


def test_other_parameters_have_folders_of_their_own(tmp_path, monkeypatch):
    def run(**overrides):
        return profile_run("00_quickstart", "smoke", overrides)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        (folder / "mine.txt").write_text("a zebra\na bus\n", encoding="utf-8")
    changes = [{}, {"steps": 1}, {"steps": 3}, {"guidance": 1.0}, {"steps": 1, "guidance": 1.0}]
    runs = [run(**change) for change in [*changes, {"prompts": "mine.txt"}]]
    monkeypatch.chdir(tmp_path / "below")
    runs.append(run(prompts="mine.txt"))
    assert len({one.name for one in runs}) == len({one.parameters.output for one in runs}) == len(runs)
    assert all(one.parameters.output == f"build/output/{one.name}/00_quickstart" for one in runs)
    assert runs[0].name == run(steps=2).name == "smoke", "its own values"
    assert run(guidance=1.0, steps=1).name == run(steps=1, guidance=1.0).name
    assert runs[1].changed == {"steps": 1}
    assert run(steps=1, output="build/mine").parameters.output == "build/mine"
