"""Tension against the number of training pairs and against their mixture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from tension_utils.config import ARMS, CURVE_ARMS, MATCHED_ARM, MIXTURES, SINGLE_OBJECTIVES
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    TAILS,
    Bootstrap,
    bounded,
    complete_models,
    contrast_draws,
    count_distinct,
    crossed_parts,
    pair_differences,
    require_columns,
)

PARTS = ("n_pairs", "is_mixed", "group")  # of what a half costs

STUDY_PAIRS = 118_263  # training pairs of the published study's helpful models


def cost_rows(evaluations: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return what mixing costs on every item: credit of the test's own model minus that of half of each.

    Args:
        evaluations: pairs per reward model -> rows of evaluation.parquet of both single objectives and
            `config.MATCHED_ARM`, on the same items and seeds.

    Returns:
        n_pairs, test, value (share, single minus mixed), and the columns of items and models.

    Raises:
        ValueError: an arm is missing, or lacks an item or a seed.
    """
    parts = []
    for n_pairs, evaluation in evaluations.items():
        require_columns(evaluation, ["objective", "group", "benchmark", "credit"])
        for test in SINGLE_OBJECTIVES:
            own = evaluation[(evaluation.benchmark == "hh-rlhf") & (evaluation.group == test)]
            difference = pair_differences(own, "objective", (test, MATCHED_ARM), ["credit"])
            parts.append(difference.assign(n_pairs=n_pairs, test=test, value=difference.credit))
    return pd.concat(parts, ignore_index=True)


