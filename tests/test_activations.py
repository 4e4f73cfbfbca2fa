"""Neuron scores against independent slow code, attribution against finite differences, and a planted neuron."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from safetensors.numpy import save_file
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, N_NEURONS, make_model, make_tokenizer, tokenized

from tension_utils import activations as moments
from tension_utils.activations import (
    KINDS,
    TEXT_KINDS,
    neuron_scores,
    neuron_scores_many,
    split_half_scores,
    text_scores,
)
from tension_utils.architectures import architecture_of
from tension_utils.config import SCOPES
from tension_utils.data import Item, Turn
from tension_utils.engine.packing import prepare_items, read_position
from tension_utils.evaluation import score_items
from tension_utils.neurons import top_neurons
from tension_utils.scores import NeuronScores

OPTIONS = {"max_length": MAX_LENGTH, "progress": False}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def slow_activations(model, sequence, site):
    """Activations (L, T, N) of one unbatched sequence, written out by hand for each kind of MLP."""
    inputs, layers = {}, architecture_of(model).layers_of(model)
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _, args, i=i: inputs.__setitem__(i, args[0]))
        for i, layer in enumerate(layers)
    ]
    with torch.no_grad():
        model(torch.tensor([sequence]))
    for handle in handles:
        handle.remove()
    values = []
    with torch.no_grad():
        for i, layer in enumerate(layers):
            mlp, x = layer.mlp, inputs[i][0]
            if hasattr(mlp, "gate_proj"):
                gate = mlp.gate_proj(x)
                is_gemma = model.config.model_type == "gemma3_text"
                gate = functional.gelu(gate, approximate="tanh") if is_gemma else functional.silu(gate)
                values.append(gate * mlp.up_proj(x) if site == "down_input" else gate)
            elif hasattr(mlp, "c_fc"):
                values.append(mlp.act(x @ mlp.c_fc.weight + mlp.c_fc.bias))
            else:
                values.append(mlp.act(mlp.dense_h_to_4h(x)))
    return torch.stack(values)


def in_scope(tokens, index, scope, pad):
    sequence = tokens.sequences[index]
    read = read_position(sequence, pad)
    return {
        "all": range(len(sequence)),
        "response": range(tokens.response_starts[index], len(sequence)),
        "last": range(read, read + 1),
    }[scope]


def slow_scores(model, base, tokens_of_items, site, scope, pad):
    """Every kind but attribution, one sequence at a time, all activations kept."""
    sides, before, changes = ({"chosen": [], "rejected": []} for _ in range(3))
    for tokens in tokens_of_items:
        for index, sequence in enumerate(tokens.sequences):
            side = "chosen" if index < tokens.n_chosen else "rejected"
            positions = list(in_scope(tokens, index, scope, pad))
            values = slow_activations(model, sequence, site)[:, positions]
            sides[side].append(values)
            before[side].append(slow_activations(base, sequence, site)[:, positions])
            changes[side].append(values - before[side][-1])
    result, sizes = {}, {}
    for side in sides:
        sizes[side] = torch.cat(before[side], 1).double().abs().mean(1)
        values, change = torch.cat(sides[side], 1).double(), torch.cat(changes[side], 1).double()
        result["signed_mean", side] = values.mean(1)
        result["mean_abs", side] = values.abs().mean(1)
        result["rms", side] = (values**2).mean(1).sqrt()
        result["frequency", side] = (values > 0).double().mean(1)
        result["rms_change", side] = (change**2).mean(1).sqrt()
    for kind in ("signed_mean", "mean_abs", "rms", "frequency", "rms_change"):
        result[kind, "both"] = (result[kind, "chosen"] + result[kind, "rejected"]) / 2
    sizes["both"] = (sizes["chosen"] + sizes["rejected"]) / 2
    for side, size in sizes.items():
        result["relative_change", side] = result["rms_change", side] / size
    result["contrast", "both"] = result["signed_mean", "chosen"] - result["signed_mean", "rejected"]
    result["absolute_contrast", "both"] = result["contrast", "both"].abs()
    return result


def attributed_positions(tokens, index, scope, pad):
    """A shared token is in scope where it is in the scope of any sequence that shares it."""
    positions = set(in_scope(tokens, index, scope, pad))
    for other in range(len(tokens.sequences)):
        positions |= {p for p in in_scope(tokens, other, scope, pad) if p < tokens.n_shared}
    return sorted(positions)


def with_graph(model, modules, sequence):
    """The reward of a sequence and what each module's neurons were, all with gradients."""
    kept, is_down = {}, not isinstance(modules[0], type(architecture_of(model).parts_of(model, "activation")[0]))

    def keep(module, args, output):
        kept[modules.index(module)] = args[0] if is_down else output

    handles = [module.register_forward_hook(keep) for module in modules]
    reward = model(torch.tensor([sequence])).logits[0, 0]
    for handle in handles:
        handle.remove()
    return reward, [kept[layer] for layer in sorted(kept)]


