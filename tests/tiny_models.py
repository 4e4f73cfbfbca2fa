"""Tiny random models of every architecture, a tokenizer whose merges cross the border, and slow reference code."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tension_utils.artifacts import file_hash, read_manifest
from tension_utils.data import Item, Turn, tokenize_item

CONFIGS = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 128},
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": None},
    "qwen2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "qwen3": {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8},
    "olmo2": {"intermediate_size": 48, "num_key_value_heads": 4},
    "gemma3_text": {
        "intermediate_size": 48,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "query_pre_attn_scalar": 12,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gpt_neox": {"intermediate_size": 48},
    "mistral windowed": {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 11},
    "qwen2 windowed": {
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen3 windowed": {
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "use_sliding_window": True,
        "sliding_window": 20,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
}
WINDOWED = ("gemma3_text", "mistral windowed", "qwen2 windowed", "qwen3 windowed")
COMMON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}
N_NEURONS = 48
MAX_LENGTH = 64

CORPUS = (
    "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour and water, then wait.",
    "\n\nHuman: Is it safe to climb?\n\nAssistant: I cannot help with that. Ask a guide.",
    "\n\nHuman: Hi there: : : \n\nAssistant: Hello! What would you like to know today?",
    *["Assistant: I cannot"] * 8,
)

ITEMS = (
    Item("pair", (Turn("human", "How do I bake bread?"),), ("Mix flour and water.",), ("I cannot help with that.",)),
    Item("same start", (Turn("human", "Hi"),), ("Hello! What then",), ("Hello! What now, my friend?",)),
    Item("prefix of the other", (Turn("human", "Wait"),), ("I Q",), ("I Q Z",)),
    Item(
        "six",
        (Turn("human", "Is it"), Turn("assistant", "What?"), Turn("human", "safe to climb?")),
        ("Ask a guide.", "Ask", "Ask a guide, then climb."),
        ("No.", "I cannot help.", "Wait"),
    ),
    Item("long", (Turn("human", "How do I bake bread? " * 12),), ("Mix.", "Mix flour."), ("I cannot", "No", "no no")),
    Item("joined", (Turn("human", "x"),), ("\n\n y",), (": : z",)),
)


def make_tokenizer(*, pad_is_eos: bool = True, joins_border: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE; with ``joins_border`` no pre-tokenizer splits words, so merges cross prompt and response."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not joins_border)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=340, special_tokens=["<eos>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    pad = "<eos>" if pad_is_eos else "<pad>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token=pad)


def make_model(name: str, *, seed: int = 0, pad_token_id: int | None = 0, **options):
    """A random reward model with weights large enough that every part of it matters to the reward."""
    config = CONFIG_MAPPING[name.removesuffix(" windowed")](
        **(COMMON | CONFIGS[name] | {"vocab_size": 340} | options),
        num_labels=1,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(0, 0.3)
            elif name.endswith("bias"):
                parameter.data.normal_(0, 0.1)
            else:
                parameter.data.normal_(1, 0.1)
    return model.eval()


def tokenized(tokenizer, items=ITEMS):
    return [tokenize_item(tokenizer, item, MAX_LENGTH) for item in items]


@torch.no_grad()
def slow_rewards(model, tokens) -> list[float]:
    """One plain transformers forward per sequence, unbatched and unpadded."""
    return [model(torch.tensor([sequence])).logits[0, 0].item() for sequence in tokens.sequences]


def seal(folder: Path) -> None:
    """Let a run's manifest say of its reward model what is there now, as if it had been trained so."""
    manifest = read_manifest(folder)
    manifest["train"]["artifact_hash"] = file_hash(folder / "reward_model")
    (folder / "manifest.json").write_text(json.dumps(manifest))
