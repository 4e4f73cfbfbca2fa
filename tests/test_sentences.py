"""The answers below the questions, from tables small enough to read; and the tables of training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tension_utils.analysis.accuracy import evaluated_items, item_counts
from tension_utils.analysis.findings import WAYS, Finding, Part, judge
from tension_utils.analysis.margins import AVERAGE, BOTH_TESTS
from tension_utils.analysis.training import kept_checkpoints, pair_counts, training_logs, training_sizes
from tension_utils.config import MATCHED_ARM, MIXED, Run, list_runs
from tension_utils.data import TrainingPairs, pair
from tension_utils.show import sentences
from tension_utils.statistics import wilson_interval

BOUNDS = {"ci_low": -0.2, "ci_high": 0.05}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two seeds of one objective, of three steps and of four."""
    runs = list_runs(tmp_path, ["toy"], ["helpful"], [0, 1])
    for run in runs:
        steps = range(1, 4 + run.seed)
        log = pd.DataFrame({"step": steps, "epoch": 1.0, "loss": 0.7, "n_tokens": 10})
        log["validation_loss"] = [np.nan, 0.5, *([0.6] * (1 + run.seed))]
        log["validation_accuracy"] = [np.nan, 0.75, *([0.5] * (1 + run.seed))]
        run.folder.mkdir(parents=True)
        log.to_parquet(run.folder / "train_log.parquet")
        facts = {"n_validation": 8, "n_train": 20 + 2 * run.seed, "config": {"data": {}}}
        (run.folder / "manifest.json").write_text(json.dumps({"train": facts}))
    return runs


def test_the_kept_checkpoint_has_the_lowest_validation_loss(runs: list[Run]) -> None:
    low, high = wilson_interval(6, 8)
    row = {"base_model": "toy", "objective": "helpful", "step": 2, "validation_loss": 0.5, "validation_accuracy": 0.75}
    row |= {"ci_low": low, "ci_high": high, "chance_accuracy": 0.5, "n": 8}
    assert kept_checkpoints(runs).to_dict("records") == [row | {"seed": 0}, row | {"seed": 1}]
    assert len(training_logs(runs)) == 3 + 4 and set(training_logs(runs).seed) == {0, 1}
    assert training_sizes(runs).to_dict("records") == [
        {"objective": "helpful", "n_pairs": 21.0, "n_steps": 3.5, "n_seeds": 2}
    ]
    answer = sentences.train_answer(kept_checkpoints(runs))
    assert answer == (
        "helpful: too few items to tell, 75.0 % of its own validation pairs are ranked right (2 runs; the weakest "
        f"75.0 % [{100 * low:.1f} %, {100 * high:.1f} %], n = 8). Chance is 50 %."
    )


@pytest.mark.parametrize(
    ("bounds", "word"),
    [([(0.6, 0.8), (0.51, 0.7)], "yes"), ([(0.6, 0.8), (0.5, 0.7)], "too few"), ([(0.6, 0.8), (0.2, 0.49)], "no,")],
)
def test_an_objective_is_learned_where_every_model_is_above_chance(bounds: list, word: str) -> None:
    kept = pd.DataFrame(bounds, columns=["ci_low", "ci_high"])
    kept = kept.assign(objective="helpful", validation_accuracy=0.6, chance_accuracy=0.5, n=100)
    assert sentences.train_answer(kept).startswith(f"helpful: {word}")


def test_pairs_are_counted() -> None:
    items = (pair("a", "b", "c"),) * 3
    table = pair_counts({"helpful": TrainingPairs(items, items[:1], {"identical": 2, "empty": 1})})
    assert table.to_dict("records") == [{"objective": "helpful", "n_train": 3, "n_validation": 1, "n_left_out": 3}]


def test_items_are_counted_and_what_was_not_run_has_a_row() -> None:
    rows = {"benchmark": "hh-rlhf", "subset": "helpful-base", "group": "helpful", "item_id": ["a", "b", "c"]}
    evaluation = pd.DataFrame(rows | {"cluster": ["x", "x", "y"], "margin": [0.0, 1, 2], "is_truncated": [1, 0, 0]})
    (counted,) = item_counts(pd.concat([evaluation, evaluation])).to_dict("records")
    sizes = [counted[name] for name in ("n_items", "n_prompts", "tie_rate", "truncated_rate")]
    assert sizes == pytest.approx([3, 2, 1 / 3, 1 / 3])
    facts = {"n_too_long": {"hh-rlhf/helpful-base": 4}, "not_run": {"rmb": "not found"}}
    table = evaluated_items(evaluation, facts)
    assert table.n_too_long[0] == 4 and table.not_run.tolist() == ["", "not found"]
    assert table.benchmark.tolist() == ["hh-rlhf", "rmb"] and table.subset[1] == ""


