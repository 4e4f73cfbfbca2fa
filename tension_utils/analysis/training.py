"""What reward models were trained on, and how good the kept checkpoints are on their own validation pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from tension_utils.artifacts import read_section, read_table
from tension_utils.benchmarks.items import prompt_key
from tension_utils.config import SINGLE_OBJECTIVES, DataConfig, Run
from tension_utils.data import TrainingPairs, content_key, read_objective, shared_subsets
from tension_utils.statistics import mean_table, widen_degenerate, wilson_interval


def pair_counts(pairs: Mapping[str, TrainingPairs]) -> pd.DataFrame:
    """Return how many pairs each objective has: objective, n_train, n_validation, n_left_out (rows without use)."""
    rows = [(name, len(of.train), len(of.validation), sum(of.n_dropped.values())) for name, of in pairs.items()]
    return pd.DataFrame(rows, columns=["objective", "n_train", "n_validation", "n_left_out"])


def label_conflicts(data: DataConfig) -> pd.DataFrame:
    """Return how often the two labels of one pair prefer different responses, where the training data has both.

    Data with both labels names the same subset for both objectives; no other is read.

    Args:
        data: of the training.

    Returns:
        subset, conflict_share in [0, 1] with a 95 % interval that draws prompts anew as ci_low and ci_high,
        chance_share (labels that know nothing of each other), n_items (pairs with both labels), n_clusters (prompts).
        No row for data without such pairs.

    Raises:
        FileNotFoundError, ValueError: see `data.read_split`.

    Source: ours; the study's two objectives have separate pairs.
    """
    columns = ["subset", "conflict_share", "ci_low", "ci_high", "chance_share", "n_items", "n_clusters"]
    shared = shared_subsets(data)
    if not shared:
        return pd.DataFrame(columns=columns)
    only = replace(data, subsets=dict.fromkeys(SINGLE_OBJECTIVES, tuple(shared)), bad_pairs="drop")
    splits = [read_objective(only, objective) for objective in SINGLE_OBJECTIVES]
    rows = []
    for subset in shared:
        helpful, harmless = ({content_key(item): item for item in of[subset].items} for of in splits)
        rows += [
            {"subset": subset, "item_id": item.item_id, "accuracy": float(item.chosen != harmless[key].chosen)}
            | {"benchmark": subset, "cluster": prompt_key(item.prompt), "seed": 0, "base_model": ""}
            for key, item in helpful.items()
            if key in harmless
        ]
    if not rows:
        return pd.DataFrame(columns=columns)
    table = mean_table(pd.DataFrame(rows), ["accuracy"], ["subset"])
    table = table.rename(columns={"accuracy_ci_low": "ci_low", "accuracy_ci_high": "ci_high"})
    table = widen_degenerate(table).rename(columns={"accuracy": "conflict_share"})
    return table.assign(chance_share=0.5)[columns]


def training_logs(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the training logs of reward models, one row per step, with base_model, objective and seed."""
    logs = [read_table([run], "train_log", "01_train").assign(**run.label) for run in runs]
    return pd.concat(logs, ignore_index=True)


def kept_checkpoints(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the checkpoint that each reward model kept, the one with the lowest validation loss.

    Returns:
        base_model, objective, seed, step, validation_loss (nats per pair), validation_accuracy with Wilson's 95 %
        interval as ci_low and ci_high, chance_accuracy, n (validation pairs).
    """
    rows = []
    for run in runs:
        log = read_table([run], "train_log", "01_train")
        kept, n = log.loc[log.validation_loss.idxmin()], read_section(run.folder, "train")["n_validation"]
        low, high = wilson_interval(round(kept.validation_accuracy * n), n)
        row = run.label | {"step": int(kept.step)}
        row |= kept[["validation_loss", "validation_accuracy"]].to_dict()
        rows.append(row | {"ci_low": low, "ci_high": high, "chance_accuracy": 0.5, "n": n})
    return pd.DataFrame(rows)


def training_sizes(runs: Sequence[Run]) -> pd.DataFrame:
    """Return how much each arm was trained on: objective, n_pairs and n_steps (means over its runs), n_seeds."""
    rows = [
        {"objective": run.objective, "n_pairs": read_section(run.folder, "train")["n_train"]}
        | {"n_steps": read_table([run], "train_log", "01_train").step.max()}
        for run in runs
    ]
    by_arm = pd.DataFrame(rows).groupby("objective", sort=False)
    return by_arm.agg(
        n_pairs=("n_pairs", "mean"), n_steps=("n_steps", "mean"), n_seeds=("n_steps", "size")
    ).reset_index()
