import pytest
import yaml

from entropy_lib.errors import UnknownNameError
from entropy_lib.running import profiles
from entropy_lib.running.parameters import NOTEBOOKS, ParameterError, Sampling, Sweep
from entropy_lib.running.profiles import available, profile_parameters


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
