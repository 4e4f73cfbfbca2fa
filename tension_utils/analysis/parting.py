"""Where two objectives part: by depth, in gradients, in weight changes, and in the signs of single neurons."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import OPPOSING
from tension_utils.analysis.claims import TARGETED
from tension_utils.analysis.overlap import single_runs
from tension_utils.artifacts import OWN_SCORES
from tension_utils.conditions import SHARED
from tension_utils.config import ARMS, MIXED_ARMS, OBJECTIVES, SHAM_ARMS, SINGLE_OBJECTIVES, Run, SinglePair
from tension_utils.cosines import cosine_table, objective_cosines
from tension_utils.neurons import N_ACTIVITY_BINS, NeuronSet, activity_bins, top_neurons
from tension_utils.scores import load_view, own_scores
from tension_utils.statistics import (
    ANALYSIS_SEED,
    MODEL_COLUMNS,
    TAILS,
    Bootstrap,
    bounded,
    contrast_draws,
    count_distinct,
    crossed_parts,
    prediction_test,
    seed_interval,
    sizes,
)

HELPFUL, HARMLESS = SINGLE_OBJECTIVES

WHOLE = "whole model"


def hh_depths(depth: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests by depth, all subsets of an objective as one: ``subset`` is the objective.

    Args:
        depth: rows of depth.parquet.
        evaluation: rows of evaluation.parquet, which tell the objective of every subset.

    Raises:
        ValueError: if a subset was not evaluated.
    """
    subset = evaluation[evaluation.benchmark == "hh-rlhf"].drop_duplicates("subset").set_index("subset").group
    rows = depth[depth.benchmark == "hh-rlhf"]
    if unknown := sorted(set(rows.subset) - set(subset.index)):
        raise ValueError(
            f"depth.parquet: expected subsets of evaluation.parquet, {', '.join(subset.index)}; got {unknown}; "
            "run notebooks/02_evaluate.ipynb on the same data"
        )
    return rows.assign(subset=rows.subset.map(subset))


def lasting_from(low: np.ndarray, high: np.ndarray) -> int | None:
    """Return from which index on every interval lies on the side of 0 where the last one lies; None if that holds 0.

    Args:
        low: (D,), lower bounds.
        high: (D,), upper bounds.

    >>> lasting_from(np.array([0.1, -0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.4, 0.5]))
    2
    """
    side = np.sign(np.where(np.asarray(low) > 0, 1, 0) - np.where(np.asarray(high) < 0, 1, 0))
    if not side[-1]:
        return None
    others = np.flatnonzero(side != side[-1])
    return int(others[-1]) + 1 if len(others) else 0


