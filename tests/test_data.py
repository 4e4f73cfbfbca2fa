"""The one prompt template and its tokens: joint text, common prefix, response starts, left truncation."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tension_utils.config import DataConfig
from tension_utils.data import (
    TEMPLATES,
    BenchmarkItem,
    Item,
    TokenizedItem,
    Turn,
    common_prefix_length,
    render_prompt,
    render_response,
    tokenize_item,
)
from tension_utils.engine.packing import prepare_items, prepare_texts
from tension_utils.evaluation import group_by_prompt
from tension_utils.training import tokenize_pairs

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
LONG = 10**6  # tokens: no truncation


def make_tokenizer(*merges: tuple[str, str], bos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the given merges; text is not split into words, so any border may merge."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<bos>", *ALPHABET])}
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", bos_token="<bos>")


PLAIN = make_tokenizer()
# "Assistant:" + " no": the colon and the space are one token, and so are both with an "n" behind.
CROSSING = make_tokenizer((":", "Ġ"), (":Ġ", "n"), ("a", "n"), ("an", "t"), ("Ġ", "H"))


def make_item(*responses: str, prompt: tuple[Turn, ...] = (Turn("human", "Hi"),), n_chosen: int = 1) -> Item:
    return Item("item", prompt, tuple(responses[:n_chosen]), tuple(responses[n_chosen:]))


def joint_text(item: Item, response: str) -> str:
    names = {"human": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{names[turn.role]}: {turn.content}" for turn in item.prompt)
    return f"{turns}\n\nAssistant: {response}"


def slow_tokens(tokenizer: PreTrainedTokenizerFast, item: Item) -> TokenizedItem:
    """Find prefix and response starts by decoding, token by token, without offsets."""
    sequences, starts = [], []
    for response in item.responses:
        ids = tokenizer.backend_tokenizer.encode(joint_text(item, response), add_special_tokens=False).ids
        n_prompt_bytes = len((joint_text(item, "").removesuffix(" ")).encode())
        n_bytes, start = 0, None
        for position, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
            n_bytes += len(token)  # one character of a byte-level token is one byte
            if start is None and n_bytes > n_prompt_bytes:
                start = position
        sequences.append((*ids, tokenizer.eos_token_id))
        starts.append(start)
    n_shared = 0
    while n_shared < min(map(len, sequences)) - 1 and len({ids[n_shared] for ids in sequences}) == 1:
        n_shared += 1
    return TokenizedItem(tuple(sequences), len(item.chosen), n_shared, tuple(starts), 0)


TEXTS = st.text(st.sampled_from("aHnt: \n北é"), min_size=1, max_size=12).map(lambda text: f"n{text}")
PROMPTS = st.lists(TEXTS, min_size=1, max_size=3).map(
    lambda said: tuple(Turn(("human", "assistant")[i % 2], text) for i, text in enumerate([*said, *said[1:2]]))
)


@settings(max_examples=150, deadline=None)
@given(PROMPTS, st.lists(TEXTS, min_size=2, max_size=4, unique=True), st.sampled_from([PLAIN, CROSSING]))
def test_agrees_with_a_slow_version(
    prompt: tuple[Turn, ...], responses: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    item = make_item(*responses, prompt=prompt)
    assert tokenize_item(tokenizer, item, LONG) == slow_tokens(tokenizer, item)


@settings(max_examples=150, deadline=None)
@given(PROMPTS, st.lists(TEXTS, min_size=2, max_size=4, unique=True), st.integers(1, 40))
def test_truncation_cuts_every_prompt_by_the_same_number_or_refuses(
    prompt: tuple[Turn, ...], responses: list[str], cut: int
) -> None:
    item = make_item(*responses, prompt=prompt)
    whole = slow_tokens(CROSSING, item)
    max_length = max(map(len, whole.sequences)) - cut
    if cut >= min(whole.response_starts):
        with pytest.raises(ValueError, match=f"leaves no room for its prompt within max_length={max_length}"):
            tokenize_item(CROSSING, item, max_length)
        return
    tokens = tokenize_item(CROSSING, item, max_length)
    assert tokens.n_truncated == cut
    assert tokens.sequences == tuple(ids[cut:] for ids in whole.sequences)
    assert max(map(len, tokens.sequences)) == max_length
    assert tokens.response_starts == tuple(start - cut for start in whole.response_starts)
    assert tokens.n_shared == whole.n_shared - min(cut, whole.n_shared)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=1, max_size=5))
def test_common_prefix_is_the_longest(sequences: list[list[int]]) -> None:
    length = common_prefix_length(sequences)
    assert len({tuple(ids[:length]) for ids in sequences}) == 1
    longer = [ids[: length + 1] for ids in sequences]
    assert min(map(len, sequences)) == length or len(set(map(tuple, longer))) > 1


def test_prompt_and_response_are_one_text_with_eos() -> None:
    prompt = (Turn("human", "Hi"), Turn("assistant", "Hello"), Turn("human", "Bye"))
    tokens = tokenize_item(PLAIN, make_item("Yes.", "No.", prompt=prompt), LONG)
    text = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
    assert render_prompt(prompt) == text
    assert [PLAIN.decode(ids) for ids in tokens.sequences] == [f"{text} Yes.<eos>", f"{text} No.<eos>"]
    assert tokens.n_chosen == 1 and tokens.n_truncated == 0
    assert tokens.response_starts == (len(text), len(text))
    assert tokens.n_shared == len(text) + 1  # the space before the response is common too


def test_a_merge_across_the_border_is_kept_as_training_sees_it() -> None:
    item = make_item("no", "yes")
    tokens = tokenize_item(CROSSING, item, LONG)
    apart = CROSSING(render_prompt(item.prompt))["input_ids"] + CROSSING(" no")["input_ids"]
    joint = CROSSING(render_prompt(item.prompt) + " no")["input_ids"]
    assert list(tokens.sequences[0][:-1]) == joint != apart
    border = [
        CROSSING.convert_ids_to_tokens(ids[start])
        for ids, start in zip(tokens.sequences, tokens.response_starts, strict=True)
    ]
    assert border == [":Ġn", ":Ġ"]
    assert tokens.n_shared == tokens.response_starts[0]  # the prompt's last character is in neither's shared part


@pytest.mark.parametrize("responses, n_shared", [(("ab", "abc"), 2), (("abc", "ab"), 2), (("x", "y"), 0)])
def test_shared_part_leaves_every_sequence_a_token(responses: tuple[str, str], n_shared: int) -> None:
    item = make_item(*responses)
    tokens = tokenize_item(PLAIN, item, LONG)
    assert tokens.n_shared == len(render_prompt(item.prompt)) + 1 + n_shared
    assert tokens.n_shared < min(map(len, tokens.sequences))


def test_same_responses_share_all_but_the_eos() -> None:
    tokens = tokenize_item(PLAIN, make_item("same", "same"), LONG)
    assert tokens.n_shared == len(tokens.sequences[0]) - 1


def test_chosen_responses_come_first() -> None:
    tokens = tokenize_item(PLAIN, make_item("a", "b", "c", n_chosen=2), LONG)
    assert tokens.n_chosen == 2
    assert [PLAIN.decode(ids)[-6:] for ids in tokens.sequences] == ["a<eos>", "b<eos>", "c<eos>"]


def test_exact_fit_is_not_cut_and_one_less_is() -> None:
    item = make_item("long response", "short")
    length = len(joint_text(item, "long response")) + 1
    assert tokenize_item(PLAIN, item, length).n_truncated == 0
    cut = tokenize_item(PLAIN, item, length - 1)
    assert cut.n_truncated == 1
    assert [len(ids) for ids in cut.sequences] == [length - 1, len(joint_text(item, "short"))]


def test_no_room_for_a_prompt_token_names_the_item_and_the_remedy() -> None:
    item = make_item("0123456789", "a")
    needed = len(" 0123456789") + 1  # with EOS
    with pytest.raises(ValueError, match=rf"item item: a response of {needed} tokens .* raise max_length or drop"):
        tokenize_item(PLAIN, item, needed)
    assert tokenize_item(PLAIN, item, needed + 1).response_starts == (1, 1)


DIALOGUE = (Turn("human", "Hi"), Turn("assistant", "Hello"), Turn("human", "Bye"))
TEXTS_OF = {
    "hh": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: Yes.",
    "published": "Human:Hi\n\nAssistant:Hello\n\nHuman:Bye\n\nAssistant:Yes.",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_give_exactly_these_texts(template: str) -> None:
    text = TEXTS_OF[template]
    assert render_prompt(DIALOGUE, template) + render_response("Yes.", template) == text
    item = make_item("Yes.", "No.", prompt=DIALOGUE)
    tokens = tokenize_item(PLAIN, item, LONG, template)
    assert PLAIN.decode(tokens.sequences[0]) == f"{text}<eos>"
    n_prompt = len(text) - len("Yes.")
    assert tokens.n_shared == n_prompt
    assert tokens.response_starts == (n_prompt - (template == "hh"),) * 2  # the gap belongs to the response
    assert prepare_items(PLAIN, [item], LONG, template)[0].tokens == tokens


def test_the_template_of_training_is_the_default() -> None:
    item = make_item("Yes.", "No.", prompt=DIALOGUE)
    assert render_prompt(DIALOGUE) == render_prompt(DIALOGUE, "hh")
    assert tokenize_item(PLAIN, item, LONG) == tokenize_item(PLAIN, item, LONG, "hh")
    assert prepare_items(PLAIN, [item], LONG) == prepare_items(PLAIN, [item], LONG, "hh")


def test_items_prepared_before_keep_their_template() -> None:
    prepared = prepare_items(PLAIN, [make_item("Yes.", "No.")], LONG, "published")
    assert prepare_items(PLAIN, prepared, LONG) == prepared


def test_an_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="template: expected one of hh, chat, published; got 'chatml'"):
        prepare_items(PLAIN, [make_item("Yes.", "No.")], LONG, "chatml")


def with_specials(tokenizer: PreTrainedTokenizerFast, single: str) -> PreTrainedTokenizerFast:
    """Return a copy whose post-processor puts special tokens around every text, as ``single`` says."""
    changed = copy.deepcopy(tokenizer)
    names = ("<bos>", changed.eos_token)
    ids = [(name, changed.convert_tokens_to_ids(name)) for name in names]
    changed.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return changed


@pytest.mark.parametrize("single, n_before", [("$A", 0), ("<bos> $A", 1), ("<bos> $A {eos}", 1), ("$A {eos}", 0)])
def test_special_tokens_are_where_the_tokenizer_puts_them_with_eos_once_and_stay(single: str, n_before: int) -> None:
    tokenizer = with_specials(CROSSING, single.format(eos=CROSSING.eos_token))
    item = make_item("Hello ant", "No")
    tokens = tokenize_item(tokenizer, item, 1000)
    for response, sequence in zip(item.responses, tokens.sequences, strict=True):
        ids = tokenizer(joint_text(item, response))["input_ids"]
        assert list(sequence) == ids + [tokenizer.eos_token_id] * (ids[-1] != tokenizer.eos_token_id)
    plain = tokenize_item(CROSSING, item, 1000)
    assert tokens.response_starts == tuple(start + n_before for start in plain.response_starts)
    assert tokens.n_shared == plain.n_shared + n_before
    longest = max(map(len, tokens.sequences))
    cut = tokenize_item(tokenizer, item, longest - 3)
    assert cut.n_truncated == 3 and max(map(len, cut.sequences)) == longest - 3
    for before, after in zip(tokens.sequences, cut.sequences, strict=True):
        assert after == before[:n_before] + before[n_before + 3 :]
    assert cut.response_starts == tuple(start - 3 for start in tokens.response_starts)
    (text,) = prepare_texts(tokenizer, ["Hello"], 1000)
    assert text.tokens.sequences[0][:n_before] == tokens.sequences[0][:n_before]
    assert text.tokens.sequences[0].count(tokenizer.eos_token_id) == 1


COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"


@pytest.fixture
def normalizing() -> PreTrainedTokenizerFast:
    """A tokenizer that reads both spellings of an accent as one."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def test_a_training_pair_of_the_same_tokens_is_left_out_and_counted_or_named(
    normalizing: PreTrainedTokenizerFast,
) -> None:
    items = [make_item("yes", "no"), make_item(COMPOSED, DECOMPOSED)]
    kept, n_dropped = tokenize_pairs(normalizing, items, DataConfig(bad_pairs="drop"))
    assert (len(kept), n_dropped) == (1, {"identical tokens": 1})
    assert len(tokenize_pairs(PLAIN, items, DataConfig())[0]) == 2, "another tokenizer tells them apart"
    with pytest.raises(
        ValueError, match="^item: expected two responses that the tokenizer tells apart; .*unusable_pair"
    ):
        tokenize_pairs(normalizing, items, DataConfig())


def test_a_test_item_of_the_same_tokens_is_left_out_and_the_others_of_its_prompt_stay(
    normalizing: PreTrainedTokenizerFast,
) -> None:
    place = ("toy", "subset", "other", "none", "cluster")
    prompt = (Turn("human", "Hi"),)
    good = BenchmarkItem("good", prompt, ("yes",), (COMPOSED,), *place)
    same = BenchmarkItem("same", prompt, (COMPOSED,), ("no", DECOMPOSED), *place)
    groups, left_out = group_by_prompt(normalizing, [good, same], LONG)
    assert [group.items for group in groups] == [(good,)] and groups[0].responses == ("yes", COMPOSED)
    assert left_out == {"too long": [], "identical tokens": [same]}
    assert group_by_prompt(normalizing, [same], LONG)[0] == []
