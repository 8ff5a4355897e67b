import pytest
import yaml

from entropy_lib import profiles
from entropy_lib.errors import UnknownNameError
from entropy_lib.profiles import NOTEBOOKS, ParameterError, Sampling, available, check, parameters


@pytest.mark.parametrize("profile", available())
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_profile_is_valid_for_every_notebook(notebook, profile):
    checked = parameters(notebook, profile)
    if isinstance(checked, Sampling):
        assert len(checked.prompt_list()) == len(checked.seed_list()) == checked.prompt_count


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"setps": 3}, "unknown parameter of 03_entropy_vs_tokens 'setps'; did you mean 'steps'"),
        ({"steps": "30"}, r"steps: .*got '30' \(str\)"),
        ({"steps": 0}, "steps: .*greater than 0"),
        ({"steps": True}, "steps"),
        ({"guidance": "1e-3"}, "guidance"),
        ({"rules": ["papper"]}, "did you mean 'paper'"),
        ({"rules": []}, "rules"),
        ({"model": "minni"}, "did you mean 'mini'"),
        ({"prompts": "mimi"}, "unknown prompt list 'mimi'; did you mean 'mini'"),
        ({"sizes": ["64x64", "64x100"]}, "width is 100; it must be a positive multiple of 8 pixels.*96 or 104"),
        ({"sizes": ["64x64", [64, 96]]}, "not written as height x width"),
        ({"level": 1.0}, "level"),
        ({"output": None}, "output"),
    ],
    ids=str,
)
def test_bad_parameters_are_named_and_explained(overrides, message):
    with pytest.raises(ValueError, match=message):
        parameters("03_entropy_vs_tokens", "smoke", overrides)


def test_all_problems_are_listed_at_once():
    with pytest.raises(ParameterError, match=r"(?s)seed.*steps|steps.*seed"):
        parameters("00_quickstart", "smoke", {"seed": "x", "steps": -1})


def test_a_parameter_misspelt_inside_a_notebook_is_missed():
    values = parameters("00_quickstart", "smoke").model_dump()
    values["setps"] = values.pop("steps")
    with pytest.raises(ParameterError, match="parameter 'steps' is missing"):
        check("00_quickstart", values | {"unrelated": object()})


def test_unknown_profile_and_notebook_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mini'"):
        parameters("00_quickstart", "minni")
    with pytest.raises(UnknownNameError, match="did you mean '00_quickstart'"):
        parameters("00_quikstart", "mini")


def test_too_few_prompts_are_counted():
    with pytest.raises(ValueError, match="prompt_count is 5000, but the prompt list 'mini' has 200"):
        parameters("00_quickstart", "smoke", {"prompt_count": 5000}).prompt_list()


def test_a_profile_without_a_section_says_so(tmp_path, monkeypatch):
    (tmp_path / "partial.yaml").write_text(yaml.safe_dump({"common": {}}))
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    with pytest.raises(ParameterError, match="has no section '00_quickstart'"):
        parameters("00_quickstart", "partial")
