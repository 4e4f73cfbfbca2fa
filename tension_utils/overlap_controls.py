"""What an overlap is measured against: the untouched base model, other seeds, half of the text, other text.

Chance is the least demanding level (`overlap.compare_sets`). The floor is what the base model gives without any
training, the ceiling what the same objective gives when it is learned twice.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tension_utils.config import SINGLE_OBJECTIVES
from tension_utils.neurons import NeuronSet, jaccard, top_neurons
from tension_utils.overlap import (
    compare_sets,
    comparison_table,
    overlap_summary,
    overlap_table,
    run_sets,
    seed_pairs,
    shared_count_p_value,
)
from tension_utils.runs import Run
from tension_utils.scores import NeuronScores, load_view, own_scores

HELPFUL, HARMLESS = SINGLE_OBJECTIVES
NEEDS_SEEDS = "needs two seeds of each objective"
NO_BASE = "the untouched base model has no such score"
SAME_MODEL, SAME_TEXT, BOTH_DIFFER = "same model, other text", "other model, same text", "both differ"
RELATIONS = (SAME_MODEL, SAME_TEXT, BOTH_DIFFER)
BASE = "base model"
LOUD = "mean_abs"  # the score by which a neuron is loud before training


def single_runs(runs: Sequence[Run]) -> list[tuple[dict[str, str | int], Run, Run]]:
    """Return the label and the helpful and the harmless run of every base model and seed that has both."""
    found = {(run.base_model_name, run.seed, run.objective): run for run in runs}
    return [
        ({"base_model": name, "seed": seed}, run, found[name, seed, HARMLESS])
        for (name, seed, objective), run in found.items()
        if objective == HELPFUL and (name, seed, HARMLESS) in found
    ]


def _view_set(scores: NeuronScores, kind: str, fraction: float) -> NeuronSet | None:
    """Return the top neurons of a view, or None where it has no such kind."""
    has_kind = any(name == kind for name, _, _ in scores.tensors)
    return top_neurons(scores.get(kind), fraction) if has_kind else None


def floor_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float) -> pd.DataFrame:
    """Return the overlap of the untouched base model on helpful text with itself on harmless text.

    Two trained models overlap at least so much if training changes nothing. A score of change has no such floor: the
    base model has not changed.

    Returns:
        base_model, seed (of the training pairs), score_kind, the columns of `compare_sets`, and not_run: why there is
        no floor, else empty.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: ours (METHOD.md, section 2, fact 7).
    """
    rows = []
    for label, helpful, harmless in single_runs(runs):
        views = [load_view(run, f"base-text-{run.objective}") for run in (helpful, harmless)]
        for kind in kinds:
            first, second = (_view_set(view, kind, fraction) for view in views)
            found = {"jaccard": np.nan, "not_run": NO_BASE}
            if first is not None and second is not None:
                found = compare_sets(first, second) | {"not_run": ""}
            rows.append(label | {"score_kind": kind} | found)
    return comparison_table(rows, ["base_model", "seed", "score_kind", "not_run"])


def quiet_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float) -> pd.DataFrame:
    """Return the overlap of the objectives outside the base model's own top sets by `LOUD` on either text.

    Neurons with large activations enter most sets, whatever a model was trained for: two models share more than chance
    without sharing anything they learned. Source: ours; `planted_claims` measures its error rates.

    Returns:
        base_model, seed, score_kind, n_shared, n_expected by chance, p_value, n_neurons left of the helpful set.
    """
    rows = []
    for label, helpful, harmless in single_runs(runs):
        first, second = (
            _view_set(load_view(run, f"base-text-{run.objective}"), LOUD, fraction) for run in (helpful, harmless)
        )
        loud = first | second
        for kind in kinds:
            a, b = (top_neurons(own_scores(run).get(kind), fraction) - loud for run in (helpful, harmless))
            n_free = a.shape[1] - loud.counts_by_layer()
            expected = (a.counts_by_layer() * b.counts_by_layer() / np.maximum(n_free, 1)).sum()
            found = {"n_shared": len(a & b), "n_expected": expected, "p_value": shared_count_p_value(a, b, loud)}
            rows.append(label | {"score_kind": kind} | found | {"n_neurons": len(a)})
    return pd.DataFrame(rows)


def seed_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of reward models of one objective that differ in the seed: the ceiling of any overlap.

    Returns:
        score_kind and the columns of `overlap.seed_pairs`; no rows for one seed.

    Source: ours (METHOD.md, section 2, fact 7).
    """
    parts = [seed_pairs(run_sets(runs, kind, fraction, scope)).assign(score_kind=kind) for kind in kinds]
    return pd.concat(parts, ignore_index=True)


def half_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of one reward model's sets by either half of its training pairs: the noise of the text alone.

    Returns:
        base_model, objective, seed, score_kind, and the columns of `compare_sets`.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: ours.
    """
    rows = []
    for run in runs:
        halves = [load_view(run, f"half-{number}") for number in (0, 1)]
        for kind in kinds:
            first, second = (top_neurons(half.get(kind, "both", scope), fraction) for half in halves)
            rows.append(run.label | {"score_kind": kind} | compare_sets(first, second))
    return comparison_table(rows, ["base_model", "objective", "seed", "score_kind"])


def reference_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of every pair of objectives between its floor and its ceiling.

    Returns:
        The columns of `overlap.overlap_summary`; floor, of helpful against harmless alone (NaN for other pairs, for
        scores without one, and for scopes other than "all", which the base model's scores lack); ceiling, the mean
        over the seed pairs of both objectives (NaN for one seed).
    """
    table = overlap_summary(overlap_table(runs, kinds, fraction, scope))
    floors = floor_table(runs, kinds, fraction) if scope == "all" else pd.DataFrame()
    seeds = seed_table(runs, kinds, fraction, scope)

    def floor(row: pd.Series) -> float:
        is_there = len(floors) and row.pair == f"{HELPFUL} / {HARMLESS}"
        return floors[floors.score_kind == row.score_kind].jaccard.mean() if is_there else np.nan

    def ceiling(row: pd.Series) -> float:
        part = seeds[(seeds.score_kind == row.score_kind) & seeds.objective.isin(row.pair.split(" / "))]
        return part.groupby("objective").jaccard.mean().mean()  # both objectives count the same

    return table.assign(floor=table.apply(floor, axis=1), ceiling=table.apply(ceiling, axis=1))


