"""How much evidence would decide an undecided claim, if its estimate stays: more items, more training runs, or both."""

from bisect import bisect_left
from math import isnan
from typing import NamedTuple

import pandas as pd
from scipy import stats

from tension_utils.analysis.findings import CLAIMS, LEVEL, SMALLEST, Finding

MOST_ITEMS = 10_000_000  # beyond either of these nobody would go
MOST_SEEDS = 1000

MOST_SEEDS_OF_BOTH = 100  # where items and training runs grow together


class Needed(NamedTuple):
    """What would decide a claim; 0 stands for a number that is not known, or beyond what anybody would collect.

    Args:
        n_items: with the training runs that there are.
        n_seeds: with the items that there are.
        both: items and training runs where neither alone decides, of which the product is the smallest.
        is_close: whether a few more of either would do, too few to count.
    """

    n_items: int = 0
    n_seeds: int = 0
    both: tuple[int, int] = (0, 0)
    is_close: bool = False


def needed(finding: Finding | pd.Series) -> Needed:
    r"""Return how many items or training runs would decide an undecided finding, if its value stays as it is.

    It is decided as `findings.verdict_of` does it, with the interval that `statistics.Spread.half_width` foretells. For
    removed sets the prediction test has to agree, and its t grows with the root of the training runs, with items not
    at all. Holm's correction stays as strict as it is.

    Args:
        finding: a `Finding`, or row of a ledger, with a spread; p_adjusted counts where it is there.

    Returns:
        Without a spread nothing is known. With one training run only items are, as what others would give is not.
    """
    spread = finding.spread
    if not spread:
        return Needed()
    n, s = finding.n_items, finding.n_seeds
    if _is_decided(finding, n, s):  # foretold intervals are symmetric, drawn ones nearly so
        return Needed(is_close=True)
    n_items = _first(n + 1, MOST_ITEMS, lambda n_more: _is_decided(finding, n_more, s)) if spread.items else 0
    if isnan(spread.seeds):
        return Needed(n_items)
    n_seeds = _first(s + 1, MOST_SEEDS, lambda more: _is_decided(finding, n, more))
    if n_items or n_seeds or not spread.items:
        return Needed(n_items, n_seeds)
    found = [
        (_first(n + 1, MOST_ITEMS, lambda n_more, s_more=more: _is_decided(finding, n_more, s_more)), more)
        for more in range(s + 1, MOST_SEEDS_OF_BOTH + 1)
    ]
    return Needed(both=min((pair for pair in found if pair[0]), key=lambda pair: pair[0] * pair[1], default=(0, 0)))


def _first(low: int, high: int, is_enough: object) -> int:
    """Return the first number from low to high that is enough, where all larger ones are; 0 if none is."""
    place = low + bisect_left(range(low, high + 1), True, key=is_enough)
    return place if place <= high else 0


def _is_decided(finding: Finding | pd.Series, n_items: int, n_seeds: int) -> bool:
    """Say whether a finding would be supported or refuted with these numbers of items and training runs."""
    smallest, value = SMALLEST[finding.unit], CLAIMS[finding.claim].sign * finding.value
    n_times, level = n_items / finding.n_items, _strict_level(finding)
    half = finding.spread.half_width(n_times, finding.n_seeds, n_seeds)
    if value + half < 0 or (-smallest < value - half and value + half < smallest):
        return True
    if value - half <= 0:
        return False
    if finding.n_draws:
        freedom = finding.n_draws - 1
        t = stats.t.isf(finding.p_value, finding.n_seeds * freedom) * (n_seeds / finding.n_seeds) ** 0.5
        return bool(stats.t.sf(t, n_seeds * freedom) <= level)
    return value > finding.spread.half_width(n_times, finding.n_seeds, n_seeds, 1 - 2 * level)


def _strict_level(finding: Finding | pd.Series) -> float:
    """Return the p-value that Holm's correction would still let pass, at the strictness that it has here."""
    adjusted = getattr(finding, "p_adjusted", finding.p_value)
    strictness = adjusted / finding.p_value if adjusted < 1 else len(CLAIMS)
    return LEVEL / min(strictness, len(CLAIMS))
