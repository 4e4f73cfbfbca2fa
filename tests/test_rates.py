"""How often the ledger is right: rates by hand, the nearest design, and tests that err too often to be heard."""

from dataclasses import asdict
from math import nan
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tension_utils.analysis.claims import Evidence
from tension_utils.analysis.findings import SD, WAYS, Finding, judge
from tension_utils.planted.rates import (
    DESIGN,
    ENDPOINT,
    ITEMS_LOST,
    TABLES,
    claim_rates,
    design_rates,
    error_rates,
    kind_counts,
    kind_rates,
    largest_designs,
    rated_ledger,
    sound_seeds,
    with_rates,
)
from tension_utils.show.ledger import finding_table

FINDING = Finding("C2", WAYS[1], True, "removal", "margin", "both", "single", "own", "top 10 %", "rms_change", "layer",
                  -0.5, -0.8, -0.2, 0.001, SD, n_items=80, n_seeds=3, n_draws=12)  # fmt: skip
NAMES = {name: getattr(FINDING, name) for name in ENDPOINT}


def worlds(verdicts: dict[str, list[str]], **design: int) -> list[dict]:
    """One world per verdict; scenario -> verdicts."""
    size = {"n_seeds": 3, "n_items": 80, "n_draws": 12} | design
    return [
        {
            "world": {"seed": seed, "scenario": scenario},
            "truth": {"C2": TRUTH[scenario]},
            "findings": [NAMES | size | {"value": -0.1, "verdict": verdict}],
        }
        for scenario, found in verdicts.items()
        for seed, verdict in enumerate(found)
    ]


TRUTH = {"planted": True, "even": True, "direct": False, "trained": None}

HAND = {  # C2 is true in planted and even worlds and false in direct ones
    "planted": ["supported"] * 8 + ["undecided", "refuted"],
    "even": ["supported"] * 10,
    "direct": ["supported"] + ["undecided"] * 7 + ["refuted"] * 2,
}


def test_rates_by_hand() -> None:
    counted = claim_rates(worlds(HAND)).set_index("scenario")
    assert counted.n_worlds.to_dict() == {"direct": 10, "even": 10, "planted": 10}
    assert counted.n_supported.to_dict() == {"direct": 1, "even": 10, "planted": 8}
    (rates,) = error_rates(counted.reset_index()).to_dict("records")
    assert rates["power"] == 18 / 20 and rates["false_positives"] == 1 / 10 and rates["false_refutations"] == 1 / 20
    assert rates["n_worlds_power"] == 20 and rates["n_worlds_false_positives"] == 10
    # Wilson, 1 of 10: (.1 + z^2 / 20 -+ z sqrt(.009 + z^2 / 400)) / (1 + z^2 / 10) with z = 1.96.
    assert rates["false_positives_ci_low"] == pytest.approx(0.0179, abs=1e-4)
    assert rates["false_positives_ci_high"] == pytest.approx(0.4042, abs=1e-4)
    unsure = claim_rates(worlds(HAND | {"trained": ["supported"] * 5}))
    assert set(unsure.scenario) == set(HAND), "a world whose truth is open counts for nothing"
    only_true = error_rates(claim_rates(worlds({"planted": ["supported"]})))
    assert only_true.false_positives.isna().all() and only_true.power.tolist() == [1.0]


def rates_of(designs: list[tuple[int, int, int]]) -> pd.DataFrame:
    found = [world for design in designs for world in worlds(HAND, **dict(zip(DESIGN, design, strict=True)))]
    return error_rates(claim_rates(found))


def test_the_nearest_design_that_is_not_larger() -> None:
    rates = rates_of([(1, 24, 8), (3, 24, 8), (3, 80, 12), (2, 160, 12)])

    def nearest(**size: int) -> tuple | None:
        row = design_rates(rates, pd.Series(asdict(FINDING) | size))
        return None if row is None else tuple(int(row[name]) for name in DESIGN)

    assert nearest() == (3, 80, 12) and nearest(n_items=500, n_seeds=5) == (3, 80, 12)
    assert nearest(n_draws=8) == (3, 24, 8) and nearest(n_seeds=2) == (1, 24, 8)
    assert nearest(n_seeds=2, n_items=160) == (2, 160, 12), "seeds count first, then items, then draws"
    assert nearest(n_items=23) == (3, 24, 8), "an item or two may be unusable"
    assert nearest(n_items=22) is None and nearest(control="activity") is None and nearest(is_primary=False) is None


