"""Parameters of notebooks come from their own cell; a notebook of one's own is one file, and as strict as
the others.
"""

import shutil

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from entropy_lib.cli import parameters
from entropy_lib.cli.parameters import NOTEBOOKS, RECORD, ParameterError, check_parameters, image_count
from entropy_lib.cli.parameters_cell import implied_type
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.cli.sweeps import check_ready
from entropy_lib.errors import InvalidInputError, UnknownNameError

SMALL = 'seed = 0\noutput = "build/output/notebook/11_example"\n'
SAMPLING = f"""{SMALL}model = "mini"  # a comment
device = "auto"
dtype = "auto"
prompts = "mini"
prompt_count = 3
steps = 20
guidance = 2.0
sizes = ["32x32", "64x64"]
rules = ["unscaled", "paper"]
threshold = 0.5
colours = ["red", "blue"]
wide = True
"""
CHECK = """%matplotlib inline
import entropy_lib as el

p = el.cli.check_parameters("11_example", globals())
el.cli.check_at_least(p, prompt_count=3, sizes=2)
print(p.provenance(el.load(p.model)))
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Puts a notebook with such cells beside the shipped ones."""
    for path in parameters.FOLDER.glob("*.ipynb"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(parameters, "FOLDER", tmp_path)

    def write(source, name="11_example", tags=("parameters",), check=CHECK):
        cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})]
        cells.append(nbformat.v4.new_code_cell(check))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")

    return write


def test_a_notebook_that_is_one_file_has_checked_parameters_in_every_profile(written):
    written(SAMPLING)
    assert "11_example" in NOTEBOOKS
    checked = profile_parameters("11_example", "sd21", {"threshold": 1, "sizes": ["512x512", "256x256"]})
    assert (checked.model, checked.steps, checked.guidance) == ("sd21-base", 50, 7.5), "the profile's"
    assert (checked.threshold, checked.colours, checked.wide) == (1.0, ["red", "blue"], True)
    assert image_count(checked) == 24 * 2 * 2
    assert profile_parameters("11_example", "flux").output == "build/output/flux/11_example"
    assert len(profile_parameters("11_example", "mini").sampling()["prompts"]) == 3
    check_ready(profile_parameters("11_example", "mini"))


def test_one_that_generates_nothing_needs_a_seed_and_a_folder(written):
    written(SMALL, check="")
    assert image_count(profile_parameters("11_example", "mini")) == 0
    with pytest.raises(ParameterError, match="parameter 'seed' is missing"):
        check_parameters("11_example", {"output": "build"})


def test_a_section_of_a_profile_overrides_what_the_cell_says(written, tmp_path, monkeypatch):
    written(SAMPLING)
    monkeypatch.setattr("entropy_lib.cli.profiles.PROFILES", tmp_path)
    (tmp_path / "mine.yaml").write_text("11_example:\n  threshold: 0.25\n", encoding="utf-8")
    assert profile_parameters("11_example", "mine").threshold == 0.25


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"treshold": 0.5}, "unknown parameter of 11_example 'treshold'; did you mean 'threshold'"),
        ({"threshold": "0.5"}, "threshold is '0.5', a text; it must be a valid number"),
        ({"colours": [1]}, r"colours\[0\] is 1; it must be a valid string"),
        ({"rules": ["papper"]}, "did you mean 'paper'"),
        ({"sizes": ["64x64"]}, "11_example: sizes is .*; it must be a list of 2 or more"),
        ({"prompt_count": 2}, "11_example: prompt_count is 2; it must be 3 or more"),
        ({"seed": "x", "steps": -1}, "seed is 'x', a text; it must be a valid integer; steps is -1"),
    ],
)
def test_bad_values_are_refused(written, overrides, message):
    written(SAMPLING)
    with pytest.raises(InvalidInputError, match=message):
        profile_parameters("11_example", "mini", overrides)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("level = 2", "level is 2; it must be less than 1"),
        ("x = 2 * 3", "'x = 2 \\* 3' is not name = value"),
        ("x = [1, 'a']", "not name = value"),
        ("x: int = 3", "not name = value"),
        ("x = (", "cannot be read"),
        ("seed = 1", "'seed' is given twice"),
        ("folder = 'here'", "'folder' cannot be the name"),
        ("_x = 1", "'_x' cannot be the name"),
        ("model = 'mini'", "'prompt_count' is missing"),
    ],
)
def test_a_bad_parameters_cell_is_one_clear_error(written, line, message):
    written(f"{SMALL}{line}\n")
    with pytest.raises(ParameterError, match=f"11_example: .*{message}"):
        profile_parameters("11_example", "mini")


