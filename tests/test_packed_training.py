"""Packed training against TRL's RewardTrainer, after an interruption, and on a machine with several accelerators."""

import copy
import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, CORPUS, MAX_LENGTH, N_NEURONS, make_model, make_tokenizer
from transformers import PrinterCallback, TrainingArguments
from trl import RewardConfig, RewardTrainer

from tension_utils import training
from tension_utils.config import MASK_MODES, DataConfig, TrainConfig
from tension_utils.data import Item, Turn
from tension_utils.engine.packing import PreparedItem
from tension_utils.masking import NeuronMask, trained_without
from tension_utils.neurons import NeuronSet
from tension_utils.training import TrainingState, tokenize_pairs, train_model

pytestmark = pytest.mark.xdist_group("packed training")
CONFIG = TrainConfig(
    n_epochs=5, batch_size=8, tokens_per_batch=90, learning_rate=1e-3, n_evaluations=2, precision="float32"
)
EPSILON = 1e-4
WORDS = " ".join(CORPUS).split()


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "pick_device", lambda: torch.device("cpu"))


def make_pairs(n_pairs: int, seed: int) -> list[PreparedItem]:
    """Random pairs: one prompt in four is so long that it loses its left part."""
    rng = np.random.default_rng(seed)

    def said(n_words: int) -> str:
        return " ".join(rng.choice(WORDS, n_words))

    items = [
        Item(f"{seed}-{i}", (Turn("human", said(60 if i % 4 == 0 else 5)),), (said(3) + " y",), (said(4) + " n",))
        for i in range(n_pairs)
    ]
    pairs, _ = tokenize_pairs(
        make_tokenizer(pad_is_eos=False), items, DataConfig(max_length=MAX_LENGTH, long_pairs="truncate")
    )
    assert {pair.tokens.n_truncated > 0 for pair in pairs} == {True, False}
    return pairs


TRAIN, VALIDATION = make_pairs(32, 0), make_pairs(12, 1)  # 4 steps an epoch: 20 steps