def test_the_matrix_in_words() -> None:
    matrix = pd.DataFrame(
        {"objective": ["helpful"] * 3, "test": ["helpful", "harmless", "both"], "accuracy": [0.8, 0.4, 0.6]}
    )
    assert sentences.evaluate_answer(matrix) == (
        "ranked as people did, trained on helpful: 80.0 % of helpful and 40.0 % of harmless pairs; chance 50 %"
    )


@pytest.mark.parametrize(("low", "high", "word"), [(0.2, 0.4, "yes"), (0.55, 0.7, "no"), (0.3, 0.6, "too few")])
def test_the_opposing_test_is_ranked_worse_than_by_a_coin_or_not(low: float, high: float, word: str) -> None:
    row = {"objective": "helpful", "test": "harmless", "accuracy": (low + high) / 2, "ci_low": low, "ci_high": high}
    matrix = pd.DataFrame(
        [row | {"n_items": 1200, "n_seeds": 3}, row | {"test": "helpful", "n_items": 9, "n_seeds": 1}]
    )
    text = sentences.opposing_answer(matrix)
    assert text.startswith(f"the helpful model on harmless pairs: {word}") and "n = 1,200, 3 runs" in text
    assert "harmless model" not in text, "there is none"
    assert sentences.opposing_answer(matrix[1:]) == "not run: needs a single-objective model"


MIXING = {
    "claim": "C1",
    "way": WAYS[1],
    "quantity": "mixing",
    "metric": "accuracy",
    "objective": "both",
    "unit": "points",
}
MIXING |= {"test": "own", "neuron_set": "", "score_kind": "", "control": "", "n_items": 500, "n_seeds": 3}


def mixing(arm: str, low: float, high: float, **other: object) -> Finding:
    what = {"arm": arm, "is_primary": arm == MATCHED_ARM, "ci_low": low, "ci_high": high, "value": (low + high) / 2}
    return Finding(**MIXING | what | {"p_value": 0.001} | other)


def test_the_cost_of_mixing_in_words() -> None:
    claim = judge([mixing(MIXED, -2, 2), mixing(MATCHED_ARM, -8, -2), mixing(MIXED, -9, -8, test="all")])
    assert sentences.tension_answer(claim) == (
        "mixed model on as many pairs: yes, mixed minus single-objective model on the latter's own test -5.0 points "
        "[-8.0, -2.0], p = 0.001; n = 500, 3 runs. mixed model: no, mixed minus single-objective model on the "
        "latter's own test +0.0 points [-2.0, +2.0], p = 0.001; n = 500, 3 runs."
    )
    wide = judge([mixing(MATCHED_ARM, -8, 2)])
    assert "too few items or seeds to tell" in sentences.tension_answer(wide)
    doubtful = judge([mixing(MATCHED_ARM, -8, -2)]).assign(verdict="no verdict", reason="its test errs too often")
    text = sentences.tension_answer(doubtful)
    assert "pairs: no verdict (its test errs too often), mixed minus" in text
    none = judge([mixing(MATCHED_ARM, np.nan, np.nan, reason="nothing was evaluated")])
    assert sentences.tension_answer(none).startswith("not run: needs a mixed")


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.51, 0.6, "yes"), (0.45, 0.52, "no"), (0.3, 0.49, "no"), (0.4, 0.6, "too few items")]
)
def test_conflicting_pairs_in_words(low: float, high: float, word: str) -> None:
    both = {"test": BOTH_TESTS, "share_with_own": 0.5, "ci_low": low, "ci_high": high, "chance": 0.5}
    both |= {"n_items": 1500, "n_seeds": 1}
    rows = [
        both,
        both | {"test": "helpful", "share_with_own": 0.25},
        both | {"test": "harmless", "share_with_own": 0.75},
    ]
    sides = pd.DataFrame([row | {"model": model} for model in (MIXED, AVERAGE) for row in rows])
    text = sentences.conflict_answer(sides)
    assert text.startswith(f"mixed model: {word}") and "both single models, averaged: " in text
    assert f"50.0 % [{100 * low:.1f} %, {100 * high:.1f} %], n = 1,500, 1 run (helpful 25.0 %; harmless 75.0 %)" in text
    assert sentences.conflict_answer(sides[:0]).startswith("not run: needs a mixed")


