"""The embedded models' tokenizer, trainings and gate: each learns, resumes and says what its docstring says;
small and short.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from entropy_lib.entropy import freezing_std, logit_moments
from entropy_lib.errors import WeightsError
from entropy_lib.files import PROMPTS
from entropy_lib.models.catalogue import load
from entropy_lib.models.checksums import verify
from entropy_lib.scenes import scenes, sprites
from entropy_lib.scenes.detection import pixels
from training import autoencoder, loop, mini, pictures, quality, text_encoder, unet
from training.tokenizer import GRID, learn_merges, round_trip, tokenizer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(scenes.captions())


def test_every_word_of_a_caption_is_one_token(tokenizer):
    for caption in list(scenes.captions())[::17]:
        words = caption.replace(",", " ,").split()
        assert tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)[1:-1] == [
            word + "</w>" for word in words
        ]


def test_every_scene_has_a_caption_that_the_text_encoder_learns():
    for number in range(500):
        scene = scenes.scene(number)
        name, count, colour, design = scenes.captions()[scene.caption]
        assert (name, count) == (scene.things[0].name, len(scene.things))
        assert colour in (None, scene.background.colour)
        assert design in (None, scene.things[0].design)


def test_what_captions_must_tell_does_not_say_where_things_are():
    told = text_encoder.targets()
    assert torch.equal(
        told["an owl, fluent style"][:, :-10], told["two owls on a red background, fluent style"][:, :-10]
    )
    both = torch.stack([told[f"an owl, {design} style"] for design in sprites.DESIGNS]).mean(0)
    assert torch.allclose(told["an owl"], both)
    assert told[""].abs().max() == 0


def test_the_text_encoder_learns_to_tell(losses, monkeypatch):
    few = dict(list(scenes.captions().items())[:6])
    monkeypatch.setattr(scenes, "captions", lambda *_: few)
    _, curve = losses(text_encoder, 6, 12, None)
    assert curve.loss[-5:].mean() < 0.7 * curve.loss[:5].mean()


def test_the_autoencoder_learns_and_its_latents_are_normalised(losses, monkeypatch):
    images = np.stack([scenes.draw(scenes.scene(number), 64, 64) for number in range(4)])
    monkeypatch.setattr(pictures, "drawn", lambda *_: images)
    vae, curve = losses(autoencoder, 2, 12, None)
    assert curve.reconstruction[-5:].mean() < curve.reconstruction[:5].mean()
    before = vae.decode(vae.encode(pixels(images)).latent_dist.mode()).sample
    autoencoder.fold_normalisation(vae, autoencoder.encode(vae, images))
    latents = autoencoder.encode(vae, images)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.05)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=0.05)
    after = vae.decode(vae.encode(pixels(images)).latent_dist.mode()).sample
    assert torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize("name", list(unet.RECIPES))
def test_recipes_differ_in_what_they_say_and_in_nothing_else(name):
    torch.manual_seed(1)
    recipe, network = unet.RECIPES[name], unet.build(unet.RECIPES[name])
    for layer, module in network.named_modules():
        if layer.endswith("attn1"):
            assert torch.equal(module.to_q.weight, module.to_k.weight) == (recipe.gain is not None), layer
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.padding_mode == recipe.padding
    torch.manual_seed(1)
    plain = unet.build(unet.Recipe())
    same = [key for key, value in plain.state_dict().items() if torch.equal(value, network.state_dict()[key])]
    assert len(same) >= len(plain.state_dict()) - 20, "all but W_q and W_k of ten layers"


def test_the_circular_model_knows_no_border():
    torch.manual_seed(0)
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 32, text_encoder.WIDTH)
    for name, equivariant in (("mini-circular", True), ("mini", False)):
        network = unet.build(unet.RECIPES[name]).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
        with torch.no_grad():
            moved = network(latents.roll(4, -1), torch.tensor(500), states).sample
            expected = network(latents, torch.tensor(500), states).sample.roll(4, -1)
        assert torch.allclose(moved, expected, atol=1e-4) == equivariant, name


def test_the_processor_computes_what_diffusers_computes_and_measures_what_the_probe_does():
    torch.manual_seed(0)
    network = unet.build(unet.Recipe()).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    inputs = torch.randn(2, 4, 16, 16), torch.tensor(300), torch.randn(2, 32, text_encoder.WIDTH)
    processor = unet.PenalisedProcessor(0.5)
    with torch.no_grad():
        expected = network(*inputs).sample
        network.set_attn_processor(processor)
        assert torch.allclose(network(*inputs).sample, expected, atol=1e-4)
    _, ratios = processor.collect()
    assert len(ratios) == 10
    query, key = 3 * torch.randn(2, 1, 64, 16), torch.randn(2, 1, 64, 16)
    expected = logit_moments(query, key, 0.25)[1].sqrt() / freezing_std(64)
    assert torch.allclose(unet.freezing_ratio(query, key, 0.25), expected, atol=1e-3)


def test_healthy_rows_are_not_penalised():
    processor = unet.PenalisedProcessor(0.75, floor=0.5)
    processor.note(torch.full((2, 1, 8), 0.2))  # few tokens: no floor
    processor.note(torch.full((2, 1, 64), 0.7))
    processor.note(torch.full((2, 1, 8), 0.95))
    penalty, ratios = processor.collect()
    assert penalty == pytest.approx(0.2)
    processor.note(torch.full((2, 1, 64), 0.4))
    assert processor.collect()[0] == pytest.approx(0.1)
    assert list(ratios.values()) == pytest.approx([0.2, 0.7, 0.95])


def test_the_denoiser_trains_and_resumes(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(unet, "BATCH", 4)
    encoder = text_encoder.build_encoder(tokenizer).eval()
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    few = dict(list(scenes.captions().items())[:3])
    monkeypatch.setattr(unet, "caption_rows", lambda count, texts: torch.arange(count) % 3)
    monkeypatch.setattr(scenes, "captions", lambda *_: few)
    unet.train(tmp_path / "a.safetensors", unet.Recipe(), latents, encoder, 2)
    network = unet.train(tmp_path / "a.safetensors", unet.Recipe(), latents, encoder, 3)
    assert (
        sum(p.abs().sum().item() for name, p in network.named_parameters() if name.startswith("conv_out")) > 0
    )
    exported = loop.averaged(tmp_path / "a.safetensors", unet.build(unet.Recipe())).state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in network.state_dict().items())
    with pytest.raises(WeightsError, match="train first"):
        loop.averaged(tmp_path / "nothing.safetensors", unet.build(unet.Recipe()))


def test_the_colour_of_the_ground_is_named():
    for number in range(100):
        scene = scenes.scene(number, "test")
        assert quality.ground_colour(scenes.draw(scene, 64, 64)) == scene.background.colour


def test_the_gate_holds_only_for_living_attention():
    def layers(ratio, beyond, entropy):
        return pd.DataFrame({"of_freezing": ratio, "beyond_freezing": beyond, "entropy_ratio": entropy})

    assert all(quality.gate(layers([0.4, 0.6, 0.5], [0.0, 0.0, 0.1], [0.8, 0.7, 0.8])).values())
    assert not any(
        quality.gate(layers([0.1, 0.2, 0.1, 1.0], [0.0, 0.3, 0.1, 0.9], [0.99, 0.98, 0.97, 0.98])).values()
    )


def test_any_text_has_tokens_of_its_own(tokenizer):
    for caption in ("猫", "Ünïcode", "xqzw 0123", "🦓"):
        ids = tokenizer(caption, add_special_tokens=False).input_ids
        assert ids
        assert tokenizer.unk_token_id not in ids


def test_the_vocabulary_is_that_of_the_shipped_model(pipe, tokenizer):
    assert tokenizer.get_vocab() == pipe.tokenizer.get_vocab() == round_trip(tokenizer).get_vocab()


def test_the_vocabulary_does_not_depend_on_the_order_of_sets(tokenizer):
    shuffled = sorted(scenes.captions(), key=hash)
    assert tokenizer_of(shuffled).get_vocab() == tokenizer.get_vocab()


def test_merges_follow_counts_and_then_the_alphabet():
    words = {word: (*word[:-1], word[-1] + "</w>") for word in ("ab", "abc", "xy")}
    assert learn_merges(words) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>"), ("x", "y</w>")]


def test_pure_noise_is_the_first_step():
    scheduler = unet.build_scheduler()
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == 999
    weight = unet.loss_weight(torch.tensor([0.0, 1.0, 4.0, 9.0]))
    assert weight.tolist() == pytest.approx([1, 1, 1, 0.5])


def test_timesteps_are_stratified():
    times = unet.stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert (times // 100).tolist() == list(range(10))


def test_patches_are_the_squares_of_the_latents_row_by_row():
    latents = torch.arange(2 * 3 * 8 * 8).float().reshape(2, 3, 8, 8)
    patches = text_encoder.patches(latents)
    assert patches.shape == (2, GRID**2, 3 * 2 * 2)
    second_row_third_column = latents[1, :, 2:4, 4:6]
    assert torch.equal(patches[1, GRID + 2], second_row_third_column.flatten())


@pytest.mark.parametrize(("model", "world"), [("mini", scenes.FULL), ("mini-dit", scenes.SIMPLE)])
def test_prompts_are_captions_of_test_scenes(model, world):
    prompts = (PROMPTS / f"{model}.txt").read_text(encoding="utf-8").splitlines()
    assert prompts == quality.draw_prompts(world=world)
    assert len(set(prompts)) == 200


def test_attention_of_the_embedded_model_is_alive(pipe):
    layers = quality.attention(pipe, quality.draw_prompts(8))
    assert all(quality.gate(layers).values()), layers.to_string()


def test_a_control_is_exported_as_its_denoiser_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "RUNS", tmp_path)
    pd.DataFrame({"step": [50], "loss": [0.5], "seconds": [9.0]}).to_csv(
        tmp_path / "mini-weak.csv", index=False
    )
    network = unet.build(unet.RECIPES["mini-weak"])
    mini.export(network, "mini-weak", tmp_path / "data")
    folder = tmp_path / "data" / "mini-weak"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert files == {"SHA256SUMS", "training_mini-weak.csv", "unet/config.json", weights}
    assert list(pd.read_csv(folder / "training_mini-weak.csv").columns) == ["step", "loss"], (
        "times are of no use to others"
    )
    verify(folder, required=True)
    stored = load_file(folder / weights)
    assert all(torch.equal(value.half(), stored[name]) for name, value in network.state_dict().items())


def test_mini_is_exported_as_a_whole_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "RUNS", tmp_path)
    pd.DataFrame({"step": [50], "loss": [0.5], "seconds": [9.0]}).to_csv(tmp_path / "mini.csv", index=False)
    mini.export(unet.build(unet.Recipe()), "mini", tmp_path)
    pipe = load(str(tmp_path / "mini"), device="cpu")
    assert len(pipe("an owl", height=32, width=32, num_inference_steps=1, output_type="np").images) == 1
