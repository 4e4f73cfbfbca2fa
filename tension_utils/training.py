"""Train one reward model: the library's loop over packed pairs, validated, resumable, best checkpoint kept."""

import copy
import dataclasses
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_model
from torch import nn
from torch.nn.functional import logsigmoid
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import TrainerState

from tension_utils.artifacts import (
    StageRecord,
    atomic_path,
    code_hash,
    file_hash,
    fsync_path,
    is_archived,
    is_current,
    local_inputs,
    package_versions,
    remove_any,
    resolve_source,
    write_table,
)
from tension_utils.config import DataConfig, Run, TrainConfig, config_hash
from tension_utils.data import Item, training_pairs
from tension_utils.engine.attention import packed_attention
from tension_utils.engine.batches import split_by_budget
from tension_utils.engine.packing import PreparedItem, pack_items, prepare_items
from tension_utils.evaluation import batch_rewards, margins
from tension_utils.masking import NeuronMask, check_shape, trained_without
from tension_utils.models import load_tokenizer, new_reward_model, save_reward_model

BESIDE_MODEL = ("train_log.parquet",)  # what a training writes besides

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


NEVER = 10**9  # steps; evaluation and saving are asked for by `TrainingMonitor` instead


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return a short name of the hardware, such as "cpu (2 threads)"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Decide whether matrix products run in bf16; ``"auto"`` asks whether the hardware multiplies bf16 natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("amx_tile", "avx512_bf16"))


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerFast, items: Sequence[Item], data: DataConfig, template: str = "hh"
) -> tuple[list[PreparedItem], Counter]:
    """Return the pairs as tokens, and how many were left out as "too long" or for "identical tokens".

    Raises:
        ValueError: names the pair that exceeds ``max_length`` if ``long_pairs`` is "error", and the one whose two
            responses are the same tokens if ``bad_pairs`` is.
    """
    kept, n_dropped = [], Counter()
    for item in items:
        max_length = data.max_length if data.long_pairs == "truncate" else NEVER
        (prepared,) = prepare_items(tokenizer, [item], max_length, template)
        longest = max(map(len, prepared.tokens.sequences))
        if len(set(prepared.tokens.sequences)) == 1:
            if data.bad_pairs == "error":
                raise ValueError(
                    f"{item.item_id}: expected two responses that the tokenizer tells apart; got the same tokens; mend "
                    "or remove the row, or set unusable_pairs to 'drop'"
                )
            n_dropped["identical tokens"] += 1
        elif longest <= data.max_length:
            kept.append(prepared)
        elif data.long_pairs == "error":
            raise ValueError(
                f"{item.item_id}: expected a pair of at most max_length={data.max_length} tokens; got {longest}; "
                "raise max_length (within the model's context), or set unusable_pairs to 'drop' (in a DataConfig "
                "long_pairs to 'drop' or 'truncate')"
            )
        else:
            n_dropped["too long"] += 1
    if not kept:
        raise ValueError(
            f"max_length: expected at least one usable pair within {data.max_length} tokens; left out {dict(n_dropped)}"
        )
    return kept, n_dropped


def check_context(model: PreTrainedModel, max_length: int) -> None:
    """Raise ValueError if ``max_length`` exceeds the number of positions the model was made for."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and max_length > context:
        raise ValueError(f"max_length: expected at most the model's context of {context} tokens; got {max_length}")


class OneDeviceArguments(TrainingArguments):
    """Arguments of a process that uses one device, whatever else is visible: the batch size never changes."""

    @property
    def n_gpu(self) -> int:
        """Return 1 with an accelerator, else 0."""
        return int(self.device.type != "cpu")


def trainer_arguments(config: TrainConfig, seed: int, folder: Path) -> TrainingArguments:
    """Return the arguments of the library's loop; `TrainingMonitor` asks for validations and checkpoints.

    Args:
        config: how to train.
        seed: orders the pairs.
        folder: of the checkpoints.
    """
    device = pick_device()
    return OneDeviceArguments(
        output_dir=str(folder),
        num_train_epochs=config.n_epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_share,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=NEVER,
        save_strategy="steps",
        save_steps=NEVER,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        use_cpu=device.type == "cpu",
    )


def bfloat16_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy with the backbone's weights in bf16; the reward head stays in float32."""
    working = copy.deepcopy(model)
    for parameter in working.base_model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return working


