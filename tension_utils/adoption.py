"""Make a run of a reward model that was trained elsewhere: what stages and notebooks read, without a copy of it."""

import dataclasses
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import cached_file

from tension_utils.architectures import neuron_shape
from tension_utils.artifacts import ADOPTED, StageRecord, atomic_path, is_adopted, is_current, resolve_source, user_path
from tension_utils.config import SINGLE_OBJECTIVES, DataConfig, Run, config_hash
from tension_utils.data import resolve_template
from tension_utils.models import load_base_model, load_reward_model, load_tokenizer
from tension_utils.training import check_context

LINKED = (".json", ".safetensors", ".jinja", ".model", ".txt")  # files that models and tokenizers are loaded from


def adopt_run(
    run: Run, source: str | Path, data: DataConfig, *, template: str | None = None, base_model: str = ""
) -> bool:
    """Give a reward model that was trained elsewhere a run's folder, on which every stage after training works.

    The folder's ``reward_model`` holds links to the model's own files, and its manifest their hash, so that a stage
    refuses a model that changed since.

    Args:
        run: its root, objective and seed, and as base model a name under which reward models are compared.
        source: folder or public name of a one-label sequence classifier of a supported architecture.
        data: preference pairs on which its neurons are scored, as "its own training pairs"; and ``max_length``.
        template: how every stage puts texts, of `config.TEMPLATE_NAMES`; None is "hh", with a warning where the
            tokenizer has a chat template of its own.
        base_model: public name or folder of the model it was trained from, or "toy"; "" if it is not known, and then
            identification leaves out what compares with it.

    Returns:
        True if it wrote the folder, False if it found it.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if ``base_model`` is no text; if the model cannot be used, does not fit its base model, or the
            other reward models of this base model's name and seed; or the folder holds one that was trained here.
    """
    if not isinstance(base_model, str):
        raise ValueError(f"base_model: expected a public name, a folder, 'toy' or ''; got {base_model!r}")
    folder = run.folder / "reward_model"
    if folder.exists() and not is_adopted(run.folder):
        raise ValueError(
            f"{run.folder}: expected no reward model that was trained here; got one; adopt under another root, name "
            "or seed"
        )
    tokenizer = load_tokenizer(source, pad_with_eos=True)
    template = resolve_template(tokenizer, template)
    adopted = {"source": str(source), "template": template, "base_model": base_model}
    settings = {"data": dataclasses.asdict(data), ADOPTED: adopted, **run.label}
    record = StageRecord(run.folder, "train", settings, config_hash(settings))
    if is_current(run.folder, "train", record.digest, folder.name):
        return False
    model = load_reward_model(source)
    check_context(model, data.max_length)
    kind = model.config.model_type, neuron_shape(model)
    _check_kin(run, str(source), kind, base_model)
    with atomic_path(folder) as partial:
        partial.mkdir()
        for path in sorted(_files_of(source).iterdir()):
            if path.suffix in LINKED:
                (partial / path.name).symlink_to(path.resolve())
    facts = {"architecture": kind[0], "shape": kind[1], "has_chat_template": bool(tokenizer.chat_template)}
    record.finish(folder.name, device="none", n_tokens=0, inputs={}, n_train=0, n_validation=0, **facts)
    return True


def _files_of(source: str | Path) -> Path:
    """Return the folder that holds the files of a model, which was loaded before, if under a public name."""
    folder = user_path(source)
    return folder if folder.is_dir() else Path(cached_file(str(source), "config.json")).parent


def _kind_of(folder: Path) -> tuple[str, tuple[int, int]]:
    """Return (model type, neuron shape) of the model in a folder, from its configuration alone."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return config.model_type, neuron_shape(AutoModel.from_config(config))


def _check_kin(run: Run, name: str, kind: tuple[str, tuple[int, int]], base_model: str) -> None:
    """Check that a model is of the kind of its base model, and of the reward models that it stands beside."""
    kin = {
        f"the {objective} one": _kind_of(folder)
        for objective in SINGLE_OBJECTIVES
        if objective != run.objective
        and (folder := dataclasses.replace(run, objective=objective).folder / "reward_model").exists()
    }
    if base_model:
        base = load_base_model(resolve_source(base_model, run.root, "base_model"))
        kin["its base model"] = base.config.model_type, neuron_shape(base)
    for what, other in kin.items():
        if other != kind:
            raise ValueError(
                f"{name}: expected the architecture and (layers, neurons) of {what}, {other[0]} {other[1]}; got "
                f"{kind[0]} {kind[1]}; neurons of different networks cannot be compared: adopt it under another name"
            )
