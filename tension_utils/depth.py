"""Read the reward at every depth: final norm and reward head on the residual stream after each layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import architecture_of, reward_head
from tension_utils.artifacts import is_archived, write_table
from tension_utils.config import EngineConfig, Run, checked
from tension_utils.data import Item
from tension_utils.engine.packing import PackedBatch, PreparedItem
from tension_utils.evaluation import (
    ItemRewards,
    PromptGroup,
    group_by_prompt,
    item_rewards,
    read_batches,
    split_rewards,
)
from tension_utils.stages import ItemsConfig, Stage, load_items


@checked
class DepthConfig:
    """On which test items the reward is read at every depth.

    Args:
        items: which, and how.
    """

    items: ItemsConfig = ItemsConfig()

    @property
    def engine(self) -> EngineConfig:
        """How items go through the model."""
        return self.items.engine


@contextmanager
def observed_residuals(model: PreTrainedModel, observe: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call ``observe(depth, residual stream (1, T, H))`` whenever the model computes it.

    Args:
        model: a model of `ARCHITECTURES`.
        observe: depth 0 is what the first layer reads, depth l what layer l (1-based) writes, depth L what the final
            norm reads. Must not change it.
    """
    architecture = architecture_of(model)
    readers = [*architecture.layers_of(model), architecture.final_norm_of(model)]
    handles = [
        module.register_forward_pre_hook(lambda _, args, depth=depth: observe(depth, args[0]))
        for depth, module in enumerate(readers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def read_rewards(model: PreTrainedModel, residuals: torch.Tensor) -> torch.Tensor:
    """Return the rewards (...) in float32 that final norm and reward head give to residual streams (..., H).

    Each is summed by itself in float64, so that equal streams have equal rewards: at depth 0 most responses end with
    the same token, and a tie has to be one.
    """
    normed = architecture_of(model).final_norm_of(model)(residuals)
    return (normed.double() * reward_head(model).weight[0].double()).sum(dim=-1).float()


def depth_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    *,
    max_length: int,
    tokens_per_batch: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[list[ItemRewards]]:
    r"""Return the rewards of every item at every depth 0, ..., L, from one forward pass.

    .. math:: r_l(x, y) = w \cdot \mathrm{norm}(h_l)

    with h_l the residual stream after layer l, at the token where the reward is read; r_L is the model's own reward.

    Args:
        model: a reward model with one label.
        tokenizer: its tokenizer.
        items: items, or what `prepare_items` made of them.
        max_length: tokens per sequence; longer prompts lose their left part.
        tokens_per_batch: tokens computed together; None takes a default for the device.
        device: where to run; None leaves the model where it is.
        progress: show a bar with tokens/s.

    Raises:
        ValueError: if the model has no one-label head, its architecture is not supported, or a reward is not finite.

    Source: ours; the logit lens (nostalgebraist, 2020) with the reward head in place of the unembedding.
    """

    def read(forward: Callable, batch: PackedBatch) -> torch.Tensor:
        index, at_read = batch.read_index().to(model.device), {}
        with observed_residuals(model, lambda depth, hidden: at_read.update({depth: hidden[0, index]})):
            forward(batch)
        return read_rewards(model, torch.stack([at_read[depth] for depth in sorted(at_read)]))  # (L + 1, B)

    found: list[list[ItemRewards]] = [[] for _ in items]
    for index, item, values in read_batches(
        model,
        tokenizer,
        items,
        read,
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
        device=device,
        progress=progress,
        description="reward by depth",
    ):
        found[index] = [item_rewards(item, at_depth) for at_depth in values]
    return found


def depth_rows(groups: Sequence[PromptGroup], rewards: Sequence[Sequence[ItemRewards]]) -> pd.DataFrame:
    """Return one row per item and depth: the columns of depth.parquet that do not name the model.

    Args:
        groups: of `group_by_prompt`.
        rewards: per group and depth, of `depth_rewards`.
    """
    rows = [
        {
            "depth": depth,
            "benchmark": item.benchmark,
            "subset": item.subset,
            "item_id": item.item_id,
            "cluster": item.cluster,
            "margin": reward.margin,
            "credit": reward.credit,
            "chance": item.chance,
        }
        for group, by_depth in zip(groups, rewards, strict=True)
        for depth, at_depth in enumerate(by_depth)
        for item, reward in zip(group.items, split_rewards(group, at_depth), strict=True)
    ]
    return pd.DataFrame(rows).astype({"depth": np.int16, "margin": np.float32})


def depth_run(run: Run, config: DepthConfig) -> bool:
    """Read the reward of every test item at every depth and write ``depth.parquet``.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward model.

    Raises:
        ValueError: if no item fits into ``max_length`` tokens.
    """
    if is_archived(run.folder, "depth.parquet"):
        return False
    stage = Stage(run, "depth", "depth.parquet", config)
    if not stage.start():
        return False
    max_length = config.items.max_length or stage.data.max_length
    items = load_items(run, stage.data, config.items).items
    groups, _ = group_by_prompt(stage.tokenizer, items, max_length, stage.template)
    if not groups:
        raise ValueError("expected at least one item that fits into max_length tokens, got none; raise max_length")
    prepared = [group.prepared for group in groups]
    options = stage.engine_options() | {"max_length": max_length}
    rows = depth_rows(groups, depth_rewards(stage.model, stage.tokenizer, prepared, **options))
    write_table(run.folder / "depth.parquet", rows.assign(**run.label))
    n_items = sum(len(group.items) for group in groups)
    stage.finish(sum(item.n_tokens for item in prepared), n_items=n_items, n_depths=int(rows.depth.max()) + 1)
    return True
