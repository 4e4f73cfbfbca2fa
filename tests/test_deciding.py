"""What would decide an undecided claim: by hand, and foretold on part of a study and found on the whole."""

import re
from math import nan

import numpy as np
import pytest
from scipy import stats

from tension_utils.analysis.deciding import POWER, Needed, detectable, needed
from tension_utils.analysis.findings import POINTS, SD, WAYS, Finding
from tension_utils.show.ledger import needed_words
from tension_utils.statistics import TAILS, Bootstrap, Spread, contrast_draws, contrast_spread

Z = stats.norm.ppf(0.975)


def undecided(value: float, spread: Spread | None, **other: object) -> Finding:
    """Of C1, where a negative value is claimed; the smallest effect of interest is 3 points."""
    what = {"claim": "C1", "way": WAYS[1], "is_primary": True, "quantity": "mixing", "metric": "accuracy"}
    what |= {"objective": "both", "arm": "helpful-harmless", "test": "own", "neuron_set": "", "score_kind": ""}
    what |= {"control": "", "unit": POINTS, "ci_low": value - 9, "ci_high": value + 9, "p_value": 0.04}
    return Finding(**what | {"value": value, "n_items": 100, "n_seeds": 4, "spread": spread} | other)


def test_items_by_hand() -> None:
    # Items alone: variance 9, and 8 > 3 points on the claimed side. Supported where z 3 / sqrt(f) < 4, and the
    # one-sided p is .05, which asks for less: f = (1.96 3 / 4)^2 = 2.16.
    four = undecided(-4.0, Spread(9.0, 0.0, 0.0, 3))
    assert needed(four).n_items == int(100 * (Z * 3 / 4) ** 2) + 1 == 217
    assert needed(four).n_seeds == 0, "no number of training runs makes up for few items"
    # 1 point: refuted where z 3 / sqrt(f) < 3 - 1, before it could be supported. The same on the other side of zero.
    for value in (-1.0, 1.0):
        assert needed(undecided(value, Spread(9.0, 0.0, 0.0, 3))).n_items == int(100 * (Z * 3 / 2) ** 2) + 1
    # 4 points on the other side: refuted, where z 3 / sqrt(f) < 4.
    assert needed(undecided(4.0, Spread(9.0, 0.0, 0.0, 3))).n_items == 217


def test_training_runs_by_hand() -> None:
    # Seeds alone, variance 4 of the mean of four: t(S - 1) 2 sqrt(4 / S) < 4, so t < sqrt(S): 2.45 at 7, 2.36 at 8.
    one = needed(undecided(-4.0, Spread(0.0, 4.0, 0.0, 3)))
    first = next(s for s in range(5, 50) if stats.t.ppf(0.975, s - 1) * 4 / s**0.5 < 4)
    assert one == Needed(0, first) and first == 7
    # Both: with items of variance 9 and runs of variance 9, neither alone gets 1.96 * 3 below 4.
    both = needed(undecided(-4.0, Spread(9.0, 9.0, 0.0, 3)))
    assert both.n_items == both.n_seeds == 0
    n_items, n_seeds = both.both
    halves = [Z**2 * 9 * 100 / n + stats.t.ppf(0.975, n_seeds - 1) ** 2 * 36 / n_seeds for n in (n_items - 1, n_items)]
    assert halves[1] < 16 <= halves[0] and n_seeds > 4


def test_a_removed_set_has_to_be_unusual_among_random_ones_which_items_do_not_change() -> None:
    what = {"claim": "C2", "unit": SD, "n_draws": 5, "p_value": 0.2}
    one = undecided(-0.5, Spread(0.01, 0.0, 0.0, 3), **what)
    t = stats.t.isf(0.2, 16)
    first = next(s for s in range(5, 99) if stats.t.sf(t * (s / 4) ** 0.5, 4 * s) <= 0.05)
    assert needed(one) == Needed(0, first)
    # Near zero nothing has to be unusual: the interval alone refutes.
    assert needed(undecided(-0.01, Spread(0.01, 0.0, 0.0, 3), **what)).n_items == int(100 * (Z * 0.1 / 0.09) ** 2) + 1


def test_holms_correction_stays_as_strict_as_it_is() -> None:
    row = undecided(-4.0, Spread(9.0, 0.0, 0.0, 3))
    strict = type("Row", (), vars(row) | {"p_adjusted": 0.16})()
    z = stats.norm.ppf(1 - 0.05 / 4)
    assert needed(strict).n_items == int(100 * (z * 3 / 4) ** 2) + 1 > needed(row).n_items


def test_the_effect_that_is_found_by_hand() -> None:
    # Items alone, variance 9: half an interval is 1.96 x 3, and the one-sided p, corrected to .05, asks for less.
    z = stats.norm.ppf(POWER)
    assert detectable(undecided(-4.0, Spread(9.0, 0.0, 0.0, 3))) == pytest.approx(-(Z + z) * 3)
    # Three of the four in five runs differ: Student's t for these, and their variance in the estimate.
    seeds = (Z**2 * 9 + stats.t.ppf(0.975, 3) ** 2 * 4) ** 0.5
    assert detectable(undecided(-4.0, Spread(9.0, 4.0, 0.0, 3))) == pytest.approx(-seeds - z * 13**0.5)
    # A removed set, t = .5 / s with p = .2 beside 4 x 5 random ones: t must reach that of .05.
    what = {"claim": "C3", "unit": SD, "n_draws": 5, "p_value": 0.2}
    scale = 0.5 / stats.t.isf(0.2, 16)
    effect = stats.t.isf(0.05, 16) * scale + z * 0.01**0.5
    assert detectable(undecided(0.5, Spread(0.01, 0.0, 0.0, 3), **what)) == pytest.approx(effect)
    assert np.isnan(detectable(undecided(-4.0, None)))
    assert np.isnan(detectable(undecided(0.0, Spread(0.01, 0.0, 0.0, 3), **what | {"p_value": 0.5})))


