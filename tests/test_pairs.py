"""Preference pairs: every unusable row is named with its place or counted, and splits are disjoint and repeatable."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.config import DataConfig
from tension_utils.data import (
    BadPairError,
    Item,
    Turn,
    read_split,
    render_prompt,
    render_response,
    training_pairs,
)
from tension_utils.pair_layouts import parse_dialogue, read_pair
from tension_utils.sources import is_local

PROMPT = "\n\nHuman: Hi\n\nAssistant:"
GOOD = {"chosen": f"{PROMPT} yes", "rejected": f"{PROMPT} no"}


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_lines(folder: Path, *lines: str | dict, subset: str = "helpful-base", name: str = "train.jsonl") -> Path:
    """Write a split below ``folder`` and return its file; dictionaries become JSON."""
    file = folder / subset / name
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((json.dumps(line) if isinstance(line, dict) else line) + "\n" for line in lines)
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


def numbered(n: int, word: str = "helpful") -> list[dict]:
    prompts = [f"\n\nHuman: {word} {i}\n\nAssistant:" for i in range(n)]
    return [{"chosen": f"{prompt} good {i}", "rejected": f"{prompt} bad {i}"} for i, prompt in enumerate(prompts)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two subsets of 12 and 20 pairs."""
    write_lines(tmp_path / "source", *numbered(12), name="train.jsonl.gz")
    write_lines(tmp_path / "source", *numbered(20, "harmless"), subset="harmless-base", name="train.jsonl.gz")
    return tmp_path / "source"


BAD_ROWS = {
    "missing field": (
        {"chosen": GOOD["chosen"]},
        {"chosen": GOOD["chosen"], "rejected": None},
        {"chosen": GOOD["chosen"], "rejected": 3},
    ),
    "empty response": ({**GOOD, "chosen": PROMPT}, {**GOOD, "rejected": f"{PROMPT} \n "}),
    "identical responses": ({**GOOD, "rejected": GOOD["chosen"]}, {**GOOD, "rejected": f"{GOOD['chosen']} "}),
    "different prompts": ({**GOOD, "rejected": "\n\nHuman: Bye\n\nAssistant: no"},),
    "no dialogue": (
        {**GOOD, "chosen": "yes"},
        {**GOOD, "chosen": ""},
        {**GOOD, "rejected": "\n\nAssistant: no"},
        {**GOOD, "rejected": "Hi\n\nAssistant: no"},
        {**GOOD, "chosen": "\n\nHuman: Hi\n\nAssistant: yes\n\nHuman: and?"},
        {**GOOD, "chosen": "\n\nHuman: Hi\n\nAssistant: yes\n\nAssistant: yes"},
    ),
}
REMEDY = r"; mend or remove the row, or set unusable_pairs to 'drop'$"
bad_rows = pytest.mark.parametrize("reason, row", [(reason, row) for reason, rows in BAD_ROWS.items() for row in rows])


@bad_rows
def test_unusable_row_names_file_line_reason_and_remedy(tmp_path: Path, reason: str, row: dict) -> None:
    expected = {
        "missing field": r"expected a text field 'rejected'; got \{'chosen': 'str'",
        "empty response": "expected two non-empty responses",
        "identical responses": "expected chosen and rejected to differ",
        "different prompts": "expected chosen and rejected to answer the same prompt",
        "no dialogue": re.escape(r"expected turns '\n\nHuman: ...\n\nAssistant: ...' that end with an answer"),
    }
    file = write_lines(tmp_path, GOOD, row, GOOD)
    with pytest.raises(BadPairError, match=f"^{file}, line 2: {expected[reason]}.*{REMEDY}"):
        read_split(str(tmp_path), "helpful-base", "train")


def test_dropped_rows_are_counted_by_reason_and_the_others_stay(tmp_path: Path) -> None:
    listed = [(reason, row) for reason, rows in BAD_ROWS.items() for row in rows]
    good = numbered(3)
    write_lines(tmp_path, good[0], *[row for _, row in listed], good[1], good[2])
    split = read_split(str(tmp_path), "helpful-base", "train", bad_pairs="drop")
    assert split.n_dropped == Counter(reason for reason, _ in listed)
    assert [item.chosen for item in split.items] == [("good 0",), ("good 1",), ("good 2",)]
    assert [row["chosen"] for row in split.rows] == [row["chosen"] for row in good]
    last = len(listed) + 3
    assert [item.item_id for item in split.items] == [f"helpful-base/train/{n}" for n in (1, last - 1, last)]


