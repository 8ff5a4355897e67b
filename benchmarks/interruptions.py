"""A sweep that is killed again and again: is anything lost, doubled, or half written?

    python -m benchmarks.interruptions [kills]

A small sweep of the embedded model is drawn once without disturbance. Then again, killed at random moments
(SIGKILL) and started again, until it is done; then by Ray, whose workers are killed; then in three shards.
All must end with the same keys and, with equal numbers of threads, the same bytes.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from entropy_lib.files import sha256
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.sample import settings
from entropy_lib.sweep.store import Store

BATCH = 4
SIZES, RULES = [(32, 32), (48, 48), (64, 64), (64, 96)], ["unscaled", "paper"]
DRAW = f"""
import sys, torch
from benchmarks.interruptions import planned
from entropy_lib.sweep import engines
from entropy_lib.sweep.store import Store
torch.set_num_threads(1)
store, groups = Store(sys.argv[1]), planned().groups({BATCH}, engines.parse_shard(sys.argv[2]))
store.clean()
engines.ENGINES[sys.argv[3]](groups, store, device="cpu", workers=int(sys.argv[4]), progress=False)
"""


def start(folder, shard="0/1", engine="local", workers=1):
    return subprocess.Popen(
        [sys.executable, "-c", DRAW, str(folder), shard, engine, str(workers)], stderr=subprocess.DEVNULL
    )


def planned():
    things, styles = ("a penguin", "a car", "an owl", "a rocket"), ("twemoji", "fluent")
    prompts = [f"{thing}, {style} style" for thing in things for style in styles]
    return Plan.of(settings("mini", 8, 2.0, "float32", "cpu"), prompts, [0, 1], SIZES, RULES)


def killed_and_resumed(folder, kills, dice):
    """Kill the process at random moments of its life, often while it draws; returns how many kills hit it
    alive.
    """
    hits = 0
    while True:
        process, before = start(folder), len(Store(folder).committed())
        while hits < kills and process.poll() is None and len(Store(folder).committed()) == before:
            time.sleep(0.01)
        if hits < kills and process.poll() is None:
            time.sleep(dice.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            hits += process.wait() == -signal.SIGKILL
        elif process.wait() == 0:
            return hits


def workers_killed(folder, kills, dice):
    """Kill actors of a local Ray cluster at random while they draw."""
    process, hits, seen = start(folder, engine="ray", workers=2), 0, 0
    while process.poll() is None:
        done = len(Store(folder).committed())
        actors = [
            p for p in psutil.Process(process.pid).children(recursive=True) if "ray::_Worker" in name(p)
        ]
        if hits < kills and done > seen and actors:
            time.sleep(dice.uniform(0, 0.5))
            os.kill(dice.choice(actors).pid, signal.SIGKILL)
            hits, seen = hits + 1, len(Store(folder).committed())
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the Ray engine ended with {process.returncode}")
    return hits


def name(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def compare(way, plan, folder, expected, kills):
    """One line of the table; what must not be ends the script."""
    store = Store(folder)
    images = {
        path.stem: sha256(path)
        for path in (folder / "images").rglob("*.png")
        if not path.name.startswith(".")
    }
    half = [path for path in folder.rglob(".*") if path.is_file()]
    assert set(images) == store.committed() == set(expected), f"{way}: keys differ"
    store.clean()
    apart = [unit for unit in plan.units if images[unit.key] != expected[unit.key]]
    levels = max((int(np.abs(store.read(u).astype(int) - REFERENCE.read(u)).max()) for u in apart), default=0)
    same = len(plan.units) - len(apart)
    print(f"| {way} | {kills} | {len(images)} | {same} | {levels} | {len(half)} |", flush=True)


def main(kills):
    global REFERENCE
    plan, dice = planned(), random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folders = {way: Path(place) / way for way in ("undisturbed", "killed", "shards", "ray", "ray killed")}
        assert start(folders["undisturbed"]).wait() == 0
        REFERENCE = Store(folders["undisturbed"])
        expected = {path.stem: sha256(path) for path in (REFERENCE.folder / "images").rglob("*.png")}
        print(f"mini, 8 steps, {len(plan.units)} images in batches of {BATCH}, one thread each\n")
        print(
            "| way | kills | images | same bytes | largest difference (grey levels) "
            "| temporary files left before cleaning |"
        )
        print("|---|---|---|---|---|---|")
        compare("undisturbed", plan, REFERENCE.folder, expected, 0)
        hits = killed_and_resumed(folders["killed"], kills, dice)
        compare("killed and started again", plan, folders["killed"], expected, hits)
        assert all(start(folders["shards"], f"{index}/3").wait() == 0 for index in (1, 2, 0))
        compare("three shards", plan, folders["shards"], expected, 0)
        assert start(folders["ray"], engine="ray", workers=2).wait() == 0
        compare("Ray, two workers", plan, folders["ray"], expected, 0)
        hits = workers_killed(folders["ray killed"], kills // 2, dice)
        compare("Ray, workers killed", plan, folders["ray killed"], expected, hits)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
