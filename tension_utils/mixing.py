"""What mixing two objectives costs, and whether training without the neurons they share makes it cheaper."""

import numpy as np
import pandas as pd

from tension_utils.bootstrap import N_RESAMPLES
from tension_utils.comparisons import benjamini_hochberg, paired_bootstrap
from tension_utils.config import MATCHED_ARM, OBJECTIVES, RANDOM_MASK_ARMS, SHARED_MASK_ARM
from tension_utils.statistics import ITEM_COLUMNS, MODEL_COLUMNS, require_columns
from tension_utils.study_tables import hh_tests

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


def mixing_costs(evaluation: pd.DataFrame, rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Return what mixing costs: the single-objective accuracy minus the mixed one, without and with masks.

    Args:
        evaluation: as for `mask_rows`, all reward models on the same items and seeds.
        rng: source of bootstrap draws and permutations.
        n_resamples: bootstrap draws.

    Returns:
        mask, test, single and mixed (accuracies), cost (single - mixed), ci_low, ci_high, p_value, p_adjusted
        (Benjamini-Hochberg over the table), chance_accuracy, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: a mask lacks an item or a seed that the single-objective reward models have.

    Source: ours; the training-time variants themselves are in section 1 of METHOD.md, "Ablation".
    """
    rows, tables = mask_rows(evaluation), []
    for mask in dict.fromkeys(MASKS.values()):
        table = _paired(rows, (SINGLE, mask), rng, n_resamples).rename(columns={"difference": "cost"})
        for position, (name, value) in enumerate({"single": SINGLE, "mixed": mask}.items()):
            table.insert(1 + position, name, table.test.map(rows[rows["mask"] == value].groupby("test").credit.mean()))
        chance = table.test.map(rows.groupby("test").chance.mean())
        table.insert(table.columns.get_loc("n_items"), "chance_accuracy", chance)
        tables.append(table.assign(mask=mask))
    return _adjusted(tables, "mask")


def mask_effects(evaluation: pd.DataFrame, rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Return how one mask changes the cost of mixing against another; below zero the tension shrinks.

    The single-objective accuracy is the same in both costs, so the change is the mixed accuracy under the second mask
    minus that under the first, paired over items and seeds.

    Args:
        evaluation: as for `mixing_costs`.
        rng: likewise.
        n_resamples: likewise.

    Returns:
        contrast ("first - second"), test, change, ci_low, ci_high, p_value, p_adjusted, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: as `mixing_costs`.
    """
    rows, tables = mask_rows(evaluation), []
    for first, second in CONTRASTS:
        table = _paired(rows, (second, first), rng, n_resamples).rename(columns={"difference": "change"})
        tables.append(table.assign(contrast=f"{first} - {second}"))
    return _adjusted(tables, "contrast")


def _paired(rows: pd.DataFrame, pair: tuple[str, str], rng: np.random.Generator, n_resamples: int) -> pd.DataFrame:
    """Compare two masks test by test; an item counts in its own test and in both together."""
    tables = [
        paired_bootstrap(rows[rows.test == test], "mask", pair, rng, n_resamples=n_resamples).assign(test=test)
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