def library_training(
    model: torch.nn.Module, tokenizer: object, folder: Path, config: TrainConfig, seed: int, micro_batch_size: int = 4
) -> list[dict]:
    """Train with TRL's RewardTrainer on padded micro-batches, and return its log."""

    def columns(pairs: list[PreparedItem]) -> datasets.Dataset:
        names = ("chosen_ids", "rejected_ids")
        sides = zip(*(pair.tokens.sequences for pair in pairs), strict=True)
        return datasets.Dataset.from_dict(dict(zip(names, map(list, sides), strict=True)))

    arguments = RewardConfig(
        output_dir=str(folder),
        num_train_epochs=config.n_epochs,
        per_device_train_batch_size=micro_batch_size,
        per_device_eval_batch_size=micro_batch_size,
        gradient_accumulation_steps=config.batch_size // micro_batch_size,
        learning_rate=config.learning_rate,
        adam_epsilon=EPSILON,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_share,
        bf16=config.precision == "bfloat16",
        activation_checkpointing=False,
        max_length=None,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=10,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
    )
    trainer = RewardTrainer(
        model, arguments, train_dataset=columns(TRAIN), eval_dataset=columns(VALIDATION), processing_class=tokenizer
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.state.log_history


def damped(arguments: TrainingArguments) -> TrainingArguments:
    """Let Adam divide by more than rounding errors: the gradient of a key's bias is 0, and their sign is no news."""
    arguments.adam_epsilon = EPSILON
    return arguments


def values(history: list[dict], key: str) -> list[float]:
    return [entry[key] for entry in history if key in entry]


@pytest.mark.parametrize(
    "model_type, mode", [*itertools.product(CONFIGS, [None]), *itertools.product(["gpt2", "llama"], MASK_MODES)]
)
def test_losses_and_weights_after_twenty_steps_are_those_of_the_library(
    model_type: str, mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer(pad_is_eos=False)
    theirs = make_model(model_type, pad_token_id=tokenizer.pad_token_id)
    ours, mask = copy.deepcopy(theirs), None
    if mode is not None:
        mask = NeuronMask(NeuronSet.of((3, N_NEURONS), [(layer, i) for layer in (0, 2) for i in range(0, 48, 5)]), mode)
    with trained_without(theirs, mask) if mask else nullcontext():
        history = library_training(theirs, tokenizer, tmp_path, CONFIG, seed=7)
    monkeypatch.setattr(TrainingState, "load_best", lambda *_: None)  # the library's weights are the last ones
    original = training.trainer_arguments
    monkeypatch.setattr(training, "trainer_arguments", lambda *args: damped(original(*args)))
    ours, log = train_model(ours, TRAIN, VALIDATION, CONFIG, seed=7, mask=mask)
    assert len(log) == 20 and log.loss.iloc[-1] < 0.8 * log.loss.iloc[0]
    assert log.loss.tolist() == pytest.approx(values(history, "loss"), rel=1e-5)
    assert log.validation_loss.dropna().tolist() == pytest.approx(values(history, "eval_loss"), rel=1e-5)
    assert log.n_tokens.tolist() == values([e for e in history if "loss" in e], "num_tokens")
    for (name, weight), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (weight - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def test_bfloat16_ends_within_the_spread_of_the_library_seeds(tmp_path: Path) -> None:
    tokenizer, config = make_tokenizer(pad_is_eos=False), replace(CONFIG, precision="bfloat16", n_evaluations=2)
    theirs, ours = [], []
    for seed in (0, 1, 2):
        model = make_model("llama", seed=seed, pad_token_id=tokenizer.pad_token_id)
        history = library_training(copy.deepcopy(model), tokenizer, tmp_path / str(seed), config, seed)
        theirs.append(values(history, "eval_loss")[-1])
        ours.append(train_model(model, TRAIN, VALIDATION, config, seed=seed)[1].validation_loss.iloc[-1])
    spread = max(theirs) - min(theirs)
    assert ours != theirs, "bf16 rounds differently on packed streams"
    assert spread > 0 and max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < spread


def test_weights_moments_and_gradients_are_float32_over_bf16_passes() -> None:
    model = make_model("llama")
    arguments = training.trainer_arguments(CONFIG, 0, Path("unused"))
    trainer = training.PackedTrainer(
        model, arguments, TRAIN, VALIDATION, tokens_per_batch=90, is_bfloat16=True, callbacks=[]
    )
    dtypes = {parameter.dtype for parameter in trainer.passes.working.base_model.parameters()}
    assert dtypes == {torch.bfloat16} and trainer.passes.working.score.weight.dtype == torch.float32
    trainer.training_step(trainer.model, TRAIN[:8])
    assert all(parameter.grad is None for parameter in trainer.passes.working.parameters())
    grads = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    exact = copy.deepcopy(trainer.model)
    exact.zero_grad()
    whole = training.PackedTrainer(exact, arguments, TRAIN, VALIDATION, tokens_per_batch=9999, is_bfloat16=False)
    whole.training_step(exact, TRAIN[:8])
    for name, parameter in exact.named_parameters():
        if parameter.grad is not None:
            cosine = torch.cosine_similarity(parameter.grad.flatten(), grads[name].flatten(), dim=0)
            assert cosine > 0.95, name


WORKER = """
import sys, json
from pathlib import Path
import torch
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import test_packed_training as t
from tiny_models import make_model
from tension_utils import training
from tension_utils import training as training_state
training.pick_device = lambda: torch.device("cpu")
torch.set_num_threads(1)
seconds = float(sys.argv[3])
original = training.PackedTrainer.training_step
def slow(self, *args, **kwargs):
    import time; time.sleep(seconds)
    return original(self, *args, **kwargs)
training.PackedTrainer.training_step = slow
precision = sys.argv[4]
state = training_state.TrainingState(Path(sys.argv[2]), {"test": precision}, (t.TRAIN, t.VALIDATION))
config = t.replace(t.CONFIG, n_evaluations=5, precision=precision)
model, log = training.train_model(make_model("llama"), t.TRAIN, t.VALIDATION, config, seed=3, state=state)
torch.manual_seed(0)
from safetensors.torch import save_file
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, sys.argv[2] + ".safetensors")
log.to_json(sys.argv[2] + ".json", orient="records", double_precision=15)
print("resumed", state.n_resumed)
"""


def work(folder: Path, seconds: float, precision: str) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder), str(seconds), precision]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(tmp_path: Path, precision: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    out, _ = work(whole, 0, precision).communicate(timeout=120)
    assert "resumed 0" in out
    killed = work(cut, 0.3, precision)
    while len(list(cut.glob("checkpoint-*/complete"))) < 1 and killed.poll() is None:
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not cut.with_suffix(".safetensors").exists(), "it was killed before its end"
    (cut / "checkpoint-19").mkdir()  # cut off while it was written
    out, _ = work(cut, 0, precision).communicate(timeout=120)
    assert "going on from step" in out and "resumed 0" not in out, out
    for end in (".safetensors", ".json"):
        assert whole.with_suffix(end).read_bytes() == cut.with_suffix(end).read_bytes()


def test_another_plan_starts_anew_and_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = TrainingState(tmp_path / "state", {"learning_rate": 1}, (TRAIN,))
    config = replace(CONFIG, n_epochs=1)
    train_model(make_model("llama"), TRAIN, VALIDATION, config, seed=0, state=state)
    assert TrainingState(tmp_path / "state", {"learning_rate": 1}, (TRAIN,)).last_checkpoint() is not None
    assert "going on from step 4" in capsys.readouterr().out
    assert TrainingState(tmp_path / "state", {"learning_rate": 2}, (TRAIN[1:],)).last_checkpoint() is None
    assert "since the interrupted training, learning_rate, pairs changed" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_code_is_part_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    train_model(
        make_model("llama"),
        TRAIN,
        VALIDATION,
        replace(CONFIG, n_epochs=1),
        seed=0,
        state=TrainingState(tmp_path / "state", {}, ()),
    )
    monkeypatch.setattr("tension_utils.training.code_hash", lambda: "other")
    assert TrainingState(tmp_path / "state", {}, ()).last_checkpoint() is None
    assert "code changed" in capsys.readouterr().out


def test_a_full_disk_loses_nothing_that_was_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, n_epochs=2, n_evaluations=4)
    expected, log = train_model(make_model("llama"), TRAIN, VALIDATION, config, seed=0)
    save, count = training.PackedTrainer._save_optimizer_and_scheduler, itertools.count()

    def full(self, *args):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return save(self, *args)

    monkeypatch.setattr(training.PackedTrainer, "_save_optimizer_and_scheduler", full)
    plan = (tmp_path / "state", {}, ())
    with pytest.raises(OSError, match="No space left"):
        train_model(make_model("llama"), TRAIN, VALIDATION, config, seed=0, state=TrainingState(*plan))
    state = TrainingState(*plan)
    found, again = train_model(make_model("llama"), TRAIN, VALIDATION, config, seed=0, state=state)
    assert state.n_resumed == 4
    assert again.to_json() == log.to_json()
    assert all(
        torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected.state_dict().values(), strict=True)
    )


def test_several_visible_accelerators_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, log = train_model(make_model("llama"), TRAIN, VALIDATION, CONFIG, seed=0)
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    crowded, other = train_model(make_model("llama"), TRAIN, VALIDATION, CONFIG, seed=0)
    assert other.to_json() == log.to_json()
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), crowded.parameters(), strict=True))
