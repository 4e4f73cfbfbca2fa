"""Benchmarks by name, from their public place or a folder of the same layout, as one record type."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datasets import load_dataset
from datasets.exceptions import DatasetsError

from tension_utils.artifacts import files_below
from tension_utils.benchmarks.items import (
    DIRECTIONS,
    GROUPS,
    BenchmarkUnavailable,
    Loaded,
    check_columns,
    find_folder,
    make_item,
    parse_rows,
    read_name,
)
from tension_utils.benchmarks.layouts import LAYOUTS, load_rmb, parse_toy
from tension_utils.config import BAD_PAIRS, check_choice, check_choices
from tension_utils.data import BenchmarkItem, read_split
from tension_utils.sources import (
    EXTENSIONS,
    Row,
    is_local,
    read_jsonl,
    read_rows,
    split_files,
    visible_files,
)

HH_RLHF = "Anthropic/hh-rlhf"

HH_SUBSETS = {
    "helpful": ("helpful-base", "helpful-online", "helpful-rejection-sampled"),
    "harmless": ("harmless-base",),
}


def load_hh_test(source: str, subsets: Mapping[str, Sequence[str]], unusable_items: str) -> Loaded:
    """Load the test split of every subset; the subsets of an objective form its test.

    A row's own ``direction`` is used where the source has that column (the toy world does).
    """
    items, n_dropped = [], Counter()
    n_owners = Counter(subset for names in subsets.values() for subset in names)
    for objective, names in subsets.items():
        check_choice("subsets", objective, GROUPS)
        for subset in names:
            read_name(subset, "a subset", "subsets")
            split = read_split(source, subset, "test", unusable_items, objective)
            n_dropped += Counter(split.n_dropped)
            shown = subset if n_owners[subset] == 1 else f"{subset}-{objective}"
            for item, row in zip(split.items, split.rows, strict=True):
                direction = check_choice(f"{item.item_id}: direction", row.get("direction") or "none", DIRECTIONS)
                fields = vars(item) | {"item_id": item.item_id.replace(subset, shown, 1)}
                items.append(make_item(**fields, benchmark="hh-rlhf", subset=shown, place=(objective, direction)))
    return items, n_dropped


TOY_FILE = "test.jsonl.gz"


def load_toy(source: Path) -> Loaded:
    """Load the toy benchmark from its folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not JSON or lacks a field, or there is none; names file and line.
    """
    file = source / TOY_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"benchmark toy: expected the file {file}; write it with python -m tension_utils.toy.model"
        )
    items = [item for number, row in read_jsonl(file) for item in parse_toy(row, f"{file}, line {number}", number)]
    if not items:
        raise ValueError(f"{file}: expected at least one item; got none; write it again")
    return items, {}


def table_files(name: str, folder: Path) -> list[Path]:
    """Return the files of a benchmark of `LAYOUTS` in a folder or those below it.

    Raises:
        ValueError: if there is none, or it is not clear which; names the files.
    """
    layout = LAYOUTS[name]
    folders = [folder, *sorted({path.parent for path in files_below(folder)} - {folder})]
    for split in layout.names:
        found = {}
        for place in folders:
            with contextlib.suppress(FileNotFoundError):
                found[place] = split_files(place, split)
        if len(found) > 1:
            raise ValueError(
                f"{folder}: expected the files of {split} once; got {[str(files[0]) for files in found.values()]}"
            )
        if found:
            return found.popitem()[1]
    there = [str(path.relative_to(folder)) for place in folders for path in visible_files(place)]
    raise ValueError(
        f"{folder}: expected a file {layout.names[0]} with one of {', '.join(EXTENSIONS)} in the layout of "
        f"{layout.public_name}; got {there[:9]}; is this the folder of another benchmark?"
    )


def read_table(name: str, source: str) -> list[Row]:
    """Return the rows of a benchmark that is published as a dataset: ``load_dataset(source, split=...)``.

    Raises:
        BenchmarkUnavailable: if there is no such folder, or the public name cannot be reached.
        ValueError: if what is there cannot be read, lacks columns, or has no such split.
    """
    layout = LAYOUTS[name]
    if is_local(source):
        files = table_files(name, find_folder(name, source, layout.public_name))
        where, rows = str(files[0]), [row for file in files for row in read_rows(file)]
    else:
        where, rows = source, public_rows(name, source)
    if not rows:
        raise ValueError(f"{where}: expected rows of split {layout.split!r}; got none; make or copy it again")
    check_columns(dict.fromkeys(column for _, row in rows for column in row), layout.columns, where)
    return [(place, dict.fromkeys(layout.columns) | row) for place, row in rows]


def public_rows(name: str, source: str) -> list[Row]:
    """Return the rows of a public dataset, see `read_table`."""
    layout = LAYOUTS[name]
    try:
        rows = load_dataset(source, split=layout.split).to_list()
    except (DatasetsError, ValueError, OSError) as error:
        reason = " ".join(f"{error.__cause__ or error}".split())
        if isinstance(error, OSError):
            raise BenchmarkUnavailable(f"{name}: {source} cannot be reached; name a local folder; {reason}") from error
        raise ValueError(
            f"{source}: expected rows of split {layout.split!r} in the layout of {layout.public_name}; {reason}"
        ) from error
    return [(f"{source}, row {number}", row) for number, row in enumerate(rows, start=1)]


def load_table(name: str, source: str | None, unusable_items: str) -> Loaded:
    """Load a benchmark of `LAYOUTS`; ``source=None`` is its public name.

    Raises:
        BenchmarkUnavailable, ValueError: see `read_table` and `parse_rows`.
    """
    return parse_rows(read_table(name, source or LAYOUTS[name].public_name), LAYOUTS[name].parse, unusable_items)


Loader = Callable[[str, str | None, Mapping[str, Sequence[str]], str], Loaded]

BENCHMARKS: dict[str, Loader] = {
    "hh-rlhf": lambda name, source, subsets, unusable_items: load_hh_test(source or HH_RLHF, subsets, unusable_items),
    **dict.fromkeys(LAYOUTS, lambda name, source, subsets, unusable_items: load_table(name, source, unusable_items)),
    "rmb": lambda name, source, subsets, unusable_items: load_rmb(source, unusable_items),
    "toy": lambda name, source, subsets, unusable_items: load_toy(Path(source or "")),
}


def load_benchmark(
    name: str,
    source: str | Path | None = None,
    *,
    subsets: Mapping[str, Sequence[str]] = HH_SUBSETS,
    unusable_items: str = "drop",
) -> list[BenchmarkItem]:
    """Load a benchmark.

    Args:
        name: key of `BENCHMARKS`.
        source: public dataset name or a folder of the same layout; None is the public name.
        subsets: of HH-RLHF, by objective; the other benchmarks are loaded whole.
        unusable_items: what to do with an empty response or one that is both chosen and rejected: "drop",
            which warns with the count, or "error". Any other fault is an error.

    Raises:
        BenchmarkUnavailable: if it cannot be reached; for HH-RLHF and toy, which every run has, FileNotFoundError.
        ValueError: for an unknown name, or what is there is not this benchmark; names file and row.
    """
    items, n_dropped = load_counted(name, source, subsets, unusable_items)
    if n_dropped:
        warnings.warn(f"{name}: left out {sum(n_dropped.values())} rows: {dict(n_dropped)}", stacklevel=2)
    return items


def load_counted(
    name: str,
    source: str | Path | None,
    subsets: Mapping[str, Sequence[str]] = HH_SUBSETS,
    unusable_items: str = "drop",
) -> Loaded:
    """Do what `load_benchmark` does and return the rows left out, by reason, instead of warning."""
    check_choice("benchmark", name, BENCHMARKS)
    check_choice("unusable_items", unusable_items, BAD_PAIRS)
    return BENCHMARKS[name](name, None if source is None else str(source), subsets, unusable_items)


@cache
def is_reachable(name: str, source: str | None) -> bool:
    """Say whether a benchmark can be loaded here and now; asked once per process."""
    try:
        load_counted(name, source, unusable_items="drop")
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
