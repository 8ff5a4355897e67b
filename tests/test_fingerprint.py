"""What makes a finished notebook run again, and what does not."""

import shutil

import pytest

from entropy_lib.files import PACKAGE, ROOT
from entropy_lib.running import fingerprint as module
from entropy_lib.running.fingerprint import code_digest, fingerprint
from entropy_lib.running.profiles import profile_parameters

NOTEBOOK = ROOT / "notebooks" / "00_quickstart.ipynb"


def print_of(**overrides):
    return fingerprint(NOTEBOOK, profile_parameters("00_quickstart", "smoke", overrides))


def test_the_contents_of_a_prompt_file_count(tmp_path):
    prompts = tmp_path / "mine.txt"
    prompts.write_text("a zebra\na bus\n", encoding="utf-8")
    before = print_of(prompts=str(prompts))
    assert print_of(prompts=str(prompts)) == before
    prompts.write_text("a zebra\na dog\n", encoding="utf-8")
    assert print_of(prompts=str(prompts)) != before


def test_the_contents_of_a_model_folder_count(tmp_path):
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    before = print_of(model=str(tmp_path))
    (tmp_path / "weights.safetensors").write_bytes(b"1")
    assert print_of(model=str(tmp_path)) != before


@pytest.mark.parametrize("package", ["torch", "diffusers", "scipy", "matplotlib"])
def test_the_version_of_a_package_counts(monkeypatch, package):
    before = print_of()
    own = module.metadata.version
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.0" if name == package else own(name))
    assert print_of() != before


@pytest.fixture
def library(tmp_path):
    """A copy of the library to edit."""
    return shutil.copytree(PACKAGE, tmp_path / "entropy_lib", ignore=shutil.ignore_patterns("__pycache__", "templates"))


def edited(library, name, old, new):
    path = library / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    code_digest.cache_clear()
    return code_digest(library)


def test_text_that_decides_nothing_changes_nothing(library):
    code_digest.cache_clear()
    before = code_digest(library)
    assert edited(library, "sizes.py", '"""', '"""Edited. ') == before
    assert edited(library, "sizes.py", "import re\n", "import re  # a comment\n\n") == before
    assert edited(library, "mini/__init__.py", '"""', '"""Edited. ') == before
    for name in ("running/doctor.py", "mini/training.py"):  # no notebook comes there
        assert edited(library, name, "import ", "import this\nimport ") == before, name


@pytest.mark.parametrize(
    "name", ["sizes.py", "scaling/rules.py", "experiments/generation.py", "running/parameters.py", "mini/scenes.py"]
)
def test_code_that_notebooks_come_to_counts(library, name):
    code_digest.cache_clear()
    before = code_digest(library)
    (library / name).write_text((library / name).read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    code_digest.cache_clear()
    assert code_digest(library) != before
