"""Model folders that are none, and checkpoints that hold other tensors than the model: one sentence each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model, make_tokenizer
from transformers import AutoModelForCausalLM

from tension_utils.checkpoints import INDEX, WEIGHTS, check_model_folder
from tension_utils.models import load_base_model, load_reward_model, load_tokenizer, new_reward_model, save_reward_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    save_reward_model(make_model("llama"), make_tokenizer(), folder)
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "mine")


def write_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        kept = {name: value for name, value in (config | changes).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def name_absent_shards(folder: Path) -> None:
    shards = {"score.weight": WEIGHTS, "model.norm.weight": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": shards}))


def keep_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def copy_weights(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder / WEIGHTS, folder / name)


def index_a_copy(folder: Path) -> None:
    name = "model-00001-of-00001.safetensors"
    shutil.copy(folder / WEIGHTS, folder / name)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"score.weight": name}}))


def link_to_nothing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("moved.safetensors")


FOLDERS = {
    "empty": (remove_all, FileNotFoundError, "expected a model .* the folder is empty; download"),
    "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, "expected config.json; the folder has"),
    "config is a pointer": (
        write("config.json", POINTER),
        ValueError,
        "config.json: .*got a Git LFS pointer.*lfs pull",
    ),
    "config is no JSON": (write("config.json", "{'a': 1}"), ValueError, "config.json: expected a JSON object; Expect"),
    "config is null": (write("config.json", "null"), ValueError, "config.json: expected a JSON object; got null"),
    "config is a list": (write("config.json", "[1]"), ValueError, r"config.json: expected a JSON object; got \[1\]"),
    "config of a pipeline": (
        write("config.json", '{"_class_name": "X"}'),
        ValueError,
        "names its model_type.*_class_n",
    ),
    "custom code": (
        write_config(auto_map={"AutoModel": "modeling.Mine"}),
        ValueError,
        r"code of its own \(auto_map: \['AutoModel'\]\), which is never run; choose one of the types",
    ),
    "other architecture": (
        write_config(model_type="bert"),
        ValueError,
        "'bert' is not supported; expected one of .*'llama'.*see 'An architecture' in CONTRIBUTING.md",
    ),
    "pickled": (pickle, FileNotFoundError, r"weights as safetensors; it has pickled ones \(pytorch_model.bin\)"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), FileNotFoundError, "expected model.safetensors or .*index.json"),
    "weights are a pointer": (write(WEIGHTS, POINTER), ValueError, f"{WEIGHTS}: .*got a Git LFS pointer"),
    "weights are cut": (cut, ValueError, f"{WEIGHTS}: expected whole safetensors weights; .*download or copy"),
    "absent shards": (name_absent_shards, FileNotFoundError, "1 are missing, such as model-00002-of-00002.safetensors"),
    "index of nothing": (write(INDEX, "{}"), ValueError, "index.json: expected a weight_map from tensors to files"),
    "adapter": (keep_adapter, ValueError, r"holds an adapter \(adapter_config.json\).*merge it into its base model"),
    "adapter beside a model": (
        write("adapter_config.json", "{}"),
        ValueError,
        r"holds an adapter \(adapter_config.json",
    ),
    "weights of another head": (
        copy_weights("value_head.safetensors"),
        ValueError,
        "expected no weights besides model.safetensors; got value_head.safetensors, which would not be read",
    ),
    "one file beside shards": (
        index_a_copy,
        ValueError,
        "expected no weights besides model-00001-of-00001.safetensors; got model.safetensors",
    ),
    "link to nothing": (link_to_nothing, FileNotFoundError, "the link leads to moved.safetensors, which is gone"),
}


@pytest.mark.parametrize("fault", FOLDERS)
def test_a_folder_that_holds_no_model_is_told_in_one_sentence(fault: str, model: Path) -> None:
    damage, kind, sentence = FOLDERS[fault]
    check_model_folder(model)
    damage(model)
    for load in (load_reward_model, load_base_model, lambda folder: new_reward_model(folder, 0)):
        with pytest.raises(kind, match=f"mine.*{sentence}") as caught:
            load(model)
        assert "\n" not in str(caught.value)


TOKENIZERS = {
    "none": (
        "tokenizer.json",
        None,
        FileNotFoundError,
        "expected a tokenizer beside the model .tokenizer.json.; there",
    ),
    "pointer": ("tokenizer.json", POINTER, ValueError, "tokenizer.json: .*got a Git LFS pointer"),
    "no JSON": ("tokenizer.json", "{", ValueError, "tokenizer.json: expected a JSON object"),
    "null config": (
        "tokenizer_config.json",
        "null",
        ValueError,
        "tokenizer_config.json: expected a JSON object; got nu",
    ),
}


@pytest.mark.parametrize("fault", TOKENIZERS)
def test_a_tokenizer_that_is_none_is_told_in_one_sentence(fault: str, model: Path) -> None:
    name, text, kind, sentence = TOKENIZERS[fault]
    assert load_tokenizer(model)
    (model / name).unlink() if text is None else (model / name).write_text(text)
    with pytest.raises(kind, match=f"mine.*{sentence}") as caught:
        load_tokenizer(model)
    assert "\n" not in str(caught.value)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


LORA = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
NO_PLACE = "have no place in it, such as"
TENSORS = {  # added, removed, what is said of it as a reward model
    "bias": ({"score.bias": zeros(1)}, (), rf"{NO_PLACE} \['score.bias'\]; .* one linear head without bias"),
    "MLP head": (
        {"score.0.weight": zeros(8, 32), "score.2.weight": zeros(1, 8)},
        ("score.weight",),
        r"it has \['score.0.weight', 'score.2.weight'\] instead; .*one linear head",
    ),
    "value head": ({"v_head.summary.weight": zeros(1, 32)}, ("score.weight",), r"it has \['v_head.summary.weight'\] i"),
    "two labels": ({"score.weight": zeros(2, 32)}, (), r"score.weight has shape \(2, 32\), a classifier of 2 labels"),
    "no head": ({}, ("score.weight",), "its head score.weight is missing: it is a base model; train one from it first"),
    "adapter inside": ({LORA: zeros(2, 48)}, (), rf"{NO_PLACE} \['{LORA}'\]; merge the adapter into its base model"),
    "further layer": (
        {"model.layers.3.mlp.up_proj.weight": zeros(48, 32)},
        (),
        rf"{NO_PLACE} \['model.layers.3.*other",
    ),
    "missing layer": ({}, ("model.layers.1.mlp.up_proj.weight",), "1 are missing or of another shape.*incomplete"),
    "other shape": ({"model.norm.weight": zeros(16)}, (), r"1 are missing or of another shape, such as \['model.norm"),
}
HEADS = ("bias", "MLP head", "two labels", "no head")  # which a base model does without


def change_tensors(folder: Path, added: dict[str, torch.Tensor], removed: tuple[str, ...] = ()) -> None:
    tensors = {name: t for name, t in load_file(folder / WEIGHTS).items() if name not in removed} | added
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("fault", TENSORS)
def test_no_weight_is_dropped_or_drawn_without_a_word(fault: str, model: Path) -> None:
    added, removed, sentence = TENSORS[fault]
    change_tensors(model, added, removed)
    with pytest.raises(ValueError, match=f"mine: .*{sentence}"):
        load_reward_model(model)
    for load in (load_base_model, lambda folder: new_reward_model(folder, 0)):
        if fault in HEADS:
            load(model)
        else:
            with pytest.raises(ValueError, match="mine: "):
                load(model)


def test_a_language_model_head_beside_the_reward_head_is_told(model: Path) -> None:
    change_tensors(model, {"lm_head.weight": zeros(340, 32)})
    with pytest.warns(UserWarning, match=r"mine: its language-model head \['lm_head.weight'\] is not used"):
        load_reward_model(model)


@pytest.mark.parametrize("model_type", ["gpt_neox", "gpt2", "llama"])
def test_a_base_model_may_have_its_language_model_head(model_type: str, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(make_model(model_type).config).save_pretrained(tmp_path / "base")
    assert load_base_model(tmp_path / "base") and new_reward_model(tmp_path / "base", 0)
