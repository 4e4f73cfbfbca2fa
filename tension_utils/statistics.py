"""Intervals for items crossed with few seeds, paired tests, effects beyond a control, false discovery."""

import copy
from collections.abc import Iterable, Iterator, Sequence
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
    """How an interval is drawn: every interval from the same state, so that it is the same in every table.

    Args:
        n_resamples: draws per condition.
        rng: source of the draws; intervals draw from copies of it.
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


def seed_ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the variance between seed means over what their items' noise alone would give, MS_seeds / MS_noise.

    A two-way analysis of variance of each cell's deviation from the overall mean; 1 is expected where seeds do not
    matter.

    Args:
        sums (C, S, M): see `crossed_bootstrap`.
        counts (C, S, M): likewise.

    Returns:
        (M,): infinite without noise, so also with one cluster; 0 where seed means agree, so also with one seed.
    """
    n_clusters, n_seeds, _ = sums.shape
    cells = sums - counts * (sums.sum((0, 1)) / counts.sum((0, 1)))  # (C, S, M)
    of_seed, of_cluster = cells.mean(0, keepdims=True), cells.mean(1, keepdims=True)
    noise = ((cells - of_seed - of_cluster + cells.mean((0, 1))) ** 2).sum((0, 1)) / max(n_clusters - 1, 1)
    seeds = n_clusters * ((of_seed - cells.mean((0, 1))) ** 2).sum((0, 1))  # both lack the factor 1 / (S - 1)
    size = np.abs(cells).max(initial=0) ** 2 * 1e-12  # below it is rounding
    ratio = np.divide(seeds, noise, out=np.full_like(seeds, np.inf), where=noise > size)
    return np.where(seeds > size, ratio, 0.0) if n_seeds > 1 else np.zeros_like(seeds)


class SeedPrior(NamedTuple):
    """What peers tell about the variance between seeds: a `seed_ratio` per column that weighs like so many seeds.

    Args:
        ratio: (M,), or one for all columns.
        freedom: degrees of freedom; 0 says nothing.
    """

    ratio: np.ndarray | float = 1.0
    freedom: int = 0


NO_PRIOR = SeedPrior()

MOST_PEERS = 2  # conditions of one table share training runs, so many tell hardly more than a few


def seed_prior(ratios: Sequence[np.ndarray], n_seeds: int) -> SeedPrior:
    """Return the prior that conditions whose seeds differ about as much give each other.

    Args:
        ratios: of `seed_ratio`, (M,) per condition; infinite ones, of conditions without noise, tell nothing.
        n_seeds: of each condition.

    >>> seed_prior([np.array([1.0]), np.array([2.0]), np.array([6.0])], 3)
    SeedPrior(ratio=array([3.]), freedom=4)
    """
    known = np.ma.masked_invalid(np.asarray(ratios, float))  # (conditions, M)
    if len(known) < 2 or n_seeds < 2:
        return NO_PRIOR
    return SeedPrior(known.mean(0).filled(1.0), min(len(known) - 1, MOST_PEERS) * (n_seeds - 1))


