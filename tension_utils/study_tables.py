"""From artifacts to the tables that carry the study, and from those to sentences."""

import itertools

import numpy as np
import pandas as pd

from tension_utils.artifacts import require
from tension_utils.config import ARMS, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.effects import ablation_effects
from tension_utils.neurons import NeuronSet, jaccard, jaccard_chance, top_neurons
from tension_utils.runs import Run
from tension_utils.scores import NeuronScores
from tension_utils.statistics import accuracy_table, analysis_rng

OPPOSING = {"helpful": "harmless", "harmless": "helpful"}


def hh_tests(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests with a column ``test``: helpful, harmless, and both together."""
    rows = evaluation[evaluation.benchmark == "hh-rlhf"]
    return pd.concat([rows.assign(test=rows.group), rows.assign(test=OBJECTIVES[2])], ignore_index=True)


def in_order(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sort rows whose columns hold objectives in the order of `ARMS`."""
    return table.sort_values(list(columns), key=lambda c: c.map(ARMS.index), ignore_index=True)


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


def run_sets(runs: list[Run], kind: str, fraction: float, scope: str = "all") -> dict[Run, NeuronSet]:
    """Return each run's top neurons by one score kind.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    files = {run: require(run.folder / "neuron_scores.safetensors", "03_identify") for run in runs}
    return {run: top_neurons(NeuronScores.load(file).get(kind, "both", scope), fraction) for run, file in files.items()}


def overlap_table(runs: list[Run], kinds: list[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the Jaccard overlap of top neurons for every pair of objectives with the same base model and seed.

    Args:
        runs: runs of at least two objectives.
        kinds: score kinds.
        fraction: share of neurons per set, in (0, 1].
        scope: token scope of the scores.

    Returns:
        base_model, seed, score_kind, pair, jaccard, jaccard_chance (two random sets of these sizes), n_shared,
        n_neurons (of one set).
    """
    rows = []
    for kind in kinds:
        sets = run_sets(runs, kind, fraction, scope)
        for a, b in itertools.combinations(runs, 2):
            if (a.base_model, a.seed) != (b.base_model, b.seed):
                continue
            first, second = sets[a], sets[b]
            rows.append(
                {
                    "base_model": a.base_model_name,
                    "seed": a.seed,
                    "score_kind": kind,
                    "pair": f"{a.objective} / {b.objective}",
                    "jaccard": jaccard(first, second),
                    "jaccard_chance": jaccard_chance(len(first), len(second), int(np.prod(first.shape))),
                    "n_shared": len(first.intersection(second)),
                    "n_neurons": len(first),
                }
            )
    return pd.DataFrame(rows)


def overlap_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean overlap per pair and kind with the range over seeds (too few for an interval) and chance."""
    groups = table.groupby(["pair", "score_kind"], sort=False)
    summary = groups.agg(
        jaccard=("jaccard", "mean"),
        ci_low=("jaccard", "min"),
        ci_high=("jaccard", "max"),
        jaccard_chance=("jaccard_chance", "mean"),
        n_shared=("n_shared", "mean"),
        n_neurons=("n_neurons", "first"),
        n_seeds=("seed", "nunique"),
    )
    return summary.reset_index()


def effect_table(ablation: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the effect of removing scored neurons, ablation minus matched random sets, per objective and test.

    Returns:
        objective, test, set, fraction, and the columns of `effects.ablation_effects`, for accuracy and margin.
    """
    tests = evaluation[evaluation.benchmark == "hh-rlhf"].groupby("subset").group.first()
    rows = ablation.assign(test=ablation.subset.map(tests))
    rows = pd.concat([rows, rows.assign(test=OBJECTIVES[2])], ignore_index=True)
    by = ["objective", "test", "set", "matched_to", "fraction", "ablation_kind"]
    return ablation_effects(rows, evaluation, by, analysis_rng(), match=("matched_to", "fraction", "ablation_kind"))


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
