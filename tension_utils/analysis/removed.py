"""What a page shows of removed top sets, in the ledger's own numbers: effects, single draws, and growing samples."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tension_utils.analysis.claims import (
    MAIN_KIND,
    REMOVED_FROM,
    TARGETED,
    UNIT_OF,
    Evidence,
    removal_finding,
    weighed_families,
)
from tension_utils.analysis.findings import Finding
from tension_utils.conditions import ONLY, SHARED
from tension_utils.config import CONTROLS, MIXED_ARMS, REMOVAL, SINGLE_OBJECTIVES
from tension_utils.neurons import activity_bins, top_neurons
from tension_utils.statistics import ANALYSIS_SEED, ITEM_COLUMNS, MODEL_COLUMNS, count_distinct

BOTH = "both"  # objectives pooled, each with the same weight

FEWEST_CLUSTERS = 4  # per test, in the smallest sample

N_SAMPLES = 6


def removal_effects(evidence: Evidence) -> pd.DataFrame:
    """Return the effect of removing the single-objective models' top sets, pooled and by objective.

    Returns:
        test ("own", "opposing"), score_kind, model ("both", or an objective), margin_effect in intact standard
        deviations and accuracy_effect as a share, both beyond matched random sets and with _ci_low and _ci_high;
        control, n_items, n_seeds, n_draws. No rows where no such set was removed.
    """
    rows = []
    for claim, (test, tests) in REMOVED_FROM.items():
        for kind in evidence.removed_kinds:
            control = best_control(evidence, kind)
            found = {metric: removal_finding(evidence, claim, kind, metric, control) for metric in UNIT_OF}
            if np.isnan(found["margin"].value):
                continue
            sizes = {"n_seeds": found["margin"].n_seeds, "n_draws": found["margin"].n_draws}
            for model in (BOTH, *SINGLE_OBJECTIVES):
                values = [_bounded(finding, metric, model) for metric, finding in found.items()]
                n_items = found["margin"].n_items if model == BOTH else _n_items(evidence, model, tests[model], kind)
                row = {"test": test, "score_kind": kind, "model": model} | values[1] | values[0]
                rows.append(row | {"control": control, "n_items": n_items} | sizes)
    return pd.DataFrame(rows)


def best_control(evidence: Evidence, kind: str) -> str:
    """Return the kind of random sets that the ledger sets these sets beside; "" where there are none."""
    return next(iter(evidence.controls(SINGLE_OBJECTIVES, kind)), "")


def held_shares(evidence: Evidence) -> pd.DataFrame:
    """Return how much of a single-objective model's top set the random sets beside it hold: it dilutes every effect.

    Matched by activity they are drawn from the loudest neurons of a layer, many of which are in the set itself.

    Returns:
        score_kind, objective, control, held (share of the set, by `NeuronSet.expected_overlap` with as many bins as by
        default, mean over reward models), n_models. No rows without random sets or neuron scores.
    """
    rows = []
    for kind in evidence.removed_kinds:
        control = best_control(evidence, kind)
        for run, own in evidence.scores.items():
            if control and run.objective in SINGLE_OBJECTIVES:
                bins = activity_bins(own.get("mean_abs")) if control == CONTROLS[1] else None
                held = top_neurons(own.get(kind), evidence.fraction).expected_overlap(bins)
                rows.append({"score_kind": kind, "objective": run.objective, "control": control, "held": held})
    if not rows:
        return pd.DataFrame(columns=["score_kind", "objective", "control", "held", "n_models"])
    groups = pd.DataFrame(rows).groupby(["score_kind", "objective", "control"], sort=False)
    return groups.agg(held=("held", "mean"), n_models=("held", "size")).reset_index()


def _bounded(finding: Finding, metric: str, model: str) -> dict[str, float]:
    """Return a finding's value and bounds, or those of one of its parts, as columns."""
    part = finding if model == BOTH else next(part for part in finding.parts if part.name == model)
    names, factor = (f"{metric}_effect", f"{metric}_effect_ci_low", f"{metric}_effect_ci_high"), UNIT_OF[metric][1]
    return {name: value / factor for name, value in zip(names, (part.value, part.ci_low, part.ci_high), strict=True)}


def _n_items(evidence: Evidence, objective: str, test: str, kind: str) -> int:
    rows = evidence.removed[objective, kind, ""]
    return count_distinct(evidence.places.loc[rows.index[rows.group == test]], ITEM_COLUMNS)


