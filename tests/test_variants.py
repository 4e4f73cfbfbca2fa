"""Variants of the mixed reward model trained without some neurons, and what mixing costs with and without a mask."""

import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import seal

from tension_utils import stages, training
from tension_utils import stages as variants
from tension_utils.analysis.accuracy import mask_effects, mask_rows, mixing_costs
from tension_utils.artifacts import OWN_SCORES, find_runs, read_manifest, read_table
from tension_utils.config import MATCHED_ARM, DataConfig, EngineConfig, EvaluateConfig, Run, TrainConfig, on_fewer
from tension_utils.masking import NEURON_MASK_FILE, NeuronMask
from tension_utils.neurons import NeuronSet
from tension_utils.scores import NeuronScores
from tension_utils.stages import (
    MaskConfig,
    evaluate_like,
    evaluate_run,
    mask_table,
    reloaded_loss,
    sibling,
    train_like,
    train_variant,
    variant_mask,
)
from tension_utils.statistics import Bootstrap
from tension_utils.training import train_run

pytestmark = pytest.mark.xdist_group("training")

SHARED, RANDOM, SECOND = "matched-without-shared", "matched-without-random", "matched-without-random-2"
DATA = DataConfig(n_train_pairs=16, n_validation_pairs=20, max_length=256)
TRAIN = TrainConfig(n_evaluations=1, learning_rate=1e-3, precision="float32")
EVALUATE = EvaluateConfig(("hh-rlhf", "toy"), EngineConfig(8, precision="float32"), n_template_check=2)
CONFIG = MaskConfig("mean_abs", 0.2)


