"""Public layouts of preference pairs: each is taken as its authors mean it, and a row that is not is refused."""

import json
from pathlib import Path

import pytest

from tension_utils.analysis.training import label_conflicts
from tension_utils.config import DataConfig
from tension_utils.data import content_key, read_split, training_pairs
from tension_utils.pair_layouts import BadPairError, Turn, read_pair

HH = "\n\nHuman: q\n\nAssistant: "
USER = {"role": "user", "content": "q"}


def answer(text: str) -> dict:
    return {"role": "assistant", "content": text}


PKU = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}
HELPSTEER = {"context": [USER], "response1": "a", "response2": "b", "overall_preference": -2}
SHP = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
MESSAGES = {"chosen": [USER, answer("a")], "rejected": [USER, answer("b")]}
BESIDE = {"prompt": [USER], "chosen": [answer("a")], "rejected": [answer("b")]}
DIALOGUES = {"chosen": HH + "a", "rejected": HH + "b"}
A, B = ("a", "b"), ("b", "a")
ROWS = [
    (DIALOGUES, "dialogues", A),
    (DIALOGUES | {"prompt": "q"}, "dialogues", A),
    (DIALOGUES | {"prompt": HH.rstrip()}, "dialogues", A),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "explicit prompt", A),
    ({"prompt": HH.rstrip(), "chosen": " a", "rejected": "b "}, "explicit prompt", A),
    ({"prompt": [USER], "chosen": "a", "rejected": "b"}, "explicit prompt", A),
    (MESSAGES | {"score_chosen": 8.0}, "messages", A),
    (MESSAGES | {"prompt": "q"}, "messages", A),
    (BESIDE, "messages with a prompt", A),
    (BESIDE | {"prompt": "q"}, "messages with a prompt", A),
    (HELPSTEER, "HelpSteer3", A),
    (HELPSTEER | {"overall_preference": 1}, "HelpSteer3", B),
    (SHP, "SHP", A),
    (SHP | {"labels": 0}, "SHP", B),
]


@pytest.mark.parametrize("row, layout, sides", ROWS)
def test_a_row_is_read_as_its_layout_means_it(row: dict, layout: str, sides: tuple[str, str]) -> None:
    pair = read_pair(row)
    assert (pair.prompt, (pair.chosen, pair.rejected), pair.layout) == ((Turn("human", "q"),), sides, layout)


