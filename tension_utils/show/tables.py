"""Tables, words and boxes on pages, with every text from data escaped."""

import html
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Protocol

import numpy as np
import pandas as pd
from IPython.display import display

ROOT_CLASS = "tension mathjax_ignore tex2jax_ignore"

NO_BREAK = "\u00a0"  # a space at which no line ends

MISSING = "–"

SMALLEST_P = 0.001  # of a smaller p-value, only that it is smaller is shown

DIGITS = 3  # decimals of numbers whose column has no format of its own

LONGEST_NOTE = 24  # characters of a text that may move from a column to the caption

CELL = re.compile(r"<td>(?=([^<]{45})?)")

LONG = ' class="long"'  # gets room for a few words per line


@dataclass(frozen=True)
class Format:
    """How the numbers of a column are written.

    Args:
        write: a finite or infinite number -> its digits.
        mark: stands behind every number, once for a number with its interval.
        unit: of the numbers, said in the head of the column, or in the cells of a column that has several units.
    """

    write: Callable[[float], str]
    mark: str = ""
    unit: str = ""


def _fixed(value: float) -> str:
    return f"{value:z.{DIGITS}f}"


def _short(value: float) -> str:
    """Keep three digits of a number that decimals would write as zero."""
    return f"{value:.{DIGITS}g}" if 0 < abs(value) < 10**-DIGITS else _fixed(value)


def _count(value: float) -> str:
    """Write means of equal counts as counts."""
    return f"{value:,.{0 if value % 1 == 0 else 1}f}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.{DIGITS}g}"


def _p_value(value: float) -> str:
    return f"<{NO_BREAK}{SMALLEST_P}" if value < SMALLEST_P else _fixed(value)


SHARE = Format(lambda value: f"{100 * value:z.1f}", mark="%")  # of a whole, in [0, 1]

POINTS = Format(lambda value: f"{100 * value:+z.1f}", unit="points")  # a difference of shares, in [-1, 1]

DEVIATIONS = Format(lambda value: f"{value:+z.{DIGITS}f}", unit="SD")  # of the intact model's margins

INDEX = Format(_fixed)  # without a unit, such as a Jaccard index or a slope

P_VALUE = Format(_p_value)

COUNT = Format(_count)

SECONDS = Format(_seconds)

FLAG = Format(lambda value: "yes" if value else "no")

# "hh-rlhf" is a layout: the test pairs may be those of the embedded world, or a user's own.
TESTS = {"hh-rlhf": "preference pairs", "toy": "synthetic benchmark"}

UNITS = {"accuracy": POINTS, "margin": DEVIATIONS}  # of a change, by what the row's column `metric` says was measured

# A name that ends in "_" stands for all columns that begin so, one that begins with "_" for all that end so.
NAMES = {
    SHARE: "accuracy accuracy_ _accuracy chance rate _rate share share_ _share _third fraction paper single mixed "
    "helpful harmless helpful-harmless easy normal hard precision precision_ recall recall_ power false_positives "
    "false_refutations toward_chance held over_refusal ece ece_ transferability _transferability",
    POINTS: "_points change helpful_change harmless_change control effect difference cost gap accuracy_change "
    "accuracy_effect above_chance per_neurons length_bias style_bias overconfidence excess_transferability gain "
    "fewer_own_pairs other_pairs",
    DEVIATIONS: "margin_change margin_effect",
    INDEX: "cosine _cosine jaccard jaccard_ largest_possible slope rank_correlation average_precision",
    P_VALUE: "p_value helpful_p harmless_p _p_value q_value p_adjusted smallest_p",
    COUNT: "n n_ pairs steps depth _depth",
    SECONDS: "seconds seconds_ _seconds",
    FLAG: "is_",
}

COLUMNS = {name: form for form, names in NAMES.items() for name in names.split()}

BY_METRIC = ("change", "control", "effect", "per_neurons")  # columns whose unit the column `metric` decides, if any

BOUNDS = (("ci_low", "ci_high"), ("lowest", "highest"), ("low", "high"))  # interval, range, range of random draws

# Whose bounds bare ones are, such as `ci_low`: those of the first of these that the table has.
ESTIMATES = ["effect", "difference", "cost", "shift", "slope", "length_bias", "style_bias", "gap", "precision", "rate"]
ESTIMATES += ["share_with_own", "validation_accuracy", "accuracy", "jaccard", "change", "value"]

