"""What a model folder has to hold, and what of a checkpoint a model has to use: each fault is told in one sentence."""

import warnings
from collections.abc import Collection, Mapping
from math import inf, prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tension_utils.architectures import ARCHITECTURES
from tension_utils.artifacts import read_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

FLOATS = ("F32", "BF16", "F16", "F64")  # as safetensors names them

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")

POINTER = b"version https://git-lfs"

AGAIN = "download or copy the model again"

LANGUAGE_HEADS, REWARD_HEAD = ("lm_head.", "embed_out."), "score."


def check_model_folder(folder: Path, beside: Collection[str] = ()) -> dict[str, list[int]]:
    """Check that a folder holds a model that can be loaded, without loading it.

    Args:
        folder: with config.json and weights in one or several safetensors files.
        beside: further safetensors files that are read.

    Returns:
        The shape of every tensor in it.

    Raises:
        FileNotFoundError: if the folder is empty, or a file is missing.
        ValueError: if a file is not what its name says, or the model is of another kind; each names folder or file.
    """
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        raise FileNotFoundError(
            f"{folder}: expected a model (config.json, {WEIGHTS}, tokenizer.json); the folder is empty; {AGAIN}"
        )
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(
                f"{path}: expected a file; the link leads to {path.readlink()}, which is gone; put the model back, or "
                "adopt it again from where it is now"
            )
    if "adapter_config.json" in names:
        raise ValueError(
            f"{folder}: expected a whole model; the folder holds an adapter (adapter_config.json), which changes "
            "another one; merge it into its base model (PEFT: merge_and_unload) and save that"
        )
    if "config.json" not in names:
        raise FileNotFoundError(f"{folder}: expected config.json; the folder has {names[:6]}; {AGAIN}")
    check_config(folder, _read_object(folder / "config.json"))
    files = _weight_files(folder, names)
    read = {*beside, *(path.name for path in files)}
    unread = [name for name in names if name.endswith(".safetensors") and name[0] != "." and name not in read]
    if unread:
        raise ValueError(
            f"{folder}: expected no weights besides {', '.join(sorted(read & set(names)))}; got {', '.join(unread[:3])}"
            ", which would not be read; a reward model here has one linear head, score.weight, beside its backbone: "
            "move what is not part of the model to another folder"
        )
    return tensor_shapes(files)


def _read_object(path: Path) -> dict:
    """Return the JSON object in a file of a model; see `artifacts.read_object`."""
    _check_no_pointer(path)
    return read_object(path, AGAIN)


def _check_no_pointer(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: expected a file; got a folder; {AGAIN}")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path}: expected the file itself; got a Git LFS pointer, which only names it; run `git lfs pull` in "
                f"{path.parent}"
            )


def check_config(name: str | Path, config: Mapping) -> None:
    """Check that a configuration names its kind of model, and no code of its own.

    Raises:
        ValueError: names folder or public name.
    """
    if config.get("auto_map"):
        raise ValueError(
            f"{name}: expected a model of a built-in architecture; its config.json names code of its own (auto_map: "
            f"{sorted(config['auto_map'])}), which is never run; choose one of the types {sorted(ARCHITECTURES)}"
        )
    if not isinstance(config.get("model_type"), str):
        raise ValueError(
            f"{name}: expected a config.json that names its model_type, one of {sorted(ARCHITECTURES)}; it has "
            f"{sorted(config)[:6]}; is this the folder of a model for transformers?"
        )


def _weight_files(folder: Path, names: list[str]) -> list[Path]:
    """Return the files of a folder's weights, which are all there."""
    files = [WEIGHTS]
    if INDEX in names:
        shards = _read_object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ValueError(f"{folder / INDEX}: expected a weight_map from tensors to files; {AGAIN}")
        files = sorted(set(shards.values()))
    elif WEIGHTS not in names:
        if pickled := [name for name in names if Path(name).suffix in PICKLED]:
            raise FileNotFoundError(
                f"{folder}: expected weights as safetensors; it has pickled ones ({pickled[0]}), which can run code "
                "and are not read; load and save the model with transformers where you trust it, which writes "
                f"{WEIGHTS}"
            )
        raise FileNotFoundError(f"{folder}: expected {WEIGHTS} or {INDEX}; the folder has {names[:6]}; {AGAIN}")
    absent = [name for name in files if name not in names]
    if absent:
        raise FileNotFoundError(
            f"{folder}: expected the {len(files)} files that {INDEX} names; {len(absent)} are missing, such as "
            f"{absent[0]}; {AGAIN}"
        )
    return [folder / name for name in files]