def slow_attribution(model, tokens_of_items, site, scope, pad):
    """Gradient x activation with one autograd graph per sequence and the whole model's gradients on."""
    architecture = architecture_of(model)
    part = "down" if site == "down_input" else "activation"
    total = torch.zeros(len(architecture.layers_of(model)), N_NEURONS, dtype=torch.float64)
    for tokens in tokens_of_items:
        runs = [with_graph(model, architecture.parts_of(model, part), sequence) for sequence in tokens.sequences]
        m = tokens.n_chosen
        worst = min(range(m), key=lambda i: runs[i][0].item())
        best = max(range(m, len(runs)), key=lambda i: runs[i][0].item())
        for index, sign in ((worst, 1), (best, -1)):
            reward, activations = runs[index]
            positions = attributed_positions(tokens, index, scope, pad)
            gradients = torch.autograd.grad(reward, activations)
            for layer, (a, g) in enumerate(zip(activations, gradients, strict=True)):
                total[layer] += sign * (a * g)[0, positions].sum(0).detach().double()
    return total / len(tokens_of_items)


@pytest.mark.parametrize("site", ["down_input", "gate"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_kind_equals_the_slow_version(tokenizer, model_type, site):
    model, base = make_model(model_type), make_model(model_type, seed=1)
    tokens = tokenized(tokenizer)
    scores = neuron_scores(
        model,
        tokenizer,
        ITEMS,
        base_model=base.base_model,
        kinds=KINDS,
        site=site,
        scope=SCOPES,
        tokens_per_batch=200,
        **OPTIONS,
    )
    for scope in SCOPES:
        expected = slow_scores(model, base, tokens, site, scope, 0)
        for (kind, side), values in expected.items():
            got = scores.get(kind, side, scope)
            assert got.dtype == np.float32 and got.shape == (3, N_NEURONS)
            assert got == pytest.approx(values.numpy(), rel=1e-4, abs=1e-5), (kind, side, scope)
        attribution = slow_attribution(model, tokens, site, scope, 0).numpy()
        tolerance = 1e-4 * np.abs(attribution).max()
        assert scores.get("attribution", "both", scope) == pytest.approx(attribution, rel=1e-3, abs=tolerance)
        assert {kind for kind, _, _ in scores.tensors} == {kind for kind, _ in expected} | {"attribution"}
    assert scores.n_items == len(ITEMS) and scores.n_tokens == sum(len(s) for t in tokens for s in t.sequences)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_head_changes_equal_norms_of_one_plain_pass_each(tokenizer, model_type):
    """As published: the mean over tokens of the L2 norm of what a head gives to the output projection, minus before."""
    model, base = make_model(model_type), make_model(model_type, seed=1)

    def given(each, sequence):
        """(L, T, heads, width) of one sequence."""
        layers = {}
        modules = architecture_of(each).parts_of(each, "attention_output")
        handles = [
            module.register_forward_pre_hook(lambda _, args, i=i: layers.__setitem__(i, args[0][0]))
            for i, module in enumerate(modules)
        ]
        with torch.no_grad():
            each(torch.tensor([sequence]))
        for handle in handles:
            handle.remove()
        values = torch.stack([layers[i] for i in sorted(layers)])
        return values.view(*values.shape[:2], 4, -1)

    norms = {"chosen": [], "rejected": []}
    for tokens in tokenized(tokenizer):
        for index, sequence in enumerate(tokens.sequences):
            change = given(model, sequence) - given(base, sequence)
            norms["chosen" if index < tokens.n_chosen else "rejected"].append((change**2).sum(-1).sqrt())
    means = [torch.cat(own, 1).mean(1) for own in norms.values()]
    roots = [(torch.cat(own, 1) ** 2).mean(1).sqrt() for own in norms.values()]
    kinds = ["signed_mean", "rms"]
    scores = neuron_scores(model, tokenizer, ITEMS, base_model=base.base_model, kinds=kinds, site="heads", **OPTIONS)
    for kind, (chosen, rejected) in zip(kinds, (means, roots), strict=True):
        assert scores.get(kind).shape == (3, 4)
        assert scores.get(kind) == pytest.approx(((chosen + rejected) / 2).numpy(), rel=1e-4)
        assert scores.get(kind, "chosen") == pytest.approx(chosen.numpy(), rel=1e-4)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "olmo2", "gemma3_text", "gpt_neox"])