def test_blank_lines_do_not_shift_line_numbers(tmp_path: Path) -> None:
    file = write_lines(tmp_path, GOOD, "", "  ", {**GOOD, "rejected": GOOD["chosen"]})
    with pytest.raises(BadPairError, match=f"^{file}, line 4: "):
        read_split(str(tmp_path), "helpful-base", "train")


def test_the_right_one_of_several_files_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path, GOOD, GOOD, name="train-00000-of-00002.jsonl")
    file = write_lines(tmp_path, GOOD, {**GOOD, "rejected": PROMPT}, name="train-00001-of-00002.jsonl")
    with pytest.raises(BadPairError, match=f"^{file}, line 2: expected two non-empty responses"):
        read_split(str(tmp_path), "helpful-base", "train")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{oops", "expected one JSON object a line; Expecting property name"),
        (json.dumps(GOOD) * 2, "expected one JSON object a line; Extra data"),
        (json.dumps(GOOD)[:-3], "expected one JSON object a line; Unterminated string"),
        ("[1, 2]", "expected a JSON object; got list"),
        ('"text"', "expected a JSON object; got str"),
    ],
)
@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
@pytest.mark.parametrize("bad_pairs", ["error", "drop"])
def test_line_that_is_no_json_object_names_file_and_line(
    tmp_path: Path, line: str, message: str, name: str, bad_pairs: str
) -> None:
    file = write_lines(tmp_path, GOOD, GOOD, line, GOOD, name=name)
    with pytest.raises(ValueError, match=f"^{file}, line 3: {message}.*; mend or remove the line$"):
        read_split(str(tmp_path), "helpful-base", "train", bad_pairs)


@pytest.mark.parametrize("content", ["cut", "not compressed", "not UTF-8"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    file = write_lines(tmp_path, *numbered(500), name="train.jsonl.gz")
    whole = gzip.decompress(file.read_bytes())
    file.write_bytes(
        {
            "cut": file.read_bytes()[:1500],
            "not compressed": whole,
            "not UTF-8": gzip.compress(whole.replace(b"good 3", b"\xe9\xe9")),
        }[content]
    )
    with pytest.raises(ValueError, match=f"^{file}, after line .*expected UTF-8 text.*make or copy the file again"):
        read_split(str(tmp_path), "helpful-base", "train")


def test_empty_file_is_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path)
    with pytest.raises(ValueError, match=f"^{file}: expected at least one pair; the file is empty"):
        read_split(str(tmp_path), "helpful-base", "train")


def test_no_usable_pair_is_an_error_that_says_what_was_left_out(tmp_path: Path) -> None:
    write_lines(tmp_path, {**GOOD, "rejected": GOOD["chosen"]})
    with pytest.raises(
        ValueError, match=r"at least one usable pair; got 1 rows, left out \{'identical responses': 1\}"
    ):
        read_split(str(tmp_path), "helpful-base", "train", bad_pairs="drop")


def test_missing_folder_subset_and_split_say_what_is_there(source: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"data_source: expected the folder .*nowhere/helpful-base; no .*nowhere"
    ):
        read_split(str(source / "nowhere"), "helpful-base", "train")
    with pytest.raises(FileNotFoundError, match=r"source/helpful-online; .* has \['harmless-base', 'helpful-base'\]"):
        read_split(str(source), "helpful-online", "train")
    with pytest.raises(
        FileNotFoundError, match=r"a file test.jsonl or test.jsonl.gz in .*; it has \['train.jsonl.gz'\]"
    ):
        read_split(str(source), "helpful-base", "test")


def test_files_of_another_name_are_no_split(tmp_path: Path) -> None:
    write_lines(tmp_path, GOOD, name="training.jsonl")
    with pytest.raises(FileNotFoundError, match=r"it has \['training.jsonl'\]"):
        read_split(str(tmp_path), "helpful-base", "train")


def test_unreachable_public_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("tension_utils.sources.load_dataset", unreachable)
    with pytest.raises(
        FileNotFoundError,
        match="data_source: expected a folder, or a public dataset that can be reached; got 'some/name'",
    ):
        read_split("some/name", "helpful-base", "train")


def test_public_name_is_read_by_the_same_call_and_places_count_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(name: str, **options: str) -> datasets.Dataset:
        calls.append((name, options))
        return datasets.Dataset.from_list([GOOD, {**GOOD, "rejected": PROMPT}])

    monkeypatch.setattr("tension_utils.sources.load_dataset", load)
    with pytest.raises(BadPairError, match="^Anthropic/hh-rlhf/helpful-base/train, row 2: expected two non-empty"):
        read_split("Anthropic/hh-rlhf", "helpful-base", "train")
    assert calls == [("Anthropic/hh-rlhf", {"data_dir": "helpful-base", "split": "train"})]


@pytest.mark.parametrize("name", ["Anthropic/hh-rlhf", "imdb"])
def test_public_names_are_not_folders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local(name)
    for folder in (f"./{name}", f"/{name}", f"~/{name}", f"data/{name}/x"):
        assert is_local(folder)
    (tmp_path / name).mkdir(parents=True)
    assert is_local(name), "a folder of this name comes before the public one"


TURN_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=30).filter(
    lambda text: text.strip() == text and "\n\nHuman:" not in f"\n{text}" and "\n\nAssistant:" not in f"\n{text}"
)


