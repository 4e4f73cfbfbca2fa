"""Which successes of the single-objective reward models the mixed one keeps, as published and beyond chance."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.config import OBJECTIVES
from tension_utils.statistics import (
    ITEM_COLUMNS,
    TAILS,
    Bootstrap,
    complete_models,
    conditions,
    crossed_bootstrap,
    require_columns,
)

MEASURES = (
    "transferability",
    "expected_transferability",
    "excess_transferability",
    "jaccard_helpful",
    "jaccard_harmless",
)

PAIRINGS = ("all", "same seed")


def right_sets(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return which items each reward model gets right, margin > 0 as published: a tie is wrong.

    Returns:
        bool, one row per (benchmark, subset, item_id, cluster), one column per (base_model, objective, seed).

    Raises:
        ValueError: a reward model lacks an item or has it twice, or a base model's objectives differ in seeds.
    """
    require_columns(evaluation, ["objective", "seed", "margin", "cluster", *ITEM_COLUMNS])
    if "base_model" not in evaluation:
        evaluation = evaluation.assign(base_model="")
    models, items = ["base_model", "objective", "seed"], [*ITEM_COLUMNS, "cluster"]
    if evaluation.duplicated([*models, *ITEM_COLUMNS]).any():
        raise ValueError(f"expected one row per {', '.join([*models, *ITEM_COLUMNS])}; got repeats")
    table = evaluation.assign(right=evaluation.margin > 0).pivot(index=items, columns=models, values="right")
    if table.isna().to_numpy().any():
        short = table.columns[table.isna().any()][0]
        raise ValueError(f"expected every reward model on the same items; {short} lacks some")
    for base in table.columns.unique("base_model"):
        seeds = [tuple(sorted(seed for b, o, seed in table.columns if (b, o) == (base, name))) for name in OBJECTIVES]
        if len(set(seeds)) > 1 or not seeds[0]:
            raise ValueError(f"expected the same seeds for {', '.join(OBJECTIVES)} of {base!r}; got {seeds}")
    return table.astype(bool)


