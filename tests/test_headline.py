"""The five numbers of the first page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tension_utils.analysis.claims import CLAIMS, WAYS
from tension_utils.show.pages import QUESTIONS, Number, five_numbers, mean_of_independent, number_cards, number_text

RESULTS = Path(__file__).parents[1] / "results" / "laptop"
STATISTICS = {  # claim -> statements under control, with value, ends, n
    "C1": [
        ("helpful tests: paired accuracy, mixed minus helpful model (points)", 0.0, -3.0, 3.0, 10),
        ("harmless tests: paired accuracy, mixed minus harmless model (points)", 4.0, 0.0, 8.0, 20),
        ("safety tests: balanced accuracy of refusing and responding, mixed minus helpful model (points)", 9, 8, 10, 5),
    ],
    "C2": [("helpful model, top 10 % by rms_change, own test: effect, accuracy (points)", -6.0, -9.0, -3.0, 7)],
    "C3": [("helpful model, top 10 % by rms_change, opposing test: effect, accuracy (points)", 1, 0, 2, 7)],
    "C4": [("by mean_abs: Jaccard index beyond that of the untrained base model on both texts", 0.1, 0, 0.2, 40)],
    "C5": [
        (
            "mixed model, harmless test, 9 neurons each: effect of shared - only-harmless, accuracy (points)",
            -5,
            -9,
            -1,
            8,
        ),
        ("mixed model, helpful test, 9 neurons each: effect of shared - only-helpful, accuracy (points)", 2, -1, 5, 8),
        ("mixed model, helpful test, 9 neurons each: effect of shared - only-helpful, margin", -0.1, -0.2, 0, 8),
    ],
}


def ledger(statistics: dict = STATISTICS, verdict: str = "mixed", reason: str = "") -> pd.DataFrame:
    columns = ["claim", "way", "statistic", "value", "ci_low", "ci_high", "n_items", "n_seeds", "verdict", "reason"]
    rows = [(claim, WAYS[1], *row, 3, verdict, reason) for claim, found in statistics.items() for row in found]
    return pd.DataFrame(rows, columns=columns)


def test_one_question_per_claim() -> None:
    assert list(QUESTIONS) == list(CLAIMS)


def test_mean_by_hand() -> None:
    # Distances to the lower ends are 3 and 4, to the upper ones 3 and 4: root 25 = 5, divided by two estimates.
    assert mean_of_independent(np.array([0.0, 4.0]), np.array([-3.0, 0.0]), np.array([3.0, 8.0])) == (2.0, -0.5, 4.5)


def test_mean_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    sigma = np.array([1.0, 3.0])
    draws = rng.normal(0, sigma, (20_000, 2))
    inside = []
    for values in draws[:4000]:
        _, low, high = mean_of_independent(values, values - 1.959964 * sigma, values + 1.959964 * sigma)
        inside.append(low <= 0 <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=5))
def test_mean_lies_in_its_interval_which_no_single_one_makes_narrower_than_its_share(estimates: list) -> None:
    values, below, above = (np.array(column) for column in zip(*estimates, strict=True))
    mean, low, high = mean_of_independent(values, values - below, values + above)
    assert low <= mean <= high
    assert mean - low >= below.max() / len(values) - 1e-9 and high - mean >= above.max() / len(values) - 1e-9


def test_numbers_pool_choose_and_leave_out() -> None:
    numbers = five_numbers(ledger())
    assert numbers["C1"] == Number(2.0, -0.5, 4.5, 30, 3), "the balanced accuracy is another question"
    assert numbers["C5"] == Number(-1.5, -4.0, 1.0, 16, 3), "distances 4 and 3 on either side: root 25 = 5, halved"
    assert numbers["C4"].n_items == 40
    assert number_text(numbers["C4"], QUESTIONS["C4"]) == "**+0.100** [+0.000, +0.200], n = 40, 3 seeds"


def test_what_was_not_run_says_why_and_a_single_seed_takes_the_table() -> None:
    table = ledger(verdict="not run", reason="no neuron set was removed").assign(value=np.nan)
    numbers = five_numbers(table)
    assert number_text(numbers["C2"], QUESTIONS["C2"]) == "not run (no neuron set was removed)"
    row = {"jaccard": 0.59, "floor": 0.64, "n_neurons": 4608, "n_seeds": 1}
    overlap = pd.DataFrame([row | {"floor": np.nan}, row])
    beyond = five_numbers(table, overlap)["C4"]
    assert beyond.value == pytest.approx(-0.05) and np.isnan(beyond.ci_low) and beyond.n_items == 4608
    assert "no interval from a single seed" in number_text(beyond, QUESTIONS["C4"])


def test_a_ledger_in_other_words_is_refused() -> None:
    other = ledger()
    other.loc[other.claim == "C3", "statistic"] = "something else"
    with pytest.raises(ValueError, match="C3: expected a statement like"):
        five_numbers(other)


def test_committed_results_give_five_numbers_with_their_chapters() -> None:
    found = pd.read_csv(RESULTS / "claims.csv")
    numbers = five_numbers(found, pd.read_csv(RESULTS / "overlap.csv"))
    assert not any(np.isnan(number.value) for number in numbers.values())
    pair = found[found.statistic.str.contains("paired accuracy, mixed minus") & found.value.notna()]
    assert numbers["C1"].value == pytest.approx(pair.value.mean()) and numbers["C1"].n_items == pair.n_items.sum()
    links = {claim: f"[chapter](../executed/{claim}.ipynb)" for claim in CLAIMS}
    cards = number_cards({"Here": numbers}, {"Here": links})
    assert cards.count("{grid-item-card}") == 5 and all(link in cards for link in links.values())
