"""A scored pair on a page: the strongest tokens in words, hostile text is text, and the form waits."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_display import HOSTILE

from tension_utils.show import widgets


@dataclass
class Tokens:
    pieces: tuple[str, ...]
    values: tuple[float, ...]


@dataclass
class Pair:
    rewards: pd.DataFrame
    tokens: dict = field(default_factory=dict)


class Reader(HTMLParser):
    """Collects tags with their attributes, and text, as a browser's parser would."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def pair_of(name: str, tokens: Tokens) -> Pair:
    rewards = pd.DataFrame({"objective": [name], "reward_A": [1.0], "reward_B": [-0.5], "prefers": ["A"]})
    return Pair(rewards, {(name, "A"): tokens, (name, "B"): Tokens((" no",), (-2.0,))})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text):
    page = widgets.pair_html(pair_of(text, Tokens((text, "b"), (0.5, -0.5))))
    reader = Reader(page)
    assert {tag for tag, _ in reader.tags} <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
    assert {name for _, attributes in reader.tags for name in attributes} <= {"class", "style", "border", "data-label"}
    assert reader.text.replace("\x00", "").replace("\ufffd", "").count(text.replace("\x00", "")) == 3


def test_a_pair_by_hand():
    tokens = Tokens((" a", "\n", " c", "d", " e", " f"), (1.0, -1.5, 0.05, 0.5, 0.6, 0.7))
    first, second = widgets.pair_table(pair_of("helpful", tokens)).to_dict("records")
    assert first == {
        "model": "helpful",
        "response": "A, preferred",
        "reward": "+1.00",
        "raise it most": "“a”\xa0+1.00, “f”\xa0+0.70, “e”\xa0+0.60",
        "lower it most": "“␣”\xa0-1.50",
    }
    assert (second["response"], second["raise it most"], second["lower it most"]) == ("B", "", "“no”\xa0-2.00")


@given(st.lists(st.tuples(st.text(max_size=6), st.floats(-5, 5)), max_size=12), st.sampled_from([1, -1]))
def test_the_strongest_are_named_in_order_and_weak_ones_are_not(tokens, sign):
    pieces, values = zip(*tokens, strict=True) if tokens else ((), ())
    scale = max(map(abs, values), default=0.0)
    named = [value for value in sorted(values, key=lambda value: -sign * value) if sign * value > 0]
    named = [value for value in named if abs(value) >= widgets.MIN_SHARE * scale][: widgets.N_TOKENS]
    text = widgets.strongest(Tokens(pieces, values), sign, scale)
    assert text.endswith(f"{named[-1]:+.2f}") if named else text == ""


def test_the_form_wakes_on_an_edit_and_answers():
    asked = []

    def score(*texts: str) -> Pair:
        asked.append(texts)
        if not texts[0].strip():
            raise ValueError("prompt <is> empty")
        return pair_of("helpful", Tokens((" a",), (1.0,)))

    *texts, button, output = widgets.pair_form(score, ("p", "a", "b")).children
    assert button.disabled and "make lab" in output.value, "as saved for the page: nothing would answer"
    texts[1].value = "another"
    assert not button.disabled
    button.click()
    assert asked == [("p", "another", "b")] and "<table" in output.value
    texts[0].value = " "
    button.click()
    assert "Not scored" in output.value and "prompt &lt;is&gt; empty" in output.value
