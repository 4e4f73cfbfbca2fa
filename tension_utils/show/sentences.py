"""What a chapter found, in one sentence made from its tables: the answers below the questions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import OPPOSING, interval, percent, points, runs_text
from tension_utils.analysis.findings import INDEX, LEVEL, POINTS, SMALLEST, WAYS, primary_of
from tension_utils.analysis.margins import AVERAGE, BOTH_TESTS
from tension_utils.analysis.overlap import WITH_COINS
from tension_utils.analysis.parting import SHARED, WHOLE, mixed_arm
from tension_utils.analysis.scaling import best_mixture
from tension_utils.config import CONTROLS, MATCHED_ARM, MIXED, REMOVAL, SHAM_ARMS, SINGLE_OBJECTIVES
from tension_utils.planted.rates import MOST_ERRORS
from tension_utils.show.ledger import ARMS, result_of, sentence

NO_WEIGHTS = "not run here, for the weights are not stored; the sandbox's page of this chapter runs the same lines"


def train_answer(kept: pd.DataFrame) -> str:
    """Say of every objective whether its models learned it: yes where every model's interval lies above chance.

    Args:
        kept: of `kept_checkpoints`.
    """
    parts = []
    for objective, rows in kept.groupby("objective", sort=False):
        weakest = rows.loc[rows.ci_low.idxmin()]
        if (rows.ci_low > rows.chance_accuracy).all():
            word = "yes"
        else:
            word = "no" if (rows.ci_high < rows.chance_accuracy).any() else "too few items to tell"
        bounds = f"[{percent(weakest.ci_low)}, {percent(weakest.ci_high)}]"
        parts.append(
            f"{objective}: {word}, {percent(rows.validation_accuracy.mean())} of its own validation pairs are ranked "
            f"right ({runs_text(len(rows))}; "
            f"the weakest {percent(weakest.validation_accuracy)} {bounds}, n = {weakest.n:,})"
        )
    return f"{'; '.join(parts)}. Chance is 50 %."


def opposing_answer(matrix: pd.DataFrame) -> str:
    """Say of both single-objective models whether they rank the other objective's pairs worse than a coin would.

    Args:
        matrix: of `tension_table`.
    """
    rows, parts = matrix.set_index(["objective", "test"]), []
    for objective, test in OPPOSING.items():
        if (objective, test) not in rows.index:
            continue
        row = rows.loc[(objective, test)]
        word = "yes" if row.ci_high < 0.5 else "no" if row.ci_low > 0.5 else "too few items to tell"
        parts.append(f"the {objective} model on {test} pairs: {word}, {interval(row)}, {runs_text(row.n_seeds)}")
    return f"{'; '.join(parts)}. A coin has 50 %." if parts else "not run: needs a single-objective model"


def evaluate_answer(matrix: pd.DataFrame) -> str:
    """Say what every objective's models rank right on both tests; see `tension_table`."""
    cell = matrix.set_index(["objective", "test"]).accuracy
    parts = [
        f"trained on {objective}: {' and '.join(f'{percent(cell[objective, t])} of {t}' for t in OPPOSING)} pairs"
        for objective in dict.fromkeys(matrix.objective)
    ]
    return f"ranked as people did, {'; '.join(parts)}; chance 50 %"


UNCLEAR = "too few items or seeds to tell"

VERDICT_WORDS = {
    "supported": "yes",
    "refuted": "no",
    "contradictory": "yes for one objective, the contrary for the other",
    "undecided": UNCLEAR,
}


def verdict_word(row: pd.Series) -> str:
    """Return a reading's verdict as the answer to its question; see `rates.rated_ledger`."""
    if row.verdict == "no verdict":
        return f"no verdict ({row.reason})"
    return VERDICT_WORDS.get(row.verdict, row.verdict)


def tension_answer(claim: pd.DataFrame) -> str:
    """Say whether mixing costs accuracy on the single objectives' own tests, for each mixed arm, the deciding first.

    Args:
        claim: rows of `rates.rated_ledger` on claim C1.
    """
    own = claim[(claim.quantity == "mixing") & (claim.test == "own")].sort_values(
        "is_primary", ascending=False, kind="stable"
    )
    parts = [
        f"{ARMS[row.arm]}: {verdict_word(row)}, mixed minus single-objective model on the latter's own test "
        f"{result_of(row)}"
        for row in own[own.value.notna()].itertuples()
    ]
    return (
        f"{'. '.join(parts)}." if parts else "not run: needs a mixed and both single-objective models on the same items"
    )


