"""The answer of each notebook in a sentence or two, written from its own tables: a DataFrame in, text out.

There is a wording for every outcome, so that neither a number nor a judgement on a page is typed by hand. Limits are compared
as they are shown, rounded, so that what is said never contradicts what is printed.

Example:
    >>> table = pd.DataFrame({"size": ["32x32"], "rule": ["paper"], "share": [0.1], "low": [-0.1], "high": [0.3], "clusters": [8]})
    >>> shares(table)
    'Of the change of entropy at 32x32 `paper` removes 10 % [-10, 30]: no effect shown. Intervals: 95 %, over 8 prompts.'
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from entropy_lib.attention.logit_shape import CAUSES
from entropy_lib.display.numbers import chance, decimals, interval, listed, percent, side
from entropy_lib.metrics.catalogue import METRICS, PRIMARY, UNCOUNTED
from entropy_lib.sizes import pixel_count

FAMILY = "Holm's correction over"
Row = Any  # of DataFrame.itertuples: a named tuple whose names are the columns
SAME_MEMORY = 0.05  # a smaller share more or less is what processes differ by
SMALLEST = 0.005  # nats: a smaller change of a mean entropy cannot be seen in two decimals


def quickstart(table: pd.DataFrame, native: str) -> str:
    """Whether the rule moves mean entropy towards its native value.

    Args:
        table: of `tables.entropies`, "unscaled" and at most one more rule at each size.
        native: the label of the native size.
    """
    wide = table.pivot(index="size", columns="rule", values="entropy").reindex(table["size"].unique())
    rule = next((name for name in table.rule if name != "unscaled"), None)
    text = f"Mean entropy at {listed(wide.index)} is {_values(wide['unscaled'])} nats without a rule"
    if rule is None:
        return f"{text}; no rule was tried."
    text += f" and {_values(wide[rule])} with `{rule}`"
    others = wide.drop(index=native, errors="ignore")
    if native not in wide.index or others.empty:
        return f"{text}; what a rule does to a change of size takes native size and another one."
    moves = {size: _move(row["unscaled"], row[rule], wide["unscaled"][native]) for size, row in others.iterrows()}
    return f"{text}: against the native value, the rule moves entropy {_grouped(moves)}."


def _values(column: pd.Series) -> str:
    return listed(f"{value:.2f}" for value in column)


def _move(unscaled: float, ruled: float, native: float) -> str:
    """Where a rule moves entropy to, seen from the native value."""
    if abs(ruled - unscaled) < SMALLEST:
        return f"by less than {SMALLEST} nats"
    if abs(unscaled - native) < SMALLEST:
        return "away"
    share = 1 - (ruled - native) / (unscaled - native)
    if share < 0:
        return "away"
    return f"{percent(share)} of the way back" if share <= 1 else "back and past it"


def theory(limits: pd.DataFrame, inside: int, layers: int, removed: pd.DataFrame, tolerance: float) -> str:
    """Where Eq. 5 holds for Gaussian logits, and what each rule removes of the change of entropy.

    Args:
        limits: columns `tokens, of_freezing`: up to which b / b_c Eq. 5 is within the tolerance.
        inside, layers: how many layers of the embedded model lie below their limit, of how many.
        removed: columns `rule, share` (of `scaling.under_rules`, at one larger size).
        tolerance: nats.
    """
    low, high = limits.of_freezing.min(), limits.of_freezing.max()
    reach = f"{low:.2f} to {high:.2f}" if f"{low:.2f}" != f"{high:.2f}" else f"{low:.2f}"
    counted = "all" if inside == layers else "none" if not inside else f"{inside}"
    text = f"For independent Gaussian logits Eq. 5 is right within {tolerance:g} nats up to b = {reach} b_c (b_c = √(2 ln N), the "
    text += f"freezing point; the limit depends on N); {counted} of the {layers} layers of the embedded model lie below it."
    ruled = [f"`{row.rule}` removes {percent(row.share)}" for row in removed.itertuples() if row.rule != "unscaled"]
    return f"{text} Of the change of entropy at the larger size {listed(ruled)}." if ruled else text


def gaussian_check(layers: pd.DataFrame, size: str, tolerance: float) -> str:
    """In how many layers Eq. 5 holds, what it fails by in the others, and how strongly layers answer the scale.

    Args:
        layers: of `attention.by_layer`.
        size: what was looked at.
        tolerance: nats.
    """
    failing = layers[layers.absolute_error > tolerance]
    held = len(layers) - len(failing)
    counted = "in all" if not len(failing) else "in none" if not held else f"in {held}"
    text = f"At {size} Eq. 5 is right within {tolerance:g} nats {counted} of {len(layers)} layers."
    if len(failing):
        text += f" In the other {len(failing)}" if held else " There"
        text += f" entropy is {_errors(failing.error)}, mostly because of this: {_main_cause(failing)}."
    weight = layers.logit_std**2
    answer = (layers.response_ratio * weight).sum() / weight.sum()
    return f"{text} To a change of the scale the layers respond with {answer:.2f} of what Eq. 5 promises (1 if it were right)."


def _errors(errors: pd.Series) -> str:
    sizes = sorted({f"{errors.abs().min():.2f}", f"{errors.abs().max():.2f}"})
    way = "higher than it says" if (errors > 0).all() else "lower than it says" if (errors < 0).all() else "off, either way"
    return f"{' to '.join(sizes)} nats {way}"


def _main_cause(layers: pd.DataFrame) -> str:
    return CAUSES[layers[list(CAUSES)].abs().sum().idxmax()]


def slopes(table: pd.DataFrame, level: float = 0.95) -> str:
    """The slope of entropy on ln N under each rule, beside its prediction, and what the rule changes.

    Args:
        table: one row a rule, the first one without a rule: columns `rule, slope, low, high, predicted, clusters`, and
            `change, change_low, change_high`: the slope of the paired difference to the first rule (NaN in the first row).
        level: of the intervals.
    """
    parts = [_slope(row) for row in table.itertuples()]
    changes = [_change(row, table) for row in table.iloc[1:].itertuples()]
    note = f" Intervals: {100 * level:g} %, over {table.clusters.iloc[0]} prompts."
    return f"The slope of mean entropy on ln N is {'; '.join(parts)}. {' '.join(changes)}".rstrip() + note


def _slope(row: Row) -> str:
    text = f"{interval(row.slope, row.low, row.high)} under `{row.rule}`"
    if math.isnan(row.predicted):
        return text
    where = {"above": "more than", "below": "less than", "holds": "consistent with", "": "beside"}
    expected = f"{row.predicted:.{decimals(row.low, row.high)}f}"
    return f"{text} ({where[side(row.low, row.high, row.predicted)]} the {expected} predicted for Gaussian logits)"


def _change(row: Row, table: pd.DataFrame) -> str:
    first = table.iloc[0]
    changed = interval(row.change, row.change_low, row.change_high)
    what = {
        "below": "lowers the slope",
        "above": "raises the slope",
        "holds": "is not shown to change the slope",
        "": "shifts the slope",
    }
    text = f"`{row.rule}` {what[side(row.change_low, row.change_high, 0)]} (paired difference {changed}"
    promised = row.predicted - first.predicted
    text += f", predicted {promised:+.3f})" if np.isfinite(promised) else ")"
    grows = {"above": "entropy still grows with size", "below": "entropy falls with size"}
    return f"{text}; {grows.get(side(row.low, row.high, 0), 'no growth of entropy is shown')}."


def shares(table: pd.DataFrame, level: float = 0.95) -> str:
    """How much of the change of entropy each rule removes.

    Args:
        table: of `statistics.share_removed`: columns `size, rule, share, low, high, clusters`.
        level: of the intervals.
    """
    if table.empty:
        return "No rule was compared with the model as it is."
    parts = [
        f"at {row.size} `{row.rule}` removes {percent(row.share, row.low, row.high)}: {_removal(row)}" for row in table.itertuples()
    ]
    return f"Of the change of entropy {'; '.join(parts)}. {_over_prompts(table, level)}"


def _removal(row: Row) -> str:
    """In words, what part of the change goes."""
    if math.isnan(row.low):
        return "no interval"
    against = {value: side(100 * row.low, 100 * row.high, value) for value in (0, 50, 100)}
    if against[0] == "holds":
        return "no effect shown"
    if against[0] == "below":
        return "it moves entropy away from its native value"
    if against[100] == "above":
        return "more than all of it"
    return {"below": "most of it stays", "above": "most of it goes", "holds": "about half of it"}[against[50]]


def _over_prompts(table: pd.DataFrame, level: float) -> str:
    count = table.clusters.iloc[0]
    return (
        f"Intervals: {100 * level:g} %, over {count} prompts." if count > 1 else "One prompt: an illustration, without intervals."
    )


def pictures(table: pd.DataFrame) -> str:
    """How much the pictures change with the rule, which says nothing about better or worse.

    Args:
        table: of `tables.picture_changes`.
    """
    if table.empty:
        return "No two rules were drawn at one size, so there is nothing to compare."
    parts = []
    for (rule, against), part in table.groupby(["rule", "against"], sort=False):
        changed, same = part[part.largest_change > 0], part[part.largest_change == 0]
        text = f"Between `{against}` and `{rule}` pictures"
        if len(changed):
            text += f" differ by {_range(changed.mean_change)} of the grey range at {listed(changed['size'])} (means over prompts)"
        if len(same):
            text += f"{' and' if len(changed) else ''} do not differ at {listed(same['size'])}"
        parts.append(f"{text}.")
    return " ".join([*parts, "Whether that repairs them is for the eye, and for notebook 06."])


def _range(values: pd.Series) -> str:
    shown = list(dict.fromkeys(f"{100 * value:.1f}" for value in (values.min(), values.max())))
    return f"{' to '.join(shown)} %"


def metric_tables(differences: pd.DataFrame, levels: pd.DataFrame, level: float = 0.95) -> str:
    """Whether pictures are better under each rule, by KID (the primary measure) and by CLIP score.

    Args:
        differences, levels: of `sweep.reduce.Tables`.
        level: of the intervals; a Holm-corrected p-value above 1 - `level` shows no difference.
    """
    parts = []
    for metric in ("KID", "CLIP score"):
        for (rule, against), part in differences[differences.metric == metric].groupby(["rule", "against"], sort=False):
            base = levels[(levels.metric == metric) & (levels.method == against)].drop_duplicates("size").set_index("size")
            words = _metric_words(part, base, metric, level)
            parts.append(f"By {METRICS[metric].label}, `{rule}` against `{against}`: {words}.")
    if not parts:
        return "No rule was compared with another."
    return " ".join(
        [
            *parts,
            f"{100 * level:g} % intervals of paired differences, each by itself; p after {FAMILY} sizes, by which better and worse "
            "are said.",
        ]
    )


def preregistration() -> str:
    """What was decided before anything was drawn: the outcomes that tell of damage above and below the native size.

    Example:
        >>> preregistration().partition(", or")[0]
        'Primary outcomes above the native size: Excess (things too many, a picture)'
    """
    parts = []
    for side_of, names in PRIMARY.items():
        text = f"{side_of} the native size: {listed(f'{name} ({METRICS[name].unit})' for name in names)}"
        otherwise = [f"{name} ({METRICS[name].unit})" for name in UNCOUNTED[side_of]]
        parts.append(f"{text}, or {listed(otherwise)} where nothing counts things" if otherwise else text)
    return f"Primary outcomes {'; '.join(parts)}."


def layout_metrics(levels: pd.DataFrame, differences: pd.DataFrame, native: str, level: float = 0.95) -> str:
    """The two patterns, repetition above the native size and incompleteness below it, and what each rule does about them.

    Repetition is told by things too many where they were counted, else by the index.

    Args:
        levels, differences: of `sweep.reduce.Tables`; the rule that is compared with stands first in `levels`.
        native: the label of the native size.
        level: of the intervals; a Holm-corrected p-value above 1 - `level` shows no difference.
    """
    first = levels.method.iloc[0]
    own, parts = levels[levels.method == first], []
    judged = set(own.metric)
    told = {side_of: [name for name in names if name in judged] for side_of, names in PRIMARY.items()}
    told = {side_of: names or [name for name in UNCOUNTED[side_of] if name in judged] for side_of, names in told.items()}
    for side_of, metric in ((side_of, name) for side_of, names in told.items() for name in names):
        table = own[own.metric == metric].set_index("size")
        sizes = _concerned(table.index, native, above=side_of == "above")
        if not sizes:
            continue
        table = table.loc[[size for size in (native, *sizes) if size in table.index]]
        values = {size: interval(row.estimate, row.low, row.high) for size, row in table.iterrows()}
        text = f"{metric} ({METRICS[metric].unit}) under `{first}` is "
        text += f"{values.pop(native)} at {native}, " if native in values else ""
        parts.append(f"{text}{listed(f'{value} at {size}' for size, value in values.items())}")
        changed = differences[
            (differences.metric == metric) & ~differences.rule.str.contains(",") & differences["size"].isin(sizes)
        ]
        for (rule, _), part in changed.groupby(["rule", "against"], sort=False):
            words = {row["size"]: metric_word(row["estimate"], row["p_holm"], metric, level) for row in part.to_dict("records")}
            parts[-1] += f"; `{rule}`: {_grouped(words)}"
    if not parts:
        return f"Nothing was judged at another size than {native}, where the rules do nothing."
    return ". ".join([*parts, f"{100 * level:g} % intervals; better and worse are said after Holm's correction over sizes."])


def _concerned(sizes: Iterable[str], native: str, above: bool) -> list[str]:
    """The sizes on one side of the native one."""
    return [size for size in sizes if size != native and (pixel_count(size) > pixel_count(native)) == above]


def _metric_words(part: pd.DataFrame, base: pd.DataFrame, metric: str, level: float) -> str:
    """What the differences of one metric say, sizes with the same word together; each beside what it is a difference to."""
    times, words = METRICS[metric].times, {}
    for row in part.to_dict("records"):
        text = interval(*(times * row[name] for name in ("estimate", "low", "high")))
        if row["size"] in base.index:
            value, low, high = times * base.loc[row["size"], ["estimate", "low", "high"]]
            text += f" on {value:.{decimals(low, high)}f}"
        text = f"{row['size']} ({text}, {chance(row['p_holm'])})"
        words.setdefault(metric_word(row["estimate"], row["p_holm"], metric, level), []).append(text)
    return "; ".join(f"{word} at {listed(sizes)}" for word, sizes in words.items())


def metric_word(estimate: float, p_holm: float, metric: str, level: float) -> str:
    """What a paired difference says: "better", "worse" or "no difference shown"; "more" or "less" where neither is better.

    Example:
        >>> metric_word(-0.01, 0.001, "KID", level=0.95), metric_word(-0.01, 0.06, "KID", level=0.95)
        ('better', 'no difference shown')
    """
    if not float(f"{p_holm:.3g}") <= round(1 - level, 9):  # as `numbers.chance` shows it
        return "no difference shown"
    if not METRICS[metric].directed:
        return "more" if estimate > 0 else "less"
    return "better" if (estimate > 0) == METRICS[metric].higher_is_better else "worse"


def _grouped(words: Mapping[str, str]) -> str:
    """{size: word} as text, sizes with the same word together."""
    groups: dict[str, list[str]] = {}
    for name, word in words.items():
        groups.setdefault(word, []).append(name)
    return listed(f"{word} at {listed(names)}" for word, names in groups.items())


# What the paper's two sentences say of an outcome: with the exponent of the rule it should get better.
SENTENCES = {
    "that redundant information repeats things": (*PRIMARY["above"], *UNCOUNTED["above"]),
    "that too little of it leaves things incomplete": (*PRIMARY["below"], *UNCOUNTED["below"]),
}


def causes(choices: pd.DataFrame, dose: pd.DataFrame, level: float = 0.95) -> str:
    """Whether damage follows the dose as the paper's two sentences say, and whether an arm repairs more than no rule.

    Args:
        choices: columns `size, metric, rule, against, estimate, low, high, p_holm`: what was best on tuning prompts against others
            on held-out ones; no row where the choice was no rule.
        dose: columns `size, metric, estimate, low, high, p_holm`: change of the outcome for one unit of the exponent.
        level: of the intervals; a Holm-corrected p-value above 1 - `level` shows nothing.
    """
    if dose.empty:
        return "Nothing was judged at another size than the native one, where the rules do nothing."
    parts = [
        f"The paper's sentence {sentence} {_borne_out(part, level)}"
        for sentence, metrics in SENTENCES.items()
        if len(part := dose[dose.metric.isin(metrics)])
    ]
    if choices.empty:
        parts.append("For no outcome at any size was an arm better than no rule on the tuning prompts")
    else:
        held_out = [_choices(against, part, level) for against, part in choices.groupby("against", sort=False)]
        parts.append(f"What was best on the tuning prompts is, on other prompts, {'; '.join(held_out)}")
    return ". ".join(parts) + f". {100 * level:g} % intervals over prompts, each by itself; p after {FAMILY} sizes and outcomes."


def _borne_out(dose: pd.DataFrame, level: float) -> str:
    """Whether outcomes get better with the exponent: at every size, at some, at none, or the opposite."""
    words = [metric_word(row["estimate"], row["p_holm"], row["metric"], level) for row in dose.to_dict("records")]
    if all(word == "better" for word in words):
        verdict = "is borne out"
    elif "better" in words:
        verdict = "is contradicted in part" if "worse" in words else "is borne out in part"
    else:
        verdict = "is contradicted" if "worse" in words else "is not shown to hold"
    shown = [
        f"{row['metric']} at {row['size']} {word} ({_tested(row)})"
        for row, word in zip(dose.to_dict("records"), words, strict=True)
    ]
    return f"{verdict}: for one unit of the exponent {listed(shown)}"


def _choices(against: str, part: pd.DataFrame, level: float) -> str:
    """How the arms that were chosen do on the prompts that took no part in the choice; the same words stand together."""
    words: dict[str, list[str]] = {}
    for row in part.to_dict("records"):
        text = f"{row['metric']} at {row['size']} (`{row['rule']}`, {_tested(row)})"
        words.setdefault(metric_word(row["estimate"], row["p_holm"], row["metric"], level), []).append(text)
    return f"against `{against}` {', '.join(f'{word} in {listed(texts)}' for word, texts in words.items())}"


def baselines(changes: pd.DataFrame, costs: pd.DataFrame, level: float = 0.95) -> str:
    """Which other ways to a size beat the paper's rule in pictures, and what each costs beside it.

    Args:
        changes: columns `size, metric, rule, estimate, low, high, p_holm`: each method less the paper's rule, by one metric.
        costs: columns `size, method, seconds, megabytes`, "paper" among the methods.
        level: of the intervals; a Holm-corrected p-value above 1 - `level` shows nothing.
    """
    if changes.empty:
        return "Nothing was compared with the paper's rule away from native size."
    metric = METRICS[changes.metric.iloc[0]]
    text = f"By {metric.label}, {metric.unit}: " + "; ".join(
        f"at {size} `paper` {_against_others(part, metric.name, level)}" for size, part in changes.groupby("size", sort=False)
    )
    return f"{text}. {_cost(costs)} {100 * level:g} % intervals over prompts, each by itself; p after {FAMILY} sizes and methods."


def _against_others(changes: pd.DataFrame, metric: str, level: float) -> str:
    """Which methods beat the paper's rule at one size, which it beats, and which it is not shown to differ from."""
    said = {"better": "is beaten by", "worse": "beats", "no difference shown": "is not shown to differ from"}
    found: dict[str, list[str]] = {}
    for row in changes.to_dict("records"):
        words = metric_word(row["estimate"], row["p_holm"], metric, level)
        found.setdefault(words, []).append(f"`{row['rule']}` ({_tested(row, METRICS[metric].times)})")
    return listed(f"{said[word]} {listed(found[word])}" for word in said if word in found)


