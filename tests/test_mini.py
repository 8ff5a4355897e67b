"""The embedded model's data, training and quality measure."""

import io
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from entropy_lib.attention.entropy import logit_moments
from entropy_lib.mini import autoencoder, concepts, dataset, denoiser, evaluate, muon, text, training
from entropy_lib.models.checksums import CHECKSUMS, MEASURED, verify, write_checksums
from entropy_lib.theory import freezing_std

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table():
    return dataset.load()


def test_the_table_holds_what_its_card_says(table):
    assert list(table.columns) == ["name", "category", "design", "codepoint", "licence", "image"]
    assert 300 <= table.name.nunique() <= 600
    assert 1000 <= len(table) <= 2000
    assert dataset.PARQUET.stat().st_size <= 15e6
    assert not table.duplicated(["name", "design"]).any()
    assert table.groupby("design").licence.unique().map(list).to_dict() == {
        design: [source.licence] for design, source in dataset.SOURCES.items()
    }
    images = dataset.pixels(table.image)
    assert images.shape == (len(table), 3, 64, 64)
    assert images.amin() >= -1
    assert images.amax() <= 1


def test_pictures_are_put_on_white_without_loss():
    picture = Image.new("RGBA", (64, 64), (10, 20, 30, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 64, 32))
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    result = np.asarray(Image.open(io.BytesIO(dataset.on_white(encoded.getvalue()))))
    assert (result[:32] == 255).all()
    assert (result[32:] == (10, 20, 30)).all()


def test_selection_keeps_the_wanted_and_leaves_out_the_rest():
    def entry(name, subcategory, order):
        return {"name": name, "subcategory": subcategory, "sort_order": order}

    catalogue = [
        entry("ZEBRA FACE", "animal-mammal", 2),
        entry("RAT", "animal-mammal", 1),
        entry("KEY", "lock", 0),
        entry("PEN", "x", 3),
    ]
    assert [row["name"] for row in dataset.selected(catalogue)] == ["KEY", "ZEBRA FACE"]
    assert concepts.prompt_name("zebra face") == "zebra"
    assert not set(concepts.LEFT_OUT) & set(concepts.SINGLE_NAMES)


def test_captions_have_the_right_article():
    assert dataset.caption("zebra") == "a zebra"
    assert dataset.caption("owl", "noto") == "an owl, noto style"
    assert dataset.caption("unicorn") == "a unicorn"


def test_every_word_of_a_caption_is_one_token(table):
    tokenizer = text.round_trip(text.build_tokenizer(table))
    for caption in text.captions(table):
        words = caption.replace(",", " ,").split()
        assert tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)[1:-1] == [word + "</w>" for word in words]


def test_any_text_has_tokens_of_its_own(table):
    tokenizer = text.build_tokenizer(table)
    for caption in ("猫", "Ünïcode", "xqzw 0123", "🦓"):
        ids = tokenizer(caption, add_special_tokens=False).input_ids
        assert ids
        assert tokenizer.unk_token_id not in ids


@pytest.mark.slow
def test_the_vocabulary_is_the_same_in_every_run_and_that_of_the_shipped_model(pipe, table):
    code = "from entropy_lib.mini import dataset, text; print(sorted(text.build_tokenizer(dataset.load()).get_vocab().items()))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert text.build_tokenizer(table).get_vocab() == pipe.tokenizer.get_vocab()


def test_merges_follow_counts_and_then_the_alphabet():
    words = {word: (*word[:-1], word[-1] + "</w>") for word in ("ab", "abc", "xy")}
    assert text.learn_merges(words) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>"), ("x", "y</w>")]


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
def test_orthogonalised_matrices_keep_directions_and_lose_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    result = muon.orthogonalised(matrix)
    assert torch.linalg.svdvals(result).min() > 0.5
    assert torch.linalg.svdvals(result).max() < 1.3
    rotated = u.mT @ result @ v.mT
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 1e-3, "the singular vectors are those of the matrix"


