"""What removing neurons does, as tables: effects beyond random sets, the published scores, all neurons removed."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd

from tension_utils.artifacts import read_manifest
from tension_utils.bootstrap import N_RESAMPLES, crossed_bootstrap
from tension_utils.comparisons import benjamini_hochberg
from tension_utils.conditions import CONTROL, EVERYTHING
from tension_utils.config import CONTROLS, MIXED, REMOVAL
from tension_utils.effects import METRICS, ablation_changes, ablation_effects, compared_rows
from tension_utils.runs import Run
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    analysis_rng,
    conditions,
    count_distinct,
    crossed_sums,
    mean_table,
)

MATCH = ("matched_to", "family", "fraction", "ablation_kind")
SETTING = ("set", *MATCH)
TEST = ("test",)  # the HH-RLHF tests; the alternative is PLACE
PLACE = ("benchmark", "subset")
MAX_ENUMERATED = 200_000  # exchanges counted one by one; more are drawn
CHANCE_AS_PUBLISHED = 0.5
SIZES = ["n_items", "n_clusters", "n_seeds"]


def placed(rows: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str] = TEST) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests with a column ``test`` (each item also in both together), or all rows.

    Args:
        rows: item-level rows.
        evaluation: rows of evaluation.parquet, which know the test of a subset.
        place: ("test",), or columns that the rows have, such as ("benchmark", "subset").
    """
    if "test" not in place:
        return rows
    tests = evaluation[evaluation.benchmark == "hh-rlhf"].groupby("subset").group.first()
    rows = rows[rows.benchmark == "hh-rlhf"]
    return pd.concat([rows.assign(test=rows.subset.map(tests)), rows.assign(test=MIXED)], ignore_index=True)