@given(st.tuples(st.integers(1, 5), st.integers(1, 300), st.integers(2, 20)))
def test_no_design_is_larger_than_the_finding(size: tuple[int, int, int]) -> None:
    designs = [(1, 24, 8), (3, 24, 8), (3, 80, 12), (2, 160, 12)]
    rates = pd.DataFrame([NAMES | dict(zip(DESIGN, design, strict=True)) for design in designs])
    rates = rates.assign(n_worlds_power=20, n_worlds_false_positives=20)
    row = design_rates(rates, pd.Series(asdict(FINDING) | dict(zip(DESIGN, size, strict=True))))
    usable = (size[0], ITEMS_LOST * size[1], size[2])
    fitting = [design for design in designs if all(a <= b for a, b in zip(design, usable, strict=True))]
    assert (row is None) == (not fitting)
    assert row is None or tuple(row[name] for name in DESIGN) == max(fitting)


def test_a_test_that_errs_too_often_gives_no_verdict() -> None:
    ledger = judge([FINDING])
    rated = with_rates(ledger, error_rates(claim_rates(worlds(HAND))))
    assert finding_table(rated).worlds[0] == "90 % of 20 true and 10 % of 10 false (3 runs, 80 items, 12 random sets)"
    (row,) = rated.itertuples()
    assert row.verdict == "supported" and (row.power, row.false_positives) == (0.9, 0.1), "ten percent is the limit"
    assert row.design == "3 runs, 80 items, 12 random sets"
    worse = HAND | {"direct": ["supported"] * 2 + ["undecided"] * 8}
    table = with_rates(ledger, error_rates(claim_rates(worlds(worse))))
    assert (
        table.verdict[0] == "no verdict"
        and table.reason[0] == "its test supports it in 20 % of made-up worlds where it is false"
    )
    assert (
        finding_table(table).verdict[0]
        == "no verdict: its test supports it in 20 % of made-up worlds where it is false"
    )


def test_every_page_takes_its_verdicts_from_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = claim_rates(worlds(HAND | {"direct": ["supported"] * 2 + ["undecided"] * 8}))
    for name in TABLES:
        counted.to_csv(tmp_path / f"{name}.csv", index=False, na_rep="nan")
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr("tension_utils.planted.rates.ledger", lambda evidence: judge([FINDING]))
    (row,) = rated_ledger(Evidence(), tmp_path).itertuples()
    assert row.sound_seeds == 0, "no design of more training runs is stored"
    assert (
        row.verdict == "no verdict" and row.reason == "its test supports it in 20 % of made-up worlds where it is false"
    )
    with pytest.raises(FileNotFoundError, match="expected the stored study in"):
        rated_ledger(Evidence(), tmp_path / "none")


def test_from_how_many_training_runs_a_test_errs_rarely_enough() -> None:
    worse = HAND | {"direct": ["supported"] * 2 + ["undecided"] * 8}
    found = worlds(worse) + worlds(worse, n_seeds=4) + worlds(HAND, n_seeds=5) + worlds(HAND, n_seeds=6)
    rates = error_rates(claim_rates(found))
    assert with_rates(judge([FINDING]), rates).sound_seeds.tolist() == [5]
    assert sound_seeds(rates, pd.Series(asdict(FINDING) | {"n_seeds": 6})) == 0
    refuting = HAND | {"planted": ["refuted"] * 4 + ["supported"] * 6}
    assert sound_seeds(error_rates(claim_rates(worlds(refuting, n_seeds=5))), pd.Series(asdict(FINDING))) == 0
    fewer = worlds(HAND, n_seeds=5, n_items=40) + worlds(refuting, n_seeds=5)
    assert sound_seeds(error_rates(claim_rates(fewer)), pd.Series(asdict(FINDING))) == 0, "fewer items err less"


