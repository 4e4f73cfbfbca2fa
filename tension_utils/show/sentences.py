"""What a chapter found, in one sentence made from its tables: the answers below the questions."""

import pandas as pd

from tension_utils.analysis.accuracy import OPPOSING, interval, percent, points, seeds_text
from tension_utils.analysis.findings import LEVEL, POINTS, SMALLEST, WAYS, primary_of
from tension_utils.analysis.margins import AVERAGE, BOTH_TESTS
from tension_utils.analysis.parting import SHARED, WHOLE, mixed_arm
from tension_utils.config import MATCHED_ARM, MIXED, SINGLE_OBJECTIVES
from tension_utils.show.ledger import ARMS, result_of, sentence

NO_WEIGHTS = "not run: the weights of these reward models are not stored with their results"


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
            f"right ({seeds_text(len(rows))}; "
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
        parts.append(f"the {objective} model on {test} pairs: {word}, {interval(row)}, {seeds_text(row.n_seeds)}")
    return f"{'; '.join(parts)}. A coin has 50 %." if parts else "not run: needs a single-objective model"


def evaluate_answer(matrix: pd.DataFrame) -> str:
    """Say what every objective's models rank right on both tests; see `tension_table`."""
    cell = matrix.set_index(["objective", "test"]).accuracy
    parts = [
        f"trained on {objective}: {' and '.join(f'{percent(cell[objective, t])} of {t}' for t in OPPOSING)} pairs"
        for objective in dict.fromkeys(matrix.objective)
    ]
    return f"ranked as people did, {'; '.join(parts)}; chance 50 %"


VERDICT_WORDS = {
    "supported": "yes",
    "refuted": "no",
    "contradictory": "yes for one objective, the contrary for the other",
    "undecided": "too few items or seeds to tell",
}


def verdict_word(row: pd.Series) -> str:
    """Return a reading's verdict as the answer to its question; see `rates.rated_ledger`."""
    if row.verdict == "no verdict":
        return f"no verdict, too few items or seeds to tell ({row.reason})"
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
    return "yes" if low > 0 else "no" if high < SMALLEST[POINTS] / 100 else VERDICT_WORDS["undecided"]


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
        found = f"{interval(row, 'share_with_own')}, {seeds_text(row.n_seeds)} ({tests})"
        parts.append(f"{ARMS.get(model, model)}: {word}, {found}")
    return f"{'. '.join(parts)}. A model that always leans to one side has 50 %."


