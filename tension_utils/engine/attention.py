"""Attention on a packed stream: a prefix is causal, a response attends to its prefix and to itself.

In a layer with a sliding window, a token at position p of its sequence attends to the positions p - window + 1, ..., p.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from tension_utils.architectures import architecture_of
from tension_utils.engine.packing import PackedBatch


@dataclass(frozen=True)
class AttentionBlock:
    """Queries at one stream range that attend to ``keys``; ``mask`` (Q, K) is None where they are causal."""

    queries: slice
    keys: tuple[slice, ...]
    mask: torch.Tensor | None


def _blocks(
    batch: PackedBatch, dtype: torch.dtype, device: torch.device, window: int | None = None
) -> list[AttentionBlock]:
    """Return the attention blocks in stream order: each prefix, then each rest of a response; at last the fill."""
    blocks = []
    for number, sequence in enumerate(batch.sequences):
        n_shared = sequence.n_shared
        prefix = slice(sequence.prefix, sequence.prefix + n_shared)
        if n_shared and (number == 0 or batch.sequences[number - 1].item != sequence.item):
            is_windowed = window is not None and n_shared > window
            mask = _mask(n_shared, n_shared, window, dtype, device) if is_windowed else None
            blocks.append(AttentionBlock(prefix, (prefix,), mask))
        rest = slice(sequence.start, sequence.start + sequence.length - n_shared)
        n_unseen = 0 if window is None else max(0, n_shared - window + 1)  # no token of the rest sees these
        mask = _mask(sequence.length - n_shared, sequence.length - n_unseen, window, dtype, device)
        blocks.append(AttentionBlock(rest, (slice(prefix.start + n_unseen, prefix.stop), rest), mask))
    if batch.n_real < len(batch.input_ids):
        fill = slice(batch.n_real, len(batch.input_ids))
        blocks.append(AttentionBlock(fill, (fill,), None))
    return blocks


def _mask(n_queries: int, n_keys: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return (Q, K): 0 where a query sees a key, -inf elsewhere; the last query is the last key's token."""
    ahead = n_keys - n_queries
    mask = torch.full((n_queries, n_keys), -torch.inf, dtype=dtype, device=device).triu_(ahead + 1)
    if window is not None:
        mask += torch.full_like(mask, -torch.inf).tril_(ahead - window)
    return mask


