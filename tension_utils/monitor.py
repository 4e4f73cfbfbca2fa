"""Watch one training: progress, evenly spaced validations, the log, and a stop at a loss that is not finite."""

import math

import pandas as pd
from tqdm import tqdm
from transformers import TrainerCallback

COLUMNS = {
    "loss": "loss",
    "eval_loss": "validation_loss",
    "eval_accuracy": "validation_accuracy",
    "num_tokens": "n_tokens",
}  # of the library's log -> of train_log


class TrainingMonitor(TrainerCallback):
    """Shows progress, asks for evenly spaced validations, and stops at a loss that is not finite."""

    def __init__(self, n_evaluations: int, label: str) -> None:
        self.n_evaluations, self.label = n_evaluations, label
        self.points: set[int] = set()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Fix the validation steps, the last one at the end."""
        count = min(self.n_evaluations, state.max_steps)
        self.points = {round(state.max_steps * (i + 1) / count) for i in range(count)}
        self.progress = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.label, unit="step", mininterval=2
        )

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Ask for a validation and a checkpoint where one is due."""
        self.progress.update()
        control.should_evaluate = control.should_save = state.global_step in self.points

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """End the progress bar."""
        self.progress.close()

    def on_log(self, args, state, control, logs: dict, **kwargs) -> None:
        """Stop where a loss is not finite."""
        for key in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(key, 0.0)):
                raise FloatingPointError(
                    f"{self.label}: {COLUMNS[key]} is {logs[key]} at step {state.global_step}; expected a finite "
                    "number; lower learning_rate, or set precision to 'float32'"
                )


def training_log(history: list[dict]) -> pd.DataFrame:
    """Return one row per step from the library's log history; validation columns are missing where there was none."""
    rows: dict[int, dict] = {}
    for entry in history:
        if {"loss", "eval_loss"} & set(entry):
            row = {column: entry[key] for key, column in COLUMNS.items() if key in entry}
            rows.setdefault(entry["step"], {}).update(row | {"step": entry["step"], "epoch": entry["epoch"]})
    columns = ("step", "epoch", "loss", "validation_loss", "validation_accuracy", "n_tokens")
    return pd.DataFrame([rows[step] for step in sorted(rows)], columns=list(columns))
