"""The study's claims: from tables to statements, from statements to verdicts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from tension_utils.activations import ACTIVATION_KINDS
from tension_utils.analysis.accuracy import OPPOSING, behavior_differences, markdown_table, mixed_against_single
from tension_utils.analysis.overlap import floor_table, overlap_table, quiet_table
from tension_utils.analysis.removal import effect_table, per_neuron_differences
from tension_utils.artifacts import read_table
from tension_utils.conditions import MIXED_SETS, NATURAL, ONLY, SHARED
from tension_utils.config import MATCHED_ARM, MIXED, OBJECTIVES, SCORE_KINDS, SINGLE_OBJECTIVES, Run
from tension_utils.statistics import ITEM_COLUMNS, count_distinct, seed_interval, wilson_interval

VERDICTS = ("supported", "not supported", "mixed", "not run")

WAYS = ("as published", "under control")

POINTS = "(points)"  # in a statistic's words: percentage points


@dataclass(frozen=True)
class Statement:
    """One reading of a claim.

    Args:
        claim: key of `CLAIMS`.
        way: of `WAYS`.
        statistic: what was measured, in words.
        value: its estimate, in the unit of the words; NaN if it was not run.
        ci_low: lower end of the 95 % interval; NaN where the way has none.
        ci_high: upper end.
        n_items: items behind it.
        n_seeds: training runs per objective behind it.
        verdict: of `VERDICTS`: what this reading alone says about the claim.
        reason: why it was not run; else empty.
    """

    claim: str
    way: str
    statistic: str
    value: float
    ci_low: float
    ci_high: float
    n_items: int
    n_seeds: int
    verdict: str
    reason: str = ""


def verdict_of(low: float, high: float, is_claimed_negative: bool = True) -> str:
    """Return what an interval says about a claim on the sign of an effect.

    >>> verdict_of(-0.2, -0.1), verdict_of(-0.2, 0.1), verdict_of(0.1, 0.2)
    ('supported', 'mixed', 'not supported')
    """
    if not is_claimed_negative:
        low, high = -high, -low
    return "supported" if high < 0 else "not supported" if low > 0 else "mixed"


def overall_verdict(verdicts: list[str]) -> str:
    """Return one verdict for several readings: theirs if those that were run agree, else mixed.

    >>> overall_verdict(["supported", "not run"]), overall_verdict(["supported", "mixed"]), overall_verdict([])
    ('supported', 'mixed', 'not run')
    """
    found = {verdict for verdict in verdicts if verdict != "not run"}
    return "not run" if not found else found.pop() if len(found) == 1 else "mixed"


def not_run(claim: str, way: str, statistic: str, reason: str) -> Statement:
    """Return the statement that something was not run, so that it does not disappear."""
    return Statement(claim, way, statistic, nan, nan, nan, 0, 0, "not run", reason)


def seeds_text(n_seeds: int) -> str:
    """Return a number of training runs in words.

    >>> seeds_text(1), seeds_text(3)
    ('1 seed', '3 seeds')
    """
    return f"{n_seeds:.0f} seed" + ("" if n_seeds == 1 else "s")


def result_text(row: pd.Series) -> str:
    """Return a statement's number in words, with unit, interval, n and seeds, or why it was not run.

    Args:
        row: of `claims.ledger_table`.

    >>> row = {"statistic": "own test (points)", "value": -3.24, "ci_low": -6.2, "ci_high": -0.3}
    >>> result_text(pd.Series(row | {"n_items": 2008, "n_seeds": 1, "verdict": "supported"}))
    '-3.2 points [-6.2, -0.3]; n = 2,008, 1 seed'
    """
    if row.verdict == "not run":
        return f"not run ({row.reason})"
    digits, unit = (1, " points") if POINTS in row.statistic else (3, "")
    interval = "" if np.isnan(row.ci_low) else f" [{row.ci_low:+.{digits}f}, {row.ci_high:+.{digits}f}]"
    return f"{row.value:+.{digits}f}{unit}{interval}; n = {row.n_items:,}, {seeds_text(row.n_seeds)}"


def statement_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return statements as a table to read: claim, way, statement, result, verdict.

    Args:
        ledger: rows of `claims.ledger_table`.
    """
    return pd.DataFrame(
        {
            "claim": ledger.claim,
            "way": ledger.way,
            "statement": ledger.statistic.str.replace(f" {POINTS}", "", regex=False),
            "result": [result_text(row) for _, row in ledger.iterrows()],
            "verdict": ledger.verdict,
        }
    )


