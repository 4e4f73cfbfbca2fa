"""How often the ledger is right: its error rates on planted worlds, and those of the design of a finding."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import runs_text
from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import WAYS
from tension_utils.statistics import wilson_interval

COMMAND = "python -m tension_utils.planted.study --worlds 20 --output results/planted"

STUDY = Path("results", "planted")

TABLES = ("finders", "claims", "worlds")

# What tells the ledger's readings apart.
ENDPOINT = ["claim", "way", "is_primary", "quantity", "metric", "arm", "test", "neuron_set", "score_kind", "control"]

DESIGN = ["n_seeds", "n_items", "n_draws"]  # in the order in which the nearest one is sought

ITEMS_LOST = 1.05  # a design's items per usable one, at most

COUNTED = {"n_supported": "supported", "n_refuted": "refuted", "n_contradictory": "contradictory"}

# Rate -> whether the claim is true in its worlds, and which count it is a share of.
RATES = {
    "power": (True, "n_supported"),
    "false_positives": (False, "n_supported"),
    "false_refutations": (True, "n_refuted"),
}

# On how many worlds these rest, of which the claim is true or false.
WORLDS = ("n_worlds_power", "n_worlds_false_positives")

MOST_ERRORS = 0.1  # a reading that errs more often gives no verdict


def read_study(folder: Path) -> tuple[dict[str, pd.DataFrame], dict]:
    """Return the tables and the manifest that `study.export_study` wrote.

    Raises:
        FileNotFoundError: names the folder and the command that writes it.
    """
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"expected the stored study in {folder}, found none; write it with {COMMAND}")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=["nan"]) for name in TABLES
    }, manifest


def truth_key(claim: str, quantity: str, control: str) -> str:
    """Return under which name a world holds the truth of a reading: its claim, and a frontier's kind.

    Whether joint training itself does harm, against each frontier, is another question than whether mixing costs.

    >>> truth_key("C1", "mixing", ""), truth_key("C1", "frontier", "ensemble")
    ('C1', 'C1 ensemble')
    """
    return f"{claim} {control}" if quantity == "frontier" else claim


def _key(row: Mapping) -> str:
    return truth_key(row["claim"], row["quantity"], row["control"])


def claim_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how often the ledger gives each verdict, by kind of world, where the truth of the claim is known.

    In some worlds a training run lacks a set, so that a reading has fewer runs than its design; a design that fewer
    than half of a reading's worlds have is left out.

    Args:
        worlds: of `study.run_worlds`.

    Returns:
        scenario, is_true, `ENDPOINT`, `DESIGN`, n_worlds, n_supported, n_refuted, n_contradictory, value (mean).
    """
    rows = pd.DataFrame(
        [
            row | {"scenario": each["world"]["scenario"], "is_true": each["truth"].get(_key(row))}
            for each in worlds
            for row in each["findings"]
        ]
    )
    rows = rows[rows.is_true.notna()].astype({"is_true": bool})
    rows = rows.assign(**{name: rows.verdict == verdict for name, verdict in COUNTED.items()})
    groups = rows.groupby(["scenario", "is_true", *ENDPOINT, *DESIGN], sort=True)
    sums = {name: (name, "sum") for name in COUNTED}
    counted = groups.agg(n_worlds=("value", "size"), **sums, value=("value", "mean")).reset_index()
    most = counted.groupby(["scenario", "is_true", *ENDPOINT]).n_worlds.transform("max")
    return counted[counted.n_worlds >= most / 2].reset_index(drop=True)


