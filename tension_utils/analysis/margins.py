"""What margins say: calibration, and what a response's length and style are worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special, stats

from tension_utils.config import MIXED, MIXED_ARMS, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    RUN_COLUMNS,
    TAILS,
    Bootstrap,
    complete_models,
    conditions,
    contrast_draws,
    count_distinct,
    crossed_parts,
    mean_table,
    pair_differences,
    require_columns,
    widen_degenerate,
)

N_BINS = 10

N_SIMULATIONS = 200


def one_to_one(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the items with one chosen and one rejected response, the only ones whose margin is a log-odds.

    Raises:
        ValueError: there are none, or a column is missing.
    """
    require_columns(evaluation, ["margin", "credit", "n_chosen", "n_rejected"])
    rows = evaluation[(evaluation.n_chosen == 1) & (evaluation.n_rejected == 1)]
    if rows.empty:
        raise ValueError("expected items with one chosen and one rejected response; got none; choose another benchmark")
    return rows


def standardized_margins(evaluation: pd.DataFrame, reference: str | None = "hh-rlhf") -> pd.DataFrame:
    """Divide every margin by its reward model's standard deviation of margins on a reference set.

    The reference set is the one-chosen, one-rejected items of one benchmark, by default both HH-RLHF tests together:
    pairs of the training distribution, the same for all reward models. Margins are not centered, so zero stays the
    border between right and wrong.

    Args:
        evaluation: rows of evaluation.parquet of one or several reward models.
        reference: benchmark of the reference set; None takes all benchmarks of the table.

    Returns:
        The table with margin_std (ddof 1) and standardized_margin (in units of it).

    Raises:
        ValueError: a reward model has no spread on the reference set, or fewer than two items there.

    Source: METHOD section 2, fact 20: Bradley-Terry training leaves level and temperature of rewards to chance.
    """
    require_columns(evaluation, ["benchmark", "objective", "seed", "margin"])
    keys = [column for column in RUN_COLUMNS if column in evaluation]
    known = evaluation if reference is None else evaluation[evaluation.benchmark == reference]
    rows = one_to_one(known)
    spread = rows.assign(margin=rows.margin.astype(float)).groupby(keys).margin.std(ddof=1).rename("margin_std")
    table = evaluation.drop(columns="margin_std", errors="ignore").join(spread, on=keys)
    bad = table[~(table.margin_std > 0)]
    if len(bad):
        raise ValueError(
            f"expected margins that differ between at least two items of {reference or 'the table'}; "
            f"not so for {bad.iloc[0][keys].to_dict()}"
        )
    return table.assign(standardized_margin=table.margin.astype(float) / table.margin_std)


def preferences(evaluation: pd.DataFrame, n_bins: int = N_BINS) -> pd.DataFrame:
    r"""Return each pair's predicted and observed chance that people prefer the response the reward model prefers.

    .. math:: \hat p_i = \sigma(|m_i|) \in [1/2, 1], \qquad y_i = \mathrm{credit}_i

    Which response of a pair comes first is arbitrary. Seen from the chosen one, every label is 1 and there is nothing
    to be calibrated; seen from both sides, the diagram mirrors itself at 1/2. So the pair is seen from the side that
    the reward model prefers: credit says whether people agree. Raw margins are meant here, since training makes their
    difference, and no rescaled one, the log-odds.

    Args:
        evaluation: rows of evaluation.parquet; items with more than two responses are left out.
        n_bins: equal bins of [1/2, 1].

    Returns:
        The rows with predicted, bin (0-based), overconfidence = predicted - credit.
    """
    rows = one_to_one(evaluation)
    predicted = special.expit(np.abs(rows.margin.to_numpy(float)))
    number = np.minimum(np.floor((predicted - 0.5) * 2 * n_bins).astype(int), n_bins - 1)
    return rows.assign(predicted=predicted, bin=number, overconfidence=predicted - rows.credit)


