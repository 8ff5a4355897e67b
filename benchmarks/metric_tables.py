"""What metric tables cost: time outside the model, cached features, memory, and the price of an interval.

    python -m benchmarks.metric_tables
    python -m benchmarks.metric_tables beside 10000 2048  # one row: "table", "memory", "extraction"

Memory is the growth of a fresh process's resident peak, with synthetic features. torchmetrics computes from
the same features, in the same process, on one thread: its FID, and its KID of 100 subsets of 1,000.
torch-fidelity reads the same files and runs the same Inception-v3, of random weights.
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.denoising_step import resident
from entropy_lib.files import sha256
from entropy_lib.metrics import frechet_difference, frechet_interval, kernel_difference, kernel_interval
from entropy_lib.metrics.extractors import extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.picture_files import read_picture
from entropy_lib.metrics.views import resize_pictures
from entropy_lib.sampling import generation
from entropy_lib.statistics.interventions import holm
from entropy_lib.statistics.resampling import deal_blocks
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.sample import Sampler, settings
from entropy_lib.sweep.store import Store

PROMPTS = [f"a penguin, number {index}" for index in range(16)]


def outside_the_model(size, folder):
    """Seconds of a group of 16 in all, and in the pipeline."""
    inside, one_batch = [], generation.one_batch

    def timed(*arguments, **options):
        start = time.perf_counter()
        images = one_batch(*arguments, **options)
        inside.append(time.perf_counter() - start)
        return images

    plan = Plan.of(settings("mini", 10, 2.0, "float32", "cpu"), PROMPTS, [0], [size], ["paper"])
    generation.one_batch = timed
    sampler = Sampler("mini", "float32", "cpu")
    sampler.generate_group(plan.units, Store(folder / "warm"))
    inside.clear()
    start = time.perf_counter()
    sampler.generate_group(plan.units, Store(folder / f"{size}"))
    whole = time.perf_counter() - start
    generation.one_batch = one_batch
    print(f"| {size[0]}x{size[1]} | {16 / whole:.1f} | {1 - inside[0] / whole:.1%} |", flush=True)
    return Store(folder / f"{size}")


def feature_pass(plan, store, folder):
    """How much faster the second pass is."""
    cache, seconds = FeatureCache(folder / "features", extractor("mini-clip"), "pad"), []
    units = {store.record(unit)["sha256"]: unit for unit in plan.units}
    for _ in range(2):
        start = time.perf_counter()
        cache.matrix(list(units), lambda key: store.read(units[key]))
        seconds.append(time.perf_counter() - start)
    return seconds


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def features(images, width, seed):
    """Synthetic ones, with variances like 1/k, as those of networks fall."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, width, generator=generator) / torch.arange(1, width + 1).sqrt()


def plain_fid(first, second):
    """As torchmetrics computes it from features."""
    from torchmetrics.image.fid import _compute_fid

    moments = [value for rows in (first, second) for value in (rows.double().mean(0), rows.double().T.cov())]
    return float(_compute_fid(*moments))


def plain_kid(first, second):
    """As torchmetrics computes it from features: 100 subsets of 1,000."""
    from torchmetrics.image.kid import poly_mmd

    for _ in range(100):
        poly_mmd(*(rows[torch.randperm(len(rows))[:1000]] for rows in (first, second)))


def beside_torchmetrics(images, width):
    """Intervals, and torchmetrics' plain numbers."""
    first, real, labels = (
        1.1 * features(images, width, 0),
        features(images, width, 1),
        deal_blocks(range(images)),
    )
    fid = seconds_of(lambda: plain_fid(first, real))
    fd = seconds_of(lambda: frechet_interval(first, real, labels))
    row = f"{fid:.2f} | {fd:.2f} | {fd / fid:.1f}"
    if images <= 10_000:  # a kernel distance grows with the square of the number
        kid = seconds_of(lambda: plain_kid(first, real))
        ours = seconds_of(lambda: kernel_interval(first, real, labels))
        row += f" | {kid:.1f} | {ours:.1f} | {ours / kid:.1f}"
    else:
        row += " | - | - | -"
    print(f"| {images:,} | {width:,} | {row} |", flush=True)


def table_beside_torchmetrics(images, width):
    """Six sizes by two rules: distances, paired differences, Holm's correction; and one plain FID and KID."""
    real, labels = features(images, width, 0), deal_blocks(range(images))
    cells = []
    for size in range(6):
        common = features(images, width, size + 1)
        cells.append([scale * common + features(images, width, size + 9) / 9 for scale in (1.1, 1.2)])

    def table(interval, difference):
        for rule in (rule for rules in cells for rule in rules):
            interval(rule, real, labels)
        found = [difference(*rules, real, labels).p_value for rules in cells]
        holm(pd.DataFrame({"p_value": found}))

    for name, plain, *ours in (
        ("FD", plain_fid, frechet_interval, frechet_difference),
        ("KID", plain_kid, kernel_interval, kernel_difference),
    ):
        once = seconds_of(lambda plain=plain: plain(cells[0][0], real))
        seconds = seconds_of(lambda ours=ours: table(*ours))
        row = f"{once:.2f} | {seconds:.1f} | {seconds / once:.1f}"
        print(f"| {name} | {images:,} | {width:,} | {row} |", flush=True)


