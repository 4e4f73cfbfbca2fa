"""One reading of a claim: what was measured, how well it is known, and what it says."""

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

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
