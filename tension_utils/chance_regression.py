"""Regression to chance: how far an ablation moves accuracy for how far the intact model is from chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.ablation_tables import PLACE, SETTING, placed
from tension_utils.bootstrap import N_RESAMPLES, contrast_draws
from tension_utils.conditions import CONTROL, EVERYTHING
from tension_utils.effects import ablation_changes, compared_rows
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    analysis_rng,
    conditions,
    count_distinct,
    crossed_parts,
)

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
    by: Sequence[str] = ("fraction", "ablation_kind"),
    place: Sequence[str] = PLACE,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    r"""Fit change = slope x distance through the origin, for targeted sets, for random draws, and their difference.

    .. math:: b = \sum_k x_k y_k / \sum_k x_k^2, \quad
        db = \sum_k \left[ x_k \, dy_k + (y_k - 2 b x_k) \, dx_k \right] / \sum_k x_k^2

    0 is no change, -1 full regression to chance. Conditions k (reward model's objective, place, set, draw) weigh the
    same. They are fixed: the interval draws items, by cluster, crossed with seeds, and moves b by its linear part.

    Args:
        ablation: rows of ablation.parquet; those of the set "all" are left out.
        evaluation: rows of evaluation.parquet of the same reward models.
        by: columns that name a fit.
        place: see `regression_to_chance`.
        n_resamples: bootstrap draws.

    Returns:
        ``by``, sets ("targeted", "random" or "targeted - random"), slope, ci_low, ci_high, toward_chance (share of
        the conditions off chance whose accuracy moves toward it, in [0, 1]; a difference in the third row),
        n_conditions, n_draws, n_items, n_clusters, n_seeds. NaN slopes where every intact accuracy is at chance.
    """
    rows, rng = _moves(ablation, evaluation, place), analysis_rng()
    tables = []
    for key, part in conditions(rows, by):
        parts = {TARGETED: part[part.is_targeted], CONTROLS: part[~part.is_targeted]}
        fits = {name: _fit(own, place) for name, own in parts.items()}
        pulls = pd.concat([_pulls(parts[name], fits[name], place).assign(sets=name) for name in parts])
        sums, counts, cells = crossed_parts(pulls, "pull", ["sets", "objective", *place])
        is_targeted = np.array([cell[0] == TARGETED for cell in cells])
        weights = np.stack([is_targeted, ~is_targeted], axis=1).astype(float)  # (M, 2)
        _, draws = contrast_draws(sums, counts, np.column_stack([weights, weights @ [1, -1]]), rng, n_resamples)
        table = _summary(list(fits.values()), draws).assign(**dict(zip(by, key, strict=True)))
        counted = {"n_items": count_distinct(part, ITEM_COLUMNS), "n_clusters": counts.shape[0]}
        tables.append(table.assign(**counted, n_seeds=count_distinct(part, MODEL_COLUMNS)))
    table = pd.concat(tables, ignore_index=True)
    return table[[*by, *(column for column in table if column not in by)]]


def _fit(rows: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """Return each condition's x and y, the slope b, and the slope's derivative by x and by y."""
    keys = ["objective", *place, *SETTING, "draw"]
    fit = rows.groupby(keys)[["distance", "change"]].mean().rename(columns={"distance": "x", "change": "y"})
    square = (fit.x**2).sum() or np.nan  # every intact accuracy at chance: no slope
    slope = (fit.x * fit.y).sum() / square
    return fit.assign(slope=slope, by_x=(fit.y - 2 * slope * fit.x) / square, by_y=fit.x / square)


def _pulls(rows: pd.DataFrame, fit: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """Return per item and reward model what it adds to the slope's linear part, summed over sets and draws."""
    keys = ["objective", *place, *SETTING, "draw"]
    rows = rows.join(fit[["by_x", "by_y"]], on=keys)
    pull = rows.by_x * rows.distance + rows.by_y * rows.change
    items = list(dict.fromkeys(["objective", *MODEL_COLUMNS, *place, *ITEM_COLUMNS, "cluster"]))
    return rows.assign(pull=pull.fillna(0)).groupby(items, as_index=False).pull.sum()


def _summary(fits: list[pd.DataFrame], draws: np.ndarray) -> pd.DataFrame:
    """Return the three rows of one fit; ``draws`` (R, 3) are deviations of the slopes."""
    slopes = np.array([fit.slope.iloc[0] for fit in fits])
    shares = np.array([_is_toward(fit.x, fit.y).sum() / max((fit.x.round(DIGITS) != 0).sum(), 1) for fit in fits])
    slopes, shares = np.append(slopes, slopes[0] - slopes[1]), np.append(shares, shares[0] - shares[1])
    low, high = slopes + np.quantile(draws, [0.025, 0.975], axis=0)
    n_draws = [fit.index.get_level_values("draw").nunique() for fit in fits]
    table = {"sets": [TARGETED, CONTROLS, DIFFERENCE], "slope": slopes, "ci_low": low, "ci_high": high}
    sizes = [len(fit) for fit in fits]
    return pd.DataFrame(
        table | {"toward_chance": shares, "n_conditions": [*sizes, sum(sizes)], "n_draws": [*n_draws, max(n_draws)]}
    )