def test_calibration_length_and_transferability_in_words() -> None:
    bounds = {"_ci_low": 0.02, "_ci_high": 0.08}
    row = {"objective": "helpful", "group": "helpful", "n_items": 1500, "n_seeds": 3, "overconfidence": 0.05}
    row |= {f"overconfidence{end}": value for end, value in bounds.items()}
    assert sentences.calibration_answer(pd.DataFrame([row])) == (
        "Predicted minus actual accuracy. helpful on helpful tests: yes, +5.0 points [+2.0, +8.0], n = 1,500, 3 runs."
    )
    row |= {"length_bias": -0.3, "ci_low": -0.4, "ci_high": -0.2, "n_longer": 1000, "n_shorter": 500}
    text = sentences.length_answer(pd.DataFrame([row, row | {"length_bias": np.nan, "objective": "harmless"}]))
    assert text.endswith("helpful on helpful tests: no, -30.0 points [-40.0, -20.0], n = 1,000 and 500, 3 runs."), (
        "and nothing where a group lacks a part"
    )
    row |= {"pairings": "all", "transferability": 0.9, "excess_transferability": 0.05}
    row |= {"excess_transferability_ci_low": -0.02, "excess_transferability_ci_high": 0.12}
    text = sentences.transferability_answer(pd.DataFrame([row, row | {"pairings": "same seed"}]))
    assert text == (
        "helpful tests: too few items or seeds to tell, it keeps 90.0 %, beyond chance +5.0 points [-2.0, +12.0] "
        "(n = 1,500, 3 runs)."
    )
    assert sentences.transferability_answer(pd.DataFrame()).startswith("not run: ")


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.6, 0.9, "yes"), (0.1, 0.4, "no"), (0.4, 0.6, "too few"), (np.nan, np.nan, "too few")]
)
def test_agreement_in_words(low: float, high: float, word: str) -> None:
    rows = [("a", "b", 0.9, 0.8, 0.95), ("a", "c", 0.3, low, high), ("b", "c", 0.1, 0.05, 0.2)]
    names = ["first", "second", "jaccard", "jaccard_ci_low", "jaccard_ci_high"]
    pairs = pd.DataFrame(rows, columns=names).assign(jaccard_chance=0.05, n_neurons=1234, n_models=9, n_seeds=3)
    answer = sentences.agreement_answer(pairs, ("a", "c"))
    assert answer.startswith(word) and "a and c overlap by 0.30" in answer and ("nan" in answer) is False
    assert "chance 0.05; sets of 1,234 neurons, 9 models, 3 runs" in answer
    assert sentences.agreement_answer(pairs, ("d",)).startswith("no: b and c overlap by 0.10 [0.05, 0.20]")


@pytest.mark.parametrize(
    ("low", "high", "p_value", "word"),
    [
        (0.1, 0.3, 0.001, "yes"),
        (0.01, 0.3, 0.06, "too few"),
        (-0.1, 0.3, 0.001, "too few"),
        (0.01, 0.04, 0.001, "no"),
        (np.nan, np.nan, 0.001, "too few"),
    ],
)
def test_stability_in_words(low: float, high: float, p_value: float, word: str) -> None:
    row = {"score_kind": "a", "other_seed": 0.25, "beyond": 0.2, "beyond_ci_low": low, "beyond_ci_high": high}
    sizes = {"n_neurons": 50, "n_models": 6, "n_seeds": 3}
    table = pd.DataFrame([row | {"p_value": p_value} | sizes])
    answer = sentences.stability_answer(table, "a")
    assert answer.startswith(word) and "by a overlap by 0.25, +0.20" in answer and "nan" not in answer
    assert answer.endswith(f"yes for {int(word == 'yes')} of 1 scores")
    assert "one seed" in sentences.stability_answer(table.assign(other_seed=np.nan), "a")


@pytest.mark.parametrize(
    ("bounds", "p_value", "reason", "word"),
    [
        (
            (-0.4, -0.1),
            0.01,
            "",
            "yes: single-objective models without their top 10 % by a, own test, ",
        ),
        ((-0.05, 0.05), 0.2, "", "no: "),
        ((-0.4, 0.1), 0.2, "", "too few items or seeds to tell: "),
        ((-0.4, -0.1), 0.2, "", "too few seeds to tell: "),
        ((-0.4, -0.1), 0.01, "because", "no verdict: because"),
        ((np.nan, np.nan), np.nan, "because", "not run: because"),
    ],
)
def test_removal_in_words(bounds: tuple[float, float], p_value: float, reason: str, word: str) -> None:
    what = MIXING | {"claim": "C2", "quantity": "removal", "metric": "margin", "arm": "single", "unit": "SD"}
    what |= {"neuron_set": "top 10 %", "score_kind": "a", "control": "layer", "n_draws": 12, "is_primary": True}
    low, high = bounds
    parts = (Part("helpful", -0.1, -0.3, 0.1),)
    finding = Finding(
        **what, value=(low + high) / 2, ci_low=low, ci_high=high, p_value=p_value, reason=reason, parts=parts
    )
    answer = sentences.removal_answer(judge([finding]).iloc[0])
    assert answer.startswith(word)
    if not reason:
        assert f"SD [{low:+.2f}, {high:+.2f}], p = {p_value}; n = 500, 3 runs" in answer
        assert answer.endswith("(helpful -0.10 SD [-0.30, +0.10])")