def tensor_shapes(files: list[Path]) -> dict[str, list[int]]:
    """Return the shape of every tensor of a checkpoint, which is not read.

    Raises:
        ValueError: if a file is no whole safetensors file, or its weights are no floating-point numbers.
    """
    shapes = {}
    for path in files:
        _check_no_pointer(path)
        try:
            with safe_open(path, framework="np") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                kinds = {name: part.get_dtype() for name, part in slices.items() if name.endswith(".weight")}
                shapes |= {name: part.get_shape() for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(f"{path}: expected whole safetensors weights; {error}; {AGAIN}") from error
        if others := {name: kind for name, kind in kinds.items() if kind not in FLOATS}:
            raise ValueError(f"{path}: expected weights as one of {', '.join(FLOATS)}; got {others!s:.200}")
    return shapes


def check_sizes(folder: Path, config: object, shapes: Mapping[str, list[int]]) -> None:
    """Check that a configuration asks for no more than a checkpoint can hold, before a model of this size is made.

    Raises:
        ValueError: names the folder and the size.
    """
    total = sum(prod(shape) for shape in shapes.values())
    most = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), total)
    most |= {"num_hidden_layers": len(shapes), "max_position_embeddings": inf}
    for name, high in most.items():
        value = getattr(config, name, None)
        if value is not None and (type(value) is not int or not 1 <= value <= high):
            raise ValueError(
                f"{folder}: expected {name} in config.json to be a whole number that its {len(shapes)} tensors can "
                f"hold; got {value!r}; the configuration is of another model, {AGAIN}"
            )


def check_tokenizer_folder(folder: Path) -> None:
    """Check that a folder holds a tokenizer.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file of it is not JSON.
    """
    found = [folder / name for name in (*TOKENIZER_FILES, "tokenizer_config.json") if (folder / name).is_file()]
    if not {path.name for path in found} & set(TOKENIZER_FILES):
        raise FileNotFoundError(
            f"{folder}: expected a tokenizer beside the model (tokenizer.json); there is none; save the one that the "
            "model was trained with into this folder (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    for path in found:
        if path.suffix == ".json":
            _read_object(path)


def check_tensors(name: str | Path, info: Mapping, *, has_head: bool) -> None:
    """Check that a model took all weights from its checkpoint, and used all that it holds.

    Of a base model the reward and the language-model head are left, of a reward model the language-model head, with a
    warning.

    Args:
        name: folder or public name.
        info: what `transformers` tells of loading: missing_keys, mismatched_keys, unexpected_keys.
        has_head: whether it is a reward model, with a head "score.weight" of one row.

    Raises:
        ValueError: names folder and tensors.
    """
    heads = LANGUAGE_HEADS if has_head else (*LANGUAGE_HEADS, REWARD_HEAD)  # those that may stay behind
    mismatched = {str(key[0]): tuple(key[1]) for key in info["mismatched_keys"]}
    missing = sorted(t for t in {*map(str, info["missing_keys"]), *mismatched} if not t.startswith(heads))
    unused = sorted(map(str, info["unexpected_keys"]))
    others, left = ([tensor for tensor in unused if tensor.startswith(heads) == is_left] for is_left in (False, True))
    if has_head:
        _check_head(name, missing, mismatched, others)
    if missing:
        raise ValueError(
            f"{name}: expected the weights of a whole model, but {len(missing)} are missing or of another "
            f"shape, such as {missing[:3]}; the checkpoint is incomplete, {AGAIN}"
        )
    if others:
        raise ValueError(
            f"{name}: expected only tensors that the model uses, but {len(others)} have no place in it, such as "
            f"{others[:3]}; {_advice(others)}"
        )
    if has_head and left:
        warnings.warn(f"{name}: its language-model head {left} is not used; the reward is score.weight's", stacklevel=4)


def _advice(tensors: list[str]) -> str:
    """Return what to do about tensors that a model has no place for."""
    if any("lora_" in tensor for tensor in tensors):
        return "merge the adapter into its base model (PEFT: merge_and_unload) and save that"
    return "its config.json may be of another model; a reward model here has one linear head without bias"


def _check_head(name: str | Path, missing: list[str], mismatched: Mapping[str, tuple], unused: list[str]) -> None:
    """Check that there is a head of one row, and nothing else of a head."""
    if "score.weight" in mismatched:
        raise ValueError(
            f"{name}: expected a reward model with one label; its score.weight has shape {mismatched['score.weight']}, "
            f"a classifier of {mismatched['score.weight'][0]} labels; choose a model trained to rank responses"
        )
    if "score.weight" in missing and unused:
        raise ValueError(
            f"{name}: expected a reward model with one linear head score.weight, but it has {unused[:3]} instead; "
            f"{_advice(unused)}"
        )
    if "score.weight" in missing:
        raise ValueError(
            f"{name}: expected a reward model with one label, but its head score.weight is missing: it is a base "
            "model; train one from it first (new_reward_model)"
        )