def answer_word(low: float, high: float) -> str:
    """Return whether a difference of shares is above zero: yes, no (or less than is worth a name), or not known.

    Args:
        low: lower end of its 95 % interval.
        high: upper end.

    >>> answer_word(0.01, 0.2), answer_word(-0.2, 0.02), answer_word(-0.2, 0.2)
    ('yes', 'no', 'too few items or seeds to tell')
    """
    return "yes" if low > 0 else "no" if high < SMALLEST[POINTS] / 100 else UNCLEAR


def conflict_answer(sides: pd.DataFrame) -> str:
    """Say whether the mixed models tell which objective a pair is about, where the single models disagree.

    Args:
        sides: of `margins.conflict_sides`.
    """
    if sides.empty:
        return "not run: needs a mixed and both single-objective models, and pairs on which the latter disagree"
    parts, rows = [], sides.set_index(["model", "test"])
    for model in (name for name in (MATCHED_ARM, MIXED, AVERAGE) if name in set(sides.model)):
        row = rows.loc[(model, BOTH_TESTS)]
        word = answer_word(row.ci_low - row.chance, row.ci_high - row.chance)
        tests = "; ".join(f"{test} {percent(rows.share_with_own[model, test])}" for test in SINGLE_OBJECTIVES)
        found = f"{interval(row, 'share_with_own')}, {runs_text(row.n_seeds)} ({tests})"
        parts.append(f"{ARMS.get(model, model)}: {word}, {found}")
    return f"{'. '.join(parts)}. A model that always leans to one side has 50 %."


def calibration_answer(errors: pd.DataFrame) -> str:
    """Say whether models are surer than they are right; of `margins.calibration_errors` by objective and group."""
    parts = []
    for _, row in errors.iterrows():
        word = answer_word(row.overconfidence_ci_low, row.overconfidence_ci_high)
        found = f"{word}, {points(row, 'overconfidence', 'overconfidence_')}"
        sizes = f"n = {row.n_items:,}, {runs_text(row.n_seeds)}"
        parts.append(f"{row.objective} on {row.group} tests: {found}, {sizes}")
    return f"Predicted minus actual accuracy. {'. '.join(parts)}."


def length_answer(lengths: pd.DataFrame) -> str:
    """Say of every objective and group of tests whether length helps; of `margins.length_bias_table`."""
    parts = []
    for _, row in lengths.dropna(subset="length_bias").iterrows():
        found = f"{answer_word(row.ci_low, row.ci_high)}, {points(row, 'length_bias')}"
        sizes = f"n = {row.n_longer:,} and {row.n_shorter:,}, {runs_text(row.n_seeds)}"
        parts.append(f"{row.objective} on {row.group} tests: {found}, {sizes}")
    return f"Accuracy where the chosen response is longer, minus where it is shorter. {'. '.join(parts)}."


def transferability_answer(kept: pd.DataFrame) -> str:
    """Say whether the mixed model keeps more than chance, over all pairings; of `transfer.transferability_table`.

    Args:
        kept: empty where a run has no mixed model.
    """
    if kept.empty:
        return "not run: needs the helpful, the harmless and the mixed model"
    parts = []
    for _, row in kept[kept.pairings == "all"].iterrows():
        word = answer_word(row.excess_transferability_ci_low, row.excess_transferability_ci_high)
        beyond = points(row, "excess_transferability", "excess_transferability_")
        found = f"{word}, it keeps {percent(row.transferability)}, beyond chance {beyond}"
        parts.append(f"{row.group} tests: {found} (n = {row.n_items:,}, {runs_text(row.n_seeds)})")
    return f"{'. '.join(parts)}."


def size_answer(outlook: pd.DataFrame) -> str:
    """Say whether mixing costs more with more pairs, and what it would cost with as many as the paper has.

    Args:
        outlook: of `scaling.cost_outlook`; empty where there is one size only.
    """
    if outlook.empty:
        return "not run: needs reward models on two numbers of pairs"
    slope, stops, goes_on = (row for _, row in outlook.iterrows())
    sizes = f"{slope.n_points} training runs, {slope.n_items:,} test pairs"
    if pd.isna(slope.ci_low):
        return f"too few sizes to tell: {100 * slope.cost:+.1f} points per doubling of the pairs ({sizes})"
    word = "yes, it grows" if slope.ci_low > 0 else "no, it shrinks" if slope.ci_high < 0 else UNCLEAR
    return (
        f"{word}: {points(slope, 'cost')} per doubling of the pairs ({sizes}). On {stops.n_pairs:,.0f} pairs, as many "
        f"as the paper has, {points(stops, 'cost')} if it grew no further, {points(goes_on, 'cost')} if it went on"
    )


