"""How many neurons the sets of objectives share, and how many chance would give them: two at a time, and all three.

Rows are pairs of sets. Every comparison carries the columns of `compare_sets`.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from tension_utils.config import OBJECTIVES
from tension_utils.neurons import NeuronSet, jaccard, jaccard_chance, jaccard_chance_by_layer, top_neurons
from tension_utils.runs import Run
from tension_utils.scores import own_scores

COMPARISON = ("jaccard", "jaccard_chance", "jaccard_chance_by_layer", "p_value", "n_shared", "n_neurons")
REGION_COLUMNS = tuple(f"in_{objective}" for objective in OBJECTIVES)  # membership in the three sets


def shared_count_p_value(a: NeuronSet, b: NeuronSet, outside: NeuronSet | None = None) -> float:
    """Return the exact probability that independent sets with these layer counts share at least as many neurons.

    The shared count is a sum of one hypergeometric variable per layer; its distribution is their convolution. Neurons
    ``outside`` are left out of both sets and of what chance draws from. Source: ours; the study tests no overlap.

    Returns:
        In (0, 1]. Where it is too small for a float, the smallest normal float, which is then an upper bound.

    Raises:
        ValueError: if the sets are of different models.

    >>> one = NeuronSet.of((1, 4), [(0, 0), (0, 1)])
    >>> round(shared_count_p_value(one, one), 4)  # one of the six pairs
    0.1667
    """
    outside = NeuronSet(np.zeros(a.shape, bool)) if outside is None else outside
    a, b, probability = a - outside, b - outside, np.ones(1)
    n_shared, n_free = len(a & b), a.shape[1] - outside.counts_by_layer()
    for free, of_a, of_b in zip(n_free, a.counts_by_layer(), b.counts_by_layer(), strict=True):
        if free:
            probability = np.convolve(probability, hypergeom.pmf(np.arange(min(of_a, of_b) + 1), free, of_a, of_b))
    if not probability[:n_shared].any():  # they cannot share fewer: certain, whatever the rounding
        return 1.0
    return float(np.clip(probability[n_shared:].sum(), np.finfo(float).tiny, 1.0))


def compare_sets(a: NeuronSet, b: NeuronSet) -> dict[str, float | int]:
    """Return the overlap of two sets as columns of a row.

    Returns:
        jaccard; its chance for these sizes, and by layer; p_value of the latter; n_shared; n_neurons of the first.
    """
    return {
        "jaccard": jaccard(a, b),
        "jaccard_chance": jaccard_chance(len(a), len(b), a.mask.size),
        "jaccard_chance_by_layer": jaccard_chance_by_layer(a, b),
        "p_value": shared_count_p_value(a, b),
        "n_shared": len(a & b),
        "n_neurons": len(a),
    }


def summarize_overlaps(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return mean overlaps with their range: a few seeds, or pairs of them, are too few for an interval.

    Args:
        table: rows with the columns of `compare_sets` and ``by``; NaN overlaps are left out.
        by: columns that name a group, in the order of their first rows.

    Returns:
        ``by``, jaccard, lowest and highest (NaN for a single pair), jaccard_chance, jaccard_chance_by_layer, p_value
        (the largest), n_shared (mean), n_neurons (of the first set, mean, rounded), n_pairs (rows); n_seeds where the
        table has seeds.
    """
    table = table.dropna(subset="jaccard")
    groups = table.groupby(list(by), sort=False)
    summary = groups.agg(
        jaccard=("jaccard", "mean"),
        lowest=("jaccard", "min"),
        highest=("jaccard", "max"),
        jaccard_chance=("jaccard_chance", "mean"),
        jaccard_chance_by_layer=("jaccard_chance_by_layer", "mean"),
        p_value=("p_value", "max"),
        n_shared=("n_shared", "mean"),
        n_neurons=("n_neurons", "mean"),
        n_pairs=("jaccard", "size"),
    )
    if "seed" in table:
        others = table.assign(seed=table.get("other_seed", table.seed))
        summary["n_seeds"] = pd.concat([table, others]).groupby(list(by)).seed.nunique()
    summary.loc[summary.n_pairs == 1, ["lowest", "highest"]] = np.nan
    return summary.assign(n_neurons=summary.n_neurons.round().astype(int)).reset_index()


def run_sets(
    runs: Sequence[Run], kind: str, fraction: float, scope: str = "all", side: str = "both"
) -> dict[Run, NeuronSet]:
    """Return each run's top neurons by one score kind on its own training pairs.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return {run: top_neurons(own_scores(run).get(kind, side, scope), fraction) for run in runs}


def comparison_table(rows: Sequence[dict], names: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table that has the columns of `compare_sets` after ``names`` also where there is no row."""
    return pd.DataFrame(rows, columns=[*names, *COMPARISON])


def objective_pairs(sets: Mapping[Run, NeuronSet]) -> pd.DataFrame:
    """Return the overlap of every two objectives with the same base model and seed.

    Returns:
        base_model, seed, pair ("helpful / harmless"), and the columns of `compare_sets`.
    """
    rows = [
        {"base_model": a.base_model_name, "seed": a.seed, "pair": f"{a.objective} / {b.objective}"}
        | compare_sets(sets[a], sets[b])
        for a, b in itertools.combinations(sets, 2)
        if (a.base_model, a.seed) == (b.base_model, b.seed)
    ]
    return comparison_table(rows, ["base_model", "seed", "pair"])


