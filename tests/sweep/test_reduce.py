"""From images to tables: pairs, reference baselines, corrections, and what is never a silent number."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.stats.multitest import multipletests

from entropy_lib.errors import InvalidInputError
from entropy_lib.metrics import FeatureState, clip_scores, frechet_interval, kernel_interval
from entropy_lib.metrics.extractors import Extractor, extractor
from entropy_lib.metrics.features import FeatureCache
from entropy_lib.metrics.layout import Detection, Detector
from entropy_lib.metrics.registry import CAPTIONS, DISTANCES, FINDINGS, METRICS, PictureScore, Score
from entropy_lib.metrics.repetition import repetition_index
from entropy_lib.metrics.views import resize_pictures
from entropy_lib.statistics.resampling import deal_blocks, deal_together, jackknife
from entropy_lib.sweep.comparison import NATIVE, Comparison
from entropy_lib.sweep.plan import Plan, Settings
from entropy_lib.sweep.reduce import REAL, evaluate, things_found
from entropy_lib.sweep.references import Reference, load_reference
from entropy_lib.sweep.store import DamagedImageError, Store

pytestmark = pytest.mark.slow

SETTINGS = Settings("mini", "1234", "own", 2, 2.0, "float32", (64, 64))
OF_IMAGES = [one for one in METRICS.values() if isinstance(one, PictureScore) or one.features == CAPTIONS]
SCORES = [(one.name, one.reference) for one in OF_IMAGES]
SIZES, METHODS = ["48x48", "64x64", "64x96"], ["unscaled", "paper"]


def noise_of(unit, strength=None):
    """Noise of an image's own, uniform or normal."""
    random = np.random.default_rng(unit.noise_seed % 2**32)
    if strength is not None:
        return random.normal(0, strength, (64, 64, 3))
    return random.integers(0, 256, (unit.height, unit.width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference():
    """The first 48 test scenes."""
    whole = load_reference("scenes:48")
    return Reference("some", whole.rows, whole.image, whole.caption)


@pytest.fixture(scope="module")
def own():
    return extractor("mini-clip")


@pytest.fixture(scope="module")
def made(reference, own, tmp_path_factory):
    """A store of made-up images: real ones, spoilt by noise, less so under the rule. It is not to be
    changed.
    """
    folder = tmp_path_factory.mktemp("made")
    half = reference.halves()[0]
    by_caption = dict(zip(reference.captions(half), half, strict=True))
    plan, store = Plan.of(SETTINGS, list(by_caption), [0], SIZES, METHODS), Store(folder / "store")
    for unit in plan.units:
        noise = noise_of(unit, 40 if unit.method == "unscaled" else 20)
        spoilt = (reference.read(by_caption[unit.prompt]) + noise).clip(0, 255).astype(np.uint8)
        store.commit(unit, resize_pictures(spoilt[None], unit.height, unit.width)[0])
    cache = FeatureCache(folder / "features", own, "pad")
    return Comparison(plan, store, {DISTANCES: cache, CAPTIONS: cache}, reference)


@pytest.fixture
def comparison(made, tmp_path):
    """The same in a store of its own, to be changed at will; features are shared, for they are found by
    content.
    """
    shutil.copytree(made.store.folder, tmp_path / "store")
    return replace(made, store=Store(tmp_path / "store"))


@pytest.fixture(scope="module")
def tables(made):
    return evaluate(made)


def read(store, units):
    return np.stack([store.read(unit) for unit in units])


def level(tables, size, method, metric, reference="real"):
    asked = {"size": size, "method": method, "metric": metric, "reference": reference}
    (row,) = tables.levels[(tables.levels[list(asked)] == pd.Series(asked)).all(axis=1)].itertuples()
    return row


def test_bounds_of_fractions_and_counts_lie_within_what_is_possible(tables):
    """And there is no certainty where all images are alike."""
    bounded = tables.levels[tables.levels.metric.map(lambda name: METRICS[name].bounds is not None)]
    least, most = np.array([METRICS[name].bounds for name in bounded.metric]).T
    assert len(bounded)
    assert (bounded.low >= least).all()
    assert (bounded.high <= most).all()
    assert (bounded.low < bounded.high).all()


def test_every_method_has_every_number_with_an_interval_of_the_level_asked_for(tables, made):
    rows = set(tables.levels[["size", "method", "metric", "reference"]].itertuples(index=False, name=None))
    every = [(size, name) for size in ("48x48", "64x96") for name in ("unscaled", "paper", NATIVE, REAL)]
    every += [("64x64", "unscaled"), ("64x64", REAL)]
    native = [cell for cell in every if cell[1] != NATIVE and cell != ("64x64", "unscaled")]
    distances = [(*cell, metric, "real") for cell in every for metric in ("KID", "CMMD")]
    distances += [(*cell, metric, "native") for cell in native for metric in ("KID", "CMMD")]
    assert rows == {*distances, *((*cell, *score) for cell in every for score in SCORES)}
    assert tables.exclusions.empty
    half = evaluate(replace(made, level=0.5))
    for wide, narrow in ((tables.levels, half.levels), (tables.differences, half.differences)):
        assert (wide.estimate == narrow.estimate).all()
        assert ((wide.low < narrow.low) & (narrow.high < wide.high)).all()


def test_numbers_are_those_of_the_metrics_themselves(tables, made, reference, own):
    cell, half = made.plan.cells["48x48", "paper"], reference.halves()[1]
    prompts = [unit.prompt for unit in cell]
    images = own.pictures(read(made.store, cell), "pad")
    real = own.pictures(np.stack([reference.read(index) for index in half]), "pad")
    labels, real_labels = deal_together(prompts, reference.captions(half))
    expected = kernel_interval(images, real, labels, reference_labels=real_labels)
    found = level(tables, "48x48", "paper", "KID")
    for name in ("estimate", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4)
    scores = clip_scores(images, own.captions(prompts))
    found = level(tables, "48x48", "paper", "CLIP score", "prompts")
    assert found.estimate == pytest.approx(float(scores.mean()), rel=1e-5)
    assert "FD" not in set(tables.levels.metric), "48 images for 64 features: no level of a Fréchet distance"


def test_repetition_is_the_mean_of_its_index_and_needs_no_captions(made, reference):
    tables = evaluate(
        replace(made, reference=replace(reference, caption=None), metrics=["Repetition", "CLIP score"])
    )
    assert level(tables, "48x48", REAL, "Repetition", "nothing").images == len(reference.halves()[0])
    assert REAL not in set(tables.levels.method[tables.levels.metric == "CLIP score"])
    cell = made.plan.cells["48x48", "paper"]
    values = np.array([repetition_index(made.store.read(unit)) for unit in cell])
    prompts = [unit.prompt for unit in cell]
    expected = jackknife(np.mean, values, deal_blocks(prompts)).within(0, 1, len(set(prompts)))
    found = level(tables, "48x48", "paper", "Repetition", "nothing")
    bounds = (expected.estimate, expected.low, expected.high)
    assert (found.estimate, found.low, found.high) == pytest.approx(bounds, rel=1e-5)


def test_distances_and_scores_may_come_from_two_networks(made, reference, own, tmp_path):
    """Distances from one that never saw such an image, of 1,280 features: there is no level of FD for so few
    images.
    """
    independent, few = extractor("efficientnet-lite0"), replace(reference, rows=reference.rows[:24])
    plan = Plan.of(SETTINGS, made.plan.prompts[:10], [0], ["48x48"], METHODS)
    caches = {DISTANCES: FeatureCache(tmp_path, independent, "pad"), CAPTIONS: made.caches[CAPTIONS]}
    asked = {"plan": plan, "caches": caches, "reference": few, "metrics": ["FD", "KID", "CLIP score"]}
    tables = evaluate(replace(made, **asked))
    cell, half = plan.cells["48x48", "paper"], few.halves()[1]
    images, real = read(made.store, cell), np.stack([few.read(index) for index in half])
    labels, real_labels = deal_together([unit.prompt for unit in cell], few.captions(half), 10)
    features = (independent.pictures(images, "pad"), independent.pictures(real, "pad"))
    expected = kernel_interval(*features, labels, reference_labels=real_labels)
    assert level(tables, "48x48", "paper", "KID").estimate == pytest.approx(expected.estimate, rel=1e-3)
    scores = clip_scores(own.pictures(images, "pad"), own.captions([unit.prompt for unit in cell]))
    found = level(tables, "48x48", "paper", "CLIP score", "prompts")
    assert found.estimate == pytest.approx(float(scores.mean()), rel=1e-5)
    assert set(tables.levels.metric) == {"KID", "CLIP score"}
    assert tables.label == f"distances: {independent.label}, pad; captions: {own.label}, pad"


def test_the_better_rule_is_found_better(tables):
    differences = tables.differences.set_index(["size", "method"])
    by_metric = differences.loc[[("48x48", "paper")]].set_index("metric")
    assert by_metric.high["KID"] < 0
    assert by_metric.low["CLIP score"] > 0
    assert by_metric.share_improved["CLIP score"] > 0.8
    assert set(tables.differences["size"]) == {"48x48", "64x96"}, "at native size the rule is the identity"


def test_reference_baselines_are_in_the_order_that_they_must_have(tables):
    for size, most in (("48x48", 1), ("64x96", 1), ("64x64", 0.5)):
        real, unscaled = (level(tables, size, method, "KID").estimate for method in (REAL, "unscaled"))
        assert real < most * unscaled


def test_no_real_image_is_compared_with_itself(made, monkeypatch):
    asked, real_sample = [], Comparison.real_sample

    def noted(self, indices, *size):
        asked.append(set(indices))
        return real_sample(self, indices, *size)

    monkeypatch.setattr(Comparison, "real_sample", noted)
    evaluate(replace(made, metrics=["KID"]))
    assert len(asked) == 1 + len(SIZES)
    assert asked[0].isdisjoint(set.union(*asked[1:]))


def test_what_is_missing_under_one_rule_is_left_out_of_all(comparison):
    cell, comparison = comparison.plan.cells["48x48", "paper"], replace(comparison, metrics=["Repetition"])
    comparison.store.record_path(cell[0].key).unlink()
    comparison.store.exclude(cell[3], "not finite")
    tables = evaluate(comparison)
    assert level(tables, "48x48", "unscaled", "Repetition", "nothing").images == len(cell) - 2
    assert level(tables, "64x96", "unscaled", "Repetition", "nothing").images == len(cell)
    found = tables.exclusions.set_index(["size", "method", "reason"]).images.to_dict()
    one_each = {("48x48", "paper", "not generated"): 1, ("48x48", "paper", "not finite"): 1}
    assert found == {**one_each, ("48x48", "all", "pairs dropped"): 2}
    comparison.store.exclude(comparison.plan.cells["64x64", "unscaled"][5], "not finite")
    found = level(evaluate(comparison), "64x96", "paper", "Repetition", "nothing")
    assert found.images == len(cell) - 1, "a baseline that lacks an image counts too"


def test_findings_are_measured_like_scores_and_images_without_a_value_are_left_out(made, tmp_path):
    def find(images):  # a thing in what is bright, whole where it is brightest
        thing = [Detection("owl", (0, 0, 8, 8), min(image.mean() / 200, 1), 1.0, 1.0) for image in images]
        return [[one] if image.mean() > 150 else [] for one, image in zip(thing, images, strict=True)]

    detector = Detector("bright", ["owl"], find, lambda prompt: ("owl", 1))
    caches = {FINDINGS: FeatureCache(tmp_path / "findings", detector)}
    tables = evaluate(replace(made, caches=caches, metrics=["KID", "Under-count", "Completeness"]))
    cell = made.plan.cells["48x48", "paper"]
    means = np.array([made.store.read(unit).mean() for unit in cell])
    assert 0 < (means > 150).sum() < len(means)
    found = level(tables, "48x48", "paper", "Under-count", "prompts")
    assert (found.estimate, found.images) == (pytest.approx((means <= 150).mean()), len(cell))
    found = level(tables, "48x48", "paper", "Completeness", "prompts")
    assert found.images == (means > 150).sum()
    assert found.estimate == pytest.approx((means[means > 150] / 200).clip(max=1).mean(), rel=1e-5)
    assert set(tables.levels.metric) == {"Under-count", "Completeness"}, "no features for KID"
    pairs = tables.differences.set_index(["size", "method", "metric"]).pairs
    assert pairs["48x48", "paper", "Completeness"] <= found.images


def test_a_damaged_image_stops_the_reduction_with_advice(comparison, tmp_path):
    path = comparison.store.image_path(comparison.plan.cells["48x48", "paper"][0].key)
    path.write_bytes(path.read_bytes()[:-9])
    not_seen_before = {DISTANCES: FeatureCache(tmp_path, comparison.caches[DISTANCES].extractor, "pad")}
    with pytest.raises(DamagedImageError, match="`sweep sample` generates it again"):
        evaluate(replace(comparison, caches=not_seen_before, metrics=["KID"]))


def test_an_empty_store_is_said(made, tmp_path):
    with pytest.raises(
        InvalidInputError, match=r"0 images are usable at .* generate them with `sweep sample`"
    ):
        evaluate(replace(made, store=Store(tmp_path / "empty")))


@pytest.mark.parametrize("long", [0, 2])
def test_prompts_that_the_score_cuts_are_counted_once_in_the_caption_of_the_tables(
    made, tmp_path, recwarn, long
):
    """The ends of two prompts differ where mini-clip, which reads 16 tokens, does not read them."""
    words = " ".join(["owl"] * 15)
    prompts = [f"{words} and {end}" for end in ("a penguin", "two buses")[:long]]
    plan = Plan.of(SETTINGS, [*prompts, "an owl", "a bus", "a penguin"], [0], ["48x48", "64x64"], METHODS)
    asked = replace(made, plan=plan, store=Store(tmp_path / "store"), reference=None)
    for unit in plan.units:
        asked.store.commit(unit, noise_of(unit))
    tables = evaluate(replace(asked, metrics=["CLIP score"]))
    said = "2 of 5 captions are longer than the 16 tokens that mini-clip reads"
    assert tables.provenance.count(said) == tables.provenance.count("tokens that") == bool(long)
    assert not [one for one in recwarn if "tokens" in str(one.message)], "it is said in the caption"
    levels, *_, path = tables.write(tmp_path / "out")
    assert pd.read_csv(levels).features.unique().tolist() == [tables.label]
    assert path.read_text(encoding="utf-8").splitlines()[0] == tables.provenance
    assert "tokens that" not in evaluate(replace(asked, metrics=["Repetition"])).provenance


def test_captions_of_real_images_that_the_score_cuts_count_too(made, reference):
    rows = [{**row, "caption": row["caption"] + " owl" * 20} for row in reference.rows]
    real = Reference("wordy", rows, reference.image, reference.caption)
    cut = {real.captions([index])[0] for index in real.halves()[0]}
    said = f"{len(cut)} of {len({*made.plan.prompts} | cut)} captions are longer"
    assert said in evaluate(replace(made, reference=real, metrics=["CLIP score"])).provenance


def test_a_state_as_reference_gives_frechet_distances_only(made, own, tmp_path):
    features = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    state = FeatureState.of(features, made.caches[DISTANCES].label)
    plan = Plan.of(SETTINGS, [f"prompt {i}" for i in range(33)], range(6), ["48x48"], METHODS)
    noise = replace(made, plan=plan, store=Store(tmp_path), reference=state)
    for unit in plan.units:
        noise.store.commit(unit, noise_of(unit))
    tables = evaluate(noise)
    assert set(tables.levels.metric) == {"FD", *(name for name, _ in SCORES)}
    for table in (tables.levels, tables.differences):
        assert (table.way == np.where(table.metric == "FD", "influence", "blocks")).all()
    scores = ", ".join(sorted(name for name, _ in SCORES))
    said = f"95% interval by influences of images (FD) and deleting blocks of prompts ({scores})"
    assert said in tables.provenance
    with pytest.raises(InvalidInputError, match="the reference holds features of 'another'"):
        evaluate(replace(noise, reference=FeatureState.of(features, "another")))
    cell = plan.cells["48x48", "paper"]
    images = own.pictures(read(noise.store, cell), "pad")
    expected = frechet_interval(images, state, deal_blocks([unit.prompt for unit in cell]))
    assert level(tables, "48x48", "paper", "FD").estimate == pytest.approx(expected.estimate, rel=1e-4)


def test_without_a_reference_the_models_own_native_images_are_one(made):
    tables = evaluate(replace(made, reference=None))
    assert set(tables.levels.reference) == {"native", "prompts", "nothing"}
    assert set(tables.levels.method) == {"unscaled", "paper", NATIVE}
    distances = tables.differences[tables.differences.metric == "KID"]
    assert set(distances.method) == {"paper"}, "native images are not compared with themselves"
    assert NATIVE in set(tables.differences.method), "but their CLIP score is"


def test_a_second_image_of_each_prompt_that_is_like_the_first_changes_nothing(made, reference, tmp_path):
    """Native images that are real ones, 20 prompts: no distance, and pairs of one prompt do not make one."""
    half, found = reference.halves()[1], {}
    for seeds in ([0], [0, 1]):
        plan = Plan.of(SETTINGS, [f"thing {index}" for index in range(20)], seeds, ["64x64"], ["unscaled"])
        store = Store(tmp_path / f"{len(seeds)}")
        for unit in plan.units:
            store.commit(unit, reference.read(half[int(unit.prompt.split()[1])]))
        tables = evaluate(replace(made, plan=plan, store=store, metrics=["KID", "CMMD"]))
        rows = (level(tables, "64x64", REAL, metric, "native") for metric in ("KID", "CMMD"))
        found[len(seeds)] = np.array([(row.estimate, row.low, row.high) for row in rows])
    assert found[2] == pytest.approx(found[1], rel=1e-9)
    assert (found[1][:, 1] < 0).all()
    assert (found[1][:, 2] > 0).all()


def test_p_values_are_corrected_over_the_sizes_of_a_metric(tables):
    corrected = 0
    for _, part in tables.differences.groupby(["method", "metric"]):
        assert part.p_holm.to_list() == pytest.approx(multipletests(part.p_value, method="holm")[1])
        corrected += int((part.p_holm > part.p_value).sum())
    assert corrected  # one size alone would leave every p-value as it is


def test_a_metric_is_added_by_a_function_and_a_row(made, tables, monkeypatch):
    """A score of each image, fewer of which is better; as the counts of a detector are."""

    def misfit(features, prompts, embed):
        return 100 - clip_scores(features, embed(prompts))

    row = Score(name="misfit", unit="100 less the CLIP score", better="lower", values=misfit)
    monkeypatch.setitem(METRICS, "misfit", row)
    found = evaluate(replace(made, metrics=["misfit"]))
    score = level(tables, "48x48", "paper", "CLIP score", "prompts").estimate
    assert level(found, "48x48", "paper", "misfit", "prompts").estimate == pytest.approx(100 - score)
    pair = found.differences.set_index(["size", "method"]).loc["48x48", "paper"]
    assert pair.high < 0
    assert pair.share_improved > 0.8, "lower is better"


def test_numbers_of_images_and_features_are_computed_once(comparison, tables, monkeypatch):
    seen = []

    def brightness(image):
        seen.append(image.shape)
        return image.mean() / 255

    row = PictureScore(name="brightness", unit="share of white", better="higher", value=brightness)
    monkeypatch.setitem(METRICS, "brightness", row)
    monkeypatch.setattr(Extractor, "pictures", lambda *_: pytest.fail("extracted again"))
    asked = replace(comparison, metrics=["KID", "brightness"])
    first, count = evaluate(asked), len(seen)
    assert level(first, "48x48", "paper", "KID") == level(tables, "48x48", "paper", "KID")._replace(
        Index=level(first, "48x48", "paper", "KID").Index
    )
    pd.testing.assert_frame_equal(first.levels, evaluate(asked).levels)
    assert len(seen) == count > 0


@pytest.fixture
def counted(tmp_path):
    """Images of one grey level each, which says how many things the detector finds, and whether they can be
    named: not the fifth's.
    """
    plan = Plan.of(SETTINGS, ["an owl", "two owls", "a bus"], [0, 1], ["32x32", "64x64"], METHODS)
    store = Store(tmp_path)
    for number, unit in enumerate(plan.units):
        store.commit(unit, np.full((unit.height, unit.width, 3), number, np.uint8))

    def find(images):
        chances = [0.9 - 0.8 * (index == 4) for index in range(len(plan.units))]
        return [
            [Detection("owl", (0, 0, 8, 8), 1, chance, 1) for chance in chances[: i.max()]] for i in images
        ]

    detector = Detector("levels", ["owl", "bus"], find, lambda prompt: ("owl", 2 if "two" in prompt else 1))
    return Comparison(plan, store, {FINDINGS: FeatureCache(tmp_path / "features", detector)})


def test_things_are_counted_image_by_image_without_those_that_were_excluded(counted):
    """Each image under its own prompt, images of native size once."""
    table, units = things_found(counted), counted.plan.units
    assert list(table.columns) == ["size", "method", "prompt", "seed", "asked", "things"]
    found = table[["size", "method", "prompt", "seed"]].itertuples(index=False, name=None)
    assert list(found) == [(unit.size, unit.method, unit.prompt, unit.seed) for unit in units]
    assert list(table.things) == [number - (number > 4) for number in range(len(units))]
    assert list(table.asked) == [2 if unit.prompt == "two owls" else 1 for unit in units]
    assert set(table.method[table["size"] == "64x64"]) == {"unscaled"}
    counted.store.exclude(units[3], "not finite")
    assert len(things_found(counted)) == len(units) - 1


def test_without_a_detector_there_is_one_clear_error(counted):
    with pytest.raises(InvalidInputError, match="no detector looks at this comparison"):
        things_found(Comparison(counted.plan, counted.store, {}))