def halving_answer(table: pd.DataFrame) -> str:
    """Say whether the other objective's pairs cost more than having fewer own ones does.

    Args:
        table: of `scaling.halving_table`, of which the most pairs decide.
    """
    if table.empty:
        return "not run: needs single-objective models on half as many pairs"
    row = table.iloc[-1]
    other, fewer = (
        pd.Series({"value": row[name], "ci_low": row[f"{name}_ci_low"], "ci_high": row[f"{name}_ci_high"]})
        for name in ("other_pairs", "fewer_own_pairs")
    )
    return (
        f"{answer_word(other.ci_low, other.ci_high)}: of {100 * row.cost:+.1f} points on {row.n_pairs:,.0f} pairs the "
        f"other objective's pairs cost {points(other, 'value')}, fewer own pairs {points(fewer, 'value')} "
        f"(n = {row.n_items:,.0f}, {runs_text(row.n_seeds)})"
    )


def mixture_answer(table: pd.DataFrame) -> str:
    """Say whether another mixture of as many pairs does better on the mean of both tests.

    Args:
        table: of `scaling.mixture_table`; empty where no other mixture was trained.
    """
    if table.empty:
        return "not run: needs reward models on another mixture"
    best = best_mixture(table)
    gain = pd.Series({"gain": best.gain, "ci_low": best.gain_ci_low, "ci_high": best.gain_ci_high})
    return (
        f"{answer_word(gain.ci_low, gain.ci_high)}: the best other one has {percent(best.helpful_share)} helpful pairs "
        f"and gains {points(gain, 'gain')} in the mean of both tests (n = {best.n_items:,}, {runs_text(best.n_seeds)})"
    )


TOO_FEW_WORLDS = "too few worlds to tell"

SELECTED_BY = "rms_change"  # the paper's score of what training changed

PLANT_WORDS = {
    "loud": "where the plant is louder than typical",
    "quiet": "where it is quieter",
    "trained": "where gradient descent chose the weights",
}


def more_than_half(low: float, high: float) -> str:
    """Return whether an interval lies above one half.

    >>> more_than_half(0.6, 0.9), more_than_half(0.1, 0.4), more_than_half(0.4, 0.6)
    ('yes', 'no', 'too few worlds to tell')
    """
    return "yes" if low > 0.5 else "no" if high < 0.5 else TOO_FEW_WORLDS


def planted_found(finders: pd.DataFrame) -> str:
    """Say whether one of the paper's two main scores finds more than half of a plant, and which score finds most.

    Args:
        finders: the table "finders" of a planted study.
    """
    of_site, parts = finders[finders.site == "down_input"], []
    subject = f"{SELECTED_BY}, one of the paper's two main scores, finds "
    for plant, words in PLANT_WORDS.items():
        rows = of_site[of_site["plant"] == plant].set_index("score_kind")
        low, high = rows.loc[SELECTED_BY, ["precision_ci_low", "precision_ci_high"]]
        best = rows.precision.idxmax()
        parts.append(
            f"{more_than_half(low, high)} {words}: {'' if parts else subject}{percent(rows.precision[SELECTED_BY])} "
            f"[{percent(low)}, {percent(high)}] (the best score, {best}, {percent(rows.precision[best])})"
        )
    chance = percent(of_site.chance.mean())
    return f"{'; '.join(parts)}. (Yes: more than half of the plant.) A random ranking finds {chance}."


def planted_erring(readings: pd.DataFrame) -> str:
    """Say how often a verdict under control errs, and how often the paper's reading does.

    Args:
        readings: of `rates.largest_designs` and `rates.error_rates`, one row per claim and way.
    """
    raw, ours = (readings[readings.way == way].set_index("claim") for way in WAYS)
    false, refuted, power = ours.false_positives, ours.false_refutations, ours.power
    word, most = "rarely" if false.max() <= LEVEL else "too often", refuted.max()
    limit = f"; beyond {100 * MOST_ERRORS:g} % there is no verdict" if most > MOST_ERRORS else ""
    highest = f"upper limit {percent(ours.false_positives_ci_high.max())}"
    n_false, n_true = (ours[f"n_worlds_{rate}"].astype(int) for rate in ("false_positives", "power"))
    erring = f"in at most {percent(false.max())} of the worlds ({false.idxmax()}; {highest})"
    if not false.max():
        erring = f"in none of the {n_false.min()} to {n_false.max()} worlds of a claim ({highest})"
    return (
        f"{word}, where it supports: with {runs_text(ours.n_seeds.max())}, under control, a claim that is false is "
        f"called supported {erring}, as published in up to {percent(raw.false_positives.max())} "
        f"({raw.false_positives.idxmax()}). Care has its price: a true claim is "
        f"supported in {percent(power.min())} ({power.idxmin()}) to {percent(power.max())} ({power.idxmax()}). Where "
        f"it refutes, {'more often' if most > LEVEL else 'rarely, too'}: a true claim in up to {percent(most)} "
        f"({refuted.idxmax()}, of {n_true[refuted.idxmax()]} worlds){limit}."
    )


