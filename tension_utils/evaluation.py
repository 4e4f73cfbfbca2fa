"""Score items and tell what a reward model gets right: reward, margin, credit and chance, one definition each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import reward_head
from tension_utils.data import BenchmarkItem, Item, ResponseTooLongError, Turn, chance_credit
from tension_utils.engine.attention import packed_attention
from tension_utils.engine.batches import run_batches, token_budget
from tension_utils.engine.packing import PackedBatch, PreparedItem, pack_items, prepare_items


@dataclass(frozen=True, eq=False)
class ItemRewards:
    """The rewards of one item.

    Args:
        item_id: the item.
        chosen: (m,), float32, rewards of the chosen responses.
        rejected: (k,), float32, rewards of the rejected ones.
        n_tokens: tokens of all its sequences, prompt and EOS included.
        n_forward_tokens: tokens that were computed, the shared ones once.
        is_truncated: whether the prompt lost its left part.
    """

    item_id: str
    chosen: np.ndarray
    rejected: np.ndarray
    n_tokens: int
    n_forward_tokens: int
    is_truncated: bool

    @property
    def margin(self) -> float:
        """Return min r(chosen) - max r(rejected)."""
        return float(self.chosen.min() - self.rejected.max())

    @property
    def credit(self) -> float:
        """Return 1 where the margin is positive, 0 where it is negative, and at a tie the chance of a fair draw.

        With t chosen and u rejected responses tied at the border it is 1 / C(t + u, t): 1/k for a k-way tie of one
        chosen response, and `chance` where all are tied. Source: ours, differs because a tie earns nothing in the
        paper (METHOD.md, section 2, fact 14).
        """
        border = self.chosen.min()
        if border != self.rejected.max():
            return float(border > self.rejected.max())
        n_chosen, n_rejected = int((self.chosen == border).sum()), int((self.rejected == border).sum())
        return float(chance_credit(n_chosen, n_rejected))

    @property
    def chance(self) -> float:
        """Return the expected credit of random rewards."""
        return float(chance_credit(len(self.chosen), len(self.rejected)))


def batch_rewards(model: PreTrainedModel, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return the reward (B,) of each sequence, in float32, from the last hidden states (T, H).

    The products are summed row by row: a matrix product may round equal rows differently, and equal responses tie.
    """
    at_read = hidden[batch.read_index().to(hidden.device)]  # (B, H)
    return (at_read.float() * reward_head(model).weight.float()).sum(dim=-1)


