"""Preference items: their record type, the prompt template, and their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

from tension_utils.checks import check_choice

ROLE_NAMES = {"human": "Human", "assistant": "Assistant"}


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue: ``role`` is a key of `ROLE_NAMES`, ``content`` its text without surrounding space."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """One prompt with m >= 1 chosen and k >= 1 rejected responses.

    Args:
        item_id: unique within its source.
        prompt: the turns before the response; the last one is human.
        chosen: m responses that the label prefers to every rejected one.
        rejected: k responses.
    """

    item_id: str
    prompt: tuple[Turn, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]

    @property
    def responses(self) -> tuple[str, ...]:
        """Chosen responses, then rejected ones."""
        return self.chosen + self.rejected


@dataclass(frozen=True)
class Template:
    """How turns become text.

    Args:
        start: text before the first turn.
        gap: text between a role's colon and what it says.
    """

    start: str
    gap: str


# "training" is the text of HH-RLHF, used wherever nothing else is said. "published" is how the paper formatted its
# benchmarks: METHOD.md, section 2, fact 16; only the check of template sensitivity uses it.
TEMPLATES = {"training": Template(start="\n\n", gap=" "), "published": Template(start="", gap="")}


def pick_template(name: str) -> Template:
    """Return a template by name.

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    return TEMPLATES[check_choice("template", name, TEMPLATES)]


def render_prompt(turns: Sequence[Turn], template: str = "training") -> str:
    r"""Return the text before a response.

    >>> render_prompt([Turn("human", "Hi")])
    '\n\nHuman: Hi\n\nAssistant:'
    >>> render_prompt([Turn("human", "Hi")], "published")
    'Human:Hi\n\nAssistant:'
    """
    picked = pick_template(template)
    said = [f"{ROLE_NAMES[turn.role]}:{picked.gap}{turn.content}" for turn in turns]
    return picked.start + "\n\n".join([*said, f"{ROLE_NAMES['assistant']}:"])


def render_response(response: str, template: str = "training") -> str:
    """Return a response as it follows `render_prompt`: the template's gap, then the text."""
    return f"{pick_template(template).gap}{response}"


class ResponseTooLongError(ValueError):
    """A response that leaves no room for its prompt within the sequence length."""


@dataclass(frozen=True)
class TokenizedItem:
    """Token ids of an item's responses, each with its prompt and EOS.

    Args:
        sequences: m + k sequences of token ids, chosen first; prompt + response + EOS after truncation.
        n_chosen: m.
        n_shared: length of the longest common token prefix of all sequences, at most the shortest length - 1.
        response_starts: per sequence, index of the first token that holds a character of the response.
        n_truncated: tokens dropped from the left of the prompt, the same number for every sequence.
    """

    sequences: tuple[tuple[int, ...], ...]
    n_chosen: int
    n_shared: int
    response_starts: tuple[int, ...]
    n_truncated: int


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share.

    >>> common_prefix_length([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    first, last = min(sequences), max(sequences)
    length = min(len(first), len(last))
    return next((i for i in range(length) if first[i] != last[i]), length)


@lru_cache(maxsize=8)
def special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the token ids that a tokenizer puts before and after any text, and EOS, which training asks for.

    Most put nothing before it, Gemma and Llama 3 a start token. EOS is at the end once, whether or not the tokenizer
    puts it there. Source: TRL's RewardTrainer, which calls the tokenizer as it is and adds EOS where it is missing.
    """
    inner, whole = (tokenizer("x", add_special_tokens=has)["input_ids"] for has in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
    after = whole[start + len(inner) :]
    return tuple(whole[:start]), (*after, *([tokenizer.eos_token_id] if after[-1:] != [tokenizer.eos_token_id] else []))


def tokenize_item(
    tokenizer: PreTrainedTokenizerFast, item: Item, max_length: int, template: str = "training"
) -> TokenizedItem:
    """Tokenize prompt and response as one text, as training does, and find what the responses share.

    A merge may cross the border between prompt and response, so the text is tokenized jointly and the shared part is
    the longest common prefix of tokens. If the longest sequence exceeds ``max_length``, the same number of tokens is
    dropped from the left of every text, so that all responses of an item see the same prompt. The tokenizer's special
    tokens are put around every text and stay.

    Args:
        tokenizer: a fast tokenizer with an EOS token.
        item: the item.
        max_length: tokens per sequence, EOS included.
        template: key of `TEMPLATES`.

    Returns:
        The token ids and their borders.

    Raises:
        ResponseTooLongError: if a response leaves no room for a single prompt token.
        ValueError: for an unknown template.
    """
    prompt_text, (before, after) = render_prompt(item.prompt, template), special_tokens(tokenizer)
    sequences, response_starts = [], []
    for response in item.responses:
        text = prompt_text + render_response(response, template)
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoding["offset_mapping"]]
        response_starts.append(next((i for i, end in enumerate(ends) if end > len(prompt_text)), len(ends)))
        sequences.append((*encoding["input_ids"], *after))
    n_truncated = max(0, len(before) + max(map(len, sequences)) - max_length)
    if n_truncated >= min(response_starts):
        longest = max(len(ids) - start for ids, start in zip(sequences, response_starts, strict=True))
        raise ResponseTooLongError(
            f"item {item.item_id}: a response of {longest} tokens leaves no room for its prompt within "
            f"max_length={max_length}; raise max_length or drop the item"
        )
    sequences = [(*before, *ids[n_truncated:]) for ids in sequences]
    n_shared = min(common_prefix_length(sequences), min(map(len, sequences)) - 1)
    return TokenizedItem(
        sequences=tuple(sequences),
        n_chosen=len(item.chosen),
        n_shared=n_shared,
        response_starts=tuple(len(before) + start - n_truncated for start in response_starts),
        n_truncated=n_truncated,
    )