def planted_agreement(agreement: pd.DataFrame) -> str:
    """Say which scores rank neurons as single knock-outs do where gradient descent chose the weights.

    Args:
        agreement: score_kind, rank_correlation, its _ci_low and _ci_high, n_worlds.
    """
    rows = agreement.set_index("score_kind")
    rows["word"] = [
        more_than_half(row.rank_correlation_ci_low, row.rank_correlation_ci_high) for row in rows.itertuples()
    ]
    best = rows.rank_correlation.idxmax()
    parts = [
        f"{kind}: {row.word}, rank correlation {row.rank_correlation:+.2f} "
        f"[{row.rank_correlation_ci_low:+.2f}, {row.rank_correlation_ci_high:+.2f}]"
        for kind, row in rows.loc[list(dict.fromkeys((best, SELECTED_BY)))].iterrows()
    ]
    n_yes = (rows.word == "yes").sum()
    return (
        f"{n_yes} of {len(rows)} scores do. {'; '.join(parts)} ({rows.n_worlds.iloc[0]} worlds; yes: above one half)."
    )


def planted_runs(readings: pd.DataFrame) -> str:
    """Say from how many training runs on no false claim is supported more often than a test at 5 % may.

    Args:
        readings: of `rates.largest_designs` and `rates.error_rates` under control, by claim and number of runs.
    """
    worst = readings.groupby("n_seeds").false_positives.max()
    safe = [n for n in worst.index if (worst[worst.index >= n] <= LEVEL).all()]
    power = readings.groupby("n_seeds").power
    reached = (f"with {runs_text(n)} in {percent(of.min())} to {percent(of.max())} of worlds" for n, of in power)
    start = f"{safe[0]}, to support false claims in at most {100 * LEVEL:g} % of worlds" if safe else "more than these"
    errors = ", ".join(f"{percent(error)} with {n}" for n, error in worst.items())
    n_worlds, highest = readings.n_worlds_false_positives.astype(int), percent(readings.false_positives_ci_high.max())
    sure = f"{n_worlds.min()} to {n_worlds.max()} worlds of a claim, upper limit {highest}"
    return (
        f"{start} (at worst {errors}; {sure}). True ones are supported, depending on the claim, {'; '.join(reached)}."
    )


def planted_faint(kinds: pd.DataFrame) -> str:
    """Say whether C2 is supported in more than half of the faint worlds.

    Args:
        kinds: of `rates.largest_designs` and `rates.kind_rates`, of one number of training runs.
    """
    row = kinds[(kinds.scenario == "faint") & (kinds.claim == "C2")].iloc[0]
    return (
        f"{more_than_half(row.ci_low, row.ci_high)} (yes: in more than half), C2 is supported in {row.n_supported} of "
        f"{row.n_worlds} worlds, {percent(row.supported)} [{percent(row.ci_low)}, {percent(row.ci_high)}] "
        f"({runs_text(row.n_seeds)}, {row.n_items} items, {row.n_draws} random sets)."
    )


AGREED = 0.5  # above this Jaccard index two sets share more neurons than the union has others

TOO_FEW = "too few seeds to tell"


def agrees(row: pd.Series) -> str:
    """Say whether two scores select mostly the same neurons; a row of `agreement_table`."""
    return "yes" if row.jaccard_ci_low > AGREED else "no" if row.jaccard_ci_high < AGREED else TOO_FEW


def is_stable(row: pd.Series) -> str:
    """Say whether a score's sets are those of another seed beyond chance; a row of `seed_stability`.

    The ledger's rule for an index: no where the interval lies below the smallest effect of interest, yes where it lies
    above zero and every two seeds share more than independent sets would.
    """
    if row.beyond_ci_high < SMALLEST[INDEX]:
        return "no"
    return "yes" if row.beyond_ci_low > 0 and row.p_value <= LEVEL else TOO_FEW