def cost_table(rows: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return what mixing costs at every number of training pairs; both tests weigh the same.

    Args:
        rows: of `cost_rows`.
        bootstrap: how many draws, and their source.

    Returns:
        n_pairs, cost (share) with a 95 % interval as ci_low and ci_high, n_items, n_seeds (of that size).
    """
    sums, counts, cells = crossed_parts(rows, "value", ["n_pairs", "test"])
    sizes = sorted({size for size, _ in cells})
    weights = np.array([[(size == own) / len(SINGLE_OBJECTIVES) for own in sizes] for size, _ in cells])
    costs, draws = contrast_draws(sums, counts, weights, bootstrap, is_shared=True)
    low, high = np.quantile(draws, TAILS, axis=0)
    n_seeds = [count_distinct(rows[rows.n_pairs == size], MODEL_COLUMNS) for size in sizes]
    table = pd.DataFrame({"n_pairs": sizes, "cost": costs, "ci_low": low, "ci_high": high})
    return table.assign(n_items=count_distinct(rows, ITEM_COLUMNS), n_seeds=n_seeds)


def cost_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one number per training run and size: base_model, seed, n_pairs, cost (share, mean of both tests)."""
    by_test = rows.groupby([*MODEL_COLUMNS, "n_pairs", "test"], as_index=False).value.mean()
    return by_test.groupby([*MODEL_COLUMNS, "n_pairs"], as_index=False).value.mean().rename(columns={"value": "cost"})


class Trend(NamedTuple):
    """A line through costs against the binary logarithm of training pairs, with 95 % intervals.

    Args:
        slope: share per doubling of the pairs.
        slope_low, slope_high: NaN with fewer than three points.
        line: cost at the target if the line goes on; like its bounds no further from 0 than 1, the most there is.
        line_low, line_high: likewise.
        n_points: training runs times sizes.
    """

    slope: float
    slope_low: float
    slope_high: float
    line: float
    line_low: float
    line_high: float
    n_points: int


def cost_trend(points: pd.DataFrame, target: float, item_error: float = 0.0) -> Trend:
    r"""Fit a line to costs against log2 of the pairs; runs of all sizes and seeds are its points.

    Every point is a training run of its own, so that the scatter about the line holds the noise of runs and of items,
    and what is not a line: with N points the intervals take t of N - 2 degrees of freedom. All points share their test
    items, which moves them up or down together; that error is added where a level is asked for:

    .. math:: \text{se}^2(x) = s^2 \left(\tfrac{1}{N} + \tfrac{(x - \bar x)^2}{\sum_i (x_i - \bar x)^2}\right) + e^2

    In simulations of five sizes and one seed (run noise of one point, items of one, 2,000 studies) the slope's interval
    covers in 95 %, that of the line at the target in 97 %.

    Args:
        points: of `cost_points`, with at least two sizes.
        target: number of pairs to go on to.
        item_error: standard error e of the level by the choice of items.

    Raises:
        ValueError: there are fewer than two sizes.
    """
    if points.n_pairs.nunique() < 2:
        raise ValueError(f"n_pairs: expected at least two sizes, got {sorted(set(points.n_pairs))}; train on more")
    x, goal, n = np.log2(points.n_pairs.to_numpy(float)), np.log2(target), len(points)
    fit = stats.linregress(x, points.cost)
    line = fit.intercept + fit.slope * goal
    if n < 3:
        return Trend(fit.slope, np.nan, np.nan, line, np.nan, np.nan, n)
    quantile, spread = stats.t.ppf(TAILS[1], n - 2), ((x - x.mean()) ** 2).sum()
    scatter = fit.stderr * np.sqrt(spread)  # s
    error = np.sqrt(scatter**2 * (1 / n + (goal - x.mean()) ** 2 / spread) + item_error**2)
    bounds = [fit.slope - quantile * fit.stderr, fit.slope + quantile * fit.stderr]
    return Trend(fit.slope, *bounds, *np.clip([line, line - quantile * error, line + quantile * error], -1, 1), n)


def cost_outlook(rows: pd.DataFrame, target: int = STUDY_PAIRS, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return the cost at a number of pairs that nobody trained on, under two extremes.

    A curve that flattens lies between one that goes on as a line and one that stops where it was last measured.

    Args:
        rows: of `cost_rows`, with at least two sizes.
        target: pairs per reward model.
        bootstrap: how many draws, and their source.

    Returns:
        outlook ("as measured, per doubling"; "stops at the last size"; "goes on as a line"), n_pairs (that it speaks
        of; NaN for the first), cost (share) with ci_low and ci_high, n_points (of the line), n_items, n_seeds.
    """
    table, points = cost_table(rows, bootstrap), cost_points(rows)
    sums, counts, cells = crossed_parts(rows, "value", ["n_pairs", "test"])
    _, draws = contrast_draws(sums, counts, np.full((len(cells), 1), 1 / len(cells)), bootstrap)
    trend, last = cost_trend(points, target, float(draws.std())), table.iloc[-1]
    outlooks = [
        ("as measured, per doubling", np.nan, trend.slope, trend.slope_low, trend.slope_high),
        ("stops at the last size", target, last.cost, last.ci_low, last.ci_high),
        ("goes on as a line", target, trend.line, trend.line_low, trend.line_high),
    ]
    found = pd.DataFrame(outlooks, columns=["outlook", "n_pairs", "cost", "ci_low", "ci_high"])
    return found.assign(n_points=trend.n_points, n_items=int(last.n_items), n_seeds=int(last.n_seeds))


def halving_table(evaluations: Mapping[int, pd.DataFrame], bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    r"""Split what mixing costs into what fewer own pairs cost and what the other objective's pairs cost.

    A model of n pairs, half of each, has n / 2 of each objective. Where single-objective models were trained on n / 2,
    too, with A the accuracy on the own test, mean of both:

    .. math:: A(n) - A_\text{half}(n) = [A(n) - A(n / 2)] + [A(n / 2) - A_\text{half}(n)]

    Args:
        evaluations: pairs per reward model -> rows of evaluation.parquet of both single objectives and, for a size that
            is split, `config.MATCHED_ARM`, on the same items; seeds that lack a part of a split are left out.
        bootstrap: how many draws, and their source.

    Returns:
        n_pairs, cost, fewer_own_pairs and other_pairs (shares; the last two add up to the first), each with a 95 %
        interval as <name>_ci_low and <name>_ci_high, n_items, n_seeds; no row without a half.
    """
    whole, single = (sizes_of(evaluations, arms) for arms in (CURVE_ARMS, SINGLE_OBJECTIVES))
    sizes = [n for n in whole if n % 2 == 0 and n // 2 in single]
    parts = [rows.assign(n_pairs=n) for n, rows in evaluations.items()]
    rows = pd.concat(parts, ignore_index=True)
    own = rows[(rows.benchmark == "hh-rlhf") & rows.group.isin(SINGLE_OBJECTIVES)]
    own = own[(own.objective == own.group) | (own.objective == MATCHED_ARM)]
    needed = {(n, arm) for n in sizes for arm in CURVE_ARMS}
    needed |= {(n // 2, arm) for n in sizes for arm in SINGLE_OBJECTIVES}
    own = complete_models(own.assign(trained=list(zip(own.n_pairs, own.objective, strict=True))), "trained", [*needed])
    names = ("cost", "fewer_own_pairs", "other_pairs")
    columns = ["n_pairs", *(name + end for name in names for end in ("", "_ci_low", "_ci_high")), "n_items", "n_seeds"]
    if own.empty:
        return pd.DataFrame(columns=columns, dtype=float)
    sums, counts, cells = crossed_parts(own.assign(is_mixed=own.objective == MATCHED_ARM), "credit", PARTS)

    def mean(n_pairs: int, is_mixed: bool) -> np.ndarray:
        """Return the weights (M,) of the mean over both tests."""
        return np.array([cell[:2] == (n_pairs, is_mixed) for cell in cells]) / len(SINGLE_OBJECTIVES)

    levels = [(mean(n, False), mean(n // 2, False), mean(n, True)) for n in sizes]
    weights = [[whole - mixed, whole - half, half - mixed] for whole, half, mixed in levels]
    values, draws = contrast_draws(sums, counts, np.array(weights).reshape(-1, len(cells)).T, bootstrap, is_shared=True)
    found: dict[int, dict] = {n: {"n_pairs": n} for n in sizes}
    places = [(n, name) for n in sizes for name in names]
    for (n, name), value, of_draws in zip(places, values, draws.T, strict=True):
        found[n] |= bounded(name, float(value), of_draws)
    of = {"n_items": count_distinct(own, ITEM_COLUMNS), "n_seeds": count_distinct(own, MODEL_COLUMNS)}
    return pd.DataFrame(found.values()).assign(**of)[columns]


def mixture_table(evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return accuracies of reward models that differ in the share of helpful pairs among as many.

    Args:
        evaluation: rows of evaluation.parquet of arms of `config.MIXTURES`, `config.MATCHED_ARM` among them, on the
            same items and seeds.
        bootstrap: how many draws, and their source.

    Returns:
        objective (the arm), helpful_share in [0, 1], helpful and harmless (accuracy on that test), mean (of both), each
        with a 95 % interval as <name>_ci_low and <name>_ci_high, and gain (mean minus that of half of each) likewise;
        n_items, n_seeds; from harmless pairs alone to helpful ones alone.

    Raises:
        ValueError: half of each is missing.
    """
    own = evaluation[(evaluation.benchmark == "hh-rlhf") & evaluation.group.isin(SINGLE_OBJECTIVES)]
    own = own[own.objective.isin(MIXTURES)]
    sums, counts, cells = crossed_parts(own, "credit", ["objective", "group"])
    arms = sorted({arm for arm, _ in cells}, key=lambda arm: ARMS[arm].helpful)
    if MATCHED_ARM not in arms:
        raise ValueError(f"evaluation: expected rows of {MATCHED_ARM}, got those of {', '.join(arms) or 'no mixture'}")
    of_test = np.array([[cell == (arm, test) for arm in arms for test in SINGLE_OBJECTIVES] for cell in cells], float)
    means = of_test.reshape(len(cells), len(arms), -1).mean(2)  # (M, arms)
    gains = means - means[:, [arms.index(MATCHED_ARM)]]
    values, draws = contrast_draws(sums, counts, np.c_[of_test, means, gains], bootstrap, is_shared=True)
    names = [(arm, test) for arm in arms for test in SINGLE_OBJECTIVES]
    names += [(arm, name) for name in ("mean", "gain") for arm in arms]
    found: dict[str, dict] = {arm: {"objective": arm, "helpful_share": ARMS[arm].helpful} for arm in arms}
    for (arm, name), value, of_draws in zip(names, values, draws.T, strict=True):
        found[arm] |= bounded(name, float(value), of_draws)
    return pd.DataFrame(found.values()).assign(
        n_items=count_distinct(own, ITEM_COLUMNS), n_seeds=count_distinct(own, MODEL_COLUMNS)
    )


def best_mixture(table: pd.DataFrame) -> pd.Series:
    """Return the mixture of both, other than half of each, with the largest gain of `mixture_table`.

    Raises:
        ValueError: there is none.
    """
    others = table[~table.objective.isin([*SINGLE_OBJECTIVES, MATCHED_ARM])]
    if others.empty:
        raise ValueError("mixtures: expected one besides half of each, got none")
    return others.loc[others.gain.idxmax()]


def sizes_of(evaluations: Mapping[int, pd.DataFrame], arms: Sequence[str]) -> list[int]:
    """Return the sizes at which every arm was evaluated, from few pairs to many."""
    return sorted(size for size, rows in evaluations.items() if set(arms) <= set(rows.objective))
