"""Benchmarks: every item with its place, its chance level, and every bad row with file and line."""

import gzip
import json
from hashlib import sha256
from math import comb
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.benchmarks.items import DIRECTIONS, GROUPS
from tension_utils.benchmarks.load import (
    BENCHMARKS,
    first_prompts,
    load_benchmark,
    load_benchmarks,
    load_hh_test,
    load_toy,
)
from tension_utils.data import BenchmarkItem, Turn, render_prompt

PROMPT = "\n\nHuman: {}\n\nAssistant:"
SUBSETS = {"helpful": ("helpful-base", "helpful-online"), "harmless": ("harmless-base",)}
ROW = {
    "subset": "best-of-3",
    "group": "helpful",
    "direction": "none",
    "prompt": ["Hi", "Hello", "Bye"],
    "chosen": ["good"],
    "rejected": ["bad", "worse"],
}


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_jsonl(file: Path, *rows: dict | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return file


def pair(question: str, **columns: str) -> dict:
    prompt = PROMPT.format(question)
    return {"chosen": f"{prompt} good", "rejected": f"{prompt} bad", **columns}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "helpful-base" / "test.jsonl.gz", pair("a"), pair("b"), pair("a"))
    write_jsonl(tmp_path / "helpful-online" / "test.jsonl.gz", pair("c"))
    rows = pair("a", direction="refuse"), pair("b", direction="respond"), pair("c", direction="none")
    write_jsonl(tmp_path / "harmless-base" / "test.jsonl.gz", *rows)
    return tmp_path


def test_hh_test_gives_every_subset_to_its_objective(source: Path) -> None:
    items = load_hh_test(str(source), SUBSETS, "error")[0]
    assert [(item.subset, item.group, item.direction) for item in items] == [
        ("helpful-base", "helpful", "none"),
        ("helpful-base", "helpful", "none"),
        ("helpful-base", "helpful", "none"),
        ("helpful-online", "helpful", "none"),
        ("harmless-base", "harmless", "refuse"),
        ("harmless-base", "harmless", "respond"),
        ("harmless-base", "harmless", "none"),
    ]
    assert {item.benchmark for item in items} == {"hh-rlhf"} and {item.chance for item in items} == {0.5}
    assert items[0].prompt == (Turn("human", "a"),) and items[0].responses == ("good", "bad")
    assert len({item.item_id for item in items}) == len(items)


def test_items_with_one_prompt_share_a_cluster(source: Path) -> None:
    items = load_hh_test(str(source), SUBSETS, "error")[0]
    clusters = [item.cluster for item in items]
    assert clusters == [sha256(render_prompt(item.prompt).encode()).hexdigest()[:16] for item in items]
    assert clusters[0] == clusters[2] == clusters[4] != clusters[1]


def test_bad_rows_of_a_test_are_dropped_or_named(source: Path) -> None:
    file = write_jsonl(source / "harmless-base" / "test.jsonl.gz", pair("a"), {**pair("a"), "rejected": "x"}, pair("b"))
    assert len(load_hh_test(str(source), SUBSETS, "drop")[0]) == 4 + 2
    with pytest.raises(ValueError, match=f"^{file}, line 2: "):
        load_hh_test(str(source), SUBSETS, "error")[0]


def test_unknown_direction_names_the_row(source: Path) -> None:
    write_jsonl(source / "harmless-base" / "test.jsonl.gz", pair("a", direction="left"))
    with pytest.raises(
        ValueError, match="^harmless-base/test/1: direction: expected one of refuse, respond, none; got"
    ):
        load_hh_test(str(source), SUBSETS, "error")[0]


