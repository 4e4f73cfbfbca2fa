"""Display: hostile text is shown, never run; tables say what they hold; failed checks stop."""

import re
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
    assert reader.attributes <= {"class", "style", "border", "data-label"}
    return reader


@pytest.fixture
def shown(monkeypatch):
    """Collect what is displayed, as (HTML, plain) pairs."""
    pages = []
    monkeypatch.setattr(display, "display", lambda out: pages.append((out._repr_html_(), repr(out))))
    return pages


def hostile_item(text: str) -> Item:
    """Build an item that holds the text everywhere."""
    return Item(text, (Turn("human", text), Turn("assistant", text), Turn("human", text)), (text, text), (text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_not_run(text, shown):
    display.show(pd.DataFrame({text: [text], "other": [1.5]}), caption=text)
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


def written(table: dict, columns: list[str] | None = None) -> dict[str, list[str]]:
    """Return the texts of a table by their heads, with plain spaces."""
    texts = display.formatted_table(pd.DataFrame(table), columns)
    return {head: [cell.replace(display.NO_BREAK, " ") for cell in texts[head]] for head in texts}


@settings(deadline=None)
@given(
    st.text(max_size=40),
    st.sampled_from(["", "n_", "_ci_low", "accuracy", "metric", "effect", "is_"]),
    st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=20)),
)
def test_no_text_of_a_table_becomes_a_tag(text, name, value):
    row = {"metric": text, name + text: value, text: text, "effect": 1.0}
    texts, note = display.without_constants(display.formatted_table(pd.DataFrame([row, row | {"effect": 2.0}])))
    page = display.table_html(texts, text + note)
    assert read(page).tags <= {"table", "thead", "tbody", "tr", "th", "td", "caption", "span"}


def test_cells_carry_the_head_of_their_column_for_narrow_screens():
    page = display.table_html(pd.DataFrame({"n_items": ["1", "2"], 'a "b" <c>': ["3", "4"]}))
    assert re.findall(r'data-label="([^"]*)">(\d)', page) == [
        *(("n items", "1"), ("a &quot;b&quot; &lt;c&gt;", "3")),
        *(("n items", "2"), ("a &quot;b&quot; &lt;c&gt;", "4")),
    ]


def test_a_column_is_written_as_its_name_says():
    table = {
        "objective": ["helpful"],
        "accuracy": [0.8125],
        "ci_low": [0.77],
        "ci_high": [0.8512],
        "n_items": [1234],
        "p_value": [0.00012],
        "margin": [np.nan],
        "is_tied": [np.True_],
        "seconds_per_set": [0.4567],
        "seconds": [1234.5],
        "jaccard_chance": [0.0526],
        "first_third": [1 / 3],
        "loss": [0.69314],
        "length_bias": [-0.123],
    }
    assert written(table) == {
        "objective": ["helpful"],
        "accuracy": ["81.2 %"],  # here the interval is that of the difference
        "n_items": ["1,234"],
        "p_value": ["< 0.001"],
        "margin": ["–"],
        "is_tied": ["yes"],
        "seconds_per_set": ["0.457"],
        "seconds": ["1,234"],
        "jaccard_chance": ["0.053"],
        "first_third": ["33.3 %"],
        "loss": ["0.693"],
        "length_bias (points)": ["-12.3 [+77.0, +85.1]"],
    }
    table.pop("length_bias")
    assert written(table)["accuracy"] == ["81.2 % [77.0, 85.1]"]


def test_a_table_shows_what_is_asked_for_in_that_order():
    table = {"test": ["own"], "n_clusters": [7], "drop": [0.5], "drop_ci_low": [0.25], "drop_ci_high": [0.75]}
    assert written(table) == {"test": ["own"], "drop": ["0.500 [0.250, 0.750]"]}
    assert written(table, ["drop", "n_clusters"]) == {"drop": ["0.500 [0.250, 0.750]"], "n_clusters": ["7"]}
    with pytest.raises(ValueError, match="no columns precision; the table has test, n_clusters"):
        display.formatted_table(pd.DataFrame(table), ["precision"])


def test_training_runs_are_called_so_for_base_models_add_theirs():
    assert written({"accuracy": [0.5], "n_seeds": [4]}) == {"accuracy": ["50.0 %"], "n_runs": ["4"]}


