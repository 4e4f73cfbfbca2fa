"""Tables, words and boxes on pages, with every text from data escaped."""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from IPython.display import display

ROOT_CLASS = "tension mathjax_ignore tex2jax_ignore"

NO_BREAK = "\u00a0"  # a space at which no line ends

MISSING = "–"

PERCENT = f"{NO_BREAK}%"

SMALLEST_P = 0.001  # of a smaller p-value, only that it is smaller is shown

P_VALUE = re.compile(r"(^|_)[pq]_(value|adjusted)$")

LONG_CELL = re.compile(r"<td>(?=[^<]{45})")  # gets room for a few words per line


def format_value(value: Any, digits: int = 3, is_percent: bool = False) -> str:
    r"""Return one cell's text.

    >>> format_value(0.8125, is_percent=True), format_value(0.8125), format_value(True), format_value(float("nan"))
    ('81.2\xa0%', '0.812', 'yes', '–')
    """
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)) and not is_percent:
        return f"{value:,}"
    if isinstance(value, (int, float, np.number)):
        if np.isnan(value):
            return MISSING
        if is_percent:
            return f"{100 * value:z.1f}{PERCENT}"
        return f"{value:.{digits}g}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"
    return MISSING if value is None or value is pd.NA else str(value)


def _writer(values: pd.Series, digits: int, is_percent: bool, is_points: bool) -> Callable[[Any], str]:
    """Return what writes the values of a column and their interval bounds, so that they look alike."""
    name, is_float = str(values.name), pd.api.types.is_float_dtype(values)
    has_digits = is_float and bool((values.abs() >= 10**-digits).any())

    def write(value: Any) -> str:
        if is_points:
            return MISSING if pd.isna(value) else f"{100 * value:+z.1f}"
        if is_percent or not is_float or pd.isna(value):
            return format_value(value, digits, is_percent)
        if name.startswith("n_"):
            return f"{value:,.{0 if value % 1 == 0 else 1}f}"
        if P_VALUE.search(name) and value < SMALLEST_P:
            return f"<{NO_BREAK}{SMALLEST_P}"
        return f"{value:z.{digits}f}" if has_digits else format_value(value, digits)

    return write


def formatted_table(
    table: pd.DataFrame,
    percent: Sequence[str] = (),
    digits: int = 3,
    intervals: Mapping[str, tuple[str, str]] | None = None,
    points: Sequence[str] = (),
) -> pd.DataFrame:
    """Return a table of texts, with interval bounds joined to the column they belong to.

    Args:
        table: any table; its index is not shown.
        percent: columns in [0, 1] shown as percentages.
        digits: decimals of other floats; counts (``n_``) and p-values have their own.
        intervals: column -> (lower, upper) columns; shown as "81.2 % [77.0, 85.1]", or without where both are missing.
        points: differences of shares, in [-1, 1], shown as percentage points; the heads of their columns say so.

    Raises:
        ValueError: a named column is not in the table.
    """
    intervals = intervals or {}
    named = [*percent, *points, *intervals, *(bound for bounds in intervals.values() for bound in bounds)]
    missing = [column for column in named if column not in table.columns]
    if missing:
        raise ValueError(f"no columns {', '.join(missing)}; the table has {', '.join(map(str, table.columns))}")
    texts = pd.DataFrame(index=table.index)
    for column in table.columns:
        if any(column in bounds for bounds in intervals.values()):
            continue
        write = _writer(table[column], digits, column in percent, column in points)
        cells = [write(value) for value in table[column]]
        if column in intervals:
            bounds = [[write(value).removesuffix(PERCENT) for value in table[bound]] for bound in intervals[column]]
            cells = [
                cell if low == high == MISSING else f"{cell} [{low},{NO_BREAK}{high}]"
                for cell, low, high in zip(cells, *bounds, strict=True)
            ]
        texts[f"{column} (points)" if column in points else column] = cells
    return texts


def table_html(texts: pd.DataFrame, caption: str = "") -> str:
    """Return a table of texts as HTML, all of it escaped."""
    texts = texts.rename(columns=lambda name: str(name).replace("_", " "))
    with pd.option_context("display.max_colwidth", None):
        page = texts.to_html(index=False, border=0, classes=ROOT_CLASS, escape=True)
    page = LONG_CELL.sub('<td class="long">', page)
    if caption:
        head, tail = page.split(">", 1)
        style = 'style="caption-side: top; text-align: left"'
        page = f"{head}><caption {style}><span>{html.escape(caption)}</span></caption>{tail}"
    return page


COLORS = {"chosen": "#009E73", "rejected": "#D55E00", "human": "#0072B2", "assistant": "#777777"}


class TurnLike(Protocol):
    """What `pairs_html` reads of a turn."""

    role: str
    content: str


class ItemLike(Protocol):
    """What `pairs_html` reads of an item; see `tension_utils.data.Item`."""

    item_id: str
    prompt: Sequence[TurnLike]
    chosen: Sequence[str]
    rejected: Sequence[str]


def _show(page: str, plain: str) -> None:
    """Show HTML in a browser, and plain text where there is none."""
    display({"text/html": page, "text/plain": plain}, raw=True)


def _clip(text: str, max_characters: int | None) -> str:
    """Shorten a text and say by how much."""
    if max_characters is None or len(text) <= max_characters:
        return text
    return f"{text[:max_characters]} … ({len(text) - max_characters} more characters)"


