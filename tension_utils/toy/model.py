"""The embedded base model: a BPE tokenizer and a small Llama language model, trained from scratch on the toy world.

``python -m tension_utils.toy.model --folder runs/tiny/toy-world --config '{"conflict": 0.4}'`` writes world and model.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from tension_utils.artifacts import MANIFEST, atomic_path, file_hash, require_own, toy_world
from tension_utils.config import TOY, config_hash
from tension_utils.toy.world import ToyConfig, is_whole, write_corpus, write_world

VOCABULARY_SIZE = 1200

CONTEXT_LENGTH = 256  # tokens

PARTS = ("base_model", "benchmark", "hh-rlhf")  # of a world's folder, besides its manifest

BLOCK_LENGTH = 128  # tokens per training row of the language model

LEARNING_RATE = 3e-3


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose EOS and padding tokens differ."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", model_max_length=CONTEXT_LENGTH
    )


def pack_blocks(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Dataset:
    """Join all texts, each with EOS, and cut rows of `BLOCK_LENGTH` tokens."""
    ids = [token for text in tokenizer(texts)["input_ids"] for token in (*text, tokenizer.eos_token_id)]
    n_rows = len(ids) // BLOCK_LENGTH
    blocks = np.array(ids[: n_rows * BLOCK_LENGTH]).reshape(n_rows, BLOCK_LENGTH)  # (rows, T)
    return Dataset.from_dict({"input_ids": blocks.tolist(), "labels": blocks.tolist()})


def train_base_model(folder: Path, config: ToyConfig) -> float:
    """Train tokenizer and language model on the corpus of ``config`` and save both to ``folder``.

    Returns:
        Mean training loss in nats per token.
    """
    set_seed(config.seed)
    texts = write_corpus(np.random.default_rng(config.seed + 1), config.n_corpus)
    tokenizer = train_tokenizer(texts)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=config.n_epochs,
            per_device_train_batch_size=8,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            seed=config.seed,
            save_strategy="no",
            report_to="none",
            use_cpu=True,  # the model is too small for a GPU to pay, and a CPU repeats it bit by bit
        )
        trainer = Trainer(
            model, arguments, train_dataset=pack_blocks(tokenizer, texts), data_collator=default_data_collator
        )
        loss = trainer.train().training_loss
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss


def ensure_toy_world(folder: Path, config: ToyConfig) -> Path:
    """Write the world and its base model below ``folder`` unless the same configuration already made them.

    Args:
        folder: ends up with ``hh-rlhf``, ``benchmark``, ``base_model`` and ``manifest.json``, all at once.
        config: knobs of the world.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: something else is there.
    """
    digest = config_hash(config)
    if is_whole(folder, digest):
        return folder
    require_own(folder, MANIFEST, PARTS)
    with atomic_path(folder) as temporary:
        write_world(temporary, config)
        loss = train_base_model(temporary / "base_model", config)
        facts = {"config": asdict(config), "config_hash": digest, "language_model_loss": loss}
        facts["parts"] = {part.name: file_hash(part) for part in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return folder


def find_toy_world(root: Path, *sources: str) -> None:
    """Make the toy world of a profile with its defaults if one of ``sources`` is "toy" and it is not there yet.

    The pipeline makes it beforehand, with the profile's knobs; a notebook that is run by hand may come first.
    """
    world = toy_world(root)
    if TOY in sources and not (world / "manifest.json").exists():
        ensure_toy_world(world, ToyConfig())


def main() -> None:
    """Write the toy world from the command line."""
    parser = argparse.ArgumentParser(description="Write the synthetic preference world and train its base model.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", type=json.loads, default={}, help="JSON object with fields of ToyConfig")
    arguments = parser.parse_args()
    try:
        config = ToyConfig(**arguments.config)
    except (TypeError, ValueError) as error:
        parser.error(f"--config: expected fields of ToyConfig: {error}")
    try:
        ensure_toy_world(arguments.folder, config)
    except OSError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