def test_random_sets_in_words() -> None:
    ablation = pd.DataFrame(
        [("helpful", "", 0.0), ("helpful", "activity", 0.0), ("helpful", "layer", 0.5), ("union", "layer", 0.0)],
        columns=["objective", "control", "scale"],
    )
    assert sentences.controls_answer(ablation) == (
        "random sets that match in layers (union) or in layers and activity (helpful)"
    )
    assert sentences.controls_answer(ablation[:1]) == "no random sets: not run"
    held = pd.DataFrame({"score_kind": ["a", "a", "b"], "held": [0.66, 0.7, 0.5]})
    assert sentences.controls_answer(ablation[:2], held) == (
        "random sets that match in layers and activity (helpful). They hold 66.0 % to 70.0 % of the set by a and "
        "50.0 % of the set by b"
    )
    assert sentences.controls_answer(ablation[:1], held) == "no random sets: not run"


@pytest.mark.parametrize(
    ("p_value", "jaccard", "word"), [(0.01, 0.4, "yes"), (0.2, 0.4, "too few heads to tell"), (0.9, 0.1, "no")]
)
def test_heads_in_words(p_value: float, jaccard: float, word: str) -> None:
    row = {"comparison": "a / b", "jaccard": jaccard, "jaccard_chance": 0.05, "jaccard_chance_by_layer": 0.2}
    row |= {"p_value": p_value, "n_seeds": 2}
    start = (
        f"{word}: a / b overlap by {jaccard:.2f}, sets with as many heads in each layer by 0.20 (p = {p_value:.2g}, "
    )
    text = sentences.heads_answer(pd.DataFrame([row, row | {"p_value": 1e-9}]))
    assert text.startswith(start) and text.endswith(f"); so say {1 + (word == 'yes')} of 2 comparisons")
    assert sentences.heads_answer(pd.DataFrame([row])).endswith("2 runs)")
    assert "(p < 0.001, " in sentences.heads_answer(pd.DataFrame([row | {"p_value": 1e-9}]))
    shared = {"a / coin-flip labels": 0.4, "b / coin-flip labels": 0.6}
    coins = [row | {"comparison": name, "jaccard": value} for name, value in shared.items()]
    text = sentences.heads_answer(pd.DataFrame([row, *coins]))
    assert text.startswith(start) and text.endswith("; each with a model of coin-flip labels by 0.50 in the mean")
    assert sentences.heads_answer(pd.DataFrame()) == "not run: needs two reward models with their base model"


@pytest.mark.parametrize(
    ("low", "high", "word"), [(-0.6, -0.2, "yes"), (-0.05, 0.2, "no"), (-0.6, 0.1, "too few items or seeds to tell")]
)
def test_regression_to_chance_in_words(low: float, high: float, word: str) -> None:
    slopes = pd.DataFrame({"sets": ["targeted", "random", "targeted - random"], "slope": [-0.5, -0.1, -0.4]})
    answer = sentences.chance_answer(slopes.assign(ci_low=low, ci_high=high, n_items=40, n_seeds=1))
    assert answer.startswith(f"{word}: ") and f"-0.40 [{low:+.2f}, {high:+.2f}] (n = 40, 1 run)" in answer


def test_masks_in_words() -> None:
    costs = pd.DataFrame({"mask": ["no mask", "no mask"], "test": ["helpful", "helpful-harmless"], "cost": [0.5, 0.1]})
    effects = pd.DataFrame({"contrast": ["shared mask - random mask"], "test": ["helpful-harmless"], "change": [-0.1]})
    assert sentences.masked_answer(costs, effects.assign(**BOUNDS)) == (
        "cost of mixing: no mask 10.0 points; shared minus random mask -10.0 points [-20.0, +5.0]"
    )


@pytest.mark.parametrize(
    ("p_value", "difference", "word"), [(0.04, 0.1, "yes"), (0.1, 0.1, "too few seeds"), (0.6, -0.1, "no,")]
)
def test_overlaps_in_words(p_value: float, difference: float, word: str) -> None:
    what = MIXING | {
        "claim": "C4",
        "quantity": "sharing",
        "metric": "jaccard",
        "arm": "single",
        "test": "",
        "unit": "index",
    }
    what |= {"neuron_set": "top 10 %", "score_kind": "rms", "control": "coin", "is_primary": True, "n_items": 50}
    claim = judge([Finding(**what, value=0.2, ci_low=0.1, ci_high=0.3, p_value=0.01)])
    test = {"score_kind": "rms", "p_value": p_value, "smallest_p": 0.1, "jaccard_difference": difference, "not_run": ""}
    permutation = pd.DataFrame([test | {"jaccard_between": 0.5, "jaccard_within": 0.5 + difference, "n_seeds": 3}])
    levels = pd.DataFrame({"level": ["a", "a", "b"], "score_kind": "rms", "jaccard": [0.2, 0.4, 0.9]})
    text = sentences.overlap_answer(claim, permutation, levels, "rms")
    assert text.startswith("more than with coin-flip labels: yes, overlap of both models' top 10 % by rms, beyond that")
    assert f"less than one objective learned twice: {word}" in text and text.endswith("index: a 0.30; b 0.90.")
    absent = judge([Finding(**what, value=np.nan, ci_low=np.nan, ci_high=np.nan, p_value=np.nan, reason="no sham")])
    text = sentences.overlap_answer(absent, permutation.assign(not_run="needs two seeds"), levels, "rms")
    assert text.startswith(
        "more than with coin-flip labels: not run (no sham); less than one objective learned twice: not run"
    )


