"""Load, save and interpolate reward models, base models and tokenizers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    logging,
)

from tension_utils.architectures import (
    ARCHITECTURES,
    RewardHead,
    architecture_of_config,
    restore_embedding_scale,
    reward_head,
)
from tension_utils.artifacts import atomic_path, user_path
from tension_utils.checkpoints import (
    check_config,
    check_model_folder,
    check_sizes,
    check_tensors,
    check_tokenizer_folder,
)
from tension_utils.masking import CONFIG_KEY, NEURON_MASK_FILE, NeuronMask, apply_saved_mask, check_shape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_reward_model(
    path_or_name: str | Path, *, dtype: str | torch.dtype = "float32", device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """Load a one-label sequence classifier for inference; its head stays in float32, its neuron mask is applied.

    Neurons that were masked or pruned in training have weights 0, whatever the file of weights holds for them.

    Args:
        path_or_name: a local folder or a public model name.
        dtype: of the backbone, a key of `DTYPES` or a torch dtype.
        device: where the model goes.

    Raises:
        FileNotFoundError: if there is no such folder or model, or its neuron mask is missing.
        ValueError: if the architecture is not supported, the checkpoint has no one-label head or holds weights that
            the model does not use, or its neuron mask is not of this model.
    """
    model, info = _load(AutoModelForSequenceClassification, path_or_name, num_labels=1)
    check_tensors(path_or_name, info, has_head=True)
    _use_float32_head(model)
    return _prepare(model, dtype, device)


def load_base_model(
    path_or_name: str | Path, *, dtype: str | torch.dtype = "float32", device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """Load the backbone alone, without language-model or reward head, for inference.

    Args:
        path_or_name: a local folder or public name of a causal language model or reward model.
        dtype: a key of `DTYPES` or a torch dtype.
        device: where the model goes.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if the architecture is not supported or weights are missing.
    """
    model, info = _load(AutoModel, path_or_name)
    check_tensors(path_or_name, info, has_head=False)
    return _prepare(model, dtype, device)


HEAD_STD = 0.02  # of the weights of a fresh head, as GPT-2 draws its own


def new_reward_model(base: str | Path, seed: int, *, pad_token_id: int | None = None) -> PreTrainedModel:
    """Put a fresh one-label head on a base model, in float32 for training.

    The head is drawn as ``score.weight ~ N(0, 0.02)`` from its own generator, so it depends on ``seed`` alone.

    Args:
        base: folder or public name of the base model.
        seed: of the head.
        pad_token_id: the tokenizer's padding token; None keeps the checkpoint's.

    Source: section 1 of METHOD.md, "Reward models".
    """
    model, info = _load(AutoModelForSequenceClassification, base, num_labels=1)
    check_tensors(base, info, has_head=False)
    _use_float32_head(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator) * HEAD_STD)
    if pad_token_id is not None:
        model.config.pad_token_id = pad_token_id
    return model.to(torch.float32)


def save_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | Path,
    mask: NeuronMask | None = None,
) -> None:
    """Write a reward model, its tokenizer and its neuron mask; the folder appears complete or not at all.

    Args:
        model: the reward model; its configuration then tells of the mask.
        tokenizer: its tokenizer.
        folder: where to; replaced if it exists.
        mask: neurons held at zero in training. The weights are written as they are; `load_reward_model` applies the
            mask.

    Raises:
        ValueError: if this is no reward model, or the mask belongs to another one.
    """
    reward_head(model)
    vars(model.config).pop(CONFIG_KEY, None)
    if mask is not None:
        check_shape(model, mask.neurons)
        setattr(model.config, CONFIG_KEY, mask.mode)
    with atomic_path(Path(folder)) as partial:
        partial.mkdir()
        if mask is not None:
            mask.save(partial / NEURON_MASK_FILE)
        model.save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)


def load_tokenizer(path_or_name: str | Path, *, pad_with_eos: bool = False) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer that has an EOS token, or a chat template, and a padding token.

    Args:
        path_or_name: a local folder or a public model name.
        pad_with_eos: pad with EOS where the tokenizer has no padding token of its own.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if the tokenizer is not a fast one, or lacks a padding token, or both EOS and a chat template.
    """
    if (folder := user_path(path_or_name)).is_dir():
        check_tokenizer_folder(folder)
    tokenizer = _from_pretrained(AutoTokenizer.from_pretrained, path_or_name)
    if not tokenizer.is_fast:
        raise ValueError(f"{path_or_name}: expected a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}")
    if tokenizer.eos_token_id is None and not tokenizer.chat_template:
        raise ValueError(f"{path_or_name}: the tokenizer has no EOS token; set `eos_token` in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        if not pad_with_eos:
            raise ValueError(
                f"{path_or_name}: the tokenizer has no padding token; set `pad_token` in tokenizer_config.json or pass "
                "pad_with_eos=True to pad with EOS, in which case the reward is read at the token before EOS"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _use_float32_head(model: PreTrainedModel) -> None:
    """Make the reward head compute in float32, keeping its weight."""
    head = RewardHead(reward_head(model).in_features, 1, bias=False, device="meta")
    head.weight = nn.Parameter(model.score.weight.detach().to(torch.float32, copy=True))  # aligned, as in `_prepare`
    model.score = head


def _prepare(model: PreTrainedModel, dtype: str | torch.dtype, device: str | torch.device) -> PreTrainedModel:
    """Cast the backbone's parameters (not its rotary buffers), move the model and set it to evaluation."""
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {sorted(DTYPES)}, got {dtype!r}")
        dtype = DTYPES[dtype]
    for parameter in model.base_model.parameters():
        parameter.data = parameter.data.to(dtype, copy=True)  # off the file: aligned memory, as of a new model
    return model.to(device).eval()


def load_config(path_or_name: str | Path) -> PretrainedConfig:
    """Load a model's configuration.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if its architecture is not supported.
    """
    config = _from_pretrained(AutoConfig.from_pretrained, path_or_name)
    check_config(path_or_name, {**vars(config), "model_type": config.model_type})
    architecture_of_config(config, str(path_or_name))
    return config


def _load(auto_class: type, path_or_name: str | Path, **options: Any) -> tuple[PreTrainedModel, dict]:
    """Check the folder and the architecture, then load safetensors weights and the neuron mask."""
    if (folder := user_path(path_or_name)).is_dir():
        shapes = check_model_folder(folder, beside=(NEURON_MASK_FILE,))
        check_sizes(folder, load_config(folder), shapes)
    else:
        load_config(path_or_name)
    options |= {"dtype": "auto", "use_safetensors": True, "attn_implementation": "sdpa"}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # `check_tensors` refuses them
    model, info = _from_pretrained(auto_class.from_pretrained, path_or_name, **options)
    restore_embedding_scale(model)
    apply_saved_mask(model, path_or_name)
    return model, info


def _from_pretrained(load: Callable, path_or_name: str | Path, **options: Any) -> Any:
    """Call a transformers loader with errors that say what was expected and what to do."""
    name = str(path_or_name)
    is_path = isinstance(path_or_name, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = user_path(name)
    if is_path and not folder.is_dir():
        raise FileNotFoundError(f"expected a model folder, but {name} does not exist; make it first or mend the path")
    source = str(folder) if folder.is_dir() else name
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing from a checkpoint is checked and reported by the callers
    try:
        return load(source, trust_remote_code=False, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"cannot load {name!r}: expected a local folder with config.json, safetensors weights and tokenizer.json, "
            f"or the name of a public model that this machine can reach ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # whatever the library makes of a configuration or a tokenizer that is none
        raise ValueError(
            f"cannot load {name!r}: expected a model of one of the types {sorted(ARCHITECTURES)} with its fast "
            f"tokenizer ({' '.join(f'{type(error).__name__}: {error}'.split())[:300]})"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


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