def show_table(
    table: pd.DataFrame,
    caption: str = "",
    percent: Sequence[str] = (),
    digits: int = 3,
    intervals: Mapping[str, tuple[str, str]] | None = None,
    max_rows: int | None = 40,
    points: Sequence[str] = (),
) -> None:
    """Show a table; see `formatted_table` for ``percent``, ``digits``, ``intervals`` and ``points``.

    Args:
        table: any table.
        caption: plain text above it.
        percent: see `formatted_table`.
        digits: see `formatted_table`.
        intervals: see `formatted_table`.
        max_rows: rows shown; the caption says how many there are in all. None shows all.
        points: see `formatted_table`.
    """
    shown = table if max_rows is None else table.head(max_rows)
    texts = formatted_table(shown, percent, digits, intervals, points)
    if len(texts) < len(table):
        caption = f"{caption} (first {len(texts)} of {len(table):,} rows)".strip()
    _show(table_html(texts, caption), "\n".join(filter(None, [caption, texts.to_string(index=False)])))


def text_html(text: str, title: str = "", max_characters: int | None = None) -> str:
    """Return plain text as an escaped block that keeps its line breaks."""
    head = f"<strong>{html.escape(title)}</strong><br>" if title else ""
    return (
        f'<div class="{ROOT_CLASS}" style="white-space: pre-wrap; overflow-wrap: anywhere; '
        f'border-left: 4px solid #777777; padding: 0.2em 0.8em; margin: 0.4em 0">{head}'
        f"{html.escape(_clip(text, max_characters))}</div>"
    )


def show_text(text: str, title: str = "", max_characters: int | None = None) -> None:
    """Show plain text, for example the answer of a chapter with its numbers filled in.

    Args:
        text: any text; line breaks are kept.
        title: plain text above it.
        max_characters: longer texts are clipped, and say so.
    """
    _show(text_html(text, title, max_characters), "\n".join(filter(None, [title, _clip(text, max_characters)])))


def _part(label: str, text: str, color: str, max_characters: int | None) -> str:
    return (
        f'<div style="border-left: 4px solid {color}; padding: 0.1em 0.8em; margin: 0.3em 0; '
        f'white-space: pre-wrap; overflow-wrap: anywhere"><strong style="color: {color}">{html.escape(label)}'
        f"</strong> {html.escape(_clip(text, max_characters))}</div>"
    )


def pairs_html(
    items: Iterable[ItemLike], notes: Mapping[str, str] | None = None, max_characters: int | None = 600
) -> str:
    """Return items as cards: the dialogue, then chosen and rejected responses, all escaped."""
    cards = []
    for item in items:
        note = (notes or {}).get(item.item_id, "")
        head = f"<div><code>{html.escape(item.item_id)}</code> {html.escape(note)}</div>"
        parts = [
            _part(turn.role, turn.content, COLORS.get(turn.role, COLORS["assistant"]), max_characters)
            for turn in item.prompt
        ]
        parts += [_part("chosen ✓", text, COLORS["chosen"], max_characters) for text in item.chosen]
        parts += [_part("rejected ✗", text, COLORS["rejected"], max_characters) for text in item.rejected]
        cards.append(
            f'<div style="border: 1px solid #999999; border-radius: 6px; padding: 0.5em 0.8em; '
            f'margin: 0.6em 0">{head}{"".join(parts)}</div>'
        )
    return f'<div class="{ROOT_CLASS}">{"".join(cards)}</div>'


def show_pairs(
    items: Iterable[ItemLike], notes: Mapping[str, str] | None = None, max_characters: int | None = 600
) -> None:
    """Show preference items as dialogue cards.

    Args:
        items: such as a few `tension_utils.data.Item`.
        notes: item_id -> one plain line beside the id, such as its margin.
        max_characters: longer texts are clipped, and say so.
    """
    items = list(items)
    lines = [
        f"{label}: {_clip(text, max_characters)}"
        for item in items
        for label, text in [
            ("item", item.item_id),
            *((turn.role, turn.content) for turn in item.prompt),
            *(("chosen", text) for text in item.chosen),
            *(("rejected", text) for text in item.rejected),
        ]
    ]
    _show(pairs_html(items, notes, max_characters), "\n".join(lines))


def check_table(checks: Mapping[str, bool | tuple[bool, str]], caption: str = "Checks") -> None:
    """Show which invariants hold, then fail if one does not.

    Args:
        checks: statement -> whether it holds, or (whether it holds, what was found).
        caption: plain text above the table.

    Raises:
        ValueError: no check was given.
        TypeError: an outcome is not True or False.
        AssertionError: names every check that failed; the table is shown first.
    """
    if not checks:
        raise ValueError("expected at least one check, got none")
    rows = []
    for statement, outcome in checks.items():
        holds, found = outcome if isinstance(outcome, tuple) else (outcome, "")
        if not isinstance(holds, (bool, np.bool_)):
            raise TypeError(
                f"check {statement!r}: expected True or False, got {holds!r}; compare with .all() or a bound"
            )
        rows.append({"check": statement, "found": found, "result": "pass" if holds else "FAIL"})
    table = pd.DataFrame(rows)
    if not table.found.astype(bool).any():
        table = table.drop(columns="found")
    show_table(table, caption, max_rows=None)
    failed = [row["check"] + (f" ({row['found']})" if row["found"] else "") for row in rows if row["result"] == "FAIL"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(rows)} checks failed: {'; '.join(failed)}")