UNSHOWN = ("n_clusters", "seed_std", "shift_std")  # for computing; shown where they are asked for
HEADS = {"n_seeds": "n_runs"}  # several base models add theirs


def column_format(name: str) -> Format | None:
    """Return the format of a column by its name, or None if no entry of `COLUMNS` fits.

    >>> column_format("refuse_accuracy") is SHARE, column_format("n_items") is COUNT, column_format("loss")
    (True, True, None)
    """
    parts = name.split("_")
    cuts = range(1, len(parts))
    starts = ("_".join(parts[:cut]) + "_" for cut in reversed(cuts))
    ends = ("_" + "_".join(parts[cut:]) for cut in cuts)
    return next((COLUMNS[key] for key in (name, *starts, *ends) if key in COLUMNS), None)


def subset_names(table: pd.DataFrame) -> pd.Series:
    """Return a name for each row's benchmark and subset.

    >>> subset_names(pd.DataFrame({"benchmark": ["hh-rlhf", "rm-bench"], "subset": ["helpful-base", "chat"]})).tolist()
    ['preference pairs: helpful-base', 'rm-bench: chat']
    """
    return table.benchmark.replace(TESTS) + ": " + table.subset


def format_value(value: Any, form: Format | None = None) -> str:
    r"""Return one cell's text: a number in its format, anything else as it is.

    >>> format_value(0.8125, SHARE), format_value(0.8125), format_value(True), format_value(float("nan"), SHARE)
    ('81.2\xa0%', '0.812', 'yes', '–')
    """
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return MISSING
    if not isinstance(value, (int, float, np.number)):
        return str(value)
    if form is None:
        return f"{value:,}" if isinstance(value, (int, np.integer)) else _short(value)
    return form.write(value) + (f"{NO_BREAK}{form.mark}" if form.mark else "")


def _formats(table: pd.DataFrame, column: Hashable) -> list[Format | None]:
    """Return the format of every cell of a column; a unit that is not that of all cells is their mark."""
    values, form = table[column], column_format(str(column))
    if column in BY_METRIC and "metric" in table:
        forms = [UNITS.get(metric) for metric in table["metric"]]
        return forms if len(set(forms)) < 2 else [form and replace(form, mark=form.unit, unit="") for form in forms]
    if form is None and pd.api.types.is_float_dtype(values) and (values.abs() >= 10**-DIGITS).any():
        form = INDEX  # small values then look like the large ones
    return [form] * len(table)


def interval_columns(columns: Sequence[Hashable]) -> dict[Hashable, tuple[str, str]]:
    """Return which columns are the bounds of which: ``x_ci_low`` and ``x_ci_high`` are those of ``x``; see `BOUNDS`.

    >>> interval_columns(["test", "accuracy", "ci_low", "ci_high", "drop", "drop_ci_low", "drop_ci_high"])
    {'drop': ('drop_ci_low', 'drop_ci_high'), 'accuracy': ('ci_low', 'ci_high')}
    """
    found = {}
    for ends in BOUNDS:
        named = {column: tuple(f"{column}_{end}" for end in ends) for column in columns}
        found |= {column: pair for column, pair in named.items() if set(pair) <= set(columns) and column not in found}
    for ends in BOUNDS[:2]:
        owner = next((name for name in ESTIMATES if name in columns and name not in found), None)
        if owner and set(ends) <= set(columns):
            found[owner] = ends
    return found


