"""Which neurons two reward models share, and the controls that say how much of it means something."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_, or_

import numpy as np
import pandas as pd
from scipy.special import entr

from tension_utils.analysis.accuracy import OPPOSING
from tension_utils.artifacts import OWN_SCORES, read_manifest
from tension_utils.config import LABELS, OBJECTIVES, SHAM_ARMS, SINGLE_OBJECTIVES, Run, sham_arm
from tension_utils.neurons import (
    NeuronSet,
    jaccard,
    jaccard_chance,
    jaccard_chance_by_layer,
    shared_chances_by_layer,
    top_neurons,
)
from tension_utils.scores import HEAD_KINDS, HEADS, UNSIDED_KINDS, NeuronScores, load_view, load_views, own_scores
from tension_utils.statistics import MODEL_COLUMNS, RUN_COLUMNS, count_distinct, jackknife_interval, seed_interval

COMPARISON = ("jaccard", "jaccard_chance", "jaccard_chance_by_layer", "p_value", "n_shared", "n_neurons")

REGION_COLUMNS = tuple(f"in_{objective}" for objective in OBJECTIVES)  # membership in the three sets


def shared_count_p_value(a: NeuronSet, b: NeuronSet) -> float:
    """Return the exact probability that independent sets with these layer counts share at least as many neurons.

    The shared count is a sum of one hypergeometric variable per layer; its distribution is their convolution.
    Source: ours; the study tests no overlap.

    Returns:
        In (0, 1]. Where it is too small for a float, the smallest normal float, which is then an upper bound.

    Raises:
        ValueError: if the sets are of different models.

    >>> one = NeuronSet.of((1, 4), [(0, 0), (0, 1)])
    >>> round(shared_count_p_value(one, one), 4)  # one of the six pairs
    0.1667
    """
    n_shared, chances = len(a & b), shared_chances_by_layer(a, b)
    if not chances[:n_shared].any():  # they cannot share fewer: certain, whatever the rounding
        return 1.0
    return float(np.clip(chances[n_shared:].sum(), np.finfo(float).tiny, 1.0))


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
        names = [name for name in dict.fromkeys([*by, *MODEL_COLUMNS]) if name in table]
        summary["n_seeds"] = pd.concat([table, others])[names].drop_duplicates().groupby(list(by)).size()
    summary.loc[summary.n_pairs == 1, ["lowest", "highest"]] = np.nan
    return summary.assign(n_neurons=summary.n_neurons.round().astype(int)).reset_index()


def run_sets(runs: Sequence[Run], kind: str, fraction: float, scope: str = "all") -> dict[Run, NeuronSet]:
    """Return each run's top neurons by one score kind on its own training pairs.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return {run: top_neurons(own_scores(run).get(kind, "both", scope), fraction) for run in runs}


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


HELPFUL, HARMLESS = SINGLE_OBJECTIVES

NEEDS_SEEDS = "needs two seeds of each objective"

NO_BASE = "the untouched base model has no such score"

UNKNOWN_BASE = "the base model is not known"

SAME_MODEL, SAME_TEXT, BOTH_DIFFER = "same model, other text", "other model, same text", "both differ"

RELATIONS = (SAME_MODEL, SAME_TEXT, BOTH_DIFFER)

BASE = "base model"

TWO_OBJECTIVES, OTHER_SEED, SHAM, BASE_TEXTS = LEVELS = (
    f"{HELPFUL} / {HARMLESS}",
    "one objective, two seeds",
    "an objective / coin-flip labels",
    "base model, two texts",
)

WITH_COINS = " / coin-flip labels"  # of a comparison with a sham model on the other objective's pairs

COIN_ARMS = {objective: sham_arm(objective, LABELS[1]) for objective in SINGLE_OBJECTIVES}


def single_runs(runs: Sequence[Run]) -> list[tuple[dict[str, str | int], Run, Run]]:
    """Return the label and the helpful and the harmless run of every base model and seed that has both."""
    found = {(run.base_model_name, run.seed, run.objective): run for run in runs}
    return [
        ({"base_model": name, "seed": seed}, run, found[name, seed, HARMLESS])
        for (name, seed, objective), run in found.items()
        if objective == HELPFUL and (name, seed, HARMLESS) in found
    ]


def knows_base(run: Run) -> bool:
    """Say whether a run's scores were compared with its base model; that of an adopted one may not be known."""
    return not read_manifest(run.folder).get("identify", {}).get("left_out")


