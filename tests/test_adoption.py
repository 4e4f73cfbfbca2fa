"""Reward models that were trained elsewhere: a run folder of links, on which all stages work, and what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_model, make_tokenizer
from transformers import AutoModelForCausalLM

from tension_utils.ablation import ablated
from tension_utils.activations import neuron_scores
from tension_utils.adoption import adopt_run
from tension_utils.analysis import overlap
from tension_utils.artifacts import file_hash, is_adopted, read_manifest
from tension_utils.config import AblateConfig, DataConfig, EngineConfig, EvaluateConfig, IdentifyConfig, Run, SinglePair
from tension_utils.data import training_pairs
from tension_utils.evaluation import score_items
from tension_utils.geometry import WeightChangeConfig, weight_change_run
from tension_utils.models import load_reward_model, load_tokenizer, save_reward_model
from tension_utils.neurons import top_neurons
from tension_utils.scores import load_view, own_scores
from tension_utils.stages import ablate_run, evaluate_run, identify_run, load_items, training_data

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<eos>\n{% endfor %}"
ENGINE = EngineConfig(n_items=4, precision="float32")
KINDS = ("signed_mean", "mean_abs", "frequency", "rms_change")


def save(folder: Path, seed: int = 0, model_type: str = "llama", template: str = "", **options: object) -> Path:
    tokenizer = make_tokenizer(pad_is_eos=False)
    tokenizer.chat_template = template or None
    model = make_model(model_type, seed=seed, max_position_embeddings=512, pad_token_id=1, **options)
    save_reward_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def data(toy_world: Path) -> DataConfig:
    return DataConfig(str(toy_world / "hh-rlhf"), n_train_pairs=8, n_validation_pairs=2, max_length=512)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {o: save(root / o, seed, template=CHAT) for seed, o in enumerate(("helpful", "harmless"))}


@pytest.fixture(scope="module")
def runs(models: dict[str, Path], data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Both models in their own chat template, without a base model, through all stages."""
    runs = [Run(tmp_path_factory.getbasetemp() / "adopted", "mine", o, 0) for o in models]
    for run in runs:
        assert adopt_run(run, models[run.objective], data, template="chat")
        assert evaluate_run(run, EvaluateConfig(("hh-rlhf",), ENGINE, n_template_check=1))
        assert identify_run(run, IdentifyConfig(KINDS, ("all",), engine=ENGINE))
    for run in runs:
        assert ablate_run(run, AblateConfig(("signed_mean",), main_kind="mean_abs", n_draws=2, engine=ENGINE))
    return runs


def test_the_folder_links_to_the_model_and_says_so(runs: list[Run], models: dict[str, Path], data: DataConfig) -> None:
    run, source = runs[0], models["helpful"]
    links = sorted((run.folder / "reward_model").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in links}
    assert all(path.is_symlink() and path.resolve().parent == source.resolve() for path in links)
    facts = read_manifest(run.folder)["train"]
    assert facts["artifact_hash"] == file_hash(run.folder / "reward_model") and is_adopted(run.folder)
    assert facts["config"]["adopted"] == {"source": str(source), "template": "chat", "base_model": ""}
    assert (facts["architecture"], facts["shape"], facts["has_chat_template"]) == ("llama", [3, 48], True)
    assert training_data(run) == data
    assert not adopt_run(run, source, data, template="chat"), "found as it is"


def test_every_stage_uses_the_template_it_was_adopted_with(runs: list[Run], data: DataConfig) -> None:
    run = runs[0]
    model, tokenizer = load_reward_model(run.folder / "reward_model"), load_tokenizer(run.folder / "reward_model")
    items = load_items(run, data, EvaluateConfig(("hh-rlhf",), ENGINE)).items
    stored = pd.read_parquet(run.folder / "evaluation.parquet").set_index("item_id").margin
    margins = stored[[item.item_id for item in items]].tolist()
    assert margins == pytest.approx([r.margin for r in score_items(model, tokenizer, items, template="chat")], abs=1e-4)
    assert margins != pytest.approx([r.margin for r in score_items(model, tokenizer, items, template="hh")], abs=1e-2)
    pairs = training_pairs(data, "helpful", 0).train[: ENGINE.n_items]
    expected = neuron_scores(model, tokenizer, pairs, kinds="signed_mean", template="chat").get("signed_mean")
    assert np.allclose(own_scores(run).get("signed_mean"), expected, atol=1e-5)
    ablation = pd.read_parquet(run.folder / "ablation.parquet")
    for kind, one in ablation[ablation.control == ""].groupby("set"):
        with ablated(model, top_neurons(own_scores(run).get(kind), 0.1)):
            without = score_items(model, tokenizer, items, template="chat")
        found = one.set_index("item_id").margin[[item.item_id for item in items]].tolist()
        assert found == pytest.approx([reward.margin for reward in without], abs=1e-4)