def test_attribution_is_the_slope_of_the_margin_in_the_neurons_scale(tokenizer, model_type):
    model = make_model(model_type).double()
    attribution = neuron_scores(model, tokenizer, ITEMS, kinds=["attribution"], **OPTIONS).get("attribution")

    def mean_margin(layer, index, scale):
        down = architecture_of(model).parts_of(model, "down")[layer]
        column = (down.weight if isinstance(down, torch.nn.Linear) else down.weight.T)[:, index]
        with torch.no_grad():
            before = column.clone()
            column.mul_(scale)
            rewards = score_items(model, tokenizer, ITEMS, **OPTIONS)
            column.copy_(before)
        return np.mean([item.margin for item in rewards])

    for layer, index in [(0, 3), (1, 17), (2, 40)]:
        slope = (mean_margin(layer, index, 1.01) - mean_margin(layer, index, 0.99)) / 0.02
        assert attribution[layer, index] == pytest.approx(slope, rel=0.02, abs=1e-3)


def planted_model(tokenizer, word):
    """A llama in which one neuron fires on a word's token and alone writes along the reward direction."""
    model = make_model("llama")
    layer, index, token = 1, 29, tokenizer(word)["input_ids"]
    assert len(token) == 1
    with torch.no_grad():
        for module in model.modules():  # silence what the other parts write
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(0.05)
        direction, reward = torch.zeros(32), torch.zeros(32)
        direction[5], reward[9] = 1.0, 1.0
        model.model.embed_tokens.weight[:, [5, 9]] = 0
        model.model.embed_tokens.weight[token[0]] = direction * 4
        mlp = model.model.layers[layer].mlp
        mlp.gate_proj.weight[index] = direction * 0.5
        mlp.up_proj.weight[index] = direction * 0.5
        mlp.down_proj.weight[:, index] = reward * 0.3  # small, or the final norm saturates
        model.score.weight[:] = reward
    return model, (layer, index)


def test_a_planted_neuron_is_found_first(tokenizer):
    word = "Z"
    model, neuron = planted_model(tokenizer, word)
    prompts = ["How do I bake bread?", "Is it safe to climb?", "Hi there", "What then"]
    items = [Item(p, (Turn("human", p),), (f"Ask {word}",), ("I cannot help",)) for p in prompts]
    assert all(item.margin > 0 for item in score_items(model, tokenizer, items, **OPTIONS))
    scores = neuron_scores(model, tokenizer, items, kinds=["attribution", "contrast"], scope=SCOPES, **OPTIONS)
    fraction = 1 / (3 * N_NEURONS)
    for kind in ("attribution", "contrast"):
        for scope in SCOPES:
            assert top_neurons(scores.get(kind, "both", scope), fraction).neurons == [neuron], (kind, scope)
    swapped = [Item(item.item_id, item.prompt, item.rejected, item.chosen) for item in items]
    turned = neuron_scores(model, tokenizer, swapped, kinds=["attribution", "contrast"], **OPTIONS)
    for kind in ("attribution", "contrast"):
        assert turned.get(kind) == pytest.approx(-scores.get(kind), abs=1e-5)


def test_several_models_share_the_pass_of_their_base(tokenizer, monkeypatch):
    base = make_model("llama", seed=9).base_model
    models = [make_model("llama", seed=seed) for seed in (0, 1)]
    calls, original = [], base.forward
    monkeypatch.setattr(base, "forward", lambda **kwargs: calls.append(1) or original(**kwargs))
    kinds = ["rms_change", "signed_mean"]
    many = neuron_scores_many(models, tokenizer, ITEMS, base_model=base, kinds=kinds, tokens_per_batch=9999, **OPTIONS)
    assert len(calls) == 1
    for model, scores in zip(models, many, strict=True):
        alone = neuron_scores(model, tokenizer, ITEMS, base_model=base, kinds=kinds, **OPTIONS)
        for key, values in alone.tensors.items():
            assert scores.tensors[key] == pytest.approx(values, rel=1e-5)


