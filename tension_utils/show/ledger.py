"""Findings in words, and the tables of the ledger: every sentence is made from a record."""

from collections.abc import Mapping
from math import isnan, nan

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import runs_text
from tension_utils.analysis.deciding import detectable, needed
from tension_utils.analysis.findings import (
    CLAIMS,
    INDEX,
    LEVEL,
    LITTLE_TO_LOSE,
    POINTS,
    REASONS,
    SD,
    SMALLEST,
    WAYS,
    Finding,
    primary_of,
)
from tension_utils.config import MATCHED_ARM, MIXED
from tension_utils.planted.rates import WORLDS
from tension_utils.show.tables import SMALLEST_P

ARMS = {"single": "single-objective models", MIXED: "mixed model", MATCHED_ARM: "mixed model on as many pairs"}

TESTS = {
    "own": "own test",
    "opposing": "opposing test",
    "both": "both tests",
    "all": "own tests of all benchmarks",
    "safety": "safety tests, refusing and responding weighing the same",
    "": "",
}

CONTROLS = {
    "": "",
    "layer": "beyond {n_draws} random sets of the same layers",
    "activity": "beyond {n_draws} random sets of the same layers and activity",
    "coin": "beyond that with models of coin-flip labels",
    "longer": "beyond that with models taught to prefer the longer response",
    "interpolation": "beyond the two models' interpolated weights at the same balance",
    "ensemble": "beyond the two models' ensemble at the same balance",
}

SUBJECTS = {
    "mixing": "{arm} minus single-objective models, {test}",
    "frontier": "{arm} beside both single-objective models together, {test}",
    "removal": "{arm} without their {neuron_set} by {score_kind}, {test}",
    "sharing": "overlap of both models' {neuron_set} by {score_kind}",
    "weight": "{arm} without the shared minus without the only neurons ({neuron_set} sets), {test}",
}

# What sets a further reading apart, in a few words.
BRIEF = {
    "mixing": "{arm}, {test}",
    "frontier": "{arm} {labels}",
    "removal": "{score_kind}, {metric}",
    "sharing": "{score_kind}, {labels}",
    "weight": "{neuron_set} sets, {metric}",
}

UNITS = {POINTS: (1, " points"), SD: (2, " SD"), INDEX: (3, "")}  # decimals and words


def subject_of(finding: Finding | pd.Series) -> str:
    """Return in words what a finding measures."""
    words = {"arm": ARMS[finding.arm], "test": TESTS[finding.test]}
    words |= {name: getattr(finding, name) for name in ("neuron_set", "score_kind", "n_draws")}
    control = CONTROLS[finding.control] if finding.n_draws or finding.quantity in ("sharing", "frontier") else ""
    parts = [SUBJECTS[finding.quantity], control, "" if finding.metric == "jaccard" else finding.metric]
    return ", ".join(part.format(**words) for part in parts if part)


def number_words(value: float, low: float, high: float, unit: str) -> str:
    """Return a value with its interval.

    >>> number_words(-3.24, -6.2, -0.01, POINTS)
    '-3.2 points [-6.2, +0.0]'
    """
    digits, word = UNITS[unit]
    value, low, high = (round(number, digits) + 0.0 for number in (value, low, high))  # no -0.0
    interval = "" if isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{value:+.{digits}f}{word}{interval}"


def value_words(finding: Finding | pd.Series) -> str:
    """Return a finding's number with its interval."""
    return number_words(finding.value, finding.ci_low, finding.ci_high, finding.unit)


def extent_words(finding: Finding | pd.Series) -> str:
    """Return what a finding rests on."""
    items = f"n = {finding.n_items:,}{' neurons' if finding.unit == INDEX else ''}"
    n_bases = len(set(finding.bases))
    return f"{items}, {runs_text(finding.n_seeds)}" + (f" of {n_bases} base models" if n_bases > 1 else "")


def result_of(finding: Finding | pd.Series) -> str:
    """Return a finding's number in words, with interval, p-value, n, seeds and parts, or why it was not run."""
    if isnan(finding.value):
        return f"not run ({finding.reason})"
    p = "" if isnan(finding.p_value) else f", p = {finding.p_value:.2g}"
    p = f", p < {SMALLEST_P}" if finding.p_value < SMALLEST_P else p
    adjusted = getattr(finding, "p_adjusted", finding.p_value)
    p += f" ({adjusted:.2g} after Holm)" if adjusted > max(finding.p_value, SMALLEST_P) else ""
    parts = "; ".join(f"{part.name} {number_words(*part[1:], finding.unit)}" for part in finding.parts)
    words = f"{value_words(finding)}{p}; {extent_words(finding)}"
    return words + (f" ({parts})" if parts else "")


def sentence(finding: Finding | pd.Series) -> str:
    """Return a finding in one sentence."""
    return f"{subject_of(finding)}: {result_of(finding)}"