def heads_answer(compared: pd.DataFrame) -> str:
    """Say whether two objectives' models, and two of one objective, share more heads than their layers have it.

    And how many each shares with a model of coin-flip labels, where there is one: that needs no objective.

    Args:
        compared: of `relatives_table`, by one score, of which the first row decides; empty where nothing was compared.
    """
    if compared.empty:
        return "not run: needs two reward models with their base model"
    is_sham = compared.comparison.str.endswith(WITH_COINS)
    shams, compared = compared[is_sham], compared[~is_sham]
    is_more, is_above = compared.p_value <= LEVEL, compared.jaccard > compared.jaccard_chance_by_layer
    words = np.select([is_more, is_above], ["yes", "too few heads to tell"], "no").tolist()
    row = compared.iloc[0]
    p = "p < 0.001" if row.p_value < 0.001 else f"p = {row.p_value:.2g}"
    others = f"; so say {words.count('yes')} of {len(words)} comparisons" if len(words) > 1 else ""
    return (
        f"{words[0]}: {row.comparison} overlap by {row.jaccard:.2f}, sets with as many heads in each layer by "
        f"{row.jaccard_chance_by_layer:.2f} ({p}, {runs_text(row.n_seeds)}){others}"
        + (f"; each with a model of coin-flip labels by {shams.jaccard.mean():.2f} in the mean" if len(shams) else "")
    )


def agreement_answer(pairs: pd.DataFrame, asked: Sequence[str]) -> str:
    """Say whether scores agree.

    Args:
        pairs: of `agreement_table`.
        asked: the two scores that decide; without them the pair that agrees least does.
    """
    is_asked = pairs["first"].isin(asked) & pairs["second"].isin(asked)
    row = (pairs[is_asked] if is_asked.any() else pairs).iloc[-1]
    found = [agrees(pair) for _, pair in pairs.iterrows()]
    bounds = "" if pd.isna(row.jaccard_ci_low) else f" [{row.jaccard_ci_low:.2f}, {row.jaccard_ci_high:.2f}]"
    return (
        f"{agrees(row)}: {row['first']} and {row['second']} overlap by {row.jaccard:.2f}{bounds} (chance "
        f"{row.jaccard_chance:.2f}; sets of {row.n_neurons:,} neurons, {row.n_models} models, "
        f"{runs_text(row.n_seeds)}). Of {len(pairs)} pairs of scores {found.count('yes')} share most of their "
        f"neurons, {found.count('no')} do not"
    )


def stability_answer(stability: pd.DataFrame, kind: str) -> str:
    """Say whether the sets of one score are stable over seeds beyond chance, and of how many others.

    Args:
        stability: of `seed_stability`.
        kind: the score that decides.
    """
    row = stability[stability.score_kind == kind].iloc[0]
    if pd.isna(row.other_seed):
        return f"{TOO_FEW}: one seed"
    bounds = "" if pd.isna(row.beyond_ci_low) else f" [{row.beyond_ci_low:+.2f}, {row.beyond_ci_high:+.2f}]"
    found = [is_stable(other) for _, other in stability.iterrows()]
    return (
        f"{is_stable(row)}: two seeds' sets by {kind} overlap by {row.other_seed:.2f}, {row.beyond:+.2f}{bounds} "
        f"beyond chance (sets of {row.n_neurons:,} neurons, {row.n_models} models, {runs_text(row.n_seeds)}); yes for "
        f"{found.count('yes')} of {len(found)} scores"
    )


def removal_answer(row: pd.Series) -> str:
    """Say whether removing the top sets does what a claim says: yes, no, or too few items or seeds to tell.

    Args:
        row: the primary row of C2 or C3 of `claims.ledger`, possibly with rates.
    """
    if row.verdict in ("not run", "no verdict"):
        return f"{row.verdict}: {row.reason}"
    is_clear = row.ci_low > 0 or row.ci_high < 0
    unclear = TOO_FEW if is_clear else UNCLEAR
    return f"{unclear if row.verdict == 'undecided' else VERDICT_WORDS[row.verdict]}: {sentence(row)}"


MATCHED_ON = {"layer": "in layers", "activity": "in layers and activity"}  # of `config.CONTROLS`


