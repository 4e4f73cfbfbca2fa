"""Readings of C1: what training on both objectives costs in accuracy."""

from math import nan

import pandas as pd

from tension_utils.config import MATCHED_ARM, MIXED, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.evidence import Evidence
from tension_utils.statements import WAYS, Statement, not_run, verdict_of
from tension_utils.statistics import ITEM_COLUMNS, analysis_rng, count_distinct
from tension_utils.tension import behavior_differences, mixed_against_single

GROUPS = SINGLE_OBJECTIVES  # a group of tests carries the name of the objective it belongs to


def mixing_as_published(evidence: Evidence) -> list[Statement]:
    """C1 with the study's own rule: strict wins, subsets weigh the same, no interval.

    Source: paper, comparison of mixed and single-objective reward models over the sub-tasks of a group.
    """
    evaluation = evidence.evaluation
    rows = evaluation.assign(right=(evaluation.margin > 0).astype(float))
    statements = []
    for group in GROUPS:
        part = rows[rows.group == group]
        name = f"{group} tests: mean over subsets of accuracy, mixed minus {group} model (points)"
        if part.empty:
            statements.append(not_run("C1", WAYS[0], name, f"no {group} test was evaluated"))
            continue
        means = part.groupby(["objective", "benchmark", "subset"]).right.mean()
        difference = means[MIXED] - means[group]
        value = 100 * difference.mean()
        verdict = "supported" if value < 0 else "not supported"
        n_items, n_seeds = count_distinct(part, ITEM_COLUMNS), part.seed.nunique()
        statements.append(Statement("C1", WAYS[0], name, value, nan, nan, n_items, n_seeds, verdict))
    return statements


def _paired(evaluation: pd.DataFrame, arm: str) -> list[Statement]:
    """Return the paired difference of a mixed arm and the single model, per group of tests."""
    words = "mixed" if arm == MIXED else "mixed on as many pairs and steps"
    names = {group: f"{group} tests: paired accuracy, {words} minus {group} model (points)" for group in GROUPS}
    if arm not in set(evaluation.objective):
        return [not_run("C1", WAYS[1], name, f"no model was trained as {arm}") for name in names.values()]
    rows = evaluation[evaluation.objective.isin([*SINGLE_OBJECTIVES, arm]) & evaluation.group.isin(GROUPS)]
    table = mixed_against_single(rows.replace({"objective": {arm: MIXED}}), analysis_rng(), by=["group"])
    table = table[table.is_own].set_index("group")
    return [
        Statement(
            "C1",
            WAYS[1],
            names[group],
            *(100 * table.loc[group, ["difference", "ci_low", "ci_high"]].astype(float)),
            int(table.n_items[group]),
            int(table.n_seeds[group]),
            verdict_of(table.ci_low[group], table.ci_high[group]),
        )
        if group in table.index
        else not_run("C1", WAYS[1], names[group], f"no {group} test was evaluated")
        for group in GROUPS
    ]


def _balanced(evaluation: pd.DataFrame) -> list[Statement]:
    """Return the paired difference in balanced accuracy, refusing and responding weighing the same."""
    statements = []
    rows = evaluation[(evaluation.benchmark != "hh-rlhf") & evaluation.objective.isin(OBJECTIVES)]
    for single in SINGLE_OBJECTIVES:
        name = f"safety tests: balanced accuracy of refusing and responding, mixed minus {single} model (points)"
        if not {"refuse", "respond"} <= set(rows.direction):
            statements.append(not_run("C1", WAYS[1], name, "no safety benchmark with both directions was evaluated"))
            continue
        table = behavior_differences(rows, (MIXED, single), analysis_rng()).set_index("measure")
        row = table.loc["balanced_accuracy"]
        directed = rows[rows.direction.isin(["refuse", "respond"])]
        n_items = count_distinct(directed, ITEM_COLUMNS)
        values = [100 * float(row[column]) for column in ("difference", "ci_low", "ci_high")]
        verdict = verdict_of(row.ci_low, row.ci_high)
        statements.append(Statement("C1", WAYS[1], name, *values, n_items, int(row.n_seeds), verdict))
    return statements


def mixing_under_control(evidence: Evidence) -> list[Statement]:
    """C1 with fair ties, pairing by item and seed, intervals, equal sizes, and both directions of safety."""
    evaluation = evidence.evaluation
    return [*_paired(evaluation, MIXED), *_paired(evaluation, MATCHED_ARM), *_balanced(evaluation)]