def test_four_in_five_made_up_studies_find_that_effect() -> None:
    rng, n_draws, n_studies, scale, error = np.random.default_rng(5), 12, 20_000, 0.05, 0.03
    p_value = stats.t.sf(0.2 / (scale * (1 + 1 / n_draws) ** 0.5), n_draws - 1)
    what = {"claim": "C2", "unit": SD, "n_draws": n_draws, "n_seeds": 1, "p_value": p_value}
    effect = detectable(undecided(-0.2, Spread(error**2, nan, 0.0, 0), **what))
    draws = rng.normal(0, scale, (n_studies, n_draws))
    found = effect + rng.normal(0, error, n_studies)  # beyond the mean of its random sets
    t = found / (draws.std(axis=1, ddof=1) * (1 + 1 / n_draws) ** 0.5)
    is_supported = (stats.t.cdf(t, n_draws - 1) <= 0.05) & (found + Z * error < 0)
    assert is_supported.mean() == pytest.approx(POWER, abs=0.05)


def test_a_finding_at_the_border_is_told_no_number() -> None:
    # The foretold interval, 1.96 2 = 3.92 to either side of -4, leaves out zero; the drawn one did not.
    one = undecided(-4.0, Spread(4.0, 0.0, 0.0, 3))
    assert needed(one) == Needed(is_close=True) and needed_words(one).startswith("It lies at the border")


def test_what_is_not_known_is_not_said() -> None:
    assert needed(undecided(-4.0, None)) == Needed()
    of_one = needed(undecided(-4.0, Spread(9.0, nan, 0.0, 0), n_seeds=1))
    assert of_one == Needed(217, 0)


def study(rng: np.random.Generator, n_clusters: int, n_seeds: int) -> np.ndarray:
    """Values (C, S, 2 parts) with known components: items 1, training runs .1, rest 2, a part per half of clusters."""
    items, seeds = rng.normal(0, 1, (n_clusters, 1, 1)), rng.normal(0, 0.1**0.5, (1, n_seeds, 1))
    values = items + seeds + rng.normal(0, 2**0.5, (n_clusters, n_seeds, 1))
    is_of = (np.arange(n_clusters)[:, None] % 2 == np.arange(2)).astype(float)  # (C, 2)
    return values * is_of[:, None], np.broadcast_to(is_of[:, None], (n_clusters, n_seeds, 2))


def test_a_part_of_a_study_foretells_the_interval_of_the_whole() -> None:
    rng, half = np.random.default_rng(0), np.array([0.5, 0.5])
    foretold, found, spreads = [], [], []
    for _ in range(60):
        spread = contrast_spread(*study(rng, 40, 4), half, is_shared=True)
        foretold.append(spread.half_width(4, 4, 8))
        spreads.append(spread[:3])
        _, draws = contrast_draws(*study(rng, 160, 8), half[:, None], Bootstrap(400, rng.spawn(1)[0]), is_shared=True)
        found.append(np.diff(np.quantile(draws[:, 0], TAILS))[0] / 2)
    assert np.median(foretold) == pytest.approx(np.median(found), rel=0.12)
    items, _, rest = np.mean(spreads, axis=0)
    assert items == pytest.approx(1 / 40, rel=0.2) and rest == pytest.approx(2 / 160, rel=0.1)


def test_the_spread_at_hand_is_that_of_the_interval_at_hand() -> None:
    rng, half = np.random.default_rng(1), np.array([0.5, 0.5])
    for n_seeds in (1, 3, 6):
        tables = study(rng, 60, n_seeds)
        _, draws = contrast_draws(*tables, half[:, None], Bootstrap(8000, rng.spawn(1)[0]), is_shared=True)
        foretold = contrast_spread(*tables, half, is_shared=True).half_width(1, n_seeds, n_seeds)
        assert foretold == pytest.approx(np.diff(np.quantile(draws[:, 0], TAILS))[0] / 2, rel=0.05)


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (Spread(9.0, 0.0, 0.0, 3), "about 220 items; more training runs alone would not"),
        (Spread(0.0, 4.0, 0.0, 3), "7 training runs; more items alone would not"),
        (Spread(9.0, 9.0, 0.0, 3), r"about [\d,]+ items in each of \d+ training runs; neither alone would"),
        (Spread(9.0, nan, 0.0, 0), "about 220 items, for this one training run; what others would give is not known"),
        (None, ""),
    ],
)
def test_words(spread: Spread | None, words: str) -> None:
    found = needed_words(undecided(-4.0, spread, n_seeds=1 if spread and spread.freedom == 0 else 4))
    assert re.fullmatch(f"Would be decided, if the estimate stays, at {words}." if words else "", found), found
