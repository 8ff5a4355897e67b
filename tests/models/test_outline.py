"""A model told by its configuration files is the model that is loaded."""

import math

import pytest

import entropy_lib as el
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.cli.sweeps import plan_of, store_of
from entropy_lib.errors import InvalidInputError, UnsupportedModelError, WeightsError
from entropy_lib.files import DATA
from entropy_lib.models import outline as module
from entropy_lib.models.architectures import TINY, build
from entropy_lib.models.catalogue import CATALOGUE
from entropy_lib.models.layers import denoiser
from entropy_lib.models.outline import outline, outline_levels, outline_size, stored_lengths
from entropy_lib.scaling.calibration import SHIPPED, lengths


@pytest.fixture(params=TINY)
def saved(request, tmp_path):
    """A pipeline and the folder that it was saved to."""
    pipe = build(request.param, tiny=True)
    pipe.save_pretrained(tmp_path)
    return pipe, str(tmp_path)


def test_a_folder_is_outlined_as_it_is_loaded(saved):
    pipe, folder = saved
    network, training = outline(folder), el.training_tokens(pipe)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert el.training_tokens(network) == outline_levels(folder) == training
    assert outline_size(folder) == el.native_size(pipe)
    assert stored_lengths(folder, training) == pytest.approx(lengths(denoiser(pipe), training))


def test_a_network_that_does_not_say_its_size_is_refused_by_the_parameter_that_tells_it():
    """PRX's native size is said by its pipeline, and an outline is of the network alone."""
    with pytest.raises(InvalidInputError, match="latent_size"):
        el.training_tokens(outline(str(DATA / "mini-dit")))


@pytest.mark.parametrize("model", ["mini", "mini-circular", "sd15", "z-image"])
def test_the_catalogue_is_outlined_as_it_says(model):
    """Whether what it says of the others is so: `test_architectures.py`."""
    known, network = CATALOGUE[model], outline(model)
    assert sorted(set(el.training_tokens(network).values()), reverse=True) == list(known.training_tokens)
    assert outline_size(model) == known.native_size
    assert list(outline_levels(model).values()) == list(known.training_tokens)


def test_a_query_that_comes_from_one_product_with_key_and_value_has_its_length():
    pipe, network = el.load("mini-dit", device="cpu"), outline("mini-dit")
    training = el.training_tokens(network)
    assert stored_lengths("mini-dit", training) == pytest.approx(lengths(denoiser(pipe), training), rel=1e-3)
    assert outline_size("mini-dit") == el.native_size(pipe)


def test_the_lengths_of_a_control_are_its_own():
    layers = el.training_tokens(outline("mini"))
    own, weak = (stored_lengths(model, layers) for model in ("mini", "mini-weak"))
    assert own.keys() == weak.keys() == layers.keys()
    assert not any(math.isclose(own[name], weak[name], rel_tol=0.01) for name in own)


def test_what_cannot_be_outlined_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hub_answers", lambda: False)
    with pytest.raises(WeightsError, match=r"model_index\.json of 'owner/name' cannot be read"):
        outline("owner/name")
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "X", "unet": ["mine", "Own"], "vae": ["diffusers", "AutoencoderKL"]}'
    )
    with pytest.raises(UnsupportedModelError, match="has no unet or transformer that diffusers knows"):
        outline(str(tmp_path))


def test_parameters_and_plans_load_no_model_and_write_nothing(tmp_path, monkeypatch):
    """Of a model that is in no catalogue, and with a calibration of one's own."""
    build("sd15", tiny=True).save_pretrained(tmp_path / "tiny")
    for place in ("models.catalogue", "sweep.sample"):
        monkeypatch.setattr(f"entropy_lib.{place}.load", lambda *_, **__: pytest.fail("a model was loaded"))
    places = {"model": str(tmp_path / "tiny"), "store": str(tmp_path / "store")}
    checked = profile_parameters("07_cost_and_baselines", "smoke", places)
    assert checked.native() == plan_of(checked.parts()[0]).native == "64x64"
    own = profile_parameters(
        "11_rival_explanations",
        "smoke",
        {"store": places["store"], "calibration": str(SHIPPED / "mini.json")},
    )
    assert plan_of(own).units[-1].calibration == ""
    assert not (tmp_path / "store").exists()
    store_of(own)
    assert len(list((tmp_path / "store" / "calibrations").iterdir())) == 1