def test_a_notebook_without_a_parameters_cell_says_so_and_other_names_are_no_notebooks(written, tmp_path):
    written(SMALL, tags=())
    with pytest.raises(ParameterError, match="11_example: it has 0 cells with the tag 'parameters'"):
        profile_parameters("11_example", "mini")
    (tmp_path / "11_example.ipynb").write_text("no notebook", encoding="utf-8")
    with pytest.raises(ParameterError, match="11_example: its parameters cannot be read"):
        profile_parameters("11_example", "mini")
    written(SMALL, "Untitled")
    with pytest.raises(UnknownNameError, match="unknown notebook 'Untitled'"):
        profile_parameters("Untitled", "mini")


def test_a_check_that_needs_more_than_the_parameters_is_named(written):
    written(SMALL, check=f"{CHECK}el.statistics.check_shares(table.rules)\n")
    with pytest.raises(ParameterError, match=r"its check '.*' cannot be made of `el` and `p`"):
        profile_parameters("11_example", "mini")


def test_types_are_those_of_the_values():
    assert [implied_type(value) for value in (True, 1, 1.0, "a", [1, 2.0], [[1], [2]])] == [
        bool, int, float, str, list[float], list[list[int]]
    ]  # fmt: skip


def test_what_is_saved_is_a_file_of_its_kind_and_anything_else_is_refused_before(tmp_path):
    checked = profile_parameters("01_theory", "smoke", {"output": str(tmp_path)})
    figure, ax = plt.subplots()
    plt.close(figure)
    table = pd.DataFrame({"figure": [1 / 3]})
    with pytest.raises(InvalidInputError, match="number is 3; save takes a table, a figure"):
        checked.save(law=table, number=3)
    assert not list(tmp_path.iterdir())
    checked.save(law=table, one=figure, other=ax, grid=np.arange(3), provenance="by hand")
    assert {path.name for path in tmp_path.iterdir()} == {
        "law.csv", "one.png", "other.png", "grid.npy", "provenance.txt", RECORD
    }  # fmt: skip
    assert (tmp_path / "law.csv").read_text(encoding="utf-8") == "figure\n0.333333\n"
    assert np.load(tmp_path / "grid.npy").tolist() == [0, 1, 2]
    assert (tmp_path / "provenance.txt").read_text(encoding="utf-8") == "by hand\n"


def test_a_prompt_list_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "captions.txt").write_text("# mine\na zebra\n\nein Käse\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    checked = profile_parameters("00_quickstart", "smoke", {"prompts": "captions.txt"})
    monkeypatch.chdir("/")
    assert checked.prompt_list() == ["a zebra", "ein Käse"]


def test_images_are_counted():
    counts = {"05_image_grids": 2 * 3 * 2, "04_entropy_per_layer": 2 * 3 * 2}  # 04: and the native size
    counts["07_cost_and_baselines"] = 4 * (2 * 2 + 2 * 2)  # below native size and above
    assert {name: image_count(profile_parameters(name, "smoke")) for name in counts} == counts


def test_provenance_names_everything_that_decides_the_numbers(pipe):
    line = profile_parameters("00_quickstart", "mini").provenance(pipe)
    assert line.startswith("model mini @ ")
    sampler, samples = "DDIMScheduler, 10 steps · guidance 3", "6 prompts of 'mini' · seeds 0 to 5"
    for part in (sampler, samples, "float32", "no safety checker"):
        assert part in line