def _view_set(scores: NeuronScores, kind: str, fraction: float) -> NeuronSet | None:
    """Return the top neurons of a view, or None where it has no such kind."""
    has_kind = any(name == kind for name, _, _ in scores.tensors)
    return top_neurons(scores.get(kind), fraction) if has_kind else None


def base_model_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float) -> pd.DataFrame:
    """Return the overlap of the untouched base model on helpful text with itself on harmless text.

    So much two models of different objectives overlap if training changes nothing; training may well push them further
    apart. A score of change has no such level: the base model has not changed.

    Returns:
        base_model, seed (of the training pairs), score_kind, the columns of `compare_sets`, and not_run: why there is
        no such overlap, else empty.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: ours (METHOD.md, section 2, fact 7).
    """
    rows = []
    for label, helpful, harmless in single_runs(runs):
        is_known = knows_base(helpful) and knows_base(harmless)
        views = [load_view(run, f"base-text-{run.objective}") for run in (helpful, harmless) if is_known]
        for kind in kinds:
            first, second = (_view_set(view, kind, fraction) for view in views) if is_known else (None, None)
            found = {"jaccard": np.nan, "not_run": NO_BASE if is_known else UNKNOWN_BASE}
            if first is not None and second is not None:
                found = compare_sets(first, second) | {"not_run": ""}
            rows.append(label | {"score_kind": kind} | found)
    return comparison_table(rows, ["base_model", "seed", "score_kind", "not_run"])


def seed_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of reward models of one objective that differ in the seed alone.

    Returns:
        score_kind and the columns of `overlap.seed_pairs`; no rows for one seed.

    Source: ours (METHOD.md, section 2, fact 7).
    """
    parts = [seed_pairs(run_sets(runs, kind, fraction, scope)).assign(score_kind=kind) for kind in kinds]
    return pd.concat(parts, ignore_index=True)


def half_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of one reward model's sets by either half of its training pairs: the noise of the text alone.

    Returns:
        base_model, objective, seed, score_kind, and the columns of `compare_sets`; runs whose halves were not kept are
        left out.

    Raises:
        FileNotFoundError: no run has halves; names a missing file and the chapter to run.

    Source: ours.
    """
    rows = []
    for run, halves in load_views(runs, "half-0", "half-1").items():
        for kind in kinds:
            first, second = (top_neurons(half.get(kind, "both", scope), fraction) for half in halves)
            rows.append(run.label | {"score_kind": kind} | compare_sets(first, second))
    return comparison_table(rows, ["base_model", "objective", "seed", "score_kind"])


def sham_pairs(sets: Mapping[Run, NeuronSet]) -> pd.DataFrame:
    """Return the overlap of every single objective's set with that of coin-flip labels on the *other* text.

    Returns:
        base_model, objective, seed, and the columns of `compare_sets`; no rows without sham models.
    """
    singles = [run for run in sets if run.objective in COIN_ARMS]
    shams = {run: replace(run, objective=COIN_ARMS[OPPOSING[run.objective]]) for run in singles}
    rows = [run.label | compare_sets(sets[run], sets[sham]) for run, sham in shams.items() if sham in sets]
    return comparison_table(rows, ["base_model", "objective", "seed"])


