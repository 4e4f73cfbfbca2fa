"""Passes that skip the lower layers: the same bits, each layer computed once per batch."""

import pytest
import torch
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, N_NEURONS, make_model, make_tokenizer

from tension_utils.ablation import ablated
from tension_utils.architectures import architecture_of
from tension_utils.data import TokenizedItem
from tension_utils.engine.attention import LAYOUTS, packed_attention
from tension_utils.engine.lower_layers import LowerLayers
from tension_utils.engine.packing import PreparedItem, pack_items, prepare_items
from tension_utils.neurons import NeuronSet

FROM_LAYER = {n_layers: NeuronSet.of((3, N_NEURONS), [(n_layers, 1), (n_layers, 5), (2, 7)]) for n_layers in (0, 1, 2)}


@pytest.fixture(scope="module")
def prepared():
    return prepare_items(make_tokenizer(), ITEMS, MAX_LENGTH)


@pytest.fixture
def batches(prepared):
    """Two batches, the second with the first one's tokens and more."""
    return [pack_items(prepared[:2], 0), pack_items(prepared, 0)]


def hidden_states(model, batches, layout="packed_blocks"):
    with torch.inference_mode(), packed_attention(model, layout) as forward:
        return [forward(batch) for batch in batches]


def count_calls(model):
    """Count the passes through each layer's MLP from now on."""
    calls = [0, 0, 0]
    for layer, projection in enumerate(architecture_of(model).parts_of(model, "down")):
        projection.register_forward_pre_hook(lambda *_, layer=layer: calls.__setitem__(layer, calls[layer] + 1))
    return calls


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_bits_are_those_of_whole_passes(batches, model_type, n_layers, layout):
    model = make_model(model_type)
    lower = LowerLayers(model)
    neurons = FROM_LAYER[n_layers]
    for scale in (0.0, 0.0, 2.0):
        with ablated(model, neurons, scale=scale):
            expected = hidden_states(model, batches, layout)
            with lower.skipped(n_layers):
                found = hidden_states(model, batches, layout)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    intact = hidden_states(model, batches, layout)
    assert not torch.equal(intact[0], expected[0])
    with lower.skipped(n_layers):
        assert all(torch.equal(a, b) for a, b in zip(hidden_states(model, batches, layout), intact, strict=True))


def test_lower_layers_run_once_per_batch(batches):
    model = make_model("llama")
    calls, lower = count_calls(model), LowerLayers(model)
    for n_passes in (1, 2, 3):
        with lower.skipped(2):
            hidden_states(model, batches)
        assert calls == [2, 2, 2 * n_passes]
    hidden_states(model, batches)
    assert calls == [4, 4, 8], "outside the context every layer runs"
    with lower.skipped(1):
        hidden_states(model, batches)
    assert calls == [6, 6, 10], "what another number of layers gave is of no use"
    with lower.skipped(1):
        hidden_states(model, batches[::-1])
    assert calls == [6, 8, 12], "the order of the batches is free"


def test_what_finds_no_room_is_computed_again(batches):
    model = make_model("llama")
    expected = hidden_states(model, batches)
    room = 4 * 32 * len(batches[0].input_ids)  # float32 of the first batch
    for most_bytes, n_kept in ((0, 0), (room - 1, 0), (room, 1), (10**6, 2)):
        lower = LowerLayers(model, most_bytes)
        for _ in range(2):
            with lower.skipped(2):
                found = hidden_states(model, batches)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert len(lower.kept) == n_kept and lower.n_bytes <= most_bytes


def test_layers_are_left_as_they_were(batches):
    model = make_model("gpt_neox")
    lower, layers = LowerLayers(model), architecture_of(model).layers_of(model)
    with pytest.raises(ZeroDivisionError), lower.skipped(2):
        assert [("forward" in vars(layer)) for layer in layers] == [True, True, False]
        raise ZeroDivisionError
    assert not any("forward" in vars(layer) for layer in layers)


def test_batches_of_the_same_tokens_cut_otherwise_are_told_apart():
    model = make_model("llama")
    cut = [((5, 6, 7, 8, 0), (5, 6, 7, 9, 0)), ((5, 6, 7, 8, 0, 9, 0), (5, 6, 7))]  # one stream: 5 6 7 8 0 9 0
    prepared = [PreparedItem("x", TokenizedItem(sequences, 1, 3, (3, 3), 0)) for sequences in cut]
    batches = [pack_items([item], None) for item in prepared]
    assert batches[0].input_ids.tolist() == batches[1].input_ids.tolist()
    expected = hidden_states(model, batches)
    assert not torch.equal(*expected)
    lower = LowerLayers(model)
    for _ in range(2):
        with lower.skipped(2):
            found = hidden_states(model, batches)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
