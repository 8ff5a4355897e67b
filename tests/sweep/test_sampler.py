"""Generating: the same bytes whoever does it, whatever was there before, however often it is killed."""

import itertools
import multiprocessing
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from entropy_lib.errors import EntropyLibError, InvalidInputError
from entropy_lib.files import sha256
from entropy_lib.sampling import generation
from entropy_lib.scaling.calibration import SHIPPED, Calibration
from entropy_lib.scaling.patch import scale_report
from entropy_lib.sweep import engines
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.sample import Sampler, settings
from entropy_lib.sweep.store import Store

pytestmark = pytest.mark.slow

BATCH = 3


@pytest.fixture(scope="module")
def plan():
    prompts = ["a penguin, fluent style", "a car", "an owl, fluent style", "a rocket"]
    shared = settings("mini", 2, 2.0, "float32", "cpu")
    return Plan.of(shared, prompts, [0, 1], ["32x32", "64x64"], ["unscaled", "paper"])


def generate(groups, store):
    """How many images this process generates."""
    return engines.local(groups, store, device="cpu", progress=False)


@pytest.fixture(scope="module")
def sampler():
    return Sampler("mini", "float32", "cpu")


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert generate(plan.groups(BATCH), store) == len(plan.units)
    return store


def content(store: Store) -> dict[str, str]:
    """{key: checksum} of the images, each of which has its record."""
    images = [path for path in (store.folder / "images").rglob("*.*") if not path.name.startswith(".")]
    assert {path.stem for path in images} == store.committed()
    return {path.stem: sha256(path) for path in images}


def test_what_a_plan_asks_for_is_generated(plan, undisturbed):
    assert set(content(undisturbed)) == {unit.key for unit in plan.units}
    assert len(set(content(undisturbed).values())) == len(plan.units), "no two images are the same"


def test_three_shards_generate_the_same_bytes_as_one_and_a_half_done_batch_is_completed(
    plan, undisturbed, tmp_path
):
    store = Store(tmp_path)
    for index in (2, 0, 1):
        generate(plan.groups(BATCH, (index, 3)), store)
    assert content(store) == content(undisturbed)
    for unit in plan.units[1::4]:
        store.record_path(unit.key).unlink()
        store.image_path(unit.key).unlink()
    assert generate(plan.groups(BATCH), store) == len(plan.units[1::4])
    assert content(store) == content(undisturbed)
    assert generate(plan.groups(BATCH), store) == 0


def test_the_rule_is_taken_out_again(plan, sampler, tmp_path):
    sampler.generate_group(plan.cells["32x32", "paper"][:1], Store(tmp_path))
    assert scale_report(sampler.pipe).empty


def test_the_batch_is_halved_when_memory_runs_out(plan, sampler, tmp_path, monkeypatch):
    sizes, store, group = [], Store(tmp_path), plan.cells["32x32", "paper"]

    def hungry(pipe, prompts, *_, **__):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(prompts))
        return np.full((len(prompts), 32, 32, 3), 0.5)

    def starved(*_, **__):
        raise torch.OutOfMemoryError("no memory at all")

    monkeypatch.setattr(generation, "one_batch", hungry)
    assert sampler.generate_group(group, store) == 8
    assert sizes == [2, 2, 2, 2]
    assert store.record(group[0])["batch"] == 2
    monkeypatch.setattr(generation, "one_batch", starved)
    with pytest.raises(torch.OutOfMemoryError):
        sampler.generate_group(plan.cells["32x32", "unscaled"][:1], store)


def test_images_that_are_not_finite_are_excluded_and_counted(plan, sampler, tmp_path, monkeypatch):
    def broken(pipe, prompts, *_, **__):
        images = np.full((len(prompts), 32, 32, 3), 0.5)
        images[[prompt == group[1].prompt for prompt in prompts], 3, 4, 0] = np.nan
        return images

    monkeypatch.setattr(generation, "one_batch", broken)
    store, group = Store(tmp_path), [*plan.cells["32x32", "paper"]][::2][:3]
    sampler.generate_group(group, store)
    assert store.record(group[1])["excluded"] == "not finite"
    assert [store.image_path(unit.key).exists() for unit in group] == [True, False, True]
    assert engines.pending([group], store) == []


def test_units_of_another_model_state_are_refused(plan, sampler, tmp_path):
    for name in ("revision", "dtype", "scheduler", "version"):
        said = rf"{name} here is .* the plan asks for bfloat16; make the plan again"
        with pytest.raises(InvalidInputError, match=said):
            sampler.generate_group([replace(plan.units[0], **{name: "bfloat16"})], Store(tmp_path))


