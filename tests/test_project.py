"""What holds for the project as a whole: lists of packages in step, a light import, examples that run."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import cell_shell

import entropy_lib as el
from entropy_lib.files import ROOT

CONDA_NAMES = {
    "torch": "pytorch",
    "open_clip_torch": "open-clip-torch",
    "huggingface-hub": "huggingface_hub",
    "ray": "ray-core",
    "build": "python-build",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extras() -> dict[str, list[str]]:
    """{extra: its own packages}; that it takes in another extra is left out."""
    lists = project()["optional-dependencies"]
    return {
        name: [line for line in lines if not line.startswith("entropy_lib[")] for name, lines in lists.items()
    }


def requirements() -> list[str]:
    return project()["dependencies"] + [line for lines in extras().values() for line in lines]


def test_environment_yml_is_in_step_with_pyproject():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = {
        line
        for line in content["dependencies"]
        if isinstance(line, str) and not line.startswith(("python>", "pip"))
    }
    # what conda-forge has not
    [from_pypi] = [line["pip"] for line in content["dependencies"] if isinstance(line, dict)]
    conda |= {line for line in from_pypi if not line.startswith("--")}
    expected = {re.sub(r"^[\w.-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), line) for line in requirements()}
    assert conda == expected
    assert content["channels"] == ["conda-forge"]


def test_constraints_pin_every_requirement():
    pinned = {
        normal(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert {normal(re.split("[><=]", line)[0]) for line in requirements()} <= pinned


def test_import_is_light():
    heavy = ("torch", "diffusers", "transformers", "open_clip", "pandas")
    code = f"import sys, entropy_lib; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


WITHOUT_DIFFUSERS = [
    *("entropy", "entropy.attention", "scaling.rules", "scaling.patch", "statistics.fits", "sizes"),
    *("plots.figures.entropy", "plots.figures.images", "plots.tables", "models.layers", "probes.logit_probe"),
    *("metrics.frechet", "metrics.extractors", "metrics.features", "sweep.references", "sweep.plan"),
    *("sweep.store", "cli.command_line"),
]


def test_layering_only_models_import_diffusers():
    code = f"""if True:
        import importlib, sys
        for name in {WITHOUT_DIFFUSERS}:
            importlib.import_module(f"entropy_lib.{{name}}")
            assert not {{"diffusers", "transformers"}} & set(sys.modules), name
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_other_names_than_the_public_ones_are_refused():
    assert set(el.__all__) <= set(dir(el))
    with pytest.raises(AttributeError, match="No entropy_lib attribute nonsense"):
        el.nonsense  # noqa: B018


@pytest.mark.slow
def test_the_readme_shows_code_that_runs():
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code
    exec(compile("\n".join(code), "README.md", "exec"), {})


def test_one_place_says_the_version():
    assert "version" not in project()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == el.__version__
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert el.__version__ in headings


def test_cells_that_ran_in_the_tests_leave_their_main_module_as_it_was():
    before = sys.modules["__main__"]
    with cell_shell():
        assert sys.modules["__main__"] is not before
    assert sys.modules["__main__"] is before
