"""Train without a set of neurons: the mask, its two modes, its file in the checkpoint, and how loading applies it."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from tension_utils.architectures import architecture_of, neuron_shape
from tension_utils.artifacts import save_tensors, user_path
from tension_utils.config import MASK_MODES, check_choice
from tension_utils.neurons import FILE_KEY, NeuronSet

NEURON_MASK_FILE = "neuron_mask.safetensors"

CONFIG_KEY = "neuron_mask"  # in a checkpoint's config.json: the mode, so that a lost mask file is noticed


@dataclass(frozen=True)
class NeuronMask:
    """Neurons that a reward model does without, in training and ever after.

    Both modes compute the same function: the neurons' activation is 0 at every token.

    Args:
        neurons: the set.
        mode: ``"masked"`` holds the activation at 0 in the forward pass and leaves the neurons' weights as they are;
            ``"pruned"`` sets these weights to 0 and blocks their gradients.

    Raises:
        ValueError: if the mode is unknown.

    Source: section 1 of METHOD.md, "Ablation", training-time.
    """

    neurons: NeuronSet
    mode: str = MASK_MODES[0]

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MASK_MODES)

    @property
    def label(self) -> dict[str, str | int]:
        """What names the mask in a run's configuration: mode, number of neurons, and hash of which they are."""
        shape = "x".join(map(str, self.neurons.shape))
        digest = hashlib.sha256(shape.encode() + np.packbits(self.neurons.mask).tobytes()).hexdigest()
        return {"mode": self.mode, "n_neurons": len(self.neurons), "neurons_hash": digest[:16]}

    def save(self, path: str | Path) -> None:
        """Write the set as `NeuronSet.save` does, with the mode beside it."""
        save_tensors(path, {FILE_KEY: self.neurons.mask}, {"mode": self.mode})

    @classmethod
    def load(cls, path: str | Path) -> "NeuronMask":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file holds something else.
        """
        try:
            neurons = NeuronSet.load(path)
            with safe_open(path, framework="np") as file:
                mode = (file.metadata() or {}).get("mode")
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path}: expected a neuron mask as save_reward_model writes ({error})") from error
        if mode not in MASK_MODES:
            raise ValueError(f"{path}: expected a neuron mask with mode {' or '.join(MASK_MODES)}; got {mode!r}")
        return cls(neurons, mode)


def check_shape(model: PreTrainedModel, neurons: NeuronSet, name: str = "neuron mask") -> None:
    """Raise ValueError, which begins with ``name``, if the set belongs to a model of another shape."""
    if neurons.shape != neuron_shape(model):
        raise ValueError(
            f"{name}: expected shape (layers, neurons) = {neuron_shape(model)}, got {neurons.shape}; "
            "the mask belongs to another model"
        )


def masked_entries(model: PreTrainedModel, neurons: NeuronSet) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """Yield every parameter that holds weights of the set's neurons, with a bool mask that broadcasts to its shape.

    A neuron's weights are its row and bias in the up and gate projections and its column in the down projection.
    Layers without a neuron of the set yield nothing.
    """
    architecture = architecture_of(model)
    for part in ("up", "gate", "down"):
        if getattr(architecture, part) is None:
            continue
        for projection, row in zip(architecture.parts_of(model, part), torch.tensor(neurons.mask), strict=True):
            if not row.any():
                continue
            is_column = (part == "down") == isinstance(projection, nn.Linear)  # GPT-2's Conv1D is stored transposed
            yield projection.weight, row if is_column else row[:, None]
            if part != "down" and projection.bias is not None:
                yield projection.bias, row


@torch.no_grad()
def zero_neurons(model: PreTrainedModel, neurons: NeuronSet) -> None:
    """Set all weights of the set's neurons to 0 in place: their activation is 0, and nothing reads it.

    Raises:
        ValueError: if the set belongs to another model.
    """
    check_shape(model, neurons)
    for parameter, entries in masked_entries(model, neurons):
        parameter.masked_fill_(entries.to(parameter.device), 0)


@contextmanager
def trained_without(model: PreTrainedModel, mask: NeuronMask | None) -> Iterator[PreTrainedModel]:
    """Hold the mask's neurons at 0 while the context is open, also through training; None changes nothing.

    Mode "masked" zeroes the inputs of the down projections, so that no gradient reaches the neurons' weights; on
    exit the model is as if never masked. Mode "pruned" sets the weights to 0, where they stay, and blocks their
    gradients.

    Args:
        model: a model of `ARCHITECTURES`.
        mask: the neurons, or None.

    Yields:
        The same model.

    Raises:
        ValueError: if the mask belongs to another model.
    """
    if mask is None:
        yield model
        return
    check_shape(model, mask.neurons)
    with ExitStack() as stack:
        if mask.mode == "pruned":
            zero_neurons(model, mask.neurons)
            for parameter, entries in masked_entries(model, mask.neurons):
                stack.callback(parameter.register_hook(partial(_zeroed, entries)).remove)
        else:
            downs = architecture_of(model).parts_of(model, "down")
            for down, row in zip(downs, torch.tensor(mask.neurons.mask), strict=True):
                hook = partial(_zeroed_inputs, row)
                stack.callback(down.register_forward_pre_hook(hook).remove)
        yield model


def apply_saved_mask(model: PreTrainedModel, folder: str | Path) -> None:
    """Set the neurons to 0 that the mask in a checkpoint's folder names; without a mask, do nothing.

    Raises:
        FileNotFoundError: if the checkpoint's configuration tells of a mask and its file is missing.
        ValueError: names the file if it holds something else, or the mask of another model.

    Source: ours, differs because a masked reward model must not come back unmasked (METHOD.md, section 2, fact 19).
    """
    file = user_path(folder) / NEURON_MASK_FILE
    if file.is_file():
        neurons = NeuronMask.load(file).neurons
        check_shape(model, neurons, f"{file}: neuron mask")
        zero_neurons(model, neurons)
    elif getattr(model.config, CONFIG_KEY, None):
        raise FileNotFoundError(
            f"{file} is missing, but config.json beside it tells that neurons were {getattr(model.config, CONFIG_KEY)} "
            "in training; copy the whole folder again, or train again"
        )


def _zeroed(entries: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with some entries 0, wherever it lies."""
    return tensor.masked_fill(entries.to(tensor.device), 0)


def _zeroed_inputs(entries: torch.Tensor, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return a module's only input with some entries 0, as a forward pre-hook does."""
    return _zeroed(entries, inputs[0])
