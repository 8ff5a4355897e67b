import pytest

from entropy_lib.running.parameters import ParameterError, check_parameters, drawn_images
from entropy_lib.running.profiles import profile_parameters


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"setps": 3}, "unknown parameter of 03_entropy_vs_tokens 'setps'; did you mean 'steps'"),
        ({"steps": "30"}, "steps is '30', a text; it must be a whole number"),
        ({"steps": 0}, "steps is 0; it must be more than 0"),
        ({"steps": True}, "steps"),
        ({"guidance": "1e-3"}, "guidance"),
        ({"rules": ["papper"]}, "did you mean 'paper'"),
        ({"rules": []}, "rules"),
        ({"model": "minni"}, "did you mean 'mini'"),
        ({"prompts": "mimi"}, r"unknown prompt list \(or text file, one prompt a line\) 'mimi'; did you mean 'mini'"),
        ({"sizes": ["64x64", "64x100"]}, "width is 100; it must be a positive multiple of 8 pixels.*96 or 104"),
        ({"sizes": ["64x64", [64, 96]]}, "not written as height x width"),
        ({"level": 1.0}, "level"),
        ({"output": None}, "output"),
    ],
    ids=str,
)
def test_bad_parameters_are_named_and_explained(overrides, message):
    with pytest.raises(ValueError, match=message):
        profile_parameters("03_entropy_vs_tokens", "smoke", overrides)


def test_all_problems_are_listed_at_once():
    with pytest.raises(ParameterError, match=r"(?s)seed.*steps|steps.*seed"):
        profile_parameters("00_quickstart", "smoke", {"seed": "x", "steps": -1})


def test_a_parameter_misspelt_inside_a_notebook_is_missed():
    values = profile_parameters("00_quickstart", "smoke").model_dump()
    values["setps"] = values.pop("steps")
    with pytest.raises(ParameterError, match="parameter 'steps' is missing"):
        check_parameters("00_quickstart", values | {"unrelated": object()})


def test_too_few_prompts_are_counted():
    with pytest.raises(ValueError, match="prompt_count is 5000, but the prompt list 'mini' has 200"):
        profile_parameters("00_quickstart", "smoke", {"prompt_count": 5000}).prompt_list()


def test_a_prompt_list_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "captions.txt").write_text("# mine\na zebra\n\nein Käse\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    checked = profile_parameters("00_quickstart", "smoke", {"prompts": "captions.txt"})
    monkeypatch.chdir("/")
    assert checked.prompt_list() == ["a zebra", "ein Käse"]


def test_images_are_counted():
    assert drawn_images(profile_parameters("01_theory", "mini")) == 0
    assert drawn_images(profile_parameters("05_image_grids", "smoke")) == 2 * 3 * 2
    assert drawn_images(profile_parameters("04_entropy_per_layer", "smoke")) == 2 * 3 * 2


def test_provenance_names_everything_that_decides_the_numbers(pipe):
    line = profile_parameters("00_quickstart", "mini").provenance(pipe)
    assert line.startswith("model mini @ ")
    for part in ("DDIMScheduler, 20 steps", "guidance 3", "6 prompts of 'mini'", "seeds 0 to 5", "float32", "no safety checker"):
        assert part in line
