"""Neuron masks: what they zero, what reaches the gradients, and that a checkpoint never comes back without its mask."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from tiny_models import ITEMS, MAX_LENGTH, N_NEURONS, make_model, make_tokenizer, slow_rewards, tokenized
from transformers import AutoModelForSequenceClassification

from tension_utils.architectures import architecture_of
from tension_utils.artifacts import file_hash
from tension_utils.evaluation import score_items
from tension_utils.masking import NEURON_MASK_FILE, NeuronMask, trained_without, zero_neurons
from tension_utils.models import load_base_model, load_reward_model, new_reward_model, save_reward_model
from tension_utils.neurons import NeuronSet

SHAPE = (3, N_NEURONS)
MODES = ("masked", "pruned")
TYPES = ("gpt2", "llama", "gemma3_text", "gpt_neox")
# Where the weights of neuron j of a layer are, written out here once more: parameter -> index.
PLACES = {
    "gpt2": {"mlp.c_fc.weight": (slice(None), "j"), "mlp.c_fc.bias": ("j",), "mlp.c_proj.weight": ("j", slice(None))},
    "llama": {
        "mlp.gate_proj.weight": ("j", slice(None)),
        "mlp.up_proj.weight": ("j", slice(None)),
        "mlp.down_proj.weight": (slice(None), "j"),
    },
    "gpt_neox": {
        "mlp.dense_h_to_4h.weight": ("j", slice(None)),
        "mlp.dense_h_to_4h.bias": ("j",),
        "mlp.dense_4h_to_h.weight": (slice(None), "j"),
    },
}
PLACES["gemma3_text"] = PLACES["llama"]
IDS = torch.tensor([[5, 9, 200, 77, 31], [8, 11, 4, 250, 19]])
every_type = pytest.mark.parametrize("model_type", TYPES)
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(pad_is_eos=False)


def some_neurons(seed=0):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.3
    mask[1] = False  # a layer without one
    return NeuronSet(mask)


def rewards(model):
    return model(IDS).logits[:, 0]


def parameters_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def expected_entries(model, model_type, neurons):
    """Return, by parameter name, a bool tensor that is True where a weight belongs to the set; loops over `PLACES`."""
    found = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    layers = "transformer.h" if model_type == "gpt2" else f"{model.base_model_prefix}.layers"
    for layer, index in neurons.neurons:
        for name, place in PLACES[model_type].items():
            found[f"{layers}.{layer}.{name}"][tuple(index if part == "j" else part for part in place)] = True
    return found


def zeroed_activations(model, neurons):
    """Return a context that zeroes, neuron by neuron, what the activation function gives: act(gate) or act(up)."""
    stack = ExitStack()

    def hook(layer):
        def zero(_module, _inputs, output):
            output = output.clone()
            for index in np.flatnonzero(neurons.mask[layer]):
                output[..., index] = 0
            return output

        return zero

    for layer, activation in enumerate(architecture_of(model).parts_of(model, "activation")):
        stack.callback(activation.register_forward_hook(hook(layer)).remove)
    return stack


@every_type
def test_zeroed_are_the_neurons_own_weights_and_nothing_else(model_type):
    model, neurons = make_model(model_type), some_neurons()
    before, entries = parameters_of(model), expected_entries(model, model_type, neurons)
    assert sum(int(e.sum()) for e in entries.values()) > 64 * len(neurons)
    zero_neurons(model, neurons)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name].masked_fill(entries[name], 0)), name


@every_type
@every_mode
def test_both_modes_compute_what_zeroed_activations_do(model_type, mode, tokenizer):
    model, neurons = make_model(model_type), some_neurons()
    with torch.no_grad():
        intact = rewards(model)
        with zeroed_activations(model, neurons):
            batch = rewards(model)
            one_by_one = [slow_rewards(model, tokens) for tokens in tokenized(tokenizer)]
        with trained_without(model, NeuronMask(neurons, mode)):
            assert torch.equal(rewards(model), batch) and not torch.allclose(batch, intact)
            scored = score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, progress=False)
    for expected, got in zip(one_by_one, scored, strict=True):
        assert [*got.chosen, *got.rejected] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@every_type
@every_mode
def test_no_gradient_reaches_the_neurons_and_all_others_get_theirs(model_type, mode):
    neurons, slow, model = some_neurons(), make_model(model_type), make_model(model_type)
    with zeroed_activations(slow, neurons):
        rewards(slow).square().sum().backward()
    with trained_without(model, NeuronMask(neurons, mode)):
        rewards(model).square().sum().backward()
    entries = expected_entries(model, model_type, neurons)
    for (name, parameter), reference in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert not parameter.grad[entries[name]].any(), name
        expected = reference.grad.masked_fill(entries[name], 0)
        assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-4), name
    assert any(parameter.grad[~entries[name]].any() for name, parameter in model.named_parameters())


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox"])  # without a gate; act(gate) * up is 0 for up = 0
def test_gradients_of_pruned_neurons_are_blocked_where_the_activation_is_not_zero_at_zero(model_type):
    model, neurons = make_model(model_type), some_neurons()
    for layer in architecture_of(model).layers_of(model):
        layer.mlp.act = torch.nn.Sigmoid()
    entries = expected_entries(model, model_type, neurons)

    def gradients(mask):
        model.zero_grad()
        with trained_without(model, mask):
            rewards(model).square().sum().backward()
        return torch.cat([parameter.grad[entries[name]] for name, parameter in model.named_parameters()])

    assert not gradients(NeuronMask(neurons, "pruned")).any()
    assert gradients(None).any(), "the weights are still 0, but no longer blocked"


@every_type
@every_mode
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_optimizer_moves_everything_but_the_neurons(model_type, mode, weight_decay):
    model, neurons = make_model(model_type), some_neurons()
    before, entries = parameters_of(model), expected_entries(model, model_type, neurons)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=weight_decay)
    with trained_without(model, NeuronMask(neurons, mode)):
        for _ in range(3):
            optimizer.zero_grad()
            rewards(model).square().sum().backward()
            optimizer.step()
    for name, parameter in model.named_parameters():
        kept = parameter[entries[name]]
        if mode == "pruned":
            assert not kept.any(), name
        elif not weight_decay:  # decay shrinks masked weights too; they are never read
            assert torch.equal(kept, before[name][entries[name]]), name
        if entries[name].any():
            assert not torch.equal(parameter[~entries[name]], before[name][~entries[name]]), name


@given(mask=hnp.arrays(bool, SHAPE))
@settings(max_examples=20)
def test_any_mask_gives_both_modes_one_function_and_masking_ends_with_its_context(mask):
    model, pruned = make_model("llama"), make_model("llama")
    with torch.no_grad():
        intact = rewards(model)
        with trained_without(model, NeuronMask(NeuronSet(mask))):
            masked = rewards(model)
        with trained_without(pruned, NeuronMask(NeuronSet(mask), "pruned")):
            assert torch.equal(rewards(pruned), masked)
        assert torch.equal(rewards(pruned), masked), "pruned weights stay 0"
        assert torch.equal(rewards(model), intact)


@every_mode
def test_an_error_ends_the_context_too_and_none_changes_nothing(mode):
    model = make_model("gpt2")
    with torch.no_grad():
        intact = rewards(model)
        with trained_without(model, None):
            assert torch.equal(rewards(model), intact)
    with pytest.raises(RuntimeError, match="stop"), trained_without(model, NeuronMask(some_neurons(), mode)):
        raise RuntimeError("stop")
    hooks = [module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks) and not any(parameter._backward_hooks for parameter in model.parameters())


@every_type
@every_mode
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_scores_bit_for_bit_as_at_the_end_of_training(model_type, mode, dtype, tokenizer, tmp_path):
    model, mask = make_model(model_type), NeuronMask(some_neurons(), mode)
    with trained_without(model, mask):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        rewards(model).square().sum().backward()
        optimizer.step()
        save_reward_model(model, tokenizer, tmp_path / "rm", mask)
        weights = file_hash(tmp_path / "rm")
        loaded = load_reward_model(tmp_path / "rm", dtype=dtype)
        for parameter in model.base_model.parameters():  # the model in memory, in the dtypes of inference
            parameter.data = parameter.data.to(getattr(torch, dtype))
        model.score = loaded.score
        with torch.no_grad():
            expected = rewards(model)
    with torch.no_grad():
        assert torch.equal(rewards(loaded), expected)
        assert file_hash(tmp_path / "rm") == weights, "loading writes nothing"
        if mode == "masked":  # the trap of fact 19: the weights alone are another model
            unmasked = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm", dtype=torch.float32)
            assert not torch.allclose(rewards(unmasked.eval()), expected, atol=0.1)


@every_mode
def test_every_loader_applies_the_mask_and_activations_are_zero(mode, tokenizer, tmp_path):
    model, neurons = make_model("gpt2"), some_neurons()
    with trained_without(model, NeuronMask(neurons, mode)):
        save_reward_model(model, tokenizer, tmp_path / "rm", NeuronMask(neurons, mode))
    seen = []
    for loaded in (
        load_reward_model(tmp_path / "rm"),
        load_base_model(tmp_path / "rm"),
        new_reward_model(tmp_path / "rm", 0),
    ):
        for down in architecture_of(loaded).parts_of(loaded, "down"):
            down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            loaded(IDS)
    assert len(seen) == 9
    for call, inputs in enumerate(seen):
        columns = torch.tensor(neurons.mask[call % 3])
        assert not inputs[..., columns].any() and inputs[..., ~columns].any()


def test_a_mask_that_is_lost_broken_or_of_another_model_is_an_error_that_names_the_file(tokenizer, tmp_path):
    model, mask = make_model("llama"), NeuronMask(some_neurons())
    save_reward_model(model, tokenizer, tmp_path / "rm", mask)
    file = tmp_path / "rm" / NEURON_MASK_FILE
    assert json.loads((tmp_path / "rm" / "config.json").read_text())["neuron_mask"] == "masked"
    broken = {
        "expected a neuron mask as save_reward_model writes": lambda: file.write_bytes(b"no safetensors"),
        "expected a neuron mask as save_reward_model .*'neurons'": lambda: save_file({"x": np.zeros((2, 2))}, file),
        "expected a neuron mask with mode masked or pruned; got None": lambda: mask.neurons.save(file),
        r"neuron mask: expected shape .* \(3, 48\), got \(2, 48\)": lambda: NeuronMask(
            NeuronSet(np.ones((2, N_NEURONS), bool))
        ).save(file),
    }
    for message, write in broken.items():
        write()
        for load in (load_reward_model, load_base_model):
            with pytest.raises(ValueError, match=f"{NEURON_MASK_FILE}: {message}"):
                load(tmp_path / "rm")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{NEURON_MASK_FILE} is missing, but config.json .* were masked in"):
        load_reward_model(tmp_path / "rm")
    for attempt in (
        lambda: save_reward_model(model, tokenizer, tmp_path / "no", NeuronMask(NeuronSet(np.ones((3, 2), bool)))),
        lambda: trained_without(model, NeuronMask(NeuronSet(np.ones((3, 2), bool)))).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"neuron mask: expected shape .* \(3, 48\), got \(3, 2\); the mask bel"):
            attempt()
    assert not (tmp_path / "no").exists()


def test_a_model_saved_again_without_its_mask_forgets_it(tokenizer, tmp_path):
    model = make_model("llama")
    save_reward_model(model, tokenizer, tmp_path / "masked", NeuronMask(some_neurons()))
    loaded = load_reward_model(tmp_path / "masked")
    save_reward_model(loaded, tokenizer, tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(rewards(load_reward_model(tmp_path / "again")), rewards(loaded)), "its weights are 0"
    assert not (tmp_path / "again" / NEURON_MASK_FILE).exists()


@every_mode
def test_a_mask_comes_back_from_its_file_and_its_label_tells_masks_apart(mode, tmp_path):
    mask = NeuronMask(some_neurons(), mode)
    mask.save(tmp_path / "mask.safetensors")
    again = NeuronMask.load(tmp_path / "mask.safetensors")
    assert again == mask and again.label == mask.label
    assert NeuronSet.load(tmp_path / "mask.safetensors") == mask.neurons
    other_shape = NeuronSet(mask.neurons.mask.reshape(6, N_NEURONS // 2))
    others = [NeuronMask(some_neurons(1), mode), NeuronMask(other_shape, mode)]
    others.append(NeuronMask(mask.neurons, MODES[mode == "masked"]))
    assert len({json.dumps(each.label) for each in (mask, *others)}) == 4
    assert mask.label["n_neurons"] == len(mask.neurons)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="mode: expected one of masked, pruned; got 'frozen'"):
        NeuronMask(some_neurons(), "frozen")