def error_rates(claims: pd.DataFrame) -> pd.DataFrame:
    """Pool a study's counts over kinds of worlds, and set power beside errors.

    Args:
        claims: of `claim_rates`.

    Returns:
        `ENDPOINT`, `DESIGN`, and the rates of `RATES`, each with _ci_low and _ci_high (Wilson's 95 % interval, as if
        worlds of different kinds were independent) and after n_worlds_; true_effect (mean over worlds where the claim
        is true); NaN without such worlds.

    >>> one = dict.fromkeys(ENDPOINT, "") | dict.fromkeys(DESIGN, 1) | {"n_worlds": 10, "n_refuted": 0, "value": 2.0}
    >>> rates = error_rates(pd.DataFrame([one | {"is_true": t, "n_supported": n} for t, n in ((True, 8), (False, 1))]))
    >>> rates[["power", "false_positives", "true_effect"]].values.tolist()
    [[0.8, 0.1, 2.0]]
    """
    keys = [*ENDPOINT, *DESIGN]
    table = claims[keys].drop_duplicates()
    sums = claims.groupby([*keys, "is_true"], as_index=False)[["n_worlds", "n_supported", "n_refuted"]].sum()
    for name, (truth, count) in RATES.items():
        part = sums[sums.is_true == truth]
        bounds = np.array([wilson_interval(row[count], row.n_worlds) for _, row in part.iterrows()]).reshape(-1, 2)
        columns = {name: part[count] / part.n_worlds, f"{name}_ci_low": bounds[:, 0], f"{name}_ci_high": bounds[:, 1]}
        found = part[keys].assign(**columns, **{f"n_worlds_{name}": part.n_worlds})
        table = table.merge(found, on=keys, how="left")
    of_true = claims[claims.is_true].assign(weighed=lambda part: part.value * part.n_worlds)
    of_true = of_true.groupby(keys, as_index=False)[["weighed", "n_worlds"]].sum()
    effects = of_true[keys].assign(true_effect=of_true.weighed / of_true.n_worlds)
    return table.merge(effects, on=keys, how="left")


def kind_rates(claims: pd.DataFrame) -> pd.DataFrame:
    """Return how often the primary endpoints support their claims in each kind of world.

    Args:
        claims: of `claim_rates`.

    Returns:
        The rows of the primary endpoints under control, with supported (share) and Wilson's 95 % interval (ci_low,
        ci_high).
    """
    rows = claims[claims.is_primary & (claims.way == WAYS[1])].reset_index(drop=True)
    low, high = np.transpose([wilson_interval(row.n_supported, row.n_worlds) for row in rows.itertuples()])
    return rows.assign(supported=rows.n_supported / rows.n_worlds, ci_low=low, ci_high=high)


def kind_counts(kinds: pd.DataFrame) -> pd.DataFrame:
    """Return in how many worlds of each kind the largest designs of three training runs support each claim.

    Args:
        kinds: of `kind_rates`.

    Returns:
        scenario, is_true, and per claim "18 of 20"; missing where its truth is another, open, or was not tested.
    """
    rows = largest_designs(kinds, (3,))
    words = rows.n_supported.map("{:,}".format) + rows.n_worlds.map(" of {:,}".format)
    wide = rows.assign(words=words).pivot(index=["scenario", "is_true"], columns="claim", values="words")
    return wide.rename_axis(columns=None).reset_index()


def largest_designs(rates: pd.DataFrame, n_seeds: Sequence[int]) -> pd.DataFrame:
    """Return the rows of the primary readings with most items, each claim's by way and number of training runs.

    Without C4 as published, which gives no verdict, and without the other sets that C5 falls back to in some worlds.

    Args:
        rates: of `error_rates` or `kind_rates`.
        n_seeds: numbers of training runs.
    """
    rows = rates[rates.is_primary & rates.n_seeds.isin(n_seeds) & (rates.neuron_set != "equal-size")]
    rows = rows[(rows.quantity != "sharing") | (rows.control != "")]
    rows = rows[rows.n_items == rows.groupby("claim").n_items.transform("max")]
    return rows.sort_values(["claim", "way", "n_seeds"], kind="stable", ignore_index=True)


def full_seeds(manifest: Mapping) -> list[int]:
    """Return the numbers of training runs that a study's full designs have, ascending.

    >>> full_seeds({"config": {"designs": [{"is_full": True, "seeds": [3, 1]}, {"is_full": False, "seeds": [2]}]}})
    [1, 3]
    """
    return sorted({n for design in manifest["config"]["designs"] if design["is_full"] for n in design["seeds"]})


