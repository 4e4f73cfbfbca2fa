"""Interpolate the weights of the helpful and the harmless reward model, and score the tests at every point."""

from contextlib import ExitStack
from typing import Annotated

import pandas as pd
from pydantic import Field, Strict
from tqdm import tqdm

from tension_utils.artifacts import is_archived, read_part, read_section, remove_any, require, write_part, write_table
from tension_utils.config import SINGLE_OBJECTIVES, EngineConfig, SinglePair, checked, some
from tension_utils.evaluation import group_by_prompt, score_groups
from tension_utils.masking import NEURON_MASK_FILE
from tension_utils.models import open_checkpoint, set_interpolated
from tension_utils.stages import ItemsConfig, Stage, load_items

PARTS = "interpolation_parts"  # folder of finished weights while the stage is under way


@checked
class InterpolateConfig:
    """At which points between the helpful and the harmless reward model the tests are scored.

    Args:
        weights: of the harmless reward model, in [0, 1]; 0 is the helpful one.
        items: which; those of the evaluate stage, so that both ends repeat its rows.
    """

    weights: some(Annotated[float, Strict(), Field(ge=0, le=1)]) = (0.0, 0.25, 0.5, 0.75, 1.0)
    items: ItemsConfig = ItemsConfig()

    @property
    def engine(self) -> EngineConfig:
        """How items go through the models."""
        return self.items.engine


def require_unmasked(pair: SinglePair) -> None:
    """Raise ValueError if a reward model of the pair was trained without some of its neurons."""
    for run in (pair.helpful, pair.harmless):
        trained = read_section(require(run.folder / "reward_model", "01_train", run).parent, "train")["config"]
        if trained.get("neuron_mask") or (run.folder / "reward_model" / NEURON_MASK_FILE).exists():
            raise ValueError(
                f"{run.folder}: expected a reward model with all its neurons, got one with a neuron mask; a mask has "
                "no points in between, so train this objective without it"
            )


def interpolate_run(pair: SinglePair, config: InterpolateConfig) -> bool:
    r"""Score the tests with reward models between the helpful and the harmless one; write ``interpolation.parquet``.

    .. math:: \theta(a) = (1 - a) \theta_{helpful} + a \theta_{harmless}

    for every a of ``config.weights``. Every finished weight is kept in ``interpolation_parts`` until all are done.

    Args:
        pair: base model and seed.
        config: weights and items.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward models.

    Raises:
        FileNotFoundError: if one of the two reward models was not trained.
        ValueError: if one has a neuron mask, or their shapes differ.

    Source: ours; the baseline for joint training follows Rame et al. (2023), "Rewarded soups".
    """
    if is_archived(pair.folder, "interpolation.parquet"):
        return False
    require_unmasked(pair)
    stage = Stage(pair.helpful, "interpolate", "interpolation.parquet", config, place=pair)
    harmless = read_section(pair.harmless.folder, "train")["artifact_hash"]
    if not stage.start(harmless=harmless):
        return False
    max_length = config.items.max_length or stage.data.max_length
    options = stage.engine_options() | {"max_length": max_length, "progress": False}
    items = load_items(pair.helpful, stage.data, config.items).items
    groups, _ = group_by_prompt(stage.tokenizer, items, max_length, stage.template)
    folders = [pair.run_of(objective).folder / "reward_model" for objective in SINGLE_OBJECTIVES]
    tables = []
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(open_checkpoint(folder)) for folder in folders]
        for weight in tqdm(config.weights, desc=f"interpolate, seed {pair.seed}", unit="model"):
            part = pair.folder / PARTS / f"{weight}-{stage.digest}.parquet"
            if (table := read_part(part)) is None:
                set_interpolated(stage.model, *checkpoints, weight)
                table = score_groups(stage.model, stage.tokenizer, groups, **options)
                write_part(part, table.assign(**pair.label, harmless_weight=weight))
                table = read_part(part)
            tables.append(table)
    write_table(pair.folder / "interpolation.parquet", pd.concat(tables, ignore_index=True))
    remove_any(pair.folder / PARTS)
    stage.inputs["reward_model_harmless"] = folders[1]
    stage.finish(int(sum(table.n_tokens.sum() for table in tables)), n_items=len(tables[0]))
    return True
