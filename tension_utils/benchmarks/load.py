"""Benchmarks by name, from their public place or a folder of the same layout, as one record type."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from tension_utils.artifacts import read_jsonl
from tension_utils.benchmarks.items import (
    DIRECTIONS,
    GROUPS,
    BenchmarkUnavailable,
    Loaded,
    check_columns,
    find_folder,
    make_item,
    parse_rows,
)
from tension_utils.benchmarks.layouts import LAYOUTS, load_rmb, parse_toy
from tension_utils.config import BAD_PAIRS, check_choice, check_choices
from tension_utils.data import BenchmarkItem, is_local, read_split

HH_RLHF = "Anthropic/hh-rlhf"

HH_SUBSETS = {
    "helpful": ("helpful-base", "helpful-online", "helpful-rejection-sampled"),
    "harmless": ("harmless-base",),
}

DATA_SUFFIXES = (".parquet", ".json", ".jsonl", ".gz", ".zst")


def load_hh_test(source: str, subsets: Mapping[str, Sequence[str]], bad_pairs: str) -> Loaded:
    """Load the test split of every subset; the subsets of an objective form its test.

    A row's own ``direction`` is used where the source has that column (the toy world does).
    """
    items, n_dropped = [], Counter()
    for objective, names in subsets.items():
        check_choice("subsets", objective, GROUPS)
        for subset in names:
            split = read_split(source, subset, "test", bad_pairs)
            n_dropped += Counter(split.n_dropped)
            for item, row in zip(split.items, split.rows, strict=True):
                direction = check_choice(f"{item.item_id}: direction", row.get("direction") or "none", DIRECTIONS)
                place = (objective, direction)
                items.append(make_item(**vars(item), benchmark="hh-rlhf", subset=subset, place=place))
    return items, n_dropped


def load_toy(source: Path) -> Loaded:
    """Load the toy benchmark from its folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not JSON or lacks a field; names file and line.
    """
    file = source / "test.jsonl.gz"
    if not file.is_file():
        raise FileNotFoundError(
            f"benchmark toy: expected the file {file}; write it with python -m tension_utils.toy.model"
        )
    return [item for number, row in read_jsonl(file) for item in parse_toy(row, f"{file}, line {number}", number)], {}


def read_table(name: str, source: str) -> tuple[Dataset, str]:
    """Load a benchmark that is published as a dataset: ``load_dataset(source, split=...)``.

    Returns:
        The rows, and what names them in errors: the file, if a local folder holds one, else the source.

    Raises:
        BenchmarkUnavailable: if there is no such folder, or the public name cannot be reached.
        ValueError: if what is there cannot be read, or has no such split.
    """
    layout, where = LAYOUTS[name], source
    if is_local(source):
        folder = find_folder(name, source, layout.public_name)
        files = [file for file in sorted(folder.rglob("*")) if file.suffix in DATA_SUFFIXES]
        source, where = str(folder), str(files[0] if len(files) == 1 else folder)
    try:
        return load_dataset(source, split=layout.split), where
    except (DatasetsError, ValueError, OSError, StopIteration) as error:  # StopIteration: an empty JSON file
        reason = " ".join(f"{error.__cause__ or error or 'nothing to read'}".split())
        if isinstance(error, OSError) and not is_local(source):
            raise BenchmarkUnavailable(f"{name}: {source} cannot be reached; name a local folder; {reason}") from error
        raise ValueError(
            f"{where}: expected rows of split {layout.split!r} in the layout of {layout.public_name}; {reason}; is "
            "this the folder of another benchmark?"
        ) from error


def load_table(name: str, source: str | None, bad_pairs: str) -> Loaded:
    """Load a benchmark of `LAYOUTS`; ``source=None`` is its public name.

    Raises:
        BenchmarkUnavailable, ValueError: see `read_table` and `parse_rows`.
    """
    layout = LAYOUTS[name]
    table, where = read_table(name, source or layout.public_name)
    check_columns(dict.fromkeys(table.column_names), layout.columns, where)
    places = [f"{where}, row {number}" for number in range(1, len(table) + 1)]
    return parse_rows(table.to_list(), places, layout.parse, bad_pairs)


Loader = Callable[[str, str | None, Mapping[str, Sequence[str]], str], Loaded]

BENCHMARKS: dict[str, Loader] = {
    "hh-rlhf": lambda name, source, subsets, bad_pairs: load_hh_test(source or HH_RLHF, subsets, bad_pairs),
    **dict.fromkeys(LAYOUTS, lambda name, source, subsets, bad_pairs: load_table(name, source, bad_pairs)),
    "rmb": lambda name, source, subsets, bad_pairs: load_rmb(source, bad_pairs),
    "toy": lambda name, source, subsets, bad_pairs: load_toy(Path(source or "")),
}


def load_benchmark(
    name: str,
    source: str | Path | None = None,
    *,
    subsets: Mapping[str, Sequence[str]] = HH_SUBSETS,
    bad_pairs: str = "error",
) -> list[BenchmarkItem]:
    """Load a benchmark.

    Args:
        name: key of `BENCHMARKS`.
        source: public dataset name or a folder of the same layout; None is the public name.
        subsets: of HH-RLHF, by objective; the other benchmarks are loaded whole.
        bad_pairs: what to do with an empty response or one that is both chosen and rejected: "error", or "drop", which
            warns with the count. Any other fault is an error.

    Raises:
        BenchmarkUnavailable: if it cannot be reached; for HH-RLHF and toy, which every run has, FileNotFoundError.
        ValueError: for an unknown name, or what is there is not this benchmark; names file and row.
    """
    items, n_dropped = load_counted(name, source, subsets, bad_pairs)
    if n_dropped:
        warnings.warn(f"{name}: left out {sum(n_dropped.values())} rows: {dict(n_dropped)}", stacklevel=2)
    return items


def load_counted(
    name: str, source: str | Path | None, subsets: Mapping[str, Sequence[str]] = HH_SUBSETS, bad_pairs: str = "error"
) -> Loaded:
    """Do what `load_benchmark` does and return the rows left out, by reason, instead of warning."""
    check_choice("benchmark", name, BENCHMARKS)
    check_choice("bad_pairs", bad_pairs, BAD_PAIRS)
    return BENCHMARKS[name](name, None if source is None else str(source), subsets, bad_pairs)


@cache
def is_reachable(name: str, source: str | None) -> bool:
    """Say whether a benchmark can be loaded here and now; asked once per process."""
    try:
        load_counted(name, source, bad_pairs="drop")
    except BenchmarkUnavailable:
        return False
    return True


@dataclass(frozen=True)
class LoadedBenchmarks:
    """Several benchmarks as far as they could be loaded.

    Args:
        items: of all of them.
        not_run: benchmark -> why it could not be reached.
        n_dropped: benchmark -> reason -> rows left out.
    """

    items: list[BenchmarkItem]
    not_run: dict[str, str]
    n_dropped: dict[str, dict[str, int]]


def load_benchmarks(
    names: Sequence[str], sources: Mapping[str, str | Path] | None = None, **options: object
) -> LoadedBenchmarks:
    """Load benchmarks one after the other, as far as they can be reached.

    Args:
        names: keys of `BENCHMARKS`.
        sources: public name or folder by benchmark; the public name where one is not given.
        options: keyword arguments of `load_benchmark`.

    Raises:
        ValueError, FileNotFoundError: see `load_benchmark`.
    """
    check_choices("benchmarks", names, BENCHMARKS)
    for name in sources or {}:
        check_choice("sources of benchmarks", name, BENCHMARKS)
    items, not_run, n_dropped = [], {}, {}
    for name in names:
        try:
            found, dropped = load_counted(name, (sources or {}).get(name), **options)
        except BenchmarkUnavailable as error:
            not_run[name] = str(error)
            continue
        items += found
        n_dropped |= {name: dict(dropped)} if dropped else {}
    return LoadedBenchmarks(items, not_run, n_dropped)


def first_prompts(items: list[BenchmarkItem], n_per_subset: int) -> list[BenchmarkItem]:
    """Keep the items of the first ``n_per_subset`` prompts of every (benchmark, subset); 0 keeps all.

    The public test files are in no meaningful order, and a fixed choice keeps every reward model on the same items.
    """
    prompts: dict[tuple[str, str], dict[str, None]] = {}
    kept = []
    for item in items:
        seen = prompts.setdefault((item.benchmark, item.subset), {})
        if not n_per_subset or item.cluster in seen or len(seen) < n_per_subset:
            seen[item.cluster] = None
            kept.append(item)
    return kept
