"""Train one reward model: TRL's RewardTrainer, validated on pairs carved from train, best checkpoint kept."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback

from tension_utils.artifacts import StageRecord, file_hash, is_current, write_table
from tension_utils.config import TOY, DataConfig, TrainConfig, config_hash
from tension_utils.data import Item, tokenize_item
from tension_utils.masking import NeuronMask, trained_without
from tension_utils.models import load_tokenizer, new_reward_model, save_reward_model
from tension_utils.monitor import TrainingMonitor
from tension_utils.pairs import training_pairs
from tension_utils.runs import Run

if TYPE_CHECKING:
    from trl import RewardConfig

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


def resolve_source(source: str, root: Path, part: str) -> str:
    """Return a source as it is, or the toy world's folder for ``"toy"``; ``part`` is "hh-rlhf" or "base_model"."""
    return str(Path(root) / "toy-world" / part) if source == TOY else source


def local_inputs(**sources: str) -> dict[str, Path]:
    """Return those sources that are folders here, whose hashes can be recorded; public names pass by name only."""
    return {name: Path(source) for name, source in sources.items() if Path(source).is_dir()}


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerFast, items: tuple[Item, ...], data: DataConfig
) -> tuple[Dataset, int]:
    """Return the columns ``chosen_ids`` and ``rejected_ids`` for RewardTrainer, and how many pairs were left out.

    Raises:
        ValueError: names the pair that exceeds ``max_length`` if ``long_pairs`` is "error".
    """
    rows, n_dropped = {"chosen_ids": [], "rejected_ids": []}, 0
    for item in items:
        tokenized = tokenize_item(tokenizer, item, data.max_length if data.long_pairs == "truncate" else NEVER)
        longest = max(map(len, tokenized.sequences))
        if longest > data.max_length:
            if data.long_pairs == "error":
                raise ValueError(
                    f"{item.item_id}: expected a pair of at most max_length={data.max_length} tokens; got {longest}; "
                    "raise max_length (within the model's context) or set long_pairs to 'drop' or 'truncate'"
                )
            n_dropped += 1
            continue
        for column, ids in zip(rows, tokenized.sequences, strict=True):
            rows[column].append(list(ids))
    if not rows["chosen_ids"]:
        raise ValueError(f"max_length: expected at least one pair within {data.max_length} tokens; all are longer")
    return Dataset.from_dict(rows), n_dropped


def check_context(model: PreTrainedModel, max_length: int) -> None:
    """Raise ValueError if ``max_length`` exceeds the number of positions the model was made for."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and max_length > context:
        raise ValueError(f"max_length: expected at most the model's context of {context} tokens; got {max_length}")


def even_batch_size(n_items: int, at_most: int) -> int:
    """Return the largest batch size that cuts ``n_items`` into equal batches, so that a mean over batches is exact.

    >>> even_batch_size(20, 16)
    10
    """
    return next(size for size in range(min(n_items, at_most), 0, -1) if n_items % size == 0)


def trainer_arguments(config: TrainConfig, seed: int, scratch: str, n_validation: int) -> "RewardConfig":
    """Return the arguments of TRL's RewardTrainer; `TrainingMonitor` asks for validations and checkpoints.

    Args:
        config: how to train.
        seed: orders the pairs.
        scratch: folder of the checkpoints.
        n_validation: validation pairs; TRL averages accuracy over batches, so these must be of equal size.
    """
    from trl import RewardConfig  # slow to import, and only training needs it

    device = pick_device()
    return RewardConfig(
        output_dir=scratch,
        num_train_epochs=config.n_epochs,
        per_device_train_batch_size=config.micro_batch_size,
        per_device_eval_batch_size=even_batch_size(n_validation, config.micro_batch_size),
        gradient_accumulation_steps=config.batch_size // config.micro_batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_share,
        bf16=uses_bfloat16(config.precision, device),
        fp16=False,
        activation_checkpointing=False,
        max_length=None,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=NEVER,
        save_strategy="steps",
        save_steps=NEVER,
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        dataloader_pin_memory=device.type == "cuda",
        disable_tqdm=True,
        report_to="none",
        use_cpu=device.type == "cpu",
    )


def train_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train: Dataset,
    validation: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    label: str = "train",
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """Minimize the Bradley-Terry loss -log sigmoid(r(chosen) - r(rejected)), mean over pairs.

    Args:
        model: one-label classifier with float32 weights; trained in place.
        tokenizer: names EOS and padding.
        train: columns ``chosen_ids`` and ``rejected_ids``.
        validation: likewise; its loss chooses the checkpoint.
        config: how.
        seed: orders the pairs.
        label: shown beside the progress bar.

    Returns:
        The model with the best checkpoint's weights, and the training log (a table of `artifacts.TABLES`).

    Raises:
        FloatingPointError: at a loss that is not finite.

    Source: the study's protocol; ours validates on pairs carved from train and keeps float32 master weights.
    """
    from trl import RewardTrainer  # slow to import, and only training needs it

    monitor = TrainingMonitor(config.n_evaluations, label)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = RewardTrainer(
            model,
            trainer_arguments(config, seed, scratch, len(validation)),
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            callbacks=[monitor],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.model, monitor.table()


def train_run(run: Run, data: DataConfig, config: TrainConfig, mask: NeuronMask | None = None) -> bool:
    """Train the reward model of one run unless the same configuration already made it.

    Writes ``reward_model/``, ``train_log.parquet`` and the manifest's section "train".

    Args:
        run: base model, objective and seed.
        data: pairs.
        config: how.
        mask: neurons that are held at 0 in training and, by the checkpoint, ever after; part of the configuration.

    Returns:
        True if it trained, False if it found the artifacts.

    Raises:
        ValueError: if the mask belongs to another model, or the data or the base model do not fit.
    """
    settings = {"data": dataclasses.asdict(data), "train": dataclasses.asdict(config), **run.label}
    settings |= {"neuron_mask": mask.label} if mask else {}
    base = resolve_source(run.base_model, run.root, "base_model")
    local = dataclasses.replace(data, source=resolve_source(data.source, run.root, "hh-rlhf"))
    inputs = local_inputs(base_model=base, data_source=local.source)
    digest = config_hash(settings, **{name: file_hash(path) for name, path in inputs.items()})
    has_log = (run.folder / "train_log.parquet").exists()
    if has_log and is_current(run.folder, "train", digest, "reward_model"):
        return False
    record = StageRecord(run.folder, "train", settings, digest)
    tokenizer = load_tokenizer(base, pad_with_eos=config.pad_with_eos)
    model = new_reward_model(base, run.seed, pad_token_id=tokenizer.pad_token_id)
    check_context(model, data.max_length)
    pairs = training_pairs(local, run.objective, run.seed)
    (train, n_long_train), (validation, n_long_validation) = (
        tokenize_pairs(tokenizer, items, data) for items in (pairs.train, pairs.validation)
    )
    with trained_without(model, mask):
        label = f"{run.objective}, seed {run.seed}"
        model, log = train_model(model, tokenizer, train, validation, config, seed=run.seed, label=label)
    save_reward_model(model, tokenizer, run.folder / "reward_model", mask)
    write_table(run.folder / "train_log.parquet", log)
    facts = {"n_train": len(train), "n_validation": len(validation), "n_dropped": pairs.n_dropped}
    facts |= {"n_too_long": n_long_train + n_long_validation}
    facts |= {"is_bfloat16": uses_bfloat16(config.precision, pick_device())}
    n_tokens = int(log["n_tokens"].max())
    record.finish("reward_model", device=device_name(pick_device()), n_tokens=n_tokens, inputs=inputs, **facts)
    return True
