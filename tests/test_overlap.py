"""Overlaps of neuron sets, their chance levels and exact p-values, on sets small enough to count by hand."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import hypergeom

from tension_utils.analysis.overlap import (
    REGION_COLUMNS,
    combined_overlap_table,
    compare_sets,
    overlap_table,
    region_sizes,
    region_table,
    run_sets,
    shared_count_p_value,
    summarize_overlaps,
)
from tension_utils.config import OBJECTIVES, Run, list_runs
from tension_utils.neurons import NeuronSet
from tension_utils.scores import NeuronScores

HELPFUL, HARMLESS, MIXED = OBJECTIVES
SHAPE = (3, 6)
sets = hnp.arrays(bool, SHAPE).map(NeuronSet)
# Scores of 2 layers x 4 neurons whose top quarter, two neurons, can be read off.
TOP = {HELPFUL: [(0, 1), (1, 2)], HARMLESS: [(1, 2), (1, 3)], MIXED: [(0, 1), (1, 2)]}


def write_scores(run: Run, kinds: tuple[str, ...] = ("rms_change", "mean_abs")) -> None:
    scores = NeuronSet.of((2, 4), TOP[run.objective]).mask.astype(np.float32)
    run.folder.mkdir(parents=True, exist_ok=True)
    tensors = {(kind, "both", "all"): scores for kind in kinds}
    NeuronScores(tensors, "down_input", 1, 1).save(run.folder / "neuron_scores.safetensors")


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    runs = list_runs(tmp_path / "runs" / "hand", ["toy"], list(OBJECTIVES), [0, 1])
    for run in runs:
        write_scores(run)
    return runs


def sets_with_counts(neurons: NeuronSet) -> list[NeuronSet]:
    """Every set with the same number of neurons in every layer."""
    n = neurons.shape[1]
    layers = [list(itertools.combinations(range(n), count)) for count in neurons.counts_by_layer()]
    return [
        NeuronSet.of(neurons.shape, [(layer, index) for layer, part in enumerate(parts) for index in part])
        for parts in itertools.product(*layers)
    ]


def test_p_value_of_two_pairs_among_four_is_counted_by_hand() -> None:
    one, half, none = ([(0, 0), (0, 1)], [(0, 1), (0, 2)], [(0, 2), (0, 3)])
    a = NeuronSet.of((1, 4), one)
    expected = {1 / 6: one, 5 / 6: half, 1.0: none}  # share 2, at least 1, at least 0
    for p_value, neurons in expected.items():
        assert shared_count_p_value(a, NeuronSet.of((1, 4), neurons)) == pytest.approx(p_value)


def test_p_value_adds_layers_up() -> None:
    a = NeuronSet.of((2, 2), [(0, 0), (1, 0)])  # each layer shares its one neuron with probability 1/2
    assert shared_count_p_value(a, a) == pytest.approx(1 / 4)
    assert shared_count_p_value(a, NeuronSet.of((2, 2), [(0, 0), (1, 1)])) == pytest.approx(3 / 4)
    assert shared_count_p_value(a, NeuronSet.of((2, 2), [(0, 1), (1, 1)])) == 1.0


@settings(max_examples=30)
@given(hnp.arrays(bool, (2, 4)).map(NeuronSet), hnp.arrays(bool, (2, 4)).map(NeuronSet))
def test_p_value_equals_enumeration_of_every_second_set(a: NeuronSet, b: NeuronSet) -> None:
    counts = [len(a & other) for other in sets_with_counts(b)]
    assert shared_count_p_value(a, b) == pytest.approx(np.mean(np.array(counts) >= len(a & b)))


def test_p_value_equals_simulation() -> None:
    generator = np.random.default_rng(0)
    a = NeuronSet(generator.random((4, 20)) < np.array([[0.6], [0.3], [0.2], [0.1]]))
    b = NeuronSet(generator.random((4, 20)) < np.array([[0.5], [0.3], [0.1], [0.2]]))
    draws = zip(a.matched_random(generator, 3000), b.matched_random(generator, 3000), strict=True)
    simulated = np.mean([len(x & y) >= len(a & b) for x, y in draws])
    assert 0.05 < simulated < 0.95, "the case would not tell"
    assert shared_count_p_value(a, b) == pytest.approx(simulated, abs=0.03)


@given(sets, sets)
def test_p_value_is_a_symmetric_probability_that_falls_with_the_shared_count(a: NeuronSet, b: NeuronSet) -> None:
    p_value = shared_count_p_value(a, b)
    assert 0 < p_value <= 1
    assert p_value == pytest.approx(shared_count_p_value(b, a))
    for other in b.matched_random(np.random.default_rng(0), 3):
        if len(a & other) <= len(a & b):
            assert shared_count_p_value(a, other) >= p_value - 1e-12


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**31))
def test_p_value_of_one_layer_is_the_hypergeometric_tail(size_a: int, size_b: int, seed: int) -> None:
    everything, generator = NeuronSet(np.ones((1, 30), bool)), np.random.default_rng(seed)
    a, b = everything.sample(size_a, generator), everything.sample(size_b, generator)
    assert shared_count_p_value(a, b) == pytest.approx(hypergeom.sf(len(a & b) - 1, 30, size_a, size_b))


def test_p_value_too_small_for_a_float_is_not_zero() -> None:
    large = NeuronSet(np.arange(4000).reshape(2, 2000) % 10 == 0)
    assert shared_count_p_value(large, large) == np.finfo(float).tiny


def test_sets_of_different_models_are_refused() -> None:
    with pytest.raises(ValueError, match="different models"):
        shared_count_p_value(NeuronSet(np.ones((1, 2), bool)), NeuronSet(np.ones((2, 1), bool)))


def test_sets_are_the_top_neurons_of_each_run(runs: list[Run]) -> None:
    for run, neurons in run_sets(runs, "rms_change", 0.25).items():
        assert neurons.neurons == TOP[run.objective]


def test_overlaps_pair_objectives_of_the_same_seed(runs: list[Run]) -> None:
    table = overlap_table(runs, ["rms_change", "mean_abs"], 0.25)
    assert len(table) == 2 * 2 * 3  # kinds, seeds, pairs
    of_pair = table.groupby("pair").jaccard.agg(["min", "max"])
    for pair, value in {
        f"{HELPFUL} / {HARMLESS}": 1 / 3,
        f"{HELPFUL} / {MIXED}": 1,
        f"{HARMLESS} / {MIXED}": 1 / 3,
    }.items():
        assert of_pair.loc[pair].tolist() == pytest.approx([value, value])
    # Two random pairs among 8 neurons share 0, 1 or 2 with probability 15/28, 12/28 and 1/28.
    assert table.jaccard_chance.tolist() == pytest.approx([12 / 28 / 3 + 1 / 28] * len(table))
    assert set(table.n_neurons) == {2} and set(table.n_shared) == {1, 2}


def test_chance_and_p_value_follow_the_layers(runs: list[Run]) -> None:
    table = overlap_table(runs, ["rms_change"], 0.25).set_index(["pair", "seed"])
    # One neuron in each layer: each is shared with probability 1/4, so 2, 1 and 0 with 1/16, 6/16 and 9/16.
    row = table.loc[f"{HELPFUL} / {MIXED}", 0]
    assert [row.p_value, row.jaccard_chance_by_layer] == pytest.approx([1 / 16, 1 / 16 + 6 / 16 / 3])
    # Layer 1 alone, one neuron beside two: shared with probability 1/2.
    row = table.loc[f"{HELPFUL} / {HARMLESS}", 1]
    assert [row.p_value, row.jaccard_chance_by_layer] == pytest.approx([1 / 2, 1 / 2 / 3])


def test_one_objective_has_no_overlap(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="an overlap needs two of helpful, harmless"):
        overlap_table([run for run in runs if run.objective == HELPFUL], ["rms_change"], 0.25)


def test_missing_scores_name_their_chapter(runs: list[Run]) -> None:
    (runs[0].folder / "neuron_scores.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="03_identify.ipynb: run that chapter first"):
        overlap_table(runs, ["rms_change"], 0.25)


def test_scores_that_were_not_computed_are_listed(runs: list[Run]) -> None:
    with pytest.raises(KeyError, match="no scores rms/both/all; there are mean_abs/both/all, rms_change/both/all"):
        overlap_table(runs, ["rms"], 0.25)


def test_summary_is_mean_range_largest_p_value_and_counts() -> None:
    jaccards = {"rms": (0.1, 0.2, 0.6), "mean_abs": (0.5, 0.5, 0.5)}
    rows = [
        {"pair": "a / b", "score_kind": kind, "seed": seed, "jaccard": value, "jaccard_chance": 0.05 * (seed + 1)}
        | {"jaccard_chance_by_layer": 0.1 * seed, "p_value": 0.01 * (seed + 1), "n_shared": 10 * seed, "n_neurons": 100}
        for kind, values in jaccards.items()
        for seed, value in enumerate(values)
    ]
    table = pd.DataFrame(rows)
    by = ["pair", "score_kind"]
    summary = summarize_overlaps(table, by).set_index("score_kind")
    assert summary.loc["rms", ["jaccard", "lowest", "highest"]].tolist() == pytest.approx([0.3, 0.1, 0.6])
    assert summary.loc["mean_abs", ["jaccard", "lowest", "highest"]].tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert summary.jaccard_chance.tolist() == pytest.approx([0.1, 0.1])
    assert summary.jaccard_chance_by_layer.tolist() == pytest.approx([0.1, 0.1])
    assert summary.p_value.tolist() == pytest.approx([0.03, 0.03])
    assert summary.n_shared.tolist() == pytest.approx([10, 10])
    assert summary.n_seeds.tolist() == [3, 3] and summary.n_neurons.tolist() == [100, 100]
    assert summary.n_pairs.tolist() == [3, 3]
    alone = summarize_overlaps(table[table.seed == 1], by)
    assert alone.jaccard.tolist() == [0.2, 0.5] and alone[["lowest", "highest"]].isna().all(axis=None), (
        "no range of one"
    )
    pairs_of_seeds = summarize_overlaps(table.assign(other_seed=table.seed + 5), ["score_kind"])
    assert pairs_of_seeds.n_seeds.tolist() == [6, 6], "0, 1, 2 and 5, 6, 7"
    two = pd.concat([table.assign(base_model="one"), table[table.seed == 0].assign(base_model="two")])
    assert summarize_overlaps(two, by).n_seeds.tolist() == [4, 4], "seed 0 of either base model is a run of its own"
    assert summarize_overlaps(two, ["base_model", "score_kind"]).n_seeds.tolist() == [3, 3, 1, 1]
    table.loc[0, "jaccard"] = np.nan
    found = summarize_overlaps(table, by)
    assert found.n_pairs.tolist() == [2, 3] and found.n_seeds.tolist() == [2, 3]


def test_combined_overlap_is_the_published_ratio(runs: list[Run]) -> None:
    table = combined_overlap_table(runs, ["rms_change"], 0.25)
    # He u Ha = {01, 12, 13}, HH = {01, 12}: both of HH's neurons are in the union, which has three.
    assert table.jaccard.tolist() == pytest.approx([2 / 3, 2 / 3]) and table.seed.tolist() == [0, 1]
    assert table.largest_possible.tolist() == pytest.approx([2 / 3, 2 / 3]) and set(table.n_neurons) == {3}
    # HH anew: layer 0 hits {01} with 1/4, layer 1 hits {12, 13} with 2/4; 2 shared of 3, 1 of 4, 0 of 5.
    assert table.jaccard_chance_by_layer.tolist() == pytest.approx([1 / 8 * 2 / 3 + 1 / 2 * 1 / 4] * 2)
    assert table.p_value.tolist() == pytest.approx([1 / 8, 1 / 8])
    assert combined_overlap_table(runs[:4], ["rms_change"], 0.25).empty, "no mixed model"


@settings(max_examples=25)
@given(sets, sets, sets)
def test_combined_chance_equals_random_mixed_sets(helpful: NeuronSet, harmless: NeuronSet, mixed: NeuronSet) -> None:
    if not len(mixed):
        return
    union = helpful | harmless
    draws = mixed.matched_random(np.random.default_rng(0), 400)
    simulated = np.mean([len(union & draw) / len(union | draw) for draw in draws])
    row = compare_sets(union, mixed)
    assert row["jaccard_chance_by_layer"] == pytest.approx(simulated, abs=0.06)
    assert row["jaccard"] == pytest.approx(len((helpful & mixed) | (harmless & mixed)) / len(union | mixed))


def test_regions_are_counted_by_hand() -> None:
    table = region_sizes([NeuronSet.of((2, 4), TOP[objective]) for objective in OBJECTIVES]).set_index(
        [*REGION_COLUMNS]
    )
    # 13 is in the harmless set alone, 01 in helpful and mixed, 12 in all three.
    assert table.n_neurons[table.n_neurons > 0].to_dict() == {
        (False, True, False): 1,
        (True, False, True): 1,
        (True, True, True): 1,
    }
    # All three: layer 0 has none of the harmless set; layer 1 has 4 x 1/4 x 2/4 x 1/4.
    assert table.n_expected[True, True, True] == pytest.approx(1 / 8)
    assert table.n_expected[True, False, True] == pytest.approx(4 * 1 / 16 + 4 * 1 / 4 * 2 / 4 * 1 / 4)


@given(st.tuples(sets, sets, sets))
def test_regions_split_the_union_and_their_expectations_keep_the_sizes(three: tuple[NeuronSet, ...]) -> None:
    table = region_sizes(three)
    assert len(table) == 7
    for column, neurons in zip(REGION_COLUMNS, three, strict=True):
        assert table.n_neurons[table[column]].sum() == len(neurons)
        assert table.n_expected[table[column]].sum() == pytest.approx(len(neurons))
    assert table.n_neurons.sum() == len(three[0] | three[1] | three[2])


def test_expected_regions_equal_simulation() -> None:
    generator = np.random.default_rng(0)
    three = [NeuronSet(generator.random((3, 30)) < np.array([[0.6], [0.3], [0.1]])) for _ in OBJECTIVES]
    draws = zip(*(neurons.matched_random(generator, 1500) for neurons in three), strict=True)
    simulated = np.mean([region_sizes(draw).n_neurons for draw in draws], axis=0)
    assert region_sizes(three).n_expected.to_numpy() == pytest.approx(simulated, abs=0.3)


def test_region_table_averages_seeds(runs: list[Run]) -> None:
    values = {(0, 1): 1.0, (0, 2): 2.0}  # the mixed model of seed 1 takes two neurons of layer 0
    scores = np.zeros((2, 4), np.float32)
    for neuron, value in values.items():
        scores[neuron] = value
    mixed = next(run for run in runs if run.objective == MIXED and run.seed == 1)
    NeuronScores({("rms_change", "both", "all"): scores}, "down_input", 1, 1).save(
        mixed.folder / "neuron_scores.safetensors"
    )
    table = region_table(runs, "rms_change", 0.25).set_index([*REGION_COLUMNS])
    row = table.loc[(True, True, True)]  # neuron 12 in seed 0, none in seed 1
    assert [row.n_neurons, row.lowest, row.highest, row.n_models] == [0.5, 0, 1, 2]
    assert region_table(runs[:4], "rms_change", 0.25).empty
