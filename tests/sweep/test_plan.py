"""Units, their keys, and plans cut into shards."""

import itertools
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lib.sweep.engines import _share, shard_of_environment
from entropy_lib.sweep.plan import Plan, Settings, Unit

SETTINGS = Settings("mini", "1234", "own", 20, 2.0, "float32", (64, 64))
PROMPTS, SEEDS, METHODS = ["a zebra", "ein Käse"], [0, 1, 2], ["unscaled", "paper"]
SIZES = [(32, 32), (64, 64), "64x96"]


@pytest.fixture
def plan():
    return Plan.of(SETTINGS, PROMPTS, SEEDS, SIZES, METHODS)


def unit(prompt, seed, height, width, method, **changes):
    common = {"model": "mini", "revision": "1234", "scheduler": "own", "steps": 20, "guidance": 7.5}
    common |= {"dtype": "float32", "version": 1}
    return Unit(prompt, seed, height, width, method, **common | changes)


def test_a_key_names_everything_the_image_depends_on():
    one = unit("a zebra", 0, 64, 96, "equal-entropy(heads)")
    changes = {"prompt": "a zebra ", "seed": 1, "height": 72, "width": 64, "method": "unscaled"}
    changes |= {"calibration": "5678", "model": "sd15", "revision": "1235", "scheduler": "DDIMScheduler"}
    changes |= {"steps": 21, "guidance": 2.5, "dtype": "float16", "version": 2}
    assert set(changes) == set(asdict(one)), "every field is part of the key"
    keys = {replace(one, **{name: value}).key for name, value in changes.items()}
    assert len({one.key, *keys}) == len(changes) + 1


GOLDEN = {  # keys that images lie under in stores; none may ever change
    "075e0f1f765f55d76029a1a2f64b6c2c71e8d5072c4967dc0aefbca8346c3c55": unit("a zebra", 0, 64, 96, "paper"),
    "d22b951e7fad4060db5470df90b896ef517b8136f77fe4aaf62651ef25ccbdec": unit(
        "ein Käse", 3, 64, 96, "power( 0.50 )"
    ),
    "5ab6940034989c259bfbd250fec2edabd16de9f4847be90ad2278affb97e0af2": unit(
        "a zebra", 0, 64, 96, "two-stage + paper", guidance=2
    ),
    "df13fd6d54a6f68fc783bbe85ca90ab9ed70962d19575accb1339b3f74318fd3": replace(
        unit("a zebra", 2**40, 1024, 1536, "resized(lanczos)", model="sd21", dtype="bfloat16"),
        scheduler="DDIMScheduler",
    ),
    "df2cfdf4ba4cf65e73fbe2a9d68ddca463eef01d0432d7989180a2aa2197cf7a": unit(
        "a zebra", 0, 64, 96, "equal-entropy(heads)", calibration="5678"
    ),
    "e072c9ab6b5bc0a6765f33b0bc233604d9c605e485005f6eb78e9275caba9332": unit(
        "a zebra", 0, 64, 96, "paper", calibration="5678", version=0
    ),
}


@pytest.mark.parametrize(("key", "found"), GOLDEN.items(), ids=[key[:6] for key in GOLDEN])
def test_images_that_lie_in_stores_keep_their_keys(key, found):
    assert found.key == key


def test_noise_knows_prompt_seed_and_size_but_not_the_method():
    one = unit("a zebra", 0, 64, 96, "paper")
    same = {"method": "unscaled", "steps": 5, "guidance": 1.0, "dtype": "float16", "version": 9}
    assert {replace(one, **{name: value}).noise_seed for name, value in same.items()} == {one.noise_seed}
    others = {"prompt": "b", "seed": 1, "height": 96, "width": 64}
    seeds = {replace(one, **{name: value}).noise_seed for name, value in others.items()}
    assert len({one.noise_seed, *seeds}) == 5
    assert one.noise_seed == 1764222006298752221


def test_native_size_is_generated_once_for_all_rules_that_change_nothing_there():
    plan = Plan.of(SETTINGS, PROMPTS, SEEDS, SIZES, [*METHODS, "gamma(1.4)"])
    assert [method for size, method in plan.cells if size == "64x64"] == ["unscaled", "gamma(1.4)"]
    assert len(plan.units) == 6 * (3 * 2 + 2)


@given(count=st.integers(1, 9), batch=st.integers(1, 7))
def test_shards_divide_the_work_and_never_a_batch(count, batch):
    plan = Plan.of(SETTINGS, PROMPTS, SEEDS, SIZES, METHODS)
    whole = plan.groups(batch)
    shards = [plan.groups(batch, (index, count)) for index in range(count)]
    assert sorted(itertools.chain(*shards), key=whole.index) == whole
    assert sorted(unit.key for group in whole for unit in group) == sorted(unit.key for unit in plan.units)
    assert all(len({(unit.size, unit.method) for unit in group}) == 1 for group in whole)


def test_a_calibration_that_no_method_takes_factors_from_is_no_part_of_a_plan(plan):
    own = replace(SETTINGS, calibration="5678")
    assert Plan.of(own, PROMPTS, SEEDS, SIZES, METHODS) == plan
    assert Plan.of(own, PROMPTS, SEEDS, SIZES, [*METHODS, "equal-entropy(heads)"]).settings == own


def test_shards_come_from_the_environment():
    assert shard_of_environment({}) == (0, 1)
    assert shard_of_environment({"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8)
    job = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert shard_of_environment(job) == (2, 4)
    inside = {"WORLD_SIZE": "3", "SLURM_PROCID": "0"} | job
    shards = [shard_of_environment(inside | {"RANK": str(rank)}) for rank in range(3)]
    assert shards == [(6, 12), (7, 12), (8, 12)]
    assert shard_of_environment({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}) == (1, 2)


def test_ray_workers_get_what_there_is():
    machines = ((True, 4.0), (False, 64.0), (True, 4.0))
    nodes = [{"Alive": alive, "Resources": {"CPU": cores}} for alive, cores in machines]
    assert _share(nodes, 1, "cpu")["num_cpus"] == 4, "no node has eight"
    assert _share(nodes, 3, "auto")["num_cpus"] == 2
    with pytest.raises(ValueError, match="workers is 9; the Ray cluster has 8 cores: take 1 to 8"):
        _share(nodes, 9, "auto")
    gpus = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}]
    assert _share(gpus, 2, "auto") == {"num_gpus": 1, "num_cpus": 1}
    with pytest.raises(ValueError, match="2 GPUs"):
        _share(gpus, 3, "auto")