def same_inception():
    """torch-fidelity's Inception-v3 of random weights, and ours of the same."""
    from torch_fidelity import feature_extractor_inceptionv3 as original

    source = (original, "load_state_dict_from_url")
    with mock.patch.object(*source), mock.patch.object(torch.nn.Module, "load_state_dict"):
        theirs = original.FeatureExtractorInceptionV3("inception", ["2048"])
    theirs.eval().requires_grad_(False)
    with mock.patch.object(torch.hub, "load_state_dict_from_url", return_value=theirs.state_dict()):
        return theirs, extractor("inception")


def of_files(cache, files):
    """Features of image files, each known by its checksum."""
    known = {sha256(file): file for file in files}
    return cache.matrix(list(known), lambda key: read_picture(known[key].read_bytes()))


def beside_torch_fidelity(images, side):
    """Seconds of the features of so many files of so many pixels a side."""
    if not importlib.util.find_spec("torch_fidelity"):
        print("torch-fidelity is not installed: nothing to compare features with")
        return
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.utils import extract_featuresdict_from_input_id

    theirs, ours = same_inception()
    with tempfile.TemporaryDirectory() as place:
        files, random = [Path(place) / f"{index}.png" for index in range(images)], np.random.default_rng(0)
        for file in files:  # as smooth as photographs are
            small = random.integers(0, 256, (1, side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(resize_pictures(small, side, side)[0]).save(file)
        options = {"input1": ImagesPathDataset(list(map(str, files))), "cuda": False, "verbose": False}
        cache, found = FeatureCache(Path(place) / "features", ours, "squash"), []
        known = seconds_of(
            lambda: found.append(extract_featuresdict_from_input_id(1, theirs, **options)["2048"])
        )
        seconds = seconds_of(lambda: found.append(of_files(cache, files)))
    apart = float((found[0] - found[1]).abs().max() / found[0].std())
    print(
        f"| {images:,} | {side} | {known:.1f} | {seconds:.1f} | {seconds / known:.2f} | {apart:.1g} |",
        flush=True,
    )


def memory(images, width):
    """What the distances of a cell add to the memory of the features."""
    first, second, real = (features(images, width, seed) for seed in range(3))
    labels = deal_blocks(range(images))
    few = deal_blocks(range(400))
    frechet_interval(first[:400, :8], real[:400, :8], few)  # libraries loaded
    kernel_interval(first[:400, :8], real[:400, :8], few)
    growths = []
    works = [
        lambda: frechet_interval(first, real, labels),
        lambda: frechet_difference(first, second, real, labels),
        lambda: kernel_interval(first, real, labels),
    ]
    for work in works if images <= 10_000 else works[:2]:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        seconds = seconds_of(work)
        growths.append(f"{(resident('VmHWM') - before) / 1024:.0f} | {seconds:.1f}")
    growths += ["- | -"] * (3 - len(growths))
    print(
        f"| {images:,} | {width:,} | {images * width * 4 / 1e6:.0f} | {width**2 * 8 / 1e6:.1f} "
        f"| {' | '.join(growths)} |",
        flush=True,
    )


def main():
    with tempfile.TemporaryDirectory() as place:
        print(
            f"mini, 10 steps, guidance, batches of 16, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}\n"
        )
        print("| size | images a second | share of time outside the model |\n|---|---|---|")
        for size in ((32, 32), (64, 64), (128, 128)):
            store = outside_the_model(size, Path(place))
        prompts = [f"an owl, number {index}" for index in range(512)]
        many = Plan.of(settings("mini", 1, 1.0, "float32", "cpu"), prompts, [0], [(64, 64)], ["unscaled"])
        for unit in many.units:
            store.commit(
                unit,
                np.random.default_rng(unit.noise_seed % 2**32).integers(0, 256, (64, 64, 3), dtype=np.uint8),
            )
        first, second = feature_pass(many, store, Path(place))
        print(
            f"\nFeatures of 512 images: {first:.2f} s, the second time {second:.3f} s: "
            f"{first / second:.0f} times faster\n"
        )
    print("Distances, one thread (seconds; FD and KID with intervals, torchmetrics' without)\n")
    heading("| images | features | FID, torchmetrics | FD | ratio | KID, torchmetrics | KID | ratio |")
    for images, width in ((4000, 768), (10_000, 2048), (30_000, 2048)):
        again("beside", images, width)
    print("\nSix sizes by two rules: distances, paired differences and Holm's correction (seconds)\n")
    heading("| distance | images | features | once, torchmetrics | the table | ratio |")
    again("table", 10_000, 2048)
    print("\nFeatures of image files by Inception-v3, one thread (seconds)\n")
    heading("| images | side | torch-fidelity | FeatureCache | ratio | largest difference / deviation |")
    again("extraction", 64, 299)
    again("extraction", 128, 512)
    print(
        "\nAt 299 pixels neither resizes. Else torch-fidelity does it as TensorFlow 1 did (bilinear, not "
        "antialiased), FeatureCache bicubic and antialiased."
    )
    heads = ("FD, MB", "s", "FD, difference, MB", "s", "KID, MB", "s")
    print()
    heading(f"| images | features | one matrix (MB) | d x d (MB) | {' | '.join(heads)} |")
    for images, width in ((2000, 512), (10_000, 2048), (50_000, 2048)):
        again("memory", images, width)


def heading(names):
    print(names, "|---" * (names.count("|") - 1) + "|", sep="\n", flush=True)


def again(what, images, width):
    """One row, in a fresh process."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.metric_tables", what, str(images), str(width)], check=True
    )


MODES = {
    "beside": beside_torchmetrics,
    "table": table_beside_torchmetrics,
    "extraction": beside_torch_fidelity,
    "memory": memory,
}

if __name__ == "__main__":
    if len(sys.argv) == 4:
        torch.set_num_threads(1)
        MODES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