def controls_answer(ablation: pd.DataFrame, held: pd.DataFrame | None = None) -> str:
    """Say which random sets the removed sets of every model stand beside, and which kind was not run.

    Args:
        ablation: rows of ablation.parquet, such as those of one fraction.
        held: of `removed.held_shares`; how much of the removed sets the random ones hold is said, too.
    """
    found, parts = ablation[ablation["scale"] == REMOVAL], []
    for control in CONTROLS:
        has = set(found.objective[found.control == control])
        with_it = [objective for objective in dict.fromkeys(ablation.objective) if objective in has]
        if with_it:
            parts.append(f"{MATCHED_ON[control]} ({', '.join(with_it)})")
    if not parts:
        return "no random sets: not run"
    said = f"random sets that match {' or '.join(parts)}"
    if held is None or not len(held):
        return said
    of_kinds = held.groupby("score_kind", sort=False).held
    return f"{said}. They hold {' and '.join(f'{extent(own)} of the set by {kind}' for kind, own in of_kinds)}"


def extent(shares: pd.Series) -> str:
    """Return the lowest and the highest of some shares in percent, or the one that all are."""
    return " to ".join(dict.fromkeys((percent(shares.min()), percent(shares.max()))))


SMALLEST_SLOPE = 0.1  # a tenth of the way to chance


def chance_answer(slopes: pd.DataFrame) -> str:
    """Say whether targeted sets pull accuracy toward chance more than random ones; of `chance_slopes`, one fit."""
    by_sets = slopes.set_index("sets")
    row, slope = by_sets.loc["targeted - random"], by_sets.slope
    answer = "yes" if row.ci_high < 0 else "no" if row.ci_low > -SMALLEST_SLOPE else UNCLEAR
    return (
        f"{answer}: the slope toward chance is {slope['targeted']:+.2f} with targeted sets and {slope['random']:+.2f} "
        f"with random ones, a difference of {row.slope:+.2f} [{row.ci_low:+.2f}, {row.ci_high:+.2f}] "
        f"(n = {row.n_items:,.0f}, {runs_text(row.n_seeds)})"
    )


def masked_answer(costs: pd.DataFrame, effects: pd.DataFrame) -> str:
    """Say what mixing costs under every mask, and what the shared mask changes beside the random one."""
    both = costs[costs.test == MIXED].set_index("mask").cost
    answer = effects.set_index(["contrast", "test"]).loc["shared mask - random mask", MIXED]
    text = "; ".join(f"{mask} {100 * cost:.1f} points" for mask, cost in both.items())
    return f"cost of mixing: {text}; shared minus random mask {points(answer, 'change')}"


def overlap_answer(claim: pd.DataFrame, permutation: pd.DataFrame, levels: pd.DataFrame, kind: str) -> str:
    """Say whether the objectives share more than sham labels do, and less than one objective learned twice.

    Args:
        claim: rows of `rates.rated_ledger` on claim C4.
        permutation: of `permutation_table`.
        levels: of `level_rows`.
        kind: score kind.
    """
    sham = primary_of(claim, "C4")
    found = result_of(sham) if sham.verdict == "not run" else f"{verdict_word(sham)}, {sentence(sham)}"
    parts = [f"more than with coin-flip labels: {found}"]
    test = permutation[permutation.score_kind == kind].iloc[0]
    if test.not_run:
        parts += [f"less than one objective learned twice: not run ({test.not_run})"]
    else:
        word = "yes" if test.p_value <= LEVEL else "no" if test.jaccard_difference <= 0 else "too few seeds to tell"
        parts += [
            f"less than one objective learned twice: {word}, {test.jaccard_between:.2f} beside "
            f"{test.jaccard_within:.2f} by {kind} "
            f"(p = {test.p_value:.2f}, at best {test.smallest_p:.2f}; {runs_text(test.n_seeds)})"
        ]
    means = levels[levels.score_kind == kind].groupby("level", sort=False).jaccard.mean()
    return f"{'; '.join(parts)}. Jaccard index: {'; '.join(f'{name} {value:.2f}' for name, value in means.items())}."


BETWEEN = {"interpolation": "interpolated weights", "ensemble": "the ensemble"}  # frontiers in words


def dial_answer(gaps: pd.DataFrame) -> str:
    """Say whether joint training loses against the two single models.

    Args:
        gaps: of `frontier_gaps`, of which the first row decides.
    """
    row, smallest = gaps.iloc[0], SMALLEST[POINTS] / 100
    if row.ci_high < 0:
        verdict = "yes, joint training does worse than averaging: it ends below"
    elif row.ci_low > 0:
        verdict = "no, joint training does better than averaging: it ends above"
    elif -smallest < row.ci_low and row.ci_high < smallest:
        verdict = f"no, joint training does as well as averaging: within {SMALLEST[POINTS]:.0f} points of"
    else:
        verdict = f"{UNCLEAR} whether joint training does worse than averaging, that is than"
    return (
        f"{verdict} {BETWEEN[row.frontier]} of the two single models ({row.objective}: {points(row, 'gap')} at the "
        f"same balance, n = {row.n_items:,}, {runs_text(row.n_seeds)})"
    )