@settings(max_examples=100, deadline=None)
@given(st.lists(TURN_TEXTS, min_size=1, max_size=5).filter(lambda said: len(said) % 2 == 1), TURN_TEXTS)
def test_dialogue_and_template_are_inverse(said: list[str], response: str) -> None:
    turns = tuple(Turn(("human", "assistant")[i % 2], text) for i, text in enumerate(said))
    assert parse_dialogue(render_prompt(turns) + render_response(response)) == (turns, response)


def test_last_answer_is_the_response_and_names_inside_a_line_are_text() -> None:
    text = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Say Human: and Assistant:\n\nAssistant: Human: ok"
    item = read_pair({"chosen": text, "rejected": text + "!"})
    assert [turn.role for turn in item.prompt] == ["human", "assistant", "human"]
    assert (item.chosen, item.rejected) == ("Human: ok", "Human: ok!")
    assert item.prompt[-1].content == "Say Human: and Assistant:"


def config(source: Path, **values: object) -> DataConfig:
    return DataConfig(source=str(source), **({"n_validation_pairs": 4} | values))


def ids(items: tuple[Item, ...]) -> list[str]:
    return [item.item_id for item in items]


@pytest.mark.parametrize("objective, n", [("helpful", 12), ("harmless", 20)])
def test_train_and_validation_are_disjoint_and_take_all(source: Path, objective: str, n: int) -> None:
    pairs = training_pairs(config(source), objective, 0)
    assert len(pairs.validation) == 4 and len(pairs.train) == n - 4
    assert set(ids(pairs.train)) | set(ids(pairs.validation)) == {f"{objective}-base/train/{i + 1}" for i in range(n)}
    assert all(item.chosen[0].startswith("good") and item.rejected[0].startswith("bad") for item in pairs.train)


@pytest.mark.parametrize("objective", ["helpful", "harmless", "helpful-harmless"])
def test_same_seed_same_split_and_order_and_another_seed_another(source: Path, objective: str) -> None:
    first, again, other = (training_pairs(config(source), objective, seed) for seed in (3, 3, 4))
    assert first == again
    assert ids(first.train) != ids(other.train) and set(ids(first.validation)) != set(ids(other.validation))
    assert ids(first.train) != sorted(ids(first.train))


def test_fewer_training_pairs_leave_validation_as_it_is(source: Path) -> None:
    every, few = (training_pairs(config(source, n_train_pairs=n), "harmless", 0) for n in (0, 5))
    assert few.validation == every.validation
    assert few.train == every.train[:5]


@pytest.mark.parametrize(
    "arm, shares, n_train, n_validation",
    [
        ("helpful-harmless", (1, 1), 8 + 6, 4 + 4),
        ("helpful-harmless-matched", (0.5, 0.5), 4 + 3, 2 + 2),
        ("matched-without-shared", (0.5, 0.5), 4 + 3, 2 + 2),
        ("helpful-harmless-3-to-1", (0.75, 0.25), 6 + 1, 3 + 1),
        ("helpful-harmless-1-to-3", (0.25, 0.75), 2 + 4, 1 + 3),
    ],
)
def test_mixed_arms_use_the_pairs_of_the_single_ones(
    source: Path, arm: str, shares: tuple[float, float], n_train: int, n_validation: int
) -> None:
    write_lines(source, *numbered(10, "harmless"), subset="harmless-base", name="train.jsonl.gz")
    data = config(source)
    single = [training_pairs(data, objective, 1) for objective in ("helpful", "harmless")]
    mixed = training_pairs(data, arm, 1)
    for part, n in (("train", n_train), ("validation", n_validation)):
        sides = [getattr(pairs, part) for pairs in single]
        expected = [item for share, side in zip(shares, sides, strict=True) for item in side[: int(share * len(side))]]
        assert len(getattr(mixed, part)) == len(expected) == n
        assert set(ids(getattr(mixed, part))) == set(ids(expected))
    assert not set(ids(mixed.train)) & {i for pairs in single for i in ids(pairs.validation)}
    sides = [item_id.startswith("helpful") for item_id in ids(mixed.train)]
    assert sides != sorted(sides, reverse=True), "expected the two sides to be shuffled together"


