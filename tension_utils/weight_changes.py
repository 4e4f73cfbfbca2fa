"""How training changed the weights, and the angles between the changes of different reward models."""

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from tension_utils.artifacts import StageRecord, is_current, read_manifest, require, write_table
from tension_utils.checkpoints import open_checkpoint
from tension_utils.checks import check_choices
from tension_utils.config import ARMS, MATCHED_ARM, OBJECTIVES, config_hash
from tension_utils.geometry import dot_table
from tension_utils.models import new_reward_model
from tension_utils.runs import SinglePair
from tension_utils.training import device_name, local_inputs, resolve_source


@dataclass(frozen=True)
class WeightChangeConfig:
    """Whose weight changes are compared.

    Args:
        arms: of `config.ARMS`; those without a reward model are left out.
    """

    arms: tuple[str, ...] = (*OBJECTIVES, MATCHED_ARM)

    def __post_init__(self) -> None:
        check_choices("arms", self.arms, ARMS)


def weight_change_run(pair: SinglePair, config: WeightChangeConfig) -> bool:
    r"""Take the dot products of the arms' weight changes and write ``weight_changes.parquet`` in the pair's folder.

    .. math:: \Delta_{arm} = \theta_{arm} - \theta_0

    with :math:`\theta_0` the weights that training started from: those of the base model, and the reward head that
    the seed draws. Checkpoints are read parameter by parameter. Weights that a pruning mask sets to 0 count as changed.

    Args:
        pair: base model and seed.
        config: arms.

    Returns:
        True if it computed, False if it found the artifact; a reward model that came or changed since makes it compute.

    Raises:
        FileNotFoundError: if no arm has a reward model.
        ValueError: if a checkpoint is not of the base model's shape.
    """
    folders = {arm: pair.run_of(arm).folder / "reward_model" for arm in config.arms}
    found = {arm: folder for arm, folder in folders.items() if folder.exists()}
    if not found:
        require(folders[config.arms[0]], "01_train")
    settings = {"weight_changes": dataclasses.asdict(config), **pair.label}
    hashes = {arm: read_manifest(folder.parent)["train"]["artifact_hash"] for arm, folder in found.items()}
    digest = config_hash(settings, **hashes)
    if is_current(pair.folder, "weight_changes", digest, "weight_changes.parquet"):
        return False
    record = StageRecord(pair.folder, "weight_changes", settings, digest)
    base = resolve_source(pair.base_model, pair.root, "base_model")
    initial = new_reward_model(base, pair.seed)
    with ExitStack() as stack, torch.no_grad():
        reads = [stack.enter_context(open_checkpoint(folder)) for folder in found.values()]
        dots = dot_table(initial, list(found), lambda name, start: [read(name, start.shape) - start for read in reads])
    write_table(pair.folder / "weight_changes.parquet", dots.assign(**pair.label))
    inputs = {f"reward_model_{arm}": folder for arm, folder in found.items()} | local_inputs(base_model=base)
    device = device_name(torch.device("cpu"))
    record.finish("weight_changes.parquet", device=device, n_tokens=0, inputs=inputs, arms=list(found))
    return True
