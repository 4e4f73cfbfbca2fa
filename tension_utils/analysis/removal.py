"""What removing neurons does beyond removing random ones: by set, fraction, seed and neuron."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd

from tension_utils.analysis.transfer import cluster_sums, measure_sets, right_sets
from tension_utils.conditions import CONTROL, EQUAL_SIZE, EVERYTHING, MIXED_SETS, ONLY, SHARED
from tension_utils.config import FAMILIES, MIXED, OBJECTIVES, REMOVAL, SINGLE_OBJECTIVES, check_choice
from tension_utils.statistics import (
    ITEM_COLUMNS,
    METRICS,
    MODEL_COLUMNS,
    SIZES,
    TAILS,
    Bootstrap,
    ablation_changes,
    ablation_effects,
    benjamini_hochberg,
    bounded,
    compared_rows,
    conditions,
    contrast_draws,
    crossed_bootstrap,
    crossed_parts,
    crossed_sums,
    item_effects,
    mean_table,
    pair_differences,
    require_columns,
    sizes,
)

MATCH = ("matched_to", "family", "fraction", "ablation_kind")

SETTING = ("set", *MATCH)

TEST = ("test",)  # the HH-RLHF tests; the alternative is PLACE

PLACE = ("benchmark", "subset")

MAX_ENUMERATED = 200_000  # exchanges counted one by one; more are drawn

CHANCE_AS_PUBLISHED = 0.5


def placed(rows: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str] = TEST) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests with a column ``test`` (each item also in both together), or all rows.

    Args:
        rows: item-level rows.
        evaluation: rows of evaluation.parquet, which know the test of a subset.
        place: ("test",), or columns that the rows have, such as ("benchmark", "subset").
    """
    if "test" not in place:
        return rows
    tests = evaluation[evaluation.benchmark == "hh-rlhf"].groupby("subset").group.first()
    rows = rows[rows.benchmark == "hh-rlhf"]
    return pd.concat([rows.assign(test=rows.subset.map(tests)), rows.assign(test=MIXED)], ignore_index=True)