def test_a_share_that_leaves_no_pair_is_an_error(source: Path) -> None:
    data = config(source, n_train_pairs=1)
    with pytest.raises(ValueError, match="n_train_pairs: expected enough pairs for helpful-harmless-matched"):
        training_pairs(data, "helpful-harmless-matched", 0)


@pytest.mark.parametrize("objective", ["helpful", "harmless"])
def test_sham_arms_change_labels_and_nothing_else(source: Path, objective: str) -> None:
    write_lines(source, *numbered(60, "pair"), subset=f"{objective}-base", name="train.jsonl.gz")
    data = config(source)
    given = training_pairs(data, objective, 3)
    for labels in ("coin", "longer"):
        sham, again = (training_pairs(data, f"{objective}-{labels}", 3) for _ in range(2))
        assert sham == again
        for part in ("train", "validation"):
            pairs = [*zip(getattr(sham, part), getattr(given, part), strict=True)]
            assert all(
                (a.item_id, a.prompt, {a.chosen, a.rejected}) == (b.item_id, b.prompt, {b.chosen, b.rejected})
                for a, b in pairs
            )
            if labels == "longer":
                assert all(len(a.chosen[0]) >= len(a.rejected[0]) for a, _ in pairs)
        if labels == "coin":
            swapped = [a.chosen != b.chosen for a, b in zip(sham.train, given.train, strict=True)]
            assert 0.25 < sum(swapped) / len(swapped) < 0.75
            other = training_pairs(data, f"{objective}-coin", 4)
            assert {a.item_id: a.chosen for a in other.train} != {a.item_id: a.chosen for a in sham.train}


def test_several_subsets_of_one_objective_are_joined(source: Path) -> None:
    write_lines(source, *numbered(5, "online"), subset="helpful-online")
    subsets = {"helpful": ("helpful-base", "helpful-online"), "harmless": ("harmless-base",)}
    pairs = training_pairs(config(source, subsets=subsets), "helpful", 0)
    assert Counter(item_id.split("/")[0] for item_id in ids(pairs.train + pairs.validation)) == {
        "helpful-base": 12,
        "helpful-online": 5,
    }


@pytest.mark.parametrize(
    "values", [{"n_train_pairs": 9}, {"n_validation_pairs": 12}, {"n_validation_pairs": 50, "n_train_pairs": 1}]
)
def test_too_many_pairs_asked_says_how_many_there_are(source: Path, values: dict) -> None:
    n_validation = values.get("n_validation_pairs", 4)
    message = (
        rf"n_train_pairs: expected at most {12 - n_validation} for helpful \(12 pairs, {n_validation} of them for "
    )
    with pytest.raises(ValueError, match=message):
        training_pairs(config(source, **values), "helpful", 0)


def test_left_out_rows_are_counted_over_subsets(source: Path) -> None:
    write_lines(source, *numbered(9), {**GOOD, "rejected": GOOD["chosen"]}, name="train.jsonl.gz")
    write_lines(source, *numbered(9, "other"), {**GOOD, "rejected": PROMPT}, {**GOOD, "rejected": GOOD["chosen"]},
                subset="harmless-base", name="train.jsonl.gz")  # fmt: skip
    pairs = training_pairs(config(source, bad_pairs="drop"), "helpful-harmless", 0)
    assert pairs.n_dropped == {"identical responses": 2, "empty response": 1}
    assert len(pairs.train) + len(pairs.validation) == 18


def test_a_pair_of_the_same_content_is_not_in_train_and_validation(tmp_path: Path) -> None:
    rows = numbered(6)
    swapped = [{"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    spelled = [
        {side: text.replace("good", "Good ").replace("bad", "ＢＡＤ") for side, text in row.items()} for row in rows
    ]
    write_lines(tmp_path, *rows, *swapped, *spelled)
    write_lines(tmp_path, *numbered(6, "harmless"), subset="harmless-base")
    pairs = training_pairs(config(tmp_path), "helpful", 0)
    prompts = [{item.prompt for item in items} for items in (pairs.train, pairs.validation)]
    assert pairs.train and not prompts[0] & prompts[1]
    assert pairs.n_dropped == {"also in validation": 18 - len(pairs.validation) - len(pairs.train)}
    n_left = len(pairs.train)
    with pytest.raises(ValueError, match=rf"at most {n_left} for helpful \(18 pairs, 4 of them .* more with the same"):
        training_pairs(config(tmp_path, n_train_pairs=n_left + 1), "helpful", 0)