def cross_design_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float) -> pd.DataFrame:
    """Return all pairwise overlaps of three models on two texts, which tells "same model" from "same text".

    Models: the helpful and the harmless reward model and the base model; texts: the training pairs of either objective.

    Returns:
        base_model, seed, score_kind, relation (of `RELATIONS`), models ("helpful / base model"), first, second
        ("helpful on harmless text"), and the columns of `compare_sets`. A score of change has no cells of the base
        model.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: ours (METHOD.md, section 2, fact 7).
    """
    rows = []
    for label, helpful, harmless in single_runs(runs):
        views = {(run.objective, text): load_view(run, f"text-{text}")
                 for run in (helpful, harmless) for text in SINGLE_OBJECTIVES}  # fmt: skip
        views |= {(BASE, run.objective): load_view(run, f"base-text-{run.objective}") for run in (helpful, harmless)}
        for kind in kinds:
            sets = {cell: _view_set(view, kind, fraction) for cell, view in views.items()}
            cells = [cell for cell, neurons in sets.items() if neurons is not None]
            for a, b in itertools.combinations(cells, 2):
                rows.append(label | {"score_kind": kind} | _names(a, b) | compare_sets(sets[a], sets[b]))
    return comparison_table(rows, ["base_model", "seed", "score_kind", "relation", "models", "first", "second"])


def _names(a: tuple[str, str], b: tuple[str, str]) -> dict[str, str]:
    """Return the columns that name a pair of (model, text)."""
    relation = SAME_MODEL if a[0] == b[0] else SAME_TEXT if a[1] == b[1] else BOTH_DIFFER
    models = a[0] if a[0] == b[0] else f"{a[0]} / {b[0]}"
    first, second = (f"{model} on {text} text" for model, text in (a, b))
    return {"relation": relation, "models": models, "first": first, "second": second}


def objective_permutation_test(first: Sequence[NeuronSet], second: Sequence[NeuronSet]) -> dict[str, float | int]:
    """Test whether sets of one objective overlap more within the objective than between two of them.

    The statistic, mean Jaccard within minus mean between, is computed for every way to relabel the sets.

    Args:
        first: sets of one objective, one per seed.
        second: sets of the other.

    Returns:
        within, between, difference, p_value (share of relabelings with at least this difference), smallest_p (the least
        that so many sets can give), n_relabelings, n_seeds.

    Raises:
        ValueError: if an objective has fewer than two sets.

    Source: ours (METHOD.md, section 2, facts 7 and 17).
    """
    n_first, n_second = len(first), len(second)
    if min(n_first, n_second) < 2:
        raise ValueError(f"a permutation of objectives {NEEDS_SEEDS}; got {n_first} and {n_second}")
    sets, n = [*first, *second], n_first + n_second
    overlap = np.array([[jaccard(a, b) for a in sets] for b in sets])  # (n, n)
    chosen = np.array(list(itertools.combinations(range(n), n_first)))  # row 0 is the true labeling
    labels = np.full((len(chosen), n), -1.0)
    np.put_along_axis(labels, chosen, 1.0, axis=1)
    same = labels[:, :, None] == labels[:, None, :]  # (R, n, n)
    is_pair = np.triu(np.ones((n, n), bool), 1)
    within, between = ((overlap * part).sum((1, 2)) / part.sum((1, 2)) for part in (same & is_pair, ~same & is_pair))
    difference = within - between
    return {
        "within": within[0],
        "between": between[0],
        "difference": difference[0],
        "p_value": float((difference >= difference[0] - 1e-12).mean()),
        "smallest_p": (2 if n_first == n_second else 1) / len(chosen),  # swapping both names changes nothing
        "n_relabelings": len(chosen),
        "n_seeds": min(n_first, n_second),
    }


def permutation_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `objective_permutation_test` of the helpful against the harmless models, per base model and score kind.

    Returns:
        base_model, score_kind, the columns of the test, and not_run: why there is no test, else empty.
    """
    rows = []
    names = dict.fromkeys(run.base_model_name for run in runs)
    for name, kind in itertools.product(names, kinds):
        of_model = [run for run in runs if run.base_model_name == name and run.objective in SINGLE_OBJECTIVES]
        sets = run_sets(of_model, kind, fraction, scope)
        both = [[sets[run] for run in of_model if run.objective == objective] for objective in SINGLE_OBJECTIVES]
        enough = min(map(len, both)) >= 2
        found: Mapping = objective_permutation_test(*both) if enough else {"n_seeds": min(map(len, both))}
        rows.append({"base_model": name, "score_kind": kind} | dict(found) | {"not_run": "" if enough else NEEDS_SEEDS})
    return pd.DataFrame(rows)
