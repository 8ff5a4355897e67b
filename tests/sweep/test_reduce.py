"""From images to tables: pairs, floors, corrections, and what is never a silent number."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.stats.multitest import multipletests

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
from entropy_lib.sweep.reduce import REAL, evaluate
from entropy_lib.sweep.references import Reference, load_reference
from entropy_lib.sweep.store import DamagedImageError, Store

pytestmark = pytest.mark.slow

SETTINGS = Settings("mini", "1234", "own", 2, 2.0, "float32", (64, 64))
SCORES = [(name, METRICS[name].reference) for name in ("CLIP score", "Repetition")]
SIZES, METHODS = [(48, 48), (64, 64), (64, 96)], ["unscaled", "paper"]


@pytest.fixture(scope="module")
def reference():
    """The first 80 test scenes."""
    whole = load_reference("scenes:80")
    return Reference("some", whole.rows, whole.image, whole.caption)


@pytest.fixture(scope="module")
def own():
    return extractor("mini-clip")


@pytest.fixture(scope="module")
def drawn(reference, own, tmp_path_factory):
    """A store of made-up drawings: real images, spoilt by noise, less so under the rule. It is not to be
    changed.
    """
    folder = tmp_path_factory.mktemp("drawn")
    captions = list(dict.fromkeys(reference.captions(reference.halves()[0])))
    plan, store = Plan.of(SETTINGS, captions, [0, 1], SIZES, METHODS), Store(folder / "store")
    by_caption = {
        caption: index for index in reference.halves()[0] for caption in reference.captions([index])
    }
    for unit in plan.units:
        noise = np.random.default_rng(unit.noise_seed % 2**32).normal(
            0, 40 if unit.method == "unscaled" else 20, (64, 64, 3)
        )
        spoilt = (reference.read(by_caption[unit.prompt]) + noise).clip(0, 255).astype(np.uint8)
        store.commit(unit, resize_pictures(spoilt[None], unit.height, unit.width)[0])
    cache = FeatureCache(folder / "features", own, "pad")
    return Comparison(plan, store, {DISTANCES: cache, CAPTIONS: cache}, reference)


@pytest.fixture
def comparison(drawn, tmp_path):
    """The same in a store of its own, to be changed at will; features are shared, for they are found by
    content.
    """
    shutil.copytree(drawn.store.folder, tmp_path / "store")
    return replace(drawn, store=Store(tmp_path / "store"))


@pytest.fixture(scope="module")
def tables(drawn):
    return evaluate(drawn)


def test_limits_of_shares_and_counts_are_some(tables):
    """Shares from 0 to 1 and counts from 0, and no certainty where all images are alike."""
    bounded = tables.levels[tables.levels.metric.map(lambda name: METRICS[name].bounds is not None)]
    least, most = zip(*bounded.metric.map(lambda name: METRICS[name].bounds), strict=True)
    assert len(bounded)
    assert (bounded.low >= least).all()
    assert (bounded.high <= most).all()
    assert (bounded.low < bounded.high).all()


def level(tables, size, method, metric, reference="real"):
    t = tables.levels
    (row,) = t[
        (t["size"] == size) & (t.method == method) & (t.metric == metric) & (t.reference == reference)
    ].itertuples()
    return row


def test_every_method_has_every_number_with_an_interval_of_the_level_asked_for(tables, comparison):
    rows = {(row.size, row.method, row.metric, row.reference) for row in tables.levels.itertuples()}
    methods = {size: ["unscaled", "paper", NATIVE, REAL] for size in ("48x48", "64x96")} | {
        "64x64": ["unscaled", REAL]
    }
    every = [(size, method) for size, names in methods.items() for method in names]
    expected = {(*cell, metric, "real") for cell in every for metric in ("KID", "CMMD")}
    expected |= {(*cell, *score) for cell in every for score in SCORES}
    native = [
        (size, method)
        for size, method in every
        if method != NATIVE and (size, method) != ("64x64", "unscaled")
    ]
    expected |= {(*cell, metric, "native") for cell in native for metric in ("KID", "CMMD")}
    assert rows == expected
    assert tables.exclusions.empty
    half = evaluate(replace(comparison, level=0.5))
    for wide, narrow in ((tables.levels, half.levels), (tables.differences, half.differences)):
        assert (wide.estimate == narrow.estimate).all()
        assert ((wide.low < narrow.low) & (narrow.high < wide.high)).all()


def test_numbers_are_those_of_the_metrics_themselves(tables, comparison, reference, own):
    cell, kept = comparison.plan.cells["48x48", "paper"], reference.halves()[1]
    drawn = own.pictures(np.stack([comparison.store.read(unit) for unit in cell]), "pad")
    real = own.pictures(np.stack([reference.read(index) for index in kept]), "pad")
    labels, real_labels = deal_together([unit.prompt for unit in cell], reference.captions(kept))
    expected = kernel_interval(drawn, real, labels, reference_labels=real_labels)
    found = level(tables, "48x48", "paper", "KID")
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (expected.estimate, expected.low, expected.high), rel=1e-4
    )
    scores = clip_scores(drawn, own.captions([unit.prompt for unit in cell]))
    assert level(tables, "48x48", "paper", "CLIP score", "prompts").estimate == pytest.approx(
        float(scores.mean()), rel=1e-5
    )
    assert "FD" not in set(tables.levels.metric), "80 images for 64 features: no level of a Fréchet distance"


def test_distances_and_scores_may_come_from_two_networks(drawn, reference, own, tmp_path):
    """Distances from one that never saw such an image, of 1,280 features: there is no level of FD for so few
    images.
    """
    independent, few = extractor("efficientnet-lite0"), replace(reference, rows=reference.rows[:40])
    plan = Plan.of(
        SETTINGS,
        list(dict.fromkeys(unit.prompt for unit in drawn.plan.units))[:10],
        [0],
        [(48, 48), (64, 64)],
        METHODS,
    )
    caches = {DISTANCES: FeatureCache(tmp_path, independent, "pad"), CAPTIONS: drawn.caches[CAPTIONS]}
    tables = evaluate(replace(drawn, plan=plan, caches=caches, reference=few))
    cell = plan.cells["48x48", "paper"]
    shown, real = (
        np.stack(each)
        for each in ([drawn.store.read(unit) for unit in cell], [few.read(i) for i in few.halves()[1]])
    )
    labels, real_labels = deal_together([unit.prompt for unit in cell], few.captions(few.halves()[1]), 10)
    features = (independent.pictures(shown, "pad"), independent.pictures(real, "pad"))
    expected = kernel_interval(*features, labels, reference_labels=real_labels)
    assert level(tables, "48x48", "paper", "KID").estimate == pytest.approx(expected.estimate, rel=1e-3)
    scores = clip_scores(own.pictures(shown, "pad"), own.captions([unit.prompt for unit in cell]))
    assert level(tables, "48x48", "paper", "CLIP score", "prompts").estimate == pytest.approx(
        float(scores.mean()), rel=1e-5
    )
    assert tables.differences.query("metric == 'KID' and method == 'paper'").high.item() < 0, (
        "less noise is nearer to real images"
    )
    assert "FD" not in set(tables.levels.metric)
    assert tables.label == f"distances: {independent.label}, pad; captions: {own.label}, pad"


def test_the_better_rule_is_found_better(tables):
    at_48 = tables.differences[
        (tables.differences["size"] == "48x48") & (tables.differences.method == "paper")
    ]
    by_metric = at_48.set_index("metric")
    assert by_metric.high["KID"] < 0
    assert by_metric.low["CLIP score"] > 0
    assert by_metric.share_improved["CLIP score"] > 0.8
    assert set(tables.differences["size"]) == {"48x48", "64x96"}, "at native size the rule is the identity"


def test_floors_are_in_the_order_that_they_must_have(tables):
    for size in ("48x48", "64x96"):
        real, drawn = (level(tables, size, method, "KID").estimate for method in (REAL, "unscaled"))
        assert real < drawn
    assert (
        level(tables, "64x64", REAL, "KID").estimate
        < 0.05 * level(tables, "64x64", "unscaled", "KID").estimate
    )


def test_no_real_image_is_compared_with_itself(comparison, reference, monkeypatch):
    asked, real_features = [], Comparison.real_features

    def noted(self, cache, indices, *size):
        asked.append(set(indices))
        return real_features(self, cache, indices, *size)

    monkeypatch.setattr(Comparison, "real_features", noted)
    evaluate(comparison)
    assert asked[0].isdisjoint(set.union(*asked[1:]))


def test_what_is_missing_under_one_rule_is_left_out_of_all(comparison):
    cell = comparison.plan.cells["48x48", "paper"]
    comparison.store.record_path(cell[0].key).unlink()
    comparison.store.exclude(cell[3], "not finite")
    tables = evaluate(comparison)
    assert level(tables, "48x48", "unscaled", "KID").images == len(cell) - 2
    assert level(tables, "64x96", "unscaled", "KID").images == len(cell)
    found = tables.exclusions.set_index(["size", "method", "reason"]).images.to_dict()
    assert found == {
        ("48x48", "paper", "not generated"): 1, ("48x48", "paper", "not finite"): 1, ("48x48", "all", "pairs dropped"): 2
    }  # fmt: skip
    comparison.store.exclude(comparison.plan.cells["64x64", "unscaled"][5], "not finite")
    assert level(evaluate(comparison), "64x96", "paper", "KID").images == len(cell) - 1, (
        "a floor that lacks an image counts too"
    )


def test_findings_are_judged_like_scores_and_images_without_a_value_are_left_out(comparison, tmp_path):
    def find(images):  # a thing in what is bright, whole where it is brightest
        means = [image.mean() for image in images]
        return [
            [Detection("owl", (0, 0, 8, 8), min(mean / 200, 1), 1.0, 1.0)] if mean > 150 else []
            for mean in means
        ]

    detector = Detector("bright", ["owl"], find, lambda prompt: ("owl", 1))
    cache = FeatureCache(tmp_path / "findings", detector)
    tables = evaluate(
        replace(comparison, caches={FINDINGS: cache}, metrics=["KID", "Under-count", "Completeness"])
    )
    cell = comparison.plan.cells["48x48", "paper"]
    means = np.array([comparison.store.read(unit).mean() for unit in cell])
    assert 0 < (means > 150).sum() < len(means)
    found = level(tables, "48x48", "paper", "Under-count", "prompts")
    assert (found.estimate, found.images) == (pytest.approx((means <= 150).mean()), len(cell))
    found = level(tables, "48x48", "paper", "Completeness", "prompts")
    assert found.images == (means > 150).sum()
    assert found.estimate == pytest.approx((means[means > 150] / 200).clip(max=1).mean(), rel=1e-5)
    assert set(tables.levels.metric) == {"Under-count", "Completeness"}, "no features for KID"
    pairs = tables.differences.set_index(["size", "method", "metric"]).pairs
    assert pairs["48x48", "paper", "Completeness"] <= found.images


def test_a_damaged_image_stops_the_reduction_with_advice(comparison):
    path = comparison.store.image_path(comparison.plan.cells["48x48", "paper"][0].key)
    path.write_bytes(path.read_bytes()[:-9])
    # not seen before
    cache = FeatureCache(comparison.store.folder / "features", comparison.caches[DISTANCES].extractor, "pad")
    with pytest.raises(DamagedImageError, match="`sweep sample` generates it again"):
        evaluate(replace(comparison, caches={DISTANCES: cache}))


def test_an_empty_store_is_said(comparison, tmp_path):
    with pytest.raises(ValueError, match=r"0 images are usable at .* generate them with `sweep sample`"):
        evaluate(replace(comparison, store=Store(tmp_path / "empty")))


def test_features_are_not_computed_twice(comparison, tables, monkeypatch):
    monkeypatch.setattr(Extractor, "pictures", lambda *_: pytest.fail("extracted again"))
    again = evaluate(comparison)
    pd.testing.assert_frame_equal(again.levels, tables.levels)


@pytest.mark.parametrize("long", [0, 2])
def test_prompts_that_the_score_cuts_are_counted_once_in_the_caption_of_the_tables(
    drawn, tmp_path, recwarn, long
):
    """The ends of two prompts differ where mini-clip, which reads 16 tokens, does not read them."""
    words = " ".join(["owl"] * 15)
    prompts = [
        *(f"{words} and {end}" for end in ("a penguin", "two buses")[:long]),
        "an owl",
        "a bus",
        "a penguin",
    ]
    plan, store = Plan.of(SETTINGS, prompts, [0], [(48, 48), (64, 64)], METHODS), Store(tmp_path / "store")
    for unit in plan.units:
        noise = np.random.default_rng(unit.noise_seed % 2**32)
        store.commit(unit, noise.integers(0, 256, (unit.height, unit.width, 3), dtype=np.uint8))
    tables = evaluate(replace(drawn, plan=plan, store=store, reference=None))
    said = "2 of 5 captions are longer than the 16 tokens that mini-clip reads"
    assert tables.provenance.count(said) == bool(long)
    assert tables.provenance.count("tokens that") == bool(long)
    assert not [one for one in recwarn if "tokens" in str(one.message)], "it is said in the caption"
    path = tables.write(tmp_path / "out")[-1]
    assert path.read_text(encoding="utf-8").splitlines()[0] == tables.provenance
    without = evaluate(replace(drawn, plan=plan, store=store, reference=None, metrics=["KID", "Repetition"]))
    assert "tokens that" not in without.provenance


def test_captions_of_real_images_that_the_score_cuts_count_too(drawn, reference):
    rows = [{**row, "caption": row["caption"] + " owl" * 20} for row in reference.rows]
    real = Reference("wordy", rows, reference.image, reference.caption)
    prompts = {unit.prompt for unit in drawn.plan.units}
    cut = {real.captions([index])[0] for index in real.halves()[0]}
    said = f"{len(cut)} of {len(prompts | cut)} captions are longer"
    assert said in evaluate(replace(drawn, reference=real, metrics=["CLIP score"])).provenance


def test_a_state_as_reference_gives_frechet_distances_only(comparison, own):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 64, generator=generator)
    state = FeatureState.of(features, comparison.caches[DISTANCES].label)
    plan = Plan.of(SETTINGS, [f"prompt {i}" for i in range(40)], [0, 1, 2, 3], [(48, 48)], METHODS)
    store = Store(comparison.store.folder.parent / "noise")
    for unit in plan.units:
        store.commit(
            unit, np.random.default_rng(unit.noise_seed % 2**32).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        )
    tables = evaluate(replace(comparison, plan=plan, store=store, reference=state))
    assert set(tables.levels.metric) == {"FD", *(name for name, _ in SCORES)}
    with pytest.raises(ValueError, match="the reference holds features of 'another'"):
        evaluate(replace(comparison, plan=plan, store=store, reference=FeatureState.of(features, "another")))
    cell = plan.cells["48x48", "paper"]
    drawn = own.pictures(np.stack([store.read(unit) for unit in cell]), "pad")
    expected = frechet_interval(drawn, state, deal_blocks([unit.prompt for unit in cell]))
    assert level(tables, "48x48", "paper", "FD").estimate == pytest.approx(expected.estimate, rel=1e-4)


def test_without_a_reference_the_models_own_native_images_are_one(comparison):
    tables = evaluate(replace(comparison, reference=None))
    assert set(tables.levels.reference) == {"native", "prompts", "nothing"}
    assert set(tables.levels.method) == {"unscaled", "paper", NATIVE}
    distances = tables.differences[tables.differences.metric == "KID"]
    assert set(distances.method) == {"paper"}, "native images are not compared with themselves"
    assert NATIVE in set(tables.differences.method), "but their CLIP score is"


def test_a_second_image_of_each_prompt_that_is_like_the_first_changes_nothing(comparison, reference):
    """Native images that are real ones, 20 prompts: no distance, and pairs of one prompt do not make one."""
    images, found = reference.halves()[1], {}
    for seeds in ([0], [0, 1]):
        plan = Plan.of(SETTINGS, [f"thing {index}" for index in range(20)], seeds, [(64, 64)], ["unscaled"])
        store = Store(comparison.store.folder.parent / f"alike {seeds}")
        for unit in plan.units:
            store.commit(unit, reference.read(images[int(unit.prompt.split()[1])]))
        tables = evaluate(replace(comparison, plan=plan, store=store))
        found[len(seeds)] = [level(tables, "64x64", REAL, metric, "native") for metric in ("KID", "CMMD")]
    for once, twice in zip(*found.values(), strict=True):
        assert (twice.estimate, twice.low, twice.high) == pytest.approx(
            (once.estimate, once.low, once.high), rel=1e-9
        )
        assert once.low < 0 < once.high


def test_p_values_are_corrected_over_the_sizes_of_a_metric(tables):
    corrected = 0
    for _, part in tables.differences.groupby(["method", "metric"]):
        assert part.p_holm.to_list() == pytest.approx(multipletests(part.p_value, method="holm")[1])
        corrected += int((part.p_holm > part.p_value).sum())
    assert corrected  # one size alone would leave every p-value as it is


def test_a_metric_is_added_by_a_function_and_a_row(comparison, monkeypatch):
    """A score of each image, fewer of which is better; as the counts of a detector will be."""

    def misfit(features, prompts, embed):
        return 100 - clip_scores(features, embed(prompts))

    row = Score(name="misfit", unit="100 less the CLIP score", better="lower", values=misfit)
    monkeypatch.setitem(METRICS, "misfit", row)
    tables = evaluate(comparison)
    score = level(tables, "48x48", "paper", "CLIP score", "prompts")
    assert level(tables, "48x48", "paper", "misfit", "prompts").estimate == pytest.approx(
        100 - score.estimate
    )
    (pair,) = tables.differences.query(
        "metric == 'misfit' and size == '48x48' and method == 'paper'"
    ).itertuples()
    assert pair.high < 0
    assert pair.share_improved > 0.8, "lower is better"


def test_repetition_is_the_mean_of_its_index_and_sees_what_is_tiled(comparison, reference):
    """At 64x96 "paper" draws each thing once, without a rule it stands there twice; real images need no
    captions for it.
    """
    plan, store = comparison.plan, Store(comparison.store.folder.parent / "tiled")
    images = dict(zip(dict.fromkeys(unit.prompt for unit in plan.units), reference.halves()[1], strict=False))
    for unit in plan.units:
        twice = (unit.method, unit.width) == ("unscaled", 96)
        image = resize_pictures(
            reference.read(images[unit.prompt])[None], unit.height, unit.width // (1 + twice)
        )[0]
        store.commit(unit, np.tile(image, (1, 1 + twice, 1)))
    tables = evaluate(replace(comparison, store=store, reference=replace(reference, caption=None)))
    found = {
        name: level(tables, "64x96", name, "Repetition", "nothing")
        for name in ("unscaled", "paper", NATIVE, REAL)
    }
    cell = plan.cells["64x96", "unscaled"]
    values = np.array([repetition_index(store.read(unit)) for unit in cell])
    prompts = [unit.prompt for unit in cell]
    expected = jackknife(np.mean, values, deal_blocks(prompts)).within(0, 1, len(set(prompts)))
    assert (found["unscaled"].low, found["unscaled"].high) == pytest.approx(
        (expected.low, expected.high), rel=1e-5
    )
    assert found["unscaled"].estimate == pytest.approx(values.mean(), rel=1e-6)
    assert found["unscaled"].low > max(found[name].high for name in ("paper", NATIVE, REAL))
    (pair,) = tables.differences.query(
        "metric == 'Repetition' and size == '64x96' and method == 'paper'"
    ).itertuples()
    assert pair.high < 0
    assert pair.share_improved > 0.9
    assert "CLIP score" not in set(tables.levels[tables.levels.method == REAL].metric)


def test_numbers_of_images_are_computed_once(comparison, monkeypatch):
    seen = []

    def brightness(image):
        seen.append(image.shape)
        return image.mean() / 255

    row = PictureScore(name="brightness", unit="share of white", better="higher", value=brightness)
    monkeypatch.setitem(METRICS, "brightness", row)
    first, drawn = evaluate(comparison), len(seen)
    again = evaluate(comparison)
    assert len(seen) == drawn > 0
    pd.testing.assert_frame_equal(first.levels, again.levels)


def test_tables_are_written_whole(tables, tmp_path):
    paths = tables.write(tmp_path / "out")
    levels = pd.read_csv(paths[0])
    assert len(levels) == len(tables.levels)
    assert levels.features.unique().tolist() == [tables.label]
    assert "pad" in tables.label
