"""The record type of a benchmark item, and the checks that every benchmark's rows pass."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tension_utils.artifacts import user_path
from tension_utils.data import BenchmarkItem, render_prompt
from tension_utils.pair_layouts import BadPairError, Turn, read_messages
from tension_utils.sources import Row

GROUPS = ("helpful", "harmless", "other")

DIRECTIONS = ("refuse", "respond", "none")


class BenchmarkUnavailable(Exception):
    """A benchmark that cannot be reached: no such folder, no network, no public dataset; the message is the reason."""


# What a loader returns: the items, and how many rows it left out for which reason.
Loaded = tuple[list[BenchmarkItem], Mapping[str, int]]


def find_folder(name: str, source: str, example: str) -> Path:
    """Return the folder that ``source`` means.

    Raises:
        BenchmarkUnavailable: if there is none.
    """
    folder = user_path(source)
    if not folder.is_dir():
        raise BenchmarkUnavailable(f"{name}: expected the folder {folder}; copy {example} there or name another folder")
    return folder


def prompt_key(prompt: Sequence[Turn]) -> str:
    """Return 16 hex digits that name a prompt, so that tables of results hold no text of the data."""
    return hashlib.sha256(render_prompt(prompt).encode()).hexdigest()[:16]


def make_item(
    item_id: str,
    prompt: Sequence[Turn],
    chosen: Sequence[str],
    rejected: Sequence[str],
    *,
    benchmark: str,
    subset: str,
    place: tuple[str, str],
    style: str = "",
) -> BenchmarkItem:
    """Return an item whose cluster is a hash of its prompt; ``place`` is (group, direction)."""
    group, direction = place
    cluster = prompt_key(prompt)
    return BenchmarkItem(
        item_id, tuple(prompt), tuple(chosen), tuple(rejected), benchmark, subset, group, direction, cluster, style
    )


def check_columns(row: dict, columns: Collection[str], place: str) -> None:
    """Check that a row has every column.

    Raises:
        ValueError: names ``place``, the missing columns and those there are.
    """
    missing = sorted(set(columns) - set(row))
    if missing:
        raise ValueError(
            f"{place}: expected columns {missing} too; got {sorted(row)}; is this the folder of another benchmark?"
        )


def read_text(value: object, name: str, place: str) -> str:
    """Return a text without surrounding white space, as `pair_layouts.parse_dialogue` does with HH-RLHF.

    Raises:
        ValueError: if it is no text.
        BadPairError: if nothing is left of it.
    """
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected {name} to be a text; got {type(value).__name__}; mend or remove the row")
    if not value.strip():
        raise BadPairError("empty text", f"{place}: expected a non-empty {name}; mend or remove the row")
    return value.strip()


def read_texts(values: object, name: str, place: str, n: int | None = None) -> tuple[str, ...]:
    """Return a non-empty list of texts; ``n`` is how many there must be, None for any number.

    Raises:
        ValueError: if it is no list, or of another length.
        BadPairError: if one of them is empty.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | float) or n != n or n not in range(1000)):
        raise ValueError(f"{place}: expected a whole number of {name} responses; got {n!r}; mend or remove the row")
    if not isinstance(values, list) or not values or n not in (None, len(values)):
        got = f"{len(values)} of them" if isinstance(values, list) else type(values).__name__
        raise ValueError(f"{place}: expected {name} to be a list of {n or 'one or more'} texts; got {got}")
    return tuple(read_text(value, f"{name}[{number}]", place) for number, value in enumerate(values))


def check_different(chosen: Sequence[str], rejected: Sequence[str], place: str) -> None:
    """Check that no response is both chosen and rejected.

    Raises:
        BadPairError: if one is; no reward could rank it right.
    """
    if set(chosen) & set(rejected):
        raise BadPairError(
            "identical responses", f"{place}: expected chosen and rejected responses to differ; mend or remove the row"
        )


def read_turns(messages: object, place: str) -> tuple[Turn, ...]:
    """Return the turns of a prompt of chat messages {role, content}, see `pair_layouts.read_messages`.

    Raises:
        BadPairError: if a message has no text.
        ValueError: if a message has another form or role, or the last one is not a user's; both name ``place``.
    """
    try:
        turns = read_messages(messages)
    except BadPairError as error:
        message = f"{place}: {error}; mend or remove the row"
        raise (BadPairError(error.reason, message) if error.reason == "empty text" else ValueError(message)) from None
    if not turns or turns[-1].role != "human":
        raise ValueError(f"{place}: expected a prompt that ends with a user's message; got {len(messages)} messages")
    if not turns[-1].content:
        raise BadPairError(
            "empty text", f"{place}: expected a non-empty content of message {len(messages) - 1}; mend it"
        )
    return turns


def read_name(value: object, name: str, place: str) -> str:
    """Return a name that tables and figures show: one line of printable text, without the sign that starts a formula.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or "$" in value:
        raise ValueError(f"{place}: expected {name} to be a name of printable characters without $; got {value!r}")
    return value


def parse_rows(
    rows: Iterable[Row],
    parse: Callable[[dict, str], list[BenchmarkItem]],
    unusable_items: str,
) -> tuple[list[BenchmarkItem], Counter]:
    """Parse every row, and check that ids are used once.

    Args:
        rows: place, for errors, and columns of each; one at least.
        parse: turns a row and its place into its items.
        unusable_items: "error" stops at the first unusable row, "drop" leaves it out and counts it.

    Returns:
        The items, and how many rows were left out for which reason.

    Raises:
        ValueError: if there is no usable row, an id is used twice, or a row is unusable; names file and row.
    """
    items, seen, n_dropped = [], {}, Counter()
    for place, row in rows:
        try:
            parsed = parse(row, place)
        except BadPairError as error:
            if unusable_items == "error":
                raise BadPairError(error.reason, f"{error}, or set unusable_items to 'drop'") from None
            n_dropped[error.reason] += 1
            continue
        for item in parsed:
            if item.item_id in seen:
                where = seen[item.item_id]
                raise ValueError(f"{place}: expected every id once in a subset; {item.item_id!r} is also in {where}")
            seen[item.item_id] = place
        items += parsed
    if not items:
        raise ValueError(f"{place}: expected a usable row here or before; left out {dict(n_dropped)}")
    return items, n_dropped