def test_what_needs_a_base_model_is_left_out_and_told(runs: list[Run], capsys: pytest.CaptureFixture) -> None:
    run = runs[0]
    assert read_manifest(run.folder)["identify"]["left_out"] == ["rms_change", "heads", "base-text", "base-generic"]
    assert {kind for kind, _, _ in own_scores(run).tensors} == set(KINDS) - {"rms_change"}
    assert {kind for kind, _, _ in load_view(run, "text-harmless").tensors} == set(KINDS) - {"rms_change"}
    with pytest.raises(ValueError, match="score_kinds: .*compare with the base model, which is not known of this run"):
        identify_run(run, IdentifyConfig(("rms_change",), engine=ENGINE))
    assert "left out" not in capsys.readouterr().out
    assert identify_run(run, IdentifyConfig(KINDS, ("all",), n_view_items=3, engine=ENGINE, n_generic=2))
    assert "left out, because the base model is not known: rms_change, heads" in capsys.readouterr().out
    assert load_view(run, "generic").n_items == 2


def test_two_adopted_models_are_compared_by_overlap(runs: list[Run]) -> None:
    table = overlap.level_rows(runs, ["signed_mean", "mean_abs"], 0.1)
    assert table.level.tolist() == [overlap.TWO_OBJECTIVES] * 2 and table.jaccard.between(0, 1).all()
    bases = overlap.base_model_table(runs, ["mean_abs"], 0.1)
    assert bases.not_run.tolist() == ["the base model is not known"] and bases.jaccard.isna().all()
    assert set(overlap.cross_design_table(runs, ["mean_abs"], 0.1).models) == {
        "helpful",
        "harmless",
        "helpful / harmless",
    }
    assert overlap.head_sets(runs, 0.1) == {}


def test_a_known_base_model_gives_all_kinds(models: dict[str, Path], data: DataConfig, tmp_path: Path) -> None:
    config = make_model("llama", max_position_embeddings=512).config
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    run = Run(tmp_path, "mine", "helpful", 1)
    assert adopt_run(run, models["helpful"], data, template="hh", base_model=str(tmp_path / "base"))
    assert identify_run(run, IdentifyConfig(KINDS, ("all",), engine=ENGINE))
    assert own_scores(run).get("rms_change").max() > 0 and load_view(run, "base-text-helpful")
    facts = read_manifest(run.folder)
    assert facts["identify"]["left_out"] == [] and "base_model" in facts["identify"]["inputs"]


def test_an_unused_chat_template_is_told_once_and_recorded(
    models: dict[str, Path], data: DataConfig, tmp_path: Path
) -> None:
    run = Run(tmp_path, "mine", "helpful", 0)
    with pytest.warns(UserWarning, match="has a chat template, and texts are put in that of HH-RLHF"):
        adopt_run(run, models["helpful"], data)
    facts = read_manifest(run.folder)["train"]
    assert facts["config"]["adopted"]["template"] == "hh" and facts["has_chat_template"]


def test_a_model_that_changed_since_is_refused_until_it_is_adopted_again(data: DataConfig, tmp_path: Path) -> None:
    source, run = save(tmp_path / "rm"), Run(tmp_path, "mine", "helpful", 0)
    adopt_run(run, source, data)
    save(source, seed=5)
    with pytest.raises(ValueError, match="mine.*the model that was adopted has changed since; adopt it again"):
        evaluate_run(run, EvaluateConfig(("hh-rlhf",), ENGINE))
    assert adopt_run(run, source, data) and evaluate_run(run, EvaluateConfig(("hh-rlhf",), ENGINE))
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="which is gone; put the model back, or adopt it again"):
        load_reward_model(run.folder / "reward_model")


def test_models_that_cannot_be_compared_are_refused(models: dict[str, Path], data: DataConfig, tmp_path: Path) -> None:
    helpful, harmless = (Run(tmp_path, "mine", objective, 0) for objective in ("helpful", "harmless"))
    adopt_run(helpful, models["helpful"], data, template="hh")
    other = {"gpt2": r"helpful one, llama \(3, 48\); got gpt2 \(3, 48\)", "llama": r"\(3, 48\); got llama \(2, 48\)"}
    for model_type, sentence in other.items():
        source = save(tmp_path / model_type, 1, model_type, num_hidden_layers=2 + (model_type == "gpt2"))
        with pytest.raises(ValueError, match=f"{model_type}: expected the architecture.*{sentence}; .*another name"):
            adopt_run(harmless, source, data)
    with pytest.raises(ValueError, match="its base model, llama .* got gpt2"):
        alone = dataclasses.replace(harmless, seed=7)
        adopt_run(alone, tmp_path / "gpt2", data, base_model=str(models["helpful"]))
    assert not harmless.folder.exists()
    with pytest.raises(ValueError, match="max_length: expected at most the model's context of 512"):
        adopt_run(harmless, models["harmless"], dataclasses.replace(data, max_length=1000), template="hh")
    adopt_run(harmless, models["harmless"], data, template="hh")
    with pytest.raises(
        ValueError, match="trained here, so that their start is known; .'helpful', 'harmless'. were adopted"
    ):
        weight_change_run(SinglePair(tmp_path, "mine", 0), WeightChangeConfig())


def test_a_model_that_was_trained_here_is_not_replaced(
    models: dict[str, Path], data: DataConfig, tmp_path: Path
) -> None:
    run = Run(tmp_path, "mine", "helpful", 0)
    save(run.folder / "reward_model")
    (run.folder / "manifest.json").write_text(json.dumps({"train": {"config": {}}}))
    with pytest.raises(
        ValueError, match="expected no reward model that was trained here; got one; adopt under another root, name"
    ):
        adopt_run(run, models["helpful"], data, template="hh")
