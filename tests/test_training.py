"""Training: the Bradley-Terry loss by hand, repeatable to the bit, the best checkpoint kept, and every bad input."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tension_utils import training
from tension_utils.architectures import ARCHITECTURES
from tension_utils.artifacts import TABLES, file_hash, read_manifest
from tension_utils.config import MASK_MODES, DataConfig, Run, TrainConfig
from tension_utils.data import Item, training_pairs
from tension_utils.engine.packing import PreparedItem
from tension_utils.masking import NeuronMask, trained_without
from tension_utils.models import load_reward_model, load_tokenizer, new_reward_model
from tension_utils.neurons import NeuronSet
from tension_utils.training import TrainingMonitor, device_name, tokenize_pairs, train_model, train_run, uses_bfloat16

pytestmark = pytest.mark.xdist_group("training")

N_PAIRS, N_VALIDATION = 16, 20
DATA = DataConfig(n_train_pairs=N_PAIRS, n_validation_pairs=N_VALIDATION, max_length=256)
ONE_STEP = TrainConfig(n_evaluations=1, learning_rate=1e-3, warmup_share=0.0, precision="float32")
TWO_STEPS = replace(ONE_STEP, n_epochs=2.0)


@pytest.fixture(autouse=True)
def on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def small_world(toy_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world with a base model so small that a test takes a second: random, 2 layers of width 32."""
    folder = tmp_path_factory.mktemp("runs") / "toy-world"
    shutil.copytree(toy_world, folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.2}
    config = LlamaConfig.from_pretrained(folder / "base_model", **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "base_model")
    shutil.copytree(folder / "base_model", folder.parent / "gemma")
    sizes |= {key: getattr(config, key) for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    sizes |= {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, query_pre_attn_scalar=16)).to(torch.bfloat16)
    gemma.save_pretrained(folder.parent / "gemma")
    return folder


@pytest.fixture(params=["toy-world/base_model", "gemma"])
def base(small_world: Path, request: pytest.FixtureRequest) -> Path:
    """The base model, and one with windows and scaled, tied embeddings, stored in bfloat16 as they are published."""
    return small_world.parent / request.param