def test_a_plant_in_words() -> None:
    found = {"loud": (0.75, 0.9), "quiet": (0.5, 0.2), "trained": (0.25, 0.1)}  # of rms_change, of mean_abs
    rows = [
        {"site": site, "score_kind": kind, "plant": plant, "precision": value, "chance": 0.1}
        | {"precision_ci_low": value - 0.1, "precision_ci_high": value + 0.1}
        for plant, values in found.items()
        for kind, value in zip(("rms_change", "mean_abs"), values, strict=True)
        for site in ("down_input", "gate")
    ]
    assert sentences.planted_found(pd.DataFrame(rows)) == (
        "yes where the plant is louder than typical: rms_change, one of the paper's two main scores, finds 75.0 % "
        "[65.0 %, 85.0 %] (the best score, mean_abs, 90.0 %); too few worlds to tell where it is quieter: 50.0 % "
        "[40.0 %, 60.0 %] (the best score, rms_change, 50.0 %); no where gradient descent chose the weights: 25.0 % "
        "[15.0 %, 35.0 %] (the best score, rms_change, 25.0 %). (Yes: more than half of the plant.) A random "
        "ranking finds 10.0 %."
    )


def planted_readings(false_positives: tuple[float, float]) -> pd.DataFrame:
    """C2 and C5 read in both ways: errors of the two claims under control."""
    names = ["claim", "way", "power", "false_positives", "false_refutations"]
    rows = [("C2", WAYS[0], 0.9, 0.6, 0.0), ("C5", WAYS[0], 0.8, 0.5, 0.1)]
    rows += [("C2", WAYS[1], 0.75, false_positives[0], 0.0), ("C5", WAYS[1], 0.1, false_positives[1], 0.2)]
    table = pd.DataFrame(rows, columns=names).assign(n_seeds=3, n_worlds_power=20, n_worlds_false_positives=30)
    return table.assign(false_positives_ci_high=table.false_positives + 0.1)


def test_how_often_a_verdict_errs_in_words() -> None:
    assert sentences.planted_erring(planted_readings((0.02, 0.05))) == (
        "rarely, where it supports: with 3 runs, under control, a claim that is false is called supported in at most "
        "5.0 % of the worlds (C5; upper limit 15.0 %), as published in up to 60.0 % (C2). Care has its price: a true "
        "claim is supported in 10.0 % (C5) to 75.0 % (C2). Where it refutes, more often: a true claim in up to 20.0 % "
        "(C5, of 20 worlds); beyond 10 % there is no verdict."
    )
    assert sentences.planted_erring(planted_readings((0.06, 0.0))).startswith("too often, where it supports:")
    fewer = planted_readings((0.02, 0.05)).assign(false_refutations=0.04)
    end = "Where it refutes, rarely, too: a true claim in up to 4.0 % (C2, of 20 worlds)."
    assert sentences.planted_erring(fewer).endswith(end)
    none = sentences.planted_erring(planted_readings((0.0, 0.0)))
    assert "is called supported in none of the 30 to 30 worlds of a claim (upper limit 10.0 %), as published" in none


def test_agreement_with_knock_outs_in_words() -> None:
    rows = [("attribution", 0.8), ("mean_abs", 0.5), ("rms_change", 0.0)]
    table = pd.DataFrame(rows, columns=["score_kind", "rank_correlation"]).assign(n_worlds=20)
    for end, sign in (("low", -1), ("high", 1)):
        table[f"rank_correlation_ci_{end}"] = table.rank_correlation + 0.05 * sign
    assert sentences.planted_agreement(table) == (
        "1 of 3 scores do. attribution: yes, rank correlation +0.80 [+0.75, +0.85]; rms_change: no, rank correlation "
        "+0.00 [-0.05, +0.05] (20 worlds; yes: above one half)."
    )