def test_test_pairs_are_named_after_what_they_are_and_not_after_a_data_set():
    table = pd.DataFrame({"benchmark": ["hh-rlhf", "rm-bench"], "n_items": [1, 2]})
    assert display.formatted_table(table).benchmark.tolist() == ["preference pairs", "rm-bench"]
    assert table.benchmark[0] == "hh-rlhf", "the table stays as it was"


def test_what_all_rows_share_is_said_once(shown):
    table = pd.DataFrame({"test": ["own", "own"], "effect": [0.1, 0.2], "n_items": [40, 40], "note": ["x" * 99] * 2})
    display.show(table.assign(chance=0.5, family="", p_value=np.nan), caption="Effects", max_rows=2)
    display.show(table.head(1), caption="One")
    display.show(table, max_rows=1)
    page = read(shown[0][0]).text
    assert "Effects (all rows: n items 40, chance 50.0\u00a0%, p value –)" in page and "family" not in page
    assert page.count("own") == 2 and page.count("x" * 99) == 2
    assert "n items" in read(shown[1][0]).text and "all rows" not in read(shown[1][0]).text
    assert "(first 1 of 2 rows)" in read(shown[2][0]).text


def test_bounds_stand_beside_their_estimate():
    assert written({"jaccard": [0.5, 0.25], "lowest": [np.nan, 0.2], "highest": [np.nan, 0.3]}) == {
        "jaccard": ["0.500", "0.250 [0.200, 0.300]"]  # one pair has no range
    }
    effects = {"control": [-0.07], "control_low": [-0.1], "control_high": [-0.05]}
    effects |= {"change": [-0.2], "effect": [-0.13], "ci_low": [-0.2], "ci_high": [np.nan]}
    assert written(effects) == {
        "control (points)": ["-7.0 [-10.0, -5.0]"],
        "change (points)": ["-20.0"],
        "effect (points)": ["-13.0 [-20.0, –]"],
    }
    assert written({"found": [1.0], "ci_low": [0.5], "ci_high": [2.0]}) == {
        "found": ["1.000"],  # nobody said that these are its bounds
        "ci_low": ["0.500"],
        "ci_high": ["2.000"],
    }


def test_the_metric_of_a_row_decides_the_unit_of_its_effect():
    table = {"metric": ["accuracy", "accuracy"], "effect": [0.0125, -0.0001], "ci_low": [-0.02, np.nan]}
    table["ci_high"] = [0.034, np.nan]
    assert written(table, ["effect"]) == {"effect (points)": ["+1.2 [-2.0, +3.4]", "+0.0"]}
    assert written(table | {"metric": ["margin"] * 2}, ["effect"]) == {
        "effect (SD)": ["+0.013 [-0.020, +0.034]", "+0.000"]
    }
    assert written(table | {"metric": ["margin", "accuracy"]}, ["effect"]) == {
        "effect": ["+0.013 SD [-0.020, +0.034]", "+0.0 points"]
    }
    assert written(table | {"metric": ["accuracy", "other"]}, ["effect"]) == {
        "effect": ["+1.2 points [-2.0, +3.4]", "-0.0001"]
    }


def test_long_tables_and_texts_say_what_is_left_out(shown):
    display.show(pd.DataFrame({"a": range(100)}), caption="Rows", max_rows=3)
    display.show_text("x" * 50, max_characters=10)
    display.show(pd.DataFrame({"a": ["y" * 200]}))
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


def test_columns_of_floats_are_written_by_what_they_are():
    table = {
        "n_neurons": [1408.0, 141.0],
        "n_shared": [43.0 + 1 / 3, 7.0],
        "q_value": [0.00061, 0.5],
        "slope": [-0.00067, 0.12],
        "growth": [-0.00067, 0.12],
        "tiny": [0.00012, -6.91e-05],
    }
    assert written(table) == {
        "n_neurons": ["1,408", "141"],  # means of equal counts are counts
        "n_shared": ["43.3", "7"],
        "q_value": ["< 0.001", "0.500"],
        "slope": ["-0.001", "0.120"],
        "growth": ["-0.001", "0.120"],
        "tiny": ["0.00012", "-6.91e-05"],  # zeros would say nothing
    }


def test_long_texts_get_room_and_captions_stay_in_sight():
    page = display.table_html(pd.DataFrame({"a": ["word " * 12, "short"], "b": ["<b>" * 20, "x"]}), caption="Words")
    assert page.count('<td class="long"') == 2 and page.count("<td data-label") == 2
    assert "<caption" in page and "<span>Words</span></caption>" in page
