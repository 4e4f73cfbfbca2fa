"""Rows of local files: read once and as they are, the files of a split exactly, every bad one with its place."""

import gzip
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from tension_utils.data import read_split
from tension_utils.sources import local_files, read_rows, split_files


def row(number: int = 0) -> dict:
    return {"prompt": f"question {number}", "chosen": f"yes {number}", "rejected": f"no {number}"}


def write(file: Path, *rows: object) -> Path:
    """Write rows in the form that the file's name says; texts are lines as they are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(file)
        return file
    lines = [value if isinstance(value, str) else json.dumps(value) for value in rows]
    text = f"[{','.join(lines)}]" if file.suffix == ".json" else "\n".join(lines) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_extension_gives_the_same_rows_with_their_places(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path / "a[b]" / "data" / f"train.{ending}", row(0), row(1))
    word = "line" if ending.startswith("jsonl") else "row"
    assert list(read_rows(file)) == [(f"{file}, {word} {n + 1}", row(n)) for n in range(2)]
    assert len(read_split(str(tmp_path / "a[b]"), "data", "train").items) == 2, "brackets in a folder's name are text"


def test_json_of_one_object_a_line_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text("".join(json.dumps(row(n)) + "\n" for n in range(2)))
    assert [value for _, value in read_rows(file)] == [row(0), row(1)]


def test_a_file_replaced_under_its_old_time_stamp_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "data" / "train.jsonl", row(0))
    stamp = file.stat()
    first = read_split(str(tmp_path), "data", "train")
    write(file, row(1))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.stat().st_size == stamp.st_size
    assert first.items[0].chosen == ("yes 0",) and read_split(str(tmp_path), "data", "train").items[0].chosen == (
        "yes 1",
    )


def test_a_dataset_card_and_hidden_files_change_nothing(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.jsonl", row(0))
    before = read_split(str(tmp_path), "data", "train")
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: x\n  data_files: other.jsonl\n---\n")
    for name in ("._train.jsonl", ".DS_Store", ".train.jsonl.swp", ".ipynb_checkpoints/train-checkpoint.jsonl"):
        write(tmp_path / "data" / name, "no data")
    assert read_split(str(tmp_path), "data", "train") == before


@pytest.mark.parametrize("subset", ["../other", "inner/../../other", ".hidden", "/absolute"])
def test_a_subset_lies_in_its_source(tmp_path: Path, subset: str) -> None:
    for folder in ("other", "data/.hidden", "data/inner"):
        write(tmp_path / folder / "train.jsonl", row(0))
    with pytest.raises(ValueError, match="subsets: expected folders inside of .*; got '"):
        local_files(str(tmp_path / "data"), subset.replace("/absolute", str(tmp_path / "other")), "train")
    assert local_files(str(tmp_path / "data" / "inner"), ".", "train")


@pytest.mark.parametrize(
    "other",
    ["train-old.jsonl", "train_2.jsonl", "train (1).jsonl", "train.1.jsonl", "train 2.parquet", "Train.jsonl"]
    + ["train.jsonl.gz", "train.json", "train-00000-of-00001.jsonl", "train-00001.jsonl", "train2.jsonl"],
)
def test_what_looks_like_a_split_beside_it_is_refused_with_both_names(tmp_path: Path, other: str) -> None:
    write(tmp_path / "train.jsonl", row(0))
    write(tmp_path / other, row(1))
    with pytest.raises(ValueError) as caught:
        split_files(tmp_path, "train")
    assert "train.jsonl" in str(caught.value) and other in str(caught.value)


@pytest.mark.parametrize("other", ["test.jsonl", "training.jsonl", "notes.txt", "train.jsonl~", "train.jsonl.bak"])
def test_other_files_beside_a_split_are_none_of_its(tmp_path: Path, other: str) -> None:
    file = write(tmp_path / "train.jsonl", row(0))
    (tmp_path / other).write_text("else")
    assert split_files(tmp_path, "train") == [file]


def test_csv_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("chosen,rejected\na,b\n")
    with pytest.raises(FileNotFoundError, match="has .'train.csv'.; CSV is not read: pandas.read_csv.*to_json"):
        split_files(tmp_path, "train")


def test_all_shards_are_a_split_and_a_missing_one_is_named(tmp_path: Path) -> None:
    shards = [write(tmp_path / "data" / f"train-0000{n}-of-00003.jsonl", row(n)) for n in range(3)]
    assert local_files(str(tmp_path), "data", "train") == shards
    assert [item.chosen for item in read_split(str(tmp_path), "data", "train").items] == [
        (f"yes {n}",) for n in range(3)
    ]
    shards[1].unlink()
    with pytest.raises(ValueError, match="all 3 shards of train; 1 are missing: train-00001-of-00003"):
        read_split(str(tmp_path), "data", "train")
    write(tmp_path / "data" / "train-00001-of-00004.jsonl", row(1))
    with pytest.raises(ValueError, match="expected every shard of train once; got"):
        read_split(str(tmp_path), "data", "train")


DEEP = "[" * 100_000 + "]" * 100_000
BAD = [
    ("null", "expected a JSON object; got NoneType"),
    ("3", "expected a JSON object; got int"),
    ('{"prompt": Infinity}', "Infinity is no number of JSON"),
    ('{"prompt": NaN}', "NaN is no number of JSON"),
    ('{"prompt": ' + DEEP + "}", "nested too deeply"),
    ('{"prompt": ' + "9" * 5000 + "}", "expected .*; .*digits"),
    (json.dumps(row(0) | {"chosen": "x \ud83d"}), r"half of a surrogate pair, '\\ud83d'"),
    (json.dumps(row(0) | {"other": {"\udc00": [1]}}), r"half of a surrogate pair, '\\udc00'"),
]


@pytest.mark.parametrize("line, message", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("bad_pairs", ["error", "drop"])
def test_a_line_that_is_no_row_names_file_and_line(tmp_path: Path, line: str, message: str, bad_pairs: str) -> None:
    file = write(tmp_path / "data" / "train.jsonl", row(0), line)
    with pytest.raises(ValueError, match=rf"^{file}, line 2: .*{message}"):
        read_split(str(tmp_path), "data", "train", bad_pairs)


@pytest.mark.parametrize("text", ["null", DEEP, "[1, 2", "[null]", '["x"]', "[[1]]", "[NaN]", "{", ""])
def test_a_json_document_of_another_form_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data" / "train.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{file}.*: expected "):
        read_split(str(tmp_path), "data", "train")


def test_a_broken_table_and_one_of_other_columns_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "data" / "train.parquet", {"question": "q", "answer": 3.5})
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}, row 1: expected a text field 'chosen'; got"):
        read_split(str(tmp_path), "data", "train")
    file.write_bytes(b"PAR1 but not a table")
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: expected a parquet table"):
        read_split(str(tmp_path), "data", "train")