def test_halves_are_scored_as_alone_and_add_up_to_the_whole(tokenizer):
    model, base = make_model("llama"), make_model("llama", seed=9).base_model
    options = OPTIONS | {"kinds": KINDS, "scope": ["all", "last"], "base_model": base}
    whole, *halves = split_half_scores(model, tokenizer, ITEMS, **options)
    expected = [neuron_scores(model, tokenizer, part, **options) for part in (ITEMS, ITEMS[0::2], ITEMS[1::2])]
    for found, alone in zip((whole, *halves), expected, strict=True):
        assert (found.n_items, found.n_tokens) == (alone.n_items, alone.n_tokens)
        for key, values in alone.tensors.items():
            assert found.tensors[key] == pytest.approx(values, rel=1e-4, abs=1e-6), key
    assert (halves[0].get("mean_abs") != halves[1].get("mean_abs")).any()
    with pytest.raises(ValueError, match="at least two"):
        split_half_scores(model, tokenizer, ITEMS[:1], **OPTIONS)


def test_an_untrained_model_has_not_changed(tokenizer):
    model = make_model("gpt2")
    scores = neuron_scores(model, tokenizer, ITEMS, base_model=model.base_model, kinds=["rms_change"], **OPTIONS)
    assert not scores.get("rms_change").any()


TEXTS = ["How do I bake bread?", "I cannot help with that. Ask a guide, then climb. " * 9, "Hi"]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_plain_texts_are_scored_as_one_plain_pass_each(tokenizer, model_type):
    model, base = make_model(model_type), make_model(model_type, seed=1)
    options = {"tokens_per_batch": 80, "base_model": base.base_model} | OPTIONS
    scores = text_scores(model, tokenizer, TEXTS, kinds=TEXT_KINDS, **options)
    sequences = [[*tokenizer(text)["input_ids"][: MAX_LENGTH - 1], tokenizer.eos_token_id] for text in TEXTS]
    assert max(map(len, sequences)) == MAX_LENGTH and scores.n_tokens == sum(map(len, sequences))
    values, before = (
        torch.cat([slow_activations(each, s, "down_input") for s in sequences], 1).double() for each in (model, base)
    )
    change = ((values - before) ** 2).mean(1).sqrt()
    expected = {
        "signed_mean": values.mean(1),
        "mean_abs": values.abs().mean(1),
        "rms": (values**2).mean(1).sqrt(),
        "frequency": (values > 0).double().mean(1),
        "rms_change": change,
        "relative_change": change / before.abs().mean(1),
    }
    assert set(scores.tensors) == {(kind, "both", "all") for kind in expected}
    for kind, slow in expected.items():
        assert scores.get(kind) == pytest.approx(slow.numpy(), rel=1e-4, abs=1e-5), kind
    alone = text_scores(model.base_model, tokenizer, TEXTS, kinds="mean_abs", **OPTIONS)
    assert alone.get("mean_abs") == pytest.approx(scores.get("mean_abs"), rel=1e-5)


def test_plain_texts_have_no_kind_that_compares_responses(tokenizer):
    for kind in ("contrast", "absolute_contrast", "attribution"):
        with pytest.raises(ValueError, match=f"kinds of plain text: expected .*'rms'.*got \\['{kind}'\\]"):
            text_scores(make_model("llama"), tokenizer, TEXTS, kinds=["rms", kind], **OPTIONS)
    with pytest.raises(ValueError, match="empty one at place 1"):
        text_scores(make_model("llama"), tokenizer, ["a", ""], kinds="rms", **OPTIONS)


def test_a_neuron_that_was_silent_before_training_has_no_relative_change(tokenizer):
    model, base = make_model("llama"), make_model("llama", seed=1).base_model
    with torch.no_grad():
        base.layers[1].mlp.up_proj.weight[5] = 0
    kinds = ["relative_change", "rms_change"]
    scores = neuron_scores(model, tokenizer, ITEMS, base_model=base, kinds=kinds, scope=SCOPES, **OPTIONS)
    for (kind, side, scope), values in scores.tensors.items():
        assert np.isfinite(values).all() and (values > 0).sum() == values.size - (kind == "relative_change"), side
        assert values[1, 5] == 0 or kind == "rms_change", scope


def test_relative_change_alone_makes_the_base_pass_it_needs(tokenizer):
    model, base = make_model("llama"), make_model("llama", seed=1).base_model
    every = neuron_scores(model, tokenizer, ITEMS, base_model=base, kinds=KINDS, **OPTIONS)
    for kinds in ("relative_change", ("absolute_contrast",)):
        alone = neuron_scores(model, tokenizer, ITEMS, base_model=base, kinds=kinds, **OPTIONS)
        for key, values in alone.tensors.items():
            assert values == pytest.approx(every.tensors[key], rel=1e-5, abs=1e-7), key


def test_a_base_model_without_head_has_scores(tokenizer):
    model = make_model("llama")
    alone = neuron_scores(model.base_model, tokenizer, ITEMS, scope=SCOPES, **OPTIONS)
    whole = neuron_scores(model, tokenizer, ITEMS, scope=SCOPES, **OPTIONS)
    assert all(np.array_equal(alone.tensors[key], whole.tensors[key]) for key in whole.tensors)


