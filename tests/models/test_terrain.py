"""The terrain model: by name, with random weights; out of its wheel, where that can be fetched."""

import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import entropy_lib as el
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.files import ROOT
from entropy_lib.models import catalogue, terrain
from entropy_lib.models.catalogue import check_weights, entry, revision, weights_are_here

PACKAGE = entry("terrain").package


@pytest.fixture(scope="module")
def untrained():
    return el.load("terrain", random_weights=True, device="cpu")


@pytest.mark.slow
def test_it_is_asked_by_difficulty_and_knows_its_layers(untrained):
    options = {"size": (32, 48), "steps": 3}
    both = el.generate(untrained, ["1", "100"], [3, 4], **options)
    alone = el.generate(untrained, ["100"], [4], **options)
    assert both.shape == (2, 32, 48, 3)
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1
    assert el.models.recognise(untrained) == "terrain"
    tokens = list(el.training_tokens(untrained).values())
    assert [tokens.count(level) for level in entry("terrain").training_tokens] == [9, 9, 10]


@pytest.mark.slow
def test_a_notebook_runs_by_its_profile(untrained, tmp_path, execute):
    for name, weight in untrained.unet.named_parameters():
        weight.data.mul_(30 if "to_out" in name else 1)  # so that attention matters
    untrained.save_pretrained(tmp_path / "terrain")
    changed = {"model": str(tmp_path / "terrain"), "output": str(tmp_path / "output"), "rows": 8}
    changed |= {"sizes": ["64x64", "128x128"], "prompt_count": 2}
    checked = profile_parameters("03_entropy_vs_tokens", "terrain", changed)
    execute(ROOT / "notebooks" / "03_entropy_vs_tokens.ipynb", checked.model_dump())
    assert (tmp_path / "output" / "slopes.csv").is_file()


@pytest.mark.slow
def test_windows_of_native_size_see_one_map(untrained):
    with el.EntropyProbe(untrained, rows=4) as probe:
        el.generate(untrained, ["50"], [0], (128, 192), "multidiffusion(0.5)")
    assert (probe.table().tokens == probe.table().training_tokens).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({"prompts": [bad]}, "whole numbers from 1 to 100") for bad in ("0", "101", "-3", "easy", "1.5")],
        ({"size": (40, 128)}, "height is 40; it must be a positive multiple of 16 pixels"),
        ({"guidance": 3.0}, "guidance is 3.0; ConsistencyModelPipeline has none"),
        ({"steps": 41}, "steps is 41; it must be a whole number from 1 to 40"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(untrained, changes, message):
    good = {"prompts": ["1"], "seeds": [0], "size": (64, 64)}
    with pytest.raises(InvalidInputError, match=message):
        el.generate(untrained, **good | changes)


def test_a_wheel_that_is_missing_or_another_is_refused(tmp_path):
    wheel = tmp_path / "adaptive_terrain_diffusion-0.4.1-py3-none-any.whl"
    with pytest.raises(WeightsError, match="is missing; get it with"):
        terrain.convert(wheel, tmp_path / "made")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(terrain.GRAPH, b"")
    with pytest.raises(WeightsError, match=r"is not adaptive-terrain-diffusion==0\.4\.2, or is damaged"):
        terrain.convert(wheel, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("harm", ["nothing was fetched", "a file is damaged"])
def test_without_a_network_it_is_said_how_to_fetch_it(tmp_path, monkeypatch, harm):
    failed = SimpleNamespace(returncode=1, stderr="ERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(catalogue, "CACHE", tmp_path)
    if harm == "a file is damaged":
        (tmp_path / entry("terrain").source).mkdir()
        (tmp_path / entry("terrain").source / "SHA256SUMS").write_text("0" * 64 + "  unet/config.json\n")
    for ask in (el.load, check_weights):
        with pytest.raises(WeightsError, match=f"No matching distribution found\n.*{PACKAGE}"):
            ask("terrain")
    assert not weights_are_here("terrain")
    assert revision("terrain") == entry("terrain").revision, "what is stored does not depend on what is here"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """As pip fetches it; skipped where no index answers."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["pip", "download", "-q", "--no-deps", "--retries", "1", "-d", folder, PACKAGE]
    ended = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"the wheel cannot be fetched here: {ended.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def converted(wheel, tmp_path_factory):
    """The pipeline, loaded by name from a cache that the wheel was converted into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "CACHE", tmp_path_factory.mktemp("cache"))
        terrain.convert(wheel, catalogue.CACHE / entry("terrain").source)
        patch.setattr(terrain, "fetch", lambda folder: pytest.fail("it was fetched again"))
        yield el.load("terrain", device="cpu")


@pytest.fixture(scope="module")
def denoised(wheel):
    """The graph that the weights come from, run by onnxruntime."""
    runtime = pytest.importorskip("onnxruntime")
    with zipfile.ZipFile(wheel) as archive:
        session = runtime.InferenceSession(archive.read(terrain.GRAPH))

    def run(noisy, sigma, difficulty):
        numbers = {"sigma": np.float32([sigma]), "difficulty": np.float32([(difficulty - 1) / 99])}
        return session.run(["denoised"], {"noisy": noisy} | numbers)[0]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "difficulty"), [(2.0, 60), (0.3, 100)])
def test_its_network_equals_the_graph_at_any_noise(converted, denoised, sigma, difficulty):
    """Between the factors of Song et al. 2023, written out."""
    noisy = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0)) * sigma
    skip, out = 0.25 / ((sigma - 0.002) ** 2 + 0.25), (sigma - 0.002) * 0.5 / (sigma**2 + 0.25) ** 0.5
    with torch.no_grad():
        time, label = torch.tensor([250 * np.log(sigma)]), torch.tensor([difficulty - 1])
        made = converted.unet(noisy / (sigma**2 + 0.25) ** 0.5, time, class_labels=label).sample
    found = (out * made + skip * noisy).clamp(-1, 1).numpy()
    assert found == pytest.approx(denoised(noisy.numpy(), sigma, difficulty), abs=2e-5)


@pytest.mark.slow
def test_a_map_of_one_step_is_what_the_graph_makes_of_the_same_noise(converted, denoised):
    [found] = el.generate(converted, ["37"], [7], "128x128", output="float32")
    noise = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(7)).numpy()
    expected = denoised(noise * np.float32(80), 80.0, 37)[0, 0]
    assert 2 * found[..., 0] - 1 == pytest.approx(expected, abs=2e-5)
