"""The chat template of a tokenizer: the same tokens as transformers and TRL, the same rewards as the library."""

import warnings

import pytest
import torch
from datasets import Dataset
from tiny_models import CONFIGS, ITEMS, make_model, make_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

from tension_utils.activations import neuron_scores
from tension_utils.data import Item, ResponseTooLongError, Turn, render_chat, render_prompt, tokenize_item
from tension_utils.engine.packing import prepare_items
from tension_utils.evaluation import score_items

LONG = 10**6  # tokens: no truncation
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>\n{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endfor %}"
)
NAMES = ("adds BOS itself", "template writes BOS", "neither BOS nor EOS")


def chat_tokenizer(name: str, template: str = TURNS) -> PreTrainedTokenizerFast:
    """A tiny tokenizer with a chat template: one adds BOS to every text, one has it in the template, one has none."""
    tokenizer = make_tokenizer(pad_is_eos=False)
    if name == "neither BOS nor EOS":
        bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")
        bare.chat_template = template
        return bare
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    places = [("<bos>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=places)
    tokenizer.chat_template = "{{ bos_token }}" * (name == "template writes BOS") + template
    return tokenizer


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return chat_tokenizer(request.param)


SYSTEM = Item("system", (Turn("system", "Be brief."), Turn("human", "Is it")), ("Yes. ",), ("No.", "Wait"))
CHATS = (*ITEMS, SYSTEM)


def messages_of(item: Item, response: str) -> list[dict]:
    roles = {"human": "user"}
    prompt = [{"role": roles.get(turn.role, turn.role), "content": turn.content} for turn in item.prompt]
    return [*prompt, {"role": "assistant", "content": response}]


def test_tokens_are_those_of_the_library(tokenizer: PreTrainedTokenizerFast) -> None:
    for item in CHATS:
        tokens = tokenize_item(tokenizer, item, LONG, "chat")
        for response, sequence, start in zip(item.responses, tokens.sequences, tokens.response_starts, strict=True):
            ids = tokenizer.apply_chat_template(messages_of(item, response), tokenize=True)["input_ids"]
            assert list(sequence) == ids
            assert ids.count(tokenizer.bos_token_id) == ("{{ bos_token }}" in tokenizer.chat_template)
            assert tokenizer.decode(sequence[start:]).strip().startswith(response.strip())
            assert tokenizer.decode(sequence[:start]).endswith("<assistant>")


def test_tokens_are_those_of_trl(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    pairs = [item for item in CHATS if len(item.chosen) == len(item.rejected) == 1]
    rows = [
        {"chosen": messages_of(item, item.chosen[0]), "rejected": messages_of(item, item.rejected[0])} for item in pairs
    ]
    arguments = RewardConfig(tmp_path, use_cpu=True, bf16=False, report_to="none", max_length=None)
    model = make_model("llama", vocab_size=400, pad_token_id=tokenizer.pad_token_id)
    trainer = RewardTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(pairs)
    for item, row in zip(pairs, trainer.train_dataset, strict=True):
        sequences = tokenize_item(tokenizer, item, LONG, "chat").sequences
        assert sequences == (tuple(row["chosen_ids"]), tuple(row["rejected_ids"]))


@pytest.mark.parametrize("model_type", [name for name in CONFIGS if " " not in name])
def test_a_shared_prefix_gives_the_rewards_of_the_padded_library(model_type: str) -> None:
    tokenizer = chat_tokenizer("template writes BOS")
    model = make_model(model_type, vocab_size=400, pad_token_id=tokenizer.pad_token_id, max_position_embeddings=512)
    rewards = score_items(model, tokenizer, CHATS, template="chat", progress=False)
    for item, ours in zip(CHATS, rewards, strict=True):
        chats = [messages_of(item, response) for response in item.responses]
        batch = tokenizer.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            theirs = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits[:, 0]
        assert [*ours.chosen, *ours.rejected] == pytest.approx(theirs.tolist(), rel=1e-4, abs=1e-4)


def test_a_long_prompt_loses_its_left_part_and_keeps_its_start_token() -> None:
    item, tokenizer = ITEMS[4], chat_tokenizer("template writes BOS")
    whole = tokenize_item(tokenizer, item, LONG, "chat")
    longest = max(map(len, whole.sequences))
    cut = tokenize_item(tokenizer, item, longest - 5, "chat")
    assert cut.n_truncated == 5 and max(map(len, cut.sequences)) == longest - 5
    assert all(after == before[:1] + before[6:] for before, after in zip(whole.sequences, cut.sequences, strict=True))
    assert cut.response_starts == tuple(start - 5 for start in whole.response_starts)
    with pytest.raises(ResponseTooLongError, match="leaves no room"):
        tokenize_item(tokenizer, item, 10, "chat")


def test_texts_of_chat_and_hh_give_other_rewards_and_scores() -> None:
    tokenizer = chat_tokenizer("template writes BOS")
    model = make_model("llama", vocab_size=400, pad_token_id=tokenizer.pad_token_id)
    options = {"progress": False, "max_length": 128}
    margins = {t: score_items(model, tokenizer, ITEMS[:1], template=t, **options)[0].margin for t in ("hh", "chat")}
    assert margins["hh"] != pytest.approx(margins["chat"], rel=1e-3)
    scores = {t: neuron_scores(model, tokenizer, ITEMS[:2], template=t, **options).get("rms") for t in ("hh", "chat")}
    assert abs(scores["hh"] - scores["chat"]).max() > 1e-3
    prepared = prepare_items(tokenizer, ITEMS[:2], 128, "chat")
    assert (neuron_scores(model, tokenizer, prepared, **options).get("rms") == scores["chat"]).all()


def test_an_unused_chat_template_is_said_and_a_chosen_one_is_not() -> None:
    tokenizer = chat_tokenizer("adds BOS itself")
    with pytest.warns(UserWarning, match="has a chat template, and texts are put in that of HH-RLHF; pass template"):
        found = prepare_items(tokenizer, ITEMS[:1], LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare_items(tokenizer, ITEMS[:1], LONG, "hh") == found
        assert prepare_items(tokenizer, found, LONG) == found
        assert prepare_items(tokenizer, ITEMS[:1], LONG, "chat") != found
        prepare_items(make_tokenizer(), ITEMS[:1], LONG)


def test_what_does_not_fit_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match="'chat': expected a chat template, and the tokenizer of .* has none; choose 'hh'"
    ):
        prepare_items(make_tokenizer(), ITEMS[:1], LONG, "chat")
    tokenizer = chat_tokenizer("adds BOS itself", NO_SYSTEM + TURNS)
    assert prepare_items(tokenizer, ITEMS[:1], LONG, "chat")
    tokenizer.chat_template = "{{ raise_exception('no turns at all') }}"
    with pytest.raises(
        ValueError, match="item .*: the chat template of .* refuses the turns .*assistant: no turns at all"
    ):
        prepare_items(tokenizer, ITEMS[:1], LONG, "chat")
    with pytest.raises(ValueError, match="no EOS token, which texts of this template end with"):
        prepare_items(chat_tokenizer("neither BOS nor EOS"), ITEMS[:1], LONG, "hh")


def test_a_system_turn_opens_the_next_human_one_where_a_template_refuses_it() -> None:
    folded = Item("folded", (Turn("human", "Be brief.\n\nIs it"),), SYSTEM.chosen, SYSTEM.rejected)
    refusing, taking = (chat_tokenizer("adds BOS itself", template) for template in (NO_SYSTEM + TURNS, TURNS))
    assert render_chat(refusing, SYSTEM) == render_chat(taking, folded) != render_chat(taking, SYSTEM)


def test_a_system_turn_opens_the_next_human_one_where_a_text_has_no_system() -> None:
    turns = (Turn("human", "Hi"), Turn("system", "Now be brief."), Turn("assistant", "Hello"), Turn("human", "Bye"))
    assert render_prompt(turns) == "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Now be brief.\n\nBye\n\nAssistant:"
