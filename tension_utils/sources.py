"""Rows of preference data, from a local folder or a public dataset, each with the place it comes from."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset
from datasets.exceptions import DatasetsError

from tension_utils.artifacts import parse_json, user_path

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".parquet")

ENDING = "(" + "|".join(map(re.escape, EXTENSIONS)) + ")"

Row = tuple[str, dict]  # its place, for errors, and its columns


def is_local(source: str) -> bool:
    """Say whether ``source`` means a folder; a public name has the form ``owner/name``."""
    return user_path(source).is_dir() or source.startswith((".", "/", "~")) or source.count("/") > 1


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted; hidden ones, which editors and systems leave there, are no data."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of one split: one ``NAME`` with any of `EXTENSIONS`, or all shards ``NAME-00000-of-00003``.

    Raises:
        FileNotFoundError: if there is none; says what is there.
        ValueError: if it is not clear which files are the split, or a shard is missing; names the files.
    """
    name = re.escape(split)
    there = visible_files(folder)
    whole = [path for path in there if re.fullmatch(name + ENDING, path.name)]
    shards = [path for path in there if re.fullmatch(rf"{name}-\d{{5}}-of-\d{{5}}{ENDING}", path.name)]
    alike = [path for path in there if re.fullmatch(rf"{name}(?![a-z]).*{ENDING}", path.name, re.IGNORECASE)]
    if not whole and not shards:
        names = [path.name for path in there]
        is_csv = any(path.suffix == ".csv" for path in there)
        todo = (
            "; CSV is not read: pandas.read_csv(FILE).to_json(..., orient='records', lines=True) converts it" * is_csv
        )
        raise FileNotFoundError(
            f"expected a file {split}.jsonl or {split}.jsonl.gz in {folder} (or {split} with "
            f"{', '.join(EXTENSIONS[2:])}, or all shards {split}-00000-of-0000N); it has {names}{todo}"
        )
    others = [path for path in alike if path not in (whole[:1] or shards)]
    if others:
        raise ValueError(
            f"{folder}: expected one file {split}, or all its shards {split}-00000-of-0000N; got "
            f"{(whole or shards)[0].name} beside {', '.join(path.name for path in others)}; move what is no part of "
            "this split to another folder"
        )
    return whole or _complete(folder, split, shards)


def _complete(folder: Path, split: str, shards: list[Path]) -> list[Path]:
    """Return the shards if they are all of one split.

    Raises:
        ValueError: names the missing ones, or those of another number of shards.
    """
    counted = [re.search(r"-(\d{5})-of-(\d{5})\.", path.name).groups() for path in shards]
    total = int(counted[0][1])
    found = [int(number) for number, _ in counted]
    if {int(of) for _, of in counted} != {total} or len(set(found)) < len(found) or max(found) >= total:
        raise ValueError(f"{folder}: expected every shard of {split} once; got {[path.name for path in shards]}")
    if missing := sorted(set(range(total)) - set(found)):
        names = [f"{split}-{number:05}-of-{total:05}" for number in missing[:5]]
        raise ValueError(
            f"{folder}: expected all {total} shards of {split}; {len(missing)} are missing: {', '.join(names)}; copy "
            "them too"
        )
    return shards


def local_files(source: str, subset: str, split: str) -> list[Path]:
    """Return the files of one split of one subset in a local folder.

    Raises:
        FileNotFoundError: if the folder, its subset or the split is missing; says what is there.
        ValueError: if the subset is not in the folder, whose content stands for all that is read; see `split_files`.
    """
    if Path(subset).is_absolute() or any(part == ".." or part.startswith(".") for part in Path(subset).parts):
        raise ValueError(
            f"subsets: expected folders inside of {source}; got {subset!r}; name the folder above as source"
        )
    folder = user_path(source) / subset
    if not folder.is_dir():
        parent = folder.parent
        there = f"{parent} has {sorted(p.name for p in parent.glob('*/'))}" if parent.is_dir() else f"no {parent} here"
        raise FileNotFoundError(f"data_source: expected the folder {folder}; {there}; mend data_source or subsets")
    try:
        return split_files(folder, split)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"data_source: {error}") from None


def load_rows(source: str, subset: str, split: str) -> list[Row]:
    """Return the rows of one split: of a local folder, or of ``datasets.load_dataset(source, data_dir=subset)``.

    Returns:
        Place and row: file and line or row of a local folder, number of a public dataset's row.

    Raises:
        FileNotFoundError: if the folder, its subset or the split is missing, or the public name cannot be reached.
        ValueError: if a row cannot be read (names file and line), or there is none.
    """
    if is_local(source):
        files = local_files(source, subset, split)
        rows = [row for file in files for row in read_rows(file)]
        if not rows:
            raise ValueError(f"{files[0]}: expected at least one pair; the file is empty, make or copy it again")
        return rows
    try:
        rows = load_dataset(source, data_dir=subset, split=split).to_list()
    except DatasetsError as error:
        raise ValueError(f"data_source: {source}/{subset}, split {split}, could not be read: {error}") from error
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"data_source: expected a folder, or a public dataset that can be reached; got {source!r}: {error}"
        ) from error
    return [(f"{source}/{subset}/{split}, row {number}", row) for number, row in enumerate(rows, start=1)]


def read_rows(file: Path) -> Iterator[Row]:
    """Yield place and row of a file of any of `EXTENSIONS`; a ``.json`` holds a list, or one object a line.

    Raises:
        ValueError: at the first row that cannot be read; names file and line, or file and row.
    """
    if file.suffix == ".parquet":
        return _parquet_rows(file)
    if file.suffix == ".json" and _begins_a_list(file):
        return _list_rows(file)
    return ((f"{file}, line {number}", row) for number, row in read_jsonl(file))


def _begins_a_list(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _list_rows(file: Path) -> Iterator[Row]:
    try:
        values = parse_json(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file}: expected a JSON list; {error}; copy the file again") from error
    for number, value in enumerate(values, start=1):
        place = f"{file}, row {number}"
        yield place, check_row(value, place)


def _parquet_rows(file: Path) -> Iterator[Row]:
    try:
        values = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a parquet table; {error}; make or copy the file again") from error
    return ((f"{file}, row {number}", row) for number, row in enumerate(values, start=1))


def read_jsonl(file: Path) -> Iterator[tuple[int, dict]]:
    """Yield line number, 1-based, and object of every line that is not blank.

    Raises:
        ValueError: at the first line that is not one JSON object, or that cannot be read; names file and line.
    """
    number = 0
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, parse_object(line, f"{file}, line {number}")
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}, after line {number}: expected UTF-8 text, compressed if the name ends in .gz; {error}; "
            "make or copy the file again"
        ) from error


def parse_object(line: str, place: str) -> dict:
    """Return the JSON object of a line.

    Raises:
        ValueError: names ``place`` if it holds something else.
    """
    try:
        value = parse_json(line.strip())
    except ValueError as error:
        raise ValueError(f"{place}: expected one JSON object a line; {error}; mend or remove the line") from error
    return check_row(value, place)


def check_row(value: object, place: str) -> dict:
    r"""Return a row if it is an object whose texts can be written as UTF-8.

    Raises:
        ValueError: names ``place`` if it is something else, or holds half of a surrogate pair such as ``\ud83d``.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a JSON object; got {type(value).__name__}; mend or remove the line")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start : error.start + 1])
        raise ValueError(
            f"{place}: expected text that can be written as UTF-8; got half of a surrogate pair, {half}; mend or "
            "remove the line"
        ) from None
    except RecursionError:
        raise ValueError(f"{place}: expected a JSON object; it is nested too deeply; mend or remove the line") from None
    return value