def test_training_runs_of_a_verdict_in_words() -> None:
    designs = {1: (0.2, 0.0), 2: (0.05, 0.04), 3: (0.0, 0.01)}
    rows = pd.concat([planted_readings(errors).tail(2).assign(n_seeds=n) for n, errors in designs.items()])
    text = sentences.planted_runs(rows)
    assert text.startswith("2, to support false claims in at most 5 % of worlds (at worst 20.0 % with 1, 5.0 % with 2,")
    assert text.endswith("; with 3 runs in 10.0 % to 75.0 % of worlds.")
    again = rows.assign(false_positives=rows.false_positives.where(rows.n_seeds < 3, 0.5))
    assert sentences.planted_runs(again).startswith("more than these (at worst"), "a later error counts"


@pytest.mark.parametrize(("n", "word"), [(19, "yes"), (10, "too few worlds to tell"), (1, "no")])
def test_faint_effects_in_words(n: int, word: str) -> None:
    low, high = wilson_interval(n, 20)
    row = {"scenario": "faint", "claim": "C2", "n_supported": n, "n_worlds": 20, "supported": n / 20, "ci_low": low}
    row |= {"ci_high": high, "n_seeds": 3, "n_items": 500, "n_draws": 12}
    others = [row | {"claim": "C3"}, row | {"scenario": "planted"}]
    text = sentences.planted_faint(pd.DataFrame([*others, row]))
    assert text.startswith(f"{word} (yes: in more than half), C2 is supported in {n} of 20 worlds, {5 * n}.0 % [")


def test_what_can_be_explored_in_words() -> None:
    effects = pd.DataFrame({"p_value": [0.001, 0.04, 0.5], "q_value": [0.003, 0.06, 0.5], "n_items": 250, "n_seeds": 3})
    effects = effects.assign(n_draws=100, smallest_p=2 / 101)
    assert sentences.explorer_answer(effects) == (
        "yes, 1 of 3 effects that one can choose here stand out among random sets when corrected for choosing (q at "
        "most 0.05); 2 have p at most 0.05, and about 0 would by chance (n = 250, 3 runs)"
    )
    nothing = sentences.explorer_answer(effects.assign(q_value=0.5))
    assert nothing.startswith("too few items or seeds to tell: none of 3 effects")
    few = effects.assign(n_draws=12, p_value=[2 / 13, 2 / 13, 1.0], smallest_p=2 / 13)
    assert sentences.explorer_answer(few) == (
        "2 of 3 effects that one can choose here are larger than those of all 12 random sets, and about 0 would be by "
        "chance; one alone is no evidence, for beside 12 random sets p is never below 0.15 (n = 250, 3 runs)"
    )
    unequal = few.assign(n_draws=[12, 12, 2], p_value=[2 / 13, 1.0, 2 / 3], smallest_p=[2 / 13, 2 / 13, 2 / 3])
    assert sentences.explorer_answer(unequal).startswith(
        "2 of 3 effects that one can choose here are larger than those"
    )
    assert "of all 2 to 12 random sets, and about 1 would be by chance" in sentences.explorer_answer(unequal)
    several = few.assign(smallest_p=2 / 13**3)  # of three reward models, where p can be small
    assert sentences.explorer_answer(several).startswith("yes, 1 of 3 effects")
    assert sentences.explorer_answer(None).startswith("not run")


def test_pairs_on_which_models_part_in_words() -> None:
    preferred = [pd.Series(["A", "B"]), pd.Series(["A", "A"])]
    assert sentences.own_pair_answer(preferred) == "the 2 models disagree on 1 of 2 example pairs"
    assert sentences.own_pair_answer([]).startswith("not run")


@pytest.mark.parametrize(
    ("low", "high", "start"),
    [
        (-0.09, -0.01, "yes, joint training does worse than averaging: it ends below interpolated weights"),
        (0.01, 0.09, "no, joint training does better than averaging: it ends above"),
        (-0.02, 0.02, "no, joint training does as well as averaging: within 3 points of"),
        (-0.04, 0.02, "too few items or seeds to tell"),
    ],
)
def test_dial_answer_says_yes_no_or_too_few(low: float, high: float, start: str) -> None:
    row = {"frontier": "interpolation", "objective": "helpful-harmless", "gap": (low + high) / 2, "ci_low": low}
    gaps = pd.DataFrame([row | {"ci_high": high, "n_items": 1000, "n_seeds": 3}])
    text = sentences.dial_answer(gaps)
    assert text.startswith(start) and "n = 1,000, 3 runs" in text


def test_options_that_beat_the_mixed_model_come_with_their_price_the_cheapest_first() -> None:
    names = {"option": ["ensemble 0.5", "union", "a"], "better_on": ["both", "both", "helpful"]}
    changes = {"helpful_change": [0.02, 0.03, 0.1], "harmless_change": [0.01, 0.04, 0.0]}
    options = pd.DataFrame(names | changes | {"n_trainings": [2, 1, 1], "n_passes": [2, 1, 1]})
    assert sentences.options_answer(options, "matched") == (
        "2 of 3 options are better than matched on both tests: "
        "union (helpful +3.0, harmless +4.0 points; trainings: 1, passes per judgment: 1); "
        "ensemble 0.5 (helpful +2.0, harmless +1.0 points; trainings: 2, passes per judgment: 2)"
    )
    assert sentences.options_answer(options[2:], "matched").startswith("nothing: none of 1 options")


