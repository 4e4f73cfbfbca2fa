"""Sets of neurons: exact-count selection, set algebra, overlap with its chance level, random draws matched to them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import gammaln

from tension_utils.artifacts import save_tensors

FILE_KEY = "neurons"

N_ACTIVITY_BINS = 20  # per layer


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """A set of neurons (layer, index) of a model with L layers of N neurons.

    Args:
        mask: (L, N), bool, True where the neuron is in the set.
    """

    mask: np.ndarray

    def __post_init__(self) -> None:
        mask = np.array(self.mask)
        if mask.ndim != 2 or mask.dtype != bool:
            raise ValueError(f"NeuronSet: expected a bool mask (layers, neurons), got {mask.dtype} {mask.shape}")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    @classmethod
    def of(cls, shape: tuple[int, int], neurons: Iterable[tuple[int, int]]) -> "NeuronSet":
        """Return the set of the given (layer, index) pairs.

        >>> NeuronSet.of((2, 3), [(0, 1), (1, 2)]).counts_by_layer().tolist()
        [1, 1]
        """
        mask = np.zeros(shape, dtype=bool)
        for layer, index in neurons:
            if not (0 <= layer < shape[0] and 0 <= index < shape[1]):
                raise ValueError(f"neuron ({layer}, {index}): expected layer < {shape[0]} and index < {shape[1]}")
            mask[layer, index] = True
        return cls(mask)

    @property
    def shape(self) -> tuple[int, int]:
        """(L, N)."""
        return self.mask.shape

    @property
    def fraction(self) -> float:
        """Share of all neurons that are in the set, in [0, 1]."""
        return len(self) / self.mask.size

    @property
    def neurons(self) -> list[tuple[int, int]]:
        """The (layer, index) pairs in ascending order."""
        return [(int(layer), int(index)) for layer, index in np.argwhere(self.mask)]

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __contains__(self, neuron: tuple[int, int]) -> bool:
        return bool(self.mask[neuron])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NeuronSet) and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash((self.shape, np.packbits(self.mask).tobytes()))

    def __repr__(self) -> str:
        return f"NeuronSet({len(self)} of {self.shape[0]} x {self.shape[1]})"

    def union(self, other: "NeuronSet") -> "NeuronSet":
        """Return the neurons in either set."""
        return NeuronSet(self.mask | self._mask_of(other))

    def intersection(self, other: "NeuronSet") -> "NeuronSet":
        """Return the neurons in both sets."""
        return NeuronSet(self.mask & self._mask_of(other))

    def difference(self, other: "NeuronSet") -> "NeuronSet":
        """Return the neurons of this set that are not in the other."""
        return NeuronSet(self.mask & ~self._mask_of(other))

    __or__, __and__, __sub__ = union, intersection, difference

    def counts_by_layer(self) -> np.ndarray:
        """Return how many neurons each layer has in the set (L,)."""
        return self.mask.sum(axis=1)

    def depth_profile(self) -> np.ndarray:
        """Return the share of the set in the first, middle and last third of the layers (3,).

        Layer l of L belongs to third floor(3 l / L). The shares of an empty set are NaN.

        Source: section 1 of METHOD.md, "Neuron scores"; L is the model's own number of layers.
        """
        n_layers = self.shape[0]
        thirds = np.bincount(3 * np.arange(n_layers) // n_layers, weights=self.counts_by_layer(), minlength=3)
        return thirds / len(self) if len(self) else np.full(3, np.nan)

    def sample(self, size: int, generator: np.random.Generator) -> "NeuronSet":
        """Return a uniform random subset of ``size`` neurons."""
        if not 0 <= size <= len(self):
            raise ValueError(f"sample size: expected 0 to {len(self)}, got {size}")
        return _from_flat(generator.choice(np.flatnonzero(self.mask), size, replace=False), self.shape)

    def matched_random(
        self, generator: np.random.Generator, draws: int, bins: np.ndarray | None = None
    ) -> list["NeuronSet"]:
        """Return independent random sets with the same count in every layer, or in every bin of every layer.

        They are uniform within a layer or bin, so they may hold neurons of this set: `expected_overlap` tells how many.
        More draws start with the same ones.

        Args:
            generator: draws the sets.
            draws: how many.
            bins: (L, N), int, the bin of each neuron within its layer, such as `activity_bins`; None matches layers.

        Raises:
            ValueError: if the bins are of another model.
        """
        cells = list(self._cells(bins))
        masks = np.zeros((draws, *self.shape), dtype=bool)
        for mask in masks:
            for layer, members, count in cells:
                mask[layer, generator.choice(members, count, replace=False)] = True
        return [NeuronSet(mask) for mask in masks]

    def expected_overlap(self, bins: np.ndarray | None = None) -> float:
        r"""Return the share of this set that a draw of `matched_random` holds on average, in [0, 1]; NaN if empty.

        .. math:: \sum_c k_c^2 / n_c \, / \sum_c k_c

        with k_c of the n_c neurons of a cell c (a layer, or a bin of it) in the set. In a cell that the set fills, the
        random set is the set itself, and comparing the two says nothing on its neurons there.

        Args:
            bins: as for `matched_random`.

        >>> NeuronSet(np.array([[True, True, False, False]])).expected_overlap(np.array([[1, 1, 0, 0]]))
        1.0
        """
        both = sum(count**2 / len(members) for _, members, count in self._cells(bins))
        return float(both / len(self)) if len(self) else float("nan")

    def _cells(self, bins: np.ndarray | None) -> Iterator[tuple[int, np.ndarray, int]]:
        """Yield (layer, indices of a cell's neurons, how many of them are in the set) where any is."""
        bins = np.zeros(self.shape, dtype=int) if bins is None else np.asarray(bins)
        if bins.shape != self.shape:
            raise ValueError(f"bins: expected shape (layers, neurons) = {self.shape}, got {bins.shape}")
        for layer in range(self.shape[0]):
            for number in np.unique(bins[layer, self.mask[layer]]):
                members = np.flatnonzero(bins[layer] == number)
                yield layer, members, int(self.mask[layer, members].sum())

    def save(self, path: str | Path) -> None:
        """Write the set as a safetensors file."""
        save_tensors(path, {FILE_KEY: self.mask})

    @classmethod
    def load(cls, path: str | Path) -> "NeuronSet":
        """Read a set that `save` wrote.

        Raises:
            ValueError: if the file holds something else.
        """
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: expected a neuron set as NeuronSet.save writes; {error}") from error
        if FILE_KEY not in tensors:
            raise ValueError(f"{path}: expected a tensor {FILE_KEY!r} as NeuronSet.save writes, got {sorted(tensors)}")
        return cls(tensors[FILE_KEY])

    def _mask_of(self, other: "NeuronSet") -> np.ndarray:
        if self.shape != other.shape:
            raise ValueError(f"neuron sets of different models: shapes (layers, neurons) {self.shape}, {other.shape}")
        return other.mask


def equalized(sets: Sequence[NeuronSet], bins: np.ndarray, generator: np.random.Generator) -> list[NeuronSet]:
    """Return random parts of sets, all with the same count in every bin of every layer: the least of them there.

    Args:
        sets: of one model.
        bins: (L, N), int, the bin of each neuron within its layer, such as `activity_bins`.
        generator: draws the parts.

    >>> one, other = (NeuronSet(np.array([mask], bool)) for mask in ([1, 1, 1, 0], [0, 0, 0, 1]))
    >>> [part.neurons for part in equalized([one, other], np.array([[0, 1, 1, 0]]), np.random.default_rng(0))]
    [[(0, 0)], [(0, 3)]]
    """
    masks = [np.zeros(bins.shape, dtype=bool) for _ in sets]
    for layer, layer_bins in enumerate(bins):
        for number in np.unique(layer_bins):
            members = [np.flatnonzero(each.mask[layer] & (layer_bins == number)) for each in sets]
            size = min(map(len, members))
            for mask, own in zip(masks, members, strict=True):
                mask[layer, generator.choice(own, size, replace=False)] = True
    return [NeuronSet(mask) for mask in masks]


def _from_flat(flat: np.ndarray, shape: tuple[int, int]) -> NeuronSet:
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    mask[flat] = True
    return NeuronSet(mask.reshape(shape))


def _count(shape: tuple[int, int], fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number in (0, 1], got {fraction}")
    return round(fraction * shape[0] * shape[1])


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """Return values (L, N) without NaN as an array."""
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"{name}: expected shape (layers, neurons), got {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{name}: {int(np.isnan(values).sum())} of {values.size} are NaN; mend what computed them")
    return values


def top_neurons(scores: np.ndarray, fraction: float) -> NeuronSet:
    """Return exactly round(fraction x L x N) neurons with the highest scores.

    Args:
        scores: (L, N), float, numpy array or tensor; ties go to the lower (layer, index).
        fraction: in (0, 1].

    Raises:
        ValueError: if a score is NaN, the fraction is out of range or the shape is not (L, N).

    Source: ours, differs because a percentile with >= selects every tied neuron (METHOD.md, section 2, fact 1).

    >>> top_neurons(np.array([[1.0, 3.0], [3.0, 0.0]]), 0.25).neurons
    [(0, 1)]
    """
    scores = _checked("scores", scores)
    order = np.argsort(-scores.ravel().astype(np.float64), kind="stable")
    return _from_flat(order[: _count(scores.shape, fraction)], scores.shape)


def activity_bins(activity: np.ndarray, n_bins: int = N_ACTIVITY_BINS) -> np.ndarray:
    """Return the bin of each neuron within its layer (L, N), int, from 0, the quietest, to ``n_bins`` - 1.

    The neurons of a layer are sorted by activity and cut into bins of equal count, up to one neuron.

    Args:
        activity: (L, N), float, such as the "mean_abs" of a model on its own text; ties go to the lower index.
        n_bins: from 1 to N.

    Raises:
        ValueError: if a value is NaN, the shape is not (L, N), or there are more bins than neurons in a layer.

    Source: ours: large activations enter most sets and do damage wherever they are removed, so a random set that is
        matched in depth alone is no control for them.

    >>> activity_bins(np.array([[0.3, 0.1, 0.9, 0.2]]), 2).tolist()
    [[1, 0, 1, 0]]
    """
    activity = _checked("activity", activity)
    n_neurons = activity.shape[1]
    if not 1 <= n_bins <= n_neurons:
        raise ValueError(f"n_bins: expected 1 to {n_neurons}, the neurons of a layer; got {n_bins}")
    ranks = np.argsort(np.argsort(activity, axis=1, kind="stable"), axis=1)
    return ranks * n_bins // n_neurons


def random_neurons(shape: tuple[int, int], fraction: float, generator: np.random.Generator) -> NeuronSet:
    """Return round(fraction x L x N) neurons drawn uniformly over all layers together."""
    return NeuronSet(np.ones(shape, dtype=bool)).sample(_count(shape, fraction), generator)


def jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """Return |a and b| / |a or b|; NaN where both are empty.

    >>> jaccard(NeuronSet.of((1, 3), [(0, 0), (0, 1)]), NeuronSet.of((1, 3), [(0, 1), (0, 2)]))
    0.3333333333333333
    """
    n_union = len(a | b)
    return len(a & b) / n_union if n_union else float("nan")


def jaccard_chance(size_a: int, size_b: int, total: int) -> float:
    """Return the exact expected Jaccard of two independent uniform sets of these sizes among ``total`` neurons.

    E[X / (a + b - X)] with X ~ Hypergeometric(total, a, b); about p / (2 - p) for two sets of fraction p.

    >>> round(jaccard_chance(1, 1, 2), 3)
    0.5
    """
    if not (0 <= size_a <= total and 0 <= size_b <= total):
        raise ValueError(f"sizes: expected 0 to total={total}, got {size_a} and {size_b}")
    return _expected_jaccard(shared_chances(total, size_a, size_b), size_a + size_b)


def jaccard_chance_by_layer(a: NeuronSet, b: NeuronSet) -> float:
    """Return the exact expected Jaccard of two independent sets with the layer counts of ``a`` and of ``b``.

    The shared count is a sum of one hypergeometric variable per layer. Above `jaccard_chance` by what two sets
    share merely because they prefer the same depths.
    """
    return _expected_jaccard(shared_chances_by_layer(a, b), len(a) + len(b))


def shared_chances_by_layer(a: NeuronSet, b: NeuronSet) -> np.ndarray:
    """Return the probabilities that independent sets with these layer counts share 0, 1, 2, ... neurons.

    Raises:
        ValueError: if the sets are of different models.
    """
    if a.shape != b.shape:
        raise ValueError(f"neuron sets of different models: shapes (layers, neurons) {a.shape}, {b.shape}")
    chances = np.ones(1)
    for count_a, count_b in zip(a.counts_by_layer().tolist(), b.counts_by_layer().tolist(), strict=True):
        chances = np.convolve(chances, shared_chances(a.shape[1], *sorted((count_a, count_b))))
    return chances


@lru_cache(maxsize=10_000)  # layers of a table's sets have the same few sizes
def shared_chances(total: int, size_a: int, size_b: int) -> np.ndarray:
    """Return the probabilities that two independent sets among ``total`` neurons share 0, 1, ... of them.

    Hypergeometric, from logarithms of factorials: about forty times as fast as the library's, which computes every
    value on its own.

    >>> shared_chances(4, 2, 2).round(4).tolist()
    [0.1667, 0.6667, 0.1667]
    """

    def log_choose(n: int, k: np.ndarray) -> np.ndarray:
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    least, most = max(0, size_a + size_b - total), min(size_a, size_b)
    shared = np.arange(least, most + 1)
    logs = log_choose(size_a, shared) + log_choose(total - size_a, size_b - shared)
    chances = np.concatenate([np.zeros(least), np.exp(logs - log_choose(total, np.array(size_b)))])
    chances.flags.writeable = False
    return chances


def _expected_jaccard(chances: np.ndarray, size_sum: int) -> float:
    shared = np.arange(len(chances))
    if size_sum == 0:
        return float("nan")
    return float(np.sum(chances * shared / (size_sum - shared)))
