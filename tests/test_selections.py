"""Selections of neurons and heads and their agreement, by hand and beside slow implementations."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tension_utils.analysis.overlap import (
    GATE,
    depth_table,
    head_sets,
    kind_table,
    lape_neurons,
    lape_sets,
    lape_table,
    layer_shares,
    reading_table,
    relatives_table,
    scope_table,
    side_table,
    site_table,
)
from tension_utils.config import OBJECTIVES, Run, list_runs
from tension_utils.neurons import NeuronSet
from tension_utils.scores import NeuronScores

SHAPE = (2, 6)
probabilities = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))


def test_lape_by_hand() -> None:
    # Bar: the 4th of 8 values (0.1 0.2 0.3 0.4 | 0.6 0.8 0.8 0.9) at the quantile 1/2. Neuron 3 never passes it.
    a, b = np.array([[0.9, 0.8, 0.2, 0.3]]), np.array([[0.1, 0.8, 0.6, 0.4]])
    # Shares .9/.1, .5/.5, .25/.75: neuron 0 has the lowest entropy, then 2, then 1.
    assert lape_neurons({"a": a, "b": b}, 0.25, 0.5)["a"].neurons == [(0, 0)]
    two = lape_neurons({"a": a, "b": b}, 0.5, 0.5)
    assert [two["a"].neurons, two["b"].neurons] == [[(0, 0)], [(0, 2)]]
    three = lape_neurons({"a": a, "b": b}, 0.75, 0.5)  # neuron 1 is active on both texts
    assert [three["a"].neurons, three["b"].neurons] == [[(0, 0), (0, 1)], [(0, 1), (0, 2)]]
    with pytest.raises(ValueError, match="4 neurons asked for, but only 3 are active on more than 0.400"):
        lape_neurons({"a": a, "b": b}, 1.0, 0.5)


def slow_lape(frequencies: dict[str, np.ndarray], fraction: float, quantile: float) -> dict[str, list] | None:
    """Plain loops over neurons; None if there are too few."""
    values = sorted(float(v) for p in frequencies.values() for v in p.ravel())
    bar = values[math.ceil(quantile * len(values)) - 1]
    entropies = {}
    for neuron in itertools.product(range(SHAPE[0]), range(SHAPE[1])):
        p = [float(each[neuron]) for each in frequencies.values()]
        if max(p) > bar:
            q = [value / sum(p) for value in p]
            entropies[neuron] = round(-sum(x * math.log(x) for x in q if x > 0), 9)
    wanted = round(fraction * SHAPE[0] * SHAPE[1])
    if len(entropies) < wanted:
        return None
    chosen = sorted(entropies, key=lambda neuron: (entropies[neuron], neuron))[:wanted]
    return {name: sorted(n for n in chosen if p[n] > bar) for name, p in frequencies.items()}


@settings(max_examples=150)
@given(probabilities, probabilities, st.sampled_from([0.1, 0.25, 0.5]), st.sampled_from([0.3, 0.5, 0.8]))
def test_lape_equals_plain_loops(a: np.ndarray, b: np.ndarray, fraction: float, quantile: float) -> None:
    expected = slow_lape({"a": a, "b": b}, fraction, quantile)
    if expected is None:
        with pytest.raises(ValueError, match="lower the fraction or the quantile"):
            lape_neurons({"a": a, "b": b}, fraction, quantile)
        return
    found = lape_neurons({"a": a, "b": b}, fraction, quantile)
    union = found["a"] | found["b"]
    assert len(union) == round(fraction * 12), "an exact count, each in at least one set"
    assert {name: neurons.neurons for name, neurons in found.items()} == expected


@given(probabilities, probabilities)
def test_lape_of_swapped_texts_swaps_the_sets(a: np.ndarray, b: np.ndarray) -> None:
    assume(slow_lape({"a": a, "b": b}, 0.1, 0.5) is not None)
    one, other = lape_neurons({"a": a, "b": b}, 0.1, 0.5), lape_neurons({"a": b, "b": a}, 0.1, 0.5)
    assert one["a"] == other["b"] and one["b"] == other["a"]


def test_lape_refuses_what_is_no_probability() -> None:
    for bad in ({"a": np.ones((1, 2))}, {"a": np.ones((1, 2)), "b": np.full((1, 2), 1.1)},
                {"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones((1, 2)), "b": np.full((1, 2), np.nan)}):  # fmt: skip
        with pytest.raises(ValueError, match=r"expected \(layers, neurons\) in \[0, 1\] for at least two texts"):
            lape_neurons(bad)


def mask(neurons: list[tuple[int, int]], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return NeuronSet.of(shape, neurons).mask.astype(np.float32)


def save(scores: dict[tuple[str, str, str], np.ndarray], path: Path, site: str = "down_input") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    NeuronScores(scores, site, 1, 1).save(path)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    runs = list_runs(tmp_path / "runs" / "hand", ["toy"], list(OBJECTIVES)[:2], [0, 1])
    for run in runs:
        keys = [("rms", side, scope) for side in ("both", "chosen", "rejected") for scope in ("all", "last")]
        scores = {key: mask([(0, 0), (1, i)]) for i, key in enumerate(keys)}  # any two share one neuron
        scores[("contrast", "both", "all")] = mask([(0, 0), (1, 0)])
        scores[("contrast", "both", "last")] = mask([(0, 4), (0, 5)])
        save(scores, run.folder / "neuron_scores.safetensors")
        views = run.folder / "score_views"
        save({("rms", "both", "all"): mask([(1, 4), (1, 5)])}, views / "gate.safetensors", "gate")
        norms = np.zeros((2, 4), np.float32)
        norms[0, 1], norms[1, 3], norms[0, 0] = 0.6, 0.5, 0.4 + run.seed
        save({("signed_mean", "both", "all"): norms}, views / "heads.safetensors", "heads")
        for text, high in (("helpful", (0, 1)), ("harmless", (1, 2))):
            frequency = 0.1 + 0.8 * mask([high], (2, 20))  # 2 of the 80 values are above the bar, the rest at it
            save({("frequency", "both", "all"): frequency}, views / f"text-{text}.safetensors")
    return runs


def test_heads_with_the_largest_changes_are_taken(runs: list[Run]) -> None:
    for run, heads in head_sets(runs, 0.25).items():  # two of eight heads
        assert heads.shape == (2, 4)
        assert heads.neurons == ([(0, 1), (1, 3)] if run.seed == 0 else [(0, 0), (0, 1)])


def test_lape_sets_read_both_texts(runs: list[Run]) -> None:
    sets = lape_sets(runs, ("helpful", "harmless"), 2 / 40)
    assert all(s["helpful"].neurons == [(0, 1)] and s["harmless"].neurons == [(1, 2)] for s in sets.values())
    (runs[1].folder / "score_views" / "text-harmless.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="03_identify"):
        lape_sets(runs, ("helpful", "harmless"))


def test_neurons_by_entropy_are_counted_beside_other_scores(runs: list[Run]) -> None:
    lape = lape_sets(runs, ("helpful", "harmless"), 2 / 40)
    sets = {"rms": {run: NeuronSet.of((2, 20), [(0, 1), (0, run.seed)]) for run in runs}}
    table = lape_table(lape, sets).set_index("objective")
    assert table.loc["helpful"].to_dict() == pytest.approx(
        {"n_selected": 2, "n_helpful_text": 1, "n_harmless_text": 1, "n_both": 0, "share_in_rms": 0.5}
        | {"chance": (2 / 40 + 1 / 40) / 2, "n_models": 2}
    )


def test_heads_are_compared_with_their_relatives(runs: list[Run]) -> None:
    table = relatives_table(head_sets(runs, 0.25)).set_index("comparison").jaccard.to_dict()
    same_seed, other_seed = 1.0, 1 / 3  # both objectives have the heads of their seed
    assert table == pytest.approx(
        {"helpful / harmless": same_seed, "helpful, other seed": other_seed, "harmless, other seed": other_seed}
    )


def test_sets_stand_beside_those_of_coin_flips_on_the_other_pairs() -> None:
    """By hand, of 8 neurons: helpful 0 1, harmless 1 2, coin flips on helpful pairs 2 3, on harmless pairs 0 1."""
    tops = {"helpful": (0, 1), "harmless": (1, 2), "helpful-coin": (2, 3), "harmless-coin": (0, 1)}
    sets = {
        Run(Path(), "toy", arm, 0): NeuronSet.of((1, 8), [(0, number) for number in top]) for arm, top in tops.items()
    }
    table = relatives_table(sets).set_index("comparison").jaccard.to_dict()
    with_coins = {"helpful / coin-flip labels": 1.0, "harmless / coin-flip labels": 1 / 3}
    assert table == pytest.approx({"helpful / harmless": 1 / 3} | with_coins)
    alone = {run: of_run for run, of_run in sets.items() if run.objective != "harmless-coin"}
    assert "helpful / coin-flip labels" not in set(relatives_table(alone).comparison)


def test_sides_scopes_and_sites_stand_beside_each_other(runs: list[Run]) -> None:
    table = reading_table(runs, ["rms"], 2 / 12, ["all", "last"])
    assert list(table.columns[1:4]) == ["chosen / rejected", "all / last", "neuron / gate"]
    assert table.iloc[0, 1:4].tolist() == pytest.approx([1 / 3, 1 / 3, 0]) and table.n_models.item() == 4


def test_what_an_export_did_not_keep_of_a_run_is_left_out(runs: list[Run]) -> None:
    lean, rest = runs[0], runs[1:]
    expected = {
        "kinds": kind_table(rest, ["rms", "contrast"], 2 / 12, "all", ["rms"]),
        "reading": reading_table(rest, ["rms"], 2 / 12, ["all", "last"]),
        "entropy": lape_sets(rest, ("helpful", "harmless"), 2 / 40),
    }
    keys = [("rms", "both", "all"), ("contrast", "both", "all")]
    save({key: mask([(0, 0), (1, i)]) for i, key in enumerate(keys)}, lean.folder / "neuron_scores.safetensors")
    (lean.folder / "score_views" / "gate.safetensors").unlink()
    save({("rms", "both", "all"): mask([(0, 1)])}, lean.folder / "score_views" / "text-helpful.safetensors")
    kinds = kind_table(runs, ["rms", "contrast"], 2 / 12, "all", ["rms"])
    is_lean = (kinds.objective == lean.objective) & (kinds.seed == lean.seed)
    assert kinds[is_lean][["first", "second"]].to_numpy().tolist() == [["rms", "contrast"]]
    pd.testing.assert_frame_equal(kinds[~is_lean].reset_index(drop=True), expected["kinds"])
    pd.testing.assert_frame_equal(reading_table(runs, ["rms"], 2 / 12, ["all", "last"]), expected["reading"])
    assert lape_sets(runs, ("helpful", "harmless"), 2 / 40) == expected["entropy"]
    with pytest.raises(FileNotFoundError, match="gate.safetensors is missing"):
        site_table([lean], ["rms"], 2 / 12)
    with pytest.raises(KeyError, match="no scores frequency"):
        lape_sets([lean], ("helpful", "harmless"))


def test_layers_share_a_set(runs: list[Run]) -> None:
    sets = [NeuronSet.of((2, 3), [(0, 0), (1, index)]) for index in (0, 1)] + [NeuronSet.of((2, 3), [(1, 0), (1, 1)])]
    table = layer_shares({"rms": dict(zip(runs[:3], sets, strict=True))})
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("harmless", "rms", 0, 0.0),
        ("harmless", "rms", 1, 1.0),
        ("helpful", "rms", 0, 0.5),
        ("helpful", "rms", 1, 0.5),
    ]


def test_kinds_are_compared_within_each_run_and_with_the_gate(runs: list[Run]) -> None:
    table = kind_table(runs, ["rms", "contrast"], 2 / 12, "all", ["rms"])
    assert len(table) == 4 * 3
    cells = table.set_index(["objective", "seed", "first", "second"]).jaccard
    assert set(cells[:, :, "rms", "contrast"]) == {1.0}
    assert set(cells[:, :, "rms", "rms" + GATE]) == {0.0}
    assert len(kind_table(runs, ["rms", "contrast"], 2 / 12)) == 4


def test_sites_are_compared_per_score(runs: list[Run]) -> None:
    table = site_table(runs, ["rms"], 2 / 12)
    assert list(table.score_kind) == ["rms"] * 4 and table.jaccard.tolist() == [0] * 4
    assert set(table["first"]) == {"neuron"} and set(table["second"]) == {"gate"}


def test_sides_are_compared_where_a_score_has_them(runs: list[Run]) -> None:
    table = side_table(runs, ["rms", "contrast"], 2 / 12)
    assert list(table.score_kind) == ["rms"] * 4 and set(table["first"]) == {"chosen"}
    assert table.jaccard.tolist() == pytest.approx([1 / 3] * 4)
    assert side_table(runs, ["contrast"], 2 / 12).empty


def test_scopes_are_compared_per_score(runs: list[Run]) -> None:
    table = scope_table(runs, ["rms", "contrast"], 2 / 12, ["all", "last"]).set_index("score_kind")
    assert table.jaccard["rms"].tolist() == pytest.approx([1 / 3] * 4)
    assert table.jaccard["contrast"].tolist() == [0] * 4
    assert scope_table(runs, ["rms"], 2 / 12, ["all"]).empty


def test_depth_shares_are_beside_those_of_every_neuron(runs: list[Run]) -> None:
    first, second = NeuronSet.of((4, 2), [(0, 0), (3, 1)]), NeuronSet.of((4, 2), [(0, 0), (1, 1)])
    table = depth_table({"rms": {runs[0]: first, runs[1]: second}})
    row, uniform = table.iloc[0], table.iloc[1]
    # Layers 0 and 1 are the first third of four, 2 the middle, 3 the last.
    assert [row.first_third, row.middle_third, row.last_third] == [0.75, 0, 0.25]
    assert [row.first_third_lowest, row.first_third_highest, row.n_models] == [0.5, 1, 2]
    assert [uniform.first_third, uniform.middle_third, uniform.last_third] == [0.5, 0.25, 0.25]
    assert depth_table({"rms": {runs[0]: first}}).first_third_lowest.isna().all(), "no range of one"
    assert uniform.score_kind == "every neuron" and table.n_models.isna().tolist() == [False, True]
