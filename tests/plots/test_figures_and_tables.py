"""Figures draw, and tables write, what stands in the data frame."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import entropy_lib as el
from entropy_lib.metrics.registry import METRICS
from entropy_lib.plots import figures, tables
from entropy_lib.sampling import measurement
from entropy_lib.sampling.measurement import entropy_by_size, native_layers
from entropy_lib.statistics import Interval, SlopeFit

mpl.use("agg")
FIT = SlopeFit(Interval(0.9, 0.805, 0.995, level=0.95, blocks=4), intercept=-0.5)
BOUNDS = {"estimate": [3.2, 4.5, 5.7], "low": [3.1, 4.4, 5.6], "high": [3.3, 4.6, 5.8]}
MEANS = pd.DataFrame({"tokens": [64, 256, 1024], "rule": "unscaled", **BOUNDS})
SHAPES = [(8, 8), (16, 8), (8, 16), (16, 16)]
TITLES = ["KID x 1000 (lower is better)", "CLIP score (higher is better)"]


def black(height, width):
    return np.zeros((height, width, 3), np.uint8)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_entropy_vs_tokens_draws_points_fit_prediction_and_a_line_of_slope_one():
    figure = figures.entropy_vs_tokens(MEANS, {"unscaled": FIT}, {"unscaled": 0.95}, 256)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "unscaled: slope 0.900 [0.805, 0.995]" in labels
    assert "unscaled: predicted 0.950" in labels
    left, right = figure.axes
    unit, level = (
        next(line for line in ax.lines if line.get_label() == "slope 1").get_data() for ax in (left, right)
    )
    assert np.allclose(np.diff(unit[1]), np.diff(np.log(unit[0])))
    assert np.interp(256, *unit) == pytest.approx(FIT.predict(256), abs=0.01)
    assert np.allclose(level[1], level[1][0]), "less ln N, slope 1 is level: what a rule changes can be seen"
    dotted = next(line for line in left.lines if line.get_linestyle() == ":").get_data()
    assert np.allclose(np.diff(dotted[1]), 0.95 * np.diff(np.log(dotted[0])))
    assert left.get_xscale() == "log"


def test_entropy_per_layer_has_one_series_for_each_size_and_rule():
    layers = [f"{part}_blocks.0.attentions.0.transformer_blocks.0.attn1" for part in ("down", "up")]
    rows = list(itertools.product(layers, ("32x32", "64x64"), ("unscaled", "paper")))
    table = pd.DataFrame(rows, columns=["layer", "size", "rule"]).assign(estimate=1.0, low=0.9, high=1.1)
    ax = figures.entropy_per_layer(table)
    assert len(ax.containers) == 4
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["down 0.0", "up 0.0"]


def test_image_grid_keeps_relative_sizes():
    images = {"small": [black(32, 32)] * 2, "wide": [black(64, 128)] * 2}
    figure = figures.image_grid(images, ["a zebra, noto style", "a crab"])
    figure.canvas.draw()
    small, _, wide, _ = figure.axes
    scale = [np.diff(ax.transData.transform([(0, 0), (1, 1)]), axis=0)[0, 0] for ax in (small, wide)]
    assert scale[0] == pytest.approx(scale[1], rel=0.02)
    assert small.get_title() == "a zebra, noto\nstyle"


@pytest.mark.parametrize("text", ["cost $x_$", "$", r"\frac{", "a ^_ b $ c $"])
def test_a_prompt_is_shown_as_the_text_that_it_is(text):
    figure = figures.image_grid({f"row {text}": [black(32, 32)]}, [text])
    figure.canvas.draw()
    assert figure.axes[0].get_title() == text


def test_long_names_of_methods_break_where_a_person_would():
    names = ["padding(circular)", "power(4)@0-0.4", "a fox (red)"]
    titles = [ax.get_title() for ax in figures.image_grid({"": [black(8, 8)] * 3}, names).axes]
    assert titles == ["padding\n(circular)", "power(4)\n@0-0.4", "a fox (red)"]


def test_a_long_prompt_is_cut_and_does_not_stretch_the_figure():
    figure = figures.image_grid({"a": [black(32, 32)]}, ["a zebra " * 15_000])
    assert len(figure.axes[0].get_title()) < 120
    assert figure.axes[0].get_title().endswith("…")
    figure.canvas.draw()
    (left, bottom), (right, top) = figure.axes[0].get_position().get_points()
    assert min(right - left, top - bottom) > 0.1, "the image keeps its room"
    _, height = figure.get_tightbbox().size
    assert height < 4, "inches"


def test_tables_show_intervals():
    row = {"rule": "paper", "slope": 0.9, "low": 0.805, "high": 0.995, "clusters": 4}
    table = tables.slopes(pd.DataFrame([row | {"predicted": value} for value in (0.91, 1.0, np.nan)]))
    assert table.iloc[0].tolist() == ["paper", "0.900 [0.805, 0.995]", "0.910", "holds it", 4]
    assert table["the interval"].tolist() == ["holds it", "lies below it", "–"]
    assert table["predicted"].tolist() == ["0.910", "1.000", "–"]
    share = {"size": "32x32", "rule": "paper", "share": 0.123, "low": 0.1, "high": 0.146, "clusters": 8}
    share = pd.DataFrame([share])
    assert tables.shares(share).iloc[0]["share"] == "12.3 % [10.0, 14.6]"
    wide = tables.means(MEANS.assign(rule=["a", "b", "a"], tokens=[4, 4, 9]), "tokens", "rule")
    assert list(wide.columns) == ["tokens", "a", "b"]
    assert wide.loc[0, "a"] == "3.20 [3.10, 3.30]"


def test_shares_by_layer_stand_beside_their_own_predictions():
    rows = [("paper", 0.1, 0.05, 0.15, 0.2), ("gamma(1.4)", 0.3, 0.25, 0.35, np.nan)]
    table = pd.DataFrame(rows, columns=["rule", "share", "low", "high", "predicted"])
    table = tables.shares_by_layer(table.assign(layer="a", size="32x32"))
    assert table["32x32, predicted"].tolist() == ["20 %", "–"]
    assert table["32x32"].tolist() == ["10.0 % [5.0, 15.0]", "30.0 % [25.0, 35.0]"]


def test_columns_are_named_in_words_counts_are_whole_and_shares_per_cent():
    layer = "up_blocks.2.attentions.1.transformer_blocks.0.attn1"
    row = {"layer": layer, "tokens": 4096.0, "beyond_half_freezing": 0.25, "share": "12 %"}
    html = tables.styled(pd.DataFrame([row | {"of_freezing": 0.5}]), "").to_html()
    for shown in ("up 2.1", "tokens N", "4,096<", "25.0 %", "12 %", "b / b_c"):
        assert shown in html, shown
    assert "beyond_half_freezing" not in html


def test_image_changes_are_those_of_each_method_to_the_first_of_its_size():
    dark, grey = np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 8, 8, 3), 51, np.uint8)
    grey[1] = 102
    images = {("8x8", "unscaled"): dark, ("8x8", "paper"): grey, ("8x8", "power(2)"): dark}
    images["16x16", "unscaled"] = dark
    table = tables.image_changes(images)
    assert table.method.tolist() == ["paper", "power(2)"]
    assert table.mean_change.tolist() == pytest.approx([0.3, 0.0])
    assert table.largest_change.tolist() == pytest.approx([0.4, 0.0])
    assert set(table.against) == {"unscaled"}


def test_factors_are_one_row_a_level(pipe):
    with el.scaled(pipe, "paper"):
        before = el.scale_report(pipe)
        pipe("a zebra", height=128, width=128, num_inference_steps=1, output_type="latent")
        table = tables.factors(el.scale_report(pipe))
    assert (before.calls == 0).all()
    assert table.layers.sum() == 10
    assert list(table.training_tokens) == [256, 64, 16]
    assert list(table.tokens) == [1024, 256, 64]
    assert list(table.factor) == ["1.1180", "1.1547", "1.2247"]


def test_entropy_by_size_is_tidy_and_native_size_is_generated_once(pipe, monkeypatch):
    generated, original = [], measurement.images_of

    def images_of(*arguments):
        generated.append((arguments[1].size, arguments[2].name))
        return original(*arguments)

    monkeypatch.setattr(measurement, "images_of", images_of)
    asked = (["a zebra", "a crab"], [0, 1], [(32, 32), (64, 64)], ["unscaled", "paper"])
    table = entropy_by_size(pipe, *asked, rows=4, steps=1)
    assert generated == [((32, 32), "unscaled"), ((32, 32), "paper"), ((64, 64), "unscaled")]
    counts = table.groupby(["size", "rule", "prompt"]).size()
    assert counts.nunique() == 1
    assert len(counts) == 2 * 2 * 2
    native = table[table["size"] == "64x64"]
    assert np.array_equal(native[native.rule == "paper"].entropy, native[native.rule == "unscaled"].entropy)
    layers = native_layers(table)
    assert list(layers.index) == list(el.training_tokens(pipe))
    assert (layers.logit_std > 0).all()
    with pytest.raises(ValueError, match="no rows at native size"):
        native_layers(table[table["size"] == "32x32"])


@pytest.fixture
def levels():
    """Of two methods and real images, whose KID at 96x96 is not there."""
    sizes, methods = {"48x48": 0.0, "96x96": 0.01}, {"unscaled": 0.05, "paper": 0.04, "real, resized": 0.002}
    rows = [
        row
        for (size, shift), (method, base) in itertools.product(sizes.items(), methods.items())
        for row in (
            (size, method, "KID", "real", base + shift, 0.001),
            (size, method, "CLIP score", "prompts", 30 - base, 0.5),
        )
    ]
    table = pd.DataFrame(rows, columns=["size", "method", "metric", "reference", "estimate", "half"])
    table = table.assign(low=table.estimate - table.half, high=table.estimate + table.half)
    return table.drop(index=10)


@pytest.fixture
def differences():
    rows = [
        ("48x48", "CLIP score", -0.5, -0.8, -0.2, 0.005, 0.01),
        ("96x96", "CLIP score", 0.9, 0.5, 1.3, 0.03, 0.06),
        ("48x48", "KID", -0.01, -0.012, -0.008, 0.0005, 0.001),
        ("96x96", "KID", 0.002, -0.002, 0.006, 0.2, 0.4),
    ]
    table = pd.DataFrame(rows, columns=["size", "metric", "estimate", "low", "high", "p_value", "p_holm"])
    score = table.metric == "CLIP score"
    improved = {"effect": -0.2, "share_improved": 0.4, "share_low": 0.3, "share_high": 0.5}
    improved = {name: np.where(score, value, np.nan) for name, value in improved.items()}
    return table.assign(method="paper", against="unscaled", pairs=40, **improved)


def test_metric_levels_are_laid_out_by_size_and_method(levels):
    kid = tables.metric_levels(levels, "KID")
    assert list(kid.columns) == ["size", "unscaled", "paper", "real, resized"]
    assert kid.loc[0, "unscaled"] == "50.0 [49.0, 51.0]", "KID is shown times 1000"
    assert kid.loc[1, "real, resized"] == "–"
    assert tables.metric_levels(levels, "CLIP score", "prompts").loc[0, "paper"] == "29.96 [29.46, 30.46]"


def test_comparisons_say_what_is_corrected_and_which_side_is_better(differences):
    table = tables.comparisons(differences)
    assert table[["metric", "size"]].to_numpy().tolist() == [
        ["KID x 1000", "48x48"], ["KID x 1000", "96x96"], ["CLIP score", "48x48"], ["CLIP score", "96x96"],
    ]  # fmt: skip
    assert table["result (Holm)"].tolist() == ["better", "n.s.", "worse", "n.s."]
    assert table["difference [95%, unadjusted]"].tolist()[::3] == ["-10.0 [-12.0, -8.0]", "0.90 [0.50, 1.30]"]
    assert table["p (unadjusted)"].tolist() == ["< 0.001", "0.2", "0.005", "0.03"]
    assert table["p (Holm)"].tolist() == ["0.001", "0.4", "0.01", "0.06"], (
        "n.s. beside an interval that leaves zero out"
    )
    assert table["prompts improved"].tolist() == ["–", "–", "40 % [30, 50]", "40 % [30, 50]"]
    without = differences.drop(columns=["method", "against", "effect"])
    columns = tables.comparisons(without, ["KID"], 0.99).columns[:3].to_list()
    assert columns == ["metric", "size", "difference [99%, unadjusted]"]
    assert tables.comparisons(differences[:0]).empty


@pytest.mark.parametrize("p_holm", [0.0713, 0.05004, 0.0496, 1e-9, np.nan])
def test_a_result_goes_by_the_p_value_that_is_printed(differences, p_holm):
    row = differences.head(1).assign(p_holm=p_holm)
    shown = tables.comparisons(row).iloc[0]
    assert (shown["result (Holm)"] == "n.s.") == (shown["p (Holm)"] in ("0.0713", "–")), shown
    assert tables.result(0.1, 0.001, "Covered") == "more", "neither side is better"


def test_the_forest_has_a_line_for_each_size_and_a_panel_for_each_metric_that_is_there(differences):
    figure = figures.forest(differences, ["KID", "FD", "CLIP score"])
    assert [ax.get_title() for ax in figure.axes] == TITLES
    ax = figure.axes[0]
    drawn = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 2]
    assert np.array(drawn).round(6).tolist() == [[-12.0, -8.0], [-2.0, 6.0]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["48x48", "96x96"]


def test_metrics_by_size_draw_every_method_with_its_interval_in_its_colour(levels):
    figure = figures.metrics_by_size(levels)
    assert [ax.get_title() for ax in figure.axes] == TITLES
    names = ["unscaled", "paper", "real, resized"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    drawn = [container.lines[0] for container in figure.axes[0].containers]
    assert drawn[0].get_ydata()[0] == pytest.approx(50)
    assert np.isnan(drawn[2].get_ydata()[1])
    assert [line.get_color() for line in drawn] == list(figures.colours(names).values())


def test_a_method_has_one_colour_whatever_stands_beside_it():
    for names in (["paper"], ["unscaled", "paper"], ["two-stage", "paper", "power(4)@0-0.4"]):
        assert figures.colours(names)["paper"] == figures.colours(["paper", "multidiffusion"])["paper"]
    many = figures.colours([f"power({index})" for index in range(8)])
    assert len(set(many.values())) == 8
    assert figures.colours(["two-stage"]) == figures.colours(["two-stage"])


@pytest.fixture
def costs():
    rows = [("96x96", "unscaled", 0.5, 0.4, 0.7, 900.0), ("96x96", "paper", 0.6, 0.5, 0.8, 910.4)]
    return pd.DataFrame(rows, columns=["size", "method", "seconds", "fastest", "slowest", "megabytes"])


def test_every_method_for_a_size_is_a_line(levels, costs):
    table = tables.methods(levels, costs, "96x96", ["KID", "CLIP score", "FD"]).set_index("method")
    assert table.columns.tolist() == ["KID x 1000", "CLIP score", "seconds an image", "MB at the peak"]
    paper = ["50.0 [49.0, 51.0]", "29.96 [29.46, 30.46]", "0.6 (0.5 to 0.8)", "910"]
    assert table.loc["paper"].tolist() == paper
    assert table.loc["real, resized"].tolist()[::2] == ["–", "–"], "no KID here, nor a measured cost"


def test_quality_stands_against_time_the_better_end_above(levels, costs):
    (ax,) = figures.quality_against_time(levels, costs, "KID").axes
    assert ax.get_title() == "96x96"
    points = [container.lines[0] for container in ax.containers]
    drawn = [(point.get_xdata()[0], round(point.get_ydata()[0], 6)) for point in points]
    assert drawn == [(0.5, 60.0), (0.6, 50.0)]
    bottom, top = ax.get_ylim()
    assert bottom > top, "lower is better"


def test_a_method_without_a_level_at_a_size_has_no_point_there_and_every_other_has_its_name(levels, costs):
    native = costs.assign(size="64x64").iloc[:1]
    own = levels[(levels.method == "unscaled") & (levels["size"] == "48x48")].assign(size="64x64")
    measured = pd.concat([native, native.assign(method="paper"), costs])
    figure = figures.quality_against_time(pd.concat([levels, own]), measured, "KID")
    named = [sorted(text.get_text() for text in ax.texts) for ax in figure.axes]
    assert named == [["unscaled"], ["paper", "unscaled"]]


@pytest.fixture
def preferred():
    rows = [("32x32", 0.2, 0.0, 0.4), ("64x96", 0.6, 0.4, 0.8), ("all sizes", 0.4, 0.3, 0.5)]
    table = pd.DataFrame(rows, columns=["size", "estimate", "low", "high"])
    tests = dict.fromkeys(("p_value", "sign_p", "wilcoxon_p"), 0.04)
    return table.assign(first="unscaled", second="paper", raters=15, pairs=50, nothing=0.0, **tests)


def test_preferences_are_a_line_a_size_and_a_colour_a_rater(preferred):
    ax = figures.preferences(preferred)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["32x32", "64x96", "all sizes"]
    assert [line.get_xdata()[0] for line in ax.lines[1:6:2]] == [0.2, 0.6, 0.4]
    assert "points that paper" in ax.get_xlabel()
    several = pd.concat([preferred.assign(rater=name, nothing=0.5) for name in ("people", "a number")])
    ax = figures.preferences(several)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["people", "a number"]
    assert "fraction of choices" in ax.get_xlabel()
    heights = sorted({float(np.ravel(line.get_ydata())[0]) for line in ax.lines[:12]})
    assert len(heights) == 6, "no line hides another"
    assert not figures.preferences(preferred, labels="").get_yticklabels()


def test_preferences_stand_beside_the_tests_that_others_print(preferred):
    table = tables.preferences(preferred)
    written = ["0.20 [0.00, 0.40]", "0.60 [0.40, 0.80]", "0.40 [0.30, 0.50]"]
    assert table["second less first"].tolist() == written
    assert set(table["p of Wilcoxon's test"]) == {"0.040"}


def test_many_panels_stand_in_rows_of_four_at_most(differences):
    every = pd.concat([differences[differences.metric == "KID"].assign(metric=name) for name in METRICS])
    figure = figures.forest(every)
    tops = {round(ax.get_position().y0, 2) for ax in figure.axes}
    assert len(figure.axes) == len(METRICS) > 8
    assert len(tops) == -(-len(METRICS) // 4)
    untinted = [ax.get_title() for ax in figure.axes if not ax.patches]
    assert untinted == [one.title for one in METRICS.values() if not one.directed]
    assert "Covered (as in reality)" in untinted


def test_boxes_stand_on_the_images_that_they_were_found_in():
    rows = [(0, "owl", 0.9, 4, 8, 20, 28), (1, "bus", 0.1, 0, 0, 16, 16)]
    found = pd.DataFrame(rows, columns=["picture", "name", "legible", "top", "left", "bottom", "right"])
    figure = figures.found_things([black(32, 32)] * 2, found, ["an owl", "a bus"])
    (owl,), (bus,) = (ax.patches for ax in figure.axes)
    assert (owl.get_xy(), owl.get_width(), owl.get_height()) == ((7.5, 3.5), 20, 16)
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["owl", "?"], "what cannot be named has no name"
    assert owl.get_linestyle() != bus.get_linestyle()


def test_the_acceptance_of_a_detector_is_a_row_a_share():
    share = {"share": 0.97, "low": 0.95, "high": 0.98, "count": 500}
    table = tables.accepted({"scenes": {"count": share, "name": share}, "planted": {"cut": [{"amount": 0}]}})
    assert list(table.what) == ["count", "name"]
    assert table.right[0] == "97.0 % [95.0, 98.0]"
    assert "change removed" not in tables.styled(table, "").to_html(), (
        "the share that a rule removes is another thing"
    )


def test_a_long_caption_does_not_push_columns_off_the_page():
    page = tables.styled(pd.DataFrame({"size": ["64x64"]}), "provenance " * 40).to_html()
    caption = page.split("<caption>")[1].split("</caption>")[0]
    assert max(map(len, caption.splitlines())) <= tables.CAPTION_WIDTH
    assert caption.split() == ["provenance"] * 40


@pytest.mark.parametrize("place", ["cell", "number", "heading", "caption"])
def test_html_in_a_table_has_no_effect(place):
    evil = "<img src=x onerror=alert(1)>"
    heading = evil if place == "heading" else "size"
    table = pd.DataFrame({"rule": [evil if place == "cell" else "paper"], heading: [1.5]})
    if place == "number":
        table["mixed"] = pd.Series([evil], dtype=object)
    html = tables.styled(table, evil if place == "caption" else "model mini").to_html()
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_layers_that_matter_have_a_place_by_importance_and_slope():
    layers = [f"down_blocks.0.attentions.{number}" for number in range(3)]
    quantities = {"tokens": [64, 64, 16], "importance": [0.5, 0.02, 0.0], "slope": [0.3, 0.3, 0.3]}
    table = pd.DataFrame(quantities, index=layers).rename_axis("layer").reset_index()
    table = table.melt("layer", var_name="quantity", value_name="estimate").assign(size="8x8")
    table = table.assign(low=table.estimate, high=table.estimate)
    ax = figures.layers_that_matter(table, "8x8")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["64 tokens", "16 tokens"]
    assert {text.get_text() for text in ax.texts} == {"down 0.0", "down 0.1"}, "names of those that are alive"
    assert ax.get_ylim()[0] < 0 < 1 < ax.get_ylim()[1]


def test_masses_are_in_even_shares():
    row = {"layer": "blocks.0.attn", "mass": np.array([[0.1, 0.1], [0.1, 0.5]])}
    figure = figures.mass_maps({"8x8": [row, row], "16x16": [row]}, ["blocks.0.attn"])
    shown = figure.axes[0].images[0].get_array()
    assert shown.mean() == pytest.approx(1)
    assert shown[1, 1] == pytest.approx(2.5)
    assert figure.axes[0].get_ylabel() == "blocks 0"


def test_maps_of_unlike_shape_have_one_height_and_no_label_is_cut():
    rows = {str(shape): [{"layer": "down_blocks.2.attentions.1", "mass": np.ones(shape)}] for shape in SHAPES}
    figure = figures.mass_maps(rows, ["down_blocks.2.attentions.1"] * 4)
    figure.canvas.draw()
    heights = [ax.get_window_extent().height for ax in figure.axes[:-1]]
    assert max(heights) == pytest.approx(min(heights), rel=0.05)
    assert all(ax.yaxis.label.get_window_extent().x0 >= 0 for ax in figure.axes)


def test_names_of_many_layers_stand_upright():
    table = pd.DataFrame({"layer": [f"down_blocks.2.attentions.{number}" for number in range(28)]})
    table = table.assign(size="8x8", rule="unscaled", estimate=1.0, low=0.9, high=1.1)
    ax = figures.entropy_per_layer(table)
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {90.0}
    ax.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ax.get_xticklabels()]
    assert all(one.x1 <= other.x0 for one, other in itertools.pairwise(boxes))
