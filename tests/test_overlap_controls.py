"""Base model, other seed, sham labels, cross design and permutation test, on sets that can be compared by eye."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tension_utils.analysis.overlap import (
    BOTH_DIFFER,
    LEVELS,
    NEEDS_SEEDS,
    NO_BASE,
    SAME_MODEL,
    SAME_TEXT,
    SHAM,
    base_model_table,
    cross_design_table,
    half_table,
    level_rows,
    objective_permutation_test,
    permutation_table,
    seed_stability,
    seed_table,
    summarize_overlaps,
)
from tension_utils.config import OBJECTIVES, Run, list_runs
from tension_utils.neurons import NeuronSet, jaccard
from tension_utils.scores import NeuronScores

HELPFUL, HARMLESS, MIXED = OBJECTIVES
SHAPE, FRACTION = (1, 8), 0.25  # two of eight neurons
KINDS = ("mean_abs", "rms_change")


def write(path: Path, neurons: tuple[int, int], kinds: tuple[str, ...] = KINDS) -> None:
    scores = NeuronSet.of(SHAPE, [(0, index) for index in neurons]).mask.astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    NeuronScores({(kind, "both", "all"): scores for kind in kinds}, "down_input", 1, 1).save(path)


def views_of(run: Run) -> dict[str, tuple[int, int]]:
    """Neuron 0 belongs to the helpful model, 1 to the harmless one, 2 to the base; 4 is of helpful text, 5 of other."""
    mine = {HELPFUL: 0, HARMLESS: 1, MIXED: 3}[run.objective]
    views = {"half-0": (mine, 6), "half-1": (mine, 7), "text-helpful": (mine, 4), "text-harmless": (mine, 5)}
    if run.objective != MIXED:
        views[f"base-text-{run.objective}"] = (2, {HELPFUL: 4, HARMLESS: 5}[run.objective])
    return views


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    runs = list_runs(tmp_path / "runs" / "hand", ["toy"], list(OBJECTIVES), [0, 1, 2])
    for run in runs:
        mine = {HELPFUL: 0, HARMLESS: 1, MIXED: 3}[run.objective]
        write(run.folder / "neuron_scores.safetensors", (mine, 4 + (run.seed == 2)))
        for view, neurons in views_of(run).items():
            kinds = KINDS[:1] if view.startswith("base") else KINDS
            write(run.folder / "score_views" / f"{view}.safetensors", neurons, kinds)
    return runs


def test_the_base_model_on_both_texts_is_absent_for_change(runs: list[Run]) -> None:
    table = base_model_table(runs, KINDS, FRACTION).set_index(["score_kind", "seed"])
    assert len(table) == 2 * 3
    assert table.loc["mean_abs"].jaccard.tolist() == pytest.approx([1 / 3] * 3)  # {2, 4} and {2, 5}
    assert set(table.loc["mean_abs"].not_run) == {""} and set(table.loc["mean_abs"].n_shared) == {1}
    assert table.loc["rms_change"].jaccard.isna().all() and set(table.loc["rms_change"].not_run) == {NO_BASE}


def test_missing_view_names_its_chapter(runs: list[Run]) -> None:
    (runs[0].folder / "score_views" / "base-text-helpful.safetensors").unlink()
    for table in (base_model_table, cross_design_table):
        with pytest.raises(FileNotFoundError, match="base-text-helpful.safetensors is missing.*03_identify.ipynb"):
            table(runs, KINDS, FRACTION)


def test_seeds_of_one_objective_are_all_paired(runs: list[Run]) -> None:
    table = seed_table(runs, ["mean_abs"], FRACTION)
    pairs = table.set_index(["objective", "seed", "other_seed"]).jaccard.to_dict()
    expected = {(0, 1): 1, (0, 2): 1 / 3, (1, 2): 1 / 3}  # seed 2 has neuron 5 for 4
    assert pairs == pytest.approx({(o, *seeds): value for o in OBJECTIVES for seeds, value in expected.items()})
    assert seed_table(runs[:1], ["mean_abs"], FRACTION).empty


def test_halves_of_one_model_are_compared(runs: list[Run]) -> None:
    table = half_table(runs, KINDS, FRACTION)
    assert len(table) == 9 * 2 and table.jaccard.tolist() == pytest.approx([1 / 3] * 18)


def test_halves_that_were_not_kept_are_left_out(runs: list[Run]) -> None:
    (runs[0].folder / "score_views" / "half-1.safetensors").unlink()
    table = half_table(runs, KINDS, FRACTION)
    assert len(table) == 8 * 2 and not (table[list(runs[0].label)] == list(runs[0].label.values())).all(axis=1).any()
    with pytest.raises(FileNotFoundError, match="half-1.safetensors is missing.*03_identify.ipynb"):
        half_table(runs[:1], KINDS, FRACTION)
    stability = seed_stability(half_table(runs[3:], KINDS, FRACTION), seed_table(runs, KINDS, FRACTION))
    assert set(stability.n_models) == {9} and set(stability.n_seeds) == {3}, "of the halves, and of the seeds compared"


def test_cross_design_sorts_every_pair_by_what_it_shares(runs: list[Run]) -> None:
    table = cross_design_table(runs, KINDS, FRACTION)
    of_activation = table[(table.score_kind == "mean_abs") & (table.seed == 0)]
    assert of_activation.relation.value_counts().to_dict() == {SAME_MODEL: 3, SAME_TEXT: 6, BOTH_DIFFER: 6}
    # By construction one neuron is the model's and one the text's.
    by_relation = of_activation.groupby("relation").jaccard.agg(["min", "max"])
    assert by_relation.loc[SAME_MODEL].tolist() == by_relation.loc[SAME_TEXT].tolist() == pytest.approx([1 / 3] * 2)
    assert by_relation.loc[BOTH_DIFFER].tolist() == [0, 0]
    assert set(of_activation.models) == {
        HELPFUL, HARMLESS, "base model", "helpful / harmless", "helpful / base model", "harmless / base model",
    }  # fmt: skip
    named = of_activation[of_activation.models == HELPFUL].iloc[0]
    assert [named["first"], named["second"]] == ["helpful on helpful text", "helpful on harmless text"]
    of_change = table[(table.score_kind == "rms_change") & (table.seed == 0)]
    assert of_change.relation.value_counts().to_dict() == {SAME_MODEL: 2, SAME_TEXT: 2, BOTH_DIFFER: 2}
    assert not of_change.models.str.contains("base").any()


def test_permutation_of_perfectly_apart_objectives_by_hand() -> None:
    first, second = ([NeuronSet.of(SHAPE, [(0, index)])] * 2 for index in (0, 1))
    found = objective_permutation_test(first, second)
    assert [found[f"jaccard_{name}"] for name in ("within", "between", "difference")] == [1, 0, 1]
    # 6 ways to give two of four the first name; the true one and its mirror image reach the difference.
    assert found["n_relabelings"] == 6 and found["p_value"] == found["smallest_p"] == pytest.approx(2 / 6)
    three = objective_permutation_test(first + first[:1], second + second[:1])
    assert three["n_relabelings"] == 20 and three["p_value"] == pytest.approx(0.1)
    unequal = objective_permutation_test(first, second + second[:1])
    assert unequal["n_relabelings"] == 10 and unequal["p_value"] == unequal["smallest_p"] == pytest.approx(0.1)


def slow_permutation(first: list[NeuronSet], second: list[NeuronSet]) -> tuple[float, float]:
    """Difference and p-value by plain loops."""

    def difference(one: list[NeuronSet], other: list[NeuronSet]) -> float:
        within = [jaccard(a, b) for part in (one, other) for a, b in itertools.combinations(part, 2)]
        return np.mean(within) - np.mean([jaccard(a, b) for a in one for b in other])

    both, observed = first + second, difference(first, second)
    values = []
    for chosen in itertools.combinations(range(len(both)), len(first)):
        one, other = ([s for i, s in enumerate(both) if (i in chosen) == is_one] for is_one in (True, False))
        values.append(difference(one, other))
    return observed, float(np.mean(np.array(values) >= observed - 1e-12))


nonempty = hnp.arrays(bool, (2, 5)).filter(np.any).map(NeuronSet)


@settings(max_examples=40)
@given(st.lists(nonempty, min_size=2, max_size=3), st.lists(nonempty, min_size=2, max_size=3))
def test_permutation_equals_plain_loops(first: list[NeuronSet], second: list[NeuronSet]) -> None:
    found = objective_permutation_test(first, second)
    assert (found["jaccard_difference"], found["p_value"]) == pytest.approx(slow_permutation(first, second))
    assert found["smallest_p"] - 1e-12 <= found["p_value"] <= 1
    assert objective_permutation_test(second, first)["p_value"] == pytest.approx(found["p_value"])


def test_permutation_is_valid_when_the_names_mean_nothing() -> None:
    generator = np.random.default_rng(0)
    everything = NeuronSet(np.ones((1, 40), bool))
    p_values = []
    for _ in range(300):
        six = [everything.sample(10, generator) for _ in range(6)]
        p_values.append(objective_permutation_test(six[:3], six[3:])["p_value"])
    for level in (0.1, 0.3, 0.5):
        assert np.mean(np.array(p_values) <= level + 1e-9) == pytest.approx(level, abs=0.09)


def test_stability_is_over_halves_and_over_seeds(runs: list[Run]) -> None:
    halves, seeds = (
        summarize_overlaps(table(runs, KINDS, FRACTION), ["score_kind"]).set_index("score_kind").loc["mean_abs"]
        for table in (half_table, seed_table)
    )
    assert [halves.jaccard, halves.n_pairs] == [pytest.approx(1 / 3), 9]  # {mine, 6} and {mine, 7}
    assert [seeds.jaccard, seeds.lowest, seeds.highest] == pytest.approx([5 / 9, 1 / 3, 1])
    assert seed_table([run for run in runs if run.seed == 0], KINDS, FRACTION).empty


def test_permutation_table_says_what_it_lacks(runs: list[Run]) -> None:
    table = permutation_table(runs, KINDS, FRACTION).set_index("score_kind")
    # Helpful {0,4} {0,4} {0,5}, harmless {1,4} {1,4} {1,5}: within 5/9; between 5 pairs of 1/3 and 4 of 0.
    row = table.loc["mean_abs"]
    assert [row["jaccard_within"], row["jaccard_between"]] == pytest.approx([5 / 9, 5 / 27])
    assert row.p_value == pytest.approx(0.1) == row.smallest_p and row.n_seeds == 3 and row.not_run == ""
    for few in ([run for run in runs if run.seed == 0], [run for run in runs if run.objective == HELPFUL]):
        table = permutation_table(few, KINDS, FRACTION)
        assert set(table.not_run) == {NEEDS_SEEDS} and len(table) == 2
    with pytest.raises(ValueError, match="needs two seeds of each objective; got 1 and 2"):
        objective_permutation_test([NeuronSet(np.ones((1, 1), bool))], [NeuronSet(np.ones((1, 1), bool))] * 2)


def test_levels_give_an_overlap_its_meaning(runs: list[Run]) -> None:
    for seed in (0, 1):  # a sham of the harmless text alone shares neuron 4 with the helpful model
        write(runs[0].folder.parents[1] / "harmless-coin" / f"seed{seed}" / "neuron_scores.safetensors", (7, 4))
    shams = list_runs(runs[0].root, ["toy"], ["harmless-coin"], [0, 1])
    rows = level_rows([*runs, *shams], KINDS[:1], FRACTION)
    assert rows.level.drop_duplicates().tolist() == list(LEVELS)
    means = rows.groupby("level").jaccard.mean()
    assert means[list(LEVELS)].tolist() == pytest.approx([1 / 3, 5 / 9, 1 / 3, 1 / 3])
    assert rows.level.value_counts()[SHAM] == 2 and (rows.other_seed >= rows.seed).all()
    assert set(level_rows(runs, KINDS[1:], FRACTION).level) == set(LEVELS[:2]), "no sham, and no base model's change"