def exchange_p_value(values: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    """Return the two-sided p-value of a targeted set when, in every reward model, any of its draws could be it.

    Args:
        values: per reward model (1 + D,): mean change with the targeted set, then with each of D random sets.
        rng: source of exchanges where there are more than `MAX_ENUMERATED`.

    Source: ours; a rank among D draws alone is never below 2 / (1 + D), which leaves nothing to discover.

    >>> exchange_p_value([np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 4.0])], np.random.default_rng(0)).__round__(3)
    0.222
    """
    observed = sum(value[0] for value in values)
    n_exchanges = np.prod([float(len(value)) for value in values])
    if n_exchanges <= MAX_ENUMERATED:
        sums, extra = reduce(np.add.outer, values).ravel(), 0
    else:  # the observed one counts as one more
        sums, extra = sum(rng.choice(value, MAX_ENUMERATED // 10) for value in values), 1
    slack = 1e-9 * max(1.0, abs(observed))
    fewer = min((sums <= observed + slack).sum(), (sums >= observed - slack).sum())
    return float(min(1.0, 2 * (extra + fewer) / (extra + len(sums))))


def smallest_p_value(n_draws: int, n_models: int) -> float:
    """Return the least that `exchange_p_value` can be: that of sets beyond all D random ones in every reward model.

    >>> round(smallest_p_value(12, 1), 3), round(smallest_p_value(12, 3), 4)
    (0.154, 0.0009)
    """
    return 2 / (1 + n_draws) ** n_models


def effect_table(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    place: Sequence[str] = TEST,
    bootstrap: Bootstrap | None = None,
    control: str = "",
    scale: float = REMOVAL,
) -> pd.DataFrame:
    """Return the effect of removing neuron sets: ablation minus matched random sets.

    Args:
        ablation: rows of ablation.parquet; rows of the set "all" are left out, see `total_ablation`.
        evaluation: rows of evaluation.parquet of the same reward models.
        place: where it is measured: ("test",) for the HH-RLHF tests, or ("benchmark", "subset") for all.
        control: which random sets; see `statistics.compared_rows`.
        scale: what the activations were multiplied by; 0 is a removal.

    Returns:
        objective, ``place``, set, family, fraction, ablation_kind, n_neurons (mean over reward models), random_sets
        (what they have in common with the set, of `config.CONTROLS`) and the columns of `statistics.ablation_effects`,
        for accuracy and margin; p_value is that of `exchange_p_value`, q_value the same after Benjamini-Hochberg over
        the table.
    """
    rows, bootstrap = compared_rows(ablation, control, scale), bootstrap or Bootstrap()
    rows = placed(rows[rows.set != EVERYTHING], evaluation, place)
    by = ["objective", *place, *SETTING]
    table = ablation_effects(rows, evaluation, by, CONTROL, MATCH, bootstrap)
    targeted = rows[rows.set != CONTROL]
    table = table.merge(targeted.groupby(by, as_index=False).n_neurons.mean(), on=by)
    of_random = rows[rows.set == CONTROL].groupby(["objective", *place, *MATCH], as_index=False)
    table = table.merge(of_random.agg(random_sets=("control", "first")), on=["objective", *place, *MATCH])
    names = [f"{metric}_change" for metric in METRICS]
    changes = ablation_changes(rows, evaluation).assign(is_control=rows.set.to_numpy() == CONTROL)
    shared = ["objective", *place, *MATCH]
    means = changes.groupby([*shared, *MODEL_COLUMNS, "is_control", "draw"])[names].mean()  # targeted sets come first
    models: dict[tuple, list[np.ndarray]] = {}
    for key, part in means.groupby(level=[*shared, *MODEL_COLUMNS]):
        models.setdefault(key[: len(shared)], []).append(part.to_numpy())  # (1 + D, 2)
    found = {
        (*key, metric): exchange_p_value([values[:, index] for values in own], bootstrap.rng)
        for key, own in models.items()
        for index, metric in enumerate(METRICS)
    }
    table["p_value"] = [found[key] for key in table[[*shared, "metric"]].itertuples(index=False, name=None)]
    table.insert(table.columns.get_loc("p_value") + 1, "q_value", benjamini_hochberg(table.p_value))
    return table.drop(columns="matched_to")


def effects_at(effects: pd.DataFrame, fraction: float, ablation_kind: str) -> pd.DataFrame:
    """Return the rows of `effect_table` of one fraction and kind on the helpful and on the harmless test."""
    is_it = np.isclose(effects.fraction, fraction) & (effects.ablation_kind == ablation_kind)
    return effects[is_it & effects.test.isin(SINGLE_OBJECTIVES)]


def condition_counts(ablation: pd.DataFrame) -> pd.DataFrame:
    """Return what was ablated, random sets with the set that they match.

    Returns:
        matched_to, family, ablation_kind, n_fractions, n_draws, n_rows.
    """
    by = ablation.groupby(["matched_to", "family", "ablation_kind"])
    counts = {"n_fractions": ("fraction", "nunique"), "n_draws": ("draw", "nunique"), "n_rows": ("draw", "size")}
    return by.agg(**counts).reset_index()


def kinds_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the conditions of `effect_table` that were ablated in more than one way, the ways side by side."""
    same = [c for c in ("objective", *TEST, *PLACE, "set", "family", "fraction", "metric") if c in effects]
    is_compared = effects.groupby(same).ablation_kind.transform("nunique") > 1
    return effects[is_compared].sort_values([*same, "ablation_kind"], ignore_index=True)


def published_scores(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    r"""Return the study's scores, each set by itself; random sets are rows of their own and enter no other.

    .. math:: \text{drop} = 1 - a / a_0, \quad \text{normalized} = (a - 50 \%) / (a_0 - 50 \%)

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.

    Returns:
        objective, test, set, matched_to, family, fraction, ablation_kind, intact_accuracy, and accuracy, drop and
        normalized, each with _ci_low and _ci_high; is_undefined (an intact accuracy of 50 %: normalized is NaN),
        is_near_chance (its interval holds 50 %: normalized has no interval), n_draws, n_items, n_clusters, n_seeds.

    Source: METHOD section 1, "Ablation"; also where chance is not 50 %, as published. Intervals are ours.
    """
    changes = ablation_changes(compared_rows(ablation), evaluation)
    rows, bootstrap = placed(changes, evaluation, TEST), bootstrap or Bootstrap()
    rows = rows.assign(intact_credit=rows.credit - rows.accuracy_change)
    by, records = ["objective", *TEST, *SETTING], []
    for key, part in conditions(rows, by):
        sums, counts = crossed_sums(part, ["credit", "intact_credit"])
        means = sums.sum((0, 1)) / counts.sum((0, 1))
        draws = np.concatenate([means[None], crossed_bootstrap(sums, counts, bootstrap)])  # (1 + R, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            drop = 1 - draws[:, 0] / draws[:, 1]
            normalized = (draws[:, 0] - CHANCE_AS_PUBLISHED) / (draws[:, 1] - CHANCE_AS_PUBLISHED)
        low, high = np.quantile(draws[1:, 1], TAILS)
        is_undefined = bool(np.isclose(means[1], CHANCE_AS_PUBLISHED))
        is_near = is_undefined or bool(low <= CHANCE_AS_PUBLISHED <= high)
        normalized[: 1 if is_undefined else 0] = np.nan
        normalized[1:] = np.nan if is_near else normalized[1:]
        drop = drop if means[1] > 0 else np.full_like(drop, np.nan)
        record = dict(zip(by, key, strict=True)) | {"intact_accuracy": means[1]}
        accuracies = draws[:, 0].clip(0, 1)  # with few seeds a draw may leave what is possible
        for name, values in (("accuracy", accuracies), ("drop", drop), ("normalized", normalized)):
            finite = values[1:][np.isfinite(values[1:])]  # a draw without any right item has no ratio
            record |= bounded(name, values[0], finite)
        record |= {"is_undefined": is_undefined, "is_near_chance": is_near, "n_draws": part.draw.nunique()}
        records.append(record | sizes(part))
    return pd.DataFrame(records)


def total_ablation(ablation: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str] = TEST) -> pd.DataFrame:
    """Return what is left of accuracy without any MLP neuron, against chance; no random set can be its control.

    Returns:
        objective, ``place``, ablation_kind, chance_accuracy, intact_accuracy, and accuracy and above_chance (their
        difference), each with _ci_low and _ci_high; n_neurons, n_draws (1), n_items, n_clusters, n_seeds. Shares.

    Raises:
        ValueError: there are no rows with the set "all".
    """
    removed = compared_rows(ablation)
    whole = removed[removed.set == EVERYTHING]
    if whole.empty:
        raise ValueError(f"expected rows with set = {EVERYTHING!r}; got none; add 1.0 to the ablated fractions")
    rows = placed(ablation_changes(whole, evaluation), evaluation, place)
    rows = rows.assign(accuracy=rows.credit, above_chance=rows.credit - rows.chance, chance_accuracy=rows.chance)
    rows = rows.assign(intact_accuracy=rows.credit - rows.accuracy_change)
    by, values = ["objective", *place, "ablation_kind"], ["accuracy", "above_chance"]
    table = mean_table(rows, values, by)
    others = rows.groupby(by, as_index=False)[["chance_accuracy", "intact_accuracy", "n_neurons"]].mean()
    table = others.merge(table, on=by).assign(n_draws=1)
    for bound in ("ci_low", "ci_high"):  # few seeds may leave the possible
        table[f"accuracy_{bound}"] = table[f"accuracy_{bound}"].clip(0, 1)
        table[f"above_chance_{bound}"] = (table[f"above_chance_{bound}"] + table.chance_accuracy).clip(0, 1)
        table[f"above_chance_{bound}"] -= table.chance_accuracy
    return table[[c for c in table if c not in ("n_neurons", "n_draws", *SIZES)] + ["n_neurons", "n_draws", *SIZES]]


N_NEURONS = 100  # effects are given per this many neurons

EFFECTS = [f"{metric}_effect" for metric in METRICS]  # item-level columns

PER_NEURON = [f"{metric}_per_neurons" for metric in METRICS]


def _family_effects(ablation: pd.DataFrame, evaluation: pd.DataFrame, control: str) -> pd.DataFrame:
    """Return the item effects on the tests of the shared and only sets, whole and per `N_NEURONS`."""
    own = compared_rows(ablation[ablation.matched_to.isin(MIXED_SETS) & (ablation.n_neurons > 0)], control)
    require_columns(own, list(SETTING))
    rows, _ = item_effects(ablation_changes(own, evaluation), MATCH)
    rows = placed(rows, evaluation, TEST)
    for effect, name in zip(EFFECTS, PER_NEURON, strict=True):
        rows[name] = rows[effect] / rows.n_neurons * N_NEURONS
    return rows


def _by_metric(rows: pd.DataFrame, by: list[str], bootstrap: Bootstrap) -> pd.DataFrame:
    """Average effects, whole and per `N_NEURONS`, with intervals; one row per condition and metric."""
    wide = mean_table(rows, [*EFFECTS, *PER_NEURON], by, bootstrap)
    counts = rows.groupby(by, as_index=False).agg(n_neurons=("n_neurons", "mean"), n_draws=("n_draws", "min"))
    tables = []
    for metric, effect, each in zip(METRICS, EFFECTS, PER_NEURON, strict=True):
        names = {effect: "effect", f"{effect}_ci_low": "ci_low", f"{effect}_ci_high": "ci_high"}
        names |= {each: "per_neurons", f"{each}_ci_low": "per_neurons_ci_low", f"{each}_ci_high": "per_neurons_ci_high"}
        tables.append(wide[[*by, *names, *SIZES]].rename(columns=names).assign(metric=metric))
    table = pd.concat(tables, ignore_index=True).merge(counts, on=by)
    values = [c for c in table if c not in (*by, "metric", "n_neurons", "n_draws", *SIZES)]
    return table[[*by, "metric", "n_neurons", *values, "n_draws", *SIZES]]


def per_neuron(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    bootstrap: Bootstrap | None = None,
    control: str = "",
) -> pd.DataFrame:
    """Return the effects of the shared and only sets, whole and per 100 neurons, of every family.

    Effects are divided by the set's size in each reward model before they are averaged.

    Args:
        ablation: rows of ablation.parquet with the sets of `conditions.mixed_sets`.
        evaluation: rows of evaluation.parquet of the same reward models.
        control: which random sets; see `statistics.compared_rows`.

    Returns:
        objective, test, set, family (of `config.FAMILIES`), fraction, ablation_kind, metric, n_neurons (mean),
        effect, ci_low, ci_high, per_neurons, per_neurons_ci_low, per_neurons_ci_high, n_draws, n_items, n_clusters,
        n_seeds.

    Raises:
        ValueError: there is no such set.

    Source: METHOD section 2, fact 8.
    """
    by = ["objective", *TEST, "set", "family", "fraction", "ablation_kind"]
    table = _by_metric(_family_effects(ablation, evaluation, control), by, bootstrap)
    return table.sort_values(by, key=_in_order, ignore_index=True, kind="stable")


def per_neuron_differences(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    bootstrap: Bootstrap | None = None,
    control: str = "",
    family: str = EQUAL_SIZE,
) -> pd.DataFrame:
    """Return the effect of the shared set minus that of each only set, all of one size, paired over items and seeds.

    Args:
        ablation: see `per_neuron`.
        evaluation: likewise.
        control: likewise.
        family: of sets of one size: "equal-size", or "equal-activity".

    Returns:
        The columns of `per_neuron` without family; set is "shared - only-helpful" or "shared - only-harmless". No rows
        where an empty set left no sets of equal size.
    """
    check_choice("family", family, FAMILIES[1:])
    effects = _family_effects(ablation, evaluation, control)
    by = ["objective", *TEST, "fraction", "ablation_kind"]
    parts = []
    for key, rows in conditions(effects[effects.family == family], by):
        for only in ONLY.values():
            if {SHARED, only} <= set(rows.set):
                part = pair_differences(rows, "set", (SHARED, only), [*EFFECTS, *PER_NEURON])
                named = dict(zip(by, key, strict=True)) | {"set": f"{SHARED} - {only}"}
                parts.append(part.assign(**named))
    by = ["objective", *TEST, "set", "fraction", "ablation_kind"]
    if not parts:
        return pd.DataFrame(columns=[*by, "metric", "effect", "ci_low", "ci_high"])
    return _by_metric(pd.concat(parts, ignore_index=True), by, bootstrap)


def _in_order(column: pd.Series) -> pd.Series:
    """Sort sets as in `MIXED_SETS`, and families as in `config.FAMILIES`."""
    orders = {"set": MIXED_SETS, "family": FAMILIES}
    return column.map(orders[column.name].index) if column.name in orders else column


def transferability_after_ablation(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    r"""Return how many successes of the intact single models the mixed one keeps when it lacks a neuron set.

    .. math:: T = |HH \cap (He \cup Ha)| / |He \cup Ha|

    One row per condition: the published cell printed running means over kinds. Every seed's mixed model is compared
    with the single ones of its own base model and seed.

    Args:
        ablation: rows of ablation.parquet; those of the mixed reward model are used.
        evaluation: rows of evaluation.parquet of all three objectives, at least on the ablated items.

    Returns:
        group, set, family, fraction, ablation_kind, n_neurons, intact_transferability, transferability,
        control_transferability (mean over random draws) with _low and _high (2.5 % and 97.5 % of the draws), change
        (from the intact one), change_ci_low, change_ci_high, effect (beyond the control), ci_low, ci_high, n_draws,
        n_items, n_clusters, n_seeds. Controls are NaN for the set "all". Means over seeds; a condition's items are
        those that it was measured on.

    Raises:
        ValueError: an objective or one of its items is missing.

    Source: METHOD section 1 and section 2, fact 9; controls and intervals are ours.
    """
    mixed = compared_rows(ablation[ablation.objective == MIXED])
    n_neurons_of = mixed[mixed.set != CONTROL].groupby(list(SETTING)).n_neurons.mean()
    columns = [*SETTING, "draw", *MODEL_COLUMNS]
    items = [*ITEM_COLUMNS, "cluster"]
    ablated = mixed.assign(right=mixed.margin > 0).pivot(index=items, columns=columns, values="right")
    matched = [key[1 : len(SETTING)] for key in ablated.columns]  # what a set and its random draws have in common
    bootstrap, records = bootstrap or Bootstrap(), []
    for name, rows in evaluation.groupby("group"):
        for setting, n_neurons in n_neurons_of.items():
            own = ablated.loc[:, [match == setting[1:] for match in matched]].dropna().astype(bool).sort_index(axis=1)
            is_there = pd.MultiIndex.from_frame(rows[items]).isin(own.index)
            if not is_there.any():
                continue  # a condition may be measured on some groups alone
            right = right_sets(rows[is_there])
            intact, cells = _cells(right, own.loc[right.index])
            controls = [own for key, own in cells.items() if key[:-1] == (CONTROL, *setting[1:])]
            record = {"group": name} | dict(zip(SETTING, setting, strict=True)) | {"n_neurons": n_neurons}
            record |= _transferability_row(intact, cells[*setting, 0], controls, bootstrap)
            records.append(record | dict(zip(SIZES, (len(right), *intact.shape), strict=True)))
    return pd.DataFrame(records).drop(columns="matched_to")


def _cells(right: pd.DataFrame, ablated: pd.DataFrame) -> tuple[np.ndarray, dict[tuple, np.ndarray]]:
    """Return what each cluster and seed adds to T, (C, S): for the intact mixed model, and for each ablated one.

    Args:
        right: of `right_sets`.
        ablated: whether the ablated mixed models are right; the same rows, columns setting, draw, base model and seed.
    """
    strata, clusters = (
        right.groupby(["benchmark", column], sort=False).ngroup().to_numpy() for column in ("subset", "cluster")
    )
    intact = {name: right.xs(name, axis=1, level="objective") for name in OBJECTIVES}
    single = [intact[name].to_numpy().T for name in SINGLE_OBJECTIVES]

    def cells(mixed: pd.DataFrame) -> np.ndarray:
        models = mixed[intact[MIXED].columns].to_numpy(bool).T  # (S, I)
        estimates, pulls = measure_sets(*single, models, strata)
        sums = cluster_sums(pulls[..., :1], clusters, strata)[..., 0]  # (S, C), of the first measure: T
        return (estimates[:, :1] / sums.shape[1] + sums).T

    keys = ablated.columns.droplevel(list(MODEL_COLUMNS)).unique()
    return cells(intact[MIXED]), {key: cells(ablated[key]) for key in keys}


def _transferability_row(
    intact: np.ndarray, own: np.ndarray, controls: list[np.ndarray], bootstrap: Bootstrap
) -> dict[str, float]:
    """Return T of one condition beside that of the intact model and of its random draws, from their cells (C, S)."""
    control = np.mean(controls, axis=0) if controls else own
    cells = np.stack([own - intact, own - control], axis=-1)  # (C, S, 2)
    draws = crossed_bootstrap(cells, np.full_like(cells, 1 / len(cells)), bootstrap)
    of_draws = np.array([cells.sum(0).mean() for cells in controls] or [np.nan])
    row = {"intact_transferability": intact.sum(0).mean(), "transferability": own.sum(0).mean()}
    row["control_transferability"] = of_draws.mean()
    ends = ("control_transferability_low", "control_transferability_high")
    row |= dict(zip(ends, np.quantile(of_draws, TAILS), strict=True))
    for index, (value, bounds) in enumerate({"change": "change_", "effect": ""}.items()):
        row |= bounded(value, cells[..., index].sum(0).mean(), draws[:, index], bounds)
    if not controls:
        row |= dict.fromkeys(("effect", "ci_low", "ci_high"), np.nan)
    return row | {"n_draws": len(controls)}


TARGETED, CONTROLS, DIFFERENCE = "targeted", "random", "targeted - random"

DIGITS = 9  # smaller numbers are rounding, not accuracy


def _is_toward(distance: pd.Series, change: pd.Series) -> pd.Series:
    """Return whether an accuracy moves toward chance, possibly past it."""
    return distance.round(DIGITS) * change.round(DIGITS) < 0


def _moves(ablation: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """Return the item-level rows with distance (intact credit - chance), change and is_targeted."""
    rows = compared_rows(ablation[ablation.set != EVERYTHING])
    rows = placed(ablation_changes(rows, evaluation), evaluation, place)
    distance = rows.credit - rows.accuracy_change - rows.chance
    return rows.assign(distance=distance, change=rows.accuracy_change, is_targeted=rows.set != CONTROL)


def regression_to_chance(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str] = PLACE
) -> pd.DataFrame:
    """Return, for every condition and draw, the intact accuracy's distance from chance and the change in accuracy.

    An ablation that only blurs moves accuracy toward chance: change = -distance where nothing is left of the
    preference. A change is evidence on the removed neurons only beyond what random ones show.

    Args:
        ablation: rows of ablation.parquet; those of the set "all" are left out.
        evaluation: rows of evaluation.parquet of the same reward models.
        place: columns within which accuracies are taken; ("test",) for the HH-RLHF tests.

    Returns:
        objective, ``place``, set, matched_to, family, fraction, ablation_kind, draw, is_targeted, distance and change
        (shares, means over reward models and items), is_toward_chance, n_items, n_seeds.

    Source: METHOD section 2, fact 5.
    """
    rows = _moves(ablation, evaluation, place)
    by = ["objective", *place, *SETTING, "draw", "is_targeted"]
    table = rows.groupby(by).agg(
        distance=("distance", "mean"),
        change=("change", "mean"),
        n_items=("item_id", "nunique"),
        n_seeds=("seed", "nunique"),
    )
    return table.reset_index().assign(is_toward_chance=_is_toward(table.distance, table.change).to_numpy())


def chance_slopes(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    r"""Fit change = slope x distance through the origin, for targeted sets, for random draws, and their difference.

    .. math:: b = \sum_k x_k y_k / \sum_k x_k^2, \quad
        db = \sum_k \left[ x_k \, dy_k + (y_k - 2 b x_k) \, dx_k \right] / \sum_k x_k^2

    0 is no change, -1 full regression to chance. Conditions k (reward model's objective, place, set, draw) weigh the
    same. They are fixed: the interval draws items, by cluster, crossed with seeds, and moves b by its linear part.
    A fit without targeted sets or without random draws is left out.

    Args:
        ablation: rows of ablation.parquet; those of the set "all" are left out.
        evaluation: rows of evaluation.parquet of the same reward models.

    Returns:
        fraction, ablation_kind, sets ("targeted", "random" or "targeted - random"), slope, ci_low, ci_high,
        toward_chance (share of the conditions off chance whose accuracy moves toward it, in [0, 1]; a difference in the
        third row), n_conditions, n_draws, n_items, n_clusters, n_seeds. NaN slopes where every intact accuracy is at
        chance.

    Raises:
        ValueError: there is no fit with both.
    """
    rows, bootstrap, by = _moves(ablation, evaluation, PLACE), bootstrap or Bootstrap(), ["fraction", "ablation_kind"]
    tables = []
    for key, part in conditions(rows, by):
        if part.is_targeted.nunique() < 2:
            continue
        parts = {TARGETED: part[part.is_targeted], CONTROLS: part[~part.is_targeted]}
        fits = {name: _fit(own) for name, own in parts.items()}
        pulls = pd.concat([_pulls(parts[name], fits[name]).assign(sets=name) for name in parts])
        sums, counts, cells = crossed_parts(pulls, "pull", ["sets", "objective", *PLACE])
        is_targeted = np.array([cell[0] == TARGETED for cell in cells])
        weights = np.stack([is_targeted, ~is_targeted], axis=1).astype(float)  # (M, 2)
        _, draws = contrast_draws(sums, counts, np.column_stack([weights, weights @ [1, -1]]), bootstrap)
        table = _summary(list(fits.values()), draws).assign(**dict(zip(by, key, strict=True)))
        tables.append(table.assign(**sizes(part)))
    if not tables:
        raise ValueError(f"expected targeted sets and random draws of one {', '.join(by)}; run the ablation with draws")
    table = pd.concat(tables, ignore_index=True)
    return table[[*by, *(column for column in table if column not in by)]]


def _fit(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each condition's x and y, the slope b, and the slope's derivative by x and by y."""
    keys = ["objective", *PLACE, *SETTING, "draw"]
    fit = rows.groupby(keys)[["distance", "change"]].mean().rename(columns={"distance": "x", "change": "y"})
    square = (fit.x**2).sum() or np.nan  # every intact accuracy at chance: no slope
    slope = (fit.x * fit.y).sum() / square
    return fit.assign(slope=slope, by_x=(fit.y - 2 * slope * fit.x) / square, by_y=fit.x / square)


def _pulls(rows: pd.DataFrame, fit: pd.DataFrame) -> pd.DataFrame:
    """Return per item and reward model what it adds to the slope's linear part, summed over sets and draws."""
    keys = ["objective", *PLACE, *SETTING, "draw"]
    rows = rows.join(fit[["by_x", "by_y"]], on=keys)
    pull = rows.by_x * rows.distance + rows.by_y * rows.change
    items = list(dict.fromkeys(["objective", *MODEL_COLUMNS, *ITEM_COLUMNS, "cluster"]))
    return rows.assign(pull=pull.fillna(0)).groupby(items, as_index=False).pull.sum()


def _summary(fits: list[pd.DataFrame], draws: np.ndarray) -> pd.DataFrame:
    """Return the three rows of one fit; ``draws`` (R, 3) are deviations of the slopes."""
    slopes = np.array([fit.slope.iloc[0] for fit in fits])
    shares = np.array([_is_toward(fit.x, fit.y).sum() / max((fit.x.round(DIGITS) != 0).sum(), 1) for fit in fits])
    slopes, shares = np.append(slopes, slopes[0] - slopes[1]), np.append(shares, shares[0] - shares[1])
    low, high = slopes + np.quantile(draws, TAILS, axis=0)
    n_draws = [fit.index.get_level_values("draw").nunique() for fit in fits]
    table = {"sets": [TARGETED, CONTROLS, DIFFERENCE], "slope": slopes, "ci_low": low, "ci_high": high}
    counts = [len(fit) for fit in fits]
    return pd.DataFrame(
        table | {"toward_chance": shares, "n_conditions": [*counts, sum(counts)], "n_draws": [*n_draws, max(n_draws)]}
    )