def _tested(row: Mapping[str, float], times: int = 1) -> str:
    """A difference with its own interval, and the p-value of all that were tested together, which the word beside it goes by."""
    return f"{interval(*(times * row[name] for name in ('estimate', 'low', 'high')))}, {chance(row['p_holm'])}"


def _cost(costs: pd.DataFrame) -> str:
    """Seconds and memory of the paper's rule at the largest size that was measured, and of the others as multiples."""
    if costs.empty:
        return ""
    size = max(costs["size"], key=pixel_count)
    table = costs[costs["size"] == size].set_index("method")
    own, others = table.loc["paper"], table.drop(index="paper")
    text = f"A picture of {size} takes `paper` {own.seconds:.2g} s and {own.megabytes:,.0f} MB at the peak"
    if len(others):
        ratios = [f"`{name}` {seconds / own.seconds:.2g}" for name, seconds in others.seconds.items()]
        text += f"; times that: {listed(ratios)}"
        memory = others.megabytes / own.megabytes
        apart = [f"`{name}` {ratio:.2g}" for name, ratio in memory[(memory - 1).abs() > SAME_MEMORY].items()]
        text += f"; of the memory {listed(apart)}" if apart else f"; memory within {percent(SAME_MEMORY)}"
    return f"{text}."


def user_study(found: pd.DataFrame, automatic: pd.DataFrame, protocol: str, truth: float | None = None, level: float = 0.95) -> str:
    """What raters say, or that nobody was asked; then what numbers in a rater's place would say.

    Args:
        found: of `study.compare`, the answers of raters.
        automatic: of `study.compare` with a column `rater`, one for each metric; may be empty.
        protocol: of the study, "rating" or "choice".
        truth: of a simulated panel; None where people were asked.
        level: of the intervals.
    """
    whole = [part.iloc[-1] for _, part in found.groupby(["first", "second"], sort=False)]
    people = f"{'' if truth is None else 'simulated '}{'rater' if whole[0].raters == 1 else 'raters'}"
    who = f"{whole[0].raters} {people} on {sum(row.pairs for row in whole)} pairs"
    said = listed(_preference(row, protocol, level, judged=truth is None) for row in whole)
    text = f"{who}: {said}."
    if truth is not None:
        text = f"Nobody has been asked yet. To try the analysis, {text}"
        if len(whole) == 1:  # of more than two methods, those further apart differ by more
            found_out = "lies in" if whole[0].low <= truth <= whole[0].high else "lies outside"
            text += f" The truth that they answer by, {truth:.2f}, {found_out} the interval."
    if whole[0].raters == 1:
        text += " With one rater intervals are over pairs, and speak of that one alone."
    if len(automatic):
        last = [part.iloc[-1] for _, part in automatic.groupby(["rater", "first", "second"], sort=False)]
        shares = listed(f"{row.rater} {percent(row.estimate, row.low, row.high)} for `{row.second}`" for row in last)
        text += f" In a rater's place, numbers would choose: {shares} (no difference counts half)."
    return text


