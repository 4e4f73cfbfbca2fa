"""What reward models were trained on, and how good the kept checkpoints are on their own validation pairs."""

from collections.abc import Mapping, Sequence

import pandas as pd

from tension_utils.artifacts import read_manifest, read_table
from tension_utils.config import Run
from tension_utils.data import TrainingPairs
from tension_utils.statistics import wilson_interval


def pair_counts(pairs: Mapping[str, TrainingPairs]) -> pd.DataFrame:
    """Return how many pairs each objective has: objective, n_train, n_validation, n_left_out (rows without use)."""
    rows = [(name, len(of.train), len(of.validation), sum(of.n_dropped.values())) for name, of in pairs.items()]
    return pd.DataFrame(rows, columns=["objective", "n_train", "n_validation", "n_left_out"])


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
        kept, n = log.loc[log.validation_loss.idxmin()], read_manifest(run.folder)["train"]["n_validation"]
        low, high = wilson_interval(round(kept.validation_accuracy * n), n)
        row = run.label | {"step": int(kept.step)}
        row |= kept[["validation_loss", "validation_accuracy"]].to_dict()
        rows.append(row | {"ci_low": low, "ci_high": high, "chance_accuracy": 0.5, "n": n})
    return pd.DataFrame(rows)


def training_sizes(runs: Sequence[Run]) -> pd.DataFrame:
    """Return how much each arm was trained on: objective, n_pairs and n_steps (means over its runs), n_seeds."""
    rows = [
        {"objective": run.objective, "n_pairs": read_manifest(run.folder)["train"]["n_train"]}
        | {"n_steps": read_table([run], "train_log", "01_train").step.max(), "seed": run.seed}
        for run in runs
    ]
    by_arm = pd.DataFrame(rows).groupby("objective", sort=False)
    return by_arm.agg(
        n_pairs=("n_pairs", "mean"), n_steps=("n_steps", "mean"), n_seeds=("seed", "nunique")
    ).reset_index()
