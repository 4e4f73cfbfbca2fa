"""Measure training on packed pairs beside TRL's RewardTrainer and beside bare scoring, alternately in one run.

python benchmarks/training.py --base-model FOLDER --data FOLDER [--pairs 64] [--micro-batches 2 4 8 16] [--repeats 3]

Every measurement is a process of its own, so that its peak memory is its own: the first optimizer step warms up, the
others are timed. Printed are medians over the repeats and ratios of paired runs:

* pairs/min of TRL at its best micro-batch and of ours, and their ratio (at least 2)
* seconds of a training pair / seconds of scoring it (at most 4)
* peak memory of each
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH_SIZE = 16


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return pairs/min and peak memory (GiB) of one way, in this process."""
    import torch

    from tension_utils.config import DataConfig, TrainConfig
    from tension_utils.data import read_split
    from tension_utils.models import load_tokenizer, new_reward_model
    from tension_utils.training import tokenize_pairs

    torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options.base_model, pad_with_eos=True)
    data = DataConfig(max_length=options.max_length, long_pairs="truncate")
    items = read_split(options.data, "helpful-base", "train", "drop").items[: options.pairs + BATCH_SIZE]
    pairs, _ = tokenize_pairs(tokenizer, items, data)
    config = TrainConfig(batch_size=BATCH_SIZE, tokens_per_batch=options.tokens_per_batch, precision=options.precision)
    model = new_reward_model(options.base_model, 0, pad_token_id=tokenizer.pad_token_id)
    way, _, micro_batch = options.only.partition(":")
    if way == "scoring":
        seconds = scoring_seconds(model, tokenizer, pairs, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            if way == "trl":
                trainer = library_trainer(model, tokenizer, pairs, config, Path(folder), int(micro_batch))
            else:
                trainer = packed_trainer(model, pairs, config, Path(folder))
            seconds = training_seconds(trainer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"pairs_per_minute": 60 * (len(pairs) - BATCH_SIZE) / seconds, "peak_gib": peak}


def scoring_seconds(model, tokenizer, pairs, options: argparse.Namespace) -> float:
    """Return the seconds of scoring all pairs but the first batch, which warms up."""
    import torch

    from tension_utils.evaluation import score_items
    from tension_utils.training import bfloat16_copy, uses_bfloat16

    if uses_bfloat16(options.precision, torch.device("cpu")):
        model = bfloat16_copy(model)
    settings = {"max_length": options.max_length, "progress": False, "tokens_per_batch": options.tokens_per_batch}
    score_items(model, tokenizer, pairs[:BATCH_SIZE], **settings)
    start = time.perf_counter()
    score_items(model, tokenizer, pairs[BATCH_SIZE:], **settings)
    return time.perf_counter() - start


def training_seconds(trainer) -> float:
    """Train one epoch and return the seconds of all optimizer steps but the first."""
    from transformers import PrinterCallback, TrainerCallback

    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            marks.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return marks[-1] - marks[0]


def packed_trainer(model, pairs, config, folder: Path):
    """Return ours, without validation or checkpoint."""
    from tension_utils.training import PackedTrainer, pick_device, trainer_arguments, uses_bfloat16

    is_bfloat16 = uses_bfloat16(config.precision, pick_device())
    arguments = trainer_arguments(config, 0, folder)
    settings = {"tokens_per_batch": config.tokens_per_batch, "is_bfloat16": is_bfloat16}
    return PackedTrainer(model, arguments, pairs, pairs[:1], **settings)


def library_trainer(model, tokenizer, pairs, config, folder: Path, micro_batch: int):
    """Return TRL's on padded micro-batches, bf16 by autocast."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from tension_utils.training import pick_device, uses_bfloat16

    sides = zip(*(pair.tokens.sequences for pair in pairs), strict=True)
    columns = dict(zip(("chosen_ids", "rejected_ids"), map(list, sides), strict=True))
    arguments = RewardConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=config.batch_size // micro_batch,
        num_train_epochs=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        bf16=uses_bfloat16(config.precision, pick_device()),
        fp16=False,
        activation_checkpointing=False,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=pick_device().type == "cpu",
    )
    return RewardTrainer(model, arguments, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer)


def main() -> None:
    """Measure all ways in turn, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", required=True)
    parser.add_argument("--data", required=True, help="folder of the layout of HH-RLHF, or its public name")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="'ours', 'scoring' or 'trl:N': measure it in this process and print JSON")
    options = parser.parse_args()
    if options.only:
        print("RESULT", json.dumps(measure(options)))
        return
    ways = ["ours", *(f"trl:{size}" for size in options.micro_batches), "scoring"]
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way in ways:
            found[way].append(child(way))
            print(f"{way:<10} {found[way][-1]}", flush=True)
    report(found)


def child(way: str) -> dict[str, float]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", way]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(next(line for line in lines if line.startswith("RESULT")).removeprefix("RESULT"))


def report(found: dict[str, list[dict]]) -> None:
    """Print medians, and medians of the ratios of runs of one round."""

    def median(way: str, key: str) -> float:
        return statistics.median(run[key] for run in found[way])

    def ratio(way: str, other: str) -> float:
        pairs = zip(found[way], found[other], strict=True)
        return statistics.median(a["pairs_per_minute"] / b["pairs_per_minute"] for a, b in pairs)

    best = max((way for way in found if way.startswith("trl")), key=lambda way: median(way, "pairs_per_minute"))
    for way in found:
        print(f"{way:<10} {median(way, 'pairs_per_minute'):7.1f} pairs/min   peak {median(way, 'peak_gib'):5.2f} GiB")
    print(f"ours / TRL's best ({best}): {ratio('ours', best):.2f}   target >= 2.0")
    print(f"a training pair / scoring it: {ratio('scoring', 'ours'):.2f}   target <= 4")


if __name__ == "__main__":
    main()