def options_answer(options: pd.DataFrame, reference: str) -> str:
    """Say what beats the mixed model on both tests, and at what cost.

    Args:
        options: of `option_table`.
        reference: what its options are compared with.
    """
    better = options[options.better_on == "both"].sort_values(["n_trainings", "n_passes"], kind="stable")
    if better.empty:
        return f"nothing: none of {len(options)} options is better than {reference} on both tests"
    parts = [
        f"{row.option} (helpful {100 * row.helpful_change:+.1f}, harmless {100 * row.harmless_change:+.1f} points; "
        f"trainings: {row.n_trainings}, passes per judgment: {row.n_passes})"
        for row in better.itertuples()
    ]
    return f"{len(better)} of {len(options)} options are better than {reference} on both tests: {'; '.join(parts)}"


def dial_advice(gaps: pd.DataFrame) -> str:
    """Return advice for somebody who trains a reward model on both objectives.

    Args:
        gaps: of `frontier_gaps`, of one mixed model: the frontiers that it was compared with.
    """
    rows, smallest = gaps.set_index("frontier"), SMALLEST[POINTS] / 100
    balance = "Set the balance by the mixing ratio."
    if "interpolation" in rows.index and rows.ci_high["interpolation"] < 0:
        return (
            "Train one model per objective and interpolate their weights: two trainings, one pass per judgment, and "
            "the balance can still be changed after training."
        )
    if "ensemble" in rows.index and rows.ci_high["ensemble"] < 0:
        return (
            "Train one model per objective and add their margins, if you can afford two passes per judgment; else "
            f"train one model on both. {balance}"
        )
    if (rows.ci_low > -smallest).all():
        return f"Train one model on both objectives: two trainings or two passes gain nothing. {balance}"
    return (
        "Train one model on both objectives, the cheapest way, and measure it on pairs of your own: this run has too "
        f"little evidence for anything that costs more. {balance}"
    )


SMALLEST_SHARE = 0.05  # a difference of shares below five points is none worth a name


def opposition(row: pd.Series) -> str:
    """Say whether a set's neurons pull in opposite directions more often than random ones do.

    Yes: the interval of the effect lies above 0, and every seed's effect does. No: it lies below `SMALLEST_SHARE`, and
    not above 0.

    Args:
        row: of `sign_table`.
    """
    if row.ci_low > 0 and row.n_same == row.n_seeds:
        return "yes"
    return "no" if row.ci_low <= 0 and row.ci_high < SMALLEST_SHARE else TOO_FEW


def opposing_neurons_answer(signs: pd.DataFrame) -> str:
    """Say whether shared neurons oppose each other in the mixed model that decides, more than random ones do.

    Args:
        signs: of `sign_table`.
    """
    row = signs[(signs.objective == mixed_arm(signs.objective)) & (signs.set == SHARED)]
    if row.empty:
        return "not run: needs a mixed model with neuron scores, and neurons in both top sets"
    row = row.iloc[0]
    chance = f"{percent(row.random_share)} [{percent(row.random_share_low)}, {percent(row.random_share_high)}]"
    return (
        f"{opposition(row)}: {percent(row.share)} of the {row.n_neurons:,.0f} shared neurons add to the margin of the "
        f"{row.objective} model with opposite signs on the two texts, of random ones, as deep and as active, {chance}: "
        f"{points(row)}, p = {row.p_value:.3f} ({row.n_same} of {runs_text(row.n_seeds)} on that side)"
    )


def depth_answer(depths: pd.DataFrame) -> str:
    """Say of both single-objective models whether, and from which depth on, their accuracies on both tests part.

    Yes: they lie apart from some depth on. No: they differ by less than the smallest effect of interest at the last.

    Args:
        depths: of `depth_table`, the first base model decides.
    """
    first = depths[depths.base_model == depths.base_model.iloc[0]]
    smallest, parts = SMALLEST[POINTS] / 100, []
    for row in first[first.objective.isin(SINGLE_OBJECTIVES)].itertuples():
        is_near = -smallest < row.ci_low and row.ci_high < smallest
        start = f"yes, from depth {row.parting_depth:.0f} of {row.last_depth:.0f} on"
        word = "no" if is_near else UNCLEAR if np.isnan(row.parting_depth) else start
        gap = f"{100 * row.difference:+.1f} points [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]"
        sizes = f"(n = {row.n_items:,}, {runs_text(row.n_seeds)})"
        parts.append(f"in the {row.objective} model {word}: at the end, helpful minus harmless test {gap} {sizes}")
    return "; ".join(parts) or "not run: needs a single-objective model"


