"""Display: hostile text is shown, never run; tables say what they hold; failed checks stop."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.data import Item, Turn
from tension_utils.show import tables as display

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</script><b>x",
    "$$\\frac{1}{2}$$ \\(x\\)",
    "[click](javascript:alert(1))",
    "a & b < c > d ' \"",
    "<!-- x",
    "]]>",
    "\x00é–漢",
]
ALLOWED = {"div", "strong", "code", "br", "table", "thead", "tbody", "tr", "th", "td", "caption", "span"}


class Reader(HTMLParser):
    """Collects tags, attributes and text as a browser's parser would see them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def read(page: str) -> Reader:
    """Parse a page and check that only our own markup is in it."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.tags <= ALLOWED
    assert reader.attributes <= {"class", "style", "border"}
    return reader


@pytest.fixture
def shown(monkeypatch):
    """Collect what is displayed, as (HTML, plain) pairs."""
    pages = []
    monkeypatch.setattr(display, "display", lambda data, raw: pages.append((data["text/html"], data["text/plain"])))
    return pages


def hostile_item(text: str) -> Item:
    """Build an item that holds the text everywhere."""
    return Item(text, (Turn("human", text), Turn("assistant", text), Turn("human", text)), (text, text), (text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_not_run(text, shown):
    display.show_table(pd.DataFrame({text: [text], "other": [1.5]}), caption=text)
    display.show_text(text, title=text)
    display.show_pairs([hostile_item(text)], notes={text: text})
    display.check_table({text: (True, text)}, caption=text)
    assert len(shown) == 4
    for (page, plain), times in zip(shown, [3, 2, 8, 3], strict=True):
        reader = read(page)
        assert reader.text.count(text) == times, "every occurrence is readable as it was"
        assert "mathjax_ignore" in page
        assert text in plain or "\x00" in text


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_adds_no_markup(text):
    read(display.pairs_html([hostile_item(text)], {text: text}))
    read(display.text_html(text, text, 10))
    read(display.table_html(pd.DataFrame({text: [text]}), text))


def test_numbers_are_formatted():
    table = pd.DataFrame(
        {
            "objective": ["helpful"],
            "accuracy": [0.8125],
            "ci_low": [0.77],
            "ci_high": [0.8512],
            "n_items": [1234],
            "p_value": [0.00012],
            "margin": [np.nan],
            "is_tied": [np.True_],
        }
    )
    texts = display.formatted_table(table, percent=["accuracy"], intervals={"accuracy": ("ci_low", "ci_high")})
    assert texts.to_dict("records") == [
        {
            "objective": "helpful",
            "accuracy": "81.2\u00a0% [77.0,\u00a085.1]",
            "n_items": "1,234",
            "p_value": "<\u00a00.001",
            "margin": "–",
            "is_tied": "yes",
        }
    ]
    with pytest.raises(ValueError, match="no columns precision; the table has objective, accuracy"):
        display.formatted_table(table, percent=["precision"])


def test_long_tables_and_texts_say_what_is_left_out(shown):
    display.show_table(pd.DataFrame({"a": range(100)}), caption="Rows", max_rows=3)
    display.show_text("x" * 50, max_characters=10)
    display.show_table(pd.DataFrame({"a": ["y" * 200]}))
    assert "Rows (first 3 of 100 rows)" in read(shown[0][0]).text
    assert "x" * 10 + " … (40 more characters)" in read(shown[1][0]).text
    assert "y" * 200 in read(shown[2][0]).text


def test_checks_pass_or_stop_after_they_are_shown(shown):
    display.check_table({"one": True, "two": (np.True_, "found 2")})
    assert read(shown[0][0]).text.count("pass") == 2
    with pytest.raises(AssertionError, match=r"2 of 3 checks failed: second; third \(found 7, expected 8\)"):
        display.check_table({"first": True, "second": False, "third": (False, "found 7, expected 8")})
    assert read(shown[1][0]).text.count("FAIL") == 2
    with pytest.raises(TypeError, match=r"'array': expected True or False.*\.all\(\)"):
        display.check_table({"array": np.array([True, False])})
    with pytest.raises(ValueError, match="at least one check"):
        display.check_table({})


def test_a_value_without_interval_stands_alone():
    table = pd.DataFrame({"x": [1.0, 2.0], "low": [np.nan, 1.5], "high": [np.nan, 2.5]})
    texts = display.formatted_table(table, digits=1, intervals={"x": ("low", "high")})
    assert [text.replace(display.NO_BREAK, " ") for text in texts.x] == ["1.0", "2.0 [1.5, 2.5]"]


def test_columns_of_floats_are_written_by_what_they_are():
    table = pd.DataFrame(
        {
            "n_neurons": [1408.0, 141.0],
            "n_shared": [43.0 + 1 / 3, 7.0],
            "q_adjusted": [0.00061, 0.5],
            "slope": [-0.00067, 0.12],
            "tiny": [0.00012, -6.91e-05],
            "effect": [0.0125, -0.0001],
            "low": [-0.02, np.nan],
            "high": [0.034, np.nan],
        }
    )
    texts = display.formatted_table(table, intervals={"effect": ("low", "high")}, points=["effect"])
    assert texts.to_dict("list") == {
        "n_neurons": ["1,408", "141"],  # means of equal counts are counts
        "n_shared": ["43.3", "7"],
        "q_adjusted": ["<\u00a00.001", "0.500"],
        "slope": ["-0.001", "0.120"],
        "tiny": ["0.00012", "-6.91e-05"],  # zeros would say nothing
        "effect (points)": ["+1.2 [-2.0,\u00a0+3.4]", "+0.0"],
    }
    with pytest.raises(ValueError, match="no columns gain"):
        display.formatted_table(table, points=["gain"])


def test_long_texts_get_room_and_captions_stay_in_sight():
    page = display.table_html(pd.DataFrame({"a": ["word " * 12, "short"], "b": ["<b>" * 20, "x"]}), caption="Words")
    assert page.count('<td class="long">') == 2 and page.count("<td>") == 2
    assert "<caption" in page and "<span>Words</span></caption>" in page
