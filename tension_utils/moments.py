"""Weighted sums over the tokens of a stream, per layer and neuron, taken by hooks during a forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from tension_utils.architectures import architecture_of, head_shape, neuron_shape

SITES = {"down_input": "down", "gate": "activation", "heads": "attention_output"}  # site -> part of an Architecture
CHUNK = 256  # tokens converted to float32 at once, so that a chunk stays in a CPU's cache
MOMENTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sum": lambda x, out: x,
    "absolute": lambda x, out: torch.abs(x, out=out),
    "square": lambda x, out: torch.square(x, out=out),
    "positive": lambda x, out: torch.gt(x, 0, out=out),
}
CHANGE_MOMENT = "square_change"  # of the difference from the base model
BASE_MOMENT = "base_absolute"  # of the base model's own activation
BASED_MOMENTS = (CHANGE_MOMENT, BASE_MOMENT)  # those that need the base model


@contextmanager
def observed(
    model: PreTrainedModel, site: str, observe: Callable[[int, torch.Tensor], None]
) -> Iterator[list[nn.Module]]:
    """Call ``observe(layer, activations (1, T, N))`` whenever the model computes a layer's neurons.

    Args:
        model: a model of `ARCHITECTURES`.
        site: ``"down_input"`` is what the down projection reads, the neuron itself; ``"gate"`` is the output of the
            activation function, which is not yet multiplied by the up projection in a gated MLP; ``"heads"`` is
            what the attention's output projection reads, head h in channels h x width to (h + 1) x width.
        observe: must not change the activations.

    Raises:
        ValueError: if the site is unknown.
    """
    modules = architecture_of(model).parts_of(model, _part(site))
    handles = []
    for layer, module in enumerate(modules):
        if site != "gate":
            handles.append(module.register_forward_pre_hook(lambda _, args, layer=layer: observe(layer, args[0])))
        else:
            handles.append(module.register_forward_hook(lambda _, args, output, layer=layer: observe(layer, output)))
    try:
        yield modules
    finally:
        for handle in handles:
            handle.remove()


def site_shape(model: PreTrainedModel, site: str) -> tuple[int, int]:
    """Return (L, N) of a site: layers, and neurons or head channels per layer."""
    if _part(site) == "attention_output":
        n_layers, n_heads, width = head_shape(model)
        return n_layers, n_heads * width
    return neuron_shape(model)


def _part(site: str) -> str:
    if site not in SITES:
        raise ValueError(f"site: expected one of {tuple(SITES)}, got {site!r}")
    return SITES[site]


@torch.no_grad()
def weighted_moments(
    activations: torch.Tensor, weights: torch.Tensor, moments: Sequence[str], base: torch.Tensor | None = None
) -> torch.Tensor:
    """Return sum_t weights[w, t] f(activations[t, n]) for every moment f.

    Args:
        activations: (T, N), of any float dtype.
        weights: (W, T), float32.
        moments: keys of `MOMENTS`, or of `BASED_MOMENTS`.
        base: (T, N), the base model's activations at the same tokens; for `BASED_MOMENTS`.

    Returns:
        (moments, W, N), float32.
    """
    n_tokens, n_neurons = activations.shape
    sums = torch.zeros(len(moments), len(weights), n_neurons, device=activations.device)
    chunk = CHUNK if activations.device.type == "cpu" else n_tokens
    values, scratch = torch.empty(2, min(chunk, n_tokens), n_neurons, device=activations.device).unbind()
    for first in range(0, n_tokens, chunk):
        rows = slice(first, min(first + chunk, n_tokens))
        x, out = values[: rows.stop - first], scratch[: rows.stop - first]
        x.copy_(activations[rows])
        for number, moment in enumerate(moments):
            if moment == CHANGE_MOMENT:
                change = torch.sub(x, base[rows], out=out).square_()
                sums[number].addmm_(weights[:, rows], change)
            elif moment == BASE_MOMENT:
                sums[number].addmm_(weights[:, rows], out.copy_(base[rows]).abs_())
            else:
                sums[number].addmm_(weights[:, rows], MOMENTS[moment](x, out))
    return sums