@pytest.mark.parametrize(
    ("interpolation", "ensemble", "start"),
    [
        ((-0.09, -0.01), (-0.09, -0.01), "Train one model per objective and interpolate"),
        ((-0.02, 0.05), (-0.09, -0.01), "Train one model per objective and add their margins"),
        ((-0.02, 0.05), (-0.02, 0.01), "Train one model on both objectives: two trainings"),
        ((-0.02, 0.05), (-0.04, 0.01), "Train one model on both objectives, the cheapest way"),
        (None, (-0.02, 0.01), "Train one model on both objectives: two trainings"),
    ],
)
def test_advice_follows_from_the_gaps(interpolation: tuple | None, ensemble: tuple, start: str) -> None:
    found = {"interpolation": interpolation, "ensemble": ensemble}
    rows = [{"frontier": name, "ci_low": own[0], "ci_high": own[1]} for name, own in found.items() if own]
    assert sentences.dial_advice(pd.DataFrame(rows)).startswith(start)


def sign(effect: float, low: float, high: float, n_same: int = 3, **other: object) -> dict:
    row = {"objective": "helpful-harmless-matched", "set": "shared", "share": 0.5 + effect}
    row |= {
        "random_share": 0.5,
        "random_share_low": 0.45,
        "random_share_high": 0.55,
        "effect": effect,
        "ci_low": low,
        "ci_high": high,
    }
    return row | {"p_value": 0.004, "n_same": n_same, "n_seeds": 3, "n_neurons": 1234.0, "n_draws": 20} | other


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (sign(0.1, 0.02, 0.18), "yes"),
        (sign(0.1, 0.02, 0.18, n_same=2), "too few seeds to tell"),
        (sign(0.1, -0.02, 0.22), "too few seeds to tell"),
        (sign(0.01, -0.02, 0.04), "no"),
        (sign(-0.1, -0.18, -0.02), "no"),
        (sign(0.02, 0.01, 0.03), "yes"),
        (sign(0.02, 0.01, 0.03, n_same=2), "too few seeds to tell"),
    ],
)
def test_shared_neurons_oppose_or_not(row: dict, word: str) -> None:
    assert sentences.opposition(pd.Series(row)) == word


def test_opposing_neurons_in_words() -> None:
    others = [sign(0.4, 0.3, 0.5, objective="helpful-harmless"), sign(0.4, 0.3, 0.5, set="helpful only")]
    signs = pd.DataFrame([*others, sign(0.1, 0.02, 0.18)])
    assert sentences.opposing_neurons_answer(signs) == (
        "yes: 60.0 % of the 1,234 shared neurons add to the margin of the helpful-harmless-matched model with opposite "
        "signs on the two texts, of random ones, as deep and as active, 50.0 % [45.0 %, 55.0 %]: +10.0 points [+2.0, "
        "+18.0], p = 0.004 (3 of 3 runs on that side)"
    )
    none = sentences.opposing_neurons_answer(signs[signs.set != "shared"])
    assert none == "not run: needs a mixed model with neuron scores, and neurons in both top sets"


@pytest.mark.parametrize(
    ("depth", "low", "high", "word"),
    [
        (3.0, 0.1, 0.3, "yes, from depth 3 of 4 on"),
        (np.nan, -0.1, 0.3, "too few items or seeds to tell"),
        (np.nan, -0.02, 0.02, "no"),
        (4.0, 0.01, 0.02, "no"),
    ],
)
def test_depths_at_which_tests_part_in_words(depth: float, low: float, high: float, word: str) -> None:
    row = {"base_model": "toy", "objective": "harmless", "parting_depth": depth, "last_depth": 4.0}
    row |= {"difference": (low + high) / 2, "ci_low": low, "ci_high": high, "n_items": 1200, "n_seeds": 3}
    others = [row | {"objective": "helpful-harmless"}, row | {"base_model": "another"}]
    text = sentences.depth_answer(pd.DataFrame([row, *others]))
    assert text.startswith(f"in the harmless model {word}: at the end, helpful minus harmless test ")
    assert text.endswith(" (n = 1,200, 3 runs)") and text.count("model") == 1
    assert sentences.depth_answer(pd.DataFrame(others[:1])).startswith("not run: needs a single-objective model")