def test_muon_lowers_a_loss_and_takes_matrices_only():
    generator = torch.Generator().manual_seed(0)
    target, weight = torch.randn(6, 4, generator=generator), torch.nn.Parameter(torch.zeros(6, 4))
    optimizer = muon.Muon([weight], lr=0.03)
    losses = []
    for _ in range(400):
        loss = (weight - target).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    with pytest.raises(ValueError, match="matrices and kernels only"):
        muon.Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_every_parameter_has_one_optimizer():
    model = denoiser.build()
    optimizers = muon.muon_and_adamw(model, 1e-3, 0.0)
    given = [id(p) for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in model.parameters())


def test_normalisation_is_folded_into_the_autoencoder():
    torch.manual_seed(0)
    vae = autoencoder.build().eval()
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mode()).sample
        autoencoder.fold_normalisation(vae, images)
        posterior = vae.encode(images).latent_dist
    assert torch.allclose(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(posterior.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(vae.decode(posterior.mode()).sample, before, atol=1e-3)


def test_every_picture_is_seen_once_an_epoch():
    seen = torch.cat([training.epoch_batch(step, 3, 10) for step in range(10)])
    for epoch in seen.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:20].tolist()


def test_learning_rate_warms_up_stays_and_decays():
    rates = [training.warmup_stable_decay(step, 1000, warmup=100, decay=0.3) for step in range(1000)]
    assert rates[0] == 0.01
    assert set(rates[100:700]) == {1.0}
    assert rates[700:] == sorted(rates[700:], reverse=True)
    assert rates[-1] < 0.01


def test_a_resumed_training_is_that_of_an_undisturbed_one(tmp_path):
    def train(path, stops):
        for steps in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 4)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

            def update(step, model=model, optimizer=optimizer):
                loss = model(torch.randn(8, 4, generator=training.step_generator(step))).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                return {"loss": loss.item()}

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "warmup_stable_decay", lambda step, steps: 1.0)
                training.loop(path, {"model": model}, {"adamw": optimizer}, steps, update, checkpoint_every=1000)
        return model.weight

    assert torch.equal(train(tmp_path / "a.safetensors", [12]), train(tmp_path / "b.safetensors", [5, 12]))
    curve = pd.read_csv(tmp_path / "a.csv") if (tmp_path / "a.csv").exists() else pd.DataFrame()
    assert curve.empty, "fewer steps than one row of the log"


def test_penalty_is_zero_for_healthy_attention_and_grows_beyond():
    query, key = torch.randn(2, 1, 64, 16), torch.randn(2, 1, 64, 16)
    assert denoiser.freezing_penalty(0.1 * query, key, 0.25) == 0
    strong = 20 * query
    expected = (logit_moments(strong, key, 0.25)[1].sqrt() / freezing_std(64) - denoiser.HEALTHY).clamp(min=0).mean()
    assert denoiser.freezing_penalty(strong, key, 0.25) == pytest.approx(expected.item(), rel=1e-4)


def test_the_training_processor_computes_what_diffusers_computes():
    torch.manual_seed(0)
    network = denoiser.build().eval()
    for module in network.modules():  # residual branches start at zero: give them weight
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.05)
    inputs = torch.randn(2, 4, 16, 16), torch.tensor(300), torch.randn(2, 16, text.WIDTH)
    with torch.no_grad():
        expected = network(*inputs).sample
        processor = denoiser.PenalisedProcessor()
        network.set_attn_processor(processor)
        assert torch.allclose(network(*inputs).sample, expected, atol=1e-4)
    assert len(processor.penalties) == 10


def test_pure_noise_is_the_first_step():
    scheduler = denoiser.build_scheduler()
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == 999
    weight = denoiser.loss_weight(torch.tensor([0.0, 1.0, 4.0, 9.0]))
    assert weight.tolist() == pytest.approx([1, 1, 1, 0.5])


