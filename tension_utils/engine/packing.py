"""Prefix sharing: the tokens of many items in one unpadded stream, each shared prompt once.

The stream of an item is its shared prefix once, then what is left of every response. Position ids restart after the
prefix for every response; a response attends to the prefix and to itself. Everything but attention works on tokens
one by one, so the stream is not padded there but for a few tokens at its end.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from tension_utils.data import Item, TokenizedItem, resolve_template, special_tokens, tokenize_item
from tension_utils.scores import SIDES

STREAM_MULTIPLE = 64  # tokens; with few stream lengths a CPU compiles few matrix products, and memory stays flat


@dataclass(frozen=True)
class PreparedItem:
    """An item's id and its tokens."""

    item_id: str
    tokens: TokenizedItem

    @property
    def n_tokens(self) -> int:
        """Tokens of all its sequences, the shared ones counted once per sequence."""
        return sum(map(len, self.tokens.sequences))

    @property
    def n_forward_tokens(self) -> int:
        """Tokens that a forward pass computes: the shared ones counted once."""
        return self.n_tokens - self.tokens.n_shared * (len(self.tokens.sequences) - 1)


def prepare_items(
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    max_length: int | None,
    template: str | None = None,
) -> list[PreparedItem]:
    """Tokenize items once for many calls of the engine; items prepared before are passed through.

    Args:
        tokenizer: the model's tokenizer.
        items: the items.
        max_length: tokens per sequence, EOS included; longer prompts lose their left part, with None none does.
        template: of `config.TEMPLATE_NAMES`; None is "hh", with a warning where the tokenizer has its own. Items
            prepared before keep theirs.
    """

    def prepare(item: Item | PreparedItem) -> PreparedItem:
        if isinstance(item, PreparedItem):
            return item
        return PreparedItem(item.item_id, tokenize_item(tokenizer, item, max_length or sys.maxsize, template))

    if any(not isinstance(item, PreparedItem) for item in items):
        template = resolve_template(tokenizer, template)
    return [prepare(item) for item in items]


def prepare_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int) -> list[PreparedItem]:
    """Tokenize plain texts as items of one response each, without prompt, template or a rejected side.

    Args:
        tokenizer: the model's tokenizer.
        texts: the texts.
        max_length: tokens per sequence, EOS included; longer texts lose their end.

    Raises:
        ValueError: if a text is empty.
    """
    prepared, (before, after) = [], special_tokens(tokenizer)
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][: max_length - len(before) - len(after)]
        if not ids:
            raise ValueError(f"texts: expected text, got an empty one at place {number}; leave it out")
        sequence = (*before, *ids, *after)
        tokens = TokenizedItem((sequence,), 1, len(sequence) - 1, (len(before),), 0)
        prepared.append(PreparedItem(f"text {number}", tokens))
    return prepared


@dataclass(frozen=True)
class PackedSequence:
    """Where one sequence lies in the stream: its first ``n_shared`` tokens at ``prefix``, the others at ``start``."""

    item: int
    side: int
    prefix: int
    n_shared: int
    start: int
    length: int
    response_start: int
    read: int

    def ranges(self, first: int, last: int) -> Iterator[slice]:
        """Yield the stream ranges of the sequence's own positions first, ..., last - 1."""
        if first < min(last, self.n_shared):
            yield slice(self.prefix + first, self.prefix + min(last, self.n_shared))
        if max(first, self.n_shared) < last:
            offset = self.start - self.n_shared
            yield slice(offset + max(first, self.n_shared), offset + last)

    def scope_range(self, scope: str) -> tuple[int, int]:
        """Return (first, last) of the positions in a scope; ``"last"`` is where the reward is read."""
        return {
            "all": (0, self.length),
            "response": (self.response_start, self.length),
            "last": (self.read, self.read + 1),
        }[scope]


@dataclass(frozen=True)
class PackedBatch:
    """A stream of T tokens: ``input_ids`` and ``position_ids`` (T,), and where each sequence lies in it.

    The tokens from ``n_real`` on belong to no item; they fill the stream up to a multiple of `STREAM_MULTIPLE`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    sequences: tuple[PackedSequence, ...]
    n_items: int
    n_real: int

    def read_index(self) -> torch.Tensor:
        """Return the stream index (B,) at which the reward of each sequence is read."""
        return torch.tensor([next(sequence.ranges(*sequence.scope_range("last"))).start for sequence in self.sequences])

    def weights(self, scope: str) -> torch.Tensor:
        """Return (2, T): how often each token counts in a scope, for the chosen and for the rejected side."""
        weights = torch.zeros(len(SIDES), len(self.input_ids))
        for sequence in self.sequences:
            for positions in sequence.ranges(*sequence.scope_range(scope)):
                weights[sequence.side, positions] += 1
        return weights


def read_position(sequence: Sequence[int], pad_token_id: int | None) -> int:
    """Return the position whose hidden state gives the reward: the last token that is not padding.

    With EOS as padding it is the token before EOS. Without a padding token it is the last one; a sequence of nothing
    but padding is read at 0. Source: `transformers`, ``forward`` of the sequence classifiers.
    """
    if pad_token_id is None:
        return len(sequence) - 1
    return next((i for i in range(len(sequence) - 1, -1, -1) if sequence[i] != pad_token_id), 0)


def pack_items(items: Sequence[PreparedItem], pad_token_id: int | None) -> PackedBatch:
    """Lay items out in one stream.

    >>> tokens = TokenizedItem(((5, 6, 7), (5, 6, 8, 9)), 1, 2, (2, 2), 0)
    >>> pack_items([PreparedItem("a", tokens)], None).position_ids[:5].tolist()
    [0, 1, 2, 2, 3]
    """
    input_ids, position_ids, packed = [], [], []
    for number, prepared in enumerate(items):
        tokens, prefix = prepared.tokens, len(input_ids)
        input_ids += tokens.sequences[0][: tokens.n_shared]
        position_ids += range(tokens.n_shared)
        for index, (sequence, response_start) in enumerate(zip(tokens.sequences, tokens.response_starts, strict=True)):
            packed.append(
                PackedSequence(
                    item=number,
                    side=int(index >= tokens.n_chosen),
                    prefix=prefix,
                    n_shared=tokens.n_shared,
                    start=len(input_ids),
                    length=len(sequence),
                    response_start=response_start,
                    read=read_position(sequence, pad_token_id),
                )
            )
            input_ids += sequence[tokens.n_shared :]
            position_ids += range(tokens.n_shared, len(sequence))
    n_real = len(input_ids)
    fill = [0] * (-n_real % STREAM_MULTIPLE)
    return PackedBatch(
        torch.tensor(input_ids + fill), torch.tensor(position_ids + fill), tuple(packed), len(items), n_real
    )
