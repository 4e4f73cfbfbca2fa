"""The inputs of `fuzz`, made from a random state: right ones, and ones with one fault that is known."""

import contextlib
import copy
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzz import Case, Misread, Told
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

import run_notebook
from schema import PROFILE, read_profile
from stale import stale_outputs
from tension_utils import command, config
from tension_utils.adoption import adopt_run
from tension_utils.artifacts import (
    MANIFEST,
    TABLES,
    StageRecord,
    file_hash,
    find_runs,
    read_manifest,
    read_table,
    write_csv,
    write_table,
)
from tension_utils.benchmarks.layouts import REWARD_BENCH, REWARD_BENCH_2, RM_BENCH
from tension_utils.benchmarks.load import load_benchmark
from tension_utils.config import Run, check_name, list_runs
from tension_utils.data import DataConfig, pair, read_split
from tension_utils.evaluation import score_items
from tension_utils.masking import NeuronMask
from tension_utils.models import load_reward_model, load_tokenizer, save_reward_model
from tension_utils.neurons import NeuronSet
from tension_utils.pair_layouts import Turn
from tension_utils.scores import NeuronScores, load_view, own_scores
from tension_utils.stages import training_data
from tension_utils.toy.model import train_tokenizer
from tension_utils.toy.world import ToyConfig, write_corpus, write_world

ROOT = Path(__file__).resolve().parents[1]

WORDS = ("bread", "wait", "flour", "Größe", "水", "خبز", "🙂", "a", "x=1", "<b>bold</b>", "$x_1$", "=1+1")
WORDS += ("line\nbreak", "{curly}", "\\back", "'quote'", "%s", "zero\0byte")

NO_TEXT = (True, False, 3, 2.5, -1, {}, [], ["a"], [None], {"text": "a"}, [[["a"]]], 2**70)

NO_COUNT = (None, True, False, "2", "", 1.5, -3, [], [1], {}, float("inf"), float("-inf"), float("nan"), 2**70, 1e308)

NO_LABEL = (7, *(value for value in NO_COUNT if value != -3))  # which HelpSteer3 has

NO_NAME = ("", " ", "..", ".", "/", "a b", "a\0b", "$x$", "-a", "a\nb", "<b>", "a;b", "é", "a'b", "~", "%s", "../..")

DEEP = 100_000  # levels

BOMB = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}]" for a, b in pairwise("abcdefghi"))


def text(rng: random.Random) -> str:
    """Return a few words of many scripts, without surrounding white space."""
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 6))).strip() + str(rng.randint(0, 10**6))


def deep(levels: int = DEEP) -> str:
    """Return the text of a list in a list in a list."""
    return "[" * levels + "]" * levels


def expect(found: object, wanted: object) -> None:
    """Raise `Misread` where a right input was read as something else."""
    if found != wanted:
        raise Misread(f"wanted {str(wanted)[:150]!r}, got {str(found)[:150]!r}")


# Rows and their files


def message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def hh(q: str, a: str) -> str:
    return f"\n\nHuman: {q}\n\nAssistant: {a}"


def messages_of(q: str, a: str) -> list:
    return [message("user", q), message("assistant", a)]


# Layout -> a row that says: to q, a is better than b.
PAIR_LAYOUTS: dict[str, Callable[[str, str, str], dict]] = {
    "dialogues": lambda q, a, b: {"chosen": hh(q, a), "rejected": hh(q, b)},
    "dialogues with a prompt": lambda q, a, b: {"prompt": q, "chosen": hh(q, a), "rejected": hh(q, b)},
    "explicit prompt": lambda q, a, b: {"prompt": q, "chosen": a, "rejected": b},
    "messages": lambda q, a, b: {"chosen": messages_of(q, a), "rejected": messages_of(q, b)},
    "messages with a prompt": lambda q, a, b: {
        "prompt": [message("user", q)],
        "chosen": [message("assistant", a)],
        "rejected": [message("assistant", b)],
    },
    "PKU-SafeRLHF": lambda q, a, b: {"prompt": q, "response_0": b, "response_1": a, "better_response_id": 1},
    "HelpSteer3": lambda q, a, b: {
        "context": [message("user", q)],
        "response1": a,
        "response2": b,
        "overall_preference": -2,
    },
    "SHP": lambda q, a, b: {"history": q, "human_ref_A": b, "human_ref_B": a, "labels": 0},
}

NEEDED = {
    "dialogues": ("chosen", "rejected"),
    "dialogues with a prompt": ("chosen", "rejected"),
    "explicit prompt": ("prompt", "chosen", "rejected"),
    "messages": ("chosen", "rejected"),
    "messages with a prompt": ("prompt", "chosen", "rejected"),
    "PKU-SafeRLHF": ("prompt", "response_0", "response_1"),
    "HelpSteer3": ("context", "response1", "response2"),
    "SHP": ("history", "human_ref_A", "human_ref_B"),
}

LABELS = {"PKU-SafeRLHF": "better_response_id", "HelpSteer3": "overall_preference", "SHP": "labels"}

NO_DIALOGUES = ("x" + hh("q", "a"), hh("q", "a") + "\n\nHuman: more", hh("another", "a"), "\n\nAssistant: a", "a", "")

NO_MESSAGES = (["a"], [None], [3], [{}], [{"role": "user"}], [message("tool", "a")], [message("", "a")], [])
NO_MESSAGES += ([message(None, "a")], [message(["user"], "a")], [message("USER", "a")], [message("user", "q")])
NO_MESSAGES += ([message("assistant", 3)], [message("assistant", None)], [[message("user", "q")]], "a", {})

FORMATS = (".jsonl", ".jsonl.gz", ".json", "lines.json", ".parquet")


def spoiled_pair(rng: random.Random, layout: str, is_json: bool) -> tuple[str, dict]:
    """Return a fault, and a row of pairs with it."""
    make, q, a, b = PAIR_LAYOUTS[layout], text(rng), text(rng) + "a", text(rng) + "b"
    row = make(q, a, b)
    faults = {
        "missing": lambda: row.pop(rng.choice(NEEDED[layout])),
        "no text": lambda: row.update({rng.choice(NEEDED[layout]): rng.choice(NO_TEXT if is_json else STORABLE)}),
        "same": lambda: row.update(make(q, a, a)),
        "empty": lambda: row.update(make(q, *rng.sample(["", b], 2))),
        "blank": lambda: row.update(make(q, *rng.sample([" \n", b], 2))),
    }
    if label := LABELS.get(layout):
        faults["label"] = lambda: row.update({label: rng.choice(NO_LABEL if is_json else (7, 2.5, "1", True))})
        faults["no label"] = lambda: row.pop(label)
    if layout.startswith("dialogues"):
        faults["no dialogue"] = lambda: row.update({rng.choice(NEEDED[layout]): rng.choice(NO_DIALOGUES)})
    if layout.startswith("messages") and is_json:
        faults["no messages"] = lambda: row.update({rng.choice(("chosen", "rejected")): rng.choice(NO_MESSAGES)})
    if is_json:
        faults["surrogate"] = lambda: row.update(make(q, a + "\ud83d", b))
    fault = rng.choice(list(faults))
    faults[fault]()
    return f"{layout}: {fault}: {json.dumps(row)[:200]}", row