def crossed_bootstrap(
    sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap | None = None, prior: SeedPrior = NO_PRIOR
) -> np.ndarray:
    r"""Resample means of values that items, by cluster, share with seeds.

    .. math:: x^* = \bar x + \frac{\sum_{cs} w_c (x_{cs} - \bar x n_{cs})}{\sum_{cs} w_c n_{cs}}
        + a \sum_s d_s (\bar x_s - \bar x)

    w counts how often a cluster is drawn. A study has few seeds, where drawing seeds too gives intervals that are too
    short if seeds differ (with three, the spread is 1.2 times too small and has no tails) and too long if they do not.
    So d is Student's t, and a is made of the variance between seeds, F times that of the items' noise alone: seeds add
    the share 1 - 1 / F of it. Both are moderated: with a prior of ratio F_0 and f_0 degrees of freedom, F becomes
    (f_0 F_0 + (S - 1) F) / (f_0 + S - 1), and t has f_0 + S - 1 degrees of freedom. Without a prior and without noise
    this is the t interval over seeds, and without seed effects the bootstrap over clusters. All columns use the same w
    and d, so they are paired. With S = 1 the result speaks of that one seed only.

    Three seeds cannot tell how much of their variance is their own. The share is too low just when the seeds happen to
    agree; with its root in its place a nominal 95 % interval covers the truth in 93 to 97 % of simulated studies
    (60 clusters; 3 and 5 seeds; seeds that add 0, 1, 2 and 4 times the items' standard error). A mean by itself over
    two seeds is the exception: 90 to 92 % where seeds differ. With the prior of four or more conditions whose variances
    are of a size, two seeds cover 94 to 97 % too, and intervals at three seeds are a third shorter; if the conditions'
    seeds also move together (correlation .9), coverage falls to 88 to 91 %.

    Args:
        sums (C, S, M): sum of the values per cluster, seed and column.
        counts (C, S, M): how many values each sum holds; 0 where a seed lacks a cluster.
        bootstrap: how many draws, and their source.
        prior: of `seed_prior`; the default is none.

    Returns:
        float64 (R, M): resampled means.

    Source: ours; moderated variances are those of Smyth (2004) for genes.
    """
    bootstrap = bootstrap or Bootstrap()
    n_resamples, rng = bootstrap.n_resamples, copy.deepcopy(bootstrap.rng)
    n_clusters, n_seeds, _ = sums.shape
    total = counts.sum((0, 1))  # (M,)
    mean = sums.sum((0, 1)) / total
    cells = sums - mean * counts  # (C, S, M)
    freedom = prior.freedom + max(n_seeds - 1, 1)
    shifts = _seed_stretch(seed_ratio(sums, counts), n_seeds, prior) * cells.sum(0) / total  # (S, M)
    parts = []
    for start in range(0, n_resamples, CHUNK):
        size = min(CHUNK, n_resamples - start)
        by_cluster = resampled_counts(n_clusters, size, rng)  # (R, C)
        by_seed = rng.normal(size=(size, n_seeds)) / np.sqrt(rng.chisquare(freedom, (size, 1)) / freedom)
        by_items = (by_cluster @ cells.sum(1)) / (by_cluster @ counts.sum(1))
        parts.append(mean + by_items + by_seed @ shifts)
    return np.concatenate(parts)


def _seed_stretch(ratio: np.ndarray, n_seeds: int, prior: SeedPrior) -> np.ndarray:
    """Return what the deviations of seed means are multiplied by (M,), see `crossed_bootstrap`; 0 with one seed."""
    if n_seeds == 1:
        return np.zeros_like(ratio)
    own, is_noisy = n_seeds - 1, np.isfinite(ratio)
    moderated = np.where(is_noisy, (prior.freedom * prior.ratio + own * ratio) / (prior.freedom + own), np.inf)
    share = np.clip(1 - np.divide(1, moderated, out=np.ones_like(ratio), where=moderated > 0), 0, 1)
    grown = np.divide(moderated, ratio, out=np.ones_like(ratio), where=is_noisy & (ratio > 0))
    return np.sqrt(np.sqrt(share) * grown * n_seeds / own)


