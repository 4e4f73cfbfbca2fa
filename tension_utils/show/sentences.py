"""What a chapter found, in one sentence made from its tables: the answers below the questions."""

from collections.abc import Sequence

import pandas as pd

from tension_utils.analysis.accuracy import OPPOSING, percent, points, seeds_text
from tension_utils.analysis.findings import POINTS, SMALLEST, WAYS
from tension_utils.analysis.parting import SHARED, WHOLE, mixed_arm
from tension_utils.config import MIXED, SINGLE_OBJECTIVES

NO_WEIGHTS = "not run: the weights of these reward models are not stored with their results"


def train_answer(kept: pd.DataFrame) -> str:
    """Say how often the kept checkpoints rank their own validation pairs right; see `kept_checkpoints`."""
    means = kept.groupby("objective", sort=False).validation_accuracy.mean()
    shares = "; ".join(f"{objective} {percent(accuracy)}" for objective, accuracy in means.items())
    return f"own validation pairs ranked right: {shares} (mean over seeds; chance 50 %)"


def evaluate_answer(matrix: pd.DataFrame) -> str:
    """Say what every objective's models rank right on both tests; see `tension_table`."""
    cell = matrix.set_index(["objective", "test"]).accuracy
    parts = [
        f"trained on {objective}: {' and '.join(f'{percent(cell[objective, t])} of {t}' for t in OPPOSING)} pairs"
        for objective in dict.fromkeys(matrix.objective)
    ]
    return f"ranked as people did, {'; '.join(parts)}; chance 50 %"


def tension_answer(by_group: pd.DataFrame) -> str:
    """Say what mixing costs on each objective's own tests; see `mixed_against_single`."""
    own = by_group[by_group.is_own].set_index("group")
    groups = [group for group in SINGLE_OBJECTIVES if group in own.index]
    return "; ".join(f"{g} tests: mixed minus {g} model {points(own.loc[g], 'difference')}" for g in groups)


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


def overlap_answer(references: pd.DataFrame, permutation: pd.DataFrame, kind: str) -> str:
    """Say where the overlap of the first pair of objectives lies between chance and ceiling.

    Args:
        references: of `reference_table`.
        permutation: of `permutation_table`.
        kind: score kind.
    """
    row = references[references.score_kind == kind].iloc[0]
    test = permutation[permutation.score_kind == kind].iloc[0]
    has_ceiling = row.ceiling == row.ceiling
    ceiling = f"two seeds of one objective {row.ceiling:.3f}" if has_ceiling else "one seed, so no ceiling"
    tested = ""
    if not test.not_run:
        tested = f"; p = {test.p_value:.2f} for less overlap than that (at best {test.smallest_p:.2f})"
    return (
        f"{row.pair} by {kind}: Jaccard {row.jaccard:.3f} (seeds {row.lowest:.3f} to {row.highest:.3f}), "
        f"chance {row.jaccard_chance:.3f}, {ceiling}{tested}"
    )


def dial_answer(gaps: pd.DataFrame, options: pd.DataFrame, reference: str) -> str:
    """Say whether joint training loses against the two single models, and what beats it.

    Args:
        gaps: one row of `frontier_gaps`.
        options: of `option_table`.
        reference: what its options are compared with.
    """
    row, smallest = gaps.iloc[0], SMALLEST[POINTS] / 100
    if row.ci_high < 0:
        verdict = "joint training interferes: it ends below"
    elif row.ci_low > 0:
        verdict = "joint training gains: it ends above"
    elif -smallest < row.ci_low and row.ci_high < smallest:
        verdict = f"the data disagree and joint training adds nothing: within {SMALLEST[POINTS]:.0f} points of"
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


def explorer_answer(effects: pd.DataFrame | None, preferred: Sequence[pd.Series]) -> str:
    """Say how many effects stand apart from random sets, and on how many pairs the models disagree.

    Args:
        effects: of `explorer_effects`, or None where nothing was ablated.
        preferred: per example pair, the response that each model prefers.
    """
    parts = ["no ablation was found"]
    if effects is not None:
        own = effects[effects.effect.notna()]
        apart = int(((own.ci_low > 0) | (own.ci_high < 0)).sum())
        parts = [f"in {apart} of {len(own)} settings and tests the effect beyond random sets has an interval without 0"]
        parts += ["one in twenty would by chance"]
    if preferred:
        split = sum(names.nunique() > 1 for names in preferred)
        parts += [f"the {len(preferred[0])} models disagree on {split} of {len(preferred)} example pairs"]
    return "; ".join(parts)
