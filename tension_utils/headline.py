"""The answer in five numbers, one per claim: read from a ledger and put in words, beside where they come from."""

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

from tension_utils.statements import WAYS, seeds_text


@dataclass(frozen=True)
class Question:
    """One question of the first page, and which statements of the ledger answer it.

    Args:
        text: the question.
        measure: what the number is, in words.
        pattern: regular expression on `Statement.statistic`, among those under control; what it finds is of different
            items and averaged.
        unit: appended to the number; empty for an index.
        note: a sentence that stands for the interval where there is none.
    """

    text: str
    measure: str
    pattern: str
    unit: str = " points"
    note: str = ""


QUESTIONS = {
    "C1": Question(
        "What does mixing cost?",
        "accuracy of the mixed model minus that of a single-objective one, on the latter's own tests; mean of both",
        r"paired accuracy, mixed minus \w+ model",
    ),
    "C2": Question(
        "Do the neurons that training changed most carry their objective?",
        "change in accuracy on the own test without them, beyond random neurons; mean of both objectives",
        r"by rms_change, own test: .*accuracy \(points\)",
    ),
    "C3": Question(
        "Do they hold the other objective back?",
        "the same on the opposing test; above zero they did",
        r"by rms_change, opposing test: .*accuracy \(points\)",
    ),
    "C4": Question(
        "Does training make the objectives share neurons?",
        "Jaccard index of both models' top tenths minus that of the untrained base model; n counts neurons in a set",
        r"Jaccard index beyond that of the untrained base model",
        unit="",
        note="no interval from a single seed",
    ),
    "C5": Question(
        "Do shared neurons weigh more than separate ones?",
        "change in the mixed model's accuracy without the shared minus without as many separate neurons, on the "
        "separate ones' own test; mean of both",
        r"shared - only-\w+, accuracy \(points\)",
    ),
}


@dataclass(frozen=True)
class Number:
    """One of the five: NaN where it was not run, and then `reason` says why.

    Args:
        value: in the unit of its `Question`.
        ci_low: lower end of the 95 % interval; NaN if there is none.
        ci_high: upper end.
        n_items: items, or neurons in a set, behind it.
        n_seeds: training runs per objective.
        reason: why it was not run; else empty.
    """

    value: float
    ci_low: float = nan
    ci_high: float = nan
    n_items: int = 0
    n_seeds: int = 0
    reason: str = ""


def mean_of_independent(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of independent estimates with its interval.

    Each bound lies as far from the mean as the root of the summed squares of the estimates' own distances says, which
    keeps lopsided intervals lopsided.

    Args:
        values (K,): the estimates.
        lows (K,): lower ends of their intervals, all of one level.
        highs (K,): upper ends.

    Source: ours; the method of variance estimates recovery of Zou and Donner (2008).

    >>> [round(x, 2) for x in mean_of_independent(np.array([0.0, 4.0]), np.array([-3.0, 0.0]), np.array([3.0, 8.0]))]
    [2.0, -0.5, 4.5]
    """
    mean, count = values.mean(), len(values)
    below, above = (np.sqrt(np.sum((values - ends) ** 2)) / count for ends in (lows, highs))
    return float(mean), float(mean - below), float(mean + above)


def _summarized(rows: pd.DataFrame, question: Question) -> Number:
    n_seeds = int(rows.n_seeds.min())
    columns = [rows[name].to_numpy(float) for name in ("value", "ci_low", "ci_high")]
    n_items = rows.n_items.sum() if question.unit else rows.n_items.iloc[0]
    return Number(*mean_of_independent(*columns), int(n_items), n_seeds)


def five_numbers(ledger: pd.DataFrame, overlap: pd.DataFrame | None = None) -> dict[str, Number]:
    """Return one number per claim.

    Args:
        ledger: of `claims.ledger_table`.
        overlap: of `overlap_controls.reference_table`; gives C4 its number where a single seed has no interval.

    Raises:
        ValueError: a question finds no statement in the ledger.
    """
    numbers = {}
    for claim, question in QUESTIONS.items():
        controlled = ledger[(ledger.claim == claim) & (ledger.way == WAYS[1])]
        rows = controlled[controlled.statistic.str.contains(question.pattern)]
        rows = controlled if rows.empty and (controlled.verdict == "not run").all() else rows
        if rows.empty:
            raise ValueError(f"{claim}: expected a statement like {question.pattern!r} in the ledger, found none")
        run = rows[rows.verdict != "not run"]
        if not run.empty:
            numbers[claim] = _summarized(run.iloc[: len(run) if question.unit else 1], question)
        elif claim == "C4" and overlap is not None and overlap.floor.notna().any():
            row = overlap[overlap.floor.notna()].iloc[0]
            beyond = float(row.jaccard - row.floor)
            numbers[claim] = Number(beyond, n_items=int(row.n_neurons), n_seeds=int(row.n_seeds))
        else:
            numbers[claim] = Number(nan, reason=rows.reason.iloc[0])
    return numbers


def number_text(number: Number, question: Question) -> str:
    """Return a number with its interval, n and seeds as Markdown.

    >>> number_text(Number(-3.24, -6.2, -0.3, 2008, 1), QUESTIONS["C1"])
    '**-3.2 points** [-6.2, -0.3], n = 2,008, 1 seed'
    """
    if np.isnan(number.value):
        return f"not run ({number.reason})"
    digits = 1 if question.unit else 3
    bounds = f" [{number.ci_low:+.{digits}f}, {number.ci_high:+.{digits}f}]"
    bounds = f" ({question.note})" if np.isnan(number.ci_low) else bounds
    value = f"**{number.value:+.{digits}f}{question.unit}**{bounds}"
    return f"{value}, n = {number.n_items:,}, {seeds_text(number.n_seeds)}"


def number_cards(sources: dict[str, dict[str, Number]], chapters: dict[str, dict[str, str]]) -> str:
    """Return the five numbers as a grid of cards in MyST Markdown, the first source in front.

    Args:
        sources: where numbers come from, in words -> `five_numbers`.
        chapters: the same words -> claim -> link to the chapter that shows the number.
    """
    cards = []
    for place, (claim, question) in enumerate(QUESTIONS.items(), start=1):
        width = [":columns: 12"] if place == len(QUESTIONS) and place % 2 else []  # no empty half beside the last one
        measure = question.measure[0].upper() + question.measure[1:]
        lines = [f":::{{grid-item-card}} {place}. {question.text}", *width, "", f"*{measure}.*"]
        for words, numbers in sources.items():
            lines += ["", f"{words}: {number_text(numbers[claim], question)} ({chapters[words][claim]})"]
        cards.append("\n".join([*lines, ":::"]))
    return "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])
