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


@pytest.mark.parametrize("package", ["torch", "jinja2", "tabulate"])
def test_the_version_of_a_package_counts(monkeypatch, package):
    before = print_of()
    assert package in {name.lower() for name in versions()}
    changed = {name: "0.0" if name.lower() == package else version for name, version in versions().items()}
    monkeypatch.setattr(module, "versions", lambda: changed)
    assert print_of() != before


def test_a_package_that_is_installed_beside_counts(tmp_path, monkeypatch):
    versions.cache_clear()
    before = print_of()
    (tmp_path / "xformers-1.0.dist-info").mkdir()
    (tmp_path / "xformers-1.0.dist-info" / "METADATA").write_text(
        "Name: xformers\nVersion: 1.0\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    versions.cache_clear()
    assert print_of() != before
    versions.cache_clear()


@pytest.fixture(params=["PACKAGE", "DATA"])
def shipped(request, tmp_path, monkeypatch):
    """A copy of the library, or of the data, to edit."""
    names = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.parquet")
    copy = shutil.copytree(getattr(module, request.param), tmp_path / "copy", ignore=names)
    monkeypatch.setattr(module, request.param, copy)
    return copy


def test_every_file_of_the_library_and_of_the_data_counts(shipped):
    """Whatever a list by hand would forget: a file changed, in place and without a new date, renamed, added,
    taken away.
    """
    for path in sorted(shipped.rglob("*.*"))[::25]:
        before, state, content = print_of(), path.stat(), path.read_bytes()
        path.write_bytes(content + b"\n")
        assert print_of() != before, path
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert print_of() == before, path
        path.rename(path.with_name(f"_{path.name}"))
        assert print_of() != before, path
        path.with_name(f"_{path.name}").rename(path)
    before = print_of()
    (shipped / "new.py").write_text("X = 1\n", encoding="utf-8")
    assert print_of() != before


def test_what_python_keeps_beside_the_library_does_not_count(shipped):
    before = print_of()
    (shipped / "__pycache__").mkdir(exist_ok=True)
    (shipped / "__pycache__" / "files.cpython-311.pyc").write_bytes(b"x")
    assert print_of() == before


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
