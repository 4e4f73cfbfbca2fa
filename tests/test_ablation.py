"""Ablation against slow hooks on a plain forward, and that nothing is left behind."""

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, N_NEURONS, make_model, make_tokenizer, slow_rewards, tokenized

from tension_utils.ablation import ablated, activation_bank
from tension_utils.architectures import architecture_of
from tension_utils.evaluation import score_items
from tension_utils.masking import NeuronMask
from tension_utils.models import load_reward_model, save_reward_model
from tension_utils.neurons import NeuronSet, random_neurons

OPTIONS = {"max_length": MAX_LENGTH, "progress": False}
SHAPE = (3, N_NEURONS)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def neurons():
    return random_neurons(SHAPE, 0.3, np.random.default_rng(0))


@pytest.fixture
def means():
    return np.random.default_rng(1).normal(0, 0.5, SHAPE).astype(np.float32)


def engine_rewards(model, tokenizer):
    return np.concatenate([np.r_[r.chosen, r.rejected] for r in score_items(model, tokenizer, ITEMS, **OPTIONS)])


def hooked_rewards(model, tokenizer, part, mask, replace):
    """Plain unbatched forwards with a hook that calls ``replace(inputs, layer)`` on the masked inputs."""
    handles = []
    for layer, module in enumerate(architecture_of(model).parts_of(model, part)):
        columns = torch.from_numpy(mask[layer].copy())

        def hook(_, args, layer=layer, columns=columns):
            inputs = args[0].clone()
            inputs[..., columns] = replace(inputs, layer)[..., columns]
            return (inputs,)

        handles.append(module.register_forward_pre_hook(hook))
    rewards = [reward for tokens in tokenized(tokenizer) for reward in slow_rewards(model, tokens)]
    for handle in handles:
        handle.remove()
    return np.array(rewards)


def snapshot(model):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return {name: (id(t), t.clone()) for name, t in model.named_parameters()}, hooks


def assert_as_before(model, before):
    parameters, hooks = before
    now, hooks_now = snapshot(model)
    assert now.keys() == parameters.keys() and hooks == hooks_now
    for name, (identity, tensor) in parameters.items():
        assert now[name][0] == identity and torch.equal(now[name][1].view(torch.int32), tensor.view(torch.int32))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_ablated_equals_hooks_and_is_undone(model_type, kind, scale, tokenizer, neurons, means):
    model = make_model(model_type)
    before, intact = snapshot(model), engine_rewards(model, tokenizer)
    center = torch.from_numpy(means) if kind == "mean" else torch.zeros(SHAPE)
    expected = hooked_rewards(
        model, tokenizer, "down", neurons.mask, lambda x, layer: center[layer] + scale * (x - center[layer])
    )
    with ablated(model, neurons, kind, scale, means=means) as same:
        assert same is model
        got = engine_rewards(model, tokenizer)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert np.abs(got - intact).max() > 0.01, "the ablation matters"
    assert_as_before(model, before)
    assert np.array_equal(engine_rewards(model, tokenizer), intact)


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "olmo2", "gemma3_text", "gpt_neox"])
def test_resample_puts_in_the_drawn_rows_of_the_bank(model_type, scale, tokenizer, neurons):
    model = make_model(model_type)
    bank = activation_bank(model, tokenizer, ITEMS, np.random.default_rng(3), n_rows=9, **OPTIONS)
    assert bank.shape == (9, 3, N_NEURONS)
    generator, rows = np.random.default_rng(7), {}

    def replace(inputs, layer):
        if layer == 0:
            rows["now"] = generator.integers(9, size=inputs.shape[:-1])
        donors = bank[rows["now"], layer]
        return donors + scale * (inputs - donors)

    expected = hooked_rewards(model, tokenizer, "down", neurons.mask, replace)
    before = snapshot(model)
    with ablated(model, neurons, "resample", scale, bank=bank, generator=np.random.default_rng(7)):
        got = [reward for tokens in tokenized(tokenizer) for reward in slow_rewards(model, tokens)]
        packed = engine_rewards(model, tokenizer)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert np.isfinite(packed).all() and packed != pytest.approx(expected, rel=1e-3)  # other draws
    assert_as_before(model, before)