def verdict_table(ledgers: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the primary endpoint of every claim and what follows from it, a column of verdicts per source.

    Args:
        ledgers: where findings come from, in words -> table of `claims.ledger`, possibly with rates.
    """
    rows = []
    for key, claim in CLAIMS.items():
        side = "below zero" if claim.sign < 0 else "above zero"
        row = {"claim": f"{key}. {claim.title}", "primary endpoint": f"{claim.endpoint}; claimed {side}"}
        row["smallest effect"] = _smallest(claim.unit)
        for words, ledger in ledgers.items():
            published, own = (primary_of(ledger, key, way).verdict for way in WAYS)
            row[words] = own if own == published else f"{own}; as published {published}"
        rows.append(row)
    return pd.DataFrame(rows)


def smallest_words() -> str:
    """Return the smallest effects of interest with their reasons."""
    return "; ".join(f"{_smallest(unit)} ({reason})" for unit, reason in REASONS.items())


def _smallest(unit: str) -> str:
    return number_words(SMALLEST[unit], nan, nan, unit).lstrip("+")


def claim_words(ledger: pd.DataFrame, claim: str) -> tuple[str, str]:
    """Return the verdict on a claim under control in one sentence, and what it rests on in a few.

    These are its number, how often its test is right, the effect it would find, what would decide it, and what further
    readings are about.

    Args:
        ledger: of `rates.rated_ledger`.
        claim: key of `CLAIMS`.
    """
    row = primary_of(ledger, claim)
    last = _further_words(ledger[(ledger.claim == claim) & ~ledger.is_primary & (ledger.verdict != "not run")])
    if row.verdict == "not run":
        return "Not run.", " ".join(filter(None, [f"{_capitalized(row.reason)}.", last]))
    said = [f"{_capitalized(result_of(row))}.", _two_questions(row), _little_words(row), _worlds_words(row)]
    said.append(detectable_words(row))
    title = CLAIMS[claim].outcomes.get(row.verdict, f"No verdict: {row.reason}")
    return f"{title}.", "\n".join(filter(None, [*said, needed_words(row), last]))


def _further_words(further: pd.DataFrame) -> str:
    """Return the verdicts of further readings, each with what it is about."""
    if further.empty:
        return ""
    parts = []
    for verdict, n in further.verdict.value_counts().items():
        found = dict.fromkeys(_brief(row) for row in further[further.verdict == verdict].itertuples())
        parts.append(f"{n} {verdict} ({'; '.join(found)})")
    return f"Further readings ask other questions and decide nothing: {', '.join(parts)}."


def _brief(finding: Finding) -> str:
    words = {"arm": ARMS[finding.arm], "test": TESTS[finding.test].partition(",")[0]}
    words |= {"labels": CONTROLS[finding.control]} | {
        name: getattr(finding, name) for name in ("score_kind", "metric", "neuron_set")
    }
    published = ", as published" if finding.way == WAYS[0] else ""
    return BRIEF[finding.quantity].format(**words).rstrip(", ") + published


def _two_questions(row: pd.Series) -> str:
    """Return why a small p-value is no verdict where the interval holds zero; nothing elsewhere."""
    is_unusual = row.n_draws > 0 and getattr(row, "p_adjusted", row.p_value) <= LEVEL
    if row.verdict != "undecided" or not is_unusual or not row.ci_low < 0 < row.ci_high:
        return ""
    return (
        "A small p says that the set is unusual among random sets in these models; the interval asks whether another "
        "training run would show it, too. A verdict needs both."
    )


def _little_words(row: pd.Series) -> str:
    """Return what models had to lose where that was too little for a verdict; nothing elsewhere."""
    if row.reason != LITTLE_TO_LOSE:
        return ""
    had, smallest = (number_words(value, nan, nan, row.unit) for value in (row.to_lose, SMALLEST[row.unit]))
    return (
        f"Before anything is removed, their mean {row.metric}{' beyond chance' if row.metric == 'accuracy' else ''} on "
        f"these tests is {had}: hardly a set could lower it by the {smallest.lstrip('+')} that would matter."
    )


def _worlds_words(row: pd.Series) -> str:
    """Return how often a test supports its claim in planted worlds, and how large the true effect is there."""
    rates = rates_words(row) if "design" in row else ""
    if not rates:
        return ""
    effect = number_words(row.true_effect, nan, nan, row.unit)
    mean = "" if isnan(row.true_effect) else f" Where it is true, the effect is {effect} in the mean."
    is_refuted = row.verdict == "refuted" and not isnan(row.false_refutations)
    wrongly = f" It refutes {100 * row.false_refutations:.0f} % of the true ones." if is_refuted else ""
    return f"Planted worlds in which its test supports the claim: {rates}.{wrongly}{mean}"


def detectable_words(row: Finding | pd.Series) -> str:
    """Return how large an effect a study of this size would support; see `deciding.detectable`."""
    effect = detectable(row)
    if isnan(effect) or getattr(row, "verdict", "") == "no verdict" or row.n_seeds == 2:
        return ""  # of two training runs, how runs differ is hardly known
    words = number_words(effect, nan, nan, row.unit) + (", in this one run" if isnan(row.spread.seeds) else "")
    return f"Four in five studies like this one would support a true effect of {words}."


def needed_words(row: Finding | pd.Series) -> str:
    """Return what would decide a finding that is undecided, or let its test be heard; see `deciding.needed`."""
    if getattr(row, "verdict", "undecided") == "no verdict":
        sound = getattr(row, "sound_seeds", 0)
        return f"With {sound} training runs the test errs rarely enough." if sound else ""
    if getattr(row, "verdict", "undecided") != "undecided" or not row.spread:
        return ""
    n_items, n_seeds, both, is_close = needed(row)
    if is_close:
        return "It lies at the border: a few more items or training runs would decide it, if the estimate stays."
    items, runs = f"about {_two_digits(n_items):,} items", f"{n_seeds} training runs"
    if isnan(row.spread.seeds):
        unknown = "what others would give is not known"
        words = f"{items}, for this one training run; {unknown}" if n_items else f"more training runs alone; {unknown}"
    elif n_items and n_seeds:
        words = f"{items}, or at {runs}"
    elif n_items:
        words = f"{items}; more training runs alone would not"
    elif n_seeds:
        words = f"{runs}; more items alone would not"
    elif both[0]:
        words = f"about {_two_digits(both[0]):,} items in each of {both[1]} training runs; neither alone would"
    else:
        words = "no number of items and training runs that anybody would collect"
    return f"Would be decided, if the estimate stays, at {words}."


def _two_digits(n: int) -> int:
    """Round a number up to two digits.

    >>> _two_digits(2161), _two_digits(7)
    (2200, 7)
    """
    step = 10 ** max(len(str(n)) - 2, 0)
    return -(-n // step) * step


def finding_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Return findings as a table to read, the one that decides first and those as published last.

    Args:
        findings: rows of `rates.with_rates`.

    Returns:
        reading, result, verdict and, where the rows have rates, what their test does in planted worlds, in words.
    """
    is_published = findings.way == WAYS[0]
    findings = findings.assign(role=np.where(findings.is_primary, "Decides: ", ""), is_published=is_published)
    findings.loc[is_published, "role"] = "As published: "
    rows = findings.sort_values(["is_published", "is_primary"], ascending=[True, False], kind="stable")
    table = pd.DataFrame({"reading": [row.role + subject_of(row) for row in rows.itertuples()]})
    table["result"] = [result_of(row) for row in rows.itertuples()]
    table["verdict"] = [
        f"no verdict: {row.reason}" if row.verdict == "no verdict" else row.verdict for row in rows.itertuples()
    ]
    return table.assign(worlds=[rates_words(row) for row in rows.itertuples()]) if "design" in rows else table


def rates_words(row: pd.Series) -> str:
    """Return how often a test supports its claim in planted worlds where it is true and where it is false.

    With the numbers of such worlds.
    """
    kinds = zip(("true", "false"), ("power", "false_positives"), WORLDS, strict=True)
    shares = [(kind, getattr(row, rate), getattr(row, n_worlds)) for kind, rate, n_worlds in kinds]
    said = [f"{100 * share:.0f} % of {n_worlds:.0f} {kind}" for kind, share, n_worlds in shares if not isnan(share)]
    return f"{' and '.join(said)} ({row.design})" if said else ""


def answer(ledgers: Mapping[str, pd.DataFrame], figure: str, alt: str) -> str:
    """Return the verdicts as Markdown for the first page: a sentence per claim, beside the figure of all five.

    Args:
        ledgers: where findings come from, in words -> table of `claims.ledger`, possibly with rates.
        figure: address of the figure, seen from that page.
        alt: what the figure shows.
    """
    lines = ["::::{grid} 1 1 2 2", ":gutter: 3", "", ":::{grid-item}"]
    for words, ledger in ledgers.items():
        lines += ["", f"*{words}*", ""]
        lines += [f"- {verdict_sentence(ledger, claim)}" for claim in CLAIMS]
    lines += ["", ":::", "", ":::{grid-item}", f"```{{image}} {figure}", f":alt: {alt}", "```", ":::", "::::", ""]
    return "\n".join(lines)


def verdict_sentence(ledger: pd.DataFrame, claim: str) -> str:
    """Return what is true of a claim under control, with its number, n and seeds, and the sign as published."""
    published, row = (primary_of(ledger, claim, way) for way in WAYS)
    place = f"{{ref}}`{claim} <claim-{claim.lower()}>`"
    if row.verdict == "not run":
        return f"{place} **{CLAIMS[claim].title}: not run yet.**"
    number = f"{value_words(row)}; {extent_words(row)}"
    if row.verdict == "no verdict":
        why = row.reason if row.reason == LITTLE_TO_LOSE else "its test errs too often"  # the claim's page says how
        verdict = f"{CLAIMS[claim].title}: no verdict.** {_capitalized(why)}."
    else:
        verdict = f"{CLAIMS[claim].outcomes[row.verdict]}.**"
    return f"{place} **{verdict} {number}; as published {published.verdict}."


def _capitalized(text: str) -> str:
    """Return a text with a capital first letter; `str.capitalize` makes the others small."""
    return text[0].upper() + text[1:]