MAIN_FRACTION = 0.1  # the study's share of neurons


@dataclass(frozen=True)
class Evidence:
    """Stored results of a set of reward models.

    Args:
        evaluation: rows of evaluation.parquet, of all objectives of `OBJECTIVES` and possibly of further arms.
        ablation: rows of ablation.parquet; None where no set was removed.
        runs: the reward models whose neuron scores are read; none where none were taken.

    Raises:
        ValueError: an objective was not evaluated.
    """

    evaluation: pd.DataFrame
    ablation: pd.DataFrame | None = None
    runs: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        missing = [name for name in OBJECTIVES if name not in set(self.evaluation.objective)]
        if missing:
            there = ", ".join(missing)
            raise ValueError(f"the ledger compares {', '.join(OBJECTIVES)}; there is no evaluation of {there}")

    @classmethod
    def of(cls, runs: list[Run]) -> "Evidence":
        """Read the artifacts of runs whose stages are complete.

        Raises:
            FileNotFoundError: names the missing file and the chapter to run.
        """
        main = tuple(run for run in runs if run.objective in OBJECTIVES)
        return cls(read_table(runs, "evaluation", "02_evaluate"), read_table(main, "ablation", "04_ablate"), main)

    @property
    def fraction(self) -> float:
        """The share of neurons nearest to the study's tenth that was removed; a tenth where none were."""
        if self.ablation is None:
            return MAIN_FRACTION
        shares = self.ablation.fraction.unique()
        return float(min(shares, key=lambda share: abs(share - MAIN_FRACTION)))

    @property
    def score_kinds(self) -> list[str]:
        """The score kinds whose sets were removed."""
        return [kind for kind in SCORE_KINDS if kind in set(self.ablation.set)]

    def removed(self, sets: list[str], *, from_mixed: bool) -> pd.DataFrame:
        """Return the rows of targeted sets and their random draws at `fraction`, of the first ablation kind.

        Args:
            sets: names of targeted sets.
            from_mixed: whether of the mixed reward model, or else of the single ones.
        """
        rows = self.ablation
        is_it = rows.matched_to.isin(sets) & (rows.fraction == self.fraction) & (rows.ablation_kind == "zero")
        return rows[is_it & ((rows.objective == MIXED) == from_mixed)]


COMMAND = "python -m tension_utils.planted.study --worlds 100 --output results/planted"

TABLES = ("finders", "claims", "worlds")

HERE = Path("results/planted")

# Which test of the study is which column of the ledger.
LEDGER_READINGS = {
    "as published": {"C2": "raw change", "C3": "raw change", "C4": "half is shared", "C5": "raw change"},
    "under control": {"C2": "interval", "C3": "interval", "C4": "chance, quiet neurons", "C5": "interval"},
}


def read_study(folder: Path) -> tuple[dict[str, pd.DataFrame], dict]:
    """Return the tables and the manifest that `planted_study.export_study` wrote.

    Raises:
        FileNotFoundError: names the folder and the command that writes it.
    """
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"expected the stored study in {folder}, found none; write it with {COMMAND}")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}, manifest


