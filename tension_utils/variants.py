"""Train the mixed reward model again without the neurons that both objectives use, or without random ones."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid

from tension_utils.artifacts import read_manifest, read_table, require
from tension_utils.checks import check_choice, check_range
from tension_utils.config import (
    MASK_MODES,
    MASKED_ARMS,
    MATCHED_ARM,
    SCOPES,
    SCORE_KINDS,
    SHARED_MASK_ARM,
    SINGLE_OBJECTIVES,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    TrainConfig,
)
from tension_utils.masking import NEURON_MASK_FILE, NeuronMask
from tension_utils.models import load_reward_model, load_tokenizer
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.pairs import training_pairs
from tension_utils.runs import Run
from tension_utils.scores import own_scores
from tension_utils.stages import evaluate_run
from tension_utils.training import pick_device, resolve_source, tokenize_pairs, train_run


@dataclass(frozen=True)
class MaskConfig:
    """Which neurons the mixed reward model is trained without.

    Args:
        score_kind: of `SCORE_KINDS`; ranks the neurons of the single-objective reward models.
        fraction: share of all neurons in the top of each; shared are those in both tops.
        scope: token scope of the scores.
        mode: of `MASK_MODES`.
    """

    score_kind: str = "rms_change"
    fraction: float = 0.1
    scope: str = "all"
    mode: str = MASK_MODES[0]

    def __post_init__(self) -> None:
        check_choice("score_kind", self.score_kind, SCORE_KINDS)
        check_range("fraction", self.fraction, 1e-9, 1)
        check_choice("scope", self.scope, SCOPES)
        check_choice("mode", self.mode, MASK_MODES)


def sibling(run: Run, objective: str) -> Run:
    """Return the run of another objective with the same base model and seed."""
    return dataclasses.replace(run, objective=objective)


def shared_neurons(run: Run, config: MaskConfig) -> NeuronSet:
    """Return the neurons in the top of both single-objective reward models of the run's base model and seed.

    Raises:
        FileNotFoundError: names the missing score file and the chapter to run.
        ValueError: if the tops share no neuron.
    """
    scores = [own_scores(sibling(run, o)).get(config.score_kind, "both", config.scope) for o in SINGLE_OBJECTIVES]
    helpful, harmless = (top_neurons(values, config.fraction) for values in scores)
    if not len(helpful & harmless):
        raise ValueError(
            f"fraction: expected tops that share a neuron; the top {config.fraction:g} by {config.score_kind} of "
            f"{run.base_model_name}, seed {run.seed}, share none; raise it"
        )
    return helpful & harmless


def variant_mask(run: Run, config: MaskConfig) -> NeuronMask:
    """Return the mask of one of `MASKED_ARMS`: the shared neurons, or a random set with their count in every layer.

    Random sets are drawn anew for every arm and seed, uniform within a layer; they may hold shared neurons.

    Raises:
        ValueError: if the run's objective is not such an arm, or no neuron is shared.
    """
    check_choice("objective", run.objective, MASKED_ARMS)
    neurons = shared_neurons(run, config)
    if run.objective != SHARED_MASK_ARM:
        (neurons,) = neurons.matched_random(np.random.default_rng([run.seed, *run.objective.encode()]), 1)
    return NeuronMask(neurons, config.mode)


def train_variant(run: Run, config: MaskConfig) -> bool:
    """Train the size-matched mixed reward model again with a mask: same pairs, steps, seed and settings.

    Returns:
        True if it trained, False if it found the artifacts.

    Raises:
        FileNotFoundError: if the matched arm or the scores of a single-objective reward model are missing.
        ValueError: as `variant_mask`.
    """
    mask = variant_mask(run, config)
    settings = _settings(sibling(run, MATCHED_ARM), "train", "reward_model", "01_train")
    return train_run(run, DataConfig(**settings["data"]), TrainConfig(**settings["train"]), mask)


def evaluate_variant(run: Run) -> bool:
    """Score the HH-RLHF tests with a variant, with the settings of the matched arm's evaluation.

    Returns:
        True if it computed, False if it found the artifact.
    """
    settings = _settings(sibling(run, MATCHED_ARM), "evaluate", "evaluation.parquet", "02_evaluate")["evaluate"]
    config = EvaluateConfig(engine=EngineConfig(**settings["engine"]), max_length=settings["max_length"])
    return evaluate_run(run, config)


def _settings(run: Run, stage: str, artifact: str, made_by: str) -> dict:
    """Return the configuration that one stage of a run was made with."""
    return read_manifest(require(run.folder / artifact, made_by).parent)[stage]["config"]


def mask_table(runs: list[Run]) -> pd.DataFrame:
    """Return what the checkpoints of variants hold at zero.

    Returns:
        base_model, arm, seed, mode, n_neurons, share (of all neurons), n_layers (that lose one), n_shared (neurons
        that the shared mask of the seed holds too).
    """
    masks = {run: NeuronMask.load(run.folder / "reward_model" / NEURON_MASK_FILE) for run in runs}
    rows = []
    for run, mask in masks.items():
        shared = masks[sibling(run, SHARED_MASK_ARM)].neurons
        row = {"base_model": run.base_model_name, "arm": run.objective, "seed": run.seed, "mode": mask.mode}
        row |= {"n_neurons": len(mask.neurons), "share": mask.neurons.fraction}
        row |= {"n_layers": int((mask.neurons.counts_by_layer() > 0).sum()), "n_shared": len(mask.neurons & shared)}
        rows.append(row)
    return pd.DataFrame(rows)


@torch.no_grad()
def reloaded_loss(run: Run) -> tuple[float, float]:
    """Return the validation loss of the checkpoint on disk, and the one its training ended with.

    They agree only if the checkpoint comes back as the model that was trained, its mask included. Every sequence goes
    through the model alone.

    Raises:
        FileNotFoundError: if the run was not trained.
    """
    folder = require(run.folder / "reward_model", "01_train")
    data = DataConfig(**_settings(run, "train", "reward_model", "01_train")["data"])
    local = dataclasses.replace(data, source=resolve_source(data.source, run.root, "hh-rlhf"))
    model, tokenizer = load_reward_model(folder, device=pick_device()), load_tokenizer(folder)
    pairs, _ = tokenize_pairs(tokenizer, training_pairs(local, run.objective, run.seed).validation, data)
    rewards = [
        [model(torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in side]
        for side in zip(*(pair.tokens.sequences for pair in pairs), strict=True)
    ]
    chosen, rejected = torch.tensor(rewards)  # (2, P)
    log = read_table([run], "train_log", "01_train")
    return -logsigmoid(chosen - rejected).mean().item(), float(log.validation_loss.min())