def test_toy_item_keeps_turns_lists_and_place(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl.gz", ROW, {**ROW, "subset": "other", "group": "other", "prompt": ["Hi"]})
    (first, second), n_dropped = load_toy(tmp_path)
    assert n_dropped == {}
    assert first == BenchmarkItem(
        item_id="toy/best-of-3/1",
        prompt=(Turn("human", "Hi"), Turn("assistant", "Hello"), Turn("human", "Bye")),
        chosen=("good",),
        rejected=("bad", "worse"),
        benchmark="toy",
        subset="best-of-3",
        group="helpful",
        direction="none",
        cluster=sha256(b"\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:").hexdigest()[:16],
    )
    assert first.chance == pytest.approx(1 / 3)
    assert (second.item_id, second.group, second.cluster) == (
        "toy/other/2",
        "other",
        sha256(b"\n\nHuman: Hi\n\nAssistant:").hexdigest()[:16],
    )


@pytest.mark.parametrize(
    "row, message",
    [
        ("{oops", "expected one JSON object a line"),
        ("[]", "expected a JSON object; got list"),
        (
            {key: value for key, value in ROW.items() if key != "group"},
            r"expected fields \['group'\]; got \['chosen', ",
        ),
        ({**ROW, "chosen": []}, "expected chosen to be a list of non-empty texts"),
        ({**ROW, "rejected": ["bad", ""]}, "expected rejected to be a list of non-empty texts"),
        ({**ROW, "rejected": "bad"}, "expected rejected to be a list of non-empty texts; got 'bad'"),
        ({**ROW, "prompt": "Hi"}, "expected prompt to be a list of non-empty texts; got 'Hi'"),
        ({**ROW, "prompt": ["Hi", "Hello"]}, "expected a prompt that ends with a human turn; got 2 turns"),
        ({**ROW, "subset": "$x^"}, r"expected subset to be a name of printable characters without \$; got"),
        ({**ROW, "subset": "a\x07"}, "expected subset to be a name of printable"),
        ({**ROW, "subset": ["a"]}, "expected subset to be a name of printable"),
        ({**ROW, "group": "useful"}, "group: expected one of helpful, harmless, other; got 'useful'"),
        ({**ROW, "direction": "left"}, "direction: expected one of refuse, respond, none; got 'left'"),
    ],
)
def test_bad_toy_row_names_file_and_line(tmp_path: Path, row: dict | str, message: str) -> None:
    file = write_jsonl(tmp_path / "test.jsonl.gz", ROW, row)
    with pytest.raises(ValueError, match=f"^{file}, line 2: {message}"):
        load_toy(tmp_path)


def test_missing_toy_benchmark_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"expected the file {tmp_path}/test.jsonl.gz; write it with python -m"):
        load_toy(tmp_path)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_chance_counts_the_orders_that_are_right(n_chosen: int, n_rejected: int) -> None:
    item = BenchmarkItem("i", (), ("a",) * n_chosen, ("b",) * n_rejected, "toy", "s", "other", "none", "c")
    ways = 1  # the chosen ones must be the first of all in a random order: product of n_chosen shrinking shares
    for i in range(n_chosen):
        ways *= (n_chosen - i) / (n_chosen + n_rejected - i)
    assert item.chance == pytest.approx(ways)
    assert item.chance == 1 / comb(n_chosen + n_rejected, n_rejected)


def test_benchmarks_follow_each_other_and_an_unknown_one_lists_the_known(source: Path) -> None:
    sources = {"hh-rlhf": source, "toy": source / "toy"}
    write_jsonl(source / "toy" / "test.jsonl.gz", ROW)
    loaded = load_benchmarks(["toy", "hh-rlhf"], sources, subsets=SUBSETS)
    assert [item.benchmark for item in loaded.items] == ["toy"] + ["hh-rlhf"] * 7 and loaded.not_run == {}
    with pytest.raises(ValueError, match=f"benchmarks: expected one of {', '.join(BENCHMARKS)}; got 'mmlu'"):
        load_benchmarks(["hh-rlhf", "mmlu"], sources)
    with pytest.raises(ValueError, match=f"benchmark: expected one of {', '.join(BENCHMARKS)}; got 'mmlu'"):
        load_benchmark("mmlu", source)
    with pytest.raises(ValueError, match="sources of benchmarks: expected one of .*; got 'rmbench'"):
        load_benchmarks(["toy"], {**sources, "rmbench": source})
    with pytest.raises(ValueError, match="benchmarks: expected at least one value and none twice"):
        load_benchmarks([], sources)


def test_hh_rlhf_and_toy_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected the folder .*helpful-base"):
        load_benchmarks(["hh-rlhf"], {"hh-rlhf": tmp_path})
    for sources in ({"toy": tmp_path}, {}):
        with pytest.raises(FileNotFoundError, match="write it with python -m tension_utils.toy.model"):
            load_benchmarks(["toy"], sources)


def test_subsets_belong_to_a_group(source: Path) -> None:
    with pytest.raises(ValueError, match="subsets: expected one of helpful, harmless, other; got 'useful'"):
        load_benchmark("hh-rlhf", source, subsets={"useful": ("helpful-base",)})


@pytest.mark.parametrize("n, expected", [(0, ["aba", "c", "abc"]), (1, ["aa", "c", "a"]), (2, ["aba", "c", "ab"])])
def test_first_prompts_come_with_all_their_items(source: Path, n: int, expected: list[str]) -> None:
    kept = first_prompts(load_hh_test(str(source), SUBSETS, "error")[0], n)
    names = [name for names in SUBSETS.values() for name in names]
    assert ["".join(i.prompt[0].content for i in kept if i.subset == name) for name in names] == expected


def test_the_embedded_world_is_covered(toy_world: Path) -> None:
    sources = {"hh-rlhf": toy_world / "hh-rlhf", "toy": toy_world / "benchmark"}
    subsets = {"helpful": ("helpful-base",), "harmless": ("harmless-base",)}
    items = load_benchmarks(["hh-rlhf", "toy"], sources, subsets=subsets).items
    assert {item.group for item in items} == set(GROUPS) and {item.direction for item in items} == set(DIRECTIONS)
    assert len({(item.benchmark, item.item_id) for item in items}) == len(items)