def gradient_answer(gradients: pd.DataFrame) -> str:
    """Say whether the gradients of both losses point apart in the mixed model.

    Yes: the interval of their cosine over seeds lies below 0. No: above minus the smallest index of interest.

    Args:
        gradients: of `gradient_table`, the first base model decides; without rows where there are no gradients.
    """
    if gradients.empty:
        return "not run: needs a mixed model whose gradients were taken"
    row = gradients[gradients.part == WHOLE].iloc[0]
    is_apart, is_not = row.cosine_ci_high < 0, row.cosine_ci_low > -SMALLEST[INDEX]
    return f"{_of_seeds(is_apart, is_not)}: the cosine of their gradients is {_cosine(row)}"


def weight_answer(weights: pd.DataFrame) -> str:
    """Say whether both single-objective trainings changed the weights alike, and how sham labels change them.

    Yes: the interval of the cosine over seeds lies above what blind directions reach. No: below the smallest index of
    interest.

    Args:
        weights: of `weight_table`, the first base model decides.
    """
    first = weights[weights.base_model == weights.base_model.iloc[0]].set_index("pair")
    both = " / ".join(SINGLE_OBJECTIVES)
    if both not in first.index:
        return "not run: needs both single-objective models"
    row = first.loc[both]
    is_not = row.cosine_ci_high < SMALLEST[INDEX]
    word = _of_seeds(not is_not and row.cosine_ci_low > row.random_cosine, is_not)
    shams = first[first.index.str.contains("|".join(SHAM_ARMS))].cosine
    beside = f", with models of sham labels {shams.min():+.2f} to {shams.max():+.2f}" if len(shams) else ""
    return (
        f"{word}: the cosine of their weight changes is {_cosine(row)}{beside}; blind directions stay below "
        f"{row.random_cosine:.1g}"
    )


def _of_seeds(is_so: bool, is_not: bool) -> str:
    """Return an answer whose interval is over seeds; bounds that are missing leave it open."""
    return "yes" if is_so else "no" if is_not else TOO_FEW


def _cosine(row: pd.Series) -> str:
    """Return a mean cosine with its interval over seeds."""
    bounds = f" [{row.cosine_ci_low:+.2f}, {row.cosine_ci_high:+.2f}]" if row.n_seeds > 1 else ""
    return f"{row.cosine:+.2f}{bounds} ({runs_text(row.n_seeds)})"


SLACK = 1e-9  # of a p-value, for rounding


def explorer_answer(effects: pd.DataFrame | None) -> str:
    """Say whether any set that one can choose stands out among random ones, corrected for choosing among all.

    Args:
        effects: of `removal_effects`, or None where nothing was removed.
    """
    if effects is None:
        return "not run: no neuron set was removed beside random ones"
    n, sizes = len(effects), f"(n = {effects.n_items.max():,}, {runs_text(effects.n_seeds.max())})"
    if (effects.smallest_p > LEVEL).all():
        draws = " to ".join(f"{number:.0f}" for number in sorted({effects.n_draws.min(), effects.n_draws.max()}))
        outside = int((effects.p_value <= effects.smallest_p + SLACK).sum())
        return (
            f"{outside} of {n} effects that one can choose here are larger than those of all {draws} random sets, "
            f"and about {effects.smallest_p.sum():.0f} would be by chance; one alone is no evidence, for beside "
            f"{draws} random sets p is never below {effects.smallest_p.min():.2f} {sizes}"
        )
    apart = int((effects.q_value <= LEVEL).sum())
    word = f"yes, {apart}" if apart else f"{UNCLEAR}: none"
    return (
        f"{word} of {n} effects that one can choose here stand out among random sets when corrected for choosing "
        f"(q at most {LEVEL:g}); {int((effects.p_value <= LEVEL).sum())} have p at most {LEVEL:g}, and about "
        f"{LEVEL * n:.0f} would by chance {sizes}"
    )


def own_pair_answer(preferred: list[pd.Series]) -> str:
    """Say on how many pairs the models disagree.

    Args:
        preferred: per pair, the response that each model prefers.
    """
    if not preferred:
        return "not run: the weights of these reward models are not here"
    split = sum(names.nunique() > 1 for names in preferred)
    return f"the {len(preferred[0])} models disagree on {split} of {len(preferred)} example pairs"
