"""The terrain model: its pipeline on a network with random weights, and the real one where its wheel is."""

import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, UNet2DModel

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.models import terrain


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    smaller = {"layers_per_block": 1, "block_out_channels": (32,) * 5, "sample_size": 32}
    unet = UNet2DModel(**terrain.CONFIG | smaller).eval()
    pipe = terrain.TerrainPipeline(unet, CMStochasticIterativeScheduler(**terrain.SCHEDULER))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("steps", [1, 3])
def test_a_map_depends_on_difficulty_seed_and_size_alone(untrained, steps):
    options = {"size": (32, 48), "steps": steps}
    both = el.generate(untrained, ["1", "100"], [3, 4], **options)
    alone = el.generate(untrained, ["100"], [4], **options)
    assert both.shape == (2, 32, 48, 3)
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1
    assert (both[0] != both[1]).any()


def test_the_probe_and_the_patch_know_its_layers(untrained):
    tokens = el.training_tokens(untrained)
    assert sorted(set(tokens.values())) == [4, 16, 64]
    with el.scaled(untrained, "paper"), el.EntropyProbe(untrained) as probe:
        el.generate(untrained, ["50"], [0], (64, 64))
    assert probe.table().layer.nunique() == len(tokens)
    assert (probe.table().factor > 1).all()


@pytest.mark.parametrize("given", ["0", "101", "-3", "easy", "1.5", ""])
def test_a_difficulty_out_of_range_is_named(untrained, given):
    with pytest.raises(InvalidInputError, match="whole numbers from 1 to 100"):
        untrained([given])


@pytest.mark.parametrize("options", [{"height": 40}, {"guidance_scale": 3.0}], ids=str)
def test_what_it_cannot_do_is_refused(untrained, options):
    with pytest.raises(InvalidInputError, match="terrain"):
        untrained("1", **options)


def test_a_wheel_that_is_missing_or_another_is_refused(tmp_path):
    wheel = tmp_path / "adaptive_terrain_diffusion-0.4.1-py3-none-any.whl"
    with pytest.raises(WeightsError, match="is missing; get it with"):
        terrain.convert(wheel, tmp_path / "made")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(terrain.GRAPH, b"")
    with pytest.raises(WeightsError, match=r"is not adaptive-terrain-diffusion 0\.4\.2, or is damaged"):
        terrain.convert(wheel, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_without_a_network_it_is_said_how_to_fetch_it(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="ERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(WeightsError, match="No matching distribution found"):
        terrain.load(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not terrain.CACHE.exists(), reason="the terrain model was never fetched here")
@pytest.mark.parametrize(("sigma", "difficulty"), [(80.0, 1), (2.0, 60), (0.3, 100)])
def test_it_equals_the_graph_that_it_was_made_from(tmp_path, sigma, difficulty):
    runtime = pytest.importorskip("onnxruntime")
    command = ["pip", "download", "-q", "--no-deps", "-d", tmp_path, f"{terrain.PACKAGE}=={terrain.VERSION}"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        session = runtime.InferenceSession(archive.read(terrain.GRAPH))
    pipe, noise = terrain.load(), np.random.default_rng(0).normal(size=(1, 1, 128, 128)).astype(np.float32)
    given = {"sigma": sigma, "difficulty": (difficulty - 1) / 99}
    given = {name: np.float32([value]) for name, value in given.items()}
    [expected] = session.run(["denoised"], given | {"noisy": noise * np.float32(sigma)})
    assert denoised(pipe, noise, sigma, difficulty) == pytest.approx(expected, abs=2e-5)


def denoised(pipe, noise, sigma, difficulty):
    """The network between the factors of Song et al. 2023, written out."""
    noisy = torch.from_numpy(noise) * sigma
    skip, out = 0.25 / ((sigma - 0.002) ** 2 + 0.25), (sigma - 0.002) * 0.5 / (sigma**2 + 0.25) ** 0.5
    with torch.no_grad():
        time, label = torch.tensor([250 * np.log(sigma)]), torch.tensor([difficulty - 1])
        made = pipe.unet(noisy / (sigma**2 + 0.25) ** 0.5, time, class_labels=label).sample
    return (out * made + skip * noisy).clamp(-1, 1).numpy()
