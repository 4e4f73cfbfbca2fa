"""Interpolation, depth, gradients and weight changes as stages on a small toy world: rows, resume, errors."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import seal
from transformers import AutoModelForSequenceClassification

from tension_utils import interpolation
from tension_utils.analysis.accuracy import depth_accuracy
from tension_utils.artifacts import TABLES, read_manifest, read_table
from tension_utils.config import (
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    Run,
    SinglePair,
    TrainConfig,
    list_pairs,
    list_runs,
)
from tension_utils.cosines import cosine_table, objective_cosines
from tension_utils.data import render_prompt, render_response, training_pairs
from tension_utils.depth import DepthConfig, depth_run
from tension_utils.engine.packing import prepare_items
from tension_utils.geometry import (
    GradientConfig,
    WeightChangeConfig,
    gradient_run,
    mean_loss_gradients,
    weight_change_run,
)
from tension_utils.interpolation import InterpolateConfig, interpolate_run
from tension_utils.masking import NEURON_MASK_FILE, NeuronMask
from tension_utils.models import load_reward_model, load_tokenizer, open_checkpoint
from tension_utils.neurons import NeuronSet
from tension_utils.stages import ItemsConfig, evaluate_run, load_items
from tension_utils.statistics import Bootstrap
from tension_utils.training import train_run

pytestmark = pytest.mark.xdist_group("measurement-stages")
ENGINE = EngineConfig(n_items=5, tokens_per_batch=512, precision="float32")
EVALUATE = EvaluateConfig(("hh-rlhf", "toy"), ENGINE, items_of={"toy": 3})
ITEMS = ItemsConfig.of(EVALUATE)
INTERPOLATE = InterpolateConfig((0, 0.1, 0.5, 1), ITEMS)
DEPTH, GRADIENT = DepthConfig(ITEMS), GradientConfig(dataclasses.replace(ENGINE, n_items=6))
DATA = DataConfig(n_train_pairs=12, n_validation_pairs=4, max_length=256)
TRAIN = TrainConfig(batch_size=6, n_evaluations=1, learning_rate=1e-3, precision="float32")


@pytest.fixture(scope="module")
def runs(toy_world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three reward models of seed 1, trained for a few steps and evaluated, in a folder of their own."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(toy_world, root / "toy-world")
    runs = list_runs(root, ["toy"], ["helpful", "harmless", "helpful-harmless"], [1])
    for run in runs:
        assert train_run(run, DATA, TRAIN) and evaluate_run(run, EVALUATE)
    return runs


@pytest.fixture(scope="module")
def pair(runs: list[Run]) -> SinglePair:
    (pair,) = list_pairs(runs)
    assert interpolate_run(pair, INTERPOLATE)
    return pair


def local_data(run: Run) -> DataConfig:
    return dataclasses.replace(DATA, source=str(run.root / "toy-world" / "hh-rlhf"))


def test_both_ends_of_the_interpolation_are_the_evaluations(pair: SinglePair) -> None:
    table = read_table([pair], "interpolation", "02_evaluate")
    assert table.harmless_weight.unique().tolist() == [0, 0.1, 0.5, 1] and len(table.groupby("harmless_weight")) == 4
    for weight, run in {0: pair.helpful, 1: pair.harmless}.items():
        expected = pd.read_parquet(run.folder / "evaluation.parquet").drop(columns="objective")
        rows = table[table.harmless_weight == weight].drop(columns="harmless_weight").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, expected, check_exact=True)
    assert tuple(table) == TABLES["interpolation"] and table.margin.dtype == np.float32


def test_both_ends_are_exact_in_bfloat16_too(pair: SinglePair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(pair.root, root)
    again = SinglePair(root, "toy", 1)
    rough = EvaluateConfig(("hh-rlhf",), dataclasses.replace(ENGINE, n_items=2, precision="bfloat16"))
    assert interpolate_run(again, InterpolateConfig((0, 1), ItemsConfig.of(rough)))
    table = read_table([again], "interpolation", "02_evaluate")
    for weight, run in {0: again.helpful, 1: again.harmless}.items():
        assert evaluate_run(run, rough)
        expected = pd.read_parquet(run.folder / "evaluation.parquet").margin
        assert table[table.harmless_weight == weight].margin.tolist() == expected.tolist()


def plain_model(pair: SinglePair, weight: float) -> torch.nn.Module:
    """The interpolated model, made from whole state dicts by plain transformers."""
    model, other = (
        AutoModelForSequenceClassification.from_pretrained(run.folder / "reward_model", num_labels=1)
        for run in (pair.helpful, pair.harmless)
    )
    theirs = other.state_dict()
    model.load_state_dict({k: (1 - weight) * v + weight * theirs[k] for k, v in model.state_dict().items()})
    return model.eval()


@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_margins_between_are_those_of_a_plain_interpolated_model(pair: SinglePair, weight: float) -> None:
    table = read_table([pair], "interpolation", "02_evaluate")
    margins = table[table.harmless_weight == weight].set_index("item_id").margin
    model, tokenizer = plain_model(pair, weight), load_tokenizer(pair.helpful.folder / "reward_model")
    for item in load_items(pair.helpful, local_data(pair.helpful), ITEMS).items[:4]:
        texts = [render_prompt(item.prompt) + render_response(response) for response in item.responses]
        ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
        with torch.inference_mode():
            rewards = [model(torch.tensor([each])).logits.item() for each in ids]
        chosen, rejected = rewards[: len(item.chosen)], rewards[len(item.chosen) :]
        assert margins[item.item_id] == pytest.approx(min(chosen) - max(rejected), rel=1e-4, abs=1e-5)


def test_a_stopped_interpolation_goes_on_where_it_was(pair: SinglePair, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (pair.folder / "interpolation.parquet").read_bytes()
    assert not interpolate_run(pair, INTERPOLATE)
    (pair.folder / "interpolation.parquet").unlink()
    original, calls = interpolation.score_groups, []

    def stop_at_third(*args: object, **kwargs: object) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(interpolation, "score_groups", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        interpolate_run(pair, INTERPOLATE)
    assert len(list((pair.folder / interpolation.PARTS).glob("*.parquet"))) == 2
    assert interpolate_run(pair, INTERPOLATE) and len(calls) == 5
    assert (pair.folder / "interpolation.parquet").read_bytes() == before
    assert not (pair.folder / interpolation.PARTS).exists()


def test_another_choice_computes_again_and_the_manifest_tells(pair: SinglePair) -> None:
    assert interpolate_run(pair, InterpolateConfig((0.5,), ITEMS)) and interpolate_run(pair, INTERPOLATE)
    section = read_manifest(pair.folder)["interpolate"]
    assert set(section["inputs"]) == {"reward_model", "reward_model_harmless", "data_source", "benchmark_toy"}
    assert section["config"] | {"interpolate": 0} == {"interpolate": 0, "base_model": "toy", "seed": 1}


@pytest.fixture
def copied(pair: SinglePair, tmp_path: Path) -> SinglePair:
    shutil.copytree(pair.root, tmp_path / "runs")
    return SinglePair(tmp_path / "runs", "toy", 1)


def test_models_that_do_not_fit_together_are_refused(copied: SinglePair) -> None:
    file = copied.harmless.folder / "reward_model" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    save_file(tensors | {name: tensors[name][:, 1:].contiguous()}, file, {"format": "pt"})
    seal(copied.harmless.folder)
    config = InterpolateConfig((0.25,), ITEMS)
    with pytest.raises(ValueError, match=r"harmless/seed1/reward_model: expected .*down_proj.weight of shape \(\d+, "):
        interpolate_run(copied, config)
    with pytest.raises(ValueError, match=r"expected .*down_proj.weight of shape"):
        weight_change_run(copied, WeightChangeConfig())
    save_file({key: value for key, value in tensors.items() if key != "score.weight"}, file, {"format": "pt"})
    seal(copied.harmless.folder)
    with pytest.raises(ValueError, match=r"score.weight of shape \(1, \d+\), got no such parameter"):
        interpolate_run(copied, config)
    assert not list(copied.folder.glob("interpolation_parts/*.parquet"))


def test_a_neuron_mask_and_a_missing_model_are_refused(copied: SinglePair) -> None:
    neurons = NeuronSet.of((2, 8), [(0, 1)])
    NeuronMask(neurons).save(copied.harmless.folder / "reward_model" / NEURON_MASK_FILE)
    seal(copied.harmless.folder)
    with pytest.raises(ValueError, match="harmless/seed1: expected a reward model with all its neurons"):
        interpolate_run(copied, INTERPOLATE)
    (copied.harmless.folder / "reward_model" / NEURON_MASK_FILE).unlink()
    seal(copied.harmless.folder)
    manifest = read_manifest(copied.helpful.folder)
    manifest["train"]["config"]["neuron_mask"] = {"mode": "masked"}
    (copied.helpful.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="helpful/seed1: expected a reward model with all its neurons"):
        interpolate_run(copied, INTERPOLATE)
    with pytest.raises(FileNotFoundError, match="seed7/reward_model is missing.*01_train"):
        interpolate_run(SinglePair(copied.root, "toy", 7), INTERPOLATE)
    with pytest.raises(FileNotFoundError, match="seed7/reward_model is missing.*01_train"):
        weight_change_run(SinglePair(copied.root, "toy", 7), WeightChangeConfig())


def test_choices_are_checked_when_they_are_made() -> None:
    for weights in ((), (0.5, 0.5)):
        with pytest.raises(ValueError, match="weights: expected at least one value and none twice"):
            InterpolateConfig(weights)
    with pytest.raises(ValueError, match="weights.0.: expected at most 1; got 1.5"):
        InterpolateConfig((1.5,))
    with pytest.raises(ValueError, match="items_of: expected one of hh-rlhf; got 'rmb'"):
        ItemsConfig(items_of={"rmb": 3})
    with pytest.raises(ValueError, match="arms.0.: expected one of helpful, .*; got 'polite'"):
        WeightChangeConfig(("polite",))
    with pytest.raises(ValueError, match="seed: expected a whole number"):
        SinglePair(Path("runs"), "toy", 0.5)


def test_depth_ends_with_the_evaluation(runs: list[Run]) -> None:
    run = runs[2]
    assert depth_run(run, DEPTH) and not depth_run(run, DEPTH)
    table = read_table([run], "depth", "02_evaluate")
    n_layers = load_reward_model(run.folder / "reward_model").config.num_hidden_layers
    assert table.depth.max() == n_layers and table.depth.dtype == np.int16 and table.margin.dtype == np.float32
    evaluation = pd.read_parquet(run.folder / "evaluation.parquet")
    last = table[table.depth == n_layers].reset_index(drop=True)
    assert len(table) == (n_layers + 1) * len(evaluation)
    keys = ["base_model", "objective", "seed", "benchmark", "subset", "item_id", "cluster", "chance"]
    pd.testing.assert_frame_equal(last[keys], evaluation[keys])
    assert last.margin.to_numpy() == pytest.approx(evaluation.margin.to_numpy(), rel=1e-5, abs=1e-5)
    accuracy = depth_accuracy(table, bootstrap=Bootstrap(20)).set_index(["benchmark", "subset", "depth"])
    expected = evaluation.groupby(["benchmark", "subset"]).credit.mean()
    for place, value in expected.items():
        assert accuracy.accuracy[(*place, n_layers)] == pytest.approx(value)
    fewer = DepthConfig(dataclasses.replace(ITEMS, benchmarks=("hh-rlhf",), items_of={}))
    assert depth_run(run, fewer) and set(read_table([run], "depth", "02_evaluate").benchmark) == {"hh-rlhf"}
    assert read_manifest(run.folder)["depth"]["n_depths"] == n_layers + 1


def test_no_item_that_fits_is_an_error(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="at least one item that fits into max_length tokens, got none; raise"):
        depth_run(runs[0], DepthConfig(dataclasses.replace(ITEMS, max_length=1)))


def test_gradients_are_those_of_the_first_training_pairs(runs: list[Run]) -> None:
    run = runs[2]
    assert gradient_run(run, GRADIENT) and not gradient_run(run, GRADIENT)
    table = read_table([run], "gradients", "03_identify")
    assert tuple(table) == TABLES["gradients"] and len(table.drop_duplicates(["first", "second"])) == 10
    model, tokenizer = (load(run.folder / "reward_model") for load in (load_reward_model, load_tokenizer))
    assert cosine_table(table, ()).n_parameters.tolist() == [sum(p.numel() for p in model.parameters())] * 6
    found = {}
    for objective in ("helpful", "harmless"):
        items = training_pairs(local_data(run), objective, run.seed).train[:6]
        for start, half in enumerate("ab"):
            prepared = prepare_items(tokenizer, items[start::2], 256)
            found[f"{objective}-{half}"] = mean_loss_gradients(model, prepared)
    head = table[(table.layer == -1) & (table.part == "head")].set_index(["first", "second"])["dot"]
    for (first, second), dot in head.items():
        product = (found[first]["score.weight"].double() * found[second]["score.weight"].double()).sum().item()
        assert dot == pytest.approx(product, rel=1e-4)
    section = read_manifest(run.folder)["gradients"]
    assert section["n_helpful"] == section["n_harmless"] == 6 and not section["is_bfloat16"]
    assert objective_cosines(table, ()).objective.tolist() == ["helpful-harmless"]
    assert gradient_run(run, GradientConfig(ENGINE.__class__(2, 512, "bfloat16")))
    assert read_manifest(run.folder)["gradients"]["dtype"] == "float32"


def test_weight_changes_are_differences_of_state_dicts(runs: list[Run], pair: SinglePair) -> None:
    config = WeightChangeConfig()
    assert weight_change_run(pair, config) and not weight_change_run(pair, config)
    table = read_table([pair], "weight_changes", "01_train")
    arms = ["helpful", "harmless", "helpful-harmless"]  # the matched arm was not trained
    assert list(table["first"].unique()) == arms and tuple(table) == TABLES["weight_changes"]
    base = load_file(pair.root / "toy-world" / "base_model" / "model.safetensors")
    generator = torch.Generator().manual_seed(pair.seed)
    states = [load_file(pair.run_of(arm).folder / "reward_model" / "model.safetensors") for arm in arms]
    base["score.weight"] = torch.randn(states[0]["score.weight"].shape, generator=generator) * 0.02
    changes = [np.concatenate([(s[k] - base[k]).numpy().ravel() for k in sorted(s)]).astype(float) for s in states]
    whole = cosine_table(table, ()).set_index(["first", "second"])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        norms = np.linalg.norm(changes[i]), np.linalg.norm(changes[j])
        expected = changes[i] @ changes[j] / np.prod(norms)
        assert whole.cosine[arms[i], arms[j]] == pytest.approx(expected, rel=1e-6)
        assert whole.first_norm[arms[i], arms[j]] == pytest.approx(norms[0], rel=1e-6) and norms[0] > 0
    heads = cosine_table(table[table.part == "head"], ()).set_index(["first", "second"])
    first, second = (s["score.weight"] - base["score.weight"] for s in states[:2])
    assert heads.cosine["helpful", "harmless"] == pytest.approx(torch.cosine_similarity(first, second).item(), rel=1e-4)
    assert weight_change_run(pair, WeightChangeConfig(("harmless",))) and weight_change_run(pair, config)
    assert set(read_manifest(pair.folder)) == {"interpolate", "weight_changes"}


def test_a_model_whose_training_goes_on_is_left_out_of_the_weight_changes(copied: SinglePair) -> None:
    manifest = read_manifest(copied.harmless.folder)
    others = {stage: section for stage, section in manifest.items() if stage != "train"}
    (copied.harmless.folder / "manifest.json").write_text(json.dumps(others))  # weights come before their section
    assert weight_change_run(copied, WeightChangeConfig())
    assert "harmless" not in set(read_table([copied], "weight_changes", "01_train")["first"])
    (copied.harmless.folder / "manifest.json").write_text(json.dumps(manifest))
    assert weight_change_run(copied, WeightChangeConfig()), "it is there now"
    assert "harmless" in set(read_table([copied], "weight_changes", "01_train")["first"])


def test_a_checkpoint_in_several_files_is_read_as_one(pair: SinglePair, tmp_path: Path) -> None:
    model = load_reward_model(pair.helpful.folder / "reward_model")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    NeuronMask(NeuronSet.of((2, 8), [(0, 1)])).save(tmp_path / NEURON_MASK_FILE)
    with open_checkpoint(tmp_path) as read:
        assert all(torch.equal(read(name, p.shape), p) for name, p in model.named_parameters())