def _attend_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[AttentionBlock], scaling: float | None
) -> torch.Tensor:
    """Attend block by block, without any padding; the fastest way on a CPU."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary embeddings make them float32
    return _BlockAttention.apply(query, key, value, blocks, scaling)


class _BlockAttention(torch.autograd.Function):
    """Attention by blocks whose backward pass is written out.

    Automatic differentiation would make zeros of the whole stream for every slice of it, and the library's backward
    pass is slow where blocks are small.
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, blocks: list[AttentionBlock], scaling: float) -> Any:
        """Return the attended values (1, heads, T, width)."""
        outputs = []
        for block in blocks:
            keys, values = (_gather(states, block.keys) for states in (key, value))
            outputs.append(
                scaled_dot_product_attention(
                    query[:, :, block.queries],
                    keys,
                    values,
                    attn_mask=block.mask,
                    is_causal=block.mask is None,
                    scale=scaling,
                    enable_gqa=key.shape[1] != query.shape[1],
                )
            )
        output = torch.cat(outputs, dim=2)
        ctx.save_for_backward(query, key, value, output)
        ctx.blocks, ctx.scaling = blocks, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of queries, keys and values.

        With P the attention weights, D their gradient and S = scaling P (D - row sums of output x gradient), they are
        S keys, S^T queries and P^T gradient. Heads that share keys and values are rows of one product. P and S are
        computed in float32; products have the states' dtype.
        """
        query, key, value, output = ctx.saved_tensors
        n_groups, n_tokens, width = key.shape[1], *query.shape[2:]
        # (groups, heads of a group, T, width): query head h belongs to group h // (heads of a group)
        query, output, gradient = (
            x.view(n_groups, -1, n_tokens, width) for x in (query, output, gradient.contiguous())
        )
        inner = (output.float() * gradient.float()).sum(dim=-1, keepdim=True)
        d_query = torch.empty_like(query)
        d_key, d_value = torch.zeros_like(key[0]), torch.zeros_like(value[0])
        for block in ctx.blocks:
            keys, values = (_gather(states, block.keys)[0] for states in (key, value))  # (groups, K, width)
            rows, out = (x[:, :, block.queries].flatten(1, 2) for x in (query, gradient))  # (groups, heads x Q, width)
            weights = torch.bmm(rows, keys.transpose(1, 2)).float().unflatten(1, (query.shape[1], -1)) * ctx.scaling
            weights = torch.softmax(weights + _mask_of(block, weights), dim=-1)  # (groups, heads, Q, K)
            scores = torch.bmm(out, values.transpose(1, 2)).float().view_as(weights)
            scores = ((scores - inner[:, :, block.queries]) * weights * ctx.scaling).to(query.dtype).flatten(1, 2)
            weights = weights.to(query.dtype).flatten(1, 2)
            d_query[:, :, block.queries] = torch.bmm(scores, keys).view(*query.shape[:2], -1, width)
            _scatter(d_key, block.keys, torch.bmm(scores.transpose(1, 2), rows))
            _scatter(d_value, block.keys, torch.bmm(weights.transpose(1, 2), out))
        return d_query.view(1, -1, n_tokens, width), d_key[None], d_value[None], None, None


def _mask_of(block: AttentionBlock, weights: torch.Tensor) -> torch.Tensor:
    """Return the mask (Q, K) of a block, also where it is causal and has none."""
    if block.mask is not None:
        return block.mask
    return torch.full(weights.shape[-2:], -torch.inf, dtype=weights.dtype, device=weights.device).triu_(1)


def _scatter(states: torch.Tensor, ranges: tuple[slice, ...], values: torch.Tensor) -> None:
    """Add values (groups, K, width) to the ranges of the stream that `_gather` took."""
    start = 0
    for part in ranges:
        stop = start + part.stop - part.start
        states[:, part] += values[:, start:stop]
        start = stop


def _gather(states: torch.Tensor, ranges: tuple[slice, ...]) -> torch.Tensor:
    parts = [states[:, :, part] for part in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


@dataclass(frozen=True)
class _PaddedBlocks:
    """Blocks side by side: ``queries`` (B, Q) and ``keys`` (B, K) are stream indices, ``mask`` (B, 1, Q, K)."""

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor
    is_real: torch.Tensor


def _padded_blocks(
    batch: PackedBatch, dtype: torch.dtype, device: torch.device, window: int | None = None
) -> list[_PaddedBlocks]:
    """Return the prefixes as one padded group of blocks, and the rests of the responses as another."""
    blocks = _blocks(batch, dtype, torch.device("cpu"), window)
    groups = [[b for b in blocks if len(b.keys) == 1], [b for b in blocks if len(b.keys) == 2]]
    return [_pad_group(group, dtype, device) for group in groups if group]


def _pad_group(blocks: list[AttentionBlock], dtype: torch.dtype, device: torch.device) -> _PaddedBlocks:
    queries = [torch.arange(block.queries.start, block.queries.stop) for block in blocks]
    keys = [torch.cat([torch.arange(part.start, part.stop) for part in block.keys]) for block in blocks]
    n_queries, n_keys = max(map(len, queries)), max(map(len, keys))
    mask = torch.full((len(blocks), 1, n_queries, n_keys), -torch.inf, dtype=dtype)
    mask[..., 0] = 0  # a padded query attends to something, so that it is not NaN
    for row, block in enumerate(blocks):
        n_rows, n_columns = len(queries[row]), len(keys[row])
        causal = _mask(n_rows, n_columns, None, dtype, mask.device) if block.mask is None else block.mask
        mask[row, 0, :n_rows, :n_columns] = causal
    pad = torch.nn.utils.rnn.pad_sequence
    return _PaddedBlocks(
        queries=pad(queries, batch_first=True).to(device),
        keys=pad(keys, batch_first=True).to(device),
        mask=mask.to(device),
        is_real=pad([torch.ones(len(q), dtype=torch.bool) for q in queries], batch_first=True).to(device),
    )


def _attend_padded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: list[_PaddedBlocks], scaling: float | None
) -> torch.Tensor:
    """Attend in two padded calls, prefixes and responses; for accelerators, where many small calls cost more."""
    n_repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(n_repeats, dim=1) for states in (key, value))
    output = torch.empty_like(query)
    for group in groups:
        rows = [s[0][:, i].transpose(0, 1) for s, i in ((query, group.queries), (key, group.keys), (value, group.keys))]
        attended = scaled_dot_product_attention(*rows, attn_mask=group.mask, scale=scaling)  # (B, heads, Q, width)
        output[0][:, group.queries[group.is_real]] = attended.transpose(0, 1)[:, group.is_real]
    return output


def _registered(attend: Callable) -> Callable:
    def forward(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        blocks = kwargs["packed_blocks"](sliding_window)
        return attend(query, key, value, blocks, scaling).transpose(1, 2).contiguous(), None

    return forward


LAYOUTS = {"packed_blocks": (_attend_blocks, _blocks), "packed_padded": (_attend_padded, _padded_blocks)}

for _name, (_attend, _) in LAYOUTS.items():
    AttentionInterface.register(_name, _registered(_attend))


class _PackedBlocks:
    """The blocks of a batch by a layer's window, made once; a window that no sequence exceeds is none."""

    def __init__(self, batch: PackedBatch, layout: str, dtype: torch.dtype, device: torch.device) -> None:
        self.batch = batch
        self.longest = max(sequence.length for sequence in batch.sequences)
        self.make = cache(partial(LAYOUTS[layout][1], batch, dtype, device))

    def __call__(self, window: int | None) -> list:
        return self.make(None if window is None or window >= self.longest else window)

    @cached_property
    def key(self) -> tuple:
        """All of the batch that the hidden states depend on."""
        return tuple(self.batch.input_ids.tolist()), self.batch.sequences, self.batch.n_real


