"""Score items: one reward per response, each shared prompt computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import reward_head
from tension_utils.data import Item
from tension_utils.engine import run_batches, token_budget
from tension_utils.packed_attention import packed_attention
from tension_utils.packing import PackedBatch, PreparedItem, pack_items, prepare_items


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
        return 1 / comb(n_chosen + n_rejected, n_chosen)

    @property
    def chance(self) -> float:
        """Return the expected credit of random rewards, 1 / C(m + k, m)."""
        return 1 / comb(len(self.chosen) + len(self.rejected), len(self.chosen))


def batch_rewards(model: PreTrainedModel, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return the reward (B,) of each sequence, in float32, from the last hidden states (T, H).

    The products are summed row by row: a matrix product may round equal rows differently, and equal responses tie.
    """
    at_read = hidden[batch.read_index().to(hidden.device)]  # (B, H)
    return (at_read.float() * reward_head(model).weight.float()).sum(dim=-1)


def score_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    *,
    max_length: int,
    tokens_per_batch: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[ItemRewards]:
    """Return the rewards of every item, in the items' order.

    Args:
        model: a reward model with one label.
        tokenizer: its tokenizer.
        items: items, or what `prepare_items` made of them when the same items are scored many times.
        max_length: tokens per sequence; longer prompts lose their left part.
        tokens_per_batch: tokens computed together; None takes a default for the device.
        device: where to run; None leaves the model where it is.
        progress: show a bar with tokens/s.

    Raises:
        ValueError: if the model has no one-label head, its architecture is not supported, or a reward is not finite.
    """
    reward_head(model)
    if device is not None:
        model.to(device)
    pad_token_id = model.config.pad_token_id
    rewards: list[ItemRewards | None] = [None] * len(items)
    with torch.inference_mode(), packed_attention(model) as forward:

        def step(group: list[PreparedItem]) -> np.ndarray:
            batch = pack_items(group, pad_token_id)
            return batch_rewards(model, forward(batch), batch).cpu().numpy()

        for indices, group, values in run_batches(
            items,
            lambda window: prepare_items(tokenizer, window, max_length),
            step,
            tokens_per_batch=token_budget(tokens_per_batch, model.device),
            progress=progress,
            description="scoring",
        ):
            borders = np.cumsum([len(item.tokens.sequences) for item in group])[:-1]
            for index, item, item_values in zip(indices, group, np.split(values, borders), strict=True):
                rewards[index] = item_rewards(item, item_values)
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