def sham_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of every single-objective model with a model of coin-flip labels on the *other* text.

    The two sets are of the texts that the helpful and the harmless model were trained on, and no objective joins them.

    Args:
        runs: reward models, of single objectives and of sham arms; those without neuron scores are left out.
        kinds: score kinds.
        fraction: share of neurons per set.
        scope: token scope of the scores.

    Returns:
        base_model, objective, seed, score_kind, and the columns of `compare_sets`; no rows without sham models.
    """
    scored = [run for run in runs if run.objective in (*COIN_ARMS, *COIN_ARMS.values())]
    scored = [run for run in scored if (run.folder / OWN_SCORES).exists()]
    tables = [sham_pairs(run_sets(scored, kind, fraction, scope)).assign(score_kind=kind) for kind in kinds]
    names = ["base_model", "objective", "seed", "score_kind"]
    table = pd.concat(tables, ignore_index=True)
    return table[[*names, *table.columns.drop(names)]]


def level_rows(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return the overlap of the helpful and the harmless model beside what gives it a meaning, one row per comparison.

    Args:
        runs: reward models; sham models among them are compared, too.
        kinds: score kinds.
        fraction: share of neurons per set.
        scope: token scope of the scores.

    Returns:
        level (of `LEVELS`, those that there are, in their order), base_model, seed, other_seed, score_kind, and the
        columns of `compare_sets`.

    Raises:
        ValueError: no seed has both single-objective models.
    """
    single = [run for run in runs if run.objective in SINGLE_OBJECTIVES]
    of_bases = base_model_table(single, kinds, fraction) if scope == "all" else pd.DataFrame()  # it has no other scope
    parts = {
        TWO_OBJECTIVES: overlap_table(single, kinds, fraction, scope),
        OTHER_SEED: seed_table(single, kinds, fraction, scope),
        SHAM: sham_table(runs, kinds, fraction, scope),
        BASE_TEXTS: of_bases.dropna(subset="jaccard") if len(of_bases) else of_bases,
    }
    table = pd.concat([part.assign(level=name) for name, part in parts.items() if len(part)], ignore_index=True)
    others = table.other_seed if "other_seed" in table else table.seed
    table["other_seed"] = others.fillna(table.seed).astype(int)
    return table[["level", "base_model", "seed", "other_seed", "score_kind", *COMPARISON]]


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
        views |= {(BASE, run.objective): load_view(run, f"base-text-{run.objective}")
                  for run in (helpful, harmless) if knows_base(run)}  # fmt: skip
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
        jaccard_within, jaccard_between, jaccard_difference, p_value (share of relabelings with at least this
        difference), smallest_p (the least that so many sets can give), n_relabelings, n_seeds.

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
        "jaccard_within": within[0],
        "jaccard_between": between[0],
        "jaccard_difference": difference[0],
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


LAPE_QUANTILE = 0.95  # of all activation probabilities: the bar above which a neuron counts as active on a text

LAPE_FRACTION = 0.01  # share of all neurons that the method's paper selects

SIDES = ("chosen", "rejected")

GATE = " (gate)"  # suffix of a score kind read at the gate

THIRDS = ("first_third", "middle_third", "last_third")

BOUNDS = {"": "mean", "_lowest": "min", "_highest": "max"}  # suffix of a column -> what it holds


def lape_neurons(
    frequencies: Mapping[str, np.ndarray], fraction: float = LAPE_FRACTION, quantile: float = LAPE_QUANTILE
) -> dict[str, NeuronSet]:
    r"""Return the neurons most specific to one of several texts, by language activation probability entropy (LAPE).

    With p_k the share of the tokens of text k at which a neuron is above 0, and q_k = p_k / sum_j p_j, its entropy
    - sum_k q_k log q_k is low where the neuron prefers some of the texts. Neurons with no p_k above the bar, the
    ``quantile`` of the p of all neurons and texts, are left out. Of the others, exactly round(fraction x L x N) with
    the lowest entropy are taken, and each is assigned to every text on which its p_k is above the bar.

    Args:
        frequencies: text, here named by its objective -> (L, N), float in [0, 1], one model on that text.
        fraction: share of all neurons taken, in (0, 1]; ties go to the lower (layer, index).
        quantile: of the bar, in (0, 1).

    Returns:
        One set per text; a neuron may be in several.

    Raises:
        ValueError: with fewer than two texts, unlike shapes, values outside [0, 1], or fewer neurons above the bar
            than asked for.

    Source: Tang et al. 2024, arXiv 2402.16438, with languages as texts; METHOD.md, section 1, "Neuron scores". Ours
        differs because the count is exact: the method's code fills a shortage with neurons below the bar.

    >>> sets = lape_neurons({"a": np.array([[0.9, 0.8, 0.1, 0.2]]), "b": np.array([[0.1, 0.8, 0.2, 0.1]])}, 0.25, 0.5)
    >>> sets["a"].neurons, sets["b"].neurons
    ([(0, 0)], [])
    """
    p = np.stack([np.asarray(values, dtype=float) for values in frequencies.values()])  # (K, L, N)
    if len(p) < 2 or p.ndim != 3 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("frequencies: expected (layers, neurons) in [0, 1] for at least two texts")
    bar = np.quantile(p, quantile, method="inverted_cdf")  # a value that occurs; "above" is strict
    is_active = p > bar
    total = p.sum(axis=0)
    q = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    entropy = np.where(is_active.any(axis=0), entr(q).sum(axis=0), np.inf)
    chosen = top_neurons(-entropy, fraction)
    if not np.isfinite(entropy[chosen.mask]).all():
        raise ValueError(
            f"fraction: {len(chosen)} neurons asked for, but only {np.isfinite(entropy).sum()} are active on more than "
            f"{bar:.3f} of the tokens of some text; lower the fraction or the quantile"
        )
    return {name: NeuronSet(chosen.mask & active) for name, active in zip(frequencies, is_active, strict=True)}


