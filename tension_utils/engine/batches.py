"""Run a function over items in packed batches: a token budget that survives running out of memory, and progress."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size
from tqdm import tqdm

from tension_utils.data import Item
from tension_utils.engine.packing import PreparedItem

Result = TypeVar("Result")

WINDOW = 512  # items sorted by length together, so that a batch holds similar lengths

PROGRESS_DELAY = 3.0  # seconds before a progress bar shows

CPU_TOKENS, ACCELERATOR_TOKENS = 2048, 32768  # a CPU is saturated early, and short streams stay in its cache


def token_budget(tokens_per_batch: int | None, device: torch.device) -> int:
    """Return the tokens of a batch; None stands for the default of the device."""
    if tokens_per_batch is not None:
        return tokens_per_batch
    return CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS


def split_by_budget(items: Sequence[PreparedItem], order: Sequence[int], budget: int) -> list[list[int]]:
    """Split indices, in the given order, into batches of at most ``budget`` stream tokens; one item at least."""
    batches, n_tokens = [], 0
    for index in order:
        n_item = items[index].n_forward_tokens
        if not batches or n_tokens + n_item > budget:
            batches.append([])
            n_tokens = 0
        batches[-1].append(index)
        n_tokens += n_item
    return batches


def run_batches(
    items: Sequence[Item | PreparedItem],
    prepare: Callable[[Sequence[Item | PreparedItem]], list[PreparedItem]],
    step: Callable[[list[PreparedItem]], Result],
    *,
    tokens_per_batch: int,
    progress: bool,
    description: str,
) -> Iterator[tuple[list[int], list[PreparedItem], Result]]:
    """Yield the indices, the prepared items and the result of every batch; only a window of items is held.

    Where a batch does not fit into memory, the budget is halved for good and the batch is run again in parts, so
    ``step`` must leave no trace before it returns.

    Args:
        items: the items.
        prepare: makes their tokens, called with a window of items.
        step: called with the items of one batch.
        tokens_per_batch: stream tokens of a batch.
        progress: show a bar with tokens/s on everything longer than `PROGRESS_DELAY`.
        description: of the bar.

    Raises:
        ValueError: if ``tokens_per_batch`` is not positive.
        RuntimeError: if a single item does not fit into memory.
    """
    if tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch: expected a positive number of tokens, got {tokens_per_batch}")
    budget, n_tokens, start = tokens_per_batch, 0, time.monotonic()
    with tqdm(total=len(items), desc=description, unit="item", disable=not progress, delay=PROGRESS_DELAY) as bar:
        for first in range(0, len(items), WINDOW):
            window = prepare(items[first : first + WINDOW])
            order = sorted(range(len(window)), key=[-item.n_forward_tokens for item in window].__getitem__)
            pending = split_by_budget(window, order, budget)
            while pending:
                batch = pending.pop(0)
                group = [window[i] for i in batch]
                is_done, result = _attempt(step, group)
                if not is_done:
                    budget = max(1, budget // 2)
                    rest = [index for indices in (batch, *pending) for index in indices]
                    pending = split_by_budget(window, rest, budget)
                    continue
                yield [first + i for i in batch], group, result
                n_tokens += sum(item.n_forward_tokens for item in group)
                bar.set_postfix_str(f"{n_tokens / (time.monotonic() - start):,.0f} tokens/s", refresh=False)
                bar.update(len(batch))


def _attempt(step: Callable[[list[PreparedItem]], Result], batch: list[PreparedItem]) -> tuple[bool, Result | None]:
    """Return (True, result), or (False, None) where a batch of several items ran out of memory."""
    try:
        return True, step(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not should_reduce_batch_size(error):
            raise
    gc.collect()  # after the except clause, which holds the failed batch's tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False, None
