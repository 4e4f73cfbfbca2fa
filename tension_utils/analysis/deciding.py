"""What a study of some size finds: how large an effect is, and how much evidence decides an undecided claim."""

from bisect import bisect_left
from math import isnan, nan
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from tension_utils.analysis.findings import CLAIMS, LEVEL, SMALLEST, Finding

MOST_ITEMS = 10_000_000  # beyond either of these nobody would go
MOST_SEEDS = 1000

MOST_SEEDS_OF_BOTH = 100  # where items and training runs grow together


POWER = 0.8


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


def detectable(finding: Finding | pd.Series) -> float:
    r"""Return the true effect, on the claimed side, that a study like a finding's supports with probability `POWER`.

    .. math:: \delta = \max(h, t^* s) + z_{.8} \sqrt{V}

    with h half the interval, V the estimate's variance (`statistics.Spread`), and for removed sets s the spread of
    random ones as the prediction test has it and t* the t that it asks for. Holm's correction stays as strict as it is.

    Args:
        finding: a `Finding`, or row of a ledger, that was run.

    Returns:
        In the finding's unit. NaN where the spread, or that of random sets, is not known; with one training run of that
        run alone.
    """
    if not finding.spread:
        return nan
    spread, least = finding.spread, _least_supported(finding, finding.n_items, finding.n_seeds)
    variance = spread.items + spread.rest + (0.0 if isnan(spread.seeds) else spread.seeds)
    return CLAIMS[finding.claim].sign * (least + float(stats.norm.ppf(POWER)) * variance**0.5)


def _first(low: int, high: int, is_enough: object) -> int:
    """Return the first number from low to high that is enough, where all larger ones are; 0 if none is."""
    place = low + bisect_left(range(low, high + 1), True, key=is_enough)
    return place if place <= high else 0


def _is_decided(finding: Finding | pd.Series, n_items: int, n_seeds: int) -> bool:
    """Say whether a finding would be supported or refuted with these numbers of items and training runs."""
    smallest, value = SMALLEST[finding.unit], CLAIMS[finding.claim].sign * finding.value
    half = finding.spread.half_width(n_items / finding.n_items, finding.n_seeds, n_seeds)
    if value + half < 0 or (-smallest < value - half and value + half < smallest):
        return True
    return value > _least_supported(finding, n_items, n_seeds)


def _least_supported(finding: Finding | pd.Series, n_items: int, n_seeds: int) -> float:
    """Return the estimate, on the claimed side, above which these numbers of items and training runs support a claim.

    The interval lies beyond zero, and the p-value is low enough: that of the interval, or for removed sets that of the
    prediction test. NaN where the spread of random sets is not known, because the set did as they do.
    """
    n_times, n, level = n_items / finding.n_items, finding.n_seeds, _strict_level(finding)
    half = finding.spread.half_width(n_times, n, n_seeds)
    if not finding.n_draws:
        return max(half, finding.spread.half_width(n_times, n, n_seeds, 1 - 2 * level))
    freedom = finding.n_draws - 1
    t = stats.t.isf(finding.p_value, n * freedom)
    scale = CLAIMS[finding.claim].sign * finding.value / t if finding.value else nan
    return float(np.maximum(half, stats.t.isf(level, n_seeds * freedom) * scale * (n / n_seeds) ** 0.5))


def _strict_level(finding: Finding | pd.Series) -> float:
    """Return the p-value that Holm's correction would still let pass, at the strictness that it has here."""
    adjusted = getattr(finding, "p_adjusted", finding.p_value)
    strictness = adjusted / finding.p_value if adjusted < 1 else len(CLAIMS)
    return LEVEL / min(strictness, len(CLAIMS))