def lape_sets(
    runs: Sequence[Run], texts: Sequence[str], fraction: float = LAPE_FRACTION
) -> dict[Run, dict[str, NeuronSet]]:
    """Return `lape_neurons` of each reward model on the training pairs of these objectives, where it has frequencies.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
        KeyError: if no reward model has the frequencies.
    """
    views = {run: {text: load_view(run, f"text-{text}") for text in texts} for run in runs}
    having = [run for run in runs if all(view.find("frequency") is not None for view in views[run].values())]
    return {
        run: lape_neurons({text: view.get("frequency") for text, view in views[run].items()}, fraction)
        for run in having or runs
    }


def head_sets(runs: Sequence[Run], fraction: float, kind: str = HEAD_KINDS[0]) -> dict[Run, NeuronSet]:
    """Return each run's top attention heads, round(fraction x L x heads) of them, as a set of shape (L, heads).

    Runs whose base model is not known are left out.

    Args:
        runs: the reward models.
        fraction: of all heads.
        kind: of `scores.HEAD_KINDS`; the first is as published: the mean over tokens of the L2 norm of the change.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: METHOD.md, section 1, "Neuron scores": heads have a change score.
    """
    return {run: top_neurons(load_view(run, HEADS).get(kind), fraction) for run in filter(knows_base, runs)}


def variant_table(
    runs: Sequence[Run], variants: Mapping[str, Callable[[Run], np.ndarray | None]], fraction: float
) -> pd.DataFrame:
    """Return the overlap, within each run, of the sets that every two ways to score its neurons select.

    Args:
        runs: reward models.
        variants: name -> function that returns a run's scores (L, N), or None where they were not kept.
        fraction: share of neurons per set, in (0, 1].

    Returns:
        base_model, objective, seed, first, second (names), and the columns of `overlap.compare_sets`.
    """
    rows = []
    for run in runs:
        found = {name: scores(run) for name, scores in variants.items()}
        sets = {name: top_neurons(values, fraction) for name, values in found.items() if values is not None}
        for first, second in itertools.combinations(sets, 2):
            rows.append(run.label | {"first": first, "second": second} | compare_sets(sets[first], sets[second]))
    return comparison_table(rows, ["base_model", "objective", "seed", "first", "second"])


def kind_table(
    runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all", gate_kinds: Sequence[str] = ()
) -> pd.DataFrame:
    """Return `variant_table` of score kinds, and of some of them read at the gate, as the published code does.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: METHOD.md, section 2, facts 2 and 3.
    """
    own = {run: own_scores(run) for run in runs}
    variants = {kind: lambda run, kind=kind: own[run].get(kind, "both", scope) for kind in kinds}
    if gate_kinds:
        gates = load_views(runs, "gate")
        variants |= {kind + GATE: _at_gate(gates, kind, scope) for kind in gate_kinds}
    return variant_table(runs, variants, fraction)


def _at_gate(
    gates: Mapping[Run, tuple[NeuronScores, ...]], kind: str, scope: str
) -> Callable[[Run], np.ndarray | None]:
    """Return what gives a run's scores at the gate, None for a run whose gate was not kept."""
    return lambda run: gates[run][0].get(kind, "both", scope) if run in gates else None


def agreement_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Return how far every two ways to score agree, with an interval over training runs.

    Args:
        compared: of `kind_table` or `variant_table`.

    Returns:
        first, second, jaccard, jaccard_ci_low and jaccard_ci_high (Student's t over seeds, whose objectives are
        averaged first; NaN for one), jaccard_chance, n_neurons, n_models, n_seeds; the most alike first.
    """
    rows = []
    for (first, second), part in compared.groupby(["first", "second"], sort=False):
        low, high = seed_interval(part.groupby(list(MODEL_COLUMNS)).jaccard.mean())
        row = {"first": first, "second": second, "jaccard": part.jaccard.mean()}
        row |= {"jaccard_ci_low": low, "jaccard_ci_high": high, "jaccard_chance": part.jaccard_chance.mean()}
        row |= {"n_neurons": round(part.n_neurons.mean()), "n_models": len(part)}
        row["n_seeds"] = count_distinct(part, MODEL_COLUMNS)
        rows.append(row)
    return pd.DataFrame(rows).sort_values("jaccard", ascending=False, ignore_index=True)


def site_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `variant_table` of the neuron against the gate, per score kind.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 3.
    """
    gates = load_views(runs, "gate")
    own, parts = {run: own_scores(run) for run in gates}, []
    for kind in kinds:
        variants = {"neuron": lambda run, kind=kind: own[run].get(kind, "both", scope)}
        variants["gate"] = _at_gate(gates, kind, scope)
        parts.append(variant_table(list(gates), variants, fraction).assign(score_kind=kind))
    return pd.concat(parts, ignore_index=True)


