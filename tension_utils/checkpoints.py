"""Read a reward model's checkpoint tensor by tensor, so that several of them never stand in memory together."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from tension_utils.masking import NEURON_MASK_FILE

ReadParameter = Callable[[str, torch.Size], torch.Tensor]


@contextmanager
def open_checkpoint(folder: Path) -> Iterator[ReadParameter]:
    """Give a function that reads one parameter of a reward model; the others stay on disk.

    Args:
        folder: as `models.save_reward_model` writes it, in one or several files.

    Yields:
        A function from a parameter's name and shape to its values, float32; it raises ValueError where the checkpoint
        has no such parameter, or one of another shape.
    """
    with ExitStack() as stack:
        paths = [path for path in sorted(folder.glob("*.safetensors")) if path.name != NEURON_MASK_FILE]
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (no mapping, but a file)

        def read(name: str, shape: torch.Size) -> torch.Tensor:
            found = tuple(file_of[name].get_slice(name).get_shape()) if name in file_of else None
            if found != tuple(shape):
                raise ValueError(
                    f"{folder}: expected {name} of shape {tuple(shape)}, got {found or 'no such parameter'}; reward "
                    "models are compared weight by weight only if they were trained from one base model"
                )
            return file_of[name].get_tensor(name).float()

        yield read


@torch.no_grad()
def set_interpolated(model: PreTrainedModel, first: ReadParameter, second: ReadParameter, weight: float) -> None:
    r"""Set every parameter of a model, reward head included, to a point on the line between two checkpoints.

    .. math:: \theta = (1 - a) \theta_1 + a \theta_2

    The sum is taken in float32 and rounded to the model's dtype; at a = 0 and 1 it is exactly one of the checkpoints.

    Args:
        model: of the checkpoints' shapes; changed in place.
        first: of `open_checkpoint`.
        second: likewise.
        weight: a, of the second checkpoint, in [0, 1].

    Raises:
        ValueError: if a checkpoint lacks a parameter or has one of another shape.
    """
    for name, parameter in model.named_parameters():
        one, other = (read(name, parameter.shape) for read in (first, second))
        parameter.copy_((1 - weight) * one + weight * other)
