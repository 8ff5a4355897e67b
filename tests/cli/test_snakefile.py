"""The collection as a workflow for a cluster; Snakemake brings its own environment and is no dependency."""

import re
import shutil
import subprocess

import pytest

from entropy_lib.cli.parameters import NOTEBOOKS, Sweep
from entropy_lib.files import ROOT


def test_the_workflow_generates_what_notebooks_share():
    """Every notebook that generates one plan by the hundred has its shards, and twenty-odd lines say so."""
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    named = set(re.findall(r'"(\d\d_\w+)"', text))
    assert named == {
        name
        for name in NOTEBOOKS
        if issubclass(NOTEBOOKS[name], Sweep) and "measured" not in NOTEBOOKS[name].model_fields
    }
    assert len(text.splitlines()) < 30


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="needs snakemake on the path")
def test_snakemake_plans_every_step():
    line = ["snakemake", "--dry-run", "--cores", "2", "--config", "profile=smoke", "shards=3"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    steps = dict(re.findall(r"^(\w+) +(\d+)$", ended.stdout + ended.stderr, re.MULTILINE))
    assert {name: int(steps[name]) for name in ("notebook", "plan", "shard", "site")} == {
        "notebook": len(NOTEBOOKS),
        "plan": 5,
        "shard": 15,
        "site": 1,
    }
