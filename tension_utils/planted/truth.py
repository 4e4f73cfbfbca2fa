"""The truth of a world, measured: every neuron knocked out by itself, on many items that no ledger sees."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np

from tension_utils.analysis.accuracy import OPPOSING
from tension_utils.analysis.claims import MAIN_FRACTION, overlap_beyond
from tension_utils.analysis.findings import CLAIMS, INDEX, POINTS, SD, SMALLEST
from tension_utils.analysis.frontier import ENSEMBLE_WEIGHTS, FRONTIERS, INTERPOLATION, gap
from tension_utils.conditions import EQUAL_ACTIVITY, ONLY, SHARED, mixed_sets
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.interpolation import InterpolateConfig
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.planted.model import COINS, PlainRewards
from tension_utils.planted.rates import truth_key
from tension_utils.planted.world import SHAPE

OWN = MappingProxyType({single: single for single in SINGLE_OBJECTIVES})  # as OPPOSING: model -> test

N_PARTS = 8  # draws of shared and only sets of equal size and activity, over which the truth of C5 is a mean

NEGLIGIBLE = 1 / 3  # of the smallest effect of interest: below it a claim is false, between the two neither


def knock_outs(plain: PlainRewards, groups: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the removal of each neuron by itself changes in the mean margin of each test.

    Args:
        plain: a reward model on its items.
        groups (B,): objective whose test an item belongs to.

    Returns:
        test -> (L, N), in standard deviations of all intact margins; below zero a neuron supports the test.
    """
    intact = plain.margins()
    found = {test: np.zeros(SHAPE) for test in SINGLE_OBJECTIVES}
    for place in np.ndindex(SHAPE):
        change = (plain.margins(NeuronSet.of(SHAPE, [place])) - intact) / intact.std(ddof=1)
        for test, effects in found.items():
            effects[place] = change[groups == test].mean()
    return found


def lift(effects: np.ndarray, neurons: NeuronSet, bins: np.ndarray) -> float:
    """Return the sum of single effects over a set, beyond what matched random sets of the same bins have on average.

    Args:
        effects (L, N): of `knock_outs`.
        neurons: the set.
        bins (L, N): of `neurons.activity_bins`.

    >>> effects, bins = np.array([[-3.0, -1.0, 0.0, 4.0]]), np.array([[0, 0, 1, 1]])
    >>> lift(effects, NeuronSet.of((1, 4), [(0, 0), (0, 2)]), bins)  # -3 - (-2), and 0 - 2
    -3.0
    """
    cells = bins + (bins.max() + 1) * np.arange(len(bins))[:, None]  # one number per layer and bin
    counts = np.bincount(cells.ravel())
    means = np.bincount(cells.ravel(), weights=effects.ravel()) / np.maximum(counts, 1)
    return float((effects - means[cells])[neurons.mask].sum())


def call(claim: str, value: float, unit: str) -> bool | None:
    """Say whether a measured effect makes a claim true or false; None where it is neither large nor negligible.

    >>> call("C2", -0.2, SD), call("C2", 0.3, SD), call("C2", -0.05, SD)
    (True, False, None)
    """
    size = CLAIMS[claim].sign * value / SMALLEST[unit]
    return True if size >= 1 else False if size <= NEGLIGIBLE else None