def reliability_table(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("objective",),
    n_bins: int = N_BINS,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return the reliability diagram: observed against predicted accuracy of the preferred response, in bins.

    Args:
        evaluation: rows of evaluation.parquet.
        by: columns that name a condition; [] is one.
        n_bins: equal bins of [1/2, 1]; empty ones have no row.

    Returns:
        ``by``, bin, bin_low, bin_high, predicted (mean), accuracy, ci_low, ci_high (of the accuracy, by cluster and
        seed; Wilson's over clusters where all agree), n_pairs (rows), n_items, n_clusters, n_seeds.
    """
    rows, keys = preferences(evaluation, n_bins), [*by, "bin"]
    table = mean_table(rows, ["predicted", "credit"], keys, bootstrap)
    names = {"credit": "accuracy", "credit_ci_low": "ci_low", "credit_ci_high": "ci_high"}
    table = widen_degenerate(table.rename(columns=names))
    edges = np.linspace(0.5, 1, n_bins + 1)
    table = table.assign(bin_low=edges[table.bin], bin_high=edges[table.bin + 1])
    table["n_pairs"] = rows.groupby(keys, sort=True, dropna=False).size().to_numpy()
    sizes = ["n_pairs", "n_items", "n_clusters", "n_seeds"]
    return table[[*keys, "bin_low", "bin_high", "predicted", "accuracy", "ci_low", "ci_high", *sizes]]


def calibration_errors(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("objective",),
    n_bins: int = N_BINS,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    r"""Return the expected calibration error and the mean overconfidence.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} |\bar p_b - \bar y_b|

    An absolute value is never below zero, so the error is too large by chance: ``ece_chance`` is what perfectly
    calibrated, independent pairs with these predictions give on average. The interval holds the sign of every bin's
    gap fixed and is meant for errors well above that; near it, read overconfidence, whose interval has no such limit.

    Args:
        evaluation: rows of evaluation.parquet; put one reward model or several with like temperatures in a condition.
        by: columns that name a condition; [] is one.
        n_bins: equal bins of [1/2, 1].

    Returns:
        ``by``, ece, ece_ci_low, ece_ci_high, ece_chance, overconfidence (mean predicted - mean accuracy) with _ci_low
        and _ci_high, n_items, n_clusters, n_seeds.

    Source: Guo et al. (2017), "On calibration of modern neural networks"; chance level ours.
    """
    rows, keys, bootstrap = preferences(evaluation, n_bins), [*by, "bin"], bootstrap or Bootstrap()
    gaps = rows.groupby(keys, dropna=False).overconfidence.transform("mean")
    rows = rows.assign(ece=np.sign(gaps) * rows.overconfidence)
    table = mean_table(rows, ["ece", "overconfidence"], by, bootstrap)
    groups = conditions(rows, by)
    table.insert(len(by) + 3, "ece_chance", [_chance_error(part, bootstrap.rng) for _, part in groups])
    table["ece_ci_low"] = table.ece_ci_low.clip(lower=0)
    return table


def _chance_error(rows: pd.DataFrame, rng: np.random.Generator) -> float:
    """Return the mean calibration error of simulated pairs that have exactly the predicted chances."""
    predicted = rows.predicted.to_numpy()
    one_hot = (rows.bin.to_numpy()[:, None] == np.unique(rows.bin)).astype(float)  # (n, B)
    gaps = [np.abs(((rng.random(len(rows)) < predicted) - predicted) @ one_hot).sum() for _ in range(N_SIMULATIONS)]
    return float(np.mean(gaps) / len(rows))


def score_shifts(evaluation: pd.DataFrame, reference: str | None = "hh-rlhf") -> pd.DataFrame:
    """Return, item by item and seed by seed, how the mixed objective shifts scores against each single one.

    Args:
        evaluation: rows of evaluation.parquet of all three objectives, on the same items; seeds that lack one of them
            are left out.
        reference: see `standardized_margins`.

    Returns:
        One row per (against, base_model, seed, item), with the item's columns and: against (the single objective),
        reward_shift (of the lowest chosen reward, raw units), margin_shift (in standard deviations of each model's
        own margins), is_both_right (margin > 0 in both models).

    Raises:
        ValueError: an objective is missing or lacks an item.
    """
    require_columns(evaluation, ["chosen_reward"])
    rows = standardized_margins(complete_models(evaluation, "objective", OBJECTIVES), reference)
    rows = rows.assign(is_both_right=rows.margin > 0, lost=(rows.margin > 0).astype(float))
    values = {"chosen_reward": "reward_shift", "standardized_margin": "margin_shift"}
    tables = []
    for single in SINGLE_OBJECTIVES:
        table = pair_differences(rows, "objective", (MIXED, single), [*values, "lost"]).rename(columns=values)
        table["is_both_right"] &= table.pop("lost") == 0  # the mixed model is right and so is the single one
        tables.append(table.assign(against=single))
    return pd.concat(tables, ignore_index=True).drop(columns=["margin", "credit", "margin_std"])


def shift_table(
    shifts: pd.DataFrame,
    by: Sequence[str] = ("group",),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return mean score shifts as published and under control.

    As published: raw rewards on items that both models rank right, a choice that depends on the outcome and a level
    that training does not fix. Under control: standardized margins on all items.

    Args:
        shifts: rows of `score_shifts`.
        by: columns that name a condition; [] is one.

    Returns:
        against, ``by``, version ("as published" or "under control"), shift, ci_low, ci_high, shift_std (between rows),
        n_items, n_clusters, n_seeds. A condition where no item is right in both has no row as published.
    """
    keys, tables, bootstrap = ["against", *by], [], bootstrap or Bootstrap()
    versions = {
        "as published": ("reward_shift", shifts[shifts.is_both_right]),
        "under control": ("margin_shift", shifts),
    }
    for version, (value, rows) in versions.items():
        if len(rows):
            table = mean_table(rows.rename(columns={value: "shift"}), ["shift"], keys, bootstrap)
            spread = rows.groupby(keys, sort=True, dropna=False)[value].std(ddof=1).to_numpy()
            table.insert(len(keys), "version", version)
            table.insert(len(keys) + 4, "shift_std", spread)
            tables.append(table.rename(columns={"shift_ci_low": "ci_low", "shift_ci_high": "ci_high"}))
    return pd.concat(tables).sort_values([*keys, "version"], ignore_index=True)


SIDES = ("model", "test", "share_with_own", "ci_low", "ci_high", "chance", "n_items", "n_seeds")

AVERAGE = "both single models, averaged"

BOTH_TESTS = "both, weighing the same"


def conflicting_margins(evaluation: pd.DataFrame, reference: str = "hh-rlhf") -> pd.DataFrame:
    """Return the mixed models' margins on the pairs where the helpful and the harmless model of their seed disagree.

    Args:
        evaluation: rows of evaluation.parquet of both single objectives and at least one mixed one.
        reference: benchmark whose pairs are taken; see `standardized_margins`.

    Returns:
        One row per (model, base_model, seed, pair): model (a mixed objective, or `AVERAGE` of both single models'
        standardized margins), test (the pair's group), benchmark, subset, item_id, cluster, margin (standard
        deviations of each model; above zero it prefers the response that the single model of the test's own objective
        prefers) and with_own (1 above zero, 0 below, 0.5 at zero). No rows where a single model is missing, or where
        the two always agree.

    Source: ours.
    """
    keys = [*MODEL_COLUMNS, *ITEM_COLUMNS, "cluster", "group"]
    names = ["model", "test", *keys[:-1], "margin", "with_own"]
    rows = evaluation[(evaluation.benchmark == reference) & evaluation.group.isin(SINGLE_OBJECTIVES)]
    if not set(SINGLE_OBJECTIVES) <= set(rows.objective):
        return pd.DataFrame(columns=names)
    rows = one_to_one(standardized_margins(rows, reference))
    wide = rows.set_index([*keys, "objective"]).standardized_margin.unstack("objective")
    first, second = SINGLE_OBJECTIVES
    wide = wide[wide[first] * wide[second] < 0].reset_index()
    own = np.sign(wide[first].where(wide.group == first, wide[second]))
    models = {name: wide[name] for name in MIXED_ARMS if name in wide}
    models[AVERAGE] = wide[[first, second]].mean(axis=1)
    parts = [wide.assign(model=name, margin=margin * own) for name, margin in models.items()]
    table = pd.concat(parts, ignore_index=True).dropna(subset="margin").rename(columns={"group": "test"})
    return table.assign(with_own=(np.sign(table.margin) + 1) / 2)[names]


def conflict_sides(conflicts: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return how often a model sides with the single model of the test's own objective, where the single ones disagree.

    A model that always leans to one side has as much below a half on one test as above it on the other: the mean of
    both is a half, whatever the lean. Only one that tells the tests apart has more.

    Args:
        conflicts: rows of `conflicting_margins`.

    Returns:
        `SIDES`: test is each of the two, then `BOTH_TESTS`; chance is 0.5.
    """
    records, bootstrap = [], bootstrap or Bootstrap()
    for model, rows in conflicts.groupby("model", sort=False):
        sums, counts, tests = crossed_parts(rows, "with_own", ["test"])  # (C, S, M), (C, S, M), M
        weights = np.column_stack([np.eye(len(tests)), np.full(len(tests), 1 / len(tests))])  # (M, M + 1)
        estimates, draws = contrast_draws(sums, counts, weights, bootstrap)
        bounds = np.quantile(draws, TAILS, axis=0).clip(0, 1).T  # (M + 1, 2)
        of_test = [(test, rows[rows.test == test]) for (test,) in tests]
        for (test, part), share, (low, high) in zip([*of_test, (BOTH_TESTS, rows)], estimates, bounds, strict=True):
            record = {"model": model, "test": test, "share_with_own": share, "ci_low": low, "ci_high": high}
            sizes = {"n_items": count_distinct(part, ITEM_COLUMNS), "n_seeds": count_distinct(part, MODEL_COLUMNS)}
            records.append(record | {"chance": 0.5} | sizes)
    table, order = pd.DataFrame(records, columns=SIDES), [*SINGLE_OBJECTIVES, BOTH_TESTS]
    return table.sort_values("test", key=lambda tests: tests.map(order.index), kind="stable", ignore_index=True)


def accuracy_gaps(
    table: pd.DataFrame,
    part: str,
    pair: tuple[str, str],
    by: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return how much more often the items of one part are ranked right than those of another.

    Args:
        table: one row per (reward model, item), with credit and the column ``part``.
        part: column that tells the parts apart.
        pair: its two values; the gap is first minus second. Clusters with items in both are drawn with both.
        by: columns that name a condition; [] is one.

    Returns:
        ``by``, accuracy_<first>, accuracy_<second>, gap, ci_low, ci_high, n_<first>, n_<second> (items), n_clusters,
        n_seeds; NaN where a condition lacks a part.
    """
    by, bootstrap = list(by), bootstrap or Bootstrap()
    require_columns(table, [part, "credit", "item_id", *by])
    records = []
    for key, rows in conditions(table, by):
        rows = rows[rows[part].isin(pair)]
        items = rows.drop_duplicates([c for c in ITEM_COLUMNS if c in rows])[part].value_counts()
        record = dict(zip(by, key, strict=True)) | {f"accuracy_{name}": np.nan for name in pair}
        record |= {"gap": np.nan, "ci_low": np.nan, "ci_high": np.nan}
        sizes = {f"n_{name}": int(items.get(name, 0)) for name in pair} | {"n_clusters": 0, "n_seeds": 0}
        if len(rows):
            sums, counts, names = crossed_parts(rows, "credit", [part])
            means = sums.sum((0, 1)) / counts.sum((0, 1))
            record |= {f"accuracy_{name}": mean for (name,), mean in zip(names, means, strict=True)}
            sizes |= {"n_clusters": counts.shape[0], "n_seeds": counts.shape[1]}
        if all(items.get(name, 0) for name in pair):
            signs = np.array([[1.0 if name == pair[0] else -1.0] for (name,) in names])
            estimates, draws = contrast_draws(sums, counts, signs, bootstrap)
            low, high = np.clip(np.quantile(draws, TAILS), -1, 1)
            record |= {"gap": estimates[0], "ci_low": low, "ci_high": high}
        records.append(record | sizes)
    return pd.DataFrame(records)


def rank_correlation_values(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    r"""Return values whose mean is Spearman's correlation and whose spread is its uncertainty.

    .. math:: \rho + \big( f_i g_i + a_i + b_i - \overline{f g + a + b} \big) / (s_f s_g)

    f and g are centered mid-ranks divided by n; a_i and b_i are how item i moves the ranks of the others (the
    infinitesimal jackknife). The spreads s depend on the data only through ties and are held fixed.

    Args:
        first (n,): without missing values.
        second (n,): likewise.

    Returns:
        float64 (n,); NaN if one of them is constant.

    Source: scipy.stats.spearmanr for the correlation itself.
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.full(len(first), np.nan)
    correlation = stats.spearmanr(first, second).statistic
    f, g = (stats.rankdata(x) / len(x) for x in (first, second))
    f, g = f - f.mean(), g - g.mean()
    pull = f * g + _moved_ranks(first, g) + _moved_ranks(second, f)
    return correlation + (pull - pull.mean()) / (f.std() * g.std())


def _moved_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over j of weights[j] * ([values[j] > values[i]] + [equal] / 2), for every i."""
    _, number = np.unique(values, return_inverse=True)
    totals = np.bincount(number, weights)
    above = totals.sum() - np.cumsum(totals)
    return (above + totals / 2)[number] / len(values)


ABOUT_AS_LONG = 1.2  # the longer response over the shorter one, at most


def of_one_length(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of items whose responses are about equally long: neither is over `ABOUT_AS_LONG` times the other.

    >>> rows = pd.DataFrame({"chosen_length": [100, 100, 130], "rejected_length": [119, 121, 100]})
    >>> of_one_length(rows).index.tolist()
    [0]
    """
    ratio = np.log(evaluation.chosen_length.astype(float) / evaluation.rejected_length).abs()
    return evaluation[ratio < np.log(ABOUT_AS_LONG)]


def length_bias_table(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("objective",),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return how far reward models prefer the longer response.

    length bias = accuracy where the chosen response is longer - accuracy where it is shorter; without any it is 0.
    The rank correlation is Spearman's, between the margin and log(chosen length / rejected length), per reward model
    and averaged.

    Args:
        evaluation: rows of evaluation.parquet; lengths are in characters, means over several responses.
        by: columns that name a condition; [] is one. Subsets differ in difficulty and in lengths: name them too, if
            the two may go together.

    Returns:
        ``by``, accuracy_longer, accuracy_shorter, length_bias, ci_low, ci_high, rank_correlation with _ci_low and
        _ci_high, n_longer, n_shorter, n_equal (items; equal ones are in the correlation only), n_clusters, n_seeds.

    Raises:
        ValueError: a length is not above zero, or a column is missing.
    """
    by, bootstrap = list(by), bootstrap or Bootstrap()
    require_columns(evaluation, ["chosen_length", "rejected_length", "margin", *by])
    if not (evaluation[["chosen_length", "rejected_length"]] > 0).all(axis=None):
        raise ValueError("expected chosen_length and rejected_length above 0; got an empty or missing response")
    ratio = np.log(evaluation.chosen_length.astype(float) / evaluation.rejected_length)
    kinds = np.array(["shorter", "equal", "longer"])[np.sign(ratio).astype(int) + 1]
    rows = evaluation.assign(log_ratio=ratio, length=kinds)
    gaps = accuracy_gaps(rows, "length", ("longer", "shorter"), by, bootstrap)
    keys = list(dict.fromkeys([*by, *(column for column in RUN_COLUMNS if column in rows)]))
    values = np.full(len(rows), np.nan)
    for index in rows.groupby(keys, dropna=False).indices.values():
        part = rows.iloc[index]
        values[index] = rank_correlation_values(part.margin.to_numpy(float), part.log_ratio.to_numpy())
    rows = rows.assign(rank_correlation=values)
    equal = rows.drop_duplicates([*by, *ITEM_COLUMNS]).assign(n_equal=lambda t: t.length == "equal")
    counted = (equal.groupby(by, dropna=False) if by else equal).n_equal.sum()
    correlations = _mean_correlations(rows, by, bootstrap)
    gaps = gaps.rename(columns={"gap": "length_bias"})
    gaps.insert(gaps.columns.get_loc("n_clusters"), "n_equal", np.atleast_1d(counted))
    names = ["rank_correlation", "rank_correlation_ci_low", "rank_correlation_ci_high"]
    for place, name in enumerate(names, gaps.columns.get_loc("ci_high") + 1):
        gaps.insert(place, name, correlations[name].clip(-1, 1).to_numpy())
    sizes = ["n_clusters", "n_seeds"]
    return gaps.assign(**{name: correlations[name].to_numpy() for name in sizes})


def _mean_correlations(rows: pd.DataFrame, by: list[str], bootstrap: Bootstrap) -> pd.DataFrame:
    """Return mean rank correlations; NaN for a condition in which a model's margins or lengths are all alike."""
    name = "rank_correlation"
    table = mean_table(rows.fillna({name: 0.0}), [name], by, bootstrap)
    groups = conditions(rows, by)
    is_unknown = np.array([part[name].isna().any() for _, part in groups])
    table.loc[is_unknown, [name, f"{name}_ci_low", f"{name}_ci_high"]] = np.nan
    return table


def style_bias_table(
    evaluation: pd.DataFrame, by: Sequence[str] = ("objective", "benchmark", "subset")
) -> pd.DataFrame:
    """Return how far reward models follow style: accuracy where style favors the chosen response, minus where not.

    Both kinds of pairs come from the same prompts, so a prompt is drawn with all of its pairs.

    Args:
        evaluation: rows of evaluation.parquet; items of another style than easy (the chosen response is of the
            richer style) and hard (the rejected one is) are left out.
        by: columns that name a condition.

    Returns:
        ``by``, accuracy_easy, accuracy_hard, style_bias, ci_low, ci_high, n_easy, n_hard (items), n_clusters, n_seeds.

    Raises:
        ValueError: no item has one of the styles, or a column is missing.

    Source: Liu et al. (2024), "RM-Bench"; paper, benchmark tables.
    """
    require_columns(evaluation, ["style", *by])
    rows = evaluation[evaluation["style"].isin(["easy", "hard"])]
    if rows.empty:
        raise ValueError("expected items with style easy or hard; got none; evaluate rm-bench")
    return accuracy_gaps(rows, "style", ("easy", "hard"), by).rename(columns={"gap": "style_bias"})
