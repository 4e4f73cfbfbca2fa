"""Readings of C2 to C5: what removing neurons does, and how many the objectives share."""

from collections.abc import Callable
from math import nan

import numpy as np
import pandas as pd
from scipy import stats

from tension_utils.ablation_tables import effect_table
from tension_utils.conditions import MIXED_SETS, NATURAL, ONLY, SHARED
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.evidence import Evidence
from tension_utils.mixed_ablation import per_neuron_differences
from tension_utils.overlap import overlap_table
from tension_utils.overlap_controls import floor_table, quiet_table
from tension_utils.scores import ACTIVATION_KINDS
from tension_utils.statements import WAYS, Statement, not_run, verdict_of
from tension_utils.study_tables import OPPOSING

PAIR = " / ".join(SINGLE_OBJECTIVES)
UNITS = {"accuracy": ("accuracy (points)", 100), "margin": ("margin (intact standard deviations)", 1)}
SIGNIFICANCE = 0.05  # of the exact p-value of an overlap
NO_ABLATION, NO_SCORES = "no neuron set was removed", "no neuron scores were taken"


def _removal(claim: str, tests: dict[str, str], words: str, *, is_claimed_negative: bool) -> tuple[Callable, Callable]:
    """Return the two readings of a claim on what removing a single model's neurons does to one test.

    Args:
        claim: key of the claim.
        tests: objective of the reward model -> test.
        words: which test that is.
        is_claimed_negative: whether the claim says that the test gets worse.
    """

    def effects(evidence: Evidence) -> pd.DataFrame:
        table = effect_table(evidence.removed(evidence.score_kinds, from_mixed=False), evidence.evaluation)
        return table[table.objective.map(tests) == table.test]

    def name(row: pd.Series, measure: str) -> str:
        return f"{row.objective} model without its top {100 * row.fraction:g} % by {row.set}, {words} test: {measure}"

    def as_published(evidence: Evidence) -> list[Statement]:
        if evidence.ablation is None:
            return [not_run(claim, WAYS[0], f"change in accuracy on the {words} test", NO_ABLATION)]
        table, sign, statements = effects(evidence), -1 if is_claimed_negative else 1, []
        for _, row in table[table.metric == "accuracy"].iterrows():
            found = (100 * row.change, nan, nan, int(row.n_items), int(row.n_seeds))
            verdict = "supported" if sign * row.change > 0 else "not supported"
            statements.append(Statement(claim, WAYS[0], name(row, "change in accuracy (points)"), *found, verdict))
        return statements

    def under_control(evidence: Evidence) -> list[Statement]:
        if evidence.ablation is None:
            return [not_run(claim, WAYS[1], f"effect on the {words} test beyond random sets", NO_ABLATION)]
        statements = []
        for _, row in effects(evidence).iterrows():
            unit, scale = UNITS[row.metric]
            values = [scale * float(row[column]) for column in ("effect", "ci_low", "ci_high")]
            verdict = verdict_of(row.ci_low, row.ci_high, is_claimed_negative)
            words_of = name(row, f"effect beyond {int(row.n_draws)} matched random sets, {unit}")
            statements.append(Statement(claim, WAYS[1], words_of, *values, int(row.n_items), int(row.n_seeds), verdict))
        return statements

    return as_published, under_control


def sharing_as_published(evidence: Evidence) -> list[Statement]:
    """C4 as the study reads it: a Jaccard index above zero, without the chance level."""
    if not evidence.runs:
        return [not_run("C4", WAYS[0], "Jaccard index of the single models' sets", NO_SCORES)]
    table = overlap_table(evidence.runs, _kinds(evidence), evidence.fraction)
    statements = []
    for kind, rows in table[table.pair == PAIR].groupby("score_kind", sort=False):
        name = f"top {100 * evidence.fraction:g} % by {kind}: mean Jaccard index, helpful and harmless model"
        verdict = "supported" if rows.jaccard.mean() > 0 else "not supported"
        found = (rows.jaccard.mean(), nan, nan, int(rows.n_neurons.iloc[0]), rows.seed.nunique())
        statements.append(Statement("C4", WAYS[0], name, *found, verdict))
    return statements


def sharing_under_control(evidence: Evidence) -> list[Statement]:
    """C4 among neurons that were quiet before training, and against the base model before any training.

    Chance alone is no control here: in worlds with a planted truth, sets that share nothing they learned exceed it,
    because the same loud neurons enter both.
    """
    if not evidence.runs:
        return [not_run("C4", WAYS[1], "shared neurons beyond chance", NO_SCORES)]
    kinds, share = _kinds(evidence), f"top {100 * evidence.fraction:g} %"
    overlaps, quiet = (table(evidence.runs, kinds, evidence.fraction) for table in (overlap_table, quiet_table))
    floored = [kind for kind in kinds if kind in ACTIVATION_KINDS]
    floors = floor_table(evidence.runs, floored, evidence.fraction) if floored else overlaps[:0]
    statements = []
    for kind, rows in overlaps[overlaps.pair == PAIR].groupby("score_kind", sort=False):
        statements.append(_quiet_statement(kind, share, quiet[quiet.score_kind == kind]))
        floor = floors[floors.score_kind == kind]
        name = f"{share} by {kind}: Jaccard index beyond that of the untrained base model on both texts"
        if floor.empty or floor.jaccard.isna().all():
            statements.append(not_run("C4", WAYS[1], name, "a change score is zero in the base model"))
            continue
        both = rows.merge(floor, on=["base_model", "seed"], suffixes=("", "_floor"))
        beyond = both.jaccard - both.jaccard_floor
        low, high = seed_interval(beyond)
        if np.isnan(low):
            statements.append(not_run("C4", WAYS[1], name, f"{beyond.mean():+.3f}, but one seed gives no interval"))
            continue
        verdict = verdict_of(low, high, is_claimed_negative=False)
        found = (beyond.mean(), low, high, int(rows.n_neurons.iloc[0]), both.seed.nunique())
        statements.append(Statement("C4", WAYS[1], name, *found, verdict))
    return statements