@torch.no_grad()
def copy_weights(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Copy all weights, rounded to the target's dtypes."""
    torch._foreach_copy_([*target.parameters()], [*source.parameters()])


def _move_gradient(low: nn.Parameter, weight: nn.Parameter) -> None:
    """Add a gradient of the bf16 copy to the float32 weight's and free it."""
    if weight.grad is None:
        weight.grad = low.grad.float()
    else:
        weight.grad += low.grad
    low.grad = None


class PackedPasses:
    """Forward and backward passes over pairs in packed streams; every prompt once, and no token is padding.

    With ``is_bfloat16`` they run on a bf16 copy of the weights, and the gradients of all streams add up in the float32
    weights' own ``grad``.

    Args:
        model: reward model with float32 weights.
        tokens_per_batch: stream tokens of one pass.
        is_bfloat16: see above.
    """

    def __init__(self, model: PreTrainedModel, tokens_per_batch: int, is_bfloat16: bool) -> None:
        self.model, self.tokens_per_batch = model, tokens_per_batch
        self.working = bfloat16_copy(model) if is_bfloat16 else model
        if self.working is not model:
            for low, weight in zip(self.working.parameters(), model.parameters(), strict=True):
                low.register_post_accumulate_grad_hook(lambda low, weight=weight: _move_gradient(low, weight))

    def margins(self, pairs: Sequence[PreparedItem]) -> torch.Tensor:
        """Return the margins of the pairs, the longest pairs first."""
        return self._run(pairs, is_training=False)

    def add_gradients(self, pairs: Sequence[PreparedItem]) -> torch.Tensor:
        """Add the gradient of the mean Bradley-Terry loss to the weights, and return the margins."""
        return self._run(pairs, is_training=True)

    def _run(self, pairs: Sequence[PreparedItem], *, is_training: bool) -> torch.Tensor:
        if self.working is not self.model:
            copy_weights(self.model, self.working)
        order, found = sorted(range(len(pairs)), key=lambda i: -pairs[i].n_forward_tokens), []
        with torch.set_grad_enabled(is_training), packed_attention(self.working) as forward:
            for group in split_by_budget(pairs, order, self.tokens_per_batch):
                batch = pack_items([pairs[i] for i in group], self.working.config.pad_token_id)
                of_batch = margins(batch_rewards(self.working, forward(batch), batch), batch)
                if is_training:
                    (-logsigmoid(of_batch).sum() / len(pairs)).backward()
                found.append(of_batch.detach())  # whose graph ends here, not with the last stream
        return torch.cat(found)


class PackedTrainer(Trainer):
    r"""The library's loop, schedule, optimizer, log and checkpoints; its forward and backward pass on packed pairs.

    The passes are those of `PackedPasses`; the optimizer's weights, its moments and the sum of gradients are float32.
    The loss is the Bradley-Terry loss, mean over the pairs of a batch,

    .. math:: -\log \sigma(r(x, y^+) - r(x, y^-))

    Args:
        model: one-label classifier with float32 weights.
        arguments: of `trainer_arguments`.
        train: pairs.
        validation: pairs whose mean loss is logged where a validation is due.
        tokens_per_batch: stream tokens of one forward and backward pass; the rest of a batch is accumulated.
        is_bfloat16: see `PackedPasses`.
        options: of the library's Trainer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        train: Sequence[PreparedItem],
        validation: Sequence[PreparedItem],
        *,
        tokens_per_batch: int,
        is_bfloat16: bool,
        **options: Any,
    ) -> None:
        super().__init__(model, arguments, train_dataset=train, eval_dataset=validation, data_collator=list, **options)
        self.passes = PackedPasses(self.model, tokens_per_batch, is_bfloat16)

    def training_step(
        self, model: nn.Module, inputs: list[PreparedItem], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Add the gradient of the batch's mean loss to the float32 weights, and return that loss."""
        found = self.passes.add_gradients(inputs)
        self.state.num_input_tokens_seen += sum(pair.n_tokens for pair in inputs)
        return -logsigmoid(found).mean()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return and log loss and accuracy, means over all validation pairs; a tie is not right."""
        found = self.passes.margins(self.eval_dataset).double()
        metrics = {"eval_loss": -logsigmoid(found).mean().item(), "eval_accuracy": (found > 0).double().mean().item()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the tokens seen so far, shared ones counted once per response."""
        super().log(logs | {"num_tokens": self.state.num_input_tokens_seen}, *args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: they are not counted."""
        return 0


def train_model(
    model: PreTrainedModel,
    train: Sequence[PreparedItem],
    validation: Sequence[PreparedItem],
    config: TrainConfig,
    *,
    seed: int,
    label: str = "train",
    mask: NeuronMask | None = None,
    state: TrainingState | None = None,
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """Minimize the Bradley-Terry loss -log sigmoid(r(chosen) - r(rejected)), mean over pairs.

    Args:
        model: one-label classifier with float32 weights; trained in place.
        train: pairs.
        validation: pairs whose loss chooses the checkpoint.
        config: how.
        seed: orders the pairs.
        label: shown beside the progress bar.
        mask: neurons that are held at 0.
        state: where checkpoints are kept, and the one from which an interrupted training goes on; None keeps them in a
            temporary folder.

    Returns:
        The model with the best checkpoint's weights, and the training log (a table of `artifacts.TABLES`).

    Raises:
        FloatingPointError: at a loss that is not finite.
        ValueError: if the mask belongs to another model.

    Source: the study's protocol; ours validates on pairs carved from train and keeps float32 master weights.
    """
    is_bfloat16 = uses_bfloat16(config.precision, pick_device())
    with ExitStack() as stack:
        state = state or stack.enter_context(TrainingState.temporary())
        stack.enter_context(trained_without(model, mask))
        trainer = PackedTrainer(
            model,
            trainer_arguments(config, seed, state.folder),
            train,
            validation,
            tokens_per_batch=config.tokens_per_batch,
            is_bfloat16=is_bfloat16,
            callbacks=[TrainingMonitor(config.n_evaluations, label), state],
        )
        if (working := trainer.passes.working) is not trainer.model:
            stack.enter_context(trained_without(working, mask))
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=state.last_checkpoint())
        except FloatingPointError:
            state.remove()  # going on would end the same way
            raise
        state.load_best(trainer.model, trainer.state)
    return trainer.model, training_log(trainer.state.log_history)


def train_run(run: Run, data: DataConfig, config: TrainConfig, mask: NeuronMask | None = None) -> bool:
    """Train the reward model of one run unless the same configuration already made it.

    Writes ``reward_model/``, ``train_log.parquet`` and the manifest's section "train". While it is under way,
    ``training_state/`` holds its checkpoints: an interrupted training goes on from the last one and ends with the same
    bits (on the same hardware and number of threads). Where configuration, data, base model or code are no longer those
    of the checkpoints, it says what changed and starts anew.

    Args:
        run: base model, arm and seed.
        data: pairs.
        config: how.
        mask: neurons that are held at 0 in training and, by the checkpoint, ever after; part of the configuration.

    Returns:
        True if it trained, False if it found the artifacts, or a log that is kept without the weights.

    Raises:
        ValueError: if the mask belongs to another model, or the data or the base model do not fit.
    """
    if is_archived(run.folder, "train_log.parquet"):
        return False
    settings = {"data": dataclasses.asdict(data), "train": dataclasses.asdict(config), **run.label}
    settings |= {"neuron_mask": mask.label} if mask else {}
    base = resolve_source(run.base_model, run.root, "base_model")
    local = dataclasses.replace(data, source=resolve_source(data.source, run.root, "hh-rlhf"))
    inputs = local_inputs(base_model=base, data_source=local.source)
    digest = config_hash(settings, **{name: file_hash(path) for name, path in inputs.items()})
    if is_current(run.folder, "train", digest, "reward_model", beside=BESIDE_MODEL):
        return False
    record = StageRecord(run.folder, "train", settings, digest)
    tokenizer = load_tokenizer(base, pad_with_eos=config.pad_with_eos)
    model = new_reward_model(base, run.seed, pad_token_id=tokenizer.pad_token_id)
    check_context(model, data.max_length)
    if mask is not None:
        check_shape(model, mask.neurons)
    pairs = training_pairs(local, run.objective, run.seed)
    (train, of_train), (validation, of_validation) = (
        tokenize_pairs(tokenizer, items, data) for items in (pairs.train, pairs.validation)
    )
    label = f"{run.objective}, seed {run.seed}"
    state = TrainingState(run.folder / "training_state", plan=settings | {"inputs": digest}, pairs=(train, validation))
    model, log = train_model(model, train, validation, config, seed=run.seed, label=label, mask=mask, state=state)
    save_reward_model(model, tokenizer, run.folder / "reward_model", mask)
    write_table(run.folder / "train_log.parquet", log)
    n_dropped = of_train + of_validation
    facts = {"beside": BESIDE_MODEL, "n_train": len(train), "n_validation": len(validation)}
    facts |= {"n_too_long": n_dropped.pop("too long", 0), "n_dropped": pairs.n_dropped | n_dropped}
    facts |= {"layouts": pairs.layouts, "n_resumed": state.n_resumed}
    facts |= {"is_bfloat16": uses_bfloat16(config.precision, pick_device())}
    n_tokens = int(log["n_tokens"].max())
    record.finish("reward_model", device=device_name(pick_device()), n_tokens=n_tokens, inputs=inputs, **facts)
    state.remove()
    return True
