"""What makes a finished notebook run again, and what does not."""

import os
import shutil

import nbformat
import pytest

from entropy_lib.cli import fingerprint as module
from entropy_lib.cli.fingerprint import fingerprint, versions
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.files import ROOT, WORKPLACE

NOTEBOOK = ROOT / "notebooks" / "00_quickstart.ipynb"


def print_of(**overrides):
    return fingerprint(NOTEBOOK, profile_parameters("00_quickstart", "smoke", overrides))


def test_the_contents_of_a_model_folder_count(tmp_path):
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    before = print_of(model=str(tmp_path))
    (tmp_path / "weights.safetensors").write_bytes(b"1")
    assert print_of(model=str(tmp_path)) != before


def test_packages_that_are_installed_count_and_their_versions(tmp_path, monkeypatch):
    found = [print_of()]
    for version in ("1.0", "1.1"):
        (tmp_path / version / "xformers.dist-info").mkdir(parents=True)
        described = f"Name: xformers\nVersion: {version}\n"
        (tmp_path / version / "xformers.dist-info" / "METADATA").write_text(described, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / version)
        versions.cache_clear()
        assert versions()["xformers"] == version
        found.append(print_of())
    versions.cache_clear()
    assert len(set(found)) == 3


@pytest.fixture(params=["PACKAGE", "DATA"])
def shipped(request, tmp_path, monkeypatch):
    """A copy of the library, or of the data, to edit."""
    names = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.parquet")
    copy = shutil.copytree(getattr(module, request.param), tmp_path / "copy", ignore=names)
    monkeypatch.setattr(module, request.param, copy)
    return copy


def test_every_file_of_the_library_and_of_the_data_counts(shipped):
    """What a list by hand would forget: a file changed, in place and without a new date, renamed, added."""
    before = print_of()
    for path in sorted(shipped.rglob("*.*"))[::40]:
        state, content = path.stat(), path.read_bytes()
        path.write_bytes(content + b"\n")
        assert print_of() != before, path
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        path.rename(path.with_name(f"_{path.name}"))
        assert print_of() != before, path
        path.with_name(f"_{path.name}").rename(path)
    assert print_of() == before
    (shipped / "__pycache__").mkdir(exist_ok=True)
    (shipped / "__pycache__" / "files.cpython-311.pyc").write_bytes(b"x")
    assert print_of() == before, "what Python keeps beside the library does not count"
    (shipped / "new.py").write_text("X = 1\n", encoding="utf-8")
    assert print_of() != before


@pytest.mark.parametrize("name", ["answers", "reference", "store"])
def test_what_a_parameter_names_counts_but_what_a_notebook_writes(tmp_path, monkeypatch, name):
    monkeypatch.setenv(WORKPLACE, str(tmp_path))
    (tmp_path / "mine" / "below").mkdir(parents=True)
    value = "mine/*.csv" if name == "reference" else "mine"

    def of_a_study():
        return fingerprint(
            NOTEBOOK, profile_parameters("08_user_study", "smoke").model_copy(update={name: value})
        )

    before = of_a_study()
    (tmp_path / "mine" / "answers-1.csv").write_text("1", encoding="utf-8")
    assert (of_a_study() != before) == (name != "store")


def test_a_cell_and_its_tags_count_and_its_outputs_do_not(tmp_path):
    path, notebook = tmp_path / "mine.ipynb", nbformat.read(NOTEBOOK, as_version=4)
    checked = profile_parameters("00_quickstart", "smoke")

    def printed():
        nbformat.write(notebook, path)
        return fingerprint(path, checked)

    before = printed()
    notebook.cells[-2].execution_count = 7
    notebook.metadata.kernelspec.display_name = "mine"
    assert printed() == before
    notebook.cells[2].metadata.tags = []
    assert printed() != before