STORABLE = (True, 3, 2.5, ["a"], {"text": "a"})  # by parquet


def write_rows(path: Path, rows: list, form: str) -> Path:
    """Write rows, and return their file."""
    path = path.with_name(path.name + form.removeprefix("lines"))
    if form == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    lines = [json.dumps(row) for row in rows]
    content = "[" + ",\n".join(lines) + "]" if form == ".json" else "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(content.encode()) if form == ".jsonl.gz" else content.encode())
    return path


def place_of(form: str, number: int) -> str:
    """Return how an error names a row, which is 1-based."""
    return f"{'row' if form in ('.json', '.parquet') else 'line'} {number}"


def has_place(form: str, row: dict) -> bool:
    """Say whether an error can name a row: a list with a number that JSON does not have is none as a whole."""
    return form != ".json" or not any(word in json.dumps(row) for word in ("NaN", "Infinity"))


# What is no row, in the text of a file of lines or of a list.
NO_ROWS = ("null", "3", '"text"', "true", "[]", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1', '{"a" 1}', "{'a': 1}")
NO_ROWS += ("\x00", "{}{}", '{"a": ' + "9" * 5000 + "}", '{"a": 1e999}', '"\\ud800"', "-", "[1, 2", "\ufeff\ufeff{}")
NO_ROWS += (deep(), '{"a": ' + deep() + "}", '{"chosen": "x", "chosen": "y"}', '{"a": {"b": 1, "b": 2}}')


def spoil_lines(rng: random.Random, path: Path, form: str) -> tuple[str, str]:
    """Put what is no row among the rows of a file; return the fault, and how an error names it."""
    packed = path.read_bytes()
    twice = rng.random() < 0.2  # a key of a right row
    content = (gzip.decompress(packed) if form == ".jsonl.gz" else packed).decode()
    bad = rng.choice(NO_ROWS)
    if form == ".json":
        rows = content.removeprefix("[").removesuffix("]").split(",\n")
        at = rng.randrange(len(rows))
        bad = '{"id": 1, "id": 1, ' + rows[at][1:] if twice else bad
        rows[at] = bad
        content = "[" + ",\n".join(rows) + "]"
    else:
        rows = content.splitlines()
        at = rng.randrange(len(rows))
        bad = '{"id": 1, "id": 1, ' + rows[at][1:] if twice else bad
        rows[at] = bad
        content = "\n".join(rows)
    path.write_bytes(gzip.compress(content.encode()) if form == ".jsonl.gz" else content.encode())
    is_list = form == ".json" or (path.suffix == ".json" and at == 0 and bad.startswith("["))
    return f"{form}: {bad[:60]}", "" if is_list else f"line {at + 1}"


def spoil_file(rng: random.Random, path: Path, form: str) -> str:
    """Damage a file of rows as a whole, and return how."""
    data = path.read_bytes()
    cut = data[: rng.randrange(1, max(2, len(data) - 3))]
    faults = {
        "empty": b"",
        "blank": b" \n\n",
        "no UTF-8": b'{"a": "\xff\xfe"}\n' + data,
        "UTF-16": "{}".encode("utf-16"),
        "NUL": b"\x00" * 64,
        "other bytes": rng.randbytes(200),
        "html": b"<!DOCTYPE html><html>404</html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "csv": b"chosen,rejected\na,b\n",
        "too long": data + rng.choice([b"]", b"x", b"{"]),
    }
    if form in (".jsonl.gz", ".parquet", ".json"):
        faults["cut"] = cut
    if form == ".jsonl.gz":
        at = rng.randrange(12, len(data) - 8)
        faults["flipped"] = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        faults["empty inside"] = gzip.compress(b"")
    if form == ".parquet":
        faults["cut at its start"] = data[rng.randrange(1, len(data)) :]
    fault = rng.choice(list(faults))
    path.write_bytes(faults[fault])
    return f"{form}: {fault}"


def spoil_folder(rng: random.Random, path: Path) -> tuple[str, str]:
    """Make it unclear or unknown which file is meant; return the fault, and what an error names."""
    faults = {
        "a backup beside": lambda: shutil.copy(path, path.with_name(path.name.replace(".", "-old.", 1))),
        "a copy beside": lambda: shutil.copy(path, path.with_name(path.name.replace(".", " (1).", 1))),
        "another case": lambda: shutil.copy(path, path.with_name(path.name.capitalize())),
        "a shard beside": lambda: shutil.copy(path, path.with_name(path.name.replace(".", "-00000-of-00001.", 1))),
        "shards missing": lambda: path.rename(path.with_name(path.name.replace(".", "-00001-of-00003.", 1))),
        "another name": lambda: path.rename(path.with_name("x" + path.name)),
        "csv": lambda: path.rename(path.with_name(path.name.split(".")[0] + ".csv")),
        "hidden": lambda: path.rename(path.with_name("." + path.name)),
        "gone": path.unlink,
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "a dangling link": lambda: (path.unlink(), path.symlink_to("nowhere")),
        "no folder": lambda: shutil.rmtree(path.parent),
    }
    fault = rng.choice(list(faults))
    faults[fault]()
    return fault, path.parent.name


def pair_files(rng: random.Random, folder: Path) -> Case:
    """A split of preference pairs in any layout and format."""
    layout, form = rng.choice(list(PAIR_LAYOUTS)), rng.choice(FORMATS)
    said = [(text(rng), text(rng) + "a", text(rng) + "b") for _ in range(rng.randint(2, 6))]
    rows = [PAIR_LAYOUTS[layout](*words) for words in said]
    (folder / "helpful-base").mkdir()
    path = folder / "helpful-base" / "train"
    way = rng.choice(["right"] * 3 + ["row"] * 4 + ["lines", "file", "folder"])
    fault, names = "", []
    if way == "row":
        at = rng.randrange(len(rows))
        fault, bad = spoiled_pair(rng, layout, form != ".parquet")
        rows = [bad] * len(rows) if form == ".parquet" else [*rows[:at], bad, *rows[at + 1 :]]
        names = [place_of(form, 1 if form == ".parquet" else at + 1)] * has_place(form, bad)
    path = write_rows(path, rows, form)
    names.append(path.name)
    if way == "lines" and form != ".parquet":
        fault, place = spoil_lines(rng, path, form)
        names.append(place)
    elif way == "file":
        fault = spoil_file(rng, path, form)
    elif way == "folder":
        fault, name = spoil_folder(rng, path)
        names = [name]
    elif not fault and form in (".jsonl", ".json") and rng.random() < 0.2:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # what Windows puts before UTF-8

    def read() -> None:
        split = read_split(str(folder), "helpful-base", "train")
        found = [(item.prompt, item.chosen, item.rejected) for item in split.items]
        expect(found, [((Turn("human", q),), (a,), (b,)) for q, a, b in said])

    return Case(fault, read, names)


# Benchmarks


def item_texts(rng: random.Random, n: int) -> list[str]:
    return [f"{text(rng)} {number}" for number in range(n)]


def reward_bench(rng: random.Random, number: int) -> dict:
    prompt, chosen, rejected = item_texts(rng, 3)
    row = {"id": number, "prompt": prompt, "chosen": chosen, "rejected": rejected}
    return row | {"subset": rng.choice(list(REWARD_BENCH))}


def reward_bench_2(rng: random.Random, number: int) -> dict:
    n, k = rng.randint(1, 3), rng.randint(1, 3)
    prompt, *responses = item_texts(rng, 1 + n + k)
    row = {"id": f"id{number}", "prompt": prompt, "chosen": responses[:n], "rejected": responses[n:]}
    return row | {"num_correct": n, "num_incorrect": k, "subset": rng.choice(list(REWARD_BENCH_2))}


def rm_bench(rng: random.Random, number: int) -> dict:
    prompt, *responses = item_texts(rng, 7)
    row = {"id": number, "prompt": prompt, "chosen": responses[:3], "rejected": responses[3:]}
    return row | {"domain": rng.choice(list(RM_BENCH))}


def rmb(rng: random.Random, number: int) -> dict:
    prompt, *answers = item_texts(rng, 4)
    best, *losers = [{"llm_name": "m", "answer": answer} for answer in answers]
    return {"conversation_input": [message("user", prompt)], "bon_best": best, "loser_list": losers}


def toy(rng: random.Random, number: int) -> dict:
    prompt, chosen, rejected = item_texts(rng, 3)
    row = {"prompt": [prompt], "chosen": [chosen], "rejected": [rejected], "subset": rng.choice(["s", "<b>s</b>"])}
    return row | {"group": "helpful", "direction": "none"}


# Benchmark -> a row, its file, the formats it is read in, and items per row.
BENCHMARKS: dict[str, tuple[Callable[[random.Random, int], dict], str, tuple[str, ...], int]] = {
    "reward-bench": (reward_bench, "filtered", FORMATS, 1),
    "reward-bench-2": (reward_bench_2, "data/test", FORMATS, 1),
    "rm-bench": (rm_bench, "total_dataset", FORMATS, 9),
    "rmb": (rmb, "BoN_set/Harmlessness/S1", (".json",), 1),
    "toy": (toy, "test", (".jsonl.gz",), 1),
}

COUNTS = ("num_correct", "num_incorrect")

CHOICES = ("subset", "domain", "group", "direction")


def spoiled_item(rng: random.Random, name: str, row: dict) -> str:
    """Put one fault into a row of a benchmark, and return what it is."""
    column = rng.choice(list(row))
    if column in COUNTS:
        row[column] = rng.choice([value for value in NO_COUNT if value is not None] + [9])
    elif column in CHOICES:
        markup = ["$x$", "a\nb", "a\0b", "\x1b[31m"] + ["unknown"] * (name != "toy" or column != "subset")
        row[column] = rng.choice([None, True, 3, [], ["a"], {}, "", " ", *markup])
    elif column == "id":
        row[column] = rng.choice([None, True, 1.5, "", " ", "a b", "a\nb", [], {}, [1], float("nan")])
    elif column == "conversation_input":
        row[column] = rng.choice([*NO_TEXT, "text", None, *(m for m in NO_MESSAGES if m != [message("user", "q")])])
    elif column == "loser_list":
        row[column] = rng.choice([[], {}, None, "text", 3, [3], [None], [{}], [{"answer": None}], [{"answer": ""}]])
    elif column == "bon_best":
        row[column] = rng.choice([[], {}, None, "text", 3, {"answer": 3}, {"answer": " "}, *row["loser_list"][:1]])
    elif isinstance(row[column], list):
        wrong = [[], {}, None, "text", 3, [3], [None], [""], [["a"]], [*row[column], None]]
        row[column] = rng.choice(wrong + ([] if name == "toy" else [row["rejected"] * (column == "chosen")]))
    else:
        row[column] = rng.choice([*NO_TEXT, None, "", " \n"])
    return f"{name}: {column} is {str(row[column])[:80]!r}"


def benchmark_files(rng: random.Random, folder: Path) -> Case:
    """A benchmark in its public layout."""
    name = rng.choice(list(BENCHMARKS))
    make, place, forms, n_items = BENCHMARKS[name]
    form = rng.choice(forms)
    rows = [make(rng, number) for number in range(1, rng.randint(3, 6))]
    way = rng.choice(["right"] * 3 + ["row"] * 5 + ["columns", "twice", "lines", "file", "folder"])
    fault, names, at = "", [], rng.randrange(len(rows))
    if way == "row" and form != ".parquet":
        fault = spoiled_item(rng, name, rows[at])
        names = [place_of(form, at + 1)] * has_place(form, rows[at])
    elif way == "columns":
        column = rng.choice([column for column in rows[0] if column != "loser_list"])
        rows = [{key: value for key, value in row.items() if key != column} for row in rows]
        fault = f"{name}: no column {column}"
    elif way == "twice" and name not in ("rmb", "toy"):
        rows[-1] = rows[0]
        fault, names = f"{name}: an id twice", [place_of(form, len(rows))]
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path = write_rows(path, rows, form)
    names.append(path.name)
    if not fault and way == "lines" and form != ".parquet":
        fault, line = spoil_lines(rng, path, form)
        names.append(line)
    elif way == "file":
        fault = spoil_file(rng, path, form)
    elif way == "folder" and name not in ("rmb", "toy"):
        fault, _ = spoil_folder(rng, path)
        names = [folder.name]

    def read() -> None:
        items = load_benchmark(name, folder, unusable_items="error")
        expect(len(items), n_items * len(rows))
        key = "conversation_input" if name == "rmb" else "prompt"
        said = [row[key] if isinstance(row[key], str) else row[key][-1] for row in rows for _ in range(n_items)]
        said = [one["content"] if isinstance(one, dict) else one for one in said]
        expect([item.prompt[-1].content for item in items], [one if name == "toy" else one.strip() for one in said])

    return Case(fault, read, names)


# Profiles, configurations and parameters, all by their schemas


def at_schema(schema: dict, part: dict) -> dict:
    """Follow a reference of a JSON schema."""
    return at_schema(schema, schema["$defs"][part["$ref"].split("/")[-1]]) if "$ref" in part else part


def no_value(rng: random.Random, part: dict) -> Any:
    """Return a value that a JSON schema does not allow."""
    kind = part.get("type")
    if "enum" in part or "const" in part:
        return rng.choice([None, True, 3, "unknown", "", [], ["zero"], {}, "$x$", "a\0b", " "])
    if kind == "integer":
        low = part.get("minimum", 0) - 1
        return rng.choice([low, *(value for value in NO_COUNT if value != -3)])
    if kind == "number":
        return rng.choice([None, True, False, "1", "", [], {}, [0.5], -1e-9, -5, *map(float, ("inf", "-inf", "nan"))])
    if kind == "string":
        return rng.choice([None, True, 3, 1.5, [], {}, ["a"], ""])
    if kind == "boolean":
        return rng.choice([None, 0, 1, "true", [], {}])
    if kind == "array":
        return rng.choice([None, True, 3, "text", {}, [None], [[]], [True]])
    return rng.choice([None, True, 3, "text", [], ["a"], [{}]])


def spots(schema: dict, part: dict, values: dict, path: tuple = ()) -> list[tuple[tuple, dict]]:
    """Return (path, schema) of every value of a mapping, and of the values inside it."""
    found = []
    for key, value in values.items():
        below = at_schema(schema, part["properties"][key])
        found.append(((*path, key), below))
        if isinstance(value, dict) and "properties" in below:
            found += spots(schema, below, value, (*path, key))
    return found


def put(values: dict, path: tuple, value: object) -> None:
    """Set a value inside a mapping."""
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value


@cache
def profiles() -> tuple[dict, list[dict]]:
    """Return the schema of profiles, and those of the project."""
    names = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
    return PROFILE.json_schema(), [read_profile(ROOT, name) for name in names]


NO_YAML = ("", "3", "text", "[a]", "null", "a: [", "a: b: c", "\ta: 1", "{" * 3000, "- " * 3000 + "a", "[" * 50000)
NO_YAML += ("seeds: [0]\nseeds: [1]", BOMB, "a: &x 1\nb: *x", "<<: 3", "? [a]\n: b", "a: !unknown 1", "a: \x01", "%x")
NO_YAML += (
    "a: 'b",
    "@a: 1",
    "x: !!int x",
    "x: !!float y",
    "x: !!timestamp z",
    "x: !!bool z",
    "2020-13-45: 1",
    "a: \x00",
)
NO_YAML += ("--- a\n--- b", "!!python/object:os.x {}")


CONTRADICTIONS = [
    ("base_models", models) for models in (["a/x", "b/x"], ["../.."], ["a/ "], ["a/.."], ["a\0b"], ["$x$"])
]
CONTRADICTIONS += [("seeds", [1, 1]), ("seeds", [2**32]), ("seeds", [0, True]), ("objectives", ["helpful", "helpful"])]
CONTRADICTIONS += [
    ("masked_training", {"seeds": [77]}),
    ("curve", {"n_pairs": [3], "seeds": [0], "mixture_pairs": 0}),
    ("ablate", {"benchmarks": ["rmb"] * 2}),
    ("arms", ["helpful"]),
    ("objectives", ["helpful"]),
    ("identify", {"score_kinds": ["rms"]}),
    ("identify", {"scopes": ["last"]}),
    ("own_pair", {"prompts": ["a"]}),
]


def profile_files(rng: random.Random, folder: Path) -> Case:
    """A profile in `config/`."""
    schema, known = profiles()
    values = copy.deepcopy(rng.choice(known))
    (folder / "config").mkdir()
    name, fault, names = "mine", "", []
    way = rng.choice(["right"] * 3 + ["value"] * 6 + ["key", "text", "bytes", "name", "contradiction"])
    if way == "value":
        path, part = rng.choice(spots(schema, schema, values))
        value = no_value(rng, part)
        put(values, path, value)
        fault, names = f"{path} is {value!r}", [str(path[-1])]
    elif way == "key":
        mappings = [path for path, part in spots(schema, schema, values) if "properties" in part]
        path = (
            *rng.choice([(), *mappings]),
            rng.choice(["seedz", "objectivs", "n_item", "$x$", "a\0b", "", "profile"]),
        )
        put(values, path, 0)
        fault, names = f"unknown {path}", [path[-1].replace("\0", "\\x00")]
    elif way == "contradiction":
        key, value = rng.choice(CONTRADICTIONS)
        values |= {key: value}
        fault, names = f"{key} is {value!r}", [key]
    else:
        values |= {"seeds": rng.sample(range(2**32), rng.randint(1, 4)), "threads": rng.randint(1, 64)}
        for section in {"masked_training", "curve"} & set(values):
            values[section] |= {"seeds": values["seeds"][:1]}
    content = yaml.safe_dump(values, allow_unicode=rng.random() < 0.5).encode()
    if way == "text":
        content = rng.choice(NO_YAML).encode()
        fault = f"the text {content[:80].decode()!r}"
    elif way == "bytes":
        content = rng.choice(
            [b"\xff\xfe", b"a: \xe9\n", b"\x00\x01", "a: 1".encode("utf-16-le")[1:], rng.randbytes(99) + b"\xff"]
        )
        fault = repr(content[:20])
    elif way == "name":
        name = rng.choice(["a b", "-a", "a;b", "$(x)", "é", "a'b", "a\nb", ".a"])
        fault = f"a file's name {name!r}"
    (folder / "config" / f"{name}.yaml").write_bytes(content)
    names.append("config/mine.yaml" if name == "mine" else "config/")
    return Case(fault, lambda: expect(read_profile(folder, name), values), names)


CLASSES = (config.DataConfig, config.TrainConfig, config.EngineConfig, config.EvaluateConfig, config.IdentifyConfig)
CLASSES += (config.AblateConfig, config.Arm, ToyConfig)


@cache
def schema_of(kind: type) -> dict:
    return TypeAdapter(kind).json_schema()


def configurations(rng: random.Random, folder: Path) -> Case:
    """The choices of a stage, as notebooks and programs make them."""
    kind = rng.choice(CLASSES)
    schema = schema_of(kind)
    whole_schema = at_schema(schema, schema)
    name = rng.choice(list(whole_schema["properties"]))
    part = at_schema(schema, whole_schema["properties"][name])
    if rng.random() < 0.1:
        name = rng.choice(["seedz", "n_item", "$x$"])
        return Case(f"{kind.__name__}: unknown {name}", lambda: kind(**{name: 1}), [name])
    if rng.random() < 0.2:
        value = getattr(kind(), name)
        return Case("", lambda: expect(getattr(kind(**{name: value}), name), value))
    value = no_value(rng, part)
    return Case(f"{kind.__name__}: {name} is {value!r}", lambda: kind(**{name: value}), [name])


@cache
def notebooks() -> list[dict]:
    """Return the parameters that each notebook declares."""
    read = run_notebook.read_notebook
    return [run_notebook.declared_parameters(read(path)) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


NO_TYPE = {
    "str": (None, True, 3, 1.5, [], {}, ["a"]),
    "int": (None, True, "1", "", 1.5, [], {}, [1], "1e3"),
    "float": (None, True, "1", "", [], {}, [1.0], "1e-4"),
    "list": (None, True, 3, "text", {}, {"a": 1}),
    "dict": (None, True, 3, "text", [], ["a"]),
    "bool": (None, 0, 1, "true", [], {}),
}

NO_MAPPINGS = ("[]", "3", '"text"', "[1, 2]", '{"seeds": [0], "seeds": [1]}', '{"a": 1', "{'a': 1}", deep(), "3: 4")
NO_MAPPINGS += ('{"a": ' + deep() + "}", '{"fraction": NaN}', '{"fraction": Infinity}', "a: [", "\ta: 1", "a: 1\na: 2")
NO_MAPPINGS += ("? [a]\n: b", "!!python/object:os.x {}", "a: \x00", "- " * 5000 + "a", "{" * 5000, '{"a": 1}}')
NO_MAPPINGS += ("true: 1", "null: 1", "a: &x 1\nb: *x", BOMB)


def parameters(rng: random.Random, folder: Path) -> Case:
    """The parameters of a notebook, as text or as a file."""
    declared = rng.choice(notebooks())
    values = {name: declared[name].default for name in rng.sample(list(declared), rng.randint(1, len(declared)))}
    form = rng.choice(["text", "text.yaml", "file.json", "file.yaml"])
    way = rng.choice(["right"] * 2 + ["type"] * 4 + ["name", "form", "bytes"])
    fault, names = "", ["p." + form.split(".")[1] if form.startswith("file") else "--parameters"]
    if way == "type":
        name = rng.choice(list(values))
        values[name] = rng.choice(NO_TYPE[declared[name].annotation.split("[")[0]])
        fault, names = f"{name} is {values[name]!r}", [name]
    elif way == "name":
        name = rng.choice(["seedz", "objectivs", "profile", "$x$", "", " "])
        values[name], fault, names = 1, f"unknown {name!r}", [repr(name)]
    is_json = form in ("text", "file.json")
    content = (json.dumps(values) if is_json else yaml.safe_dump(values)).encode()
    if way == "form":
        wanted = [one for one in NO_MAPPINGS if not is_json or one[:1] in '[{3"']
        content = rng.choice(wanted).encode()
        fault = f"{form}: {content[:60].decode()}"
        names = [] if content[:1] == b"{" and not is_json else names  # a mapping of YAML, of unknown names
    elif way == "bytes" and form.startswith("file"):
        content = b"a: \xff\xfe"
        fault = "no UTF-8"
    path = folder / f"p.{form.split('.')[-1]}" if form.startswith("file") else None
    if path:
        path.write_bytes(content)

    def read() -> None:
        given = run_notebook.read_parameters(None if path else content.decode(), path)
        found = run_notebook.check_parameters(declared, given)
        expect({name: found[name] for name in values}, values)

    return Case(fault, read, names)


# Names and folders of runs


def run_names(rng: random.Random, folder: Path) -> Case:
    """What names a run, and the folders below a root of runs."""
    good = {"base_models": ["toy", "owner/Name-1.2"], "objectives": ["helpful", "harmless"], "seeds": [0, 2**32 - 1]}
    bad_name = rng.choice(NO_NAME)
    wrong = {
        "base_models": [
            [f"a/{bad_name or '..'}"],  # a folder may end in a slash
            [bad_name],
            [None],
            [True],
            [3],
            [[]],
            [],
            "toy",
            None,
            3,
            {},
            ["a/x", "b/x"],
        ],
        "objectives": [["kind"], [None], [[]], [True], [], "helpful", None, 3, {}, ["helpful"] * 2, ["helpful", ""]],
        "seeds": [
            [-1],
            [True],
            ["0"],
            [1.5],
            [2**32],
            [None],
            [[]],
            [],
            "01",
            None,
            3,
            {},
            [1, 1],
            [float("nan")],
            [1.0],
        ],
    }
    way = rng.choice(["right", "list", "list", "list", "name", "stray"])
    if way == "list":
        name = rng.choice(list(wrong))
        value = rng.choice(wrong[name])
        given = good | {name: value}
        return Case(f"{name} is {value!r}", lambda: list_runs(folder, **given), [name.removesuffix("s")])
    if way == "name":
        return Case(f"the name {bad_name!r}", lambda: check_name(bad_name), [])
    run = Run(folder, "toy", rng.choice(list(config.ARMS)), rng.randrange(2**32))
    run.folder.mkdir(parents=True)
    if way == "stray":
        for _ in range(3):
            base = rng.choice(["toy", "a b", ".ipynb_checkpoints", "é", "-x"])
            seed = rng.choice(
                ["seed", "seedx", "seed-1", "seed\u00b2", "seed007", f"seed{2**40}", ".seed1", "seed1.bak"]
            )
            (folder / base / rng.choice([run.objective, "kind", ".helpful"]) / seed).mkdir(parents=True, exist_ok=True)

    def read() -> None:
        expect(find_runs(folder), [run])
        expect(run.folder.resolve().is_relative_to(folder.resolve()), True)
        expect(len(list_runs(folder, **good)), 8)

    return Case("", read)


# Model folders, and what is made of them


@cache
def micro(scratch: Path) -> tuple[Path, Path]:
    """Return the folder of a reward model of two small layers, and that of preference pairs, made once."""
    place = scratch / "micro"
    write_world(place / "world", ToyConfig(n_train=20, n_test=10, n_bench=10))
    tokenizer = train_tokenizer(write_corpus(np.random.default_rng(0), 100))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape = LlamaConfig(**sizes, num_key_value_heads=1, vocab_size=len(tokenizer), num_labels=1, pad_token_id=0)
    save_reward_model(LlamaForSequenceClassification(shape), tokenizer, place / "model")
    return place / "model", place / "world" / "hh-rlhf"


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")

NO_SIZE = ("x", [], {}, [2], 0, -1, 1.5, 2**40, 10**6, float("nan"), float("inf"), True, "16", 3)

NO_CONFIG = {
    **dict.fromkeys(SIZES, NO_SIZE),
    "num_key_value_heads": ("x", [], {}, -1, 0, 1.5, 7),
    "max_position_embeddings": ("x", [], {}, -1, 1.5, float("nan"), "16"),
    "model_type": (None, 3, [], {}, "bert", "t5", "unknown", "", "Llama"),
    "hidden_act": ("nonsense", None, 3, [], {}),
    "rms_norm_eps": ("x", [], {}, None),
    "rope_parameters": ({"rope_type": "nonsense"}, {"rope_type": 3}, "x", [], {"rope_type": "yarn"}),
    "pad_token_id": ("x", [], {}, 2**40, 1.5),
    "dtype": ("float999", 3),
    "head_dim": ("x", [], -1, 0, 7, 1.5),
    "auto_map": ({"AutoConfig": "code.Config"},),
}

NO_JSON = ("", "null", "[]", "3", '"x"', "{", "{'a': 1}", deep(), '{"a": ' + deep() + "}", "\x00", "<html>", "{}}")
NO_JSON += ("{}", '{"a": NaN}', '{"a": 1, "a": 2}', "version https://git-lfs.github.com/spec/v1\n")


def spoil_tensors(rng: random.Random, path: Path) -> str:
    """Damage a file of weights, and return how."""
    data, tensors = path.read_bytes(), load_file(path)
    start = 8 + int.from_bytes(data[:8], "little")
    name = rng.choice(sorted(tensors))
    changed = {
        "a tensor missing": lambda: tensors.pop(name),
        "a tensor more": lambda: tensors.update(extra=np.ones(3, np.float32)),
        "another shape": lambda: tensors.update({name: np.ones((3, *tensors[name].shape), np.float32)}),
        "another name": lambda: tensors.update(other=tensors.pop(name)),
        "two labels": lambda: tensors.update({"score.weight": np.ones((2, 16), np.float32)}),
        "no numbers": lambda: tensors.update({name: np.full_like(tensors[name], rng.choice([np.nan, np.inf]))}),
        "whole numbers": lambda: tensors.update({name: tensors[name].astype(np.int64)}),
        "none": tensors.clear,
    }
    at = rng.randrange(start)
    bytes_of = {
        "cut": data[: rng.randrange(len(data))],
        "cut header": data[: rng.randrange(start)],
        "too long": data + b"x" * 8,
        "header flipped": data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
        "header of any size": rng.randbytes(8) + data[8:],
        "header deep": (len(deep())).to_bytes(8, "little") + deep().encode(),
        "empty": b"",
        "other bytes": rng.randbytes(100),
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "html": b"<!DOCTYPE html>" * 20,
    }
    fault = rng.choice([*changed, *bytes_of])
    if fault in changed:
        changed[fault]()
        save_file(tensors, path, {"format": "pt"})
    else:
        path.write_bytes(bytes_of[fault])
    return f"{path.name}: {fault}" + f" ({name})" * (fault in changed)


def spoil_tokenizer(rng: random.Random, folder: Path) -> str:
    """Damage a tokenizer, and return how."""
    path = folder / "tokenizer.json"
    content = path.read_text(encoding="utf-8")
    values = json.loads(content)
    part = rng.choice(
        ["model", "model.vocab", "model.merges", "pre_tokenizer", "decoder", "added_tokens", "model.type"]
    )
    where, _, key = part.rpartition(".")
    (values[where] if where else values)[key] = rng.choice(["x", 3, True, {"type": "nonsense"}, [3], [None]])
    texts = [
        *NO_JSON,
        content[: rng.randrange(len(content))],
        json.dumps(values),
        json.dumps(values),
        '{"version": "1.0"}',
    ]
    bad = rng.choice(texts)
    path.write_text(bad, encoding="utf-8")
    return f"tokenizer.json: {part if bad == json.dumps(values) else bad[:40]!r}"


def spoil_model(rng: random.Random, folder: Path) -> str:
    """Damage a model's folder, and return how."""
    way = rng.choice(["config"] * 4 + ["json", "tensors", "tensors", "tokenizer", "tokenizer", "file", "settings"])
    path = folder / "config.json"
    if way == "config":
        name = rng.choice(list(NO_CONFIG))
        value = rng.choice(NO_CONFIG[name])
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
        return f"config.json: {name} is {value!r}"
    if way == "json":
        path = folder / rng.choice(["config.json", "tokenizer_config.json"])
        bad = rng.choice([one for one in NO_JSON if one != "{}"])
        path.write_text(bad)
        return f"{path.name}: {bad[:40]!r}"
    if way == "tensors":
        return spoil_tensors(rng, folder / "model.safetensors")
    if way == "tokenizer":
        return spoil_tokenizer(rng, folder)
    if way == "settings":
        path, name = folder / "tokenizer_config.json", rng.choice(["eos_token", "pad_token", "tokenizer_class"])
        value = rng.choice([3, [], True, {"content": 3}, ["a"]])
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
        return f"tokenizer_config.json: {name} is {value!r}"
    path = folder / rng.choice(["config.json", "model.safetensors", "tokenizer.json"])
    path.unlink()
    how = rng.choice(["gone", "a link to nothing", "a folder", "pickled"])
    if how == "a link to nothing":
        path.symlink_to("nowhere")
    elif how == "a folder":
        path.mkdir()
    elif how == "pickled":
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    return f"{path.name}: {how}"


def load_model(folder: Path) -> None:
    """Load tokenizer and model, and have one pair scored."""
    tokenizer, model = load_tokenizer(folder), load_reward_model(folder)
    (found,) = score_items(model, tokenizer, [pair("Hi", chosen="Hello there", rejected="No")], progress=False)
    expect(np.isfinite(found.margin), True)


def model_folders(rng: random.Random, folder: Path) -> Case:
    """A reward model in a folder."""
    source, _ = micro(folder.parent)
    place = shutil.copytree(source, folder / "some-model")
    if rng.random() < 0.15:
        (place / rng.choice(["README.md", ".DS_Store", "notes.txt"])).write_text("x")
        return Case("", lambda: load_model(place))
    fault = spoil_model(rng, place)
    return Case(fault, lambda: load_model(place), ["finite" if "no numbers" in fault else "some-model"])


def adoptions(rng: random.Random, folder: Path) -> Case:
    """A reward model that becomes a run."""
    source, data = micro(folder.parent)
    place = shutil.copytree(source, folder / "some-model")
    options = {"template": rng.choice([None, "hh", "published"]), "base_model": rng.choice(["", str(source)])}
    run, fault, names = Run(folder / "runs", "micro", "helpful", 0), "", ["some-model"]
    way = rng.choice(["right", "model", "model", "option", "data", "folder"])
    length = 64
    if way == "model":
        fault = spoil_model(rng, place)
        names = ["finite" if "no numbers" in fault else "some-model"]
    elif way == "option":
        name, value = rng.choice([("template", one) for one in ("chat", "unknown", "", 3, [], True)]
            + [("base_model", one) for one in ("./nowhere", "/no/where", 3, [], str(folder))])  # fmt: skip
        options[name], fault, names = value, f"{name} is {value!r}", [name if name == "template" else ""]
    elif way == "data":
        length, fault, names = 10**6, "longer than the context", ["max_length"]
    elif way == "folder":
        (run.folder / "reward_model").mkdir(parents=True)
        fault, names = "a model that was trained here", [str(run.folder)]

    def read() -> None:
        adopt_run(run, place, DataConfig(source=str(data), max_length=length), **options)
        expect(training_data(run).source, str(data))
        load_model(run.folder / "reward_model")

    return Case(fault, read, names)


# What stages write


@cache
def stage_folder(scratch: Path) -> Path:
    """Return the folder of a run with a manifest, a table, neuron scores, a view of them and a mask, made once."""
    run = Run(scratch / "stage", "micro", "helpful", 0)
    run.folder.mkdir(parents=True)
    settings = {"data": {"source": "pairs", "subsets": {"helpful": ["a"], "harmless": ["b"]}, "max_length": 64}}
    values = {
        "base_model": "micro",
        "objective": "helpful",
        "seed": 0,
        "benchmark": "toy",
        "subset": "s",
        "cluster": "c",
    }
    values |= {"group": "helpful", "direction": "none", "style": "", "is_truncated": False, "item_id": ["i", "j"]}
    numbers = {name: np.float32(0.5) for name in TABLES["evaluation"] if name not in values}
    counts = {name: 3 for name in numbers if name.startswith("n_") or name.endswith("_length")}
    write_table(run.folder / "evaluation.parquet", pd.DataFrame(values | numbers | counts))
    rng = np.random.default_rng(0)
    found = NeuronScores({("rms", "both", "all"): rng.random((2, 24), np.float32)}, "down_input", 2, 20)
    (run.folder / "score_views").mkdir()
    for name in ("neuron_scores", "score_views/gate"):
        found.save(run.folder / f"{name}.safetensors")
    NeuronMask(NeuronSet(rng.random((2, 24)) < 0.5)).save(run.folder / "mask.safetensors")
    facts = {"device": "cpu", "n_tokens": 1, "inputs": {}}
    StageRecord(run.folder, "train", settings, "a").finish("mask.safetensors", **facts)
    StageRecord(run.folder, "evaluate", {"evaluate": {}}, "b").finish("evaluation.parquet", **facts)
    record = StageRecord(run.folder, "identify", {"identify": {}}, "c")
    record.finish("neuron_scores.safetensors", beside=("score_views/gate.safetensors",), **facts)
    return run.folder


def spoil_manifest(rng: random.Random, path: Path) -> str:
    """Damage a manifest, and return how."""
    content = path.read_text()
    values = json.loads(content)
    section, key = rng.choice(list(values)), rng.choice(["config", "artifact", "artifact_hash", "beside", "inputs"])
    way = rng.choice(["text", "cut", "section", "key", "key", "key", "gone", "no key"])
    if way == "text":
        content = rng.choice([one for one in NO_JSON if one != "{}"])
    elif way == "cut":
        content = content[: rng.randrange(1, len(content) - 3)]
    elif way == "gone":
        del values["train"]
        content = json.dumps(values)
    elif way == "section":
        values[section] = rng.choice([None, [], 3, "x", True])
        content = json.dumps(values)
    elif way == "no key":
        del values[section][key := rng.choice(["config", "artifact_hash"])]
        content = json.dumps(values)
    else:
        values[section][key] = rng.choice([None, 3, True, [], [3], "" if key != "config" else "x", {"a": 3}])
        if key == "artifact" and rng.random() < 0.5:
            values[section][key] = rng.choice(["../x", "/etc/passwd", "a\0b", ".."])
        if key in ("beside", "inputs") and rng.random() < 0.5:
            values[section][key] = {rng.choice(["../x", "a\0b", "/etc/passwd"] if key == "beside" else ["a"]): 3}
        if key == "config" and values[section][key] == {"a": 3} and section != "train":
            values[section][key] = None
        content = json.dumps(values)
    path.write_text(content)
    return (
        f"{MANIFEST}: {way} {section} {key if way in ('key', 'no key') else ''} {content[:60] if way == 'text' else ''}"
    )


def spoil_table(rng: random.Random, path: Path) -> str:
    """Damage a table, and return how."""
    table, data = pd.read_parquet(path), path.read_bytes()
    column = rng.choice(list(table))
    is_number = pd.api.types.is_numeric_dtype(table[column])
    other = rng.choice(["x", None, [1]] if is_number else [3, 1.5, [1], None])
    fault = rng.choice(["column missing", "column more", "type", "column renamed", "bytes", "no rows"])
    if fault == "bytes":
        path.write_bytes(rng.choice([b"", b"x" * 99, data[: rng.randrange(len(data))], b"PAR1" * 9, data[9:]]))
        return f"{path.name}: bytes"
    tables = {
        "column missing": lambda: table.drop(columns=column),
        "column more": lambda: table.assign(extra=1),
        "type": lambda: table.assign(**{column: [other] * len(table)}),
        "column renamed": lambda: table.rename(columns={column: column.upper()}),
        "no rows": lambda: table.iloc[:0],
    }
    tables[fault]().to_parquet(path, index=False)
    return f"{path.name}: {fault} {column} {other!r}"


def spoil_scores(rng: random.Random, path: Path) -> str:
    """Damage a file of neuron scores or a mask, and return how."""
    data, tensors = path.read_bytes(), load_file(path)
    (key,) = tensors
    start = 8 + int.from_bytes(data[:8], "little")
    metadata = {"site": "down_input", "n_items": "2", "n_tokens": "20", "mode": "masked"}
    at = rng.randrange(start)
    rewritten = {
        "another key": ({"a/b": tensors[key]}, metadata),
        "no metadata": (tensors, {}),
        "no mode and count": (tensors, {"site": "x", "n_items": "many", "n_tokens": "2", "mode": "x"}),
        "one row": ({key: tensors[key][0]}, metadata),
        "texts as scales": (tensors, metadata | {"scales": "[", "mode": ""}),
        "other scales": (tensors, metadata | {"scales": '{"a/b/c": 1}', "mode": "?"}),
        "other numbers": ({key: np.ones((2, 24), np.int64)}, metadata),
        "nothing": ({}, metadata),
    }
    bytes_of = {
        "cut": data[: rng.randrange(len(data))],
        "header flipped": data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
        "empty": b"",
        "other bytes": rng.randbytes(99),
        "header deep": (len(deep())).to_bytes(8, "little") + deep().encode(),
    }
    fault = rng.choice([*rewritten, *bytes_of])
    if fault in rewritten:
        save_file(rewritten[fault][0], path, rewritten[fault][1])
    else:
        path.write_bytes(bytes_of[fault])
    return f"{path.name}: {fault}"


def artifacts(rng: random.Random, folder: Path) -> Case:
    """What a stage wrote: its manifest, its tables, its neuron scores."""
    run = Run(folder, "micro", "helpful", 0)
    shutil.copytree(stage_folder(folder.parent), run.folder)
    name = rng.choice([MANIFEST, MANIFEST, "evaluation.parquet", "neuron_scores.safetensors"])
    name = rng.choice([name, name, "score_views/gate.safetensors", "mask.safetensors"])
    path, fault = run.folder / name, ""
    if rng.random() > 0.1:
        before = path.read_bytes()
        spoil = spoil_manifest if name == MANIFEST else spoil_table if path.suffix == ".parquet" else spoil_scores
        fault = spoil(rng, path)
        fault = fault if path.read_bytes() != before else ""
        if name != MANIFEST and rng.random() < 0.7:  # as if a stage had written it
            manifest = json.loads((run.folder / MANIFEST).read_text())
            for section in manifest.values():
                section["artifact_hash"] = file_hash(run.folder / section["artifact"])
                section["beside"] = {part: file_hash(run.folder / part) for part in section["beside"]}
            (run.folder / MANIFEST).write_text(json.dumps(manifest))

    def read() -> None:
        expect(
            set(read_manifest(run.folder)),
            {"train", "evaluate", "identify"} if "gone" not in fault else {"evaluate", "identify"},
        )
        expect(training_data(run).max_length, 64)
        expect(len(read_table([run], "evaluation", "02_evaluate")), 2)
        expect(own_scores(run).get("rms").shape, (2, 24))
        expect(load_view(run, "gate").get("rms").shape, (2, 24))
        expect(NeuronMask.load(run.folder / "mask.safetensors").neurons.shape, (2, 24))
        if again := find_stale(folder, "micro"):
            raise Told(f"{path.name} of {MANIFEST}, expected as it was, is made again: {again}")

    return Case(fault, read, [path.name if path.suffix != ".parquet" else "evaluation"])


def find_stale(root: Path, base_model: str) -> dict:
    """Return what the pipeline would make anew."""
    shared = {"base_models": [base_model], "objectives": ["helpful"], "seeds": [0]}
    return stale_outputs(root, shared | {"train": {"data_source": "pairs"}})


# The command, and tables for spreadsheets


def commands(rng: random.Random, folder: Path) -> Case:
    """A command line of `tension`."""
    model, data = map(str, micro(folder.parent))
    verb = rng.choice(list(command.COMMANDS))
    models = [model] * (2 if verb == "overlap" else 1)
    options = {"--n-items": "2", "--max-length": "128", "--template": "hh"}
    wrong = {
        "--n-items": ["-1", "x", "", "1.5", "1e3", "inf", "nan"],
        "--max-length": ["0", "-5", "x", "7", "1e9", ""],
        "--template": ["chat", "unknown", "", "HH"],
        "--layout": ["unknown", "", "rm-bench", "rmb", "reward-bench"],
        "--helpful": ["nowhere", "..", "a\0b", "/etc", ""],
        "--unusable-items": ["x", ""],
        "--tokens-per-batch": ["0", "-1", "x"],
        "--precision": ["float16", "", "x"],
        "--device": ["tpu", "", "cuda:x"],
        "--output": ["a.csv", "a", "", str(folder), "/proc/x.parquet", str(Path(model) / "config.json" / "a.parquet")],
        "--unknown": ["1"],
    }
    if verb not in ("score", "evaluate"):
        wrong |= {"--kind": ["x", "", "rms_change"], "--fraction": ["0", "1", "-1", "nan", "inf", "x", "1e-9"]}
        wrong |= {"--base-model": ["./nowhere"]}
    if verb == "ablate":
        wrong |= {"--n-draws": ["0", "x", "-1", "1.5"], "--seed": ["-1", "x", "1.5"]}
    way = rng.choice(["right", "option", "option", "option", "option", "place"])
    fault, names = "", [f"tension {verb}"]
    if way == "option":
        name = rng.choice(list(wrong))
        options[name] = rng.choice(wrong[name])
        fault, names = f"{verb} {name} {options[name]!r}", [name if name == "--unknown" else f"tension {verb}"]
        if name == "--base-model":
            options["--kind"] = "rms_change"
        if options[name] == "1e-9":
            fault = ""  # of 48 neurons, at least one
    elif way == "place":
        bad = rng.choice(["./nowhere", "", "a\0b", "/etc", str(folder), "..", "a/b/c", "~nobody/x", "." * 300])
        if rng.random() < 0.5:
            models[-1] = bad
        else:
            data = bad
        fault, names = f"{verb} in {bad[:20]!r}", [f"tension {verb}"]

    def read() -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = command.main([verb, *models, data, *(part for option in options.items() for part in option)])
        lines = [line for line in said.getvalue().splitlines() if line.startswith("tension")]
        if status:
            raise Told(lines[-1] if status == 2 and lines else f"status {status}: {lines}")

    return Case(fault, read, names)


CELLS = ("=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "a", "é", 'a"b', "a,b", "a\nb", "a\r=1", "a\r\n=1")
CELLS += ("=cmd|'/c calc'!A0", " =1", "'=1")


def spreadsheets(rng: random.Random, folder: Path) -> Case:
    """A table that is written for spreadsheets: no cell of it may be a formula."""
    cells, path = rng.choices(CELLS, k=4), folder / "t.csv"
    write_csv(path, pd.DataFrame({"text": cells, "number": [-1.5, 0.0, 2.0, 1e-9], rng.choice(CELLS): [1, 2, 3, 4]}))

    def read() -> None:
        table = pd.read_csv(path)
        shown = [*table, *table.select_dtypes(exclude="number").to_numpy().ravel().tolist()]
        expect([cell for cell in map(str, shown) if cell[:1] in ("=", "+", "-", "@", "\t", "\r")], [])

    return Case("", read, [])


# Kind -> how an input is made, and its share of a campaign.
KINDS: dict[str, tuple[Callable[[random.Random, Path], Case], int]] = {
    "pair files": (pair_files, 240),
    "benchmark files": (benchmark_files, 200),
    "profiles": (profile_files, 150),
    "configurations": (configurations, 90),
    "notebook parameters": (parameters, 100),
    "run names": (run_names, 60),
    "model folders": (model_folders, 40),
    "adoption": (adoptions, 15),
    "artifacts": (artifacts, 70),
    "commands": (commands, 20),
    "spreadsheets": (spreadsheets, 15),
}
