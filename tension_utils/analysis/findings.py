"""A finding is a record; the claims, each with its primary endpoint; and the rule that makes verdicts of findings."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import NamedTuple

import pandas as pd

from tension_utils.statistics import Spread, holm

WAYS = ("as published", "under control")

VERDICTS = ("supported", "refuted", "contradictory", "undecided", "no verdict", "not run")

LEVEL = 0.05

POINTS, SD, INDEX = "points", "SD", "index"  # percentage points; intact standard deviations; of Jaccard

# The smallest effect of interest, by unit.
SMALLEST = {POINTS: 3.0, SD: 0.1, INDEX: 0.05}

LITTLE_TO_LOSE = "its models had too little to lose"  # why an effect that is not found is no evidence

REASONS = {
    POINTS: "fewer than one pair in thirty is ranked otherwise",
    SD: "where margins are normal, it moves an accuracy of 50 to 75 % by three to four points",
    INDEX: "at overlaps of .4 to .6 it is one neuron in twenty of a set",
}


@dataclass(frozen=True)
class Claim:
    """A claim of the study in our words, and its primary endpoint, named before looking.

    Args:
        title: a few words.
        text: the claim.
        endpoint: what decides it.
        sign: of the claimed effect, -1 or 1.
        unit: of the endpoint, key of `SMALLEST`.
        outcomes: verdict -> what is then true, in a sentence without its full stop.
    """

    title: str
    text: str
    endpoint: str
    sign: int
    unit: str
    outcomes: Mapping[str, str]


CLAIMS = {
    "C1": Claim(
        "Mixing costs accuracy",
        "A reward model trained on both objectives often does worse than one trained on a single objective.",
        "own-test accuracy of the mixed model on as many pairs and steps, minus that of the single-objective model",
        -1,
        POINTS,
        {
            "supported": "Training on both objectives costs accuracy",
            "refuted": "Training on both objectives costs no accuracy",
            "contradictory": "Training on both objectives costs accuracy on one test and gains it on another",
            "undecided": "It is open whether training on both objectives costs accuracy",
        },
    ),
    "C2": Claim(
        "Scores find neurons",
        "Simple activation scores find neurons that support their own objective.",
        "own-test margin of a single-objective model without its top 10 % by rms_change, beyond matched random sets",
        -1,
        SD,
        {
            "supported": "Activation scores find neurons that support their own objective",
            "refuted": "Activation scores find no neurons that support their own objective more than random ones",
            "contradictory": "Activation scores find supporting neurons for one objective and the opposite for another",
            "undecided": "It is open whether activation scores find neurons that matter",
        },
    ),
    "C3": Claim(
        "Neurons oppose",
        "Neurons that support one objective often hurt the opposing one.",
        "the same on the opposing test",
        1,
        SD,
        {
            "supported": "Without those neurons a model does better on the opposing test",
            "refuted": "Without those neurons a model does no better on the opposing test",
            "contradictory": "Without those neurons one model does better on the opposing test and another worse",
            "undecided": "It is open whether those neurons hurt the opposing test",
        },
    ),
    "C4": Claim(
        "Neurons are shared",
        "Many neurons are shared between the objectives.",
        "Jaccard index of the two models' top 10 % by rms_change, beyond that with models of coin-flip labels",
        1,
        INDEX,
        {
            "supported": "The objectives share more neurons than random labels bring",
            "refuted": "The objectives share no more neurons than random labels bring",
            "contradictory": "Both objectives share more neurons than random labels bring, or fewer, by base model",
            "undecided": "It is open whether objectives share more than random labels do",
        },
    ),
    "C5": Claim(
        "Shared neurons weigh more",
        "The shared neurons weigh more than their number suggests.",
        "margin of the matched mixed model without the shared minus without as many only neurons, on the latter's own "
        "test, beyond matched random sets",
        -1,
        SD,
        {
            "supported": "Shared neurons weigh more than others",
            "refuted": "Shared neurons weigh no more than others",
            "contradictory": "Shared neurons weigh more for one objective and less for the other",
            "undecided": "It is open whether shared neurons weigh more than others",
        },
    ),
}


class Part(NamedTuple):
    """One of the pooled parts of a finding: an objective, or a base model; no interval as published."""

    name: str
    value: float
    ci_low: float = nan
    ci_high: float = nan


@dataclass(frozen=True)
class Finding:
    """One reading of a claim.

    Args:
        claim: key of `CLAIMS`.
        way: of `WAYS`.
        is_primary: whether it decides the claim in its way.
        quantity: "mixing", "frontier", "removal", "sharing" or "weight".
        metric: "accuracy", "margin" or "jaccard".
        objective: of the reward models; "both" where both objectives are pooled with the same weight.
        arm: of the reward model in question, of `config.ARMS`; "single" for the single-objective ones.
        test: "own", "opposing", "both", "all" (every benchmark of an objective), "safety", or "" where none is used.
        neuron_set: which neurons, such as "top 10 %"; the family of the shared and only sets; or "".
        score_kind: that ranks them; "" where none does.
        control: what it is set beside, such as "activity", "layer", "coin" or "ensemble"; "" for none.
        value: in `unit`; NaN if it was not run.
        ci_low: lower end of the 95 % interval; NaN where there is none.
        ci_high: upper end.
        p_value: one-sided, in the claimed direction; NaN where there is none.
        unit: key of `SMALLEST`.
        n_items: items behind it; for an index, neurons in a set.
        n_seeds: training runs per objective and arm; several base models add theirs.
        n_draws: random sets per targeted set.
        parts: what was pooled.
        by_seed: value of every training run, in `unit`; empty as published.
        bases: the base model of every training run, as in by_seed.
        spread: where the variance of the value comes from; None as published, and where only an interval is known.
        to_lose: what could fall at most, in `unit`, where the claim is that something falls: the intact models' mean
            margin, or accuracy beyond chance, on the items; else NaN.
        reason: why it was not run, or gives no verdict; else empty.
    """

    claim: str
    way: str
    is_primary: bool
    quantity: str
    metric: str
    objective: str
    arm: str
    test: str
    neuron_set: str
    score_kind: str
    control: str
    value: float
    ci_low: float
    ci_high: float
    p_value: float
    unit: str
    n_items: int = 0
    n_seeds: int = 0
    n_draws: int = 0
    parts: tuple[Part, ...] = ()
    by_seed: tuple[float, ...] = ()
    bases: tuple[str, ...] = ()
    spread: Spread | None = None
    to_lose: float = nan
    reason: str = ""


def verdict_of(finding: Finding, p_value: float) -> str:
    """Return what a finding says about its claim.

    *Contradictory*: the intervals of two parts lie on opposite sides of zero. *Refuted*: the interval lies within the
    smallest effect of interest, or beyond zero on the side that is not claimed; an effect that is surely too small is
    refuted whatever its sign. But where models have less to lose than the smallest effect, a loss that is not found
    gives *no verdict*: it could hardly have been found. *Supported*: the interval lies on the claimed side and the
    p-value is at most 5 %. *Undecided*: otherwise. As published there is no interval, and the sign alone decides, of
    every part; a reading that cannot fail gives no verdict.

    Args:
        finding: the record.
        p_value: of the finding, after Holm's correction where it is one of several primary ones.
    """
    sign, smallest = CLAIMS[finding.claim].sign, SMALLEST[finding.unit]
    if isnan(finding.value):
        return "not run"
    if finding.reason:
        return "no verdict"
    if finding.way == WAYS[0]:
        signs = {sign * part.value > 0 for part in finding.parts or (finding,)}
        return "contradictory" if len(signs) == 2 else "supported" if signs == {True} else "refuted"
    if any(part.ci_low > 0 for part in finding.parts) and any(part.ci_high < 0 for part in finding.parts):
        return "contradictory"
    low, high = sorted([sign * finding.ci_low, sign * finding.ci_high])
    if high < 0:
        return "refuted"
    if -smallest < low and high < smallest:
        return "no verdict" if finding.to_lose < smallest else "refuted"
    return "supported" if low > 0 and p_value <= LEVEL else "undecided"


def judge(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as a table with the fields of `Finding`, p_adjusted and verdict.

    Holm's correction is over the primary findings under control that were run: one per claim. Secondary ones keep
    their p-value; they stand beside a verdict and make none.
    """
    findings = list(findings)
    is_tested = [f.is_primary and f.way == WAYS[1] and not isnan(f.p_value) for f in findings]
    adjusted = iter(holm([f.p_value for f, is_it in zip(findings, is_tested, strict=True) if is_it]))
    p_values = [float(next(adjusted)) if is_it else f.p_value for f, is_it in zip(findings, is_tested, strict=True)]
    verdicts = [verdict_of(finding, p) for finding, p in zip(findings, p_values, strict=True)]
    table = pd.DataFrame([asdict(finding) | {"parts": finding.parts} for finding in findings])
    table = table.assign(p_adjusted=p_values, verdict=verdicts)
    table.loc[(table.verdict == "no verdict") & (table.reason == ""), "reason"] = LITTLE_TO_LOSE
    return table


def primary_of(ledger: pd.DataFrame, claim: str, way: str = WAYS[1]) -> pd.Series:
    """Return the row that decides a claim in a way.

    Args:
        ledger: of `judge`.
        claim: key of `CLAIMS`.
        way: of `WAYS`.
    """
    (row,) = (row for _, row in ledger[(ledger.claim == claim) & (ledger.way == way) & ledger.is_primary].iterrows())
    return row