@contextmanager
def packed_attention(
    model: PreTrainedModel, layout: str | None = None
) -> Iterator[Callable[[PackedBatch], torch.Tensor]]:
    """Give a function that runs the backbone on a packed batch; restore the model's attention and mode on exit.

    Args:
        model: a model of `ARCHITECTURES`, with or without a reward head.
        layout: a key of `LAYOUTS`; None takes blocks on a CPU and padded groups elsewhere.

    Yields:
        A function from a batch to the last hidden states (T, H).

    Raises:
        ValueError: if the architecture is not supported, or its positions are not independent of the batch.
    """
    architecture_of(model)
    backbone, device, was_training = model.base_model, model.device, model.training
    require_static_positions(backbone.config)
    layout = layout or ("packed_blocks" if device.type == "cpu" else "packed_padded")
    original = backbone.config._attn_implementation

    def run(batch: PackedBatch) -> torch.Tensor:
        _require_context(backbone, batch)
        embeddings = backbone.get_input_embeddings()(batch.input_ids[None].to(device))
        return backbone(
            inputs_embeds=embeddings,
            position_ids=batch.position_ids[None].to(device),
            use_cache=False,
            packed_blocks=_PackedBlocks(batch, layout, embeddings.dtype, device),
        ).last_hidden_state[0]

    backbone.set_attn_implementation(layout)
    model.eval()
    try:
        yield run
    finally:
        model.train(was_training)
        backbone.set_attn_implementation(original)


def require_static_positions(config: PretrainedConfig) -> None:
    """Raise ValueError for rotary embeddings whose frequencies depend on the longest position in the batch."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [each for each in parameters.values() if isinstance(each, dict)]  # Gemma has one per layer type
    for each in by_layer_type or [parameters]:
        rope_type = each.get("rope_type", "default")
        if rope_type in ("dynamic", "longrope"):
            raise ValueError(f"rope type {rope_type!r} is not supported; expected one whose frequencies are fixed")


def _require_context(backbone: PreTrainedModel, batch: PackedBatch) -> None:
    """Refuse a sequence that is longer than the model's context."""
    limit = backbone.config.max_position_embeddings
    longest = max(sequence.length for sequence in batch.sequences)
    if longest > limit:
        raise ValueError(
            f"a sequence of {longest} tokens exceeds the {limit} that {type(backbone).__name__} can attend to; "
            f"lower max_length to at most {limit}"
        )
