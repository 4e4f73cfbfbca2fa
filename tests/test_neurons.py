"""Sets of neurons: selection counts, algebra, chance levels, random draws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file
from scipy.stats import hypergeom

from tension_utils.neurons import (
    NeuronSet,
    activity_bins,
    jaccard,
    jaccard_chance,
    jaccard_chance_by_layer,
    random_neurons,
    shared_chances,
    top_neurons,
)

SHAPE = (3, 7)
masks = hnp.arrays(bool, SHAPE)
sets = masks.map(NeuronSet)
scores = hnp.arrays(
    np.float32, SHAPE, elements=st.floats(-3, 3, width=32) | st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf])
)
fractions = st.floats(0, 1, exclude_min=True)


@given(scores, fractions)
def test_top_neurons_has_the_exact_count_and_the_stated_tie_rule(values, fraction):
    chosen = top_neurons(values, fraction)
    ranked = sorted(itertools.product(range(3), range(7)), key=lambda neuron: (-values[neuron], neuron))
    assert chosen.neurons == sorted(ranked[: round(fraction * 21)])


@given(scores, fractions, fractions)
def test_top_neurons_are_nested(values, one, other):
    small, large = sorted((one, other))
    assert top_neurons(values, small) - top_neurons(values, large) == NeuronSet(np.zeros(SHAPE, bool))


def test_all_tied_scores_select_no_more_than_asked():
    assert top_neurons(torch.zeros(4, 5), 0.1).neurons == [(0, 0), (0, 1)]


@given(sets, sets)
def test_algebra_is_that_of_python_sets(a, b):
    plain_a, plain_b = set(a.neurons), set(b.neurons)
    assert set((a | b).neurons) == plain_a | plain_b
    assert set((a & b).neurons) == plain_a & plain_b
    assert set((a - b).neurons) == plain_a - plain_b
    assert len(a) == len(plain_a) == a.counts_by_layer().sum()
    assert (a == b) == (plain_a == plain_b) and (a != b or hash(a) == hash(b))
    if plain_a | plain_b:
        assert jaccard(a, b) == len(plain_a & plain_b) / len(plain_a | plain_b)


@given(sets, st.integers(0, 2**31))
def test_matched_random_keeps_the_count_of_every_layer(neurons, seed):
    draws = neurons.matched_random(np.random.default_rng(seed), 3)
    assert all((draw.counts_by_layer() == neurons.counts_by_layer()).all() for draw in draws)
    assert draws == neurons.matched_random(np.random.default_rng(seed), 3)


def test_matched_random_is_uniform_within_a_layer():
    neurons = NeuronSet.of((2, 4), [(0, 0), (0, 1), (1, 3)])
    draws = np.mean([draw.mask for draw in neurons.matched_random(np.random.default_rng(0), 4000)], axis=0)
    assert draws == pytest.approx(np.array([[0.5] * 4, [0.25] * 4]), abs=0.04)


activities = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 9, width=32))


@given(activities, st.integers(1, 7))
def test_activity_bins_cut_every_layer_into_equal_counts(activity, n_bins):
    bins = activity_bins(activity, n_bins)
    for layer in range(SHAPE[0]):
        order = sorted(range(SHAPE[1]), key=lambda index: (activity[layer, index], index))
        assert (np.diff(bins[layer, order]) >= 0).all(), "quieter neurons are in lower bins, ties by index"
        counts = np.bincount(bins[layer], minlength=n_bins)
        assert len(counts) == n_bins and counts.max() - counts.min() <= 1


@given(sets, activities, st.integers(1, 7), st.integers(0, 2**31))
def test_activity_matched_draws_keep_the_count_of_every_layer_and_bin(neurons, activity, n_bins, seed):
    bins = activity_bins(activity, n_bins)
    draws = neurons.matched_random(np.random.default_rng(seed), 3, bins)
    for draw in draws:
        for number in range(n_bins):
            assert ((draw.mask & (bins == number)).sum(1) == (neurons.mask & (bins == number)).sum(1)).all()
    assert draws[:2] == neurons.matched_random(np.random.default_rng(seed), 2, bins), "fewer draws are the first ones"
    layers = neurons.matched_random(np.random.default_rng(seed), 2, np.zeros(SHAPE, int))
    assert layers == neurons.matched_random(np.random.default_rng(seed), 2), "one bin matches layers"


def test_activity_matched_draws_are_uniform_within_a_bin():
    bins = activity_bins(np.arange(16.0).reshape(2, 8)[:, ::-1], 2)
    neurons = NeuronSet.of((2, 8), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 7)])
    draws = np.mean([draw.mask for draw in neurons.matched_random(np.random.default_rng(0), 4000, bins)], axis=0)
    expected = np.array([[1.0] * 4 + [0.25] * 4, [0.0] * 4 + [0.25] * 4])
    assert draws == pytest.approx(expected, abs=0.04)
    assert neurons.expected_overlap(bins) == pytest.approx((4 + 1 / 4 + 1 / 4) / 6)


@settings(max_examples=5)
@given(masks.filter(lambda mask: mask.any()), activities, st.sampled_from([None, 1, 3]))
def test_expected_overlap_is_the_mean_over_draws(mask, activity, n_bins):
    neurons, bins = NeuronSet(mask), None if n_bins is None else activity_bins(activity, n_bins)
    draws = neurons.matched_random(np.random.default_rng(1), 2000, bins)
    assert neurons.expected_overlap(bins) == pytest.approx(
        np.mean([len(d & neurons) for d in draws]) / len(neurons), abs=0.03
    )


@settings(max_examples=20)
@given(sets)
def test_saved_and_loaded_sets_are_equal(tmp_path_factory, neurons):
    path = tmp_path_factory.mktemp("neurons") / "set.safetensors"
    neurons.save(path)
    assert NeuronSet.load(path) == neurons


@given(sets, st.data())
def test_sample_is_a_subset_of_the_asked_size(neurons, data):
    size = data.draw(st.integers(0, len(neurons)))
    subset = neurons.sample(size, np.random.default_rng(0))
    assert len(subset) == size and len(subset - neurons) == 0


def test_random_neurons_are_uniform_over_all_layers():
    generator = np.random.default_rng(1)
    draws = np.mean([random_neurons((2, 5), 0.3, generator).mask for _ in range(4000)], axis=0)
    assert draws == pytest.approx(np.full((2, 5), 0.3), abs=0.04)


def test_depth_profile_uses_thirds_of_the_models_own_depth():
    assert NeuronSet(np.ones((30, 2), bool)).depth_profile() == pytest.approx([1 / 3] * 3)
    assert NeuronSet(np.ones((4, 1), bool)).depth_profile() == pytest.approx([0.5, 0.25, 0.25])
    assert NeuronSet.of((6, 2), [(0, 0), (1, 1), (5, 0), (5, 1)]).depth_profile() == pytest.approx([0.5, 0, 0.5])
    assert np.isnan(NeuronSet(np.zeros((3, 2), bool)).depth_profile()).all()


@pytest.mark.parametrize(("size_a", "size_b"), [(2, 3), (5, 5), (1, 6), (6, 6), (0, 2)])
def test_jaccard_chance_equals_enumeration(size_a, size_b):
    values = [
        len(set(a) & set(b)) / len(set(a) | set(b))
        for a in itertools.combinations(range(6), size_a)
        for b in itertools.combinations(range(6), size_b)
    ]
    assert jaccard_chance(size_a, size_b, 6) == pytest.approx(np.mean(values))


def test_jaccard_chance_of_a_tenth_is_the_known_level():
    assert jaccard_chance(4608, 4608, 46080) == pytest.approx(0.0526, abs=1e-4)


@given(st.integers(1, 2000), st.data())
def test_chances_of_shared_neurons_are_the_librarys(total: int, data: st.DataObject) -> None:
    a, b = (data.draw(st.integers(0, total)) for _ in range(2))
    chances = shared_chances(total, a, b)
    assert len(chances) == min(a, b) + 1
    np.testing.assert_allclose(chances, hypergeom.pmf(np.arange(len(chances)), total, a, b), rtol=1e-9, atol=1e-300)
    with pytest.raises(ValueError, match="read-only"):
        chances[0] = 1.0  # it is kept for the next call


def test_jaccard_chance_by_layer_equals_simulation_and_reduces_to_one_layer():
    a = NeuronSet.of((2, 6), [(0, 0), (0, 1), (0, 2), (1, 0)])
    b = NeuronSet.of((2, 6), [(0, 3), (0, 4), (0, 5), (0, 0), (1, 1)])
    generator = np.random.default_rng(0)
    pairs = zip(a.matched_random(generator, 4000), b.matched_random(generator, 4000), strict=True)
    assert jaccard_chance_by_layer(a, b) == pytest.approx(np.mean([jaccard(x, y) for x, y in pairs]), abs=0.01)
    one = NeuronSet.of((1, 9), [(0, 1), (0, 4), (0, 5)])
    assert jaccard_chance_by_layer(one, one) == pytest.approx(jaccard_chance(3, 3, 9))


def test_bad_input_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="1 of 4 are NaN"):
        top_neurons(np.array([[0.0, np.nan], [1.0, 2.0]]), 0.5)
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            top_neurons(np.zeros((2, 2)), fraction)
    with pytest.raises(ValueError, match=r"expected shape \(layers, neurons\)"):
        top_neurons(np.zeros(4), 0.5)
    with pytest.raises(ValueError, match="different models"):
        NeuronSet(np.ones((2, 3), bool)) | NeuronSet(np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="index < 2"):
        NeuronSet.of((2, 2), [(0, 2)])
    with pytest.raises(ValueError, match="expected a bool mask"):
        NeuronSet(np.ones((2, 2)))
    for activity, n_bins, message in (
        (np.zeros((2, 3)), 4, "n_bins: expected 1 to 3"),
        (np.zeros((2, 3)), 0, "n_bins: expected 1 to 3"),
        (np.zeros(3), 1, r"activity: expected shape \(layers, neurons\)"),
        (np.full((1, 3), np.nan), 1, "activity: 3 of 3 are NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            activity_bins(activity, n_bins)
    with pytest.raises(ValueError, match=r"bins: expected shape \(layers, neurons\) = \(2, 2\)"):
        NeuronSet.of((2, 2), [(0, 1)]).matched_random(np.random.default_rng(0), 1, np.zeros((1, 2), int))
    assert np.isnan(NeuronSet.of((2, 2), []).expected_overlap())
    with pytest.raises(ValueError, match="expected 0 to total=5"):
        jaccard_chance(6, 1, 5)
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="expected a tensor 'neurons'"):
        NeuronSet.load(tmp_path / "other.safetensors")
