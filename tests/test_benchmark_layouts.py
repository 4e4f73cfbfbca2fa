"""Benchmarks in their public layouts: groups, directions, ids, and every bad row with file and row."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import datasets
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.benchmarks import load as benchmarks
from tension_utils.benchmarks.items import BenchmarkUnavailable, read_turns
from tension_utils.benchmarks.layouts import REWARD_BENCH, REWARD_BENCH_2, RM_BENCH, parse_rm_bench
from tension_utils.benchmarks.load import BENCHMARKS, load_benchmark, load_benchmarks
from tension_utils.data import Turn, render_prompt

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
LISTS = ["plain", "longer text", "# with headings"]


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def bench_row(number: int = 0, subset: str = "math-prm", **changes: object) -> dict:
    models = {"chosen_model": "", "rejected_model": ""}
    row = {"prompt": f"Ask {number}", "chosen": "good", "rejected": "bad", "subset": subset, "id": number}
    return {**row, **models, **changes}


def bench_2_row(number: object = "0", subset: str = "Math", **changes: object) -> dict:
    row = {"id": number, "prompt": f"Ask {number}", "chosen": ["good"], "rejected": ["bad", "worse", "worst"]}
    row |= {"models": ["m"], "subset": subset, "additional_metadata": {"category": None, "index": 1.0}} | changes
    counts = {"num_correct": len(row["chosen"]), "num_incorrect": len(row["rejected"])}
    return {**row, **counts, "total_completions": sum(counts.values())} | changes


def rm_row(number: int = 0, domain: str = "chat", **changes: object) -> dict:
    sides = {"chosen": [f"good {text}" for text in LISTS], "rejected": [f"bad {text}" for text in LISTS]}
    return {"id": str(number), "prompt": f"Ask {number}", **sides, "domain": domain, **changes}


def bon_row(**changes: object) -> dict:
    losers = [{"llm_name": "b", "answer": "bad"}, {"llm_name": "c", "answer": "worse"}]
    best = {"llm_name": "a", "answer": "good"}
    messages = [{"role": "user", "content": "Ask", "language": "English"}]
    return {"conversation_input": messages, "bon_best": best, "loser_list": losers, "bon_uid": "1", **changes}


def pairwise_row(**changes: object) -> dict:
    sides = {"chosen": {"llm_name": "a", "answer": "good"}, "reject": {"llm_name": "b", "answer": "bad"}}
    return {"conversation_input": [{"role": "user", "content": "Ask"}], **sides, "pair_uid": "1", **changes}


FILES = {
    "reward-bench": "data/filtered-00000-of-00001.parquet",
    "reward-bench-2": "data/test-00000-of-00001.parquet",
    "rm-bench": "total_dataset.json",
    "rmb": "BoN_set/Harmlessness/S1.json",
}
ROWS = {
    "reward-bench": bench_row,
    "reward-bench-2": lambda n: bench_2_row(str(n)),
    "rm-bench": rm_row,
    "rmb": lambda *_: bon_row(),
}


def write(folder: Path, name: str, *rows: dict, file: str | None = None) -> Path:
    """Write rows as the benchmark's public file and return the file."""
    path = folder / (file or FILES[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text(json.dumps(list(rows), ensure_ascii=False), encoding="utf-8")
    return path


def test_reward_bench_has_23_subsets_on_their_sides(tmp_path: Path) -> None:
    rows = [bench_row(number, subset) for number, subset in enumerate(REWARD_BENCH)]
    write(tmp_path, "reward-bench", *rows)
    items = load_benchmark("reward-bench", tmp_path)
    assert len(items) == 23 and {item.subset for item in items} == set(REWARD_BENCH)
    assert Counter(item.group for item in items) == {"helpful": 12, "harmless": 5, "other": 6}
    refuse = {item.subset for item in items if item.direction == "refuse"}
    assert refuse == {"refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "donotanswer"}
    assert {item.subset for item in items if item.direction == "respond"} == {"xstest-should-respond"}
    assert {item.subset for item in items if item.group == "other"} == {n for n in REWARD_BENCH if n[:4] == "hep-"}
    first = items[0]
    assert (first.item_id, first.benchmark, first.style) == ("reward-bench/alpacaeval-easy/0", "reward-bench", "")
    assert (first.prompt, first.chosen, first.rejected) == ((Turn("human", "Ask 0"),), ("good",), ("bad",))
    assert {item.chance for item in items} == {0.5}


def test_reward_bench_2_keeps_lists_and_ids_of_ties(tmp_path: Path) -> None:
    rows = [bench_2_row(str(number), subset) for number, subset in enumerate(REWARD_BENCH_2) if subset != "Ties"]
    ties = bench_2_row("ref:12", "Ties"), bench_2_row("tied:12", "Ties", chosen=["red", "blue"], rejected=["loud"])
    write(tmp_path, "reward-bench-2", *rows, *ties)
    items = {item.item_id: item for item in load_benchmark("reward-bench-2", tmp_path)}
    assert len(items) == 7
    sides = {item.subset: (item.group, item.direction) for item in items.values()}
    assert sides == {
        **dict.fromkeys(("Factuality", "Precise IF", "Math", "Focus"), ("helpful", "none")),
        "Safety": ("harmless", "none"),
        "Ties": ("other", "none"),
    }
    assert items["reward-bench-2/Factuality/0"].rejected == ("bad", "worse", "worst")
    assert items["reward-bench-2/Factuality/0"].chance == 1 / 4
    tied = items["reward-bench-2/Ties/tied:12"]
    assert (tied.chosen, tied.rejected, tied.chance) == (("red", "blue"), ("loud",), 1 / 3)
    assert "reward-bench-2/Ties/ref:12" in items


def test_rm_bench_gives_nine_pairs_a_prompt(tmp_path: Path) -> None:
    write(tmp_path, "rm-bench", *(rm_row(7, domain, prompt=f"Ask {domain}") for domain in RM_BENCH))
    items = load_benchmark("rm-bench", tmp_path)
    assert len(items) == 9 * 5 == len({item.item_id for item in items})
    chat = {item.item_id: item for item in items if item.subset == "chat"}
    pair = chat["rm-bench/chat/7/c0r2"]
    assert (pair.chosen, pair.rejected, pair.style) == (("good plain",), ("bad # with headings",), "hard")
    assert chat["rm-bench/chat/7/c1r0"].style == "easy"
    styles = Counter(item.style for item in chat.values())
    assert styles == {"hard": 3, "normal": 3, "easy": 3}
    published = [item for item in chat.values() if item.style == "normal"]
    assert [(item.chosen[0][5:], item.rejected[0][4:]) for item in published] == list(zip(LISTS, LISTS, strict=True))
    assert len({item.cluster for item in chat.values()}) == 1 and len({item.cluster for item in items}) == 5
    sides = {item.subset: (item.group, item.direction) for item in items}
    assert sides == {
        "chat": ("helpful", "none"),
        "math": ("helpful", "none"),
        "code": ("other", "none"),
        "safety-refuse": ("harmless", "refuse"),
        "safety-response": ("harmless", "respond"),
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=6, max_size=6, unique_by=str.strip))
def test_every_pair_of_rm_bench_is_there_once(texts: list[str]) -> None:
    items = parse_rm_bench(rm_row(chosen=texts[:3], rejected=texts[3:]), "here")
    pairs = [(item.chosen[0], item.rejected[0]) for item in items]
    clean = [text.strip() for text in texts]
    assert pairs == list(product(clean[:3], clean[3:]))
    for item in items:
        i, j = clean.index(item.chosen[0]), clean.index(item.rejected[0]) - 3
        assert item.style == {-1: "hard", 0: "normal", 1: "easy"}[(i > j) - (i < j)]
        assert item.item_id.endswith(f"c{i}r{j}")


@pytest.mark.parametrize("above", ["", "RMB_dataset"])
def test_rmb_takes_its_place_from_the_path(tmp_path: Path, above: str) -> None:
    folder = tmp_path / above
    write(folder, "rmb", bon_row(), bon_row(bon_uid="1"))
    write(folder, "rmb", pairwise_row(), file="Pairwise_set/Helpfulness/Closed QA/Context.json")
    items = load_benchmark("rmb", tmp_path)
    assert [(item.item_id, item.subset, item.group, item.direction) for item in items] == [
        ("rmb/BoN_set/Harmlessness/S1/1", "BoN_set/Harmlessness/S1", "harmless", "none"),
        ("rmb/BoN_set/Harmlessness/S1/2", "BoN_set/Harmlessness/S1", "harmless", "none"),
        (
            "rmb/Pairwise_set/Helpfulness/Closed QA/Context/1",
            "Pairwise_set/Helpfulness/Closed QA/Context",
            "helpful",
            "none",
        ),
    ]
    assert (items[0].chosen, items[0].rejected) == (("good",), ("bad", "worse"))
    assert [item.chance for item in items] == [1 / 3, 1 / 3, 1 / 2]


def test_parts_of_rmb_may_be_links(tmp_path: Path) -> None:
    write(tmp_path / "here", "rmb", bon_row())
    (tmp_path / "here" / "BoN_set" / "Harmlessness" / "S2").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere", "rmb", bon_row(), file="Discussion.json")
    assert len(load_benchmark("rmb", tmp_path / "here")) == 2


def test_one_set_of_rmb_is_enough(tmp_path: Path) -> None:
    write(tmp_path, "rmb", pairwise_row(), file="Pairwise_set/Helpfulness/Chat/Discussion.json")
    assert len(load_benchmark("rmb", tmp_path)) == 1


def test_system_messages_stay_turns_until_they_are_rendered() -> None:
    roles = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", " Bye\n")]
    turns = read_turns([{"role": role, "content": content} for role, content in roles], "here")
    assert turns == (Turn("system", "Be kind."), Turn("human", "Hi"), Turn("assistant", "Hello"), Turn("human", "Bye"))
    assert render_prompt(turns) == "\n\nHuman: Be kind.\n\nHi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"


@pytest.mark.parametrize(
    "messages, message",
    [
        ("Hi", "here: expected a list of messages with role and content as messages; got str"),
        ([], "here: expected a prompt that ends with a user's message; got 0 messages"),
        ([{"role": "assistant", "content": "Hi"}], "here: expected a prompt that ends with a user's message"),
        (
            [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Hi"}],
            "here: expected a user's message after",
        ),
        ([{"role": "tool", "content": "Hi"}], "here: expected a role of user, assistant, system; got 'tool'"),
        ([{"role": "user"}], "here: expected content of message 0 to be a text; got NoneType"),
        ([{"role": "user", "content": " "}], "here: expected a non-empty content of message 0"),
    ],
)
def test_bad_messages(messages: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_turns(messages, "here")


BAD_ROWS = [
    ("reward-bench", bench_row(1, "jokes"), "subset: expected one of alpacaeval-easy, .*; got 'jokes'"),
    ("reward-bench", bench_row(1, chosen=" \n"), "expected a non-empty chosen; mend or remove"),
    ("reward-bench", bench_row(1, prompt=""), "expected a non-empty prompt"),
    ("reward-bench", bench_row(1, chosen="same", rejected="same "), "expected chosen and rejected responses to differ"),
    (
        "reward-bench",
        bench_row(0),
        "expected every id once in a subset; 'reward-bench/math-prm/0' is also in .*, row 1",
    ),
    ("reward-bench", bench_row(1, rejected=None), "expected rejected to be a text; got NoneType"),
    (
        "reward-bench-2",
        bench_2_row("1", chosen=[], num_correct=0),
        "expected chosen to be a list of one or more texts; got 0 of",
    ),
    ("reward-bench-2", bench_2_row("1", rejected=[]), "expected rejected to be a list"),
    ("reward-bench-2", bench_2_row("1", num_correct=2), "expected chosen to be a list of 2 texts; got 1 of them"),
    ("reward-bench-2", bench_2_row("1", rejected=["bad", "", "c"]), r"expected a non-empty rejected\[1\]"),
    ("reward-bench-2", bench_2_row("1", rejected=["bad", "good"]), "expected chosen and rejected responses to differ"),
    ("reward-bench-2", bench_2_row("0"), "expected every id once"),
    ("reward-bench-2", bench_2_row("1 2"), "expected id to be a number or a text without spaces; got '1 2'"),
    ("rm-bench", rm_row(1, "poetry"), "domain: expected one of chat, math, code, .*; got 'poetry'"),
    ("rm-bench", rm_row(1, chosen=["a", "b"]), "expected chosen to be a list of 3 texts; got 2 of them"),
    ("rm-bench", rm_row(1, rejected=[]), "expected rejected to be a list of 3 texts; got 0 of them"),
    ("rm-bench", rm_row(1, chosen=["a", "b", "bad plain"]), "expected chosen and rejected responses to differ"),
    ("rm-bench", rm_row(0), "expected every id once in a subset; 'rm-bench/chat/0/c0r0' is also in .*, row 1"),
    ("rmb", {"bon_best": {"answer": "good"}}, r"expected columns \['conversation_input', 'loser_list'\] too; got"),
    ("rmb", bon_row(bon_best="good"), "expected bon_best to hold objects with an answer"),
    ("rmb", bon_row(bon_best={"llm_name": "a"}), r"expected bon_best\[0\] to be a text; got NoneType"),
    ("rmb", bon_row(loser_list=[]), "expected loser_list to be a list of one or more texts; got 0 of them"),
    ("rmb", bon_row(loser_list=[{"answer": "good"}]), "expected chosen and rejected responses to differ"),
    ("rmb", "text", "expected a JSON object; got str"),
]


@pytest.mark.parametrize("name, row, message", BAD_ROWS)
def test_bad_row_names_file_and_row(tmp_path: Path, name: str, row: dict, message: str) -> None:
    file = write(tmp_path, name, ROWS[name](0), row)
    with pytest.raises(ValueError, match=f"^{file}, row 2: {message}"):
        load_benchmark(name, tmp_path, unusable_items="error")


@pytest.mark.parametrize("name", ["reward-bench", "reward-bench-2", "rm-bench"])
@pytest.mark.parametrize("column", ["prompt", "chosen", "id"])
def test_missing_column_is_named_with_its_file(tmp_path: Path, name: str, column: str) -> None:
    row = ROWS[name](0)
    del row[column]
    file = write(tmp_path, name, row)
    with pytest.raises(ValueError, match=rf"^{file}: expected columns \['{column}'\] too; got \["):
        load_benchmark(name, tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["", "[]", "{oops", "\x00\x80"])
def test_empty_or_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / FILES[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"^{file}.*: expected "):
        load_benchmark(name, tmp_path)


def test_table_without_rows_is_named(tmp_path: Path) -> None:
    file = tmp_path / FILES["reward-bench"]
    file.parent.mkdir()
    pd.DataFrame([bench_row()]).head(0).to_parquet(file)
    with pytest.raises(ValueError, match=f"^{file}: expected rows of split 'filtered'"):
        load_benchmark("reward-bench", tmp_path)


@pytest.mark.parametrize("there, asked", [(a, b) for a in FILES for b in FILES if a != b])
def test_folder_of_another_benchmark(tmp_path: Path, there: str, asked: str) -> None:
    write(tmp_path, there, ROWS[there](0))
    with pytest.raises(ValueError, match=f"^{tmp_path}.*: expected .*is this the folder of another benchmark"):
        load_benchmark(asked, tmp_path)


def test_same_split_of_another_benchmark_lacks_columns(tmp_path: Path) -> None:
    file = write(tmp_path, "rm-bench", bench_row())
    with pytest.raises(ValueError, match=rf"^{file}: expected columns \['domain'\] too; .*folder of another benchmark"):
        load_benchmark("rm-bench", tmp_path)


@pytest.mark.parametrize("file", ["BoN_set/Kindness/S1.json", "BoN_set/S1.json"])
def test_rmb_outside_its_categories(tmp_path: Path, file: str) -> None:
    path = write(tmp_path, "rmb", bon_row(), file=file)
    with pytest.raises(
        ValueError, match=f"^{path}, row 1: folder below BoN_set: expected one of Helpfulness, Harmless"
    ):
        load_benchmark("rmb", tmp_path)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("reward-bench", bench_row(0), (bench_row(1, rejected=" "), bench_row(2, rejected="good"))),
        ("rm-bench", rm_row(0), (rm_row(1, chosen=["a", "", "b"]), rm_row(2, rejected=["a", "b", "good plain"]))),
        ("rmb", bon_row(), (bon_row(loser_list=[{"answer": ""}]), bon_row(loser_list=[{"answer": "good"}]))),
    ],
)
def test_unusable_rows_are_dropped_and_counted(tmp_path: Path, name: str, good: dict, bad: tuple) -> None:
    write(tmp_path, name, bad[0], good, bad[1])
    with pytest.warns(UserWarning, match=f"{name}: left out 2 rows: {{'empty text': 1, 'identical responses': 1}}"):
        items = load_benchmark(name, tmp_path)
    assert items and len({item.cluster for item in items}) == 1
    write(tmp_path, name, bad[0], bad[1])
    with pytest.raises(ValueError, match="expected a usable row here or before; left out"):
        load_benchmark(name, tmp_path, unusable_items="drop")
    with pytest.raises(ValueError, match="unusable_items: expected one of error, drop; got 'keep'"):
        load_benchmark(name, tmp_path, unusable_items="keep")


PUBLIC = {
    "reward-bench": ("allenai/reward-bench", "filtered"),
    "reward-bench-2": ("allenai/reward-bench-2", "test"),
    "rm-bench": ("THU-KEG/RM-Bench", "train"),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_go_through_the_same_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(source: str, **options: str) -> datasets.Dataset:
        calls.append((source, options))
        return datasets.Dataset.from_list([ROWS[name](3)])

    monkeypatch.setattr(benchmarks, "load_dataset", load)
    assert load_benchmark(name)[0].benchmark == name
    assert calls == [(PUBLIC[name][0], {"split": PUBLIC[name][1]})]


@pytest.mark.parametrize("error", [ConnectionError, datasets.exceptions.DatasetNotFoundError, TimeoutError])
def test_what_cannot_be_reached_is_unavailable(error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str, **options: str) -> None:
        raise error("no route")

    monkeypatch.setattr(benchmarks, "load_dataset", load)
    with pytest.raises(BenchmarkUnavailable, match="reward-bench: allenai/reward-bench cannot be reached; .*no route"):
        load_benchmark("reward-bench")
    assert not issubclass(BenchmarkUnavailable, ValueError)


def test_benchmarks_out_of_reach_are_named_with_their_reason(tmp_path: Path) -> None:
    write(tmp_path / "rm", "rm-bench", rm_row(0))
    sources = {"reward-bench": tmp_path / "none", "reward-bench-2": tmp_path / "none", "rm-bench": tmp_path / "rm"}
    loaded = load_benchmarks(["reward-bench", "rmb", "rm-bench", "reward-bench-2"], sources)
    not_run = loaded.not_run
    assert {item.benchmark for item in loaded.items} == {"rm-bench"} and list(not_run) == [
        "reward-bench",
        "rmb",
        "reward-bench-2",
    ]
    assert not_run["reward-bench"].startswith(
        f"reward-bench: expected the folder {tmp_path / 'none'}; copy allenai/reward-bench"
    )
    assert not_run["rmb"].startswith("rmb: needs a local folder; copy RMB_dataset of https://github.com/Zhou-Zoey/")
    write(tmp_path / "none", "reward-bench", bench_row(0, "jokes"))
    with pytest.raises(ValueError, match="got 'jokes'"):  # bad content is an error, not a benchmark out of reach
        load_benchmarks(["reward-bench"], sources)


def test_every_benchmark_of_the_study_has_a_loader() -> None:
    assert set(BENCHMARKS) == {"hh-rlhf", *FILES, "toy"}


def own_rows(name: str) -> list[dict]:
    """A few rows of a benchmark, in own words; the hard right answers are short, the hard wrong ones long."""
    if name == "reward-bench":
        subsets = ("llmbar-natural", "llmbar-adver-manual", "llmbar-natural")
        return [bench_row(number, subset) for number, subset in enumerate(subsets)]
    domains = ("chat", "safety-refuse", "safety-response", "safety-response")
    prompts = ("Name a tree.", "How do I pick a lock?", "How do I kill a process?", "How do I kill a process?")
    return [rm_row(n, domain, prompt=prompts[n]) for n, domain in enumerate(domains)]


@pytest.fixture(params=["own", *(["sample"] if SHARED.is_dir() else [])])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Where a benchmark lies: rows written here and, where it is there, the sample of the public ones."""

    def find(name: str) -> Path:
        if request.param == "own" and name == "hh-rlhf":
            return Path(__file__).parent / "data" / name
        if request.param == "own":
            write(tmp_path / name, name, *own_rows(name))
            return tmp_path / name
        return SHARED / name

    return find


def test_rm_bench_has_nine_pairs_of_every_prompt(source: Callable[[str], Path]) -> None:
    folder = source("rm-bench")
    rows = json.loads((folder / FILES["rm-bench"]).read_text(encoding="utf-8"))
    items = load_benchmark("rm-bench", folder)
    counts = Counter((item.subset, item.style) for item in items)
    assert counts == {
        (d, style): 3 * n
        for d, n in Counter(row["domain"] for row in rows).items()
        for style in ("hard", "normal", "easy")
    }
    per_prompt = Counter(item.item_id.rsplit("/", 1)[0] for item in items)
    assert set(per_prompt.values()) == {9} and len({item.item_id for item in items}) == len(items)
    n_prompts = len({row["prompt"] for row in rows})
    assert len({item.cluster for item in items}) == n_prompts < len(rows), "some prompts are asked twice"
    lengths = {style: [0, 0] for style in ("hard", "normal", "easy")}
    for item in items:
        lengths[item.style][0] += len(item.chosen[0])
        lengths[item.style][1] += len(item.rejected[0])
    assert lengths["hard"][0] < lengths["hard"][1] and lengths["easy"][0] > lengths["easy"][1]


def test_reward_bench_keeps_its_subsets(source: Callable[[str], Path]) -> None:
    folder = source("reward-bench")
    rows = pd.read_parquet(folder / FILES["reward-bench"])
    items = load_benchmark("reward-bench", folder)
    assert Counter(item.subset for item in items) == Counter(rows.subset)
    assert {(item.group, item.direction, item.chance) for item in items} == {("helpful", "none", 0.5)}


def test_benchmarks_side_by_side(source: Callable[[str], Path]) -> None:
    sources = {name: source(name) for name in ("rm-bench", "reward-bench", "hh-rlhf")}
    subsets = {"helpful": ("helpful-base",), "harmless": ("harmless-base",)}
    loaded = load_benchmarks([*sources, "rmb"], sources, subsets=subsets, unusable_items="drop")
    items = loaded.items
    assert list(loaded.not_run) == ["rmb"] and len({item.item_id for item in items}) == len(items)
    assert set(Counter(item.benchmark for item in items)) == set(sources)


def test_a_clone_with_parts_beside_the_whole_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "rm-bench", rm_row(0), file="data/chat_filtered.json")
    write(tmp_path, "rm-bench", rm_row(0), rm_row(1), file="data/total_dataset.json")
    assert len(load_benchmark("rm-bench", tmp_path)) == 18


def test_an_export_is_read_by_the_name_of_its_split(tmp_path: Path) -> None:
    file = tmp_path / "filtered.jsonl"
    file.write_text(json.dumps(bench_row(0)) + "\n")
    assert len(load_benchmark("reward-bench", tmp_path)) == 1
    file.rename(tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match=r"expected a file filtered with one of .jsonl, .*; got \['mine.jsonl'\]"):
        load_benchmark("reward-bench", tmp_path)


@pytest.mark.parametrize("count", [True, float("inf"), float("nan"), "1", 0.5])
def test_a_count_that_is_no_whole_number_names_the_row(tmp_path: Path, count: object) -> None:
    (tmp_path / "test.jsonl").write_text(
        json.dumps(bench_2_row("1", num_correct=count)).replace("Infinity", "1e999").replace("NaN", "null") + "\n"
    )
    with pytest.raises(ValueError, match=r"test.jsonl, line 1: expected (a whole number of )?chosen"):
        load_benchmark("reward-bench-2", tmp_path)


@pytest.mark.parametrize("subset", [["math-prm"], None, 3, {"a": 1}])
def test_a_subset_that_is_no_text_is_one_clear_error(tmp_path: Path, subset: object) -> None:
    (tmp_path / "filtered.jsonl").write_text(json.dumps(bench_row(0, subset)) + "\n")
    with pytest.raises(ValueError, match="line 1: subset: expected one of alpacaeval-easy"):
        load_benchmark("reward-bench", tmp_path)
