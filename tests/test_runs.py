"""The unit of work: its names, its folder, and lists of it."""

from pathlib import Path

import pytest

from tension_utils.config import OBJECTIVES, Run, SinglePair, list_pairs, list_runs


@pytest.mark.parametrize(
    "base_model, name",
    [("toy", "toy"), ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"), ("models/smollm2-135m/", "smollm2-135m")],
)
def test_folder_and_label_name_model_objective_and_seed(base_model: str, name: str) -> None:
    run = Run("runs/tiny", base_model, "helpful-harmless", 932)
    assert run.folder == Path("runs/tiny", name, "helpful-harmless", "seed932")
    assert run.label == {"base_model": name, "objective": "helpful-harmless", "seed": 932}


def test_list_is_the_product_in_a_fixed_order_with_one_folder_each(tmp_path: Path) -> None:
    runs = list_runs(tmp_path, ["a/x", "b/y"], list(OBJECTIVES), [0, 247, 932])
    assert len({run.folder for run in runs}) == len(runs) == 2 * 3 * 3
    assert [(run.base_model, run.objective, run.seed) for run in runs[:4]] == [
        ("a/x", "helpful", 0),
        ("a/x", "helpful", 247),
        ("a/x", "helpful", 932),
        ("a/x", "harmless", 0),
    ]


@pytest.mark.parametrize(
    "base_models, objectives, seeds, message",
    [
        (
            ["toy"],
            ["useful"],
            [0],
            "objectives: expected one of helpful, harmless, .*; got 'useful'",
        ),
        (["toy"], [], [0], "objectives: expected a list of at least one value"),
        ([], ["helpful"], [0], "base_models: expected a list of at least one value"),
        (["toy"], ["helpful"], [], "seeds: expected a list of at least one value"),
        (["toy"], ["helpful"], [0, 0], "seeds: expected a list of at least one value and none twice"),
        (["toy"], ["helpful"], [-1], "seed: expected at least 0; got -1"),
        (["toy"], ["helpful"], ["0"], "seed: expected a whole number; got '0'"),
        (["toy"], ["helpful"], [0.5], "seed: expected a whole number; got 0.5"),
        ([3], ["helpful"], [0], "base_model: expected a text; got 3"),
        (["/"], ["helpful"], [0], "base_model: expected a public name, a folder or 'toy'; got '/'"),
        (["a/.."], ["helpful"], [0], "base_model: expected letters, digits, .* the first a letter or digit; got '..'"),
        (["models/my model"], ["helpful"], [0], "base_model: expected letters, digits, .*; got 'my model'"),
        (["a/gpt2", "b/GPT2"], ["helpful"], [0], "base_models: expected different short names; two of .* are alike"),
    ],
)
def test_bad_lists_are_named(base_models: list, objectives: list, seeds: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list_runs(tmp_path, base_models, objectives, seeds)


def test_unknown_objective_is_refused_by_a_single_run(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match="objective: expected one of helpful, harmless, .*; got 'both'",
    ):
        Run(tmp_path, "toy", "both", 0)


def test_a_pair_holds_the_single_objective_models_of_a_seed() -> None:
    pair = SinglePair("runs/tiny", "b/Y", 3)
    assert pair.folder == Path("runs/tiny/y/single-pair/seed3") and pair.label == {"base_model": "y", "seed": 3}
    assert (pair.helpful, pair.harmless) == tuple(Run("runs/tiny", "b/Y", o, 3) for o in ("helpful", "harmless"))
    assert pair.run_of("helpful-harmless").folder == Path("runs/tiny/y/helpful-harmless/seed3")


def test_runs_belong_to_one_pair_per_base_model_and_seed(tmp_path: Path) -> None:
    pairs = list_pairs(list_runs(tmp_path, ["a/x", "b/y"], list(OBJECTIVES), [0, 247]))
    assert [(pair.base_model, pair.seed) for pair in pairs] == [("a/x", 0), ("a/x", 247), ("b/y", 0), ("b/y", 247)]
