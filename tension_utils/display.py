"""Show tables, dialogues and checks in a notebook; every text from data is escaped here and nowhere else.

Data text may hold markup that a browser would run. Each function below escapes it, and marks its block so that neither
TeX nor Markdown in it is set. Notebooks show data only through this module.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from IPython.display import display

from tension_utils.tables import MISSING, NO_BREAK, PERCENT, ROOT_CLASS, format_value, formatted_table, table_html

__all__ = [
    "MISSING",
    "NO_BREAK",
    "PERCENT",
    "ROOT_CLASS",
    "check_table",
    "format_value",
    "formatted_table",
    "pairs_html",
    "show_pairs",
    "show_table",
    "show_text",
    "table_html",
    "text_html",
]

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