def formatted_table(table: pd.DataFrame, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a table of texts, every number in the format of its column, interval bounds beside their estimate.

    A benchmark has its name of `TESTS`, a column that of `HEADS`.

    Args:
        table: any table; its index is not shown.
        columns: what is shown, in this order, bounds along with their estimates; None shows all but `UNSHOWN`.

    Raises:
        ValueError: a named column is not in the table.
    """
    missing = [column for column in columns or () if column not in table.columns]
    if missing:
        raise ValueError(f"no columns {', '.join(missing)}; the table has {', '.join(map(str, table.columns))}")
    intervals = interval_columns(list(table.columns))
    bounds = {bound for pair in intervals.values() for bound in pair}
    texts = pd.DataFrame(index=table.index)
    if "benchmark" in table:
        table = table.assign(benchmark=table.benchmark.replace(TESTS))
    for column in columns or [name for name in table.columns if name not in bounds and name not in UNSHOWN]:
        forms = _formats(table, column)
        cells = [format_value(value, form) for value, form in zip(table[column], forms, strict=True)]
        if column in intervals:
            ends = zip(*(table[bound] for bound in intervals[column]), forms, strict=True)
            cells = [cell + _interval(*end) for cell, end in zip(cells, ends, strict=True)]
        unit = forms[0].unit if forms and forms[0] else ""
        texts[f"{column} ({unit})" if unit else column] = cells
    return texts.rename(columns=HEADS)


def _interval(low: float, high: float, form: Format | None) -> str:
    """Return bounds as they follow their estimate; nothing where both are missing."""
    low, high = (format_value(bound, form and replace(form, mark="")) for bound in (low, high))
    return "" if low == high == MISSING else f" [{low},{NO_BREAK}{high}]"


def without_constants(texts: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a table of texts without the columns that say the same in every row, and what they say, in words.

    The first column stays, long texts stay, and so does a table of one row; a column without any text goes unnamed.

    >>> without_constants(pd.DataFrame({"test": ["a", "b"], "n_items": ["40", "40"], "family": ["", ""]}))[1]
    'n items 40'
    """
    if len(texts) < 2:
        return texts, ""
    first = {head: str(texts[head].iloc[0]) for head in texts.columns[1:]}
    same = {head: text for head, text in first.items() if len(text) <= LONGEST_NOTE and (texts[head] == text).all()}
    said = (f"{str(head).replace('_', ' ')} {text}" for head, text in same.items() if text)
    return texts.drop(columns=list(same)), ", ".join(said)


def table_html(texts: pd.DataFrame, caption: str = "") -> str:
    """Return a table of texts as HTML, all of it escaped."""
    texts = texts.rename(columns=lambda name: str(name).replace("_", " "))
    with pd.option_context("display.max_colwidth", None):
        page = texts.to_html(index=False, border=0, classes=ROOT_CLASS, escape=True)
    heads = cycle(html.escape(head, quote=True) for head in texts.columns)  # a phone shows a row as a list of them
    page = CELL.sub(lambda cell: f'<td{LONG if cell[1] else ""} data-label="{next(heads)}">', page)
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


@dataclass(frozen=True, repr=False)
class Shown:
    """What a page shows: HTML in a browser, and plain text where there is none; `glue` takes it to another place."""

    page: str
    plain: str

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return self.plain


def _clip(text: str, max_characters: int | None) -> str:
    """Shorten a text and say by how much."""
    if max_characters is None or len(text) <= max_characters:
        return text
    return f"{text[:max_characters]} … ({len(text) - max_characters} more characters)"


def shown(
    table: pd.DataFrame, caption: str = "", columns: Sequence[str] | None = None, max_rows: int | None = 40
) -> Shown:
    """Return a table as it is shown; how its numbers are written is told by the names of its columns, see `COLUMNS`.

    Args:
        table: any table.
        caption: plain text above it.
        columns: what is shown, in this order; None shows all, see `formatted_table`. What is the same in all rows
            moves to the caption.
        max_rows: rows shown; the caption says how many there are in all. None shows all.
    """
    texts, common = without_constants(formatted_table(table if max_rows is None else table.head(max_rows), columns))
    notes = [f"first {len(texts)} of {len(table):,} rows"] if len(texts) < len(table) else []
    notes += [f"all rows: {common}"] if common else []
    return _shown_texts(texts, f"{caption} ({'; '.join(notes)})".strip() if notes else caption)


def show(
    table: pd.DataFrame, caption: str = "", columns: Sequence[str] | None = None, max_rows: int | None = 40
) -> None:
    """Show a table, see `shown`."""
    display(shown(table, caption, columns, max_rows))


def _shown_texts(texts: pd.DataFrame, caption: str) -> Shown:
    return Shown(table_html(texts, caption), "\n".join(filter(None, [caption, texts.to_string(index=False)])))


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
    plain = "\n".join(filter(None, [title, _clip(text, max_characters)]))
    display(Shown(text_html(text, title, max_characters), plain))


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
    display(Shown(pairs_html(items, notes, max_characters), "\n".join(lines)))


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
    texts = pd.DataFrame(rows)
    display(_shown_texts(texts if texts.found.any() else texts.drop(columns="found"), caption))
    failed = [row["check"] + (f" ({row['found']})" if row["found"] else "") for row in rows if row["result"] == "FAIL"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(rows)} checks failed: {'; '.join(failed)}")
