"""The table of architectures, and loading and saving on local folders."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, N_NEURONS, make_model, make_tokenizer
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tension_utils.architectures import architecture_of, head_shape, neuron_shape, projection_weight
from tension_utils.masking import NeuronMask
from tension_utils.models import (
    ARCHITECTURES,
    load_base_model,
    load_reward_model,
    load_tokenizer,
    new_reward_model,
    reward_head,
    save_reward_model,
)
from tension_utils.neurons import NeuronSet

IDS = torch.tensor([[5, 9, 200, 77]])


def rewards(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(pad_is_eos=False)


@pytest.fixture
def base_folder(tmp_path, tokenizer):
    """A causal language model, as base checkpoints are."""
    config = make_model("llama").config
    config.pad_token_id = None
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_table_names_the_parts_of_every_architecture(model_type):
    model = make_model(model_type)
    architecture = architecture_of(model)
    assert neuron_shape(model) == (3, N_NEURONS) and head_shape(model) == (3, 4, 8)
    for part in ("up", "activation", "down", "attention_output"):
        assert len(set(map(id, architecture.parts_of(model, part)))) == 3
    for up, down in zip(*(architecture.parts_of(model, part) for part in ("up", "down")), strict=True):
        assert projection_weight(up).shape == (N_NEURONS, 32) and projection_weight(down).shape == (32, N_NEURONS)
    # a gated neuron is act(gate) * up, an ungated one act(up): what the table says is what the model computes
    seen = {}
    for part in ("up", "gate", "activation", "down"):
        if getattr(architecture, part):
            module = architecture.parts_of(model, part)[1]
            module.register_forward_hook(lambda _, args, out, part=part: seen.__setitem__(part, (args[0], out)))
    rewards(model)
    gated = seen["activation"][1] * seen["up"][1] if architecture.gate else seen["activation"][1]
    assert torch.equal(seen["down"][0], gated)
    assert torch.equal(seen["activation"][0], seen["gate" if architecture.gate else "up"][1])


def test_every_row_is_tested():
    assert {name.removesuffix(" windowed") for name in CONFIGS} == set(ARCHITECTURES)


def test_other_architectures_are_refused_with_the_supported_ones(tmp_path, tokenizer):
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9, num_labels=1
    )
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "bert")
    for attempt in (
        lambda: architecture_of(model),
        lambda: load_reward_model(tmp_path / "bert"),
        lambda: load_base_model(tmp_path / "bert"),
        lambda: new_reward_model(tmp_path / "bert", 0),
    ):
        with pytest.raises(ValueError, match="'bert' is not supported; expected one of .*'gpt2'.*'olmo2'"):
            attempt()


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_saved_model_comes_back(model_type, tokenizer, tmp_path):
    model = make_model(model_type)
    save_reward_model(model, tokenizer, tmp_path / "rm")
    loaded = load_reward_model(tmp_path / "rm")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert rewards(loaded) == pytest.approx(rewards(model), rel=1e-5)
    assert not loaded.training and load_tokenizer(tmp_path / "rm").pad_token == "<pad>"
    assert [path.name for path in tmp_path.iterdir()] == ["rm"]
    backbone = load_base_model(tmp_path / "rm")
    assert neuron_shape(backbone) == (3, N_NEURONS) and not hasattr(backbone, "score")


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_neuron_mask_is_in_the_checkpoint_and_applied_on_load(model_type, tokenizer, tmp_path):
    model, mask = make_model(model_type), NeuronMask(NeuronSet.of((3, N_NEURONS), [(0, 7), (2, 11)]))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_reward_model(model, tokenizer, tmp_path / "rm", mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    stored = load_file(tmp_path / "rm" / "model.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in stored.items()), "weights are kept as they are"
    loaded = load_reward_model(tmp_path / "rm")
    for layer, down in enumerate(architecture_of(loaded).parts_of(loaded, "down")):
        original = projection_weight(architecture_of(model).parts_of(model, "down")[layer])
        columns = torch.tensor(mask.neurons.mask[layer])
        assert not projection_weight(down)[:, columns].any()
        assert torch.equal(projection_weight(down)[:, ~columns], original[:, ~columns])
    assert rewards(loaded) != pytest.approx(rewards(model), rel=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_tied_and_scaled_embeddings_come_from_a_causal_language_model(dtype, tokenizer, tmp_path):
    config = make_model("gemma3_text").config
    assert config.tie_word_embeddings
    base = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    for parameter in base.parameters():
        parameter.data.normal_(0, 0.3 if parameter.ndim == 2 else 0.1)
    base.save_pretrained(tmp_path / "base")
    assert "lm_head.weight" not in load_file(tmp_path / "base" / "model.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval().model
    model = new_reward_model(tmp_path / "base", seed=3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and model.base_model is model.model
    model.eval()
    with torch.no_grad():
        hidden = plain(IDS).last_hidden_state
        # the scale of the embeddings is that of float32, although a checkpoint in bfloat16 loads with a rounded one
        assert torch.equal(model.model(IDS).last_hidden_state, hidden)
        assert torch.equal(load_base_model(tmp_path / "base")(IDS).last_hidden_state, hidden)
        save_reward_model(model, tokenizer, tmp_path / "rm")
        assert torch.equal(rewards(load_reward_model(tmp_path / "rm")), rewards(model))
        rough = load_reward_model(tmp_path / "rm", dtype="bfloat16")
        assert reward_head(rough).weight.dtype == torch.float32 and torch.equal(
            reward_head(rough).weight, model.score.weight
        )
        embedded = torch.nn.functional.embedding(IDS, model.model.embed_tokens.weight.bfloat16())
        assert torch.equal(rough.model.embed_tokens(IDS), embedded * torch.tensor(32**0.5).bfloat16())


def test_attention_that_looks_ahead_is_refused(tmp_path, tokenizer):
    model = make_model("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(ValueError, match="expected causal attention, got use_bidirectional_attention=True"):
        architecture_of(model)
    model.save_pretrained(tmp_path / "both_ways")
    with pytest.raises(ValueError, match="both_ways: expected causal attention"):
        load_reward_model(tmp_path / "both_ways")


def test_saving_replaces_a_folder_and_a_failure_leaves_the_old_one(tokenizer, tmp_path, monkeypatch):
    model = make_model("llama")
    save_reward_model(model, tokenizer, tmp_path / "rm", NeuronMask(NeuronSet.of((3, N_NEURONS), [(1, 2)])))
    save_reward_model(model, tokenizer, tmp_path / "rm")
    assert not (tmp_path / "rm" / "neuron_mask.safetensors").exists()

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match="No space"):
        save_reward_model(make_model("llama", seed=1), tokenizer, tmp_path / "rm")
    assert rewards(load_reward_model(tmp_path / "rm")) == pytest.approx(rewards(model), rel=1e-5)


def test_new_reward_models_head_depends_on_the_seed_alone(base_folder):
    torch.manual_seed(1)
    one = new_reward_model(base_folder, seed=5, pad_token_id=1)
    torch.manual_seed(2)
    same, other = new_reward_model(base_folder, seed=5), new_reward_model(base_folder, seed=6)
    assert torch.equal(one.score.weight, same.score.weight) and not torch.equal(one.score.weight, other.score.weight)
    expected = torch.randn(1, 32, generator=torch.Generator().manual_seed(5)) * 0.02
    assert torch.equal(one.score.weight.data, expected)
    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32} and one.config.pad_token_id == 1
    backbone = load_base_model(base_folder)
    assert all(torch.equal(t, one.model.state_dict()[name]) for name, t in backbone.state_dict().items())


def test_bfloat16_keeps_the_head_and_the_rotary_frequencies_in_float32(tokenizer, tmp_path):
    model = make_model("llama")
    save_reward_model(model, tokenizer, tmp_path / "rm")
    loaded = load_reward_model(tmp_path / "rm", dtype="bfloat16")
    assert torch.equal(reward_head(loaded).weight, model.score.weight)
    assert loaded.model.layers[0].mlp.down_proj.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert rewards(loaded).dtype == torch.float32
    assert rewards(loaded) == pytest.approx(rewards(model), abs=0.5)
    with pytest.raises(ValueError, match="dtype: expected one of .*'bfloat16'.*got 'int8'"):
        load_reward_model(tmp_path / "rm", dtype="int8")


def test_what_is_not_a_reward_model_is_refused(base_folder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="expected a reward model with one label.*score.weight"):
        load_reward_model(base_folder)
    with pytest.raises(ValueError, match="expected a reward model with a one-label head"):
        reward_head(load_base_model(base_folder))
    with pytest.raises(ValueError, match="expected a reward model"):
        save_reward_model(load_base_model(base_folder), tokenizer, tmp_path / "no")
    model = make_model("llama")
    with pytest.raises(ValueError, match=r"neuron mask: expected shape .* \(3, 48\), got \(3, 2\)"):
        save_reward_model(model, tokenizer, tmp_path / "no", NeuronMask(NeuronSet.of((3, 2), [(0, 1)])))
    assert not (tmp_path / "no").exists()


def test_missing_and_broken_folders_are_named(base_folder, tmp_path):
    for load in (load_reward_model, load_base_model, load_tokenizer):
        with pytest.raises(FileNotFoundError, match="expected a model folder, but .*nowhere does not exist"):
            load(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="expected a model folder"):
            load("runs/tiny/nowhere")
    weights = load_file(base_folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.down_proj.weight")
    save_file(weights, base_folder / "model.safetensors", metadata={"format": "pt"})
    for load in (load_base_model, lambda folder: new_reward_model(folder, 0)):
        with pytest.raises(ValueError, match="1 are missing.*down_proj"):
            load(base_folder)


def test_tokenizers_need_eos_and_padding(tmp_path):
    backend = make_tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(tmp_path / "no_pad")
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>").save_pretrained(tmp_path / "no_eos")
    with pytest.raises(ValueError, match="no padding token; set `pad_token` .* or pass pad_with_eos=True"):
        load_tokenizer(tmp_path / "no_pad")
    assert load_tokenizer(tmp_path / "no_pad", pad_with_eos=True).pad_token == "<eos>"
    with pytest.raises(ValueError, match="has no EOS token"):
        load_tokenizer(tmp_path / "no_eos")
    assert json.loads((tmp_path / "no_eos" / "tokenizer_config.json").read_text())["pad_token"] == "<pad>"
