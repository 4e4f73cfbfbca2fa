"""Packed rewards against one plain forward per sequence, and what goes wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, ITEMS, MAX_LENGTH, WINDOWED, make_model, make_tokenizer, slow_rewards, tokenized

from tension_utils.data import Item, TokenizedItem, Turn, render_prompt
from tension_utils.engine import batches, packing
from tension_utils.engine.attention import LAYOUTS, packed_attention
from tension_utils.engine.packing import PreparedItem, pack_items, prepare_items, read_position
from tension_utils.evaluation import ItemRewards, batch_rewards, score_items

MODEL, MISTRAL = make_model("llama"), make_model("mistral")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def rewards_of(chosen, rejected):
    return ItemRewards("x", np.array(chosen, np.float32), np.array(rejected, np.float32), 0, 0, False)


@pytest.mark.parametrize("joins_border", [False, True])
@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_rewards_equal_a_plain_forward_of_each_sequence(model_type, pad_is_eos, joins_border):
    tokenizer = make_tokenizer(pad_is_eos=pad_is_eos, joins_border=joins_border)
    model = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    for budget in (1, 150, 10_000):
        results = score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, tokens_per_batch=budget, progress=False)
        for item, result, tokens in zip(ITEMS, results, tokenized(tokenizer), strict=True):
            assert result.item_id == item.item_id
            assert (len(result.chosen), len(result.rejected)) == (len(item.chosen), len(item.rejected))
            assert np.concatenate([result.chosen, result.rejected]) == pytest.approx(
                np.array(slow_rewards(model, tokens)), rel=1e-4, abs=1e-5
            )
            assert result.chosen.dtype == result.rejected.dtype == np.float32
            assert result.n_tokens == sum(map(len, tokens.sequences))
            assert result.is_truncated == (item.item_id == "long")


def test_the_items_exercise_what_they_are_meant_to():
    plain, joining = make_tokenizer(), make_tokenizer(joins_border=True)
    for tokenizer in (plain, joining):
        tokens = dict(zip([item.item_id for item in ITEMS], tokenized(tokenizer), strict=True))
        assert tokens["long"].n_truncated > 0
        assert tokens["same start"].n_shared > min(tokens["same start"].response_starts)
        # with EOS as padding the shorter response is read inside the shared part
        shorter = tokens["prefix of the other"].sequences[0]
        assert read_position(shorter, 0) == tokens["prefix of the other"].n_shared - 1
    for item, tokens in zip(ITEMS, tokenized(joining), strict=True):
        if item.item_id == "pair":
            alone = joining(render_prompt(item.prompt))["input_ids"]
            assert tokens.n_shared < len(alone), "a merge across the border shortens the shared prefix"


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neox", *WINDOWED])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_of_attention_agree_with_a_plain_forward(tokenizer, model_type, layout):
    model = make_model(model_type)
    prepared = prepare_items(tokenizer, ITEMS, MAX_LENGTH)
    batch = pack_items(prepared, 0)
    with torch.inference_mode(), packed_attention(model, layout) as forward:
        rewards = batch_rewards(model, forward(batch), batch)
    expected = [reward for item in prepared for reward in slow_rewards(model, item.tokens)]
    assert rewards.numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


tokens_of = st.lists(st.integers(0, 6), max_size=6)  # 0 is EOS and padding


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(tokens_of, st.lists(tokens_of, min_size=2, max_size=5)), min_size=1, max_size=4))
def test_any_stream_gives_the_rewards_of_its_sequences(layout_items):
    prepared = []
    for prefix, rests in layout_items:
        sequences = tuple((*prefix, *rest, 0) for rest in rests)
        starts = (len(prefix),) * len(rests)
        prepared.append(PreparedItem("x", TokenizedItem(sequences, 1, len(prefix), starts, 0)))
    expected = [reward for item in prepared for reward in slow_rewards(MODEL, item.tokens)]
    batch = pack_items(prepared, 0)
    for layout in LAYOUTS:
        with torch.inference_mode(), packed_attention(MODEL, layout) as forward:
            rewards = batch_rewards(MODEL, forward(batch), batch)
        assert rewards.numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


def sequences_of(n_shared, *lengths):
    """One prepared item of random sequences of these lengths that share their first tokens, EOS at their ends."""
    draw = np.random.default_rng(n_shared).integers
    prefix = draw(1, 340, n_shared).tolist()
    sequences = tuple((*prefix, *draw(1, 340, length - n_shared - 1).tolist(), 0) for length in lengths)
    return PreparedItem("x", TokenizedItem(sequences, 1, n_shared, (n_shared,) * len(lengths), 0))


# 16 is the length of the first item's prefix, 21 that of the longest sequence, 13 that of the last item's longer one.
@pytest.mark.parametrize("window", [1, 2, 5, 12, 13, 15, 16, 17, 20, 21, 22])
@pytest.mark.parametrize("model_type", WINDOWED)
def test_windows_at_their_edges(model_type, window):
    model = make_model(model_type, sliding_window=window)
    prepared = [sequences_of(16, 21, 18, 19), sequences_of(0, 9, 3), sequences_of(3, 4, 13)]
    expected = [reward for item in prepared for reward in slow_rewards(model, item.tokens)]
    batch = pack_items(prepared, 0)
    for layout in LAYOUTS:
        with torch.inference_mode(), packed_attention(model, layout) as forward:
            rewards = batch_rewards(model, forward(batch), batch)
        assert rewards.numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(tokens_of, st.lists(tokens_of, min_size=2, max_size=4)), min_size=1, max_size=3),
    st.integers(1, 14),
)
def test_any_stream_is_right_with_any_window(layout_items, window):
    prepared = []
    for prefix, rests in layout_items:
        sequences = tuple((*prefix, *rest, 0) for rest in rests)
        prepared.append(PreparedItem("x", TokenizedItem(sequences, 1, len(prefix), (len(prefix),) * len(rests), 0)))
    MISTRAL.config.sliding_window = window  # read anew in every forward pass
    expected = [reward for item in prepared for reward in slow_rewards(MISTRAL, item.tokens)]
    batch = pack_items(prepared, 0)
    for layout in LAYOUTS:
        with torch.inference_mode(), packed_attention(MISTRAL, layout) as forward:
            rewards = batch_rewards(MISTRAL, forward(batch), batch)
        assert rewards.numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("model_type", "longest", "made_for"),
    [
        ("llama", 21, {None}),
        ("gpt2", 21, {None}),
        ("mistral", 21, {None}),
        ("mistral windowed", 11, {None}),
        ("mistral windowed", 12, {11}),
        ("gemma3_text", 8, {None}),
        ("gemma3_text", 9, {None, 8}),
        ("qwen3 windowed", 21, {None, 20}),
    ],
)
def test_masks_are_made_once_per_window_and_none_where_no_sequence_exceeds_it(
    model_type, longest, made_for, layout, monkeypatch
):
    attend, make = LAYOUTS[layout]
    windows = []

    def counted(*arguments):
        windows.append(arguments[-1])
        return make(*arguments)

    monkeypatch.setitem(LAYOUTS, layout, (attend, counted))
    batch = pack_items([sequences_of(4, longest, 6)], 0)
    with torch.inference_mode(), packed_attention(make_model(model_type), layout) as forward:
        forward(batch)
    assert set(windows) == made_for and len(windows) == len(made_for)


def test_model_is_left_as_it_was(tokenizer):
    model = make_model("llama").train()
    before = model.config._attn_implementation
    score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, progress=False)
    assert model.config._attn_implementation == before == "sdpa" and model.training
    with pytest.raises(ZeroDivisionError), packed_attention(model):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa" and model.training


@given(st.integers(2, 9), st.integers(0, 2**31))
def test_equal_hidden_states_get_equal_rewards(n_sequences, seed):
    batch = pack_items([PreparedItem("x", TokenizedItem(((5, 6, 0),) * n_sequences, 1, 2, (2,) * n_sequences, 0))], 0)
    hidden = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed)).repeat(len(batch.input_ids), 1)
    rewards = batch_rewards(MODEL, hidden, batch)
    assert rewards.unique().numel() == 1
    assert rewards[0].item() == pytest.approx(MODEL.score(hidden[0]).item(), rel=1e-4, abs=1e-5)


def test_shared_tokens_are_computed_once(tokenizer):
    prepared = prepare_items(tokenizer, ITEMS, MAX_LENGTH)
    batch = pack_items(prepared, 0)
    assert batch.n_real == sum(item.n_forward_tokens for item in prepared)
    assert len(batch.input_ids) % 64 == 0 and len(batch.input_ids) - batch.n_real < 64
    assert all(item.n_forward_tokens < item.n_tokens for item in prepared)


def test_bfloat16_backbone_keeps_float32_rewards(tokenizer):
    model = make_model("llama")
    exact = score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, progress=False)
    model.model.to(torch.bfloat16)
    rough = score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, progress=False)
    values = np.concatenate([item.chosen for item in rough])
    assert values.dtype == np.float32
    assert not np.array_equal(values, torch.tensor(values).bfloat16().float().numpy()), "the head ran in bfloat16"
    assert values == pytest.approx(np.concatenate([item.chosen for item in exact]), abs=0.3)


def test_prepared_items_give_the_same_rewards_and_no_items_give_none(tokenizer):
    model = make_model("gpt2")
    prepared = prepare_items(tokenizer, ITEMS, MAX_LENGTH)
    options = {"max_length": MAX_LENGTH, "progress": False}
    for one, other in zip(
        score_items(model, tokenizer, prepared, **options), score_items(model, tokenizer, ITEMS, **options), strict=True
    ):
        assert np.array_equal(one.chosen, other.chosen) and np.array_equal(one.rejected, other.rejected)
    assert score_items(model, tokenizer, [], **options) == []


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "credit", "chance"),
    [
        ([2.0], [1.0], 1.0, 1.0, 0.5),
        ([1.0], [2.0], -1.0, 0.0, 0.5),
        ([1.0], [1.0], 0.0, 0.5, 0.5),
        ([1.0], [1.0, 1.0, 0.0], 0.0, 1 / 3, 0.25),
        ([3.0, 1.0], [0.5, 2.0], -1.0, 0.0, 1 / 6),
        ([3.0, 1.0], [1.0, 0.0], 0.0, 0.5, 1 / 6),
        ([1.0, 1.0], [1.0, 1.0], 0.0, 1 / 6, 1 / 6),
    ],
)
def test_margin_credit_and_chance(chosen, rejected, margin, credit, chance):
    result = rewards_of(chosen, rejected)
    assert (result.margin, result.credit, result.chance) == pytest.approx((margin, credit, chance))


def test_running_out_of_memory_halves_the_budget_and_continues(tokenizer, monkeypatch):
    monkeypatch.setattr(packing, "STREAM_MULTIPLE", 1)
    model = make_model("llama")
    options = {"max_length": MAX_LENGTH, "progress": False}
    expected = score_items(model, tokenizer, ITEMS, **options)
    sizes, original = [], model.model.forward

    def limited(*args, **kwargs):
        sizes.append(kwargs["inputs_embeds"].shape[1])
        if sizes[-1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", limited)
    results = score_items(model, tokenizer, ITEMS, tokens_per_batch=400, **options)
    assert max(sizes) > 200 and sum(size for size in sizes if size <= 200) == sum(r.n_forward_tokens for r in results)
    for one, other in zip(results, expected, strict=True):
        assert one.chosen == pytest.approx(other.chosen, rel=1e-5)
    with pytest.raises(torch.OutOfMemoryError):
        monkeypatch.setattr(model.model, "forward", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("x")))
        score_items(model, tokenizer, ITEMS, **options)


def test_other_errors_are_not_taken_for_memory(tokenizer, monkeypatch):
    model = make_model("llama")
    calls = []
    monkeypatch.setattr(model.model, "forward", lambda **_: calls.append(1) or [][0])
    with pytest.raises(IndexError):
        score_items(model, tokenizer, ITEMS, max_length=MAX_LENGTH, progress=False)
    assert len(calls) == 1


def test_only_a_window_of_items_is_tokenized_at_a_time(tokenizer, monkeypatch):
    monkeypatch.setattr(batches, "WINDOW", 4)
    sizes = []
    items = ITEMS * 2
    step = list(
        batches.run_batches(
            items,
            lambda window: sizes.append(len(window)) or prepare_items(tokenizer, window, MAX_LENGTH),
            len,
            tokens_per_batch=300,
            progress=False,
            description="",
        )
    )
    assert sizes == [4, 4, 4]
    assert sorted(index for indices, _, _ in step for index in indices) == list(range(len(items)))
    for indices, group, result in step:
        assert [items[i].item_id for i in indices] == [item.item_id for item in group] and result == len(group)


def test_bad_input_is_refused_with_what_was_expected(tokenizer):
    model = make_model("gpt2")
    options = {"max_length": MAX_LENGTH, "progress": False}
    with pytest.raises(ValueError, match="expected a reward model with a one-label head"):
        score_items(model.transformer, tokenizer, ITEMS, **options)
    with pytest.raises(ValueError, match="tokens_per_batch: expected a positive"):
        score_items(model, tokenizer, ITEMS, tokens_per_batch=0, **options)
    long = Item("long", (Turn("human", "How do I bake bread? " * 40),), ("Mix",), ("No",))
    with pytest.raises(ValueError, match="exceeds the 128 that GPT2Model can attend to; lower max_length"):
        score_items(model, tokenizer, [long], max_length=500, progress=False)
    model.score.weight.data[:] = torch.nan
    with pytest.raises(ValueError, match="item pair: expected finite rewards"):
        score_items(model, tokenizer, ITEMS[:1], **options)
    for model_type, parameters in {
        "llama": {"rope_type": "dynamic"},
        "gemma3_text": {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}},
    }.items():
        model = make_model(model_type)
        model.config.rope_parameters = parameters
        with pytest.raises(ValueError, match="rope type 'dynamic' is not supported"):
            score_items(model, tokenizer, ITEMS, **options)


def test_a_token_counts_once_for_every_sequence_that_holds_it(tokenizer):
    prepared = prepare_items(tokenizer, ITEMS, MAX_LENGTH)
    batch = pack_items(prepared, 0)
    for scope, expected in {
        "all": lambda tokens, sequence, start: len(sequence),
        "response": lambda tokens, sequence, start: len(sequence) - start,
        "last": lambda tokens, sequence, start: 1,
    }.items():
        totals = [0, 0]
        for item in prepared:
            tokens = item.tokens
            for index, (sequence, start) in enumerate(zip(tokens.sequences, tokens.response_starts, strict=True)):
                totals[index >= tokens.n_chosen] += expected(tokens, sequence, start)
        assert batch.weights(scope).sum(dim=1).tolist() == totals


def test_read_position_follows_transformers():
    assert read_position((5, 6, 0), 0) == 1 and read_position((5, 0, 6, 0, 0), 0) == 2
    assert read_position((5, 6, 0), 1) == 2 and read_position((5, 6, 0), None) == 2
    assert read_position((0, 0), 0) == 0
