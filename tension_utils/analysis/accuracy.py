"""Accuracy and the tension between objectives: from rows to the tables of the evaluation chapters."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tension_utils.config import (
    ARMS,
    MATCHED_ARM,
    MIXED,
    MIXED_ARMS,
    OBJECTIVES,
    RANDOM_MASK_ARMS,
    SHARED_MASK_ARM,
    SINGLE_OBJECTIVES,
)
from tension_utils.statistics import (
    CLUSTER_COLUMNS,
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    SIZES,
    TAILS,
    Bootstrap,
    accuracy_table,
    benjamini_hochberg,
    complete_models,
    contrast_draws,
    count_distinct,
    crossed_parts,
    difference_table,
    mean_table,
    pair_differences,
    paired_bootstrap,
    require_columns,
    widen_degenerate,
    wilson_interval,
)

BEHAVIORS = ("refuse", "respond")

PART = ("direction", "benchmark", "subset")

ACCURACIES = ("refuse_accuracy", "respond_accuracy", "balanced_accuracy")


def mixed_against_single(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("group", "benchmark", "subset"),
    bootstrap: Bootstrap | None = None,
    arm: str = MIXED,
) -> pd.DataFrame:
    """Compare a mixed arm with each single objective, item by item and seed by seed.

    Args:
        evaluation: rows of evaluation.parquet of the arm and both objectives, on the same items; seeds that lack one of
            them are left out.
        by: columns that name the comparisons.
        bootstrap: how many draws, and their source.
        arm: of `config.MIXED_ARMS`.

    Returns:
        ``by``, against (the single objective), is_own (it is the group's own; only with group in ``by``), mixed and
        single (means), difference (mixed - single), ci_low, ci_high, p_value, p_adjusted (Benjamini-Hochberg over the
        whole table), chance_accuracy, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: an objective is missing or lacks an item.

    Source: paper, claim C1; the pairing, intervals and tests are ours.
    """
    by = list(by)
    require_columns(evaluation, ["objective", "chance", "credit", *by])
    evaluation = complete_models(evaluation, "objective", (arm, *SINGLE_OBJECTIVES))
    pairs = [
        pair_differences(evaluation, "objective", (arm, single), ["credit"]).assign(against=single)
        for single in SINGLE_OBJECTIVES
    ]
    differences = pd.concat(pairs, ignore_index=True)
    parts = [differences]
    if "group" in by:  # costs on own tests are peers, as in the ledger
        parts = [part for _, part in differences.groupby(differences.group == differences.against)]
    table = pd.concat([difference_table(part, [*by, "against"], bootstrap=bootstrap) for part in parts])
    means = evaluation.groupby([*by, "objective"], dropna=False)[["credit", "chance"]].mean()
    of_single = list(table[[*by, "against"]].itertuples(index=False, name=None))
    of_mixed = [(*key[:-1], arm) for key in of_single]
    table["mixed"], table["single"] = ([means.credit.loc[key] for key in keys] for keys in (of_mixed, of_single))
    table["chance_accuracy"] = [means.chance.loc[key] for key in of_mixed]
    table["p_adjusted"] = benjamini_hochberg(table.p_value)
    if "group" in by:
        table["is_own"] = table.group == table.against
    names = [*by, "against", "is_own", "mixed", "single", "difference", "ci_low", "ci_high", "p_value", "p_adjusted"]
    names = [name for name in (*names, "chance_accuracy", *SIZES) if name in table]
    return table[names].sort_values([*by, "against"], ignore_index=True)


def own_costs(evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Compare every mixed arm with the single objective of each test's own group, test by test.

    Args:
        evaluation: rows of evaluation.parquet of both single objectives and at least one mixed arm.
        bootstrap: how many draws, and their source.

    Returns:
        The columns of `mixed_against_single`, of its rows with is_own, and objective (the arm); p_adjusted over them.

    Raises:
        ValueError: there is no mixed arm.
    """
    arms = [arm for arm in MIXED_ARMS if arm in set(evaluation.objective)]
    if not arms:
        raise ValueError(
            f"expected rows of {' or '.join(MIXED_ARMS)}; got {', '.join(sorted(set(evaluation.objective)))}"
        )
    rows = evaluation[evaluation.group.isin(SINGLE_OBJECTIVES)]
    tables = [mixed_against_single(rows, bootstrap=bootstrap, arm=arm).assign(objective=arm) for arm in arms]
    table = pd.concat(tables).query("is_own").reset_index(drop=True)
    return table.assign(p_adjusted=benjamini_hochberg(table.p_value))


def _weights(parts: list[tuple]) -> np.ndarray:
    """Return the weight of each (direction, benchmark, subset) in `ACCURACIES`, (M, 3); NaN for an absent direction."""
    direction = np.array([part[0] for part in parts])
    own = np.stack([direction == name for name in BEHAVIORS], axis=1)  # (M, 2)
    with np.errstate(invalid="ignore"):
        own = own / own.sum(0)
    return np.column_stack([own, own.mean(1)])


def _behave(rows: pd.DataFrame, bootstrap: Bootstrap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three accuracies (3,), their intervals (3, 2), and each cluster's part in them (C, 3)."""
    sums, counts, parts = crossed_parts(rows, "credit", PART)
    weights = _weights(parts)
    known = np.nan_to_num(weights)
    estimates, draws = contrast_draws(sums, counts, known, bootstrap)
    bounds = np.quantile(draws, TAILS, axis=0).T  # (3, 2)
    absent = np.isnan(weights).any(0)
    estimates[absent], bounds[absent] = np.nan, np.nan
    contributions = (sums.sum(1) / counts.sum((0, 1))) @ known  # (C, 3)
    return estimates, bounds, contributions


def _widen(estimates: np.ndarray, bounds: np.ndarray, n_clusters: Sequence[int]) -> np.ndarray:
    """Replace an interval without width by Wilson's, and pass it on to the mean of both directions.

    The direction without spread is uncorrelated with the other, so the half-widths of their mean add in quadrature
    (Newcombe 1998, "Interval estimation for the difference between independent proportions").
    """
    bounds = bounds.copy()
    flat = [index for index in range(2) if bounds[index, 0] == bounds[index, 1]]
    for index in flat:
        bounds[index] = wilson_interval(round(estimates[index] * n_clusters[index]), n_clusters[index])
    if flat:
        halves = np.sqrt(((bounds[:2] - estimates[:2, None]) ** 2).sum(0)) / 2
        bounds[2] = estimates[2] + halves * [-1, 1]
    return bounds.clip(0, 1)


def behavior_table(
    evaluation: pd.DataFrame,
    by: Sequence[str] = ("objective",),
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return how well reward models rank refusing where they should, responding where they should, and both.

    balanced accuracy = (refuse accuracy + respond accuracy) / 2; over-refusal = 1 - respond accuracy. A direction's
    accuracy is the mean over its (benchmark, subset) of their accuracies, as in the study: with pooled items the
    largest subset would speak for all, and the study's subsets differ up to fivefold in size. The subsets are fixed;
    the interval is over their items, by cluster, and over seeds, the same draws for every measure.

    Args:
        evaluation: rows of evaluation.parquet; those with another direction than refuse or respond are left out.
        by: columns that name a condition; at least one.

    Returns:
        ``by``; refuse_accuracy, respond_accuracy, balanced_accuracy and over_refusal, each with _ci_low and _ci_high;
        chance_accuracy (of the balanced one); n_refuse_items, n_respond_items, n_refuse_subsets, n_respond_subsets,
        n_clusters, n_seeds. NaN where a condition lacks a direction.

    Raises:
        ValueError: no row has a direction, or a column is missing.

    Source: METHOD section 2, fact 4.
    """
    by, bootstrap, records = list(by), bootstrap or Bootstrap(), []
    rows = _directed(evaluation, by)
    for key, part in rows.groupby(by, sort=True, dropna=False):
        estimates, bounds, contributions = _behave(part, bootstrap)
        sides = [part[part.direction == name] for name in BEHAVIORS]
        clusters = [count_distinct(side, CLUSTER_COLUMNS) for side in sides]
        bounds = _widen(estimates, bounds, clusters)
        record = dict(zip(by, key, strict=True))
        for name, value, (low, high) in zip(ACCURACIES, estimates, bounds, strict=True):
            record |= {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}
        refusal = 1 - np.array([estimates[1], bounds[1, 1], bounds[1, 0]])
        record |= dict(zip(["over_refusal", "over_refusal_ci_low", "over_refusal_ci_high"], refusal, strict=True))
        chances = part.groupby(list(PART)).chance.mean().groupby("direction").mean()
        record["chance_accuracy"] = chances.reindex(BEHAVIORS).mean(skipna=False)
        for name, side in zip(BEHAVIORS, sides, strict=True):
            record[f"n_{name}_items"] = count_distinct(side, ITEM_COLUMNS)
            record[f"n_{name}_subsets"] = count_distinct(side, ["benchmark", "subset"])
        records.append(record | {"n_clusters": len(contributions), "n_seeds": count_distinct(part, MODEL_COLUMNS)})
    return pd.DataFrame(records)


def _directed(evaluation: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the rows with a direction.

    Raises:
        ValueError: there are none, or a column is missing.
    """
    require_columns(evaluation, ["credit", "chance", "seed", "item_id", "cluster", *PART, *by])
    rows = evaluation[evaluation.direction.isin(BEHAVIORS)]
    if rows.empty:
        raise ValueError(
            f"expected items with direction {' or '.join(BEHAVIORS)}; got none; evaluate a safety benchmark"
        )
    return rows


OPPOSING = {"helpful": "harmless", "harmless": "helpful"}


def hh_tests(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests with a column ``test``: helpful, harmless, and both together."""
    rows = evaluation[evaluation.benchmark == "hh-rlhf"]
    return pd.concat([rows.assign(test=rows.group), rows.assign(test=OBJECTIVES[2])], ignore_index=True)


def in_order(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sort rows whose columns hold objectives in the order of `ARMS`."""
    return table.sort_values(list(columns), key=lambda c: c.map(list(ARMS).index), ignore_index=True)


def item_counts(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return how many items and prompts every subset has, and what was lost: one row per benchmark, subset and group.

    Returns:
        benchmark, subset, group, n_items, n_prompts, tie_rate (margins of 0), truncated_rate (prompts that lost their
        left part).
    """
    by = evaluation.groupby(["benchmark", "subset", "group"], sort=False)
    table = by.agg(
        n_items=("item_id", "nunique"),
        n_prompts=("cluster", "nunique"),
        tie_rate=("margin", lambda margin: (margin == 0).mean()),
        truncated_rate=("is_truncated", "mean"),
    )
    return table.reset_index()


def evaluated_items(evaluation: pd.DataFrame, facts: Mapping) -> pd.DataFrame:
    """Return `item_counts` with what was left out of them, and one more row per benchmark that was not run.

    Args:
        evaluation: rows of evaluation.parquet.
        facts: the section "evaluate" of a reward model's manifest.

    Returns:
        The columns of `item_counts`, n_too_long (items that do not fit) and not_run: why, else empty.
    """
    table = item_counts(evaluation)
    too_long = [facts["n_too_long"].get(f"{row.benchmark}/{row.subset}", 0) for row in table.itertuples()]
    absent = pd.DataFrame(facts["not_run"].items(), columns=["benchmark", "not_run"])
    table = pd.concat([table.assign(n_too_long=too_long), absent], ignore_index=True)
    return table.fillna({"not_run": "", "subset": "", "group": ""})


def tension_table(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the tension matrix: accuracy by training objective and test, with interval and chance.

    Args:
        evaluation: rows of evaluation.parquet.

    Returns:
        objective, test, and the columns of `statistics.accuracy_table`; at most 3 x 3 rows.
    """
    table = accuracy_table(hh_tests(evaluation), ["objective", "test"])
    return in_order(table, "objective", "test")


def conflict_table(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies apart for conflicting and agreeing pairs, for sources that mark them (the toy world).

    Returns:
        objective, test, pairs ("conflicting" or "agreeing"), and the columns of `statistics.accuracy_table`; no rows
        where the source marks nothing.
    """
    rows = hh_tests(evaluation)
    rows = rows[rows.test != OBJECTIVES[2]]
    if (rows.direction == "none").all():
        return pd.DataFrame(columns=["objective", "test", "pairs", "accuracy"])
    rows = rows.assign(pairs=np.where(rows.direction == "none", "agreeing", "conflicting"))
    return in_order(accuracy_table(rows, ["objective", "test", "pairs"]), "objective", "test")


def depth_accuracy(table: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return the accuracy of the reward that is read at every depth.

    Args:
        table: rows of depth.parquet.

    Returns:
        base_model, objective, benchmark, subset, depth (0: embeddings, L: the model's own reward), accuracy, ci_low,
        ci_high, chance_accuracy, n_items, n_clusters, n_seeds.
    """
    by = ["base_model", "objective", "benchmark", "subset", "depth"]
    names = {"credit": "accuracy", "credit_ci_low": "ci_low", "credit_ci_high": "ci_high", "chance": "chance_accuracy"}
    means = mean_table(table, ["credit", "chance"], by, bootstrap)
    return widen_degenerate(means.rename(columns=names)).drop(columns=["chance_ci_low", "chance_ci_high"])


def percent(value: float) -> str:
    """Return a share as text with one decimal.

    >>> percent(0.5)
    '50.0 %'
    """
    return f"{100 * value:.1f} %"


def interval(row: pd.Series, value: str = "accuracy") -> str:
    """Return a share with its 95 % interval and number of items."""
    return f"{percent(row[value])} [{percent(row.ci_low)}, {percent(row.ci_high)}], n = {int(row.n_items):,}"


def runs_text(n_seeds: int) -> str:
    """Return a number of training runs in words.

    >>> runs_text(1), runs_text(3)
    ('1 run', '3 runs')
    """
    return f"{n_seeds:.0f} run" + ("" if n_seeds == 1 else "s")


def points(row: pd.Series, value: str = "effect", bounds: str = "") -> str:
    """Return a difference of shares in percentage points with its 95 % interval.

    Args:
        row: has ``value``, and its interval as the columns ci_low and ci_high.
        value: name of the column.
        bounds: what the names of the interval's columns begin with.

    >>> points(pd.Series({"effect": -0.02, "ci_low": -0.05, "ci_high": 0.01}))
    '-2.0 points [-5.0, +1.0]'
    """
    low, high = row[f"{bounds}ci_low"], row[f"{bounds}ci_high"]
    return f"{100 * row[value]:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


SINGLE = "single"  # the single-objective reward model of a test, beside the mixed ones

NO_MASK, SHARED_MASK, RANDOM_MASK = "no mask", "shared mask", "random mask"

MASKS = {MATCHED_ARM: NO_MASK, SHARED_MASK_ARM: SHARED_MASK} | dict.fromkeys(RANDOM_MASK_ARMS, RANDOM_MASK)

CONTRASTS = ((SHARED_MASK, RANDOM_MASK), (SHARED_MASK, NO_MASK), (RANDOM_MASK, NO_MASK))


def mask_rows(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the credit of every HH-RLHF item under every mask; random draws are averaged item by item.

    Args:
        evaluation: rows of evaluation.parquet of the single objectives, the matched arm and its variants.

    Returns:
        base_model, seed, benchmark, subset, item_id, cluster, test (helpful, harmless, or both together as
        helpful-harmless), mask ("single": the reward model of the item's own objective), credit, chance.
    """
    require_columns(evaluation, [*MODEL_COLUMNS, *ITEM_COLUMNS, "cluster", "objective", "group", "credit", "chance"])
    masks = evaluation.objective.map(MASKS).where(evaluation.objective != evaluation.group, SINGLE)
    rows = hh_tests(evaluation.assign(mask=masks).dropna(subset="mask"))
    keys = [*MODEL_COLUMNS, *ITEM_COLUMNS, "cluster", "test", "mask"]
    return rows.groupby(keys, as_index=False)[["credit", "chance"]].mean()


def mixing_costs(evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return what mixing costs: the single-objective accuracy minus the mixed one, without and with masks.

    Args:
        evaluation: as for `mask_rows`, all reward models on the same items and seeds.

    Returns:
        mask, test, single and mixed (accuracies), cost (single - mixed), ci_low, ci_high, p_value, p_adjusted
        (Benjamini-Hochberg over the table), chance_accuracy, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: a mask lacks an item or a seed that the single-objective reward models have.

    Source: ours; the training-time variants themselves are in section 1 of METHOD.md, "Ablation".
    """
    rows, tables, bootstrap = mask_rows(evaluation), [], bootstrap or Bootstrap()
    for mask in dict.fromkeys(MASKS.values()):
        table = _paired(rows, (SINGLE, mask), bootstrap).rename(columns={"difference": "cost"})
        for position, (name, value) in enumerate({"single": SINGLE, "mixed": mask}.items()):
            table.insert(1 + position, name, table.test.map(rows[rows["mask"] == value].groupby("test").credit.mean()))
        chance = table.test.map(rows.groupby("test").chance.mean())
        table.insert(table.columns.get_loc("n_items"), "chance_accuracy", chance)
        tables.append(table.assign(mask=mask))
    return _adjusted(tables, "mask")


def mask_effects(evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return how one mask changes the cost of mixing against another; below zero the tension shrinks.

    The single-objective accuracy is the same in both costs, so the change is the mixed accuracy under the second mask
    minus that under the first, paired over items and seeds.

    Args:
        evaluation: as for `mixing_costs`.

    Returns:
        contrast ("first - second"), test, change, ci_low, ci_high, p_value, p_adjusted, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: as `mixing_costs`.
    """
    rows, tables, bootstrap = mask_rows(evaluation), [], bootstrap or Bootstrap()
    for first, second in CONTRASTS:
        table = _paired(rows, (second, first), bootstrap).rename(columns={"difference": "change"})
        tables.append(table.assign(contrast=f"{first} - {second}"))
    return _adjusted(tables, "contrast")


def _paired(rows: pd.DataFrame, pair: tuple[str, str], bootstrap: Bootstrap) -> pd.DataFrame:
    """Compare two masks test by test; an item counts in its own test and in both together."""
    tables = [
        paired_bootstrap(rows[rows.test == test], "mask", pair, bootstrap=bootstrap).assign(test=test)
        for test in OBJECTIVES
        if (rows.test == test).any()
    ]
    return _named_first(pd.concat(tables, ignore_index=True), "test")


def _adjusted(tables: list[pd.DataFrame], name: str) -> pd.DataFrame:
    """Stack tables with their name first and adjust p-values over all of them."""
    table = pd.concat(tables, ignore_index=True)
    table["p_adjusted"] = benjamini_hochberg(table.p_value)
    return _named_first(table, name)


def _named_first(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[[name, *(column for column in table.columns if column != name)]]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table that ends its line; cells are taken as they are.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