def side_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `variant_table` of the chosen against the rejected side, per score kind that has sides.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 18.
    """
    own = {run: own_scores(run) for run in runs}
    parts = [comparison_table([], ["score_kind", "base_model", "objective", "seed", "first", "second"])]
    for kind in (kind for kind in kinds if kind not in UNSIDED_KINDS):
        variants = {side: lambda run, kind=kind, side=side: own[run].find(kind, side, scope) for side in SIDES}
        parts.append(variant_table(runs, variants, fraction).assign(score_kind=kind))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def scope_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scopes: Sequence[str]) -> pd.DataFrame:
    """Return `variant_table` of token scopes, per score kind; no rows for one scope.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 18.
    """
    own = {run: own_scores(run) for run in runs}
    parts = []
    for kind in kinds:
        variants = {scope: lambda run, kind=kind, scope=scope: own[run].find(kind, "both", scope) for scope in scopes}
        parts.append(variant_table(runs, variants, fraction).assign(score_kind=kind))
    return pd.concat(parts, ignore_index=True)


def depth_table(sets: Mapping[str, Mapping[Run, NeuronSet]]) -> pd.DataFrame:
    """Return where selected neurons lie: the share in each third of the layers, as mean over seeds with its range.

    Args:
        sets: score kind -> run -> its set.

    Returns:
        score_kind, objective; per third its share, ``_lowest`` and ``_highest`` (NaN for a single model); n_models;
        then a last row of a uniform set (score_kind "every neuron"), which is not 1/3 where the number of layers is no
        multiple of three.

    Source: METHOD.md, section 1, "Neuron scores"; thirds of the model's own number of layers.
    """
    rows = [
        {"score_kind": kind, "objective": run.objective} | dict(zip(THIRDS, neurons.depth_profile(), strict=True))
        for kind, of_runs in sets.items()
        for run, neurons in of_runs.items()
    ]
    groups = pd.DataFrame(rows).groupby(["score_kind", "objective"], sort=False)
    spread = {third + end: (third, how) for third in THIRDS for end, how in BOUNDS.items()}
    table = groups.agg(**spread, n_models=(THIRDS[0], "size")).reset_index()
    table.loc[table.n_models == 1, [column for column in spread if column not in THIRDS]] = np.nan
    shapes = {neurons.shape for of_runs in sets.values() for neurons in of_runs.values()}
    uniform = [dict(zip(THIRDS, NeuronSet(np.ones(s, bool)).depth_profile(), strict=True)) for s in sorted(shapes)]
    table = pd.concat([table, pd.DataFrame(uniform).assign(score_kind="every neuron", objective="")], ignore_index=True)
    return table.astype({"n_models": "Int64"})


def seed_stability(halves: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Return how far every score's sets are those of another training run, beside halves of the text and chance.

    Args:
        halves: of `half_table`.
        seeds: of `seed_table`; without rows for one seed.

    Returns:
        score_kind; halves, their mean Jaccard index; other_seed, that of every two seeds; both with _lowest and
        _highest; jaccard_chance (of sets with the same layer counts); beyond (other_seed minus that), with
        beyond_ci_low and beyond_ci_high of `jackknife_interval`; p_value (the largest of any pair), n_neurons,
        n_models, n_seeds. NaN where there is one seed.
    """
    rows = []
    for kind, half in halves.groupby("score_kind", sort=False):
        row = {"score_kind": kind} | _range("halves", half.jaccard)
        pairs = seeds[seeds.score_kind == kind]
        beyond = pairs.jaccard - pairs.jaccard_chance_by_layer
        chance = (pairs if len(pairs) else half).jaccard_chance_by_layer.mean()
        row |= _range("other_seed", pairs.jaccard) | {"jaccard_chance": chance, "beyond": beyond.mean()}
        low, high = jackknife_interval(pairs.seed, pairs.other_seed, beyond)
        row |= {"beyond_ci_low": low, "beyond_ci_high": high, "p_value": pairs.p_value.max()}
        models = pd.concat([half, pairs, pairs.assign(seed=pairs.other_seed)])
        row |= {"n_neurons": round(half.n_neurons.mean()), "n_models": count_distinct(models, RUN_COLUMNS)}
        row["n_seeds"] = count_distinct(models, MODEL_COLUMNS)
        rows.append(row)
    return pd.DataFrame(rows)