def generate_whole(plan, folder):
    generate(plan.groups(BATCH), Store(folder))


@pytest.fixture
def start():
    """Starts a process that generates a plan: forked from one that has imported what it needs, which takes
    longer than generating.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["entropy_lib.sweep.sample"])

    def run(plan, folder):
        process = processes.Process(target=generate_whole, args=(plan, folder))
        process.start()
        return process

    return run


def test_kills_at_random_moments_lose_and_double_nothing(plan, undisturbed, tmp_path, start):
    """Two kills here; `benchmarks/interruptions.py` does twenty, and kills Ray's workers."""
    store, dice = Store(tmp_path), random.Random(0)
    for _ in range(2):
        process, before = start(plan, tmp_path), len(store.committed())
        while len(store.committed()) <= before + 1:
            assert process.is_alive()
            time.sleep(0.02)
        time.sleep(dice.random() * 0.2)
        process.kill()
        process.join()
    process = start(plan, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert content(store) == content(undisturbed)


def test_ray_generates_the_same_images(plan, undisturbed, tmp_path):
    """One worker, as each has to import and load everything; several start as this one does."""
    ray = pytest.importorskip("ray")
    store, some = Store(tmp_path), plan.groups(BATCH)[::3]
    engines.ray(some, store, device="cpu", workers=1, progress=False)
    assert not ray.is_initialized()
    assert set(content(store)) == {unit.key for group in some for unit in group}
    for unit in itertools.chain(*some):  # with other threads, so by one grey level at most
        assert np.abs(store.read(unit).astype(int) - undisturbed.read(unit)).max() <= 1


def other_calibration(strength):
    """The embedded model's own calibration, as if every head answered the scale that much more."""
    shipped = Calibration.read(SHIPPED / "mini.json")
    layers = {
        name: replace(layer, factors=tuple(factor**strength for factor in layer.factors))
        for name, layer in shipped.layers.items()
    }
    return replace(shipped, layers=layers)


def calibrated_plan(calibration, methods=("unscaled", "equal-entropy(layers)")):
    shared = replace(settings("mini", 2, 2.0, "float32", "cpu"), calibration=calibration)
    return Plan.of(shared, ["a car", "an owl", "a rocket"], [0], ["64x96"], methods)


def test_a_calibration_of_ones_own_is_part_of_what_an_image_is(tmp_path):
    """Images of rules that take nothing from it are those that were there before."""
    store, found = Store(tmp_path), {}
    for name, digest in {"shipped": "", "own": store.keep_calibration(other_calibration(1.5))}.items():
        plan = calibrated_plan(digest)
        generate(plan.groups(BATCH), store)
        found[name] = {unit.method: unit for unit in plan.units if unit.prompt == "an owl"}
    shipped, own = found["shipped"], found["own"]
    assert shipped["unscaled"].key == own["unscaled"].key
    assert shipped["equal-entropy(layers)"].key != own["equal-entropy(layers)"].key
    images = [store.read(one["equal-entropy(layers)"]) for one in (shipped, own)]
    assert not np.array_equal(*images)
    again = Store(tmp_path / "again")
    generate(calibrated_plan("").groups(BATCH), again)
    assert np.array_equal(again.read(shipped["equal-entropy(layers)"]), images[0])


def calibration_of_another_model(store):
    return calibrated_plan(store.keep_calibration(Calibration.read(SHIPPED / "mini-weak.json")))


def calibration_that_was_changed(store):
    digest = store.keep_calibration(other_calibration(1.5))
    other_calibration(2.0).write(store.folder / "calibrations" / f"{digest}.json")
    return calibrated_plan(digest)


@pytest.mark.parametrize(
    ("plan_for", "message"),
    [
        (calibration_of_another_model, "was measured on other weights"),
        (calibration_that_was_changed, "was changed after it was kept"),
        (lambda store: calibrated_plan("0123456789abcdef"), "no calibration at"),
        (lambda store: calibrated_plan("", ["unscaled", "paper[7]"]), "there is no level 7"),
    ],
)
def test_a_rule_that_the_network_cannot_take_is_refused_before_anything_is_generated(
    tmp_path, plan_for, message
):
    store = Store(tmp_path)
    groups = plan_for(store).groups(BATCH)
    with pytest.raises(EntropyLibError, match=message):
        generate(groups, store)
    assert not (tmp_path / "images").exists()
