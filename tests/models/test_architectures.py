"""The architectures without weights against what is published about them, and against the catalogue."""

import copy
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from tiny_networks import DEPTH

import entropy_lib as el
from entropy_lib.errors import InvalidInputError, MissingExtraError, UnknownNameError
from entropy_lib.models.architectures import ARCHITECTURES, build
from entropy_lib.models.catalogue import CATALOGUE
from entropy_lib.models.layers import NATIVE_SIZE, note_native_size, tokens_at

# millions of parameters, published or, of models newer than FLUX.1, those of the files on the Hub where known
PUBLISHED = {
    "sd15": 859.52, "sd21-base": 865.91, "ldm-256": 872.30, "sdxl": 2567.46, "sd3": 2028.33, "flux": 11901.41,
    "pixart": 611.35, "flux2": 32223.28, "flux2-klein": 3875.54, "qwen-image": 20430.40, "z-image": 6154.91,
    "lumina2": 2609.77, "hunyuan-image": 17425.80, "chroma": 8899.98, "auraflow": 6833.44,
    "pixart-sigma": 610.86, "hunyuan-dit": 1516.53, "kolors": 2579.46, "wan": 1419.00, "terrain": 10.45,
}  # fmt: skip
TEXT_ENCODERS = {
    "sd21-base": {"text_encoder": 340.39},
    "ldm-256": {"bert": 581.99},
    "sdxl": {"text_encoder_2": 694.66},
    "flux2": {"text_encoder": 24011.36},
    "qwen-image": {"text_encoder": 8292.17},
    "z-image": {"text_encoder": 4022.47},
    "wan": {"text_encoder": 5680.91},
}


@cache
def on_meta(name):
    if name == "kolors" and find_spec("sentencepiece") is None:
        pytest.skip("its pipeline needs sentencepiece")
    return el.load(name, random_weights=True, device="meta")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_the_published_ones_and_those_of_the_catalogue(name):
    parts = on_meta(name).components.items()
    modules = {key: part for key, part in parts if isinstance(part, torch.nn.Module)}
    counts = {key: sum(each.numel() for each in part.parameters()) for key, part in modules.items()}
    millions = {part: round(count / 1e6, 2) for part, count in counts.items()}
    entry = CATALOGUE[name]
    denoiser = millions["unet" if "unet" in counts else "transformer"]
    assert name in PUBLISHED, f"a new one: write the published millions of its denoiser, {denoiser} here"
    assert denoiser == PUBLISHED[name] == entry.parameters
    assert TEXT_ENCODERS.get(name, {}).items() <= millions.items()
    assert sum(counts.values()) * 2 / 1e9 == pytest.approx(entry.weights_gb, abs=0.006)


def shallow(network):
    """The same network with two layers of each kind: T does not depend on how many there are."""
    config = {key: min(2, value) if key in DEPTH else value for key, value in network.config.items()}
    config |= {"transformer_layers_per_block": 1} if "transformer_layers_per_block" in config else {}
    with torch.device("meta"):
        made = type(network).from_config(config)
    note_native_size(made, getattr(network, NATIVE_SIZE))
    return made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_tokens_and_sizes_are_those_of_the_catalogue(name):
    pipe, entry = copy.copy(on_meta(name)), CATALOGUE[name]
    assert type(pipe).__name__ == entry.pipeline
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    object.__setattr__(pipe, part, shallow(getattr(pipe, part)))
    found = sorted(set(el.training_tokens(pipe).values()), reverse=True)
    assert tuple(found) == entry.training_tokens
    assert el.native_size(pipe) == entry.native_size
    assert el.sampling.size_multiple(pipe) == entry.size_multiple


# Tokens and factors of the paper's rule by level, from products of ceilings: SD 2.1-base and LDM-256.
LEVELS = {
    "sd21-base": {
        (16, 16): ([256, 64, 16, 4], [0.8165, 0.7746, 0.7071, 0.5774]),
        (25, 25): ([625, 169, 49, 16], [0.8798, 0.8603, 0.8378, 0.8165]),
        (32, 32): ([1024, 256, 64, 16], [0.9129, 0.8944, 0.8660, 0.8165]),
        (56, 56): ([3136, 784, 196, 49], [0.9838, 0.9805, 0.9756, 0.9674]),
        (64, 64): ([4096, 1024, 256, 64], [1, 1, 1, 1]),
        (96, 96): ([9216, 2304, 576, 144], [1.0476, 1.0569, 1.0706, 1.0932]),
        (64, 36): ([2304, 576, 144, 40], [0.9648, 0.9576, 0.9467, 0.9418]),
    },
    "ldm-256": {
        (8, 8): ([64, 16, 4, 1], [0.7746, 0.7071, 0.5774, 1]),  # a level with a single token is left alone
        (16, 16): ([256, 64, 16, 4], [0.8944, 0.8660, 0.8165, 0.7071]),
        (48, 48): ([2304, 576, 144, 36], [1.0569, 1.0706, 1.0932, 1.1369]),
        (64, 64): ([4096, 1024, 256, 64], [1.0954, 1.1180, 1.1547, 1.2247]),
    },
}


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in LEVELS.items() for size in sizes])
def test_tokens_and_factors_of_every_level(name, size):
    pipe, (tokens, factors) = on_meta(name), LEVELS[name][size]
    training, now = el.training_tokens(pipe), tokens_at(pipe, *size)
    assert len(now) == 16
    pairs = dict(sorted({(now[layer], training[layer]) for layer in now}, key=lambda pair: -pair[1]))
    assert list(pairs) == tokens
    assert [el.rule("paper").factor(n, t) for n, t in pairs.items()] == pytest.approx(factors, abs=5e-5)


def test_random_weights_are_the_same_every_time_and_leave_random_state_alone():
    before = torch.get_rng_state()
    first, second = (build("sd21-base", tiny=True).unet.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_does_not_fit_is_refused_before_any_weight_is_made(monkeypatch):
    monkeypatch.setattr("entropy_lib.models.architectures.build", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=20e9))
    with pytest.raises(InvalidInputError, match=r"'flux2' take 225 GB, and there are 20 GB.*device='meta'"):
        el.load("flux2", random_weights=True, device="cpu")


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="there it is")
def test_a_package_that_is_missing_is_named():
    with pytest.raises(MissingExtraError, match=r"'kolors' needs .* sentencepiece"):
        el.load("kolors", random_weights=True, device="meta")
    parts = ARCHITECTURES["kolors"].parts
    networks = {name: parts[name].build(False, "meta") for name in ("unet", "vae", "text_encoder")}
    counts = {name: sum(p.numel() for p in each.parameters()) for name, each in networks.items()}
    assert round(counts["unet"] / 1e6, 2) == PUBLISHED["kolors"]
    assert round(counts["text_encoder"] / 1e6, 2) == 6243.58
    assert sum(counts.values()) * 2 / 1e9 == pytest.approx(CATALOGUE["kolors"].weights_gb, abs=0.006)


def test_what_a_configuration_has_wrong_is_known_by_name():
    """AuraFlow's says 64 latent pixels, its pipeline generates at 128; Qwen-Image's network says nothing."""
    assert el.native_size(on_meta("auraflow")) == el.native_size(on_meta("qwen-image")) == (1024, 1024)
    assert el.native_size(on_meta("wan")) == (480, 832)


def test_unknown_architectures_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'sdxl'"):
        build("sdlx")
    with pytest.raises(UnknownNameError, match="did you mean 'sd21-base'"):
        el.load("sd21-bse", random_weights=True)
