"""Checkpoints of a training that is under way: complete or not there, and only used for what they were made for."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_model
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import TrainerState

from tension_utils.artifacts import atomic_path, code_hash, fsync_path, package_versions, remove_any
from tension_utils.config import config_hash
from tension_utils.packing import PreparedItem

PLAN = "plan.json"  # what the checkpoints of a folder belong to
COMPLETE = "complete"  # a checkpoint without this file was cut off while it was written


class TrainingState(TrainerCallback):
    """Keeps the best and the last checkpoint of one training, and says from which an interrupted one goes on.

    Args:
        folder: of the checkpoints; made when the first one is written.
        plan: configuration and hashes of the inputs, JSON-like.
        pairs: training and validation pairs.
    """

    def __init__(self, folder: Path, plan: dict, pairs: Sequence[Sequence[PreparedItem]]) -> None:
        self.folder, self.n_resumed = folder, 0
        tokens = [[(pair.item_id, pair.tokens.sequences) for pair in part] for part in pairs]
        plan = plan | {"pairs": config_hash(tokens), "code": code_hash(), "packages": package_versions()}
        self.plan = json.loads(json.dumps(plan))
        self._discard_other_plans()

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator["TrainingState"]:
        """Give a state whose checkpoints end with the context."""
        with tempfile.TemporaryDirectory() as folder:
            yield cls(Path(folder) / "training_state", {}, ())

    def last_checkpoint(self) -> str | None:
        """Return the last complete checkpoint's folder, or None; remove what was cut off."""
        steps = {int(path.name.rpartition("-")[2]): path for path in self.folder.glob("checkpoint-*")}
        for path in steps.values():
            if not (path / COMPLETE).is_file():
                remove_any(path)
        complete = [step for step, path in steps.items() if path.is_dir()]
        if not complete:
            return None
        self.n_resumed = max(complete)
        print(f"going on from step {self.n_resumed}, where an earlier training was interrupted", flush=True)
        return str(steps[self.n_resumed])

    def on_save(self, args, state, control, **kwargs) -> None:
        """Mark the checkpoint as complete once it is on disk, then remove those that are neither best nor last."""
        checkpoint = self.folder / f"checkpoint-{state.global_step}"
        for part in checkpoint.rglob("*"):
            fsync_path(part)
        if not (self.folder / PLAN).is_file():
            with atomic_path(self.folder / PLAN) as temporary:
                temporary.write_text(json.dumps(self.plan, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        with atomic_path(checkpoint / COMPLETE) as temporary:
            temporary.touch()
        for path in self.folder.glob("checkpoint-*"):
            if path.name not in (checkpoint.name, f"checkpoint-{state.best_global_step}"):
                remove_any(path)

    def load_best(self, model: PreTrainedModel, state: TrainerState) -> None:
        """Load the weights of the checkpoint with the lowest validation loss."""
        load_model(model, self.folder / f"checkpoint-{state.best_global_step}" / "model.safetensors")

    def remove(self) -> None:
        """Remove the checkpoints."""
        remove_any(self.folder)

    def _discard_other_plans(self) -> None:
        """Remove checkpoints of another plan, and say what changed."""
        if not self.folder.exists():
            return
        try:
            found = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        changed = sorted(name for name in {*found, *self.plan} if found.get(name) != self.plan.get(name))
        if changed:
            if found:
                print(f"starting anew: since the interrupted training, {', '.join(changed)} changed", flush=True)
            remove_any(self.folder)
