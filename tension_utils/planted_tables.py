"""The stored study of planted worlds: how often finders and claim tests were right."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tension_utils.markdown import markdown_table
from tension_utils.statistics import wilson_interval

COMMAND = "python -m tension_utils.planted_study --worlds 100 --output results/planted"
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