def cosines(low: float, high: float, n_seeds: int = 3, **other: object) -> pd.DataFrame:
    """One mean cosine with its bounds."""
    row = {"base_model": "toy", "cosine": -0.25, "cosine_ci_low": low, "cosine_ci_high": high, "n_seeds": n_seeds}
    return pd.DataFrame([row | other])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.4, -0.1, "yes"), (-0.4, 0.1, "too few seeds to tell"), (-0.04, 0.3, "no"), (0.1, 0.3, "no")],
)
def test_opposing_gradients_in_words(low: float, high: float, word: str) -> None:
    rows = pd.concat([cosines(-1, -0.9, part="norm"), cosines(low, high, part="whole model")])
    assert sentences.gradient_answer(rows) == (
        f"{word}: the cosine of their gradients is -0.25 [{low:+.2f}, {high:+.2f}] (3 runs)"
    )


def test_gradients_of_one_seed_or_none_in_words() -> None:
    one = sentences.gradient_answer(cosines(np.nan, np.nan, 1, part="whole model"))
    assert one == "too few seeds to tell: the cosine of their gradients is -0.25 (1 run)"
    assert sentences.gradient_answer(pd.DataFrame()).startswith("not run: needs a mixed model")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.3, "yes"), (-0.1, 0.1, "too few seeds to tell"), (-0.1, 0.04, "no"), (0.02, 0.04, "no")],
)
def test_weight_changes_in_words(low: float, high: float, word: str) -> None:
    level = {"random_cosine": 0.002}
    both = cosines(low, high, pair="helpful / harmless", **level)
    found = f"{word}: the cosine of their weight changes is -0.25 [{low:+.2f}, {high:+.2f}] (3 runs)"
    assert sentences.weight_answer(both) == f"{found}; blind directions stay below 0.002"
    sham = cosines(0, 0, pair="helpful / harmless-coin", **level)
    beside = sentences.weight_answer(pd.concat([both, sham, sham.assign(cosine=0.5, pair="harmless / helpful-coin")]))
    assert beside == f"{found}, with models of sham labels -0.25 to +0.50; blind directions stay below 0.002"
    assert sentences.weight_answer(sham).startswith("not run: needs both single-objective models")


def outlook(low: float, high: float) -> pd.DataFrame:
    """Return the rows of `scaling.cost_outlook` with this interval of the slope."""
    rows = [("per doubling", 0, 0.02, low, high), ("stops", 5000, 0.1, 0.05, 0.15), ("goes on", 5000, 0.2, 0.1, 0.3)]
    table = pd.DataFrame(rows, columns=["outlook", "n_pairs", "cost", "ci_low", "ci_high"])
    return table.assign(n_points=5, n_items=1000, n_seeds=1)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "yes, it grows: +2.0 points [+1.0, +3.0] per doubling of the pairs (5 training runs, 1,000 test"),
        (-0.03, -0.01, "no, it shrinks: "),
        (-0.03, 0.03, "too few items or seeds to tell: "),
        (np.nan, np.nan, "too few sizes to tell: +2.0 points per doubling"),
    ],
)
def test_growth_of_a_cost_in_words(low: float, high: float, words: str) -> None:
    text = sentences.size_answer(outlook(low, high))
    assert text.startswith(words)
    is_said = "On 5,000 pairs, as many as the paper has, +10.0 points [+5.0, +15.0] if it grew no further, +20" in text
    assert is_said == (not np.isnan(low))
    assert sentences.size_answer(pd.DataFrame()).startswith("not run: ")


@pytest.mark.parametrize(("low", "high", "word"), [(0.01, 0.1, "yes"), (-0.1, 0.01, "no"), (-0.1, 0.1, "too few")])
def test_mixtures_in_words(low: float, high: float, word: str) -> None:
    row = {"objective": "helpful-harmless-1-to-3", "helpful_share": 0.25, "gain": 0.005, "n_items": 80, "n_seeds": 1}
    text = sentences.mixture_answer(pd.DataFrame([row | {"gain_ci_low": low, "gain_ci_high": high}]))
    assert text.startswith(word) and "25.0 % helpful pairs and gains +0.5 points [" in text
    assert sentences.mixture_answer(pd.DataFrame()).startswith("not run: ")


def test_a_split_cost_in_words() -> None:
    row = {"n_pairs": 1200, "cost": 0.1, "n_items": 800, "n_seeds": 1}
    for name, value in {"fewer_own_pairs": 0.02, "other_pairs": 0.08}.items():
        row |= {name: value, f"{name}_ci_low": value - 0.05, f"{name}_ci_high": value + 0.05}
    text = sentences.halving_answer(pd.DataFrame([row | {"cost": 0.5}, row]))
    assert text.startswith(
        "yes: of +10.0 points on 1,200 pairs the other objective's pairs cost +8.0 points [+3.0, +13.0]"
    )
    assert "fewer own pairs +2.0 points [-3.0, +7.0] (n = 800, 1 run)" in text
    assert sentences.halving_answer(pd.DataFrame()).startswith("not run: ")
