"""Remove neurons: exact edits of the projection that reads them, undone bit for bit on exit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.activations import observed
from tension_utils.architectures import architecture_of, projection_weight
from tension_utils.data import Item
from tension_utils.engine.attention import packed_attention
from tension_utils.engine.batches import run_batches, token_budget
from tension_utils.engine.packing import PreparedItem, pack_items, prepare_items
from tension_utils.neurons import NeuronSet


class Donors:
    """The donor rows of the tokens of a forward pass, drawn when its first ablated layer runs."""

    def __init__(self, generator: np.random.Generator, *, scale: float, first_layer: int) -> None:
        self.generator, self.scale, self.first_layer = generator, scale, first_layer
        self.rows: torch.Tensor | None = None

    def hook(self, layer: int, columns: torch.Tensor, bank: torch.Tensor) -> Callable:
        """Return a pre-hook for a layer's projection that replaces columns by those of ``bank`` (rows, L, N)."""
        bank = bank[:, layer][:, columns.to(bank.device)].to(columns.device)

        def replace(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            inputs = args[0]  # (B, T, N)
            if layer == self.first_layer:
                rows = self.generator.integers(len(bank), size=inputs.shape[:-1])
                self.rows = torch.from_numpy(rows).to(inputs.device)
            donated = bank[self.rows].to(inputs.dtype)
            kept = (inputs[..., columns] - donated) * self.scale if self.scale else 0
            replaced = inputs.clone()
            replaced[..., columns] = donated + kept
            return (replaced, *args[1:])

        return replace


def activation_bank(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    generator: np.random.Generator,
    *,
    n_rows: int = 512,
    max_length: int,
    tokens_per_batch: int | None = None,
    progress: bool = True,
) -> torch.Tensor:
    """Return activations (n_rows, L, N) of tokens drawn from items, the donors of kind "resample".

    Every item gives equally many tokens, drawn with replacement from all its tokens, the shared ones counted once;
    of these ``n_rows`` are kept at random.

    Args:
        model: the model that will be ablated.
        tokenizer: its tokenizer.
        items: where donors come from, best not the items that will be scored.
        generator: draws the tokens.
        n_rows: rows of the bank.
        max_length: tokens per sequence.
        tokens_per_batch: tokens computed together; None takes a default for the device.
        progress: show a bar with tokens/s.
    """
    per_item = ceil(n_rows / len(items))
    parts: list[torch.Tensor] = []
    with torch.inference_mode(), packed_attention(model) as forward:

        def step(group: list[PreparedItem]) -> torch.Tensor:
            ends = np.cumsum([item.n_forward_tokens for item in group])
            starts = np.concatenate([[0], ends[:-1]])
            drawn = generator.integers(starts[:, None], ends[:, None], size=(len(group), per_item)).ravel()
            layers: dict[int, torch.Tensor] = {}
            with observed(model, "down_input", lambda layer, values: layers.__setitem__(layer, values[0, drawn])):
                forward(pack_items(group, None))
            return torch.stack([layers[layer] for layer in sorted(layers)], dim=1)

        for _, _, rows in run_batches(
            items,
            lambda window: prepare_items(tokenizer, window, max_length),
            step,
            tokens_per_batch=token_budget(tokens_per_batch, model.device),
            progress=progress,
            description="activation bank",
        ):
            parts.append(rows)
    rows = torch.cat(parts)
    return rows[torch.from_numpy(generator.permutation(len(rows))[:n_rows]).to(rows.device)].clone()


KINDS = ("zero", "mean", "resample")


@dataclass(frozen=True)
class _Replacement:
    """What replaces an activation a: ``r + scale (a - r)`` with r zero, a mean, or a row of the bank."""

    kind: str
    scale: float
    means: torch.Tensor | None
    bank: torch.Tensor | None
    generator: np.random.Generator | None

    def check(self, shape: tuple[int, int]) -> None:
        """Raise where the kind is unknown, or what it needs is missing or of another model."""
        if self.kind not in KINDS:
            raise ValueError(f"ablation kind: expected one of {KINDS}, got {self.kind!r}")
        if self.kind == "mean" and (self.means is None or tuple(self.means.shape) != shape):
            came = None if self.means is None else tuple(self.means.shape)
            raise ValueError(
                f"kind 'mean': expected means of shape {shape}, got {came}; pass the scores of kind 'signed_mean'"
            )
        if self.kind == "resample" and (
            self.bank is None or self.generator is None or tuple(self.bank.shape[1:]) != shape
        ):
            came = None if self.bank is None else tuple(self.bank.shape)
            raise ValueError(
                f"kind 'resample': expected a generator and a bank of shape (rows, {shape[0]}, {shape[1]}), got a bank "
                f"of shape {came} and generator {self.generator}; make the bank with activation_bank"
            )


@contextmanager
def ablated(
    model: PreTrainedModel,
    neurons: NeuronSet,
    kind: str = "zero",
    scale: float = 0.0,
    *,
    means: np.ndarray | torch.Tensor | None = None,
    bank: torch.Tensor | None = None,
    generator: np.random.Generator | None = None,
) -> Iterator[PreTrainedModel]:
    """Replace the activation a of every neuron in the set by ``r + scale (a - r)`` while the context is open.

    Zero (r = 0) and mean (r = the mean) are edits of the down projection's columns, the mean's contribution going
    into its bias, which is added where there is none: nothing runs in the forward pass. Resample replaces r at every
    token by the activation of a donor token, drawn from the bank anew in every forward pass, the same donor for all
    layers; that needs a hook. On exit, also after an error, weights and biases are bit for bit what they were. Other
    hooks are left alone. Contexts can be nested; an inner one edits what the outer one left.

    Args:
        model: a model of `ARCHITECTURES`.
        neurons: the set.
        kind: of `KINDS`.
        scale: share of the activation's distance from r that is kept; with kind "zero" it scales the activation.
        means: (L, N), for kind "mean"; such as ``scores.get("signed_mean")``.
        bank: (rows, L, N), for kind "resample"; from `activation_bank`.
        generator: draws the donors, for kind "resample".

    Yields:
        The same model.

    Raises:
        ValueError: if the kind is unknown, lacks what it needs, or the set belongs to another model.

    Source: section 1 of METHOD.md, "Ablation" (zero); mean, resample and scale are ours.
    """
    replacement = _Replacement(kind, scale, None if means is None else torch.as_tensor(means), bank, generator)
    projections = architecture_of(model).parts_of(model, "down")
    with _replaced_inputs(projections, neurons.mask, replacement):
        yield model


@contextmanager
def _replaced_inputs(projections: Sequence[nn.Module], mask: np.ndarray, replacement: _Replacement) -> Iterator[None]:
    """Replace the masked inputs (L, N) of one projection per layer."""
    widths = [projection_weight(projection).shape[1] for projection in projections]
    if mask.shape[0] != len(widths) or {mask.shape[1]} != set(widths):
        raise ValueError(
            f"expected a set for {len(widths)} layers of {sorted(set(widths))} inputs each, got one of shape "
            f"{mask.shape}; it belongs to another model, or neurons have been cut out of this one"
        )
    replacement.check(mask.shape)
    layers = [layer for layer in range(len(projections)) if mask[layer].any()]
    with ExitStack() as stack:
        donors = Donors(replacement.generator, scale=replacement.scale, first_layer=min(layers, default=0))
        for layer in layers:
            columns = torch.from_numpy(np.flatnonzero(mask[layer])).to(projections[layer].weight.device)
            if replacement.kind == "resample":
                hook = donors.hook(layer, columns, replacement.bank)
                stack.callback(projections[layer].register_forward_pre_hook(hook).remove)
            else:
                mean = replacement.means[layer] if replacement.kind == "mean" else None
                stack.enter_context(_edited(projections[layer], columns, replacement.scale, mean))
        yield


@contextmanager
def _edited(projection: nn.Module, columns: torch.Tensor, scale: float, mean: torch.Tensor | None) -> Iterator[None]:
    """Scale columns of a projection and move what is missing of their mean contribution into its bias."""
    weight, bias = projection_weight(projection).detach(), projection.bias
    saved = weight[:, columns]  # a copy: the index is a tensor
    weight[:, columns] = scaled(saved, scale)
    try:
        if mean is not None:
            projection.bias = _bias_with_mean(projection, saved, columns, scale, mean)
        yield
    finally:
        weight[:, columns] = saved
        projection.bias = bias


def scaled(columns: torch.Tensor, scale: float) -> torch.Tensor:
    """Return scaled weights; exactly zero for scale 0, also where a weight is not finite."""
    return torch.zeros_like(columns) if scale == 0 else columns * scale


@torch.no_grad()
def _bias_with_mean(
    projection: nn.Module, columns_before: torch.Tensor, columns: torch.Tensor, scale: float, mean: torch.Tensor
) -> nn.Parameter:
    """Return the bias plus (1 - scale) W[:, columns] mean[columns], summed in float64."""
    constant = columns_before.cpu().double() @ mean.cpu()[columns.cpu()].double() * (1 - scale)
    if projection.bias is not None:
        constant = constant + projection.bias.cpu().double()
    return nn.Parameter(constant.to(projection.weight), requires_grad=False)