def _quiet_statement(kind: str, share: str, rows: pd.DataFrame) -> Statement:
    """Judge the sharing of neurons that are in no top set of the untrained model."""
    name = f"{share} by {kind}, outside the loudest {share.removeprefix('top ')} of the untrained model: "
    name += f"shared neurons beyond chance by layer (exact p <= {rows.p_value.max():.1g})"
    beyond = rows.n_shared - rows.n_expected
    is_clear = bool((rows.p_value < SIGNIFICANCE).all())
    found = (beyond.mean(), *seed_interval(beyond), int(rows.n_neurons.iloc[0]), rows.seed.nunique())
    return Statement("C4", WAYS[1], name, *found, "supported" if is_clear else "not supported")


def seed_interval(values: pd.Series, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of a mean over training runs; NaN for one run.

    >>> [round(bound, 2) for bound in seed_interval(pd.Series([1.0, 2.0, 3.0]))]
    [-0.48, 4.48]
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return nan, nan
    error = stats.sem(values)
    if error == 0:
        return float(values.mean()), float(values.mean())
    low, high = stats.t.interval(confidence, len(values) - 1, loc=values.mean(), scale=error)
    return float(low), float(high)


def _kinds(evidence: Evidence) -> list[str]:
    """Return the score kinds of the removed sets, or the study's own."""
    return ["signed_mean", "rms_change"] if evidence.ablation is None else evidence.score_kinds


def weight_as_published(evidence: Evidence) -> list[Statement]:
    """C5 as the study reads it: sets of any size, raw changes."""
    if evidence.ablation is None:
        return [not_run("C5", WAYS[0], "change without the shared set minus without an only set", NO_ABLATION)]
    rows = evidence.removed(list(MIXED_SETS), from_mixed=True)
    rows = rows[rows.family == NATURAL]
    if not set(MIXED_SETS) <= set(rows.set):
        return [not_run("C5", WAYS[0], "change without the shared set minus without an only set", "a set is empty")]
    table = effect_table(rows, evidence.evaluation)
    table = table[(table.test == MIXED) & (table.metric == "accuracy")].set_index("set")
    statements = []
    for only in ONLY.values():
        sizes = f"{table.n_neurons[SHARED]:,.0f} and {table.n_neurons[only]:,.0f} neurons"
        name = f"mixed model, both tests: change without the shared minus without the {only} set ({sizes}) (points)"
        value = 100 * (table.change[SHARED] - table.change[only])
        verdict = "supported" if value < 0 else "not supported"
        found = (value, nan, nan, int(table.n_items[SHARED]), int(table.n_seeds[SHARED]))
        statements.append(Statement("C5", WAYS[0], name, *found, verdict))
    return statements


def weight_under_control(evidence: Evidence) -> list[Statement]:
    """C5 with sets of one size, beyond random sets, paired by item and seed, each only set on its own test.

    On the other test an only set has nothing to do, and any shared neuron would seem heavier than it.
    """
    name = "mixed model: effect of the shared minus that of an only set of the same size"
    if evidence.ablation is None:
        return [not_run("C5", WAYS[1], name, NO_ABLATION)]
    rows = evidence.ablation[
        (evidence.ablation.objective == MIXED)
        & (evidence.ablation.fraction == evidence.fraction)
        & (evidence.ablation.ablation_kind == "zero")
    ]
    if not rows.set.isin(MIXED_SETS).any():
        return [not_run("C5", WAYS[1], name, "no shared or only set was removed")]
    table = per_neuron_differences(rows, evidence.evaluation)
    if table.empty:
        return [not_run("C5", WAYS[1], name, "an empty set left no sets of one size")]
    statements = []
    for _, row in table[table["set"] == table.test.map(ONLY).radd(f"{SHARED} - ")].iterrows():
        unit, scale = UNITS[row.metric]
        words = f"mixed model, {row.test} test, {row.n_neurons:,.0f} neurons each: effect of {row['set']}, {unit}"
        values = [scale * float(row[column]) for column in ("effect", "ci_low", "ci_high")]
        verdict = verdict_of(row.ci_low, row.ci_high)
        statements.append(Statement("C5", WAYS[1], words, *values, int(row.n_items), int(row.n_seeds), verdict))
    return statements


FINDING = _removal("C2", {o: o for o in SINGLE_OBJECTIVES}, "own", is_claimed_negative=True)
OPPOSITION = _removal("C3", OPPOSING, "opposing", is_claimed_negative=False)
SHARING = (sharing_as_published, sharing_under_control)
WEIGHT = (weight_as_published, weight_under_control)
