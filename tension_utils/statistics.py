"""Intervals for items crossed with few seeds, paired tests, effects beyond a control, false discovery."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from tension_utils.config import CONTROLS, REMOVAL, check_choice

ANALYSIS_SEED = 0  # of every table, so that it is the same each time it is computed

LEVEL = 0.95  # of every interval

TAILS = (0.025, 0.975)


@dataclass
class Bootstrap:
    """How an interval is drawn; what a table computes draws from one of these, in order.

    Args:
        n_resamples: draws per condition.
        rng: source of the draws.
    """

    n_resamples: int = 2000
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(ANALYSIS_SEED))


def bounded(name: str, value: float, draws: np.ndarray, bounds: str | None = None) -> dict[str, float]:
    """Return a value with the interval of its resamples, under the names that tables use.

    Args:
        name: of the value.
        value: the estimate.
        draws (R,): its resamples; NaN bounds without any.
        bounds: how the names of the bounds begin; default: as the value's.

    >>> bounded("effect", 1.0, np.array([0.0, 2.0]))
    {'effect': 1.0, 'effect_ci_low': 0.05, 'effect_ci_high': 1.95}
    """
    low, high = map(float, np.quantile(draws, TAILS)) if len(draws) else (np.nan, np.nan)
    start = f"{name}_" if bounds is None else bounds
    return {name: value, f"{start}ci_low": low, f"{start}ci_high": high}


CHUNK = 256  # resamples drawn at once: bounds memory to CHUNK x clusters


def resampled_counts(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of n units is drawn when n are drawn with replacement, float64 (n_resamples, n)."""
    draws = rng.integers(0, n, size=(n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=n_resamples * n).reshape(n_resamples, n).astype(float)


def seed_share(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which share of the variance between seed means is the seeds' own, not their items' noise.

    A two-way analysis of variance of each cell's deviation from the overall mean: max(0, 1 - MS_noise / MS_seeds).

    Args:
        sums (C, S, M): see `crossed_bootstrap`.
        counts (C, S, M): likewise.

    Returns:
        (M,): in [0, 1]; 0 with one seed.
    """
    n_clusters, n_seeds, _ = sums.shape
    if n_seeds == 1 or n_clusters == 1:
        return np.full(sums.shape[2], float(n_seeds > 1))
    cells = sums - counts * (sums.sum((0, 1)) / counts.sum((0, 1)))  # (C, S, M)
    of_seed, of_cluster = cells.mean(0, keepdims=True), cells.mean(1, keepdims=True)
    noise = ((cells - of_seed - of_cluster + cells.mean((0, 1))) ** 2).sum((0, 1)) / (n_clusters - 1)
    seeds = n_clusters * ((of_seed - cells.mean((0, 1))) ** 2).sum((0, 1))  # both lack the factor 1 / (S - 1)
    return np.clip(1 - np.divide(noise, seeds, out=np.ones_like(noise), where=seeds > 0), 0, 1)


def crossed_bootstrap(sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap | None = None) -> np.ndarray:
    r"""Resample means of values that items, by cluster, share with seeds.

    .. math:: x^* = \bar x + \sum_{cs} w_c v_s (x_{cs} - \bar x n_{cs}) / \sum_{cs} w_c n_{cs}

    w counts how often a cluster is drawn. A study has few seeds, where drawing seeds too gives intervals that are too
    short if seeds differ (with three, the spread is 1.2 times too small and has no tails) and too long if they do not
    (the noise of every cell counts up to three times). So v_s = 1 + a d_s: d is Student's t with S - 1 degrees of
    freedom, centered over the seeds, and a^2 is the root of `seed_share` times S / (S - 1). Without noise of items
    this is the t interval over seeds, and without seed effects the bootstrap over clusters. All columns use the same w
    and d, so they are paired. With S = 1 the result speaks of that one seed only.

    In between, three seeds cannot tell how much of their variance is their own. The share itself is too low just when
    the seeds happen to agree, and a nominal 95 % interval then covers the truth in as few as 92 % of simulated
    studies; with its root it is 93 to 97 %. The exception is too cautious: up to 97.5 % for means whose seeds differ
    clearly, yet by little against what the items add. There a normal and a t(2) deviation are summed, which has longer
    tails than needed (the Behrens-Fisher problem, without an exact solution).

    Args:
        sums (C, S, M): sum of the values per cluster, seed and column.
        counts (C, S, M): how many values each sum holds; 0 where a seed lacks a cluster.

    Returns:
        float64 (R, M): resampled means.

    Source: ours; the plain product of both draws is Owen (2007), "The pigeonhole bootstrap".
    """
    bootstrap = bootstrap or Bootstrap()
    n_resamples, rng = bootstrap.n_resamples, bootstrap.rng
    n_clusters, n_seeds, _ = sums.shape
    freedom = max(n_seeds - 1, 1)
    stretch = np.sqrt(np.sqrt(seed_share(sums, counts)) * n_seeds / freedom)  # (M,)
    mean = sums.sum((0, 1)) / counts.sum((0, 1))  # (M,)
    parts = []
    for start in range(0, n_resamples, CHUNK):
        size = min(CHUNK, n_resamples - start)
        by_cluster = resampled_counts(n_clusters, size, rng)  # (R, C)
        deviations = rng.normal(size=(size, n_seeds)) / np.sqrt(rng.chisquare(freedom, (size, 1)) / freedom)
        deviations -= deviations.mean(1, keepdims=True)  # (R, S)
        by_seed = 1 + deviations[..., None] * stretch  # (R, S, M)
        total = (np.tensordot(by_cluster, sums - mean * counts, 1) * by_seed).sum(1)  # (R, M)
        parts.append(mean + total / (by_cluster @ counts.sum(1)))
    return np.concatenate(parts)


def contrast_draws(
    sums: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
    bootstrap: Bootstrap | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Resample weighted sums of the means of fixed parts, such as subsets that count equally.

    .. math:: \theta_q = \sum_m W_{mq} \bar x_m, \quad
        u_{csq} = \sum_m W_{mq} \sqrt{C_m / (C_m - 1)} \, (x_{csm} - \bar x_m n_{csm}) / n_m

    Every part keeps its size, as a benchmark does: a resample moves theta by the drawn u, so no part is ever drawn
    empty. The root makes up for the C_m deviations of a part being taken from its own mean. A cluster with items in
    several parts is drawn with all of them.

    Args:
        sums (C, S, M): see `crossed_bootstrap`.
        counts (C, S, M): likewise; no part is empty.
        weights (M, Q): of each part in each quantity.

    Returns:
        estimates (Q,) and draws (R, Q), float64.
    """
    totals = counts.sum((0, 1))  # (M,)
    means = sums.sum((0, 1)) / totals
    n_clusters = (counts.sum(1) > 0).sum(0)  # (M,)
    scale = np.sqrt(n_clusters / np.maximum(n_clusters - 1, 1)) / totals
    cells = ((sums - means * counts) * scale) @ weights  # (C, S, Q)
    estimates = means @ weights
    even = np.full_like(
        cells, 1 / (cells.shape[0] * cells.shape[1])
    )  # every resample weighs 1: draws are sums of cells
    return estimates, estimates + crossed_bootstrap(cells, even, bootstrap)


MODEL_COLUMNS = ("base_model", "seed")  # with the objective fixed, these name one training run

ITEM_COLUMNS = ("benchmark", "subset", "item_id")

RUN_COLUMNS = ("base_model", "objective", "seed")  # these name one reward model

CLUSTER_COLUMNS = ("benchmark", "cluster")

UNITS = (ITEM_COLUMNS, CLUSTER_COLUMNS, MODEL_COLUMNS)


def conditions(table: pd.DataFrame, by: Sequence[str]) -> Iterable[tuple[tuple, pd.DataFrame]]:
    """Return (values of ``by``, rows) per condition, in sorted order; the whole table is one where ``by`` is empty."""
    return table.groupby(list(by), sort=True, dropna=False) if by else [((), table)]


def count_distinct(table: pd.DataFrame, columns: Sequence[str]) -> int:
    """Return how many distinct combinations of the columns that the table has there are."""
    return table[[column for column in columns if column in table]].drop_duplicates().shape[0]


SIZES = ("n_items", "n_clusters", "n_seeds")


def sizes(table: pd.DataFrame) -> dict[str, int]:
    """Return how many items, clusters of items and training runs rows are of, under the names that every table uses."""
    return {name: count_distinct(table, of) for name, of in zip(SIZES, UNITS, strict=True)}


def require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that a table has what a computation reads.

    Raises:
        ValueError: a column is missing or the table has no rows.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"expected columns {', '.join(columns)}; missing {', '.join(missing)}; "
            f"the table has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise ValueError("expected at least one row, got an empty table; check the selection that made it")


def seed_interval(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """Return Student's t interval of a mean over training runs, or worlds; NaN for one.

    >>> [round(bound, 2) for bound in seed_interval(pd.Series([1.0, 2.0, 3.0]))]
    [-0.48, 4.48]
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    reach = stats.sem(values) * stats.t.ppf(TAILS[1], len(values) - 1)
    return float(values.mean() - reach), float(values.mean() + reach)


def wilson_interval(n_successes: int, n: int) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Raises:
        ValueError: n is below 1 or n_successes is outside 0..n.

    >>> [round(bound, 3) for bound in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    interval = stats.binomtest(int(n_successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _codes(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Number the distinct combinations of the columns that the table has, 0-based, (rows,)."""
    present = [column for column in columns if column in table.columns]
    return table.groupby(present, sort=False).ngroup().to_numpy()


def crossed_sums(table: pd.DataFrame, values: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum columns per cluster of items and training run.

    Args:
        table: one row per (reward model, item), with `CLUSTER_COLUMNS` and seed.
        values: M numeric columns without missing values.

    Returns:
        sums and counts, float64 (C, S, M).

    Raises:
        ValueError: a column is missing or a value is not finite.
    """
    require_columns(table, [*values, "seed", *CLUSTER_COLUMNS])
    data = table[list(values)].to_numpy(float)  # (rows, M)
    if not np.isfinite(data).all():
        bad = table[~np.isfinite(data).all(axis=1)].iloc[0]
        raise ValueError(f"expected finite {', '.join(values)}; got {bad[list(values)].to_dict()} for {bad.to_dict()}")
    cluster, seed = _codes(table, CLUSTER_COLUMNS), _codes(table, MODEL_COLUMNS)
    shape = (cluster.max() + 1, seed.max() + 1, data.shape[1])
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (cluster, seed), data)
    np.add.at(counts, (cluster, seed), 1.0)
    return sums, counts


def crossed_parts(table: pd.DataFrame, value: str, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[tuple]]:
    """Sum one column per cluster of items, training run and part.

    Args:
        table: one row per (reward model, item), with `CLUSTER_COLUMNS` and seed.
        value: numeric column.
        parts: columns that name a part, such as ["direction", "benchmark", "subset"].

    Returns:
        sums and counts, float64 (C, S, M), for `bootstrap.contrast_draws`; the M names, sorted, as tuples.

    Raises:
        ValueError: a column is missing or a value is not finite.
    """
    require_columns(table, [value, *parts, "seed", *CLUSTER_COLUMNS])
    data = table[value].to_numpy(float)
    if not np.isfinite(data).all():
        raise ValueError(f"expected finite {value}; {int((~np.isfinite(data)).sum())} rows are not")
    groups = table.groupby(list(parts), sort=True)
    cells = (_codes(table, CLUSTER_COLUMNS), _codes(table, MODEL_COLUMNS), groups.ngroup().to_numpy())
    shape = tuple(codes.max() + 1 for codes in cells)  # (C, S, M)
    places = np.ravel_multi_index(cells, shape)
    sums, counts = (np.bincount(places, values, np.prod(shape)).reshape(shape) for values in (data, np.ones_like(data)))
    return sums, counts, [name for name, _ in groups]


def mean_table(
    table: pd.DataFrame,
    values: Sequence[str],
    by: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return means with bootstrap intervals over items (by cluster) crossed with seeds.

    Args:
        table: one row per (reward model, item).
        values: columns to average; their intervals use the same draws.
        by: columns that name a condition; [] is one condition.

    Returns:
        One row per condition: ``by``, then per value its mean, ``_ci_low``, ``_ci_high``; n_items, n_clusters, n_seeds.
    """
    require_columns(table, [*values, *by, "seed", *CLUSTER_COLUMNS])
    bootstrap, rows = bootstrap or Bootstrap(), []
    for key, part in conditions(table, by):
        sums, counts = crossed_sums(part, values)
        means = sums.sum((0, 1)) / counts.sum((0, 1))
        row = dict(zip(by, key, strict=True))
        for value, mean, draws in zip(values, means, crossed_bootstrap(sums, counts, bootstrap).T, strict=True):
            row |= bounded(value, mean, draws)
        rows.append(row | sizes(part))
    return pd.DataFrame(rows)


def accuracy_table(
    evaluation: pd.DataFrame,
    by: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return accuracies with intervals, chance, ties and truncation.

    Accuracy is the mean credit: a k-way tie at the top earns 1/k. Where every resample agrees (all items right or all
    wrong) the interval is Wilson's over clusters, since the bootstrap then says nothing.

    Args:
        evaluation: rows of evaluation.parquet, of one or several reward models.
        by: columns that name a condition, such as ["objective", "benchmark"].

    Returns:
        ``by``, accuracy, ci_low, ci_high, chance_accuracy, tie_rate, truncated_share, seed_std (between training runs,
        ddof 1, NaN for one), n_items, n_clusters, n_seeds. Shares are in [0, 1].
    """
    require_columns(evaluation, ["credit", "chance", "margin", "is_truncated", "item_id", *by])
    table = mean_table(evaluation, ["credit"], by, bootstrap).rename(
        columns={"credit": "accuracy", "credit_ci_low": "ci_low", "credit_ci_high": "ci_high"}
    )
    table = widen_degenerate(table)
    table = pd.concat([table, _described(evaluation, by)], axis=1)
    return table[[column for column in table.columns if column not in SIZES] + list(SIZES)]


def widen_degenerate(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies with intervals inside [0, 1], Wilson's over clusters where all resamples agree.

    Args:
        table: accuracy, ci_low, ci_high, n_clusters.
    """
    table = table.copy()
    for index, row in table[table.ci_low == table.ci_high].iterrows():
        n_right = round(row.accuracy * row.n_clusters)
        table.loc[index, ["ci_low", "ci_high"]] = wilson_interval(n_right, row.n_clusters)
    table[["ci_low", "ci_high"]] = table[["ci_low", "ci_high"]].clip(0, 1)
    return table


def _described(evaluation: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return chance, ties, truncation and the spread between training runs, conditions in sorted order."""
    table = evaluation.assign(_is_tied=evaluation.margin == 0, _model=_codes(evaluation, MODEL_COLUMNS))
    rows = []
    for _, part in conditions(table, by):
        row = {"chance_accuracy": part.chance.mean(), "tie_rate": part["_is_tied"].mean()}
        row |= {"truncated_share": part.is_truncated.mean()}
        rows.append(row | {"seed_std": part.groupby("_model").credit.mean().std(ddof=1)})
    return pd.DataFrame(rows)


N_PERMUTATIONS = 4999

CHUNK_OF_SWAPS = 500  # permutations at once: bounds memory


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for the false discovery rate, in the given order.

    Raises:
        ValueError: a value is outside [0, 1].

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    return stats.false_discovery_control(np.asarray(p_values, float), method="bh")


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted so that one wrong rejection among all of them stays as rare as the level, in order.

    Raises:
        ValueError: a value is outside [0, 1].

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected p-values from 0 to 1, got {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


ALTERNATIVES = ("two-sided", "less", "greater")


class Prediction(NamedTuple):
    """How far targeted sets lie from where another random set is expected.

    Args:
        effect: mean change of the targeted sets minus that of the random ones.
        t: effect over its standard error.
        freedom: degrees of freedom.
        p_value: under the alternative that was asked for.
    """

    effect: float
    t: float
    freedom: int
    p_value: float


def prediction_test(targeted: np.ndarray, draws: np.ndarray, alternative: str = ALTERNATIVES[0]) -> Prediction:
    r"""Test whether targeted sets are unusual *among* random sets, not only off their mean.

    .. math:: t = \frac{\frac1S \sum_s (T_s - \bar R_s)}{s \sqrt{(1 + 1/D) / S}}, \quad
        s^2 = \frac{\sum_{sd} (R_{sd} - \bar R_s)^2}{S (D - 1)}

    A random set in the place of the targeted one varies by s around the mean of its draws, however many items measure
    it: with more items the interval of an effect shrinks to nothing, and this does not. Student's t with S (D - 1)
    degrees of freedom.

    Args:
        targeted (S,): mean change of each reward model without its targeted set.
        draws (S, D): likewise without each of D >= 2 matched random sets.
        alternative: of `ALTERNATIVES`; "less" and "greater" put the level on the side that a claim names beforehand.

    Raises:
        ValueError: shapes that do not fit, fewer than two draws, a value that is not finite, or an unknown alternative.

    Source: ours; the prediction interval for one further observation (Geisser 1993), pooled over models.

    >>> prediction_test(np.array([5.0]), np.array([[1.0, 2.0, 3.0]])).t.__round__(4)  # 3 / (1 sqrt(4 / 3))
    2.5981
    """
    targeted, draws = np.asarray(targeted, float), np.asarray(draws, float)
    check_choice("alternative", alternative, ALTERNATIVES)
    if targeted.ndim != 1 or draws.ndim != 2 or len(targeted) != len(draws) or not len(draws) or draws.shape[1] < 2:
        raise ValueError(f"expected (S,) and (S, D >= 2) changes, got shapes {targeted.shape} and {draws.shape}")
    if not (np.isfinite(targeted).all() and np.isfinite(draws).all()):
        raise ValueError("expected finite changes")
    n_models, n_draws = draws.shape
    effect, freedom = float((targeted - draws.mean(1)).mean()), n_models * (n_draws - 1)
    scale = np.sqrt(draws.var(axis=1, ddof=1).mean() * (1 + 1 / n_draws) / n_models)
    t = effect / scale if scale else float(np.copysign(np.inf, effect)) if effect else 0.0
    tails = {"less": stats.t.cdf(t, freedom), "greater": stats.t.sf(t, freedom)}
    return Prediction(effect, float(t), freedom, float(tails.get(alternative, 2 * stats.t.sf(abs(t), freedom))))


def permutation_test_paired(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, n_permutations: int = N_PERMUTATIONS
) -> float:
    """Return the two-sided p-value of a mean difference when each pair's two values may be swapped.

    Args:
        first (P,): one value per independent unit, such as the sum over a cluster.
        second (P,): the same units under the other condition.
        rng: source of the swaps; few units are enumerated exactly.
        n_permutations: random swaps.

    Raises:
        ValueError: the shapes differ or are not one-dimensional.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected two lists of the same length, got shapes {first.shape} and {second.shape}")
    if np.array_equal(first, second):
        return 1.0
    result = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        vectorized=True,
        permutation_type="samples",
        n_resamples=n_permutations,
        batch=CHUNK_OF_SWAPS,
        rng=rng,
    )
    return float(result.pvalue)


def pair_differences(
    table: pd.DataFrame, condition: str, pair: tuple[str, str], values: Sequence[str] = ("credit", "margin")
) -> pd.DataFrame:
    """Subtract, item by item and seed by seed, the second condition from the first.

    Args:
        table: one row per (reward model, item), with the column ``condition``.
        condition: such as "objective".
        pair: two of its values.
        values: columns to subtract.

    Returns:
        The first condition's rows without ``condition``; each value column holds the difference.

    Raises:
        ValueError: a condition has no rows, repeats an item, or lacks an item that the other has.
    """
    names = ("objective", *MODEL_COLUMNS, *ITEM_COLUMNS)
    keys = [column for column in names if column in table.columns and column != condition]
    require_columns(table, [condition, "seed", "item_id", *values])
    first, second = (table[table[condition] == name].set_index(keys) for name in pair)
    for name, part in zip(pair, (first, second), strict=True):
        if part.empty or part.index.has_duplicates:
            raise ValueError(
                f"expected one row per {', '.join(keys)} with {condition} = {name!r}; "
                f"got {'none' if part.empty else 'repeats'}"
            )
    alone = first.index.symmetric_difference(second.index)
    if len(alone):
        raise ValueError(
            f"expected the same items under {pair[0]!r} and {pair[1]!r}; {len(alone)} have no partner, "
            f"such as {dict(zip(keys, alone[0], strict=True))}"
        )
    first = first.drop(columns=condition)
    first[list(values)] = first[list(values)].astype(float) - second.loc[first.index, list(values)].astype(float)
    return first.reset_index()


def paired_bootstrap(
    table: pd.DataFrame,
    condition: str,
    pair: tuple[str, str],
    by: Sequence[str] = (),
    value: str = "credit",
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Compare two conditions on the same items and seeds.

    Args:
        table: one row per (reward model, item).
        condition: column that tells the two apart.
        pair: its two values; the difference is first minus second.
        by: columns that name the comparisons, such as ["benchmark"].
        value: column compared.

    Returns:
        ``by``, difference, ci_low, ci_high, p_value (permutation over clusters), p_adjusted (Benjamini-Hochberg over
        the rows), n_items, n_clusters, n_seeds.
    """
    by, bootstrap = list(by), bootstrap or Bootstrap()
    differences = pair_differences(table, condition, pair, [value]).rename(columns={value: "difference"})
    result = mean_table(differences, ["difference"], by, bootstrap).rename(
        columns={"difference_ci_low": "ci_low", "difference_ci_high": "ci_high"}
    )
    if value == "credit":  # with few seeds the interval may pass what two accuracies can differ by
        result[["ci_low", "ci_high"]] = result[["ci_low", "ci_high"]].clip(-1, 1)
    p_values = []
    for _, part in conditions(differences, by):
        sums = part.groupby(list(CLUSTER_COLUMNS)).difference.sum().to_numpy()
        p_values.append(permutation_test_paired(sums, np.zeros_like(sums), bootstrap.rng))
    result.insert(len(by) + 3, "p_value", p_values)
    result.insert(len(by) + 4, "p_adjusted", benjamini_hochberg(p_values))
    return result


def compare_evaluations(
    first: pd.DataFrame,
    second: pd.DataFrame,
    by: Sequence[str] = ("objective",),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Compare two evaluations of the same reward models on the same items, such as two prompt templates.

    An item flips when exactly one of the evaluations has a margin above zero.

    Args:
        first: rows of one evaluation.
        second: rows of the other; the difference is first minus second.
        by: columns that name the comparisons; [] is one.

    Returns:
        ``by``, flip_rate, flip_rate_ci_low, flip_rate_ci_high, difference (of accuracies), ci_low, ci_high, p_value,
        p_adjusted, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: the evaluations differ in reward models or items.

    Source: METHOD section 2, fact 16.
    """
    by, names, bootstrap = list(by), ("first", "second"), bootstrap or Bootstrap()
    require_columns(first, ["credit", "margin", "item_id", *by])
    both = pd.concat([part.assign(_version=name) for name, part in zip(names, (first, second), strict=True)])
    both = both.assign(_right=(both.margin > 0).astype(float))
    flips = pair_differences(both, "_version", names, ["_right"])
    flips = flips.assign(flip_rate=flips["_right"].abs())
    rates = mean_table(flips, ["flip_rate"], by, bootstrap).drop(columns=list(SIZES))
    bounds = ["flip_rate_ci_low", "flip_rate_ci_high"]
    rates[bounds] = rates[bounds].clip(0, 1)
    differences = paired_bootstrap(both, "_version", names, by, bootstrap=bootstrap)
    return pd.concat([rates, differences.drop(columns=by)], axis=1)


RM_COLUMNS = ("objective", *MODEL_COLUMNS)

METRICS = {"accuracy": "credit", "margin": "margin"}  # name in tables -> item-level column


def compared_rows(ablation: pd.DataFrame, control: str = CONTROLS[0], scale: float = REMOVAL) -> pd.DataFrame:
    """Return the rows that one comparison with random sets is about; every analysis takes its rows through here.

    Args:
        ablation: rows of ablation.parquet.
        control: of `config.CONTROLS`: the random sets that are kept; those that match otherwise are left out.
        scale: of the activations; 0, a removal, leaves out sets that were only scaled.

    Raises:
        ValueError: if the control is unknown, or the rows are of an earlier table that names neither.
    """
    require_columns(ablation, ["family", "control", "scale"])
    check_choice("control", control, CONTROLS)
    return ablation[ablation.control.isin(["", control]) & (ablation["scale"] == scale)]


def ablation_changes(ablation: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Set every ablated row beside the intact model on the same item.

    Margins are divided by the standard deviation of the reward model's intact margins on that benchmark, because
    Bradley-Terry fixes no scale across reward models.

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.

    Returns:
        The ablation rows with cluster, group, direction, accuracy_change (credit, in [-1, 1]) and margin_change (intact
        standard deviations).

    Raises:
        ValueError: an ablated item has no intact row.
    """
    keys = [*RM_COLUMNS, *ITEM_COLUMNS]
    require_columns(ablation, [*keys, "margin", "credit"])
    require_columns(evaluation, [*keys, "margin", "credit", "cluster"])
    spread = evaluation.groupby([*RM_COLUMNS, "benchmark"]).margin.transform("std").astype(float)
    extra = [
        column
        for column in ("cluster", "group", "direction")
        if column not in ablation.columns and column in evaluation.columns
    ]
    intact = evaluation[[*keys, *extra]].assign(
        intact_credit=evaluation.credit, intact_margin=evaluation.margin.astype(float), intact_std=spread
    )
    joined = ablation.merge(intact, on=keys, how="left", validate="many_to_one")
    lost = joined.intact_credit.isna()
    if lost.any():
        raise ValueError(
            f"expected an intact row in evaluation for every ablated item; {lost.sum()} have none, "
            f"such as {joined.loc[lost, keys].iloc[0].to_dict()}; evaluate the same items first"
        )
    joined["accuracy_change"] = joined.credit - joined.intact_credit
    joined["margin_change"] = (joined.margin.astype(float) - joined.intact_margin) / joined.intact_std
    return joined.drop(columns=["intact_credit", "intact_margin", "intact_std"])


def item_effects(
    changes: pd.DataFrame, match: Sequence[str], control: str = "random"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set every item of a targeted set beside the mean over the random draws that match the set.

    Args:
        changes: of `ablation_changes`.
        match: columns on which a set meets its controls, besides reward model and item.
        control: name of the random sets.

    Returns:
        The targeted rows with, per metric, <metric>_control (mean change over the draws), <metric>_effect (change minus
        that) and n_draws; and the rows of the random draws.

    Raises:
        ValueError: no control row, or a set without its control.
    """
    is_control = changes.set == control
    if not is_control.any():
        raise ValueError(f"expected rows with set = {control!r}; got {', '.join(map(str, changes.set.unique()))}")
    keys = [*RM_COLUMNS, *ITEM_COLUMNS, *match]
    draws = changes[is_control].groupby(keys, observed=True)
    means = draws[[f"{metric}_change" for metric in METRICS]].mean().set_axis([f"{m}_control" for m in METRICS], axis=1)
    rows = changes[~is_control].merge(
        means.assign(n_draws=draws.size()).reset_index(), on=keys, how="left", validate="many_to_one"
    )
    lost = rows.n_draws.isna()
    if lost.any():
        raise ValueError(f"expected random draws for every set; none for {rows.loc[lost, keys].iloc[0].to_dict()}")
    for metric in METRICS:
        rows[f"{metric}_effect"] = rows[f"{metric}_change"] - rows[f"{metric}_control"]
    return rows, changes[is_control]


def ablation_effects(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    by: Sequence[str],
    control: str = "random",
    match: Sequence[str] = ("fraction", "ablation_kind"),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return what removing a neuron set does, against matched random sets.

    effect = change with the set - mean change over the control draws, on the same items, seeds and settings.

    Args:
        ablation: rows of ablation.parquet; rows with ``set == control`` are the random draws.
        evaluation: rows of evaluation.parquet of the same reward models.
        by: columns that name a condition; must hold "set" and every column of ``match``.
        control: name of the random sets.
        match: columns on which a set meets its controls, besides reward model and item. Add "matched_to" when the
            controls were drawn anew for every targeted set.

    Returns:
        Two rows per condition, metric "accuracy" (share) and "margin" (intact standard deviations): ``by``, metric,
        change, change_ci_low, change_ci_high, control, control_low, control_high (2.5 % and 97.5 % of the draws),
        effect, ci_low, ci_high, p_value (rank among the draws, two-sided), n_draws, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: no control row, a set without its control, or ``by`` lacks a column.
    """
    by, match = list(by), list(match)
    require_columns(ablation, ["set", "draw", *match])
    if not {"set", *match} <= set(by):
        raise ValueError(f"expected `by` to hold set, {', '.join(match)}; got {', '.join(by)}")
    changes = ablation_changes(ablation, evaluation)
    rows, controls = item_effects(changes, match, control)
    names = [f"{metric}_change" for metric in METRICS]
    columns = [f"{metric}_{part}" for metric in METRICS for part in ("change", "control", "effect")]
    wide = mean_table(rows, columns, by, bootstrap)
    draws = _draw_means(controls, rows, names, by, match)
    return pd.concat([_of_metric(wide, draws, metric, by) for metric in METRICS], ignore_index=True).sort_values(
        [*by, "metric"], ignore_index=True
    )


def _draw_means(
    controls: pd.DataFrame, rows: pd.DataFrame, names: list[str], by: list[str], match: list[str]
) -> dict[tuple, pd.DataFrame]:
    """Return per condition the mean change of each random draw, over the condition's reward models and items."""
    shared = [column for column in by if column != "set" or column in match]
    of_shared = {key: part.groupby("draw")[names].mean() for key, part in controls.groupby(shared)}
    conditions = rows[by].drop_duplicates()
    return {
        tuple(condition): of_shared[tuple(condition[column] for column in shared)]
        for _, condition in conditions.iterrows()
    }


def _of_metric(wide: pd.DataFrame, draws: dict[tuple, pd.DataFrame], metric: str, by: list[str]) -> pd.DataFrame:
    """Narrow the wide table to one metric and add the spread and rank among the random draws."""
    name = f"{metric}_change"
    table = wide[by].assign(
        metric=metric,
        change=wide[name],
        change_ci_low=wide[f"{name}_ci_low"],
        change_ci_high=wide[f"{name}_ci_high"],
        control=wide[f"{metric}_control"],
    )
    spread = []
    for condition, change in zip(wide[by].itertuples(index=False, name=None), wide[name], strict=True):
        values = draws[condition][name].to_numpy()
        low, high = np.quantile(values, [0.025, 0.975])
        fewer = min((values <= change).sum(), (values >= change).sum())
        spread.append(
            {
                "control_low": low,
                "control_high": high,
                "p_value": min(1.0, 2 * (1 + fewer) / (1 + len(values))),
                "n_draws": len(values),
            }
        )
    spread = pd.DataFrame(spread)
    table[["control_low", "control_high"]] = spread[["control_low", "control_high"]]
    table = table.assign(
        effect=wide[f"{metric}_effect"],
        ci_low=wide[f"{metric}_effect_ci_low"],
        ci_high=wide[f"{metric}_effect_ci_high"],
    )
    return table.join(spread[["p_value", "n_draws"]]).join(wide[["n_items", "n_clusters", "n_seeds"]])