def error_rates(claims: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Pool a study's rates over worlds of one truth, and set power beside false positives.

    Args:
        claims: the table "claims" of a study, with all training runs or a selection of it.
        by: further columns that name a test, beside claim, way, reading, metric and score_kind.

    Returns:
        claim, way, reading, metric, score_kind, ``by``; power and false_positives, each with _ci_low and _ci_high
        (Wilson's 95 % interval, as if worlds of different scenarios were independent) and after n_worlds_; NaN without
        such worlds.

    >>> one = {"claim": "C2", "way": "w", "reading": "r", "metric": "accuracy", "score_kind": "rms", "n_worlds": 10}
    >>> rates = error_rates(pd.DataFrame([one | {"is_true": t, "n_supported": n} for t, n in ((True, 8), (False, 1))]))
    >>> rates[["power", "false_positives"]].values.tolist()
    [[0.8, 0.1]]
    """
    keys = ["claim", "way", "reading", "metric", "score_kind", *by]
    sums = claims.groupby([*keys, "is_true"], sort=False)[["n_supported", "n_worlds"]].sum().reset_index()
    bounds = [wilson_interval(row.n_supported, row.n_worlds) for row in sums.itertuples()]
    sums[["ci_low", "ci_high"]] = bounds
    sums["rate"] = sums.n_supported / sums.n_worlds
    parts = []
    for truth, name in ((True, "power"), (False, "false_positives")):
        names = {"rate": name, "ci_low": f"{name}_ci_low", "ci_high": f"{name}_ci_high", "n_worlds": f"n_worlds_{name}"}
        parts.append(sums[sums.is_true == truth].set_index(keys)[list(names)].rename(columns=names))
    order = claims[keys].drop_duplicates()
    return order.merge(pd.concat(parts, axis=1).reset_index(), on=keys, how="left").reset_index(drop=True)


def ledger_rates(claims: pd.DataFrame, score_kinds: Sequence[str]) -> pd.DataFrame:
    """Return the error rates of the tests that the ledger of claims uses, with three training runs.

    Args:
        claims: the table "claims" of a study.
        score_kinds: those of the ledger; others are left out.

    Returns:
        The columns of `error_rates`; rows per claim, way, metric and score kind.
    """
    chosen = [
        row.n_seeds == claims.n_seeds.max()
        and row.score_kind in score_kinds
        and LEDGER_READINGS[row.way][row.claim] == row.reading
        for row in claims.itertuples()
    ]
    return error_rates(claims[chosen])


def rates_markdown(claims: pd.DataFrame, claim: str, score_kinds: Sequence[str]) -> str:
    """Return how often the ledger's tests of one claim are right, as a Markdown table; empty if none was tried.

    Args:
        claims: the table "claims" of a study.
        claim: such as "C2".
        score_kinds: those of the ledger.
    """
    rates = ledger_rates(claims, score_kinds)
    rates = rates[rates.claim == claim]
    if rates.empty:
        return ""
    rows = [
        [f"{row.way}: {row.reading}, {row.metric}, {row.score_kind}"]
        + [f"{100 * rate:.0f} %" for rate in (row.power, row.false_positives)]
        for row in rates.itertuples()
    ]
    return markdown_table(["test", "claim true", "claim false"], rows)


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
    table = mixed_against_single(rows.replace({"objective": {arm: MIXED}}), by=["group"])
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
        table = behavior_differences(rows, (MIXED, single)).set_index("measure")
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


@dataclass(frozen=True)
class Claim:
    """A claim of the study in our words, and how each way of computing it makes statements.

    Args:
        title: a few words.
        text: the claim.
        readings: functions of the evidence, as published first.
    """

    title: str
    text: str
    readings: tuple[Callable[[Evidence], list[Statement]], ...]


CLAIMS = {
    "C1": Claim(
        "Mixing costs accuracy",
        "A reward model trained on both objectives often does worse than one trained on a single objective.",
        (mixing_as_published, mixing_under_control),
    ),
    "C2": Claim(
        "Scores find neurons", "Simple activation scores find neurons that support their own objective.", FINDING
    ),
    "C3": Claim("Neurons oppose", "Neurons that support one objective often hurt the opposing one.", OPPOSITION),
    "C4": Claim("Neurons are shared", "Many neurons are shared between the objectives.", SHARING),
    "C5": Claim(
        "Shared neurons carry the tension", "The shared neurons weigh more than their number suggests.", WEIGHT
    ),
}


def ledger_table(evidence: Evidence) -> pd.DataFrame:
    """Return every claim's statements, one row each, with the columns of `Statement`."""
    found = [statement for claim in CLAIMS.values() for reading in claim.readings for statement in reading(evidence)]
    return pd.DataFrame([asdict(statement) for statement in found])