def depth_gaps(rows: pd.DataFrame, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return the accuracy on the helpful test minus that on the harmless test, at every depth.

    Args:
        rows: of `hh_depths`.

    Returns:
        base_model, objective, depth, difference, ci_low, ci_high (of prompts crossed with seeds), n_items (of both
        tests), n_clusters, n_seeds.
    """
    found, bootstrap = [], bootstrap or Bootstrap()
    for (base_model, objective), own in rows.groupby(["base_model", "objective"], sort=False):
        sums, counts, parts = crossed_parts(own, "credit", ["depth", "subset"])
        depths = sorted({depth for depth, _ in parts})
        signs = [[{HELPFUL: 1.0, HARMLESS: -1.0}[test] * (at == depth) for depth in depths] for at, test in parts]
        differences, draws = contrast_draws(sums, counts, np.array(signs), bootstrap)  # (D,), (R, D)
        for depth, difference, of_depth in zip(depths, differences, draws.T, strict=True):
            row = {"base_model": base_model, "objective": objective, "depth": depth}
            found.append(row | bounded("difference", float(difference), of_depth, "") | sizes(own))
    table = pd.DataFrame(found)
    table[["ci_low", "ci_high"]] = table[["ci_low", "ci_high"]].clip(-1, 1)  # few seeds may ask for more
    return table


def depth_table(accuracies: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """Return at which depth every model's accuracy leaves chance for good, and where its curves on both tests part.

    Args:
        accuracies: of `depth_accuracy`, of the rows of `hh_depths`.
        gaps: of `depth_gaps`.

    Returns:
        base_model, objective, helpful_depth, harmless_depth (from where on the interval of that test's accuracy leaves
        out chance, on the side of the last depth), parting_depth (from where on that of the difference leaves out 0),
        last_depth, and of the last depth difference, ci_low, ci_high, n_items, n_seeds. A depth is NaN where the last
        interval holds chance, or 0.
    """
    rows = []
    for (base_model, objective), gap in gaps.groupby(["base_model", "objective"], sort=False):
        row = {"base_model": base_model, "objective": objective}
        own = accuracies[(accuracies.base_model == base_model) & (accuracies.objective == objective)]
        for test in SINGLE_OBJECTIVES:
            curve = own[own.subset == test].sort_values("depth")
            bounds = (curve[bound].to_numpy() - curve.chance_accuracy.to_numpy() for bound in ("ci_low", "ci_high"))
            row[f"{test}_depth"] = _depth_of(curve.depth, lasting_from(*bounds))
        gap = gap.sort_values("depth")
        row["parting_depth"] = _depth_of(gap.depth, lasting_from(gap.ci_low.to_numpy(), gap.ci_high.to_numpy()))
        last = gap.iloc[-1]
        names = ("difference", "ci_low", "ci_high", "n_items", "n_seeds")
        rows.append(row | {"last_depth": last.depth} | {name: last[name] for name in names})
    return in_arm_order(pd.DataFrame(rows))


def _depth_of(depths: pd.Series, index: int | None) -> float:
    return np.nan if index is None else float(depths.iloc[index])


def in_arm_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by their objective in the order of `config.ARMS`, rows of one objective as they are."""
    return table.sort_values("objective", key=lambda c: c.map(list(ARMS).index), kind="stable", ignore_index=True)


BOUNDED = ("cosine", "helpful_halves_cosine", "harmless_halves_cosine")  # from -1 to 1

COSINES = ("corrected_cosine", *BOUNDED)


def seed_means(table: pd.DataFrame, values: Sequence[str], by: Sequence[str]) -> pd.DataFrame:
    """Return means over seeds with Student's t interval; a mean is NaN where a seed has no value.

    Seeds with a value are no fair sample of all seeds: a corrected cosine, say, has none where noise was large.

    Args:
        table: one row per seed and condition, with the column seed.
        values: columns to average.
        by: columns that name a condition, in the order of their first rows.

    Returns:
        ``by``, per value its mean, ``_ci_low``, ``_ci_high`` (NaN for one seed), and n_seeds. Bounds of a column of
        `BOUNDED` stay within -1 and 1.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True))
        for value in values:
            bounds = seed_interval(part[value])
            bounds = np.clip(bounds, -1, 1) if value in BOUNDED else bounds
            row |= {value: part[value].mean(skipna=False)}
            row |= dict(zip((f"{value}_ci_low", f"{value}_ci_high"), map(float, bounds), strict=True))
        rows.append(row | {"n_seeds": count_distinct(part, MODEL_COLUMNS)})
    return pd.DataFrame(rows)


def gradient_table(gradients: pd.DataFrame) -> pd.DataFrame:
    """Return the cosine of both objectives' gradients in the whole model and in its parts, as mean over seeds.

    Args:
        gradients: rows of gradients.parquet.

    Returns:
        base_model, objective, part (the whole model first), each of `COSINES` with its bounds, n_parameters, n_seeds.
    """
    rows = pd.concat([objective_cosines(gradients, ()).assign(part=WHOLE), objective_cosines(gradients, ("part",))])
    return seed_means(rows, COSINES, ["base_model", "objective", "part", "n_parameters"])


def weight_table(changes: pd.DataFrame) -> pd.DataFrame:
    """Return the cosine of what training changed in a single-objective model and in another model, by part.

    Args:
        changes: rows of weight_changes.parquet.

    Returns:
        base_model, pair ("helpful / harmless"), cosine (whole model, mean over seeds), cosine_ci_low, cosine_ci_high,
        random_cosine (below which 95 % of pairs of random directions lie, in size: 1.96 over the root of the number of
        parameters), a column per part with its mean, n_seeds; a pair of the two objectives first, then mixed models,
        then sham ones.
    """
    rows = pd.concat([cosine_table(changes, ()).assign(part=WHOLE), cosine_table(changes, ("part",))])
    rows = rows[rows["first"].isin(SINGLE_OBJECTIVES)].assign(pair=lambda each: each["first"] + " / " + each["second"])
    rows = rows.sort_values("second", key=lambda c: c.map(list(ARMS).index), kind="stable")
    means = seed_means(rows, ["cosine"], ["base_model", "pair", "part", "n_parameters"])
    whole = means[means.part == WHOLE].assign(random_cosine=lambda each: 1.96 / np.sqrt(each.n_parameters))
    keys = ["base_model", "pair"]
    parts = means[means.part != WHOLE].pivot(index=keys, columns="part", values="cosine").reset_index()
    order = [*keys, "cosine", "cosine_ci_low", "cosine_ci_high", "random_cosine", *parts.columns[2:], "n_seeds"]
    return whole.merge(parts, on=keys, how="left", validate="one_to_one")[order]


def attributions(run: Run) -> dict[str, np.ndarray]:
    """Return what every neuron adds to a run's margin, (L, N) for the text of either objective.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return {text: load_view(run, f"text-{text}").get("attribution") for text in SINGLE_OBJECTIVES}


def opposing_share(neurons: NeuronSet, helpful: np.ndarray, harmless: np.ndarray) -> float:
    """Return the share of a set's neurons whose attributions have opposite signs, in [0, 1].

    A neuron that adds nothing on one of the texts has no sign there and is left out; NaN where none is left.

    Args:
        neurons: a set of shape (L, N).
        helpful: (L, N), float, attribution to the margin on helpful text.
        harmless: likewise on harmless text.

    Raises:
        ValueError: if the shapes differ.

    >>> opposing_share(NeuronSet(np.array([[True, True, False]])), np.array([[1, 2, 3]]), np.array([[-1, 1, -1]]))
    0.5
    """
    if not neurons.shape == np.shape(helpful) == np.shape(harmless):
        raise ValueError(
            f"expected attributions of shape (layers, neurons) = {neurons.shape}; got {np.shape(helpful)} and "
            f"{np.shape(harmless)}"
        )
    products = np.sign(helpful)[neurons.mask] * np.sign(harmless)[neurons.mask]
    signed = products[products != 0]
    return float((signed < 0).mean()) if len(signed) else float("nan")


def parting_sets(runs: Sequence[Run], kind: str, fraction: float) -> dict[tuple[str, int], dict[str, NeuronSet]]:
    """Return the sets whose signs are compared, by base model and seed.

    Args:
        runs: among them the helpful and the harmless one of a seed; a seed without them has no sets.
        kind: score on each model's own training pairs.
        fraction: share of all neurons in the top of each model, in (0, 1].

    Returns:
        "shared" (in the top of both), "helpful only", "harmless only", and for every sham arm with scores what its top
        shares with that of the opposing objective's model ("helpful and harmless-coin").
    """
    found = {}
    for label, *pair in single_runs(runs):
        top = {run.objective: top_neurons(own_scores(run).get(kind), fraction) for run in pair}
        sets = {
            SHARED: top[HELPFUL] & top[HARMLESS],
            f"{HELPFUL} only": top[HELPFUL] - top[HARMLESS],
            f"{HARMLESS} only": top[HARMLESS] - top[HELPFUL],
        }
        siblings = SinglePair(pair[0].root, pair[0].base_model, pair[0].seed)
        for arm in SHAM_ARMS:
            sham, own = siblings.run_of(arm), OPPOSING[arm.split("-")[0]]
            if (sham.folder / OWN_SCORES).exists():
                sets[f"{own} and {arm}"] = top[own] & top_neurons(own_scores(sham).get(kind), fraction)
        found[label["base_model"], label["seed"]] = sets
    return found


def measured_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that chapter 3 looked into: those of the three objectives, and others that have neuron scores."""
    return [run for run in runs if run.objective in OBJECTIVES or (run.folder / OWN_SCORES).exists()]


def sign_rows(runs: Sequence[Run], kind: str, fraction: float, n_draws: int) -> pd.DataFrame:
    """Return in how many neurons of a set, and of random ones, the attributions on both texts have opposite signs.

    Random sets have as many neurons in every bin of activity of every layer.

    Args:
        runs: reward models with neuron scores.
        kind: score of the sets, see `parting_sets`.
        fraction: likewise.
        n_draws: random sets beside each set, at least 2.

    Returns:
        base_model, objective (whose attributions), seed, set, draw (`claims.TARGETED` or the number of a random set),
        n_neurons, share (NaN for an empty set), held (share of the set that a random set holds on average).

    Raises:
        ValueError: if no seed has both single-objective models.
        FileNotFoundError: names the missing file and the chapter to run.
    """
    rows, sets = [], parting_sets(runs, kind, fraction)
    if not sets:
        raise ValueError(f"objectives: expected both {HELPFUL} and {HARMLESS}, whose sets are compared")
    for run in measured_runs(runs):
        texts, activity = attributions(run), own_scores(run).get("mean_abs")
        bins = activity_bins(activity, min(N_ACTIVITY_BINS, activity.shape[1]))
        for name, neurons in sets.get((run.base_model_name, run.seed), {}).items():
            drawn = neurons.matched_random(np.random.default_rng(ANALYSIS_SEED), n_draws, bins)
            row = run.label | {"set": name, "n_neurons": len(neurons), "held": neurons.expected_overlap(bins)}
            for draw, each in enumerate([neurons, *drawn], start=TARGETED):
                rows.append(row | {"draw": draw, "share": opposing_share(each, *texts.values())})
    return pd.DataFrame(rows)


def sign_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the share of neurons with opposite signs in every set beside its random sets, over seeds.

    Args:
        rows: of `sign_rows`.

    Returns:
        base_model, objective, set, share with the bounds of Student's t over seeds (NaN for one), random_share (mean of
        the random sets) from random_share_low to random_share_high (2.5 % and 97.5 % of the random sets), effect
        (share minus random_share) with ci_low, ci_high, and p_value (both of `prediction_test`: is the set unusual
        among random ones?), n_same (seeds whose effect has the sign of the mean), n_seeds, n_neurons and held (means),
        n_draws. Seeds in which a share is undefined are left out.
    """
    found = []
    for key, part in rows.groupby(["base_model", "objective", "set"], sort=False):
        wide = part.pivot(index="seed", columns="draw", values="share").dropna()  # (S, 1 + D)
        if wide.empty:
            continue
        targeted, draws = wide[TARGETED].to_numpy(), wide.drop(columns=TARGETED).to_numpy()
        test, effects = prediction_test(targeted, draws), targeted - draws.mean(axis=1)
        row = dict(zip(("base_model", "objective", "set"), key, strict=True)) | {"share": targeted.mean()}
        low, high = np.clip(seed_interval(targeted), 0, 1)
        row |= {"share_ci_low": low, "share_ci_high": high}
        low, high = np.quantile(draws.mean(axis=0), TAILS)
        row |= {"random_share": draws.mean(), "random_share_low": low, "random_share_high": high}
        row |= {"effect": test.effect} | dict(zip(("ci_low", "ci_high"), test.bounds, strict=True))
        row |= {"p_value": test.p_value}
        row |= {"n_same": int((np.sign(effects) == np.sign(test.effect)).sum()), "n_seeds": len(wide)}
        means = part[part.seed.isin(wide.index)].groupby("seed")[["n_neurons", "held"]].first().mean()
        found.append(row | means.to_dict() | {"n_draws": draws.shape[1]})
    return in_arm_order(pd.DataFrame(found))


def mixed_arm(objectives: Sequence[str]) -> str | None:
    """Return the mixed arm that decides: on as many pairs as a single objective if it is there; None without any.

    >>> mixed_arm(["helpful", "helpful-harmless"])
    'helpful-harmless'
    """
    return next((arm for arm in reversed(MIXED_ARMS) if arm in set(objectives)), None)


def attribution_points(run: Run, neurons: NeuronSet) -> pd.DataFrame:
    """Return every neuron's attribution on both texts over its standard deviation across neurons.

    Args:
        run: whose attributions.
        neurons: the set to mark.

    Returns:
        layer, index, helpful, harmless (standard deviations), is_marked; in the order of layer and index.
    """
    layer, index = np.indices(neurons.shape)
    columns = {text: (values / (values.std() or 1.0)).ravel() for text, values in attributions(run).items()}
    return pd.DataFrame({"layer": layer.ravel(), "index": index.ravel(), **columns, "is_marked": neurons.mask.ravel()})