@pytest.fixture
def tokenizer(small_world: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(small_world / "base_model")


@pytest.fixture
def source(small_world: Path) -> DataConfig:
    return replace(DATA, source=str(small_world / "hh-rlhf"))


def text_rewards(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Reward each text alone, unpadded: the head's product with the hidden state at the token that is read."""
    rewards = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        last = -2 if tokenizer.pad_token_id == tokenizer.eos_token_id else -1
        hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0, last]
        rewards.append(hidden.float() @ model.score.weight[0].float())
    return torch.stack(rewards)


def margins(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: tuple[Item, ...]) -> torch.Tensor:
    """Return r(chosen) - r(rejected) of whole texts, written out here once more."""

    def text(item: Item, response: str) -> str:
        said = "".join(f"\n\n{turn.role.title()}: {turn.content}" for turn in item.prompt)
        return f"{said}\n\nAssistant: {response}"

    chosen = text_rewards(model, tokenizer, [text(item, item.chosen[0]) for item in items])
    return chosen - text_rewards(model, tokenizer, [text(item, item.rejected[0]) for item in items])


def loss_of(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of -log sigmoid(margin), from its definition."""
    return torch.log1p(torch.exp(-values.double())).mean()


def fit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: DataConfig, config: TrainConfig, seed: int = 0
) -> tuple[PreTrainedModel, pd.DataFrame]:
    pairs = training_pairs(source, "helpful", seed)
    train, validation = (tokenize_pairs(tokenizer, items, source)[0] for items in (pairs.train, pairs.validation))
    return train_model(model, train, validation, config, seed=seed)


@pytest.mark.parametrize("tokens_per_batch", [4096, 300, 1])
def test_first_loss_is_minus_log_sigmoid_of_the_margins(
    base: Path, tokenizer: PreTrainedTokenizerFast, source: DataConfig, tokens_per_batch: int
) -> None:
    model = new_reward_model(base, 0, pad_token_id=tokenizer.pad_token_id)
    with torch.no_grad():
        model.score.weight *= 20  # margins far from zero, where a wrong sign or mean would show
        expected = loss_of(margins(model, tokenizer, training_pairs(source, "helpful", 0).train)).item()
    _, log = fit(model, tokenizer, source, replace(ONE_STEP, tokens_per_batch=tokens_per_batch))
    assert abs(expected - 0.6931) > 1e-3, "the untrained model must not be indifferent for this test to say anything"
    assert log.loss.iloc[0] == pytest.approx(expected, rel=1e-4)


def test_second_loss_follows_one_step_of_adam(
    base: Path, tokenizer: PreTrainedTokenizerFast, source: DataConfig
) -> None:
    items = training_pairs(source, "helpful", 0).train
    by_hand = new_reward_model(base, 0, pad_token_id=tokenizer.pad_token_id).eval()
    loss_of(margins(by_hand, tokenizer, items)).backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
    with torch.no_grad():
        for parameter in by_hand.parameters():  # the first step of Adam, both moments corrected: g / (|g| + eps)
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter -= TWO_STEPS.learning_rate * gradient / (gradient.abs() + 1e-8)
        expected = loss_of(margins(by_hand, tokenizer, items)).item()
    model = new_reward_model(base, 0, pad_token_id=tokenizer.pad_token_id)
    _, log = fit(model, tokenizer, source, TWO_STEPS)
    assert log.loss.iloc[1] == pytest.approx(expected, rel=1e-5)
    assert log.loss.iloc[1] < log.loss.iloc[0] - 0.01


def test_validation_is_measured_over_all_pairs_alike(
    base: Path, tokenizer: PreTrainedTokenizerFast, source: DataConfig
) -> None:
    model = new_reward_model(base, 0, pad_token_id=tokenizer.pad_token_id)
    trained, log = fit(model, tokenizer, source, ONE_STEP)  # 20 validation pairs: one batch of 16 and one of 4
    with torch.no_grad():
        values = margins(trained.eval(), tokenizer, training_pairs(source, "helpful", 0).validation)
    assert log.validation_loss.iloc[-1] == pytest.approx(loss_of(values).item(), rel=1e-4)
    assert log.validation_accuracy.iloc[-1] == pytest.approx((values > 0).double().mean().item())


def swapped(pair: PreparedItem) -> PreparedItem:
    """Return the pair with chosen and rejected exchanged."""
    tokens = pair.tokens
    both = {"sequences": tokens.sequences[::-1], "response_starts": tokens.response_starts[::-1]}
    return replace(pair, tokens=replace(tokens, **both))


def test_lowest_validation_loss_is_kept_and_not_the_last(
    small_world: Path, tokenizer: PreTrainedTokenizerFast, source: DataConfig
) -> None:
    items = training_pairs(source, "helpful", 0).train
    train, _ = tokenize_pairs(tokenizer, items, source)
    opposite = [swapped(pair) for pair in train]
    model = new_reward_model(small_world / "base_model", 0, pad_token_id=tokenizer.pad_token_id)
    config = replace(ONE_STEP, n_epochs=4.0, n_evaluations=4)
    model, log = train_model(model, train, opposite, config, seed=0)
    losses = log.validation_loss.to_numpy()
    assert len(losses) == 4 and losses.argmin() == 0 and losses[-1] > losses[0] + 0.01, losses
    with torch.no_grad():
        kept = loss_of(-margins(model.eval(), tokenizer, items)).item()
    assert kept == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("n_evaluations, expected", [(1, [4]), (2, [2, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])])
def test_validations_are_evenly_spaced_with_one_at_the_end(n_evaluations: int, expected: list[int]) -> None:
    class State:
        max_steps, global_step = 4, 0

    monitor = TrainingMonitor(n_evaluations, "train")
    monitor.on_train_begin(None, State(), None)
    monitor.progress.close()
    assert sorted(monitor.points) == expected


@pytest.fixture(scope="module")
def trained(small_world: Path) -> Run:
    """One run of 16 pairs, trained once for the tests that only look at it."""
    run = Run(small_world.parent, "toy", "helpful", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "pick_device", lambda: torch.device("cpu"))
        assert train_run(run, DATA, TWO_STEPS)
    return run


def test_run_writes_model_log_and_manifest(trained: Run, small_world: Path) -> None:
    assert {path.name for path in trained.folder.iterdir() if not path.name.startswith(".")} == {
        "reward_model",
        "train_log.parquet",
        "manifest.json",
    }
    assert not [path for path in (trained.folder / "reward_model").iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    log = pd.read_parquet(trained.folder / "train_log.parquet")
    assert tuple(log.columns) == TABLES["train_log"] and log.step.tolist() == [1, 2]
    assert log.loss.notna().all() and log.validation_loss.notna().tolist() == [False, True]
    section = read_manifest(trained.folder)["train"]
    assert section["artifact_hash"] == file_hash(trained.folder / "reward_model")
    assert section["inputs"]["base_model"] == file_hash(small_world / "base_model")
    assert (section["n_train"], section["n_validation"], section["n_too_long"]) == (N_PAIRS, N_VALIDATION, 0)
    assert section["config"]["data"]["source"] == "toy" and section["is_bfloat16"] is False
    assert section["n_tokens"] == log.n_tokens.max() > 0


def test_saved_model_loads_with_its_tokenizer_and_gives_the_logged_loss(trained: Run, source: DataConfig) -> None:
    folder = trained.folder / "reward_model"
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    with torch.no_grad():
        values = margins(model, tokenizer, training_pairs(source, "helpful", 0).validation)
    log = pd.read_parquet(trained.folder / "train_log.parquet")
    assert loss_of(values).item() == pytest.approx(log.validation_loss.iloc[-1], rel=1e-4)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(
    trained: Run, small_world: Path, tmp_path: Path
) -> None:
    (tmp_path / "toy-world").symlink_to(small_world)
    again, other = (Run(tmp_path, "toy", "helpful", seed) for seed in (0, 1))
    for run in (again, other):
        assert train_run(run, DATA, TWO_STEPS)
    for name in ("reward_model", "train_log.parquet"):
        assert file_hash(trained.folder / name) == file_hash(again.folder / name)
        assert file_hash(trained.folder / name) != file_hash(other.folder / name)


def test_a_finished_run_is_found_and_anything_else_is_done_again(small_world: Path, tmp_path: Path) -> None:
    shutil.copytree(small_world, tmp_path / "toy-world")
    run = Run(tmp_path, "toy", "harmless", 0)
    assert train_run(run, DATA, ONE_STEP) and not train_run(run, DATA, ONE_STEP)
    weights = file_hash(run.folder / "reward_model")
    for lost in (run.folder / "reward_model" / "model.safetensors", run.folder / "train_log.parquet"):
        lost.unlink()
        assert train_run(run, DATA, ONE_STEP) and lost.is_file()
    assert file_hash(run.folder / "reward_model") == weights
    assert train_run(run, DATA, replace(ONE_STEP, learning_rate=1e-5))
    assert file_hash(run.folder / "reward_model") != weights
    rows = tmp_path / "toy-world" / "hh-rlhf" / "harmless-base" / "train.jsonl.gz"
    rows.write_bytes(gzip.compress(b"".join(gzip.decompress(rows.read_bytes()).splitlines(keepends=True)[::-1])))
    assert train_run(run, DATA, replace(ONE_STEP, learning_rate=1e-5)), "the data changed"


MASK = NeuronSet.of((2, 64), [(layer, index) for layer in (0, 1) for index in range(layer, 64, 3)])


def margins_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, items: tuple[Item, ...]
) -> list[torch.Tensor]:
    """Let `train_run` record the margins of its model in memory, mask and all, when training ends."""
    found, original = [], training.train_model

    def recorded(*args, mask, **kwargs):
        model, log = original(*args, mask=mask, **kwargs)
        with torch.no_grad(), trained_without(model, mask):
            found.append(margins(model.eval(), tokenizer, items))
        return model, log

    monkeypatch.setattr(training, "train_model", recorded)
    return found


def test_a_masked_run_reloads_bit_for_bit_as_it_was_trained(
    base: Path, tmp_path: Path, source: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = training_pairs(source, "helpful", 0).validation
    tokenizer = load_tokenizer(base)
    ended, runs = margins_at_the_end(monkeypatch, tokenizer, items), []
    for mode in MASK_MODES:
        runs.append(Run(tmp_path / mode, str(base), "helpful", 0))
        assert train_run(runs[-1], source, TWO_STEPS, NeuronMask(MASK, mode))
        model, tokenizer = (load(runs[-1].folder / "reward_model") for load in (load_reward_model, load_tokenizer))
        with torch.no_grad():
            assert torch.equal(margins(model, tokenizer, items), ended[-1])
    assert torch.equal(ended[0], ended[1]), "both modes train the same function"
    log = pd.read_parquet(runs[0].folder / "train_log.parquet")
    assert loss_of(ended[0]).item() == pytest.approx(log.validation_loss.iloc[-1], rel=1e-4)
    masked, pruned = (load_file(run.folder / "reward_model" / "model.safetensors") for run in runs)
    name, columns = "model.layers.1.mlp.down_proj.weight", torch.tensor(MASK.mask[1])
    start = load_file(base / "model.safetensors")[name].float()
    assert torch.equal(masked[name][:, columns], start[:, columns]) and not pruned[name][:, columns].any()
    assert torch.equal(masked[name][:, ~columns], pruned[name][:, ~columns])
    assert not torch.equal(masked[name][:, ~columns], start[:, ~columns])


def test_the_mask_is_part_of_the_configuration(trained: Run, small_world: Path, tmp_path: Path) -> None:
    (tmp_path / "toy-world").symlink_to(small_world)
    run, mask = Run(tmp_path, "toy", "helpful", 0), NeuronMask(MASK)
    assert train_run(run, DATA, TWO_STEPS, mask) and not train_run(run, DATA, TWO_STEPS, mask)
    section = read_manifest(run.folder)["train"]
    assert section["config"]["neuron_mask"] == mask.label
    assert "neuron_mask" not in read_manifest(trained.folder)["train"]["config"]
    hashes = [section["config_hash"]]
    for other in (NeuronMask(MASK - NeuronSet.of((2, 64), [(0, 0)])), NeuronMask(MASK, "pruned"), None):
        assert train_run(run, DATA, TWO_STEPS, other), "another mask is another model"
        hashes.append(read_manifest(run.folder)["train"]["config_hash"])
    assert len(set(hashes)) == 4
    assert file_hash(run.folder / "reward_model") == file_hash(trained.folder / "reward_model"), "no mask, none left"


def test_a_mask_of_another_model_is_refused(small_world: Path, tmp_path: Path, source: DataConfig) -> None:
    run = Run(tmp_path, str(small_world / "base_model"), "helpful", 0)
    with pytest.raises(ValueError, match=r"neuron mask: expected shape \(layers, neurons\) = \(2, 64\), got \(1, 4\)"):
        train_run(run, source, ONE_STEP, NeuronMask(NeuronSet.of((1, 4), [(0, 0)])))
    assert not run.folder.exists()


def changed_base(small_world: Path, folder: Path, change: Callable[[Path], None]) -> str:
    """Copy the base model and change the copy; return its folder as text."""
    shutil.copytree(small_world / "base_model", folder)
    change(folder)
    return str(folder)


def edit_json(file: Path, **values: object) -> None:
    """Set values of a JSON file; None removes them."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def break_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_loss_that_is_not_finite_stops_and_leaves_nothing_and_the_next_run_goes_on(
    small_world: Path, tmp_path: Path, source: DataConfig
) -> None:
    base = changed_base(small_world, tmp_path / "base", break_weights)
    run = Run(tmp_path / "runs", base, "helpful", 3)
    message = "helpful, seed 3: loss is nan at step 1; expected a finite number; lower learning_rate, or set precision"
    with pytest.raises(FloatingPointError, match=message):
        train_run(run, source, ONE_STEP)
    assert not run.folder.exists() or not list(run.folder.iterdir())
    shutil.copy(small_world / "base_model" / "model.safetensors", base)
    assert train_run(run, source, ONE_STEP)
    kept = file_hash(run.folder)
    break_weights(Path(base))
    with pytest.raises(FloatingPointError):
        train_run(run, source, ONE_STEP)
    assert file_hash(run.folder) == kept, "an earlier model stays as it was"


@pytest.mark.parametrize("key, column", [("loss", "loss"), ("eval_loss", "validation_loss")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_monitor_stops_at_any_loss_that_is_not_finite(key: str, column: str, value: float) -> None:
    class State:
        global_step, epoch = 7, 0.5

    with pytest.raises(FloatingPointError, match=f"train: {column} is {value} at step 7"):
        TrainingMonitor(1, "train").on_log(None, State(), None, {key: value})


def lengths(tokenizer: PreTrainedTokenizerFast, items: tuple[Item, ...]) -> list[int]:
    return [max(map(len, pair.tokens.sequences)) for pair in tokenize_pairs(tokenizer, items, DATA)[0]]


def test_long_pair_is_named_or_left_out_or_cut(tokenizer: PreTrainedTokenizerFast, source: DataConfig) -> None:
    items = training_pairs(source, "helpful", 0).train
    sizes = lengths(tokenizer, items)
    limit = sorted(sizes)[-3]  # two pairs are longer
    first = items[next(i for i, size in enumerate(sizes) if size > limit)].item_id
    with pytest.raises(
        ValueError, match=f"{first}: expected a pair of at most max_length={limit} tokens; got .*'drop' or"
    ):
        tokenize_pairs(tokenizer, items, replace(source, max_length=limit))
    kept, n_dropped = tokenize_pairs(tokenizer, items, replace(source, max_length=limit, long_pairs="drop"))
    assert (len(kept), n_dropped) == (N_PAIRS - 2, {"too long": 2})
    whole, _ = tokenize_pairs(tokenizer, items, source)
    cut, n_dropped = tokenize_pairs(tokenizer, items, replace(source, max_length=limit, long_pairs="truncate"))
    assert (len(cut), n_dropped) == (N_PAIRS, {})
    for size, before, after in zip(sizes, whole, cut, strict=True):
        excess = max(0, size - limit)
        assert after.tokens.sequences == tuple(ids[excess:] for ids in before.tokens.sequences)
        assert max(map(len, after.tokens.sequences)) == min(size, limit)


def test_left_out_long_pairs_are_counted_in_the_manifest(small_world: Path, tmp_path: Path, source: DataConfig) -> None:
    tokenizer = load_tokenizer(small_world / "base_model")
    pairs = training_pairs(source, "helpful", 0)
    limit = sorted(lengths(tokenizer, pairs.train))[-3]
    n_long = sum(size > limit for items in (pairs.train, pairs.validation) for size in lengths(tokenizer, items))
    run = Run(tmp_path, str(small_world / "base_model"), "helpful", 0)
    assert train_run(run, replace(source, max_length=limit, long_pairs="drop"), ONE_STEP)
    section = read_manifest(run.folder)["train"]
    assert section["n_too_long"] == n_long >= 2 and section["n_train"] == N_PAIRS - 2
    assert section["n_train"] + section["n_validation"] == N_PAIRS + N_VALIDATION - n_long


def test_all_pairs_too_long_is_an_error(tokenizer: PreTrainedTokenizerFast, source: DataConfig) -> None:
    items = training_pairs(source, "helpful", 0).train
    with pytest.raises(ValueError, match="max_length: expected at least one usable pair within 8 tokens"):
        tokenize_pairs(tokenizer, items, replace(source, max_length=8, long_pairs="drop"))


def refused(run: Run, data: DataConfig, config: TrainConfig, error: type[Exception], message: str) -> None:
    """Expect an error before training that leaves no file behind."""
    with pytest.raises(error, match=message):
        train_run(run, data, config)
    assert not run.folder.exists()


def test_max_length_beyond_the_context_is_refused(small_world: Path, tmp_path: Path, source: DataConfig) -> None:
    run = Run(tmp_path, str(small_world / "base_model"), "helpful", 0)
    message = "max_length: expected at most the model's context of 256 tokens; got 257"
    refused(run, replace(source, max_length=257), ONE_STEP, ValueError, message)


def test_tokenizer_without_padding_is_refused_unless_eos_pads(
    small_world: Path, tmp_path: Path, source: DataConfig
) -> None:
    base = changed_base(
        small_world, tmp_path / "base", lambda folder: edit_json(folder / "tokenizer_config.json", pad_token=None)
    )
    run = Run(tmp_path / "runs", base, "helpful", 0)
    refused(
        run, source, ONE_STEP, ValueError, "base: the tokenizer has no padding token; set `pad_token` in .*pad_with_eos"
    )
    assert train_run(run, source, replace(ONE_STEP, pad_with_eos=True))
    tokenizer, model = (load(run.folder / "reward_model") for load in (load_tokenizer, load_reward_model))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == model.config.pad_token_id
    with torch.no_grad():
        values = margins(model, tokenizer, training_pairs(source, "helpful", 0).validation)
    log = pd.read_parquet(run.folder / "train_log.parquet")
    assert loss_of(values).item() == pytest.approx(log.validation_loss.iloc[-1], rel=1e-4)


def test_tokenizer_without_eos_is_refused(small_world: Path, tmp_path: Path, source: DataConfig) -> None:
    base = changed_base(
        small_world, tmp_path / "base", lambda folder: edit_json(folder / "tokenizer_config.json", eos_token=None)
    )
    run = Run(tmp_path / "runs", base, "helpful", 0)
    refused(
        run, source, ONE_STEP, ValueError, "the tokenizer has no EOS token; set `eos_token` in tokenizer_config.json"
    )


def test_unsupported_architecture_lists_the_supported_ones(
    small_world: Path, tmp_path: Path, source: DataConfig
) -> None:
    base = changed_base(
        small_world, tmp_path / "base", lambda folder: edit_json(folder / "config.json", model_type="opt")
    )
    supported = ", ".join(repr(name) for name in sorted(ARCHITECTURES))
    message = rf"model type 'opt' is not supported; expected one of \[{supported}\]. Choose such a model"
    refused(Run(tmp_path / "runs", base, "helpful", 0), source, ONE_STEP, ValueError, message)


def test_missing_and_incomplete_base_models_are_refused(small_world: Path, tmp_path: Path, source: DataConfig) -> None:
    missing = Run(tmp_path / "runs", str(tmp_path / "nowhere"), "helpful", 0)
    refused(missing, source, ONE_STEP, FileNotFoundError, "expected a model folder, but .*nowhere does not exist")
    base = changed_base(small_world, tmp_path / "base", lambda folder: (folder / "model.safetensors").unlink())
    message = "base: expected model.safetensors or model.safetensors.index.json; the folder has"
    refused(Run(tmp_path / "runs", base, "helpful", 0), source, ONE_STEP, FileNotFoundError, message)


def test_precision_is_what_was_asked_or_what_the_hardware_has() -> None:
    cpu = torch.device("cpu")
    assert uses_bfloat16("bfloat16", cpu) is True and uses_bfloat16("float32", cpu) is False
    assert uses_bfloat16("auto", cpu) in (True, False)
    assert device_name(cpu) == f"cpu ({torch.get_num_threads()} threads)"


def test_bfloat16_multiplies_in_bf16_and_keeps_float32_weights(
    small_world: Path, tokenizer: PreTrainedTokenizerFast, source: DataConfig
) -> None:
    logs = []
    for precision in ("float32", "bfloat16"):
        model = new_reward_model(small_world / "base_model", 0, pad_token_id=tokenizer.pad_token_id)
        model, log = fit(model, tokenizer, source, replace(ONE_STEP, precision=precision))
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        logs.append(log.loss.iloc[0])
    assert logs[0] != logs[1] and logs[0] == pytest.approx(logs[1], rel=0.02)