class WorldTruth:
    """Effects of a world on items that no ledger sees, means over training runs, from which its truth follows.

    Args:
        plain: of an objective and a seed, the reward model on the items.
        top: likewise, the set that the score names.
        bins: likewise, activity bins (L, N).
        interpolated: of a seed and a weight of the harmless model, the model between the two single ones on the items.
        groups (B,): objective whose test an item belongs to.
        seeds: training runs.
    """

    def __init__(
        self,
        plain: Callable[[str, int], PlainRewards],
        top: Callable[[str, int], NeuronSet],
        bins: Callable[[str, int], np.ndarray],
        interpolated: Callable[[int, float], PlainRewards],
        groups: np.ndarray,
        seeds: Sequence[int],
    ) -> None:
        self.plain, self.top, self.bins = cache(plain), cache(top), cache(bins)
        self.interpolated, self.groups, self.seeds = interpolated, groups, seeds
        self._knock_outs = cache(lambda *run: knock_outs(self.plain(*run), groups))

    def effects(self, objective: str, seed: int, test: str) -> np.ndarray:
        """Return what the removal of each neuron by itself changes on a test (L, N), see `knock_outs`."""
        return self._knock_outs(objective, seed)[test]

    def support(self, objective: str, seed: int) -> np.ndarray:
        """Return how much each neuron supports what its model was trained on (L, N); for the mixed one, on average."""
        tests = SINGLE_OBJECTIVES if objective == MIXED else (objective,)
        return -np.mean([self.effects(objective, seed, test) for test in tests], axis=0)

    def removal(self, tests: Mapping[str, str]) -> float:
        """Return the effect of single models' top neurons beyond matched random ones, as C2 and C3 have it."""
        return float(
            np.mean(
                [
                    lift(self.effects(objective, seed, test), self.top(objective, seed), self.bins(objective, seed))
                    for objective, test in tests.items()
                    for seed in self.seeds
                ]
            )
        )

    def sharing(self) -> float:
        """Return the Jaccard index of both objectives' carriers, beyond that of each with the other's sham.

        Carriers are as many neurons as a top set has, by the size of their effect on the model's own test.
        """
        beyond = []
        for seed in self.seeds:
            tests = OWN | COINS
            own = {
                objective: top_neurons(np.abs(self.effects(objective, seed, test)), MAIN_FRACTION)
                for objective, test in tests.items()
            }
            beyond.append(overlap_beyond(own, list(COINS)))
        return float(np.mean(beyond))

    def weight(self) -> float:
        """Return what removing shared neurons does to an own test, minus what as many and as active only ones do.

        As the endpoint of C5 has it, on average over `N_PARTS` draws of such parts: each run removes one of them.
        NaN where no run has any.
        """
        found = []
        for seed in self.seeds:
            tops, bins = [self.top(single, seed) for single in SINGLE_OBJECTIVES], self.bins(MIXED, seed)
            plain = self.plain(MIXED, seed)
            spread = plain.margins().std(ddof=1)
            for draw in range(N_PARTS):
                parts = mixed_sets(*tops, EQUAL_ACTIVITY, np.random.default_rng([seed, draw]), bins)
                margins = {name: plain.margins(neurons) for name, neurons in parts.items()}
                for single in SINGLE_OBJECTIVES if parts else ():
                    difference = (margins[SHARED] - margins[ONLY[single]])[self.groups == single]
                    found.append(difference.mean() / spread)
        return float(np.mean(found)) if found else float("nan")

    def mixing(self) -> float:
        """Return what the mixed model loses in accuracy on each own test, in points, the mean of both."""
        return 100 * float(np.mean([self._accuracy(MIXED, test) - self._accuracy(test, test) for test in OPPOSING]))

    def frontier(self, kind: str) -> float:
        """Return how far the mixed model lies beyond a frontier of the single ones, in points; see `frontier.gap`.

        Args:
            kind: of `frontier.FRONTIERS`.
        """
        gaps = []
        for seed in self.seeds:
            line = [self._point(margins) for margins in self._line(kind, seed)]
            arm = self._point(self.plain(MIXED, seed).margins())
            gaps.append(gap(arm[None], np.stack(line)[None])[0][0])
        return 100 * float(np.mean(gaps))

    def _line(self, kind: str, seed: int) -> list[np.ndarray]:
        """Return the margins of a frontier's models."""
        if kind == INTERPOLATION:
            return [self.interpolated(seed, weight).margins() for weight in InterpolateConfig().weights]
        helpful, harmless = (self._units(single, seed) for single in SINGLE_OBJECTIVES)
        return [(1 - weight) * helpful + weight * harmless for weight in ENSEMBLE_WEIGHTS]

    def _point(self, margins: np.ndarray) -> np.ndarray:
        return np.array([self._share(margins, test) for test in SINGLE_OBJECTIVES])

    def _units(self, objective: str, seed: int) -> np.ndarray:
        margins = self.plain(objective, seed).margins()
        return margins / margins.std(ddof=1)

    def _share(self, margins: np.ndarray, test: str) -> float:
        return float((margins[self.groups == test] > 0).mean())

    def _accuracy(self, objective: str, test: str) -> float:
        return float(np.mean([self._share(self.plain(objective, seed).margins(), test) for seed in self.seeds]))


def frontier_truth(world: WorldTruth) -> dict[str, bool | None]:
    """Return for each frontier whether joint training does harm beyond it; None where that is open."""
    return {truth_key("C1", "frontier", kind): call("C1", world.frontier(kind), POINTS) for kind in FRONTIERS}


def measured_truth(world: WorldTruth) -> dict[str, bool | None]:
    """Return for every claim whether it is true of a world; None where that is open."""
    return {
        "C1": call("C1", world.mixing(), POINTS),
        "C2": call("C2", world.removal(OWN), SD),
        "C3": call("C3", world.removal(OPPOSING), SD),
        "C4": call("C4", world.sharing(), INDEX),
        "C5": None if np.isnan(value := world.weight()) else call("C5", value, SD),
    }
