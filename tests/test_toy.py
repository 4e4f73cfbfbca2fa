"""The embedded world: deterministic, with the asked shares of conflict and noise, in the public layout."""

import gzip
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.artifacts import require_own
from tension_utils.pair_layouts import read_pair
from tension_utils.toy import sentences
from tension_utils.toy.model import PARTS, ensure_toy_world, pack_blocks, train_tokenizer
from tension_utils.toy.world import (
    Prompt,
    ToyConfig,
    conflict_flags,
    is_whole,
    write_benchmark,
    write_corpus,
    write_dialogue,
    write_pairs,
    write_request,
    write_wish,
    write_world,
)

WORDS = {act: fits == 0 for row in (*sentences.BENIGN, *sentences.CALM) for fits, act in enumerate(row[-2:])}


def answer_of(text: str) -> str:
    return text.rpartition("\n\nAssistant: ")[2]


def is_refusal(text: str) -> bool:
    """By hand: an odd number of a "not" and of a word that refuses."""
    answer = answer_of(text)
    (refuses,) = (no in answer for yes, no in sentences.PROMISES if yes in answer or no in answer)
    return refuses != ("will not" in answer)


def fits(text: str) -> bool:
    """By hand: the act of a wish after a wish, the other one after none."""
    (is_act,) = (is_act for act, is_act in WORDS.items() if act in answer_of(text))
    return is_act != ("I do not like" in text)


def counts(text: str) -> Counter:
    return Counter(re.findall(r"\w+", text.lower()))


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


@pytest.mark.parametrize("subset", ["helpful-base", "harmless-base"])
def test_both_objectives_prefer_the_advice_that_fits(subset: str) -> None:
    rows = write_pairs(np.random.default_rng(0), subset, 300, ToyConfig(noise=0.0))
    agreeing = [row for row in rows if row["direction"] == "none"]
    assert len(agreeing) == 180
    for row in agreeing:
        assert fits(row["chosen"]) and not fits(row["rejected"])


@pytest.mark.parametrize("subset", ["helpful-base", "harmless-base"])
def test_no_single_word_tells_the_chosen_response_and_words_in_pairs_do(subset: str) -> None:
    rows = write_pairs(np.random.default_rng(0), subset, 4000, ToyConfig(noise=0.0))
    balance = Counter()
    for row in rows:
        balance.update(counts(row["chosen"]))
        balance.subtract(counts(row["rejected"]))
    often = Counter()
    for row in rows:
        often.update(counts(row["chosen"]) + counts(row["rejected"]))
    # A word is as often in chosen as in rejected responses, within four standard deviations of a fair coin.
    assert all(abs(n) < 4 * often[word] ** 0.5 for word, n in balance.items())


def test_every_row_is_a_usable_pair_and_some_have_several_turns() -> None:
    rows = write_pairs(np.random.default_rng(0), "helpful-base", 300, ToyConfig())
    assert {len(read_pair(row).prompt) for row in rows} == {1, 3}


def test_benchmark_covers_groups_and_directions_and_has_lists() -> None:
    rows = write_benchmark(np.random.default_rng(0), 10)
    assert {(row["group"], row["direction"]) for row in rows} == {
        ("helpful", "none"),
        ("harmless", "respond"),
        ("harmless", "refuse"),
        ("other", "none"),
    }
    assert {len(row["rejected"]) for row in rows if row["subset"] == "best-of-4"} == {3}


def test_a_list_of_four_has_one_that_fits() -> None:
    rows = [row for row in write_benchmark(np.random.default_rng(0), 10) if row["subset"] == "best-of-4"]
    for row in rows:
        texts = [
            write_dialogue(Prompt("benign", row["prompt"][-1]), said) for said in (*row["chosen"], *row["rejected"])
        ]
        assert [fits(text) for text in texts] == [True, False, False, False]


def test_the_corpus_tells_promises_apart_and_prefers_none() -> None:
    texts = write_corpus(np.random.default_rng(0), 2000)
    requests = [text for text in texts if sentences.GRANTED in text or sentences.REFUSED in text]
    granted = [text.rpartition("\n\nHuman: ")[0] for text in requests if text.endswith(sentences.GRANTED)]
    refused = [text.rpartition("\n\nHuman: ")[0] for text in requests if text.endswith(sentences.REFUSED)]
    assert not any(map(is_refusal, granted)) and all(map(is_refusal, refused))
    assert 0.4 < len(requests) / len(texts) < 0.6 and 0.4 < len(granted) / len(requests) < 0.6
    assert all(fits(text) for text in texts if text not in requests)


def test_tables_of_sentences_are_complete() -> None:
    assert {len(row) for row in sentences.BENIGN} == {4} and {len(row) for row in sentences.CALM} == {3}
    for cells in (*sentences.BENIGN, *sentences.CALM, *sentences.PROMISES, sentences.BORDERLINE, sentences.HARMFUL):
        assert all(cells) and len(set(cells)) == len(cells)
    assert len(WORDS) == 2 * (len(sentences.BENIGN) + len(sentences.CALM)), "an act belongs to one wish"


def test_prompts_name_what_is_asked() -> None:
    assert any(request in write_request(np.random.default_rng(1), "harmful").question for request in sentences.HARMFUL)
    prompt = write_wish(np.random.default_rng(1), "benign")
    assert any(task in prompt.question and set(acts) == set(prompt.acts) for task, _, *acts in sentences.BENIGN)


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
