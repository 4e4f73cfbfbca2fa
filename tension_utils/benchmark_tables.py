"""Accuracy per benchmark and subset, and the study's printed numbers beside it."""

from pathlib import Path

import numpy as np
import pandas as pd

from tension_utils.statistics import accuracy_table, analysis_rng, require_columns

PAPER = Path("results", "paper", "smollm2_135m.csv")  # described in the README beside it
CELL = ["objective", "benchmark", "subset"]
STUDY_STYLES = ("", "normal")  # the study pairs only responses of one style


def benchmark_table(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies by objective, benchmark, subset and style.

    Args:
        evaluation: rows of evaluation.parquet.

    Returns:
        objective, benchmark, subset, style ("" where a benchmark has none), and the columns of
        `statistics.accuracy_table`.
    """
    return accuracy_table(evaluation, [*CELL, "style"], analysis_rng())


def beside_paper(table: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Return the sub-tasks that both have, one row per objective and sub-task.

    Args:
        table: of `benchmark_table`.
        paper: objective, sub_task, benchmark, subset, percent_correct, n_train_pairs, n_seeds.

    Returns:
        objective, sub_task, paper (share correct), paper_train_pairs, accuracy, ci_low, ci_high, n_items, is_same_side:
        both on one side of chance; NaN where the interval holds it.

    Source: accuracies of cell 13 of the released notebook; RM-Bench counts the pairs of equal style, as there.
    """
    require_columns(paper, [*CELL, "sub_task", "percent_correct", "n_train_pairs"])
    rows = table[table["style"].fillna("").isin(STUDY_STYLES)]
    both = paper.merge(rows, on=CELL, how="inner", validate="one_to_one", suffixes=("_paper", ""))
    share = both.percent_correct / 100
    is_clear = (both.ci_low > both.chance_accuracy) | (both.ci_high < both.chance_accuracy)
    agrees = (share > both.chance_accuracy) == (both.accuracy > both.chance_accuracy)
    return both[["objective", "sub_task"]].assign(
        paper=share,
        paper_train_pairs=both.n_train_pairs,
        **both[["accuracy", "ci_low", "ci_high", "n_items"]],
        is_same_side=np.where(is_clear, agrees.astype(float), np.nan),
    )
