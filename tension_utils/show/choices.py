"""A drawing with lists to choose from, in a page without a kernel: its states are numbers, a small script draws them.

Everything is in the output itself, so it works from a file, offline, in Jupyter and on a page; without scripts a table
has the same numbers.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import pandas as pd
from IPython.display import display

from tension_utils.config import check_choice
from tension_utils.show.tables import ROOT_CLASS, formatted_table, table_html, without_constants

DRAWINGS = ("removal", "worlds")  # what `choices.js` can draw

NO_SCRIPTS = "Choosing needs scripts, which are off here; the table has every number."

ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}  # JSON that no HTML parser reads as markup


@dataclass(frozen=True)
class Choices:
    """States of a drawing, and the choices that lead to them.

    Args:
        drawing: of `DRAWINGS`.
        labels: a row of texts per state, a column per list to choose from. A list narrows those to its right, and no
            two states have the same labels.
        states: per state what its drawing reads, and "say", its sentence.
        shared: what the drawings of several states read.
        start: number of the state that is shown first.
    """

    drawing: str
    labels: pd.DataFrame
    states: Sequence[Mapping]
    shared: Mapping = field(default_factory=dict)
    start: int = 0

    def __post_init__(self) -> None:
        check_choice("drawing", self.drawing, DRAWINGS)
        if not 0 <= self.start < len(self.states) == len(self.labels):
            raise ValueError(
                f"expected a row of labels per state and one of them as start; got {len(self.labels)} rows, "
                f"{len(self.states)} states, start {self.start}"
            )
        if self.labels.duplicated().any():
            twice = self.labels[self.labels.duplicated()].iloc[0].to_dict()
            raise ValueError(f"expected one state per choice; two have {twice}: add the column that tells them apart")

    @property
    def payload(self) -> dict:
        """What the script reads: lists that leave something to choose, and per state the option of each."""
        named = self.labels.loc[:, self.labels.nunique() > 1]
        codes = {name: pd.factorize(named[name]) for name in named}
        controls = [{"name": name, "options": list(options)} for name, (_, options) in codes.items()]
        at = zip(*(of_list.tolist() for of_list, _ in codes.values()), strict=True) if codes else [()]
        states = [{"at": list(options), **state} for options, state in zip(at, self.states, strict=True)]
        return {"drawing": self.drawing, "controls": controls, "states": states, "start": self.start, **self.shared}


def embedded(value: object) -> str:
    r"""Return a value as JSON that stands inside a page's script element, whatever its texts hold.

    >>> embedded(["</script>", 0.5])
    '["\\u003c/script\\u003e",0.5]'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(ESCAPES)


def choices_html(choices: Choices, table: pd.DataFrame, caption: str, key: str = "") -> str:
    """Return lists, drawing and sentence, and below them a folded table of the same numbers.

    The table shows the chosen state and those that one other choice leads to; without scripts, all.

    Args:
        choices: the states.
        table: of the same numbers, a row per state; how they are written is told by the names of its columns.
        caption: of the table, plain text.
        key: what the marks of the drawing stand for, plain text.

    Raises:
        ValueError: the table has not as many rows as there are states.
    """
    if len(table) != len(choices.states):
        raise ValueError(f"expected a row per state, {len(choices.states)}; the table has {len(table)}")
    texts, common = without_constants(formatted_table(table))
    rows = table_html(texts, f"{caption} (all rows: {common})" if common else caption)
    style, script = ((files("tension_utils.show") / f"choices.{end}").read_text("utf-8") for end in ("css", "js"))
    return (
        f'<div class="{ROOT_CLASS} choices"><style>{style}</style><div class="live"><p>{NO_SCRIPTS}</p></div>'
        f'<p class="key">{html.escape(key)}</p>'
        f"<details><summary>All in numbers</summary><div>{rows}</div></details>"
        f'<script type="application/json">{embedded(choices.payload)}</script><script>{script}</script></div>'
    )


def show_choices(choices: Choices, table: pd.DataFrame, caption: str, key: str = "") -> None:
    """Show what `choices_html` says, in a page or in Jupyter; where there is no browser, the first sentence."""
    page = choices_html(choices, table, caption, key)
    display({"text/html": page, "text/plain": choices.states[choices.start]["say"]}, raw=True)