def contrast_draws(
    sums: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
    bootstrap: Bootstrap | None = None,
    is_shared: bool = False,
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
        bootstrap: how many draws, and their source.
        is_shared: take the variances between seeds of the M parts as about the same, see `seed_prior`.

    Returns:
        estimates (Q,) and draws (R, Q), float64.
    """
    estimates = sums.sum((0, 1)) / counts.sum((0, 1)) @ weights
    cells, ones, prior = _contrast_cells(sums, counts, weights, is_shared)
    return estimates, estimates + crossed_bootstrap(cells, ones, bootstrap, prior)


def _contrast_cells(
    sums: np.ndarray, counts: np.ndarray, weights: np.ndarray, is_shared: bool
) -> tuple[np.ndarray, np.ndarray, SeedPrior]:
    """Return the u of `contrast_draws` (C, S, Q), their weights, with which each resample weighs 1, and their prior."""
    totals = counts.sum((0, 1))  # (M,)
    means = sums.sum((0, 1)) / totals
    n_clusters = (counts.sum(1) > 0).sum(0)  # (M,)
    scale = np.sqrt(n_clusters / np.maximum(n_clusters - 1, 1)) / totals
    deviations = (sums - means * counts) * scale  # (C, S, M)
    cells = deviations @ weights  # (C, S, Q)
    weight = 1 / (cells.shape[0] * cells.shape[1])
    ratios = seed_ratio(deviations, np.full_like(deviations, weight)) if is_shared else ()
    prior = seed_prior([np.full(cells.shape[2], ratio) for ratio in ratios], cells.shape[1])
    return cells, np.full_like(cells, weight), prior


class Spread(NamedTuple):
    """The variance of an estimate by its sources, as its interval takes them.

    Args:
        items: of which items were drawn, the same for all training runs.
        seeds: of which training runs were made; NaN for one run.
        rest: of items and training runs together.
        freedom: degrees of freedom of what is known about the training runs.
    """

    items: float
    seeds: float
    rest: float
    freedom: int

    def half_width(self, n_times: float, n_seeds: int, more_seeds: int, level: float = LEVEL) -> float:
        r"""Return half the width of the interval that another number of items and training runs would give.

        .. math:: h^2 = z^2 \left( \frac{V_{items}}{f} + \frac{V_{rest}}{f g} \right) + t^2 \frac{V_{seeds}}{g}

        with f times the items and g times the training runs, z of the normal distribution and t of Student's.

        Args:
            n_times: f.
            n_seeds: training runs behind the estimate.
            more_seeds: training runs of the interval asked for; as many as n_seeds if there is one alone.
            level: of the interval.

        >>> round(Spread(items=4.0, seeds=0.0, rest=0.0, freedom=2).half_width(4, 3, 3), 2)
        1.96
        """
        g, tail = more_seeds / n_seeds, (1 + level) / 2
        variance = stats.norm.ppf(tail) ** 2 * (self.items / n_times + self.rest / (n_times * g))
        if more_seeds > 1:
            freedom = self.freedom * (more_seeds - 1) / (n_seeds - 1)
            variance += stats.t.ppf(tail, freedom) ** 2 * self.seeds / g
        return float(np.sqrt(variance))


def contrast_spread(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray, is_shared: bool = False) -> Spread:
    r"""Return where the variance of a weighted sum of means comes from, by a two-way analysis of variance.

    .. math:: V_{items} + V_{rest} = \sum_c u_{c \cdot}^2, \quad
        V_{rest} = \frac{S}{S - 1} \sum_{cs} \left( u_{cs} - \frac{u_{c \cdot}}{S} - \frac{u_{\cdot s}}{C} \right)^2

    with u of `contrast_draws`; what seeds add is that of `crossed_bootstrap`.

    Args:
        sums (C, S, M): see `crossed_bootstrap`.
        counts (C, S, M): likewise; no part is empty.
        weights (M,): of each part.
        is_shared: as in `contrast_draws`.
    """
    cells, ones, prior = _contrast_cells(sums, counts, weights[:, None], is_shared)
    n_clusters, n_seeds, _ = sums.shape
    u = cells[..., 0]  # (C, S)
    of_cluster, of_seed = u.sum(1, keepdims=True), u.sum(0, keepdims=True)
    of_items = float((of_cluster**2).sum())
    if n_seeds == 1:
        return Spread(of_items, float("nan"), 0.0, 0)
    rest = n_seeds / (n_seeds - 1) * float(((u - of_cluster / n_seeds - of_seed / n_clusters) ** 2).sum())
    seeds = float(((_seed_stretch(seed_ratio(cells, ones), n_seeds, prior) * cells.sum(0)) ** 2).sum())
    return Spread(max(of_items - rest, 0.0), seeds, min(rest, of_items), prior.freedom + n_seeds - 1)


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


def complete_models(
    table: pd.DataFrame, column: str, values: Sequence[str], within: Sequence[str] = MODEL_COLUMNS
) -> pd.DataFrame:
    """Return the rows of base models and seeds that have all of some values of a column, such as all objectives.

    Of several training runs some may not have every arm; a comparison is one of those that have both sides.

    Args:
        table: one row per (reward model, item).
        column: such as "objective".
        values: all of which are needed; rows of others are left out.
        within: columns that name what has them or not; those that the table lacks are passed over.
    """
    keys = [name for name in within if name in table]
    rows = table[table[column].isin(values)]
    return rows[rows.groupby(keys, dropna=False)[column].transform("nunique") == len(set(values))]


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


def jackknife_interval(first: pd.Series, second: pd.Series, values: pd.Series) -> tuple[float, float]:
    """Return the jackknife interval of a mean over pairs of training runs; NaN for fewer than three runs.

    Pairs that have a run in common are not independent, so whole runs are left out, one at a time.

    Args:
        first (n,): a run of every pair.
        second (n,): the other.
        values (n,): of the pairs.

    >>> pairs = pd.DataFrame({"a": [0, 0, 1], "b": [1, 2, 2], "value": [0.4, 0.5, 0.6]})
    >>> [round(bound, 2) for bound in jackknife_interval(pairs.a, pairs.b, pairs.value)]
    [0.0, 1.0]
    """
    runs = sorted({*first, *second})
    if len(runs) < 3:
        return float("nan"), float("nan")
    without = np.array([values[(first != run) & (second != run)].mean() for run in runs])
    spread = np.sqrt((len(runs) - 1) / len(runs) * ((without - without.mean()) ** 2).sum())
    reach = spread * stats.t.ppf(TAILS[1], len(runs) - 1)
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
    """Number the distinct combinations of the columns that the table has, 0-based, (rows,).

    In sorted order, so that what is drawn by number does not depend on the order of the rows.
    """
    present = [column for column in columns if column in table.columns]
    return table.groupby(present, sort=True).ngroup().to_numpy()


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

    Of each value, conditions share what they tell about the variance between seeds, see `seed_prior`.

    Args:
        table: one row per (reward model, item).
        values: columns to average; their intervals use the same draws.
        by: columns that name a condition; [] is one condition.

    Returns:
        One row per condition: ``by``, then per value its mean, ``_ci_low``, ``_ci_high``; n_items, n_clusters, n_seeds.
    """
    rows = []
    for key, part, means, draws in _mean_draws(table, values, by, bootstrap):
        row = dict(zip(by, key, strict=True))
        for value, mean, of_value in zip(values, means, draws.T, strict=True):
            row |= bounded(value, mean, of_value)
        rows.append(row | sizes(part))
    return pd.DataFrame(rows)


def _mean_draws(
    table: pd.DataFrame, values: Sequence[str], by: Sequence[str], bootstrap: Bootstrap | None
) -> Iterator[tuple[tuple, pd.DataFrame, np.ndarray, np.ndarray]]:
    """Yield name, rows, means (M,) and their resamples (R, M) of every condition, see `mean_table`."""
    require_columns(table, [*values, *by, "seed", *CLUSTER_COLUMNS])
    bootstrap = bootstrap or Bootstrap()
    parts = [(key, part, *crossed_sums(part, values)) for key, part in conditions(table, by)]
    ratios = [seed_ratio(sums, counts) for *_, sums, counts in parts]  # each (M,)
    for key, part, sums, counts in parts:
        n_seeds = sums.shape[1]
        peers = [ratio for ratio, (_, _, other, _) in zip(ratios, parts, strict=True) if other.shape[1] == n_seeds]
        draws = crossed_bootstrap(sums, counts, bootstrap, seed_prior(peers, n_seeds))
        yield key, part, sums.sum((0, 1)) / counts.sum((0, 1)), draws


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
        error: standard error of the effect.
    """

    effect: float
    t: float
    freedom: int
    p_value: float
    error: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the effect's 95 % interval: it leaves out 0 where the two-sided p-value is below .05."""
        reach = float(stats.t.ppf(TAILS[1], self.freedom) * self.error)
        return self.effect - reach, self.effect + reach


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
    p_value = float(tails.get(alternative, 2 * stats.t.sf(abs(t), freedom)))
    return Prediction(effect, float(t), freedom, p_value, float(scale))


def two_sided_p(draws: np.ndarray) -> np.ndarray:
    """Return twice the smaller share of resamples on one side of zero, at most 1; it agrees with their interval.

    Args:
        draws (R, M): resamples of M values.

    >>> two_sided_p(np.array([[-1.0], [1.0], [2.0]])).tolist()
    [1.0]
    """
    fewer = np.minimum((draws <= 0).sum(0), (draws >= 0).sum(0))
    return np.minimum(1.0, 2 * (1 + fewer) / (1 + len(draws)))


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
        ``by``, difference, ci_low, ci_high, p_value (of the same resamples, two-sided), p_adjusted
        (Benjamini-Hochberg over the rows), n_items, n_clusters, n_seeds.
    """
    return difference_table(pair_differences(table, condition, pair, [value]), by, value, bootstrap)


def difference_table(
    differences: pd.DataFrame, by: Sequence[str] = (), value: str = "credit", bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    """Return mean differences with their intervals and tests.

    Args:
        differences: of `pair_differences`.
        by: columns that name the comparisons; they share what they tell about the variance between seeds.
        value: column with the difference.
        bootstrap: how many draws, and their source.

    Returns:
        The columns of `paired_bootstrap`.
    """
    rows = []
    for key, part, means, draws in _mean_draws(differences, [value], by, bootstrap):
        row = dict(zip(by, key, strict=True)) | bounded("difference", float(means[0]), draws[:, 0], "")
        rows.append(row | {"p_value": float(two_sided_p(draws)[0])} | sizes(part))
    result = pd.DataFrame(rows)
    if value == "credit":  # with few seeds the interval may pass what two accuracies can differ by
        result[["ci_low", "ci_high"]] = result[["ci_low", "ci_high"]].clip(-1, 1)
    result.insert(result.columns.get_loc("p_value") + 1, "p_adjusted", benjamini_hochberg(result.p_value))
    return result


def compare_evaluations(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two evaluations of the same reward models on the same items, such as two prompt templates.

    An item flips when exactly one of the evaluations has a margin above zero.

    Args:
        first: rows of one evaluation.
        second: rows of the other; the difference is first minus second.

    Returns:
        objective, flip_rate, flip_rate_ci_low, flip_rate_ci_high, difference (of accuracies), ci_low, ci_high, p_value,
        p_adjusted, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: the evaluations differ in reward models or items.

    Source: METHOD section 2, fact 16.
    """
    by, names, bootstrap = ["objective"], ("first", "second"), Bootstrap()
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


CONDITION = ["objective", "benchmark", "matched_to", "family", "fraction", "ablation_kind"]


def compared_rows(ablation: pd.DataFrame, control: str = "", scale: float = REMOVAL) -> pd.DataFrame:
    """Return the rows that one comparison with random sets is about; every analysis takes its rows through here.

    Args:
        ablation: rows of ablation.parquet.
        control: of `config.CONTROLS`: the random sets that are kept; those that match otherwise are left out. "" keeps
            of every condition of an objective, on each benchmark, the first kind that all of its reward models have.
        scale: of the activations; 0, a removal, leaves out sets that were only scaled.

    Raises:
        ValueError: if the control is unknown, or the rows are of an earlier table that names neither.
    """
    require_columns(ablation, ["family", "control", "scale"])
    rows = ablation[ablation["scale"] == scale]
    if control:
        check_choice("control", control, CONTROLS)
    return rows[(rows.control == "") | (rows.control == (control or _first_controls(rows)))]


def _first_controls(rows: pd.DataFrame) -> pd.Series:
    """Return for every row the first of `config.CONTROLS` that all reward models with its condition have."""
    found = rows[[*CONDITION, *MODEL_COLUMNS, "control"]].drop_duplicates()
    n_models = found.groupby([*CONDITION, "control"], observed=True).size().unstack(fill_value=0)
    n_models = n_models.reindex(columns=["", *CONTROLS], fill_value=0)
    is_whole = n_models[list(CONTROLS)].ge(n_models[""].replace(0, np.inf), axis=0)  # where none is: the first of all
    return rows[CONDITION].join(is_whole.idxmax(axis=1).rename("first"), on=CONDITION)["first"]


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