@pytest.fixture(scope="module", autouse=True)
def on_cpu(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        for module in (training, stages, variants):
            patch.setattr(module, "pick_device", lambda: torch.device("cpu"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write_scores(run: Run, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(4, 352)).astype(np.float32)
    run.folder.mkdir(parents=True)
    NeuronScores({("mean_abs", "both", "all"): values}, "down_input", 1, 1).save(run.folder / OWN_SCORES)
    return values


@pytest.fixture(scope="module")
def matched(toy_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The matched arm, trained and evaluated, beside random neuron scores of the single-objective runs."""
    root = tmp_path_factory.mktemp("runs")
    (root / "toy-world").symlink_to(toy_world)
    run = Run(root, "toy", MATCHED_ARM, 3)
    assert train_run(run, DATA, TRAIN) and evaluate_run(run, EVALUATE)
    for seed, objective in enumerate(("helpful", "harmless")):
        write_scores(sibling(run, objective), seed)
    return run


@pytest.fixture(scope="module")
def trained(matched: Run) -> list[Run]:
    runs = [sibling(matched, arm) for arm in (SHARED, RANDOM)]
    for run in runs:
        assert train_variant(run, CONFIG) and evaluate_like(run, sibling(run, MATCHED_ARM))
    return runs


def top(values: np.ndarray, n: int) -> set[tuple[int, int]]:
    ranked = sorted((-values[place], place) for place in np.ndindex(values.shape))
    return {place for _, place in ranked[:n]}


def test_the_shared_mask_is_the_intersection_and_a_random_one_has_its_counts(matched: Run) -> None:
    scores = [
        NeuronScores.load(sibling(matched, o).folder / OWN_SCORES).get("mean_abs") for o in ("helpful", "harmless")
    ]
    n = round(0.2 * scores[0].size)
    expected = NeuronSet.of(scores[0].shape, top(scores[0], n) & top(scores[1], n))
    masks = {arm: variant_mask(sibling(matched, arm), CONFIG) for arm in (SHARED, RANDOM, SECOND)}
    assert masks[SHARED] == NeuronMask(expected) and len(expected) > 20
    for arm in (RANDOM, SECOND):
        assert (masks[arm].neurons.counts_by_layer() == expected.counts_by_layer()).all()
        assert masks[arm] == variant_mask(sibling(matched, arm), CONFIG), "the same each time"
    assert len({mask.neurons for mask in masks.values()}) == 3


def test_another_seed_draws_another_random_mask(matched: Run) -> None:
    other = replace(matched, seed=4)
    for objective in ("helpful", "harmless"):
        shutil.copytree(sibling(matched, objective).folder, sibling(other, objective).folder)
    masks = [variant_mask(sibling(run, RANDOM), CONFIG).neurons for run in (matched, other)]
    assert masks[0] != masks[1] and (masks[0].counts_by_layer() == masks[1].counts_by_layer()).all()


def test_a_variant_sees_the_pairs_of_the_matched_arm_in_its_order(matched: Run, trained: list[Run]) -> None:
    log, section = read_table([matched], "train_log", "01_train"), read_manifest(matched.folder)["train"]
    for run in trained:
        own, again = read_manifest(run.folder)["train"], read_table([run], "train_log", "01_train")
        assert all(own["config"][part] == section["config"][part] for part in ("data", "train", "seed"))
        assert own["config"]["neuron_mask"] == variant_mask(run, CONFIG).label
        assert again.n_tokens.tolist() == log.n_tokens.tolist() and own["n_train"] == section["n_train"] == 16
        assert again.loss.tolist() != log.loss.tolist()


def test_a_variant_comes_back_masked_from_its_checkpoint(trained: list[Run], tmp_path: Path) -> None:
    shared, _ = trained
    reloaded, logged = reloaded_loss(shared)
    assert reloaded == pytest.approx(logged, abs=2e-7)
    lost = Run(tmp_path, "toy", SHARED, 3)
    shutil.copytree(shared.folder, lost.folder)
    (tmp_path / "toy-world").symlink_to(shared.root / "toy-world")
    nothing = NeuronSet.of((4, 352), [])
    NeuronMask(nothing).save(lost.folder / "reward_model" / NEURON_MASK_FILE)
    seal(lost.folder)
    assert abs(reloaded_loss(lost)[0] - logged) > 1e-6, "without its mask it is another model"


def test_the_table_of_masks_counts_what_is_held_at_zero(trained: list[Run]) -> None:
    table = mask_table(trained).set_index("arm")
    masks = {run.objective: variant_mask(run, CONFIG).neurons for run in trained}
    assert (table.n_neurons == len(masks[SHARED])).all() and (table["mode"] == "masked").all()
    assert table.n_shared[SHARED] == len(masks[SHARED]) > table.n_shared[RANDOM] == len(masks[SHARED] & masks[RANDOM])
    assert table.share[SHARED] == pytest.approx(len(masks[SHARED]) / (4 * 352))


def test_a_variant_is_evaluated_on_the_matched_arms_items_and_found_again(matched: Run, trained: list[Run]) -> None:
    expected = read_table([matched], "evaluation", "02_evaluate")
    expected = expected[expected.benchmark == "hh-rlhf"]
    for run in trained:
        assert not train_variant(run, CONFIG) and not evaluate_like(run, sibling(run, MATCHED_ARM))
        rows = read_table([run], "evaluation", "02_evaluate")
        assert rows.item_id.tolist() == expected.item_id.tolist()
        assert not np.allclose(rows.margin, expected.margin)


def test_another_mask_is_trained_anew(trained: list[Run], tmp_path: Path) -> None:
    for objective in ("helpful", "harmless", MATCHED_ARM, SHARED):
        source = sibling(trained[0], objective).folder
        shutil.copytree(source, Run(tmp_path, "toy", objective, 3).folder)
    (tmp_path / "toy-world").symlink_to(trained[0].root / "toy-world")
    run = Run(tmp_path, "toy", SHARED, 3)
    assert not train_variant(run, CONFIG) and train_variant(run, replace(CONFIG, mode="pruned"))
    assert evaluate_like(run, sibling(run, MATCHED_ARM)), "its rows are of the other reward model"
    both = [read_table([each], "evaluation", "02_evaluate") for each in (run, trained[0])]
    assert both[0].margin.equals(both[1].margin), "both modes are the same function"


def test_what_is_missing_is_named(matched: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, "toy", SHARED, 0)
    with pytest.raises(FileNotFoundError, match="neuron_scores.safetensors is missing.*03_identify"):
        train_variant(run, CONFIG)
    for seed, objective in enumerate(("helpful", "harmless")):
        write_scores(sibling(run, objective), seed)
    with pytest.raises(FileNotFoundError, match="helpful-harmless-matched.*reward_model is missing.*01_train"):
        train_variant(run, CONFIG)
    with pytest.raises(FileNotFoundError, match="evaluation.parquet is missing.*02_evaluate"):
        evaluate_like(run, sibling(run, MATCHED_ARM))
    with pytest.raises(ValueError, match="objective: expected one of matched-without-shared, .*; got 'helpful'"):
        variant_mask(sibling(run, "helpful"), CONFIG)
    with pytest.raises(
        ValueError, match="fraction: expected tops that share a neuron; the top 0.0007 by mean_abs of toy"
    ):
        variant_mask(run, replace(CONFIG, fraction=0.0007))
    with pytest.raises(KeyError, match="no scores rms_change/both/all; there are mean_abs/both/all"):
        variant_mask(run, replace(CONFIG, score_kind="rms_change"))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score_kind": "best"}, "score_kind: expected one of signed_mean, "),
        ({"fraction": 0}, "fraction: expected at least 1e-09; got 0"),
        ({"scope": "first"}, "scope: expected one of all, response, last; got 'first'"),
        ({"mode": "frozen"}, "mode: expected one of masked, pruned; got 'frozen'"),
    ],
)
def test_bad_choices_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskConfig(**values)


def rows(credits: dict[tuple[str, str], list[float]], seed: int = 0) -> pd.DataFrame:
    """Return evaluation rows from (objective, group) -> credit of each item; every item is its own cluster."""
    return pd.DataFrame(
        [
            {"base_model": "toy", "objective": objective, "seed": seed, "benchmark": "hh-rlhf", "subset": group}
            | {"item_id": f"{group}/{i}", "cluster": f"{group}/{i}", "group": group, "credit": credit, "chance": 0.5}
            for (objective, group), values in credits.items()
            for i, credit in enumerate(values)
        ]
    )


BY_HAND = {
    ("helpful", "helpful"): [1, 1, 1, 0],
    ("helpful", "harmless"): [0, 0, 0, 1],  # the opposing test of a single objective costs nothing
    ("harmless", "harmless"): [1, 1],
    (MATCHED_ARM, "helpful"): [1, 0, 0, 0],
    (MATCHED_ARM, "harmless"): [1, 0],
    (SHARED, "helpful"): [1, 1, 0, 0],
    (SHARED, "harmless"): [1, 1],
    (RANDOM, "helpful"): [1, 0, 0, 0],
    (RANDOM, "harmless"): [0, 0],
    (SECOND, "helpful"): [0, 0, 0, 0],
    (SECOND, "harmless"): [1, 0],
    ("helpful-harmless", "helpful"): [0, 0, 0, 0],  # the mixed model of natural size has no part in this
}


def test_costs_and_their_differences_by_hand() -> None:
    costs = mixing_costs(rows(BY_HAND), bootstrap=Bootstrap(50)).set_index(["mask", "test"])
    expected = {  # single - mixed: 3/4, 2/2 and 5/6 minus what the mask leaves; two random draws are averaged
        ("no mask", "helpful"): 3 / 4 - 1 / 4,
        ("no mask", "harmless"): 1 - 1 / 2,
        ("no mask", "helpful-harmless"): 5 / 6 - 2 / 6,
        ("shared mask", "helpful"): 3 / 4 - 2 / 4,
        ("shared mask", "harmless"): 0,
        ("shared mask", "helpful-harmless"): 5 / 6 - 4 / 6,
        ("random mask", "helpful"): 3 / 4 - 1 / 8,
        ("random mask", "harmless"): 1 - 1 / 4,
        ("random mask", "helpful-harmless"): 5 / 6 - 1 / 6,
    }
    assert costs.cost.to_dict() == pytest.approx(expected)
    assert (costs.single - costs.mixed).to_dict() == pytest.approx(expected)
    assert costs.n_items.to_dict() == {key: {"helpful": 4, "harmless": 2}.get(key[1], 6) for key in expected}
    assert (costs.chance_accuracy == 0.5).all() and (costs.n_seeds == 1).all()
    effects = mask_effects(rows(BY_HAND), bootstrap=Bootstrap(50)).set_index(["contrast", "test"])
    assert effects.change["shared mask - random mask", "helpful-harmless"] == pytest.approx(1 / 6 - 4 / 6)
    assert effects.change["random mask - no mask", "harmless"] == pytest.approx(1 / 4)
    assert len(effects) == 9


@given(data=st.data(), n_seeds=st.integers(1, 3))
@settings(max_examples=20)
def test_an_effect_is_a_difference_of_costs_and_the_single_models_cancel(data: st.DataObject, n_seeds: int) -> None:
    credit = st.sampled_from([0.0, 0.5, 1.0])
    table = pd.concat(
        rows({key: data.draw(st.lists(credit, min_size=5, max_size=5)) for key in BY_HAND}, seed)
        for seed in range(n_seeds)
    )
    costs = mixing_costs(table, bootstrap=Bootstrap(20)).set_index(["mask", "test"]).cost
    effects = mask_effects(table, bootstrap=Bootstrap(20))
    for row in effects.itertuples():
        first, second = row.contrast.split(" - ")
        assert row.change == pytest.approx(costs[first, row.test] - costs[second, row.test], abs=1e-12)
        assert row.ci_low - 1e-12 <= row.change <= row.ci_high + 1e-12 or n_seeds == 1


def test_a_planted_relief_is_found_and_none_is_not() -> None:
    rng, n = np.random.default_rng(0), 300
    rates = {"helpful": 0.9, "harmless": 0.9, MATCHED_ARM: 0.6, SHARED: 0.85, RANDOM: 0.6}
    tables = [
        rows(
            {
                (arm, group): (rng.random(n) < rate).astype(float)
                for arm, rate in rates.items()
                for group in ("helpful", "harmless")
            },
            seed,
        )
        for seed in range(3)
    ]
    effects = mask_effects(pd.concat(tables)).set_index(["contrast", "test"])
    for test in ("helpful", "harmless", "helpful-harmless"):
        found, none = effects.loc["shared mask - random mask", test], effects.loc["random mask - no mask", test]
        assert found.ci_high < 0 and found.p_adjusted < 0.01 and found.ci_low < -0.25 < found.ci_high
        assert none.ci_low < 0 < none.ci_high and none.p_adjusted > 0.05


def test_a_mask_without_a_seed_or_an_item_is_refused() -> None:
    two = pd.concat([rows(BY_HAND, 0), rows({k: v for k, v in BY_HAND.items() if k[0] != SHARED}, 1)])
    for measure in (mixing_costs, mask_effects):
        with pytest.raises(ValueError, match="expected the same items under .*shared mask"):
            measure(two, bootstrap=Bootstrap(20))
    with pytest.raises(ValueError, match="missing cluster"):
        mask_rows(rows(BY_HAND).drop(columns="cluster"))


def test_fewer_pairs_take_every_other_setting_and_the_same_world(matched: Run) -> None:
    small = on_fewer(matched, 8)
    assert (
        small.folder == matched.root / "curve" / "8-pairs" / "toy" / MATCHED_ARM / "seed3"
        and on_fewer(matched, 0) == matched
    )
    assert train_like(small, matched, 8) and evaluate_like(small, matched)
    asked, found = (read_manifest(run.folder)["train"] for run in (matched, small))
    assert found["n_train"] == 8 < asked["n_train"] and found["config"]["train"] == asked["config"]["train"]
    assert found["config"]["data"] == asked["config"]["data"] | {"n_train_pairs": 8}
    assert small not in find_runs(matched.root), "no chapter takes it for one of its models"
    first, second = (read_table([run], "evaluation", "02_evaluate") for run in (matched, small))
    first = first[first.benchmark == "hh-rlhf"]
    assert first.item_id.tolist() == second.item_id.tolist()
    assert not train_like(small, matched, 8) and not evaluate_like(small, matched), "found"


def test_what_was_not_trained_is_no_model_to_follow(matched: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="01_train"):
        train_like(on_fewer(matched, 8), Run(tmp_path, "toy", MATCHED_ARM, 3), 8)