def story(shares: pd.DataFrame, levels: pd.DataFrame, differences: pd.DataFrame, arms: pd.DataFrame, native: str) -> str:
    """The project in three sentences: what goes wrong at the largest size, what the paper's rule does, what restoring entropy does.

    Args:
        shares: of `statistics.share_removed`, of the rule at several sizes.
        levels, differences: of `sweep.reduce.Tables`, with the metric "Excess".
        arms: of notebook 10, the share of the damage that each arm removes, `entropy` being what it removes of the change of that;
            may be empty.
        native: the label of the native size.
    """
    excess = levels[(levels.metric == "Excess") & (levels.method == "unscaled")].set_index("size")
    changes = differences[(differences.metric == "Excess") & (differences.rule == "paper")].set_index("size")
    shares = shares[shares.rule == "paper"].set_index("size")
    size = max(set(excess.index) & set(changes.index) & set(shares.index) - {native}, key=pixel_count)
    there, base, change, share = excess.loc[size], excess.loc[native], changes.loc[size], shares.loc[size]
    text = (
        f"Asked for {size} instead of {native}, the embedded model draws {interval(there.estimate, there.low, there.high)} things "
    )
    text += f"too many a picture, where it draws {interval(base.estimate, base.low, base.high)} at its own size. The paper's rule "
    text += (
        f"takes back {percent(share['share'], share.low, share.high)} of the change of entropy, and changes the number of things "
    )
    word = metric_word(change.estimate, change.p_holm, "Excess", 0.95)
    text += f"too many by {_tested(change)} ({word}). {_restored(arms)}"
    return f"{text.strip()} Intervals: 95 %; p after {FAMILY} sizes."


def _restored(arms: pd.DataFrame) -> str:
    """What the arm does that takes back most of the change of entropy, at the largest size where things were counted."""
    if arms.empty:
        return ""
    arms = arms[arms.metric == "Excess"]
    size = max(arms["size"], key=pixel_count)
    best = arms[arms["size"] == size].sort_values("entropy").iloc[-1]
    share, low, high = best[["share", "low", "high"]]
    done = f"removes {percent(share, low, high)} of the damage there"
    if high < 0:
        done = f"adds {percent(-share, -high, -low)} to the damage there"
    elif low <= 0:
        done += ", which shows nothing"
    return f"`{best.rule}`, which takes back {percent(best.entropy)} of it at {size}, {done}."


def _preference(row: Row, protocol: str, level: float, judged: bool) -> str:
    """One comparison in words; whether it shows something is said of people only."""
    if protocol == "rating":
        text = f"`{row.second}` scores {interval(row.estimate, row.low, row.high)} points more than `{row.first}`"
    else:
        text = f"`{row.second}` is chosen over `{row.first}` by {percent(row.estimate, row.low, row.high)}"
    shown = "no difference shown" if not row.p_value < 1 - level else "better" if row.estimate > row.nothing else "worse"
    return f"{text} ({shown})" if judged else text
