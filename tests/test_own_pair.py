"""Own pairs: contributions against hand and slow integration, rewards against plain forwards."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, make_model, make_tokenizer, slow_rewards

from tension_utils.architectures import architecture_of
from tension_utils.config import OBJECTIVES, Run, list_runs
from tension_utils.data import Item, ResponseTooLongError, Turn, tokenize_item
from tension_utils.engine.packing import read_position
from tension_utils.evaluation import score_items
from tension_utils.models import save_reward_model
from tension_utils.show import widgets
from tension_utils.show.own_pair import (
    LoadedModel,
    integrated_gradients,
    load_models,
    pair_item,
    pair_margin,
    response_pieces,
    score_pair,
    token_contributions,
)

PAIR = ("How do I bake bread?", "Mix flour and water, then wait.", "I cannot help with that.")
ITEM = pair_item(*PAIR)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Integrated gradients --------------------------------------------------------------------------------------------


def test_product_by_hand():
    found, error = integrated_gradients(lambda x: x[:, 0] * x[:, 1], double(2, 3), double(0, 0))
    assert found.tolist() == pytest.approx([3, 3]) and error == pytest.approx(0, abs=1e-12)
    # from (1, 0): the gradient of x is 3 t, of y it is 1 + t
    found, _ = integrated_gradients(lambda x: x[:, 0] * x[:, 1], double(2, 3), double(1, 0))
    assert found.tolist() == pytest.approx([1.5, 4.5])


def test_a_linear_function_gives_each_input_its_term():
    weights = double(2, -1, 0, 0.5)
    found, error = integrated_gradients(lambda x: x @ weights + 7, double(1, 2, 3, 4), double(0, 1, 1, 8))
    assert found.tolist() == pytest.approx([2, -1, 0, -2]) and error == pytest.approx(0, abs=1e-12)


def network(seed: int, n_inputs: int):
    generator = torch.Generator().manual_seed(seed)
    inner, outer = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (n_inputs, 1))
    return lambda x: (torch.tanh(x @ inner) * outer).sum(-1)


def test_equals_a_slow_sum_of_finite_differences():
    function, inputs, baseline = network(0, 3), double(1.0, -2.0, 0.5), double(0.2, 0.1, -1.0)
    n_steps, step = 4000, 1e-6
    slow = np.zeros(3)
    for k in range(n_steps):
        at = baseline + (k + 0.5) / n_steps * (inputs - baseline)
        for i in range(3):
            shift = torch.zeros(3, dtype=torch.float64)
            shift[i] = step
            slow[i] += (function((at + shift)[None]) - function((at - shift)[None])).item() / (2 * step) / n_steps
    found, _ = integrated_gradients(function, inputs, baseline)
    assert found.numpy() == pytest.approx(slow * (inputs - baseline).numpy(), abs=1e-6)


points = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda values: double(*values))


@settings(max_examples=40)
@given(points, points, st.integers(0, 100))
def test_contributions_are_complete_and_idle_inputs_get_none(inputs, baseline, seed):
    function = network(seed, 3)

    def of_three(x: torch.Tensor) -> torch.Tensor:
        return function(x[:, :3])

    found, error = integrated_gradients(of_three, inputs, baseline, tolerance=1e-4)
    ends = of_three(torch.stack([inputs, baseline]))
    assert found.sum().item() == pytest.approx((ends[0] - ends[1]).item(), abs=2e-4)
    assert error == pytest.approx(found.sum().item() - (ends[0] - ends[1]).item(), abs=1e-9)
    assert found[3] == 0


def test_points_are_added_until_the_sum_fits():
    def steep(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(400 * (x[:, 0] - 0.37))

    few = integrated_gradients(steep, double(1), double(0), tolerance=1e-3, max_nodes=32)[1]
    enough = integrated_gradients(steep, double(1), double(0), tolerance=1e-3, max_nodes=4096)[1]
    assert abs(few) > 1e-2 and abs(enough) <= 1e-3


# Tokens ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def slow_baseline(model, sequence: tuple[int, ...], start: int) -> float:
    """Reward with the response's embeddings but EOS's replaced by the mean embedding, by way of the classifier."""
    embeddings = model.get_input_embeddings()(torch.tensor([sequence]))
    embeddings[:, start:-1] = model.get_input_embeddings()(torch.arange(340)).mean(0)
    hidden = model.base_model(inputs_embeds=embeddings).last_hidden_state
    return model.score(hidden[:, read_position(sequence, model.config.pad_token_id)]).item()


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_contributions_fit_every_architecture(model_type, pad_is_eos):
    tokenizer = make_tokenizer(pad_is_eos=pad_is_eos)
    model = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    tokens = tokenize_item(tokenizer, ITEM, MAX_LENGTH)
    found = token_contributions(model, tokenizer, ITEM, MAX_LENGTH)
    assert [one.reward for one in found] == pytest.approx(slow_rewards(model, tokens), rel=1e-4, abs=1e-5)
    for one, response, sequence, start in zip(
        found, ITEM.responses, tokens.sequences, tokens.response_starts, strict=True
    ):
        assert "".join(one.pieces) == f" {response}"
        assert len(one.values) == len(one.pieces) == len(sequence) - start - 1
        assert one.baseline_reward == pytest.approx(slow_baseline(model, sequence, start), rel=1e-4, abs=1e-5)
        assert one.error == pytest.approx(sum(one.values) - (one.reward - one.baseline_reward), abs=1e-6)
        assert abs(one.error) <= 0.05


def test_a_token_that_changes_nothing_gets_nothing():
    """With a head that reads one channel of the last token and no layers in between, only that token counts."""
    tokenizer, model = make_tokenizer(), make_model("llama")
    for layer in architecture_of(model).layers_of(model):
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            weight.data.zero_()
    (one, _) = token_contributions(model, tokenizer, ITEM, MAX_LENGTH)
    assert one.values[:-1] == pytest.approx([0] * (len(one.values) - 1), abs=1e-9)
    assert abs(one.values[-1]) > 0.1, "EOS is padding here, so the reward is read at the last word"


@pytest.mark.parametrize("joins_border", [False, True])
def test_pieces_spell_the_response(joins_border):
    tokenizer = make_tokenizer(joins_border=joins_border)
    for item in ITEMS:
        tokens = tokenize_item(tokenizer, item, MAX_LENGTH)
        for number, (sequence, start) in enumerate(zip(tokens.sequences, tokens.response_starts, strict=True)):
            pieces, response = response_pieces(tokenizer, item, number), item.responses[number]
            assert "".join(pieces) == f" {response}" and len(pieces) == len(sequence) - start - 1


def test_a_character_of_many_tokens_is_one_piece():
    tokenizer, model = make_tokenizer(), make_model("gpt2")
    item = Item("x", (Turn("human", "Hi"),), ("é 漢 🙂 Wait",), ("no",))
    split = response_pieces(tokenizer, item, 0)
    assert "" in split and "".join(split) == " é 漢 🙂 Wait"
    (one, _) = token_contributions(model, tokenizer, item, MAX_LENGTH)
    assert "".join(one.pieces) == " é 漢 🙂 Wait" and all(one.pieces)
    assert sum(one.values) == pytest.approx(one.reward - one.baseline_reward + one.error, abs=1e-6)


def test_a_chat_model_is_shown_in_its_own_template():
    tokenizer, model = make_tokenizer(), make_model("llama")
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>\n{% endfor %}"
    tokens = tokenize_item(tokenizer, ITEM, MAX_LENGTH, "chat")
    found = token_contributions(model, tokenizer, ITEM, MAX_LENGTH, "chat")
    assert [one.reward for one in found] == pytest.approx(slow_rewards(model, tokens), rel=1e-4, abs=1e-5)
    assert ["".join(one.pieces).strip("<>\n") for one in found] == list(ITEM.responses)
    loaded = LoadedModel(None, model, tokenizer, MAX_LENGTH, "chat")
    (scored,) = score_items(model, tokenizer, [ITEM], template="chat", progress=False)
    assert pair_margin(loaded, ITEM) == pytest.approx(scored.margin)
    assert pair_margin(loaded, ITEM) != pytest.approx(pair_margin(replace(loaded, template="hh"), ITEM))


# Pairs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Run]:
    """Three reward models on disk, as chapter 1 leaves them."""
    runs = list_runs(tmp_path_factory.mktemp("runs") / "x", ["toy"], list(OBJECTIVES), [3])
    for seed, run in enumerate(runs):
        save_reward_model(make_model("llama", seed=seed), make_tokenizer(), run.folder / "reward_model")
        (run.folder / "manifest.json").write_text(
            json.dumps({"train": {"config": {"data": {"max_length": MAX_LENGTH}}}})
        )
    return runs


@pytest.fixture(scope="module")
def models(runs):
    return load_models(runs)


@pytest.fixture(scope="module")
def scored(models):
    return score_pair(*PAIR, models)


def test_rewards_are_those_of_plain_forwards(models, scored):
    assert list(scored.rewards.objective) == list(OBJECTIVES)
    for loaded, row in zip(models, scored.rewards.itertuples(), strict=True):
        a, b = slow_rewards(loaded.model, tokenize_item(loaded.tokenizer, ITEM, MAX_LENGTH))
        assert (row.reward_A, row.reward_B, row.margin) == pytest.approx((a, b, a - b), rel=1e-4, abs=1e-4)
        assert row.prefers == ("A" if a > b else "B")
        assert row.from_tokens + row.from_length == pytest.approx(row.margin, abs=2 * scored.error + 1e-3)
    assert set(scored.tokens) == {(objective, side) for objective in OBJECTIVES for side in "AB"}


def test_models_are_as_before_and_a_second_call_agrees(models, scored):
    before = [copy.deepcopy(loaded.model.state_dict()) for loaded in models]
    again = score_pair(*PAIR, models)
    pd.testing.assert_frame_equal(again.rewards, scored.rewards)
    for loaded, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
        assert all(parameter.grad is None for parameter in loaded.model.parameters())


def test_swapped_responses_turn_every_sign(models, scored):
    swapped = score_pair(PAIR[0], PAIR[2], PAIR[1], models)
    assert swapped.rewards.margin.to_numpy() == pytest.approx(-scored.rewards.margin.to_numpy(), abs=1e-4)
    assert (swapped.rewards.prefers != scored.rewards.prefers).all()


def test_equal_responses_tie(models):
    same = score_pair("Hi", "Wait", "Wait", models[:1])
    assert same.rewards.margin[0] == 0 and same.rewards.prefers[0] == "neither"


def test_the_page_has_a_row_for_every_model_and_response(scored):
    page = widgets.pair_html(scored)
    assert page.count("<table") == 1 and page.count("<tr") == 1 + 2 * len(OBJECTIVES)
    for row in scored.rewards.itertuples():
        assert f"{row.reward_A:+.2f}" in page and f"{row.reward_B:+.2f}" in page


def test_hostile_texts_are_shown_as_text(models):
    hostile = "<img src=x onerror=alert(1)> <b>"
    page = widgets.pair_html(score_pair(hostile, hostile, f"{hostile} no", models[:1]))
    assert "<img" not in page and "<b>" not in page and "&lt;" in page


@pytest.mark.parametrize(
    ("texts", "named"), [((" ", "a", "b"), "prompt"), (("p", "", "\n"), "response A and response B")]
)
def test_empty_texts_are_refused(texts, named):
    with pytest.raises(ValueError, match=f"{named} is empty"):
        pair_item(*texts)


def test_what_is_too_long_or_missing_is_said(tmp_path, models):
    with pytest.raises(ResponseTooLongError, match="raise max_length or drop"):
        score_pair("Hi", "Wait " * 200, "no", models)
    with pytest.raises(FileNotFoundError, match="01_train"):
        load_models([Run(tmp_path, "toy", "helpful", 0)])