def test_a_design_of_a_few_worlds_is_passed_over() -> None:
    few = claim_rates(worlds({name: verdicts[:4] for name, verdicts in HAND.items()}, n_seeds=4))
    larger = pd.Series(asdict(FINDING) | {"n_seeds": 4})
    assert design_rates(error_rates(pd.concat([claim_rates(worlds(HAND)), few])), larger).n_seeds == 3
    assert design_rates(error_rates(few), larger).n_seeds == 4, "alone it is all there is"


def test_a_refutation_is_not_heard_where_true_claims_are_refuted_too_often() -> None:
    doubtful = HAND | {"planted": ["refuted"] * 4 + ["supported"] * 6}
    rates = error_rates(claim_rates(worlds(doubtful)))
    refuted = Finding(**asdict(FINDING) | {"parts": (), "ci_low": -0.05, "ci_high": 0.05})
    table = with_rates(judge([FINDING, refuted]), rates)
    assert table.verdict.tolist() == ["supported", "no verdict"]
    assert table.reason[1] == "its test refutes it in 20 % of made-up worlds where it is true"


def test_what_was_not_run_or_tried_keeps_its_verdict() -> None:
    missing = judge([Finding(**asdict(FINDING) | {"value": nan, "p_value": nan, "parts": (), "reason": "none"})])
    rates = error_rates(claim_rates(worlds({"direct": ["supported"] * 3})))
    assert with_rates(missing, rates).verdict.tolist() == ["not run"]
    other = judge([Finding(**asdict(FINDING) | {"parts": (), "control": "activity"})])
    (row,) = with_rates(other, rates).itertuples()
    assert row.verdict == "supported" and pd.isna(row.power) and row.design == ""


def test_rates_by_kind_of_world() -> None:
    rates = kind_rates(claim_rates(worlds(HAND))).set_index("scenario")
    assert rates.supported.to_dict() == {"planted": 0.8, "even": 1.0, "direct": 0.1}
    assert rates.ci_low["direct"] == pytest.approx(0.0179, abs=1e-4)
    raw = [{**world, "findings": [row | {"way": WAYS[0]} for row in world["findings"]]} for world in worlds(HAND)]
    assert kind_rates(claim_rates(worlds(HAND) + raw)).n_worlds.sum() == 30


def test_a_frontier_has_a_truth_of_its_own() -> None:
    (world,) = worlds({"planted": ["supported"]})
    rows = [row | {"claim": "C1", "quantity": "frontier", "control": "ensemble"} for row in world["findings"]]
    rates = claim_rates([world | {"truth": {"C1": True, "C1 ensemble": False}, "findings": rows}])
    assert rates.is_true.tolist() == [False] and rates.claim.tolist() == ["C1"]


def test_a_design_that_few_worlds_have_by_what_they_lack_is_left_out() -> None:
    few = worlds({"planted": ["undecided"] * 4}, n_seeds=2)
    counted = claim_rates(worlds(HAND) + few)
    assert set(counted.n_seeds) == {3}
    assert set(claim_rates(worlds(HAND) + few + few).n_seeds) == {2, 3}


def test_largest_designs_are_those_with_most_items_of_the_runs_asked_for() -> None:
    rates = rates_of([(1, 80, 12), (3, 24, 8), (3, 80, 12), (2, 80, 12)])
    found = largest_designs(rates, [3, 1])
    assert found[DESIGN].to_numpy().tolist() == [[1, 80, 12], [3, 80, 12]]
    for other in ({"is_primary": False}, {"neuron_set": "equal-size"}, {"quantity": "sharing", "control": ""}):
        assert largest_designs(rates.assign(**other), [3]).empty, other
    assert len(largest_designs(rates.assign(quantity="sharing"), [3])) == 1


def test_worlds_are_counted_by_kind_and_truth() -> None:
    other = [each | {"findings": [each["findings"][0] | {"n_seeds": 2}]} for each in worlds(HAND)]
    counted = kind_counts(kind_rates(claim_rates(worlds(HAND) + other)))
    assert counted.to_dict("records") == [
        {"scenario": "direct", "is_true": False, "C2": "1 of 10"},
        {"scenario": "even", "is_true": True, "C2": "10 of 10"},
        {"scenario": "planted", "is_true": True, "C2": "8 of 10"},
    ]