def test_timesteps_are_stratified():
    times = denoiser.stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert (times // 100).tolist() == list(range(10))


def test_the_quality_measure_names_the_data_itself(pipe, table):
    some = table.sample(40, random_state=0)
    latents = evaluate.encode(pipe.vae, dataset.pixels(some.image))
    assert all(evaluate.named_within(latents, latents, list(some.name), list(some.name), 1))
    wrong = list(np.roll(some.name, 1))
    assert sum(evaluate.named_within(latents, latents, list(some.name), wrong, 1)) <= 2


def test_prompts_are_the_drawn_ones(table):
    prompts = evaluate.PROMPT_LIST.read_text().splitlines()
    assert prompts == evaluate.draw_prompts(table)
    names = evaluate.prompted_names(prompts, table.name.unique())
    assert len(set(names)) == len(prompts) == 200


def test_attention_of_the_embedded_model_is_alive(pipe):
    health = pd.DataFrame(evaluate.attention_health(pipe, evaluate.PROMPT_LIST.read_text().splitlines()[:4], 5, 2.0))
    assert len(health) == 10
    assert (health.beyond_freezing < 0.2).all()
    assert (health.logit_std > 0.1).all()


def test_patches_are_the_squares_of_the_latents_row_by_row():
    latents = torch.arange(2 * 3 * 8 * 8).float().reshape(2, 3, 8, 8)
    patches = text.patches(latents)
    assert patches.shape == (2, text.GRID**2, 3 * 2 * 2)
    second_row_third_column = latents[1, :, 2:4, 4:6]
    assert torch.equal(patches[1, text.GRID + 2], second_row_third_column.flatten())


def test_captions_are_drawn_with_and_without_design_or_empty(table):
    rows = table.sample(2000, replace=True, random_state=0)
    drawn = text.drawn_captions(rows, torch.Generator().manual_seed(0))
    full = [dataset.caption(name, design) for name, design in zip(rows.name, rows.design, strict=True)]
    bare = [dataset.caption(name, None) for name in rows.name]
    assert all(caption in ("", *pair) for caption, *pair in zip(drawn, full, bare, strict=True))
    assert sum(caption == "" for caption in drawn) == pytest.approx(200, abs=50)
    assert sum(a == b for a, b in zip(drawn, bare, strict=True)) == pytest.approx(300, abs=60)


def test_every_caption_that_can_be_drawn_is_encoded_once(table):
    few = table.head(3)
    encoder = text.build_encoder(text.build_tokenizer(table)).eval()
    states = text.all_states(encoder, few)
    assert set(states) == {
        "", *text.captions(few), *(dataset.caption(name, None) for name in few.name)
    }  # fmt: skip
    tokenizer = text.build_tokenizer(few)
    caption = text.captions(few)[0]
    assert torch.allclose(states[caption], encoder(text.encode(tokenizer, [caption])).last_hidden_state[0], atol=1e-5)
    assert next(iter(states.values())).shape == (text.MAX_TOKENS, text.WIDTH)


@pytest.mark.slow
def test_the_text_encoder_learns_to_tell_the_patches(tmp_path, table, monkeypatch):
    few = table.groupby("design").head(4)
    monkeypatch.setattr(dataset, "load", lambda: few)
    monkeypatch.setattr(text, "BATCH", 16)
    latents = torch.randn(len(few), 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text.train(tmp_path / "text.safetensors", latents, 150)
    curve = pd.read_csv(tmp_path / "text.csv")
    assert curve.loss.iloc[-1] < 0.9 * curve.loss.iloc[0]


def test_checksums_cover_what_is_loaded_and_not_what_is_measured_later(tmp_path):
    for name in ("model_index.json", "unet/weights.safetensors", MEASURED, "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    (tmp_path / MEASURED).write_text("measured again")
    verify(tmp_path)
    listed = {line.split()[1] for line in (tmp_path / CHECKSUMS).read_text().splitlines()}
    assert listed == {"model_index.json", "unet/weights.safetensors"}
