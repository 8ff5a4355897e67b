"""A notebook without a class of parameters: one made from its own cell is as strict as those that are written."""

import nbformat
import pytest

from entropy_lib.errors import InvalidInputError, UnknownNameError
from entropy_lib.running import parameters
from entropy_lib.running.parameters import NOTEBOOKS, ParameterError, check_parameters, drawn_images
from entropy_lib.running.parameters_cell import cell_values, implied_type
from entropy_lib.running.profiles import profile_parameters
from entropy_lib.running.readiness import check_ready

SAMPLING = """model = "mini"
device = "auto"
dtype = "auto"
prompts = "mini"
prompt_count = 3
seed = 0
steps = 20
guidance = 2.0
output = "build/output/notebook/07_example"  # a comment
sizes = ["32x32", "64x64"]
rules = ["unscaled", "paper"]
threshold = 0.5
colours = ["red", "blue"]
wide = True
"""
SMALL = 'seed = 0\noutput = "build/output/notebook/07_example"\n'


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Puts a notebook with such a parameters cell into a folder of notebooks."""
    monkeypatch.setattr(parameters, "FOLDER", tmp_path)

    def write(source: str, name: str = "07_example", tags: tuple[str, ...] = ("parameters",)) -> None:
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")

    return write


def test_a_notebook_that_is_one_file_has_checked_parameters_in_every_profile(written):
    written(SAMPLING)
    assert "07_example" in NOTEBOOKS
    checked = profile_parameters("07_example", "sd21", {"threshold": 1, "sizes": ["512x512"]})
    assert (checked.model, checked.steps, checked.guidance) == ("sd21-base", 50, 7.5), "the profile's"
    assert (checked.threshold, checked.colours, checked.wide) == (1.0, ["red", "blue"], True)
    assert profile_parameters("07_example", "smoke").output == "build/output/smoke/07_example"
    assert checked.rule_names() == ["unscaled", "paper"]
    assert drawn_images(checked) == 24 * 1 * 2
    assert len(profile_parameters("07_example", "mini").sampling()["prompts"]) == 3
    check_ready(profile_parameters("07_example", "smoke"))


def test_one_that_draws_nothing_needs_a_seed_and_a_folder(written):
    written(SMALL)
    assert drawn_images(profile_parameters("07_example", "mini")) == 0
    with pytest.raises(ParameterError, match="parameter 'seed' is missing"):
        check_parameters("07_example", {"output": "build"})


def test_a_section_of_a_profile_overrides_what_the_cell_says(written, tmp_path, monkeypatch):
    written(SAMPLING)
    (tmp_path / "mine.yaml").write_text("07_example:\n  threshold: 0.25\n", encoding="utf-8")
    monkeypatch.setattr("entropy_lib.running.profiles.PROFILES", tmp_path)
    assert profile_parameters("07_example", "mine").threshold == 0.25
    (tmp_path / "mine.yaml").write_text("07_example:\n  treshold: 0.25\n", encoding="utf-8")
    with pytest.raises(UnknownNameError, match="'treshold'; did you mean 'threshold'"):
        profile_parameters("07_example", "mine")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"treshold": 0.5}, "unknown parameter of 07_example 'treshold'; did you mean 'threshold'"),
        ({"setps": 3}, "'setps'; did you mean 'steps'"),
        ({"threshold": "0.5"}, "threshold is '0.5', a text; it must be a number"),
        ({"colours": "red"}, "colours"),
        ({"colours": [1]}, r"colours\[0\] is 1; it must be a text"),
        ({"wide": 1}, "wide"),
        ({"steps": 0}, "steps is 0; it must be more than 0"),
        ({"rules": ["papper"]}, "did you mean 'paper'"),
        ({"model": "minni"}, "did you mean 'mini'"),
        ({"sizes": ["64x100"]}, "positive multiple of 8 pixels"),
        ({"prompt_count": 5000}, "the prompt list 'mini' has 200"),
        ({"output": "../elsewhere"}, "leads out of"),
    ],
    ids=str,
)
def test_bad_values_are_refused_as_for_the_others(written, overrides, message):
    written(SAMPLING)
    with pytest.raises(InvalidInputError, match=message):
        profile_parameters("07_example", "smoke", overrides)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("level = 2", "level is 2; it must be less than 1"),
        ("rule = 'papper'", "did you mean 'paper'"),
        ("x = 2 * 3", "'x = 2 \\* 3' is not name = value"),
        ("x = {'a': 1}", "not name = value"),
        ("x = []", "not name = value"),
        ("x = None", "not name = value"),
        ("x = [1, 'a']", "not name = value"),
        ("x: int = 3", "not name = value"),
        ("x, y = 1, 2", "not name = value"),
        ("import os", "not name = value"),
        ("x = (", "cannot be read"),
        ("seed = 1", "'seed' is given twice"),
        ("folder = 'here'", "'folder' cannot be the name"),
        ("_x = 1", "'_x' cannot be the name"),
        ("model = 'mini'", "'prompt_count' is missing"),
    ],
)
def test_a_bad_parameters_cell_is_one_clear_error(written, line, message):
    written(f"{SMALL}{line}\n")
    with pytest.raises(ParameterError, match=f"07_example: .*{message}"):
        profile_parameters("07_example", "mini")


def test_a_notebook_without_a_parameters_cell_says_so_and_other_names_are_no_notebooks(written, tmp_path):
    written(SMALL, tags=())
    with pytest.raises(ParameterError, match="07_example: it has 0 cells with the tag 'parameters'"):
        profile_parameters("07_example", "mini")
    (tmp_path / "07_example.ipynb").write_text("no notebook", encoding="utf-8")
    with pytest.raises(ParameterError, match="07_example: its parameters cannot be read"):
        profile_parameters("07_example", "mini")
    written(SMALL, "Untitled")
    with pytest.raises(UnknownNameError, match="unknown notebook 'Untitled'"):
        profile_parameters("Untitled", "mini")


def test_types_are_those_of_the_values(tmp_path):
    assert [implied_type(value) for value in (True, 1, 1.0, "a", [1, 2.0], [[1], [2]])] == [
        bool, int, float, str, list[float], list[list[int]]
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="cannot be read"):
        cell_values(tmp_path / "none.ipynb")
