"""The scene model's trainings and its judge: each learns, resumes and says what its docstring says; small and short here."""

import numpy as np
import pandas as pd
import pytest
import torch

from entropy_lib.attention import logit_moments
from entropy_lib.errors import InvalidInputError, WeightsError
from entropy_lib.metrics.layout import Detection
from entropy_lib.mini.scene_model import (
    acceptance,
    autoencoder,
    damaged,
    denoiser,
    evaluate,
    judge,
    pictures,
    scenes,
    sprites,
    text,
)
from entropy_lib.mini.text import WIDTH, tokenizer_of
from entropy_lib.theory import freezing_std

pytestmark = pytest.mark.slow


@pytest.fixture
def losses(monkeypatch):
    """Runs a training for a few steps without checkpoints, and returns what each step reported."""

    def run(module, batch, steps, *arguments):
        reported = []
        monkeypatch.setattr(module, "BATCH", batch, raising=False)
        monkeypatch.setattr(
            module, "loop", lambda path, modules, optimizers, steps, update: reported.extend(map(update, range(steps)))
        )
        model = module.train(*arguments[:1], steps, *arguments[1:])
        return model, pd.DataFrame(reported)

    return run


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(text.captions())


def test_every_word_of_a_caption_is_one_token(tokenizer):
    for caption in list(text.captions())[::17]:
        words = caption.replace(",", " ,").split()
        assert tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)[1:-1] == [word + "</w>" for word in words]


def test_every_scene_has_a_caption_that_the_text_encoder_learns():
    for number in range(500):
        scene = scenes.scene(number)
        name, count, colour, design = text.captions()[scene.caption]
        assert (name, count) == (scene.things[0].name, len(scene.things))
        assert colour in (None, scene.background.colour)
        assert design in (None, scene.things[0].design)


def test_what_captions_must_tell_does_not_say_where_things_are():
    told = text.targets()
    assert torch.equal(told["an owl, fluent style"][:, :-10], told["two owls on a red background, fluent style"][:, :-10])
    both = torch.stack([told[f"an owl, {design} style"] for design in sprites.DESIGNS]).mean(0)
    assert torch.allclose(told["an owl"], both)
    assert told[""].abs().max() == 0


def test_the_text_encoder_learns_to_tell(losses, monkeypatch):
    few = dict(list(text.captions().items())[:6])
    monkeypatch.setattr(text, "captions", lambda: few)
    _, curve = losses(text, 6, 12, None)
    assert curve.loss[-5:].mean() < 0.7 * curve.loss[:5].mean()


def test_the_autoencoder_learns_and_its_latents_are_normalised(losses, monkeypatch):
    images = np.stack([scenes.draw(scenes.scene(number), 64, 64) for number in range(4)])
    monkeypatch.setattr(pictures, "drawn", lambda *_: images)
    vae, curve = losses(autoencoder, 2, 12, None)
    assert curve.reconstruction[-5:].mean() < curve.reconstruction[:5].mean()
    before = vae.decode(vae.encode(pictures.pixels(images)).latent_dist.mode()).sample
    autoencoder.fold_normalisation(vae, autoencoder.encode(vae, images))
    latents = autoencoder.encode(vae, images)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.05)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=0.05)
    after = vae.decode(vae.encode(pictures.pixels(images)).latent_dist.mode()).sample
    assert torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize("name", list(denoiser.RECIPES))
def test_recipes_differ_in_what_they_say_and_in_nothing_else(name):
    torch.manual_seed(1)
    recipe, network = denoiser.RECIPES[name], denoiser.build(denoiser.RECIPES[name])
    for layer, module in network.named_modules():
        if layer.endswith("attn1"):
            assert torch.equal(module.to_q.weight, module.to_k.weight) == (recipe.gain is not None), layer
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.padding_mode == recipe.padding
    torch.manual_seed(1)
    plain = denoiser.build(denoiser.Recipe())
    same = [key for key, value in plain.state_dict().items() if torch.equal(value, network.state_dict()[key])]
    assert len(same) >= len(plain.state_dict()) - 20, "all but W_q and W_k of ten layers"


def test_the_circular_model_knows_no_border():
    torch.manual_seed(0)
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 32, WIDTH)
    for name, equivariant in (("mini-circular", True), ("mini", False)):
        network = denoiser.build(denoiser.RECIPES[name]).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
        with torch.no_grad():
            moved = network(latents.roll(4, -1), torch.tensor(500), states).sample
            expected = network(latents, torch.tensor(500), states).sample.roll(4, -1)
        assert torch.allclose(moved, expected, atol=1e-4) == equivariant, name


def test_the_processor_computes_what_diffusers_computes_and_measures_what_the_probe_does():
    torch.manual_seed(0)
    network = denoiser.build(denoiser.Recipe()).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    inputs = torch.randn(2, 4, 16, 16), torch.tensor(300), torch.randn(2, 32, WIDTH)
    processor = denoiser.PenalisedProcessor(0.5)
    with torch.no_grad():
        expected = network(*inputs).sample
        network.set_attn_processor(processor)
        assert torch.allclose(network(*inputs).sample, expected, atol=1e-4)
    _, ratios = processor.collect()
    assert len(ratios) == 10
    query, key = 3 * torch.randn(2, 1, 64, 16), torch.randn(2, 1, 64, 16)
    expected = logit_moments(query, key, 0.25)[1].sqrt() / freezing_std(64)
    assert torch.allclose(denoiser.freezing_ratio(query, key, 0.25), expected, atol=1e-3)


def test_healthy_rows_are_not_penalised():
    processor = denoiser.PenalisedProcessor(0.75)
    processor.note(torch.full((2, 1, 8), 0.7))
    processor.note(torch.full((2, 1, 8), 0.95))
    penalty, ratios = processor.collect()
    assert penalty == pytest.approx(0.2)
    assert list(ratios.values()) == pytest.approx([0.7, 0.95])


