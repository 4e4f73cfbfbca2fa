"""Shared and only sets in the mixed reward model: their effect per neuron, and what they do to transferability."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.ablation_tables import MATCH, SETTING, SIZES, TEST, placed
from tension_utils.bootstrap import N_RESAMPLES, crossed_bootstrap
from tension_utils.checks import check_choice
from tension_utils.comparisons import pair_differences
from tension_utils.conditions import CONTROL, EQUAL_SIZE, MIXED_SETS, ONLY, SHARED
from tension_utils.config import CONTROLS, FAMILIES, MIXED, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.effects import METRICS, ablation_changes, compared_rows, item_effects
from tension_utils.statistics import ITEM_COLUMNS, MODEL_COLUMNS, analysis_rng, conditions, mean_table, require_columns
from tension_utils.transferability import cluster_sums, measure_sets, right_sets

N_NEURONS = 100  # effects are given per this many neurons
EFFECTS = [f"{metric}_effect" for metric in METRICS]  # item-level columns
PER_NEURON = [f"{metric}_per_neurons" for metric in METRICS]


def _family_effects(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str], control: str
) -> pd.DataFrame:
    """Return the item effects of the shared and only sets, whole and per `N_NEURONS`."""
    own = compared_rows(ablation[ablation.matched_to.isin(MIXED_SETS) & (ablation.n_neurons > 0)], control)
    require_columns(own, list(SETTING))
    rows, _ = item_effects(ablation_changes(own, evaluation), MATCH)
    rows = placed(rows, evaluation, place)
    for effect, name in zip(EFFECTS, PER_NEURON, strict=True):
        rows[name] = rows[effect] / rows.n_neurons * N_NEURONS
    return rows


def _by_metric(rows: pd.DataFrame, by: list[str], n_resamples: int) -> pd.DataFrame:
    """Average effects, whole and per `N_NEURONS`, with intervals; one row per condition and metric."""
    wide = mean_table(rows, [*EFFECTS, *PER_NEURON], by, analysis_rng(), n_resamples)
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
    place: Sequence[str] = TEST,
    n_resamples: int = N_RESAMPLES,
    control: str = CONTROLS[0],
) -> pd.DataFrame:
    """Return the effects of the shared and only sets, whole and per 100 neurons, of every family.

    Effects are divided by the set's size in each reward model before they are averaged.

    Args:
        ablation: rows of ablation.parquet with the sets of `conditions.mixed_sets`.
        evaluation: rows of evaluation.parquet of the same reward models.
        place: see `ablation_tables.effect_table`.
        n_resamples: bootstrap draws.
        control: which random sets, of `config.CONTROLS`.

    Returns:
        objective, ``place``, set, family (of `config.FAMILIES`), fraction, ablation_kind, metric, n_neurons (mean),
        effect, ci_low, ci_high, per_neurons, per_neurons_ci_low, per_neurons_ci_high, n_draws, n_items, n_clusters,
        n_seeds.

    Raises:
        ValueError: there is no such set.

    Source: METHOD section 2, fact 8.
    """
    by = ["objective", *place, "set", "family", "fraction", "ablation_kind"]
    table = _by_metric(_family_effects(ablation, evaluation, place, control), by, n_resamples)
    return table.sort_values(by, key=_in_order, ignore_index=True, kind="stable")


def per_neuron_differences(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    place: Sequence[str] = TEST,
    n_resamples: int = N_RESAMPLES,
    control: str = CONTROLS[0],
    family: str = EQUAL_SIZE,
) -> pd.DataFrame:
    """Return the effect of the shared set minus that of each only set, all of one size, paired over items and seeds.

    Args:
        ablation: see `per_neuron`.
        evaluation: likewise.
        place: likewise.
        n_resamples: likewise.
        control: likewise.
        family: of sets of one size: "equal-size", or "equal-activity".

    Returns:
        The columns of `per_neuron` without family; set is "shared - only-helpful" or "shared - only-harmless". No rows
        where an empty set left no sets of equal size.
    """
    check_choice("family", family, FAMILIES[1:])
    effects = _family_effects(ablation, evaluation, place, control)
    by = ["objective", *place, "fraction", "ablation_kind"]
    parts = []
    for key, rows in conditions(effects[effects.family == family], by):
        for only in ONLY.values():
            if {SHARED, only} <= set(rows.set):
                part = pair_differences(rows, "set", (SHARED, only), [*EFFECTS, *PER_NEURON])
                named = dict(zip(by, key, strict=True)) | {"set": f"{SHARED} - {only}"}
                parts.append(part.assign(**named))
    by = ["objective", *place, "set", "fraction", "ablation_kind"]
    if not parts:
        return pd.DataFrame(columns=[*by, "metric", "effect", "ci_low", "ci_high"])
    return _by_metric(pd.concat(parts, ignore_index=True), by, n_resamples)


def _in_order(column: pd.Series) -> pd.Series:
    """Sort sets as in `MIXED_SETS`, and families as in `config.FAMILIES`."""
    orders = {"set": MIXED_SETS, "family": FAMILIES}
    return column.map(orders[column.name].index) if column.name in orders else column


def transferability_after_ablation(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, group: str = "group", n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    r"""Return how many successes of the intact single models the mixed one keeps when it lacks a neuron set.

    .. math:: T = |HH \cap (He \cup Ha)| / |He \cup Ha|

    One row per condition: the published cell printed running means over kinds. Every seed's mixed model is compared
    with the single ones of its own base model and seed.

    Args:
        ablation: rows of ablation.parquet; those of the mixed reward model are used.
        evaluation: rows of evaluation.parquet of all three objectives, at least on the ablated items.
        group: column that splits the items; each value is a condition.
        n_resamples: bootstrap draws.

    Returns:
        ``group``, set, family, fraction, ablation_kind, n_neurons, intact (T of the intact model), transferability,
        control (mean over random draws), control_low, control_high (2.5 % and 97.5 % of the draws), change
        (transferability - intact), change_ci_low, change_ci_high, effect (transferability - control), ci_low, ci_high,
        n_draws, n_items, n_clusters, n_seeds. Controls are NaN for the set "all". Means over seeds; a condition's items
        are those that it was measured on.

    Raises:
        ValueError: an objective or one of its items is missing.

    Source: METHOD section 1 and section 2, fact 9; controls and intervals are ours.
    """
    mixed = compared_rows(ablation[ablation.objective == MIXED])
    sizes = mixed[mixed.set != CONTROL].groupby(list(SETTING)).n_neurons.mean()
    columns = [*SETTING, "draw", *MODEL_COLUMNS]
    items = [*ITEM_COLUMNS, "cluster"]
    ablated = mixed.assign(right=mixed.margin > 0).pivot(index=items, columns=columns, values="right")
    matched = [key[1 : len(SETTING)] for key in ablated.columns]  # what a set and its random draws have in common
    rng, records = analysis_rng(), []
    for name, rows in evaluation.groupby(group):
        for setting, n_neurons in sizes.items():
            own = ablated.loc[:, [match == setting[1:] for match in matched]].dropna().astype(bool).sort_index(axis=1)
            is_there = pd.MultiIndex.from_frame(rows[items]).isin(own.index)
            if not is_there.any():
                continue  # a condition may be measured on some groups alone
            right = right_sets(rows[is_there])
            intact, cells = _cells(right, own.loc[right.index])
            controls = [own for key, own in cells.items() if key[:-1] == (CONTROL, *setting[1:])]
            record = {group: name} | dict(zip(SETTING, setting, strict=True)) | {"n_neurons": n_neurons}
            record |= _transferability_row(intact, cells[*setting, 0], controls, rng, n_resamples)
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
    intact: np.ndarray, own: np.ndarray, controls: list[np.ndarray], rng: np.random.Generator, n_resamples: int
) -> dict[str, float]:
    """Return T of one condition beside that of the intact model and of its random draws, from their cells (C, S)."""
    control = np.mean(controls, axis=0) if controls else own
    cells = np.stack([own - intact, own - control], axis=-1)  # (C, S, 2)
    draws = crossed_bootstrap(cells, np.full_like(cells, 1 / len(cells)), rng, n_resamples)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    of_draws = np.array([cells.sum(0).mean() for cells in controls] or [np.nan])
    row = {"intact": intact.sum(0).mean(), "transferability": own.sum(0).mean(), "control": of_draws.mean()}
    row |= dict(zip(("control_low", "control_high"), np.quantile(of_draws, [0.025, 0.975]), strict=True))
    for index, (value, bounds) in enumerate({"change": "change_ci", "effect": "ci"}.items()):
        found = (cells[..., index].sum(0).mean(), low[index], high[index])
        row |= dict(zip((value, f"{bounds}_low", f"{bounds}_high"), found, strict=True))
    if not controls:
        row |= dict.fromkeys(("effect", "ci_low", "ci_high"), np.nan)
    return row | {"n_draws": len(controls)}