def test_attribution_works_inside_inference_mode(tokenizer):
    model = make_model("llama")
    expected = neuron_scores(model, tokenizer, ITEMS, kinds="attribution", **OPTIONS).get("attribution")
    with torch.inference_mode():
        got = neuron_scores(model, tokenizer, ITEMS, kinds="attribution", **OPTIONS).get("attribution")
    assert np.array_equal(got, expected)


def test_batches_and_chunks_do_not_matter(tokenizer, monkeypatch):
    model = make_model("qwen3")
    whole = neuron_scores(model, tokenizer, ITEMS, kinds=["rms", "attribution"], tokens_per_batch=9999, **OPTIONS)
    monkeypatch.setattr(moments, "CHUNK", 7)
    small = neuron_scores(model, tokenizer, ITEMS, kinds=["rms", "attribution"], tokens_per_batch=1, **OPTIONS)
    for key, values in whole.tensors.items():
        assert small.tensors[key] == pytest.approx(values, rel=1e-4, abs=1e-5)


def test_the_model_is_left_as_it_was(tokenizer):
    model = make_model("llama")
    model.score.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    neuron_scores(model, tokenizer, ITEMS, kinds=["attribution", "rms"], **OPTIONS)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.base_model.layers.modules())


def test_running_out_of_memory_counts_no_batch_twice(tokenizer, monkeypatch):
    model = make_model("llama")
    expected = neuron_scores(model, tokenizer, ITEMS, **OPTIONS)
    last, original = model.model.layers[-1], model.model.layers[-1].forward

    def limited(hidden, *args, **kwargs):
        if hidden.shape[1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(hidden, *args, **kwargs)

    monkeypatch.setattr(last, "forward", limited)
    scores = neuron_scores(model, tokenizer, ITEMS, tokens_per_batch=400, **OPTIONS)
    for key, values in expected.tensors.items():
        assert scores.tensors[key] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_saved_scores_come_back(tokenizer, tmp_path):
    scores = neuron_scores(make_model("gpt2"), tokenizer, ITEMS, scope=["all", "last"], **OPTIONS)
    scores.save(tmp_path / "scores.safetensors")
    loaded = NeuronScores.load(tmp_path / "scores.safetensors")
    assert (loaded.site, loaded.n_items, loaded.n_tokens) == (scores.site, scores.n_items, scores.n_tokens)
    assert loaded.tensors.keys() == scores.tensors.keys()
    assert all(np.array_equal(loaded.tensors[key], scores.tensors[key]) for key in scores.tensors)
    with pytest.raises(KeyError, match=r"no scores rms/both/response; there are .*rms/both/all"):
        loaded.get("rms", "both", "response")


def test_bad_input_is_refused_with_what_was_expected(tokenizer, tmp_path):
    model = make_model("llama")
    for options, message in [
        ({"kinds": ["absolute"]}, "kinds: expected at least one of .*'signed_mean'.*got \\['absolute'\\]"),
        ({"kinds": []}, "kinds: expected at least one"),
        ({"scope": "prompt"}, "scope: expected at least one of .*'response'.*got \\['prompt'\\]"),
        ({"site": "up"}, "site: expected one of .*'gate'"),
        ({"kinds": ["rms_change"]}, "pass it as base_model"),
        ({"kinds": ["signed_mean"], "site": "heads"}, "pass it as base_model"),
        (
            {"kinds": ["rms_change", "rms"], "site": "heads"},
            "expected at heads one of signed_mean, rms; got rms_change",
        ),
        ({"kinds": ["relative_change"]}, "'relative_change'.*pass it as base_model"),
    ]:
        with pytest.raises(ValueError, match=message):
            neuron_scores(model, tokenizer, ITEMS, **options, **OPTIONS)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        neuron_scores(model, tokenizer, [], **OPTIONS)
    with pytest.raises(ValueError, match="one-label head"):
        neuron_scores(model.model, tokenizer, ITEMS, kinds=["attribution"], **OPTIONS)
    with pytest.raises(ValueError, match="models of one shape and padding token"):
        neuron_scores_many([model, make_model("llama", pad_token_id=1)], tokenizer, ITEMS, **OPTIONS)
    prepared = prepare_items(tokenizer, ITEMS[:1], MAX_LENGTH)
    save_file({"a": np.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="expected neuron scores"):
        NeuronScores.load(tmp_path / "x.safetensors")
    assert neuron_scores(model, tokenizer, prepared, **OPTIONS).n_items == 1