def exchange_p_value(values: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    """Return the two-sided p-value of a targeted set when, in every reward model, any of its draws could be it.

    Args:
        values: per reward model (1 + D,): mean change with the targeted set, then with each of D random sets.
        rng: source of exchanges where there are more than `MAX_ENUMERATED`.

    Source: ours; a rank among D draws alone is never below 2 / (1 + D), which leaves nothing to discover.

    >>> exchange_p_value([np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 4.0])], np.random.default_rng(0)).__round__(3)
    0.222
    """
    observed = sum(value[0] for value in values)
    n_exchanges = np.prod([float(len(value)) for value in values])
    if n_exchanges <= MAX_ENUMERATED:
        sums, extra = reduce(np.add.outer, values).ravel(), 0
    else:  # the observed one counts as one more
        sums, extra = sum(rng.choice(value, MAX_ENUMERATED // 10) for value in values), 1
    slack = 1e-9 * max(1.0, abs(observed))
    fewer = min((sums <= observed + slack).sum(), (sums >= observed - slack).sum())
    return float(min(1.0, 2 * (extra + fewer) / (extra + len(sums))))


def effect_table(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    place: Sequence[str] = TEST,
    n_resamples: int = N_RESAMPLES,
    control: str = CONTROLS[0],
    scale: float = REMOVAL,
) -> pd.DataFrame:
    """Return the effect of removing neuron sets: ablation minus matched random sets.

    Args:
        ablation: rows of ablation.parquet; rows of the set "all" are left out, see `total_ablation`.
        evaluation: rows of evaluation.parquet of the same reward models.
        place: where it is measured: ("test",) for the HH-RLHF tests, or ("benchmark", "subset") for all.
        n_resamples: bootstrap draws.
        control: which random sets, of `config.CONTROLS`.
        scale: what the activations were multiplied by; 0 is a removal.

    Returns:
        objective, ``place``, set, family, fraction, ablation_kind, n_neurons (mean over reward models) and the columns
        of `effects.ablation_effects`, for accuracy and margin; p_value is that of `exchange_p_value`, q_value the same
        after Benjamini-Hochberg over the table.
    """
    rows = compared_rows(ablation, control, scale)
    rows, rng = placed(rows[rows.set != EVERYTHING], evaluation, place), analysis_rng()
    by = ["objective", *place, *SETTING]
    table = ablation_effects(rows, evaluation, by, rng, CONTROL, MATCH, n_resamples)
    targeted = rows[rows.set != CONTROL]
    table = table.merge(targeted.groupby(by, as_index=False).n_neurons.mean(), on=by)
    names = [f"{metric}_change" for metric in METRICS]
    changes = ablation_changes(rows, evaluation).assign(is_control=rows.set.to_numpy() == CONTROL)
    shared = ["objective", *place, *MATCH]
    means = changes.groupby([*shared, *MODEL_COLUMNS, "is_control", "draw"])[names].mean()  # targeted sets come first
    models: dict[tuple, list[np.ndarray]] = {}
    for key, part in means.groupby(level=[*shared, *MODEL_COLUMNS]):
        models.setdefault(key[: len(shared)], []).append(part.to_numpy())  # (1 + D, 2)
    found = {
        (*key, metric): exchange_p_value([values[:, index] for values in own], rng)
        for key, own in models.items()
        for index, metric in enumerate(METRICS)
    }
    table["p_value"] = [found[key] for key in table[[*shared, "metric"]].itertuples(index=False, name=None)]
    table.insert(table.columns.get_loc("p_value") + 1, "q_value", benjamini_hochberg(table.p_value))
    return table.drop(columns="matched_to")


def effects_by_seed(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    place: Sequence[str] = TEST,
    n_resamples: int = N_RESAMPLES,
    control: str = CONTROLS[0],
) -> pd.DataFrame:
    """Return `effect_table` of every seed by itself: does another training run give the same?

    Few seeds say little about their spread, so their effects are shown beside each other and not averaged.

    Returns:
        seed and the columns of `effect_table` without q_value, which would be corrected within one seed only.
    """
    parts = []
    for seed, rows in ablation.groupby("seed"):
        table = effect_table(rows, evaluation[evaluation.seed == seed], place, n_resamples, control)
        parts.append(table.drop(columns="q_value").assign(seed=seed))
    table = pd.concat(parts, ignore_index=True)
    return table[["seed", *(column for column in table if column != "seed")]]


def kinds_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the conditions of `effect_table` that were ablated in more than one way, the ways side by side."""
    same = [c for c in ("objective", *TEST, *PLACE, "set", "family", "fraction", "metric") if c in effects]
    is_compared = effects.groupby(same).ablation_kind.transform("nunique") > 1
    return effects[is_compared].sort_values([*same, "ablation_kind"], ignore_index=True)


def published_scores(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    place: Sequence[str] = TEST,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    r"""Return the study's scores, each set by itself; random sets are rows of their own and enter no other.

    .. math:: \text{drop} = 1 - a / a_0, \quad \text{normalized} = (a - 50 \%) / (a_0 - 50 \%)

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.
        place: see `effect_table`.
        n_resamples: bootstrap draws.

    Returns:
        objective, ``place``, set, matched_to, family, fraction, ablation_kind, intact_accuracy, and accuracy, drop and
        normalized, each with _ci_low and _ci_high; is_undefined (an intact accuracy of 50 %: normalized is NaN),
        is_near_chance (its interval holds 50 %: normalized has no interval), n_draws, n_items, n_clusters, n_seeds.

    Source: METHOD section 1, "Ablation"; also where chance is not 50 %, as published. Intervals are ours.
    """
    changes = ablation_changes(compared_rows(ablation), evaluation)
    rows, rng = placed(changes, evaluation, place), analysis_rng()
    rows = rows.assign(intact_credit=rows.credit - rows.accuracy_change)
    by, records = ["objective", *place, *SETTING], []
    for key, part in conditions(rows, by):
        sums, counts = crossed_sums(part, ["credit", "intact_credit"])
        means = sums.sum((0, 1)) / counts.sum((0, 1))
        draws = np.concatenate([means[None], crossed_bootstrap(sums, counts, rng, n_resamples)])  # (1 + R, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            drop = 1 - draws[:, 0] / draws[:, 1]
            normalized = (draws[:, 0] - CHANCE_AS_PUBLISHED) / (draws[:, 1] - CHANCE_AS_PUBLISHED)
        low, high = np.quantile(draws[1:, 1], [0.025, 0.975])
        is_undefined = bool(np.isclose(means[1], CHANCE_AS_PUBLISHED))
        is_near = is_undefined or bool(low <= CHANCE_AS_PUBLISHED <= high)
        normalized[: 1 if is_undefined else 0] = np.nan
        normalized[1:] = np.nan if is_near else normalized[1:]
        drop = drop if means[1] > 0 else np.full_like(drop, np.nan)
        record = dict(zip(by, key, strict=True)) | {"intact_accuracy": means[1]}
        accuracies = draws[:, 0].clip(0, 1)  # with few seeds a draw may leave what is possible
        for name, values in (("accuracy", accuracies), ("drop", drop), ("normalized", normalized)):
            finite = values[1:][np.isfinite(values[1:])]  # a draw without any right item has no ratio
            bounds = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
            record |= dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), (values[0], *bounds), strict=True))
        record |= {"is_undefined": is_undefined, "is_near_chance": is_near, "n_draws": part.draw.nunique()}
        counted = (count_distinct(part, ITEM_COLUMNS), counts.shape[0], counts.shape[1])
        records.append(record | dict(zip(SIZES, counted, strict=True)))
    return pd.DataFrame(records)


def total_ablation(ablation: pd.DataFrame, evaluation: pd.DataFrame, place: Sequence[str] = TEST) -> pd.DataFrame:
    """Return what is left of accuracy without any MLP neuron, against chance; no random set can be its control.

    Returns:
        objective, ``place``, ablation_kind, chance_accuracy, intact_accuracy, and accuracy and above_chance (their
        difference), each with _ci_low and _ci_high; n_neurons, n_draws (1), n_items, n_clusters, n_seeds. Shares.

    Raises:
        ValueError: there are no rows with the set "all".
    """
    removed = compared_rows(ablation)
    whole = removed[removed.set == EVERYTHING]
    if whole.empty:
        raise ValueError(f"expected rows with set = {EVERYTHING!r}; got none; add 1.0 to the ablated fractions")
    rows = placed(ablation_changes(whole, evaluation), evaluation, place)
    rows = rows.assign(accuracy=rows.credit, above_chance=rows.credit - rows.chance, chance_accuracy=rows.chance)
    rows = rows.assign(intact_accuracy=rows.credit - rows.accuracy_change)
    by, values = ["objective", *place, "ablation_kind"], ["accuracy", "above_chance"]
    table = mean_table(rows, values, by, analysis_rng())
    others = rows.groupby(by, as_index=False)[["chance_accuracy", "intact_accuracy", "n_neurons"]].mean()
    table = others.merge(table, on=by).assign(n_draws=1)
    for bound in ("ci_low", "ci_high"):  # few seeds may leave the possible
        table[f"accuracy_{bound}"] = table[f"accuracy_{bound}"].clip(0, 1)
        table[f"above_chance_{bound}"] = (table[f"above_chance_{bound}"] + table.chance_accuracy).clip(0, 1)
        table[f"above_chance_{bound}"] -= table.chance_accuracy
    return table[[c for c in table if c not in ("n_neurons", "n_draws", *SIZES)] + ["n_neurons", "n_draws", *SIZES]]


def cost_table(runs: list[Run]) -> pd.DataFrame:
    """Return per reward model how long one condition takes, beside one pass through the intact model.

    Returns:
        base_model, objective, seed, n_sets, seconds_per_set, seconds_intact (medians; NaN where all sets were found),
        ratio.
    """
    rows = []
    for run in runs:
        facts = read_manifest(run.folder)["ablate"]
        columns = ("n_sets", "seconds_per_set", "seconds_intact")
        rows.append(run.label | {column: facts[column] for column in columns})
    table = pd.DataFrame(rows).astype({"seconds_per_set": float, "seconds_intact": float})
    return table.assign(ratio=table.seconds_per_set / table.seconds_intact)