def calibration_answer(errors: pd.DataFrame) -> str:
    """Say whether models are surer than they are right; of `margins.calibration_errors` by objective and group."""
    parts = []
    for row in errors.itertuples():
        low, high = row.overconfidence_ci_low, row.overconfidence_ci_high
        found = (
            f"{answer_word(low, high)}, {100 * row.overconfidence:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        )
        sizes = f"n = {row.n_items:,}, {seeds_text(row.n_seeds)}"
        parts.append(f"{row.objective} on {row.group} tests: {found}, {sizes}")
    return f"Predicted minus actual accuracy. {'. '.join(parts)}."


def length_answer(lengths: pd.DataFrame) -> str:
    """Say of every objective and group of tests whether length helps; of `margins.length_bias_table`."""
    parts = []
    for _, row in lengths.dropna(subset="length_bias").iterrows():
        found = f"{answer_word(row.ci_low, row.ci_high)}, {points(row, 'length_bias')}"
        sizes = f"n = {row.n_longer:,} and {row.n_shorter:,}, {seeds_text(row.n_seeds)}"
        parts.append(f"{row.objective} on {row.group} tests: {found}, {sizes}")
    return f"Accuracy where the chosen response is longer, minus where it is shorter. {'. '.join(parts)}."


def transferability_answer(kept: pd.DataFrame) -> str:
    """Say whether the mixed model keeps more than chance, over all pairings; of `transfer.transferability_table`."""
    parts = []
    for row in kept[kept.pairings == "all"].itertuples():
        low, high = row.excess_transferability_ci_low, row.excess_transferability_ci_high
        number = f"{100 * row.excess_transferability:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        found = f"{answer_word(low, high)}, it keeps {percent(row.transferability)}, beyond chance {number}"
        parts.append(f"{row.group} tests: {found} (n = {row.n_items:,}, {seeds_text(row.n_seeds)})")
    return f"{'. '.join(parts)}."


def planted_answer(finders: pd.DataFrame, rates: pd.DataFrame) -> str:
    """Say which scores find a plant, and how often a reading of C2 is right, in the stored study's tables."""
    found = finders.set_index(["site", "score_kind", "plant"]).precision["down_input"]
    primary = rates[rates.is_primary & (rates.claim == "C2") & (rates.n_seeds == rates.n_seeds.max())]
    raw, ours = (primary[primary.way == way].iloc[0] for way in WAYS)
    parts = [
        f"{kind} finds {100 * found[kind, 'loud']:.0f} % of a loud plant and {100 * found[kind, 'quiet']:.0f} % of a "
        "quiet one"
        for kind in ("mean_abs", "rms_change")
    ]
    parts += [f"a raw drop supports C2 in {100 * raw.false_positives:.0f} % of the worlds where it is false"]
    parts += [
        f"the ledger does so in {100 * ours.false_positives:.0f} %, and in {100 * ours.power:.0f} % where it is true"
    ]
    return "; ".join(parts) + "."


def identify_answer(agreement: pd.DataFrame) -> str:
    """Say which two scores agree most and least; rows of `kind_table`, summarized and sorted."""
    best, worst = agreement.iloc[0], agreement.iloc[-1]
    return (
        f"{best['first']} and {best['second']} agree most (Jaccard {best.jaccard:.2f}), {worst['first']} and "
        f"{worst['second']} least ({worst.jaccard:.2f}); chance {worst.jaccard_chance:.3f}, {worst.n_pairs} models"
    )


def ablate_answer(effects: pd.DataFrame, slopes: pd.DataFrame, kind: str, fraction: float) -> str:
    """Say what removing the single objectives' top neurons does beyond random ones, and the slopes toward chance.

    Args:
        effects: rows of `effect_table` of one fraction and ablation kind.
        slopes: of `chance_slopes`, of the same.
        kind: score kind of the sets.
        fraction: of the sets, for the words.
    """
    rows = effects[(effects.metric == "accuracy") & (effects.set == kind) & effects.objective.isin(OPPOSING)]
    parts = [f"{row.objective} model on the {row.test} test {points(row)}" for _, row in rows.iterrows()]
    slope = slopes.set_index("sets").slope
    return (
        f"effect of removing the top {100 * fraction:.0f} % by {kind}, beyond matched random sets: {'; '.join(parts)}. "
        f"Slope toward chance: {slope['targeted']:+.2f} with targeted sets, {slope['random']:+.2f} with random ones."
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
            f"(p = {test.p_value:.2f}, at best {test.smallest_p:.2f}; {seeds_text(test.n_seeds)})"
        ]
    means = levels[levels.score_kind == kind].groupby("level", sort=False).jaccard.mean()
    return f"{'; '.join(parts)}. Jaccard index: {'; '.join(f'{name} {value:.2f}' for name, value in means.items())}."


def dial_answer(gaps: pd.DataFrame, options: pd.DataFrame, reference: str) -> str:
    """Say whether joint training loses against the two single models, and what beats it.

    Args:
        gaps: one row of `frontier_gaps`.
        options: of `option_table`.
        reference: what its options are compared with.
    """
    row, smallest = gaps.iloc[0], SMALLEST[POINTS] / 100
    if row.ci_high < 0:
        verdict = "yes, joint training interferes: it ends below"
    elif row.ci_low > 0:
        verdict = "no, joint training gains: it ends above"
    elif -smallest < row.ci_low and row.ci_high < smallest:
        verdict = f"no, the data disagree and joint training adds nothing: within {SMALLEST[POINTS]:.0f} points of"
    else:
        verdict = "too few items or seeds to tell whether joint training costs anything beyond"
    what = {"interpolation": "interpolated weights", "ensemble": "the ensemble"}[row.frontier]
    better = options[options.better_on == "both"].option
    listed = ", ".join(better) if len(better) else "none"
    return (
        f"{verdict} {what} of the two single models ({row.objective}: {points(row, 'gap')} at the same balance, "
        f"n = {row.n_items:,}, {seeds_text(row.n_seeds)}); options better than {reference} on both tests, of "
        f"{len(options)}: {listed}"
    )


SMALLEST_SHARE = 0.05  # a difference of shares below five points is none worth a name


def opposition(row: pd.Series) -> str:
    """Say whether a set's neurons pull in opposite directions more often than random ones: yes, no, or too few to tell.

    Yes: the interval of the effect lies above 0, and every seed's effect does. No: it lies below `SMALLEST_SHARE`, and
    not above 0.

    Args:
        row: of `sign_table`.
    """
    if row.ci_low > 0 and row.n_same == row.n_seeds:
        return "yes"
    return "no" if row.ci_low <= 0 and row.ci_high < SMALLEST_SHARE else "too few to tell"


def part_answer(signs: pd.DataFrame, gradients: pd.DataFrame, depths: pd.DataFrame) -> str:
    """Say whether shared neurons oppose each other in the mixed model, how its gradients point, and where curves part.

    Args:
        signs: of `sign_table`.
        gradients: of `gradient_table`; without rows where there are no gradients.
        depths: of `depth_table`.
    """
    row = signs[(signs.objective == mixed_arm(signs.objective)) & (signs.set == SHARED)]
    parts = ["shared neurons: not run: needs a mixed model with neuron scores, and neurons in both top sets"]
    if len(row):
        row = row.iloc[0]
        chance = f"{percent(row.random_share)} [{percent(row.random_share_low)}, {percent(row.random_share_high)}]"
        parts = [
            f"{opposition(row)}: of the {row.n_neurons:,.0f} shared neurons {percent(row.share)} add to the margin of "
            f"the {row.objective} model with opposite signs on the two texts, of random ones, as deep and as active, "
            f"{chance}: {points(row)}, p = {row.p_value:.3f} ({row.n_draws} random sets; {row.n_same} of "
            f"{seeds_text(row.n_seeds)} on that side)"
        ]
    for whole in gradients[gradients.part == WHOLE].head(1).itertuples() if len(gradients) else ():
        bounds = "(one seed)" if whole.n_seeds == 1 else f"[{whole.cosine_ci_low:+.2f}, {whole.cosine_ci_high:+.2f}]"
        parts.append(f"cosine of the two gradients {whole.cosine:+.2f} {bounds}")
    curves = depths.dropna(subset="parting_depth")
    parts += [
        f"the curves of the {r.objective} model part at depth {r.parting_depth:.0f} of {r.last_depth:.0f}"
        for r in curves[curves.objective.isin(SINGLE_OBJECTIVES)].itertuples()
    ]
    return "; ".join(parts)


def explorer_answer(effects: pd.DataFrame | None) -> str:
    """Say whether any set that one can choose stands out among random ones, corrected for choosing among all.

    Args:
        effects: of `removal_effects`, or None where nothing was removed.
    """
    if effects is None:
        return "not run: no neuron set was removed beside random ones"
    n, apart = len(effects), int((effects.q_value <= LEVEL).sum())
    word = f"yes, {apart}" if apart else "too few items or seeds to tell: none"
    return (
        f"{word} of {n} effects that one can choose here stand out among random sets when corrected for choosing "
        f"(q at most {LEVEL:g}); {int((effects.p_value <= LEVEL).sum())} have p at most {LEVEL:g}, and about "
        f"{LEVEL * n:.0f} would by chance (n = {effects.n_items.max():,}, {seeds_text(effects.n_seeds.max())})"
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
