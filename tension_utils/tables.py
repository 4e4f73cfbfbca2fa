"""Tables as texts and as HTML: numbers by what they are, and every text escaped."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

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