EXPLICIT = {"prompt": "q", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize("column", ["system", "question", "instruction", "history", "context", "Prompt", "input"])
@pytest.mark.parametrize("row", [DIALOGUES, MESSAGES, BESIDE, EXPLICIT, PKU], ids=str)
@pytest.mark.parametrize("value", ["long ago", [{"role": "user", "content": "long ago"}]], ids=type)
def test_what_comes_before_a_response_under_another_name_is_read_or_refused(
    row: dict, column: str, value: object
) -> None:
    with pytest.raises(BadPairError, match=f"expected column {column} to be part of the prompt") as caught:
        read_pair(row | {column: value}, "helpful")
    assert caught.value.reason == "unread column"
    pair = read_pair(row, "helpful")
    for same in ("q", [USER], "", None, 3):
        assert read_pair(row | {column: same}, "helpful") == pair


@pytest.mark.parametrize("objective, sides", [("helpful", B), ("harmless", A)])
def test_a_row_with_two_labels_is_read_by_objective(objective: str, sides: tuple[str, str]) -> None:
    pair = read_pair(PKU, objective)
    assert (pair.chosen, pair.rejected) == sides
    with pytest.raises(ValueError, match="since rows have a label for each; got objective ''"):
        read_pair(PKU)


def test_messages_keep_earlier_turns_and_systems() -> None:
    before = [{"role": "system", "content": "Be kind."}, USER, answer("x"), {"role": "user", "content": "more"}]
    expected = (Turn("system", "Be kind."), Turn("human", "q"), Turn("assistant", "x"), Turn("human", "more"))
    for row in (
        {"chosen": [*before, answer("a")], "rejected": [*before, answer("b")]},
        {"prompt": before, "chosen": [answer("a")], "rejected": [answer("b")]},
        {"prompt": "q", "chosen": [*before, answer("a")], "rejected": [*before, answer("b")]},
    ):
        assert read_pair(row).prompt == expected


BAD = [
    (DIALOGUES | {"prompt": "another"}, "different prompts"),
    (DIALOGUES | {"prompt": "\n\nHuman: long ago\n\nAssistant: yes"}, "no dialogue"),
    (DIALOGUES | {"prompt": 3}, "no messages"),
    (MESSAGES | {"prompt": "another"}, "different prompts"),
    ({"chosen": [USER, answer("a")], "rejected": [answer("b")]}, "different prompts"),
    ({"chosen": [answer("a")], "rejected": [answer("b")]}, "no prompt"),
    ({"chosen": [USER], "rejected": [USER]}, "no dialogue"),
    ({"chosen": [], "rejected": []}, "no dialogue"),
    ({"chosen": ["a"], "rejected": ["b"]}, "no messages"),
    (BESIDE | {"chosen": [{"role": ["user"], "content": "a"}]}, "no messages"),
    (BESIDE | {"chosen": [{"role": "assistant", "content": ["a"]}]}, "no messages"),
    (BESIDE | {"chosen": [answer(" ")]}, "empty response"),
    ({"prompt": " ", "chosen": "a", "rejected": "b"}, "no prompt"),
    ({"prompt": [], "chosen": "a", "rejected": "b"}, "no prompt"),
    ({"prompt": {"text": "q"}, "chosen": "a", "rejected": "b"}, "no messages"),
    ({"prompt": "q", "chosen": "a", "rejected": ["b"]}, "missing field"),
    ({"prompt": "q", "chosen": True, "rejected": 1}, "missing field"),
    (PKU | {"better_response_id": True}, "unknown label"),
    (PKU | {"better_response_id": 2}, "unknown label"),
    (PKU | {"better_response_id": None}, "unknown label"),
    (PKU | {"response_0": ["a"]}, "missing field"),
    (HELPSTEER | {"overall_preference": 0}, "tie"),
    (HELPSTEER | {"overall_preference": float("inf")}, "unknown label"),
    (HELPSTEER | {"overall_preference": "-2"}, "unknown label"),
    (SHP | {"labels": float("nan")}, "unknown label"),
    (SHP | {"human_ref_B": "a"}, "identical responses"),
    ({}, "missing field"),
]


@pytest.mark.parametrize("row, reason", BAD)
def test_a_row_without_a_clear_reading_is_refused(row: dict, reason: str) -> None:
    with pytest.raises(BadPairError) as caught:
        read_pair(row, "helpful")
    assert caught.value.reason == reason


def write(folder: Path, *rows: dict, subset: str = "data", split: str = "train") -> None:
    file = folder / subset / f"{split}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_split_says_its_layout_and_may_have_one_alone(tmp_path: Path) -> None:
    write(tmp_path, SHP, SHP)
    assert read_split(str(tmp_path), "data", "train").layout == "SHP"
    write(tmp_path, SHP, HELPSTEER)
    with pytest.raises(ValueError, match=r"expected one layout; got \{'SHP': .*line 1', 'HelpSteer3': .*line 2'\}"):
        read_split(str(tmp_path), "data", "train")


def labelled(number: int, better: int, safer: int) -> dict:
    row = {"prompt": f"q{number}", "response_0": f"a{number}", "response_1": f"b{number}"}
    return row | {"better_response_id": better, "safer_response_id": safer}


@pytest.fixture
def both(tmp_path: Path) -> DataConfig:
    """Twenty pairs with two labels, which conflict on five."""
    write(tmp_path, *(labelled(n, 1, int(n >= 5)) for n in range(20)), labelled(20, 2, 1))
    subsets = {"helpful": ["data"], "harmless": ["data"]}
    return DataConfig(source=str(tmp_path), subsets=subsets, n_validation_pairs=4, bad_pairs="drop")


def test_both_objectives_come_from_one_subset_and_never_meet_across_splits(both: DataConfig) -> None:
    single = {objective: training_pairs(both, objective, 0) for objective in ("helpful", "harmless")}
    assert all(item.chosen[0].startswith("b") for item in single["helpful"].train)
    assert {item.chosen[0][0] for item in single["harmless"].train} == {"a", "b"}
    mixed = training_pairs(both, "helpful-harmless", 0)
    of_train, of_validation = ({content_key(item) for item in items} for items in (mixed.train, mixed.validation))
    assert of_validation and of_train and not of_train & of_validation
    n_repeated = sum(content_key(item) in of_validation for pairs in single.values() for item in pairs.train)
    assert n_repeated and mixed.n_dropped == {"unknown label": 1, "also in validation": n_repeated}
    ids = [item.item_id for item in mixed.train + mixed.validation]
    assert len(set(ids)) == len(ids)
    assert mixed.layouts == {
        "helpful: data": "PKU-SafeRLHF, better_response_id",
        "harmless: data": "PKU-SafeRLHF, safer_response_id",
    }


def test_conflicts_of_two_labels_are_counted_with_their_interval(both: DataConfig) -> None:
    (row,) = label_conflicts(both).to_dict("records")
    assert (row["subset"], row["n_items"], row["n_clusters"], row["conflict_share"]) == ("data", 20, 20, 0.25)
    assert 0 < row["ci_low"] < 0.25 < row["ci_high"] < 0.6 and row["chance_share"] == 0.5
    apart = {"helpful": ["data"], "harmless": ["nowhere"]}
    assert label_conflicts(DataConfig(source="nowhere/at/all", subsets=apart)).empty, "no data is read"
