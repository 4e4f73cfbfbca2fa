"""Rewards at every depth against plain transformers with output_hidden_states."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import COMMON, CONFIGS, ITEMS, MAX_LENGTH, make_model, make_tokenizer, tokenized

from tension_utils.analysis.accuracy import depth_accuracy
from tension_utils.data import Item, Turn
from tension_utils.depth import depth_rewards, observed_residuals, read_rewards
from tension_utils.engine.packing import prepare_items, read_position
from tension_utils.evaluation import score_items
from tension_utils.statistics import Bootstrap

FINAL_NORM = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
OPTIONS = {"max_length": MAX_LENGTH, "progress": False}
N_DEPTHS = COMMON["num_hidden_layers"] + 1


@torch.no_grad()
def slow_depth_rewards(model, model_type, sequence) -> list[float]:
    """Final norm and head on the hidden states of one plain forward; the last ones are normed already."""
    states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    norm = model.get_submodule(FINAL_NORM.get(model_type, "model.norm"))
    normed = [norm(state) for state in states[:-1]] + [states[-1]]
    read = read_position(sequence, model.config.pad_token_id)
    return [model.score(state)[0, read, 0].item() for state in normed]


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_rewards_by_depth_equal_plain_hidden_states(model_type, pad_is_eos):
    tokenizer = make_tokenizer(pad_is_eos=pad_is_eos)
    model = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    own = score_items(model, tokenizer, ITEMS, **OPTIONS)
    for budget in (1, 10_000):
        found = depth_rewards(model, tokenizer, ITEMS, tokens_per_batch=budget, **OPTIONS)
        for by_depth, last, tokens in zip(found, own, tokenized(tokenizer), strict=True):
            values = np.array([np.concatenate([each.chosen, each.rejected]) for each in by_depth])  # (L + 1, B)
            expected = np.array([slow_depth_rewards(model, model_type, ids) for ids in tokens.sequences]).T
            assert values.shape == expected.shape and len(values) == N_DEPTHS
            assert values == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert values[-1] == pytest.approx(np.concatenate([last.chosen, last.rejected]), rel=1e-5, abs=1e-5)
            assert by_depth[-1].item_id == last.item_id and by_depth[-1].n_tokens == last.n_tokens


def test_depth_l_is_the_models_own_reward_in_bfloat16_too():
    tokenizer, model = make_tokenizer(), make_model("llama")
    model.model.to(torch.bfloat16)
    own = score_items(model, tokenizer, ITEMS, **OPTIONS)
    for by_depth, last in zip(depth_rewards(model, tokenizer, ITEMS, **OPTIONS), own, strict=True):
        assert by_depth[-1].chosen == pytest.approx(last.chosen, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name != "gpt2"])  # gpt2 adds the position
def test_responses_that_end_alike_tie_exactly_at_the_embeddings(model_type):
    """Both are read at EOS; with a tie that is not exact, half of them would count as right by rounding alone."""
    tokenizer = make_tokenizer(pad_is_eos=False)
    model = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    for by_depth in depth_rewards(model, tokenizer, prepare_items(tokenizer, ITEMS * 7, MAX_LENGTH), **OPTIONS):
        assert by_depth[0].margin == 0 and by_depth[0].credit == by_depth[0].chance
        assert by_depth[-1].margin != 0


def test_equal_streams_have_equal_rewards_wherever_they_stand():
    model = make_model("llama")
    stream = torch.randn(32, generator=torch.Generator().manual_seed(0))
    rewards = read_rewards(model, stream.expand(4, 37, 32).contiguous())
    assert rewards.shape == (4, 37) and rewards.dtype == torch.float32 and len(rewards.unique()) == 1


def test_model_is_left_as_it_was_also_after_an_error():
    tokenizer, model = make_tokenizer(), make_model("gpt2").train()
    depth_rewards(model, tokenizer, ITEMS[:1], **OPTIONS)
    with pytest.raises(ZeroDivisionError), observed_residuals(model, lambda depth, hidden: None):
        raise ZeroDivisionError
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())
    assert depth_rewards(model, tokenizer, [], **OPTIONS) == []


def test_bad_input_is_refused():
    tokenizer, model = make_tokenizer(), make_model("llama")
    with pytest.raises(ValueError, match="expected a reward model with a one-label head"):
        depth_rewards(model.model, tokenizer, ITEMS, **OPTIONS)
    model.score.weight.data[:] = torch.nan
    broken = Item("broken", (Turn("human", "Hi"),), ("Yes",), ("No",))
    with pytest.raises(ValueError, match="item broken: expected finite rewards"):
        depth_rewards(model, tokenizer, [broken], **OPTIONS)


def test_accuracy_by_depth_by_hand():
    rows = [
        {"depth": depth, "item_id": str(item), "cluster": str(item), "credit": credit}
        for depth, credits in enumerate([(0.5, 0.5, 0.5, 0.5), (1, 0, 1, 1), (1, 1, 1, 1)])
        for item, credit in enumerate(credits)
    ]
    label = {"base_model": "m", "objective": "helpful", "seed": 0, "benchmark": "hh-rlhf", "subset": "helpful-base"}
    table = depth_accuracy(pd.DataFrame(rows).assign(**label, chance=0.5), bootstrap=Bootstrap(50))
    assert table.depth.tolist() == [0, 1, 2] and table.accuracy.tolist() == [0.5, 0.75, 1.0]
    assert (table.chance_accuracy == 0.5).all() and (table.n_items == 4).all()
    assert table.ci_low[2] < 1 and table.ci_high[2] == 1  # Wilson's where every item is right
