"""One packed pass that gathers all sums behind the neuron scores of several models."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.moments import BASED_MOMENTS, observed, weighted_moments
from tension_utils.packed_attention import packed_attention
from tension_utils.packing import PackedBatch, PreparedItem, pack_items
from tension_utils.rewards import batch_rewards

MOST = 0.9  # where more of the tokens count, taking all with some weights zero is faster than picking rows


@dataclass
class PassSums:
    """Sums over tokens for one model, float64 in the totals.

    Args:
        moments: (moments, scopes, 2, L, N), sides chosen and rejected.
        weights: (scopes, 2), summed token weights.
        attribution: (scopes, L, N), sum over items.
    """

    moments: torch.Tensor
    weights: torch.Tensor
    attribution: torch.Tensor

    @classmethod
    def zeros(cls, observation: "Observation", shape: tuple[int, int]) -> "PassSums":
        """Return empty totals."""
        n_scopes = len(observation.scopes)
        return cls(
            moments=torch.zeros(len(observation.moments), n_scopes, 2, *shape, dtype=torch.float64),
            weights=torch.zeros(n_scopes, 2, dtype=torch.float64),
            attribution=torch.zeros(n_scopes, *shape, dtype=torch.float64),
        )

    def add(self, other: "PassSums") -> None:
        """Add the sums of a batch."""
        self.moments += other.moments
        self.weights += other.weights
        self.attribution += other.attribution


@dataclass(frozen=True)
class Observation:
    """What to gather: ``moments`` of the models' activations at a site, over the tokens of several scopes."""

    models: tuple[PreTrainedModel, ...]
    base: PreTrainedModel | None
    site: str
    scopes: tuple[str, ...]
    moments: tuple[str, ...]
    is_attributed: bool
    tokenizer: PreTrainedTokenizerFast

    @contextmanager
    def running(self) -> Iterator[Callable[[list[PreparedItem]], list[PassSums]]]:
        """Give a function from the items of a batch to one `PassSums` per model."""
        head_pad = self.models[0].config.pad_token_id
        pad_token_id = self.tokenizer.pad_token_id if head_pad is None else head_pad
        with ExitStack() as stack:
            forwards = [stack.enter_context(packed_attention(model)) for model in self.models]
            needs_base = not set(BASED_MOMENTS).isdisjoint(self.moments)
            base_forward = stack.enter_context(packed_attention(self.base)) if needs_base else None

            def step(group: list[PreparedItem]) -> list[PassSums]:
                batch = pack_items(group, pad_token_id)
                weights = torch.stack([batch.weights(scope) for scope in self.scopes])  # (scopes, 2, T)
                rows = weights.sum(dim=(0, 1)).nonzero()[:, 0]
                rows = None if len(rows) > MOST * weights.shape[-1] else rows
                base = self._base_activations(base_forward, batch, rows) if needs_base else None
                passes = (_Pass(self, model, weights, rows, base) for model in self.models)
                return [each.run(forward, batch) for each, forward in zip(passes, forwards, strict=True)]

            yield step

    def _base_activations(
        self, forward: Callable[[PackedBatch], torch.Tensor], batch: PackedBatch, rows: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the base model's activations (rows, N) of every layer."""
        layers: dict[int, torch.Tensor] = {}

        def keep(layer: int, activations: torch.Tensor) -> None:
            layers[layer] = select_rows(activations[0], rows)

        with torch.inference_mode(), observed(self.base, self.site, keep):
            forward(batch)
        return [layers[layer] for layer in sorted(layers)]


def select_rows(activations: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """Return the activations (rows, N) of some tokens; None stands for all."""
    return activations if rows is None else activations[rows.to(activations.device)]


class _Pass:
    """One forward, and with attribution one backward, of one model over one batch."""

    def __init__(
        self,
        observation: Observation,
        model: PreTrainedModel,
        weights: torch.Tensor,
        rows: torch.Tensor | None,
        base: list[torch.Tensor] | None,
    ) -> None:
        self.observation, self.model, self.rows, self.base = observation, model, rows, base
        self.total_weights = weights.sum(dim=-1)
        self.weights = (weights if rows is None else weights[..., rows]).to(model.device)  # (scopes, 2, rows)
        self.moments: dict[int, torch.Tensor] = {}
        self.attribution: dict[int, torch.Tensor] = {}

    def run(self, forward: Callable[[PackedBatch], torch.Tensor], batch: PackedBatch) -> PassSums:
        with observed(self.model, self.observation.site, self._observe):
            if self.observation.is_attributed:
                with _frozen_parameters(self.model), torch.inference_mode(False), torch.enable_grad():
                    margins(batch_rewards(self.model, forward(batch), batch), batch).sum().backward()
            else:
                with torch.inference_mode():
                    forward(batch)
        moments = torch.stack([self.moments[layer] for layer in sorted(self.moments)], dim=2)
        moments = moments.unflatten(1, (len(self.observation.scopes), 2))  # (moments, scopes, 2, L, N)
        attribution = torch.zeros(len(self.observation.scopes), *moments.shape[-2:])
        if self.attribution:
            attribution = torch.stack([self.attribution[layer] for layer in sorted(self.attribution)], dim=1)
        return PassSums(moments.cpu(), self.total_weights, attribution.cpu())

    def _observe(self, layer: int, activations: torch.Tensor) -> None:
        """Add up a layer's moments, and have its gradient added up when the backward pass reaches it."""
        values = select_rows(activations.detach()[0], self.rows)
        base = self.base[layer] if self.base is not None else None
        self.moments[layer] = weighted_moments(values, self.weights.flatten(0, 1), self.observation.moments, base)
        if not self.observation.is_attributed:
            return
        if not activations.requires_grad:
            activations.requires_grad_()  # the first layer: no parameter below it asks for a gradient

        def attribute(gradient: torch.Tensor) -> None:
            product = values.float() * select_rows(gradient[0], self.rows).float()  # (rows, N)
            in_scope = (self.weights.sum(dim=1) > 0).float()  # (scopes, rows)
            self.attribution[layer] = in_scope @ product

        activations.register_hook(attribute)


def margins(rewards: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return min r(chosen) - max r(rejected) per item from the rewards (B,) of its sequences."""
    by_item: list[tuple[list[int], list[int]]] = [([], []) for _ in range(batch.n_items)]
    for index, sequence in enumerate(batch.sequences):
        by_item[sequence.item][sequence.side].append(index)
    return torch.stack([rewards[chosen].min() - rewards[rejected].max() for chosen, rejected in by_item])


@contextmanager
def _frozen_parameters(model: PreTrainedModel) -> Iterator[None]:
    """Ask for no parameter's gradient, so that the backward pass computes those of activations alone."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
