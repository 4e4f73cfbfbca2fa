"""The tables behind the claims, on evaluations, scores and ablations small enough to count by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tension_utils.analysis.accuracy import (
    conflict_table,
    hh_tests,
    interval,
    tension_table,
)
from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import WAYS, primary_of
from tension_utils.analysis.removal import effect_table
from tension_utils.artifacts import TABLES, write_table
from tension_utils.config import OBJECTIVES, Run, list_runs
from tension_utils.scores import NeuronScores

HELPFUL, HARMLESS, MIXED = OBJECTIVES
# Credits of two seeds on four helpful and two harmless items; the last item of each test is a conflicting pair.
CREDITS = {
    HELPFUL: {0: ([1, 1, 1, 1], [1, 0]), 1: ([1, 1, 0, 1], [0, 0])},
    HARMLESS: {0: ([1, 0, 0.5, 0], [1, 1]), 1: ([0, 0, 0.5, 0], [1, 1])},
    MIXED: {0: ([1, 1, 0, 0], [1, 0]), 1: ([1, 1, 1, 0], [1, 1])},
}


def item_rows(group: str, credits: list[float], benchmark: str = "hh-rlhf") -> list[dict]:
    directions = ["none"] * (len(credits) - 1) + [{HELPFUL: "respond", HARMLESS: "refuse"}[group]]
    return [
        {
            "benchmark": benchmark,
            "subset": f"{group}-base",
            "item_id": f"{benchmark}/{group}/{i}",
            "cluster": f"{group} prompt {i}",
            "group": group,
            "direction": direction,
            "margin": np.float32(0 if credit == 0.5 else (2 * credit - 1) * (i + 1)),
            "credit": float(credit),
            "chance": 0.5,
            "n_chosen": 1,
            "n_rejected": 1,
            "n_tokens": 10,
            "is_truncated": False,
            "style": "",
            "chosen_reward": np.float32(1),
            "chosen_spread": np.float32(0),
            "chosen_length": 20.0 + i,
            "rejected_length": 21.0,
        }
        for i, (credit, direction) in enumerate(zip(credits, directions, strict=True))
    ]


def evaluation_of(objective: str, seed: int) -> pd.DataFrame:
    helpful, harmless = CREDITS[objective][seed]
    rows = item_rows(HELPFUL, helpful) + item_rows(HARMLESS, harmless) + item_rows(HELPFUL, [0, 0, 0], "toy")
    return pd.DataFrame(rows).assign(base_model="toy", objective=objective, seed=seed)


@pytest.fixture
def evaluation() -> pd.DataFrame:
    parts = [evaluation_of(objective, seed) for objective in reversed(OBJECTIVES) for seed in (0, 1)]
    return pd.concat(parts, ignore_index=True)


def test_each_item_counts_for_its_own_test_and_for_both_together(evaluation: pd.DataFrame) -> None:
    tests = hh_tests(evaluation)
    assert set(tests.benchmark) == {"hh-rlhf"}
    assert tests.groupby("test").size().to_dict() == {HELPFUL: 6 * 4, HARMLESS: 6 * 2, MIXED: 6 * 6}


def test_tension_matrix_holds_hand_counted_accuracies_in_order(evaluation: pd.DataFrame) -> None:
    table = tension_table(evaluation)
    assert list(zip(table.objective, table.test, strict=True)) == [(o, t) for o in OBJECTIVES for t in OBJECTIVES]
    expected = [
        *(7 / 8, 1 / 4, 8 / 12),  # helpful model: its test, the harmless one, both
        *(2 / 8, 4 / 4, 6 / 12),  # harmless model; two ties count half each
        *(5 / 8, 3 / 4, 8 / 12),  # mixed model
    ]
    assert table.accuracy.tolist() == pytest.approx(expected)
    assert table.n_items.tolist() == [4, 2, 6] * 3 and set(table.n_seeds) == {2}
    assert set(table.chance_accuracy) == {0.5}
    assert table.tie_rate.tolist() == pytest.approx([0, 0, 0, 2 / 8, 0, 2 / 12, 0, 0, 0])
    assert ((table.ci_low <= table.accuracy) & (table.accuracy <= table.ci_high)).all()
    by_seed = [[sum(sum(credits, []) if t == MIXED else credits[t == HARMLESS])
                / len(sum(credits, []) if t == MIXED else credits[t == HARMLESS])
                for credits in CREDITS[o].values()] for o in OBJECTIVES for t in OBJECTIVES]  # fmt: skip
    assert table.seed_std.tolist() == pytest.approx([np.std(pair, ddof=1) for pair in by_seed])


def test_tables_are_the_same_each_time_and_in_any_row_order(evaluation: pd.DataFrame) -> None:
    table = tension_table(evaluation)
    pd.testing.assert_frame_equal(table, tension_table(evaluation))
    shuffled = tension_table(evaluation.sample(frac=1, random_state=0))
    np.testing.assert_allclose(table.accuracy, shuffled.accuracy)


def test_one_objective_alone_gives_its_own_rows(evaluation: pd.DataFrame) -> None:
    table = tension_table(evaluation[(evaluation.objective == HARMLESS) & (evaluation.seed == 0)])
    assert table.test.tolist() == list(OBJECTIVES) and table.accuracy.tolist() == pytest.approx([1.5 / 4, 1, 3.5 / 6])
    assert table.n_seeds.tolist() == [1, 1, 1] and table.seed_std.isna().all()


def test_conflicting_and_agreeing_pairs_are_counted_apart(evaluation: pd.DataFrame) -> None:
    cells = conflict_table(evaluation).set_index(["objective", "test", "pairs"])
    expected = {
        (HELPFUL, HELPFUL, "agreeing"): 5 / 6,
        (HELPFUL, HELPFUL, "conflicting"): 1,
        (HELPFUL, HARMLESS, "agreeing"): 1 / 2,
        (HELPFUL, HARMLESS, "conflicting"): 0,
        (HARMLESS, HELPFUL, "agreeing"): 2 / 6,
        (HARMLESS, HELPFUL, "conflicting"): 0,
        (HARMLESS, HARMLESS, "agreeing"): 1,
        (HARMLESS, HARMLESS, "conflicting"): 1,
        (MIXED, HELPFUL, "agreeing"): 5 / 6,
        (MIXED, HELPFUL, "conflicting"): 0,
        (MIXED, HARMLESS, "agreeing"): 1,
        (MIXED, HARMLESS, "conflicting"): 1 / 2,
    }
    assert cells.accuracy.to_dict() == pytest.approx(expected)
    assert cells.xs("conflicting", level="pairs").n_items.tolist() == [1] * 6
    assert cells.xs((HELPFUL, "agreeing"), level=("test", "pairs")).n_items.tolist() == [3] * 3


def test_a_source_that_marks_nothing_has_no_conflict_rows(evaluation: pd.DataFrame) -> None:
    assert conflict_table(evaluation.assign(direction="none")).empty


# Scores of 2 layers x 4 neurons whose top quarter, two neurons, can be read off.
TOP = {HELPFUL: [(0, 1), (1, 2)], HARMLESS: [(1, 2), (1, 3)], MIXED: [(0, 1), (1, 2)]}


def write_scores(run: Run, kinds: tuple[str, ...] = ("rms_change",)) -> None:
    scores = np.zeros((2, 4), dtype=np.float32)
    for neuron in TOP[run.objective]:
        scores[neuron] = 1
    run.folder.mkdir(parents=True, exist_ok=True)
    tensors = {(kind, "both", "all"): scores for kind in kinds}
    NeuronScores(tensors, "down_input", 1, 1).save(run.folder / "neuron_scores.safetensors")
    if run.objective != MIXED:
        (run.folder / "score_views").mkdir(exist_ok=True)
        base = NeuronScores({("mean_abs", "both", "all"): scores}, "down_input", 1, 1)
        base.save(run.folder / "score_views" / f"base-text-{run.objective}.safetensors")


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    runs = list_runs(tmp_path / "runs" / "hand", ["toy"], list(OBJECTIVES), [0, 1])
    for run in runs:
        write_scores(run, ("rms_change", "mean_abs"))
    return runs


def ablation_of(objective: str, seed: int) -> pd.DataFrame:
    """Removing the set makes every helpful item wrong and every harmless one right; two random draws flip the first."""
    intact = evaluation_of(objective, seed)
    intact = intact[intact.benchmark == "hh-rlhf"]
    parts = []
    for name, draw in (("rms_change", 0), ("random", 0), ("random", 1)):
        credit = np.where(intact.group == HELPFUL, 0.0, 1.0)
        if name == "random":
            is_first = intact.item_id.str.endswith("/0") & (draw == 1)
            credit = np.where(is_first, 1 - intact.credit, intact.credit)
        columns = {"set": name, "draw": draw, "matched_to": "rms_change", "fraction": 0.25, "ablation_kind": "zero"}
        columns |= {"family": "", "control": "layer" if name == "random" else "", "scale": 0.0}
        parts.append(intact.assign(credit=credit, n_neurons=2, **columns))
    return pd.concat(parts, ignore_index=True)[list(TABLES["ablation"])]


def test_effect_is_the_change_minus_that_of_random_sets(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat([ablation_of(objective, seed) for objective in OBJECTIVES for seed in (0, 1)])
    table = effect_table(ablation, evaluation)
    table = table[table.metric == "accuracy"].set_index(["objective", "test"])
    assert set(table.set) == {"rms_change"} and set(table.n_draws) == {2}
    # Helpful model, helpful test: from 7/8 to 0; draw 1 flips the first item, right in both seeds: -2/8, draw 0: 0.
    row = table.loc[(HELPFUL, HELPFUL)]
    assert [row.change, row.control, row.effect] == pytest.approx([-7 / 8, -1 / 8, -6 / 8])
    # Harmless test: from 1/4 to 1; the first item is right in seed 0 and wrong in seed 1, so flips cancel.
    row = table.loc[(HELPFUL, HARMLESS)]
    assert [row.change, row.control, row.effect] == pytest.approx([3 / 4, 0, 3 / 4])


def test_the_ledger_reads_the_artifacts(runs: list[Run]) -> None:
    for run in runs:
        write_table(run.folder / "evaluation.parquet", evaluation_of(run.objective, run.seed))
        write_table(run.folder / "ablation.parquet", ablation_of(run.objective, run.seed))
    found = ledger(Evidence.of(runs))
    # Mixed minus helpful: 5/8 - 7/8 on HH-RLHF, 0 on the toy benchmark; both weigh the same. Minus harmless: 3/4 - 1.
    mixing = primary_of(found, "C1", WAYS[0])
    assert [part.value for part in mixing.parts] == pytest.approx([-12.5, -25.0]) and mixing.verdict == "supported"
    assert primary_of(found, "C1").reason == "no model was trained as helpful-harmless-matched"
    effect = found[(found.claim == "C2") & (found.metric == "accuracy") & (found.way == WAYS[1])].iloc[0]
    assert {part.name: part.value for part in effect.parts}["helpful"] == pytest.approx(-75), "as the table above says"
    assert effect.neuron_set == "top 25 %" and effect.n_draws == 2 and effect.n_seeds == 2


def test_interval_shows_share_bounds_and_items() -> None:
    row = pd.Series({"accuracy": 0.5, "ci_low": 0.25, "ci_high": 0.754, "n_items": 1234})
    assert interval(row) == "50.0 % [25.0 %, 75.4 %], n = 1,234"
