"""From artifacts to the tables that carry the study, and from those to sentences."""

import numpy as np
import pandas as pd

from tension_utils.bootstrap import N_RESAMPLES
from tension_utils.config import ARMS, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.statistics import accuracy_table, analysis_rng, mean_table, widen_degenerate

OPPOSING = {"helpful": "harmless", "harmless": "helpful"}


def hh_tests(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests with a column ``test``: helpful, harmless, and both together."""
    rows = evaluation[evaluation.benchmark == "hh-rlhf"]
    return pd.concat([rows.assign(test=rows.group), rows.assign(test=OBJECTIVES[2])], ignore_index=True)


def in_order(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sort rows whose columns hold objectives in the order of `ARMS`."""
    return table.sort_values(list(columns), key=lambda c: c.map(list(ARMS).index), ignore_index=True)


def tension_table(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the tension matrix: accuracy by training objective and test, with interval and chance.

    Args:
        evaluation: rows of evaluation.parquet.

    Returns:
        objective, test, and the columns of `statistics.accuracy_table`; at most 3 x 3 rows.
    """
    table = accuracy_table(hh_tests(evaluation), ["objective", "test"], analysis_rng())
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
    return in_order(accuracy_table(rows, ["objective", "test", "pairs"], analysis_rng()), "objective", "test")


def interpolation_frontier(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy on each HH-RLHF test at every weight between the helpful and the harmless reward model.

    Args:
        table: rows of interpolation.parquet.

    Returns:
        base_model, harmless_weight, test (helpful, harmless, and both together), and the columns of
        `statistics.accuracy_table`.
    """
    by = ["base_model", "harmless_weight", "test"]
    frontier = accuracy_table(hh_tests(table), by, analysis_rng())
    return frontier.sort_values(by, key=lambda c: c.map(list(ARMS).index) if c.name == "test" else c, ignore_index=True)


def depth_accuracy(table: pd.DataFrame, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Return the accuracy of the reward that is read at every depth.

    Args:
        table: rows of depth.parquet.
        n_resamples: bootstrap draws.

    Returns:
        base_model, objective, benchmark, subset, depth (0: embeddings, L: the model's own reward), accuracy, ci_low,
        ci_high, chance_accuracy, n_items, n_clusters, n_seeds.
    """
    by = ["base_model", "objective", "benchmark", "subset", "depth"]
    names = {"credit": "accuracy", "credit_ci_low": "ci_low", "credit_ci_high": "ci_high", "chance": "chance_accuracy"}
    means = mean_table(table, ["credit", "chance"], by, analysis_rng(), n_resamples)
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


def points(row: pd.Series) -> str:
    """Return an effect in percentage points with its 95 % interval."""
    return f"{100 * row.effect:+.1f} points [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]"


def tension_sentence(table: pd.DataFrame) -> str:
    """Return the tension matrix in words.

    Args:
        table: columns of `tension_table`, all objectives and both single tests.
    """
    cells = table.set_index(["objective", "test"])
    own, other, mixed = (
        [interval(cells.loc[pair]) for pair in pairs]
        for pairs in (
            [(o, o) for o in SINGLE_OBJECTIVES],
            list(OPPOSING.items()),
            [(OBJECTIVES[2], o) for o in SINGLE_OBJECTIVES],
        )
    )
    return f"""A reward model trained to be helpful ranks {own[0]} of helpful pairs as people do,
   and {other[0]} of harmless pairs. One trained to be harmless ranks {own[1]} of harmless pairs as
   people do, and {other[1]} of helpful ones. Trained on both: {mixed[0]} of helpful and {mixed[1]}
   of harmless pairs."""
