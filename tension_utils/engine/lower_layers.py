"""Skip the lower layers where passes repeat them: what they give for a batch is kept from the first pass."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tension_utils.architectures import architecture_of

MOST_KEPT = 2**31  # bytes


class LowerLayers:
    """What a model's first layers give for each batch, for passes over the same batches that change later layers alone.

    The values are those of the pass that computed them, so a pass that takes them ends with the same bits.

    Args:
        model: a model of `ARCHITECTURES`.
        most_bytes: of what is kept; batches that find no room are computed every time.
    """

    def __init__(self, model: PreTrainedModel, most_bytes: int = MOST_KEPT) -> None:
        self.layers = architecture_of(model).layers_of(model)
        self.most_bytes = most_bytes
        self._forget(0)

    def _forget(self, n_layers: int) -> None:
        self.n_layers, self.n_bytes, self.kept = n_layers, 0, {}

    @contextmanager
    def skipped(self, n_layers: int) -> Iterator[None]:
        """Compute the first layers once per batch of `packed_attention` while the context is open.

        What was kept for another number of layers is dropped.

        Args:
            n_layers: how many; they must be the same in every pass. Where they are skipped, no hook on them is called.
        """
        if n_layers != self.n_layers:
            self._forget(n_layers)
        lower = self.layers[:n_layers]
        for layer in lower:
            layer.forward = self._kept_or_computed(layer, layer.forward)
        try:
            yield
        finally:
            for layer in lower:
                del layer.forward

    def _kept_or_computed(self, layer: nn.Module, compute: Callable) -> Callable:
        """Return a layer's forward pass: any skipped layer hands on what the last one gave."""
        is_last = layer is self.layers[self.n_layers - 1]

        def forward(*args: Any, **options: Any) -> torch.Tensor | tuple:
            key = options["packed_blocks"].key
            if key in self.kept:
                return self.kept[key]
            output = compute(*args, **options)
            if is_last:
                self._keep(key, output)
            return output

        return forward

    def _keep(self, key: Hashable, output: torch.Tensor | tuple) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        n_bytes = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        if self.n_bytes + n_bytes <= self.most_bytes:
            self.kept[key] = output
            self.n_bytes += n_bytes
