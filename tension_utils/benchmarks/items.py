"""The record type of a benchmark item, and the checks that every benchmark's rows pass."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tension_utils.data import BadPairError, BenchmarkItem, Turn, render_prompt

GROUPS = ("helpful", "harmless", "other")

DIRECTIONS = ("refuse", "respond", "none")

STYLES = ("hard", "normal", "easy", "")

CHAT_ROLES = {"user": "human", "assistant": "assistant"}


class BenchmarkUnavailable(Exception):
    """A benchmark that cannot be reached: no such folder, no network, no public dataset; the message is the reason."""


# What a loader returns: the items, and how many rows it left out for which reason.
Loaded = tuple[list[BenchmarkItem], Mapping[str, int]]


def find_folder(name: str, source: str, example: str) -> Path:
    """Return the folder that ``source`` means.

    Raises:
        BenchmarkUnavailable: if there is none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise BenchmarkUnavailable(f"{name}: no folder {folder}; copy {example} there or name another folder")
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
    """Return a text without surrounding white space, as `pairs.parse_dialogue` does with HH-RLHF.

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
    """Turn chat messages {role, content} into turns that end with a human one.

    The template that training saw has no system turn, so a system message is put before the next user message, with
    an empty line between.

    Raises:
        ValueError: if a message has another form or role, or the last one is not a user's.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"{place}: expected a list of messages with role and content; got {type(messages).__name__}")
    turns, system = [], []
    for number, message in enumerate(messages):
        content = read_text(message.get("content"), f"content of message {number}", place)
        role = message.get("role")
        if role == "system":
            system.append(content)
        elif role in CHAT_ROLES:
            before, system = (system, []) if role == "user" else ([], system)
            turns.append(Turn(CHAT_ROLES[role], "\n\n".join([*before, content])))
        else:
            raise ValueError(f"{place}: expected a role of {', '.join(CHAT_ROLES)}, system; got {role!r}")
    if not turns or turns[-1].role != "human" or system:
        raise ValueError(f"{place}: expected a prompt that ends with a user's message; got {len(messages)} messages")
    return tuple(turns)


def parse_rows(
    rows: Sequence[dict],
    places: Sequence[str],
    parse: Callable[[dict, str], list[BenchmarkItem]],
    bad_pairs: str,
) -> tuple[list[BenchmarkItem], Counter]:
    """Parse every row, and check that ids are used once.

    Args:
        rows: the rows.
        places: where each comes from, for errors.
        parse: turns a row and its place into its items.
        bad_pairs: "error" stops at the first unusable row, "drop" leaves it out and counts it.

    Returns:
        The items, and how many rows were left out for which reason.

    Raises:
        ValueError: if there is no usable row, an id is used twice, or a row is unusable; names file and row.
    """
    items, seen, n_dropped = [], {}, Counter()
    for row, place in zip(rows, places, strict=True):
        try:
            parsed = parse(row, place)
        except BadPairError as error:
            if bad_pairs == "error":
                raise BadPairError(error.reason, f"{error}, or set bad_pairs='drop'") from None
            n_dropped[error.reason] += 1
            continue
        for item in parsed:
            if item.item_id in seen:
                where = seen[item.item_id]
                raise ValueError(f"{place}: expected every id once in a subset; {item.item_id!r} is also in {where}")
            seen[item.item_id] = place
        items += parsed
    if not items:
        raise ValueError(f"{places[0]}: expected a usable row here or later; left out {dict(n_dropped)}")
    return items, n_dropped