def test_the_denoiser_trains_and_resumes(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(denoiser, "BATCH", 4)
    from entropy_lib.mini.text import build_encoder

    encoder, latents = build_encoder(tokenizer).eval(), torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    few = dict(list(text.captions().items())[:3])
    monkeypatch.setattr(denoiser, "caption_rows", lambda count, texts: torch.arange(count) % 3)
    monkeypatch.setattr(text, "captions", lambda: few)
    denoiser.train(tmp_path / "a.safetensors", denoiser.Recipe(), latents, encoder, 2)
    network = denoiser.train(tmp_path / "a.safetensors", denoiser.Recipe(), latents, encoder, 3)
    assert sum(p.abs().sum().item() for name, p in network.named_parameters() if name.startswith("conv_out")) > 0


def test_judge_targets_put_one_peak_on_each_thing():
    _, seen = damaged.damaged(0, 64, 64)
    wanted = judge.targets([seen, []], 16, 16)
    assert (wanted["heat"] == 1).sum() == len({tuple(place) for place in wanted["where"].tolist()})
    for (_, row, column), one in zip(wanted["where"].tolist(), seen, strict=True):
        top, left, bottom, right = one.box
        assert top <= judge.STRIDE * (row + 0.5) <= bottom
        assert left <= judge.STRIDE * (column + 0.5) <= right
    assert wanted["heat"][1].max() == 0


def test_a_judge_that_says_the_targets_finds_the_truth():
    thing = damaged.Seen("owl", "fluent", (8.0, 12.0, 40.0, 36.0), 0.75, True)
    wanted = judge.targets([[thing]], 16, 16)
    output = {name: torch.full((size, 16, 16), -6.0) for name, size in judge.OUTPUTS.items()}
    [[_, row, column]] = wanted["where"].tolist()
    output["centre"][0] = torch.logit(wanted["heat"][0].clamp(1e-4, 1 - 1e-4))
    output["box"][:, row, column] = wanted["box"][0]
    output["visible"][0, row, column] = torch.logit(torch.tensor(0.75))
    output["legible"][0, row, column] = 5.0
    output["name"][sprites.NAMES.index("owl"), row, column] = 5.0
    [found] = judge.in_picture(output, 0.5)
    assert found.name == "owl"
    assert found.box == pytest.approx(thing.box, abs=0.01)
    assert found.visible == pytest.approx(0.75, abs=1e-4)


def test_focal_loss_is_least_where_the_centres_are_right():
    heat = judge.targets([[damaged.Seen("owl", "fluent", (8.0, 8.0, 40.0, 40.0), 1.0, True)]], 16, 16)["heat"]
    right = judge.focal_loss(torch.where(heat == 1, 8.0, -8.0), heat)
    assert right < 0.01 < judge.focal_loss(torch.full_like(heat, -8.0), heat)
    assert right < judge.focal_loss(torch.where(heat == 1, 8.0, 8.0), heat)


def test_the_judge_learns(losses, monkeypatch):
    monkeypatch.setattr(judge, "PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(judge, "batch", lambda step, original=judge.batch: original(4))
    _, curve = losses(judge, 4, 20, None)
    assert curve.centre[-5:].mean() < 0.8 * curve.centre[:5].mean()
    assert curve.name[-5:].mean() < curve.name[:5].mean()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 64, 3), np.uint8), "at least 24 px"),
        (np.zeros((64, 64, 3), np.uint8), "takes uint8 pictures"),
        (np.zeros((1, 64, 64, 3), np.float32), "float32"),
        ([1, 2], "list"),
    ],
)
def test_the_judge_refuses_what_it_cannot_see(images, message):
    with pytest.raises(InvalidInputError, match=message):
        judge.find(judge.Judge().eval(), images)


def test_a_judge_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match=r"no judge in .*scene_model\.judge"):
        judge.load(tmp_path)


def test_found_and_true_things_are_paired_once():
    found = [Detection("owl", (0, 0, 10, 10), 1, 1, 1), Detection("owl", (1, 1, 10, 10), 1, 1, 1)]
    seen = [damaged.Seen("owl", "fluent", (0, 0, 10, 10), 1, True)]
    assert acceptance.pairs(found, seen) == [(found[0], seen[0])]
    assert acceptance.pairs([], seen) == []


@pytest.mark.parametrize(
    ("name", "first", "last"), [("copies pasted", 0, 4), ("tiled", 1, 3), ("cut off", 0.0, 0.6), ("dissolved", 0.0, 0.95)]
)
def test_damage_is_planted(name, first, last):
    scene = next(one for one in (scenes.scene(number, "test") for number in range(9)) if len(one.things) == 1)
    harm, amounts = acceptance.PLANTED[name]
    assert (amounts[0], amounts[-1]) == (first, last)
    assert np.abs(harm(scene, first).astype(int) - harm(scene, last)).mean() > 2


def test_the_colour_of_the_ground_is_named():
    for number in range(100):
        scene = scenes.scene(number, "test")
        assert evaluate.ground_colour(scenes.draw(scene, 64, 64)) == scene.background.colour


def test_the_gate_holds_only_for_living_attention():
    def layers(ratio, beyond, entropy):
        return pd.DataFrame({"of_freezing": ratio, "beyond_freezing": beyond, "entropy_ratio": entropy})

    assert all(evaluate.gate(layers([0.4, 0.6, 0.5], [0.0, 0.0, 0.1], [0.8, 0.7, 0.8])).values())
    assert not any(evaluate.gate(layers([0.1, 0.2, 0.1, 1.0], [0.0, 0.3, 0.1, 0.9], [0.99, 0.98, 0.97, 0.98])).values())