def seed_pairs(sets: Mapping[Run, NeuronSet]) -> pd.DataFrame:
    """Return the overlap of every two seeds with the same base model and objective.

    Returns:
        base_model, objective, seed, other_seed, and the columns of `compare_sets`; no rows for one seed.
    """
    rows = [
        a.label | {"other_seed": b.seed} | compare_sets(sets[a], sets[b])
        for a, b in itertools.combinations(sets, 2)
        if (a.base_model, a.objective) == (b.base_model, b.objective)
    ]
    return comparison_table(rows, ["base_model", "objective", "seed", "other_seed"])


def overlap_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of top neurons for every pair of objectives with the same base model and seed.

    Args:
        runs: runs of at least two objectives.
        kinds: score kinds.
        fraction: share of neurons per set, in (0, 1].
        scope: token scope of the scores.

    Returns:
        score_kind and the columns of `objective_pairs`.

    Raises:
        ValueError: if no two runs share base model and seed.

    Source: METHOD.md, section 1, "Overlap"; ours differs because sets have exact counts, one pair per seed.
    """
    parts = [objective_pairs(run_sets(runs, kind, fraction, scope)).assign(score_kind=kind) for kind in kinds]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise ValueError(f"objectives: an overlap needs two of {', '.join(OBJECTIVES)} with the same seed")
    return table


def overlap_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return `summarize_overlaps` of an overlap table, per pair of objectives and score kind."""
    return summarize_overlaps(table, ["pair", "score_kind"])


def combined_overlap_table(
    runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all"
) -> pd.DataFrame:
    """Return the overlap of the mixed model's set with the union of both single models' sets.

    |(He u Ha) n HH| / |He u Ha u HH| is the Jaccard index of He u Ha and HH, so its chance level and p-value are exact:
    those of a random set with the layer counts of HH beside He u Ha as it is.

    Returns:
        base_model, seed, score_kind, the columns of `compare_sets` (n_neurons: of the union), and largest_possible:
        the index if every neuron of the smaller set were in the larger one. Seeds without all three models give no row.

    Source: METHOD.md, section 1, "Overlap"; the levels are ours.
    """
    rows = []
    for kind in kinds:
        for label, (helpful, harmless, mixed) in objective_sets(runs, kind, fraction, scope):
            union = helpful | harmless
            sizes = sorted([len(union), len(mixed)])
            row = label | {"score_kind": kind} | compare_sets(union, mixed)
            rows.append(row | {"largest_possible": sizes[0] / sizes[1]})
    return comparison_table(rows, ["base_model", "seed", "score_kind", "largest_possible"])


def objective_sets(
    runs: Sequence[Run], kind: str, fraction: float, scope: str = "all"
) -> list[tuple[dict[str, str | int], tuple[NeuronSet, NeuronSet, NeuronSet]]]:
    """Return label and sets, in the order of `OBJECTIVES`, of every base model and seed that has all three."""
    found: dict[tuple[str, int], dict[str, NeuronSet]] = {}
    for run, neurons in run_sets(runs, kind, fraction, scope).items():
        found.setdefault((run.base_model_name, run.seed), {})[run.objective] = neurons
    return [
        ({"base_model": name, "seed": seed}, tuple(sets[objective] for objective in OBJECTIVES))
        for (name, seed), sets in found.items()
        if set(OBJECTIVES) <= set(sets)
    ]


def region_sizes(sets: Sequence[NeuronSet]) -> pd.DataFrame:
    """Return how many neurons lie in exactly these of three sets, for the seven ways to lie in any.

    Args:
        sets: of the helpful, the harmless and the mixed model.

    Returns:
        in_helpful, in_harmless, in_helpful-harmless (bool), n_neurons, and n_expected of independent sets with the
        same layer counts: sum over layers of N times a factor c / N or 1 - c / N per set, exact.

    Source: ours.
    """
    n_per_layer = sets[0].shape[1]
    masks = np.stack([neurons.mask for neurons in sets])  # (3, L, N)
    shares = np.stack([neurons.counts_by_layer() for neurons in sets]) / n_per_layer  # (3, L)
    rows = []
    for members in sorted(itertools.product((True, False), repeat=3), key=sum)[1:]:
        inside = np.array(members)
        expected = n_per_layer * np.where(inside[:, None], shares, 1 - shares).prod(axis=0).sum()
        count = (masks == inside[:, None, None]).all(axis=0).sum()
        rows.append((*members, int(count), float(expected)))
    return pd.DataFrame(rows, columns=[*REGION_COLUMNS, "n_neurons", "n_expected"])


def region_table(runs: Sequence[Run], kind: str, fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `region_sizes` as mean over seeds with their range.

    Returns:
        The columns of `region_sizes`, lowest, highest, n_models; no rows without all three objectives.
    """
    parts = [region_sizes(sets).assign(**label) for label, sets in objective_sets(runs, kind, fraction, scope)]
    if not parts:
        return pd.DataFrame(columns=[*REGION_COLUMNS, "n_neurons", "n_expected", "lowest", "highest", "n_models"])
    groups = pd.concat(parts).groupby(list(REGION_COLUMNS), sort=False)
    table = groups.agg(
        n_neurons=("n_neurons", "mean"),
        n_expected=("n_expected", "mean"),
        lowest=("n_neurons", "min"),
        highest=("n_neurons", "max"),
        n_models=("n_neurons", "size"),
    )
    return table.reset_index()
