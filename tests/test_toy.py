"""The embedded world: deterministic, with the asked shares of conflict and noise, in the public layout."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.artifacts import require_own
from tension_utils.data import parse_pair
from tension_utils.toy import sentences
from tension_utils.toy.model import PARTS, ensure_toy_world, pack_blocks, train_tokenizer
from tension_utils.toy.world import (
    ToyConfig,
    conflict_flags,
    is_whole,
    write_benchmark,
    write_pairs,
    write_prompt,
    write_world,
)

REFUSALS = ("sorry", "Sorry", "can't help", "rather not", "not comfortable")


def is_refusal(text: str) -> bool:
    return any(mark in text.rpartition("\n\nAssistant:")[2] for mark in REFUSALS)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path: Path) -> None:
    config = ToyConfig(n_train=30, n_test=10, n_bench=10)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_world(tmp_path / name, ToyConfig(**{**vars(config), "seed": seed}))
    files = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*.gz"))]
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["benign", "borderline", "harmful"]), min_size=1, max_size=60), st.floats(0, 1))
def test_conflict_marks_the_exact_share_and_benign_prompts_last(kinds: list[str], conflict: float) -> None:
    flags = conflict_flags(np.random.default_rng(0), kinds, conflict)
    assert flags.sum() == round(conflict * len(kinds))
    if any(flag and kind == "benign" for flag, kind in zip(flags, kinds, strict=True)):
        assert all(flag for flag, kind in zip(flags, kinds, strict=True) if kind != "benign")


@pytest.mark.parametrize("subset, is_refusal_chosen", [("helpful-base", False), ("harmless-base", True)])
def test_conflicting_pairs_set_an_answer_against_a_refusal(subset: str, is_refusal_chosen: bool) -> None:
    rows = write_pairs(np.random.default_rng(0), subset, 200, ToyConfig(noise=0.0))
    conflicting = [row for row in rows if row["direction"] != "none"]
    assert len(conflicting) == 80
    for row in conflicting:
        assert is_refusal(row["chosen"]) == is_refusal_chosen
        assert is_refusal(row["rejected"]) != is_refusal_chosen


def test_noise_flips_labels() -> None:
    clean, noisy = (
        write_pairs(np.random.default_rng(0), "harmless-base", 400, ToyConfig(conflict=1.0, noise=noise))
        for noise in (0.0, 0.5)
    )
    assert sum(is_refusal(row["chosen"]) for row in clean) == 400
    assert 150 < sum(is_refusal(row["chosen"]) for row in noisy) < 250


def test_every_row_is_a_usable_pair_and_some_have_several_turns() -> None:
    rows = write_pairs(np.random.default_rng(0), "helpful-base", 300, ToyConfig())
    items = [parse_pair(row, str(number)) for number, row in enumerate(rows)]
    assert {len(item.prompt) for item in items} == {1, 3}


def test_benchmark_covers_groups_and_directions_and_has_lists() -> None:
    rows = write_benchmark(np.random.default_rng(0), 10)
    assert {(row["group"], row["direction"]) for row in rows} == {
        ("helpful", "none"),
        ("harmless", "respond"),
        ("harmless", "refuse"),
        ("other", "none"),
    }
    assert {len(row["rejected"]) for row in rows if row["subset"] == "best-of-4"} == {3}


def test_topics_are_complete() -> None:
    for task, steps, tip in (*sentences.BENIGN, *sentences.BORDERLINE):
        assert task and len(steps) == 4 and all(steps) and tip
    for request, harmed, idea in sentences.HARMFUL:
        assert request and len(harmed) == 1 and idea


def test_prompts_name_their_topic() -> None:
    prompt = write_prompt(np.random.default_rng(1), "harmful")
    assert prompt.topic[0] in prompt.question


@pytest.mark.parametrize("field, value", [("conflict", 1.5), ("noise", 0.6), ("n_train", 1)])
def test_impossible_knobs_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ToyConfig(**{field: value})


def test_tokenizer_restores_text_and_separates_padding_from_eos() -> None:
    tokenizer = train_tokenizer(["\n\nHuman: How do I bake bread?\n\nAssistant: Mix and wait."])
    text = "\n\nHuman: naïve → 北?\n\nAssistant: yes"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_blocks_hold_the_texts_in_order() -> None:
    tokenizer = train_tokenizer(["a b c"])
    texts = ["abc " * 100, "cab " * 100]
    blocks = pack_blocks(tokenizer, texts)
    ids = [i for text in texts for i in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]
    assert [i for row in blocks["input_ids"] for i in row] == ids[: len(blocks) * 128]


def test_world_is_made_once_and_again_when_a_knob_changes(toy_world: Path) -> None:
    manifest = toy_world / "manifest.json"
    before = manifest.stat().st_mtime_ns
    config = ToyConfig(**json.loads(manifest.read_text())["config"])
    ensure_toy_world(toy_world, config)
    assert manifest.stat().st_mtime_ns == before
    assert json.loads(manifest.read_text())["language_model_loss"] < np.log(1200)  # better than guessing
    with gzip.open(toy_world / "hh-rlhf" / "helpful-base" / "train.jsonl.gz") as lines:
        assert sum(1 for _ in lines) == config.n_train


def test_a_damaged_world_is_made_again_and_a_folder_of_others_is_kept(toy_world: Path, tmp_path: Path) -> None:
    config = ToyConfig(**json.loads((toy_world / "manifest.json").read_text())["config"])
    copy = tmp_path / "toy-world"
    shutil.copytree(toy_world, copy)
    assert is_whole(copy)
    (copy / "benchmark" / "test.jsonl.gz").unlink()
    assert not is_whole(copy)
    (copy / "thesis.txt").write_text("mine")
    (copy / "manifest.json").unlink()
    with pytest.raises(FileExistsError, match="expected nothing there, or a folder with manifest.json"):
        ensure_toy_world(copy, config)
    (copy / "thesis.txt").unlink()
    require_own(copy, "manifest.json", PARTS)  # its marker was removed, and nothing else is there