def changes_by_draw(evidence: Evidence) -> pd.DataFrame:
    """Return the mean change in margin of every single-objective model without its top set, and without random ones.

    Args:
        evidence: the stored results.

    Returns:
        test ("own", "opposing"), objective, base_model, seed, draw (-1 for the targeted set), change in intact
        standard deviations, n_items; no rows where no such set was removed beside random ones.
    """
    control = best_control(evidence, MAIN_KIND)
    parts = [
        _mean_changes(evidence, (objective, MAIN_KIND, ""), group, control).assign(test=test, objective=objective)
        for test, tests in REMOVED_FROM.values()
        for objective, group in (tests.items() if control else ())
    ]
    columns = ["test", "objective", *MODEL_COLUMNS, "draw", "change", "n_items"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def shared_changes(evidence: Evidence) -> pd.DataFrame:
    """Return the mean change in margin of a mixed model without shared neurons, and without as many only neurons.

    Of the mixed arm and family that decide claim C5, or the first that was run; each only set on its own objective's
    test, and the random sets of the closest match beside them.

    Args:
        evidence: the stored results.

    Returns:
        objective (the arm), family, control, test, set ("shared", "only-<test>"), base_model, seed, draw (-1 for the
        set itself), change in intact standard deviations, n_items; no rows where none was removed.
    """
    columns = ["objective", "family", "control", "test", "set", *MODEL_COLUMNS, "draw", "change", "n_items"]
    weighed = [(arm, family) for arm in reversed(MIXED_ARMS) for family in weighed_families(evidence, arm)]
    if not weighed:
        return pd.DataFrame(columns=columns)
    arm, family = weighed[0]
    (control, *_) = evidence.controls([arm], SHARED, family)
    parts = [
        _mean_changes(evidence, (arm, name, family), test, control).assign(test=test, set=name)
        for test, only in ONLY.items()
        for name in (SHARED, only)
    ]
    return pd.concat(parts, ignore_index=True).assign(objective=arm, family=family, control=control)[columns]


def _mean_changes(evidence: Evidence, key: tuple[str, str, str], group: str, control: str) -> pd.DataFrame:
    """Return the mean change in margin on one test without a set and without its random sets, by model and draw."""
    rows = evidence.removed[key]
    rows = rows[(rows.group == group) & ((rows.draw == TARGETED) | (rows.control == control))]
    groups = rows.join(evidence.places[list(MODEL_COLUMNS)]).groupby([*MODEL_COLUMNS, "draw"])
    return groups.margin_change.agg(change="mean", n_items="size").reset_index()


def effects_by_items(evidence: Evidence) -> pd.DataFrame:
    """Return the ledger's two effects on the margin once more on fewer prompts: does the interval shrink as it should?

    Samples are nested, drawn from every test alike; the largest is all items, with the ledger's own interval.

    Returns:
        test ("own", "opposing"), n_items, effect, ci_low, ci_high in intact standard deviations, n_seeds.
    """
    rows = evidence.ablation
    if not best_control(evidence, MAIN_KIND):
        return pd.DataFrame(columns=["test", "n_items", "effect", "ci_low", "ci_high", "n_seeds"])
    is_it = (rows.fraction == evidence.fraction) & (rows.ablation_kind == "zero") & (rows["scale"] == REMOVAL)
    is_it &= (rows.matched_to == MAIN_KIND) & rows.objective.isin(SINGLE_OBJECTIVES) & (rows.benchmark == "hh-rlhf")
    rows, rng = rows[is_it], np.random.default_rng(ANALYSIS_SEED)
    orders = {subset: rng.permutation(sorted(own.cluster.unique())) for subset, own in rows.groupby("subset")}
    fewest = min(map(len, orders.values()))
    found = []
    for share in np.geomspace(min(1, max(FEWEST_CLUSTERS / fewest, 1 / 16)), 1, N_SAMPLES):
        kept = [(subset, name) for subset, order in orders.items() for name in order[: round(share * len(order))]]
        part = rows[pd.MultiIndex.from_frame(rows[["subset", "cluster"]]).isin(kept)]
        sample = replace(evidence, ablation=part)
        for claim, (test, _) in REMOVED_FROM.items():
            one = removal_finding(sample, claim, MAIN_KIND, "margin", best_control(sample, MAIN_KIND))
            bounds = {"effect": one.value, "ci_low": one.ci_low, "ci_high": one.ci_high}
            found.append({"test": test, "n_items": one.n_items} | bounds | {"n_seeds": one.n_seeds})
    return pd.DataFrame(found).drop_duplicates(["test", "n_items"], keep="last", ignore_index=True)