def measure_sets(
    helpful: np.ndarray, harmless: np.ndarray, mixed: np.ndarray, strata: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return transferability, its expectation and excess, and both Jaccards, with each item's pull on them.

    .. math:: T = |HH \cap X| / |X|, \quad X = He \cup Ha, \quad
        E = \sum_k |HH_k| |X_k| / (n_k |X|), \quad J_o = |HH \cap o| / |HH \cup o|

    E is the mean of T when in every stratum k the mixed model's successes are dealt anew to the stratum's items, so a
    difference in difficulty between subsets counts as no dependence; T - E is what is left: the same items, not only
    as many. Differences in difficulty inside a stratum are part of it.

    Args:
        helpful (P, I): bool, items that the helpful model of each pairing gets right.
        harmless (P, I): likewise.
        mixed (P, I): likewise.
        strata (I,): number of each item's (benchmark, subset), 0-based.

    Returns:
        estimates (P, 5) in the order of `MEASURES`, NaN where a set is empty; pulls (P, I, 5): the derivative of
        each measure by the weight of an item, zero on average in every stratum, since those have fixed sizes.

    Source: paper, section on behavior; expectation and excess are ours (METHOD section 2, fact 10).

    >>> sets = [np.array([row], bool) for row in ([1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0])]
    >>> measure_sets(*sets, np.zeros(4, int))[0].round(3).tolist()
    [[0.667, 0.5, 0.167, 1.0, 0.333]]
    """
    one_hot = (strata[:, None] == np.arange(strata.max() + 1)).astype(float)  # (I, K)
    sizes = one_hot.sum(0)  # (K,)
    either = helpful | harmless
    with np.errstate(invalid="ignore", divide="ignore"):
        kept, kept_pull = _ratio(mixed & either, either)
        mixed_rate, either_rate = mixed @ one_hot / sizes, either @ one_hot / sizes  # (P, K)
        n_either = either.sum(-1, keepdims=True)
        expected = (mixed_rate * either_rate * sizes).sum(-1, keepdims=True) / n_either  # (P, 1)
        rate, other = mixed_rate[:, strata], either_rate[:, strata]  # (P, I)
        expected_pull = ((rate - expected) * either + other * (mixed - rate)) / n_either
        jaccards = [_ratio(mixed & own, mixed | own) for own in (helpful, harmless)]
    values = [kept, expected[:, 0], kept - expected[:, 0], *[value for value, _ in jaccards]]
    pulls = [kept_pull, expected_pull, kept_pull - expected_pull, *[pull for _, pull in jaccards]]
    pulls = np.stack(pulls, axis=-1)  # (P, I, 5)
    means = np.einsum("pim,ik->pkm", pulls, one_hot) / sizes[:, None]
    return np.stack(values, axis=-1), pulls - means[:, strata]


def _ratio(part: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return |part| / |whole| (P,) and its derivative by each item's weight (P, I)."""
    size = whole.sum(-1, keepdims=True)
    share = part.sum(-1, keepdims=True) / size
    return share[:, 0], (part - share * whole) / size


def cluster_sums(pulls: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Sum pulls over the items of each cluster.

    Pulls are deviations from a mean of the C clusters of their stratum, so they are stretched by sqrt(C / (C - 1)).

    Args:
        pulls (P, I, 5): see `measure_sets`.
        clusters (I,): number of each item's cluster.
        strata (I,): number of each item's (benchmark, subset), 0-based.

    Returns:
        float64 (P, C, 5).
    """
    pairs = np.unique(np.stack([strata, clusters]), axis=1)
    n_clusters = np.bincount(pairs[0])  # (K,)
    pulls = pulls * np.sqrt(n_clusters / np.maximum(n_clusters - 1, 1))[strata, None]
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    return np.add.reduceat(pulls[:, order], starts, axis=1)


def seed_cells(estimates: np.ndarray, sums: np.ndarray, pairings: str) -> np.ndarray:
    """Return what each cluster and seed adds to the mean over pairings, for `crossed_bootstrap`.

    The mean over all S x S x S pairings is close to a sum of what each model's seed adds (Hoeffding's projection), so
    a seed's cell is the mean over pairings with it as helpful, plus as harmless, plus as mixed seed, minus twice the
    mean over all. Models of one seed share its cell, as they share its data order.

    Args:
        estimates (S, S, S, 5): per seed of the helpful, harmless and mixed model.
        sums (S, S, S, C, 5): pulls, summed over the items of a cluster.
        pairings: one of `PAIRINGS`.

    Returns:
        float64 (C, S, 5); its sum over clusters, averaged over seeds, is the mean estimate.
    """
    cells = estimates[..., None, :] / sums.shape[3] + sums  # (S, S, S, C, 5)
    if pairings == "same seed":
        return np.stack([cells[s, s, s] for s in range(len(cells))], axis=1)
    roles = [cells.mean(axes) for axes in ((1, 2), (0, 2), (0, 1))]  # each (S, C, 5)
    return (sum(roles) - 2 * cells.mean((0, 1, 2))).swapaxes(0, 1)


def _measured(table: pd.DataFrame) -> tuple[dict[str, tuple[list, np.ndarray, np.ndarray]], dict[str, int]]:
    """Return per base model its seeds, estimates (S, S, S, 5) and cluster sums (S, S, S, C, 5); and the sizes."""
    strata, clusters = (
        table.groupby(["benchmark", column], sort=False).ngroup().to_numpy() for column in ("subset", "cluster")
    )
    found = {}
    for base in table.columns.unique("base_model"):
        sets = [table[base][name].sort_index(axis=1) for name in OBJECTIVES]
        seeds = list(sets[0].columns)
        places = np.array(list(itertools.product(range(len(seeds)), repeat=3)))  # (P, 3)
        chosen = [own.to_numpy().T[place] for own, place in zip(sets, places.T, strict=True)]  # each (P, I)
        estimates, pulls = measure_sets(*chosen, strata)
        sums, shape = cluster_sums(pulls, clusters, strata), (len(seeds),) * 3
        found[base] = (seeds, estimates.reshape(*shape, -1), sums.reshape(*shape, *sums.shape[1:]))
    return found, {"n_items": len(table), "n_clusters": sums.shape[1]}


def _row(estimates: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """Return the measures (5,) with intervals from their draws (R, 5), kept within the values they can take."""
    low, high = np.quantile(draws, TAILS, axis=0)
    floor = np.array([-1.0 if name.startswith("excess") else 0.0 for name in MEASURES])
    row = {}
    for name, *values in zip(MEASURES, estimates, np.maximum(low, floor), np.minimum(high, 1), strict=True):
        row |= dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))
    return row


def _conditions(evaluation: pd.DataFrame, by: Sequence[str]) -> list[tuple[dict, pd.DataFrame]]:
    by = list(by)
    require_columns(evaluation, ["objective", "seed", *by])
    complete = complete_models(evaluation, "objective", OBJECTIVES)
    evaluation = complete if len(complete) else evaluation  # of which `right_sets` says what is missing
    return [(dict(zip(by, key, strict=True)), right_sets(part)) for key, part in conditions(evaluation, by)]


def transferability_table(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("group",),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return mean transferability and Jaccards over seed pairings, with intervals over items and seeds.

    Args:
        evaluation: rows of all three objectives, on the same items; seeds that lack one of them are left out, and
            several base models in a condition are averaged, weighted by their seeds.
        by: columns that name a condition, such as ["base_model", "group"]; [] is one.

    Returns:
        Per condition two rows, pairings "all" and "same seed": ``by``, pairings, each of `MEASURES` with _ci_low and
        _ci_high, n_pairings, n_items, n_clusters, n_seeds. NaN where a set is empty.
    """
    bootstrap, rows = bootstrap or Bootstrap(), []
    for name, table in _conditions(evaluation, by):
        found, sizes = _measured(table)
        for pairings in PAIRINGS:
            cells = np.concatenate([seed_cells(e, sums, pairings) for _, e, sums in found.values()], axis=1)
            draws = crossed_bootstrap(cells, np.full_like(cells, 1 / len(cells)), bootstrap)
            n_seeds = [len(seeds) for seeds, _, _ in found.values()]
            counts = {"n_pairings": sum(n**3 if pairings == "all" else n for n in n_seeds)}
            row = name | {"pairings": pairings} | _row(cells.sum(0).mean(0), draws) | counts
            rows.append(row | sizes | {"n_seeds": sum(n_seeds)})
    return pd.DataFrame(rows)