def margins(rewards: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return min r(chosen) - max r(rejected) per item from the rewards (B,) of its sequences."""
    by_item: list[tuple[list[int], list[int]]] = [([], []) for _ in range(batch.n_items)]
    for index, sequence in enumerate(batch.sequences):
        by_item[sequence.item][sequence.side].append(index)
    return torch.stack([rewards[chosen].min() - rewards[rejected].max() for chosen, rejected in by_item])


def read_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    read: Callable[[Callable, PackedBatch], torch.Tensor],
    *,
    max_length: int | None,
    tokens_per_batch: int | None,
    device: str | torch.device | None,
    progress: bool,
    description: str,
    template: str | None = None,
) -> Iterator[tuple[int, PreparedItem, np.ndarray]]:
    """Yield every item's index, tokens and what is read of its sequences, (..., m + k); batch by batch.

    Args:
        model: see `score_items`, as all that is not told here.
        tokenizer: its tokenizer.
        items: the items.
        read: called with the forward pass and a batch, returns (..., B), one value per sequence.
        description: of the bar.
    """
    reward_head(model)
    model.to(device or model.device)
    with torch.inference_mode(), packed_attention(model) as forward:
        for indices, group, values in run_batches(
            items,
            lambda window: prepare_items(tokenizer, window, max_length, template),
            lambda group: read(forward, pack_items(group, model.config.pad_token_id)).cpu().numpy(),
            tokens_per_batch=token_budget(tokens_per_batch, model.device),
            progress=progress,
            description=description,
        ):
            borders = np.cumsum([len(item.tokens.sequences) for item in group])[:-1]
            yield from zip(indices, group, np.split(values, borders, axis=-1), strict=True)


def score_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    *,
    template: str | None = None,
    max_length: int | None = None,
    tokens_per_batch: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[ItemRewards]:
    """Return the rewards of every item, in the items' order.

    Args:
        model: a reward model with one label.
        tokenizer: its tokenizer.
        items: items, or what `prepare_items` made of them when the same items are scored many times.
        template: "hh", the text of HH-RLHF, "chat", the tokenizer's own, or "published"; None is "hh", with a warning
            where the tokenizer has its own. Items prepared before keep theirs.
        max_length: tokens per sequence; longer prompts lose their left part; None takes whole texts.
        tokens_per_batch: tokens computed together; None takes a default for the device.
        device: where to run; None leaves the model where it is.
        progress: show a bar with tokens/s.

    Raises:
        ValueError: if the model has no one-label head, its architecture is not supported, or a reward is not finite.
    """
    rewards: list[ItemRewards | None] = [None] * len(items)
    for index, item, values in read_batches(
        model,
        tokenizer,
        items,
        lambda forward, batch: batch_rewards(model, forward(batch), batch),
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
        device=device,
        progress=progress,
        description="scoring",
        template=template,
    ):
        rewards[index] = item_rewards(item, values)
    return rewards


def item_rewards(item: PreparedItem, values: np.ndarray) -> ItemRewards:
    """Return the rewards of an item from those (m + k,) of its sequences.

    Raises:
        ValueError: if one is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError(
            f"item {item.item_id}: expected finite rewards, got {values.tolist()}; the checkpoint is broken or its "
            "dtype overflows (use float32 or bfloat16)"
        )
    return ItemRewards(
        item_id=item.item_id,
        chosen=values[: item.tokens.n_chosen].copy(),
        rejected=values[item.tokens.n_chosen :].copy(),
        n_tokens=item.n_tokens,
        n_forward_tokens=item.n_forward_tokens,
        is_truncated=item.tokens.n_truncated > 0,
    )


@dataclass(frozen=True)
class PromptGroup:
    """The items of one prompt, and the prompt with each of their responses once, as tokens."""

    items: tuple[BenchmarkItem, ...]
    responses: tuple[str, ...]
    prepared: PreparedItem


def group_by_prompt(
    tokenizer: PreTrainedTokenizerFast, items: Sequence[BenchmarkItem], max_length: int, template: str = "hh"
) -> tuple[list[PromptGroup], dict[str, list[BenchmarkItem]]]:
    """Tokenize every prompt of a subset with all responses that its items name.

    Args:
        tokenizer: the model's tokenizer.
        items: the items.
        max_length: tokens per sequence; longer prompts lose their left part, the same for all responses of a prompt.
        template: of `config.TEMPLATE_NAMES`.

    Returns:
        The groups, in the order of their first items, and the items left out by reason: "too long" if a response of
        theirs leaves no room for its prompt, "identical tokens" if a chosen and a rejected one are the same tokens.
    """
    by_prompt: dict[tuple[str, str, tuple[Turn, ...]], list[BenchmarkItem]] = {}
    for item in items:
        by_prompt.setdefault((item.benchmark, item.subset, item.prompt), []).append(item)
    groups, left_out = [], {"too long": [], "identical tokens": []}
    for own in by_prompt.values():
        try:
            group = _group(tokenizer, own, max_length, template)
        except ResponseTooLongError:
            too_long = _too_long(tokenizer, own, max_length, template)
            left_out["too long"] += [item for item in own if too_long & set(item.responses)]
            own = [item for item in own if not too_long & set(item.responses)]
            if not own:
                continue
            group = _group(tokenizer, own, max_length, template)
        if same := _same_tokens(group):
            left_out["identical tokens"] += same
            if not (own := [item for item in own if item not in same]):
                continue
            group = _group(tokenizer, own, max_length, template)
        groups.append(group)
    return groups, left_out


def _same_tokens(group: PromptGroup) -> list[BenchmarkItem]:
    """Return the items whose chosen and rejected responses a tokenizer does not tell apart."""
    tokens = dict(zip(group.responses, group.prepared.tokens.sequences, strict=True))
    return [item for item in group.items if {tokens[r] for r in item.chosen} & {tokens[r] for r in item.rejected}]


def _group(
    tokenizer: PreTrainedTokenizerFast, items: Sequence[BenchmarkItem], max_length: int, template: str
) -> PromptGroup:
    responses = tuple(dict.fromkeys(response for item in items for response in item.responses))
    whole = Item(items[0].item_id, items[0].prompt, responses, ())
    return PromptGroup(tuple(items), responses, *prepare_items(tokenizer, [whole], max_length, template))


def _too_long(
    tokenizer: PreTrainedTokenizerFast, items: Sequence[BenchmarkItem], max_length: int, template: str
) -> set[str]:
    """Return the responses of one prompt that leave no room for it."""
    found = set()
    for response in dict.fromkeys(response for item in items for response in item.responses):
        try:
            prepare_items(tokenizer, [Item("", items[0].prompt, (response,), ())], max_length, template)
        except ResponseTooLongError:
            found.add(response)
    return found


def split_rewards(group: PromptGroup, rewards: ItemRewards) -> list[ItemRewards]:
    """Return the rewards of each item of a prompt from those of all its responses."""
    value = dict(zip(group.responses, rewards.chosen, strict=True))
    length = dict(zip(group.responses, map(len, group.prepared.tokens.sequences), strict=True))
    return [
        ItemRewards(
            item_id=item.item_id,
            chosen=np.array([value[response] for response in item.chosen], np.float32),
            rejected=np.array([value[response] for response in item.rejected], np.float32),
            n_tokens=sum(length[response] for response in item.responses),
            n_forward_tokens=rewards.n_forward_tokens,
            is_truncated=rewards.is_truncated,
        )
        for item in group.items
    ]


def score_groups(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, groups: Sequence[PromptGroup], **engine_options: object
) -> pd.DataFrame:
    """Score prompt groups and return one row per item: the columns of evaluation.parquet that do not name the model.

    Args:
        model: a reward model.
        tokenizer: its tokenizer.
        groups: of `group_by_prompt`.
        engine_options: of `score_items`.

    Raises:
        ValueError: if there are no groups.
    """
    if not groups:
        raise ValueError("expected at least one item that fits into max_length tokens, got none; raise max_length")
    rewards = score_items(model, tokenizer, [group.prepared for group in groups], **engine_options)
    items = [item for group in groups for item in group.items]
    values = [each for group, found in zip(groups, rewards, strict=True) for each in split_rewards(group, found)]
    return reward_rows(items, values)


def reward_rows(items: Sequence[BenchmarkItem], rewards: Sequence[ItemRewards]) -> pd.DataFrame:
    """Return one row per item with what evaluation and ablation record of it.

    ``chosen_reward`` is the lowest reward of a chosen response, ``chosen_spread`` the highest minus the lowest;
    lengths are mean characters. Reward levels of different models are not comparable, differences within one are.
    """
    rows = [
        {
            "benchmark": item.benchmark,
            "subset": item.subset,
            "item_id": item.item_id,
            "cluster": item.cluster,
            "group": item.group,
            "direction": item.direction,
            "style": item.style,
            "margin": np.float32(reward.margin),
            "credit": reward.credit,
            "chance": item.chance,
            "n_chosen": len(item.chosen),
            "n_rejected": len(item.rejected),
            "n_tokens": reward.n_tokens,
            "is_truncated": reward.is_truncated,
            "chosen_reward": reward.chosen.min(),
            "chosen_spread": np.float32(reward.chosen.max() - reward.chosen.min()),
            "chosen_length": np.mean([len(response) for response in item.chosen]),
            "rejected_length": np.mean([len(response) for response in item.rejected]),
        }
        for item, reward in zip(items, rewards, strict=True)
    ]
    return pd.DataFrame(rows)
