"""What all trainings share: the optimiser, the resumable loop, its schedule, and checksums of what is
written.
"""

import pandas as pd
import pytest
import torch

from entropy_lib.models.checksums import CHECKSUMS, MEASURED, verify, write_checksums
from training import loop, muon, unet


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
def test_orthogonalised_matrices_keep_directions_and_lose_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    result = muon.orthogonalised(matrix)
    assert torch.linalg.svdvals(result).min() > 0.5
    assert torch.linalg.svdvals(result).max() < 1.3
    rotated = u.mT @ result @ v.mT
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 1e-3, (
        "the singular vectors are those of the matrix"
    )


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
    model = unet.build(unet.Recipe())
    optimizers = muon.muon_and_adamw(model, 1e-3, 0.0)
    given = [
        id(p)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    assert sorted(given) == sorted(id(p) for p in model.parameters())


def test_every_picture_is_seen_once_an_epoch():
    seen = torch.cat([loop.epoch_batch(step, 3, 10) for step in range(10)])
    for epoch in seen.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:20].tolist()


def test_learning_rate_warms_up_stays_and_decays():
    rates = [loop.warmup_stable_decay(step, 1000, warmup=100, decay=0.3) for step in range(1000)]
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
                loss = model(torch.randn(8, 4, generator=loop.step_generator(step))).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                return {"loss": loss.item()}

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "warmup_stable_decay", lambda step, steps: 1.0)
                loop.loop(path, {"model": model}, {"adamw": optimizer}, steps, update, checkpoint_every=1000)
        return model.weight

    assert torch.equal(train(tmp_path / "a.safetensors", [60]), train(tmp_path / "b.safetensors", [20, 60]))
    undisturbed, resumed = (pd.read_csv(tmp_path / f"{name}.csv").drop(columns="seconds") for name in "ab")
    assert list(undisturbed.step) == list(resumed.step) == [50]


def test_checksums_cover_what_is_loaded_and_not_what_is_measured_later(tmp_path):
    for name in ("model_index.json", "unet/weights.safetensors", MEASURED, "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    (tmp_path / MEASURED).write_text("measured again")
    verify(tmp_path)
    listed = {line.split()[1] for line in (tmp_path / CHECKSUMS).read_text().splitlines()}
    assert listed == {"model_index.json", "unet/weights.safetensors"}