def design_rates(rates: pd.DataFrame, finding: pd.Series) -> pd.Series | None:
    """Return the rates of a finding's own endpoint in the nearest design that is not larger; None if there is none.

    A few items may be unusable: up to a twentieth more of them than the finding has make a design no larger. One that
    fewer than half of the endpoint's worlds have tells too little.

    Args:
        rates: of `error_rates`.
        finding: row of a ledger, or a `Finding`.
    """
    is_it = (rates[ENDPOINT] == pd.Series({name: getattr(finding, name) for name in ENDPOINT})).all(axis=1)
    size = [getattr(finding, name) * (ITEMS_LOST if name == "n_items" else 1) for name in DESIGN]
    n_worlds = rates[list(WORLDS)].sum(axis=1)
    is_it &= (rates[DESIGN] <= size).all(axis=1) & (n_worlds >= n_worlds[is_it].max() / 2)
    found = rates[is_it].sort_values(DESIGN)
    return found.iloc[-1] if len(found) else None


def sound_seeds(rates: pd.DataFrame, finding: pd.Series) -> int:
    """Return with how many training runs a finding's own test errs rarely enough to be heard; 0 if no design has it.

    Of each number of runs that design counts which is nearest in items and random sets, as in `design_rates`.

    Args:
        rates: of `error_rates`.
        finding: as in `design_rates`.
    """
    own = pd.Series({name: getattr(finding, name) for name in (*ENDPOINT, *DESIGN)})
    for n_seeds in sorted(rates.n_seeds[rates.n_seeds > finding.n_seeds].unique()):
        found = design_rates(rates, pd.Series(own.to_dict() | {"n_seeds": n_seeds}))
        is_known = found is not None and found.n_seeds == n_seeds and not np.isnan(found.false_positives)
        if is_known and not _objection("refuted", found):
            return int(n_seeds)
    return 0


def with_rates(ledger: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Return a ledger with the error rates of its designs; a test that errs too often gives no verdict.

    One that supports false claims too often is not heard at all, one that refutes true ones too often not when it
    refutes.

    Args:
        ledger: of `claims.ledger`.
        rates: of `error_rates`.

    Returns:
        The ledger with the columns of `RATES` and `WORLDS`, true_effect, design (in words) and sound_seeds; the reason
        says why there is no verdict. sound_seeds is 0 where the test does not err too often, too.
    """
    rows = []
    for _, row in ledger.iterrows():
        found = design_rates(rates, row) if row.verdict != "not run" else None
        new = {name: np.nan if found is None else found[name] for name in (*RATES, *WORLDS, "true_effect")}
        new |= {"design": "" if found is None else design_words(found), "sound_seeds": 0}
        if row.way == WAYS[1] and (reason := _objection(row.verdict, new)):
            new |= {"verdict": "no verdict", "reason": reason, "sound_seeds": sound_seeds(rates, row)}
        rows.append(row.to_dict() | new)
    return pd.DataFrame(rows)


def rated_ledger(evidence: Evidence, study: Path = STUDY) -> pd.DataFrame:
    """Return every reading of every claim with the error rates of its test: the verdicts that all pages show.

    Args:
        evidence: the stored results that are judged.
        study: folder of the planted study.

    Raises:
        FileNotFoundError: as `read_study`.
    """
    return with_rates(ledger(evidence), error_rates(read_study(study)[0]["claims"]))


def _objection(verdict: str, rates: Mapping[str, float]) -> str:
    """Return why a verdict cannot be trusted, else nothing."""
    if rates["false_positives"] > MOST_ERRORS:
        return f"its test supports it in {100 * rates['false_positives']:.0f} % of made-up worlds where it is false"
    if verdict == "refuted" and rates["false_refutations"] > MOST_ERRORS:
        return f"its test refutes it in {100 * rates['false_refutations']:.0f} % of made-up worlds where it is true"
    return ""


def design_words(design: pd.Series) -> str:
    """Return a design in words.

    >>> design_words(pd.Series({"n_seeds": 3, "n_items": 80, "n_draws": 12}))
    '3 runs, 80 items, 12 random sets'
    >>> design_words(pd.Series({"claim": "C4", "n_seeds": 1, "n_items": 19, "n_draws": 0}))
    '1 run, sets of 19 neurons'
    """
    items = f", sets of {design.n_items} neurons" if design.get("claim") == "C4" else f", {design.n_items} items"
    return runs_text(design.n_seeds) + items + (f", {design.n_draws} random sets" if design.n_draws else "")