def test_the_bank_holds_activations_of_the_items(tokenizer):
    model, items = make_model("llama"), ITEMS[:1]
    bank = activation_bank(model, tokenizer, items, np.random.default_rng(0), n_rows=400, **OPTIONS)
    rows = torch.unique(bank.flatten(1).round(decimals=4), dim=0)
    (tokens,) = tokenized(tokenizer, items)
    n_stream = sum(map(len, tokens.sequences)) - tokens.n_shared
    assert len(rows) == pytest.approx(n_stream, abs=2)  # nearly every token is drawn, none else


def test_nested_contexts_and_errors_restore_bit_for_bit(tokenizer, neurons, means):
    for model_type in ("gpt2", "llama"):
        model = make_model(model_type)
        before, intact = snapshot(model), engine_rewards(model, tokenizer)
        other = random_neurons(SHAPE, 0.5, np.random.default_rng(5))
        with pytest.raises(ZeroDivisionError), ablated(model, neurons, "mean", means=means):
            outer = engine_rewards(model, tokenizer)
            with ablated(model, other, scale=0.3), ablated(model, neurons, "mean", means=means):
                assert not np.array_equal(engine_rewards(model, tokenizer), outer)
            assert np.array_equal(engine_rewards(model, tokenizer), outer)
            raise ZeroDivisionError
        assert_as_before(model, before)
        assert np.array_equal(engine_rewards(model, tokenizer), intact)


def test_zero_within_zero_is_the_union(tokenizer, neurons):
    model, other = make_model("olmo2"), random_neurons(SHAPE, 0.4, np.random.default_rng(8))
    with ablated(model, neurons), ablated(model, other):
        both = engine_rewards(model, tokenizer)
    with ablated(model, neurons | other):
        assert np.array_equal(engine_rewards(model, tokenizer), both)


def test_other_peoples_hooks_stay_and_see_the_intact_activations(tokenizer, neurons):
    model, seen = make_model("llama"), []
    down = model.model.layers[0].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().sum().item()))
    engine_rewards(model, tokenizer)
    with ablated(model, neurons):
        engine_rewards(model, tokenizer)
    assert seen[0] == seen[1] and list(down._forward_pre_hooks) == [handle.id]
    handle.remove()


def test_not_finite_weights_are_zeroed_and_restored(tokenizer):
    model = make_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data[0, 5] = torch.inf
    before = snapshot(model)
    with ablated(model, NeuronSet.of(SHAPE, [(0, 5)])):
        assert np.isfinite(engine_rewards(model, tokenizer)).all()
    assert_as_before(model, before)


def test_bfloat16_weights_are_restored_bit_for_bit(tokenizer, neurons, means):
    model = make_model("llama")
    model.model.to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with ablated(model, neurons, "mean", 0.7, means=means):
        engine_rewards(model, tokenizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "olmo2", "gemma3_text", "gpt_neox"])
def test_ablated_evaluates_like_an_edited_and_reloaded_checkpoint(model_type, tokenizer, neurons, tmp_path):
    model = make_model(model_type)
    with ablated(model, neurons):
        expected = engine_rewards(model, tokenizer)
    save_reward_model(model, tokenizer, tmp_path / "rm", NeuronMask(neurons))
    assert engine_rewards(load_reward_model(tmp_path / "rm"), tokenizer) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_all_scaled_by_one_and_the_empty_set_change_nothing(tokenizer):
    model = make_model("gpt_neox")
    intact = engine_rewards(model, tokenizer)
    with ablated(model, NeuronSet(np.ones(SHAPE, bool)), scale=1.0), ablated(model, NeuronSet(np.zeros(SHAPE, bool))):
        assert np.array_equal(engine_rewards(model, tokenizer), intact)


def test_bad_input_is_refused_and_leaves_the_model_alone(tokenizer, neurons, means):
    model = make_model("llama")
    before = snapshot(model)
    cases = [
        (neurons, {"kind": "remove"}, "ablation kind: expected one of .*'resample'.*got 'remove'"),
        (neurons, {"kind": "mean"}, "expected means of shape .3, 48., got None"),
        (neurons, {"kind": "mean", "means": means[:2]}, r"got \(2, 48\)"),
        (neurons, {"kind": "resample"}, "expected a generator and a bank"),
        (NeuronSet(np.ones((2, N_NEURONS), bool)), {}, "expected a set for 3 layers of .48. inputs"),
    ]
    for chosen, options, message in cases:
        with pytest.raises(ValueError, match=message), ablated(model, chosen, **options):
            pass
    assert_as_before(model, before)
