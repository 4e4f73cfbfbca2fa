"""Dot products and cosines by hand, gradients against torch.autograd on plain forwards, on every architecture."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, make_model, make_tokenizer

from tension_utils import geometry
from tension_utils.architectures import architecture_of
from tension_utils.config import EngineConfig
from tension_utils.cosines import GRADIENTS, cosine_table, objective_cosines
from tension_utils.engine.packing import prepare_items
from tension_utils.geometry import GradientConfig, dot_products, dot_table, mean_loss_gradients, parameter_places

PAIRS = [item for item in ITEMS if len(item.responses) == 2]
SIZES = {  # parameters per part with width 32, 48 neurons, 4 heads, 340 tokens, 128 positions
    "llama": {"attention": 3072, "mlp_up": 3072, "mlp_down": 1536, "norm": 64, "embedding": 10880, "final": 32},
    "qwen3": {"attention": 3072, "mlp_up": 3072, "mlp_down": 1536, "norm": 80, "embedding": 10880, "final": 32},
    "gpt2": {"attention": 4224, "mlp_up": 1584, "mlp_down": 1568, "norm": 128, "embedding": 14976, "final": 64},
    "gpt_neox": {"attention": 4224, "mlp_up": 1584, "mlp_down": 1568, "norm": 128, "embedding": 10880, "final": 64},
}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_parameter_has_its_place(model_type):
    model = make_model(model_type)
    places = parameter_places(model)
    assert set(places) == {name for name, _ in model.named_parameters()}
    for name, place in places.items():
        layers = [part for part in name.split(".") if part.isdigit()]
        assert place[0] == (int(layers[0]) if layers else -1)
        assert ("norm" in name or ".ln_" in name) == (place[1] == "norm")
    architecture = architecture_of(model)
    by_id = {id(parameter): places[name] for name, parameter in model.named_parameters()}
    for part, kind in {"up": "mlp_up", "gate": "mlp_up", "down": "mlp_down", "attention_output": "attention"}.items():
        for layer, module in enumerate(architecture.parts_of(model, part) if getattr(architecture, part) else []):
            assert {by_id[id(parameter)] for parameter in module.parameters()} == {(layer, kind)}
    assert by_id[id(model.score.weight)] == (-1, "head")


@pytest.mark.parametrize("model_type", SIZES)
def test_sizes_of_parts_by_hand(model_type):
    model, sizes = make_model(model_type), dict(SIZES[model_type])
    table = dot_table(model, ["ones"], lambda _, parameter: [torch.ones_like(parameter)])
    assert (table["dot"] == table.n_parameters).all()
    outside = {"norm": sizes.pop("final"), "embedding": sizes.pop("embedding"), "head": 32}
    for layer, own in table.groupby("layer"):
        assert dict(zip(own.part, own.n_parameters, strict=True)) == (outside if layer == -1 else sizes)
    assert table.n_parameters.sum() == sum(parameter.numel() for parameter in model.parameters())


def test_an_unknown_part_is_refused():
    model = make_model("llama")
    model.model.layers[1].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"model.layers.1.extra: expected a module of one of the parts attention, mlp"):
        parameter_places(model)


def test_dot_products_do_not_depend_on_chunks(monkeypatch):
    vectors = [torch.randn(7, 11, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    expected = np.array([[(a.double() * b.double()).sum().item() for a in vectors] for b in vectors])
    assert dot_products(vectors) == pytest.approx(expected)
    monkeypatch.setattr(geometry, "CHUNK", 10)
    assert dot_products(vectors) == pytest.approx(expected)
    large = [torch.full((10,), 1e8), torch.full((10,), 1.0)]
    large[1][0] = 1e-3
    assert dot_products(large)[1, 1] == pytest.approx(9 + 1e-6, rel=1e-12), "sums are float64"


def dots_of(vectors, layers):
    """Rows of dots for vectors whose entries belong to (layer, part) places, one entry each."""
    names, rows = list(vectors), []
    for i, first in enumerate(names):
        for second in names[i:]:
            for (layer, part), a, b in zip(layers, vectors[first], vectors[second], strict=True):
                row = {"layer": layer, "part": part, "first": first, "second": second, "dot": a * b}
                rows.append(row | {"n_parameters": 1})
    return pd.DataFrame(rows).assign(base_model="m", seed=0)


def test_cosines_by_hand():
    places = [(0, "attention"), (0, "mlp_up"), (1, "attention")]
    dots = dots_of({"x": (3.0, 4.0, 0.0), "y": (4.0, 3.0, 0.0), "z": (-3.0, 4.0, 12.0)}, places)
    whole = cosine_table(dots, by=()).set_index(["first", "second"])
    assert whole.cosine["x", "y"] == pytest.approx(24 / 25) and whole.cosine["x", "z"] == pytest.approx(7 / (5 * 13))
    assert whole.first_norm["x", "z"] == 5 and whole.second_norm["x", "z"] == 13
    assert len(whole) == 3 and (whole.n_parameters == 3).all()
    by_layer = cosine_table(dots, by=("layer",)).set_index(["layer", "first", "second"]).cosine
    assert by_layer[0, "x", "z"] == pytest.approx(7 / 25) and np.isnan(by_layer[1, "x", "z"])
    by_place = cosine_table(dots).set_index(["layer", "part", "first", "second"]).cosine
    assert by_place[0, "attention", "x", "z"] == -1 and by_place[0, "mlp_up", "x", "z"] == 1
    with pytest.raises(ValueError, match="by: expected one of layer, part; got 'head'"):
        cosine_table(dots, by=("head",))


def test_objective_cosines_by_hand():
    vectors = dict(zip(GRADIENTS, [(3.0, 1.0), (3.0, -1.0), (-1.0, 2.0), (-1.0, 0.0)], strict=True))
    (row,) = objective_cosines(dots_of(vectors, [(0, "norm"), (1, "norm")]), by=()).itertuples()
    # means (3, 0) and (-1, 1); a . b is 8 and 1
    assert row.cosine == pytest.approx(-1 / np.sqrt(2))
    assert row.corrected_cosine == pytest.approx(-3 / np.sqrt(8 * 1))
    assert row.helpful_halves_cosine == pytest.approx(0.8) and row.n_parameters == 2
    assert row.harmless_halves_cosine == pytest.approx(1 / np.sqrt(5))


def test_correction_removes_the_noise_of_the_pairs():
    rng = np.random.default_rng(0)
    shared, n = rng.normal(size=20_000), 20_000
    truth = {"helpful": shared, "harmless": -0.5 * shared + rng.normal(size=n) * np.sqrt(0.75)}
    vectors = {name: truth[name.rpartition("-")[0]] + 2 * rng.normal(size=n) for name in GRADIENTS}
    products = [
        {"layer": 0, "part": "norm", "first": a, "second": b, "dot": vectors[a] @ vectors[b], "n_parameters": n}
        for i, a in enumerate(GRADIENTS)
        for b in GRADIENTS[i:]
    ]
    (row,) = objective_cosines(pd.DataFrame(products).assign(base_model="m", objective="x", seed=0)).itertuples()
    assert row.cosine == pytest.approx(-0.5 / 3, abs=0.03) and row.corrected_cosine == pytest.approx(-0.5, abs=0.06)
    assert row.layer == 0 and row.part == "norm" and row.objective == "x"


def slow_gradients(model, pairs):
    """Gradients of the mean loss from one plain, unpadded forward per sequence."""
    model.zero_grad()
    margins = [
        model(torch.tensor([chosen])).logits[0, 0] - model(torch.tensor([rejected])).logits[0, 0]
        for chosen, rejected in (pair.tokens.sequences for pair in pairs)
    ]
    torch.nn.functional.softplus(-torch.stack(margins)).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_gradients_equal_autograd_on_plain_forwards(model_type):
    tokenizer = make_tokenizer(pad_is_eos=False)
    model = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    model.score.weight.data *= 0.05  # margins of order 1: the loss is curved, so the mean over batches matters
    pairs = prepare_items(tokenizer, PAIRS, MAX_LENGTH)
    expected = slow_gradients(model, pairs)
    model.zero_grad()
    for budget in (1, 10_000):
        found = mean_loss_gradients(model, pairs, tokens_per_batch=budget)
        assert set(found) == set(expected) and all(gradient.dtype == torch.float32 for gradient in found.values())
        for name, gradient in found.items():
            scale = expected[name].abs().max().item()
            assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-7), name
    assert all(parameter.grad is None for parameter in model.parameters()), "the model is left as it was"


def test_gradients_of_the_bf16_copy_are_close_and_float32():
    tokenizer, model = make_tokenizer(), make_model("llama")
    model.score.weight.data *= 0.05
    pairs = prepare_items(tokenizer, PAIRS, MAX_LENGTH)
    exact, rough = (mean_loss_gradients(model, pairs, is_bfloat16=flag) for flag in (False, True))
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    flat = [torch.cat([gradient.flatten() for gradient in found.values()]) for found in (exact, rough)]
    assert not torch.equal(*flat) and torch.cosine_similarity(*flat, dim=0) > 0.98


def test_bad_input_of_gradients_is_refused():
    model = make_model("llama")
    with pytest.raises(ValueError, match="expected at least one pair and float32 weights; got 0 pairs"):
        mean_loss_gradients(model, [])
    pairs = prepare_items(make_tokenizer(), PAIRS, MAX_LENGTH)
    with pytest.raises(ValueError, match="float32 weights; got 4 pairs, .*torch.bfloat16"):
        mean_loss_gradients(model.to(torch.bfloat16), pairs)
    with pytest.raises(ValueError, match="n_items: expected an even number, for two equal halves; got 7"):
        GradientConfig(EngineConfig(n_items=7))