def _range(name: str, values: pd.Series) -> dict[str, float]:
    """Return mean, lowest and highest as columns."""
    return {name: values.mean(), f"{name}_lowest": values.min(), f"{name}_highest": values.max()}


def relatives_table(sets: Mapping[Run, NeuronSet]) -> pd.DataFrame:
    """Return `summarize_overlaps` of any sets of reward models, by pair of objectives and by objective with itself.

    Where there are models of coin-flip labels, each single objective stands beside the one on the other's pairs, too.
    """
    main = {run: of_run for run, of_run in sets.items() if run.objective not in SHAM_ARMS}
    pairs, seeds, shams = objective_pairs(main), seed_pairs(main), sham_pairs(sets)
    parts = [pairs.assign(comparison=pairs.pair), seeds.assign(comparison=seeds.objective + ", other seed")]
    parts.append(shams.assign(comparison=shams.objective + WITH_COINS))
    return pd.concat([summarize_overlaps(part, ["comparison"]) for part in parts if len(part)], ignore_index=True)


def reading_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scopes: Sequence[str]) -> pd.DataFrame:
    """Return how far a set depends on what is read: the side, the tokens that count, and the site.

    Returns:
        score_kind; mean Jaccard over the models of "chosen / rejected", of every two ``scopes``, and of
        "neuron / gate", NaN where a kind has no such choice or no model kept it; jaccard_chance, n_models.
    """
    parts = [
        side_table(runs, kinds, fraction, scopes[0]),
        scope_table(runs, kinds, fraction, scopes),
        site_table(runs, kinds, fraction, scopes[0]),
    ]
    rows = pd.concat([part for part in parts if len(part)])
    pair = rows["first"] + " / " + rows["second"]
    wide = rows.groupby(["score_kind", pair], sort=False).jaccard.mean().unstack().reindex(index=kinds)
    wide = wide[list(dict.fromkeys(pair))].rename_axis(index="score_kind", columns=None)
    wide = wide.reset_index().assign(jaccard_chance=rows.jaccard_chance.mean())
    return wide.assign(n_models=count_distinct(rows, RUN_COLUMNS))


def lape_table(
    lape: Mapping[Run, Mapping[str, NeuronSet]], sets: Mapping[str, Mapping[Run, NeuronSet]]
) -> pd.DataFrame:
    """Return how many neurons entropy selects for each text, and how many of them other scores select too.

    Args:
        lape: of `lape_sets`, for two texts.
        sets: score kind -> run -> its set, all of one fraction.

    Returns:
        objective, n_selected, n_<text>_text, n_both, share_in_<kind> (means over base models and seeds), chance (of
        these shares), n_models.
    """
    rows = []
    for run, of_text in lape.items():
        both, either = reduce(and_, of_text.values()), reduce(or_, of_text.values())
        row = {"objective": run.objective, "n_selected": len(either)}
        row |= {f"n_{text}_text": len(own) for text, own in of_text.items()} | {"n_both": len(both)}
        row |= {f"share_in_{kind}": len(either & of_runs[run]) / len(either) for kind, of_runs in sets.items()}
        rows.append(row | {"chance": np.mean([of_runs[run].fraction for of_runs in sets.values()])})
    groups = pd.DataFrame(rows).groupby("objective", sort=False)
    return groups.mean().assign(n_models=groups.size()).reset_index()


def layer_shares(sets: Mapping[str, Mapping[Run, NeuronSet]]) -> pd.DataFrame:
    """Return the share of each set that lies in every layer: objective, score_kind, layer, share (mean over runs).

    Args:
        sets: score kind -> run -> its set.
    """
    rows = [
        {"objective": run.objective, "score_kind": kind, "layer": layer, "share": count / len(neurons)}
        for kind, of_runs in sets.items()
        for run, neurons in of_runs.items()
        for layer, count in enumerate(neurons.counts_by_layer())
    ]
    return pd.DataFrame(rows).groupby(["objective", "score_kind", "layer"], as_index=False).share.mean()
